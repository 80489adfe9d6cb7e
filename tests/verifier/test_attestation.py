"""Attestations: sealed and opened, and every way in which an envelope can be wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.keypair import Keypair

from chain.errors import InvalidData
from verifier import attestation

KEY = Keypair.from_seed(bytes(range(32)))


def sealed(predicate: dict[str, Any] | None = None) -> bytes:
    body = attestation.statement({"train.py": "00" * 32}, predicate or {"delta": 0.125})
    return attestation.seal(body, KEY)


def test_round_trip() -> None:
    signer, body = attestation.open_envelope(sealed({"delta": 0.125}))
    assert signer == KEY.pubkey()
    assert body["predicate"] == {"delta": 0.125}
    assert body["subject"] == [{"name": "train.py", "digest": {"sha256": "00" * 32}}]


def test_the_same_statement_seals_to_the_same_bytes() -> None:
    assert sealed() == sealed()


def test_the_pre_authentication_encoding_is_dsse() -> None:
    """The example of the DSSE protocol's text, with our own payload type."""
    assert attestation._pae(b"hello world") == b"DSSEv1 28 application/vnd.in-toto+json 11 hello world"


def edit(change: Callable[[dict[str, Any]], None]) -> bytes:
    envelope = json.loads(sealed())
    change(envelope)
    return json.dumps(envelope).encode()


def forge_payload(envelope: dict[str, Any]) -> None:
    body = json.loads(base64.b64decode(envelope["payload"]))
    body["predicate"]["delta"] = 9.0
    envelope["payload"] = base64.b64encode(json.dumps(body).encode()).decode()


@pytest.mark.parametrize(
    "change",
    [
        forge_payload,
        lambda e: e.update(payloadType="text/plain"),
        lambda e: e["signatures"].clear(),
        lambda e: e["signatures"].append(e["signatures"][0]),
        lambda e: e["signatures"][0].update(keyid=str(Keypair().pubkey())),
        lambda e: e["signatures"][0].update(sig="AAAA"),
        lambda e: e.update(payload="not base64!"),
        lambda e: e.pop("payload"),
    ],
)
def test_an_altered_envelope_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    with pytest.raises(InvalidData):
        attestation.open_envelope(edit(change))


def test_a_signed_payload_of_another_kind_is_refused() -> None:
    body = attestation.statement({}, {}) | {"predicateType": "https://slsa.dev/provenance/v1"}
    with pytest.raises(InvalidData, match="not a replay attestation"):
        attestation.open_envelope(attestation.seal(body, KEY))


@given(st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidData):
        attestation.open_envelope(data)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5))
def test_any_other_json_is_refused(value: object) -> None:
    with pytest.raises(InvalidData):
        attestation.open_envelope(json.dumps(value).encode())
