"""Edits of the model: its layers, its residual stream and both of its ends."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import libcst as cst

from miner.proposers.edits.patterns import (
    DoesNotFit,
    Statement,
    around,
    code,
    expression,
    find,
    functions,
    guarded,
    match,
    require,
    rewrite,
    rewrite_by,
    statements,
    swap,
    text_of,
)

_LINEAR = ("nn.Linear(_a, _b, bias=False)", "nn.Linear(_a, _b)", "Linear(_a, _b)")
_GATED = "(lambda gate, value: nn.silu(gate) * value)(*mx.split(_x, 2, axis=-1))"
SQUARE = (
    "mx.maximum(_x, 0) ** 2",
    "mx.maximum(_x, 0.0) ** 2",
    "nn.relu(_x) ** 2",
    "nn.relu(_x).square()",
    "mx.square(nn.relu(_x))",
    "mx.square(mx.maximum(_x, 0))",
    "nn.relu2(_x)",
)
PLAIN = ("nn.silu(_x)", "nn.gelu(_x)", "nn.relu(_x)")
_EMBEDDING = re.compile(r"self\.(\w*(?:emb|wte|tok)\w*)(?:: \S+)? = (?:nn\.Embedding|Table|Matrix)\(")
_LOOP = re.compile(r"^for .*\bself\.(blocks|layers|h)\b|^for \w+ in range\(self\.config\.n_layer\)")


def gated_mlp(tree: cst.Module) -> cst.Module:
    """SwiGLU at the same size: the first layer makes gates and values, of five eighths of the hidden width."""
    pairs = [(held["_a"], held["_b"]) for pattern in _LINEAR for held in find(tree, pattern)]
    texts = {(code(a), code(b)) for a, b in pairs}
    hidden = {b for a, b in texts if (b, a) in texts and a != b and len(b) > len(a)}
    if not hidden:
        return _gated_tables(tree)
    require(len(hidden) == 1, "no two Linear layers that widen and narrow again")
    wide = next(b for _, b in pairs if code(b) in hidden)
    half = f"(5 * ({code(wide)}) // 8)"

    def narrowed(node: cst.BaseExpression) -> cst.BaseExpression | None:
        for pattern in _LINEAR:
            held = match(expression(pattern), node)
            if held is not None and isinstance(node, cst.Call):
                first, second = code(held["_a"]), code(held["_b"])
                if second in hidden:
                    return _arguments(node, first, f"2 * {half}")
                if first in hidden:
                    return _arguments(node, half, second)
        return None

    tree = rewrite_by(tree, narrowed, "", "no Linear layers")
    return rewrite(tree, [(pattern, _GATED) for pattern in (*SQUARE, *PLAIN)])


def _gated_tables(tree: cst.Module) -> cst.Module:
    """The same where both layers are made alike, the narrowing one used the other way round."""
    made = re.compile(r"self\.(up|down) = (\w+)\((\w+), ([^,()\n]+)(, \w+=[^,()\n]+)?\)")
    lines = {found[1]: found for found in made.finditer(text_of(tree))}
    if len(lines) != 2 or len({found[2] + found[3] + found[4] for found in lines.values()}) != 1:
        raise DoesNotFit("no two Linear layers that widen and narrow again")

    def change(statement: Statement) -> list[Statement]:
        found = made.match(code(statement).strip().split("\n")[-1])
        require(found, "the layers are made with comments in between")
        assert found is not None
        width = f"5 * ({found[4]}) // 8"
        width = f"2 * ({width})" if found[1] == "up" else width
        return statements(f"self.{found[1]} = {found[2]}({found[3]}, {width}{found[5] or ''})\n")

    tree = around(tree, lambda t: bool(made.match(t)), change)
    return rewrite(tree, [(pattern, _GATED) for pattern in (*SQUARE, *PLAIN)])


def _arguments(call: cst.Call, *texts: str) -> cst.Call:
    """The call with its first arguments replaced."""
    changed = [arg.with_changes(value=expression(text)) for arg, text in zip(call.args, texts, strict=False)]
    return call.with_changes(args=[*changed, *call.args[len(texts) :]])


def squared_relu(tree: cst.Module) -> cst.Module:
    """Squared ReLU in place of an activation without a square."""
    require(not any(find(tree, pattern) for pattern in SQUARE), "squared ReLU already")
    return rewrite(tree, [(pattern, "nn.relu(_x) ** 2") for pattern in PLAIN])


def _no_written_gradient(tree: cst.Module) -> None:
    require(
        "custom_function" not in text_of(tree), "the loss has a gradient written by hand, which must fit the logits"
    )


def uncapped(tree: cst.Module) -> cst.Module:
    """Logits without tanh."""
    _no_written_gradient(tree)
    return rewrite(tree, [("_c * mx.tanh(_l / _c)", "_l")])


def capped(tree: cst.Module) -> cst.Module:
    """tanh on logits that have none."""
    _no_written_gradient(tree)
    require("tanh" not in text_of(tree), "the logits have a cap")
    cap = "logits = 15.0 * mx.tanh(logits / 15.0)\n"
    return around(tree, lambda t: t.startswith("logits = ") and "float32" in t, lambda s: [s, *statements(cap)])


def plain_logits(tree: cst.Module) -> cst.Module:
    """Logits as they come."""
    _no_written_gradient(tree)

    def plain(statement: Statement) -> list[Statement]:
        changed = rewrite(cst.Module([statement]), [("_x.astype(mx.float32)", "_x")])
        return list(changed.body)

    return around(tree, lambda t: t.startswith("logits = ") and ".astype(mx.float32)" in t, plain)


def _embedding(tree: cst.Module) -> str:
    """The attribute that embeds the tokens."""
    found = _EMBEDDING.search(text_of(tree))
    if found is None:
        raise DoesNotFit("no embedding of the tokens")
    return found[1]


def tied(tree: cst.Module) -> cst.Module:
    """The head is the embedding's matrix."""
    name, text = _embedding(tree), text_of(tree)
    head = re.search(r"self\.(\w*head\w*) = nn\.Linear\(", text)
    require(head and f"self.{name} = nn.Embedding(" in text, "no nn.Embedding beside an nn.Linear named head")
    require("as_linear" not in text, "the script ties them itself, by a switch")
    assert head is not None
    return rewrite(tree, [(f"self.{head[1]}(_x)", f"self.{name}.as_linear(_x)")])


def raw_embedding(tree: cst.Module) -> cst.Module:
    """No norm between the embedding and the first block."""
    name = _embedding(tree)
    if find(tree, f"norm(self.{name}(_t))"):
        return rewrite(tree, [(f"norm(self.{name}(_t))", f"self.{name}(_t)")])
    summed = f"norm(self.{name}.rows(_t) + _n)"
    if find(tree, summed):
        return rewrite(tree, [(summed, f"self.{name}.rows(_t) + _n")])
    seen = False

    def first(text: str) -> bool:
        nonlocal seen
        if f"self.{name}(" in text and text.startswith("x = "):
            seen = True
        elif seen and text == "x = norm(x)":
            seen = False
            return True
        return False

    return around(tree, first, lambda _: [])


def smear(tree: cst.Module) -> cst.Module:
    """A fifth of the token before."""
    return _once_embedded(tree, "x = mx.concatenate([x[:, :1], x[:, 1:] + 0.2 * x[:, :-1]], axis=1)\n")


def _once_embedded(tree: cst.Module, text: str) -> cst.Module:
    """These statements after that which looks the tokens up into x."""
    looked_up = re.compile(rf"x = .*self\.{_embedding(tree)}(\.rows)?\(", re.DOTALL)
    return around(tree, lambda t: looked_up.match(t) is not None, lambda s: [s, *statements(text)])


PAIRS = 65536  # rows of the table of pairs, which share them by chance


def pair_embeddings(tree: cst.Module) -> cst.Module:
    """A table says of each pair of tokens what it adds to the second one's embedding, nothing at first.

    It is named like the embedding, so that optimizers that go by names give it that rate; what is looked up counts a
    tenth, which is a tenth of the rate to an optimizer that normalises, and is cast so that the stream stays as it is.
    """
    name, text = _embedding(tree), text_of(tree)
    require(not re.search(r"n_?gram|pairs", text), "it has such a table already")
    made = re.search(rf"self\.{name} = nn\.Embedding\([^,()]+, ([^()]+)\)\n", text)
    looked_up = re.search(rf"^\s+x = .*self\.{name}\((\w+)\)", text, re.MULTILINE)
    if not (made and looked_up):
        raise DoesNotFit("no nn.Embedding that is looked up into x")
    tokens, pairs = looked_up[1], f"self.{name}_pairs"
    table = f"{pairs} = nn.Embedding({PAIRS}, {made[1]})\n{pairs}.weight = mx.zeros_like({pairs}.weight)\n"
    added = (
        f"before = mx.pad({tokens}[:, :-1], ((0, 0), (1, 0)))\n"
        f"pairs = {pairs}((before * 36313 ^ {tokens} * 27191) % {PAIRS})\n"
        "x = x + (0.1 * pairs).astype(x.dtype)\n"
    )
    tree = around(tree, lambda t: t.startswith(f"self.{name} = nn.Embedding("), lambda s: [s, *statements(table)])
    return _once_embedded(tree, added)


def values_everywhere(tree: cst.Module) -> cst.Module:
    """Every layer has a value embedding."""
    return rewrite(tree, [("_i % 2 == (_n - 1) % 2", "True"), ("(_n - 1 - _i) % 2 == 0", "True")])


def value_embeddings(tree: cst.Module) -> cst.Module:
    """Each layer adds an embedding of the token to its values: attention(x) becomes attention(x, values)."""
    text = text_of(tree)
    require("value_embed" not in text and "has_ve" not in text and "value_tables" not in text, "it has them already")
    blocks = re.search(r"self\.blocks = \[Block\(\) for _ in range\((\w+)\)\]", text)
    embedding = re.search(r"self\.(\w+) = nn\.Embedding\((\w+), (\w+)\)", text)
    call = re.search(r"self\.(\w+)\(norm\(x\)\)", text)
    shape = re.search(r"\.reshape\((\w+), (\w+), (self\.\w+), (\w+)\)\.transpose\(0, 2, 1, 3\)", text)
    loop = re.search(r"for block in self\.blocks:\n\s+x = block\(x\)", text)
    tokens = re.search(r"self\.\w+\((\w+)\)\)\n\s+for block in", text)
    if not (blocks and embedding and call and shape and loop and tokens):
        raise DoesNotFit("no blocks in a list with attention of one argument, or values that are not split as expected")
    b, t, heads, width = shape.groups()
    table = f"self.value_embeds = [nn.Embedding({embedding[2]}, {embedding[3]}) for _ in range({blocks[1]})]\n"
    tree = around(tree, lambda s: s.startswith("self.blocks = "), lambda s: [s, *statements(table)])
    tree = rewrite(tree, [(f"self.{call[1]}(norm(x))", f"self.{call[1]}(norm(x), values)")], "Block")
    added = f"v = v + values.reshape({b}, {t}, {heads}, {width}).transpose(0, 2, 1, 3)\n"
    tree = around(tree, lambda s: "scaled_dot_product_attention" in s, lambda s: [*statements(added), s])
    inner = (
        f"for block, embed in zip(self.blocks, self.value_embeds, strict=True):\n    x = block(x, embed({tokens[1]}))\n"
    )
    tree = around(tree, lambda s: s.startswith("for block in self.blocks"), lambda _: statements(inner))
    return _with_argument(tree, "values", lambda body: "values" in body and "value_embeds" not in body)


def _with_argument(tree: cst.Module, name: str, wanted: Callable[[str], bool]) -> cst.Module:
    """Every `__call__(self, x)` whose body uses the name gets it as an argument."""

    class Adding(cst.CSTTransformer):
        def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:
            body = code(updated_node.body)
            if updated_node.name.value != "__call__" or not wanted(body):
                return updated_node
            params = [*updated_node.params.params, cst.Param(cst.Name(name))]
            return updated_node.with_changes(params=updated_node.params.with_changes(params=params))

    return tree.visit(Adding())


def _branches(tree: cst.Module, change: str) -> cst.Module:
    """What each residual branch `x + branch(norm(x))` of a block becomes; `_b` in `change` is the branch."""

    def changed(node: cst.BaseExpression) -> cst.BaseExpression | None:
        if not (isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Add)):
            return None
        left, right = node.left, node.right
        if not (isinstance(left, cst.Name) and isinstance(right, cst.Call) and code(right.func).startswith("self.")):
            return None
        if f"norm({left.value})" not in code(right):
            return None
        return node.with_changes(right=guarded(expression(change.replace("_b", code(right)))))

    return rewrite_by(tree, changed, r"Block|Layer", "no residual branches x + branch(norm(x)) in a Block")


def peri_norm(tree: cst.Module) -> cst.Module:
    """x + norm(branch(norm(x)))."""
    return _branches(tree, "norm(_b)")


def half_branches(tree: cst.Module) -> cst.Module:
    """x + branch(norm(x)) / 2."""
    return _branches(tree, "0.5 * _b")


def parallel(tree: cst.Module) -> cst.Module:
    """Both branches read the same stream."""
    sums = re.compile(r"(x = |return )x \+ (.*norm\(x\).*)$", re.DOTALL)
    first: list[str] = []

    def both(text: str) -> bool:
        return bool(sums.match(text)) and "self." in text

    def change(statement: Statement) -> list[Statement]:
        found = sums.match(code(statement).strip())
        if found is None:
            raise DoesNotFit("the branches stand with comments between them")
        if not first:
            first.append(found[2])
            return statements(f"beside = {found[2]}\n")
        require(len(first) == 1, "more than two residual branches")
        first.append("")
        return statements(f"{found[1]}x + beside + {found[2]}\n")

    changed = around(tree, both, change)
    require(len(first) == 2, "not two residual branches in turn")
    return changed


def embedding_skip(tree: cst.Module) -> cst.Module:
    """A tenth of what entered the first block, before each one."""
    require(not re.search(r"\bx0\b|bottom|x0_lambdas", text_of(tree)), "it has such a skip already")
    loop = "first = x\nfor block in self.blocks:\n    x = block(x + 0.1 * first)\n"
    return around(
        tree,
        lambda t: t == "for block in self.blocks:",
        lambda s: statements(loop) if "x = block(x)" in code(s) else _no("the loop does more than x = block(x)"),
    )


def _no(words: str) -> list[Statement]:
    raise DoesNotFit(words)


def unet(tree: cst.Module) -> cst.Module:
    """The output of an early block is added before its mirror image."""
    require("skips" not in text_of(tree), "it has such skips already")

    def change(loop: Statement) -> list[Statement]:
        found = _LOOP.match(code(loop).strip())
        require(isinstance(loop, cst.For) and found and "x = " in code(loop), "no loop over the blocks")
        assert isinstance(loop, cst.For)
        count = f"len(self.{found[1]})" if found and found[1] else "self.config.n_layer"
        before = statements(f"if skips and layer >= ({count} + 1) // 2:\n    x = x + 0.5 * skips.pop()\n")
        after = statements(f"if layer < {count} // 2:\n    skips.append(x)\nlayer += 1\n")
        assert isinstance(loop.body, cst.IndentedBlock)
        body = loop.body.with_changes(body=[*before, *loop.body.body, *after])
        return [*statements("skips, layer = [], 0\n"), loop.with_changes(body=body)]

    seen = False

    def wanted(text: str) -> bool:
        nonlocal seen
        if _LOOP.match(text) and not seen and "value" not in text.split(" in ")[0]:
            seen = "enumerate" in text or text.startswith(("for block", "for i "))
            return seen
        return False

    return _in_call(tree, wanted, change)


def _in_call(
    tree: cst.Module, wanted: Callable[[str], bool], change: Callable[[Statement], Sequence[Statement]]
) -> cst.Module:
    """`around` within the model's own `__call__`, the last of that name that loops over its blocks."""
    found = [f for f in functions(tree) if f.name.value == "__call__" and re.search(r"\n\s+for ", code(f))]
    require(found, "no __call__ with a loop over the blocks")
    own = cst.Module([found[-1]])
    changed = around(own, wanted, change)
    return swap(tree, found[-1], changed.body[0])


def qk_norm(tree: cst.Module) -> cst.Module:
    """norm(rope(q)), norm(rope(k))."""
    require("def norm(" in text_of(tree), "no function norm")
    require(
        not find(tree, "norm(self.rope(_x))") and not re.search(r"norm\(self\.\w*q", text_of(tree)),
        "it has them already",
    )
    return rewrite(tree, [("self.rope(_x)", "norm(self.rope(_x))")])


def sharper(tree: cst.Module) -> cst.Module:
    """Scores times 1.2."""

    def change(node: cst.BaseExpression) -> cst.BaseExpression | None:
        if not (isinstance(node, cst.Call) and code(node.func).endswith("scaled_dot_product_attention")):
            return None
        args = [
            arg.with_changes(value=expression(f"1.2 * ({code(arg.value)})"))
            if arg.keyword is not None and arg.keyword.value == "scale"
            else arg
            for arg in node.args
        ]
        return node.with_changes(args=args)

    return rewrite_by(tree, change, "", "no scaled_dot_product_attention")


def shifted_keys(tree: cst.Module) -> cst.Module:
    """Keys of a token and the one before it: a query finds what came after what it knows."""
    before = "mx.concatenate([x[:, :1], x[:, 1:] + x[:, :-1]], axis=1)"
    names = ("k", "c_k", "k_proj", "key", "wk", "to_k")
    return rewrite(tree, [(f"self.{name}(x)", f"self.{name}({before})") for name in names], r"Attention\.__call__")


def half_rope(tree: cst.Module) -> cst.Module:
    """Rotary positions in half of each head."""

    def change(node: cst.BaseExpression) -> cst.BaseExpression | None:
        if not isinstance(node, cst.Call):
            return None
        name, at = code(node.func), None
        if name == "nn.RoPE" and node.args and node.args[0].keyword is None:
            at = 0
        elif name == "mx.fast.rope" or (name == "partial" and node.args and code(node.args[0].value) == "mx.fast.rope"):
            at = next((i for i, a in enumerate(node.args) if a.keyword is not None and a.keyword.value == "dims"), None)
            if at is None and name == "mx.fast.rope" and len(node.args) > 1 and node.args[1].keyword is None:
                at = 1
        if at is None or "// 2" in code(node.args[at].value):
            return None
        half = node.args[at].with_changes(value=expression(f"({code(node.args[at].value)}) // 2"))
        return node.with_changes(args=[*node.args[:at], half, *node.args[at + 1 :]])

    return rewrite_by(tree, change, "", "no rotary embedding")


def attention_gate(tree: cst.Module) -> cst.Module:
    """What attention gives, times two sigmoids of the layer's input."""
    text = text_of(tree)
    require("output_gate" not in text, "it has one already")
    found = re.search(r"class \w*Attention\w*\(.*?return self\.(\w+)\(", text, re.DOTALL)
    if found is None:
        raise DoesNotFit("no attention class that ends in an output layer")
    layer = found[1]
    made = re.search(
        rf"self\.{layer} = (?:((?:nn\.)?Linear)\(([^,\n]+), ([^,\n)]+)(, bias=False)?|Matrix\((\w+), deviation=0\.0)\)",
        text,
    )
    if made is None:
        raise DoesNotFit("the output layer is not made in a line of its own")
    gate = f"self.output_gate = {made[1]}({made[3]}, {made[2]}{made[4] or ''})\n"
    if made[5]:
        gate = f"self.output_gate = Matrix({made[5]}, deviation=0.0)\n"
    tree = around(
        tree,
        lambda t: t.startswith(f"self.{layer} = ") and made[0] in t and "4 *" not in t,
        lambda s: [s, *statements(gate)],
    )
    rule = f"self.{layer}(_y * (2 * mx.sigmoid(self.output_gate(x))).astype(x.dtype))"
    return rewrite(tree, [(f"self.{layer}(_y)", rule)], r"Attention\.__call__")


def grouped_queries(tree: cst.Module) -> cst.Module:
    """Half as many heads of keys and values as of queries."""

    def change(node: cst.BaseExpression) -> cst.BaseExpression | None:
        if not isinstance(node, cst.Call):
            return None
        named = {arg.keyword.value: code(arg.value) for arg in node.args if arg.keyword is not None}
        heads = named.get("n_kv_head")
        if heads is None or heads != named.get("n_head"):
            return None
        half = expression(f"({heads}) // 2 if ({heads}) % 2 == 0 else 1")
        args = [
            arg.with_changes(value=half) if arg.keyword is not None and arg.keyword.value == "n_kv_head" else arg
            for arg in node.args
        ]
        return node.with_changes(args=args)

    return rewrite_by(tree, change, "", "no configuration with as many heads of keys as of queries")


def full_windows(tree: cst.Module) -> cst.Module:
    """A short window is as long as a long one."""
    return rewrite(tree, [("_w // 2", "_w"), ("_w // 4", "_w")], r"window")


def causal_by_name(tree: cst.Module) -> cst.Module:
    """ "causal" in place of an array of minus infinities."""
    rules = [("create_additive_causal_mask(_s, dtype=_d)", '"causal"'), ("create_additive_causal_mask(_s)", '"causal"')]
    return rewrite(tree, rules, r"\.")
