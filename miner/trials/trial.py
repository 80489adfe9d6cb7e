"""Candidates judged on this machine: each run on record before the next, until its comparison has an answer.

Where a machine has room for several runs at once, a candidate gets those until its next look, and the room that is left
the next one: most are given up after one run. One that is likely to be kept has all it may need. A session that is
interrupted keeps the finished runs of its trials; at most the runs in flight are repeated. `conclude` acts on a
decision that is on record, whichever machine measured it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from common.files import write_atomic
from common.text import counted
from miner.context.context import SessionContext
from miner.journal.journal import TrialRecord, now
from miner.journal.run import RunRecord
from miner.proposers.base import SCRIPT
from miner.report import find
from miner.trials import history
from miner.trials.decision import decided, left_open, nothing_left
from miner.trials.measuring import PlannedRun, Rig
from trainer.errors import UNFIT, EnvironmentNotReady, TrainerError
from trainer.judging.trial import Trial, standing, until_fit
from trainer.measurement.abreast import filled
from trainer.measurement.run import Run
from trainer.project import hyperparameters
from trainer.statistics import pruning
from trainer.statistics.comparison import Arm
from trainer.statistics.distributions import upper_tail
from trainer.statistics.mining import baseline_runs, lessons
from trainer.statistics.noise import NoiseRecord

LEADING = 0.05
"""One-sided level at which an open trial's gain counts as likely."""


class IncumbentFails(EnvironmentNotReady):
    """The code that candidates are measured against does not run here."""


class LocalTrials:
    """Judges the trials of a session on the machine that it runs on."""

    def __init__(self, context: SessionContext) -> None:
        self._context = context
        self._rig = Rig(context.bench, lambda text: context.dashboard.say(text, style="yellow"))
        self._announced = set[int]()
        self._before = {current.number: len(current.runs) for current in context.session.unfinished}  # an earlier life

    def baseline(self) -> None:
        """Measure the incumbent as trial 0, unless this session has already."""
        context, current = self._context, self._context.session.trials[0]
        if current.decision:
            return
        while left := self._missing(history.values(current, Arm.INCUMBENT)):
            wanted = min(left, self._rig.room)
            for run in until_fit(lambda count: self._execute([(current, Arm.INCUMBENT)] * count), wanted):
                if run.failure:
                    raise IncumbentFails(
                        f"The incumbent does not run on this machine: {run.told}",
                        f"Its log is in {context.folder / 'logs'}.",
                    )
        values = history.values(current, Arm.INCUMBENT)
        context.journal.append("decision", number=0, decision="keep", delta=0.0)
        context.dashboard.say(f"baseline {statistics.fmean(values):.6f} val_bpb ({_spread(values)})")

    def _missing(self, values: Sequence[float]) -> int:
        """How many runs of the baseline are missing after these."""
        return max(0, filled(baseline_runs(values), self._rig.room) - len(values))

    def judge(self, trials: Sequence[TrialRecord], begin: Callable[[], TrialRecord | None] = lambda: None) -> None:
        """Measure open trials, from where an earlier call or life left them, until one or more of them are decided.

        `begin` begins another, where there is one, while there is room for its first run.
        """
        judged, room, more = list(trials), self._rig.room, True
        while True:
            standings = [self._standing(current) for current in judged]
            head = self._context.session.head  # as it was before one of these is kept
            ended = [pair for pair in zip(judged, standings, strict=True) if not pair[1].ahead or pair[0].base != head]
            for current, outcome in ended:
                self._decide(current, outcome)
            if ended:
                return
            while more and sum(map(claimed, standings)) < room:
                another = self._begin(begin)
                if another is None:  # nor is there one later, until one of these is decided
                    more = False
                    break
                judged.append(another)
                standings.append(self._standing(another))
            for current in judged:
                self._announce(current)
            self._execute(in_turn(list(zip(judged, standings, strict=True)), room))

    def _begin(self, begin: Callable[[], TrialRecord | None]) -> TrialRecord | None:
        """Another trial beside open ones, which come first where a proposer fails: it is asked again without them."""
        try:
            return begin()
        except TrainerError as error:
            self._context.dashboard.say(f"no candidate beside those open: {error.problem}", "yellow")
            return None

    def _announce(self, current: TrialRecord) -> None:
        context = self._context
        if current.machine:  # it was another machine's when the session was interrupted
            context.journal.append("dispatched", number=current.number, machine="")
        if current.number not in self._announced:
            self._announced.add(current.number)
            context.dashboard.say(f"trial {current.number}: {current.hypothesis}")

    def _standing(self, current: TrialRecord) -> Trial:
        context, session = self._context, self._context.session
        return standing(
            [run.as_run() for place, run in enumerate(current.runs) if not self._is_past(current, place)],
            history=history.incumbent_values(session, current),
            noise=NoiseRecord.from_json(current.noise) if current.noise else context.bench.noise(),
            policy=history.policy(session, current),
            seed=session.seed + current.number,
        )

    def _is_past(self, current: TrialRecord, place: int) -> bool:
        """Whether this run of the incumbent failed in an earlier life of the session: the machine was seen to since."""
        run = current.runs[place]
        earlier = place < self._before.get(current.number, 0)
        return earlier and run.arm is Arm.INCUMBENT and run.failure not in ("", UNFIT)

    def _decide(self, current: TrialRecord, outcome: Trial) -> None:
        """Put the decision of a trial that has ended on record, and conclude it."""
        context, session, failed = self._context, self._context.session, outcome.incumbent_failure
        earlier, moved = history.incumbent_values(session, current), current.base != session.head
        if failed is not None and not moved:
            raise IncumbentFails(
                f"The incumbent no longer runs on this machine: {failed.told}",
                "Check this machine, then run the command again; the session resumes.",
            )
        left = moved and (outcome.ahead or failed is not None)
        said = left_open(outcome, earlier) if left else decided(outcome, moved=moved)
        context.journal.append("decision", number=current.number, **checked(context, current, said))
        conclude(context, current, outcome)
        theirs, policy = [*earlier, *outcome.values(Arm.INCUMBENT)], history.policy(session, current)
        known = context.bench.noise()
        context.bench.learn_noise(lessons(outcome.values(Arm.CANDIDATE), theirs, current.kept, known, policy))

    def _execute(self, planned: Sequence[tuple[TrialRecord, Arm]]) -> list[Run]:
        """Make these runs at once, recorded with the machine's state when they began."""
        context, (first, _) = self._context, planned[0]
        self._rig.calm()
        past = self._past(first)
        rates = history.rates(past)
        with context.dashboard.run(
            _words(planned),
            first.hypothesis,
            context.usual_seconds(),
            past[-1].curve if past else (),
            statistics.median(rates) if rates else None,
        ) as word:
            runs, conditions = self._rig.run([self._planned(current, arm) for current, arm in planned], word)
        for (current, _), run in zip(planned, runs, strict=True):
            record(context, current, run, conditions)
        return runs

    def _past(self, current: TrialRecord) -> list[RunRecord]:
        """The incumbent's runs that ended well."""
        return [run for run in history.runs_of(self._context.session, current.base) if not run.failure]

    def _planned(self, current: TrialRecord, arm: Arm) -> PlannedRun:
        context, candidate = self._context, arm is Arm.CANDIDATE
        commit = current.commit if candidate else current.base
        prune = candidate and may_prune(context, current)
        return PlannedRun(
            arm,
            context.tree(commit),
            history.rates_in_force(history.runs_of(context.session, commit)),
            history.band(self._past(current)) if prune else None,
            self._rules(current) if prune else pruning.PruningRules(),
        )

    def _rules(self, current: TrialRecord) -> pruning.PruningRules:
        sigma, budget = self._context.bench.noise().sigma, self._context.budget_seconds
        return history.rules(self._context.session, current, sigma, budget_seconds=budget)


def claimed(found: Trial) -> int:
    """How many runs an open trial is to make at once: those until its next look; all where, as its last look saw it, it
    is likely to be kept, since what is begun beside it is measured against an incumbent about to be replaced. Pure."""
    seen = found.decision.evidence if found.decision else None
    likely = seen is not None and upper_tail(seen.delta / (seen.sigma * seen.scale), seen.df) < LEADING
    return len(found.ahead) if likely else found.wanted


def in_turn(trials: Sequence[tuple[TrialRecord, Trial]], room: int) -> list[tuple[TrialRecord, Arm]]:
    """The runs to make at once: of each trial those until its next look, then, where there is room, those beyond it.
    Pure."""
    wanted = [(current, arm) for current, found in trials for arm in found.ahead[: found.wanted]]
    beyond = [(current, arm) for current, found in trials for arm in found.ahead[found.wanted :]]
    return [*wanted, *beyond][:room]


def begin(
    context: SessionContext,
    number: int,
    hypothesis: str,
    commit: str,
    *,
    proposer: str = "",
    carries: int = 0,
    at: str = "",
) -> None:
    """Put a trial of a commit against the branch's head on record; `carries` is the trial whose change it tries there,
    or 0."""
    context.journal.append(
        "trial",
        number=number,
        hypothesis=hypothesis,
        fingerprint=hyperparameters.fingerprint(context.workspace.read(commit, SCRIPT)),
        commit=commit,
        base=context.workspace.head(),
        proposer=proposer,
        carries=carries,
        noise=context.bench.noise().to_json(),
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


def checked(context: SessionContext, current: TrialRecord, said: Mapping[str, Any]) -> Mapping[str, Any]:
    """A trial's decision; nothing is carried over where its very code is the incumbent by now, as where somebody else
    found the same."""
    if not said["carry"]:
        return said
    head = context.workspace.read(context.session.head, SCRIPT)
    return nothing_left(said) if hyperparameters.fingerprint(head) == current.fingerprint else said


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
        why = "" if current.kept else f" ({current.reason})"
        context.dashboard.say(
            f"  {said}{current.decision}{why}: "
            f"{statistics.fmean(outcome.values(Arm.CANDIDATE)):.6f} val_bpb, "
            f"delta {evidence.delta:+.6f} [{evidence.low:+.6f}, {evidence.high:+.6f}], "
            f"{counted(evidence.candidate_runs, 'run')} against {evidence.incumbent_runs}",
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


def _words(planned: Sequence[tuple[TrialRecord, Arm]]) -> str:
    """Which runs these are."""
    arms: dict[int, list[str]] = {}
    for current, arm in planned:
        arms.setdefault(current.number, []).append(arm.value)
    begun = {current.number: len(current.runs) + 1 for current, _ in planned}
    return " and ".join(f"trial {n}, run {begun[n]} ({' and '.join(those)})" for n, those in arms.items())
