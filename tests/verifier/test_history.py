"""What a proposal's history tells, by the real program: who reviewed it before, and which copies there are."""

from __future__ import annotations

from pathlib import Path

import pytest
from solders.keypair import Keypair

from chain.connection.opening import AUTHORITY, Connection
from chain.program.instructions import AddVerifier, ClaimReview, ReleaseReview
from tests import local
from tests.chain.networks import pay
from verifier import history
from verifier.history import copies, other_looks, other_reviewers, submission_hash

pytestmark = pytest.mark.slow


def registered(connection: Connection) -> Keypair:
    key = local.stranger(connection)
    connection.client.call(AddVerifier(key.pubkey()), connection.wallet(None, AUTHORITY))
    return key


def test_other_verifiers_reviews_are_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = local.home_with_project(tmp_path)
    with local.connect(home) as connection:
        client, us = connection.client, local.verifier_of(connection)
        one, two = registered(connection), registered(connection)
        first = local.propose(connection)

        def review(key: Keypair) -> None:
            client.call(ClaimReview(first.id), key)
            client.call(ReleaseReview(first.id), key)

        def others(key: Keypair = us) -> set[str]:
            return {str(reviewer) for reviewer in other_reviewers(client, first, key.pubkey())}

        assert others() == set()
        review(us)  # our own record knows of it
        assert others() == set()
        review(one)
        review(one)  # a verifier goes on with its own runs
        assert others() == set()  # after our last review
        client.call(ClaimReview(first.id), us)
        assert others() == {str(one.pubkey())}
        client.call(ReleaseReview(first.id), us)
        review(two)  # after ours: no earlier look of our last review
        assert others() == {str(one.pubkey())}
        assert others(two) == {str(us.pubkey()), str(one.pubkey())}
        again = local.propose(connection)
        other = local.propose(connection, code=local.archive(local.TRAIN + b"# something else\n"))
        listed = client.proposals(0)
        assert copies(listed, again) == (first,)
        assert copies(listed, other) == ()
        assert other_looks(client, (first, again), us.pubkey()) == {first.id: 1, again.id: 0}
        monkeypatch.setattr(history, "MAX_READ", 3)
        assert others() == {str(two.pubkey())}  # only the newest are read


def test_a_strangers_earlier_transaction_is_no_submission(tmp_path: Path) -> None:
    """Anybody may name the next proposal's address before it is one: its first need not be the submission."""
    home = local.home_with_project(tmp_path)
    with local.connect(home) as connection:
        client, stranger = connection.client, local.stranger(connection)
        address = client.pdas.proposal(client.config().next_proposal_id)
        client.network.send(pay(stranger, address, 1_000_000, client.network.latest_blockhash().hash))
        proposal = local.propose(connection)
        oldest = client.network.signatures(address)[-1]
        receipts = [client.network.transaction(signature) for signature in client.network.signatures(address)]
        submitted = next(r for r in receipts if r and r.signature != oldest)
        assert submission_hash(client, proposal) == bytes(client.network.block_hash(submitted.slot) or b"")
