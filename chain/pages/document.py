"""A JSON document from outside as titled sections of rows, for people: generic over fields it does not know.

Nothing in the document is trusted: what could steer a terminal or reorder text is taken out, long text is
cut, and depth and number of rows are bounded. Escaping for HTML is for whoever writes HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from common.text import multiline, printable

MAX_TEXT: Final = 2_000  # characters of one value
MAX_ROWS: Final = 1_000
MAX_DEPTH: Final = 8
MAX_NAME: Final = 80


@dataclass(frozen=True, slots=True)
class Row:
    """One field. `values` has a line or a list's entries; none at all makes the row a heading for deeper ones."""

    depth: int
    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A top-level field of the document; `rows` in the document's order."""

    title: str
    rows: tuple[Row, ...]


def sections(document: object) -> list[Section]:
    """A section per top-level object or list, the plain fields first in one named "general"."""
    if not isinstance(document, Mapping):
        return [Section("document", tuple(_bounded(_walk("content", document, 0))))]
    general = {name: value for name, value in document.items() if not isinstance(value, Mapping | list)}
    found = [Section("general", tuple(_bounded(_fields(general, 0))))] if general else []
    left = MAX_ROWS
    for name, value in document.items():
        if name in general:
            continue
        if left <= 0:
            found.append(Section("more", (Row(0, "not shown", ("the document is too long",)),)))
            break
        inside = _fields(value, 0) if isinstance(value, Mapping) else _walk("entries", value, 0)
        rows = tuple(_bounded(inside, left))
        left -= max(1, len(rows))
        found.append(Section(words(name), rows))
    return found


def words(name: str) -> str:
    """A field's name as words: camelCase and snake_case taken apart."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", printable(name, MAX_NAME).replace("_", " "))
    return " ".join(part if part.isupper() else part.lower() for part in apart.split()) or "(no name)"


def _bounded(rows: Iterator[Row], limit: int = MAX_ROWS) -> Iterator[Row]:
    for number, row in enumerate(rows):
        if number == limit:
            yield Row(0, "not shown", ("the rest is too long",))
            return
        yield row


def _fields(fields: Mapping[str, Any], depth: int) -> Iterator[Row]:
    for name, value in fields.items():
        yield from _walk(name, value, depth)


def _walk(name: str, value: object, depth: int) -> Iterator[Row]:
    shown = words(name)
    nested = isinstance(value, Mapping) or (
        isinstance(value, list) and any(isinstance(v, Mapping | list) for v in value)
    )
    if nested and depth >= MAX_DEPTH:
        yield Row(depth, shown, ("(nested too deeply to show)",))
    elif isinstance(value, Mapping):
        yield Row(depth, shown, () if value else ("none",))
        yield from _fields(value, depth + 1)
    elif isinstance(value, list) and nested:
        yield Row(depth, shown, ())
        for number, entry in enumerate(value, 1):
            yield from _walk(_label(entry, number), entry, depth + 1)
    elif isinstance(value, list):
        yield Row(depth, shown, tuple(_plain(entry) for entry in value[:MAX_ROWS]) or ("none",))
    else:
        yield Row(depth, shown, (_plain(value),))


def _label(entry: object, number: int) -> str:
    """An entry of a list by its own name, where it has one."""
    name = entry.get("name") if isinstance(entry, Mapping) else None
    return name if isinstance(name, str) and name else str(number)


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    return multiline(str(value), MAX_TEXT)
