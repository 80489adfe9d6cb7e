"""Regular expressions from outside, compiled once it is sure that they cannot run away.

Python's matcher backtracks, so such a pattern can take exponential time. The guard counts, per character, the choices
that a run of this character can be split over: three repeats (where the pattern starts is one, unless `^` says it) and
three either-or choices make at most 8 n^3/6 steps on a line of n characters, about 0.1 s at 200. Upper and lower case
count as one character, so that `(?i)` changes nothing.

`values` applies a pattern to the last lines of a log, and to nothing longer than MAX_LINE.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as sre  # type: ignore[attr-defined]
from typing import Any, Final

MAX_PATTERN: Final = 200
MAX_LINE: Final = 200
MAX_LINES: Final = 256


def compile_safely(text: str) -> re.Pattern[str]:
    """The pattern, whose first group captures a value; ValueError, saying why, if it is of no bounded kind."""
    if len(text) > MAX_PATTERN:
        raise ValueError(f"it has more than {MAX_PATTERN} characters")
    try:
        _guard(text)
        compiled = re.compile(text, re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if compiled.groups < 1:
        raise ValueError("its first group must capture the value")
    return compiled


def values(log: bytes, pattern: re.Pattern[str]) -> list[str]:
    """What the first group captures in the last MAX_LINES lines of a log, the last line first."""
    found = []
    for line in reversed(log.rstrip(b"\n").split(b"\n")[-MAX_LINES:]):
        text = line.removesuffix(b"\r").decode(errors="replace")
        match = pattern.search(text) if len(text) <= MAX_LINE else None
        if match and match[1] is not None:
            found.append(match[1])
    return found


_REPEATS_PER_CHARACTER: Final = 3
_EITHER_OR_PER_CHARACTER: Final = 3
_ALPHABET: Final = tuple(map(chr, range(129)))  # ASCII, and one character that stands for all others
_ALL: Final = frozenset(_ALPHABET)
_SINGLE: Final = frozenset({op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN, op.CATEGORY, op.RANGE})


def _guard(pattern: str) -> None:
    """ValueError if `pattern` could need more than a small polynomial of steps."""
    tree = sre.parse(pattern, re.ASCII)
    repeats = _starts(tree)
    choices: list[frozenset[str]] = []
    for kind, size, characters in _choices(tree):
        (repeats if kind == "repeat" else choices).extend([characters] * size)
    for character in _ALPHABET:
        if sum(character in found for found in repeats) > _REPEATS_PER_CHARACTER:
            raise ValueError("too many repeats that can match the same character")
        if sum(character in found for found in choices) > _EITHER_OR_PER_CHARACTER:
            raise ValueError("too many alternatives that can match the same character")


def _starts(tree: Any) -> list[frozenset[str]]:
    """The choice of where the pattern starts: none after `^`, else any of the characters that it can begin with."""
    for code, argument in tree:
        if (code, argument) == (op.AT, op.AT_BEGINNING):
            return []
        if code is not op.AT:
            return [_characters([(code, argument)]) if code in _SINGLE else _ALL]
    return [_ALL]


def _choices(tree: Any) -> Iterator[tuple[str, int, frozenset[str]]]:
    """Every choice in the tree: ("repeat" or "either", its weight, the characters it can take)."""
    for code, argument in tree:
        if code in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
            least, most, body = argument
            if most > 1 and any(_choices(body)):
                raise ValueError("a choice inside a repeat")
            if most == 1 and least == 0:
                yield "either", 1, _characters(body)
            elif least != most:
                yield "repeat", 1, _characters(body)
            yield from _choices(body)
        elif code is op.BRANCH:
            yield "either", len(argument[1]) - 1, frozenset().union(*map(_characters, argument[1]))
            for branch in argument[1]:
                yield from _choices(branch)
        elif code is op.SUBPATTERN:
            yield from _choices(argument[3])
        elif code not in _SINGLE and code is not op.AT:
            raise ValueError(f"{str(code).lower()} is not supported")


def _characters(tree: Any) -> frozenset[str]:
    """All characters that any part of the tree can take, in either case."""
    found: set[str] = set()
    for code, argument in tree:
        if code in _SINGLE:
            found |= _set(code, argument)
        elif code is op.SUBPATTERN:
            found |= _characters(argument[3])
        elif code is op.BRANCH:
            found = found.union(*map(_characters, argument[1]))
        elif code in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
            found |= _characters(argument[2])
    return frozenset(found | {character.swapcase() for character in found})


def _set(code: Any, argument: Any) -> frozenset[str]:
    if code is op.LITERAL:
        return frozenset(chr(min(argument, 128)))
    if code is op.NOT_LITERAL:
        return _ALL - frozenset(chr(argument))
    if code is op.RANGE:
        return frozenset(map(chr, range(min(argument[0], 128), min(argument[1], 128) + 1)))
    if code is op.IN and argument[0][0] is not op.NEGATE:
        return frozenset().union(*(_set(*item) for item in argument))
    return _ALL if code is not op.CATEGORY else _CATEGORIES.get(argument, _ALL)


_CATEGORIES: Final[dict[Any, frozenset[str]]] = {
    category: frozenset(character for character in _ALPHABET if re.match(escape, character, re.ASCII))
    for category, escape in (
        (op.CATEGORY_DIGIT, r"\d"),
        (op.CATEGORY_SPACE, r"\s"),
        (op.CATEGORY_WORD, r"\w"),
        (op.CATEGORY_NOT_DIGIT, r"\D"),
        (op.CATEGORY_NOT_SPACE, r"\S"),
        (op.CATEGORY_NOT_WORD, r"\W"),
    )
}
