"""Files that are whole or absent, and locks between processes.

A lock is an flock: it ends with the process that holds it, however that ends, and a killed one leaves nothing to clean.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from common.errors import Refused

LOCK_SECONDS = 60.0
"""For which `locked` waits; whoever holds such a lock writes a file and is done."""


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write `path` whole or not at all, on disk when this returns; parent folders are made."""
    with replacing(path, mode) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path`, on disk, once the block ends, and vanishes where it raises."""
    with _beside(path, mode) as (file, part):
        yield file
        _on_disk(file)
        os.replace(part, path)


def append(file: IO[bytes], data: bytes) -> None:
    """Add to an open, unbuffered file, on disk when this returns; where that fails the file is as it was."""
    before = os.fstat(file.fileno()).st_size
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(file.fileno(), left) :]
        os.fsync(file.fileno())
    except BaseException:
        file.truncate(before)
        raise


def write_beside(path: Path, data: bytes, mode: int = 0o644) -> Path:
    """A complete new file in the folder of `path`, on disk, for the caller to give that name or remove.

    Nobody else can read it from its first byte on; it gets `mode` before its content.
    """
    with _beside(path, mode) as (file, part):
        file.write(data)
        _on_disk(file)
    return part


@contextlib.contextmanager
def _beside(path: Path, mode: int) -> Iterator[tuple[IO[bytes], Path]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            yield file, Path(name)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _on_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def read_regular(path: Path, limit: int) -> tuple[bytes, int]:
    """At most `limit` bytes of a regular file, and its mode; nothing of a pipe or device, which could block for ever.

    OSError if it cannot be opened.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        return file.read(limit) if stat.S_ISREG(mode) else b"", mode


def lock(
    file: IO[bytes] | int,
    *,
    wait: float = 0.0,
    every: float = 0.1,
    shared: bool = False,
    busy: Callable[[], object] = lambda: None,
) -> bool:
    """Lock an open file or descriptor until it is closed; False if others kept it locked for `wait` seconds.

    It is tried about `every` seconds; `busy` is called once, when it has to wait. OSError if it cannot be locked.
    """
    deadline, told = time.monotonic() + wait, False
    while True:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        else:
            return True
        if time.monotonic() >= deadline:
            return False
        if not told:
            busy()
        told = True
        time.sleep(every * random.uniform(0.1, 1.0))  # else those that wait would try in step


def unlock(file: IO[bytes] | int) -> None:
    """Free a lock before its file is closed."""
    fcntl.flock(file, fcntl.LOCK_UN)


@contextlib.contextmanager
def locked(path: Path, wait: float = LOCK_SECONDS, *, busy: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (made if missing), across threads and processes.

    `busy` is called once, when it has to wait. Raises Refused where others keep it for `wait` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        if not lock(file, wait=wait, every=min(0.5, max(0.01, wait / 1000)), busy=busy):
            raise Refused(
                f"Another process has kept {path} locked for {wait:.0f} s.",
                f"Find it with `fuser {path}` and let it finish, or stop it.",
            )
        yield
