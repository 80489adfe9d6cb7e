"""Patterns over Python's concrete syntax tree, written as Python: `nn.relu(_x) ** 2` finds, `nn.silu(_x)` replaces.

A name of one underscore and lower-case letters is a hole; a hole that comes twice must hold the same code twice.
Spacing, comments and parentheses do not matter. What a hole holds keeps its spelling, in parentheses where it needs
them. A transformation that finds nothing raises `DoesNotFit`: an edit that does not fit is refused, never half done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from typing import TypeVar

import libcst as cst

Holes = Mapping[str, cst.BaseExpression]
_Node = TypeVar("_Node", bound=cst.CSTNode)
_HOLE = re.compile(r"_[a-z]+")
_IGNORED = (
    "lpar",
    "rpar",
    "comma",
    "equal",
    "semicolon",
    "lbracket",
    "rbracket",
    "dot",
    "leading_lines",
    "header",
    "footer",
)
_SUITES = (
    *(cst.Module, cst.IndentedBlock, cst.BaseCompoundStatement),
    *(cst.Else, cst.Finally, cst.ExceptHandler, cst.ExceptStarHandler, cst.MatchCase),
)
_WHOLE = (cst.Name, cst.Attribute, cst.Call, cst.Subscript, cst.Integer, cst.Float, cst.SimpleString)


class DoesNotFit(Exception):
    """The script has not what an edit looks for; the words say what."""


@lru_cache(maxsize=512)
def expression(text: str) -> cst.BaseExpression:
    """An expression as a tree."""
    return cst.parse_expression(text)


Statement = cst.SimpleStatementLine | cst.BaseCompoundStatement


@lru_cache(maxsize=8)
def parsed(source: str) -> cst.Module:
    """A script as a tree; trees never change, so the last few are kept."""
    return cst.parse_module(source)


@lru_cache(maxsize=16)
def text_of(tree: cst.Module) -> str:
    """A tree's text; of what stands at its top, each is spelt once for all trees that share it."""
    if not tree.has_trailing_newline or not tree.body:
        return tree.code
    parts = (*tree.header, *tree.body, *tree.footer)
    return "".join(_spelt(part, tree.default_indent, tree.default_newline) for part in parts)


@lru_cache(maxsize=4096)
def _spelt(node: cst.CSTNode, indent: str, newline: str) -> str:
    return cst.Module([], default_indent=indent, default_newline=newline).code_for_node(node)


@lru_cache(maxsize=1024)
def _words(pattern: str) -> tuple[str, ...]:
    """The words that a text must have for the pattern to find anything in it: a glance, before a walk."""
    return tuple(word for word in re.findall(r"\w+", pattern) if not _HOLE.fullmatch(word) and not word.isdigit())


def _possible(pattern: str, text: str) -> bool:
    return all(word in text for word in _words(pattern))


def statements(text: str) -> list[Statement]:
    """Statements as trees, fresh ones at each call."""
    return list(cst.parse_module(text).body)


def code(node: cst.CSTNode) -> str:
    """A node's text."""
    return cst.Module([]).code_for_node(node)


def match(pattern: cst.CSTNode, node: cst.CSTNode) -> dict[str, cst.BaseExpression] | None:
    """What the holes hold if the node is like the pattern, else None."""
    held: dict[str, cst.BaseExpression] = {}
    return held if _unify(pattern, node, held) else None


def _unify(pattern: object, node: object, held: dict[str, cst.BaseExpression]) -> bool:
    if isinstance(pattern, cst.Name) and _HOLE.fullmatch(pattern.value):
        if not isinstance(node, cst.BaseExpression):
            return False
        known = held.setdefault(pattern.value, node)
        return known is node or _bare(known) == _bare(node)
    if isinstance(pattern, cst.CSTNode):
        if type(pattern) is not type(node):
            return False
        return all(_unify(getattr(pattern, name), getattr(node, name), held) for name in _parts(type(pattern)))
    if isinstance(pattern, Sequence) and not isinstance(pattern, str):
        if not isinstance(node, Sequence) or len(pattern) != len(node):
            return False
        return all(_unify(a, b, held) for a, b in zip(pattern, node, strict=True))
    return pattern == node if isinstance(pattern, str) else True


def _bare(node: cst.CSTNode) -> str:
    return re.sub(r"[\s()]", "", code(node))


def fill(template: cst.CSTNode, held: Holes) -> cst.CSTNode:
    """The template with its holes filled."""

    class Filling(cst.CSTTransformer):
        def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.BaseExpression:
            return guarded(held[original_node.value]) if original_node.value in held else updated_node

    filled = template.visit(Filling())
    assert isinstance(filled, cst.CSTNode)
    return filled


def guarded(node: cst.BaseExpression) -> cst.BaseExpression:
    """The expression in parentheses, where it could fall apart among others."""
    if isinstance(node, _WHOLE) or node.lpar:
        return node
    return node.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


def _alone(value: cst.BaseExpression | None, before: cst.BaseExpression | None) -> cst.BaseExpression | None:
    """A value that stands alone, without the parentheses that it needed only in case it did not."""
    if value is None or before is None or before.lpar or len(value.lpar) != 1 or "\n" in code(value):
        return value
    return value.with_changes(lpar=[], rpar=[])


@lru_cache(maxsize=256)
def _parts(kind: type[cst.CSTNode]) -> tuple[str, ...]:
    """The fields in which a node of the kind holds code, not the space around it."""
    return tuple(f.name for f in fields(kind) if f.name not in _IGNORED and "whitespace" not in f.name)


def _mapped(node: _Node, change: Callable[[cst.CSTNode], cst.CSTNode]) -> _Node:
    """The node with each of its children changed; itself where none is. libcst's own visit copies all it comes by."""
    changes = dict[str, object]()
    for name in _parts(type(node)):
        value = getattr(node, name)
        if isinstance(value, cst.CSTNode):
            new: object = change(value)
            if new is not value:
                changes[name] = new
        elif isinstance(value, (list, tuple)):
            each = [change(part) for part in value]
            if any(a is not b for a, b in zip(each, value, strict=True)):
                changes[name] = each
    return node.with_changes(**changes) if changes else node


def rewrite(tree: cst.Module, rules: Sequence[tuple[str, str]], scope: str = "") -> cst.Module:
    """Every expression that one of the patterns finds, replaced; DoesNotFit if none does.

    `scope` is a regular expression over the names of classes and functions around it, with dots.
    """
    text = text_of(tree)
    pairs = [(expression(old), expression(new)) for old, new in rules if _possible(old, text)]
    require(pairs, f"nothing like {' or '.join(old for old, _ in rules[:3])}")

    def change(node: cst.BaseExpression) -> cst.BaseExpression | None:
        for old, new in pairs:
            held = match(old, node)
            if held is not None:
                filled = fill(new, held)
                assert isinstance(filled, cst.BaseExpression)
                return guarded(filled)
        return None

    return rewrite_by(tree, change, scope, f"nothing like {' or '.join(old for old, _ in rules[:3])}")


def rewrite_by(
    tree: cst.Module, change: Callable[[cst.BaseExpression], cst.BaseExpression | None], scope: str, otherwise: str
) -> cst.Module:
    """Every expression for which `change` gives another, replaced; DoesNotFit with the words `otherwise` if none is."""
    inside, count = re.compile(scope), 0

    def rewritten(node: cst.CSTNode, names: tuple[str, ...]) -> cst.CSTNode:
        nonlocal count
        if isinstance(node, cst.ClassDef | cst.FunctionDef):
            return _mapped(node, lambda part: rewritten(part, (*names, node.name.value)))
        updated = _mapped(node, lambda part: rewritten(part, names))
        if isinstance(updated, cst.BaseExpression) and inside.search(".".join(names)):
            changed = change(updated)
            if changed is not None:
                count += 1
                return changed
        if isinstance(updated, cst.Assign | cst.Return) and isinstance(node, type(updated)):
            return updated if updated is node else updated.with_changes(value=_alone(updated.value, node.value))
        return updated

    result = rewritten(tree, ())
    require(count, otherwise)
    assert isinstance(result, cst.Module)
    return result


def find(tree: cst.CSTNode, pattern: str) -> list[dict[str, cst.BaseExpression]]:
    """What the holes hold at each place that the pattern finds, in order."""
    wanted, found = expression(pattern), list[dict[str, cst.BaseExpression]]()
    if isinstance(tree, cst.Module) and not _possible(pattern, text_of(tree)):
        return found

    for node in _inside(tree):
        held = match(wanted, node) if isinstance(node, cst.BaseExpression) else None
        if held is not None:
            found.append(held)
    return found


def _inside(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """The node and all code in it, each before its parts."""
    yield node
    for name in _parts(type(node)):
        value = getattr(node, name)
        for part in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(part, cst.CSTNode):
                yield from _inside(part)


Body = Sequence[Statement]


def around(tree: cst.Module, wanted: Callable[[str], bool], change: Callable[[Statement], Body]) -> cst.Module:
    """Every statement whose text `wanted` takes (innermost ones), replaced by others; DoesNotFit if there is none."""
    count = 0

    def replaced(node: cst.CSTNode) -> cst.CSTNode:
        nonlocal count
        if not isinstance(node, _SUITES):
            return node
        updated = _mapped(node, replaced)
        if not isinstance(updated, cst.Module | cst.IndentedBlock):
            return updated
        found = list[cst.BaseStatement]()
        for statement in updated.body:
            assert isinstance(statement, Statement)
            if wanted(_first_line(statement)):
                count += 1
                found += change(statement)
            else:
                found.append(statement)
        same = len(found) == len(updated.body) and all(a is b for a, b in zip(found, updated.body, strict=True))
        return updated if same else updated.with_changes(body=found)

    result = replaced(tree)
    require(count, "no statement of the kind it goes beside")
    assert isinstance(result, cst.Module)
    return result


@lru_cache(maxsize=4096)
def _first_line(statement: Statement) -> str:
    """A simple statement's text, or a compound one's first line, without comments above it."""
    bare = statement.with_changes(leading_lines=[])
    if isinstance(bare, cst.SimpleStatementLine):
        return code(bare).strip()
    if isinstance(bare.body, cst.IndentedBlock):  # a body has no part in it, and may be long
        bare = bare.with_changes(body=bare.body.with_changes(body=[]))
    return code(bare).strip().split("\n", 1)[0]


def function(tree: cst.Module, name: str, argument: str = "") -> cst.FunctionDef:
    """The first function whose name a pattern finds, with an argument of that name if one is given."""
    for node in functions(tree):
        if re.search(name, node.name.value) and (
            not argument or argument in {p.name.value for p in node.params.params}
        ):
            return node
    raise DoesNotFit(f"no function named like {name}" + (f" of {argument}" if argument else ""))


def functions(tree: cst.Module) -> Iterator[cst.FunctionDef]:
    """Every function and method, each before those inside it."""
    return (node for node in _inside(tree) if isinstance(node, cst.FunctionDef))


def swap(tree: cst.Module, old: cst.CSTNode, new: cst.CSTNode) -> cst.Module:
    """The tree with one of its own nodes replaced."""

    def swapped(node: cst.CSTNode) -> cst.CSTNode:
        return new if node is old else _mapped(node, swapped)

    return _mapped(tree, swapped)


def importing(tree: cst.Module, line: str) -> cst.Module:
    """The tree with an import, unless it is there already, after the last import at the top."""
    if line in text_of(tree):
        return tree
    at = 1 + max((i for i, s in enumerate(tree.body) if re.match(r"\s*(import|from) ", _first_line(s))), default=-1)
    body = [*tree.body[:at], *statements(line + "\n"), *tree.body[at:]]
    return replace(tree, body=body)


def require(condition: object, words: str) -> None:
    """DoesNotFit with the words, unless the condition holds."""
    if not condition:
        raise DoesNotFit(words)
