"""From a head that beats the chain's best to a proposal: confirm, weigh, stake.

Nothing is staked that did not pass the confirming test, that does not pay as far as can be known, or that goes
beyond the owner's limits. What is decided is in the journal, and is not decided again for the same code and best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chain.connection.opening import Connection
from chain.indexer.rules import Follower
from chain.money import score
from chain.network.base import FEE_PER_SIGNATURE
from chain.program.accounts import Project, ProposalStatus
from common.files import write_atomic
from miner.context import goals
from miner.context.goals import Goals, Progress
from miner.journal.journal import Confirmation, Journal, TrialRecord
from miner.journal.worktree import Workspace
from miner.report.dashboard import Dashboard
from miner.staking import confirm, outlook, submit
from trainer.errors import EnvironmentNotReady
from trainer.judging.policy import JudgePolicy
from trainer.measurement.bench import Bench
from trainer.project.task import Task
from trainer.statistics.comparison import Arm

_SIGNATURES = 3  # of the transactions that a submission sends at most: buy, submit, one more to spare


class Staking:
    """The submissions of one session. `look` reads the chain, keeps the journal's frontier and gives the project;
    `done` says what there is to compare with the goals; `rejections` are those seen since the process began.
    """

    def __init__(
        self,
        connection: Connection,
        project: Project,
        task: Task,
        bench: Bench,
        convention: score.Convention,
        *,
        folder: Path,
        journal: Journal,
        follower: Follower,
        workspace: Workspace,
        wallet: Keypair,
        reward_recipient: Pubkey,
        goals: Goals,
        view: Dashboard,
        tree: Callable[[str], Mapping[str, bytes]],
        look: Callable[[], Project],
        done: Callable[[], Progress],
        usual_seconds: Callable[[], float],
    ) -> None:
        self.connection, self.project, self.task, self.bench = connection, project, task, bench
        self.convention, self.folder, self.journal, self.workspace = convention, folder, journal, workspace
        self.wallet, self.reward_recipient, self.goals, self.view = wallet, reward_recipient, goals, view
        self._tree, self._look, self._done, self._usual_seconds = tree, look, done, usual_seconds
        self.follower, self.rejections = follower, 0

    def candidate(self) -> TrialRecord | None:
        """The trial whose code is the head, where it is better than the chain's best as far as this session knows,
        was not submitted and did not fail its confirming test against that best."""
        session = self.journal.session
        best = session.frontiers[-1].commit
        won = next((t for t in reversed(session.trials) if t.number and t.kept and t.commit == session.head), None)
        if won is None or session.head == best:
            return None
        if any(s.trial == won.number and s.proposal is not None for s in session.submissions):
            return None
        failed = [c for c in session.confirmations if (c.commit, c.against) == (won.commit, best)]
        return None if any(c.passed is False for c in failed) else won

    def attempt(self, won: TrialRecord) -> None:
        """Confirm, look at what it is worth, and stake. What is not submitted is recorded, and not tried again."""
        session, best = self.journal.session, self.journal.session.frontiers[-1].commit
        margin = self.bench.protocol.margin(float(self._best_metric()))
        policy = confirm.policy_at(self.goals.min_confidence, margin)
        done = next(
            (c for c in session.confirmations if (c.commit, c.against, c.passed) == (won.commit, best, True)), None
        )
        if done is None:
            self.view.say(f"confirming trial {won.number} against the best on chain, by a verifier's rules", "bold")
            done = confirm.confirm(
                self.bench,
                self.task,
                {Arm.INCUMBENT: self._tree(best), Arm.CANDIDATE: self._tree(won.commit)},
                self.journal,
                number=won.number,
                commit=won.commit,
                against=best,
                folder=self.folder,
                policy=policy,
                view=self.view,
            )
        if not done.passed:
            self._not_confirmed(done, best)
            return
        reason = self._why_not(done, policy)
        if reason:
            self.journal.append("held", commit=won.commit, against=best, reason=reason)
            self.view.say(f"  not submitted: {reason}", style="yellow")
            return
        self.project = self._look()
        if self.journal.session.frontiers[-1].commit == best:
            self._send(won, done)

    def _not_confirmed(self, done: Confirmation, best: str) -> None:
        self.view.say(f"  not submitted: {done.reason}", style="yellow")
        if done.disproved:
            self.workspace.keep(best)
            self.view.say("  what was kept since is not better: the search goes on from the best on chain")

    def _why_not(self, done: Confirmation, policy: JudgePolicy) -> str:
        """Why a confirmed gain is not staked on, in words; "" where it is. The outlook is shown in any case."""
        if self.rejections:
            return "a proposal of this session was rejected: look into it, then start again to submit"
        client, seen = self.connection.client, confirm.evidence_of(done, policy)
        supply = client.supply(self.project)
        approved = self.follower.proposals(ProposalStatus.APPROVED)
        market = outlook.Market(
            self.project.base_price + self.project.slope * max(0, supply - 1),
            len(approved),
            self.project.miner_pool_minted,
        )
        lacking = max(0, self.goals.stake - client.tokens(self.project, self.wallet.pubkey()))
        fees = _SIGNATURES * FEE_PER_SIGNATURE
        found = outlook.outlook(seen, policy, market, stake=self.goals.stake, fees=fees)
        self.view.say(f"  confirmed: {done.delta:+.6f} [{done.low:+.6f}, {done.high:+.6f}]; {found.text()}")
        return outlook.verdict(seen, found, min_confidence=self.goals.min_confidence) or goals.affordable(
            self.goals, self._done(), submit.price(self.project, supply, lacking) + fees
        )

    def _best_metric(self) -> Decimal:
        return self.convention.to_metric(self.project.current_best_aggregate_score)

    def _send(self, won: TrialRecord, done: Confirmation) -> None:
        assert done.delta is not None
        gain = round(done.delta, 6)
        metric, claimed = submit.anchored_score(self.project, self.convention, gain)
        self.view.say(f"submitting trial {won.number}: claimed {metric:.6f} val_bpb, {gain:+.6f} better")
        log = self._benchmark_log(won)
        offer = submit.Offer(
            won.number,
            self.workspace.archive(won.commit),
            log,
            claimed,
            self.goals.stake,
            self.reward_recipient,
        )
        proposal = submit.submit(
            self.connection,
            self.wallet,
            self.project,
            offer,
            self.journal,
            machine=self.bench.machine,
            data_snapshot=self.bench.data_snapshot,
            say=self.view.say,
        )
        self.view.say(f"proposal {proposal} is on chain", style="green")

    def _benchmark_log(self, won: TrialRecord) -> bytes:
        """The log of one run by the protocol's own command; of an earlier one where a submission was interrupted."""
        path = self.folder / "logs" / f"{won.number:04d}-benchmark-{won.commit[:12]}.log"
        if path.exists():
            return path.read_bytes()
        with self.view.step(
            "one run by the protocol's own command, for the benchmark log", self._usual_seconds()
        ) as word:
            plain = self.bench.plain_run(self._tree(won.commit), word)
        if plain.val_bpb is None:
            raise EnvironmentNotReady(
                f"The winning train.py does not run by the protocol's own command: {plain.detail}",
                f"It is commit {won.commit[:12]} in {self.workspace.path}; nothing was submitted.",
            )
        self.view.say(f"  its own log says {plain.val_bpb:.6f} val_bpb")
        write_atomic(path, plain.log)
        return plain.log
