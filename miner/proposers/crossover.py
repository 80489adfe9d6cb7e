"""`crossover`: what was found on another line, or nearly found, as a change of the incumbent of now. Offline.

Another line is what this session had kept when somebody else's best took its place: all of it is tried at once, then
step by step. Nearly found is what looked better by more than the noise of a run and was not kept; once the incumbent
has moved, it may be worth more or less. Each change is offered once, and only where it fits in exactly one way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from miner.proposers import diffs
from miner.proposers.base import MAX_HYPOTHESIS, Candidate, Context, Tried, by_fingerprint
from trainer.project import hyperparameters

_OFFERED = re.compile(r"crossover: trials? (\d+)(?: to (\d+))?\b")


class Crossover:
    """What it offered stands in the history's hypotheses; it keeps only what does not fit an incumbent."""

    name = "crossover"

    def __init__(self) -> None:
        self._refused: set[tuple[object, ...]] = set()

    def propose(self, context: Context) -> Candidate | None:
        """The change that gained most elsewhere and fits here, or None."""
        known, texts = context.known(), by_fingerprint(context.history)
        hypotheses = [t.hypothesis for t in context.history] + [t.hypothesis for t in context.pending]
        offered = {found.groups() for text in hypotheses if (found := _OFFERED.match(text))}
        incumbent = hyperparameters.fingerprint(context.source)
        for first, last in changes(context):
            name = (str(first.number), str(last.number) if last is not first else None)
            before = texts.get(first.base)
            if name in offered or before is None or (incumbent, *name) in self._refused:
                continue
            source = diffs.merged(before, last.source, context.source, known)
            if source is None:
                self._refused.add((incumbent, *name))
                continue
            return Candidate(source, words(first.number, last.number, last.hypothesis))
        return None


def words(first: int, last: int, hypothesis: str) -> str:
    """The hypothesis of a change made by these trials, the last of which had the given one."""
    which = f"trial {first}" if first == last else f"trials {first} to {last}"
    return f"crossover: {which} on the best: {hypothesis}"[:MAX_HYPOTHESIS]


def again(number: int, hypothesis: str) -> str:
    """The hypothesis of a trial's code as it was, which had the given one, against another best."""
    return f"trial {number} again: {hypothesis}"[:MAX_HYPOTHESIS]


def changes(context: Context) -> Iterator[tuple[Tried, Tried]]:
    """The first and last trial of each change that the incumbent lacks: lost lines, their steps, then near finds."""
    kept = {t.fingerprint: t for t in context.history if t.kept and t.number}
    now = hyperparameters.fingerprint(context.source)
    held = {step.fingerprint for step in _line(now, kept)}
    lost = {mark: t for mark, t in kept.items() if mark not in held}
    bases = {t.base for t in lost.values()}
    for tip in sorted((t for t in lost.values() if t.fingerprint not in bases), key=lambda t: -t.number):
        line = [t for t in _line(tip.fingerprint, kept) if t.fingerprint in lost]
        if len(line) > 1:
            yield line[-1], tip
    near = [t for t in context.history if t.decision == "discard" and (t.delta or 0.0) > (context.sigma or 0.0)]
    for step in [*_best(lost.values()), *_best(t for t in near if t.base != now)]:
        yield step, step


def _line(mark: str, kept: dict[str, Tried]) -> Iterator[Tried]:
    """The kept trials that lead to a code, the newest first."""
    seen = set[str]()
    while mark in kept and mark not in seen:
        seen.add(mark)
        yield kept[mark]
        mark = kept[mark].base


def _best(trials: Iterable[Tried]) -> list[Tried]:
    return sorted(trials, key=lambda t: -(t.delta or 0.0))
