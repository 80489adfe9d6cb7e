"""What a submission is said to cost is what it then takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from solders.keypair import Keypair

from chain.errors import InsufficientFunds
from chain.network.base import FEE_PER_SIGNATURE
from chain.wallet.wallet import ensure
from miner.journal.journal import Journal
from miner.staking import submit
from miner.staking.cost import submission_cost
from tests import local
from tests.miner.staking.test_submit import MACHINE, offer


@pytest.mark.parametrize("foreign", [False, True], ids=["own wallet", "another recipient"])
def test_the_cost_is_what_leaves_the_wallet(tmp_path: Path, foreign: bool) -> None:
    with local.connect(local.home_with_project(tmp_path)) as connection:
        client, miner = connection.client, local.miner_of(connection)
        project, key = client.project(0), miner.pubkey()
        recipient = Keypair().pubkey() if foreign else key
        stake = client.tokens(project, key) + 3
        cost = submission_cost(client, key, project, stake=stake, recipient=recipient)
        before = client.network.balance(key)
        journal = Journal(tmp_path / "work" / "session.jsonl")
        submit.submit(
            connection,
            miner,
            project,
            replace(offer(connection), stake=stake, reward_recipient=recipient),
            journal,
            machine=MACHINE,
            data_snapshot=local.DATA_SNAPSHOT,
            say=lambda _: None,
        )
        journal.close()
        taken = before - client.network.balance(key)
        assert cost.total == taken
        assert cost.purchase == submit.price(project, client.supply(project) - 3, 3)
        # Proposal, escrow and token accounts, of which another recipient needs one too.
        assert cost.rent == sum(map(client.network.rent, [355, 165, 165] + [165] * foreign))
        assert cost.fees == 2 * FEE_PER_SIGNATURE


def test_a_wallet_that_cannot_pay_is_refused(tmp_path: Path) -> None:
    with local.connect(local.home_with_project(tmp_path)) as connection:
        poor = ensure(connection.home, "poor").pubkey()
        with pytest.raises(InsufficientFunds, match=str(poor)):
            submission_cost(connection.client, poor, connection.client.project(0), stake=1, recipient=poor)
