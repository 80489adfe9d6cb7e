"""Size limits on a candidate's source: an embedded model exceeds them, an honest script never does.

Sizes only: no word is suspicious, so no honest script is (`mx.eval(` is not `eval(`) and no dishonest one slips by.
"""

from __future__ import annotations

import ast
import re
import zlib
from collections.abc import Mapping
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
        tree = ast.parse(script)
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
    """SHA-256 (hex) of what the changed files say: equal for two candidates that differ in comments, formatting,
    docstrings, names of their own, or digits after the third of a number. Files that are not Python count as they are.
    """
    total = sha256()
    for path, data in sorted(candidate.items()):
        if snapshot.get(path) != data:
            total.update(path.encode() + b"\0" + (_essence(data) if path.endswith(".py") else data) + b"\0")
    return total.hexdigest()


def _essence(script: bytes) -> bytes:
    try:
        tree = ast.parse(script)
        bound = {name for node in ast.walk(tree) for name in _own_names(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, float):
                node.value = float(f"{node.value:.3g}")
        for text in _docstrings(tree):
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                text.value = ""
        return _dump(tree, bound).encode(errors="surrogatepass")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return script


def _own_names(node: ast.AST) -> list[str]:
    """Names that the script gives by itself, which it may change as it likes."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
    return []


def _dump(tree: ast.Module, bound: set[str]) -> str:
    """The tree in words, its own names by the order in which they come."""
    order: dict[str, str] = {}

    def place(match: re.Match[str]) -> str:
        name = match[1]
        return f"'{order.setdefault(name, f'v{len(order)}')}'" if name in bound else match[0]

    return re.sub(r"'([A-Za-z_][A-Za-z0-9_]*)'", place, ast.dump(tree))
