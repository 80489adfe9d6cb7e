"""The RPC client against nodes that are dead, busy, slow, lying or forgetful: bounded, typed, once only."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from solders.hash import Hash
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature

from chain.errors import ChainError, NetworkUnreachable, TransactionFailed
from chain.localnet.server import serve
from chain.network.base import RpcError
from chain.network.embedded import EmbeddedNetwork
from chain.network.rpc import RpcNetwork
from chain.network.transport import TRIES
from tests.chain.networks import SOL, memo_image, pay
from tests.common.socks import socks

KEY = Pubkey.from_bytes(bytes(range(32)))
Reply = tuple[int, dict[str, str], bytes] | None  # None: hang up without an answer


def ok(result: object) -> Reply:
    return 200, {}, json.dumps({"jsonrpc": "2.0", "id": 0, "result": result}).encode()


def refused(code: int, message: str, data: object = None) -> Reply:
    error = {"code": code, "message": message, "data": data}
    return 200, {}, json.dumps({"jsonrpc": "2.0", "id": 0, "error": error}).encode()


def valued(value: object) -> Reply:
    return ok({"context": {"slot": 1}, "value": value})


def epoch(height: int, slot: int = 1) -> Reply:
    known = {"absoluteSlot": slot, "blockHeight": height, "epoch": 0, "slotIndex": slot, "slotsInEpoch": 432_000}
    return ok(known | {"transactionCount": 0})


class Node:
    """A node that answers as a test says; `requests` are the JSON bodies it got."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.reply: Callable[[dict[str, Any]], Reply] = lambda request: valued(7)
        node = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                node.requests.append(request)
                reply = node.reply(request)
                if reply is None:
                    self.close_connection = True
                    return
                status, headers, body = reply
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.005,), daemon=True).start()

    def script(self, *replies: Reply) -> None:
        """Answer with each in turn, the last one for ever."""
        waiting = list(replies)
        self.reply = lambda request: waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def methods(self) -> list[str]:
        return [request["method"] for request in self.requests]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chain.network.transport._PAUSE_SECONDS", 0.02)


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.http.shutdown()
    node.http.server_close()


@pytest.fixture
def rpc(node: Node) -> Iterator[RpcNetwork]:
    rpc = RpcNetwork(node.url, call_seconds=10)
    yield rpc
    rpc.close()


def test_a_dead_port_is_one_line_with_url_and_cure() -> None:
    rpc = RpcNetwork("http://127.0.0.1:9", call_seconds=1)
    with pytest.raises(NetworkUnreachable, match=r"http://127\.0\.0\.1:9 does not answer") as info:
        rpc.balance(KEY)
    assert "chain localnet" in info.value.cure
    assert "\n" not in info.value.message
    rpc.close()


def test_a_node_that_was_never_started_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    rpc = RpcNetwork("http://127.0.0.1:9", call_seconds=30)
    monkeypatch.setattr(rpc._transport, "_sleep", waits.append)
    with pytest.raises(NetworkUnreachable, match="refused"):
        rpc.balance(KEY)
    assert waits == []
    rpc._transport._met = True  # one that has answered may be starting again
    with pytest.raises(NetworkUnreachable, match="refused"):
        rpc.balance(KEY)
    assert len(waits) == TRIES - 1  # nobody waits after the last try
    rpc.close()


def test_an_unknown_host_and_an_impossible_url_are_one_line() -> None:
    rpc = RpcNetwork("http://no-such-host.invalid", call_seconds=1)
    with pytest.raises(NetworkUnreachable, match=r"no-such-host\.invalid does not answer"):
        rpc.balance(KEY)
    rpc.close()
    for url in ("http://127.0.0.1:99999", "http://[half", "http://:80", "ftp://host", "http://a b"):
        with pytest.raises(NetworkUnreachable, match="not a usable URL") as info:
            RpcNetwork(url)
        assert url in info.value.message


@pytest.mark.parametrize(
    "busy",
    [
        (429, {"Retry-After": "0"}, b"slow down"),
        (503, {}, b"<html>"),
        None,
        refused(-32005, "Node is behind by 42 slots", {"numSlotsBehind": 42}),
        refused(429, "Too many requests"),
    ],
)
def test_a_busy_node_is_asked_again(node: Node, rpc: RpcNetwork, busy: Reply) -> None:
    node.script(busy, busy, valued(7))
    assert rpc.balance(KEY) == 7
    assert len(node.requests) == 3


def test_retries_are_bounded(node: Node) -> None:
    rpc = RpcNetwork(node.url, call_seconds=1.5)
    node.script((503, {}, b""))
    started = time.monotonic()
    with pytest.raises(NetworkUnreachable, match="HTTP status 503"):
        rpc.balance(KEY)
    assert 1 < len(node.requests) <= 5
    assert time.monotonic() - started < 10
    node.script((429, {"Retry-After": "999"}, b""))
    with pytest.raises(NetworkUnreachable, match="HTTP status 429"):
        rpc.balance(KEY)
    assert time.monotonic() - started < 10
    rpc.close()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            b'{"jsonrpc":"2.0","error":{"code":-32600,"message":"getProgramAccounts is not available on this plan."}}',
            "HTTP status 403, saying: getProgramAccounts is not available on this plan.",
        ),
        (b'{"error":"Your key has expired"}', "saying: Your key has expired."),
        (b'{"message":"for\\u001b[2Jbidden"}', "saying: for[2Jbidden."),
        (b'{"error":{"message":7}}', "not as a Solana RPC node"),
        (b"[" * 100_000, "not as a Solana RPC node"),
    ],
)
def test_a_providers_own_reason_is_passed_on(node: Node, rpc: RpcNetwork, body: bytes, words: str) -> None:
    node.script((403, {}, body))
    with pytest.raises(NetworkUnreachable) as refusal:
        rpc.balance(KEY)
    assert words in refusal.value.problem
    assert len(node.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 302])
def test_what_asking_again_cannot_mend_is_not_asked_again(node: Node, rpc: RpcNetwork, status: int) -> None:
    node.script((status, {}, b"<html>"))
    with pytest.raises(NetworkUnreachable, match=f"HTTP status {status}"):
        rpc.balance(KEY)
    assert len(node.requests) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"<html>hello</html>",
        b"",
        b"[]",
        b"{}",
        b"null",
        b"\xff\xfe",
        b"[" * 50_000,
        b'{"jsonrpc":"2.0","id":0,"result":null}',
        b'{"jsonrpc":"2.0","id":0,"result":{"context":{"slot":1},"value":-1}}',
        b'{"jsonrpc":"2.0","id":0,"result":{"context":{"slot":1},"value":"7"}}',
        b'{"jsonrpc":"2.0","id":0,"error":"broken"}',
        b'{"jsonrpc":"2.0","id":0,"error":{"code":"x","message":5}}',
    ],
)
def test_garbage_is_not_believed(node: Node, rpc: RpcNetwork, body: bytes) -> None:
    node.script((200, {}, body))
    with pytest.raises(NetworkUnreachable, match="is not a Solana RPC node"):
        rpc.balance(KEY)
    assert len(node.requests) == 1


def test_a_slow_node_is_given_up(node: Node) -> None:
    rpc, release = RpcNetwork(node.url, call_seconds=0.4), threading.Event()

    def stall(request: dict[str, Any]) -> Reply:
        release.wait(10)
        return valued(7)

    node.reply = stall
    started = time.monotonic()
    with pytest.raises(NetworkUnreachable, match="nothing within"):
        rpc.balance(KEY)
    assert time.monotonic() - started < 5
    release.set()
    rpc.close()


def test_an_answer_that_never_ends_is_cut(node: Node, rpc: RpcNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chain.network.transport.MAX_ANSWER", 1 << 20)
    node.script((200, {}, b" " * (2 << 20)))
    with pytest.raises(NetworkUnreachable, match="over 1 MiB"):
        rpc.balance(KEY)
    packed = gzip.compress(b" " * (2 << 20))
    node.script((200, {"Content-Encoding": "gzip"}, packed))
    with pytest.raises(NetworkUnreachable, match="compressed"):
        rpc.balance(KEY)
    assert len(node.requests) == 2


def test_a_refusal_carries_the_nodes_words(node: Node, rpc: RpcNetwork) -> None:
    node.script(refused(-32099, "Something of this provider's own."))
    with pytest.raises(RpcError, match=r"provider's own \(code -32099\)") as info:
        rpc.balance(KEY)
    assert info.value.code == -32099
    assert len(node.requests) == 1


def test_answers_to_other_questions_are_not_believed(node: Node, rpc: RpcNetwork) -> None:
    node.script(valued([]))
    with pytest.raises(NetworkUnreachable, match="0 accounts for 1"):
        rpc.account(KEY)
    node.reply = lambda r: epoch(5) if r["method"] == "getEpochInfo" else valued([])
    with pytest.raises(NetworkUnreachable, match="0 statuses"):
        rpc.confirm(Signature.default(), 9, timeout=0.1)
    other = {"lamports": 1, "owner": str(Keypair().pubkey()), "data": ["", "base64"], "executable": False}
    entry = {"pubkey": str(KEY), "account": other | {"rentEpoch": 0, "space": 0}}
    node.script(ok([entry]))
    assert rpc.program_accounts(KEY) == []


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (lambda rpc: rpc.latest_blockhash(), valued({"blockhash": "", "lastValidBlockHeight": 9})),
        (lambda rpc: rpc.genesis_hash, ok("")),
        (
            lambda rpc: rpc.account(KEY),
            valued(
                [{"lamports": 1, "owner": "", "data": ["", "base64"], "executable": False, "rentEpoch": 0, "space": 0}]
            ),
        ),
        (lambda rpc: rpc.airdrop(KEY, 1), ok("")),
        (
            lambda rpc: rpc.entries(KEY),
            ok([{"signature": "", "slot": 1, "err": None, "memo": None, "blockTime": 1, "confirmationStatus": None}]),
        ),
    ],
)
def test_a_field_that_does_not_decode_is_no_answer(
    node: Node, rpc: RpcNetwork, ask: Callable[[RpcNetwork], object], answer: Reply
) -> None:
    """solders decodes it only when it is asked for, and panics then."""
    node.reply = lambda request: answer
    with pytest.raises(NetworkUnreachable, match="is not a Solana RPC node"):
        ask(rpc)


def test_an_airdrop_that_may_have_happened_is_not_asked_for_twice(node: Node, rpc: RpcNetwork) -> None:
    node.script(None)
    with pytest.raises(NetworkUnreachable):
        rpc.airdrop(KEY, SOL)
    assert node.methods() == ["requestAirdrop"]
    node.script(refused(-32603, "Internal error"))
    with pytest.raises(TransactionFailed, match=r"faucet .* paid nothing"):
        rpc.airdrop(KEY, SOL)


def test_an_unconfirmed_transaction_is_sent_again_byte_for_byte_until_it_is_dead(
    node: Node, rpc: RpcNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chain.network.rpc._REBROADCAST_SECONDS", 0.0)
    monkeypatch.setattr("chain.network.rpc._POLL_SECONDS", 0.01)
    tx = pay(Keypair(), KEY, SOL, Hash.new_unique())
    height = iter([8, 9, 10, 11, 12])

    def reply(request: dict[str, Any]) -> Reply:
        if request["method"] == "getEpochInfo":
            return epoch(next(height))
        if request["method"] in ("getBlockHeight", "getTransaction"):
            return ok(11 if request["method"] == "getBlockHeight" else None)
        return ok(str(tx.signatures[0])) if request["method"] == "sendTransaction" else valued([None])

    node.reply = reply
    assert rpc.send(tx) == tx.signatures[0]
    with pytest.raises(TransactionFailed, match="expired; it never will") as info:
        rpc.confirm(tx.signatures[0], 10)
    assert "fresh blockhash" in info.value.cure
    sent = [request["params"] for request in node.requests if request["method"] == "sendTransaction"]
    assert len(sent) == 4
    assert len({params[0] for params in sent}) == 1
    assert [params[1]["skipPreflight"] for params in sent] == [False, True, True, True]


def test_what_is_still_open_at_the_time_limit_says_so(node: Node, rpc: RpcNetwork) -> None:
    node.reply = lambda request: epoch(1) if request["method"] == "getEpochInfo" else valued([None])
    with pytest.raises(NetworkUnreachable, match="may still land") as info:
        rpc.confirm(Signature.default(), 10, timeout=0.1)
    assert "before sending anything again" in info.value.cure
    node.script((200, {}, b"<html>"))
    with pytest.raises(NetworkUnreachable, match=r"may still land.*is not a Solana RPC node"):
        rpc.confirm(Signature.default(), 10, timeout=0.1)


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[tuple[EmbeddedNetwork, str]]:
    embedded = EmbeddedNetwork(tmp_path, image=memo_image())
    with serve(embedded, port=0).start() as server:
        yield embedded, server.url
    embedded.close()


def test_a_lost_answer_does_not_send_twice(node: Node, rpc: RpcNetwork, chain: tuple[EmbeddedNetwork, str]) -> None:
    embedded, url = chain
    lost = [True]

    def forward(request: dict[str, Any]) -> Reply:
        answer = httpx.post(url, json=request, trust_env=False)
        if request["method"] == "sendTransaction" and lost.pop() if lost else False:
            return None
        return answer.status_code, {}, answer.content

    node.reply = forward
    alice, bob = Keypair(), Keypair().pubkey()
    embedded.airdrop(alice.pubkey(), 5 * SOL)
    blockhash = rpc.latest_blockhash()
    signature = rpc.send(pay(alice, bob, SOL, blockhash.hash))
    assert node.methods().count("sendTransaction") == 2
    assert rpc.confirm(signature, blockhash.last_valid_block_height).error is None
    assert embedded.balance(bob) == SOL


@pytest.mark.parametrize("first", [(200, {}, b"<html>"), None])
@pytest.mark.parametrize("then", [None, (200, {}, b'{"jsonrpc":"2.0","id":0,"res'), (403, {}, b"")])
def test_where_a_send_may_have_arrived_it_is_waited_for(
    node: Node, rpc: RpcNetwork, chain: tuple[EmbeddedNetwork, str], first: Reply, then: Reply
) -> None:
    """Whatever the node answers then, it is no reason to report a failure: what was sent did land."""
    embedded, url = chain
    spoiled = [first, then, then]

    def forward(request: dict[str, Any]) -> Reply:
        answer = httpx.post(url, json=request, trust_env=False)
        sending = request["method"] == "sendTransaction"
        waiting = request["method"] == "getSignatureStatuses" and len(spoiled) < 3
        return spoiled.pop(0) if spoiled and (sending or waiting) else (answer.status_code, {}, answer.content)

    node.reply = forward
    alice, bob = Keypair(), Keypair().pubkey()
    embedded.airdrop(alice.pubkey(), 5 * SOL)
    blockhash = rpc.latest_blockhash()
    signature = rpc.send(pay(alice, bob, SOL, blockhash.hash))
    assert rpc.confirm(signature, blockhash.last_valid_block_height).error is None
    assert not spoiled
    assert embedded.balance(bob) == SOL


def test_what_was_certainly_not_taken_is_a_failure(node: Node, rpc: RpcNetwork) -> None:
    node.script((403, {}, b"<html>"))
    with pytest.raises(NetworkUnreachable, match="HTTP status 403"):
        rpc.send(pay(Keypair(), KEY, SOL, Hash.new_unique()))


def test_a_swapped_transaction_is_not_believed(node: Node, rpc: RpcNetwork, chain: tuple[EmbeddedNetwork, str]) -> None:
    embedded, url = chain
    landed = embedded.airdrop(KEY, SOL)

    def swap(request: dict[str, Any]) -> Reply:
        request["params"][0] = str(landed)
        return 200, {}, httpx.post(url, json=request, trust_env=False).content

    node.reply = swap
    with pytest.raises(NetworkUnreachable, match="another transaction"):
        rpc.transaction(Signature.default())
    assert rpc.transaction(landed) is not None


def test_threads_share_one_client(chain: tuple[EmbeddedNetwork, str]) -> None:
    embedded, url = chain
    embedded.airdrop(KEY, SOL)
    rpc, errors = RpcNetwork(url), []

    def work() -> None:
        try:
            for _ in range(10):
                assert rpc.balance(KEY) == SOL
        except (AssertionError, ChainError) as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rpc.close()
    assert errors == []


def test_a_proxy_of_the_environment_does_not_see_a_local_node(
    chain: tuple[EmbeddedNetwork, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    rpc = RpcNetwork(chain[1])
    assert rpc.clock().slot >= 0
    rpc.close()


def test_a_node_is_asked_through_a_socks_proxy(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    with socks(urlsplit(node.url).port or 0) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{proxy.port}")
        rpc = RpcNetwork("http://far.example")
        assert rpc.balance(KEY) == 7
        rpc.close()
    assert proxy.asked == ["far.example"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:9", "http://127.0.0.1:9"),
        ("http://127.0.0.1:9/?api-key=SECRET", "http://127.0.0.1:9/..."),
        ("http://me:SECRET@127.0.0.1:9", "http://127.0.0.1:9/..."),
        ("http://127.0.0.1:9/v2/SECRETSECRETSECRET", "http://127.0.0.1:9/..."),
    ],
)
def test_the_key_of_a_paid_service_is_in_no_message(url: str, shown: str) -> None:
    rpc = RpcNetwork(url, call_seconds=0.2)
    assert rpc.name == shown
    with pytest.raises(NetworkUnreachable) as info:
        rpc.balance(KEY)
    assert shown in info.value.message
    assert "SECRET" not in info.value.message
    rpc.close()
