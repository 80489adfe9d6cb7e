"""Attestations: what a verifier signs, and how anybody checks it.

An attestation is an in-toto Statement (v1) in a DSSE envelope, signed with the ed25519 key that
settles on chain; the key id is that key's base58 address. Its subjects are the candidate's train.py
and the code archive; its predicate holds everything the verdict rests on, so that the verdict can be
derived again from the numbers alone. `attestation.schema.json` beside this file describes it.

Sources: the in-toto attestation framework's Statement v1, and the DSSE protocol's
pre-authentication encoding (PAE) and envelope.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any

from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature

from chain.errors import InvalidData
from common.strict import no_number, unique_keys

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:openresearch:replay:v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_BYTES = 4 * 1024 * 1024


def statement(subjects: Mapping[str, str], predicate: Mapping[str, Any]) -> dict[str, Any]:
    """An in-toto Statement; `subjects` maps a file's name to its SHA-256 in hex."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(subjects.items())],
        "predicateType": PREDICATE_TYPE,
        "predicate": dict(predicate),
    }


def seal(body: Mapping[str, Any], key: Keypair) -> bytes:
    """Sign a statement: the DSSE envelope as JSON bytes, the same for the same statement and key."""
    payload = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    signature = key.sign_message(_pae(payload))
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": str(key.pubkey()), "sig": base64.b64encode(bytes(signature)).decode()}],
    }
    return json.dumps(envelope, indent=2).encode() + b"\n"


def open_envelope(data: bytes) -> tuple[Pubkey, dict[str, Any]]:
    """The signer and the statement of an envelope whose one signature is good.

    Raises InvalidData for anything else: too large, not this shape, another payload type, a bad signature.
    """
    if len(data) > MAX_BYTES:
        raise InvalidData(f"The attestation has {len(data)} bytes; the limit is {MAX_BYTES}.")
    try:
        envelope = _strict(data)
        (entry,) = envelope["signatures"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signer = Pubkey.from_string(entry["keyid"])
        signature = Signature.from_bytes(base64.b64decode(entry["sig"], validate=True))
        payload_type = envelope["payloadType"]
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise InvalidData(f"This is not a DSSE envelope with one signature: {str(error)[:200]}.") from None
    if payload_type != PAYLOAD_TYPE:
        raise InvalidData(f"The envelope contains {repr(payload_type)[:100]}, expected {PAYLOAD_TYPE!r}.")
    if not signature.verify(signer, _pae(payload)):
        raise InvalidData(f"The signature is not {signer}'s over this payload.", "Do not rely on this file.")
    try:
        body = _strict(payload)
    except (ValueError, RecursionError) as error:
        raise InvalidData(f"The signed payload is not JSON: {error}.") from None
    if (
        not isinstance(body, dict)
        or body.get("_type") != STATEMENT_TYPE
        or body.get("predicateType") != PREDICATE_TYPE
        or not isinstance(body.get("predicate"), dict)
        or not isinstance(body.get("subject"), list)
    ):
        raise InvalidData("The signed payload is not a replay attestation of version 1.")
    return signer, body


def _strict(data: bytes) -> Any:
    """JSON in which no key occurs twice and no number is NaN or infinite; ValueError."""
    return json.loads(data, object_pairs_hook=unique_keys, parse_constant=no_number)


def schema_faults(body: Mapping[str, Any]) -> list[str]:
    """Where a statement departs from `attestation.schema.json`, each as "path: what is wrong"; at most ten."""
    return [f"{fault.json_path}: {fault.message[:120]}" for fault in islice(_validator().iter_errors(body), 10)]


@cache
def _validator() -> Any:
    import jsonschema  # type: ignore[import-untyped]

    return jsonschema.Draft202012Validator(json.loads((files(__package__) / "attestation.schema.json").read_text()))


def _pae(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is really signed."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
