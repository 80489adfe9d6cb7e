"""Patterns over Python's concrete syntax tree, written as Python: `nn.relu(_x) ** 2` finds, `nn.silu(_x)` replaces.

A name of one underscore and lower-case letters is a hole; a hole that comes twice must hold the same code twice.
Spacing, comments and parentheses do not matter. What a hole holds keeps its spelling, in parentheses where it needs
them. A transformation that finds nothing raises `DoesNotFit`: an edit that does not fit is refused, never half done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import lru_cache

import libcst as cst

Holes = Mapping[str, cst.BaseExpression]
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
_BLANK = (cst.BaseParenthesizableWhitespace, cst.TrailingWhitespace, cst.EmptyLine, cst.Comma, cst.Dot)
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
    """A tree's text."""
    return tree.code


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
        names = [f.name for f in fields(pattern) if f.name not in _IGNORED and "whitespace" not in f.name]
        return all(_unify(getattr(pattern, name), getattr(node, name), held) for name in names)
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


class _Rewriting(cst.CSTTransformer):
    """Rewrites what a function turns into something else, inside scopes that a predicate takes."""

    def __init__(self, change: Callable[[cst.BaseExpression], cst.BaseExpression | None], scope: str) -> None:
        self.count = 0
        self._change, self._scope, self._names = change, re.compile(scope), list[str]()

    def on_visit(self, node: cst.CSTNode) -> bool:
        return not isinstance(node, _BLANK) and super().on_visit(node)

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self._names.append(node.name.value)

    def leave_ClassDef(self, original_node: cst.ClassDef, updated_node: cst.ClassDef) -> cst.ClassDef:
        self._names.pop()
        return updated_node

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self._names.append(node.name.value)

    def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:
        self._names.pop()
        return updated_node

    def on_leave(self, original_node, updated_node):  # type: ignore[no-untyped-def]
        updated_node = super().on_leave(original_node, updated_node)
        if isinstance(updated_node, cst.BaseExpression) and self._scope.search(".".join(self._names)):
            changed = self._change(updated_node)
            if changed is not None:
                self.count += 1
                return changed
        if isinstance(updated_node, cst.Assign | cst.Return) and updated_node.value is not original_node.value:
            return updated_node.with_changes(value=_alone(updated_node.value, original_node.value))
        return updated_node


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
    rewriting = _Rewriting(change, scope)
    changed = tree.visit(rewriting)
    require(rewriting.count, otherwise)
    return changed


def find(tree: cst.CSTNode, pattern: str) -> list[dict[str, cst.BaseExpression]]:
    """What the holes hold at each place that the pattern finds, in order."""
    wanted, found = expression(pattern), list[dict[str, cst.BaseExpression]]()
    if isinstance(tree, cst.Module) and not _possible(pattern, text_of(tree)):
        return found

    class _Finding(cst.CSTVisitor):
        def on_visit(self, node: cst.CSTNode) -> bool:
            if isinstance(node, _BLANK):
                return False
            held = match(wanted, node) if isinstance(node, cst.BaseExpression) else None
            if held is not None:
                found.append(held)
            return True

    tree.visit(_Finding())
    return found


Body = Sequence[Statement]


def around(tree: cst.Module, wanted: Callable[[str], bool], change: Callable[[Statement], Body]) -> cst.Module:
    """Every statement whose text `wanted` takes (innermost ones), replaced by others; DoesNotFit if there is none."""
    count = 0

    class Replacing(cst.CSTTransformer):
        def _body(self, body: Sequence[cst.BaseStatement]) -> Body:
            nonlocal count
            found = list[Statement]()
            for statement in body:
                assert isinstance(statement, Statement)
                if wanted(_first_line(statement)):
                    count += 1
                    found += change(statement)
                else:
                    found.append(statement)
            return found

        def leave_IndentedBlock(
            self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock
        ) -> cst.IndentedBlock:
            return updated_node.with_changes(body=self._body(updated_node.body))

        def leave_Module(self, original_node: cst.Module, updated_node: cst.Module) -> cst.Module:
            return updated_node.with_changes(body=self._body(updated_node.body))

    changed = tree.visit(Replacing())
    if not count:
        raise DoesNotFit("no statement of the kind it goes beside")
    return changed


def _first_line(statement: Statement) -> str:
    """A simple statement's text, or a compound one's first line, without comments above it."""
    bare = statement.with_changes(leading_lines=[]) if hasattr(statement, "leading_lines") else statement
    text = code(bare).strip()
    return text if isinstance(statement, cst.SimpleStatementLine) else text.split("\n", 1)[0]


def function(tree: cst.Module, name: str, argument: str = "") -> cst.FunctionDef:
    """The first function whose name a pattern finds, with an argument of that name if one is given."""
    found: list[cst.FunctionDef] = []

    class _Finding(cst.CSTVisitor):
        def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
            named = {param.name.value for param in node.params.params}
            if re.search(name, node.name.value) and (not argument or argument in named):
                found.append(node)

    tree.visit(_Finding())
    if not found:
        raise DoesNotFit(f"no function named like {name}" + (f" of {argument}" if argument else ""))
    return found[0]


def swap(tree: cst.Module, old: cst.CSTNode, new: cst.CSTNode) -> cst.Module:
    """The tree with one of its own nodes replaced."""
    changed = tree.deep_replace(old, new)
    assert isinstance(changed, cst.Module)
    return changed


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
