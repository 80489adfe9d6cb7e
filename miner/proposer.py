"""Proposers: what to try next.

A proposer takes the incumbent's source and the history of trials and gives a candidate source with
a one-line hypothesis. It is a pure function of those two and its seed, so a session that starts
again after a kill proposes the same candidate it was running.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from trainer import constants


@dataclass(frozen=True, slots=True)
class Candidate:
    """A changed train.py and why it might be better."""

    source: str
    hypothesis: str


@dataclass(frozen=True, slots=True)
class Tried:
    """One earlier trial, as a proposer sees it. `delta` is in val_bpb, positive is better, None after a crash."""

    fingerprint: str
    hypothesis: str
    kept: bool
    delta: float | None


class Proposer(Protocol):
    """The one interface of everything that invents candidates."""

    def propose(self, source: str, history: Sequence[Tried]) -> Candidate | None:
        """The next candidate against `source`, or None where this proposer has nothing left to try."""


# What moves first: the words that name a constant's role, with the weight of a draw. Learning rates
# and batch size move val_bpb most within a fixed time, the rest of the schedule next, shape after that.
_ROLES: tuple[tuple[str, float], ...] = (
    ("LR_FRACTION", 1.0),
    ("LR", 8.0),
    ("BATCH", 4.0),
    ("WARMDOWN", 3.0),
    ("DEPTH", 2.0),
    ("DIM", 2.0),
    ("ACCUM", 1.0),
    ("DECAY", 1.0),
    ("WARMUP", 1.0),
)
_FIXED = ("SEED", "EVAL")  # a new seed is no improvement, and the evaluation is not ours to tune


class Turn:
    """Turns one constant of train.py, sometimes two, by a factor of two or three; untried moves only."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def propose(self, source: str, history: Sequence[Tried]) -> Candidate | None:
        tried = {trial.fingerprint for trial in history} | {constants.fingerprint(source)}
        found = [c for c in constants.find(source) if not any(word in c.name for word in _FIXED)]
        moves = [(c.name, c.value, new) for c in found for new in _moves(c.value)]
        rng = random.Random(f"{self._seed}/{len(history)}")
        weights = [_weight(name) for name, _, _ in moves]
        for _ in range(200):
            if not moves:
                return None
            chosen = {}
            for name, old, new in rng.choices(moves, weights, k=2 if rng.random() < 0.25 else 1):
                chosen[name] = (old, new)
            changed = constants.replace(source, {name: new for name, (_, new) in chosen.items()})
            if constants.fingerprint(changed) not in tried:
                text = ", ".join(f"{name} {old:g} -> {new:g}" for name, (old, new) in chosen.items())
                return Candidate(changed, text)
        return None


def _weight(name: str) -> float:
    return next((weight for word, weight in _ROLES if word in name), 0.5)


def _moves(value: object) -> list[int | float]:
    """Other values worth trying: integers double or halve, positive numbers scale, a zero becomes small."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return []
    if isinstance(value, int):
        return sorted({value * 2, max(1, value // 2)} - {value}) if value > 0 else [1]
    if value == 0:
        return [0.05, 0.1]
    moved = [_rounded(value * factor) for factor in (1 / 3, 1 / 2, 2, 3)]
    # A fraction stays a fraction: shares of the budget and momenta live below one.
    return [new for new in moved if not 0 < value < 1 or new < 1]


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
