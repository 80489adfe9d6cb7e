"""What others found, as clues: changes of named numbers and kinds of edit, with their gain and how much they weigh.

A clue comes from the diff between two scripts that followed each other as the best (the chain's approved codes: a
gain that verifiers confirmed), from this machine's earlier sessions, or from the words of somebody's results.tsv,
which nobody checked. It never replaces a trial here: it only moves a first look up or down the list, and adds the
value that won elsewhere as a look of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice

from miner.proposers.base import Clue, Tried, by_fingerprint
from miner.proposers.space import Dimension
from trainer.errors import InvalidBundle
from trainer.project import sites
from trainer.project.hyperparameters import Value

APPROVED, OWN = 1.0, 0.7  # how much a clue weighs, by who measured it; others' tables: `tables.HEARD`
MAX_CLUES = 2000
REACH = 4.0  # steps: a value further away is hardly of the same unit
_SYNONYMS = {"EMBEDDING": "EMBED", "UNEMBEDDING": "HEAD", "SOFTCAP": "CAP", "MUON": "MATRIX"}
_SYNONYMS |= dict.fromkeys(("RATIO", "FRAC", "FRACTION", "SIZE", "TOTAL", "LOGIT"), "")


def between(before: str, after: str, gain: float | None, weight: float) -> list[Clue]:
    """What the step from one script to the next says; `gain` in bpb, positive is better, None after a crash."""
    try:
        changed = sites.changed(before, after)
    except InvalidBundle:
        return []
    # Who changed many things at once says little of each.
    share = weight / max(1, len(changed))
    return [Clue(name, old, new, gain, share) for name, (old, new) in islice(changed.items(), 32)]


def of_trials(history: Sequence[Tried]) -> list[Clue]:
    """The clues in a finished session's trials, and the edits by their kind."""
    texts = by_fingerprint(history)
    found: list[Clue] = []
    for trial in history:
        before = texts.get(trial.base)
        if before is None or not trial.number:
            continue
        found += between(before, trial.source, trial.delta, OWN)
        if trial.kind:
            found.append(Clue(f"edit:{trial.kind}", None, None, trial.delta, OWN))
    return found[-MAX_CLUES:]


def _meant(told: Sequence[Clue], dims: Sequence[Dimension]) -> dict[str, Dimension]:
    """The dimension that each clue's name means: of that name, else the only one of a name that means the same."""
    exact, plain = {d.name: d for d in dims}, dict[str, list[Dimension]]()
    for dimension in dims:
        plain.setdefault(_plain(dimension.name), []).append(dimension)
    found: dict[str, Dimension] = {}
    for name in {clue.name for clue in told}:
        alike = [exact[name]] if name in exact else plain.get(_plain(name), [])
        if len(alike) == 1:
            found[name] = alike[0]
    return found


def _plain(name: str) -> str:
    """A name without the words in which scripts of one family differ."""
    words = [_SYNONYMS.get(word, word) for word in name.upper().split("_")]
    return "_".join(word for word in words if word) or name


def factor(told: Sequence[Clue], changes: Mapping[str, Value], dims: Sequence[Dimension]) -> float:
    """By how much the clues move a look: up to fourfold for the same way elsewhere won, down to a quarter for lost."""
    meant = _meant(told, dims)
    score = 0.0
    for name, value in changes.items():
        for clue in told:
            dimension = meant.get(clue.name)
            if dimension is None or dimension.name != name or clue.old is None or clue.new is None:
                continue
            start, end = dimension.coordinate(clue.old), dimension.coordinate(clue.new)
            here, there = dimension.coordinate(dimension.value), dimension.coordinate(value)
            if None in (start, end, here, there):
                continue
            alike = (end - start) * (there - here) > 0  # type: ignore[operator]
            if alike:
                score += _vote(clue)
    return _bent(score)


def of_edit(told: Sequence[Clue], name: str) -> float:
    """By how much the clues move an edit, likewise."""
    return _bent(sum(_vote(clue) for clue in told if clue.name == f"edit:{name}"))


def _vote(clue: Clue) -> float:
    return clue.weight * (1.0 if (clue.gain or -1.0) > 0 else -0.5)


def _bent(score: float) -> float:
    return math.exp(max(-1.4, min(1.4, score)))


def values(told: Sequence[Clue], dims: Sequence[Dimension]) -> list[tuple[str, Value, float]]:
    """The values that won elsewhere, where they lie elsewhere than here, with their worth (as `DimensionRole.far`)."""
    meant = _meant(told, dims)
    found: dict[tuple[str, Value], float] = {}
    for clue in told:
        dimension = meant.get(clue.name)
        if dimension is None or clue.new is None or (clue.gain or 0.0) <= 0:
            continue
        new = float(clue.new) if isinstance(dimension.value, float) and isinstance(clue.new, int) else clue.new
        here, there = dimension.coordinate(dimension.value), dimension.coordinate(new)
        if (
            type(new) is type(dimension.value)
            and here is not None
            and there is not None
            and dimension.apart(here, there) >= 1
            and (abs(there - here) <= REACH or dimension.scale == "choice")
        ):
            worth, key = clue.weight * min(3.0, 0.3 + 20 * (clue.gain or 0.0)), (dimension.name, new)
            found[key] = max(found.get(key, 0.0), worth)
    return [(name, value, worth) for (name, value), worth in found.items()]
