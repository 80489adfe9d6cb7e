"""Who has mined and who has verified a project, by its proposals on chain. Pure.

An account names its reviewer while it is in review and, on the networks seen so far, after its settlement; where it
names none, nobody is credited.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from solders.pubkey import Pubkey

from chain.program.accounts import Proposal, ProposalStatus

_LOST = (ProposalStatus.REJECTED, ProposalStatus.EXPIRED)


@dataclass(slots=True)
class MinerRank:
    """A miner's proposals; `gain` is what the approved ones won over the best before each, in score points, and `lost`
    the tokens of slashed stakes."""

    miner: Pubkey
    proposals: int = 0
    approved: int = 0
    open: int = 0
    gain: int = 0
    lost: int = 0
    last: int = 0


@dataclass(slots=True)
class VerifierRank:
    """What a verifier has settled, and what it reviews now."""

    verifier: Pubkey
    approved: int = 0
    rejected: int = 0
    reviewing: int = 0


def miners(proposals: Sequence[Proposal], gains: Sequence[tuple[int, int]]) -> list[MinerRank]:
    """The most gain first; `gains` has proposal and gain of each approval."""
    won, found = dict(gains), dict[Pubkey, MinerRank]()
    for entry in proposals:
        rank = found.setdefault(entry.miner, MinerRank(entry.miner))
        rank.proposals += 1
        rank.approved += entry.status is ProposalStatus.APPROVED
        rank.open += entry.status in (ProposalStatus.PENDING, ProposalStatus.IN_REVIEW)
        rank.gain += won.get(entry.id, 0)
        rank.lost += entry.stake if entry.status in _LOST else 0
        rank.last = max(rank.last, entry.submitted_at)
    return sorted(found.values(), key=lambda rank: (-rank.gain, -rank.approved, rank.proposals, str(rank.miner)))


def verifiers(proposals: Sequence[Proposal]) -> list[VerifierRank]:
    """The most settlements first."""
    counts: dict[Pubkey, dict[ProposalStatus, int]] = defaultdict(lambda: defaultdict(int))
    for entry in proposals:
        if any(bytes(entry.reviewer)):
            counts[entry.reviewer][entry.status] += 1
    found = [
        VerifierRank(key, n[ProposalStatus.APPROVED], n[ProposalStatus.REJECTED], n[ProposalStatus.IN_REVIEW])
        for key, n in counts.items()
    ]
    ranked = [rank for rank in found if rank.approved + rank.rejected + rank.reviewing]
    return sorted(ranked, key=lambda rank: (-rank.approved - rank.rejected, str(rank.verifier)))
