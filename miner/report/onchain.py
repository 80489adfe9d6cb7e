"""The chain's side of a report: the baseline, the best and who improved it when, and what became of proposals."""

from __future__ import annotations

from collections.abc import Sequence

from chain.connection.opening import Connection
from chain.money.client import Client
from chain.pages import show
from chain.pages.overview import overview
from chain.program.accounts import Project, Proposal, ProposalStatus
from chain.program.events import MinerRewardMinted, parse_events
from common.text import printable
from miner.report.chart import BestMark
from miner.report.material import OnChain

MOST = 100  # proposals whose fate is asked for, the newest


def read(connection: Connection, project: int, wallet: str) -> OnChain:
    """Ask the chain. `wallet` is the first characters of the miner's address. Raises ChainError if it cannot."""
    seen = overview(connection, project)
    bests = []
    for proposal in seen.proposals:
        metric = seen.meaning.value(proposal.verified_aggregate_score)
        if proposal.status is ProposalStatus.APPROVED and metric is not None:
            own = str(proposal.miner).startswith(wallet)
            whose = "this miner" if own else f"miner {str(proposal.miner)[:8]}…"
            words = f"proposal {proposal.id}: {metric:.6f} by {whose}, submitted {show.when(proposal.submitted_at)}"
            bests.append(BestMark(float(proposal.submitted_at), float(metric), own, words))
    baseline, best = (
        seen.meaning.value(value)
        for value in (seen.project.baseline_aggregate_score, seen.project.current_best_aggregate_score)
    )
    return OnChain(
        f"Read from {connection.settings.network} for this report. {seen.meaning.problem}".strip(),
        None if baseline is None else float(baseline),
        None if best is None else float(best),
        sorted(bests, key=lambda entry: entry.at),
        {proposal.id: show.as_json(proposal)["status"] for proposal in seen.proposals},
        fates(connection.client, [p for p in seen.proposals if str(p.miner).startswith(wallet)], seen.project),
    )


def fates(client: Client, proposals: Sequence[Proposal], project: Project) -> dict[int, str]:
    """What became of each proposal and its stake, in words, by id; with its reward where the history tells.

    ChainError if the network does not answer.
    """
    return {
        proposal.id: fate(proposal, project.token_symbol, _reward(client, proposal)) for proposal in proposals[-MOST:]
    }


def fate(proposal: Proposal, symbol: str, reward: int | None) -> str:
    """One proposal's; pure. `reward` in tokens, None where it is not known."""
    stake, status = f"{proposal.stake:,} {printable(symbol, 20)}", proposal.status.name.lower().replace("_", " ")
    match proposal.status:
        case ProposalStatus.APPROVED:
            won = "" if reward is None else f"+{reward:,} {printable(symbol, 20)}, "
            return f"{status}: {won}stake of {stake} returned"
        case ProposalStatus.REJECTED | ProposalStatus.EXPIRED:
            return f"{status}: stake of {stake} lost"
    return f"{status}: stake of {stake} in escrow"


def _reward(client: Client, proposal: Proposal) -> int | None:
    if proposal.status is not ProposalStatus.APPROVED:
        return None
    for signature in client.network.signatures(
        client.pdas.proposal(proposal.id), limit=5
    ):  # the newest: its settlement
        receipt = client.network.transaction(signature)
        for event in parse_events(receipt.logs, client.network.program_id) if receipt else ():
            if isinstance(event, MinerRewardMinted):
                return event.amount
    return None
