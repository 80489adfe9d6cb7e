"""The local node's websocket: subscriptions over the embedded network (`chain.localnet.notifications`).

Rules: messages have the shapes of a real node (Agave), which takes any `…Unsubscribe` for any subscription and gives
the number that it gave before where the same is asked again; only loopback hosts and pages of this machine are
served; messages, connections and subscriptions are bounded. A connection's own thread looks at the network every
50 ms, which also sees what other processes write. A client that does not read makes its own thread wait, and is cut
off after 10 s; until then it misses nothing but older slots.
"""

from __future__ import annotations

import itertools
import json
import logging
import socket
import struct
import threading
from http import HTTPStatus
from typing import Any, Final

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from chain.localnet.context import NodeContext
from chain.localnet.notifications import KINDS, Feed, NewsSince, Position
from chain.localnet.parameters import INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR, Params, Refusal
from chain.network.embedded import EmbeddedNetwork
from common.loopback import LOCAL_ORIGIN, is_loopback

MAX_CONNECTIONS: Final = 32
MAX_SUBSCRIPTIONS: Final = 128  # of one connection
MAX_MESSAGE: Final = 16 << 10  # bytes
MAX_BATCH: Final = 32
POLL_SECONDS: Final = 0.05
SEND_SECONDS: Final = 10

_log = logging.getLogger(__name__)


class Subscriptions:
    """A websocket on `host`:`port`, listening from the moment it is made. Raises OSError if that fails."""

    def __init__(self, network: EmbeddedNetwork, host: str, port: int) -> None:
        self._context = NodeContext(network)
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._numbers = itertools.count()
        self._server = serve(
            self._handle,
            host,
            port,
            process_request=_welcome,
            origins=[None, LOCAL_ORIGIN],
            max_size=MAX_MESSAGE,
            compression=None,
            open_timeout=5,
            close_timeout=1,
        )
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Serve in the background."""
        self._thread = threading.Thread(target=self._server.serve_forever, name="solana-websocket", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hang up and stop listening."""
        if self._thread is None:
            self._server.socket.close()
        else:
            self._server.shutdown()
            self._thread.join()

    def _handle(self, connection: ServerConnection) -> None:
        if not self._free.acquire(blocking=False):
            connection.close(1013, "too many connections")
            return
        try:
            # The kernel then fails a write that waits for longer, and with it the connection.
            limit = struct.pack("ll", SEND_SECONDS, 0)
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            _Session(self._context, connection, self._numbers).run()
        except ConnectionClosed:
            pass
        except Exception:
            _log.debug("a connection to the local websocket broke", exc_info=True)
        finally:
            self._free.release()


class _Session:
    """One connection: its feeds by number."""

    def __init__(self, context: NodeContext, connection: ServerConnection, numbers: itertools.count[int]) -> None:
        self._context, self._connection, self._numbers = context, connection, numbers
        self._feeds: dict[int, Feed] = {}
        self._asked: dict[str, int] = {}
        self._position = Position(context.network)

    def run(self) -> None:
        while True:
            try:
                message = self._connection.recv(timeout=POLL_SECONDS)
            except TimeoutError:
                pass
            else:
                self._tell()  # what came before a new subscription is not for it
                self._send(self._answers(message))
            self._tell()

    def _send(self, value: object) -> None:
        self._connection.send(json.dumps(value, separators=(",", ":")))

    def _answers(self, message: str | bytes) -> object:
        try:
            request = json.loads(message)
        except (ValueError, RecursionError):
            return _answer(None, error={"code": PARSE_ERROR, "message": "Parse error"})
        if isinstance(request, list) and 0 < len(request) <= MAX_BATCH:
            return [self._one(one) for one in request]
        return self._one(request)

    def _one(self, request: object) -> dict[str, Any]:
        match request:
            case {"jsonrpc": "2.0", "id": int() | str() as number, "method": str(method), **rest}:
                params = rest.get("params")
            case _:
                return _answer(None, error={"code": INVALID_REQUEST, "message": "Invalid request"})
        try:
            if (kind := method.removesuffix("Unsubscribe")) != method and kind in KINDS:
                return _answer(number, result=self._unsubscribe(Params([] if params is None else params)))
            if (kind := method.removesuffix("Subscribe")) != method and kind in KINDS:
                return _answer(number, result=self._subscribe(kind, params))
            raise Refusal(METHOD_NOT_FOUND, "Method not found")
        except Refusal as refusal:
            return _answer(number, error=refusal.json())

    def _subscribe(self, kind: str, params: object) -> int:
        asked = json.dumps([kind, params], sort_keys=True)
        if asked in self._asked:
            return self._asked[asked]
        feed = KINDS[kind](self._context, Params([] if params is None else params))
        if len(self._feeds) >= MAX_SUBSCRIPTIONS:
            raise Refusal(INVALID_PARAMS, f"at most {MAX_SUBSCRIPTIONS} subscriptions")
        number = next(self._numbers)
        self._feeds[number], self._asked[asked] = feed, number
        return number

    def _unsubscribe(self, params: Params) -> bool:
        number = params.number(0)
        if number not in self._feeds:
            raise Refusal(INVALID_PARAMS, "Invalid subscription id.")
        self._forget(number)
        return True

    def _forget(self, number: int) -> None:
        del self._feeds[number]
        self._asked = {asked: held for asked, held in self._asked.items() if held != number}

    def _tell(self) -> None:
        since = self._position.next() or NewsSince(range(0), [], {})
        for number, feed in list(self._feeds.items()):
            for result in feed.news(since):
                params = {"result": result, "subscription": number}
                self._send({"jsonrpc": "2.0", "method": f"{feed.kind}Notification", "params": params})
            if feed.done:
                self._forget(number)


def _answer(number: int | str | None, **said: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", **said, "id": number}


def _welcome(connection: ServerConnection, request: Request) -> Response | None:
    """Refuse a host name that is not this machine's: a page that rebound its DNS."""
    if is_loopback(request.headers.get("Host") or ""):
        return None
    return connection.respond(HTTPStatus.FORBIDDEN, "this node serves its own machine, under a loopback name\n")
