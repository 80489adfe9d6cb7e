"""Every literal of a train.py that a search may turn: its hyperparameters, and those that stand in the code.

Named hyperparameters come first (`trainer.project.hyperparameters`). Then follow the lifted ones, each named after its
place, such as `ADAM_BETAS[1]`, `GPTConfig.n_layer`, `Attention.RoPE.base` or `MLP.n_embd*`:

- the numbers of a tuple or list bound to a name in capitals;
- defaults of a configuration's fields and of arguments, unless every call sets them;
- arguments and dictionary entries with a name that `_ROLES` lists: rates, momenta, decays, bases, epsilons;
- numbers that an attribute gets in `__init__`;
- a number that scales something named, inside a class or a function about rates, initialisation or windows:
  `4 * width`, `rate * 0.01`, `window // 2`, `15 * tanh(x / 15)` (one site with two places), `full(shape, 0.1)`.

Never lifted (`_NEVER`): multipliers of a hash, axes, shapes, seeds, the clock, limits, what is printed or belongs to
the evaluation, 0 and 1 as factors, and everything in a function that counts, logs or makes masks. Places of one name
and value within one scope turn together.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from trainer.errors import TrainerError
from trainer.project import hyperparameters
from trainer.project.hyperparameters import Hyperparameter, Kind, Value

MAX_LIFTED: Final = 64
Span = tuple[int, int]

_ROLES: Final = re.compile(
    r"(^|_)(lr|rates?|learning_rate|momentum|betas?\d?|eps|epsilon|decay|weight_decay|base|theta|std|gain|dropout|"
    r"ns_steps|nesterov|label_smoothing|softcap|cap|max_norm|clip|alpha|scale|init|expansion|ratio|window|traditional|"
    r"beta1|beta2|channels)$"
)
_NEVER: Final = re.compile(
    r"seed|axis|axes|dim$|ndim|shape|keepdims|dtype|stream|vocab|sequence|seq_?len|max_len|context|time|budget|seconds|"
    r"timeout|interval|every|eval|val_|log|print|flops|peak|limit|cache|device$|bias|coeff|(^|\.)(step|epoch|total|count)s?$"
)
_SKIPPED: Final = re.compile(r"flops|count|num_|memory|print|log|report|progress|mask|repr|load|save|sample|eval")
_SCALING: Final = re.compile(r"lr|rate|schedule|momentum|decay|init|window|optim|norm", re.IGNORECASE)
_SHARE: Final = re.compile(r"FRAC|RATIO|SHARE|DECAY|DROPOUT|(^|_)LR(_|$)")
_HASH: Final = 1000  # a whole factor from here on is no size but a hash's
_TINY: Final = 1e-3  # a float up to this, added below a root, is an epsilon


@dataclass(frozen=True, slots=True)
class Site:
    """A literal that may turn: its value, and the spans in the source (characters) that hold it."""

    name: str
    value: Value
    kind: Kind
    spans: tuple[Span, ...]

    @property
    def lifted(self) -> bool:
        """Whether it stands in the code rather than under a name of its own."""
        return not self.name.isidentifier()


@lru_cache(maxsize=1024)  # the history comes again with every trial
def find(source: str) -> tuple[Site, ...]:
    """The sites in their order, named ones first; InvalidBundle if the file is not Python."""
    named = [_named(found) for found in hyperparameters.find(source)]
    tree, starts = hyperparameters.parse(source), hyperparameters.line_starts(source)
    taken = {site.spans[0] for site in named}
    places: dict[tuple[str, Value, str], list[Span]] = {}
    for name, node in _Lifting(tree).found():
        value, span = hyperparameters.evaluate(node), hyperparameters.span_of(source, starts, node)
        if value is None or span is None or isinstance(value, str) or span in taken:
            continue
        taken.add(span)
        places.setdefault((name, value, type(value).__name__), []).append(span)
    lifted: list[Site] = []
    used: dict[str, int] = {}
    for (name, value, kind), spans in list(places.items())[:MAX_LIFTED]:
        used[name] = used.get(name, 0) + 1
        label = name if used[name] == 1 else f"{name}#{used[name]}"
        lifted.append(
            Site(label, value, "bool" if kind == "bool" else "int" if kind == "int" else "float", tuple(spans))
        )
    return (*named, *lifted)


def _named(found: Hyperparameter) -> Site:
    """A named one; what is a share by its name may be a fraction, also where it is spelt 0 or 1."""
    value, kind = found.value, found.kind
    if kind == "int" and value in (0, 1) and _SHARE.search(found.name):
        value, kind = float(value), "float"
    return Site(found.name, value, kind, (found.span,))


def values(source: str) -> dict[str, Value]:
    """The sites' values by name."""
    return {site.name: site.value for site in find(source)}


def changed(before: str, after: str) -> dict[str, tuple[Value, Value]]:
    """The sites of both scripts whose values differ: the one before and the one after, by name."""
    old, new = values(before), values(after)
    return {name: (old[name], new[name]) for name in old if name in new and old[name] != new[name]}


def replace(source: str, changes: Mapping[str, Value]) -> str:
    """`source` with the named sites set, all of their places; TrainerError as `hyperparameters.replace` raises it."""
    known = {site.name: site for site in find(source)}
    edits = []
    for name, value in changes.items():
        if name not in known:
            raise TrainerError(f"The script has no hyperparameter {name!r}.", f"Use one of {', '.join(known)}.")
        literal = hyperparameters.as_literal(name, known[name].kind, value)
        if value != known[name].value:
            edits += [(span, literal) for span in known[name].spans]
    for (start, end), text in sorted(edits, reverse=True):
        source = source[:start] + text + source[end:]
    return source


class _Lifting:
    """The walk through one script: names with the literals that stand for them."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._set = self._keywords_by_callee()

    def found(self) -> Iterator[tuple[str, ast.expr]]:
        for name, node in self._statements(self._tree.body, scope="", scaling=False):
            if not _NEVER.search(name.lower()):
                yield name, node

    def _keywords_by_callee(self) -> dict[str, list[set[str]]]:
        """For each callee's name, the keywords that each call of it sets."""
        calls: dict[str, list[set[str]]] = {}
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Call) and (name := _last(node.func)):
                calls.setdefault(name, []).append({k.arg for k in node.keywords if k.arg})
        return calls

    def _overridden(self, callee: str, argument: str) -> bool:
        calls = self._set.get(callee, [])
        return bool(calls) and all(argument in keywords for keywords in calls)

    def _statements(self, body: list[ast.stmt], scope: str, *, scaling: bool) -> Iterator[tuple[str, ast.expr]]:
        for statement in body:
            match statement:
                case ast.ClassDef(name=name):
                    yield from self._fields(statement)
                    yield from self._statements(statement.body, name, scaling=True)
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    if _SKIPPED.search(name) and not _SCALING.search(name):
                        continue
                    inner = scope or name
                    yield from self._defaults(statement, inner)
                    yield from self._statements(statement.body, inner, scaling=scaling or bool(_SCALING.search(name)))
                case ast.Assert():
                    continue
                case _:
                    yield from self._simple(statement, scope, scaling=scaling)

    def _fields(self, node: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
                name = statement.target.id
                if not self._overridden(node.name, name):
                    yield f"{node.name}.{name}", statement.value

    def _defaults(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: str) -> Iterator[tuple[str, ast.expr]]:
        arguments = [*node.args.posonlyargs, *node.args.args]
        pairs = list(zip(arguments[len(arguments) - len(node.args.defaults) :], node.args.defaults, strict=True))
        pairs += [(a, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d is not None]
        for argument, default in pairs:
            if _ROLES.search(argument.arg) and not self._overridden(node.name, argument.arg):
                yield f"{scope}.{argument.arg}", default

    def _simple(self, statement: ast.stmt, scope: str, *, scaling: bool) -> Iterator[tuple[str, ast.expr]]:
        """A statement that is no definition; of compound ones, their bodies in turn."""
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
            if isinstance(target, ast.Name) and target.id.isupper() and not scope:
                yield from _elements(target.id, statement.value)
            elif isinstance(target, ast.Attribute) and isinstance(statement.value, ast.Constant):
                yield f"{scope}.{target.attr}", statement.value
        for field, value in ast.iter_fields(statement):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                yield from self._statements(value, scope, scaling=scaling)
            elif isinstance(value, list) and value and isinstance(value[0], ast.ExceptHandler | ast.match_case):
                for part in value:
                    yield from self._statements(part.body, scope, scaling=scaling)
            elif field != "test":
                for part in value if isinstance(value, list) else [value]:
                    if isinstance(part, ast.AST):
                        yield from self._expression(part, scope, statement, scaling=scaling)

    def _expression(
        self, top: ast.AST, scope: str, statement: ast.stmt, *, scaling: bool
    ) -> Iterator[tuple[str, ast.expr]]:
        for node in _visible(top):
            match node:
                case ast.Call(func=function, keywords=keywords, args=arguments):
                    callee = _last(function) or "call"
                    place = ".".join(part for part in (scope, callee) if part)
                    for keyword in keywords:
                        if keyword.arg and _ROLES.search(keyword.arg):
                            yield f"{place}.{keyword.arg}", keyword.value
                            yield from _elements(f"{place}.{keyword.arg}", keyword.value)
                    if callee == "full" and len(arguments) > 1 and scaling:
                        yield f"{scope}.{_target(statement)}", arguments[1]
                case ast.Dict(keys=keys, values=entries):
                    for key, entry in zip(keys, entries, strict=True):
                        if isinstance(key, ast.Constant) and isinstance(key.value, str) and _ROLES.search(key.value):
                            yield f"{scope}.{key.value}", entry
                            yield from _elements(f"{scope}.{key.value}", entry)
                case ast.BinOp() if scaling:
                    yield from _scale(node, scope, statement)


def _scale(node: ast.BinOp, scope: str, statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """The literal that a product scales by, a window is divided by, or that keeps a root from zero."""
    for literal, other in ((node.left, node.right), (node.right, node.left)):
        value = literal.value if isinstance(literal, ast.Constant) else None
        if not isinstance(value, int | float) or isinstance(value, bool) or isinstance(other, ast.Constant):
            continue
        small = isinstance(value, float) and 0 < value <= _TINY
        if isinstance(node.op, ast.Add) and small:
            yield f"{scope}.eps", literal
        elif isinstance(node.op, ast.Mult) and isinstance(other, ast.Call) and _last(other.func) == "tanh":
            yield f"{scope}.tanh*", literal
            for part in ast.walk(other):
                if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Div) and _is(part.right, value):
                    yield f"{scope}.tanh*", part.right
        elif isinstance(node.op, ast.Mult) and value not in (0, 1, 2) and not (type(value) is int and value >= _HASH):
            name = _last(other) or (_target(statement) if isinstance(other, ast.Call) else "")
            if name and "qkv" not in _target(statement).lower():  # three is what it is split into
                yield f"{scope}.{name}*", literal
        elif isinstance(node.op, ast.FloorDiv | ast.Div) and literal is node.right and value not in (0, 1):
            name = _last(other)
            if "window" in name or (isinstance(node.op, ast.Div) and name == "step"):
                yield f"{scope}.{name}{'//' if isinstance(node.op, ast.FloorDiv) else '/'}", literal


def _is(node: ast.expr, value: float) -> bool:
    return isinstance(node, ast.Constant) and node.value == value


def _visible(top: ast.AST) -> Iterator[ast.AST]:
    """The expression's parts without printed text, subscripts and shapes."""
    todo = [top]
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Call) and _last(node.func) in ("print", "reshape")):
            continue
        hidden = node.slice if isinstance(node, ast.Subscript) else None
        todo += reversed([child for child in ast.iter_child_nodes(node) if child is not hidden])


def _elements(name: str, node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """The numbers of a short tuple or list, by their places."""
    if isinstance(node, ast.Tuple | ast.List) and len(node.elts) <= 8:
        for index, element in enumerate(node.elts):
            if not isinstance(element, ast.Tuple | ast.List):
                yield f"{name}[{index}]", element


def _last(node: ast.AST) -> str:
    """The last word of a name or attribute, or ""."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _target(statement: ast.stmt) -> str:
    """What a statement assigns: the words of `block.mlp.c_fc.weight` that say which weight, or "value"."""
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    words = [part for part in ast.unparse(targets[0]).split(".") if part not in ("self", "weight")] if targets else []
    return words[-1] if words and words[-1].isidentifier() else "value"
