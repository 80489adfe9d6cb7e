"""Other people's results.tsv, as rows and as clues.

There is one shape on paper (commit, val_bpb, memory_gb, status, description) and many in the wild: more columns, no
header, a header that the later rows no longer keep to, words such as "best" for "keep". A row is read by its header
where it has as many cells, else by what its cells look like.

Descriptions are read for steps of a number: "MATRIX_LR 0.03 → 0.04", "halve total batch size to 2^16",
"WEIGHT_DECAY=0.2 (up from 0.1)", "reduce depth from 8 to 4".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import Final, Literal

from miner.proposers.base import Clue
from trainer.project.hyperparameters import Value

Status = Literal["keep", "discard", "crash"]
Row = tuple[str, Status, float | None]  # description, status, val_bpb

HEARD: Final = 0.25  # how much a clue weighs that nobody checked
MAX_ROWS: Final = 5000
MAX_CLUES: Final = 1000
_WORDS: Final = 400  # characters of a description that are read
_STATUS: Final[dict[str, Status]] = {
    **dict.fromkeys(("keep", "kept", "best", "baseline", "win", "new best", "adopted"), "keep"),
    **dict.fromkeys(("discard", "discarded", "worse", "revert", "reverted", "neutral"), "discard"),
    **dict.fromkeys(("crash", "crashed", "oom", "fail", "failed", "timeout"), "crash"),
}
_NUMBER: Final = r"-?\d[\d,]*\.?\d*(?:e-?\d+)?(?:(?:\^|\*\*)\d{1,2})?[kK]?"
_NAME: Final = r"(?P<name>[A-Za-z][\w.\[\]*/#]*(?: [A-Za-z][\w.]*){0,3})"
_STEPS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_NAME}\s*[:=]?\s*(?:from\s+)?\(?(?P<old>{_NUMBER})\s*(?:->|→|to)\s*(?P<new>{_NUMBER})(?![\w^])",
        rf"{_NAME}\s*[:=]\s*(?P<new>{_NUMBER})\s*\((?:up|down|was|from)\s*(?:from\s*)?(?P<old>{_NUMBER})",
        rf"{_NAME}\s+to\s+(?P<old>)(?P<new>{_NUMBER})(?![\w^])",
    )
)
_FILLERS: Final = re.compile(
    r"(?i)increased?|raised?|higher|reduced?|lower(ed)?|decreased?|halved?|doubled?|set|try|used?|changed?|more|less|"
    r"the|a|an|of|to|from|and|with|at|by|exp|hypothesis|bump|cut|drop"
)


def rows(text: str) -> list[Row]:
    """The rows that have a description and a known status; what has not is passed over."""
    found: list[Row] = []
    names: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n")[:MAX_ROWS]:
        cells = [cell.strip() for cell in line.split("\t")]
        if "val_bpb" in cells and "description" in cells:
            names = cells
            continue
        row = _named(dict(zip(names, cells, strict=True))) if len(cells) == len(names) else None
        row = row or (_guessed(cells) if len(cells) >= 4 else None)
        if row is not None:
            found.append(row)
    return found


def _named(cells: dict[str, str]) -> Row | None:
    status = _STATUS.get(cells.get("status", "").lower())
    return (
        None if status is None or not cells["description"] else (cells["description"], status, _bpb(cells["val_bpb"]))
    )


def _guessed(cells: list[str]) -> Row | None:
    """By the looks: a word that is a status, the first fraction for the value, the last cell for the description."""
    status = next((_STATUS[cell.lower()] for cell in cells[:-1] if cell.lower() in _STATUS), None)
    if status is None or not re.search(r"[A-Za-z]{2}", cells[-1]):
        return None
    return cells[-1], status, next((value for cell in cells[:-1] if "." in cell and (value := _bpb(cell))), None)


def _bpb(text: str) -> float | None:
    """A value as a positive number of bits; a crash is written as 0."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < 100 else None


def of_rows(rows: Iterable[Row], known: Iterable[str] = ()) -> list[Clue]:
    """The clues in rows: weak ones. A row's gain is against the best kept before it; `known` are edits by name."""
    found: list[Clue] = []
    best: float | None = None
    for words, status, value in rows:
        gain = None if value is None or best is None or status == "crash" else best - value
        if value is not None and status == "keep":
            best = value if best is None else min(best, value)
        if gain is None and status != "crash":
            continue  # a baseline tells nothing
        found += [Clue(name, old, new, gain, HEARD) for name, old, new in steps(words)]
        spoken = words[:_WORDS].lower().replace("-", " ")
        found += [
            Clue(f"edit:{edit}", None, None, gain, HEARD)
            for edit in known
            if re.search(rf"\b{re.escape(edit.replace('-', ' '))}\b", spoken)
        ]
    return found[:MAX_CLUES]


def steps(words: str) -> Iterator[tuple[str, Value | None, Value]]:
    """The steps of numbers in a description: name in capitals, old value where it is told, new value."""
    said = set[tuple[str, Value]]()
    for pattern in _STEPS:
        for match in pattern.finditer(words[:_WORDS]):
            new = number(match["new"])
            parts = [part for part in match["name"].split() if not _FILLERS.fullmatch(part)]
            if new is None or not parts:
                continue
            name = parts[-1] if parts[-1].isupper() and "_" in parts[-1] else "_".join(parts)
            name = re.sub(r"\W+", "_", name).strip("_").upper()
            if (name, new) not in said:
                said.add((name, new))
                yield name, number(match["old"]), new


def number(text: str) -> Value | None:
    """A number as people write it: 2^16, 2**16, 65,536, 64K, 3e-4; None if it is none."""
    text = text.replace(",", "")
    base, power, exponent = re.sub(r"\*\*", "^", text).partition("^")
    thousand = base[-1:] in ("k", "K")
    try:
        value = float(base.rstrip("kK")) ** (int(exponent) if power else 1) * (1024 if thousand else 1)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and "." not in text and "e" not in text.lower() else value
