"""What a machine is held against after a run that may have loaded it on purpose."""

from __future__ import annotations

import math
import time

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
def test_what_a_candidate_left_running_is_held_against_nobody_else(machine: Machine, tasks: float) -> None:
    """The load average forgets 500 threads in five minutes; they died with the run, and disturb nobody."""
    watch = Watch(300.0, lambda _: None)
    assert run(watch, machine, 4.0) == ()
    run(watch, machine, tasks, foreign=True)
    assert run(watch, machine, 4.0) == ()


def test_what_goes_on_running_is_found_beside_the_next(machine: Machine) -> None:
    watch = Watch(300.0, lambda _: None)
    machine.rest = 30.0  # somebody else's, from now on
    run(watch, machine, 4.0, foreign=True)
    assert any("overloaded" in said for said in run(watch, machine, 4.0))


def test_short_runs_one_after_the_other_are_not_other_programs(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two quiet cores each run of a practice project was suspect for the load of those before it."""
    monkeypatch.setattr(fitness, "read", lambda: MachineState(load=machine.load, cores=2))
    watch = Watch(6.0, lambda _: None)
    for _ in range(20):
        assert watch.calm() == ()
        machine.runs(9, 1.5)
        assert watch.after(9) == ()
    machine.rest = 3.0  # somebody else's
    machine.wait(60)
    assert any("overloaded" in said for said in watch.calm())
