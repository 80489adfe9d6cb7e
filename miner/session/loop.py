"""The mining session: propose, measure against the incumbent, keep or discard, confirm and submit what wins.

Each experiment is a commit; each run and decision is in the journal before the next step, so a session that is
interrupted continues where it was. A candidate is kept by the sequential test of `trainer.statistics.comparison`
alone, never by one number, and staked on only after the confirming test of `miner.staking.confirm`. Between trials
the session looks at the chain.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from chain.errors import ChainError
from miner.context import goals
from miner.context.context import SessionContext
from miner.context.goals import Progress
from miner.journal.journal import INTERRUPTED, TrialRecord, written
from miner.proposers import crossover, diffs
from miner.proposers.base import SCRIPT, ClosingProposer, Proposer, Surroundings
from miner.proposers.edits import rehearsal
from miner.session import briefing, others
from miner.session.watch import ChainWatch
from miner.staking import stepping, submit
from miner.staking.staking import Staking
from miner.trials import trial
from miner.trials.trial import IncumbentFails, LocalTrials
from trainer.errors import EnvironmentNotReady, TrainerError

if TYPE_CHECKING:
    from miner.executors.cluster import Cluster
    from miner.executors.fleet import Fleet


PACK_EVERY = 500  # trials of one session's life; its beginning and end pack as well


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """How a session ended."""

    reason: str
    trials: int
    kept: int
    best_delta: float | None
    proposals: tuple[int, ...]


class Miner:
    """One session on one project; with a `cluster` its machines measure, and this one confirms and submits."""

    def __init__(self, context: SessionContext, proposer: Proposer, *, cluster: Cluster | None = None) -> None:
        self.context, self.proposer = context, proposer
        self._trials, self._watch = LocalTrials(context), ChainWatch(context)
        self._staking = Staking(context, self._watch.look, self._tend)
        self._fresh = not context.session.trials
        self._begun = context.published[0].began if self._fresh and context.published else time.time()
        self._started = time.monotonic() - max(0.0, time.time() - self._begun)
        self._finished_before, self._submitted_before = context.session.sums.decisions.total(), len(self._proposals())
        self._told: tuple[int, others.Found] | None = None
        self.fleet: Fleet | None = None
        if cluster is not None:
            from miner.executors.fleet import Fleet

            self.fleet = Fleet(cluster, context, begin=self._begin_another)

    def run(self) -> SessionEnd:
        """Mine until a goal is reached; KeyboardInterrupt passes through with everything on disk."""
        context, reason = self.context, INTERRUPTED
        measured = f"{context.bench.machine.hardware_class}, {context.bench.method}"
        context.journal.append("begin", measured=measured, at=written(self._begun))
        try:
            reason = self._run()
        except (TrainerError, ChainError) as error:
            reason = error.problem
            raise
        finally:
            if isinstance(self.proposer, ClosingProposer):
                self.proposer.close()
            if self.fleet is not None:
                self.fleet.cluster.close()
            context.journal.append("end", reason=reason, seconds=round(time.monotonic() - self._started, 3))
        context.write_records()
        context.workspace.pack()
        finished = self._finished()
        kept = [t for t in finished if t.kept]
        best = max((t.delta for t in kept if t.delta is not None), default=None)
        return SessionEnd(reason, len(finished), len(kept), best, tuple(self._proposals()))

    def _run(self) -> str:
        self._resume()
        self._watch.look()
        self._measure(self._trials.baseline)
        if self.fleet is not None:
            while begun := [t for t in self.context.session.unfinished if t.runs]:  # here, before there was a cluster
                if goals.reached(self.context.goals, self.context.bench.protocol.mining_loop, self._progress()):
                    break
                self._measure(partial(self._trials.judge, begun[:1]))
        while True:
            self._show_best()
            won, progress = self._staking.candidate(), self._progress()
            if won is not None and self.context.goals.dry_run:
                return "found an improvement (dry run: nothing submitted)"
            reason = goals.reached(self.context.goals, self.context.bench.protocol.mining_loop, progress)
            if goals.enough(self.context.goals, progress):
                return reason
            if won is not None and self._is_free(begin=not reason):
                self._staking.attempt(won)  # what was won is submitted, also where no further trial is to begin
            elif not self._go_on(more=not reason, here=won is None):
                return reason or "the proposer has no candidates left"
            self._watch.look()

    def _resume(self) -> None:
        """Bring journal, branch and chain together, and begin the baseline of a new session."""
        context, session = self.context, self.context.session
        context.workspace.pack()
        if self._fresh and context.published:
            trial.begin(context, 0, "baseline", context.workspace.head(), at=written(self._begun))
            for earlier in context.published:
                trial.record(context, session.trials[0], earlier.run, at=written(earlier.ended))
        if session.head and context.workspace.head() != session.head:  # a kill came between journal and branch
            context.workspace.keep(session.head)
        client, miner = context.connection.client, context.wallet.pubkey()
        landed = submit.reconcile(client, miner, context.project, context.journal)
        if landed is not None:
            context.dashboard.say(f"proposal {landed.id} of the interrupted session reached the chain")
        self._check_machine()
        if not session.trials:
            trial.begin(context, 0, "baseline", context.workspace.head())

    def _check_machine(self) -> None:
        """Refuse to continue if earlier measurements of this session cannot be compared with new ones."""
        ways = [segment.measured for segment in self.context.session.segments if segment.measured]
        if ways[0] != ways[-1]:
            folder = self.context.folder
            raise EnvironmentNotReady(
                f"This session was measured as {ways[0]}; this machine now measures as {ways[-1]}. The two are not "
                "comparable.",
                f"Continue where it began, or move {folder} away to start a new session; nothing in it is pending.",
            )

    # --- trials ---

    def _go_on(self, *, more: bool, here: bool) -> bool:
        """Judge trials until one is decided, here or on other machines; False if none is left, or no `more` is wanted
        and none is in flight."""
        if self.fleet is not None:
            return self.fleet.advance(more=more, here=here)
        session = self.context.session
        if not more or not (session.unfinished or self._begin_another()):
            return False
        self._measure(lambda: self._trials.judge(session.unfinished, self._begin_another))
        return True

    def _measure(self, measure: Callable[[], None]) -> None:
        """Measure; where the best on chain fails here, go on from the rung that holds, and give up what was open."""
        try:
            measure()
        except IncumbentFails as error:
            context = self.context
            found = stepping.standing(context)
            if found is None:
                raise
            for left in context.session.unfinished:
                context.journal.append(
                    "decision", number=left.number, decision="discard", delta=None, reason=error.problem
                )
            stepping.step_down(context, *found)

    def _is_free(self, *, begin: bool) -> bool:
        """Whether this machine may confirm and submit now; with a cluster, the other machines are given work first."""
        if self.fleet is None:
            return True
        if begin:
            self.fleet.fill(here=False)
        return not self.fleet.cluster.measures_here()

    def _tend(self) -> None:
        """See to a cluster's other machines while this one confirms."""
        if self.fleet is not None:
            self.fleet.tend()

    def _begin_another(self) -> TrialRecord | None:
        """Begin a trial beside those in flight, unless these reach the goals."""
        return self.context.session.trials[-1] if not self._ends_after(0) and self._begin_trial() else None

    def _ends_after(self, more: int) -> bool:
        """Whether the goals are reached once those in flight and so many more trials are finished."""
        done, loop = self._progress(), self.context.bench.protocol.mining_loop
        more += len(self.context.session.unfinished)
        planned = replace(
            done,
            trials=done.trials + more,
            all_trials=done.all_trials + more,
            since_kept=done.since_kept + more,
        )
        return bool(goals.reached(self.context.goals, loop, planned))

    def _begin_trial(self) -> bool:
        """Put a candidate on record as an open trial; False if the proposer has none."""
        context, session = self.context, self.context.session
        number = session.trials[-1].number + 1
        if session.displaced:
            trial.begin(context, number, "what this session kept, against the new best", session.displaced)
            return True
        if session.carried is not None:
            self._carry_over(number, session.carried)
            return True
        protocol = context.bench.protocol
        left = goals.seconds_left(context.goals, protocol.mining_loop, self._progress())
        last = self._ends_after(1)
        seen = briefing.gather(
            session,
            context.workspace,
            protocol,
            context.folder,
            seconds_left=left,
            last=last,
            around=self._surroundings(),
        )
        candidate = self.proposer.propose(seen)
        if candidate is None:
            return False
        commit = context.workspace.commit(number, candidate.source, candidate.hypothesis, name=SCRIPT)
        if number % PACK_EVERY == 0 and self.fleet is None:  # nothing is measured here now
            context.workspace.pack()
        trial.begin(context, number, candidate.hypothesis, commit, proposer=candidate.proposer)
        return True

    def _carry_over(self, number: int, won: TrialRecord) -> None:
        """Try a trial's change on the new head; where it does not fit there, as after another change of the same lines,
        its code as it was."""
        workspace, known = self.context.workspace, {t.fingerprint for t in self.context.session.trials}
        before, after, head = (workspace.read(at, SCRIPT) for at in (won.base, won.commit, workspace.head()))
        source, commit = diffs.merged(before, after, head, known), won.commit
        hypothesis = crossover.again(won.number, won.hypothesis)
        if source is not None:
            hypothesis = crossover.words(won.number, won.number, won.hypothesis)
            commit = workspace.commit(number, source, hypothesis, name=SCRIPT)
        trial.begin(self.context, number, hypothesis, commit, proposer=won.proposer, carries=won.number)

    def _surroundings(self) -> Surroundings:
        """What a proposer is told beside the trials; what others found is gathered anew when the chain's best moves."""
        context, seen = self.context, len(self.context.session.frontiers)
        if self._told is None or self._told[0] != seen:
            self._told = (seen, others.gather(context))
        return Surroundings(
            sigma=context.bench.noise().sigma,
            hardware=context.bench.machine.hardware_class,
            program=context.task.files.get("program.md", b"").decode(errors="replace"),
            clues=self._told[1].clues,
            approved=self._told[1].approved,
            rehearse=self._rehearse,
        )

    def _rehearse(self, source: str) -> str:
        """Two tiny steps of a script, where its trial would run; what went wrong, or ""."""
        before = self.context.workspace.read(self.context.workspace.head(), SCRIPT)
        files = {**self.context.task.files, SCRIPT: rehearsal.script(source, before).encode()}
        run = self.context.bench.plain_run(files)
        return run.detail or run.failure

    # --- how far it is ---

    def _finished(self) -> list[TrialRecord]:
        return [t for t in self.context.session.trials if t.decision and t.number]

    def _proposals(self) -> list[int]:
        return [s.proposal for s in self.context.session.submissions if s.proposal is not None]

    def _progress(self) -> Progress:
        """What the goals are compared with."""
        sums, seconds = self.context.session.sums, time.monotonic() - self._started
        finished = sums.decisions.total()
        return Progress(
            trials=finished - self._finished_before,
            seconds=seconds,
            submissions=len(self._proposals()) - self._submitted_before,
            all_trials=finished,
            all_seconds=seconds + sum(segment.seconds for segment in self.context.session.segments),
            since_kept=sums.since_kept,
        )

    def _show_best(self) -> None:
        self.context.dashboard.status = f"best so far: {self.context.session.sums.gain:+.4f}"
        self.context.dashboard.observe(self.context.session)
