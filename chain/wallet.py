"""Wallets: standard Solana keypair files.

A file holds a JSON list of 64 integers (32 secret bytes, then the 32 of the public key they imply), as
`solana-keygen` writes it. Rules: a file is made with mode 0600, never overwritten, and refused on reading
where anyone but its owner may touch it; the secret goes to that file and nowhere else, error texts included.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from pathlib import Path

from solders.keypair import Keypair

from chain.errors import ChainError, InvalidData, NotFound

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_MAX_FILE = 4_096  # bytes; 64 integers take at most 320 with usual spacing


def folder(home: Path) -> Path:
    """Where `home` keeps its wallets."""
    return home / "wallets"


def path_of(home: Path, name: str) -> Path:
    """The file of the wallet called `name`. Raises ChainError where that is not a plain name."""
    if not _NAME.fullmatch(name):
        raise ChainError(
            f"A wallet's name is up to 64 letters, digits, '.', '_' or '-', not {name!r}.",
            "Choose such a name, or give the path of a keypair file.",
        )
    return folder(home) / f"{name}.json"


def names(home: Path) -> list[str]:
    """The wallets of `home`, sorted."""
    return sorted(file.stem for file in folder(home).glob("*.json") if _NAME.fullmatch(file.stem))


def load(path: Path) -> Keypair:
    """Read a keypair file.

    Raises NotFound, or InvalidData where it is unreadable, open to others or not a keypair.
    """
    try:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            raw = file.read(_MAX_FILE + 1) if stat.S_ISREG(info.st_mode) else b""
    except FileNotFoundError:
        raise NotFound(
            f"There is no wallet file {path}.", "Make one with `chain wallet new`, or name another."
        ) from None
    except OSError as error:
        raise InvalidData(
            f"The wallet file {path} cannot be read: {error.strerror}.", "Make it readable by you."
        ) from None
    if info.st_mode & 0o077:
        raise InvalidData(
            f"The wallet file {path} has mode {stat.S_IMODE(info.st_mode):04o}: others may use it.",
            f"Run `chmod 600 {path}`, and move the funds away if others had access.",
        )
    keypair = _parse(raw)
    if keypair is None:
        raise InvalidData(
            f"The wallet file {path} is not a Solana keypair: a JSON list of 64 bytes was expected.",
            "Name a file that `chain wallet new` or `solana-keygen new` wrote.",
        )
    return keypair


def save(path: Path, keypair: Keypair) -> None:
    """Write a new keypair file with mode 0600, whole or not at all. Raises ChainError where `path` exists."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            os.fchmod(file.fileno(), 0o600)
            json.dump(list(bytes(keypair)), file, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)  # unlike a rename, a link never replaces a file
    except FileExistsError:
        raise ChainError(
            f"There is already a wallet at {path}.", "Choose another name; a wallet is never overwritten."
        ) from None
    finally:
        part.unlink(missing_ok=True)


def new(home: Path, name: str) -> Keypair:
    """Make the wallet `name`. Raises ChainError where it exists."""
    keypair = Keypair()
    save(path_of(home, name), keypair)
    return keypair


def ensure(home: Path, name: str) -> Keypair:
    """The wallet `name`, made if it is not there; safe where several processes ask at once."""
    path = path_of(home, name)
    if not path.exists():
        try:
            save(path, Keypair())
        except ChainError:
            if not path.exists():
                raise
    return load(path)


def resolve(home: Path, wallet: str) -> Keypair:
    """Load a wallet given by name or, where `wallet` has a slash, ends in .json or starts with ~, by path."""
    if "/" in wallet or wallet.startswith("~") or wallet.endswith(".json"):
        return load(Path(wallet).expanduser())
    return load(path_of(home, wallet))


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
