"""One candidate judged on this machine: each run on record before the next, until its comparison has an answer.

A session that is interrupted keeps the finished runs of the trial that it was in; at most the runs in flight are
repeated. `conclude` acts on a decision that is on record, whichever machine measured it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import suppress

from common.files import write_atomic
from common.text import counted
from miner.context.context import SessionContext
from miner.journal.journal import TrialRecord, now
from miner.journal.run import RunRecord
from miner.proposers.base import SCRIPT
from miner.report import find
from miner.trials import history
from miner.trials.decision import decided
from miner.trials.measuring import PlannedRun, Rig
from trainer.errors import EnvironmentNotReady, TrainerError
from trainer.judging.trial import MAX_FAILURES, Trial, compare, until_fit
from trainer.measurement.run import Run
from trainer.project import hyperparameters
from trainer.statistics import pruning
from trainer.statistics.comparison import Arm

BASELINE_RUNS = 3


class IncumbentFails(EnvironmentNotReady):
    """The code that candidates are measured against does not run here."""


class LocalTrials:
    """Judges the trials of a session on the machine that it runs on."""

    def __init__(self, context: SessionContext) -> None:
        self._context = context
        self._rig = Rig(context.bench, lambda text: context.dashboard.say(text, style="yellow"))

    def baseline(self) -> None:
        """Measure the incumbent as trial 0, unless this session has already."""
        context, current = self._context, self._context.session.trials[0]
        if current.decision:
            return
        while (left := BASELINE_RUNS - len(history.values(current, Arm.INCUMBENT))) > 0:
            wanted = min(left, self._rig.room)
            for run in until_fit(lambda count: self._execute(current, [Arm.INCUMBENT] * count), wanted):
                if run.failure:
                    raise IncumbentFails(
                        f"The incumbent does not run on this machine: {run.told}",
                        f"Its log is in {context.folder / 'logs'}.",
                    )
        values = history.values(current, Arm.INCUMBENT)
        context.journal.append("decision", number=0, decision="keep", delta=0.0)
        context.dashboard.say(f"baseline {statistics.fmean(values):.6f} val_bpb ({_spread(values)})")

    def judge(self, current: TrialRecord) -> None:
        """Measure a trial, from where an earlier life left it to its decision."""
        context, session = self._context, self._context.session
        if current.machine:  # it was another machine's when the session was interrupted
            context.journal.append("dispatched", number=current.number, machine="")
        context.dashboard.say(f"trial {current.number}: {current.hypothesis}")
        earlier = history.incumbent_values(session, current)
        outcome = compare(
            lambda ahead: self._execute(current, ahead),
            history=earlier,
            noise=context.bench.noise(),
            policy=history.policy(session, current),
            seed=session.seed + current.number,
            done=[run.as_run() for run in current.runs],
        )
        failed = outcome.failures(Arm.INCUMBENT)
        if len(failed) >= MAX_FAILURES:
            raise IncumbentFails(
                f"The incumbent no longer runs on this machine: {failed[-1].told}",
                "Check this machine, then run the command again; the session resumes.",
            )
        moved = current.base != session.head
        context.journal.append("decision", number=current.number, **decided(outcome, moved=moved))
        conclude(context, current, outcome)
        # A candidate's runs are one group of repeats of one script; the incumbent's once it is replaced.
        groups: list[Sequence[float]] = [outcome.values(Arm.CANDIDATE)]
        if current.kept:
            groups.append([*earlier, *outcome.values(Arm.INCUMBENT)])
        context.bench.learn_noise(groups)

    def _execute(self, current: TrialRecord, ahead: Sequence[Arm]) -> list[Run]:
        """The first runs of those ahead, as many as can be made at once, recorded with the machine's state when they
        began."""
        context, session, arms = self._context, self._context.session, ahead[: self._rig.room]
        self._rig.calm()
        past = [run for run in history.runs_of(session, current.base) if not run.failure]
        rates = history.rates(past)
        with context.dashboard.run(
            current,
            " and ".join(arm.value for arm in arms),
            context.usual_seconds(),
            past[-1].curve if past else (),
            statistics.median(rates) if rates else None,
        ) as word:
            runs, conditions = self._rig.run([self._planned(current, arm, past) for arm in arms], word)
        for run in runs:
            record(context, current, run, conditions)
        return runs

    def _planned(self, current: TrialRecord, arm: Arm, past: Sequence[RunRecord]) -> PlannedRun:
        """The run of an arm; `past` are the incumbent's that ended well."""
        context, candidate = self._context, arm is Arm.CANDIDATE
        commit = current.commit if candidate else current.base
        prune = candidate and may_prune(context, current)
        return PlannedRun(
            arm,
            context.tree(commit),
            history.rates_in_force(history.runs_of(context.session, commit)),
            history.band(past) if prune else None,
            self._rules(current) if prune else pruning.PruningRules(),
        )

    def _rules(self, current: TrialRecord) -> pruning.PruningRules:
        sigma, budget = self._context.bench.noise().sigma, self._context.budget_seconds
        return history.rules(self._context.session, current, sigma, budget_seconds=budget)


def begin(
    context: SessionContext, number: int, hypothesis: str, commit: str, *, proposer: str = "", at: str = ""
) -> None:
    """Put a trial of a commit against the branch's head on record."""
    context.journal.append(
        "trial",
        number=number,
        hypothesis=hypothesis,
        fingerprint=hyperparameters.fingerprint(context.workspace.read(commit, SCRIPT)),
        commit=commit,
        base=context.workspace.head(),
        proposer=proposer,
        at=at or now(),
    )


def record(
    context: SessionContext, current: TrialRecord, run: Run, conditions: Sequence[str] = (), *, at: str = ""
) -> None:
    """Put a run of a trial on record, its log first."""
    name = f"logs/{current.number:04d}-{len(current.runs) + 1:02d}-{run.arm.value}.log"
    write_atomic(context.folder / name, run.log)
    entry = RunRecord.of(run, conditions, budget_seconds=context.budget_seconds).encode()
    context.journal.append("run", **{**entry, "log": name}, number=current.number, at=at or now())
    context.dashboard.observe(context.session)


def may_prune(context: SessionContext, current: TrialRecord) -> bool:
    """Whether runs of this candidate may be stopped by their curves."""
    if not context.prune or pruning.audited(context.session.seed + current.number, pruning.PruningRules()):
        return False
    return pruning.prints_same_loss(*(context.workspace.read(c, SCRIPT) for c in (current.base, current.commit)))


def conclude(context: SessionContext, current: TrialRecord, outcome: Trial) -> None:
    """Act on a recorded decision, report it, and update the records."""
    said = f"trial {current.number} on {current.machine}: " if current.machine else ""
    if current.kept:
        context.workspace.keep(current.commit)
    evidence = outcome.decision.evidence if outcome.decision else None
    if evidence is None:
        style = "yellow" if current.decision == "crash" else ""
        context.dashboard.say(f"  {said}{current.decision}: {current.reason}", style)
    else:
        again = ", will be measured against the new incumbent" if current.carry else ""
        why = "" if current.kept else f" ({current.reason})"
        context.dashboard.say(
            f"  {said}{current.decision}{why}: "
            f"{statistics.fmean(outcome.values(Arm.CANDIDATE)):.6f} val_bpb, "
            f"delta {evidence.delta:+.6f} [{evidence.low:+.6f}, {evidence.high:+.6f}], "
            f"{counted(evidence.candidate_runs, 'run')} against {evidence.incumbent_runs}{again}",
            style="green" if current.kept else "",
        )
    if current.kept and current.number:
        _show(context, current)
    context.write_records()


def _show(context: SessionContext, kept: TrialRecord) -> None:
    """The find on one screen: what it changed, by how much, and where to see more."""
    context.dashboard.say(f"  found: {find.headline(kept)}", "bold green")
    with suppress(TrainerError):  # without its diff, it is still a find
        for text, style in find.diff_lines(context.workspace.diff(kept.base, kept.commit)):
            context.dashboard.say(text, style)
    context.dashboard.say(f"  see it all: {context.report_command}")


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "1 run"
    return f"{len(values)} runs, standard deviation {statistics.stdev(values):.6f}"
