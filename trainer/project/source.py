"""Size limits on a candidate's source: an embedded model exceeds them, an honest script never does.

Sizes only: no word is suspicious, so no honest script is (`mx.eval(` is not `eval(`) and no dishonest one slips by.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import operator
import re
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256


@dataclass(frozen=True, slots=True)
class SourceCaps:
    """raw and compressed bytes of all changed files together; the longest literal in characters; the most
    elements in one literal container. (The upstream script has 19,112 bytes, 5,284 compressed.)
    """

    raw: int = 131_072
    compressed: int = 32_768
    literal: int = 8_192
    container: int = 1_024


def problems(snapshot: Mapping[str, bytes], candidate: Mapping[str, bytes], caps: SourceCaps) -> list[str]:
    """A sentence for each cap that the files which differ from the snapshot exceed."""
    changed = {path: data for path, data in candidate.items() if snapshot.get(path) != data}
    everything = b"\0".join(data for _, data in sorted(changed.items()))
    found: list[str] = []
    if len(everything) > caps.raw:
        found.append(f"the changed source has {len(everything):,} bytes; the limit is {caps.raw:,}")
    elif (size := len(zlib.compress(everything, 9))) > caps.compressed:
        found.append(f"the changed source has {size:,} bytes compressed; the limit is {caps.compressed:,}")
    else:
        for path, data in sorted(changed.items()):
            if path.endswith(".py"):
                found += [f"{path} {problem}" for problem in _literals(data, caps)]
    return [f"{text[:1].upper()}{text[1:]}." for text in found]


def _literals(script: bytes, caps: SourceCaps) -> list[str]:
    """Literals over their cap; a file that is not Python has none, and fails when it is run."""
    try:
        tree = _parsed(script)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    documentation = {id(node) for node in _docstrings(tree)}
    longest = most = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in documentation:
            longest = max(longest, len(node.value))
        elif isinstance(node, ast.List | ast.Tuple | ast.Set):
            most = max(most, len(node.elts))
        elif isinstance(node, ast.Dict):
            most = max(most, len(node.values))
    found = []
    if longest > caps.literal:
        found.append(f"has a literal of {longest:,} characters; the limit is {caps.literal:,}")
    if most > caps.container:
        found.append(f"has a literal with {most:,} elements; the limit is {caps.container:,}")
    return found


def _parsed(script: bytes) -> ast.Module:
    """The tree of a script, without the warnings that Python writes about it, which would quote somebody else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(script)


def _docstrings(tree: ast.Module) -> list[ast.expr]:
    """Docstrings are documentation as far as caps on literals go; the caps on the whole file bound them."""
    found: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                found.append(first.value)
    return found


def essence(snapshot: Mapping[str, bytes], candidate: Mapping[str, bytes]) -> str:
    """SHA-256 (hex) of what the changed files say: equal for two candidates that differ in what `_Bare` takes away, in
    names of their own, or in digits after the third of a number. Files that are not Python count as they are; scripts
    nested too deeply to be read, which no honest one is, all have the same one.
    """
    total = sha256()
    for path, data in sorted(candidate.items()):
        if snapshot.get(path) != data:
            total.update(path.encode() + b"\0" + (_essence(data) if path.endswith(".py") else data) + b"\0")
    return total.hexdigest()


def _essence(script: bytes) -> bytes:
    try:
        tree = _parsed(script)
    except (SyntaxError, ValueError):
        return script
    except (RecursionError, MemoryError):
        return _UNREADABLE
    before = ""
    try:
        for _ in range(_ROUNDS):  # what is taken away leaves others unused
            tree = _Bare(tree).visit(tree)
            if before == (before := _dump(tree)):
                break
        return before.encode(errors="surrogatepass")
    except (RecursionError, MemoryError, ValueError):  # the last: an integer too long to be written
        return _UNREADABLE


_ROUNDS, _UNREADABLE = 8, b"what Python runs and this cannot read"
_FOLDED: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class _Bare(ast.NodeTransformer):
    """Takes away what a script may say or not without doing anything else: annotations, docstrings, `pass`, what it
    prints, branches never taken, arithmetic between literals, the order of functions, and what it never uses."""

    def __init__(self, tree: ast.Module) -> None:
        nodes = list(ast.walk(tree))
        self._used = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store)}
        self._bound = _own_names(nodes)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Of every node: its children, then its blocks."""
        super().generic_visit(node)
        for block in ("body", "orelse", "finalbody"):
            lines = getattr(node, block, None)
            if isinstance(lines, list):
                setattr(node, block, self._block([line for line in lines if not isinstance(line, ast.Pass)]))
        if getattr(node, "body", None) == [] and not isinstance(node, ast.Module):
            node.body = [ast.Pass()]  # type: ignore[attr-defined]
        return node

    def _block(self, lines: list[ast.stmt]) -> list[ast.stmt]:
        """With the definitions that stand together in an order of their own."""
        found: list[ast.stmt] = []
        for defines, group in itertools.groupby(lines, lambda line: isinstance(line, _DEFINITIONS)):
            together = list(group)
            if defines:
                together.sort(key=lambda line: _dump(line, self._bound, blank=True))
            found += together
        return found

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.value is None:
            node.annotation = ast.Constant(None)  # a dataclass has it as a field
            return node
        return self.visit(ast.Assign([node.target], node.value, lineno=0))  # type: ignore[no-any-return]

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        plain = isinstance(node.value, ast.Constant | ast.Name)
        unused = all(isinstance(target, ast.Name) and target.id not in self._used for target in node.targets)
        return None if plain and unused else self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        match node.value:
            case ast.Constant() | ast.Name() | ast.Call(func=ast.Name(id="print")):
                return None
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        found = self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return node.body if node.test.value else node.orelse
        return found

    def _definition(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> ast.AST | None:
        if not isinstance(node, ast.ClassDef):
            node.returns = None
        return self.generic_visit(node)

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _definition

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> ast.AST | None:
        names = [name for name in node.names if (name.asname or name.name.partition(".")[0]) in {*self._used, "*"}]
        node.names = names
        return node if names else None

    visit_ImportFrom = visit_Import

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return _number(node.value) if isinstance(node.value, float) else node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.BinOp(ast.Constant(int() | float() as left), op, ast.Constant(int() | float() as right)):
                if fold := _FOLDED.get(type(op)):
                    with contextlib.suppress(ArithmeticError):
                        return _number(fold(left, right))
        return node


_DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _number(value: float) -> ast.Constant:
    """Three digits of it, as an int where that is the same."""
    rounded = float(f"{value:.3g}") if isinstance(value, float) else value
    whole = abs(rounded) < 1e15 and rounded == int(rounded)
    return ast.Constant(int(rounded) if whole else rounded)


def _own_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Names that the script gives by itself, which it may change as it likes."""
    found = set()
    for node in nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.Attribute(attr=name, ctx=ast.Store()):
                found.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.alias(asname=str(name)):
                found.add(name)
    return found


def _dump(tree: ast.AST, bound: set[str] | None = None, *, blank: bool = False) -> str:
    """The tree in words, its own names by the order in which they come, or left out."""
    order: dict[str, str] = {}
    own = _own_names(ast.walk(tree)) if bound is None else bound

    def place(match: re.Match[str]) -> str:
        name = match[1]
        if name not in own:
            return match[0]
        return "''" if blank else f"'{order.setdefault(name, f'v{len(order)}')}'"

    return re.sub(r"'([A-Za-z_][A-Za-z0-9_]*)'", place, ast.dump(tree))
