"""Follows one run by the lines that it prints: shows them, and ends the run if its loss curve is hopeless.

What a script prints is its own word. It can cost its author a trial here and can win nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from trainer.errors import StopRun
from trainer.statistics import curve, pruning

MOST_POINTS = 2000  # of one run; progress lines come about every hundredth of the budget


@dataclass(slots=True)
class Pruner:
    """A run's listener for `Bench.measure`. Without a `band` nothing is stopped.

    `budget_seconds` turns the script's progress into seconds. StopRun where the run is hopeless.
    """

    show: Callable[[str], None]
    budget_seconds: float
    band: pruning.Band | None = None
    rules: pruning.PruningRules = field(default_factory=pruning.PruningRules)
    points: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self, line: str) -> None:
        self.show(line)
        point = curve.read(line)
        if self.band is None or point is None or len(self.points) >= MOST_POINTS:
            return
        self.points.append((point.progress * self.budget_seconds, point.loss))
        why = pruning.hopeless(self.points, self.band, budget_seconds=self.budget_seconds, rules=self.rules)
        if why:
            raise StopRun(why)


def pairs(
    trials: Sequence[tuple[float | None, Sequence[tuple[pruning.Curve, float]]]],
    band: pruning.Band | None,
    sigma: float | None,
    *,
    budget_seconds: float,
    rules: pruning.PruningRules,
) -> list[tuple[float, float]]:
    """What finished runs show: (worst lag, delta in units of sigma) for each (curve, val_bpb) of trials that give
    the incumbent's mean val_bpb (None: unknown)."""
    if band is None or not sigma:
        return []
    found = []
    for incumbent, runs in trials:
        for points, value in runs:
            lag = pruning.worst_lag(points, band, budget_seconds=budget_seconds, rules=rules)
            if lag is not None and incumbent is not None:
                found.append((lag, (incumbent - value) / sigma))
    return found
