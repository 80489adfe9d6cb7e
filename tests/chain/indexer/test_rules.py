"""Following a project: events and state, after downtime, forks, and what cannot be read; on every kind of network."""

from __future__ import annotations

import base64
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.hash import Hash
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature

from chain.connection.opening import Connection
from chain.errors import ChainError, InvalidData, NetworkUnreachable, NotFound
from chain.indexer import rules
from chain.indexer.rules import Follower, index_path
from chain.indexer.store import Index, IndexedEvent, ProposalRow
from chain.indexer.watch import catch_up
from chain.localnet.server import serve
from chain.network import reading
from chain.network.base import HistoryEntry, Network, RpcError, TransactionReceipt
from chain.network.embedded import EmbeddedNetwork
from chain.network.rpc import RpcNetwork
from chain.program import PROGRAM_ID
from chain.program.accounts import ProposalStatus
from chain.program.events import (
    Bought,
    Event,
    LedgerBurned,
    ProposalRejected,
    ProposalSubmitted,
    ReviewClaimed,
    StakeSlashed,
    encode_event,
    parse_events,
    scan_events,
)
from chain.program.instructions import ClaimReview, Reject
from chain.projects.listing import proposals as listing_of
from tests import local
from tests.chain import live
from tests.chain.layout import encode_account

SETTLED = ["ReviewClaimed", "ProposalRejected", "StakeSlashed", "LedgerBurned"]
KEY = Pubkey.from_bytes(bytes([3]) * 32)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with local.connect(local.home_with_project(tmp_path / "home")) as connection:
        yield connection


@pytest.fixture(params=["embedded", "rpc"])
def network(request: pytest.FixtureRequest, connection: Connection) -> Iterator[Network]:
    embedded = local.embedded_of(connection)
    if request.param == "embedded":
        yield embedded
        return
    with serve(embedded, port=0).start() as node:
        rpc = RpcNetwork(node.url)
        yield rpc
        rpc.close()


def kinds(found: Sequence[IndexedEvent]) -> list[str]:
    return [type(event.event).__name__ for event in found]


def ask(network: Any, method: str, count: dict[str, int]) -> Any:
    """Count the calls of a method."""
    real = getattr(network, method)

    def counted(*args: Any, **kwargs: Any) -> Any:
        count[method] = count.get(method, 0) + 1
        return real(*args, **kwargs)

    return counted


def test_events_and_state(connection: Connection, network: Network, tmp_path: Path) -> None:
    client, verifier = connection.client, local.verifier_of(connection)
    with Follower(network, 0, tmp_path / "index.sqlite") as follower:
        assert follower.sync() == []  # what was before is history, not news
        proposal = local.propose(connection)
        found = follower.sync()
        assert kinds(found) == ["Bought", "ProposalSubmitted"]
        submitted = found[1]
        assert isinstance(submitted.event, ProposalSubmitted)
        assert (submitted.event.id, submitted.event.stake, submitted.final) == (0, local.STAKE, True)
        assert submitted.time is not None
        assert [p.id for p in follower.proposals(ProposalStatus.PENDING)] == [0]
        assert follower.proposals() == [client.proposal(0)]

        client.call(ClaimReview(proposal.id), verifier)
        client.call(Reject(proposal.id, *(bytes(32), bytes(32))), verifier, project_id=proposal.project_id)
        assert kinds(follower.sync()) == SETTLED
        assert [p.status for p in follower.proposals()] == [ProposalStatus.REJECTED]
        assert follower.proposals(ProposalStatus.PENDING, ProposalStatus.IN_REVIEW) == []
        assert follower.sync() == []
        assert follower.project == client.project(0)
        told = kinds(follower.events())
        assert {"ReviewClaimed", "ProposalRejected", "StakeSlashed"} <= set(told)


def test_history_is_read_afterwards_and_once(connection: Connection, network: Network, tmp_path: Path) -> None:
    local.propose(connection)
    with Follower(network, 0, tmp_path / "index.sqlite") as follower:
        assert follower.sync() == []
        assert [p.id for p in follower.proposals()] == [0]  # state needs no history
        assert not follower.backlog().done
        words: list[str] = []
        assert catch_up(follower, words.append) == []
        assert follower.backlog().done
        assert words
        history = kinds(follower.events())
        assert history[-2:] == ["Bought", "ProposalSubmitted"]
        assert "ProjectCreated" in history
        assert "VerifierAdded" in history  # concerns every project
        slots = [event.slot for event in follower.events()]
        assert slots == sorted(slots)
        recent = follower.events(since=follower.events()[-1].time)
        assert kinds(recent)[-1] == "ProposalSubmitted"
        assert follower.sync() == []
        catch_up(follower, words.append)
        assert kinds(follower.events()) == history  # idempotent


def test_downtime_leaves_no_gap_and_a_restart_asks_little(
    connection: Connection, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index.sqlite"
    with Follower(network, 0, path) as follower:
        catch_up(follower, lambda words: None)
    made = [local.propose(connection).id for _ in range(4)]
    count: dict[str, int] = {}
    for method in ("entries", "transaction", "program_accounts", "accounts"):
        monkeypatch.setattr(network, method, ask(network, method, count))
    with Follower(network, 0, path) as follower:
        found = follower.sync()
        assert [event.event.id for event in found if isinstance(event.event, ProposalSubmitted)] == made
        assert count == {"entries": 1, "transaction": 8, "accounts": 2}
        count.clear()
    with Follower(network, 0, path) as follower:
        assert follower.sync() == []
        assert count == {"entries": 1, "accounts": 2}
        count.clear()
        assert follower.sync() == []
        assert count == {"entries": 1, "accounts": 1}
        assert [p.id for p in follower.proposals()] == made


def test_a_long_downtime_is_read_in_bounded_steps(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = local.embedded_of(connection)
    with Follower(embedded, 0, tmp_path / "index.sqlite") as follower:
        catch_up(follower, lambda words: None)
        embedded.warp(120)  # what was listed is out of the window that is listed again
        made = [local.propose(connection).id for _ in range(5)]
        monkeypatch.setattr(rules, "PAGE", 3)
        found = follower.sync(transactions=2)
        assert follower.index.gaps()
        for _ in range(20):
            if follower.backlog().done:
                break
            follower.backfill(transactions=2)
            found += follower.sync(transactions=2)
        assert follower.backlog().done
        assert sorted(e.event.id for e in found if isinstance(e.event, ProposalSubmitted)) == made
        assert len({event.seq for event in found}) == len(found)
        told = [e.event.id for e in follower.events() if isinstance(e.event, ProposalSubmitted)]
        assert told == made  # and the index has them in the chain's order


def test_two_followers_share_a_file(connection: Connection, tmp_path: Path) -> None:
    embedded = local.embedded_of(connection)
    path = tmp_path / "index.sqlite"
    with Follower(embedded, 0, path) as one, Follower(embedded, 0, path) as two:
        one.sync(), two.sync()
        local.propose(connection)
        first, second = one.sync(), two.sync()
        assert kinds(first) == ["Bought", "ProposalSubmitted"]
        assert second == first  # whoever read it, each is told


def test_a_project_that_is_not_there(connection: Connection, tmp_path: Path) -> None:
    with (
        Follower(local.embedded_of(connection), 7, tmp_path / "i") as follower,
        pytest.raises(NotFound, match="project 7"),
    ):
        follower.sync()


def test_other_projects_events_are_left_out(connection: Connection, tmp_path: Path) -> None:
    embedded = local.embedded_of(connection)
    project = connection.client.project(0)
    live.put(connection.home, live.project_account(replace(project, id=5, mint=live.PDAS.mint(5))))
    local.propose(connection)
    with Follower(embedded, 5, tmp_path / "index.sqlite") as follower:
        catch_up(follower, lambda words: None)
        assert kinds(follower.events()) == ["VerifierAdded"]
        assert follower.proposals() == []


# --- a cluster that forks, lags and lies ---


class Cluster:
    """A network whose history a test writes: blocks of transactions, some final, some to vanish."""

    name, program_id, is_local = "cluster", PROGRAM_ID, False

    def __init__(self, embedded: EmbeddedNetwork) -> None:
        self._embedded = embedded
        self.chain: list[tuple[HistoryEntry, tuple[str, ...]]] = []  # oldest first
        self.final = 0
        self.withheld: set[Signature] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._embedded, name)

    def land(self, number: int, slot: int, *events: Any, failed: bool = False) -> Signature:
        """Append a transaction."""
        signature = Signature.from_bytes(number.to_bytes(8, "big") * 8)
        logs = logs_of(*events)
        self.chain.append((HistoryEntry(signature, slot, 1_700_000_000 + slot, failed, False), logs))
        return signature

    def fork(self, *gone: Signature) -> None:
        self.chain = [item for item in self.chain if item[0].signature not in gone]

    def entries(self, address: Pubkey, *, limit: int = 1000, before: Signature | None = None) -> list[HistoryEntry]:
        found = [replace(entry, final=entry.slot <= self.final) for entry, _ in reversed(self.chain)]
        if before is not None:
            place = [entry.signature for entry in found].index(before)
            found = found[place + 1 :]
        return found[:limit]

    def final_slot(self) -> int:
        return self.final

    def transaction(self, signature: Signature) -> TransactionReceipt | None:
        for entry, logs in self.chain:
            if entry.signature == signature and signature not in self.withheld:
                error = "it failed" if entry.failed else None
                return TransactionReceipt(signature, entry.slot, entry.block_time, 5000, 5000, error, None, logs, b"")
        return None


def logs_of(*events: Any) -> tuple[str, ...]:
    """What the program logs; text is logged as it is."""
    lines = [
        event if isinstance(event, str) else f"Program data: {base64.b64encode(encode_event(event)).decode()}"
        for event in events
    ]
    return (f"Program {PROGRAM_ID} invoke [1]", *lines, f"Program {PROGRAM_ID} success")


@pytest.fixture
def cluster(connection: Connection) -> Cluster:
    return Cluster(local.embedded_of(connection))


@pytest.fixture
def follower(cluster: Cluster, tmp_path: Path) -> Iterator[Follower]:
    cluster.land(1, 10, Bought(0, KEY, 1, 1))
    cluster.final = 10
    with Follower(cluster, 0, tmp_path / "index.sqlite") as follower:
        catch_up(follower, lambda words: None)
        yield follower


def buys(found: Sequence[IndexedEvent]) -> list[tuple[int, bool]]:
    return [(e.event.tokens_out, e.removed) for e in found if isinstance(e.event, Bought)]


def test_what_vanishes_is_taken_out_once_its_slot_is_final(cluster: Cluster, follower: Follower) -> None:
    lost = cluster.land(2, 20, Bought(0, KEY, 1, 2))
    cluster.land(3, 21, Bought(0, KEY, 1, 3))
    assert buys(follower.sync()) == [(2, False), (3, False)]
    assert [event.final for event in follower.events()] == [True, False, False]
    cluster.fork(lost)
    assert follower.sync() == []  # the slot is not final: the node may only lag
    assert len(follower.events()) == 3
    cluster.final = 30
    assert buys(follower.sync()) == [(2, True)]
    assert buys(follower.events()) == [(1, False), (3, False)]
    assert all(event.final for event in follower.events())
    assert follower.sync() == []


def test_what_lands_again_elsewhere_stays(cluster: Cluster, follower: Follower) -> None:
    moved = cluster.land(2, 20, Bought(0, KEY, 1, 2))
    follower.sync()
    cluster.fork(moved)
    cluster.land(2, 25, Bought(0, KEY, 1, 2))
    cluster.final = 30
    assert follower.sync() == []
    assert [(event.slot, event.final) for event in follower.events()] == [(10, True), (25, True)]


def test_what_lands_again_with_another_outcome_is_told_anew(cluster: Cluster, follower: Follower) -> None:
    moved = cluster.land(2, 20, Bought(0, KEY, 1, 2))
    follower.sync()
    cluster.fork(moved)
    cluster.land(2, 25, Bought(0, KEY, 1, 99))
    cluster.final = 30
    assert buys(follower.sync()) == [(2, True), (99, False)]
    cluster.final = 40


def test_what_was_heard_and_is_listed_as_failed_is_taken_out(cluster: Cluster, follower: Follower) -> None:
    signature = cluster.land(2, 20, Bought(0, KEY, 1, 2), failed=True)
    assert buys(follower.heard(signature, 20, failed=False, logs=logs_of(Bought(0, KEY, 1, 2)))) == [(2, False)]
    assert buys(follower.sync()) == [(2, True)]
    assert buys(follower.events()) == [(1, False)]


def test_a_subscription_and_the_listing_tell_a_thing_once(cluster: Cluster, follower: Follower) -> None:
    logs = logs_of(Bought(0, KEY, 1, 2))
    signature = cluster.land(2, 20, Bought(0, KEY, 1, 2))
    (first,) = follower.heard(signature, 20, failed=False, logs=logs)
    assert (first.time, first.final) == (None, False)
    assert follower.heard(signature, 20, failed=False, logs=logs) == []
    cluster.final = 20
    assert follower.sync() == []
    (_, last) = follower.events()
    assert (last.time, last.final) == (1_700_000_020, True)


def test_a_made_up_notification_does_not_stay(cluster: Cluster, follower: Follower) -> None:
    made_up = Signature.from_bytes(bytes([9]) * 64)
    assert len(follower.heard(made_up, 3, failed=False, logs=logs_of(Bought(0, KEY, 1, 66)))) == 1
    cluster.final = 30
    assert buys(follower.sync()) == [(66, True)]
    assert buys(follower.events()) == [(1, False)]


def test_a_transaction_that_a_lagging_node_lists_and_does_not_give(cluster: Cluster, follower: Follower) -> None:
    late = cluster.land(2, 20, Bought(0, KEY, 1, 2))
    cluster.land(3, 21, Bought(0, KEY, 1, 3))
    cluster.withheld = {late}
    assert buys(follower.sync()) == [(3, False)]
    with pytest.raises(ChainError, match="does not return"):
        catch_up(follower, lambda words: None)
    cluster.withheld = set()
    assert buys(follower.sync()) == [(2, False)]
    assert buys(follower.events()) == [(1, False), (2, False), (3, False)]


def test_a_failed_transaction_has_no_events(cluster: Cluster, follower: Follower) -> None:
    cluster.land(2, 20, Bought(0, KEY, 1, 2), failed=True)
    assert follower.sync() == []
    assert follower.backlog().done


def test_malformed_events_are_told_of_and_stop_nothing(cluster: Cluster, follower: Follower) -> None:
    short = base64.b64encode(encode_event(Bought(0, KEY, 1, 9))[:-1]).decode()
    cluster.land(2, 20, f"Program data: {short}", "Program data: ?!", "Program data: AAAA", Bought(0, KEY, 1, 2))
    found = follower.sync()
    assert [event.event is None for event in found] == [True, True, False]
    assert "ends at byte" in found[0].problem
    assert "base64" in found[1].problem
    assert follower.sync() == []


def test_a_network_that_falls_silent_loses_nothing(
    cluster: Cluster, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2, 6):
        cluster.land(number, 20 + number, Bought(0, KEY, 1, number))
    real, calls = cluster.transaction, iter(range(100))

    def flaky(signature: Signature) -> TransactionReceipt | None:
        if next(calls) == 2:
            raise NetworkUnreachable("It does not answer.")
        return real(signature)

    monkeypatch.setattr(cluster, "transaction", flaky, raising=False)
    with pytest.raises(NetworkUnreachable):
        follower.sync()
    assert buys(follower.sync()) == [(n, False) for n in range(2, 6)]


# --- state ---


def test_a_lagging_node_gives_the_newest_proposal_later(connection: Connection, tmp_path: Path) -> None:
    embedded = local.embedded_of(connection)
    hidden = live.PDAS.proposal(0)

    class Lagging:
        on = True

        def __getattr__(self, name: str) -> Any:
            return getattr(embedded, name)

        def accounts(self, keys: Sequence[Pubkey]) -> Any:
            found = embedded.accounts(keys)
            return [None if self.on and key == hidden else account for key, account in zip(keys, found, strict=True)]

    network: Any = Lagging()
    with Follower(network, 0, tmp_path / "index.sqlite") as follower:
        follower.refresh()
        local.propose(connection)
        follower.refresh()
        assert follower.proposals() == []
        network.on = False
        follower.refresh()
        assert [p.id for p in follower.proposals()] == [0]


def test_malformed_proposals_are_set_aside(connection: Connection, tmp_path: Path) -> None:
    proposal = local.propose(connection)
    good = encode_account(proposal)
    live.put(connection.home, (live.PDAS.proposal(1), good[:8] + (1).to_bytes(8, "little") + good[16:-9], PROGRAM_ID))
    with Follower(local.embedded_of(connection), 0, tmp_path / "index.sqlite") as follower:
        follower.refresh()
        assert [p.id for p in follower.proposals()] == [0]
        assert follower.index.malformed(0) == [live.PDAS.proposal(1)]


@pytest.mark.parametrize(
    "lie",
    [{"project_id": 2**63 - 1}, {"status": ProposalStatus.APPROVED}, {"status": ProposalStatus.EXPIRED}, None],
    ids=str,
)
def test_what_a_node_once_told_wrongly_is_not_believed_for_ever(
    lie: dict[str, Any] | None, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proposal that was said to be another project's, settled or unreadable was never looked at again."""
    embedded, path = local.embedded_of(connection), tmp_path / "index.sqlite"
    with Follower(embedded, 0, path) as follower:
        follower.refresh()
    proposal = local.propose(connection)
    good = live.proposal_account(proposal)
    data = good[1][:-9] if lie is None else encode_account(replace(proposal, **lie))
    live.put(connection.home, (good[0], data, PROGRAM_ID))
    with Follower(embedded, 0, path) as follower:
        follower.refresh()
        assert follower.proposals(ProposalStatus.PENDING) == []
    embedded.warp(10 * rules.RECHECK_SLOTS)
    live.put(connection.home, good)
    monkeypatch.setattr(rules, "AGAIN", 2)
    with Follower(embedded, 0, path) as follower:
        follower.refresh()
        assert follower.proposals(ProposalStatus.PENDING) == [proposal]
        live.put(connection.home, (good[0], data, PROGRAM_ID))
        follower.refresh()
        follower.refresh()  # the lie, by a step that reads all anew
        live.put(connection.home, good)
        follower.refresh()
        follower.refresh()
        assert follower.proposals(ProposalStatus.PENDING) == [proposal]


def put_proposals(connection: Connection, count: int, *, given: int | None = None) -> None:
    """Proposals 0 to `count` of project 0, open, as if the program had given out `given` ids."""
    config = replace(connection.client.config(), next_proposal_id=count if given is None else given)
    accounts = [live.proposal_account(live.proposal(number)) for number in range(count)]
    live.put(connection.home, (live.PDAS.config(), encode_account(config), PROGRAM_ID), *accounts)


def test_of_many_open_proposals_only_those_that_settled_are_read_one_by_one(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = local.embedded_of(connection)
    monkeypatch.setattr(rules, "MAX_CHANGEABLE", 3)
    put_proposals(connection, 8)
    count: dict[str, int] = {}
    asked: list[Pubkey] = []
    accounts = embedded.accounts
    monkeypatch.setattr(embedded, "program_accounts", ask(embedded, "program_accounts", count))

    def noted(keys: Sequence[Pubkey]) -> Any:
        asked.extend(keys)
        return accounts(keys)

    monkeypatch.setattr(embedded, "accounts", noted)
    monkeypatch.setattr(rules, "RECENT", 0)
    with Follower(embedded, 0, tmp_path / "index.sqlite") as follower:
        follower.refresh()
        assert count == {"program_accounts": 1}
        live.put(connection.home, live.proposal_account(live.proposal(2, ProposalStatus.EXPIRED)))
        live.put(connection.home, live.proposal_account(live.proposal(3, ProposalStatus.IN_REVIEW)))
        asked.clear()
        follower.refresh()
        assert count == {"program_accounts": 3}  # pending, in review
        assert asked == [live.PDAS.config(), live.PDAS.project(0), live.PDAS.proposal(2)]
        assert [p.id for p in follower.proposals(ProposalStatus.EXPIRED)] == [2]
        assert [p.id for p in follower.proposals(ProposalStatus.IN_REVIEW)] == [3]
        assert len(follower.proposals()) == 8
        put_proposals(connection, 9)
        follower.refresh()
        assert [p.id for p in follower.proposals()] == list(range(9))


@pytest.mark.parametrize("refused", [False, True])
def test_many_proposals_are_read_in_pages_and_go_on_where_they_stopped(
    refused: bool, connection: Connection, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than one answer holds, or a provider that does not offer the call."""
    monkeypatch.setattr(reading, "PAGE", 2)
    said: list[str] = []
    real: Any = network.program_accounts

    def listing(*args: Any, **kwargs: Any) -> Any:
        raise RpcError("http://node", -32010, "getProgramAccounts is not offered", None)

    def by_status(program: Pubkey, *, memcmp: Sequence[tuple[int, bytes]]) -> Any:
        assert len(memcmp) == 3, "one call for all"
        return real(program, memcmp=memcmp)

    if refused:
        monkeypatch.setattr(network, "program_accounts", listing)
    else:
        monkeypatch.setattr(rules, "MANY", 3)
        monkeypatch.setattr(reading, "MANY", 3)
        monkeypatch.setattr(network, "program_accounts", by_status)
    put_proposals(connection, 7)
    accounts, calls = network.accounts, 0

    def breaks(keys: Sequence[Pubkey]) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise NetworkUnreachable("The node fell silent.", "Retry.")
        return accounts(keys)

    monkeypatch.setattr(network, "accounts", breaks)
    monkeypatch.setattr(rules, "RECENT", 0)
    with Follower(network, 0, tmp_path / "index.sqlite", said.append) as follower:
        with pytest.raises(NetworkUnreachable):
            follower.refresh()
        assert [p.id for p in follower.proposals()] == [0, 1, 2, 3]
        monkeypatch.setattr(rules, "MAX_CHANGEABLE", 1)
        follower.refresh()
        assert said == ["2 of 7 proposals read", "4 of 7 proposals read", "6 of 7 proposals read"]
        known = follower.proposals()
    assert [p.id for p in known] == list(range(7))
    monkeypatch.setattr(network, "program_accounts", listing if not refused else real)
    assert [proposal for _, proposal in listing_of(network, 0).accounts] == known


def test_a_page_that_a_lagging_node_lacks_is_asked_for_again(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MANY", 3)
    monkeypatch.setattr(reading, "PAGE", 2)
    put_proposals(connection, 5, given=8)
    with Follower(local.embedded_of(connection), 0, tmp_path / "index.sqlite") as follower:
        follower.refresh()
        assert follower.index.project(0) is not None
        assert [p.id for p in follower.proposals()] == [0, 1, 2, 3, 4]
        put_proposals(connection, 8)
        follower.refresh()
        assert [p.id for p in follower.proposals()] == list(range(8))


# --- the file ---


def test_the_file_is_bound_to_its_chain(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    Index(path, Hash.default(), PROGRAM_ID).close()
    Index(path, Hash.default(), PROGRAM_ID).close()
    with pytest.raises(InvalidData, match="another chain"):
        Index(path, Hash.new_unique(), PROGRAM_ID)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(InvalidData, match="format 9"):
        Index(path, Hash.default(), PROGRAM_ID)
    path.write_bytes(b"no database" * 100)
    with pytest.raises(InvalidData, match="not an index"):
        Index(path, Hash.default(), PROGRAM_ID)
    (tmp_path / "file").write_text("")
    with pytest.raises(ChainError, match="cannot be used"):
        Index(tmp_path / "file" / "index.sqlite", Hash.default(), PROGRAM_ID)


def test_a_file_of_before_gets_the_newer_indexes(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    Index(path, Hash.default(), PROGRAM_ID).close()
    names = "SELECT name FROM sqlite_master WHERE type = 'index' AND name IN ('proposals_unsettled', 'proposals_by_id')"
    with sqlite3.connect(path) as db:
        for (name,) in db.execute(names).fetchall():
            db.execute(f"DROP INDEX {name}")
    db.close()
    Index(path, Hash.default(), PROGRAM_ID).close()
    with sqlite3.connect(path) as db:
        assert len(db.execute(names).fetchall()) == 2
    db.close()


def test_a_refresh_of_what_is_settled_does_not_grow(tmp_path: Path) -> None:
    """SQLite's own steps, counted: as many with 2,000 settled proposals as with 200."""

    def steps(count: int) -> int:
        index = Index(tmp_path / f"{count}.sqlite", Hash.default(), PROGRAM_ID)
        signature, ticks = Keypair().sign_message(b""), 0
        with index.writing():
            made = [
                live.proposal(n, ProposalStatus.REJECTED if n >= 5 else ProposalStatus.PENDING) for n in range(count)
            ]
            index.store_proposals(0, [ProposalRow(live.PDAS.proposal(p.id), encode_account(p), p, 0) for p in made])
            index.hear(signature, 5, failed=False)
            index.store_events(signature, [submitted(number) for number in range(count)])

        def tick() -> int:
            nonlocal ticks
            ticks += 1
            return 0

        index._db.set_progress_handler(tick, 1)
        assert len(index.changeable(0, 9)) == 5
        assert index.unknown(0, 500, after=index.last()) == []
        index.close()
        return ticks

    assert steps(2_000) < 1.1 * steps(200)


def test_a_submission_without_its_account_is_asked_for_until_it_is_there(tmp_path: Path) -> None:
    index = Index(tmp_path / "index.sqlite", Hash.default(), PROGRAM_ID)
    signature = Keypair().sign_message(b"")
    with index.writing():
        index.hear(signature, 5, failed=False)
        index.store_events(signature, [submitted(7), submitted(8)])
    assert index.unknown(0, 500) == [7, 8]
    eighth = live.proposal(8)
    index.store_proposals(0, [ProposalRow(live.PDAS.proposal(8), encode_account(eighth), eighth, 0)])
    assert index.unknown(0, 500) == [7]
    assert index.unknown(0, 500, after=index.last()) == []
    index.close()


def test_indexes_that_nobody_used_for_months_are_dropped(connection: Connection, tmp_path: Path) -> None:
    old, used, other = (tmp_path / name for name in ("old.sqlite", "used.sqlite", "notes.txt"))
    for path in (old, used, other, tmp_path / "old.sqlite-wal"):
        path.write_bytes(b"")
        os.utime(path, (0, 0))
    os.utime(used)
    mine = tmp_path / "mine.sqlite"
    with Follower(local.embedded_of(connection), 0, mine) as follower:
        follower.refresh()
        os.utime(mine, (0, 0))
    with Follower(local.embedded_of(connection), 0, mine) as follower:  # opened, so in use
        assert follower.proposals() == []
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["mine.sqlite", "notes.txt", "used.sqlite"]


def test_its_place_tells_chains_apart(connection: Connection, tmp_path: Path) -> None:
    embedded = local.embedded_of(connection)
    path = index_path(tmp_path, embedded)
    assert path.parent == tmp_path / "index"
    other = EmbeddedNetwork(tmp_path / "other")
    assert index_path(tmp_path, other) != path
    other.close()
    url: Any = type(
        "Url", (), {"name": "http://[::1]:8899/?k=v", "genesis_hash": embedded.genesis_hash, "program_id": PROGRAM_ID}
    )
    assert index_path(tmp_path, url).parent == tmp_path / "index"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.text(), st.binary().map(lambda raw: "Program data: " + base64.b64encode(raw).decode()))))
def test_any_log_gives_events_or_typed_errors(lines: list[str]) -> None:
    logs = [f"Program {PROGRAM_ID} invoke [1]", *lines]
    found = scan_events(logs)
    if any(isinstance(event, InvalidData) for event in found):
        with pytest.raises(InvalidData):
            parse_events(logs)
    else:
        assert parse_events(logs) == found


EVENTS: list[Event] = [
    Bought(2**64 - 1, KEY, 2**64 - 1, 0),
    ReviewClaimed(2**64 - 1, KEY, -(2**63)),
    LedgerBurned(0, 1),
    StakeSlashed(1, KEY, 2, 3),
    ProposalRejected(1, KEY, bytes(32), bytes(32)),
]


def test_the_largest_numbers_come_back(tmp_path: Path) -> None:
    index = Index(tmp_path / "index.sqlite", Hash.default(), PROGRAM_ID)
    signature = Keypair().sign_message(b"")
    with index.writing():
        index.hear(signature, 5, failed=False)
        index.store_events(signature, EVENTS)
        again = index.store_events(signature, EVENTS)
    assert again == []
    assert [event.event for event in index._events(_all())] == EVENTS
    index.close()


def submitted(number: int) -> ProposalSubmitted:
    return ProposalSubmitted(number, 0, KEY, KEY, bytes(32), bytes(32), 5, 6)


def _all() -> str:
    from chain.indexer.store import _COLUMNS, _IN_ORDER

    return _COLUMNS + _IN_ORDER
