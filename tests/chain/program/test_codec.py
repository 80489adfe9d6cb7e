"""The codec: every value comes back, and no bytes raise anything but InvalidData."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.pubkey import Pubkey

from chain.errors import InvalidData
from chain.program import codec
from chain.program.codec import I64, U8, U64, Flag, Hash


class Colour(IntEnum):
    RED = 0
    BLUE = 1


@dataclass(frozen=True, slots=True)
class Everything:
    small: U8
    amount: U64
    score: I64
    key: Pubkey
    digest: Hash
    colour: Colour
    on: Flag
    name: str
    last: U8


keys = st.binary(min_size=32, max_size=32).map(Pubkey.from_bytes)
records = st.builds(
    Everything,
    small=st.integers(0, 2**8 - 1),
    amount=st.integers(0, 2**64 - 1),
    score=st.integers(-(2**63), 2**63 - 1),
    key=keys,
    digest=st.binary(min_size=32, max_size=32),
    colour=st.sampled_from(Colour),
    on=st.booleans(),
    name=st.text(max_size=200),
    last=st.integers(0, 255),
)
SAMPLE = Everything(7, 2, -3, Pubkey.from_bytes(bytes(range(32))), bytes(32), Colour.BLUE, True, "né", 9)


@given(records, st.binary(max_size=9))
def test_round_trip(record: Everything, after: bytes) -> None:
    data = codec.encode(record)
    assert codec.decode(Everything, data + after) == (record, len(data))


def test_wire_format() -> None:
    want = "07" + "0200000000000000" + "fdffffffffffffff" + bytes(range(32)).hex() + "00" * 32 + "0101"
    assert codec.encode(SAMPLE).hex() == want + "03000000" + "né".encode().hex() + "09"


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        record, end = codec.decode(Everything, data)
    except InvalidData:
        return
    assert codec.encode(record) == data[:end]


@given(records, st.data())
def test_every_truncation_is_refused(record: Everything, data: st.DataObject) -> None:
    whole = codec.encode(record)
    with pytest.raises(InvalidData):
        codec.decode(Everything, whole[: data.draw(st.integers(0, len(whole) - 1))])


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (81, b"\x02", "Colour"),
        (82, b"\x02", "bool"),
        (83, b"\xff\xff\xff\xff", "string"),
        (87, b"\xff", "UTF-8"),
    ],
)
def test_invalid_values_are_named(at: int, value: bytes, says: str) -> None:
    data = bytearray(codec.encode(SAMPLE))
    data[at : at + len(value)] = value
    with pytest.raises(InvalidData, match=says):
        codec.decode(Everything, bytes(data))


@pytest.mark.parametrize(
    "change",
    [
        {"small": 256},
        {"small": -1},
        {"amount": 2**64},
        {"amount": -1},
        {"score": 2**63},
        {"amount": 1.5},
        {"digest": bytes(31)},
        {"key": bytes(32)},
        {"key": 32},
        {"name": "x" * (codec.MAX_STRING + 1)},
        {"name": "\ud800"},
    ],
)
def test_values_that_do_not_fit_are_not_written(change: dict[str, object]) -> None:
    fields = {name: getattr(SAMPLE, name) for name in Everything.__slots__}
    with pytest.raises(InvalidData):
        codec.encode(Everything(**{**fields, **change}))


def test_offsets() -> None:
    assert [codec.offset(Everything, name) for name in ("small", "score", "digest", "name")] == [0, 9, 49, 83]
    with pytest.raises(ValueError, match="after a string"):
        codec.offset(Everything, "last")
    with pytest.raises(ValueError, match="first"):
        codec.offset(Everything, "first")
