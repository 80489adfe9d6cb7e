"""What a session's events add up to, kept with every event: looking at a session costs the same at any length.

Values are val_bpb, lower is better. `Session.apply` feeds it; nothing here is written down, since the journal says it
all. The level of a commit is the mean of all its runs, and the noise of one run is pooled over the commits that ran
more than once, by Welford's update.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trainer.errors import STOPPED, UNFIT
from trainer.statistics.comparison import Arm

if TYPE_CHECKING:
    from miner.journal.journal import Confirmation, Frontier, TrialRecord
    from miner.journal.run import RunRecord

THEIRS, DISPROVED, EARLIER = "another miner’s", "disproved", "an earlier best"


@dataclass(slots=True)
class Level:
    """The runs of one commit: how many gave a value, and their mean."""

    runs: int = 0
    mean: float = math.nan


@dataclass(slots=True)
class Sums:
    """Counts, levels and times so far.

    `decided` are the finished trials in the order of their decisions, `standing` the kept ones (by commit) but those
    from which a confirming test sent the search back, and `gain` the sum of their deltas. `changes` are the
    incumbents as (trial number, commit, why), in order, `carried` the trials whose change is still to be tried on the
    new head. `seconds` are of runs by how they ended: "value" with a loss curve, then `trained` of them in training;
    those without a curve are in `curveless`, one by one.
    """

    runs: int = 0
    joules: float = 0.0  # of the runs whose energy was measured
    metered: int = 0
    unfit: int = 0
    last_run: RunRecord | None = None
    by_number: dict[int, TrialRecord] = field(default_factory=dict)
    by_commit: dict[str, list[TrialRecord]] = field(default_factory=dict)
    by_base: dict[str, list[TrialRecord]] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)  # of each commit
    open: dict[int, TrialRecord] = field(default_factory=dict)
    decided: list[TrialRecord] = field(default_factory=list)
    decisions: Counter[str] = field(default_factory=Counter)
    carried: list[TrialRecord] = field(default_factory=list)
    standing: dict[str, TrialRecord] = field(default_factory=dict)
    gain: float = 0.0
    since_kept: int = 0
    changes: list[tuple[float, str, str]] = field(default_factory=list)
    levels: dict[str, Level] = field(default_factory=dict)
    squares: float = 0.0
    freedom: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    trained: float = 0.0
    curveless: list[float] = field(default_factory=list)
    usual: list[float] = field(default_factory=list)  # sorted seconds of the runs that ended well
    confirming: float = 0.0
    candidates: float = 0.0  # seconds of all runs of candidates, confirming tests' included

    def began(self, trial: TrialRecord) -> None:
        """A trial is open."""
        if not self.by_number:
            self.changes.append((0.0, trial.base, ""))
        self.by_number[trial.number] = trial
        self.by_commit.setdefault(trial.commit, []).append(trial)
        self.by_base.setdefault(trial.base, []).append(trial)
        self.fingerprints[trial.commit] = trial.fingerprint
        self.open[trial.number] = trial
        self.carried = [t for t in self.carried if t.number != trial.carries and t.commit != trial.commit]

    def trials_of(self, base: str) -> list[TrialRecord]:
        """The trials measured against a commit."""
        return self.by_base.get(base, [])

    def involving(self, commit: str) -> list[TrialRecord]:
        """The trials that may have run a commit, as candidate or incumbent, in order."""
        both = {trial.number: trial for trial in self.by_commit.get(commit, ())}
        both |= {trial.number: trial for trial in self.trials_of(commit)}
        return [both[number] for number in sorted(both)]

    def ran(self, trial: TrialRecord, run: RunRecord) -> None:
        """A run of a trial ended."""
        self.runs += 1
        if run.joules is not None:
            self.joules, self.metered = self.joules + run.joules, self.metered + 1
        self.last_run = run
        self.candidates += run.seconds if run.arm is Arm.CANDIDATE else 0.0
        if not run.failure:
            insort(self.usual, run.seconds)
        self.unfit += run.failure == UNFIT
        if run.failure:
            self.seconds[run.failure if run.failure in (STOPPED, UNFIT) else "failed"] += run.seconds
        elif run.curve:
            self.seconds["value"] += run.seconds
            self.trained += min(run.seconds, run.curve[-1][0])
        else:
            self.curveless.append(run.seconds)
        if run.val_bpb is None or not math.isfinite(run.val_bpb):
            return
        level = self.levels.setdefault(trial.commit_of(run), Level())
        before = level.mean if level.runs else run.val_bpb
        level.runs += 1
        level.mean = before + (run.val_bpb - before) / level.runs
        if level.runs > 1:
            self.freedom += 1
            self.squares += (run.val_bpb - before) * (run.val_bpb - level.mean)

    def concluded(self, trial: TrialRecord, before: str) -> None:
        """A trial's decision is known; `before` is the one it had, "" as a rule."""
        self.open.pop(trial.number, None)
        if not before:
            self.decided.append(trial)
        if trial.carry:
            self.carried.append(trial)
        if not trial.number:
            return
        if before:
            self.decisions[before] -= 1
        self.decisions[trial.decision] += 1
        self.since_kept = 0 if trial.kept else self.since_kept + (not trial.carry)  # that one is still to be tried
        if trial.kept:
            self.standing[trial.commit] = trial
            self.gain += trial.delta or 0.0
            insort(self.changes, (float(trial.number), trial.commit, ""))

    def confirmed(self, test: Confirmation) -> None:
        """A confirming test ended: what it disproves is no gain, nor is what was kept on top of the chain's best."""
        if not test.disproved:
            return
        at = test.commit
        while at != test.against and at in self.standing:
            at = self.standing.pop(at).base
        self.gain = math.fsum(trial.delta or 0.0 for trial in self.standing.values())
        insort(self.changes, (test.trial + 0.5, test.against, DISPROVED))

    def looked(self, frontier: Frontier) -> None:
        """The chain has a best that the session had not seen."""
        if frontier.foreign or frontier.lead:
            insort(self.changes, (frontier.trial + 0.5, frontier.commit, EARLIER if frontier.lead else THEIRS))
