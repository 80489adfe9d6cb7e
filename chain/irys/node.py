"""A local Irys node: uploader and gateway with Irys's HTTP contract, over a folder of content (`chain.irys.items`).

What the official JavaScript clients and `chain.irys.client` ask of uploader and gateway is here, folders of files
(`chain.irys.manifest`) and searches by tag (`chain.irys.graphql`) included.

Rules: bodies, paths and headers are bounded; a tag reaches an HTTP header only where it is plain printable ASCII;
pages of this machine may read the answers (`common.loopback`), and what is served runs no script of its own.
"""

from __future__ import annotations

import contextlib
import errno
import http.server
import json
import re
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qs, unquote

from solders.pubkey import Pubkey
from solders.signature import Signature

from chain.errors import ChainError, InsufficientFunds, InvalidData, NotFound
from chain.irys.accounts import FREE, Tariff
from chain.irys.dataitem import DataItem, ItemId, base64url, text_readings
from chain.irys.items import MAX_ITEM_BYTES, LocalNode
from chain.irys.manifest import resolve
from chain.irys.ranges import Unsatisfiable, byte_range
from chain.irys.receipt import public_modulus
from chain.network.base import Network
from common.closing import Closing
from common.loopback import cors

MIN_CHUNK, MAX_CHUNK = 500_000, 95_000_000
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_MAX_JSON = 1 << 16


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    node: LocalNode

    def server_bind(self) -> None:
        """Without the reverse look-up of the host's name, which takes seconds on some machines."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that disconnects is not an error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "LocalIrysNode/0.1", ""
    timeout, disable_nagle_algorithm = 60, True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the commands that serve a node print what a user needs."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_OPTIONS(self) -> None:
        self._unread = False
        self._text(HTTPStatus.OK, "")

    def _answer(self, method: str) -> None:
        self._unread = method == "POST"
        path = self.path.partition("?")[0]
        try:
            for verb, pattern, action in _ROUTES:
                if verb == method and (match := pattern.fullmatch(path)):
                    return action(self, self.server.node, **match.groupdict())
            self._text(HTTPStatus.NOT_FOUND, f"{method} {path[:100]} does not exist on this node.")
        except NotFound as error:
            self._text(HTTPStatus.NOT_FOUND, error.message)
        except InsufficientFunds as error:
            self._text(HTTPStatus.PAYMENT_REQUIRED, error.message)
        except ChainError as error:
            self._text(HTTPStatus.BAD_REQUEST, error.message)
        except _TooLarge as error:
            self._text(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error))
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except OSError as error:
            self._text(HTTPStatus.INTERNAL_SERVER_ERROR, f"The store failed: {error.strerror}.")

    # -- routes -----------------------------------------------------------------------------------

    def _info(self, node: LocalNode) -> None:
        self._json({"version": "0.1.0", "addresses": {"solana": str(node.deposit_address)}})

    def _public(self, node: LocalNode) -> None:
        self._text(HTTPStatus.OK, public_modulus(node.key()))

    def _price(self, node: LocalNode, size: str) -> None:
        self._text(HTTPStatus.OK, str(node.tariff.price(int(size))))

    def _balance(self, node: LocalNode) -> None:
        fields = parse_qs(self.path.partition("?")[2][:200])
        with _invalid("The address must be a Solana address in base58."):
            owner = Pubkey.from_string(fields["address"][0])
        self._json({"balance": str(node.balance(owner))})

    def _deposit(self, node: LocalNode) -> None:
        with _invalid('The body must be {"tx_id": a transaction signature in base58}.'):
            signature = Signature.from_string(json.loads(self._body(_MAX_JSON))["tx_id"])
        node.deposit(signature)
        self._json({"confirmed": True})

    def _upload(self, node: LocalNode) -> None:
        self._json(node.receive(self._body(node.max_item)).json())

    def _graphql(self, node: LocalNode) -> None:
        from chain.irys.graphql import query

        with _invalid("The body must be JSON."):
            request = json.loads(self._body(_MAX_JSON))
        self._json(query(node, request))

    def _open_chunks(self, node: LocalNode) -> None:
        self._json({"id": node.open_upload(), "min": MIN_CHUNK, "max": MAX_CHUNK})

    def _list_chunks(self, node: LocalNode, upload: str) -> None:
        held = node.chunks(upload)
        self._json(
            {
                "id": upload,
                "min": MIN_CHUNK,
                "max": MAX_CHUNK,
                "size": max((size for _, size in held), default=0),
                "chunks": held[::-1],  # the official client takes them from the end
            }
        )

    def _add_chunk(self, node: LocalNode, upload: str, offset: str) -> None:
        node.chunks(upload)
        node.add_chunk(upload, int(offset), self._body(MAX_CHUNK))
        self._text(HTTPStatus.OK, "OK")

    def _finish_chunks(self, node: LocalNode, upload: str) -> None:
        self._body(_MAX_JSON)
        self._json(node.finish_upload(upload).json())

    def _metadata(self, node: LocalNode, item_id: str) -> None:
        item = _find(node, item_id)
        self._json(
            {
                "id": str(item.id),
                "currency": "solana",
                "address": str(Pubkey.from_bytes(item.owner)),
                "owner": base64url(item.owner),
                "signature": base64url(item.signature),
                "signatureType": item.signature_type,
                "target": base64url(item.target),
                "anchor": base64url(item.anchor),
                "tags": [{"name": name, "value": value} for name, value in item.tags],
                "data_size": str(len(item.data)),
                "raw_size": str(item.size),
            }
        )

    def _status(self, node: LocalNode, item_id: str) -> None:
        self._json({"id": str(_find(node, item_id).id), "status": "FINALIZED"})

    def _content(self, node: LocalNode, item_id: str) -> None:
        self._item(_find(node, item_id))

    def _page(self, node: LocalNode, item_id: str) -> None:
        """An item; a folder that has an index shows that."""
        item = _find(node, item_id)
        index = resolve(item, "")
        self._item(item if index is None else _find(node, index))

    def _file(self, node: LocalNode, item_id: str, path: str) -> None:
        found = resolve(_find(node, item_id), unquote(path))
        if found is None:
            raise NotFound(f"There is no {path[:100]} in {item_id}.", "Check the path.")
        self._item(_find(node, found))

    def _item(self, item: DataItem) -> None:
        kind = item.tag("Content-Type") or ""
        plain = kind.isascii() and kind.isprintable() and 0 < len(kind) <= 200
        shown = kind if plain else "application/octet-stream"
        try:
            wanted = byte_range(self.headers.get("Range", ""), len(item.data))
        except Unsatisfiable:
            headers = {"Content-Range": f"bytes */{len(item.data)}"}
            return self._send(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "text/plain; charset=utf-8", b"", headers)
        headers = {"Accept-Ranges": "bytes"}
        if wanted is None:
            return self._send(HTTPStatus.OK, shown, item.data, headers)
        headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{len(item.data)}"
        return self._send(HTTPStatus.PARTIAL_CONTENT, shown, item.data[wanted.start : wanted.stop], headers)

    # -- bytes in and out -------------------------------------------------------------------------

    def _body(self, limit: int) -> bytes:
        """The request's body, whole; TooLarge, InvalidData (no length) or ConnectionError (cut off)."""
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not re.fullmatch("[0-9]{1,15}", length):
            self.close_connection = True
            raise InvalidData("A request needs a Content-Length and no Transfer-Encoding.")
        if int(length) > limit:
            self.close_connection = True
            raise _TooLarge(f"The body has {length} bytes; the limit is {limit}.")
        body = self.rfile.read(int(length))
        self._unread = False
        if len(body) < int(length):
            raise ConnectionError("the body ended early")
        return body

    def _json(self, value: object) -> None:
        self._send(HTTPStatus.OK, "application/json; charset=utf-8", json.dumps(value).encode())

    def _text(self, status: HTTPStatus, text: str) -> None:
        self._send(status, "text/plain; charset=utf-8", text.encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> None:
        if self._unread:  # the rest of the body would be taken for the next request
            self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in {**headers, **cors(self.headers.get("Origin", ""))}.items():
            self.send_header(name, value)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", "sandbox")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        if self._unread:
            self._drain()

    def _drain(self) -> None:
        """Read on for a while: closing on a client that still writes would destroy the answer on its way."""
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(2)
        for _ in range(1024):
            if not self.rfile.read1(1 << 16):
                break


def _find(node: LocalNode, text: str) -> DataItem:
    """The item that `text` names, in base58 or base64url; a text may be both."""
    readings = [ItemId(raw) for raw in text_readings(text, 32)]
    held = [item_id for item_id in readings if node.path(item_id).exists()]
    return node.item((held or readings or [ItemId.from_text(text)])[0])


class _TooLarge(Exception):
    """A body over the limit: answered 413."""


@contextlib.contextmanager
def _invalid(problem: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidData(problem) from error


_ID, _UPLOAD_ID = "(?P<item_id>[A-Za-z0-9_-]{32,44})", "(?P<upload>[0-9a-f]{32})"
_ROUTES: list[tuple[str, re.Pattern[str], Callable[..., None]]] = [
    (verb, re.compile(pattern), action)
    for verb, pattern, action in (
        ("GET", "/info", _Handler._info),
        ("GET", "/public", _Handler._public),
        ("GET", "/price/solana/(?P<size>[0-9]{1,15})", _Handler._price),
        ("GET", "/account/balance/solana", _Handler._balance),
        ("POST", "/account/balance/solana", _Handler._deposit),
        ("POST", "/tx/solana", _Handler._upload),
        ("GET", "/chunks/solana/-1/-1", _Handler._open_chunks),
        ("GET", f"/chunks/solana/{_UPLOAD_ID}/-1", _Handler._list_chunks),
        ("POST", f"/chunks/solana/{_UPLOAD_ID}/-1", _Handler._finish_chunks),
        ("POST", f"/chunks/solana/{_UPLOAD_ID}/(?P<offset>[0-9]{{1,12}})", _Handler._add_chunk),
        ("GET", f"/tx/{_ID}", _Handler._metadata),
        ("GET", f"/tx/{_ID}/data", _Handler._content),
        ("GET", f"/tx/{_ID}/status", _Handler._status),
        ("POST", "/graphql", _Handler._graphql),
        ("GET", f"/{_ID}", _Handler._page),
        ("GET", f"/{_ID}/(?P<path>.{{0,2000}})", _Handler._file),
    )
]


class RunningNode(Closing):
    """A node that is being served; a context manager that stops it."""

    def __init__(self, node: LocalNode, server: _Server) -> None:
        self.node, self._server = node, server
        host, port = server.server_address[:2]
        self.host, self.port = str(host), int(port)
        self._thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def wait(self) -> None:
        """Block until `close` is called from elsewhere, or an interrupt comes."""
        self._thread.join()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve(
    store: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    max_item: int = MAX_ITEM_BYTES,
    tariff: Tariff = FREE,
    network: Network | None = None,
    option: str = "--port",
) -> RunningNode:
    """Serve the store over HTTP in threads of this process; port 0 takes a free one (see `.url`).

    `option` is the one by which the user chose the port.
    """
    node = LocalNode(store, max_item=max_item, tariff=tariff, network=network)
    try:
        server = _Server((host, port), _Handler)
    except (OSError, OverflowError) as error:
        used = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        problem = "is in use" if used else f"cannot be opened ({error})"
        raise ChainError(
            f"Port {port} of {host} {problem}.", f"Stop the program that uses it, or choose another port with {option}."
        ) from error
    server.node = node
    return RunningNode(node, server)
