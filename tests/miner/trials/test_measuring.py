"""A run is waited for while the machine is busy, and left out where the machine slowed it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from miner.trials.measuring import PlannedRun, Rig
from trainer.errors import UNFIT
from trainer.machine import fitness, watch
from trainer.machine.fitness import MachineState
from trainer.machine.watch import CALM_SECONDS
from trainer.measurement.run import Run
from trainer.statistics.comparison import Arm

BUSY, CALM = MachineState(load=7.0, cores=8), MachineState(load=0.1, cores=8)


class Clock:
    """Time that passes in sleep alone."""

    def __init__(self) -> None:
        self.now, self.slept = 1000.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Slow:
    """A bench that makes one run at a throughput."""

    home = Path(os.devnull)  # nothing can be noted there

    def __init__(self, rate: float, budget: float = 300.0, gpus: tuple[str, ...] = ()) -> None:
        self.rate, self.gpus = rate, gpus
        self.protocol = SimpleNamespace(execution=SimpleNamespace(training_seconds=budget))

    def each_gpu(self) -> list[Slow]:
        budget = self.protocol.execution.training_seconds
        return [Slow(self.rate * (1 + int(gpu)), budget, (gpu,)) for gpu in self.gpus] or [self]

    def measure(self, arm: Arm, files: object, listen: Any, **_: Any) -> Run:
        lines = [f"step {n:05d} ({10 * n}.0%) | loss: 3.0 | tok/sec: {self.rate:.0f}" for n in range(1, 10)]
        for line in lines:
            listen(line)
        return Run(arm, 2.5, "", "", 300.0, None, "\n".join(lines).encode())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watch, "time", clock)
    return clock


def looks(monkeypatch: pytest.MonkeyPatch, *states: MachineState) -> None:
    """The machine at each look; the last state stays."""
    left = list(states)
    monkeypatch.setattr(fitness, "read", lambda: left.pop(0) if len(left) > 1 else left[0])


def rig(budget: float = 300.0, rate: float = 1000.0) -> tuple[Rig, list[str]]:
    said: list[str] = []
    return Rig(cast("Any", Slow(rate, budget)), said.append), said


def test_a_busy_machine_is_waited_for(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    looks(monkeypatch, BUSY, BUSY, CALM)
    watched, said = rig()
    assert watched.calm() == ()
    assert clock.slept == [10.0, 10.0]
    assert len(said) == 1  # once, not at every look
    assert "waiting" in said[0]


def test_it_is_not_waited_for_without_end(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    looks(monkeypatch, BUSY)
    reasons = rig()[0].calm()
    assert sum(clock.slept) == CALM_SECONDS
    assert reasons


@pytest.mark.parametrize(
    ("state", "budget", "waits"),
    [
        (CALM, 300.0, False),
        (BUSY, 300.0, True),
        (MachineState(throttled=True), 300.0, True),
        (MachineState(on_battery=True), 300.0, False),  # waiting does not change that
        (BUSY, 6.0, False),  # a run takes less time than waiting would
    ],
)
def test_what_is_waited_for(
    state: MachineState, budget: float, waits: bool, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks(monkeypatch, state)
    assert (rig(budget)[0].calm() == ()) is (state is CALM)
    assert bool(clock.slept) is waits


def test_the_load_that_our_own_run_left_is_not_waited_for(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    looks(monkeypatch, CALM, CALM, MachineState(load=7.0, cores=8))
    watched, _ = rig()
    watched.calm()
    watched.run([PlannedRun(Arm.CANDIDATE, {})], lambda _: None)
    assert watched.calm() == ()
    assert clock.slept == []


@pytest.mark.parametrize(("rate", "left_out"), [(1000.0, False), (600.0, True), (1500.0, True)])
def test_a_run_that_the_machine_slowed_has_no_value(
    rate: float, left_out: bool, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks(monkeypatch, CALM)
    watched, said = rig(rate=rate)
    earlier = [1000.0, 1001.0, 999.0, 1000.5]
    (run,), _ = watched.run([PlannedRun(Arm.CANDIDATE, {}, earlier)], lambda _: None)
    assert (run.failure == UNFIT, run.val_bpb is None, bool(said)) == (left_out,) * 3


@pytest.mark.parametrize(("failure", "left_out"), [("host", True), ("unfit", True), ("crash", False)])
def test_a_run_that_the_machine_ended_is_no_crash_of_its_code(
    failure: str, left_out: bool, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU driver gave up, or the machine slept: left out and made again, as the verifier does it."""
    looks(monkeypatch, CALM)
    watched, said = rig()
    ended = Run(Arm.CANDIDATE, None, failure, "Why.", 300.0, None, b"")
    monkeypatch.setattr(Slow, "measure", lambda *_, **__: ended)
    (run,), _ = watched.run([PlannedRun(Arm.CANDIDATE, {})], lambda _: None)
    assert (run.failure == UNFIT, bool(said)) == (left_out, left_out)
    assert run.detail == "Why."


def test_two_gpus_make_two_runs_each_judged_by_its_own_code(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of these is twice as fast: only the run that was made there is unlike those before it."""
    looks(monkeypatch, CALM)
    watched = Rig(cast("Any", Slow(1000.0, gpus=("0", "1"))), lambda _: None)
    earlier = [1000.0, 1001.0, 999.0, 1000.5]
    orders = [PlannedRun(arm, {}, earlier) for arm in (Arm.CANDIDATE, Arm.INCUMBENT, Arm.CANDIDATE)]
    runs, _ = watched.run(orders[: watched.room], lambda _: None)
    assert [(run.arm, run.failure) for run in runs] == [(Arm.CANDIDATE, ""), (Arm.INCUMBENT, UNFIT)]
