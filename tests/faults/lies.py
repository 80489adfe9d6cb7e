"""Every lie that fits into one field of one answer, made from the answers themselves."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any

from solders.pubkey import Pubkey

from chain.errors import InvalidData
from chain.program.accounts import ACCOUNTS, decode_account, discriminator_of
from tests.chain.layout import encode_account

Path = tuple[str | int, ...]
STRANGER = Pubkey(bytes([9] * 32))
_TOKEN_SIZES = (82, 165)  # of a mint and a token account


@dataclass(frozen=True, slots=True)
class Lie:
    """In answers to `method`, what lies at `path` is `value`; the `path` () replaces the whole answer."""

    method: str
    path: Path
    value: object

    def __str__(self) -> str:
        return f"{self.method} {'.'.join(map(str, self.path))} = {json.dumps(self.value)}"

    def tell(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The answer with the lie in it; as it is where it has no such place."""
        told: dict[str, Any] = json.loads(json.dumps(answer))
        if not self.path:
            told.pop("result", None)
            return {**told, **(self.value if isinstance(self.value, dict) else {})}
        place: Any = told
        try:
            for step in self.path[:-1]:
                place = place[step]
            place[self.path[-1]]
            place[self.path[-1]] = self.value
        except (KeyError, IndexError, TypeError):
            return answer
        return told


def lies(method: str, answer: dict[str, Any]) -> Iterator[Lie]:
    """All lies about one answer: each of its fields with other values of its type, an error, and nothing at all."""
    yield Lie(method, (), {"result": None})
    for code, data in ((-32002, {"err": {"InstructionError": [0, {"Custom": 6015}]}, "logs": []}), (-32603, None)):
        yield Lie(method, (), {"error": {"code": code, "message": "no", "data": data}})
    yield from _within(method, ("result",), answer["result"])


def shape(value: object) -> str:
    """What an answer looks like: its fields, and the kinds and sizes of the accounts in it."""
    match value:
        case dict():
            return "{" + ",".join(f"{key}:{shape(inner)}" for key, inner in sorted(value.items())) + "}"
        case [str(text), "base64"]:
            raw = base64.b64decode(text)
            return f"{len(raw)}:{raw[:8].hex() if len(raw) not in _TOKEN_SIZES else ''}"
        case list():
            return "[" + ",".join(sorted({shape(inner) for inner in value})) + "]"
    return type(value).__name__


def _within(method: str, path: Path, value: object) -> Iterator[Lie]:
    match value:
        case dict():
            for key, inner in value.items():
                yield from _within(method, (*path, key), inner)
        case [str(text), "base64"]:
            yield from (Lie(method, path, [other, "base64"]) for other in _data(text))
        case list():
            yield Lie(method, path, [])
            if value:
                yield Lie(method, path, [*value, value[-1]])
            for index, inner in list(enumerate(value))[:3]:
                yield from _within(method, (*path, index), inner)
        case bool():
            yield Lie(method, path, not value)
        case int():
            others = (0, 1, value - 1, value + 1, value // 2, value * 2 + 3, 10**12, 2**64 - 1)
            yield from (Lie(method, path, other) for other in dict.fromkeys(others) if other != value and other >= 0)
        case str():
            yield from (Lie(method, path, other) for other in _texts(value))
        case None:
            yield from (
                Lie(method, path, other)
                for other in (0, 1, "BlockhashNotFound", {"InstructionError": [0, {"Custom": 1}]})
            )


def _texts(text: str) -> list[str]:
    """Other texts of the same kind: a key, base64, or words."""
    found = ["", text[:-1]]
    try:
        Pubkey.from_string(text)
        found.append(str(STRANGER))
    except ValueError:
        found.append(text[::-1])
    return [other for other in found if other != text]


def _data(text: str) -> Iterator[str]:
    """An account's data with each of its fields altered in turn."""
    raw = base64.b64decode(text)
    altered = [raw[:-1], b"", bytes(len(raw))]
    for kind in ACCOUNTS:
        if raw[:8] == discriminator_of(kind):
            record: Any = decode_account(kind, raw)
            for field in fields(kind):
                old = getattr(record, field.name)
                for value in _values(old):
                    try:
                        altered.append(encode_account(replace(record, **{field.name: value})))
                    except InvalidData:
                        continue
    if len(raw) in _TOKEN_SIZES or raw[:8] not in map(discriminator_of, ACCOUNTS):
        for at in range(0, len(raw), 8):
            altered.append(raw[:at] + bytes([raw[at] ^ 0xFF]) + raw[at + 1 :])
            altered.append(raw[:at] + (10**6).to_bytes(8, "little")[: len(raw) - at] + raw[at + 8 :])
    yield from (base64.b64encode(other).decode() for other in dict.fromkeys(altered) if other != raw)


def _values(old: object) -> list[object]:
    match old:
        case IntEnum():
            return [kind for kind in type(old) if kind != old]
        case bool() | int():
            return [number for number in (0, int(old) + 1, int(old) * 2 + 7, 2**63 - 1) if number != old]
        case bytes():
            return [bytes(len(old)), bytes([7] * len(old))]
        case str():
            return ["", old + "x"]
    return [STRANGER, Pubkey.default()]
