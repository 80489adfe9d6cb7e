"""A proxy that fails on purpose: it delays, drops, answers 429 and 500, truncates and lies."""

from __future__ import annotations

import itertools
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

import httpx

DELAY = "delay"  # longer than the client waits; the request was forwarded
DROP, LOSE = "drop", "lose"  # hang up before forwarding, or after it: then the work was done
LATE = "late"  # hang up, and forward only `seconds` later: what the client took for lost arrives after all
BUSY, BROKEN = "429", "500"
TRUNCATE, SHORT = "truncate", "short"  # half a body, of the length announced or (SHORT) announced as whole
LIE = "lie"  # a body of the same length with another content

HONEST = (DROP, LOSE, BUSY, BROKEN, TRUNCATE)
_FORWARDED = ("Content-Type", "x-chunking-version")

Plan = Callable[[str, str], str]
"""The fault for a method and path, "" for none."""


def fifth(seed: int, *faults: str) -> Plan:
    """Each fifth call or so fails, in these ways by turns."""
    rng, turns = random.Random(seed), itertools.cycle(faults)
    return lambda method, path: next(turns) if rng.random() < 0.2 else ""


def always(fault: str) -> Plan:
    return lambda method, path: fault


class Proxy:
    """Forwards to `upstream` what `plan` does not spoil; `done` counts the faults. A context manager.

    `alter` gets each request and its answer, and gives the answer that is passed on.
    """

    def __init__(
        self,
        upstream: str,
        plan: Plan = lambda method, path: "",
        *,
        seconds: float = 1.0,
        alter: Callable[[bytes, bytes], bytes] = lambda request, answer: answer,
    ) -> None:
        self.done: Counter[str] = Counter()
        self._late: list[threading.Timer] = []
        client, guard = httpx.Client(base_url=upstream, timeout=30, trust_env=False), threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with guard:
                    fault = plan(self.command, self.path)
                    proxy.done[fault] += 1
                if fault in (BUSY, BROKEN):
                    return self._send(int(fault), b"no", retry_after="0")
                if fault == DROP:
                    return self._hang_up()
                headers = {name: self.headers[name] for name in _FORWARDED if name in self.headers}
                request = client.build_request(self.command, self.path, content=body, headers=headers)
                if fault == LATE:
                    proxy._later(lambda: client.send(request), seconds)
                    return self._hang_up()
                got = client.send(request)
                if fault == DELAY:
                    time.sleep(seconds)
                if fault == LOSE:
                    return self._hang_up()
                data = alter(body, got.content)
                if fault == LIE and data:
                    data = data[:-1] + bytes([data[-1] ^ 1])
                if fault == SHORT:
                    data = data[: len(data) // 2]
                return self._send(got.status_code, data, cut=fault == TRUNCATE)

            do_POST = do_GET

            def _send(self, status: int, data: bytes, *, retry_after: str = "", cut: bool = False) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                if retry_after:
                    self.send_header("Retry-After", retry_after)
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if cut else data)
                if cut:
                    self._hang_up()

            def _hang_up(self) -> None:
                self.close_connection = True
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)

            def log_message(self, format: str, *args: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that gave up is what this is for."""

        self._http, self._client = Server(("127.0.0.1", 0), Handler), client
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def _later(self, forward: Callable[[], object], seconds: float) -> None:
        timer = threading.Timer(seconds, forward)
        self._late.append(timer)
        timer.start()

    def settle(self) -> None:
        """Wait until everything that was held back has arrived."""
        for timer in self._late:
            timer.join()

    @property
    def faults(self) -> int:
        """How many calls were spoiled."""
        return sum(count for fault, count in self.done.items() if fault)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.settle()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        self._client.close()
