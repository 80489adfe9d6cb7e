"""The embedded network's file: what a transaction costs after many, and the newest blocks whoever wrote them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from solders.keypair import Keypair

from chain.network.embedded import EmbeddedNetwork
from chain.network.ledger import Ledger, LedgerBlock, block_after, block_at

KEY = Keypair().pubkey()


@pytest.fixture
def network(tmp_path: Path) -> Iterator[EmbeddedNetwork]:
    with closing(EmbeddedNetwork(tmp_path, now=lambda: 1_700_000_000.0)) as network:
        yield network


def test_a_transaction_costs_the_same_after_many(network: EmbeddedNetwork) -> None:
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    def cost(lamports: int) -> int:
        before = steps
        network.airdrop(KEY, lamports)
        return steps - before

    network._ledger._db.set_progress_handler(count, 10)  # once for so many steps of SQLite's machine
    costs = [cost(1_000_000 + number) for number in range(300)]
    assert min(costs[-20:]) < 1.2 * min(costs[10:30])


def _newest(ledger: Ledger, newest: LedgerBlock, count: int) -> list[LedgerBlock]:
    slots = range(newest.slot, max(-1, newest.slot - count), -1)
    return [block_after(ledger.block_under(slot), slot) for slot in slots]


def test_the_newest_blocks_are_those_of_the_file_whoever_wrote_them(tmp_path: Path) -> None:
    rng, now = random.Random(5), 1_700_000_000.0
    with (
        closing(EmbeddedNetwork(tmp_path, now=lambda: now)) as ours,
        closing(EmbeddedNetwork(tmp_path, now=lambda: now - 3)) as late,
    ):
        ledger = ours._ledger
        for number in range(120):
            now += rng.choice((0, 0, 0.5, 2, 8, 40))
            if (step := rng.random()) < 0.7:  # a clock that is late writes into slots that looked empty here
                (ours if rng.random() < 0.5 else late).airdrop(KEY, 1_000_000 + number)
            elif step < 0.8:
                with pytest.raises(RuntimeError), ours._writing():
                    raise RuntimeError
            newest = block_at(ledger.state().tip, int(now * 1000))
            assert ledger.newest_blocks(newest, 16) == _newest(ledger, newest, 16)
