"""Runs at the same time: each waits for the others here, so that one after the other would never end."""

from __future__ import annotations

import threading

import pytest

from trainer.errors import EnvironmentNotReady, StopRun
from trainer.measurement.abreast import Say, abreast
from trainer.measurement.run import Run
from trainer.statistics.comparison import Arm

WAIT = 20.0  # seconds


def run(value: float) -> Run:
    return Run(Arm.CANDIDATE, value, "", "", 1.0, None, b"")


def test_they_are_made_at_once_and_given_in_order() -> None:
    together, seen = threading.Barrier(3), list[str]()

    def make(number: int, say: Say) -> Run:
        say(f"run {number}")
        together.wait(WAIT)
        return run(number)

    found = abreast([lambda say, number=number: make(number, say) for number in range(3)], seen.append)  # type: ignore[misc]
    assert [one.val_bpb for one in found] == [0, 1, 2]
    assert seen == ["run 0"]


@pytest.mark.parametrize("error", [EnvironmentNotReady("No GPU.", "Get one."), KeyboardInterrupt()])
def test_what_one_raises_ends_the_others(error: BaseException) -> None:
    """The other run trains on until its next line of log, and its thread is over with the call."""
    begun, stopped = threading.Event(), threading.Event()

    def failing(say: Say) -> Run:
        assert begun.wait(WAIT)
        raise error

    def training(say: Say) -> Run:
        begun.set()
        for _ in range(int(WAIT / 0.01)):
            try:
                say("step")
            except StopRun:
                stopped.set()
                break
            stopped.wait(0.01)
        return run(1.0)

    with pytest.raises(type(error)):
        abreast([failing, training], lambda _: None)
    assert stopped.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "run"]
