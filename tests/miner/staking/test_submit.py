"""Submission on a real journal: whatever interrupts it, it is on chain once or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from chain.connection.opening import Connection
from chain.errors import ChainError, InsufficientFunds, InvalidData, TransactionFailed
from chain.money.client import Client
from chain.network.base import FEE_PER_SIGNATURE, Account, Simulation, TransactionReceipt
from chain.program import PROGRAM_ID
from chain.program.addresses import associated_token_account
from chain.program.errors import ZeroStake
from chain.program.instructions import Buy
from chain.wallet.wallet import ensure
from miner.journal.journal import Journal
from miner.staking import submit
from miner.staking.submit import Offer, anchored_score, reconcile
from tests import local
from tests.chain import live
from tests.chain.layout import encode_account
from trainer.machine.hardware import Fingerprint

MACHINE = Fingerprint("cpu", "test", 2, None, None, 1 << 30, "Linux", "0.32", "3.11.0")


class Killed(BaseException):
    """What a kill is to the code: it never returns."""


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with local.connect(local.home_with_project(tmp_path)) as connection:
        yield connection


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "work" / "session.jsonl")
    journal.append("session", seed=1, tag="t")
    yield journal
    journal.close()


def offer(connection: Connection, number: int = 1) -> Offer:
    code = local.archive(b"LR = 0.%d\n" % number)
    return Offer(number, code, b"---\nval_bpb: 2.4\n", 2_600_000, local.STAKE, local.miner_of(connection).pubkey())


def make(connection: Connection, journal: Journal, what: Offer) -> int:
    project = connection.client.project(0)
    return submit.submit(
        connection,
        local.miner_of(connection),
        project,
        what,
        journal,
        machine=MACHINE,
        data_snapshot=local.DATA_SNAPSHOT,
        say=lambda _: None,
    )


def settle(connection: Connection, journal: Journal) -> int | None:
    """Reconcile; the proposal's id."""
    client = connection.client
    found = reconcile(client, local.miner_of(connection).pubkey(), client.project(0), journal)
    return found.id if found else None


def reopened(journal: Journal) -> Journal:
    """As the next process sees it."""
    journal.close()
    again = Journal(journal.path)
    assert again.session == journal.session
    return again


def test_the_whole_way(connection: Connection, journal: Journal) -> None:
    what = offer(connection)
    assert make(connection, journal, what) == 0
    proposal = connection.client.proposal(0)
    assert (proposal.miner, proposal.stake) == (local.miner_of(connection).pubkey(), local.STAKE)
    assert (proposal.code_hash, proposal.benchmark_log_hash) == (what.code_hash, what.log_hash)
    assert proposal.claimed_aggregate_score == 2_600_000
    fetched = connection.fetch(proposal.code_irys_id, proposal.code_hash, proposal.miner, "code")
    assert fetched == what.code
    log = connection.irys.fetch_verified(
        proposal.benchmark_log_irys_id, sha256=proposal.benchmark_log_hash, owner=bytes(proposal.miner), max_bytes=1000
    )
    assert dict(log.tags)["Hardware-Class"] == MACHINE.hardware_class
    assert dict(log.tags)["Data-Snapshot"] == local.DATA_SNAPSHOT
    session = reopened(journal).session
    assert session.pending is None
    assert [s.proposal for s in session.submissions] == [0]


def test_the_stake_is_bought_to_the_token(connection: Connection, journal: Journal) -> None:
    make(connection, journal, offer(connection, 1))
    project = connection.client.project(0)
    assert connection.client.tokens(project, local.miner_of(connection).pubkey()) == 0
    assert connection.client.supply(project) == local.STAKE
    make(connection, journal, offer(connection, 2))
    assert connection.client.supply(project) == 2 * local.STAKE
    assert connection.client.tokens(project, local.miner_of(connection).pubkey()) == 0


def test_tokens_at_hand_are_staked_first(connection: Connection, journal: Journal) -> None:
    project, miner = connection.client.project(0), local.miner_of(connection)
    connection.client.call(Buy(project.id, local.cost(0, 3)), miner)
    make(connection, journal, offer(connection))
    assert connection.client.supply(project) == local.STAKE


def test_without_the_means_nothing_is_sent(connection: Connection, journal: Journal) -> None:
    poor = ensure(connection.home, "poor")
    connection.network.airdrop(poor.pubkey(), 1_000_000)
    project = connection.client.project(0)
    with pytest.raises(InsufficientFunds, match="need 1000000 more TST") as refusal:
        submit.ensure_stake(connection.client, poor, project, 1_000_000, journal, lambda _: None)
    assert str(poor.pubkey()) in refusal.value.problem
    assert connection.client.supply(project) == 0


def test_what_the_program_refuses_is_not_sent(connection: Connection, journal: Journal) -> None:
    client, network = local.watched(connection)
    with pytest.raises(ZeroStake):
        make(connection, journal, replace(offer(connection), stake=0))
    assert client.proposals(0) == []
    assert "send" not in network.calls
    assert journal.session.pending is not None
    assert not journal.session.pending.signature
    assert settle(connection, reopened(journal)) is None


def test_killed_before_it_was_signed_it_is_abandoned(connection: Connection, journal: Journal) -> None:
    """An intent whose transaction never existed: given up, and free to be made again."""
    journal.append("intent", number=1, code_hash=offer(connection).code_hash.hex(), log_hash="00")
    again = reopened(journal)
    assert again.session.pending is not None
    assert settle(connection, again) is None
    assert again.session.pending is None
    assert again.session.submissions[0].abandoned
    assert make(connection, again, offer(connection)) == 0
    assert settle(connection, reopened(again)) is None


def killed_at(connection: Connection, journal: Journal, name: str, skip: int) -> None:
    """Submit, and be killed before the n-th call of that name."""
    count = 0

    def strike() -> None:
        nonlocal count
        if count < skip:
            count += 1
            network._before[name] = strike
            return
        raise Killed

    _, network = local.watched(connection, **{name: strike})
    with pytest.raises(Killed):
        make(connection, journal, offer(connection))
    local.watched(connection)


@pytest.mark.parametrize(
    ("name", "skip", "signed", "landed"),
    [
        ("send", 0, False, False),  # before the purchase
        ("simulate", 1, False, False),  # after the purchase
        ("send", 1, True, False),  # on record, never sent
        ("confirm", 1, True, True),  # sent, its end not known
    ],
)
def test_killed_at_any_point_it_is_there_once(
    connection: Connection, journal: Journal, name: str, skip: int, signed: bool, landed: bool
) -> None:
    killed_at(connection, journal, name, skip)
    again = reopened(journal)
    assert again.session.pending is not None
    assert bool(again.session.pending.signature) == signed
    assert settle(connection, again) == (0 if landed else None)
    assert again.session.pending is None
    assert again.session.submissions[0].abandoned is not landed
    # what the session then does: make again only what was given up
    if not landed:
        assert make(connection, again, offer(connection)) == 0
    assert settle(connection, reopened(again)) is None
    assert [p.id for p in connection.client.proposals(0)] == [0]
    assert connection.client.supply(connection.client.project(0)) == local.STAKE


def test_a_purchase_under_way_is_waited_for(connection: Connection, journal: Journal) -> None:
    """Killed between sending the purchase and its landing: it lands, and nothing is bought again."""
    held: list[VersionedTransaction] = []

    def lose(tx: VersionedTransaction) -> Signature:
        held.append(tx)
        raise Killed

    _, network = local.watched(connection)
    network.send = lose  # type: ignore[method-assign]
    with pytest.raises(Killed):
        make(connection, journal, offer(connection))
    again = reopened(journal)
    assert again.session.purchase is not None
    # by the time that the next process asks, the network has taken it in
    _, network = local.watched(connection, confirm=lambda: local.embedded_of(connection).send(held[0]))
    assert make(connection, again, offer(connection)) == 0
    project = connection.client.project(0)
    assert connection.client.supply(project) == local.STAKE
    session = reopened(again).session
    assert session.purchase is None
    assert session.staked == local.STAKE
    assert session.spent == local.cost(0, local.STAKE) + _fees_and_rent(connection)


def _fees_and_rent(connection: Connection) -> int:
    """What the miner paid beside the price: two fees, its token account, the proposal and its escrow."""
    chain, pdas = local.embedded_of(connection), connection.client.pdas
    project, miner = connection.client.project(0), local.miner_of(connection).pubkey()
    made = (associated_token_account(miner, project.mint), pdas.proposal(0), pdas.proposal_escrow(0))
    return 2 * FEE_PER_SIGNATURE + sum(chain.balance(key) for key in made)


def test_a_signature_that_is_known_dead_is_abandoned(connection: Connection, journal: Journal) -> None:
    journal.append("intent", number=1, code_hash="aa" * 32, log_hash="bb" * 32)
    journal.append("sent", signature=str(Signature.new_unique()), last_valid=10)
    assert settle(connection, reopened(journal)) is None
    assert connection.client.proposals(0) == []


def test_sent_by_a_lost_signature_it_is_found_by_its_hash(connection: Connection, journal: Journal) -> None:
    """The intent is there, the signature is not: the chain still tells."""
    local.propose(connection, code=local.archive(b"other = 1\n"))
    mine = local.propose(connection, code=offer(connection).code)
    local.propose(connection, code=offer(connection).code, miner=local.stranger(connection))
    journal.append("intent", number=1, code_hash=offer(connection).code_hash.hex(), log_hash="00")
    again = reopened(journal)
    assert settle(connection, again) == mine.id == 1
    assert again.session.submissions[0].proposal == 1


def test_nothing_pending_asks_nothing(connection: Connection, journal: Journal) -> None:
    _, network = local.watched(connection)
    assert (
        reconcile(connection.client, local.miner_of(connection).pubkey(), connection.client.project(0), journal) is None
    )
    assert network.calls == []


@pytest.mark.parametrize(
    ("delta", "metric", "score"),
    [
        (0.1, "2.400000", 2_600_000),
        (0.0, "2.500000", 2_500_000),
        (-0.25, "2.750000", 2_250_000),
        (1e-06, "2.499999", 2_500_001),
        (0.30000000000000004, "2.1999999999999999600", 2_800_000),
    ],
)
def test_a_claim_is_the_chains_best_moved_by_the_gain(
    connection: Connection, delta: float, metric: str, score: int
) -> None:
    project = connection.client.project(0)
    assert anchored_score(project, local.convention(project), delta) == (Decimal(metric), score)


# --- a node that forgets, and one that lies ---


class Forgetful(local.Watched):
    """A node that was restarted without its history: it knows of no transaction, only of the state."""

    def confirm(self, signature: Signature, last_valid_block_height: int, **how: object) -> TransactionReceipt:
        raise TransactionFailed(f"The transaction {signature} did not land; it never will.")

    def transaction(self, signature: Signature) -> None:
        return None


def plenty(connection: Connection) -> None:
    """Tokens for many stakes, so that only the client keeps a second one from being staked."""
    connection.client.call(Buy(0, local.cost(0, 5 * local.STAKE)), local.miner_of(connection))


def staked(connection: Connection) -> list[tuple[int, int]]:
    client = Client(local.embedded_of(connection))
    return [(proposal.id, proposal.stake) for proposal in client.proposals(0)]


def test_a_stake_that_landed_is_not_staked_again(connection: Connection, journal: Journal) -> None:
    """The node says that it never landed, and the next id is taken: by that very stake."""
    plenty(connection)
    connection.client = Client(Forgetful(connection.network))
    assert make(connection, journal, offer(connection)) == 0
    assert staked(connection) == [(0, local.STAKE)]
    assert [s.proposal for s in reopened(journal).session.submissions] == [0]


def test_no_two_tries_of_one_stake_can_land(connection: Connection, journal: Journal) -> None:
    """Not even where the state is hidden as well: the second try fails on chain, for the tokens are fewer."""
    plenty(connection)
    embedded = local.embedded_of(connection)

    class Hiding(Forgetful):
        def account(self, key: Pubkey) -> Account | None:
            return None if key == connection.client.pdas.proposal(0) else embedded.account(key)

        def accounts(self, keys: Sequence[Pubkey]) -> list[Account | None]:
            return [self.account(key) for key in keys]

        def program_accounts(self, *what: object, **how: object) -> list[tuple[Pubkey, Account]]:
            return []

        def simulate(self, tx: VersionedTransaction, *, watch: Sequence[Pubkey] = ()) -> Simulation:
            return replace(embedded.simulate(tx, watch=watch), error=None, program_error=None)

        def send(self, tx: VersionedTransaction) -> Signature:
            return embedded.submit(tx, preflight=False)

    connection.client = Client(Hiding(embedded))
    with pytest.raises(ChainError):
        make(connection, journal, offer(connection))
    assert staked(connection) == [(0, local.STAKE)]
    assert len({line for line in journal.path.read_text().splitlines() if '"sent"' in line}) > 1


def test_killed_after_the_stake_and_restarted_before_a_node_without_its_history(
    connection: Connection, journal: Journal
) -> None:
    plenty(connection)
    embedded = local.embedded_of(connection)

    class Killing(local.Watched):
        def send(self, tx: VersionedTransaction) -> Signature:
            super().send(tx)
            raise Killed

    connection.client = Client(Killing(embedded))
    with pytest.raises(Killed):
        make(connection, journal, offer(connection))
    connection.client = Client(Forgetful(embedded))
    journal = reopened(journal)
    assert settle(connection, journal) == 0
    assert journal.session.pending is None
    assert staked(connection) == [(0, local.STAKE)]


def test_an_older_proposal_of_the_same_code_is_not_taken_for_this_one(connection: Connection, journal: Journal) -> None:
    make(connection, journal, offer(connection))
    what = offer(connection)
    journal.append("intent", number=2, code_hash=what.code_hash.hex(), log_hash=what.log_hash.hex())
    assert settle(connection, journal) is None
    assert make(connection, journal, offer(connection)) == 1


def test_a_proposal_that_cannot_be_read_stops_no_reconciliation_but_its_own(
    connection: Connection, journal: Journal
) -> None:
    mine = local.propose(connection, code=offer(connection).code)
    other = local.propose(connection, code=b"of somebody else")
    home, broken = connection.home, 352  # the status
    what = offer(connection)
    journal.append("intent", number=1, code_hash=what.code_hash.hex(), log_hash=what.log_hash.hex())
    for proposal, found in ((other, mine.id), (mine, None)):
        data = bytearray(encode_account(proposal))
        data[broken] = 9
        live.put(home, (live.PDAS.proposal(proposal.id), bytes(data), PROGRAM_ID))
        if found is not None:
            session = Journal(home / "work" / "copy.jsonl")
            session.append("session", seed=1, tag="t")
            session.append("intent", number=1, code_hash=what.code_hash.hex(), log_hash=what.log_hash.hex())
            assert settle(connection, session) == found
            session.close()
    with pytest.raises(InvalidData, match="cannot be read"):
        settle(connection, journal)
    assert journal.session.pending is not None
    assert connection.client.proposals(0) == []
    assert {entry.address for entry in connection.client.unreadable.values()} == {
        live.PDAS.proposal(mine.id),
        live.PDAS.proposal(other.id),
    }


def test_the_fee_of_a_try_that_lost_the_race_for_its_id_is_counted(connection: Connection, journal: Journal) -> None:
    """It failed on chain, where only its fee was taken; the next try has the journal's line for signatures."""
    lost: list[Signature] = []

    class Racing(local.Watched):
        def send(self, tx: VersionedTransaction) -> Signature:
            if journal.session.pending and journal.session.pending.signature and not lost:
                lost.append(tx.signatures[0])
                direct = connection.client
                connection.client = Client(self._network)
                local.propose(connection, code=b"of somebody else", miner=local.stranger(connection))
                connection.client = direct
                raise TransactionFailed("It failed on chain.", "")
            return super().send(tx)

        def transaction(self, signature: Signature) -> TransactionReceipt | None:
            if signature in lost:
                return TransactionReceipt(signature, 1, None, 5_000, 5_000, "it failed", None, (), b"")
            return self._network.transaction(signature)

    connection.client = Client(Racing(connection.network))
    before = connection.network.balance(local.miner_of(connection).pubkey())
    assert make(connection, journal, offer(connection)) == 1
    assert len(lost) == 1
    after = connection.network.balance(local.miner_of(connection).pubkey())
    assert reopened(journal).session.spent == before - after + 5_000
