"""Diffs of train.py as people and models write them, applied where they fit in exactly one way.

Read are unified diffs (with or without file headers; hunk headers with wrong numbers, or a bare `@@`; without context
after the change), SEARCH/REPLACE blocks, and the `*** Begin Patch` form. Line ends, terminal colours, and a prefix that
all lines share (a quoted mail, an indented block) do not matter. A hunk's old lines must be in the script, up to blanks
at their ends: once, or once after the place that its header names. Anything else is refused with the reason.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field

from common.text import printable
from miner.proposers.base import SCRIPT, ProposerFailed
from trainer.errors import InvalidBundle
from trainer.project import hyperparameters

MAX_DIFF = 1024 * 1024  # characters
MAX_HUNKS = 1000
_COLOUR = re.compile(r"\x1b\[[0-9;]*[mK]")
_START = re.compile(r"(diff --git |--- |@@|\*\*\* (Begin Patch|Update File)|<{5,9} ?SEARCH)")
_PREFIX = re.compile(r"([ \t]*(?:[>|][ \t]?)*)")
_ADDED = re.compile(r"@@ -\d+,0 ")  # a hunk that says by a line's number alone where it adds
_NUMBERS = re.compile(r"@@+ -(\d{1,7})(?:,\d+)? \+\d+(?:,\d+)? @@+ ?(.*)")
_OTHER = re.compile(
    r"(rename (from|to)|copy (from|to)|new file mode|deleted file mode|old mode|GIT binary|Binary files)"
)


@dataclass(slots=True)
class Hunk:
    """Old lines and what replaces them; `line` is the first old line's number (from 1) if it is told, `after` a line
    that comes before, or ""."""

    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    line: int | None = None
    after: str = ""


def is_diff(text: str) -> bool:
    """Whether the text starts as a diff does, rather than as a script."""
    return any(_START.match(line) for line in _clean(text)[:3])


def between(before: str, after: str) -> str:
    """What changed, as the hunks of a unified diff with one line of context."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=1)
    return "\n".join(list(lines)[2:])


def moved(before: str, after: str, onto: str) -> str:
    """`onto` with what changed from `before` to `after`; ProposerFailed where that does not fit in exactly one way."""
    if before == onto:
        return after
    names = (f"a/{SCRIPT}", f"b/{SCRIPT}")

    def change(context: int) -> list[str]:
        return list(difflib.unified_diff(before.splitlines(), after.splitlines(), *names, lineterm="", n=context))

    try:
        return apply(onto, "\n".join(change(1)))
    except ProposerFailed:  # a line beside it may have changed as well, as in a block of constants
        bare, there = change(0), Counter(onto.splitlines())
        if any(_ADDED.match(line) or (line[:1] == "-" and there[line[1:]] != 1) for line in bare[2:]):
            raise  # nothing but a line's number says where that is
        return apply(onto, "\n".join(bare))


def merged(before: str, after: str, onto: str, known: Container[str]) -> str | None:
    """`moved`, or None where that does not fit or has one of the `known` fingerprints."""
    try:
        source = moved(before, after, onto)
        return None if hyperparameters.fingerprint(source) in known else source
    except (ProposerFailed, InvalidBundle):
        return None


def apply(source: str, diff: str) -> str:
    """`source` as train.py with the diff applied, all of it; otherwise ProposerFailed.

    The diff may name train.py, in whatever folder, and nothing else.
    """
    if len(diff) > MAX_DIFF:
        raise ProposerFailed(f"The diff is longer than {MAX_DIFF} characters.")
    lines = _clean(diff)
    searching = any(re.match(r"<{5,9} ?SEARCH", line) for line in lines)
    hunks = [hunk for hunk in (_blocks(lines) if searching else _hunks(lines)) if hunk.old or hunk.new]
    if not any(hunk.old != hunk.new for hunk in hunks):
        raise ProposerFailed("The diff does not apply: it has no hunk that changes anything.")
    if len(hunks) > MAX_HUNKS:
        raise ProposerFailed(f"The diff has more than {MAX_HUNKS} hunks.")
    end = "\r\n" if source.count("\r\n") * 2 > source.count("\n") else "\n"
    text = source.replace("\r\n", "\n").split("\n")
    shift = last = 0
    for number, hunk in enumerate(hunks, 1):
        at = _place(text, hunk, shift, last, number)
        text[at : at + len(hunk.old)] = _kept(text[at : at + len(hunk.old)], hunk)
        shift += len(hunk.new) - len(hunk.old)
        last = at + len(hunk.new)
    return end.join(text)


def _clean(diff: str) -> list[str]:
    """The lines without colours, carriage returns and a prefix that all share."""
    lines = [line.removesuffix("\r") for line in _COLOUR.sub("", diff).strip("\r\n").split("\n")]
    first = next((line for line in lines if line.strip()), "")
    found = _PREFIX.match(first)
    prefix = found[1] if found and _START.match(first[len(found[1]) :]) else ""
    if prefix and all(line.startswith(prefix) or prefix.startswith(line.rstrip() or prefix) for line in lines):
        return [line[len(prefix) :] for line in lines]
    return lines


def _named(path: str) -> None:
    name = path.split("\t")[0].strip().strip('"')
    if name.split("/")[-1] != SCRIPT or ".." in name.split("/") or name.startswith("/"):
        raise ProposerFailed(
            f"The diff changes more than {SCRIPT}: {printable(name)}.", f"Leave everything but {SCRIPT} as it is."
        )


def _hunks(lines: Sequence[str]) -> Iterator[Hunk]:
    """The hunks of a unified diff or a `*** Begin Patch`."""
    hunk: Hunk | None = None
    for number, line in enumerate(lines):
        following = lines[number + 1] if number + 1 < len(lines) else ""
        if line.startswith("@@"):
            if hunk is not None:
                yield _trimmed(hunk)
            told = _NUMBERS.match(line)
            words = told[2] if told else line.strip("@ ")
            hunk = Hunk(line=int(told[1]) if told else None, after=words if not told else "")
        elif line.startswith("diff --git ") or (line.startswith("--- ") and following.startswith("+++ ")):
            if hunk is not None:
                yield _trimmed(hunk)
            hunk = None
            if line.startswith("--- "):
                _named(line[4:])
        elif hunk is None and line.startswith("+++ "):
            _named(line[4:])
        elif line.startswith("*** "):
            if hunk is not None:
                yield _trimmed(hunk)
            hunk = None
            words, colon, path = line[4:].partition(": ")
            if colon:
                _named(path)
                if words != "Update File":
                    raise ProposerFailed(f"The diff changes more than the text of {SCRIPT}: {printable(words)}.")
                hunk = Hunk()
        elif hunk is None and _OTHER.match(line):
            raise ProposerFailed(f"The diff changes more than the text of {SCRIPT}: {printable(line)}.")
        elif hunk is not None:
            _take(hunk, line)
    if hunk is not None:
        yield _trimmed(hunk)


def _take(hunk: Hunk, line: str) -> None:
    sign, rest = line[:1], line[1:]
    if sign == "\\":
        return
    if sign not in ("+", "-", " "):
        rest = line  # context whose blank was lost
    if sign != "+":
        hunk.old.append(rest)
    if sign != "-":
        hunk.new.append(rest)


def _trimmed(hunk: Hunk) -> Hunk:
    """Without empty context at the end, which is often the end of the message and not of the hunk."""
    while len(hunk.old) > 1 and hunk.new and not hunk.old[-1].strip() and hunk.old[-1] == hunk.new[-1]:
        hunk.old.pop()
        hunk.new.pop()
    return hunk


def _blocks(lines: Sequence[str]) -> Iterator[Hunk]:
    """SEARCH/REPLACE blocks."""
    hunk, into = Hunk(), None
    for line in lines:
        if re.match(r"<{5,9} ?SEARCH", line):
            hunk = Hunk()
            into = hunk.old
        elif into is hunk.old and re.fullmatch(r"={5,9}\s*", line):
            into = hunk.new
        elif into is hunk.new and re.match(r">{5,9} ?REPLACE", line):
            into = None
            yield hunk
        elif into is not None:
            into.append(line)
    if into is not None:
        raise ProposerFailed("The diff does not apply: its last SEARCH/REPLACE block has no end.")


def _place(text: Sequence[str], hunk: Hunk, shift: int, last: int, number: int) -> int:
    """Where the hunk's old lines begin."""
    told = None if hunk.line is None else hunk.line - 1 + shift
    if not hunk.old:
        if told is None or not 0 <= told < len(text):
            raise ProposerFailed(f"The diff does not apply: hunk {number} adds lines without saying where.")
        return told + 1 if hunk.line else 0
    for alike in (lambda a: a, str.rstrip):
        wanted = [alike(line) for line in hunk.old]
        found = [
            at
            for at in range(len(text) - len(wanted) + 1)
            if alike(text[at]) == wanted[0] and [alike(line) for line in text[at : at + len(wanted)]] == wanted
        ]
        if len(found) > 1 and told in found:
            found = [told]
        if len(found) > 1 and hunk.after:
            start = next((at for at, line in enumerate(text) if hunk.after.strip() in line), 0)
            found = [at for at in found if at >= start][:1]
        if len(found) > 1:
            found = later if len(later := [at for at in found if at >= last]) == 1 else found
        if len(found) == 1:
            return found[0]
        if found:
            raise ProposerFailed(
                f"The diff does not apply: the old lines of hunk {number} are there {len(found)} times.",
                "Add context lines.",
            )
    missing = next((line for line in hunk.old if line.rstrip() not in {known.rstrip() for known in text}), hunk.old[0])
    raise ProposerFailed(f"The diff does not apply: hunk {number} expects {printable(missing.strip(), 80)!r}.")


def _kept(before: Sequence[str], hunk: Hunk) -> list[str]:
    """The new lines; context keeps the script's own blanks."""
    own = dict(zip(hunk.old, before, strict=True))
    return [own.get(line, line) for line in hunk.new]
