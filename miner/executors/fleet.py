"""Several trials in flight at once, one for each machine of a cluster; the session's journal knows where each one is.

What is sent out is on record first, and what comes back is recorded in one line, so a kill of this process repeats at
most the trials in flight. A trial whose machine is lost goes to the next one, `MAX_LOST` times; then it is discarded
unjudged, since it may be what kills them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from common.files import write_atomic
from miner.context.context import SessionContext
from miner.executors.cluster import Cluster
from miner.executors.worker import MAX_PAST, TrialJob, TrialResult
from miner.journal.journal import TrialRecord
from miner.proposers.base import SCRIPT
from miner.trials import history
from miner.trials.decision import decided
from miner.trials.trial import checked, conclude, may_prune
from trainer.errors import EnvironmentNotReady
from trainer.judging.trial import Trial

MAX_LOST = 2  # times that a trial is sent out anew
_LOOK = 2.0  # seconds between two looks at the cluster
_TURN = 300.0  # seconds after which the session sees to the chain, whatever comes back


class Fleet:
    """The trials of a session on a cluster's machines; `begin` puts a new one on record, if there is one."""

    def __init__(self, cluster: Cluster, context: SessionContext, *, begin: Callable[[], TrialRecord | None]) -> None:
        self.cluster, self._context, self._begin = cluster, context, begin
        self._flying: dict[int, TrialRecord] = {}

    def fill(self, *, here: bool = True) -> None:
        """Give idle machines the trials that are open, then new ones; `here` False leaves out this process's own."""
        for machine in self.cluster.idle(here=here):
            waiting = [trial for trial in self._context.session.unfinished if trial.number not in self._flying]
            trial = waiting[0] if waiting else self._begin()
            if trial is None:
                return
            job = self._job(trial, machine)
            self._context.journal.append("dispatched", number=trial.number, machine=machine)
            self._context.dashboard.say(f"trial {trial.number} on {machine}: {trial.hypothesis}")
            self.cluster.send(machine, job)
            self._flying[trial.number] = trial
            self._context.dashboard.observe(self._context.session)

    def advance(self, *, more: bool = True, here: bool = True) -> bool:
        """Wait until something comes back, or for a while; False if nothing is in flight or left to begin.

        Nothing is begun if `more` is False. EnvironmentNotReady if no machine of the cluster is left.
        """
        if more:
            self.fill(here=here)
        idle = len(self.cluster.idle())
        if not self._flying and (not more or (idle and not self.cluster.opening())):
            return False
        deadline = time.monotonic() + _TURN
        with self._context.dashboard.step(self._words()):
            while time.monotonic() < deadline:
                if self._collect(_LOOK) or len(self.cluster.idle()) > idle:
                    break
                if not self._flying and not idle and not self.cluster.opening():
                    raise EnvironmentNotReady(
                        "No machine of the Ray cluster is fit to measure.",
                        "See the reasons above, then run the command on a machine of the same class as the others.",
                    )
        return True

    def tend(self) -> None:
        """Take in what came back, without waiting, and give the other machines work while this one confirms."""
        while self._collect(0.0):
            pass
        self.fill(here=False)

    def _collect(self, seconds: float) -> bool:
        """Take in what comes back within so many seconds; whether anything did."""
        returned = self.cluster.wait(seconds)
        for entry in returned:
            self._take(entry.machine, entry.number, entry.result, entry.lost)
        return bool(returned)

    def _job(self, trial: TrialRecord, machine: str) -> TrialJob:
        session, sigma = self._context.session, self.cluster.sigma(machine)
        rules = None
        if may_prune(self._context, trial):
            rules = history.rules(session, trial, sigma, budget_seconds=self._context.budget_seconds, machine=machine)
        return TrialJob(
            trial.number,
            self._context.workspace.read(trial.base, SCRIPT),
            self._context.workspace.read(trial.commit, SCRIPT),
            session.seed + trial.number,
            history.policy(session, trial, machine),
            tuple(history.incumbent_values(session, trial, machine)),
            tuple(history.runs_of(session, trial.base, machine)[-MAX_PAST:]),
            tuple(history.runs_of(session, trial.commit, machine)[-MAX_PAST:]),
            rules,
        )

    def _take(self, machine: str, number: int, result: TrialResult | None, lost: str) -> None:
        trial = self._flying.pop(number)
        if result is not None:
            self._record(trial, result)
            return
        self._context.journal.append("lost", number=number, machine=machine, reason=lost)
        if trial.lost <= MAX_LOST:
            self._context.dashboard.say(f"  trial {number} will be measured again: {machine} was lost", "yellow")
            return
        reason = f"not judged: {trial.lost} machines were lost while measuring it, the last one with: {lost}"
        self._context.journal.append("decision", number=number, decision="discard", reason=reason, delta=None)
        conclude(self._context, trial, Trial((), None))

    def _record(self, trial: TrialRecord, result: TrialResult) -> None:
        runs = []
        for place, (run, log) in enumerate(zip(result.runs, result.logs, strict=True), 1):
            name = f"logs/{trial.number:04d}-{place:02d}-{run.arm.value}.log"
            write_atomic(self._context.folder / name, log)
            runs.append({**run.encode(), "log": name})
        outcome = result.outcome()
        said = decided(outcome, moved=trial.base != self._context.session.head)
        decision = checked(self._context, trial, said)
        self._context.journal.append("judged", number=trial.number, machine=trial.machine, runs=runs, decision=decision)
        conclude(self._context, trial, outcome)

    def _words(self) -> str:
        if not self._flying:
            return "waiting for the machines of the cluster"
        return ", ".join(f"trial {number} on {trial.machine}" for number, trial in self._flying.items())
