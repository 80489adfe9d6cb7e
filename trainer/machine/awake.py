"""A machine that stays awake while it measures, and whether it did.

A Mac sleeps after minutes without input. Its wall clock goes on meanwhile, by which a train.py may count its budget,
and `time.monotonic` stands still, by which we count: the run is ruined and looks as if nothing had happened. So an
assertion is held against sleep (`kept`), and both clocks are read around each run (`slept`). A closed lid sleeps in
spite of any assertion; suspended Linux machines and clocks that are set meanwhile show the same way.
"""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

CAFFEINATE: Final = "/usr/bin/caffeinate"
_STEP: Final = 0.25  # seconds
_SLEW: Final = 1e-3  # of the time that passed; a clock that is being corrected runs at most half as much off


@dataclass(frozen=True, slots=True)
class Moment:
    """Both clocks at one moment, in seconds: `wall` as Unix time, `steady` from some beginning."""

    wall: float
    steady: float


def moment() -> Moment:
    """Now."""
    return Moment(time.time(), time.monotonic())


def slept(before: Moment, after: Moment) -> str:
    """What the clocks say of the time in between, where it was no plain time; else ""."""
    passed = after.steady - before.steady
    drift = after.wall - before.wall - passed
    if abs(drift) <= _STEP + _SLEW * max(0.0, passed):
        return ""
    if drift < 0:
        return f"this machine's clock was set back by {-drift:.1f} s during the run"
    return f"this machine slept, or its clock was set, for {drift:.1f} s during the run"


class _Assertion:
    """The process that holds macOS's power assertion, shared by all that ask for it in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._process: subprocess.Popen[bytes] | None = None

    def take(self) -> None:
        with self._lock:
            self._holders += 1
            if platform.system() == "Darwin" and (self._process is None or self._process.poll() is not None):
                with contextlib.suppress(OSError):  # `slept` tells what comes of it
                    self._process = subprocess.Popen(
                        # idle sleep, and on mains any sleep; it ends with this process, however that ends
                        [CAFFEINATE, "-is", "-w", str(os.getpid())],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        start_new_session=True,  # Ctrl-C is for us
                    )

    def drop(self) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0 and self._process is not None:
                self._process.kill()
                self._process.wait()
                self._process = None


_ASSERTION: Final = _Assertion()


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keep this machine from sleeping of itself within the block; blocks may nest. The display may sleep."""
    _ASSERTION.take()
    try:
        yield
    finally:
        _ASSERTION.drop()
