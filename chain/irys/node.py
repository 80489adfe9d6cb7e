"""A local Irys node: uploader and gateway with Irys's HTTP contract, over a folder of content.

What the official JavaScript client and `chain.irys.client` ask of uploader and gateway is here. Storage is free
(price 0) and every account has a large balance, so that clients never refuse; with a `Tariff` uploads are paid
for, 402 included, by deposits that the node looks up on a Solana network. Layout of the store:

    items/<hex id[:2]>/<hex id>   the raw signed item, which proves itself; written whole or not at all
    accounts/<hex owner>/…        what was deposited and charged (`chain.irys.accounts`)
    chunks/<upload>/<offset>      pieces of unfinished chunked uploads, dropped after a day
    key.pem                       RSA-4096, mode 0600, made when the first receipt is signed (seconds)
    lock                          held while something new is written, by any number of processes

Rules: only items whose signature holds are stored; an item is charged once, before it is stored; bodies, paths
and headers are bounded; a tag reaches an HTTP header only where it is plain printable ASCII.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.server
import json
import re
import secrets
import shutil
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from solders.pubkey import Pubkey
from solders.signature import Signature

from chain.errors import ChainError, InsufficientFunds, InvalidData, NotFound
from chain.irys.accounts import FREE, Accounts, Tariff, deposit_of
from chain.irys.dataitem import DataItem, ItemId, base64url, text_readings
from chain.irys.receipt import Receipt, generate_key, public_modulus, sign_receipt
from chain.network.base import Network
from common.closing import Closing
from common.files import locked, write_atomic

MAX_ITEM_BYTES = 256 << 20
MIN_CHUNK, MAX_CHUNK, MAX_UPLOADS = 500_000, 95_000_000, 64
_MAX_JSON = 1 << 16
_UPLOAD_LIFETIME = 24 * 3600.0
_BALANCE = 10**15
_DEADLINE_BLOCKS = 200_000
_SECONDS_PER_BLOCK = 120


class LocalNode:
    """The store and its rules, without HTTP. Safe for several threads and processes on one folder.

    `network` is where deposits are looked up; without one every deposit is taken for granted and credits nothing.
    """

    def __init__(
        self,
        store: Path,
        *,
        max_item: int = MAX_ITEM_BYTES,
        tariff: Tariff = FREE,
        network: Network | None = None,
    ) -> None:
        self.store, self.max_item = store, max_item
        self.tariff, self.network = tariff, network
        self.accounts = Accounts(store / "accounts")
        if network is not None and network.is_local and network.balance(self.deposit_address) == 0:
            # Else a first deposit below the rent exemption would be refused, unlike with a real uploader.
            network.airdrop(self.deposit_address, network.rent(0))
        self._key: rsa.RSAPrivateKey | None = None
        try:
            store.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ChainError(
                f"Cannot create the store {store} ({error.strerror}).", "Choose another folder."
            ) from error

    @property
    def deposit_address(self) -> Pubkey:
        """Where deposits go: a fixed address without a key, so nobody can take what is paid here."""
        return Pubkey.from_bytes(hashlib.sha256(b"local irys node: no deposit needed").digest())

    def key(self) -> rsa.RSAPrivateKey:
        """The node's receipt key, made once for the store."""
        if self._key is None:
            path = self.store / "key.pem"
            with locked(self.store / "key.lock"):
                if not path.exists():
                    pem = generate_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
                    write_atomic(path, pem, mode=0o600)
            try:
                key = load_pem_private_key(path.read_bytes(), password=None)
            except ValueError as error:
                raise InvalidData(f"{path} is not a private key.", "Delete it; a new one will be made.") from error
            if not isinstance(key, rsa.RSAPrivateKey) or key.key_size != 4096:
                raise InvalidData(f"{path} is not an RSA-4096 key.", "Delete it; a new one will be made.")
            self._key = key
        return self._key

    def balance(self, owner: Pubkey) -> int:
        """Lamports that uploads of `owner` may still cost."""
        return self.accounts.balance(owner) if self.tariff != FREE else _BALANCE

    def deposit(self, signature: Signature) -> None:
        """Credit a transfer to `deposit_address`, once however often it is named.

        NotFound until the network knows the transaction, InvalidData if it is not such a transfer.
        """
        if self.network is None:
            return
        payer, lamports = deposit_of(self.network.transaction(signature), signature, self.deposit_address)
        self.accounts.credit(payer, signature, lamports)

    def path(self, item_id: bytes) -> Path:
        return self.store / "items" / item_id.hex()[:2] / item_id.hex()

    def item(self, item_id: bytes) -> DataItem:
        """A stored item, verified, or NotFound; InvalidData if the file is damaged."""
        try:
            raw = self.path(item_id).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"There is no item {ItemId(item_id)} here.", "Check the ID.") from error
        item = DataItem.parse(raw)
        if item.id != item_id or not item.is_valid:
            raise InvalidData(f"The file of item {ItemId(item_id)} is damaged.", "Upload the item again.")
        return item

    def receive(self, raw: bytes) -> Receipt | None:
        """Verify and store an encoded item; its receipt, or None if it was here already.

        InvalidData if it does not parse, does not verify or is too large, InsufficientFunds if its owner
        has not deposited what it costs.
        """
        if len(raw) > self.max_item:
            raise InvalidData(f"The item has {len(raw)} bytes; the limit here is {self.max_item}.")
        item = DataItem.parse(raw)
        item.verify()
        path, now = self.path(item.id), time.time()
        receipt = sign_receipt(
            self.key(),
            item.id,
            timestamp=int(now * 1000),
            deadline_height=int(now) // _SECONDS_PER_BLOCK + _DEADLINE_BLOCKS,
        )
        with locked(self.store / "lock"):
            if self._holds(path, raw):
                return None
            self.accounts.charge(Pubkey.from_bytes(item.owner), item.id, self.tariff.price(len(raw)))
            write_atomic(path, raw)
        return receipt

    @staticmethod
    def _holds(path: Path, raw: bytes) -> bool:
        """Whether the file is there and whole; a damaged one is replaced by what was just verified."""
        try:
            return path.read_bytes() == raw
        except FileNotFoundError:
            return False

    # -- chunked uploads --------------------------------------------------------------------------

    def open_upload(self) -> str:
        """A new chunked upload's id; uploads older than a day are dropped first."""
        folder = self.store / "chunks"
        with locked(self.store / "lock"):
            live = 0
            for upload in folder.iterdir() if folder.is_dir() else ():
                if time.time() - upload.stat().st_mtime > _UPLOAD_LIFETIME:
                    shutil.rmtree(upload, ignore_errors=True)
                else:
                    live += 1
            if live >= MAX_UPLOADS:
                raise InvalidData(f"{live} chunked uploads are unfinished.", "Finish those first, or wait.")
            name = secrets.token_hex(16)
            (folder / name).mkdir(parents=True)
        return name

    def chunks(self, upload: str) -> list[tuple[int, int]]:
        """(offset, size) of the pieces received, by offset; NotFound for an unknown upload."""
        return [(offset, path.stat().st_size) for offset, path in self._pieces(upload)]

    def add_chunk(self, upload: str, offset: int, data: bytes) -> None:
        """Keep one piece; pieces come in any order and may be repeated."""
        with locked(self.store / "lock"):
            held = sum(size for at, size in self.chunks(upload) if at != offset)
            if max(held, offset) + len(data) > self.max_item:
                raise InvalidData(f"The item is larger than the limit here, {self.max_item} bytes.")
            write_atomic(self.store / "chunks" / upload / str(offset), data)

    def finish_upload(self, upload: str) -> Receipt | None:
        """Join the pieces and receive the item, as `receive`; what was uploaded is dropped unless a piece
        is missing (InvalidData names where)."""
        parts: list[bytes] = []
        at = 0
        for offset, path in self._pieces(upload):
            if offset != at:
                raise InvalidData(f"The upload lacks the bytes from {at} to {offset}.", "Upload them.")
            parts.append(path.read_bytes())
            at += len(parts[-1])
        try:
            return self.receive(b"".join(parts))
        finally:
            shutil.rmtree(self.store / "chunks" / upload, ignore_errors=True)

    def _pieces(self, upload: str) -> list[tuple[int, Path]]:
        try:
            names = [path for path in (self.store / "chunks" / upload).iterdir() if path.name.isdecimal()]
        except FileNotFoundError as error:
            raise NotFound("There is no such upload; it may have expired.", "Start it again.") from error
        return sorted((int(path.name), path) for path in names)


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
        self._receipt(node.receive(self._body(node.max_item)))

    def _receipt(self, receipt: Receipt | None) -> None:
        if receipt is None:
            self._text(HTTPStatus.CREATED, "Already received")
        else:
            self._json(receipt.json())

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
        self._receipt(node.finish_upload(upload))

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
        item = _find(node, item_id)
        kind = item.tag("Content-Type") or ""
        plain = kind.isascii() and kind.isprintable() and 0 < len(kind) <= 200
        self._send(HTTPStatus.OK, kind if plain else "application/octet-stream", item.data)

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

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        if self._unread:  # the rest of the body would be taken for the next request
            self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
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
        ("GET", f"/{_ID}", _Handler._content),
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
) -> RunningNode:
    """Serve the store over HTTP in threads of this process; port 0 takes a free one (see `.url`)."""
    node = LocalNode(store, max_item=max_item, tariff=tariff, network=network)
    try:
        server = _Server((host, port), _Handler)
    except (OSError, OverflowError) as error:
        used = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        problem = "is in use" if used else f"cannot be opened ({error})"
        raise ChainError(f"Port {port} of {host} {problem}.", "Choose another port.") from error
    server.node = node
    return RunningNode(node, server)
