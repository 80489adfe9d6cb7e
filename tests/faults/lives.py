"""Commands in processes of their own that are killed at a given moment, and what they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.e2e.test_path import SECONDS, environment

if TYPE_CHECKING:
    pass

LIFE = 7.0  # seconds that a life lasts at most, about two of them its start


@dataclass(frozen=True, slots=True)
class Kill:
    """When: after seconds (float), so many new events in the ledger (int) or the first one of a kind (str); and
    whether the whole process group dies, or the parent alone.
    """

    at: float | int | str
    group: bool = True

    def due(self, seconds: float, new: Sequence[dict[str, Any]]) -> bool:
        match self.at:
            case float(limit):
                return seconds >= limit
            case int(count):
                return len(new) >= count or seconds >= LIFE
            case kind:
                return any(event["event"] == kind for event in new)


def live(command: Sequence[object], said: Path, kill: Kill | None, seen: Callable[[], list[dict[str, Any]]]) -> bool:
    """One process, killed or to its end; whether it came to its end. Its words are added to `said`; `seen` reads the
    events that it writes.
    """
    before = len(seen())
    with said.open("ab") as file:
        process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
            env=environment(),
            start_new_session=True,
        )
    begin, deadline = time.monotonic(), time.monotonic() + SECONDS
    try:
        while process.poll() is None:
            assert time.monotonic() < deadline, said.read_text()[-3000:]
            if kill is not None and kill.due(time.monotonic() - begin, seen()[before:]):
                break
            time.sleep(0.002)
    finally:
        if process.poll() is None:
            (os.killpg if kill is None or kill.group else os.kill)(process.pid, signal.SIGKILL)
        code = process.wait(30)
    assert code in (0, -signal.SIGKILL), said.read_text()[-3000:]
    return code == 0


def left_over(home: Path) -> list[str]:
    """Command lines of processes that work in this home; those that are dying get a moment."""
    deadline = time.monotonic() + 10
    while True:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if str(home) in line or str(home) in str((process / "cwd").readlink()):
                    found.append(line)
            except OSError:
                continue
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.02)
