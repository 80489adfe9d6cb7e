"""What the chain's history tells: the block a proposal was submitted in, who has reviewed it before, and what was best.

Whatever a node says of a proposal or a project is compared with another of its answers before it is judged by.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from solders.pubkey import Pubkey

from chain.errors import ChainError, InvalidData
from chain.money import submission
from chain.money.client import Client
from chain.network.base import HistoryEntry, TransactionReceipt
from chain.program.accounts import Project, Proposal, ProposalStatus
from chain.program.events import ReviewClaimed, parse_events

PAGE, PAGES = 1000, 1000
MAX_READ = 500
"""Transactions of a proposal that are read for its reviews, the newest, and for its submission, the oldest. Each
costs a call of the node, and anybody may add some; a review costs three."""

MAX_COPIES = 16
"""Earlier proposals with the same archive that are asked after: beyond, a look has next to no level left."""


def submission_hash(client: Client, proposal: Proposal) -> bytes:
    """The hash of the block that the proposal was submitted in: fixed after its code was. InvalidData unless the
    submission there is the proposal as the node shows it."""
    receipt = _submission(client, proposal)
    found = client.network.block_hash(receipt.slot) if receipt else None
    if found is None:
        raise ChainError(
            f"The block in which proposal {proposal.id} was submitted is unknown to {client.network.name}.",
            "Use an RPC node that keeps the history.",
        )
    return bytes(found)


def _submission(client: Client, proposal: Proposal) -> TransactionReceipt | None:
    """The transaction that made the proposal, None where the node knows none of its first ones. Anybody may have named
    the address in transactions before, so it need not be the very first."""
    address, known = client.pdas.proposal(proposal.id), False
    for entry in reversed(deque(_entries(client, proposal), MAX_READ)):
        receipt = client.network.transaction(entry.signature)
        known |= receipt is not None
        if receipt and submission.prove(proposal, address, client.network.program_id, receipt):
            if receipt.slot != entry.slot:
                raise submission.lie(proposal, f"{entry.signature} landed in slot {receipt.slot}, and in {entry.slot}")
            return receipt
    if known:
        raise submission.lie(proposal, "none of its first transactions submitted it")
    return None


def bests(project: Project, proposals: Sequence[Proposal], besides: int | None = None) -> set[tuple[bytes, int]]:
    """What has ever been a best of the project with these `proposals`, code hash and score: the snapshot (zeros), and
    what was approved, but for the proposal `besides`."""
    return {(bytes(32), project.baseline_aggregate_score)} | {
        (entry.code_hash, entry.verified_aggregate_score)
        for entry in proposals
        if entry.status is ProposalStatus.APPROVED and entry.id != besides
    }


def require_best(project: Project, proposals: Sequence[Proposal]) -> None:
    """InvalidData unless what the project calls its best is its snapshot or was approved, with that very score."""
    if (project.current_best_code_hash, project.current_best_aggregate_score) not in bests(project, proposals):
        raise InvalidData(
            f"The node says that project {project.id} has a best of {project.current_best_aggregate_score} with the "
            f"code {project.current_best_code_hash.hex()}, and shows no such approval.",
            "Try again; if it stays so, use another node with --rpc-url URL.",
        )


def as_judged(project: Project, proposals: Sequence[Proposal], proposal: Proposal) -> Project:
    """The project with the best that the proposal is judged against: the one now, or where it was approved, the one
    before it."""
    if proposal.status is not ProposalStatus.APPROVED:
        return project
    score = proposal.verified_aggregate_score
    approved = (entry for entry in proposals if entry.status is ProposalStatus.APPROVED)
    earlier = [entry for entry in approved if entry.verified_aggregate_score < score]
    best = max(earlier, key=lambda entry: entry.verified_aggregate_score, default=None)
    return replace(
        project,
        current_best_aggregate_score=best.verified_aggregate_score if best else project.baseline_aggregate_score,
        current_best_code_hash=best.code_hash if best else bytes(32),
        current_best_code_irys_id=best.code_irys_id if best else bytes(32),
        current_best_metrics_hash=best.metrics_hash if best else bytes(32),
        current_best_metrics_irys_id=best.metrics_irys_id if best else bytes(32),
        current_best_miner=best.miner if best else Pubkey.default(),
    )


def other_reviewers(client: Client, proposal: Proposal, us: Pubkey) -> frozenset[Pubkey]:
    """Who else claimed the proposal's review before `us`, or at all where we have not.

    Whether one of them ran anything is not on chain: a release is recorded there without a reason.
    """
    found: set[Pubkey] = set()
    ours = False
    for entry in islice(_entries(client, proposal), MAX_READ):
        receipt = None if entry.failed else client.network.transaction(entry.signature)
        if receipt is None or receipt.error is not None:
            continue
        for event in parse_events(receipt.logs, client.network.program_id):
            if isinstance(event, ReviewClaimed) and event.id == proposal.id:
                if event.verifier == us and not ours:
                    ours, found = True, set()  # whoever came after our last review is no earlier look
                elif event.verifier != us:
                    found.add(event.verifier)
    return frozenset(found)


def copies(proposals: Sequence[Proposal], proposal: Proposal) -> tuple[Proposal, ...]:
    """Those before `proposal` with the very same archive, the latest MAX_COPIES, oldest first."""
    found = (other for other in proposals if other.code_hash == proposal.code_hash and other.id < proposal.id)
    return tuple(found)[-MAX_COPIES:]


def other_looks(client: Client, proposals: Iterable[Proposal], us: Pubkey) -> dict[int, int]:
    """How many other verifiers reviewed each of the proposals before us; by proposal."""
    return {one.id: len(other_reviewers(client, one, us)) for one in proposals}


def _entries(client: Client, proposal: Proposal) -> Iterator[HistoryEntry]:
    """All of the proposal's transactions, the newest first; ends after a million."""
    address, before = client.pdas.proposal(proposal.id), None
    for _ in range(PAGES):
        page = client.network.entries(address, limit=PAGE, before=before)
        yield from page
        if len(page) < PAGE:
            return
        before = page[-1].signature
