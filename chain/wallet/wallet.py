"""Wallets: standard Solana keypair files, and encrypted ones under the same names.

A plain file holds a JSON list of 64 integers (32 secret bytes, then the 32 of the public key they imply), as
`solana-keygen` writes it; an encrypted one the document of `chain.wallet.keystore`. What a file holds says which it
is, so that both are named and loaded alike; for an encrypted one the passphrase comes from `chain.wallet.passphrase`.
Rules: a file is made with mode 0600, never overwritten (`encrypt` alone puts one form of a key in the other's
place), and refused on reading where anyone but its owner may touch it; the secret goes to that file and nowhere
else, error texts included.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chain.errors import ChainError, InvalidData, NotFound
from chain.wallet import keystore
from chain.wallet.passphrase import Source
from common.files import read_regular, write_beside

KEYCHAIN = Source()  # encrypted wallets open only where the OS keychain has their passphrase
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_MAX_FILE = 4_096  # bytes; 64 integers take at most 320 with usual spacing


def folder(home: Path) -> Path:
    """Where `home` keeps its wallets."""
    return home / "wallets"


def path_of(home: Path, name: str) -> Path:
    """The file of the wallet called `name`. Raises ChainError unless it is a plain name."""
    if not _NAME.fullmatch(name):
        raise ChainError(
            f"{name!r} is not a wallet name: up to 64 letters, digits, '.', '_' or '-'.",
            "Choose another name, or give the path of a keypair file.",
        )
    return folder(home) / f"{name}.json"


def names(home: Path) -> list[str]:
    """The wallets of `home`, sorted."""
    return sorted(file.stem for file in folder(home).glob("*.json") if _NAME.fullmatch(file.stem))


def load(path: Path, source: Source = KEYCHAIN) -> Keypair:
    """Read a keypair file, plain or encrypted; `source` gives the passphrase.

    Raises NotFound, InvalidData if it is unreadable, open to others or not a keypair, and ChainError where
    an encrypted one is not opened.
    """
    found = _read(path)
    if isinstance(found, Keypair):
        return found
    return source.unlock(found)


@dataclass(frozen=True, slots=True)
class WalletSummary:
    """What a wallet file says without its passphrase; the address of an encrypted one is not proven by it."""

    address: Pubkey
    encrypted: bool


def sealed(path: Path) -> keystore.Keystore:
    """An encrypted wallet file, still locked. Raises as `load`, and ChainError for a plain one."""
    found = _read(path)
    if isinstance(found, Keypair):
        raise ChainError(f"The wallet file {path} is not encrypted.", "Run `chain wallet encrypt` first.")
    return found


def look(path: Path) -> WalletSummary:
    """A wallet's address and kind, without asking for a passphrase. Raises as `load`."""
    found = _read(path)
    if isinstance(found, Keypair):
        return WalletSummary(found.pubkey(), False)
    return WalletSummary(found.address, True)


def save(path: Path, keypair: Keypair, secret: bytes | bytearray | None = None) -> None:
    """Write a new file with mode 0600, whole or not at all; encrypted where `secret`, a passphrase, is given.

    Raises ChainError if `path` exists.
    """
    part = _part(path, keypair, secret)
    try:
        os.link(part, path)  # unlike a rename, a link never replaces a file
    except FileExistsError:
        raise ChainError(
            f"There is already a wallet at {path}.", "Choose another name; a wallet is never overwritten."
        ) from None
    finally:
        part.unlink(missing_ok=True)


def encrypt(path: Path, secret: bytes | bytearray) -> Pubkey:
    """Put an encrypted file in a plain one's place, once it was read back and unlocked; returns the address.

    Killed at any moment, this leaves one form or the other, whole. The plain bytes are then overwritten, where
    no other name leads to them; that does not reach backups, snapshots or what a flash disk has moved away.
    Raises as `load`, and ChainError if the file is already encrypted.
    """
    keypair = _read(path)
    if not isinstance(keypair, Keypair):
        raise ChainError(f"The wallet file {path} is already encrypted.")
    if path.is_symlink():
        raise ChainError(f"The wallet file {path} is a link; its target would stay plain.", "Give the file itself.")
    with open(path, "r+b", buffering=0) as plain:
        part = _part(path, keypair, secret)
        try:
            again = _read(part)
            if isinstance(again, Keypair) or again.unlock(secret) != keypair:
                raise ChainError(f"The encrypted file for {path} cannot be read back.", "The plain file is unchanged.")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        _flush(path.parent)
        info = os.fstat(plain.fileno())
        if info.st_nlink == 0:
            plain.write(bytes(info.st_size))
            os.fsync(plain.fileno())
    return keypair.pubkey()


def new(home: Path, name: str, secret: bytes | bytearray | None = None) -> Keypair:
    """Make the wallet `name`, encrypted where a passphrase is given. Raises ChainError if it exists."""
    keypair = Keypair()
    save(path_of(home, name), keypair, secret)
    return keypair


def ensure(home: Path, name: str, source: Source = KEYCHAIN) -> Keypair:
    """The wallet `name`, made if it is not there; safe where several processes ask at once."""
    return load(ensure_file(home, name), source)


def ensure_file(home: Path, name: str) -> Path:
    """The file of the wallet `name`, made (plain) if it is not there."""
    path = path_of(home, name)
    if not path.exists():
        try:
            save(path, Keypair())
        except ChainError:
            if not path.exists():
                raise
    return path


def locate(home: Path, wallet: str) -> Path:
    """The file of a wallet given by name or, where `wallet` has a slash, ends in .json or starts with ~, by path."""
    if "/" in wallet or wallet.startswith("~") or wallet.endswith(".json"):
        return Path(wallet).expanduser()
    return path_of(home, wallet)


def _read(path: Path) -> Keypair | keystore.Keystore:
    """What a wallet file holds; raises as `load` says."""
    try:
        raw, mode = read_regular(path, _MAX_FILE + 1)
    except FileNotFoundError:
        raise NotFound(
            f"There is no wallet file {path}.", "Create one with `chain wallet new`, or choose another."
        ) from None
    except OSError as error:
        raise InvalidData(f"Cannot read the wallet file {path}: {error.strerror}.", "Check its permissions.") from None
    if mode & 0o077:
        raise InvalidData(
            f"The wallet file {path} has mode {stat.S_IMODE(mode):04o}: others can read it.",
            f"Run `chmod 600 {path}`, and move the funds away if others had access.",
        )
    found: Keypair | keystore.Keystore | None
    if keystore.looks_encrypted(raw):
        if (found := keystore.parse(raw)) is None:
            raise InvalidData(
                f"The wallet file {path} is not a keystore that this version can read.",
                "Use a file written by `chain wallet new --encrypted`.",
            )
    elif (found := _parse(raw)) is None:
        raise InvalidData(
            f"The wallet file {path} is not a Solana keypair (a JSON list of 64 bytes).",
            "Use a file written by `chain wallet new` or `solana-keygen new`.",
        )
    return found


def _part(path: Path, keypair: Keypair, secret: bytes | bytearray | None) -> Path:
    """A complete file of mode 0600 beside `path`, on disk, to be given that name."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    plain = json.dumps(list(bytes(keypair)), separators=(",", ":")).encode()
    data = plain if secret is None else keystore.seal(keypair, secret).dump()
    return write_beside(path, data, 0o600)


def _flush(folder: Path) -> None:
    """Flush the names in a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parse(raw: bytes) -> Keypair | None:
    if len(raw) > _MAX_FILE:
        return None
    try:
        numbers = json.loads(raw.decode())
        if not isinstance(numbers, list) or len(numbers) != 64 or not all(type(n) is int for n in numbers):
            return None
        secret = bytes(numbers)
        keypair = Keypair.from_seed(secret[:32])
    except (ValueError, RecursionError):
        return None
    return keypair if bytes(keypair) == secret else None
