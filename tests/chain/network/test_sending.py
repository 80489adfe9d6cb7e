"""Sending: priority fees, rebroadcast until landed or dead, and what a lost answer or a lagging node means."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from solders.keypair import Keypair
from solders.signature import Signature

from chain.errors import NetworkUnreachable, TransactionFailed
from chain.localnet.server import Server, serve
from chain.money.client import Client
from chain.money.fees import MAX_AUTO_FEE, MAX_UNITS, auto_fee, unit_limit
from chain.network.base import FEE_PER_SIGNATURE, Network
from chain.network.embedded import EmbeddedNetwork
from chain.network.rpc import RpcNetwork
from chain.program.errors import InsufficientPayment
from chain.program.events import Bought
from chain.program.instructions import Buy
from tests import local
from tests.chain.network.test_rpc_faults import Node, Reply, epoch, ok, refused, valued

SOL = 10**9


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedNetwork]:
    embedded = EmbeddedNetwork(local.home_with_project(tmp_path))
    yield embedded
    embedded.close()


@pytest.fixture
def server(embedded: EmbeddedNetwork) -> Iterator[Server]:
    with serve(embedded, port=0).start() as server:
        yield server


@pytest.fixture
def node(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """A node in front of the ledger's server; tests change how it answers."""
    monkeypatch.setattr("chain.network.transport._PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("chain.network.rpc._POLL_SECONDS", 0.01)
    monkeypatch.setattr("chain.network.rpc._REBROADCAST_SECONDS", 0.0)
    node = Node()
    node.reply = lambda request: forward(server, request)
    yield node
    node.http.shutdown()
    node.http.server_close()


@pytest.fixture
def rpc(node: Node) -> Iterator[RpcNetwork]:
    rpc = RpcNetwork(node.url, call_seconds=5)
    yield rpc
    rpc.close()


def forward(server: Server, request: dict[str, Any]) -> Reply:
    return 200, {}, httpx.post(server.url, json=request, trust_env=False).content


def buyer(embedded: EmbeddedNetwork) -> Keypair:
    key = Keypair()
    embedded.airdrop(key.pubkey(), SOL)
    return key


# --- priority fees ---


@pytest.mark.parametrize(
    ("recent", "fee"),
    [
        ([], 0),
        ([0] * 150, 0),
        ([7], 7),
        ([0, 0, 0, 40], 40),
        ([0, 0, 0, 0, 40], 0),
        ([5, 1, 4, 2, 3, 6, 8, 7], 7),
        ([10**15] * 10, MAX_AUTO_FEE),
    ],
)
def test_auto_fee(recent: list[int], fee: int) -> None:
    assert auto_fee(recent) == fee


@pytest.mark.parametrize(("used", "limit"), [(0, 1_000), (10_000, 13_000), (10**7, MAX_UNITS)])
def test_unit_limit(used: int, limit: int) -> None:
    assert unit_limit(used) == limit


@pytest.mark.parametrize("over_http", [False, True])
def test_a_priority_fee_is_charged(embedded: EmbeddedNetwork, rpc: RpcNetwork, over_http: bool) -> None:
    network: Network = rpc if over_http else embedded
    key, project = buyer(embedded), Client(embedded).project(0)
    plain = Client(network).call(Buy(project.id, local.cost(0, 1)), key)
    assert plain.receipt.fee == FEE_PER_SIGNATURE
    before = embedded.balance(key.pubkey())
    done = Client(network, priority_fee=1_000_000).call(Buy(project.id, local.cost(1, 1)), key)
    extra = done.receipt.fee - FEE_PER_SIGNATURE
    # One lamport per unit asked for: what was used (more or fewer by the buyer's key) and a fifth more, not a
    # cluster's 200,000 by default.
    record = embedded.record(done.receipt.signature)
    assert record is not None
    assert extra == unit_limit(record.units)
    assert before - embedded.balance(key.pubkey()) == done.receipt.fee + local.cost(1, 1) == done.receipt.paid
    assert done.event(Bought).tokens_out == 1


def test_an_automatic_fee_follows_the_accounts_written(
    node: Node, server: Server, rpc: RpcNetwork, embedded: EmbeddedNetwork
) -> None:
    asked: list[Any] = []

    def reply(request: dict[str, Any]) -> Reply:
        if request["method"] != "getRecentPrioritizationFees":
            return forward(server, request)
        asked.append(request["params"][0])
        rows = [{"slot": slot, "prioritizationFee": 500_000} for slot in range(9)]
        return 200, {}, httpx.Response(200, json={"jsonrpc": "2.0", "id": 0, "result": rows}).content

    node.reply = reply
    key, client = buyer(embedded), Client(rpc, priority_fee="auto")
    done = client.call(Buy(0, local.cost(0, 1)), key)
    assert done.receipt.fee > FEE_PER_SIGNATURE + 500
    assert str(key.pubkey()) in asked[0]
    assert str(client.pdas.sol_vault(0)) in asked[0]
    assert str(client.pdas.project(0)) not in asked[0]  # it is only read
    assert Client(embedded, priority_fee="auto").call(Buy(0, 10**6), key).receipt.fee == FEE_PER_SIGNATURE


# --- until landed or dead ---


def test_a_node_that_swallows_transactions(
    node: Node, server: Server, rpc: RpcNetwork, embedded: EmbeddedNetwork
) -> None:
    """The same bytes are sent until their blockhash has expired; only then may another be signed."""
    sent: list[str] = []

    def reply(request: dict[str, Any]) -> Reply:
        if request["method"] == "sendTransaction":
            sent.append(request["params"][0])
            if len(sent) == 5:
                embedded.warp(120)
            return 200, {}, httpx.Response(200, json={"jsonrpc": "2.0", "id": 0, "result": str(recorded[0][0])}).content
        return forward(server, request)

    node.reply = reply
    recorded: list[tuple[Signature, int]] = []
    key, client, count = buyer(embedded), Client(rpc), embedded.transaction_count()
    with pytest.raises(TransactionFailed, match="expired; it never will"):
        _submit(client, key, recorded)
    assert len(sent) == 5
    assert len(set(sent)) == len(recorded) == 1
    assert embedded.transaction_count() == count
    assert client.outcome(*recorded[0]) is None
    node.reply = lambda request: forward(server, request)
    _submit(client, key, recorded)
    assert len(recorded) == 2
    done = client.outcome(*recorded[1])
    assert done is not None
    assert done.receipt.signature == recorded[1][0]


def _submit(client: Client, key: Keypair, recorded: list[tuple[Signature, int]]) -> None:
    step = client.instruction(Buy(0, local.cost(0, 1)), key.pubkey())
    client.execute([step], key, before_send=lambda signature, last_valid: recorded.append((signature, last_valid)))


def test_every_answer_to_the_sending_lost(
    node: Node, server: Server, rpc: RpcNetwork, embedded: EmbeddedNetwork
) -> None:
    """It may have been taken, so it is followed up and found, not given up and not signed anew."""
    recorded: list[tuple[Signature, int]] = []

    def reply(request: dict[str, Any]) -> Reply:
        answer = forward(server, request)
        return None if request["method"] == "sendTransaction" else answer

    node.reply = reply
    key, client = buyer(embedded), Client(rpc)
    _submit(client, key, recorded)
    assert client.tokens(client.project(0), key.pubkey()) == 1
    assert len(recorded) == 1


def test_a_refusal_after_a_lost_answer_does_not_count(
    node: Node, server: Server, rpc: RpcNetwork, embedded: EmbeddedNetwork
) -> None:
    """The first try lands, its answer is lost, and the second is refused for what the first has changed."""
    tries: list[str] = []
    failure = refused(-32002, "Transaction simulation failed", {"err": {"InstructionError": [0, {"Custom": 6015}]}})

    def reply(request: dict[str, Any]) -> Reply:
        if request["method"] != "sendTransaction":
            return forward(server, request)
        tries.append(request["params"][0])
        if len(tries) > 1:
            return failure
        forward(server, request)
        return None

    node.reply = reply
    recorded: list[tuple[Signature, int]] = []
    key, client = buyer(embedded), Client(rpc)
    _submit(client, key, recorded)
    assert client.tokens(client.project(0), key.pubkey()) == 1
    # without a lost answer before it, the same refusal is one
    tries.append("")
    with pytest.raises(InsufficientPayment):
        _submit(client, key, recorded)


def test_an_outage_while_confirming_is_sat_out(
    node: Node, server: Server, rpc: RpcNetwork, embedded: EmbeddedNetwork
) -> None:
    silent = iter([True] * 12)

    def reply(request: dict[str, Any]) -> Reply:
        if request["method"] in ("getEpochInfo", "getSignatureStatuses") and next(silent, False):
            return (429, {}, b"") if len(node.requests) % 2 else None
        return forward(server, request)

    node.reply = reply
    key, client = buyer(embedded), Client(rpc)
    _submit(client, key, [])
    assert client.tokens(client.project(0), key.pubkey()) == 1
    assert node.methods().count("sendTransaction") == 1


def test_a_node_that_lags_cannot_say_that_it_is_dead(node: Node, rpc: RpcNetwork) -> None:
    """Height from a node that is ahead, status from one behind it: what that one does not know may have landed."""
    seen = iter([5, 5, 9, 10])

    def reply(request: dict[str, Any]) -> Reply:
        if request["method"] == "getEpochInfo":
            assert request["params"][0]["commitment"] == "finalized"
            return epoch(1_000, slot=10)
        if request["method"] in ("getBlockHeight", "getTransaction"):
            return ok(1_000 if request["method"] == "getBlockHeight" else None)
        return (
            200,
            {},
            httpx.Response(
                200, json={"jsonrpc": "2.0", "id": 0, "result": {"context": {"slot": next(seen)}, "value": [None]}}
            ).content,
        )

    node.reply = reply
    with pytest.raises(TransactionFailed, match="never will"):
        rpc.confirm(Signature.default(), 999)
    assert next(seen, None) is None


def test_what_is_still_open_is_neither_done_nor_dead(
    node: Node, rpc: RpcNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.reply = lambda request: epoch(1) if request["method"] == "getEpochInfo" else valued([None])
    confirm = RpcNetwork.confirm
    monkeypatch.setattr(RpcNetwork, "confirm", lambda self, *what, **_: confirm(self, *what, timeout=0.1, final=True))
    with pytest.raises(NetworkUnreachable, match="may still land"):
        Client(rpc).outcome(Signature.default(), 10)


@pytest.mark.parametrize("commitment", ["processed", "confirmed", "finalized"])
def test_a_commitment_is_waited_for(node: Node, server: Server, embedded: EmbeddedNetwork, commitment: str) -> None:
    """The status rises from look to look; each commitment returns at its own."""
    rising = ["processed", "processed", "confirmed", "confirmed", "finalized"]
    left = list(rising)

    def reply(request: dict[str, Any]) -> Reply:
        if request["method"] != "getSignatureStatuses":
            return forward(server, request)
        status = left.pop(0)
        value = {"slot": 1, "confirmations": 1, "status": {"Ok": None}, "err": None, "confirmationStatus": status}
        return valued([value])

    node.reply = reply
    rpc = RpcNetwork(node.url, commitment=commitment)
    key = buyer(embedded)
    _submit(Client(rpc), key, [])
    assert len(rising) - len(left) == rising.index(commitment) + 1
    reads = [r["params"] for r in node.requests if r["method"] in ("getLatestBlockhash", "simulateTransaction")]
    assert all(commitment in str(params) for params in reads)
    rpc.close()
