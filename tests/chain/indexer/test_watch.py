"""`chain watch` end to end: the node's websocket, the client on it, dropped sockets, and the command."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.pubkey import Pubkey
from solders.signature import Signature
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_socket

from chain.commands.main import main
from chain.connection.opening import Connection
from chain.errors import ChainError, NetworkUnreachable
from chain.indexer.rules import Follower
from chain.indexer.store import IndexedEvent
from chain.indexer.watch import Dropped, Notification, Subscription, parse_notification, watch, websocket_url
from chain.localnet.server import Server, serve
from chain.localnet.subscriptions import MAX_SUBSCRIPTIONS
from chain.network.base import Network
from chain.network.embedded import EmbeddedNetwork
from chain.network.rpc import RpcNetwork
from chain.program import PROGRAM_ID
from tests import local
from tests.common.socks import socks

SECONDS = 30.0  # for what takes milliseconds on an idle machine


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with local.connect(local.home_with_project(tmp_path / "home")) as connection:
        yield connection


@pytest.fixture
def rpc(node: Server) -> Iterator[RpcNetwork]:
    rpc = RpcNetwork(node.url)
    yield rpc
    rpc.close()


@pytest.fixture
def node(connection: Connection) -> Iterator[Server]:
    with serve(local.embedded_of(connection), port=0).start() as node:
        yield node


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


# --- the node's websocket ---


def open_socket(url: str, **options: Any) -> None:
    with connect(url, proxy=None, **options):
        pass


def say(client: Any, method: str, *params: object, number: object = 1) -> Any:
    client.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)}))
    return json.loads(client.recv(timeout=SECONDS))


def test_the_node_tells_of_logs(connection: Connection, node: Server) -> None:
    embedded = local.embedded_of(connection)
    with connect(websocket_url(node.url), proxy=None) as client:
        stranger = Pubkey.new_unique()
        assert say(client, "logsSubscribe", {"mentions": [str(PROGRAM_ID)]}) == {"jsonrpc": "2.0", "result": 0, "id": 1}
        assert say(client, "logsSubscribe", {"mentions": [str(stranger)]})["result"] == 1
        embedded.airdrop(Pubkey.new_unique(), 10**9)  # names neither
        local.propose(connection)
        told = [json.loads(client.recv(timeout=SECONDS)) for _ in range(2)]
        for message in told:
            assert (message["method"], message["params"]["subscription"]) == ("logsNotification", 0)
            value = message["params"]["result"]["value"]
            record = embedded.record(Signature.from_string(value["signature"]))
            assert record is not None
            assert (value["err"], value["logs"]) == (None, list(record.logs))
            assert message["params"]["result"]["context"]["slot"] == record.slot
        assert say(client, "logsUnsubscribe", 0)["result"] is True
        assert "error" in say(client, "logsUnsubscribe", 0)
        embedded.airdrop(stranger, 10**9)
        assert json.loads(client.recv(timeout=SECONDS))["params"]["subscription"] == 1


def test_the_node_tells_what_another_process_writes(connection: Connection, node: Server) -> None:
    with connect(websocket_url(node.url), proxy=None) as client:
        say(client, "logsSubscribe", "all", {"commitment": "finalized"})
        other = EmbeddedNetwork(connection.home)
        signature = other.airdrop(Pubkey.new_unique(), 10**9)
        other.close()
        assert json.loads(client.recv(timeout=SECONDS))["params"]["result"]["value"]["signature"] == str(signature)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", -32700),
        ("[]", -32600),
        ("{}", -32600),
        ('{"jsonrpc": "2.0", "method": "logsSubscribe"}', -32600),
        ('{"jsonrpc": "2.0", "id": 1, "method": "voteSubscribe"}', -32601),
        ('{"jsonrpc": "2.0", "id": 1, "method": "logsSubscribe"}', -32602),
        ('{"jsonrpc": "2.0", "id": 1, "method": "logsSubscribe", "params": [{"mentions": ["x"]}]}', -32602),
        ('{"jsonrpc": "2.0", "id": 1, "method": "logsSubscribe", "params": [{"mentions": []}]}', -32602),
        ('{"jsonrpc": "2.0", "id": 1, "method": "logsUnsubscribe", "params": [7]}', -32602),
        ("[" * 10_000, -32700),
    ],
)
def test_bad_messages_are_refused(shared_node: Server, message: str, code: int) -> None:
    with connect(websocket_url(shared_node.url), proxy=None) as client:
        client.send(message)
        assert json.loads(client.recv(timeout=SECONDS))["error"]["code"] == code


def test_what_is_bounded_and_who_is_served(shared_node: Server) -> None:
    url = websocket_url(shared_node.url)
    with connect(url, proxy=None) as client:
        for _ in range(MAX_SUBSCRIPTIONS):
            last = Pubkey.new_unique()
            assert "result" in say(client, "accountSubscribe", str(last))
        assert "result" in say(client, "accountSubscribe", str(last))  # the same once more is no more
        assert "at most" in say(client, "accountSubscribe", str(Pubkey.new_unique()))["error"]["message"]
        client.send("x" * 100_000)
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=SECONDS)
    with pytest.raises(InvalidStatus):
        open_socket(url, additional_headers={"Origin": "https://example.com"})
    with pytest.raises(InvalidStatus):
        open_socket("ws://evil.example", sock=socket.create_connection(("127.0.0.1", shared_node.port + 1)))


@pytest.fixture(scope="module")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    embedded = EmbeddedNetwork(tmp_path_factory.mktemp("node"))
    with serve(embedded, port=0).start() as node:
        yield node
    embedded.close()


def test_a_node_whose_next_port_is_taken(tmp_path: Path) -> None:
    embedded = EmbeddedNetwork(tmp_path)
    with contextlib.ExitStack() as held:
        for _ in range(50):  # until the port below is free as well
            taken, below = (held.enter_context(socket.socket()) for _ in range(2))
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            try:
                below.bind(("127.0.0.1", taken.getsockname()[1] - 1))
            except OSError:
                continue
            below.close()
            break
        port = taken.getsockname()[1]
        with pytest.raises(ChainError, match=str(port)):
            serve(embedded, port=port - 1)
    embedded.close()


# --- the client ---


@pytest.mark.parametrize(
    ("url", "websocket"),
    [
        ("http://127.0.0.1:8899", "ws://127.0.0.1:8900"),
        ("https://api.devnet.solana.com", "wss://api.devnet.solana.com"),
        ("https://rpc.example/path?api-key=1", "wss://rpc.example/path?api-key=1"),
        ("https://user:pw@rpc.example:443/x", "wss://user:pw@rpc.example:444/x"),
        ("http://[::1]:8899", "ws://[::1]:8900"),
    ],
)
def test_where_the_websocket_is(url: str, websocket: str) -> None:
    assert websocket_url(url) == websocket


SIGNATURE = str(Signature.default())


def notification(**value: object) -> str:
    whole = {"signature": SIGNATURE, "err": None, "logs": ["a"], **value}
    result = {"context": {"slot": 7}, "value": whole}
    return json.dumps({"jsonrpc": "2.0", "method": "logsNotification", "params": {"subscription": 3, "result": result}})


def test_notifications_are_parsed_strictly() -> None:
    assert parse_notification(notification(), 3) == Notification(Signature.default(), 7, False, ("a",))
    failed = parse_notification(notification(err={"InstructionError": [0, {"Custom": 1}]}), 3)
    assert failed is not None
    assert failed.failed
    assert parse_notification(notification(), 4) is None
    assert parse_notification('{"jsonrpc": "2.0", "id": 9, "result": true}', 3) is None
    for bad in (
        notification(signature="x"),
        notification(signature=7),
        notification(logs=[1]),
        notification(logs="a"),
        notification().replace("7", "-1"),
        notification().replace('"err": null, ', ""),
        "no json",
        "[]",
        b"\xff\xfe",
    ):
        with pytest.raises(Dropped):
            parse_notification(bad, 3)


@settings(deadline=None)
@given(st.one_of(st.text(), st.binary(), st.recursive(st.none() | st.text(), st.lists).map(json.dumps)))
def test_any_message_is_a_notification_or_dropped(raw: str | bytes) -> None:
    with contextlib.suppress(Dropped):
        assert parse_notification(raw, 0) is None


class Watching:
    """`watch` in a thread; what it tells and says. `started`: its first step was made."""

    def __init__(self, network: Network, path: Path, url: str | None, every: float = 0.2) -> None:
        self.events: list[IndexedEvent] = []
        self.words: list[str] = []
        self.started = False
        self.failure: BaseException | None = None
        self._stop = threading.Event()

        def tell(found: Sequence[IndexedEvent]) -> None:
            self.events += found
            self.started = True

        def run() -> None:
            try:
                with Follower(network, 0, path) as follower:
                    watch(follower, tell, self.words.append, url=url, every=every, stop=self._stop)
            except BaseException as error:
                self.failure = error

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def kinds(self) -> list[str]:
        return [type(event.event).__name__ for event in self.events]

    def said(self, words: str) -> bool:
        return any(words in line for line in self.words)

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(SECONDS)
        if self.failure:
            raise self.failure


PROPOSED = ["Bought", "ProposalSubmitted"]


def test_the_websocket_tells_at_once(connection: Connection, rpc: RpcNetwork, tmp_path: Path) -> None:
    with Watching(rpc, tmp_path / "index.sqlite", websocket_url(rpc.url), every=3600) as watching:
        until(lambda: watching.started)
        assert watching.said("listening")
        local.propose(connection)
        until(lambda: watching.kinds() == PROPOSED)  # no poll is due for an hour
        assert all(event.time is None for event in watching.events)


def test_polling_where_there_is_no_websocket(connection: Connection, rpc: RpcNetwork, tmp_path: Path) -> None:
    with Watching(rpc, tmp_path / "index.sqlite", None) as watching:
        until(lambda: watching.started)
        local.propose(connection)
        until(lambda: watching.kinds() == PROPOSED)
        assert all(event.time is not None and event.final for event in watching.events)


class Flaky:
    """A websocket between client and node that hangs up after each notification, or when told to."""

    def __init__(self, target: str) -> None:
        self.connections = 0
        self.refuse = False

        def handle(client: ServerConnection) -> None:
            self.connections += 1
            if self.refuse:
                client.close()
                return
            with connect(target, proxy=None) as upstream:
                upstream.send(client.recv())
                client.send(upstream.recv())
                client.send(upstream.recv())  # one notification, the rest is lost

        self._server = serve_socket(handle, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()


def test_a_dropped_socket_loses_nothing(
    connection: Connection, rpc: RpcNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chain.indexer.watch._FIRST_PAUSE", 0.05)
    flaky = Flaky(websocket_url(rpc.url))
    with Watching(rpc, tmp_path / "index.sqlite", flaky.url) as watching:
        until(lambda: watching.started)
        for _ in range(3):
            local.propose(connection)
        until(lambda: len(watching.events) >= 6)
        assert sorted(watching.kinds()) == sorted(PROPOSED * 3)
        assert len({(event.signature, event.position) for event in watching.events}) == 6
        until(lambda: flaky.connections >= 2)
        assert watching.said("the connection broke")
        flaky.refuse = True
        local.propose(connection)
        until(lambda: len(watching.events) == 8)
        until(lambda: watching.said("polling every"))
    flaky.close()


def test_it_subscribes_through_a_socks_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(client: ServerConnection) -> None:
        assert json.loads(client.recv())["method"] == "logsSubscribe"
        client.send('{"jsonrpc": "2.0", "id": 1, "result": 7}')

    server = serve_socket(handle, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with socks(server.socket.getsockname()[1]) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{proxy.port}")
        Subscription("ws://far.example", PROGRAM_ID).close()
        assert proxy.asked == ["far.example"]
    server.shutdown()
    with pytest.raises(Dropped, match="accepts no subscription: "):  # the proxy is gone
        Subscription("ws://far.example", PROGRAM_ID)


@pytest.mark.parametrize("answer", ["{}", "nonsense", '{"id": 1, "error": {"code": 1, "message": "no"}}', None])
def test_a_node_that_answers_a_subscription_with_nonsense(answer: str | None) -> None:
    def handle(client: ServerConnection) -> None:
        client.recv()
        if answer is not None:
            client.send(answer)
        else:
            client.close()

    server = serve_socket(handle, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(Dropped):
        Subscription(f"ws://127.0.0.1:{server.socket.getsockname()[1]}", PROGRAM_ID, open_seconds=1)
    server.shutdown()


def test_a_node_that_falls_silent_and_comes_back(connection: Connection, tmp_path: Path) -> None:
    embedded = local.embedded_of(connection)
    silent = threading.Event()

    class Moody:
        def __getattr__(self, name: str) -> Any:
            if name == "final_slot" and silent.is_set():
                raise NetworkUnreachable("The node does not answer.")
            return getattr(embedded, name)

    network: Any = Moody()
    with Watching(network, tmp_path / "index.sqlite", None, every=0.05) as watching:
        until(lambda: watching.started)
        silent.set()
        until(lambda: watching.said("does not answer"))
        local.propose(connection)
        time.sleep(0.2)
        silent.clear()
        until(lambda: watching.kinds() == PROPOSED)
        until(lambda: watching.said("is back"))
        assert [line for line in watching.words if "does not answer" in line] == ["The node does not answer. Retrying."]


# --- the command ---


def chain(*arguments: object) -> Result:
    environment = {"ARMLX_NETWORK": None, "ARMLX_HOME": None, "ARMLX_IRYS": None}
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env=environment)


def test_once_reads_prints_and_ends(connection: Connection) -> None:
    local.propose(connection)
    home = connection.home
    first = chain("watch", "--once", "--json", "--home", home)
    assert first.exit_code == 0, first.output
    events = [json.loads(line) for line in first.stdout.splitlines()]
    assert [event["event"] for event in events][-2:] == PROPOSED
    assert events[-1]["fields"]["stake"] == local.STAKE
    assert (events[-1]["final"], events[-1]["removed"]) == (True, False)
    assert chain("watch", "--once", "--json", "--home", home).stdout == ""  # nothing is new
    again = chain("watch", "--project", "0", "--once", "--since", "all", "--home", home)
    assert len(again.stdout.splitlines()) == len(events)
    assert "ProposalSubmitted   proposal 0" in again.stdout
    assert "claimed val_bpb 2.400000" in again.stdout
    local.propose(connection)
    third = chain("watch", "--once", "--home", home).stdout.splitlines()
    assert len(third) == 2
    assert chain("watch", "--once", "--since", "2000-01-01", "--home", home).stdout.count("\n") == len(events) + 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--project", "7", "--once"], 1, "There is no project 7"),
        (["--since", "yesterday"], 2, "is not a valid time"),
        (["--since", "99999-01-01"], 2, "is not a valid time"),
        (["--every", "0"], 2, "--every"),
    ],
)
def test_what_watch_refuses(connection: Connection, arguments: list[str], code: int, words: str) -> None:
    result = chain("watch", *arguments, "--home", connection.home)
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr


def test_watching_until_interrupted(connection: Connection, node: Server) -> None:
    home = connection.home / "elsewhere"
    known = chain("watch", "--once", "--json", "--network", node.url, "--home", home)
    assert len(known.stdout.splitlines()) >= 2
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ARMLX_")}
    command = [sys.executable, "-m", "chain.commands.main", "watch", "--json", "--network", node.url, "--every", "0.2"]
    process = subprocess.Popen(
        [*command, "--home", str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    local.propose(connection)
    lines = [json.loads(process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGINT)
    rest, words = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert [line["event"] for line in lines] == PROPOSED
    assert rest == ""
    assert "to resume" in words
    assert "Traceback" not in words
