"""What a machine is held against after a run that may have loaded it on purpose."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer.machine import fitness
from trainer.machine.fitness import MachineState
from trainer.machine.watch import Watch

CORES = 8


class Machine:
    """A clock and a load average that decays by itself to the `rest`, unless something runs."""

    def __init__(self) -> None:
        self.now, self.load, self.rest = 1000.0, 0.2, 0.2

    def runs(self, seconds: float, tasks: float) -> None:
        self.load += (tasks + self.rest - self.load) * -math.expm1(-seconds / 60)
        self.now += seconds

    def wait(self, seconds: float) -> None:
        self.runs(seconds, 0.0)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(fitness, "read", lambda: MachineState(load=made.load, cores=CORES))
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    monkeypatch.setattr(time, "sleep", made.wait)
    return made


def run(watch: Watch, machine: Machine, tasks: float, *, foreign: bool = False) -> tuple[str, ...]:
    watch.calm()
    machine.runs(300, tasks)
    return watch.after(300, foreign=foreign)


@pytest.mark.parametrize("tasks", [4.0, 500.0])
def test_what_a_candidate_left_running_is_held_against_nobody_else(
    machine: Machine, tasks: float, tmp_path: Path
) -> None:
    """The load average forgets 500 threads in five minutes; they died with the run, and disturb nobody."""
    watch = Watch(300.0, print, tmp_path)
    assert run(watch, machine, 4.0) == ()
    run(watch, machine, tasks, foreign=True)
    assert run(watch, machine, 4.0) == ()


def test_what_goes_on_running_is_found_beside_the_next(machine: Machine, tmp_path: Path) -> None:
    watch = Watch(300.0, print, tmp_path)
    machine.rest = 30.0  # somebody else's, from now on
    run(watch, machine, 4.0, foreign=True)
    assert any("overloaded" in said for said in run(watch, machine, 4.0))


def test_short_runs_one_after_the_other_are_not_other_programs(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two quiet cores each run of a practice project was suspect for the load of those before it."""
    monkeypatch.setattr(fitness, "read", lambda: MachineState(load=machine.load, cores=2))
    watch = Watch(6.0, print, tmp_path)
    for _ in range(20):
        assert watch.calm() == ()
        machine.runs(9, 1.5)
        assert watch.after(9) == ()
    machine.rest = 3.0  # somebody else's
    machine.wait(60)
    assert any("overloaded" in said for said in watch.calm())


def session(machine: Machine, home: Path, monkeypatch: pytest.MonkeyPatch, process: int, tasks: float = 1.5) -> Watch:
    """A practice session of another process on two cores, and the watch of ours right after it."""
    monkeypatch.setattr(fitness, "read", lambda: MachineState(load=machine.load, cores=2))
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: process)
        theirs = Watch(6.0, print, home)
        for _ in range(20):
            machine.runs(9, tasks)
            theirs.after(9)
    machine.wait(2)
    return Watch(6.0, print, home)


@pytest.fixture
def ended() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


def test_a_session_that_has_just_ended_is_not_other_programs(
    machine: Machine, ended: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`verifier check` right after `miner run`: no run of it was without doubt, and it could reject nobody."""
    watch = session(machine, tmp_path, monkeypatch, ended)
    for _ in range(3):
        assert watch.calm() == ()
        machine.runs(9, 1.5)
        assert watch.after(9) == ()
        watch = Watch(6.0, print, tmp_path)  # each run of a rung of the ladder has a watch of its own


def test_other_programs_in_a_session_are_found_right_after_it(
    machine: Machine, ended: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.rest = 1.5
    assert any("overloaded" in said for said in session(machine, tmp_path, monkeypatch, ended).calm())


def test_other_programs_begun_after_a_session_are_found(
    machine: Machine, ended: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that loaded the machine little, on a GPU, leaves no room for them."""
    watch = session(machine, tmp_path, monkeypatch, ended, tasks=0.5)
    machine.rest = 1.5
    machine.wait(60)
    assert any("overloaded" in said for said in watch.calm())


def test_a_session_that_goes_on_is_another_program(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert any("overloaded" in said for said in session(machine, tmp_path, monkeypatch, os.getppid()).calm())


@pytest.mark.parametrize("note", ["", "x y z", "1 2", "{} 99999 1.5", "{} 900 lots"])
def test_a_note_that_says_nothing_is_passed_over(
    note: str, machine: Machine, ended: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damaged, or of before the system was started anew."""
    session(machine, tmp_path, monkeypatch, ended)
    (tmp_path / "load").write_text(note.format(ended))
    assert any("overloaded" in said for said in Watch(6.0, print, tmp_path).calm())
