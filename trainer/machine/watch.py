"""Watches this machine around runs: waits while it is busy, and says what made a run suspect.

Miner, confirming test and verifier measure under the same watch.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from common.files import write_atomic
from trainer.machine import fitness
from trainer.machine.fitness import MachineState

Say = Callable[[str], None]

CALM_SECONDS: Final = 120.0  # that a busy machine is waited for, before a run goes ahead anyway
_CALM_LOOK: Final = 10.0


class Watch:
    """`budget` is a run's training time in seconds: a run that takes less than the wait is not waited for.

    What the last run left of load is noted in `home`, for the next watch there: a check begins right after a session.
    """

    def __init__(self, budget: float, say: Say, home: Path) -> None:
        self._say, self._small, self._note = say, budget < CALM_SECONDS, home / "load"
        self._ended, self._ours = _noted(self._note)  # when our last run did; what the load average held of ours then
        self._before, self._reasons = MachineState(), tuple[str, ...]()  # of the last look before a run
        self._left = 0.0  # load beyond one task a core that a run left behind: its processes are dead

    def calm(self) -> tuple[str, ...]:
        """Wait a while for a machine that is busy or hot; the remaining reasons not to measure."""
        deadline = time.monotonic() + CALM_SECONDS
        said = False
        while True:
            state, held = fitness.read(), self._still_held()
            reasons = fitness.judge(state, own_load=(self._ours + self._left) * held)
            waiting = any("overloaded" in reason or "heat" in reason for reason in reasons)
            if not waiting or time.monotonic() >= deadline or self._small:
                self._before, self._reasons = state, reasons
                return reasons
            if not said:
                self._say(f"  waiting for the machine: {', '.join(reasons)}")
                said = True
            time.sleep(_CALM_LOOK)

    def after(self, seconds: float, *, foreign: bool = False) -> tuple[str, ...]:
        """The reasons to suspect a run that took `seconds` and has just ended: those that `calm` left, and new ones.

        A `foreign` run may have loaded this machine on purpose. The load average forgets that over minutes; what is
        left of it is not held against the next run, unless runs take seconds, in which nothing could be told apart.
        """
        state, held = fitness.read(), self._still_held()
        came = fitness.judge(state, before=self._before, own_load=self._before.cores + self._left * held)
        self._ended = time.monotonic()
        self._ours = self._ours * held + fitness.own_load(state.cores, seconds)
        alone = foreign and not self._small and state.load is not None
        self._left = max(0.0, (state.load or 0.0) - state.cores) if alone else 0.0
        ours = min(self._ours + self._left, state.load or 0.0)  # it holds no more than that of anybody
        with suppress(OSError):
            write_atomic(self._note, f"{os.getpid()} {self._ended} {ours}".encode())
        return tuple(dict.fromkeys((*self._reasons, *came)))

    def _still_held(self) -> float:
        """The share of what our last run left that the load average still holds."""
        return fitness.still_held(time.monotonic() - self._ended)

    def refused(self) -> tuple[str, ...]:
        """Why nobody's stake may depend on this machine now: it runs at less than its speed, and will go on to."""
        return () if self._small else fitness.slowed(fitness.read())


def _noted(note: Path) -> tuple[float, float]:
    """When the last run under a watch ended, in seconds since the system started, and what the load average held of
    such runs then. Of another process that still lives nothing: it may load this machine again at any time."""
    with suppress(OSError, ValueError):
        process, ended, ours = note.read_text().split()
        if float(ended) <= time.monotonic() and not _lives_beside_us(int(process)):  # later: the system started anew
            return float(ended), float(ours)
    return -math.inf, 0.0


def _lives_beside_us(process: int) -> bool:
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
