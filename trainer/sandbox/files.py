"""Files of a scratch, through its open descriptor: what a job is given before it runs, and what it leaves when dead.

Links are not followed, a FIFO is not waited for, and what was changed after `before_ns` (a time as `time.time_ns` gives
it, None for no such limit) does not count.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from trainer.errors import TrainerError

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class UntrustedResult(TrainerError):
    """A result file that is missing, not a plain file, or larger than it may be."""


def put(source: Path, folder: int) -> None:
    """Copy the plain files below `source`, a folder of ours, into the open `folder`, which is empty."""
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if path.is_dir():
            os.mkdir(name, 0o700, dir_fd=folder)
        else:
            with open(os.open(name, _NEW, 0o600, dir_fd=folder), "wb") as file:
                file.write(path.read_bytes())


def read(name: str, folder: int, most: int, before_ns: int | None) -> bytes:
    """The plain file `name` in the open `folder`, of at most `most` bytes; UntrustedResult for anything else."""
    try:
        handle = os.open(name, _OLD, dir_fd=folder)
    except OSError as error:
        raise UntrustedResult(f"The result {name!r} is not a readable plain file: {error.strerror}.") from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise UntrustedResult(f"The result {name!r} is not a plain file.")
        if status.st_size > most:
            raise UntrustedResult(f"The result {name!r} is larger than the limit of {most} bytes.")
        if before_ns is not None and status.st_ctime_ns > before_ns:
            raise UntrustedResult(f"The result {name!r} was changed after it was reported complete.")
        with open(handle, "rb", closefd=False) as file:
            data = file.read(status.st_size)
    finally:
        os.close(handle)
    if len(data) != status.st_size:
        raise UntrustedResult(f"The result {name!r} could not be read whole.")
    return data


def read_all(name: str, folder: int, most_files: int, most_bytes: int, before_ns: int | None) -> dict[str, bytes]:
    """The files below the folder `name` in the open `folder`, by their path in that, none where it does not exist.

    UntrustedResult where one of them is not readable as `read` has it, or for more files or bytes in all.
    """
    found, left = dict[str, bytes](), most_bytes
    try:
        for root, _, names, here in os.fwalk(name, dir_fd=folder):
            for entry in names:
                if len(found) == most_files:
                    raise UntrustedResult(f"The folder {name!r} holds over {most_files} files.")
                found[os.path.join(root, entry)] = data = read(entry, here, left, before_ns)
                left -= len(data)
    except FileNotFoundError:
        return {}
    except (OSError, RecursionError) as error:
        raise UntrustedResult(f"The folder {name!r} cannot be read: {error}.") from error
    return found
