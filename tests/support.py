"""What several tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def require(condition: bool, what: str) -> None:
    """Skip by name where a system part is missing; under CI a missing part is a failure.

    `what` names the part and how to install it, for instance "bubblewrap (apt-get install bubblewrap)".
    """
    if condition:
        return
    if os.environ.get("CI"):
        pytest.fail(f"this machine lacks {what}, and CI must not pass without it")
    pytest.skip(f"not run: needs {what}")


def mac_only(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that only a Mac can run; elsewhere it is skipped by name (`-m mac` picks these on one)."""
    elsewhere = pytest.mark.skipif(sys.platform != "darwin", reason="not run: needs a Mac with Apple silicon")
    marked: Callable[..., None] = pytest.mark.mac(elsewhere(test))
    return marked


def optional(condition: bool, what: str) -> None:
    """Skip by name where a part is missing that cannot be installed everywhere, also under CI."""
    if not condition:
        pytest.skip(f"not run: needs {what}")


def is_alive(pid: int) -> bool:
    """Whether there is such a process, other than one that only waits to be collected."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:
        return True
