"""From a head that beats the chain's best to a proposal: confirm, weigh, stake.

Nothing is staked that did not pass the confirming test, that does not pay as far as can be known, or that goes
beyond the owner's limits. What is decided is in the journal, and is not decided again for the same code and best.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from chain.program.accounts import ProposalStatus
from common.files import write_atomic
from miner.context import goals
from miner.context.context import SessionContext
from miner.journal.journal import Confirmation, TrialRecord
from miner.staking import confirm, gates, outlook, stepping, submit
from miner.staking.benchmark import benchmark_log
from miner.staking.cost import SubmissionCost, submission_cost
from trainer.judging.climb import Step
from trainer.judging.ladder import INCUMBENT, Rung
from trainer.judging.policy import JudgePolicy
from trainer.measurement.run import Run
from trainer.statistics.error_rates import LookEvidence
from trainer.statistics.shrinkage import Posterior


class Staking:
    """The submissions of one session; `look` reads the chain and keeps project and frontier, and `between` is called
    after each run of a confirming test."""

    def __init__(
        self, context: SessionContext, look: Callable[[], None], between: Callable[[], None] = lambda: None
    ) -> None:
        self._context, self._look, self._between = context, look, between
        self._plain: dict[str, Run] = {}  # by commit: runs by the protocol's own command

    def candidate(self) -> TrialRecord | None:
        """The trial whose code is the head, where it is better than the chain's best as far as this session knows,
        was not submitted and did not fail its confirming test against that best."""
        session = self._context.session
        best = session.frontiers[-1].commit
        won = next((t for t in reversed(session.trials) if t.number and t.kept and t.commit == session.head), None)
        if won is None or session.head == best:
            return None
        if any(s.trial == won.number and s.proposal is not None for s in session.submissions):
            return None
        failed = [c for c in session.confirmations if (c.commit, c.against) == (won.commit, best)]
        if any(c.passed is False for c in failed):
            return None
        lead = session.frontiers[-1].lead
        return won if not lead or stepping.gained(self._context, won) > lead else None

    def attempt(self, won: TrialRecord) -> None:
        """Confirm, look at what it is worth, and stake. What is not submitted is recorded, and not tried again."""
        context, session = self._context, self._context.session
        best, lead = session.frontiers[-1].commit, session.frontiers[-1].lead
        margin = context.bench.protocol.margin(float(context.best_metric))
        policy = confirm.policy_at(context.goals.min_confidence, margin + lead)
        done = next(
            (c for c in session.confirmations if (c.commit, c.against, c.passed) == (won.commit, best, True)), None
        )
        if done is None:
            context.dashboard.say(
                f"confirming trial {won.number} against the on-chain best, by the verifier's rules", "bold"
            )
            tree = context.tree(best)
            steps = [Step(Rung(INCUMBENT, 0.0), tree)] if lead else stepping.steps(context, tree)
            done = confirm.confirm(
                context.bench,
                context.task,
                steps,
                context.tree(won.commit),
                context.journal,
                number=won.number,
                commit=won.commit,
                against=best,
                policy=policy,
                view=context.dashboard,
                between=self._between,
                meanwhile=partial(self._run_plainly, won),
            )
            if not done.passed:
                self._not_confirmed(done, best)
                for step in steps:
                    if step.rung.arm == done.reference:
                        stepping.step_down(context, step, done.lead)
                return
        if reason := self._barred():
            self._hold(won, best, reason)
            return
        found = forecast(context, done, policy, self._archive(won), lead)
        if reason := self._why_not(found):
            self._hold(won, best, reason)
            return
        self._look()
        if context.session.frontiers[-1].commit == best:
            self._send(won, done, found)

    def _not_confirmed(self, done: Confirmation, best: str) -> None:
        context = self._context
        context.dashboard.say(f"  not submitted: {done.reason}", style="yellow")
        if done.disproved and context.session.head == best:  # else another machine found more on top meanwhile
            context.workspace.keep(best)
            context.dashboard.say("  not confirmed: going back to the on-chain best")

    def _hold(self, won: TrialRecord, best: str, reason: str) -> None:
        self._context.journal.append("held", commit=won.commit, against=best, reason=reason)
        self._context.dashboard.say(f"  not submitted: {reason}", style="yellow")

    def _barred(self) -> str:
        """Why no confirmed gain of this session is staked on, in words; "" where one may be."""
        context = self._context
        if context.rejections:
            return "a proposal of this session was rejected: find out why, then run the command again to submit"
        if context.bench.machine.doubt and not context.connection.client.network.is_local:
            return f"no verifier can compare its machine with this one: {context.bench.machine.doubt}"
        return ""

    def _why_not(self, found: Forecast) -> str:
        """Why a confirmed gain is not staked on, in words; "" where it is."""
        context = self._context
        # On a local network nothing is real: it is for practice, and the outlook is shown for that.
        accept_loss = context.goals.accept_loss or context.connection.client.network.is_local
        return outlook.verdict(
            found.seen, found.outlook, min_confidence=context.goals.min_confidence, accept_loss=accept_loss
        ) or goals.affordable(
            context.goals, spent=context.session.spent, staked=context.session.staked, cost=found.cost.total
        )

    def _send(self, won: TrialRecord, done: Confirmation, found: Forecast) -> None:
        context = self._context
        metric, claimed = submit.anchored_score(context.project, context.convention, found.claim)
        context.dashboard.say(f"submitting trial {won.number}: claimed {metric:.6f} val_bpb, {found.claim:+.6f} better")
        log = self._benchmark_log(won, done)
        offer = submit.Offer(
            won.number,
            self._archive(won),
            log,
            claimed,
            context.goals.stake,
            context.reward_recipient,
        )
        proposal = submit.submit(
            context.connection,
            context.wallet,
            context.project,
            offer,
            context.journal,
            machine=context.bench.machine,
            data_snapshot=context.bench.data_snapshot,
            say=context.dashboard.say,
            step=context.dashboard.step,
        )
        context.dashboard.say(f"proposal {proposal} is on chain", style="green")

    def _archive(self, won: TrialRecord) -> bytes:
        context = self._context
        return gates.pack(context.tree(won.commit), context.task.protocol, context.task.protocol_bytes)

    def _benchmark_log(self, won: TrialRecord, done: Confirmation) -> bytes:
        """The benchmark log; an earlier one where a submission was interrupted."""
        context = self._context
        path = context.folder / "logs" / f"{won.number:04d}-benchmark-{won.commit[:12]}.log"
        if path.exists():
            return path.read_bytes()
        plain = self._plain.get(won.commit)
        what = "the benchmark log" if plain else "one run by the protocol's own command, for the benchmark log"
        with context.dashboard.step(what, None if plain else context.usual_seconds()) as word:
            tried = [entry.run for entry in done.runs]
            log = benchmark_log(context.bench, context.tree(won.commit), tried, word, plain)
        context.dashboard.say(f"  the benchmark log: {log.decode().splitlines()[2]}")
        write_atomic(path, log)
        return log

    def _run_plainly(self, won: TrialRecord, gpu: str, show: Callable[[str], None]) -> Run:
        """The benchmark log's run, on a GPU that the confirming test does not use yet."""
        context = self._context
        bench = next(one for one in context.bench.each_gpu() if one.gpus == (gpu,))
        run = bench.plain_run(context.tree(won.commit), show)
        if run.val_bpb is not None:  # else it is made again, with nothing beside it
            self._plain[won.commit] = run
        return run


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a confirmed gain rests on (`seen`), what of it is expected to last (`gained`), and what a stake on it
    promises and costs. `lead`: what the chain's best is ahead of the code that the gain is over, in bpb."""

    seen: LookEvidence
    gained: Posterior
    outlook: outlook.Outlook
    cost: SubmissionCost
    lead: float = 0.0

    @property
    def claim(self) -> float:
        """The gain to claim, in bpb: what is expected to last beyond the chain's best, at least its last digit."""
        return max(1e-6, round(self.gained.mean - self.lead, 6))


def forecast(
    context: SessionContext, done: Confirmation, policy: JudgePolicy, code: bytes, lead: float = 0.0
) -> Forecast:
    """What staking the archive `code` on a confirmed gain promises, which is shown. `lead` is what the chain's best is
    ahead (bpb) of the code that it was confirmed against.
    """
    client, project, stake = context.connection.client, context.project, context.goals.stake
    seen, policy = confirm.evidence_of(done, policy), policy.beyond(done.lead)
    gained = outlook.worth(context.session, done, seen)
    proposals = context.follower.proposals()
    ended = Counter(proposal.status for proposal in proposals)
    market = outlook.Market(
        project.base_price + project.slope * max(0, client.supply(project) - 1),
        ended[ProposalStatus.APPROVED],
        ended[ProposalStatus.REJECTED],
        ended[ProposalStatus.EXPIRED],
        project.miner_pool_minted,
        sum(
            entry.status is ProposalStatus.APPROVED and entry.verified_aggregate_score != entry.claimed_aggregate_score
            for entry in proposals
        ),
    )
    refused = gates.warn(code, context)
    cost = submission_cost(client, context.wallet.pubkey(), project, stake=stake, recipient=context.reward_recipient)
    found = outlook.outlook(seen, gained, policy, market, stake=stake, rent=cost.rent, fees=cost.fees, refused=refused)
    context.dashboard.say(
        f"  confirmed: {done.delta:+.6f} [{done.low:+.6f}, {done.high:+.6f}]; {gained.mean:+.6f} should last"
    )
    for line in found.lines():
        context.dashboard.say(f"  {line}")
    return Forecast(seen, gained, found, cost, lead + done.lead)
