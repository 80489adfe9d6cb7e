"""What a mining session asks of a comparison: the most true gain in the hours there are. Pure.

`comparison` says why each rule is as it is.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from trainer.statistics.comparison import is_noisier, steady
from trainer.statistics.distributions import approval_point
from trainer.statistics.error_rates import ComparisonPolicy, Look, LookEvidence
from trainer.statistics.noise import InvalidComparison, NoiseRecord

BASELINE_RUNS = 3
"""Runs of the code that a session begins with."""

WIDE_SCATTER = 0.02
"""Standard deviation of those, as a share of their mean, from which on there are twice as many."""

UNSTEADY = 0.001
"""Level of the F test by which a candidate's runs scatter more than the machine's noise can be."""

STALE_TRIALS = 8
"""Trials in a row without an incumbent run after which history no longer says what the machine does now."""

RECENT = 3.0
"""Lengths of a run, from the incumbent's last to a candidate's first, within which a machine drifts by nothing that
matters."""

OBVIOUS = 20.0
"""Sigmas that no machine drifts by."""

HISTORY_WINDOW = 16
"""Most values of history that are used, the latest: more hardly steady the mean, and age."""

EARNING_TRIALS = 30
"""Trials, the latest, that say what a run earns in this session."""

EARNING_SHARE = 0.5
"""What a further run must promise, of what one has earned."""

LEAST_DF = 3
"""Degrees of freedom below which a mining trial's first run is not looked at."""

FRESH_ENOUGH = 4
"""Fresh incumbent runs from which on those that it was kept by are left out of history."""


@dataclass(frozen=True, slots=True)
class MiningPolicy(ComparisonPolicy):
    """For a session whose incumbent has history: losers stop after a single run, without one of the incumbent.

    refresh: fresh incumbent runs before a trial may approve even when history would do; early_refresh: of these, how
    many before its very first look. glance: level of the looks at the first candidate run before the incumbent is
    topped up, each for rejecting a true gain of `effect`·sigma. obvious: a gain of so many sigma beyond the boundary
    is no drift of the machine, and is kept without a fresh run of the incumbent. worth: least gain that a further run
    must promise, in bpb (`worth_of`). `now` sets what depends on the session so far.
    """

    beta: float = 0.25
    effect: float = 2.5
    max_candidate_runs: int = 4
    first_approval: int = 1
    first_rejection: int = 1
    spending: float = 2.5
    refresh: int = 1  # type: ignore[misc]
    early_refresh: int = 0  # type: ignore[misc]
    glance: float = 0.1
    obvious: float = OBVIOUS
    worth: float = 0.0

    least_approval: ClassVar[int] = 1
    paired: ClassVar[bool] = False  # the incumbent's history has no salt in common with a candidate

    @classmethod
    def now(cls, *, stale: bool, recent: bool, worth: float) -> MiningPolicy:
        """The policy of a trial whose incumbent's last run is `recent` (`RECENT`), or so long ago that history is
        `stale` (`STALE_TRIALS`) and says little about the machine as it is now."""
        return cls(early_refresh=int(stale and not recent), obvious=0.0 if recent else OBVIOUS, worth=worth)

    def __post_init__(self) -> None:
        ComparisonPolicy.__post_init__(self)
        good = (
            0 <= self.early_refresh <= self.refresh <= 50
            and 0 < self.glance < 0.5
            and 0 <= self.obvious < 1e4
            and 0 <= self.worth < 100
        )
        if not good or self.first_rejection != 1:
            raise InvalidComparison(
                f"A mining policy has a first_rejection of 1, found {self.first_rejection!r}, 0 to 50 fresh runs, "
                f"found refresh {self.refresh!r} and early_refresh {self.early_refresh!r}, a glance from 0 to 0.5, "
                f"found {self.glance!r}, obvious from 0 to 10,000, found {self.obvious!r}, and a worth from 0 to 100, "
                f"found {self.worth!r}.",
                "Correct the policy.",
            )

    def looks(self, history: int, noise_df: float) -> tuple[Look, ...]:
        """As they stand, with one fresh run of the incumbent, topped up, and from then on as any trial's."""
        begun, alpha = history + self.early_refresh, self.approval_level(1)
        fresh = max(begun, history + self.refresh, math.ceil(LEAST_DF + 1 - noise_df))
        found = [Look(fresh, 1, alpha, self.glance)]
        if begun and begun < fresh and noise_df + begun - 1 >= LEAST_DF:
            found = [Look(begun, 1, alpha / 2, self.glance, self.obvious), Look(fresh, 1, alpha / 2, self.glance)]
        first, *rest = ComparisonPolicy.looks(self, history, noise_df)
        if first.incumbent > fresh:
            found.append(replace(first, alpha=0.0))
        return (*found, *(replace(look, incumbent=max(look.incumbent, fresh)) for look in rest))

    def gives_up(self, seen: LookEvidence, noise_df: float, later: Sequence[Look]) -> bool:
        """Whether the gain seen, spread over the runs until it would be approved, is less than `worth` for each."""
        if not self.worth:
            return False
        gain = seen.delta - self.margin

        def approves(look: Look) -> bool:
            df = noise_df + look.incumbent + look.candidate - 2
            scale = self.scale(look.incumbent, look.candidate)
            return look.alpha > 0 and gain >= (approval_point(df, look.alpha) * scale + look.beyond) * seen.sigma

        until = next((look for look in later if approves(look)), later[-1])
        runs = until.incumbent - seen.incumbent_runs + until.candidate - seen.candidate_runs
        return gain <= self.worth * runs


def baseline_runs(values: Sequence[float]) -> int:
    """How many runs the code that a session begins with should have, after these: enough to tell which of them stand
    apart (`comparison.steady`), where they scatter by more than a gain is likely to be worth."""
    wide = len(values) >= BASELINE_RUNS and statistics.stdev(values) > WIDE_SCATTER * statistics.fmean(values)
    return 2 * BASELINE_RUNS if wide else BASELINE_RUNS


def lessons(
    candidate: Sequence[float], incumbent: Sequence[float], kept: bool, noise: NoiseRecord, policy: ComparisonPolicy
) -> list[list[float]]:
    """What a finished trial teaches the machine's `noise`, as groups of repeated runs of one script: the candidate's,
    and those of the incumbent, its history included, once it is replaced.

    What stands apart is left out, and so is a candidate that scatters so much more than the incumbent that its training
    must be the reason, not the machine: learnt, one such run would hide what the next hundred trials gain.
    """
    usual = steady(incumbent, noise, policy)
    strict = replace(policy, suspicion=UNSTEADY)
    steady_too = not is_noisier(candidate, noise.update([usual]), strict)
    return [list(group) for group, taught in ((candidate, steady_too), (usual, kept)) if taught]


def worth_of(trials: Iterable[tuple[int, float]]) -> float:
    """`MiningPolicy.worth` after a session's finished trials: the runs of each and what was kept of it, in bpb."""
    latest = list(trials)[-EARNING_TRIALS:]
    runs, gain = sum(runs for runs, _ in latest), math.fsum(gain for _, gain in latest)
    return max(0.0, EARNING_SHARE * gain / runs) if runs else 0.0


def usable_history(selected: Sequence[float], fresh: Sequence[float]) -> list[float]:
    """What of an incumbent's earlier values a mining trial uses as its history.

    selected: its runs as the candidate that was kept, in order; fresh: its runs as the incumbent since. The test
    chose the former for being low, so while they count the incumbent looks better than it is: that never raises
    false keeps, but hides gains. They go once FRESH_ENOUGH fresh runs are there. Which values those are does
    not change the error rates: neither rule looks at a value.
    """
    if len(fresh) >= FRESH_ENOUGH:
        return list(fresh[-HISTORY_WINDOW:])
    return [*selected, *fresh][-HISTORY_WINDOW:]
