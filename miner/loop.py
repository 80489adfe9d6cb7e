"""The mining session: propose, measure against the incumbent, keep or discard, submit what wins.

Each experiment is a commit; each run and decision is in the ledger before the next step. A session that
is interrupted continues where it was: the trial that was being measured keeps its finished runs, and
at most the run in flight is repeated. A candidate is kept by the sequential test of
`trainer.comparison` alone, never by one number.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chain import score
from chain.interface import Project
from chain.irys.store import write_atomic
from chain.session import Connection
from miner import records, submit
from miner.ledger import Ledger, Trial
from miner.proposers import context
from miner.proposers.base import Proposer
from miner.workspace import Workspace
from trainer import bundle, constants, trial
from trainer.bench import Bench
from trainer.comparison import Arm, Kind, Policy
from trainer.errors import EnvironmentNotReady, TrainerError
from trainer.task import Task
from trainer.trial import Run
from trainer.view import View

SCRIPT = "train.py"
BASELINE_RUNS = 3


@dataclass(frozen=True, slots=True)
class Goals:
    """When a session ends and how it submits. None is no limit; `submissions` 0 keeps mining for ever."""

    max_trials: int | None = None
    max_minutes: float | None = None
    submissions: int = 1
    stake: int = 1
    dry_run: bool = False


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
        wallet: Keypair,
        reward_recipient: Pubkey,
        goals: Goals,
        view: View,
    ) -> None:
        self.connection, self.project, self.task, self.bench = connection, project, task, bench
        self.convention, self.proposer, self.goals, self.view = convention, proposer, goals, view
        self.folder, self.ledger = folder, ledger
        self.wallet, self.reward_recipient = wallet, reward_recipient
        self._first_best = project.current_best_code_hash
        self.workspace = Workspace.open(folder / "tree", ledger.session.tag, task.incumbent)
        self._submitted_before = 0
        self._deadline = math.inf

    # --- the session ---

    def run(self) -> Summary:
        """Mine until a goal is reached; KeyboardInterrupt passes through with everything on disk."""
        started = time.monotonic()
        if self.goals.max_minutes is not None:
            self._deadline = started + 60 * self.goals.max_minutes
        self._submitted_before = self._submitted()
        self._restore_incumbent()
        self._show_best()
        landed = submit.reconcile(self.connection.client, self.wallet.pubkey(), self.project, self.ledger)
        if landed is not None:
            self.view.say(f"proposal {landed.id} of the interrupted session did reach the chain")
        self._baseline()
        done = 0
        while True:
            reason = self._limit(done, time.monotonic() - started)
            if reason:
                break
            unsubmitted = self._unsubmitted()
            if unsubmitted is not None and not self.goals.dry_run:
                self._submit(unsubmitted)
                continue
            if not self._trial():
                reason = "the proposer has nothing left to try"
                break
            done += 1
        self._write_records()
        finished = [t for t in self.ledger.session.trials if t.decision]
        kept = [t for t in finished if t.kept and t.number]
        return Summary(
            reason,
            len([t for t in finished if t.number]),
            len(kept),
            max((t.delta for t in kept if t.delta is not None), default=None),
            tuple(s.proposal for s in self.ledger.session.submissions if s.proposal is not None),
        )

    def _restore_incumbent(self) -> None:
        """See to it that the branch is at what was kept last, where a kill came between ledger and branch."""
        kept = [t for t in self.ledger.session.trials if t.kept]
        if kept and self.workspace.head() != kept[-1].commit:
            self.workspace.keep(kept[-1].commit)

    def _show_best(self) -> None:
        gain = sum(t.delta or 0.0 for t in self.ledger.session.trials if t.kept)
        self.view.status = f"best so far: {gain:+.4f}"

    def _submitted(self) -> int:
        return sum(s.proposal is not None for s in self.ledger.session.submissions)

    def _limit(self, done: int, seconds: float) -> str:
        submitted = self._submitted() - self._submitted_before
        if self.goals.dry_run and self._unsubmitted() is not None:
            return "found an improvement (dry run, nothing is submitted)"
        if 0 < self.goals.submissions <= submitted:
            return "submitted"
        if self.goals.max_trials is not None and done >= self.goals.max_trials:
            return f"reached --max-trials {self.goals.max_trials}"
        if self.goals.max_minutes is not None and seconds >= 60 * self.goals.max_minutes:
            return f"reached --max-minutes {self.goals.max_minutes:g}"
        return ""

    def _unsubmitted(self) -> Trial | None:
        """The newest kept trial, unless it or a later one was submitted."""
        kept = [t for t in self.ledger.session.trials if t.kept and t.number]
        done = {s.trial for s in self.ledger.session.submissions if s.proposal is not None}
        return kept[-1] if kept and kept[-1].number not in done else None

    # --- measuring ---

    def _baseline(self) -> None:
        """Measure the incumbent as trial 0, unless this session has already."""
        if not self.ledger.session.trials:
            self._append_trial(0, "baseline", self.workspace.head())
        baseline = self.ledger.session.trials[0]
        if baseline.decision:
            return
        while len(self._values(baseline, Arm.INCUMBENT)) < BASELINE_RUNS:
            run = self._execute(baseline, Arm.INCUMBENT, self.task.incumbent)
            if run.val_bpb is None:
                raise EnvironmentNotReady(
                    f"The incumbent itself does not run here: {run.detail}",
                    f"Its log is in {self.folder / 'logs'}.",
                )
        values = self._values(baseline, Arm.INCUMBENT)
        self.ledger.append("decision", number=0, decision="keep", delta=0.0)
        self.view.say(f"baseline {statistics.fmean(values):.6f} val_bpb ({_spread(values)})")

    def adopt_baseline(self, runs: list[Run]) -> None:
        """Take over the baseline runs that this very process just made to publish the project."""
        self._append_trial(0, "baseline", self.workspace.head())
        for run in runs:
            self._record(self.ledger.session.trials[0], run)

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
        session = self.ledger.session
        if session.unfinished is None:
            left = self._deadline - time.monotonic()
            seen = context.gather(
                session,
                self.workspace,
                self.bench.protocol,
                self.folder,
                seconds_left=max(0.0, left) if math.isfinite(left) else None,
            )
            candidate = self.proposer.propose(seen)
            if candidate is None:
                return False
            commit = self.workspace.commit(seen.number, candidate.source, candidate.hypothesis, name=SCRIPT)
            self._append_trial(seen.number, candidate.hypothesis, commit, candidate.proposer)
        current = session.trials[-1]
        self.view.say(f"trial {current.number}: {current.hypothesis}")
        trees = {
            Arm.INCUMBENT: self._tree(current.base),
            Arm.CANDIDATE: self._tree(current.commit),
        }
        history = self._history(current)
        outcome = trial.compare(
            lambda arm: self._execute(current, arm, trees[arm]),
            history=history,
            noise=self.bench.noise(),
            policy=Policy.mining(),
            seed=session.seed + current.number,
            done=[_restored(run) for run in current.runs],
        )
        self._decide(current, outcome, history)
        return True

    def _decide(self, current: Trial, outcome: trial.Trial, history: list[float]) -> None:
        if len(outcome.failures(Arm.INCUMBENT)) >= trial.MAX_FAILURES:
            raise EnvironmentNotReady(
                f"The incumbent no longer runs here: {outcome.failures(Arm.INCUMBENT)[-1].detail}",
                "See to this machine and run the command again; the session continues where it was.",
            )
        candidate = outcome.values(Arm.CANDIDATE)
        if outcome.decision is None:
            detail = outcome.failures(Arm.CANDIDATE)[-1].detail
            self.ledger.append("decision", number=current.number, decision="crash", delta=None)
            self.view.say(f"  crash: {detail}", style="yellow")
        else:
            evidence = outcome.decision.evidence
            kept = outcome.decision.kind is Kind.APPROVE
            delta = evidence.delta if evidence else None
            self.ledger.append(
                "decision",
                number=current.number,
                decision="keep" if kept else "discard",
                delta=delta,
                low=evidence.low if evidence else None,
                high=evidence.high if evidence else None,
                p=evidence.p if evidence else None,
            )
            if kept:
                self.workspace.keep(current.commit)
            assert evidence is not None
            self.view.say(
                f"  {'keep' if kept else 'discard'}: {statistics.fmean(candidate):.6f} val_bpb, "
                f"delta {evidence.delta:+.6f} [{evidence.low:+.6f}, {evidence.high:+.6f}], "
                f"{evidence.candidate_runs} runs against {evidence.incumbent_runs}",
                style="green" if kept else "",
            )
            self._show_best()
        # A candidate's runs are one group of repeats of one script; the incumbent's once it is replaced.
        groups = [candidate]
        if current.decision == "keep":
            groups.append([*history, *outcome.values(Arm.INCUMBENT)])
        self.bench.learn_noise(groups)
        self._write_records()

    def _history(self, current: Trial) -> list[float]:
        """The incumbent's values from before this trial: its own runs as a candidate, and as the incumbent since."""
        values: list[float] = []
        for earlier in self.ledger.session.trials:
            if earlier.number >= current.number:
                break
            if earlier.commit == current.base:
                values += self._values(earlier, Arm.INCUMBENT if earlier.number == 0 else Arm.CANDIDATE)
            elif earlier.base == current.base:
                values += self._values(earlier, Arm.INCUMBENT)
        return values

    @staticmethod
    def _values(of: Trial, arm: Arm) -> list[float]:
        return [run["val_bpb"] for run in of.runs if run["arm"] == arm.value and run["val_bpb"] is not None]

    def _tree(self, commit: str) -> Mapping[str, bytes]:
        """The snapshot with that commit's train.py; nothing else of the work tree is trusted to be unchanged."""
        changed = {SCRIPT: self.workspace.read(commit, SCRIPT).encode()}
        return bundle.overlay(self.task.files, changed, self.task.protocol.surface)

    def _execute(self, current: Trial, arm: Arm, files: Mapping[str, bytes]) -> Run:
        number = len(current.runs) + 1
        with self.view.step(f"trial {current.number}, run {number} ({arm.value})", self._usual_seconds()) as word:
            run = self.bench.measure(arm, files, word)
        self._record(current, run)
        return run

    def _record(self, current: Trial, run: Run) -> None:
        name = f"{current.number:04d}-{len(current.runs) + 1:02d}-{run.arm.value}.log"
        write_atomic(self.folder / "logs" / name, run.log)
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
        )

    def _usual_seconds(self) -> float:
        seconds = [run["seconds"] for t in self.ledger.session.trials for run in t.runs if not run["failure"]]
        return statistics.median(seconds) if seconds else self.bench.usual_seconds

    # --- submitting ---

    def _submit(self, won: Trial) -> None:
        # The chain's best moves with other miners, so it is read at the last moment.
        self.project = self.connection.client.project(self.project.id)
        gain = self._gain(won)
        metric, claimed = submit.anchored_score(self.project, self.convention, gain)
        self.view.say(f"submitting trial {won.number}: claimed {metric:.6f} val_bpb, {gain:+.6f} better")
        tree = self._tree(won.commit)
        with self.view.step(
            "one run by the protocol's own command, for the benchmark log", self._usual_seconds()
        ) as word:
            plain = self.bench.plain_run(tree, word)
        if plain.val_bpb is None:
            raise EnvironmentNotReady(
                f"The winning train.py does not run by the protocol's own command: {plain.detail}",
                f"It is commit {won.commit[:12]} in {self.workspace.path}; nothing was submitted.",
            )
        self.view.say(f"  its own log says {plain.val_bpb:.6f} val_bpb")
        offer = submit.Offer(
            won.number,
            self.workspace.archive(won.commit),
            plain.log,
            claimed,
            self.goals.stake,
            self.reward_recipient,
        )
        proposal = submit.submit(
            self.connection,
            self.wallet,
            self.project,
            offer,
            self.ledger,
            machine=self.bench.machine,
            data_snapshot=self.bench.data_snapshot,
            say=self.view.say,
        )
        self.view.say(f"proposal {proposal} is on chain", style="green")

    def _gain(self, won: Trial) -> float:
        """What was measured since the chain's best code, over all trials kept since.

        EnvironmentNotReady where that code is not of this session: somebody else's was approved meanwhile.
        """
        best, session = self.project.current_best_code_hash.hex(), self.ledger.session
        since = next((s.trial for s in reversed(session.submissions) if s.code_hash == best), 0)
        if not since and self.project.current_best_code_hash != self._first_best:
            raise EnvironmentNotReady(
                "The best code on chain is somebody else's by now, so this gain was measured against an older one.",
                "Run the command again: it starts from the new best.",
            )
        return round(sum(t.delta or 0.0 for t in session.trials if t.kept and since < t.number <= won.number), 6)

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


def new_session(path: Path, project: int, miner: Pubkey) -> Ledger:
    """The ledger at `path`, begun if it is new. Tag and seed follow from project and wallet, so they are stable."""
    ledger = Ledger(path)
    if not ledger.session.tag:
        seed = int.from_bytes(sha256(bytes(miner) + project.to_bytes(8, "little")).digest()[:4], "little")
        ledger.append("session", seed=seed, tag=time.strftime("%Y%m%d-%H%M%S", time.gmtime()))
    return ledger


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
