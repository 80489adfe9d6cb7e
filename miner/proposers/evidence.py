"""What the history of trials says about the hyperparameters: moves between points of the search, and what crashed.

A trial counts where it differs from its base in hyperparameters alone. Its gain is relative to its base, so bases are
linked by the gains of what was kept; what descends from another root, such as someone else's
code taken over in between, says nothing about levels here, but its moves still do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from miner.proposers.base import Tried
from miner.proposers.space import Dimension, point
from trainer.errors import InvalidBundle
from trainer.project import hyperparameters
from trainer.project.hyperparameters import Value

_FAMILIES = (("BATCH", "ACCUM"), ("DIM", "HEAD", "WIDTH", "EMBD", "LAYER", "DEPTH"))

Point = tuple[float, ...]
Values = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Move:
    """One trial from `start` to `end`, both coordinates in the dimensions' order; `gain` is None after a crash."""

    start: Point
    end: Point
    gain: float | None
    kept: bool


@dataclass(frozen=True, slots=True)
class SearchHistory:
    """The usable trials in their order, and the values of scripts that ran and that crashed."""

    moves: tuple[Move, ...]
    ran: tuple[Values, ...]
    crashed: tuple[tuple[Values, Values], ...]  # what it was changed from, and what crashed


def gather(source: str, history: Sequence[Tried], dims: list[Dimension]) -> SearchHistory:
    """The evidence in `history` on the dimensions of the incumbent `source`."""
    texts = {hyperparameters.fingerprint(source): source} | {trial.fingerprint: trial.source for trial in history}
    values = {fingerprint: _values(text) for fingerprint, text in texts.items()}
    moves, ran, crashed = [], [values[hyperparameters.fingerprint(source)]], []
    for trial in history:
        at, before = values[trial.fingerprint], values.get(trial.base)
        if trial.decision != "crash":
            ran.append(at)
        if (
            before is None
            or trial.fingerprint == trial.base
            or not _hyperparameters_alone(trial.source, trial.fingerprint, texts[trial.base])
        ):
            continue
        if trial.decision == "crash":
            crashed.append((before, at))
        start, end = point(dims, before), point(dims, at)
        if start is not None and end is not None and start != end:
            gain = None if trial.decision == "crash" else trial.delta
            if gain is not None or trial.decision == "crash":
                moves.append(Move(start, end, gain, trial.kept))
    return SearchHistory(tuple(moves), tuple(ran), tuple(crashed))


@lru_cache(maxsize=4096)  # the history comes again with every trial
def _values(source: str) -> Values:
    try:
        return {found.name: found.value for found in hyperparameters.find(source)}
    except InvalidBundle:
        return {}


@lru_cache(maxsize=4096)
def _hyperparameters_alone(source: str, fingerprint: str, base: str) -> bool:
    """Whether setting the base's hyperparameters to those of `source` gives its code."""
    known, values = _values(base), _values(source)
    if known.keys() != values.keys() or any(type(known[name]) is not type(values[name]) for name in known):
        return False
    return hyperparameters.fingerprint(hyperparameters.replace(base, values)) == fingerprint


def allowed(candidate: Values, evidence: SearchHistory) -> bool:
    """Whether these values are free of known causes of a crash. The rules:

    1. A divisibility A % B == 0 between two integers that held in everything that ran and was broken by a crash
       that changed A or B must hold.
    2. A crash that no such relation explains forbids going as far as it went: to change, in the same direction
       and at least as far, every hyperparameter that it changed.
    """
    for before, after in evidence.crashed:
        changed = [name for name in after if before.get(name) != after[name]]
        broken = [pair for pair in _relations(evidence.ran) if set(pair) & set(changed) and not _divides(after, pair)]
        if broken:
            # Several relations may explain it and only one need be the cause, but which is unknown: all are kept.
            if not all(_divides(candidate, pair) for pair in broken):
                return False
        elif changed and all(_as_far(before.get(name), after[name], candidate.get(name)) for name in changed):
            return False
    return True


def _relations(ran: Sequence[Values]) -> list[tuple[str, str]]:
    """The pairs (A, B) of integer hyperparameters, A % B == 0 in everything that ran."""
    first = ran[0]
    names = [name for name, value in first.items() if type(value) is int and value > 0]
    pairs = [(a, b) for a in names for b in names if a != b and first[b] != 1 and _related(a, b)]
    return [pair for pair in pairs if all(_divides(values, pair) for values in ran)]


def _related(first: str, second: str) -> bool:
    """Whether one may have to divide the other: a batch has to do with batches, a width with the model's shape."""
    families = {
        next((n for n, words in enumerate(_FAMILIES) if any(w in name for w in words)), -1) for name in (first, second)
    }
    return len(families) == 1 or -1 in families


def _divides(values: Values, pair: tuple[str, str]) -> bool:
    a, b = values.get(pair[0]), values.get(pair[1])
    return type(a) is not int or type(b) is not int or (b != 0 and a % b == 0)


def _as_far(before: Value | None, crashed: Value, candidate: Value | None) -> bool:
    """Whether `candidate` lies at `crashed` or beyond it as seen from `before`."""
    if candidate == crashed:
        return True
    if (
        isinstance(before, bool | str | None)
        or isinstance(crashed, bool | str)
        or isinstance(candidate, bool | str | None)
    ):
        return False
    return candidate >= crashed if crashed > before else candidate <= crashed
