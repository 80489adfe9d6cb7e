"""The one HTTP client against a server that misbehaves in one way at a time."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from common.errors import Refused
from common.http import ANY_HOST, HttpClient, on_this_machine
from tests.common.socks import socks


class Unreachable(Refused):
    pass


class Unusable(Refused):
    pass


Answer = Callable[[socket.socket, bytes], object]


def whole(request: bytes) -> bool:
    head, end, body = request.partition(b"\r\n\r\n")
    length = next((line.split(b":")[1] for line in head.splitlines() if line.startswith(b"Content-Length:")), b"0")
    return bool(end) and len(body) >= int(length)


class Server:
    """Gives each connection's request, by its order, to an answer; the last one answers all further ones."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[bytes] = []
        self.over = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                request = b""
                while not whole(request) and (piece := connection.recv(1 << 16)):
                    request += piece
                self.asked.append(request)
                answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
                with contextlib.suppress(OSError):
                    answer(connection, request)

    def close(self) -> None:
        self.over.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def says(status: int, body: bytes = b"", *headers: str) -> Answer:
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return lambda to, _: to.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def client(**options: Any) -> HttpClient:
    return HttpClient(unreachable=Unreachable, unusable=Unusable, **{"limit": 10.0, **options})


def get(server: Server, path: str = "/", **options: Any) -> bytes:
    with client(**options) as http:
        return http.call("GET", server.url + path, max_bytes=100).body


def test_an_answer_with_any_status_comes_back(server: Server) -> None:
    server.answers = [says(200, b"fine"), says(404, b"no\x1b[31m", "Retry-After: 1.5")]
    with client() as http:
        assert http.call("GET", server.url).body == b"fine"
        missing = http.call("POST", server.url, b"content", headers={"X-Kind": "test"})
    assert (missing.status, missing.text, missing.retry_after) == (404, "no[31m", 1.5)
    assert b"X-Kind: test" in server.asked[1]
    assert server.asked[1].endswith(b"content")


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"])
def test_the_limit_holds_whatever_drips_in(server: Server, part: bytes) -> None:
    """A byte now and then, in the headers too, renews the limit of one read and never that of the whole."""

    def drip(to: socket.socket, _: bytes) -> None:
        to.sendall(part)
        while not server.over.wait(0.05):
            to.sendall(b"x" if part else b"")

    server.answers = [drip]
    started = time.monotonic()
    with pytest.raises(Unreachable, match="took too long"):
        get(server, limit=0.5, timeout=5.0)
    assert time.monotonic() - started < 4.0


def test_too_many_bytes_and_compressed_ones_are_unusable(server: Server) -> None:
    server.answers = [says(200, b"x" * 101), says(200, b"x" * 101), says(200, b"x", "Content-Encoding: gzip")]
    for words in ("more than 100 bytes", "more than 100 bytes", "compressed"):
        with pytest.raises(Unusable, match=words):
            get(server)
    server.answers.append(says(200, b"x" * 100))
    assert get(server) == b"x" * 100


def test_busy_and_broken_servers_are_asked_again_after_growing_pauses(server: Server) -> None:
    waits: list[float] = []
    server.answers = [says(503), lambda *_: None, says(429, b"", "Retry-After: 7"), says(200, b"at last")]
    assert get(server, attempts=4, backoff=1.0, sleep=waits.append) == b"at last"
    assert 0.5 <= waits[0] <= 1.5
    assert 1.0 <= waits[1] <= 3.0
    assert waits[2] == 7.0
    server.answers = [says(500, b"oops")]
    with client(attempts=3, sleep=waits.append) as http:
        assert http.call("GET", server.url).status == 500
    assert (len(waits), len(server.asked)) == (5, 7)


def test_what_cannot_work_is_not_tried_again() -> None:
    waits: list[float] = []
    for url in ("ftp://nowhere", "http://", "nothing", "http://127.0.0.1:99999"):
        with client(attempts=3, sleep=waits.append) as http, pytest.raises(Unreachable, match="did not answer"):
            http.call("GET", url)
    assert waits == []


def test_a_redirect_is_an_answer_unless_hosts_are_listed(server: Server) -> None:
    server.answers = [says(302, b"there", "Location: /there"), says(200, b"here")]
    assert get(server) == b"there"
    server.answers = [says(302, b"there", "Location: /there")] * 2 + [says(200, b"here")]
    assert get(server, redirects=("elsewhere.example",)) == b"here"  # the same host needs no listing
    assert server.asked[-1].startswith(b"GET /there ")
    server.answers = [says(302, b"", "Location: /again")]
    with pytest.raises(Unreachable, match="redirects"):
        get(server, redirects=ANY_HOST)
    assert len(server.asked) == 9
    with client(redirects=ANY_HOST) as http:
        assert http.call("POST", server.url, b"once").status == 302


def misled(source: str, target: str, *allowed: str) -> str:
    with client(redirects=allowed) as http:
        return http._misled(httpx.URL(source), httpx.URL(target))


@pytest.mark.parametrize(
    ("source", "target", "allowed", "why"),
    [
        ("https://a.example/x", "https://b.example/y", ("*",), ""),
        ("https://a.example/x", "https://b.example/y", ("b.example",), ""),
        ("https://a.example/x", "https://c.b.example/y", (".b.example",), ""),
        ("https://a.example/x", "https://a.example/y", ("b.example",), ""),
        ("https://a.example/x", "https://evilb.example/y", (".b.example", "b.example"), "not allowed"),
        ("https://a.example/x", "http://a.example/y", ("*",), "not encrypted"),
        ("https://a.example/x", "https://127.0.0.1/y", ("*",), "this machine"),
        ("http://a.example/x", "http://localhost:8899/y", ("*",), "this machine"),
        ("http://127.0.0.1:1/x", "http://localhost:2/y", ("*",), ""),
    ],
)
def test_where_a_redirect_may_lead(source: str, target: str, allowed: tuple[str, ...], why: str) -> None:
    found = misled(source, target, *allowed)
    assert why in found
    assert bool(why) == bool(found)


def test_a_redirect_that_misleads_is_named(server: Server) -> None:
    server.answers = [says(302, b"", "Location: http://other.example/x")]
    with pytest.raises(Unusable, match=r"redirects to http://other\.example/x: that host is not allowed"):
        get(server, redirects=("hub.example",))


def test_a_server_on_this_machine_is_reached_past_a_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, server.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    server.answers = [says(200, b"fine")]
    assert get(server) == b"fine"
    assert server.asked[-1].startswith(b"GET / ")
    with client() as http:  # anything else goes through it
        assert http.call("GET", "http://far.example/x").body == b"fine"
    assert server.asked[-1].startswith(b"GET http://far.example/x ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks://127.0.0.1:1080"),
        ("HTTPS_PROXY", "ftp://127.0.0.1"),
        ("HTTPS_PROXY", "http://127.0.0.1:99999"),
        ("NO_PROXY", "localhost,[::1]"),
        ("NO_PROXY", "fd00:1:2::/64"),
        ("SSL_CERT_FILE", "/nonexistent.pem"),
    ],
)
def test_settings_of_the_environment_that_are_of_no_use(
    server: Server, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """One line, and nothing of it matters to a server on this machine."""
    for other in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"):
        monkeypatch.delenv(other, raising=False)
        monkeypatch.delenv(other.lower(), raising=False)
    monkeypatch.setenv(name, value)
    if name == "NO_PROXY":
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with client() as http, pytest.raises(Unreachable) as refusal:
        http.call("GET", "https://far.invalid/")
    assert "\n" not in refusal.value.message
    if "PROXY" not in name:  # an https:// server that is far needs them; the message says which cannot be read
        assert f"({name}={value}) cannot be read: No such file or directory" in refusal.value.message
    server.answers = [says(200, b"fine")]
    assert get(server) == b"fine"


def test_a_socks_proxy_looks_up_the_host(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers = [says(200, b"fine")]
    with socks(server.port) as proxy, client() as http:
        monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{proxy.port}")
        assert http.call("GET", "http://far.example/x").body == b"fine"
    assert proxy.asked == ["far.example"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_loopback_hosts(host: str) -> None:
    assert on_this_machine(host)
    assert not on_this_machine(f"{host}.example" if host != "::1" else "::2")


def test_a_file_is_saved_whole_or_not_at_all(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf of it"
    with client(attempts=2, sleep=lambda _: None) as http:
        server.answers = [lambda to, _: to.sendall(cut), says(200, b"all of it")]
        http.save(server.url, path, max_bytes=100)
        assert path.read_bytes() == b"all of it"
        for answer, kind in (
            (lambda to, _: to.sendall(cut), Unreachable),
            (says(404, b"not here"), Unusable),
            (says(200, b"x" * 101), Unusable),
        ):
            server.answers = [answer]
            with pytest.raises(kind):
                http.save(server.url, path, max_bytes=100)
            assert path.read_bytes() == b"all of it"
    assert list(path.parent.iterdir()) == [path]
