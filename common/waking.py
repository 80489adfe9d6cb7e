"""A sign of life while a command loads what it needs: a second on a quiet machine, several on a busy one."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import cycle

_DOTS, _PLAIN = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\"
_CLEAR = "\r\x1b[K"


@contextmanager
def waking(*, quiet: bool = False) -> Iterator[None]:
    """Turn a wheel on stderr until the block ends, where that is a terminal that can; it leaves no trace.

    It stands before `common.terminal`, whose own import is a part of what takes long.
    """
    stream = sys.stderr
    if quiet or stream is None or not stream.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        yield
        return
    done, marks = threading.Event(), _DOTS if "utf" in (stream.encoding or "").lower() else _PLAIN

    def turn() -> None:
        with suppress(OSError):
            for mark in cycle(marks):
                stream.write(f"\r{mark} starting")
                stream.flush()
                if done.wait(0.1):
                    break
            stream.write(_CLEAR)
            stream.flush()

    thread = threading.Thread(target=turn, name="waking", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
