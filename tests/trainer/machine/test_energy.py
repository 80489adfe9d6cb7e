"""The energy of a run by emulated meters: NVML's interface as nvidia-ml-py gives it, powermetrics as it prints."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainer.machine import energy
from trainer.machine.energy import GpuMeter, PowerMeter, metered, plausible, watts_of


class NvmlError(Exception):
    """What NVML raises."""


class Nvml(SimpleNamespace):
    """Two boards whose counters rise by 5 J at every look; the second is known by its UUID only."""

    NVMLError = NvmlError

    def __init__(self, *, counts: bool = True) -> None:
        self.counts, self.looks = counts, 0

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        if index > 1:
            raise NvmlError("Invalid Argument")
        return f"board {index}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return f"board {uuid}"

    def nvmlDeviceGetTotalEnergyConsumption(self, device: str) -> int:
        if not self.counts:
            raise NvmlError("Not Supported")
        self.looks += 1
        self.last = device
        return 7_000_000 + 5_000 * self.looks


@pytest.mark.parametrize(
    ("visible", "board"), [("", "board 0"), ("1,0", "board 1"), ("GPU-abc", "board GPU-abc"), (" 1 ", "board 1")]
)
def test_the_first_visible_gpu_is_counted(visible: str, board: str) -> None:
    nvml = Nvml()
    with metered(GpuMeter(nvml, visible)) as used:
        pass
    assert (used.joules, nvml.last) == (5.0, board)


def test_one_that_does_not_tell_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for nvml, visible in ((Nvml(counts=False), "0"), (Nvml(), "7")):
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        assert energy.find({"CUDA_VISIBLE_DEVICES": visible}) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    assert energy.find({}) is None
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    assert isinstance(energy.find({}), GpuMeter)


def test_one_that_stops_telling_measures_nothing() -> None:
    nvml = Nvml()
    with metered(GpuMeter(nvml, "")) as used:
        nvml.counts = False
    assert used.joules is None
    with metered(None) as used:
        pass
    assert used.joules is None


@pytest.mark.parametrize(
    ("joules", "seconds", "told"),
    [(5.0, 1.0, 5.0), (0.0, 1.0, None), (-3.0, 1.0, None), (1e9, 300.0, None), (210_000.0, 300.0, 210_000.0)],
)
def test_what_cannot_be_is_not_told(joules: float, seconds: float, told: float | None) -> None:
    assert plausible(joules, seconds) == told


@pytest.mark.parametrize(
    ("line", "watts"),
    [
        ("Combined Power (CPU + GPU + ANE): 23456 mW\n", 23.456),
        ("CPU Power: 1234 mW\n", None),
        ("Combined Power (CPU + GPU + ANE): -1 mW", None),
        ("", None),
    ],
)
def test_a_line_of_powermetrics(line: str, watts: float | None) -> None:
    assert watts_of(line) == watts


def test_only_root_asks_powermetrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("os.geteuid", lambda: 501)
    assert energy.find({}) is None  # it would ask for a password
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert isinstance(energy.find({}), PowerMeter)


def test_samples_are_summed_while_it_runs(tmp_path: Path) -> None:
    script = tmp_path / "powermetrics.py"
    line = "Combined Power (CPU + GPU + ANE): 10000 mW"
    script.write_text(f"import time\nfor _ in range(3):\n    print({line!r}, flush=True)\ntime.sleep(60)\n")
    begun = time.monotonic()
    meter = PowerMeter((sys.executable, str(script)))
    assert meter.joules() == 0.0
    deadline = begun + 30
    while not (found := meter.joules()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert found
    process: Any = meter._process
    assert found <= 10.0 * (time.monotonic() - begun)
    process.kill()
    process.wait()
    assert meter.joules() is None
    assert PowerMeter(("/no/such/program",)).joules() is None
