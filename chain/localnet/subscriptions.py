"""The local node's websocket: `logsSubscribe` and `logsUnsubscribe` over the embedded network.

Rules: messages have the shapes of a real node (Agave); every transaction is final at once, so every commitment
gives the same; only loopback hosts, and no web pages (those send an Origin), are served; messages, connections
and subscriptions are bounded. A connection's own thread looks at the network every 50 ms, which also sees what
other processes write.
"""

from __future__ import annotations

import json
import logging
import threading
from http import HTTPStatus
from typing import Any, Final

from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from chain.localnet.parameters import INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR
from chain.network.embedded import EmbeddedNetwork
from chain.network.ledger import LandedTransaction

MAX_CONNECTIONS: Final = 32
MAX_SUBSCRIPTIONS: Final = 16  # of one connection
MAX_MESSAGE: Final = 16 << 10  # bytes
POLL_SECONDS: Final = 0.05
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")

_log = logging.getLogger(__name__)


class Subscriptions:
    """A websocket on `host`:`port`, listening from the moment it is made. Raises OSError if that fails."""

    def __init__(self, network: EmbeddedNetwork, host: str, port: int) -> None:
        self._network = network
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._server = serve(
            self._handle,
            host,
            port,
            process_request=_welcome,
            origins=[None],
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
            _Session(self._network, connection).run()
        except ConnectionClosed:
            pass
        except Exception:
            _log.debug("a connection to the local websocket broke", exc_info=True)
        finally:
            self._free.release()


class _Session:
    """One connection: its subscriptions by number, each a program or None for all."""

    def __init__(self, network: EmbeddedNetwork, connection: ServerConnection) -> None:
        self._network, self._connection = network, connection
        self._wanted: dict[int, Pubkey | None] = {}
        self._next = 0
        self._slot = network.clock().slot

    def run(self) -> None:
        while True:
            try:
                message = self._connection.recv(timeout=POLL_SECONDS)
            except TimeoutError:
                pass
            else:
                self._connection.send(json.dumps(self._answer(message)))
            self._notify()

    def _answer(self, message: str | bytes) -> dict[str, Any]:
        try:
            request = json.loads(message)
        except (ValueError, RecursionError):
            return _refusal(None, PARSE_ERROR, "Parse error")
        match request:
            case {"jsonrpc": "2.0", "id": int() | str() as number, "method": str(method)}:
                params = request.get("params")
            case _:
                return _refusal(None, INVALID_REQUEST, "Invalid request")
        if method == "logsSubscribe":
            return self._subscribe(number, params)
        if method == "logsUnsubscribe":
            match params:
                case [int(subscription)] if subscription in self._wanted:
                    del self._wanted[subscription]
                    return _result(number, True)
            return _refusal(number, INVALID_PARAMS, "Invalid subscription id.")
        return _refusal(number, METHOD_NOT_FOUND, "Method not found")

    def _subscribe(self, number: int | str, params: object) -> dict[str, Any]:
        wanted: Pubkey | None = None
        match params:
            case ["all" | "allWithVotes", *_]:
                pass
            case [{"mentions": [str(address)]}, *_] if len(address) <= 44:
                try:
                    wanted = Pubkey.from_string(address)
                except ValueError:
                    return _refusal(number, INVALID_PARAMS, "Invalid param: Invalid")
            case _:
                return _refusal(number, INVALID_PARAMS, "Invalid params: all, or mentions of one address, was expected")
        if len(self._wanted) >= MAX_SUBSCRIPTIONS:
            return _refusal(number, INVALID_PARAMS, f"at most {MAX_SUBSCRIPTIONS} subscriptions")
        if not self._wanted:
            self._slot = self._network.clock().slot
        subscription, self._next = self._next, self._next + 1
        self._wanted[subscription] = wanted
        return _result(number, subscription)

    def _notify(self) -> None:
        if not self._wanted:
            return
        for record in self._network.records_after(self._slot):
            self._slot = record.slot
            keys = _keys(record)
            for subscription, wanted in self._wanted.items():
                if wanted is None or wanted in keys:
                    self._connection.send(json.dumps(_notification(record, subscription)))


def _keys(record: LandedTransaction) -> list[Pubkey]:
    message = VersionedTransaction.from_bytes(record.wire).message
    return message.account_keys if isinstance(message, Message | MessageV0) else []


def _notification(record: LandedTransaction, subscription: int) -> dict[str, Any]:
    value = {"signature": str(record.signature), "err": record.error, "logs": record.logs}
    return {
        "jsonrpc": "2.0",
        "method": "logsNotification",
        "params": {"result": {"context": {"slot": record.slot}, "value": value}, "subscription": subscription},
    }


def _result(number: int | str, result: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "result": result, "id": number}


def _refusal(number: int | str | None, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "error": {"code": code, "message": message}, "id": number}


def _welcome(connection: ServerConnection, request: Request) -> Response | None:
    """Refuse a host name that is not this machine's: a page that rebound its DNS."""
    host = request.headers.get("Host") or ""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() in LOOPBACK:
        return None
    return connection.respond(HTTPStatus.FORBIDDEN, "this node serves its own machine, under a loopback name\n")
