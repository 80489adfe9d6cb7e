"""ANS-104 data items as Irys implements them: build, sign, parse strictly, verify.

Rules, for every item that comes from outside:
 1. `DataItem.parse` accepts one encoding per item and nothing else: flags 0 or 1, minimal varints, one block
    of tags, the limits below. What it accepts encodes back to the same bytes.
 2. `verify` demands an Ed25519 signature that solders accepts; it refuses small-order keys, with which one
    signature (so one id) would fit several payloads.
 3. The id is SHA-256 of the signature, 32 bytes, and does not by itself commit to the data: whoever holds a
    hash of the data checks that too.

Layout, little-endian: signature_type u16 | signature 64 | owner 32 | target flag [+ 32] | anchor flag [+ 32]
| tag_count u64 | tag_bytes u64 | tags | data. Format: ANS-104 and `@irys/bundles`, checked byte for byte.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature

from chain.errors import InvalidData

ED25519, SOLANA = 2, 4
"""Signature types: 2 signs the raw deep hash, 4 (what Irys's Solana clients emit) its lowercase hex text."""

MAX_TAGS, MAX_TAG_NAME, MAX_TAG_VALUE, MAX_TAG_BYTES = 128, 1024, 3072, 4096
_FIXED = 2 + 64 + 32

Tag = tuple[str, str]


class ItemId(bytes):
    """A data item's id: 32 raw bytes, as the chain stores them; `str()` is the base58 text Irys uses."""

    def __new__(cls, raw: bytes) -> ItemId:
        if len(raw) != 32:
            raise InvalidData(f"An item ID has 32 bytes, this one {len(raw)}.", "Check the ID.")
        return super().__new__(cls, raw)

    @classmethod
    def from_text(cls, text: str) -> ItemId:
        """Base58 (43 or 44 characters), or else base64url (43); a text that is both is read as base58."""
        readings = text_readings(text, 32)
        if not readings:
            raise InvalidData(f"{text[:60]!r} is not an item ID in base58 or base64url.", "Check the ID.")
        return cls(readings[0])

    @classmethod
    def of(cls, value: bytes | str) -> ItemId:
        """Either form."""
        return cls.from_text(value) if isinstance(value, str) else cls(value)

    def matches(self, text: str) -> bool:
        """Whether `text` is this id in base58 or base64url: raw bytes are compared, never lengths."""
        return bytes(self) in text_readings(text, 32)

    def __str__(self) -> str:
        return str(Pubkey.from_bytes(self))

    def __repr__(self) -> str:
        return f"ItemId({self})"


def base64url(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """The inverse of `base64url`; padding, foreign characters and loose end bits are InvalidData."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error) as error:
        raise InvalidData(f"{text[:60]!r} is not base64url.") from error
    if base64url(data) != text:
        raise InvalidData(f"{text[:60]!r} is not canonical base64url.")
    return data


def text_readings(text: str, size: int) -> list[bytes]:
    """The values of `size` bytes (32 or 64) that `text` can stand for: as base58, as base64url."""
    if len(text) > 2 * size:
        return []
    found: list[bytes] = []
    with contextlib.suppress(ValueError):
        found.append(bytes(Pubkey.from_string(text) if size == 32 else Signature.from_string(text)))
    try:
        value = from_base64url(text)
    except InvalidData:
        return found
    return [*found, value] if len(value) == size else found


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold `text`: a JSON escape may stand for half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


DeepHashable = bytes | Sequence["DeepHashable"]


def deep_hash(value: DeepHashable) -> bytes:
    """Arweave's deep hash, SHA-384 (48 bytes): blobs and lists of them are hashed with kind and length."""
    if isinstance(value, bytes):
        return _sha384(_sha384(b"blob%d" % len(value)) + _sha384(value))
    accumulator = _sha384(b"list%d" % len(value))
    for part in value:
        accumulator = _sha384(accumulator + deep_hash(part))
    return accumulator


def _sha384(data: bytes) -> bytes:
    return hashlib.sha384(data).digest()


@dataclass(frozen=True)
class DataItem:
    """A signed item. `target` and `anchor` are 32 bytes or empty; `tags` keep their order.

    Construction checks sizes and limits (InvalidData); only `verify` looks at the signature.
    """

    signature_type: int
    signature: bytes
    owner: bytes
    target: bytes
    anchor: bytes
    tags: tuple[Tag, ...]
    data: bytes

    def __post_init__(self) -> None:
        _check_type(self.signature_type)
        for name, part, sizes in (
            ("signature", self.signature, (64,)),
            ("owner", self.owner, (32,)),
            ("target", self.target, (0, 32)),
            ("anchor", self.anchor, (0, 32)),
        ):
            if len(part) not in sizes:
                raise InvalidData(f"An item's {name} has {sizes[-1]} bytes, this one {len(part)}.")
        _ = self.raw_tags

    @cached_property
    def raw_tags(self) -> bytes:
        """The tags as they are signed: an Avro array, or nothing where there are none."""
        return encode_tags(self.tags)

    @cached_property
    def id(self) -> ItemId:
        return ItemId(hashlib.sha256(self.signature).digest())

    @cached_property
    def sha256(self) -> bytes:
        """SHA-256 of the data alone, the hash that accounts on chain hold."""
        return hashlib.sha256(self.data).digest()

    def tag(self, name: str) -> str | None:
        """The value of the first tag of that name, in any case."""
        return next((value for key, value in self.tags if key.lower() == name.lower()), None)

    def encode(self) -> bytes:
        return b"".join(
            (
                struct.pack("<H", self.signature_type),
                self.signature,
                self.owner,
                _optional(self.target),
                _optional(self.anchor),
                struct.pack("<QQ", len(self.tags), len(self.raw_tags)),
                self.raw_tags,
                self.data,
            )
        )

    @property
    def size(self) -> int:
        """Bytes of the encoded item, what an uploader charges for."""
        return _FIXED + 2 + len(self.target) + len(self.anchor) + 16 + len(self.raw_tags) + len(self.data)

    @classmethod
    def sign(
        cls,
        keypair: Keypair,
        data: bytes,
        tags: Iterable[Tag] = (),
        *,
        target: bytes = b"",
        anchor: bytes = b"",
        signature_type: int = SOLANA,
    ) -> DataItem:
        """A new item. Without an anchor the same key, tags and data give the same id, so that a repeated
        upload after a crash stores nothing twice."""
        draft = cls(signature_type, bytes(64), bytes(keypair.pubkey()), target, anchor, tuple(tags), data)
        signature = bytes(keypair.sign_message(draft.signed_message()))
        return cls(signature_type, signature, draft.owner, target, anchor, draft.tags, data)

    @classmethod
    def parse(cls, raw: bytes) -> DataItem:
        """The item that `raw` is, to the last byte; anything else is InvalidData. Does not verify."""
        reader = _Reader(raw)
        (signature_type,) = struct.unpack("<H", reader.take(2))
        _check_type(signature_type)  # other types have keys of other lengths: there is nothing to read on
        signature, owner = reader.take(64), reader.take(32)
        target, anchor = reader.optional("target"), reader.optional("anchor")
        count, size = struct.unpack("<QQ", reader.take(16))
        if count > MAX_TAGS or size > MAX_TAG_BYTES:
            raise InvalidData(
                f"An item declares {count} tags in {size} bytes, more than {MAX_TAGS} in {MAX_TAG_BYTES} bytes."
            )
        tags = decode_tags(reader.take(size))
        if len(tags) != count:
            raise InvalidData(f"The item declares {count} tags and has {len(tags)}.")
        return cls(signature_type, signature, owner, target, anchor, tags, reader.rest())

    def signed_message(self) -> bytes:
        """What the owner signs: the deep hash of eight blobs, as raw bytes (type 2) or hex text (type 4)."""
        kind = str(self.signature_type).encode()
        head = (b"dataitem", b"1", kind, self.owner, self.target, self.anchor, self.raw_tags)
        digest = deep_hash((*head, self.data))
        return digest.hex().encode() if self.signature_type == SOLANA else digest

    @property
    def is_valid(self) -> bool:
        """Whether the owner signed exactly this; False for a small-order owner key."""
        return bool(Signature.from_bytes(self.signature).verify(Pubkey.from_bytes(self.owner), self.signed_message()))

    def verify(self) -> None:
        """Raise InvalidData unless the owner signed exactly this."""
        if not self.is_valid:
            raise InvalidData(
                f"The signature of item {self.id} does not match its content and owner "
                f"{Pubkey.from_bytes(self.owner)}.",
                "The item was altered or forged: do not use it.",
            )


def _check_type(signature_type: int) -> None:
    if signature_type not in (ED25519, SOLANA):
        raise InvalidData(
            f"Signature type {signature_type} is not supported; it must be 2 or 4 (Ed25519, Solana).",
            "Sign the item with a Solana key.",
        )


def encode_tags(tags: Sequence[Tag]) -> bytes:
    """Avro array of (name, value) strings: count, lengths and bytes, a closing zero; no bytes for none."""
    if not tags:
        return b""
    if len(tags) > MAX_TAGS:
        raise InvalidData(f"The item has {len(tags)} tags; the limit is {MAX_TAGS}.")
    parts = [_varint(len(tags))]
    for name, value in tags:
        for kind, text, limit in (("name", name, MAX_TAG_NAME), ("value", value, MAX_TAG_VALUE)):
            try:
                encoded = text.encode()
            except UnicodeEncodeError as error:
                raise InvalidData(f"The tag {kind} {text[:60]!r} is not Unicode text.") from error
            if not 0 < len(encoded) <= limit:
                raise InvalidData(
                    f"A tag {kind} must have 1 to {limit} bytes of UTF-8; {text[:60]!r} has {len(encoded)}."
                )
            parts += (_varint(len(encoded)), encoded)
    raw = b"".join((*parts, b"\0"))
    if len(raw) > MAX_TAG_BYTES:
        raise InvalidData(f"The item's tags take {len(raw)} bytes; the limit is {MAX_TAG_BYTES}.")
    return raw


def decode_tags(raw: bytes) -> tuple[Tag, ...]:
    """The inverse of `encode_tags`, for its own output only (one block, minimal varints, UTF-8)."""
    if not raw:
        return ()
    reader = _Reader(raw)
    tags: list[Tag] = []
    try:
        for _ in range(min(reader.varint(), MAX_TAGS + 1)):
            name = reader.take(reader.varint()).decode()
            tags.append((name, reader.take(reader.varint()).decode()))
    except UnicodeDecodeError as error:
        raise InvalidData("A tag of this item is not UTF-8.") from error
    if encode_tags(tags) != raw:
        raise InvalidData("The tags of this item are not in canonical encoding.")
    return tuple(tags)


def _varint(value: int) -> bytes:
    """A non-negative number as Avro writes a long: zigzag, then 7 bits a byte, lowest first."""
    value, out = value << 1, bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def _optional(part: bytes) -> bytes:
    return b"\1" + part if part else b"\0"


class _Reader:
    """A cursor that never reads past the end."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.at = raw, 0

    def take(self, size: int) -> bytes:
        if size > len(self.raw) - self.at:
            raise InvalidData(
                f"The item ends after {len(self.raw)} bytes; {size} more are missing at byte {self.at}.",
                "Fetch it again: it is truncated.",
            )
        self.at += size
        return self.raw[self.at - size : self.at]

    def rest(self) -> bytes:
        return self.take(len(self.raw) - self.at)

    def optional(self, name: str) -> bytes:
        flag = self.take(1)[0]
        if flag > 1:
            raise InvalidData(f"The {name} flag of an item must be 0 or 1, not {flag}.")
        return self.take(32 * flag)

    def varint(self) -> int:
        """A non-negative Avro long of at most three bytes, enough for every length inside MAX_TAG_BYTES."""
        value = 0
        for shift in (0, 7, 14):
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                if value & 1:
                    break
                return value >> 1
        raise InvalidData("A length inside the item's tags is negative or too large.")
