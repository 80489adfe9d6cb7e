"""Irys over HTTP: upload signed data items to an uploader, fetch content from gateways.

Rules:
 1. Nothing an uploader or gateway says is trusted: receipts are verified, content is returned only when it
    has the SHA-256 asked for, and an owner is named only when their signature over this very content holds.
 2. Every call is bounded: size, time (per read and as a whole), attempts, redirects.
 3. 429, 5xx and broken connections are tried again with jitter; a lie or a plain refusal is not, the next
    gateway is asked instead, and where none is left the error names each with what it did.
 4. A gateway that lied (content of another hash, forged metadata, more than the limit) is reported by name with
    what it returned, also where the next one has the truth, and is asked last from then on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self, TypeVar

from solders.pubkey import Pubkey

from chain.errors import ChainError, InsufficientFunds, InvalidData, NetworkUnreachable, NotFound
from chain.irys.dataitem import DataItem, ItemId, Tag
from chain.irys.http import IrysHttp, parse_json
from chain.irys.metadata import ItemMetadata
from chain.irys.receipt import Receipt
from chain.irys.store import ContentCache, check_sha256
from chain.network.base import sol
from common.closing import Closing
from common.http import MAX_REPLY, HttpReply, readable

APP_NAME = "OpenResearch AutoResearch"
CHUNK_THRESHOLD, CHUNK_BYTES = 50_000_000, 25_000_000
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Base URLs, without a closing slash: one uploader, and gateways in the order they are asked; the
    uploader is asked last, because it has a new item before the gateways do."""

    uploader: str
    gateways: tuple[str, ...]


DEVNET = Endpoints("https://devnet.irys.xyz", ("https://devnet.irys.xyz",))


class Role(StrEnum):
    """What an artifact is, in its `Artifact-Role` tag; the names existing OpenResearch clients use."""

    PROTOCOL = "protocol"
    REPO_SNAPSHOT = "repoSnapshot"
    BENCHMARK = "benchmark"
    BASELINE_METRICS = "baselineMetrics"
    VERIFIER_METRICS = "verifierMetrics"
    VERIFIER_REJECT_EVIDENCE = "verifierRejectEvidence"
    MINER_TRACE = "minerTrace"
    PROPOSAL_CODE = "proposalCode"
    BENCHMARK_LOG = "benchmarkLog"


def artifact_tags(role: str, sha256: bytes, content_type: str, extra: Iterable[Tag] = ()) -> tuple[Tag, ...]:
    """The tags of an OpenResearch artifact; `role` a Role or its text, `sha256` of the data."""
    try:
        known = Role(role)
    except ValueError as error:
        roles = ", ".join(Role)
        raise InvalidData(f"{role!r} is not an artifact role.", f"Use one of {roles}.") from error
    return (
        ("App-Name", APP_NAME),
        ("Artifact-Role", known.value),
        ("SHA-256", sha256.hex()),
        ("Content-Type", content_type),
        *extra,
    )


@dataclass(frozen=True, slots=True)
class Artifact:
    """Content with the expected SHA-256. `owner` (32 bytes) and `tags` are those of the verified data item;
    where `signature_checked` is False no gateway gave the metadata to check it: owner None, no tags."""

    data: bytes
    owner: bytes | None
    tags: tuple[Tag, ...]
    signature_checked: bool

    @property
    def sha256(self) -> bytes:
        return hashlib.sha256(self.data).digest()


def ignore(_: InvalidData) -> None:
    """Ignore a report."""


class Irys(Closing):
    """A client of one uploader and some gateways.

    `cache` is a folder for fetched and uploaded content; `receipt_key` pins the uploader's RSA modulus
    (base64url); `report` gets every wrong answer of a gateway. `timeout` bounds one connect, read or write and
    `limit` one whole attempt, in seconds; `attempts` is per server; `backoff` seconds is the first wait
    between attempts, doubled each time, that `sleep` does. Thread-safe; a context manager that closes its
    connections.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        cache: Path | None = None,
        receipt_key: str | None = None,
        report: Callable[[InvalidData], None] = ignore,
        timeout: float = 20.0,
        limit: float = 600.0,
        attempts: int = 4,
        backoff: float = 0.5,
        sleep: Callable[[float], None] = time.sleep,
        chunk_threshold: int = CHUNK_THRESHOLD,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self.endpoints = endpoints
        self.cache = ContentCache(cache) if cache else None
        self._receipt_key, self._report = receipt_key, report
        self._chunk_threshold, self._chunk_bytes = chunk_threshold, chunk_bytes
        self._http = IrysHttp(timeout=timeout, limit=limit, attempts=attempts, backoff=backoff, sleep=sleep)
        self._liars: set[str] = set()

    @classmethod
    def at(cls, url: str, **options: Any) -> Self:
        """A client of one server that is both uploader and gateway, such as a local node."""
        return cls(Endpoints(url.rstrip("/"), (url.rstrip("/"),)), **options)

    def preferring(self, gateways: Sequence[str]) -> Self:
        """This client, from now on asking `gateways` before its own."""
        more = tuple(gateway.rstrip("/") for gateway in gateways)
        self.endpoints = Endpoints(self.endpoints.uploader, (*more, *self.endpoints.gateways))
        return self

    def close(self) -> None:
        self._http.close()

    # -- uploader ---------------------------------------------------------------------------------

    def price(self, size: int) -> int:
        """Lamports for an item of `size` bytes."""
        return _whole(self._uploader(f"/price/solana/{size}").body.decode(errors="replace"), "The price")

    def balance(self, address: Pubkey | str) -> int:
        """Lamports that `address` has deposited with the uploader."""
        reply = parse_json(self._uploader(f"/account/balance/solana?address={address}").body, "The uploader")
        return _whole(reply.get("balance") if isinstance(reply, dict) else None, "The balance")

    def deposit_address(self) -> Pubkey:
        """Where a transfer of lamports becomes balance, once it is final and `post_deposit` names it."""
        reply = parse_json(self._uploader("/info").body, "The uploader")
        try:
            return Pubkey.from_string(reply["addresses"]["solana"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidData("The uploader's /info has no Solana address.") from error

    def post_deposit(self, signature: str) -> None:
        """Tell the uploader of a finalized transfer to `deposit_address`; may be repeated."""
        self._uploader("/account/balance/solana", json.dumps({"tx_id": signature}).encode(), (200, 202))

    def upload(self, item: DataItem) -> Receipt | None:
        """Store an item; returns the verified receipt, or None if the uploader had the item already (201).

        Raises InsufficientFunds (what to pay, to whom), InvalidData (refused, or a receipt that does not
        verify), NetworkUnreachable. Repeating it is safe: the same item is the same id.
        """
        item.verify()
        large = item.size >= self._chunk_threshold
        if large and self.price(item.size) > self.balance(Pubkey.from_bytes(item.owner)):
            raise self._shortfall(item, "known before sending")
        raw = item.encode()
        reply = self._upload_chunks(raw) if large else self._post_item(raw)
        if reply.status == 402:
            raise self._shortfall(item, repr(reply.text))
        if reply.status == 201 or (large and reply.status == 404 and self._is_there(item)):
            receipt = None  # 404: the answer to the call that closed the upload was lost
        elif reply.status == 200:
            receipt = Receipt.parse(parse_json(reply.body, "The uploader"))
            receipt.verify(item.id, public=self._receipt_key)
        else:
            raise self._http.refused(self.endpoints.uploader, "the upload", reply)
        self._keep(item.data)
        return receipt

    def _post_item(self, raw: bytes) -> HttpReply:
        return self._http.call("POST", f"{self.endpoints.uploader}/tx/solana", raw)

    def _upload_chunks(self, raw: bytes) -> HttpReply:
        """The uploader's protocol for large items; a failed upload starts again from nothing."""
        base, version = f"{self.endpoints.uploader}/chunks/solana", {"x-chunking-version": "2"}
        reply = self._http.call("GET", f"{base}/-1/-1", headers=version)
        if reply.status != 200:
            return reply
        start = parse_json(reply.body, "The uploader")
        upload = start.get("id") if isinstance(start, dict) else None
        if not isinstance(upload, str) or not upload.replace("-", "").isalnum() or len(upload) > 128:
            raise InvalidData("The uploader opened a chunked upload without a usable id.")
        for offset in range(0, len(raw), self._chunk_bytes):
            piece = raw[offset : offset + self._chunk_bytes]
            reply = self._http.call("POST", f"{base}/{upload}/{offset}", piece, headers=version)
            if reply.status >= 300:
                return reply
        return self._http.call("POST", f"{base}/{upload}/-1", b"", headers=version)

    def _is_there(self, item: DataItem) -> bool:
        return self._http.call("GET", f"{self.endpoints.uploader}/tx/{item.id}").status == 200

    def _shortfall(self, item: DataItem, why: str) -> InsufficientFunds:
        """The refusal of an item that is not paid for, with the numbers as far as the uploader tells them."""
        owner = Pubkey.from_bytes(item.owner)
        problem = f"The uploader {self.endpoints.uploader} requires payment for {item.size} bytes ({why})."
        try:
            price, balance, address = self.price(item.size), self.balance(owner), self.deposit_address()
        except ChainError:
            return InsufficientFunds(
                problem,
                f"Deposit SOL with it from the wallet {owner} (`chain irys price {item.size}` shows how much, "
                "`chain irys fund SOL` pays it), then upload again.",
            )
        missing = max(price - balance, 1)
        return InsufficientFunds(
            f"{problem} It costs {sol(price)} and the wallet {owner} has {sol(balance)} deposited.",
            f"Run `chain irys fund --lamports {missing}` with it: this transfers {sol(missing)} to {address} "
            "and has the uploader credit it. Then upload again.",
        )

    def _uploader(self, path: str, content: bytes | None = None, expected: Sequence[int] = (200,)) -> HttpReply:
        kind = {"Content-Type": "application/json"} if content else None
        reply = self._http.call("POST" if content else "GET", self.endpoints.uploader + path, content, headers=kind)
        if reply.status not in expected:
            raise self._http.refused(self.endpoints.uploader, path.partition("?")[0], reply)
        return reply

    # -- gateways ---------------------------------------------------------------------------------

    def get(self, item_id: bytes | str, *, sha256: bytes, max_bytes: int) -> bytes:
        """The content with this SHA-256, from the cache or the first gateway that has it.

        Raises NotFound if every gateway lacks it, InvalidData if one sent something else (expected and
        found hash) and none the right thing, NetworkUnreachable otherwise.
        """
        wanted = ItemId.of(item_id)
        if self.cache and (data := self.cache.get(sha256, max_bytes)) is not None:
            return data

        def fetch(gateway: str) -> bytes:
            path = f"/{wanted}" if gateway in self.endpoints.gateways else f"/tx/{wanted}/data"
            data = self._fetch(gateway, path, max_bytes)
            what = f"{len(data)} bytes beginning with {readable(data, 40)!r}"
            check_sha256(data, sha256, f"What the gateway {gateway} sent for item {wanted} ({what})")
            return data

        data = self._first(fetch, f"item {wanted}")
        self._keep(data)
        return data

    def _keep(self, data: bytes) -> None:
        """Store in the cache; a full disk must not lose the content just verified."""
        if self.cache:
            with contextlib.suppress(OSError):
                self.cache.put(data)

    def item(self, item_id: bytes | str) -> ItemMetadata:
        """What the first gateway that answers `/tx/<id>` says of an item. Unverified."""
        wanted = ItemId.of(item_id)
        return self._first(lambda gateway: self._metadata(gateway, wanted), f"the metadata of item {wanted}")

    def fetch_verified(
        self,
        item_id: bytes | str,
        *,
        sha256: bytes,
        owner: bytes | None = None,
        max_bytes: int,
        require_signature: bool = False,
    ) -> Artifact:
        """The content with this SHA-256 and, from a gateway's metadata, the verified owner and tags.

        InvalidData if every gateway with metadata gives some that does not make a signed item of this id
        and content, or where the verified owner is not `owner` (32 bytes). Where no gateway gives complete
        metadata the content comes with `signature_checked` False, or with `require_signature` not at all
        (NotFound, NetworkUnreachable).
        """
        wanted = ItemId.of(item_id)
        data = self.get(wanted, sha256=sha256, max_bytes=max_bytes)

        def rebuild(gateway: str) -> DataItem:
            metadata = self._metadata(gateway, wanted)
            if not (metadata.signature and metadata.owner):
                raise NotFound(f"The gateway {gateway} has no signature for item {wanted}.")
            item = metadata.rebuild(data)
            if item is None:
                raise InvalidData(
                    f"The signature, owner and tags that {gateway} sent for item {wanted} do not match "
                    f"the content with SHA-256 {sha256.hex()}.",
                    "The metadata or the item is forged: do not use it.",
                )
            return item

        try:
            item = self._first(rebuild, f"the metadata of item {wanted}")
        except (NotFound, NetworkUnreachable):
            if require_signature:
                raise
            return Artifact(data, None, (), signature_checked=False)
        return _artifact(item, owner)

    def fetch_signed(self, item_id: bytes | str, *, owner: bytes | None = None, max_bytes: int) -> Artifact:
        """The content of `signed_item`, where no SHA-256 is known; InvalidData if `owner` (32 bytes) did not
        sign it."""
        return _artifact(self.signed_item(item_id, max_bytes=max_bytes), owner)

    def signed_item(self, item_id: bytes | str, *, max_bytes: int) -> DataItem:
        """The item of this id, rebuilt from metadata and content and its signature verified, whatever its hash.

        This is the proof of what an account published under an id. NotFound, NetworkUnreachable or
        InvalidData if no gateway gives both parts of a signed item of this id.
        """
        wanted = ItemId.of(item_id)

        def rebuild(gateway: str) -> DataItem:
            metadata = self._metadata(gateway, wanted)
            path = f"/{wanted}" if gateway in self.endpoints.gateways else f"/tx/{wanted}/data"
            item = metadata.rebuild(self._fetch(gateway, path, max_bytes))
            if item is None:
                raise InvalidData(f"What {gateway} sent for item {wanted} is not a signed item with that ID.")
            return item

        return self._first(rebuild, f"item {wanted}")

    def _metadata(self, gateway: str, item_id: ItemId) -> ItemMetadata:
        body = self._fetch(gateway, f"/tx/{item_id}", MAX_REPLY)
        return ItemMetadata.parse(item_id, parse_json(body, f"The gateway {gateway}"))

    def _fetch(self, gateway: str, path: str, max_bytes: int) -> bytes:
        reply = self._http.call("GET", gateway + path, max_bytes=max_bytes)
        if reply.status in (404, 410):
            raise NotFound(f"The gateway {gateway} has no {path}.", "Check the ID, or try again in a minute.")
        if reply.status != 200:
            raise NetworkUnreachable(
                f"The gateway {gateway} answered {reply.status} to {path} ({reply.text!r}).",
                "Try again later.",
            )
        return reply.body

    def _first(self, ask: Callable[[str], _T], what: str) -> _T:
        """The first gateway's good answer; where there is none, the gravest error with what each one did."""
        errors: list[ChainError] = []
        gateways = dict.fromkeys((*self.endpoints.gateways, self.endpoints.uploader))
        for gateway in sorted(gateways, key=self._liars.__contains__):
            try:
                return ask(gateway)
            except InvalidData as error:
                self._liars.add(gateway)
                self._report(error)
                errors.append(error)
            except (NotFound, NetworkUnreachable) as error:
                errors.append(error)
        for kind in (InvalidData, NetworkUnreachable, NotFound):
            cures = [error.cure for error in errors if type(error) is kind]
            if cures:
                raise kind(" ".join(error.problem for error in errors), cures[0])
        raise NetworkUnreachable(f"No gateway is configured to fetch {what} from.", "Configure one.")


def _artifact(item: DataItem, owner: bytes | None) -> Artifact:
    """A verified item's content, by `owner` where one is expected."""
    if owner is not None and item.owner != owner:
        raise InvalidData(
            f"Item {item.id} is signed by {Pubkey.from_bytes(item.owner)}, not by {Pubkey.from_bytes(owner)}.",
            "Do not use it: someone else published it.",
        )
    return Artifact(item.data, item.owner, item.tags, signature_checked=True)


def _whole(value: object, what: str) -> int:
    """A non-negative whole number of at most 30 digits, from JSON or text."""
    if type(value) is int:
        value = str(value)
    if not (isinstance(value, str) and value.isascii() and value.strip().isdigit() and len(value) <= 32):
        raise InvalidData(f"{what} is not a whole number of lamports: {str(value)[:60]!r}.")
    return int(value)
