"""Edits of how a model is trained: optimizer, schedule, initial weights, and the loop itself."""

from __future__ import annotations

import re
from collections.abc import Callable

import libcst as cst

from miner.proposers.edits.patterns import (
    DoesNotFit,
    Statement,
    around,
    code,
    expression,
    find,
    function,
    functions,
    importing,
    require,
    rewrite,
    rewrite_by,
    statements,
    text_of,
)

_MUON = '''
def _orthogonal_step(self, path, grad, param, config):
    """Muon: momentum, then the nearest orthogonal matrix, at the size that Adam's steps have."""
    gradient = grad.astype(mx.float32)
    if path not in self.STATE:
        self.STATE[path] = {"m": mx.zeros_like(gradient), "v": mx.zeros((1,)), "t": 0}
    state = self.STATE[path]
    state["m"] = 0.95 * state["m"] + gradient
    step = gradient + 0.95 * state["m"]
    tall = step.shape[0] > step.shape[1]
    step = step.T if tall else step
    step = (step / (mx.sqrt(mx.sum(step * step)) + 1e-7)).astype(mx.bfloat16)
    for _ in range(5):
        square = step @ step.T
        step = 3.4445 * step + (-4.775 * square + 2.0315 * (square @ square)) @ step
    step = (step.T if tall else step).astype(mx.float32)
    size = 0.2 * max(param.shape) ** 0.5
    weight = param.astype(mx.float32) * (1 - config["lr"] * config["weight_decay"])
    return (weight - config["lr"] * size * step).astype(param.dtype)
'''
_SCHEDULE = r"lr|schedule|multiplier|warm|anneal"


def muon_for_adamw(tree: cst.Module) -> cst.Module:
    """Matrices inside the blocks take orthogonal steps; rates keep their meaning: the steps' size is Adam's."""
    text = text_of(tree)
    require("muon" not in text.lower().replace("muon port", ""), "it has Muon already")
    step = function(tree, r"^_step$")
    names = [p.name.value for p in step.params.params]
    require(names == ["self", "path", "grad", "param", "config"], "no _step(self, path, grad, param, config)")
    state = re.search(r"path not in self\.(\w+)", code(step))
    if state is None or '"m"' not in code(step):
        raise DoesNotFit("the optimizer's state is not kept by path")
    method = statements(_MUON.replace("self.STATE", f"self.{state[1]}"))
    branch = statements(
        'if "blocks" in path and grad.ndim == 2:\n    return self._orthogonal_step(path, grad, param, config)\n'
    )
    assert isinstance(step.body, cst.IndentedBlock)
    changed = step.with_changes(body=step.body.with_changes(body=[*branch, *step.body.body]))
    return around(tree, lambda t: t.startswith("def _step("), lambda _: [changed, *method])


def decoupled_decay(tree: cst.Module) -> cst.Module:
    """optim.Muon without decay; after its update the matrices shrink by rate times decay."""
    found: list[tuple[str, str]] = []

    def change(node: cst.BaseExpression) -> cst.BaseExpression | None:
        if not (isinstance(node, cst.Call) and code(node.func) in ("optim.Muon", "mlx.optimizers.Muon")):
            return None
        named = {a.keyword.value if a.keyword else str(i): code(a.value) for i, a in enumerate(node.args)}
        rate, decay = named.get("learning_rate") or named.get("0"), named.get("weight_decay")
        if rate is None or decay is None or re.fullmatch(r"0(\.0*)?", decay):
            return None
        found.append((rate, decay))
        args = [
            a.with_changes(value=expression("0.0")) if a.keyword and a.keyword.value == "weight_decay" else a
            for a in node.args
        ]
        return node.with_changes(args=args)

    tree = rewrite_by(tree, change, "", "no optim.Muon with a weight decay")
    require(len(found) == 1, "more than one optim.Muon")
    rate, decay = found[0]
    shrink = (
        "model.update(tree_map_with_path("
        f"lambda path, w: w * (1.0 - {rate} * {decay}) "
        "if w.ndim == 2 and path.startswith(('blocks', 'layers')) else w, "
        "model.trainable_parameters()))\n"
    )
    tree = around(tree, lambda t: t.startswith("optimizer.update(model"), lambda s: [s, *statements(shrink)])
    return importing(tree, "from mlx.utils import tree_map_with_path")


def cautious(tree: cst.Module) -> cst.Module:
    """Adam's step where it has the gradient's sign."""
    classic = ('_p - _s * (state["m"] / _d)', '_p - _s * (state["m"] * (state["m"] * grad_f32 > 0) / _d)')
    named = ("_r * (mean / _c) / size", "_r * (mean / _c) * (mean * gradients[path] > 0) / size")
    return rewrite(tree, [classic] if "grad_f32" in text_of(tree) else [named])


def momentum_warm_up(tree: cst.Module) -> cst.Module:
    """Muon's momentum rises to its value over the first 300 steps: early gradients are soon out of date."""
    own = function(tree, r"^update$", "count")
    require("MUON_MOMENTUM" in code(own) and "late_momentum" not in code(own), "no constant momentum of Muon there")
    name = f"def {own.name.value}("
    line = "late_momentum = MUON_MOMENTUM - 0.1 * mx.maximum(0.0, 1.0 - count / 300)\n"

    class Renaming(cst.CSTTransformer):
        def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.Name:
            return cst.Name("late_momentum") if updated_node.value == "MUON_MOMENTUM" else updated_node

    def change(statement: Statement) -> list[Statement]:
        changed = statement.visit(Renaming())
        assert isinstance(changed, cst.FunctionDef)
        assert isinstance(changed.body, cst.IndentedBlock)
        at = 1 if changed.get_docstring() else 0
        body = [*changed.body.body[:at], *statements(line), *changed.body.body[at:]]
        return [changed.with_changes(body=changed.body.with_changes(body=body))]

    return around(tree, lambda t: t.startswith(name), change)


def even_steps(tree: cst.Module) -> cst.Module:
    """Every row of an orthogonal step gets the same length; the step as a whole keeps its own."""
    require("def even(" not in text_of(tree), "the steps are even already")
    own = function(tree, r"^orthogonali[sz]e$")
    even = statements(
        "def even(step):\n"
        "    row = step.square().mean(axis=-1, keepdims=True)\n"
        "    return step * mx.rsqrt(row + 1e-12) * mx.sqrt(row.mean(axis=-2, keepdims=True))\n\n\n"
    )
    tree = around(tree, lambda t: t.startswith(f"def {own.name.value}("), lambda s: [*even, s])
    return rewrite(tree, [(f"{own.name.value}(_x)", f"even({own.name.value}(_x))")])


def clipped(tree: cst.Module) -> cst.Module:
    """Gradients of at most norm 1."""
    require("clip_grad" not in text_of(tree), "they are clipped already")

    def change(node: cst.BaseExpression) -> cst.BaseExpression | None:
        if not (isinstance(node, cst.Call) and code(node.func) == "optimizer.update" and len(node.args) >= 2):
            return None
        clip = node.args[1].with_changes(value=expression(f"optim.clip_grad_norm({code(node.args[1].value)}, 1.0)[0]"))
        return node.with_changes(args=[node.args[0], clip, *node.args[2:]])

    tree = rewrite_by(tree, change, "", "no optimizer.update(model, gradients)")
    return importing(tree, "import mlx.optimizers as optim")


def averaged(tree: cst.Module) -> cst.Module:
    """An average of the last third of the steps is what is evaluated."""
    text = text_of(tree)
    require("averaged" not in text and "progress = " in text, "no progress in the loop, or an average already")
    keep = (
        "if progress > 0.7:\n"
        "    now = tree_map(lambda w: w.astype(mx.float32), model.parameters())\n"
        "    averaged = now if averaged is None else tree_map(lambda a, w: 0.95 * a + 0.05 * w, averaged, now)\n"
        "    mx.eval(averaged)\n"
    )
    use = (
        "if averaged is not None:\n"
        "    model.update(tree_map(lambda a, w: a.astype(w.dtype), averaged, model.parameters()))\n"
    )
    tree = around(tree, lambda t: t.startswith("mx.eval(") and "state" in t, lambda s: [s, *statements(keep)])
    tree = around(tree, lambda t: t.startswith("while "), lambda s: [*statements("averaged = None\n"), s])
    tree = around(tree, lambda t: "evaluate_bpb(model," in t and "import" not in t, lambda s: [*statements(use), s])
    return importing(tree, "from mlx.utils import tree_map")


def shaped(shape: str) -> Callable[[cst.Module], cst.Module]:
    """What a schedule returns, bent; `shape` is an expression of `value` in [0, 1]."""

    def apply(tree: cst.Module) -> cst.Module:
        require("def shaped(" not in text_of(tree), "the schedule is bent already")
        own = function(tree, rf"^(get_)?\w*({_SCHEDULE})\w*$", "progress")
        require(not re.search(r"\bcos\(", code(own)), "the schedule has a shape already")

        class Bending(cst.CSTTransformer):
            def leave_Return(self, original_node: cst.Return, updated_node: cst.Return) -> cst.Return:
                value = updated_node.value
                return (
                    updated_node
                    if value is None
                    else updated_node.with_changes(value=expression(f"shaped({code(value)})"))
                )

        name = f"def {own.name.value}("
        bend = statements(f"def shaped(value):\n    return {shape}\n\n\n")

        def change(statement: Statement) -> list[Statement]:
            bent = statement.visit(Bending())
            assert isinstance(bent, Statement)
            return [*bend, bent]

        tree = around(tree, lambda t: t.startswith(name), change)
        return importing(tree, "import math") if "math." in shape else tree

    return apply


def float32_weights(tree: cst.Module) -> cst.Module:
    """Weights are drawn and kept in float32."""
    rules = [("mx.bfloat16 if _c else mx.float32", "mx.float32"), ("_w.astype(mx.bfloat16)", "_w")]
    try:
        return rewrite(tree, rules, r"init_weights|initiali[sz]e|^_?init")
    except DoesNotFit:
        return rewrite(tree, rules[:1], r"main|^$")


_UPDATE = "optimizer.update(model, "
_SHRINK = "model.update(tree_map_with_path("  # as `decoupled_decay` has it
_CAST = re.compile(r"^[^#\n]*\b(?:init\w*|set_dtype|apply)\([^#\n]*float16", re.MULTILINE)


def master_weights(tree: cst.Module) -> cst.Module:
    """The optimizer moves float32 copies of the weights; between its updates the model has their rounding.

    The model holds the copies while the optimizer works, whatever the optimizer is. A weight that is no longer its
    copy's rounding was written by somebody else, and counts.
    """
    text = text_of(tree)
    require(not re.search(r"\bmasters?\b", text), "it has such copies already")
    drawn = [f for f in functions(tree) if re.match(r"_?init", f.name.value)]
    low = any(find(f, dtype) for f in drawn for dtype in ("mx.bfloat16", "mx.float16"))
    require(low or _CAST.search(text), "no weights kept in 16 bits")
    calls = find(tree, "optimizer.update(model, _gradients)")
    require(len(calls) == text.count(_UPDATE) == 1, "no single optimizer.update(model, gradients)")
    makers = ["model", *re.findall(r"(\w+) = .*value_and_grad\(", text)]
    given = set(re.findall(r"\w+", code(calls[0]["_gradients"])))
    require(not given & set(makers), "the gradients are made within the update")
    made = [s for s in tree.body if re.search(r"^\s*optimizer = ", code(s), re.MULTILINE)]
    reached = len(made) == 1 and (not isinstance(made[0], cst.FunctionDef) or _UPDATE in code(made[0]))
    require(reached, "no optimizer that is made where its update can see it")
    own = [f for f in functions(tree) if re.search(r"^_step$|^update$", f.name.value)]
    require(not any(find(f, "_w.astype(mx.bfloat16)") for f in own), "the optimizer rounds by itself")

    copies = 'masters = {"weights": tree_map(lambda w: w.astype(mx.float32), model.trainable_parameters())}\n'
    before = (
        "rounded = model.trainable_parameters()\n"
        "model.update(tree_map(\n"
        '    lambda master, w: mx.where(master.astype(w.dtype) == w, master, w), masters["weights"], rounded\n'
        "))\n"
    )
    after = (
        'masters["weights"] = model.trainable_parameters()\n'
        'model.update(tree_map(lambda master, w: master.astype(w.dtype), masters["weights"], rounded))\n'
    )
    last = _SHRINK if _SHRINK in text else _UPDATE
    tree = around(tree, lambda t: t.startswith("optimizer = "), lambda s: [s, *statements(copies)])
    tree = around(tree, lambda t: t.startswith(_UPDATE), lambda s: [*statements(before), s])
    tree = around(tree, lambda t: t.startswith(last), lambda s: [s, *statements(after)])
    if "mx.compile(" in text and any(_UPDATE in code(f) for f in functions(tree)):
        kept = "[model.state, optimizer.state]"  # what a compiled step reads and writes
        tree = rewrite(tree, [(kept, "[model.state, optimizer.state, masters]")])
    known = re.search(r"^from mlx\.utils import .*\btree_map\b", text, re.MULTILINE)
    return tree if known else importing(tree, "from mlx.utils import tree_map")


def small_embedding(tree: cst.Module) -> cst.Module:
    """The embedding of tokens at a tenth of its size."""
    line = re.compile(r"(self\.(?:wte|tok_emb\w*|embed\w*)\.weight) = ")

    def change(statement: Statement) -> list[Statement]:
        found = line.match(code(statement).strip())
        require(found, "the embedding is drawn with comments in between")
        assert found is not None
        return [statement, *statements(f"{found[1]} = 0.1 * {found[1]}\n")]

    try:
        return around(tree, lambda t: bool(line.match(t)) and "random" in t, change)
    except DoesNotFit:
        return rewrite(tree, [("1.0 if path.startswith(_e) else _r", "100.0 if path.startswith(_e) else _r")])


def compiled(tree: cst.Module) -> cst.Module:
    """Loss and gradient as one compiled function over the model's state."""
    text = text_of(tree)
    require("mx.compile" not in text, "something is compiled already")
    line = re.compile(r"(\w+) = (nn\.value_and_grad\(model, .*\))$", re.DOTALL)
    found = re.search(r"^(\w+) = nn\.value_and_grad\(model, ", text, re.MULTILINE)
    loaded = re.search(r"^(\w+), \w+(?:, \w+)? = next\(", text, re.MULTILINE)
    if found is None or loaded is None or f"{found[1]}(model, " not in text:
        raise DoesNotFit("no nn.value_and_grad of the model beside a first batch, outside functions")

    def change(statement: Statement) -> list[Statement]:
        made = line.match(code(statement).strip())
        require(made, "nn.value_and_grad stands with comments in between")
        assert made is not None
        return statements(
            f"mx.eval(model({loaded[1]}[:1]))  # fills what the model keeps between calls\n"
            f"plain_gradient = {made[2]}\n"
            "kept = model.state  # an output too: tracing leaves what it traced in it\n"
            "compiled_gradient = mx.compile(lambda x, y: plain_gradient(model, x, y), inputs=kept, outputs=kept)\n"
            f"def {made[1]}(model, x, y):\n    return compiled_gradient(x, y)\n\n\n"
        )

    return around(tree, lambda t: t.startswith(f"{found[1]} = nn.value_and_grad("), change)
