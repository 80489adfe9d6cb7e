"""The chain's side of a report: the project's baseline, its best, and who improved it when."""

from __future__ import annotations

from chain.connection.opening import Connection
from chain.pages import show
from chain.pages.overview import overview
from chain.program.accounts import ProposalStatus
from miner.report.chart import BestMark
from miner.report.material import OnChain


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
    )
