"""The hyperparameters at the top level of a train.py: what a search can turn, edited without touching the rest.

A hyperparameter is `NAME = value` or `NAME: type = value` at module level where

- NAME is in capitals and is bound nowhere else in the file, in whatever scope, but from the environment: a run sees
  none of the user's variables, so the default holds;
- value is an int, float, bool or str literal, or arithmetic (`+ - * / // % **`, unary minus) over number
  literals, such as `2**19`; its value is finite and of moderate size. `int(os.environ.get("NAME", 4))` is 4. Tuples,
  names and other calls are left alone here; `trainer.project.sites` lifts the literals in them.

The first 256 of them count, which is more than a script has that is meant to be turned.

`replace` writes a literal in the place of the value's own text, so comments, spacing and line ends around it
survive byte for byte; a value that does not change keeps its own spelling.

`fingerprint` hashes the syntax tree: equal for two files that differ in comments and formatting only. It
holds within one Python minor version, since the tree's shape changes between versions.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final, Literal, cast

from trainer.errors import InvalidBundle, TrainerError

Value = int | float | bool | str
Kind = Literal["int", "float", "bool", "str"]

MAX_SOURCE: Final = 1024 * 1024
MAX_HYPERPARAMETERS: Final = 256
_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]*")
_SEEDING: Final = re.compile(r"(seed|key|Random|default_rng|RandomState)$")
_LINE: Final = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|$)")
_OPERATORS: Final[dict[type[ast.operator], Callable[[float, float], float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """A hyperparameter, its line (from 1), and its value's span in the source, in characters."""

    name: str
    value: Value
    kind: Kind
    lineno: int
    span: tuple[int, int]


def find(source: str) -> list[Hyperparameter]:
    """The hyperparameters in their order in the file; InvalidBundle if the file is not Python."""
    return list(_found(source))


@lru_cache(maxsize=64)  # a proposer asks many times about few scripts
def _found(source: str) -> tuple[Hyperparameter, ...]:
    tree = parse(source)
    bound = Counter(name for node in ast.walk(tree) for name in _bound_names(node))
    bound -= Counter(name for node in ast.walk(tree) for name in _rebound_from_environment(node))
    starts = line_starts(source)
    found: list[Hyperparameter] = []
    for statement in tree.body:
        if len(found) == MAX_HYPERPARAMETERS:
            break
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=node):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as node):
                pass
            case _:
                continue
        if not _NAME.fullmatch(name) or bound[name] > 1:
            continue
        node, value = _default(node)
        span = span_of(source, starts, node)
        if value is not None and span is not None:
            kind = cast("Kind", type(value).__name__)
            found.append(Hyperparameter(name, value, kind, statement.lineno, span))
    return tuple(found)


def replace(source: str, values: Mapping[str, Value]) -> str:
    """`source` with the named hyperparameters set; each value keeps its kind (an int may become a float).

    TrainerError for a name that is not a hyperparameter of the file, another kind, or a value that is not finite.
    """
    known = {found.name: found for found in find(source)}
    edits = []
    for name, value in values.items():
        if name not in known:
            raise TrainerError(f"The script has no hyperparameter {name!r}.", f"Use one of {', '.join(known)}.")
        literal = as_literal(name, known[name].kind, value)
        if value != known[name].value:
            edits.append((known[name].span, literal))
    for (start, end), text in sorted(edits, reverse=True):
        source = source[:start] + text + source[end:]
    return source


def as_literal(name: str, kind: Kind, value: Value) -> str:
    """`value` as Python spells it; TrainerError unless it is finite and of the kind (an int may become a float)."""
    if kind == "float" and type(value) is int:
        value = float(value)
    if type(value).__name__ != kind or (isinstance(value, float) and not math.isfinite(value)):
        raise TrainerError(f"Expected a finite {kind} for {name}, found {value!r}.", "Give a value of the same type.")
    return repr(value)


@lru_cache(maxsize=256)
def fingerprint(source: str) -> str:
    """SHA-256 (hex) of the syntax tree; docstrings count, comments and formatting do not."""
    tree = parse(source)
    try:
        return sha256(ast.dump(tree).encode(errors="surrogatepass")).hexdigest()
    except RecursionError:
        raise _not_python("nested too deeply") from None


def changes_seeds_only(old: str, new: str) -> bool:
    """Whether two scripts differ, and only in what seeds their random numbers: a lottery ticket, no idea.

    A seed is a literal that is bound to a name with SEED in it or given to a call whose name has seed, key, Random,
    default_rng or RandomState in it. InvalidBundle if either is not valid Python.
    """
    (before, bare), (after, other) = (_without_seeds(parse(source)) for source in (old, new))
    return before != after and bare == other


def _without_seeds(tree: ast.Module) -> tuple[str, str]:
    """The tree as text, as it is and with its seeds blanked."""
    plain = ast.dump(tree)
    for node in ast.walk(tree):
        seeded: list[ast.expr] = []
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr):
            names = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any("SEED" in ast.unparse(name).upper() for name in names) and node.value is not None:
                seeded = [node.value]
        elif isinstance(node, ast.Call):
            if _SEEDING.search(ast.unparse(node.func)):
                seeded = [*node.args, *(keyword.value for keyword in node.keywords)]
            seeded += [keyword.value for keyword in node.keywords if keyword.arg and "seed" in keyword.arg.lower()]
        for value in seeded:
            for part in ast.walk(value):
                if isinstance(part, ast.Constant):
                    part.value = None
    return plain, ast.dump(tree)


def parse(source: str) -> ast.Module:
    if len(source) > MAX_SOURCE:
        raise _not_python(f"longer than {MAX_SOURCE} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except SyntaxError as error:
        raise _not_python(f"line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise _not_python(str(error) or "nested too deeply") from None


def _not_python(why: str) -> InvalidBundle:
    return InvalidBundle(f"The script is not valid Python ({why}).", "Correct it.")


def _bound_names(node: ast.AST) -> list[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.arg(arg=name):
            return [name]
        case ast.alias(name=name, asname=asname):
            return [asname or name.split(".")[0]]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return [name]
        case ast.MatchMapping(rest=str(name)):
            return [name]
    return []


def _reads_environment(node: ast.AST) -> bool:
    words = (part.attr if isinstance(part, ast.Attribute) else getattr(part, "id", "") for part in ast.walk(node))
    return any(word in ("environ", "getenv") for word in words)


def _rebound_from_environment(node: ast.AST) -> list[str]:
    """The names that a statement such as `NAME = int(os.environ.get("NAME", NAME))` binds anew."""
    if not isinstance(node, ast.Assign) or not _reads_environment(node.value):
        return []
    return [
        target.id
        for target in node.targets
        if isinstance(target, ast.Name) and _default(node.value)[1] is None  # its own default would be the value
    ]


def _default(node: ast.expr) -> tuple[ast.expr, Value | None]:
    """The literal that holds the value, and the value; of a look into the environment, the default's."""
    match node:
        case ast.Call(func=ast.Name(id="int" | "float" | "str" as kind), args=[inner], keywords=[]) if (
            _reads_environment(inner)
        ):
            place, value = _default(inner)
            try:
                return place, None if value is None else {"int": int, "float": float, "str": str}[kind](value)
            except ValueError:
                return place, None
        case ast.Call(args=[_, inner], keywords=[]) if _reads_environment(node.func):
            return inner, evaluate(inner)
    return node, evaluate(node)


def evaluate(node: ast.expr) -> Value | None:
    """The value of a simple literal, or None; strings only as they stand."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | str):
        return node.value
    return _number(node, depth=8)


def _number(node: ast.expr, depth: int) -> int | float | None:
    """Arithmetic over literals, at most `depth` deep, every step at most 2**64 in size."""
    value: float | None = None
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            value = number
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=inner) if depth:
            operand = _number(inner, depth - 1)
            if operand is not None:
                value = -operand if isinstance(sign, ast.USub) else operand
        case ast.BinOp(left=left, op=kind, right=right) if depth and type(kind) in _OPERATORS:
            a, b = _number(left, depth - 1), _number(right, depth - 1)
            if a is not None and b is not None and not (isinstance(kind, ast.Pow) and abs(b) > 64):
                try:
                    value = _OPERATORS[type(kind)](a, b)
                except ArithmeticError:
                    return None
    # A negative number to a broken power is complex.
    return value if isinstance(value, int | float) and abs(value) <= 2**64 else None


def line_starts(source: str) -> list[int]:
    """Where each line begins, in characters, as `span_of` wants them."""
    return [match.start() for match in _LINE.finditer(source)]


def span_of(source: str, starts: list[int], node: ast.expr) -> tuple[int, int] | None:
    """The node's text in `source`; None if the text there does not parse to the node."""
    ends = node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
    start, end = (_offset(source, starts, *at) for at in ((node.lineno, node.col_offset), ends))
    try:
        same = ast.dump(ast.parse(f"({source[start:end]}\n)", mode="eval").body) == ast.dump(node)
    except (SyntaxError, ValueError):
        return None
    return (start, end) if same else None


def _offset(source: str, starts: list[int], lineno: int, column: int) -> int:
    """A character offset from a line and a column, which the syntax tree counts in UTF-8 bytes."""
    start = starts[lineno - 1]
    end = starts[lineno] if lineno < len(starts) else len(source)
    return start + len(source[start:end].encode(errors="surrogatepass")[:column].decode(errors="ignore"))
