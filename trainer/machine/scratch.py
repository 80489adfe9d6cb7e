"""What killed processes leave in a shared folder: known by a lock that its maker held, removed by a later process.

An entry is held by an flock on itself from its making to its removal, which ends with the process however it ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from pathlib import Path

from common.files import lock

_YOUNG = 60.0  # seconds for which an entry is left alone: its maker may not hold it yet
_held: dict[str, int] = {}


def hold(path: Path) -> Path:
    """Mark a file or folder that was just made as in use by this process; returns `path`."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if not lock(handle):
        raise BlockingIOError(f"{path} is in use")
    _held[str(path)] = handle
    return path


def remove(path: Path) -> None:
    """Remove a file or folder, held by us or not; errors are ignored."""
    _delete(path)
    if (handle := _held.pop(str(path), None)) is not None:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove what nobody holds and is older than a minute. Links are not followed."""
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            with contextlib.suppress(OSError):
                if time.time() - path.lstat().st_mtime >= _YOUNG:
                    _take(path)


def _take(path: Path) -> None:
    """Unless somebody holds it. OSError if it cannot be opened."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if lock(handle):
            _delete(path)
    finally:
        os.close(handle)


def _delete(path: Path) -> None:
    """Whatever permissions a run has set in it."""
    with contextlib.suppress(OSError, RecursionError):
        if not path.is_dir():
            path.unlink()
            return
        os.chmod(path, stat.S_IRWXU)
        for root, folders, _ in os.walk(path):
            for name in folders:
                inner = os.path.join(root, name)
                if not os.path.islink(inner):
                    os.chmod(inner, stat.S_IRWXU)
        shutil.rmtree(path, ignore_errors=True)
