"""A JSON-RPC request's parameters, read strictly: anything unexpected is refused, with a real node's message."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from chain.network.base import MAX_TRANSACTION

MAX_MEMCMP: Final = 128  # bytes
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
PREFLIGHT_FAILURE, SIGNATURE_FAILURE, BLOCK_NOT_AVAILABLE = -32002, -32003, -32004
UNSUPPORTED_VERSION, CONTEXT_NOT_REACHED = -32015, -32016
_PROCESSED, _SAFER = ("processed", "recent"), ("confirmed", "finalized", "single", "singleGossip", "root", "max")
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS = {character: value for value, character in enumerate(_ALPHABET)}


class Refusal(Exception):
    """A JSON-RPC error answer."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data

    def json(self) -> dict[str, object]:
        """The answer's `error`."""
        error: dict[str, object] = {"code": self.code, "message": str(self)}
        return error if self.data is None else error | {"data": self.data}


def base58(raw: bytes) -> str:
    """Bytes in Bitcoin's base 58."""
    number, text = int.from_bytes(raw, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = _ALPHABET[digit] + text
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + text


def from_base58(text: str) -> bytes:
    """The bytes of `base58`. Raises ValueError; the caller bounds the length, for the time is quadratic."""
    number = 0
    for character in text:
        if character not in _DIGITS:
            raise ValueError(f"{character!r} is not a base 58 digit")
        number = number * 58 + _DIGITS[character]
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


class Params:
    """A request's parameters, read one by one; anything unexpected is "Invalid params"."""

    def __init__(self, values: object) -> None:
        if not isinstance(values, list):
            raise Refusal(INVALID_PARAMS, "`params` should be an array")
        self._values = values

    def get(self, index: int) -> object:
        """The parameter, or None."""
        return self._values[index] if index < len(self._values) else None

    def text(self, index: int) -> str:
        """A string."""
        value = self.get(index)
        if not isinstance(value, str):
            raise Refusal(INVALID_PARAMS, f"Invalid params: a string was expected at {index}")
        return value

    def number(self, index: int, limit: int = (1 << 64) - 1) -> int:
        """An integer from 0 to `limit`."""
        return number({"": self.get(index)}, "", limit=limit)

    def key(self, index: int) -> Pubkey:
        """An address."""
        return key_of(self.get(index))

    def signature(self, index: int) -> Signature:
        """A signature."""
        return signature_of(self.get(index))

    def config(self, index: int) -> dict[str, Any]:
        """An optional object, whose commitment is known."""
        value = self.get(index)
        if value is not None and not isinstance(value, dict):
            raise Refusal(INVALID_PARAMS, f"Invalid params: an object was expected at {index}")
        commitment(value or {})
        return value or {}

    def items(self, index: int, limit: int) -> list[object]:
        """A list of at most `limit` values."""
        value = self.get(index)
        if not isinstance(value, list):
            raise Refusal(INVALID_PARAMS, f"Invalid params: a list was expected at {index}")
        if len(value) > limit:
            raise Refusal(INVALID_PARAMS, f"Too many inputs provided; max {limit}")
        return value


def number(config: Mapping[str, object], name: str, default: int | None = None, limit: int = 1 << 64) -> int:
    """The integer called `name`, from 0 to `limit`; `default` where it is not given."""
    value = config.get(name)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
        raise Refusal(INVALID_PARAMS, f"Invalid params: {name or 'a number'} must be an integer from 0 to {limit}")
    return value


def flag(config: Mapping[str, object], name: str) -> bool:
    """The truth value called `name`; false where it is not given."""
    value = config.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refusal(INVALID_PARAMS, f"Invalid params: {name} must be true or false")
    return bool(value)


def choice(config: Mapping[str, object], name: str, default: str, choices: tuple[str, ...]) -> str:
    """One of `choices`; `default` where it is not given."""
    value = config.get(name)
    if value is None:
        return default
    if value not in choices:
        raise Refusal(INVALID_PARAMS, f"Invalid params: {name} must be one of {', '.join(choices)}")
    return str(value)


def commitment(config: Mapping[str, object], *, confirmed: bool = False) -> None:
    """Check how safe an answer must be; all of them are, so nothing follows from it.

    With `confirmed` nothing less will do. Words that old clients use are known; others are refused, where Agave
    takes any for "finalized": a typing error would show nowhere else.
    """
    value = choice(config, "commitment", "finalized", _PROCESSED + _SAFER)
    if confirmed and value in _PROCESSED:
        raise Refusal(INVALID_PARAMS, "Method does not support commitment below `confirmed`")


def key_of(value: object) -> Pubkey:
    """An address in base 58."""
    return Pubkey.from_bytes(_decoded(value, 32, 44))


def signature_of(value: object) -> Signature:
    """A signature in base 58."""
    return Signature.from_bytes(_decoded(value, 64, 88))


def _decoded(value: object, size: int, limit: int) -> bytes:
    if not isinstance(value, str):
        raise Refusal(INVALID_PARAMS, "Invalid params: a string was expected")
    try:
        raw = from_base58(value) if len(value) <= limit else b""
    except ValueError:
        raise Refusal(INVALID_PARAMS, "Invalid param: Invalid") from None
    if len(raw) != size:
        raise Refusal(INVALID_PARAMS, "Invalid param: WrongSize")
    return raw


def bytes_of(text: object, encoding: str, limit: int) -> bytes:
    """At most `limit` bytes in base58 or base64."""
    if not isinstance(text, str) or len(text) > 2 * limit:
        raise Refusal(INVALID_PARAMS, f"Invalid params: at most {limit} bytes in {encoding} were expected")
    try:
        raw = from_base58(text) if encoding == "base58" else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise Refusal(INVALID_PARAMS, f"invalid {encoding} encoding: {error}") from None
    if len(raw) > limit:
        raise Refusal(INVALID_PARAMS, f"Invalid params: {encoding} of {len(raw)} bytes exceeds {limit}")
    return raw


def octets(value: object) -> bytes:
    """A memcmp filter's bytes as a list of numbers."""
    try:
        if isinstance(value, list) and len(value) <= MAX_MEMCMP:
            return bytes(value)
    except (TypeError, ValueError):
        pass
    raise Refusal(INVALID_PARAMS, f"Invalid params: at most {MAX_MEMCMP} bytes were expected")


def transaction_of(text: object, config: Mapping[str, object]) -> VersionedTransaction:
    """A transaction in its canonical form, in the encoding that `config` names."""
    encoding = config.get("encoding") or "base58"
    if encoding not in ("base58", "base64"):
        raise Refusal(INVALID_PARAMS, f"unsupported encoding: {encoding}. Supported encodings: base58, base64")
    raw = bytes_of(text, str(encoding), MAX_TRANSACTION)
    try:
        tx = VersionedTransaction.from_bytes(raw)
    except ValueError as error:
        raise Refusal(INVALID_PARAMS, f"failed to deserialize VersionedTransaction: {error}") from None
    if bytes(tx) != raw or not isinstance(tx.message, Message | MessageV0):
        raise Refusal(INVALID_PARAMS, "failed to deserialize VersionedTransaction: not its canonical form")
    return tx
