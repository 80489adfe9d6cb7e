"""Data items: the pinned vectors, one encoding per item, and nothing but InvalidData for hostile bytes."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.keypair import Keypair

from chain.errors import InvalidData
from chain.irys.client import Role, artifact_tags
from chain.irys.dataitem import (
    ED25519,
    SOLANA,
    DataItem,
    ItemId,
    Tag,
    base64url,
    decode_tags,
    deep_hash,
    encode_tags,
    from_base64url,
)

KEY = Keypair.from_seed(bytes(range(32)))
ANCHOR = b"0123456789abcdef0123456789abcdef"
VECTOR = DataItem.sign(KEY, b"hello irys", (("Content-Type", "text/plain"), ("App-Name", "test")), anchor=ANCHOR)

texts = st.text(min_size=1, max_size=40)
tag_lists = st.lists(st.tuples(texts, texts), max_size=8).map(tuple)
parts = st.one_of(st.just(b""), st.binary(min_size=32, max_size=32))


def test_the_vector_of_the_official_client() -> None:
    raw = VECTOR.encode()
    assert str(VECTOR.id) == "AfTz6re738PD9DtXdbgVb5ZpmxdnxC6y6Bjd55fnxnDJ"
    assert (len(raw), VECTOR.size) == (198, 198)
    assert hashlib.sha256(raw).hexdigest() == "3e1ac4665b58abd75f9665af07ee71170e67385c14c5a9b583f1a2dd041207e4"
    assert DataItem.parse(raw) == VECTOR
    assert VECTOR.is_valid
    assert VECTOR.tag("content-type") == "text/plain"
    assert VECTOR.tag("absent") is None


@pytest.mark.parametrize(
    ("signature_type", "text"),
    [
        (SOLANA, "8eKfxaKT8T3j1MCa4yezawDJkKddjC1cxzjtfyajjGmn"),
        (ED25519, "57WFdV3gHi4LrUePF3BiSvhCqqV53YsM8mUiUhgCQdjk"),
    ],
)
def test_both_signature_types(signature_type: int, text: str) -> None:
    item = DataItem.sign(KEY, b"hello irys", signature_type=signature_type)
    assert str(item.id) == text
    assert DataItem.parse(item.encode()) == item
    item.verify()


def test_a_signature_of_one_type_is_not_one_of_the_other() -> None:
    raw = bytearray(VECTOR.encode())
    raw[0] = ED25519
    assert not DataItem.parse(bytes(raw)).is_valid


@given(tags=tag_lists, data=st.binary(max_size=200), target=parts, anchor=parts)
@settings(max_examples=60, deadline=None)
def test_what_is_built_parses_to_itself(tags: tuple[Tag, ...], data: bytes, target: bytes, anchor: bytes) -> None:
    item = DataItem.sign(KEY, data, tags, target=target, anchor=anchor)
    raw = item.encode()
    assert item.size == len(raw)
    assert DataItem.parse(raw) == item
    assert item.is_valid


@given(at=st.integers(0, VECTOR.size - 1), bit=st.integers(0, 7))
@settings(max_examples=300, deadline=None)
def test_no_flipped_bit_passes(at: int, bit: int) -> None:
    raw = bytearray(VECTOR.encode())
    raw[at] ^= 1 << bit
    try:
        item = DataItem.parse(bytes(raw))
    except InvalidData:
        return
    assert item.encode() == bytes(raw)
    with pytest.raises(InvalidData, match="does not match"):
        item.verify()


@given(cut=st.integers(0, VECTOR.size - 1))
@settings(deadline=None)
def test_no_truncated_item_passes(cut: int) -> None:
    with pytest.raises(InvalidData):
        DataItem.parse(VECTOR.encode()[:cut]).verify()


@given(
    head=st.sampled_from([b"", b"\x02\0", b"\x04\0" + bytes(96), b"\x04\0" + bytes(98) + b"\1" + bytes(7)]),
    tail=st.binary(max_size=300),
)
@settings(max_examples=300, deadline=None)
def test_hostile_bytes_give_invalid_data_only(head: bytes, tail: bytes) -> None:
    try:
        item = DataItem.parse(head + tail)
    except InvalidData:
        return
    assert item.encode() == head + tail
    assert not item.is_valid


@given(raw=st.binary(max_size=80))
@settings(max_examples=300, deadline=None)
def test_tags_have_one_encoding(raw: bytes) -> None:
    try:
        tags = decode_tags(raw)
    except InvalidData:
        return
    assert encode_tags(tags) == raw


def _with_tags(count: int, raw_tags: bytes, flags: bytes = b"\0\0") -> bytes:
    return b"\x04\0" + bytes(96) + flags + struct.pack("<QQ", count, len(raw_tags)) + raw_tags


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"", "ends after 0 bytes"),
        (b"\x01\0" + bytes(1100), "2 or 4"),
        (b"\x03\0" + bytes(300), "2 or 4"),
        (_with_tags(0, b"", flags=b"\2\0"), "target flag"),
        (_with_tags(0, b"", flags=b"\0\xff"), "anchor flag"),
        (_with_tags(129, b""), "more than 128"),
        (_with_tags(2**64 - 1, b""), "more than 128"),
        (_with_tags(1, bytes(4097)), "4096 bytes"),
        (_with_tags(1, b""), "declares 1 tags and has 0"),
        (_with_tags(0, b"\2\2a\2b\0"), "declares 0 tags and has 1"),
        (_with_tags(0, b"\0"), "canonical"),
        (_with_tags(1, b"\2\2a\2b"), "canonical"),
        (_with_tags(1, b"\2\2a\4b"), "ends after"),
        (_with_tags(1, b"\2\2a\2b\0\0"), "canonical"),
        (_with_tags(1, b"\2\0\2b\0"), "1 to 1024 bytes"),
        (_with_tags(1, b"\2\2a\0\0"), "1 to 3072 bytes"),
        (_with_tags(1, b"\2\2a\1b\0"), "negative"),
        (_with_tags(1, b"\1\x0a\2a\2b\0"), "negative"),
        (_with_tags(1, b"\x82\0\2a\2b\0"), "canonical"),
        (_with_tags(2, b"\2\2a\2b\2\2a\2b\0"), "canonical"),
        (_with_tags(1, b"\2\2\xff\2b\0"), "UTF-8"),
        (_with_tags(1, b"\2\xff\xff\xff\xff\x0f"), "too large"),
    ],
)
def test_malformed_items(raw: bytes, complaint: str) -> None:
    with pytest.raises(InvalidData, match=complaint):
        DataItem.parse(raw)


@pytest.mark.parametrize(
    "tags",
    [
        [("a", "b")] * 129,
        [("", "b")],
        [("a", "")],
        [("a" * 1025, "b")],
        [("a", "b" * 3073)],
        [("a", "b" * 2100), ("c", "d" * 2100)],
        [("a", "\ud800")],
    ],
)
def test_tags_beyond_the_limits_are_not_signed(tags: list[Tag]) -> None:
    with pytest.raises(InvalidData):
        DataItem.sign(KEY, b"", tags)


def test_tags_at_the_limits_are() -> None:
    for tags in ([("a", "b")] * 128, [("a" * 1024, "b" * 3060)], [("ü" * 512, "b")]):
        assert DataItem.parse(DataItem.sign(KEY, b"", tags).encode()).tags == tuple(tags)


@pytest.mark.parametrize("sizes", [(31, 0), (0, 33), (1, 1)])
def test_target_and_anchor_are_32_bytes(sizes: tuple[int, int]) -> None:
    with pytest.raises(InvalidData):
        DataItem.sign(KEY, b"", target=bytes(sizes[0]), anchor=bytes(sizes[1]))


@pytest.mark.parametrize("owner", [b"\1" + bytes(31), b"\xee" + b"\xff" * 30 + b"\x7f", bytes(32)])
@pytest.mark.parametrize("signature_type", [SOLANA, ED25519])
def test_a_small_order_owner_is_refused(owner: bytes, signature_type: int) -> None:
    """With the identity as key and as R, and S = 0, the plain Ed25519 equation holds for every payload."""
    signature = b"\1" + bytes(63)
    items = [DataItem(signature_type, signature, owner, b"", b"", (), data) for data in (b"good code", b"evil code")]
    assert items[0].id == items[1].id
    for item in items:
        assert not DataItem.parse(item.encode()).is_valid


@given(st.binary(min_size=32, max_size=32))
def test_ids_as_text(raw: bytes) -> None:
    item_id = ItemId(raw)
    assert ItemId.from_text(str(item_id)) == item_id
    assert item_id.matches(str(item_id))
    assert item_id.matches(base64url(raw))
    assert not item_id.matches(str(item_id) + "1")
    assert ItemId.of(raw) == ItemId.of(str(item_id)) == raw


def test_short_base58_ids_and_base64url_ids() -> None:
    short = next(
        item.id for item in (DataItem.sign(KEY, str(n).encode()) for n in range(2000)) if len(str(item.id)) == 43
    )
    assert ItemId.from_text(str(short)) == short
    raw = bytes.fromhex("fb" * 32)
    assert ItemId.from_text(base64url(raw)) == raw


@pytest.mark.parametrize("text", ["", "0" * 44, "1" * 31, "1" * 33, "z" * 44, "é" * 43, "-" * 42, "x" * 10_000])
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(InvalidData, match="not an item ID"):
        ItemId.from_text(text)
    with pytest.raises(InvalidData):
        ItemId(b"short")


@pytest.mark.parametrize("text", ["a", "ab=", "a b", "AB", "+/+/"])
def test_base64url_is_canonical(text: str) -> None:
    with pytest.raises(InvalidData):
        from_base64url(text)


def test_deep_hash_separates_lists_from_blobs() -> None:
    assert len({deep_hash(b""), deep_hash([]), deep_hash([b""]), deep_hash([b"", b""]), deep_hash([[]])}) == 5


def test_artifact_tags() -> None:
    digest = hashlib.sha256(b"x").digest()
    assert artifact_tags("proposalCode", digest, "application/x-tar", [("Project", "0")]) == (
        ("App-Name", "OpenResearch AutoResearch"),
        ("Artifact-Role", "proposalCode"),
        ("SHA-256", digest.hex()),
        ("Content-Type", "application/x-tar"),
        ("Project", "0"),
    )
    assert artifact_tags(Role.PROTOCOL, digest, "application/json")[1] == ("Artifact-Role", "protocol")
    with pytest.raises(InvalidData, match="not an artifact role"):
        artifact_tags("other", digest, "text/plain")
