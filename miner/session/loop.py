"""The mining session: propose, measure against the incumbent, keep or discard, confirm and submit what wins.

Each experiment is a commit; each run and decision is in the journal before the next step. A session that is
interrupted continues where it was: the trial that was being measured keeps its finished runs, and at most the run
in flight is repeated. A candidate is kept by the sequential test of `trainer.statistics.comparison` alone, never by
one number,
and staked on only after the confirming test of `miner.staking.confirm`. Between trials the session looks at the chain.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chain.connection.opening import Connection
from chain.errors import ChainError
from chain.indexer.rules import Follower
from chain.money import score
from chain.program.accounts import Project, ProposalStatus
from common.files import write_atomic
from miner.context import goals
from miner.context.goals import Goals, Progress
from miner.journal import records
from miner.journal.journal import INTERRUPTED, Journal, TrialRecord, now, written
from miner.journal.worktree import Workspace
from miner.proposers.base import Proposer
from miner.report import summary
from miner.report.dashboard import Dashboard
from miner.session import context, frontier
from miner.session.frontier import SCRIPT, FetchedBest
from miner.staking import submit
from miner.staking.staking import Staking
from miner.trials import trial as trials
from miner.trials.measuring import Rig
from trainer.errors import EnvironmentNotReady, TrainerError
from trainer.judging import trial
from trainer.measurement.bench import Bench
from trainer.measurement.run import UNFIT, Run
from trainer.project import bundle, hyperparameters
from trainer.project.task import Task
from trainer.statistics import pruning
from trainer.statistics.comparison import Arm

if TYPE_CHECKING:
    from miner.executors.cluster import Cluster
    from miner.executors.fleet import Fleet

BASELINE_RUNS = 3


@dataclass(frozen=True, slots=True)
class Earlier:
    """A run that this very process made before there was a session; `began` and `ended` in Unix seconds."""

    run: Run
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """How a session ended."""

    reason: str
    trials: int
    kept: int
    best_delta: float | None
    proposals: tuple[int, ...]


class Miner:
    """One session on one project; `folder` holds its journal, work tree, logs and records."""

    def __init__(
        self,
        connection: Connection,
        project: Project,
        task: Task,
        bench: Bench,
        convention: score.Convention,
        proposer: Proposer,
        *,
        folder: Path,
        journal: Journal,
        follower: Follower,
        wallet: Keypair,
        reward_recipient: Pubkey,
        goals: Goals,
        view: Dashboard,
        race: bool = True,
        cluster: Cluster | None = None,
    ) -> None:
        self.connection, self.project, self.task, self.bench = connection, project, task, bench
        self.convention, self.proposer, self.goals, self.view = convention, proposer, goals, view
        self.folder, self.journal, self.race = folder, journal, race
        self.wallet, self.follower = wallet, follower
        self.workspace = Workspace.open(folder / "tree", journal.session.tag, task.incumbent)
        self.staking = Staking(
            connection,
            project,
            task,
            bench,
            convention,
            folder=folder,
            journal=journal,
            follower=follower,
            workspace=self.workspace,
            wallet=wallet,
            reward_recipient=reward_recipient,
            goals=goals,
            view=view,
            tree=self._tree,
            look=self._look_at_chain,
            done=self._done,
            usual_seconds=self._usual_seconds,
        )
        self._started, self._trials = time.monotonic(), 0
        self._adopted: Sequence[Earlier] = ()
        self._submitted_before = self._submitted()
        self._rig = Rig(bench, lambda text: view.say(text, style="yellow"))
        self.fleet = self._fleet(cluster) if cluster is not None else None

    # --- the session ---

    def run(self) -> SessionEnd:
        """Mine until a goal is reached; KeyboardInterrupt passes through with everything on disk."""
        reason, begun = INTERRUPTED, self._adopted[0].began if self._adopted else time.time()
        measured = f"{self.bench.machine.hardware_class}, {self.bench.method}"
        self.journal.append("begin", measured=measured, at=written(begun))
        try:
            reason = self._run()
        except (TrainerError, ChainError) as error:
            reason = error.problem
            raise
        finally:
            if self.fleet is not None:
                self.fleet.cluster.close()
            self.journal.append("end", reason=reason, seconds=round(time.monotonic() - self._started, 3))
        self._write_records()
        session = self.journal.session
        finished = [t for t in session.trials if t.decision and t.number]
        kept = [t for t in finished if t.kept]
        return SessionEnd(
            reason,
            len(finished),
            len(kept),
            max((t.delta for t in kept if t.delta is not None), default=None),
            tuple(s.proposal for s in session.submissions if s.proposal is not None),
        )

    def _run(self) -> str:
        session = self.journal.session
        if self._adopted:
            self._append_trial(0, "baseline", self.workspace.head(), at=written(self._adopted[0].began))
            for earlier in self._adopted:
                self._record(session.trials[0], earlier.run, (), at=written(earlier.ended))
        if session.head and self.workspace.head() != session.head:  # a kill came between journal and branch
            self.workspace.keep(session.head)
        landed = submit.reconcile(self.connection.client, self.wallet.pubkey(), self.project, self.journal)
        if landed is not None:
            self.view.say(f"proposal {landed.id} of the interrupted session did reach the chain")
        self._check_machine()
        if not session.trials:
            self._append_trial(0, "baseline", self.workspace.head())
        self._look_at_chain()
        self._baseline()
        if self.fleet is not None:
            for begun in [t for t in session.unfinished if t.runs]:  # here, before there was a cluster
                self._measure(begun)
        while True:
            self._show_best()
            won, done = self.staking.candidate(), self._done()
            if won is not None and self.goals.dry_run:
                return "found an improvement (dry run, nothing is submitted)"
            reason = goals.reached(self.goals, self.bench.protocol.mining_loop, done)
            if goals.enough(self.goals, done):
                return reason
            if won is not None and self._is_free(begin=not reason):
                self.staking.attempt(won)  # what was won is submitted, also where no further trial is to begin
            elif not self._go_on(more=not reason, here=won is None):
                return reason or "the proposer has nothing left to try"
            self._look_at_chain()

    def _check_machine(self) -> None:
        """Refuse to go on where what this session measured so far does not compare with what is measured now."""
        ways = [segment.measured for segment in self.journal.session.segments if segment.measured]
        if ways[0] != ways[-1]:
            raise EnvironmentNotReady(
                f"This session measured as {ways[0]}, now it would as {ways[-1]}, and such values do not compare.",
                f"Go on where it began, or move {self.folder} away to start a new session; nothing in it is pending.",
            )

    def _go_on(self, *, more: bool, here: bool) -> bool:
        """Judge a trial, or have machines do so; False where none is open and `more` is False or none is left."""
        if self.fleet is not None:
            return self.fleet.advance(more=more, here=here)
        return more and self._trial()

    def _is_free(self, *, begin: bool) -> bool:
        """Whether this machine may confirm and submit now; with a cluster, the other machines are given work first."""
        if self.fleet is None:
            return True
        if begin:
            self.fleet.fill(here=False)
        return not self.fleet.cluster.measures_here()

    def _fleet(self, cluster: Cluster) -> Fleet:
        from miner.executors.fleet import Fleet

        return Fleet(
            cluster,
            self.journal,
            self.workspace,
            self.view,
            folder=self.folder,
            budget_seconds=self.bench.protocol.execution.training_seconds,
            begin=self._begin_another,
            may_race=self._may_race,
            decided=self._decided,
        )

    def _begin_another(self) -> bool:
        """Begin a trial beside those in flight, unless these reach the goals."""
        flying, done = self.fleet.flying if self.fleet else 0, self._done()
        planned = replace(done, trials=done.trials + flying, all_trials=done.all_trials + flying)
        return not goals.reached(self.goals, self.bench.protocol.mining_loop, planned) and self._begin_trial()

    def _done(self) -> Progress:
        """What the goals are compared with."""
        session, seconds = self.journal.session, time.monotonic() - self._started
        finished = [t for t in session.trials if t.decision and t.number]
        kept = [place for place, t in enumerate(finished, 1) if t.kept]
        return Progress(
            trials=self._trials,
            seconds=seconds,
            submissions=self._submitted() - self._submitted_before,
            all_trials=len(finished),
            all_seconds=seconds + sum(segment.seconds for segment in session.segments),
            since_kept=len(finished) - max(kept, default=0),
            spent=session.spent,
            staked=session.staked,
        )

    def _submitted(self) -> int:
        return sum(s.proposal is not None for s in self.journal.session.submissions)

    def _show_best(self) -> None:
        self.view.status = f"best so far: {summary.gain(self.journal.session):+.4f}"
        self.view.observe(self.journal.session)

    # --- the chain ---

    def _look_at_chain(self) -> Project:
        """The project now, after taking note of what became of our proposals and of a new best.

        A network that does not answer is no reason to stop mining; the next look is after the next trial.
        """
        try:
            self.follower.refresh()
            self.project = self.follower.project
            self._note_statuses()
            if frontier.moved(self.journal.session, self.project.current_best_code_hash.hex()) is frontier.Moved.SAME:
                return self.project
            best = frontier.fetch(self.connection, self.project, self.task, self.convention)
        except (ChainError, TrainerError) as error:
            if not self.journal.session.frontiers:
                raise
            self.view.say(f"the chain could not be read ({error.problem}): mining on, looking again later")
            return self.project
        self._adopt(best)
        return self.project

    def _adopt(self, best: FetchedBest) -> None:
        moved = frontier.adopt(self.journal, self.workspace, best)
        latest = self.journal.session.frontiers[-1]
        if moved:
            self.view.say(f"the best on chain is new: {best.metric} by {best.miner}; searching on from it", "bold")
            if latest.carry:
                self.view.say("what this session had kept is measured against it first")
        elif latest.own:
            self.view.say(f"the best on chain is ours now: {best.metric}", "green")

    def _note_statuses(self) -> None:
        statuses = {proposal.id: proposal.status for proposal in self.follower.proposals()}
        for sent in self.journal.session.submissions:
            status = statuses.get(sent.proposal) if sent.proposal is not None else None
            word = status.name.lower() if status is not None else ""
            if status is not None and word != sent.status:
                self.journal.append("status", proposal=sent.proposal, status=word)
                style = {ProposalStatus.APPROVED: "green", ProposalStatus.REJECTED: "red"}.get(status, "")
                self.view.say(f"proposal {sent.proposal} is {word.replace('_', ' ')}", style)
                self.staking.rejections += status is ProposalStatus.REJECTED

    # --- measuring ---

    def _baseline(self) -> None:
        """Measure the incumbent as trial 0, unless this session has already."""
        baseline = self.journal.session.trials[0]
        if baseline.decision:
            return
        while len(trials.values(baseline, Arm.INCUMBENT)) < BASELINE_RUNS:
            run = self._execute(baseline, Arm.INCUMBENT)
            if run.failure not in ("", UNFIT):
                raise EnvironmentNotReady(
                    f"The incumbent itself does not run here: {run.detail}",
                    f"Its log is in {self.folder / 'logs'}.",
                )
        values = trials.values(baseline, Arm.INCUMBENT)
        self.journal.append("decision", number=0, decision="keep", delta=0.0)
        self.view.say(f"baseline {statistics.fmean(values):.6f} val_bpb ({_spread(values)})")

    def adopt_baseline(self, runs: Sequence[Earlier]) -> None:
        """Take over the baseline runs that published the project: this life of the session began with the first."""
        self._adopted = runs
        self._started -= max(0.0, time.time() - runs[0].began)

    def _append_trial(self, number: int, hypothesis: str, commit: str, proposer: str = "", at: str = "") -> None:
        """Begin a trial of a commit against the branch's head."""
        self.journal.append(
            "trial",
            number=number,
            hypothesis=hypothesis,
            fingerprint=hyperparameters.fingerprint(self.workspace.read(commit, SCRIPT)),
            commit=commit,
            base=self.workspace.head(),
            proposer=proposer,
            at=at or now(),
        )

    def _trial(self) -> bool:
        """One candidate, judged; False where the proposer has none."""
        if not self.journal.session.unfinished and not self._begin_trial():
            return False
        self._measure(self.journal.session.unfinished[0])
        return True

    def _measure(self, current: TrialRecord) -> None:
        """Judge a trial on this machine."""
        session = self.journal.session
        if current.machine:  # it was another machine's when the session was interrupted
            self.journal.append("dispatched", number=current.number, machine="")
        self.view.say(f"trial {current.number}: {current.hypothesis}")
        history = trials.history(session, current)
        outcome = trial.compare(
            lambda arm: self._execute(current, arm),
            history=history,
            noise=self.bench.noise(),
            policy=trials.policy(session, current),
            seed=session.seed + current.number,
            done=[trials.restored(run) for run in current.runs],
        )
        self._decide(current, outcome, history)

    def _begin_trial(self) -> bool:
        session = self.journal.session
        number = session.trials[-1].number + 1
        if session.carried:
            self._append_trial(number, session.carried_words, session.carried)
            return True
        left = goals.seconds_left(self.goals, self.bench.protocol.mining_loop, self._done())
        seen = context.gather(session, self.workspace, self.bench.protocol, self.folder, seconds_left=left)
        candidate = self.proposer.propose(seen)
        if candidate is None:
            return False
        commit = self.workspace.commit(number, candidate.source, candidate.hypothesis, name=SCRIPT)
        self._append_trial(number, candidate.hypothesis, commit, candidate.proposer)
        return True

    def _decide(self, current: TrialRecord, outcome: trial.Trial, history: Sequence[float]) -> None:
        if len(outcome.failures(Arm.INCUMBENT)) >= trial.MAX_FAILURES:
            raise EnvironmentNotReady(
                f"The incumbent no longer runs here: {outcome.failures(Arm.INCUMBENT)[-1].detail}",
                "See to this machine and run the command again; the session continues where it was.",
            )
        moved = current.base != self.journal.session.head
        self.journal.append("decision", number=current.number, **trials.decided(outcome, moved=moved))
        self._decided(current, outcome)
        # A candidate's runs are one group of repeats of one script; the incumbent's once it is replaced.
        groups: list[Sequence[float]] = [outcome.values(Arm.CANDIDATE)]
        if current.kept:
            groups.append([*history, *outcome.values(Arm.INCUMBENT)])
        self.bench.learn_noise(groups)

    def _decided(self, current: TrialRecord, outcome: trial.Trial) -> None:
        """Act on a decision that is on record, and say it."""
        self._trials += 1
        said = f"trial {current.number} on {current.machine}: " if current.machine else ""
        if current.kept:
            self.workspace.keep(current.commit)
        evidence = outcome.decision.evidence if outcome.decision else None
        if evidence is None:
            style = "yellow" if current.decision == "crash" else ""
            self.view.say(f"  {said}{current.decision}: {current.reason}", style)
        else:
            again = ", to be measured against the new incumbent" if current.carry else ""
            self.view.say(
                f"  {said}{current.decision}: "
                f"{statistics.fmean(outcome.values(Arm.CANDIDATE)):.6f} val_bpb, "
                f"delta {evidence.delta:+.6f} [{evidence.low:+.6f}, {evidence.high:+.6f}], "
                f"{summary.counted(evidence.candidate_runs, 'run')} against {evidence.incumbent_runs}{again}",
                style="green" if current.kept else "",
            )
        self._write_records()

    def _tree(self, commit: str) -> Mapping[str, bytes]:
        """The snapshot with that commit's train.py; nothing else of the work tree is trusted to be unchanged."""
        changed = {SCRIPT: self.workspace.read(commit, SCRIPT).encode()}
        return bundle.overlay(self.task.files, changed, self.task.protocol.surface)

    def _execute(self, current: TrialRecord, arm: Arm) -> Run:
        """One run, on record with the machine's state when it began."""
        commit = current.commit if arm is Arm.CANDIDATE else current.base
        session, conditions = self.journal.session, self._rig.calm()
        past = [run for run in trials.runs_of(session, current.base) if not run["failure"]]
        race = arm is Arm.CANDIDATE and self._may_race(current)
        with self.view.run(
            current,
            arm.value,
            self._usual_seconds(),
            trials.curve_of(past[-1]) if past else [],
            statistics.median(rates) if (rates := trials.rates(past)) else None,
        ) as word:
            run, heat = self._rig.run(
                arm,
                self._tree(commit),
                word,
                rates=trials.rates_in_force(trials.runs_of(session, commit)),
                band=trials.band(past) if race else None,
                rules=self._rules(current) if race else pruning.PruningRules(),
            )
        self._record(current, run, tuple(dict.fromkeys((*conditions, *heat))))
        return run

    def _may_race(self, current: TrialRecord) -> bool:
        """Whether runs of this candidate may be stopped by their curves."""
        if not self.race or pruning.audited(self.journal.session.seed + current.number, pruning.PruningRules()):
            return False
        return pruning.prints_same_loss(*(self.workspace.read(c, SCRIPT) for c in (current.base, current.commit)))

    def _rules(self, current: TrialRecord) -> pruning.PruningRules:
        return trials.rules(
            self.journal.session,
            current,
            self.bench.noise().sigma,
            budget_seconds=self.bench.protocol.execution.training_seconds,
        )

    def _record(self, current: TrialRecord, run: Run, conditions: tuple[str, ...], at: str = "") -> None:
        name = f"{current.number:04d}-{len(current.runs) + 1:02d}-{run.arm.value}.log"
        write_atomic(self.folder / "logs" / name, run.log)
        budget = self.bench.protocol.execution.training_seconds
        entry = trials.entry(run, conditions, budget_seconds=budget)
        self.journal.append("run", number=current.number, log=f"logs/{name}", at=at or now(), **entry)
        self.view.observe(self.journal.session)

    def _usual_seconds(self) -> float:
        seconds = [run["seconds"] for t in self.journal.session.trials for run in t.runs if not run["failure"]]
        return statistics.median(seconds) if seconds else self.bench.usual_seconds

    # --- records ---

    def _write_records(self) -> None:
        every = self.journal.session.trials
        primary = self.bench.protocol.primary
        write_atomic(self.folder / "results.tsv", records.results_tsv(every).encode())
        write_atomic(
            self.folder / "trials.jsonl",
            records.trials_jsonl(
                every,
                bundle_id=self.bench.protocol.bundle_id,
                metric=primary.name,
                direction=primary.direction,
            ).encode(),
        )


def new_session(path: Path, project: int, miner: Pubkey, *, begun: float | None = None) -> Journal:
    """The journal at `path`, begun now or at `begun` (Unix seconds) if it is new.

    The seed follows from project and wallet, so it is stable.
    """
    journal = Journal(path)
    if not journal.session.tag:
        seed = int.from_bytes(sha256(bytes(miner) + project.to_bytes(8, "little")).digest()[:4], "little")
        begun = time.time() if begun is None else begun
        tag = time.strftime("%Y%m%d-%H%M%S", time.gmtime(begun))
        journal.append("session", seed=seed, tag=tag, at=written(begun))
    return journal


def _spread(values: list[float]) -> str:
    if len(values) < 2:
        return "1 run"
    return f"{len(values)} runs, standard deviation {statistics.stdev(values):.6f}"


def claimed_metric(text: str) -> Decimal:
    """A claim given on the command line; TrainerError where it is not a number."""
    try:
        value = Decimal(text)
    except ArithmeticError:
        value = Decimal("nan")
    if not value.is_finite():
        raise TrainerError(f"A claim is a number such as 2.534000, not {text!r}.", "Correct --claim.")
    return value
