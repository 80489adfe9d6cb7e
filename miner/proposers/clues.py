"""What others found, as clues: changes of named numbers and kinds of edit, with their gain and how much they weigh.

A clue comes from the diff between two scripts that followed each other as the best (the chain's approved codes: a
gain that verifiers confirmed), from this machine's earlier sessions, or from the words of somebody's results.tsv,
which nobody checked. It never replaces a trial here: it only moves a first look up or down the list, and adds the
value that won elsewhere as a look of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from miner.proposers.base import Clue, Tried
from miner.proposers.space import Dimension
from trainer.errors import InvalidBundle
from trainer.project import sites
from trainer.project.hyperparameters import Value

APPROVED, OWN, HEARD = 1.0, 0.7, 0.25  # how much a clue weighs, by who measured it
MAX_CLUES = 2000
_STEP = re.compile(
    r"(?P<name>[A-Za-z][\w.\[\]*/#]{1,60})\s*[:=]?\s*(?:from\s+)?(?P<old>-?[\d.]+(?:e-?\d+)?|\w+)?\s*(?:->|→|to)\s*"
    r"(?P<new>-?\d[\d.]*(?:e-?\d+)?)",
    re.IGNORECASE,
)


def between(before: str, after: str, gain: float | None, weight: float) -> list[Clue]:
    """What the step from one script to the next says; `gain` in bpb, positive is better, None after a crash."""
    try:
        old, new = sites.values(before), sites.values(after)
    except InvalidBundle:
        return []
    changed = [name for name in old if name in new and old[name] != new[name]]
    # Who changed many things at once says little of each.
    share = weight / max(1, len(changed))
    return [Clue(name, old[name], new[name], gain, share) for name in changed[:32]]


def of_trials(history: Sequence[Tried]) -> list[Clue]:
    """The clues in a finished session's trials, and the edits by their kind."""
    texts = {trial.fingerprint: trial.source for trial in history}
    found: list[Clue] = []
    for trial in history:
        before = texts.get(trial.base)
        if before is None or not trial.number:
            continue
        found += between(before, trial.source, trial.delta, OWN)
        if trial.kind:
            found.append(Clue(f"edit:{trial.kind}", None, None, trial.delta, OWN))
    return found[-MAX_CLUES:]


def of_rows(rows: Iterable[tuple[str, str, float | None]], known: Iterable[str] = ()) -> list[Clue]:
    """The clues in results.tsv's rows (description, status, val_bpb): weak, since nobody checked them.

    A row's gain is against the best kept before it. Words tell the edit where they name one (`_WORDS`).
    """
    found: list[Clue] = []
    best: float | None = None
    for words, status, value in rows:
        gain = None if value is None or best is None or value <= 0 else best - value
        if value is not None and value > 0 and status == "keep":
            best = value if best is None else min(best, value)
        for match in _STEP.finditer(words[:400]):
            name = re.sub(r"\W+", "_", match["name"]).upper()
            found.append(Clue(name, _number(match["old"]), _number(match["new"]), gain, HEARD))
        found += [
            Clue(f"edit:{edit}", None, None, gain, HEARD) for edit in known if edit.replace("-", " ") in words.lower()
        ]
    return found[:MAX_CLUES]


def factor(told: Sequence[Clue], changes: Mapping[str, Value], dims: Sequence[Dimension]) -> float:
    """By how much the clues move a look: up to fourfold for the same way elsewhere won, down to a quarter for lost."""
    by_name = {d.name: d for d in dims}
    score = 0.0
    for name, value in changes.items():
        dimension = by_name.get(name)
        for clue in told:
            if dimension is None or clue.name != name or clue.old is None or clue.new is None:
                continue
            start, end = dimension.coordinate(clue.old), dimension.coordinate(clue.new)
            here, there = dimension.coordinate(dimension.value), dimension.coordinate(value)
            if None in (start, end, here, there):
                continue
            alike = (end - start) * (there - here) > 0  # type: ignore[operator]
            if alike:
                score += clue.weight * (1.0 if (clue.gain or -1.0) > 0 else -0.5)
    return math.exp(max(-1.4, min(1.4, score)))


def values(told: Sequence[Clue], dims: Sequence[Dimension]) -> list[tuple[str, Value, float]]:
    """The values that won elsewhere, where they lie elsewhere than here, with their worth (`space.Role.far`)."""
    by_name = {d.name: d for d in dims}
    found: dict[tuple[str, Value], float] = {}
    for clue in told:
        dimension = by_name.get(clue.name)
        if dimension is None or clue.new is None or (clue.gain or 0.0) <= 0:
            continue
        new = float(clue.new) if isinstance(dimension.value, float) and isinstance(clue.new, int) else clue.new
        here, there = dimension.coordinate(dimension.value), dimension.coordinate(new)
        if (
            type(new) is type(dimension.value)
            and here is not None
            and there is not None
            and dimension.apart(here, there) >= 1
        ):
            worth = clue.weight * min(3.0, 0.3 + 20 * (clue.gain or 0.0))
            found[clue.name, new] = max(found.get((clue.name, new), 0.0), worth)
    return [(name, value, worth) for (name, value), worth in found.items()]


def _number(text: str | None) -> Value | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and "." not in (text or "") and "e" not in (text or "").lower() else value
