"""The chain's side of a report: the project's baseline, its best, and who improved it when."""

from __future__ import annotations

from pathlib import Path

from chain.connection.opening import Connection
from chain.errors import ChainError
from chain.pages import show
from chain.pages.overview import overview
from chain.program.accounts import ProposalStatus
from miner.report.chart import BestMark
from miner.report.material import OnChain


def connect(home: Path, network: str, irys: str | None) -> Connection:
    """A connection to look through; ChainError where it would have to make an embedded ledger first."""
    if network == "embedded" and not (home / "ledger.sqlite").exists():
        raise ChainError(f"There is no embedded ledger in {home}.", "Check --home.")
    return Connection(network, home, irys=irys)


def read(home: Path, network: str, project: int, wallet: str, *, irys: str | None = None) -> OnChain:
    """Ask the chain. `wallet` is the first characters of the miner's address. Raises ChainError where it cannot."""
    with connect(home, network, irys) as connection:
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
        f"Read from {network} for this report. {seen.meaning.problem}".strip(),
        None if baseline is None else float(baseline),
        None if best is None else float(best),
        sorted(bests, key=lambda entry: entry.at),
        {proposal.id: show.as_json(proposal)["status"] for proposal in seen.proposals},
    )
