"""Uploads, fetches and deposits through servers that fail a fifth of the time: nothing lost, nothing doubled."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from solders.keypair import Keypair

from chain.connection.opening import MINER
from chain.errors import ChainError, InvalidData, NetworkUnreachable
from chain.irys.accounts import Tariff
from chain.irys.client import Endpoints, Irys
from chain.irys.dataitem import DataItem
from chain.irys.funding import Funding, State
from chain.irys.node import RunningNode, serve
from chain.money.client import Client
from chain.network.embedded import EmbeddedNetwork
from chain.wallet import wallet
from common.files import write_atomic
from tests import local
from tests.faults.proxy import BROKEN, BUSY, DELAY, DROP, HONEST, LIE, LOSE, TRUNCATE, Proxy, always, fifth


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return local.home_with_project(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def embedded(home: Path) -> Iterator[EmbeddedNetwork]:
    embedded = EmbeddedNetwork(home)
    yield embedded
    embedded.close()


@pytest.fixture(scope="module")
def node(home: Path, embedded: EmbeddedNetwork) -> Iterator[RunningNode]:
    with serve(home / "irys", tariff=Tariff(1), network=embedded) as running:
        yield running


@pytest.fixture(scope="module")
def key(home: Path) -> Keypair:
    return wallet.load(wallet.path_of(home, MINER))


def test_deposits_and_uploads_are_credited_and_charged_once(
    home: Path, embedded: EmbeddedNetwork, node: RunningNode, key: Keypair
) -> None:
    waits: list[float] = []
    with Proxy(node.url, fifth(1, *HONEST)) as proxy, Irys.at(proxy.url, attempts=12, sleep=waits.append) as irys:
        before = node.node.balance(key.pubkey())
        for _ in range(5):
            funding = Funding(Client(embedded), irys, key, home, sleep=lambda _: None)
            done = funding.fund(100_000, node.node.deposit_address)
            assert done.paid is not None
            assert done.paid.state is State.CREDITED
        assert node.node.balance(key.pubkey()) == before + 500_000
        items = [DataItem.sign(key, bytes([number]) * 900) for number in range(40)]
        for item in items:
            receipt = irys.upload(item)  # None if the receipt was lost and the item was there already
            assert receipt is None or receipt.id == str(item.id)
            assert node.node.item(item.id) == item
        assert node.node.balance(key.pubkey()) == before + 500_000 - sum(item.size for item in items)
    assert all(proxy.done[fault] for fault in HONEST)
    assert len(waits) == sum(proxy.done[fault] for fault in HONEST)
    assert max(waits) <= 15.0


def test_chunks_are_sent_again_one_by_one(
    node: RunningNode, home: Path, embedded: EmbeddedNetwork, key: Keypair
) -> None:
    item = DataItem.sign(key, random.Random(0).randbytes(2_000_000))
    with Irys.at(node.url) as plain:
        Funding(Client(embedded), plain, key, home).fund(item.size, node.node.deposit_address)
    options = {"chunk_threshold": 1_000_000, "chunk_bytes": 60_000}
    with Proxy(node.url, fifth(2, DROP, LOSE, BUSY, BROKEN)) as proxy:
        with Irys.at(proxy.url, attempts=12, sleep=lambda _: None, **options) as irys:
            before = node.node.balance(key.pubkey())
            irys.upload(item)
            assert node.node.item(item.id) == item
            assert node.node.balance(key.pubkey()) == before - item.size
        assert proxy.done[""] > 34


def test_the_lost_answer_to_a_finished_chunked_upload(node: RunningNode, key: Keypair) -> None:
    item = DataItem.sign(key, b"chunks" * 50)
    node.node.accounts.credit(key.pubkey(), key.sign_message(item.data), item.size)
    options = {"chunk_threshold": 10, "chunk_bytes": 600_000}
    calls: list[str] = []

    def lose_the_first_end(method: str, path: str) -> str:
        calls.append(path)
        return LOSE if method == "POST" and path.endswith("/-1") and calls.count(path) == 1 else ""

    with Proxy(node.url, lose_the_first_end) as proxy, Irys.at(proxy.url, sleep=lambda _: None, **options) as irys:
        assert irys.upload(item) is None
    assert proxy.done[LOSE] == 1
    assert node.node.item(item.id) == item


def test_two_hundred_fetches_through_gateways_that_fail_and_lie(node: RunningNode, key: Keypair) -> None:
    items = [DataItem.sign(key, bytes([number]) * 300) for number in range(200)]
    for item in items:
        write_atomic(node.node.path(item.id), item.encode())
    lies: list[InvalidData] = []
    with (
        Proxy(node.url, fifth(3, *HONEST, LIE, LIE)) as first,
        Proxy(node.url, fifth(4, *HONEST, LIE, LIE)) as second,
    ):
        endpoints = Endpoints(node.url, (first.url, second.url))
        for start in range(0, 200, 25):  # a client asks whoever lied last, so a new one now and then
            with Irys(endpoints, report=lies.append, sleep=lambda _: None) as irys:
                for item in items[start : start + 25]:
                    assert irys.get(item.id, sha256=item.sha256, max_bytes=400) == item.data
    assert len(lies) == first.done[LIE] + second.done[LIE] > 5
    for lie in lies:
        assert first.url in lie.problem or second.url in lie.problem
        assert "300 bytes beginning with" in lie.problem


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (DROP, NetworkUnreachable, "did not answer"),
        (LOSE, NetworkUnreachable, "did not answer"),
        (TRUNCATE, NetworkUnreachable, "did not answer"),
        (DELAY, NetworkUnreachable, "ReadTimeout"),
        (BUSY, NetworkUnreachable, "answered 429"),
        (BROKEN, NetworkUnreachable, "answered 500"),
        (LIE, InvalidData, "expected"),
    ],
)
def test_a_gateway_that_only_fails_is_named_and_the_next_one_asked(
    node: RunningNode, key: Keypair, fault: str, kind: type[ChainError], words: str
) -> None:
    item = DataItem.sign(key, b"wanted")
    node.node.accounts.credit(key.pubkey(), key.sign_message(item.data), item.size)
    node.node.receive(item.encode())
    waits: list[float] = []
    lies: list[InvalidData] = []
    timeout = 1.0 if fault == DELAY else 20.0
    with Proxy(node.url, always(fault), seconds=3.0) as proxy:
        with (
            Irys.at(proxy.url, attempts=3, timeout=timeout, sleep=waits.append) as irys,
            pytest.raises(kind, match=words) as caught,
        ):
            irys.get(item.id, sha256=item.sha256, max_bytes=100)
        assert proxy.url in caught.value.problem
        assert len(waits) == (0 if fault == LIE else 2)
        both = Endpoints(node.url, (proxy.url,))
        with Irys(both, attempts=3, timeout=timeout, sleep=waits.append, report=lies.append) as irys:
            asked = proxy.done[fault]
            assert irys.get(item.id, sha256=item.sha256, max_bytes=100) == b"wanted"
            if fault == LIE:  # whoever lied is asked last from then on
                assert irys.get(item.id, sha256=item.sha256, max_bytes=100) == b"wanted"
                assert (len(lies), proxy.done[fault] - asked) == (1, 1)
    assert len(lies) == (fault == LIE)


def test_an_uploader_that_forges_receipts_is_not_relied_on(node: RunningNode, key: Keypair) -> None:
    item = DataItem.sign(key, b"receipt")
    node.node.accounts.credit(key.pubkey(), key.sign_message(item.data), item.size)
    with Proxy(node.url, always(LIE)) as proxy, Irys.at(proxy.url) as irys, pytest.raises(InvalidData):
        irys.upload(item)
