"""The client against the real program on a real ledger: what is sent, when, and what a refusal becomes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from solders.keypair import Keypair
from solders.signature import Signature

from chain.connection.opening import AUTHORITY, Connection
from chain.errors import ChainError, InsufficientFunds, NotFound, TransactionFailed
from chain.money.client import Client
from chain.network.base import TransactionReceipt, TransactionRejected
from chain.network.embedded import EmbeddedNetwork
from chain.program.accounts import ProposalStatus
from chain.program.errors import (
    AlreadyRegistered,
    InsufficientPayment,
    LockActive,
    NotVerifier,
    ProgramError,
    Unauthorized,
    WrongReviewer,
    WrongStatus,
    ZeroStake,
)
from chain.program.events import Bought, ProjectCreated, ProposalSubmitted, Sold, VerifierAdded
from chain.program.instructions import AddVerifier, Buy, ClaimReview, Reject, ReleaseReview, RemoveVerifier, Sell
from tests import local
from tests.chain.svm import digest, project_args


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with local.connect(local.home_with_project(tmp_path)) as connection:
        yield connection


def submit(client: Client, miner: Keypair, stake: int = 2, **more: object) -> ProposalSubmitted:
    """A proposal whose artifacts are only hashes."""
    project = client.project(0)
    if stake:
        client.call(Buy(project.id, local.cost(client.supply(project), stake)), miner)
    done = client.submit(
        miner,
        project,
        code=(digest("code"), digest("code id")),
        log=(digest("log"), digest("log id")),
        claimed_score=2_600_000,
        stake=stake,
        reward_recipient=miner.pubkey(),
        **more,  # type: ignore[arg-type]
    )
    return done.event(ProposalSubmitted)


# --- reading ---


def test_what_is_not_there_says_so(connection: Connection, tmp_path: Path) -> None:
    client = connection.client
    for missing in (lambda: client.project(7), lambda: client.proposal(7)):
        with pytest.raises(NotFound, match=r"There is no pro\w+ 7") as refusal:
            missing()
        assert "embedded" in refusal.value.cure
    with pytest.raises(NotFound, match="not exist"):
        client.supply(replace(client.project(0), id=7))
    assert client.proposals(0) == []
    assert client.proposals(2**64 - 1) == []
    assert client.tokens(client.project(0), Keypair().pubkey()) == 0
    assert client.claimable(0, Keypair().pubkey()) == 0
    assert not client.is_verifier(Keypair().pubkey())
    empty = EmbeddedNetwork(tmp_path / "empty")
    with pytest.raises(NotFound, match="not initialized"):
        Client(empty).config()
    empty.close()


def test_projects_and_proposals_come_by_id(connection: Connection) -> None:
    client, authority = connection.client, connection.wallet(None, AUTHORITY)
    for _ in range(2):
        client.create_project(authority, project_args())
    assert [project.id for project in client.projects()] == [0, 1, 2]
    miner = local.miner_of(connection)
    assert [submit(client, miner).id for _ in range(3)] == [0, 1, 2]
    assert [proposal.id for proposal in client.proposals(0)] == [0, 1, 2]
    assert client.proposals(1) == []


# --- sending ---


def test_what_fails_in_simulation_is_neither_signed_nor_sent(connection: Connection) -> None:
    client, network = local.watched(connection)
    miner, before = local.miner_of(connection), connection.network.balance(local.miner_of(connection).pubkey())
    recorded: list[Signature] = []
    with pytest.raises(ZeroStake):
        submit(client, miner, 0, before_send=lambda signature, _: recorded.append(signature))
    assert network.calls == ["simulate"]
    assert network.simulated[0].signatures == [Signature.default()]
    assert recorded == []
    assert connection.network.balance(miner.pubkey()) == before


def test_the_record_comes_before_the_sending(connection: Connection) -> None:
    client, network = local.watched(connection)
    seen: list[tuple[Signature, int]] = []

    def record(signature: Signature, last_valid: int) -> None:
        assert network.calls[-1] == "simulate"
        assert connection.network.transaction(signature) is None
        seen.append((signature, last_valid))

    submit(client, local.miner_of(connection), before_send=record)
    assert network.calls[-2:] == ["send", "confirm"]
    ((signature, last_valid),) = seen
    receipt = connection.network.transaction(signature)
    assert isinstance(receipt, TransactionReceipt)
    assert last_valid >= local.embedded_of(connection).block_height()
    done = client.outcome(signature, last_valid)
    assert done is not None
    assert done.event(ProposalSubmitted).id == 0
    assert client.outcome(Signature.new_unique(), last_valid) is None


def test_a_record_that_cannot_be_made_stops_it(connection: Connection) -> None:
    client, network = local.watched(connection)

    def full(signature: Signature, last_valid: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        submit(client, local.miner_of(connection), before_send=full)
    assert network.calls[-1] == "simulate"
    assert client.proposals(0) == []


@pytest.mark.parametrize("moment", ["simulate", "send"])
def test_two_miners_after_the_same_id_get_one_each(connection: Connection, moment: str) -> None:
    """Somebody takes the next id after it was read: before our simulation, or between that and our sending."""
    rival, other = local.stranger(connection), Client(connection.network)
    project = connection.client.project(0)
    for key in (rival, local.miner_of(connection)):
        other.call(Buy(project.id, local.cost(other.supply(project), 2)), key)
    taken: list[int] = []

    def rush() -> None:
        taken.append(_stake(other, rival, 2))

    client, network = local.watched(connection, **{moment: rush})
    signatures: list[Signature] = []
    mine = _stake(client, local.miner_of(connection), 2, lambda signature, _: signatures.append(signature))
    assert (taken, mine) == ([0], 1)
    assert [(p.id, p.miner) for p in client.proposals(0)] == [
        (0, rival.pubkey()),
        (1, local.miner_of(connection).pubkey()),
    ]
    # the last recorded signature is the one that landed, any before it never did
    assert [client.outcome(signature, 0) is not None for signature in signatures] == [False] * (moment == "send") + [
        True
    ]
    assert network.calls.count("send") == len(signatures)


def _stake(client: Client, miner: Keypair, stake: int, before_send: object = None) -> int:
    done = client.submit(
        miner,
        client.project(0),
        code=(digest("code"), digest("code id")),
        log=(digest("log"), digest("log id")),
        claimed_score=2_600_000,
        stake=stake,
        reward_recipient=miner.pubkey(),
        before_send=before_send,  # type: ignore[arg-type]
    )
    return done.event(ProposalSubmitted).id


def test_a_race_that_is_always_lost_ends(connection: Connection) -> None:
    authority, other = connection.wallet(None, AUTHORITY), Client(connection.network)
    creator = local.stranger(connection)

    def rush() -> None:
        other.create_project(authority, project_args())
        network._before["simulate"] = rush

    client, network = local.watched(connection, simulate=rush)
    with pytest.raises(ChainError, match="took the next ID"):
        client.create_project(creator, project_args())
    assert "send" not in network.calls
    assert len(client.projects()) == 6


def test_a_refusal_is_not_taken_for_a_race(connection: Connection) -> None:
    client, network = local.watched(connection)
    with pytest.raises(ZeroStake):
        submit(client, local.miner_of(connection), 0)
    assert network.calls.count("simulate") == 1


def test_an_error_on_chain_is_typed_as_in_simulation(connection: Connection) -> None:
    """The state changes between simulation and sending: the ledger's refusal is the program's own error."""
    proposal, verifier = local.propose(connection), local.verifier_of(connection)
    second = local.stranger(connection)
    other = Client(connection.network)
    other.call(AddVerifier(second.pubkey()), connection.wallet(None, AUTHORITY))
    client, _ = local.watched(connection, send=lambda: other.call(ClaimReview(proposal.id), second))
    with pytest.raises(LockActive) as refusal:
        client.call(ClaimReview(proposal.id), verifier)
    assert isinstance(refusal.value.__cause__, TransactionRejected)
    assert client.proposal(0).reviewer == second.pubkey()


def test_program_errors_are_typed(connection: Connection) -> None:
    client, verifier, miner = connection.client, local.verifier_of(connection), local.miner_of(connection)
    authority, metrics = connection.wallet(None, AUTHORITY), (digest("m"), digest("m id"))
    proposal, project = local.propose(connection), client.project(0)
    with pytest.raises(AlreadyRegistered):
        client.call(AddVerifier(verifier.pubkey()), authority)
    with pytest.raises(Unauthorized):
        client.call(AddVerifier(Keypair().pubkey()), miner)
    with pytest.raises(NotVerifier):
        client.call(ClaimReview(proposal.id), miner)
    with pytest.raises(WrongStatus):
        client.call(Reject(proposal.id, *metrics), verifier, project_id=proposal.project_id)
    client.call(ClaimReview(proposal.id), verifier)
    second = local.stranger(connection)
    assert client.call(AddVerifier(second.pubkey()), authority).event(VerifierAdded).verifier == second.pubkey()
    with pytest.raises(WrongReviewer):
        client.call(Reject(proposal.id, *metrics), second, project_id=proposal.project_id)
    with pytest.raises(LockActive):
        client.call(ReleaseReview(proposal.id), miner)
    client.call(RemoveVerifier(second.pubkey()), authority)
    with pytest.raises(ProgramError) as refusal:
        client.call(Buy(project.id, 1), miner)
    assert type(refusal.value) is InsufficientPayment
    assert refusal.value.problem.endswith(".")
    assert refusal.value.cure
    client.call(Reject(0, *metrics), verifier, project_id=0)
    assert client.proposal(0).status is ProposalStatus.REJECTED


def test_who_cannot_pay(connection: Connection) -> None:
    client, project = connection.client, connection.client.project(0)
    nobody = Keypair()
    with pytest.raises(InsufficientFunds) as refusal:
        client.call(Buy(project.id, 10**6), nobody)
    assert str(nobody.pubkey()) in refusal.value.problem
    assert "airdrop" in refusal.value.cure
    poor = local.stranger(connection, 5_000_000)
    with pytest.raises(InsufficientFunds):
        client.call(Buy(project.id, 10**9), poor)
    miner = local.miner_of(connection)
    client.call(Buy(project.id, local.cost(0, 1)), miner)
    with pytest.raises(InsufficientFunds):
        _stake(client, miner, 50)
    assert client.proposals(0) == []


def test_a_landed_transaction_without_the_event(connection: Connection) -> None:
    done = connection.client.call(Buy(0, local.cost(0, 1)), local.miner_of(connection))
    with pytest.raises(TransactionFailed, match="without the event ProjectCreated"):
        done.event(ProjectCreated)


# --- tokens ---


def test_tokens_are_bought_and_sold_by_the_curve(connection: Connection) -> None:
    client, miner = connection.client, local.miner_of(connection)
    project = client.project(0)
    bought = client.call(Buy(project.id, local.cost(0, 7) + 3), miner).event(Bought)
    assert (bought.tokens_out, bought.lamports_spent) == (7, local.cost(0, 7))
    assert (client.supply(project), client.tokens(project, miner.pubkey())) == (7, 7)
    bought = client.call(Buy(project.id, local.cost(7, 5)), miner).event(Bought)
    assert (bought.tokens_out, bought.lamports_spent) == (5, local.cost(7, 5))
    sold = client.call(Sell(project.id, 5), miner).event(Sold)
    assert (sold.tokens_in, sold.lamports_out) == (5, local.cost(7, 5))
    assert (client.supply(project), client.tokens(project, miner.pubkey())) == (7, 7)
    with pytest.raises((ProgramError, InsufficientFunds)):
        client.call(Sell(project.id, 8), miner)


def test_a_stake_leaves_the_wallet_and_comes_back_with_the_reward(connection: Connection) -> None:
    client, verifier = connection.client, local.verifier_of(connection)
    proposal = local.propose(connection, stake=5)
    miner, project = proposal.miner, client.project(0)
    assert (client.tokens(project, miner), client.supply(project)) == (0, 5)
    client.call(ClaimReview(proposal.id), verifier)
    proposal = client.proposal(0)
    assert proposal.status is ProposalStatus.IN_REVIEW
    assert proposal.reviewer == verifier.pubkey()
    client.approve(verifier, proposal, project, verified_score=2_600_000, metrics=(digest("m"), digest("m id")))
    project = client.project(0)
    assert client.proposal(0).status is ProposalStatus.APPROVED
    assert (project.current_best_aggregate_score, project.current_best_code_hash) == (2_600_000, proposal.code_hash)
    assert project.miner_pool_minted > 0
    assert client.tokens(project, miner) == 5 + project.miner_pool_minted
    assert client.supply(project) == 5 + project.miner_pool_minted


def test_a_reward_goes_where_the_proposal_says(connection: Connection) -> None:
    """Its token account is made by the submission; one that was closed since is made again by the approval."""
    client, miner, to = connection.client, local.miner_of(connection), Keypair().pubkey()
    project = client.project(0)
    client.call(Buy(project.id, local.cost(0, 1)), miner)
    client.submit(
        miner,
        project,
        code=(digest("code"), digest("id")),
        log=(digest("log"), digest("id")),
        claimed_score=2_600_000,
        stake=1,
        reward_recipient=to,
    )
    proposal, verifier = client.proposal(0), local.verifier_of(connection)
    client.call(ClaimReview(proposal.id), verifier)
    client.approve(verifier, client.proposal(0), project, verified_score=2_600_000, metrics=(digest("m"), digest("i")))
    assert client.tokens(project, to) == client.project(0).miner_pool_minted > 0
    assert client.tokens(project, miner.pubkey()) == 1
