"""Stop a clear loser inside its run: is its training loss further behind than could be made good?

A curve is what a script printed of itself: (seconds since its first step, loss in nats) points, parsed and
bounded by whoever read the log. It is advisory. Stopping only ever discards a candidate, so a curve that
lies costs its author a trial and can never win one; keeping is `trainer.statistics.comparison`'s alone.

**Where the candidate stands** at time t of a budget T is its *lag*:

    lag(t) = (candidate's loss at t - incumbent's loss at t) / (what the incumbent's loss still falls from t to T
             + its own runs' spread)

It has no unit, so it does not depend on tokenizer, model or budget. A lag of 1 is behind by all that the
incumbent itself still gains, warm-down included.

**The rule.** A candidate is hopeless when, after `earliest`·T and at every one of its points in the latest
`settled`·T (so one bad batch says nothing), both hold:

- its lag exceeds `ratio`;
- its own tangent over the latest fifth of T, drawn to T and taken `tangent` times, still ends above the
  incumbent's final loss plus spread. A loss curve is convex but for its warm-down, so the tangent alone flatters
  it: this spares slow starters, such as a larger batch or a longer warm-up.

**A late warm-down** is the one thing that no tangent foretells: a candidate that holds its rate until the last tenth
stands far above an incumbent that has been warming down for a while, and then falls below it. Schedules are what miners
try most, so nothing is stopped later than `latest`, when an incumbent that warms down over its last half has hardly
begun. To stop later and credit the candidate with the incumbent's own fall since its warm-down saves less where it errs
as seldom (tests/benchmarks/bench_pruning.py, its fourth view, and docs/measurements.md).

**When nothing is stopped.** Without a band (no usable curve of the incumbent); when the
candidate's first point is not the incumbent's within `scale` (the loss is another one, or printed otherwise); when
it prints less than `density` times as often as the incumbent: a script that prints a mean over its latest steps shows
one of few steps with a delay. A loss that starts on the same scale and still measures something else, such as label
smoothing, which starts at the same ln V, is not told apart by any curve: hence `prints_same_loss` looks at what the
candidate changed, and the miner prunes only those that leave the loss alone. And `audited`: one hopeless run in
`audit` still runs to its end and becomes a pair to calibrate with, and a pair that shows a hopeless curve
winning loosens the rule for the rest of the session.

**Calibration.** `PruningRules.calibrated` takes the session's finished runs as pairs (worst lag while the rule might
have acted, delta in units of sigma). Runs that came close to the incumbent or beat it show what can be made good.
The largest lag among n of them is exceeded by the next with probability at most 1/(n + 1), whatever their
distribution; `ratio` becomes `margin` times that largest lag: at once where that loosens, and where it tightens
only from n = 49, which bounds a wrong stop by 2 % even before `margin`.

**On recorded curves** (four recordings of the smoke project, 544 varied codes, 171 of which beat their own incumbent)
the defaults stop none of those 171 (exact 95 % limit 1.7 %), and no winner when every run meets every other as the only
curve of its incumbent (0 of 720 that share no run; limit 0.4 %). 13 % of a session's losers are stopped, which saves
6.5 % of the losers' time and 4.5 % of all candidates' (tests/benchmarks/bench_pruning.py). Models of other sizes and
budgets were not recorded.
"""

from __future__ import annotations

import math
import random
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

Curve = Sequence[tuple[float, float]]

MIN_POINTS = 8
MAX_CURVES = 32
_GRID = 200
_ABOUT_LOSS = re.compile(r"loss|entropy|smooth|drop|mask|print", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PruningRules:
    """When a run may be stopped; shares are of the time budget.

    earliest, latest: first and last share at which a curve is judged (a run that is nearly over is worth its end).
    settled: how long it must have looked hopeless. ratio: largest lag that might still be made good. tangent: how
    much steeper than of late the candidate may yet fall. scale: largest relative difference of the first losses.
    density: fewest points, as a share of those that the incumbent had printed by then. margin: safety factor of a
    calibrated ratio, which is never below `floor`. audit: one hopeless run in this many is let through.
    """

    earliest: float = 0.4
    latest: float = 0.6
    settled: float = 0.08
    ratio: float = 1.0
    tangent: float = 1.0
    scale: float = 0.05
    density: float = 0.6
    margin: float = 1.5
    floor: float = 0.75
    audit: int = 20

    def calibrated(self, pairs: Sequence[tuple[float, float]], *, near: float = 1.0, enough: int = 49) -> PruningRules:
        """The rules after finished runs, as (worst lag, delta in sigma): see the module's docstring.

        Runs with delta ≥ -near count as ones that might have won. A tightened ratio is at least `floor`.
        """
        lags = [lag for lag, delta in pairs if delta >= -near and math.isfinite(lag)]
        largest = self.margin * max(lags, default=0.0)
        if largest > self.ratio or len(lags) >= enough:
            return replace(self, ratio=max(self.floor, largest))
        return self


@dataclass(frozen=True, slots=True)
class Band:
    """The incumbent's mean loss over time, on an even grid from its first point to its last, and its runs' spread.

    `start`, `end` in seconds; `mean` and `spread` (the standard deviation, 0 of a single run) in nats; `rate` in
    points per second.
    """

    start: float
    end: float
    rate: float
    mean: tuple[float, ...]
    spread: tuple[float, ...]

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> Band | None:
        """The band of the incumbent's earlier runs, the latest `MAX_CURVES`; None if none is usable.

        A curve is usable with MIN_POINTS finite points in the order of time.
        """
        usable = [curve for curve in curves if _usable(curve)][-MAX_CURVES:]
        if not usable:
            return None
        start, end = max(curve[0][0] for curve in usable), min(curve[-1][0] for curve in usable)
        if end <= start:
            return None
        times = [start + (end - start) * i / (_GRID - 1) for i in range(_GRID)]
        columns = [[at(curve, time) for curve in usable] for time in times]
        mean = tuple(math.fsum(column) / len(column) for column in columns)
        spread = tuple(
            math.sqrt(math.fsum((x - m) ** 2 for x in column) / max(1, len(column) - 1))
            for m, column in zip(mean, columns, strict=True)
        )
        rate = sum(map(len, usable)) / math.fsum(curve[-1][0] - curve[0][0] for curve in usable)
        return cls(start, end, rate, mean, spread)

    def loss(self, time: float) -> float:
        """The mean at `time`, that of the nearer end outside."""
        return self._between(self.mean, time)

    def lag(self, time: float, loss: float) -> float:
        """How far behind `loss` is at `time`, in what the incumbent still falls from there; negative is ahead."""
        left = max(0.0, self.loss(time) - self.mean[-1]) + 2 * self._between(self.spread, time)
        behind = loss - self.loss(time)
        return behind / left if left else math.copysign(math.inf, behind) if behind else 0.0

    def _between(self, values: tuple[float, ...], time: float) -> float:
        place = (time - self.start) / (self.end - self.start) * (_GRID - 1)
        place = min(max(place, 0.0), _GRID - 1.0)
        left = min(int(place), _GRID - 2)
        return values[left] + (values[left + 1] - values[left]) * (place - left)


def hopeless(candidate: Curve, band: Band, *, budget_seconds: float, rules: PruningRules) -> str:
    """Why a run whose curve so far is `candidate` is stopped, in a sentence; "" to let it go on."""
    if not comparable(candidate, band, rules):
        return ""
    now, loss = candidate[-1]
    if not rules.earliest <= now / budget_seconds <= rules.latest:
        return ""
    lag = _settled_lag(candidate, band, budget_seconds, rules)
    if lag <= rules.ratio:
        return ""
    fifth = 0.2 * budget_seconds
    slope = (at(candidate, now - fifth) - loss) / fifth
    reach = loss - rules.tangent * max(0.0, slope) * max(0.0, budget_seconds - now)
    if reach <= band.mean[-1] + 2 * band.spread[-1]:
        return ""
    return (
        f"stopped at {now:.0f} of {budget_seconds:.0f} s: loss {loss:.3f} against the incumbent's "
        f"{band.loss(now):.3f} at that point, too far behind to catch up"
    )


def worst_lag(candidate: Curve, band: Band, *, budget_seconds: float, rules: PruningRules) -> float | None:
    """The largest lag at which `hopeless` could have stopped a finished run; None if it could at no point."""
    if not comparable(candidate, band, rules):
        return None
    lags = [
        _settled_lag(candidate[:end], band, budget_seconds, rules)
        for end in range(MIN_POINTS, len(candidate) + 1)
        if rules.earliest <= candidate[end - 1][0] / budget_seconds <= rules.latest
    ]
    return max(lags, default=None)


def audited(seed: int, rules: PruningRules) -> bool:
    """Whether a hopeless run is let through to its end, to calibrate with. `seed` is the trial's own."""
    return rules.audit > 0 and random.Random(f"audit {seed}").randrange(rules.audit) == 0


def prints_same_loss(incumbent: str, candidate: str) -> bool:
    """Whether no line that differs between two sources speaks of the loss, its regularisers or what is printed."""
    changed = {line.strip() for line in incumbent.splitlines()} ^ {line.strip() for line in candidate.splitlines()}
    return not any(_ABOUT_LOSS.search(line) for line in changed)


def comparable(candidate: Curve, band: Band, rules: PruningRules) -> bool:
    """Whether both print the same loss about as often, as far as the points so far tell."""
    if not _usable(candidate):
        return False
    (start, loss), seconds = candidate[0], candidate[-1][0] - candidate[0][0]
    same = abs(loss - band.loss(start)) <= rules.scale * abs(band.mean[0])
    return same and len(candidate) >= rules.density * band.rate * seconds


def at(curve: Curve, time: float) -> float:
    """The loss at `time` between a curve's points, that of the nearer end outside."""
    right = bisect_right(curve, time, key=lambda point: point[0])
    if right in (0, len(curve)):
        return curve[min(right, len(curve) - 1)][1]
    (t0, l0), (t1, l1) = curve[right - 1], curve[right]
    return l0 + (l1 - l0) * (time - t0) / (t1 - t0) if t1 > t0 else l1


def _settled_lag(candidate: Curve, band: Band, budget_seconds: float, rules: PruningRules) -> float:
    """The smallest lag of the points in the latest `settled` share, at least of the latest three."""
    since = candidate[-1][0] - rules.settled * budget_seconds
    first = min(bisect_right(candidate, since, key=lambda point: point[0]), len(candidate) - 3)
    return min(band.lag(time, loss) for time, loss in candidate[first:])


def _usable(curve: Curve) -> bool:
    if len(curve) < MIN_POINTS or not all(math.isfinite(time) and math.isfinite(loss) for time, loss in curve):
        return False
    return curve[0][0] < curve[-1][0] and all(curve[i][0] <= curve[i + 1][0] for i in range(len(curve) - 1))
