"""Irys receipts: an uploader's signed promise to keep a data item.

Signed message: deep hash of ["Bundlr", version, id text as returned, deadlineHeight, timestamp]; RSA-4096 PSS
with SHA-256, MGF1-SHA-256 and the longest salt; `public` is the base64url modulus, the exponent is 65537.
A receipt names its own key: it proves which uploader promised only to whoever already knows that key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from chain.errors import InvalidData
from chain.irys.dataitem import ItemId, base64url, deep_hash, from_base64url

VERSION = "1.0.0"
_MODULUS_BYTES = 512
_EXPONENT = 65537


@dataclass(frozen=True, slots=True)
class Receipt:
    """`id` and `version` as the uploader wrote them; `timestamp` in milliseconds since 1970; `public` and
    `signature` in base64url; `deadline_height` a block height."""

    id: str
    public: str
    signature: str
    deadline_height: int
    timestamp: int
    version: str = VERSION

    @classmethod
    def parse(cls, value: object) -> Receipt:
        """From decoded JSON; InvalidData names the field that is missing or of another type."""
        if not isinstance(value, dict):
            raise InvalidData(f"A receipt must be a JSON object, not a {type(value).__name__}.")

        def text(name: str, limit: int) -> str:
            found = value.get(name)
            if not isinstance(found, str) or not 0 < len(found) <= limit:
                raise InvalidData(f"The receipt's {name} must be a text of 1 to {limit} characters.")
            return found

        def number(name: str) -> int:
            found = value.get(name)
            if type(found) is not int or not 0 <= found < 1 << 53:
                raise InvalidData(f"The receipt's {name} must be a whole number.")
            return found

        return cls(
            id=text("id", 64),
            public=text("public", 700),
            signature=text("signature", 700),
            deadline_height=number("deadlineHeight"),
            timestamp=number("timestamp"),
            version=text("version", 16),
        )

    def json(self) -> dict[str, Any]:
        """The object an uploader answers with."""
        return {
            "id": self.id,
            "public": self.public,
            "signature": self.signature,
            "deadlineHeight": self.deadline_height,
            "timestamp": self.timestamp,
            "version": self.version,
            "validatorSignatures": [],
        }

    def message(self) -> bytes:
        """The 48 bytes that are signed."""
        parts = ("Bundlr", self.version, self.id, str(self.deadline_height), str(self.timestamp))
        return deep_hash([part.encode() for part in parts])

    def verify(self, item_id: bytes, *, public: str | None = None) -> None:
        """Raise InvalidData unless this is a valid promise for `item_id`, by the key `public` where given."""
        if not ItemId(item_id).matches(self.id):
            raise InvalidData(
                f"The receipt is for item {self.id}, but {ItemId(item_id)} was uploaded.",
                "Do not rely on this uploader.",
            )
        if public is not None and self.public != public:
            raise InvalidData(
                f"The receipt is signed by another key ({self.public[:16]}…) than the uploader's ({public[:16]}…).",
                "Do not rely on this uploader.",
            )
        modulus = from_base64url(self.public)
        if len(modulus) != _MODULUS_BYTES or modulus[0] < 0x80:
            raise InvalidData(f"The receipt's key must be a modulus of 4096 bits; it has {len(modulus)} bytes.")
        try:
            key = rsa.RSAPublicNumbers(_EXPONENT, int.from_bytes(modulus, "big")).public_key()
            key.verify(from_base64url(self.signature), self.message(), _pss(padding.PSS.AUTO), SHA256())
        except (InvalidSignature, ValueError) as error:
            raise InvalidData(
                f"The signature of the receipt for item {self.id} does not match its content.",
                "Do not rely on this uploader.",
            ) from error


def generate_key() -> rsa.RSAPrivateKey:
    """A new RSA-4096 key (seconds)."""
    return rsa.generate_private_key(_EXPONENT, 8 * _MODULUS_BYTES)


def public_modulus(key: rsa.RSAPrivateKey) -> str:
    """The key's modulus as receipts name it, base64url."""
    return base64url(key.public_key().public_numbers().n.to_bytes(_MODULUS_BYTES, "big"))


def sign_receipt(key: rsa.RSAPrivateKey, item_id: bytes, *, timestamp: int, deadline_height: int) -> Receipt:
    """An uploader's receipt for an item; `timestamp` in milliseconds."""
    draft = Receipt(str(ItemId(item_id)), public_modulus(key), "", deadline_height, timestamp)
    signature = key.sign(draft.message(), _pss(padding.PSS.MAX_LENGTH), SHA256())
    return Receipt(draft.id, draft.public, base64url(signature), deadline_height, timestamp)


def _pss(salt: Any) -> padding.PSS:
    return padding.PSS(mgf=padding.MGF1(SHA256()), salt_length=salt)
