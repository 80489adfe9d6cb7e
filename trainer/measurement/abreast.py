"""Runs at the same time, one on each of a machine's GPUs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final

from trainer.errors import StopRun
from trainer.measurement.run import Run

Say = Callable[[str], None]

_ENDING: Final = 10.0  # seconds that runs get to end in after an interrupt; their processes die with this one anyway


def filled(count: int, room: int) -> int:
    """So many runs, and those for which there is room beside the last of them. Pure."""
    return -(-count // room) * room


def abreast(runs: Sequence[Callable[[Say], Run]], show: Say) -> list[Run]:
    """Make all runs at once and wait for them. Each gets what takes the lines of its log; the first one's are shown.

    What one of them raises, or an interrupt, ends the others too.
    """
    if len(runs) == 1:
        return [runs[0](show)]
    over = threading.Event()

    def line(shown: bool) -> Say:
        def take(text: str) -> None:
            if over.is_set():
                raise StopRun("another run beside it was ended")
            if shown:
                show(text)

        return take

    def make(run: Callable[[Say], Run], take: Say, made: Future[Run]) -> None:
        try:
            made.set_result(run(take))
        except BaseException as error:
            made.set_exception(error)

    found = [Future[Run]() for _ in runs]
    threads = [
        threading.Thread(target=make, args=(run, line(number == 0), made), name="run", daemon=True)
        for number, (run, made) in enumerate(zip(runs, found, strict=True))
    ]
    for thread in threads:
        thread.start()
    try:
        return [made.result() for made in found]
    finally:
        over.set()
        for thread in threads:
            thread.join(_ENDING)
