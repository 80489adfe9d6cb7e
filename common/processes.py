"""A program that is run to its end within a time: when that is over, all that it started ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress


def run(
    command: Sequence[str],
    *,
    seconds: float,
    given: bytes = b"",
    environment: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> subprocess.CompletedProcess[bytes]:
    """What the program printed and its status. subprocess.TimeoutExpired, or OSError where it cannot be started.

    It has a session of its own, so that Ctrl-C ends it through us and not in the middle of its work beside us. Its end
    is that of its output, which what it leaves in the background may hold; where it is `quiet`, nobody reads that.
    """
    output = subprocess.DEVNULL if quiet else subprocess.PIPE
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment, start_new_session=True
    ) as process:
        try:
            out, error = process.communicate(given, timeout=seconds)
        except BaseException:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)
