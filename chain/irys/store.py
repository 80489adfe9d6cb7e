"""A cache of content addressed by SHA-256.

File names are lowercase hex, because a base58 id is ambiguous on a file system that ignores case. Several
processes may share a folder: a file is complete under its final name or absent, and what is read is verified.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from chain.errors import InvalidData
from common.files import write_atomic


class ContentCache:
    """Content by its SHA-256, under `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: bytes) -> Path:
        return self.folder / sha256.hex()[:2] / sha256.hex()

    def get(self, sha256: bytes, max_bytes: int) -> bytes | None:
        """The content, or None if it is absent, longer than `max_bytes` or not what its name says."""
        try:
            with self.path(sha256).open("rb") as file:
                data = file.read(max_bytes + 1)
        except OSError:
            return None
        if len(data) > max_bytes or hashlib.sha256(data).digest() != sha256:
            return None
        with contextlib.suppress(OSError):
            os.utime(self.path(sha256))  # what was used last is pruned last
        return data

    def put(self, data: bytes) -> bytes:
        """Keep `data`; returns its SHA-256."""
        digest = hashlib.sha256(data).digest()
        write_atomic(self.path(digest), data)
        return digest

    def entries(self) -> list[tuple[bytes, int]]:
        """(SHA-256, size in bytes) of what is kept, the longest unused first."""
        found = []
        for path in self.folder.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):
                if _is_digest(path.name) and (status := path.stat()):
                    found.append((status.st_mtime_ns, bytes.fromhex(path.name), status.st_size))
        return [(digest, size) for _, digest, size in sorted(found)]

    def remove(self, sha256: bytes) -> None:
        """Remove one content, if it is there."""
        self.path(sha256).unlink(missing_ok=True)

    def damaged(self) -> list[bytes]:
        """Those whose content is not what their name says; they are never served."""
        return [digest for digest, size in self.entries() if self.get(digest, size) is None]

    def prune(self, max_bytes: int) -> int:
        """Remove the least recently used until at most `max_bytes` are kept; how many were removed."""
        entries = self.entries()
        kept, forgotten = sum(size for _, size in entries), 0
        for digest, size in entries:
            if kept <= max_bytes:
                break
            self.remove(digest)
            kept, forgotten = kept - size, forgotten + 1
        return forgotten


def _is_digest(name: str) -> bool:
    return len(name) == 64 and not name.strip("0123456789abcdef")


def check_sha256(data: bytes, expected: bytes, what: str) -> None:
    """Raise InvalidData, with both hashes, unless `data` hashes to `expected`."""
    found = hashlib.sha256(data).digest()
    if found != expected:
        raise InvalidData(
            f"{what} has SHA-256 {found.hex()}, expected {expected.hex()}.",
            "Do not use it: it was altered, or it is another file.",
        )
