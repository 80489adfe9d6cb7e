"""What a local Irys node keeps and its rules, without HTTP (`chain.irys.node` serves it).

Storage is free (price 0) and every account has a large balance, so that clients never refuse; with a `Tariff` uploads
are paid for, 402 included, by deposits that the node looks up on a Solana network. Layout of the store:

    items/<hex id[:2]>/<hex id>   the raw signed item, which proves itself; written whole or not at all
    accounts/<hex owner>/…        what was deposited and charged (`chain.irys.accounts`)
    chunks/<upload>/<offset>      pieces of unfinished chunked uploads, dropped after a day
    key.pem                       RSA-4096, mode 0600, made when the first receipt is signed (seconds)
    lock                          held while something new is written, by any number of processes

Rules: only items whose signature holds are stored; an item is charged once, before it is stored; one that is here
already is received again for nothing, with a receipt of when it first came.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from solders.pubkey import Pubkey
from solders.signature import Signature

from chain.errors import ChainError, InvalidData, NotFound
from chain.irys.accounts import FREE, Accounts, Tariff, deposit_of
from chain.irys.dataitem import DataItem, ItemId, Tag
from chain.irys.receipt import Receipt, generate_key, sign_receipt
from chain.network.base import Network
from common.files import locked, write_atomic

MAX_ITEM_BYTES = 256 << 20
MAX_UPLOADS = 64
_UPLOAD_LIFETIME = 24 * 3600.0
_BALANCE = 10**15
_DEADLINE_BLOCKS = 200_000
_SECONDS_PER_BLOCK = 120


@dataclass(frozen=True, slots=True)
class Entry:
    """An item in the store's list: what can be asked for without its data. `timestamp` in ms since 1970."""

    id: ItemId
    owner: str
    signature: bytes
    tags: tuple[Tag, ...]
    timestamp: int
    size: int


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
        self._entries: dict[str, Entry] = {}
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

    def receive(self, raw: bytes) -> Receipt:
        """Verify and store an encoded item; its receipt, also if it was here already.

        InvalidData if it does not parse, does not verify or is too large, InsufficientFunds if its owner
        has not deposited what it costs.
        """
        if len(raw) > self.max_item:
            raise InvalidData(f"The item has {len(raw)} bytes; the limit here is {self.max_item}.")
        item = DataItem.parse(raw)
        item.verify()
        path, key = self.path(item.id), self.key()
        with locked(self.store / "lock"):
            if not self._holds(path, raw):
                self.accounts.charge(Pubkey.from_bytes(item.owner), item.id, self.tariff.price(len(raw)))
                write_atomic(path, raw)
            came = _came(path)
        return _receipt(key, item.id, came)

    def receipt(self, item_id: bytes) -> Receipt:
        """A stored item's receipt, or NotFound."""
        try:
            came = _came(self.path(item_id))
        except FileNotFoundError as error:
            raise NotFound(f"There is no item {ItemId(item_id)} here.", "Check the ID.") from error
        return _receipt(self.key(), ItemId(item_id), came)

    def entries(self) -> list[Entry]:
        """All items, the oldest first. What was read once is remembered; a damaged file is left out."""
        found = {}
        for path in self.store.glob("items/??/*"):
            known = self._entries.get(path.name)
            entry = known if known is not None else _entry(path)
            if entry is not None:
                found[path.name] = entry
        self._entries = found
        return sorted(found.values(), key=lambda entry: (entry.timestamp, entry.id))

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

    def finish_upload(self, upload: str) -> Receipt:
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


def _came(path: Path) -> int:
    """When an item came, in milliseconds since 1970."""
    return path.stat().st_mtime_ns // 10**6


def _receipt(key: rsa.RSAPrivateKey, item_id: ItemId, came: int) -> Receipt:
    deadline = came // 1000 // _SECONDS_PER_BLOCK + _DEADLINE_BLOCKS
    return sign_receipt(key, item_id, timestamp=came, deadline_height=deadline)


def _entry(path: Path) -> Entry | None:
    try:
        item = DataItem.parse(path.read_bytes())
        came = _came(path)
    except (OSError, ChainError):
        return None
    if bytes(item.id).hex() != path.name:
        return None
    return Entry(item.id, str(Pubkey.from_bytes(item.owner)), item.signature, item.tags, came, len(item.data))
