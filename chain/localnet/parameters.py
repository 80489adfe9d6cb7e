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
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS = {character: value for value, character in enumerate(_ALPHABET)}


class Refusal(Exception):
    """A JSON-RPC error answer."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


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
            raise Refusal(INVALID_PARAMS, "Invalid params: a list was expected")
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
        """An optional object."""
        value = self.get(index)
        if value is not None and not isinstance(value, dict):
            raise Refusal(INVALID_PARAMS, f"Invalid params: an object was expected at {index}")
        return value or {}


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


def key_of(value: object) -> Pubkey:
    """An address in base 58."""
    try:
        if isinstance(value, str) and len(value) <= 44:
            return Pubkey.from_string(value)
    except ValueError:
        pass
    raise Refusal(INVALID_PARAMS, "Invalid param: Invalid")


def signature_of(value: object) -> Signature:
    """A signature in base 58."""
    try:
        if isinstance(value, str) and len(value) <= 88:
            return Signature.from_string(value)
    except ValueError:
        pass
    raise Refusal(INVALID_PARAMS, "Invalid param: Invalid")


def bytes_of(text: object, encoding: str, limit: int) -> bytes:
    """At most `limit` bytes in base58 or base64."""
    if not isinstance(text, str) or len(text) > 2 * limit:
        raise Refusal(INVALID_PARAMS, f"Invalid params: at most {limit} bytes in {encoding} were expected")
    try:
        raw = from_base58(text) if encoding == "base58" else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise Refusal(INVALID_PARAMS, f"Invalid params: invalid {encoding} encoding: {error}") from None
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
    encoding = choice(config, "encoding", "base58", ("base58", "base64"))
    raw = bytes_of(text, encoding, MAX_TRANSACTION)
    try:
        tx = VersionedTransaction.from_bytes(raw)
    except ValueError as error:
        raise Refusal(INVALID_PARAMS, f"failed to deserialize VersionedTransaction: {error}") from None
    if bytes(tx) != raw or not isinstance(tx.message, Message | MessageV0):
        raise Refusal(INVALID_PARAMS, "failed to deserialize VersionedTransaction: not its canonical form")
    return tx
