"""A page on this machine that follows what it shows: for `miner report --serve`.

It listens on the loopback address alone, answers a request only if its `Host` names this machine (else it is a web page
that rebound its DNS), and only GET and HEAD of the page itself. Nothing that a request holds is used but these. A page
that did not change is not sent again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from common.errors import Refused
from common.loopback import LOOPBACK, is_loopback
from common.text import printable

SECONDS = 10.0  # that a client may take over its request


class Unserved(Refused):
    """The page cannot be served."""


class Page:
    """What `build` makes, made anew where `stamp` has changed; for several threads."""

    def __init__(self, build: Callable[[], str], stamp: Callable[[], object]) -> None:
        self._build, self._stamp, self._lock = build, stamp, threading.Lock()
        self._seen: object = None
        self._page, self._tag = b"", ""

    def current(self) -> tuple[bytes, str]:
        """The page, UTF-8, and its tag. Raises what `build` raises."""
        with self._lock:
            seen = self._stamp()
            if not self._tag or seen != self._seen:
                self._page, self._seen = self._build().encode(), seen
                self._tag = f'"{sha256(self._page).hexdigest()[:32]}"'
            return self._page, self._tag


@contextmanager
def serving(page: Page, port: int) -> Iterator[str]:
    """Serve it on `port` (0: any free one) until the block ends; gives its address. Unserved if the port is taken."""
    try:
        server = ThreadingHTTPServer((LOOPBACK[0], port), _handler(page))
    except OSError as error:
        raise Unserved(f"Port {port} cannot be used: {error.strerror}.", "Choose another with --port.") from None
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK[0]}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(page: Page) -> type[BaseHTTPRequestHandler]:
    class PageHandler(BaseHTTPRequestHandler):
        timeout = SECONDS
        server_version, sys_version = "report", ""

        def do_GET(self) -> None:
            status, body, tag = self._answer()
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8" if status == 200 else "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cross-Origin-Resource-Policy", "same-origin")
            self.send_header("X-Frame-Options", "DENY")
            if tag:
                self.send_header("ETag", tag)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def _answer(self) -> tuple[int, bytes, str]:
            if not is_loopback(self.headers.get("Host", "")):
                return 403, b"This page is for this machine only.\n", ""
            if self.path.partition("?")[0] != "/":
                return 404, b"There is one page here: /\n", ""
            try:
                body, tag = page.current()
            except Refused as error:
                return 503, printable(error.problem, 500).encode() + b"\n", ""
            return (304, b"", tag) if self.headers.get("If-None-Match") == tag else (200, body, tag)

        def log_message(self, *_: object) -> None:
            pass

    return PageHandler
