"""Files of content: atomic writes, and a cache addressed by SHA-256.

File names are lowercase hex, because a base58 id is ambiguous on a file system that ignores case. Several
processes may share a folder: a file is complete under its final name or absent, and what is read is verified.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from chain.errors import InvalidData


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write `path` whole or not at all, on disk when this returns; parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (made if missing), across threads and processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class ContentCache:
    """Content by its SHA-256, under `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: bytes) -> Path:
        return self.folder / sha256.hex()[:2] / sha256.hex()

    def get(self, sha256: bytes, max_bytes: int) -> bytes | None:
        """The content, or None where it is absent, longer than `max_bytes` or not what its name says."""
        try:
            with self.path(sha256).open("rb") as file:
                data = file.read(max_bytes + 1)
        except OSError:
            return None
        return data if len(data) <= max_bytes and hashlib.sha256(data).digest() == sha256 else None

    def put(self, data: bytes) -> bytes:
        """Keep `data`; returns its SHA-256."""
        digest = hashlib.sha256(data).digest()
        write_atomic(self.path(digest), data)
        return digest


def check_sha256(data: bytes, expected: bytes, what: str) -> None:
    """Raise InvalidData, with both hashes, unless `data` hashes to `expected`."""
    found = hashlib.sha256(data).digest()
    if found != expected:
        raise InvalidData(
            f"{what} has SHA-256 {found.hex()}, and {expected.hex()} was expected.",
            "Do not use it: it was altered or is another file.",
        )
