"""An event as `chain watch` prints it: amounts in the units of every other command."""

from __future__ import annotations

from typing import Any

import pytest
from solders.pubkey import Pubkey
from solders.signature import Signature

from chain.indexer.store import IndexedEvent
from chain.pages.events import line
from chain.program.events import (
    Bought,
    LedgerBurned,
    MinerRewardMinted,
    ProposalSubmitted,
    ReviewReleased,
    RewardClaimed,
    Sold,
    StakeSlashed,
)

WHO = Pubkey.default()


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Bought(0, WHO, 303_000, 1003), "buyer 1111…1111  spent 0.000303 SOL  tokens out 1,003 ABC"),
        (Sold(0, WHO, 3, 2_500_000_000), "seller 1111…1111  tokens in 3 ABC  out 2.5 SOL"),
        (LedgerBurned(0, 95), "amount 95 ABC"),
        (MinerRewardMinted(0, WHO, 190), "miner 1111…1111  amount 190 ABC"),
        (RewardClaimed(0, WHO, 1), "account 1111…1111  amount 1 ABC"),
        (StakeSlashed(7, WHO, 1, 2), "proposal 7  beneficiary 1111…1111  to verifier pool 1 ABC  burned 2 ABC"),
        (ReviewReleased(7), "proposal 7"),
        (
            ProposalSubmitted(7, 0, WHO, WHO, bytes(32), bytes(32), 3_000_000, 4),
            "proposal 7  miner 1111…1111  reward recipient 1111…1111  claimed 3,000,000  stake 4 ABC",
        ),
    ],
)
def test_amounts_are_in_sol_and_tokens(event: Any, words: str) -> None:
    indexed = IndexedEvent(0, Signature.default(), 0, 5, 0, True, event, "")
    assert line(indexed, "ABC").split(None, 3)[3] == words
