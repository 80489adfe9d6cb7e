"""The mining session: propose, measure against the incumbent, keep or discard, confirm and submit what wins.

Each experiment is a commit; each run and decision is in the ledger before the next step. A session that is
interrupted continues where it was: the trial that was being measured keeps its finished runs, and at most the run
in flight is repeated. A candidate is kept by the sequential test of `trainer.comparison` alone, never by one number,
and staked on only after the confirming test of `miner.confirm`. Between trials the session looks at the chain.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chain import score
from chain.errors import ChainError
from chain.follow import Follower
from chain.interface import Project, ProposalStatus
from chain.irys.store import write_atomic
from chain.session import Connection
from miner import frontier, goals, records, submit
from miner.frontier import SCRIPT, Best
from miner.goals import Done, Goals
from miner.ledger import Ledger, Trial
from miner.live import Live
from miner.proposers import context
from miner.proposers.base import Proposer
from miner.racer import Racer, pairs, seconds_of
from miner.staking import Staking
from miner.workspace import Workspace
from trainer import bundle, constants, curve, machine, racing, trial
from trainer.bench import Bench
from trainer.comparison import STALE_TRIALS, Arm, Kind, Policy, usable_history
from trainer.errors import EnvironmentNotReady, TrainerError
from trainer.task import Task
from trainer.trial import UNFIT, Run

BASELINE_RUNS = 3
_CALM_SECONDS = 120.0  # that a busy machine is waited for, before a run goes ahead all the same
_CALM_LOOK = 10.0


@dataclass(frozen=True, slots=True)
class Summary:
    """How a session ended."""

    reason: str
    trials: int
    kept: int
    best_delta: float | None
    proposals: tuple[int, ...]


class Miner:
    """One session on one project; `folder` holds its ledger, work tree, logs and records."""

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
        ledger: Ledger,
        follower: Follower,
        wallet: Keypair,
        reward_recipient: Pubkey,
        goals: Goals,
        view: Live,
        race: bool = True,
    ) -> None:
        self.connection, self.project, self.task, self.bench = connection, project, task, bench
        self.convention, self.proposer, self.goals, self.view = convention, proposer, goals, view
        self.folder, self.ledger, self.race = folder, ledger, race
        self.wallet, self.follower = wallet, follower
        self.workspace = Workspace.open(folder / "tree", ledger.session.tag, task.incumbent)
        self.staking = Staking(
            connection,
            project,
            task,
            bench,
            convention,
            folder=folder,
            ledger=ledger,
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
        self._submitted_before = self._submitted()
        self._last_run = (0.0, -math.inf)  # seconds that our last run took, and when it ended

    # --- the session ---

    def run(self) -> Summary:
        """Mine until a goal is reached; KeyboardInterrupt passes through with everything on disk."""
        reason = "interrupted"
        self.ledger.append("begin")
        try:
            reason = self._run()
        except (TrainerError, ChainError) as error:
            reason = error.problem
            raise
        finally:
            self.ledger.append("end", reason=reason, seconds=round(time.monotonic() - self._started, 3))
        self._write_records()
        session = self.ledger.session
        finished = [t for t in session.trials if t.decision and t.number]
        kept = [t for t in finished if t.kept]
        return Summary(
            reason,
            len(finished),
            len(kept),
            max((t.delta for t in kept if t.delta is not None), default=None),
            tuple(s.proposal for s in session.submissions if s.proposal is not None),
        )

    def _run(self) -> str:
        session = self.ledger.session
        if session.head and self.workspace.head() != session.head:  # a kill came between ledger and branch
            self.workspace.keep(session.head)
        landed = submit.reconcile(self.connection.client, self.wallet.pubkey(), self.project, self.ledger)
        if landed is not None:
            self.view.say(f"proposal {landed.id} of the interrupted session did reach the chain")
        if not session.trials:
            self._append_trial(0, "baseline", self.workspace.head())
        self._look_at_chain()
        self._baseline()
        while True:
            self._show_best()
            won, done = self.staking.candidate(), self._done()
            if won is not None and self.goals.dry_run:
                return "found an improvement (dry run, nothing is submitted)"
            reason = goals.reached(self.goals, self.bench.protocol.mining_loop, done)
            if won is not None and not goals.enough(self.goals, done):
                self.staking.attempt(won)  # what was won is submitted, also where no further trial is to begin
            elif reason:
                return reason
            elif not self._trial():
                return "the proposer has nothing left to try"
            self._look_at_chain()

    def _done(self) -> Done:
        """What the goals are compared with."""
        session, seconds = self.ledger.session, time.monotonic() - self._started
        finished = [t for t in session.trials if t.decision and t.number]
        kept = [place for place, t in enumerate(finished, 1) if t.kept]
        return Done(
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
        return sum(s.proposal is not None for s in self.ledger.session.submissions)

    def _show_best(self) -> None:
        gain = sum(t.delta or 0.0 for t in self.ledger.session.trials if t.kept)
        self.view.status = f"best so far: {gain:+.4f}"
        self.view.observe(self.ledger.session)

    # --- the chain ---

    def _look_at_chain(self) -> Project:
        """The project now, after taking note of what became of our proposals and of a new best.

        A network that does not answer is no reason to stop mining; the next look is after the next trial.
        """
        try:
            self.follower.refresh()
            self.project = self.follower.project
            self._note_statuses()
            if frontier.moved(self.ledger.session, self.project.current_best_code_hash.hex()) is frontier.Moved.SAME:
                return self.project
            best = frontier.fetch(self.connection, self.project, self.task, self.convention)
        except (ChainError, TrainerError) as error:
            if not self.ledger.session.frontiers:
                raise
            self.view.say(f"the chain could not be read ({error.problem}): mining on, looking again later")
            return self.project
        self._adopt(best)
        return self.project

    def _adopt(self, best: Best) -> None:
        moved = frontier.adopt(self.ledger, self.workspace, best)
        latest = self.ledger.session.frontiers[-1]
        if moved:
            self.view.say(f"the best on chain is new: {best.metric} by {best.miner}; searching on from it", "bold")
            if latest.carry:
                self.view.say("what this session had kept is measured against it first")
        elif latest.own:
            self.view.say(f"the best on chain is ours now: {best.metric}", "green")

    def _note_statuses(self) -> None:
        statuses = {proposal.id: proposal.status for proposal in self.follower.proposals()}
        for sent in self.ledger.session.submissions:
            status = statuses.get(sent.proposal) if sent.proposal is not None else None
            word = status.name.lower() if status is not None else ""
            if status is not None and word != sent.status:
                self.ledger.append("status", proposal=sent.proposal, status=word)
                style = {ProposalStatus.APPROVED: "green", ProposalStatus.REJECTED: "red"}.get(status, "")
                self.view.say(f"proposal {sent.proposal} is {word.replace('_', ' ')}", style)
                self.staking.rejections += status is ProposalStatus.REJECTED

    # --- measuring ---

    def _baseline(self) -> None:
        """Measure the incumbent as trial 0, unless this session has already."""
        baseline = self.ledger.session.trials[0]
        if baseline.decision:
            return
        while len(_values(baseline, Arm.INCUMBENT)) < BASELINE_RUNS:
            run = self._execute(baseline, Arm.INCUMBENT)
            if run.failure not in ("", UNFIT):
                raise EnvironmentNotReady(
                    f"The incumbent itself does not run here: {run.detail}",
                    f"Its log is in {self.folder / 'logs'}.",
                )
        values = _values(baseline, Arm.INCUMBENT)
        self.ledger.append("decision", number=0, decision="keep", delta=0.0)
        self.view.say(f"baseline {statistics.fmean(values):.6f} val_bpb ({_spread(values)})")

    def adopt_baseline(self, runs: list[Run]) -> None:
        """Take over the baseline runs that this very process just made to publish the project."""
        self._append_trial(0, "baseline", self.workspace.head())
        for run in runs:
            self._record(self.ledger.session.trials[0], run, ())

    def _append_trial(self, number: int, hypothesis: str, commit: str, proposer: str = "") -> None:
        """Begin a trial of a commit against the branch's head."""
        self.ledger.append(
            "trial",
            number=number,
            hypothesis=hypothesis,
            fingerprint=constants.fingerprint(self.workspace.read(commit, SCRIPT)),
            commit=commit,
            base=self.workspace.head(),
            proposer=proposer,
        )

    def _trial(self) -> bool:
        """One candidate, judged; False where the proposer has none."""
        if self.ledger.session.unfinished is None and not self._begin_trial():
            return False
        current = self.ledger.session.trials[-1]
        self.view.say(f"trial {current.number}: {current.hypothesis}")
        history = self._history(current)
        policy = Policy.mining(stale=self._stale(current))
        outcome = trial.compare(
            lambda arm: self._execute(current, arm),
            history=history,
            noise=self.bench.noise(),
            policy=policy,
            seed=self.ledger.session.seed + current.number,
            done=[_restored(run) for run in current.runs],
        )
        self._decide(current, outcome, history)
        self._trials += 1
        return True

    def _stale(self, current: Trial) -> bool:
        """Whether the last trials told nothing of the incumbent, so that a run of it comes first."""
        last = self.ledger.session.trials[max(0, current.number - STALE_TRIALS) : current.number]
        return len(last) == STALE_TRIALS and not any(_values(t, Arm.INCUMBENT) for t in last)

    def _begin_trial(self) -> bool:
        session = self.ledger.session
        number = session.trials[-1].number + 1
        if session.carried:
            self._append_trial(number, "what this session had kept, against the new best", session.carried)
            return True
        left = goals.seconds_left(self.goals, self.bench.protocol.mining_loop, self._done())
        seen = context.gather(session, self.workspace, self.bench.protocol, self.folder, seconds_left=left)
        candidate = self.proposer.propose(seen)
        if candidate is None:
            return False
        commit = self.workspace.commit(number, candidate.source, candidate.hypothesis, name=SCRIPT)
        self._append_trial(number, candidate.hypothesis, commit, candidate.proposer)
        return True

    def _decide(self, current: Trial, outcome: trial.Trial, history: Sequence[float]) -> None:
        if len(outcome.failures(Arm.INCUMBENT)) >= trial.MAX_FAILURES:
            raise EnvironmentNotReady(
                f"The incumbent no longer runs here: {outcome.failures(Arm.INCUMBENT)[-1].detail}",
                "See to this machine and run the command again; the session continues where it was.",
            )
        candidate = outcome.values(Arm.CANDIDATE)
        failures = outcome.failures(Arm.CANDIDATE)
        evidence = outcome.decision.evidence if outcome.decision else None
        if outcome.given_up:
            decision, reason = "discard", outcome.given_up
        elif outcome.decision is None:
            decision, reason = "crash", failures[-1].detail
        else:
            kept = outcome.decision.kind is Kind.APPROVE
            decision, reason = ("keep" if kept else "discard"), _WORDS[outcome.decision.kind]
        self.ledger.append(
            "decision",
            number=current.number,
            decision=decision,
            reason=reason,
            delta=evidence.delta if evidence else None,
            low=_finite(evidence.low) if evidence else None,
            high=_finite(evidence.high) if evidence else None,
            p=evidence.p if evidence else None,
        )
        if current.kept:
            self.workspace.keep(current.commit)
        if evidence is None:
            self.view.say(f"  {decision}: {reason}", style="yellow" if decision == "crash" else "")
        else:
            self.view.say(
                f"  {decision}: {statistics.fmean(candidate):.6f} val_bpb, "
                f"delta {evidence.delta:+.6f} [{evidence.low:+.6f}, {evidence.high:+.6f}], "
                f"{evidence.candidate_runs} runs against {evidence.incumbent_runs}",
                style="green" if current.kept else "",
            )
        # A candidate's runs are one group of repeats of one script; the incumbent's once it is replaced.
        groups: list[Sequence[float]] = [candidate]
        if current.kept:
            groups.append([*history, *outcome.values(Arm.INCUMBENT)])
        self.bench.learn_noise(groups)
        self._write_records()

    def _history(self, current: Trial) -> list[float]:
        """The incumbent's values from before this trial. Those that made it the incumbent were chosen for being
        low, so `usable_history` says which of them still count."""
        selected: list[float] = []
        fresh: list[float] = []
        for earlier in self.ledger.session.trials[: current.number]:
            if earlier.commit == current.base and earlier.number:
                selected += _values(earlier, Arm.CANDIDATE)
            elif earlier.base == current.base:
                fresh += _values(earlier, Arm.INCUMBENT)
        return usable_history(selected, fresh)

    def _tree(self, commit: str) -> Mapping[str, bytes]:
        """The snapshot with that commit's train.py; nothing else of the work tree is trusted to be unchanged."""
        changed = {SCRIPT: self.workspace.read(commit, SCRIPT).encode()}
        return bundle.overlay(self.task.files, changed, self.task.protocol.surface)

    def _execute(self, current: Trial, arm: Arm) -> Run:
        """One run, on record with the machine's state when it began."""
        commit = current.commit if arm is Arm.CANDIDATE else current.base
        conditions = self._calm()
        before = machine.read()
        number, budget = len(current.runs) + 1, self.bench.protocol.execution.training_seconds
        band, rules = self._racing(current, arm)
        past = [run for run in self._runs_of(current.base) if not run["failure"]]
        shown = _curve(past[-1]) if past else []
        rates = [rate for run in past if (rate := run["tokens_per_second"])]
        usual = statistics.median(rates) if rates else None
        with self.view.run(current, arm.value, self._usual_seconds(), shown, usual) as word:
            run = self.bench.measure(arm, self._tree(commit), Racer(word, budget, band, rules))
        self._last_run = (run.seconds, time.monotonic())
        heat = machine.judge(machine.read(), before=before, own_load=float(before.cores))
        unfit = self._unfit(commit, run)
        if unfit:
            run = replace(run, val_bpb=None, failure=UNFIT, detail=f"{unfit}; {run.val_bpb:.6f} val_bpb not counted")
            self.view.say(f"  run {number} is left out and made again: {unfit}", style="yellow")
        self._record(current, run, tuple(dict.fromkeys((*conditions, *heat))))
        return run

    def _calm(self) -> tuple[str, ...]:
        """Wait a while for a machine that is busy, hot or on battery; what still speaks against it."""
        deadline = time.monotonic() + _CALM_SECONDS
        said = False
        while True:
            seconds, ended = self._last_run
            state = machine.read()
            own = machine.own_load(state.cores, seconds, time.monotonic() - ended)
            reasons = machine.judge(state, own_load=own)
            waiting = any("busy" in reason or "heat" in reason for reason in reasons)
            if not waiting or time.monotonic() >= deadline or self.project_is_small:
                return reasons
            if not said:
                self.view.say(f"  waiting for the machine: {', '.join(reasons)}", style="yellow")
                said = True
            time.sleep(_CALM_LOOK)

    @property
    def project_is_small(self) -> bool:
        """Whether a run takes less time than waiting for a calm machine would; then its state is only noted."""
        return self.bench.protocol.execution.training_seconds < _CALM_SECONDS

    def _unfit(self, commit: str, run: Run) -> str:
        """Why a run does not count, by its throughput beside earlier runs of the same code; "" where it does."""
        rate = curve.of_log(run.log).tokens_per_second
        if run.val_bpb is None or rate is None:
            return ""
        rates = [
            (past["tokens_per_second"], past["failure"] == UNFIT)
            for past in self._runs_of(commit)
            if past["failure"] in ("", UNFIT)
        ]
        return machine.fit(rate, machine.in_force((value, unfit) for value, unfit in rates if value))

    def _runs_of(self, commit: str) -> list[dict[str, Any]]:
        """All runs of one commit's code, in order, whichever arm it was."""
        return [
            run
            for t in self.ledger.session.trials
            for run in t.runs
            if (t.commit if run["arm"] == Arm.CANDIDATE.value else t.base) == commit
        ]

    def _racing(self, current: Trial, arm: Arm) -> tuple[racing.Band | None, racing.Rules]:
        """What a candidate's run is raced against: the incumbent's curves, by rules that this session calibrated."""
        rules = racing.Rules()
        session = self.ledger.session
        if not self.race or arm is Arm.INCUMBENT or racing.audited(session.seed + current.number, rules):
            return None, rules
        if not racing.prints_same_loss(*(self.workspace.read(c, SCRIPT) for c in (current.base, current.commit))):
            return None, rules
        band = racing.Band.of([_curve(run) for run in self._runs_of(current.base) if run["failure"] == ""])
        finished = []
        for t in session.trials:
            runs = [(_curve(r), r["val_bpb"]) for r in t.runs if r["arm"] == "candidate" and r["val_bpb"] is not None]
            values = [*_values(t, Arm.INCUMBENT), *self._history(t)]
            if t.base == current.base and t.decision and values:
                finished.append((statistics.fmean(values), runs))
        budget = self.bench.protocol.execution.training_seconds
        known = pairs(finished, band, self.bench.noise().sigma, budget_seconds=budget, rules=rules)
        return band, rules.calibrated(known)

    def _record(self, current: Trial, run: Run, conditions: tuple[str, ...]) -> None:
        name = f"{current.number:04d}-{len(current.runs) + 1:02d}-{run.arm.value}.log"
        write_atomic(self.folder / "logs" / name, run.log)
        seen = curve.of_log(run.log)
        self.ledger.append(
            "run",
            number=current.number,
            arm=run.arm.value,
            val_bpb=run.val_bpb,
            failure=run.failure,
            detail=run.detail,
            seconds=run.seconds,
            memory_mb=run.memory_mb,
            log=f"logs/{name}",
            tokens_per_second=seen.tokens_per_second,
            curve=seconds_of(seen, self.bench.protocol.execution.training_seconds),
            conditions=list(conditions),
        )
        self.view.observe(self.ledger.session)

    def _usual_seconds(self) -> float:
        seconds = [run["seconds"] for t in self.ledger.session.trials for run in t.runs if not run["failure"]]
        return statistics.median(seconds) if seconds else self.bench.usual_seconds

    # --- records ---

    def _write_records(self) -> None:
        trials = self.ledger.session.trials
        primary = self.bench.protocol.primary
        write_atomic(self.folder / "results.tsv", records.results_tsv(trials).encode())
        write_atomic(
            self.folder / "trials.jsonl",
            records.trials_jsonl(
                trials,
                bundle_id=self.bench.protocol.bundle_id,
                metric=primary.name,
                direction=primary.direction,
            ).encode(),
        )


_WORDS: Mapping[Kind, str] = {
    Kind.APPROVE: "the gain is significant",
    Kind.REJECT: "no gain of the size looked for",
    Kind.UNDECIDED: "too noisy to tell within the limit of runs",
}


def new_session(path: Path, project: int, miner: Pubkey) -> Ledger:
    """The ledger at `path`, begun if it is new. Tag and seed follow from project and wallet, so they are stable."""
    ledger = Ledger(path)
    if not ledger.session.tag:
        seed = int.from_bytes(sha256(bytes(miner) + project.to_bytes(8, "little")).digest()[:4], "little")
        ledger.append("session", seed=seed, tag=time.strftime("%Y%m%d-%H%M%S", time.gmtime()))
    return ledger


def _values(of: Trial, arm: Arm) -> list[float]:
    return [run["val_bpb"] for run in of.runs if run["arm"] == arm.value and run["val_bpb"] is not None]


def _curve(run: Mapping[str, Any]) -> list[tuple[float, float]]:
    return [(float(seconds), float(loss)) for seconds, loss in run["curve"]]


def _restored(run: Mapping[str, object]) -> Run:
    value, memory = run["val_bpb"], run["memory_mb"]
    return Run(
        Arm(run["arm"]),
        float(value) if isinstance(value, int | float) else None,
        str(run["failure"]),
        str(run["detail"]),
        float(str(run["seconds"])),
        float(memory) if isinstance(memory, int | float) else None,
        b"",
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


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
