"""What comes from a cluster or from Irys, mutated: a value or an InvalidData, never another exception."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chain.errors import InvalidData
from chain.irys.dataitem import ED25519, DataItem, base64url, decode_tags, encode_tags
from chain.irys.http import parse_json
from chain.irys.metadata import ItemMetadata
from chain.irys.receipt import Receipt
from chain.program import PROGRAM_ID, codec
from chain.program.accounts import ACCOUNTS, decode_account, discriminator_of
from chain.program.events import EVENTS, encode_event, parse_events
from chain.program.tokens import decode_mint, decode_token_account
from tests.chain.layout import encode_account
from tests.fuzz.mutate import TIME_LIMIT, fuzzed, mutated, mutated_json_text, outcome

pytestmark = pytest.mark.timeout(TIME_LIMIT)

KEY = Keypair.from_seed(bytes(range(32)))
SAMPLES: dict[Any, Any] = {
    codec.U8: 254,
    codec.U64: 1_000_007,
    codec.I64: -3_342_544,
    codec.Flag: True,
    codec.Hash: bytes(range(32)),
    Pubkey: KEY.pubkey(),
    str: "Autoresearch MLX é",
}


def sample(kind: type) -> Any:
    """A record with something in every field."""
    hints = get_type_hints(kind, include_extras=True)
    return kind(
        **{
            name: list(hint)[-1] if isinstance(hint, type) and issubclass(hint, IntEnum) else SAMPLES[hint]
            for name, hint in hints.items()
        }
    )


# -- accounts and events ------------------------------------------------------------------------------

ACCOUNT_BYTES = [encode_account(sample(kind)) for kind in ACCOUNTS]
MINT = bytes.fromhex("01000000") + bytes(32) + bytes(range(8)) + b"\0\1" + bytes(36)
TOKEN_ACCOUNT = bytes(64) + bytes(range(8)) + bytes(36) + b"\1" + bytes(56)


@fuzzed
@given(mutated(ACCOUNT_BYTES), st.sampled_from(ACCOUNTS))
def test_accounts(data: bytes, other: type) -> None:
    for kind in (next((kind for kind in ACCOUNTS if data[:8] == discriminator_of(kind)), other), other):
        record = outcome(InvalidData, lambda kind=kind: decode_account(kind, data))  # type: ignore[misc]
        if record is not None:
            assert data.startswith(encode_account(record))


@fuzzed
@given(mutated([MINT, TOKEN_ACCOUNT]))
def test_token_accounts(data: bytes) -> None:
    outcome(InvalidData, lambda: decode_mint(data))
    outcome(InvalidData, lambda: decode_token_account(data))


EVENT_BYTES = [encode_event(sample(kind)) for kind in EVENTS]
OTHER = Pubkey.from_bytes(bytes(31) + b"\7")


def logs_of(data: bytes) -> list[str]:
    return [
        f"Program {PROGRAM_ID} invoke [1]",
        "Program log: Instruction: Approve",
        f"Program {OTHER} invoke [2]",
        f"Program data: {base64.b64encode(EVENT_BYTES[0]).decode()}",
        f"Program {OTHER} success",
        f"Program data: {base64.b64encode(data).decode()}",
        f"Program {PROGRAM_ID} success",
    ]


LINES = [line.encode() for data in EVENT_BYTES for line in logs_of(data)]


@fuzzed
@given(mutated(EVENT_BYTES))
def test_events(data: bytes) -> None:
    events = outcome(InvalidData, lambda: parse_events(logs_of(data)))
    if events:
        (event,) = events
        assert encode_event(event) == data


@fuzzed
@given(st.lists(mutated(LINES) | st.sampled_from(LINES), max_size=8))
def test_logs(lines: Sequence[bytes]) -> None:
    outcome(InvalidData, lambda: parse_events([line.decode(errors="surrogateescape") for line in lines]))


# -- data items ---------------------------------------------------------------------------------------

ITEMS = [
    DataItem.sign(KEY, b"hello irys"),
    DataItem.sign(KEY, b"hello irys", [("Content-Type", "text/plain"), ("App-Name", "test")], anchor=bytes(range(32))),
    DataItem.sign(KEY, b"", [("é", "日本" * 60)] * 7, target=bytes(range(1, 33)), signature_type=ED25519),
    DataItem.sign(KEY, bytes(range(256)), [("t", "v")] * 128, target=b"\2" * 32, anchor=b"\3" * 32),
]
RAW_ITEMS = [item.encode() for item in ITEMS]


@fuzzed
@given(mutated(RAW_ITEMS))
def test_data_items(raw: bytes) -> None:
    item = outcome(InvalidData, lambda: DataItem.parse(raw))
    if item is not None:
        assert item.encode() == raw
        assert item.size == len(raw)
        assert item.is_valid == (raw in RAW_ITEMS)
        outcome(InvalidData, item.verify)


@fuzzed
@given(mutated([item.raw_tags for item in ITEMS]))
def test_tags(raw: bytes) -> None:
    tags = outcome(InvalidData, lambda: decode_tags(raw))
    if tags is not None:
        assert encode_tags(tags) == raw


# -- what uploaders and gateways say ------------------------------------------------------------------

RECEIPT = json.loads((Path(__file__).parent / "examples" / "receipt.json").read_bytes())


def test_the_receipt_that_is_mutated_is_good() -> None:
    Receipt.parse(RECEIPT).verify(ITEMS[0].id)


@fuzzed
@given(mutated_json_text([RECEIPT]))
def test_receipts(body: bytes) -> None:
    receipt = outcome(InvalidData, lambda: Receipt.parse(parse_json(body, "The uploader")))
    if receipt is None:
        return

    def verified() -> bool:
        receipt.verify(ITEMS[0].id)
        return True

    if outcome(InvalidData, verified):
        assert receipt == Receipt.parse(RECEIPT)


METADATA = [
    {
        "id": str(item.id),
        "owner": base64url(item.owner),
        "signature": base64url(item.signature),
        "signatureType": item.signature_type,
        "target": base64url(item.target),
        "anchor": base64url(item.anchor),
        "tags": [{"name": name, "value": value} for name, value in item.tags[:9]],
    }
    for item in ITEMS[:3]
]


@fuzzed
@given(mutated_json_text(METADATA), st.sampled_from(ITEMS[:3]))
def test_metadata(body: bytes, item: DataItem) -> None:
    metadata = outcome(InvalidData, lambda: ItemMetadata.parse(item.id, parse_json(body, "The gateway")))
    if metadata is not None:
        rebuilt = outcome(InvalidData, lambda: metadata.rebuild(item.data))
        assert rebuilt is None or rebuilt == item
