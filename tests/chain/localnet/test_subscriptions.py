"""The local node's websocket: what each subscription tells, when it stops, and what is bounded."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from chain.indexer.watch import websocket_url
from chain.localnet import subscriptions
from chain.localnet.notifications import MAX_SLOTS, NewsSince, Position, Slots
from chain.localnet.server import Server, serve
from chain.network.embedded import EmbeddedNetwork
from tests.chain.networks import SOL, memo, pay

SECONDS = 20
SYSTEM = "11111111111111111111111111111111"
CLOCK = "SysvarC1ock11111111111111111111111111111111"


@pytest.fixture(scope="module")
def alice(network: EmbeddedNetwork) -> Keypair:
    alice = Keypair()
    network.airdrop(alice.pubkey(), 100 * SOL)
    return alice


@pytest.fixture
def client(node: Server) -> Iterator[ClientConnection]:
    with connect(websocket_url(node.url), proxy=None) as client:
        yield client


def hear(client: ClientConnection) -> Any:
    return json.loads(client.recv(timeout=SECONDS))


def say(client: ClientConnection, method: str, *params: object) -> Any:
    client.send(json.dumps({"jsonrpc": "2.0", "id": method, "method": method, "params": list(params)}))
    answer = hear(client)
    assert answer["id"] == method
    return answer.get("result", answer.get("error"))


def result(message: Any, kind: str, subscription: int) -> Any:
    assert (message["method"], message["params"]["subscription"]) == (f"{kind}Notification", subscription)
    return message["params"]["result"]


def test_a_signature_is_told_once_before_and_after_it_landed(
    client: ClientConnection, network: EmbeddedNetwork, alice: Keypair
) -> None:
    tx = pay(alice, Pubkey.new_unique(), SOL, network.latest_blockhash().hash)
    for _ in range(2):  # the second asks about what has landed
        subscription = say(client, "signatureSubscribe", str(tx.signatures[0]), {"commitment": "confirmed"})
        if network.record(tx.signatures[0]) is None:
            network.send(tx)
        record = network.record(tx.signatures[0])
        assert record is not None
        told = result(hear(client), "signature", subscription)
        assert told == {"context": {"slot": record.slot}, "value": {"err": None}}
        assert say(client, "signatureUnsubscribe", subscription)["message"] == "Invalid subscription id."


def test_a_failed_signature_is_told_with_its_error(
    client: ClientConnection, network: EmbeddedNetwork, alice: Keypair
) -> None:
    tx = pay(alice, Pubkey.new_unique(), 10_000 * SOL, network.latest_blockhash().hash)
    subscription = say(client, "signatureSubscribe", str(tx.signatures[0]))
    network.submit(tx, preflight=False)
    told = result(hear(client), "signature", subscription)
    assert told["value"] == {"err": {"InstructionError": [0, {"Custom": 1}]}}


def test_accounts_and_programs_until_they_are_unsubscribed(
    client: ClientConnection, network: EmbeddedNetwork, alice: Keypair
) -> None:
    bob = Pubkey.new_unique()
    one = say(client, "accountSubscribe", str(bob), {"encoding": "base64"})
    assert say(client, "accountSubscribe", str(bob), {"encoding": "base64"}) == one  # asked again, told once
    exactly = {"encoding": "base64", "filters": [{"dataSize": 0}, {"memcmp": {"offset": 0, "bytes": ""}}]}
    all_of_it = say(client, "programSubscribe", SYSTEM, exactly)
    none_of_it = say(client, "programSubscribe", SYSTEM, {"filters": [{"dataSize": 5}]})
    network.send(pay(alice, bob, SOL, network.latest_blockhash().hash))
    account = {
        "lamports": SOL,
        "owner": SYSTEM,
        "data": ["", "base64"],
        "executable": False,
        "rentEpoch": (1 << 64) - 1,
        "space": 0,
    }
    assert result(hear(client), "account", one)["value"] == account
    told = [result(hear(client), "program", all_of_it)["value"] for _ in range(2)]
    assert {"pubkey": str(bob), "account": account} in told
    assert {one["pubkey"] for one in told} == {str(bob), str(alice.pubkey())}
    assert say(client, "logsUnsubscribe", one) is True  # by any name, as a node takes it
    assert say(client, "programUnsubscribe", all_of_it) is True
    network.send(pay(alice, bob, SOL, network.latest_blockhash().hash))
    assert say(client, "programUnsubscribe", none_of_it) is True  # the next message: nothing was told


def test_logs_of_what_names_an_address_and_only_of_what_comes(
    client: ClientConnection, network: EmbeddedNetwork, alice: Keypair
) -> None:
    before = memo(alice, b"before", network.latest_blockhash().hash)
    network.send(before)
    everything = say(client, "logsSubscribe", "all")
    mine = say(client, "logsSubscribe", {"mentions": [str(alice.pubkey())]}, {"commitment": "finalized"})
    network.airdrop(Pubkey.new_unique(), SOL)
    after = memo(alice, b"after", network.latest_blockhash().hash)
    network.send(after)
    told = [hear(client) for _ in range(3)]
    assert sorted(message["params"]["subscription"] for message in told) == [everything, everything, mine]
    last = [message["params"]["result"]["value"] for message in told if message["params"]["subscription"] == mine]
    assert (last[0]["signature"], last[0]["err"]) == (str(after.signatures[0]), None)
    assert any("after" in line for line in last[0]["logs"])


def test_slots_roots_and_the_clock_move_by_themselves(client: ClientConnection) -> None:
    slots, roots, clock = (
        say(client, "slotSubscribe"), say(client, "rootSubscribe"), say(client, "accountSubscribe", CLOCK),
    )  # fmt: skip
    seen: dict[int, list[Any]] = {slots: [], roots: [], clock: []}
    while any(len(told) < 2 for told in seen.values()):
        params = hear(client)["params"]
        seen[params["subscription"]].append(params["result"])
    first, second = seen[slots][:2]
    assert second == {"slot": first["slot"] + 1, "parent": first["slot"], "root": first["slot"] + 1}
    assert seen[roots][1] == seen[roots][0] + 1
    assert seen[clock][0]["value"]["owner"].startswith("Sysvar")


def test_an_account_too_large_for_its_encoding_is_told_so(
    client: ClientConnection, network: EmbeddedNetwork, alice: Keypair
) -> None:
    from solders.system_program import CreateAccountParams, create_account

    from tests.chain.networks import sign

    large = Keypair()
    subscription = say(client, "accountSubscribe", str(large.pubkey()))
    make = create_account(
        CreateAccountParams(
            from_pubkey=alice.pubkey(),
            to_pubkey=large.pubkey(),
            lamports=SOL,
            space=200,
            owner=Pubkey.from_string(SYSTEM),
        )
    )
    network.send(sign(alice, [make], network.latest_blockhash().hash, large))
    assert result(hear(client), "account", subscription)["value"]["data"].startswith("error: data too large")


def test_a_batch_is_answered_one_by_one(client: ClientConnection) -> None:
    batch = [{"jsonrpc": "2.0", "id": 1, "method": "slotSubscribe"}, {"jsonrpc": "2.0", "id": 2, "method": "none"}, 5]
    client.send(json.dumps(batch))
    answers = hear(client)
    assert [answer["id"] for answer in answers] == [1, 2, None]
    assert [answer["error"]["code"] for answer in answers[1:]] == [-32601, -32600]


def test_pages_of_this_machine_may_subscribe(node: Server) -> None:
    url = websocket_url(node.url)
    for origin in ("http://localhost:3000", "http://127.0.0.1", "https://[::1]:8443"):
        with connect(url, proxy=None, additional_headers={"Origin": origin}) as client:
            assert isinstance(say(client, "rootSubscribe"), int)
    for origin in ("http://localhost.evil.example", "https://example.com", "null"):
        with pytest.raises(InvalidStatus), connect(url, proxy=None, additional_headers={"Origin": origin}):
            pass


def test_who_does_not_read_is_cut_off(
    network: EmbeddedNetwork, alice: Keypair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its messages fill the kernel's buffers, its own thread waits, and then its connection ends; others go on."""
    monkeypatch.setattr(subscriptions, "SEND_SECONDS", 1)
    monkeypatch.setattr(subscriptions, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(Slots, "news", lambda self, moment: ["x" * 100_000] * 200)
    with serve(network, port=0).start() as node:
        url = websocket_url(node.url)
        raw = socket.create_connection(("127.0.0.1", node.port + 1))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with raw:
            raw.sendall(
                b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            assert raw.recv(20).startswith(b"HTTP/1.1 101")
            request = b'{"jsonrpc":"2.0","id":1,"method":"slotSubscribe"}'
            raw.sendall(bytes([0x81, 0x80 | len(request), 0, 0, 0, 0]) + request)
            with connect(url, proxy=None) as other:  # the other of two connections
                say(other, "logsSubscribe", "all")
                network.send(pay(alice, Pubkey.new_unique(), SOL, network.latest_blockhash().hash))
                assert hear(other)["method"] == "logsNotification"
                deadline = time.monotonic() + SECONDS
                while True:  # until the place of the one that did not read is free
                    with connect(url, proxy=None) as third:
                        try:
                            third.send('{"jsonrpc":"2.0","id":1,"method":"rootSubscribe"}')
                            assert "result" in hear(third)
                            break
                        except Exception:
                            assert time.monotonic() < deadline
                            time.sleep(0.2)


def test_a_jump_of_time_tells_of_the_newest_slots_only() -> None:
    told = Slots().news(NewsSince(range(5, 1_500_000), [], {}))
    assert len(told) == MAX_SLOTS
    assert told[-1] == {"slot": 1_499_999, "parent": 1_499_998, "root": 1_499_999}


def test_many_transactions_are_told_in_several_moments(
    network: EmbeddedNetwork, alice: Keypair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chain.localnet.notifications.MAX_RECORDS", 2)
    position, sent = Position(network), []
    for n in range(5):
        tx = pay(alice, Pubkey.new_unique(), SOL + n, network.latest_blockhash().hash)
        sent.append(network.send(tx))
    told: list[Signature] = []
    while moment := position.next():
        told += [record.signature for record in moment.records]
        if len(told) >= len(sent):
            break
    assert told == sent
