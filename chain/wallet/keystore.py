"""The encrypted form of a key: a small JSON document that is useless without its passphrase.

    {"format": "openresearch-keystore", "version": 1, "address": "<base58 public key>",
     "kdf": {"name": "scrypt", "n": 131072, "r": 8, "p": 1, "salt": "<64 hex digits>"},
     "cipher": {"name": "aes-256-gcm", "nonce": "<24 hex digits>", "ciphertext": "<96 hex digits>"}}

scrypt makes 32 bytes of the passphrase (128·n·r bytes of memory, 128 MiB as written), and AES-256-GCM encrypts
the 32 secret bytes with them. Everything else in the document is its associated data, so that neither the
address nor a parameter can be changed unnoticed. Reading is strict, and the work that a document asks for is
bounded before any of it is done. The address is readable without the passphrase; until `unlock` it is only what
the file says.

What can be wiped is: passphrase, derived key and decrypted secret lie in bytearrays that are set to zero after
use. Python's immutable copies (a typed line, the JSON text) and the libraries' own are out of reach.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chain.errors import ChainError, InvalidData

FORMAT: Final = "openresearch-keystore"
VERSION: Final = 1
MAX_FILE: Final = 4_096  # bytes; one as written takes about 500

_MIN_N, _MAX_MEMORY = 1 << 14, 1 << 30  # of a file that is read; bytes, for p passes together
_SALT, _NONCE, _SECRET, _TAG = 32, 12, 32, 16


@dataclass(frozen=True, slots=True)
class Parameters:
    """scrypt's: cost n (a power of two), block size r, passes p."""

    n: int = 1 << 17
    r: int = 8
    p: int = 1

    def sane(self) -> bool:
        """Whether the work is bounded (1 GiB at most) and not trivial."""
        if not (_MIN_N <= self.n <= 1 << 24 and 8 <= self.r <= 64 and 1 <= self.p <= 16):
            return False
        return self.n & (self.n - 1) == 0 and 128 * self.n * self.r * self.p <= _MAX_MEMORY


USUAL = Parameters()


@dataclass(frozen=True, slots=True)
class Keystore:
    """A parsed document; `ciphertext` ends with the tag."""

    address: Pubkey
    parameters: Parameters
    salt: bytes
    nonce: bytes
    ciphertext: bytes

    def unlock(self, passphrase: bytes | bytearray, origin: str = "") -> Keypair:
        """The key. ChainError if the passphrase (`origin` says from where) is another, or the document was altered.

        Takes as much time and memory as the parameters say: 0.3 s and 128 MiB as written.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        with _derived(passphrase, self.salt, self.parameters) as key:
            try:
                secret = bytearray(AESGCM(key).decrypt(self.nonce, self.ciphertext, self._associated()))
            except InvalidTag:
                raise ChainError(
                    f"The passphrase{origin} does not open the wallet {self.address}, or its file was altered.",
                    "Use the right passphrase, or restore the file from a backup.",
                ) from None
        with wiped(secret):
            keypair = Keypair.from_seed(secret)
        if keypair.pubkey() != self.address:
            raise InvalidData(f"The wallet file of {self.address} holds another key.", "Restore it from a backup.")
        return keypair

    def dump(self) -> bytes:
        """The document."""
        document = self._header()
        document["cipher"]["ciphertext"] = self.ciphertext.hex()
        return json.dumps(document, indent=1).encode() + b"\n"

    def _header(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "address": str(self.address),
            "kdf": {
                "name": "scrypt",
                "n": self.parameters.n,
                "r": self.parameters.r,
                "p": self.parameters.p,
                "salt": self.salt.hex(),
            },
            "cipher": {"name": "aes-256-gcm", "nonce": self.nonce.hex()},
        }

    def _associated(self) -> bytes:
        return _canonical(self._header())


def seal(keypair: Keypair, passphrase: bytes | bytearray, parameters: Parameters | None = None) -> Keystore:
    """Encrypt a key, with fresh salt and nonce. [parameters: USUAL]"""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    parameters = parameters or USUAL

    salt, nonce = secrets.token_bytes(_SALT), secrets.token_bytes(_NONCE)
    associated = Keystore(keypair.pubkey(), parameters, salt, nonce, b"")._associated()
    with _derived(passphrase, salt, parameters) as key, wiped(bytearray(keypair.secret())) as secret:
        ciphertext = AESGCM(key).encrypt(nonce, secret, associated)
    return Keystore(keypair.pubkey(), parameters, salt, nonce, ciphertext)


def looks_encrypted(raw: bytes) -> bool:
    """Whether a wallet file is meant as a keystore (an object) and not as a keypair (a list)."""
    return raw[:64].lstrip().startswith(b"{")


def parse(raw: bytes) -> Keystore | None:
    """The document in `raw`; None for anything that this version would not write."""
    if len(raw) > MAX_FILE:
        return None
    try:
        document = json.loads(raw.decode())
        kdf, cipher = document["kdf"], document["cipher"]
        found = Keystore(
            Pubkey.from_string(document["address"]),
            Parameters(*(_whole(kdf[name]) for name in "nrp")),
            _bytes(kdf["salt"], _SALT),
            _bytes(cipher["nonce"], _NONCE),
            _bytes(cipher["ciphertext"], _SECRET + _TAG),
        )
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    # Writing it again must give the same: nothing is missing, of another name, or there besides.
    return found if found.parameters.sane() and _canonical(json.loads(found.dump())) == _canonical(document) else None


@contextmanager
def wiped(secret: bytearray) -> Iterator[bytearray]:
    """The secret for one block, overwritten with zeros at its end."""
    try:
        yield secret
    finally:
        secret[:] = bytes(len(secret))


@contextmanager
def _derived(passphrase: bytes | bytearray, salt: bytes, parameters: Parameters) -> Iterator[bytearray]:
    """scrypt's output, wiped at the end of the block. ChainError if the memory is not there."""
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    with wiped(bytearray(32)) as key:
        try:
            kdf = Scrypt(salt=salt, length=len(key), n=parameters.n, r=parameters.r, p=parameters.p)
            key[:] = kdf.derive(passphrase)
        except MemoryError:
            raise ChainError(
                f"Opening the wallet needs {128 * parameters.n * parameters.r >> 20} MiB of memory.", "Free some."
            ) from None
        yield key


def _canonical(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _bytes(value: object, length: int) -> bytes:
    if not isinstance(value, str) or not re.fullmatch(f"[0-9a-f]{{{2 * length}}}", value):
        raise ValueError
    return bytes.fromhex(value)
