"""One trial: candidate against incumbent on this machine, run after run until the answer is clear.

`standing` says by `comparison.decide` which runs are ahead, and `compare` has them made until there are none. A run
without a value (a crash, a time-out) is a failure, never a sample: the trial ends at `MAX_FAILURES` of the
candidate's, and at as many of the incumbent's, which are this machine's fault. While mining one is enough that was
over its budget: it took twice as long as a run should, and would again.

Two kinds of runs are no failures. A run that was `STOPPED` as hopeless ends the trial: the candidate is given up,
so a wrong stop costs a chance and never keeps anything. A run that was `UNFIT`, because this machine was, is left
out and made again, `MAX_UNFIT` times in all; then the trial is given up as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from trainer.errors import STOPPED, UNFIT, EnvironmentNotReady
from trainer.measurement.run import Run
from trainer.measurement.values import Failure
from trainer.statistics import comparison
from trainer.statistics.comparison import Arm, Decision, TrialSamples
from trainer.statistics.error_rates import ComparisonPolicy
from trainer.statistics.noise import NoiseRecord

MAX_FAILURES = 2
MAX_UNFIT = 5


class _Ran(Protocol):
    @property
    def failure(self) -> str: ...

    @property
    def detail(self) -> str: ...


_OneRun = TypeVar("_OneRun", bound=_Ran)


def until_fit(make: Callable[[int], Sequence[_OneRun]], wanted: int = 1) -> list[_OneRun]:
    """So many runs for which the machine was fit. `make` is told how many are wanting, and makes one or more of them.

    EnvironmentNotReady after `MAX_UNFIT` for which it was not.
    """
    fit, unfit = list[_OneRun](), list[_OneRun]()
    while len(fit) < wanted:
        for made in make(wanted - len(fit)):
            (unfit if made.failure == UNFIT else fit).append(made)
        if len(unfit) >= MAX_UNFIT:
            raise EnvironmentNotReady(
                f"This machine is unfit: {unfit[-1].detail}.", "Run the command again on a quiet machine."
            )
    return fit


@dataclass(frozen=True, slots=True)
class Trial:
    """All runs of a trial, in order, and the comparison's last word (None if failures ended it)."""

    runs: tuple[Run, ...]
    decision: Decision | None

    @property
    def ahead(self) -> tuple[Arm, ...]:
        """The runs that may still be needed, in order; none once the trial has ended."""
        return self.decision.ahead if self.decision else ()

    @property
    def wanted(self) -> int:
        """How many of those are needed for its next look."""
        return self.decision.wanted if self.decision else 0

    def failures(self, arm: Arm) -> list[Run]:
        """The runs of an arm that failed by themselves."""
        return [run for run in self.runs if run.arm is arm and run.failure not in ("", STOPPED, UNFIT)]

    @property
    def incumbent_failure(self) -> Run | None:
        """The incumbent's last failure, where these ended the trial."""
        failed = self.failures(Arm.INCUMBENT)
        return failed[-1] if self.decision is None and len(failed) >= MAX_FAILURES else None

    @property
    def given_up(self) -> str:
        """Why the trial ended without an answer or a failure, in words; "" where it did not."""
        stopped = next((run for run in self.runs if run.failure == STOPPED), None)
        unfit = [run for run in self.runs if run.failure == UNFIT]
        return stopped.detail if stopped else unfit[-1].detail if len(unfit) >= MAX_UNFIT else ""

    def values(self, arm: Arm) -> list[float]:
        """The values of an arm, in the order they were measured."""
        return [run.val_bpb for run in self.runs if run.arm is arm and run.val_bpb is not None]


def standing(
    runs: Sequence[Run], *, history: Sequence[float], noise: NoiseRecord, policy: ComparisonPolicy, seed: int
) -> Trial:
    """How a trial stands after these runs of its own. `history` holds the incumbent's values from before it, `seed`
    fixes the interleaving. What failed after the run that gave the answer, or beside it, changes nothing. Pure."""
    trial = Trial(tuple(runs), None)
    before = next(
        (shorter for k in range(len(runs)) if _ends(shorter := Trial(trial.runs[: k + 1], None), policy)), None
    )
    judged = Trial(before.runs[:-1], None) if before else trial
    samples = TrialSamples([*history, *judged.values(Arm.INCUMBENT)], judged.values(Arm.CANDIDATE), len(history))
    decision = comparison.decide(samples, noise, policy, seed=seed)
    return trial if before and decision.ahead else replace(trial, decision=decision)


def _ends(trial: Trial, policy: ComparisonPolicy) -> bool:
    """Whether its runs end a trial that has no answer yet."""
    if trial.given_up or any(len(trial.failures(arm)) >= MAX_FAILURES for arm in Arm):
        return True
    return not policy.paired and any(run.failure == Failure.OVER_BUDGET for run in trial.failures(Arm.CANDIDATE))


def compare(
    execute: Callable[[Sequence[Arm]], Sequence[Run]],
    *,
    history: Sequence[float],
    noise: NoiseRecord,
    policy: ComparisonPolicy,
    seed: int,
    done: Sequence[Run] = (),
) -> Trial:
    """Run arms until the comparison has an answer, an arm keeps failing or the candidate is given up.

    `execute` is given all runs that may be ahead, and makes the first of them, or the first few at the same time.
    `done` are the runs of this very trial that were made already, the other arguments those of `standing`. Bounded by
    the policy's run limit plus MAX_FAILURES an arm and MAX_UNFIT.
    """
    runs = list(done)
    while (found := standing(runs, history=history, noise=noise, policy=policy, seed=seed)).ahead:
        runs += execute(found.ahead)
    return found
