"""Borsh for the program's types, driven by dataclass annotations.

A field is `U8`, `U64`, `I64`, `Flag` (bool), `Hash` (32 bytes), `Pubkey`, `str` (length-prefixed UTF-8,
bounded) or an `IntEnum` (one byte). Decoding is strict: short input, a string over its bound, an
invalid bool, enum value or UTF-8 raise InvalidData, never anything else. Bytes after the last field are
for the caller to judge: Anchor gives some accounts more space than their content needs.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from hashlib import sha256
from typing import Annotated, Any, NamedTuple, TypeVar, get_type_hints

from solders.pubkey import Pubkey

from chain.errors import InvalidData

U8 = Annotated[int, "u8"]
U64 = Annotated[int, "u64"]
I64 = Annotated[int, "i64"]
Flag = Annotated[bool, "bool"]
Hash = Annotated[bytes, "32 bytes"]

MAX_STRING = 1024  # bytes; the program itself allows far less

_Record = TypeVar("_Record")


class _Type(NamedTuple):
    """How one type is read from (data, offset), giving (value, next offset), and written."""

    read: Callable[[bytes, int], tuple[Any, int]]
    write: Callable[[Any], bytes]
    size: int | None  # bytes; None if it varies


def _number(code: str) -> _Type:
    form = struct.Struct("<" + code)

    def read(data: bytes, at: int) -> tuple[int, int]:
        return form.unpack_from(_need(data, at, form.size), at)[0], at + form.size

    def write(value: int) -> bytes:
        try:
            return form.pack(value)
        except struct.error as error:
            raise InvalidData(f"The number {value} does not fit: {error}.") from None

    return _Type(read, write, form.size)


def _need(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise InvalidData(f"The data ends at byte {len(data)}, expected {at + size} or more.")
    return data


def _read_flag(data: bytes, at: int) -> tuple[bool, int]:
    value = _need(data, at, 1)[at]
    if value > 1:
        raise InvalidData(f"A bool at byte {at} holds {value}.")
    return bool(value), at + 1


def _read_hash(data: bytes, at: int) -> tuple[bytes, int]:
    return bytes(_need(data, at, 32)[at : at + 32]), at + 32


def _write_hash(value: bytes) -> bytes:
    if len(value) != 32:
        raise InvalidData(f"A hash or id has 32 bytes, this one {len(value)}.")
    return value


def _read_key(data: bytes, at: int) -> tuple[Pubkey, int]:
    raw, end = _read_hash(data, at)
    return Pubkey.from_bytes(raw), end


def _read_text(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<I", _need(data, at, 4), at)
    if length > MAX_STRING:
        raise InvalidData(f"A string at byte {at} has {length} bytes, at most {MAX_STRING} are accepted.")
    end = at + 4 + length
    try:
        return _need(data, at + 4, length)[at + 4 : end].decode(), end
    except UnicodeDecodeError:
        raise InvalidData(f"A string at byte {at} is not UTF-8.") from None


def _write_key(value: Pubkey) -> bytes:
    if not isinstance(value, Pubkey):  # bytes() of a number would be that many zeros
        raise InvalidData(f"{value!r} is not a public key.")
    return bytes(value)


def _write_text(value: str) -> bytes:
    try:
        raw = value.encode()
    except UnicodeEncodeError:
        raise InvalidData(f"{value!r} is not a string that UTF-8 can hold.") from None
    if len(raw) > MAX_STRING:
        raise InvalidData(f"A string has {len(raw)} bytes, at most {MAX_STRING} are accepted.")
    return struct.pack("<I", len(raw)) + raw


def _enum(kind: type[IntEnum]) -> _Type:
    def read(data: bytes, at: int) -> tuple[IntEnum, int]:
        value = _need(data, at, 1)[at]
        try:
            return kind(value), at + 1
        except ValueError:
            raise InvalidData(f"{value} at byte {at} is not a {kind.__name__}.") from None

    return _Type(read, lambda value: bytes([value]), 1)


_TYPES: dict[Any, _Type] = {
    U8: _number("B"),
    U64: _number("Q"),
    I64: _number("q"),
    Flag: _Type(_read_flag, lambda value: bytes([value]), 1),
    Hash: _Type(_read_hash, _write_hash, 32),
    Pubkey: _Type(_read_key, _write_key, 32),
    str: _Type(_read_text, _write_text, None),
}


def pack_u64(value: int) -> bytes:
    """A u64's eight bytes; InvalidData if it does not fit."""
    return bytes(_TYPES[U64].write(value))


@lru_cache(maxsize=256)
def discriminator(namespace: str, name: str) -> bytes:
    """Anchor's eight bytes for "global" (instructions), "account" or "event" and a name."""
    return sha256(f"{namespace}:{name}".encode()).digest()[:8]


_KNOWN: dict[Any, tuple[tuple[str, _Type], ...]] = {}


def _fields(kind: Any) -> tuple[tuple[str, _Type], ...]:
    if kind in _KNOWN:
        return _KNOWN[kind]
    hints = get_type_hints(kind, include_extras=True)
    found = []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        is_enum = isinstance(hint, type) and issubclass(hint, IntEnum)
        found.append((field.name, _enum(hint) if is_enum else _TYPES[hint]))
    return _KNOWN.setdefault(kind, tuple(found))


def encode(record: Any) -> bytes:
    """The Borsh bytes of a dataclass instance, fields in order; InvalidData if a value does not fit."""
    return b"".join(form.write(getattr(record, name)) for name, form in _fields(type(record)))


def decode(kind: type[_Record], data: bytes, at: int = 0) -> tuple[_Record, int]:
    """A record from `data` at offset `at`, and the offset after it; InvalidData if it does not parse."""
    values = {}
    for name, form in _fields(kind):
        values[name], at = form.read(data, at)
    return kind(**values), at


def offset(kind: type, name: str) -> int:
    """Where a field starts within a record; ValueError if a string before it leaves that open."""
    at = 0
    for field, form in _fields(kind):
        if field == name:
            return at
        if form.size is None:
            raise ValueError(f"{kind.__name__}.{name} comes after a string")
        at += form.size
    raise ValueError(f"{kind.__name__} has no field {name}")
