"""The embedded network as a Solana JSON-RPC node on this machine, so that any Solana tool works against it.

Rules: only loopback addresses are served, and only requests that name one in `Host` (`common.loopback`) and carry JSON;
a page of this machine may read the answers, one from elsewhere may not (CORS). Bodies, batches, answers' ranges and
connections are bounded. The methods are in `chain.localnet.methods`, subscriptions on the next port
(`chain.localnet.subscriptions`).
"""

from __future__ import annotations

import errno
import json
import logging
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from chain.errors import ChainError
from chain.localnet.methods import Methods
from chain.localnet.parameters import PARSE_ERROR
from chain.localnet.subscriptions import Subscriptions
from chain.network.embedded import EmbeddedNetwork
from common.loopback import LOOPBACK, cors, is_loopback

MAX_BODY = 256 << 10  # bytes
MAX_BATCH = 100
MAX_CONNECTIONS = 128
IDLE_SECONDS = 30.0

_log = logging.getLogger(__name__)


class Server:
    """A node on one port, listening from the moment it is made. `port` is the one it got.

    `run` serves until `close` (or Ctrl-C) in this thread, `start` in one of its own. The network stays open.
    """

    def __init__(self, network: EmbeddedNetwork, host: str, port: int) -> None:
        if host not in LOOPBACK:
            raise ChainError(
                f"The local node can only listen on this machine, not on {host}.", f"Use one of {', '.join(LOOPBACK)}."
            )
        # Any free port will do where none was asked for, but the next one must be free too.
        for tries_left in reversed(range(20 if port == 0 else 1)):
            try:
                self._http = _Http((host, port))
            except (OSError, OverflowError) as error:
                raise _unusable(host, port, error) from None
            next_port = int(self._http.server_address[1]) + 1
            try:
                self._subscriptions = Subscriptions(network, host, next_port)
                break
            except (OSError, OverflowError) as error:
                self._http.server_close()
                if not tries_left:
                    raise _unusable(host, next_port, error) from None
        self.port = next_port - 1
        self._http.RequestHandlerClass = _handler(Methods(network, self.port))
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        """Serve until closed."""
        self._subscriptions.start()
        self._http.serve_forever(poll_interval=0.1)

    def start(self) -> Server:
        """Serve in the background; gives itself, for `with serve(...).start() as node`."""
        self._thread = threading.Thread(target=self.run, name="solana-rpc", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop listening."""
        if self._thread is not None:
            self._http.shutdown()
            self._thread.join()
        self._http.server_close()
        self._subscriptions.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _unusable(host: str, port: int, error: Exception) -> ChainError:
    in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
    reason = "is in use" if in_use else f"cannot be used: {error}"
    return ChainError(
        f"Port {port} on {host} {reason}.", "Stop the program that uses it, or choose another port with --port."
    )


def serve(network: EmbeddedNetwork, host: str = "127.0.0.1", port: int = 8899) -> Server:
    """Listen on `host`:`port` (0: any free one). Raises ChainError if that fails."""
    return Server(network, host, port)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, BaseHTTPRequestHandler)

    def server_bind(self) -> None:
        # The base class asks DNS for this machine's name, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(timeout=1):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("a connection to the local node broke", exc_info=True)


def _handler(methods: Methods) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = IDLE_SECONDS
        wbufsize = -1  # one packet per answer: headers and body apart wait for each other's acknowledgement
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if self._welcome():
                found = self.path == "/health"
                self._reply(200 if found else 404, b"ok" if found else b"not found", "text/plain")

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not self._welcome():
                return
            if self.path not in ("/", ""):
                self._end(404, "not found")
            elif self.headers.get_content_type() != "application/json":
                self._end(415, "Content-Type must be application/json")
            elif not length.isdecimal() or "Transfer-Encoding" in self.headers:
                self._end(411, "Content-Length is needed")
            elif len(length) > 9 or int(length) > MAX_BODY:
                self._end(413, f"at most {MAX_BODY} bytes")
            else:
                body = self.rfile.read(int(length))
                if len(body) == int(length):
                    self._reply(200, _respond(methods, body), "application/json")

        def do_OPTIONS(self) -> None:
            if self._welcome():
                self._reply(200, b"", "text/plain")

        def _welcome(self) -> bool:
            if not is_loopback(self.headers.get("Host", "")):
                self._end(403, "this node serves its own machine, under a loopback name")
                return False
            return True

        def _end(self, status: int, text: str) -> None:
            self.close_connection = True  # the body was not read
            self._reply(status, text.encode(), "text/plain")

        def _reply(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            for name, value in cors(self.headers.get("Origin", "")).items():
                self.send_header(name, value)
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            _log.debug(format, *args)

    return Handler


def _respond(methods: Methods, body: bytes) -> bytes:
    """The answer to one body: a request or a batch."""
    answer: object
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        answer = {"jsonrpc": "2.0", "error": {"code": PARSE_ERROR, "message": "Parse error"}, "id": None}
    else:
        if isinstance(request, list) and 0 < len(request) <= MAX_BATCH:
            answers = [methods.answer(one) for one in request]
            answer = [one for one in answers if one is not None] or None
        else:
            answer = methods.answer(request)
    return b"" if answer is None else json.dumps(answer, separators=(",", ":")).encode()
