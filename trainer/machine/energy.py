"""The energy of a run, where the machine tells it without asking anybody: an NVIDIA GPU's own counter, or a Mac's
`powermetrics` for a user who is root. Elsewhere nothing is measured and nothing is shown.

The counter is the GPU's (its board, not the computer); powermetrics estimates CPU, GPU and Neural Engine together. Both
count what other programs use at the same time.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

POWERMETRICS: Final = ("/usr/bin/powermetrics", "--samplers", "cpu_power,gpu_power", "-i", "1000")
_COMBINED: Final = re.compile(r"^Combined Power \(CPU \+ GPU \+ ANE\): (\d{1,7}) mW$")
_MOST_WATTS: Final = 2_000.0  # of one GPU; a counter that says more was reset or wraps


class Meter(Protocol):
    """Counts joules from an arbitrary start."""

    def joules(self) -> float | None:
        """So far; None where it does not tell now."""


class Energy:
    """What a run took: `joules` and its `seconds`, filled in when the block of `metered` ends."""

    joules: float | None = None


@contextlib.contextmanager
def metered(meter: Meter | None) -> Iterator[Energy]:
    """Measure the block; no joules without a meter, or with one that fails. Never raises of its own."""
    found, begun = Energy(), time.monotonic()
    before = meter.joules() if meter else None
    yield found
    after = meter.joules() if meter and before is not None else None
    if before is not None and after is not None:
        found.joules = plausible(after - before, time.monotonic() - begun)


def plausible(joules: float, seconds: float) -> float | None:
    """What a counter counted, unless it cannot be: nothing, less than nothing, or more than a machine can use."""
    return joules if 0 < joules <= _MOST_WATTS * max(seconds, 1.0) else None


def find(environment: Mapping[str, str] = os.environ) -> Meter | None:
    """This machine's meter, None where it has none that may be read."""
    if sys.platform == "darwin":
        return PowerMeter(POWERMETRICS) if os.geteuid() == 0 else None
    with contextlib.suppress(Exception):  # no package, no driver, no such device: it does not tell
        import pynvml

        return GpuMeter(pynvml, environment.get("CUDA_VISIBLE_DEVICES", ""))
    return None


class GpuMeter:
    """The counter of the GPU that MLX uses: the first that is visible. Raises NVML's errors where there is none."""

    def __init__(self, nvml: Any, visible: str) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        first = visible.split(",")[0].strip() or "0"
        if first.isdigit():
            self._device = nvml.nvmlDeviceGetHandleByIndex(int(first))
        else:
            self._device = nvml.nvmlDeviceGetHandleByUUID(first)
        nvml.nvmlDeviceGetTotalEnergyConsumption(self._device)  # older boards have none

    def joules(self) -> float | None:
        """Since the driver was loaded."""
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._device)) / 1000  # from millijoules
        except self._nvml.NVMLError:
            return None


class PowerMeter:
    """Sums the samples of a `powermetrics` that runs as long as this process, a second each."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self._command = command
        self._process: subprocess.Popen[str] | None = None
        self._joules, self._last = 0.0, 0.0
        self._lock = threading.Lock()

    def joules(self) -> float | None:
        """Since the first call, which starts it; None once it has ended."""
        if self._process is None:
            with contextlib.suppress(OSError):
                self._process = subprocess.Popen(
                    self._command,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    stdin=subprocess.DEVNULL,
                    text=True,
                )
                self._last = time.monotonic()
                threading.Thread(target=self._read, name="powermetrics", daemon=True).start()
        if self._process is None or self._process.poll() is not None:
            return None
        with self._lock:
            return self._joules

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if (watts := watts_of(line)) is not None:
                now = time.monotonic()
                with self._lock:
                    self._joules += watts * (now - self._last)
                self._last = now


def watts_of(line: str) -> float | None:
    """The power that a line of powermetrics states for CPU, GPU and Neural Engine together."""
    found = _COMBINED.match(line.strip())
    return int(found[1]) / 1000 if found else None
