"""A machine that sleeps: held off where it can be, found by the clocks where it cannot."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import UNFIT
from trainer.machine import awake
from trainer.machine.awake import Moment, slept
from trainer.measurement.bench import left_out
from trainer.measurement.run import Run
from trainer.statistics.comparison import Arm


@pytest.mark.parametrize(
    ("wall", "steady", "words"),
    [
        (300.0, 300.0, ""),
        (300.2, 300.0, ""),  # a clock that is being corrected
        (6.2, 6.0, ""),
        (7.0, 6.0, "slept, or its clock was set, for 1.0 s"),
        (340.0, 300.0, "slept, or its clock was set, for 40.0 s"),
        (28_800.0, 300.0, "for 28500.0 s"),  # a night
        (290.0, 300.0, "set back by 10.0 s"),
    ],
)
def test_what_two_clocks_say(wall: float, steady: float, words: str) -> None:
    start = Moment(1.7e9, 1000.0)
    found = slept(start, Moment(start.wall + wall, start.steady + steady))
    assert words in found
    assert bool(found) is bool(words)


def test_a_run_that_was_slept_through_has_no_value() -> None:
    run = Run(Arm.CANDIDATE, 3.46, "", "", 300.0, None, b"log", said="words")
    found = left_out(run, slept(Moment(0.0, 0.0), Moment(340.0, 300.0)))
    assert (found.val_bpb, found.failure, found.said) == (None, UNFIT, "")
    assert "slept" in found.detail
    assert "3.460000 val_bpb not counted" in found.detail
    assert left_out(run, "") is run


@pytest.fixture
def caffeinate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Darwin with a stand-in of caffeinate that writes down how it was called, then waits."""
    tool, said = tmp_path / "caffeinate", tmp_path / "said"
    tool.write_text(f'#!/bin/sh\necho "$$ $@" >> {said}\nexec sleep 600\n')
    tool.chmod(0o755)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(awake, "CAFFEINATE", str(tool))
    yield said
    assert awake._ASSERTION._process is None


def called(said: Path) -> list[list[str]]:
    deadline = time.monotonic() + 20
    while not said.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return [line.split() for line in said.read_text().splitlines()]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_one_assertion_is_held_while_anything_is_measured(caffeinate: Path) -> None:
    with awake.kept():
        with awake.kept():
            ((pid, *arguments),) = called(caffeinate)
        assert arguments == ["-is", "-w", str(os.getpid())]  # it ends with this process, however that ends
        assert alive(int(pid))
        assert os.getpgid(int(pid)) != os.getpgid(0)  # Ctrl-C is for us
    assert not alive(int(pid))
    with awake.kept():
        pass


def test_a_mac_without_the_tool_measures_all_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(awake, "CAFFEINATE", str(tmp_path / "none"))
    with awake.kept():
        pass


def test_elsewhere_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with awake.kept():
        assert sys.platform
