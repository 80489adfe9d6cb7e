"""Macs that are not here: what their tools print, composed after published output, and a Darwin to ask them on."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field

import pytest

from trainer.machine import fitness, hardware

GIB = 1 << 30
AC = "Now drawing from 'AC Power'\n"
BATTERY = "Now drawing from 'Battery Power'\n -InternalBattery-0 (id=22610019)\t68%; discharging; 5:21 remaining\n"
PMSET = """\
System-wide power settings:
Currently in use:
 standby              1
 Sleep On Power Button 1
 powernap             1
 disksleep            10
 sleep                {sleep} (sleep prevented by caffeinate)
 hibernatemode        3
 ttyskeepawake        1
 displaysleep         {displaysleep}
 lowpowermode         {low}
 womp                 1
"""
NOMINAL = "Note: No thermal warning level has been recorded\nNote: No performance warning level has been recorded\n"


def accelerator(model: str, cores: int | None, name: str = "AGXAcceleratorG16X") -> str:
    """`ioreg -r -d 1 -c IOAccelerator` of a machine with this GPU."""
    count = f'      "gpu-core-count" = {cores}\n' if cores else ""
    statistics = '"PerformanceStatistics" = {"Alloc system memory"=25908838400,"Device Utilization %"=2}'
    return (
        f"+-o {name}  <class {name}, id 0x1000004a5, registered, matched, active, busy 0>\n    {{\n"
        f'      "IOClass" = "{name}"\n      {statistics}\n      "model" = "{model}"\n{count}    }}\n'
    )


@dataclass(frozen=True)
class Mac:
    """A Mac by its chip, CPU cores, memory (GiB) and GPU cores; `hardware_class` is what it must be called.

    `tools` overrides what a tool prints, by its command line.
    """

    chip: str
    cores: int
    memory: int
    gpu_cores: int | None
    hardware_class: str
    doubt: str = ""
    os: str = "15.6.1"
    tools: dict[str, str] = field(default_factory=dict)

    def tool(self, *command: str, seconds: float = 0) -> str:
        """What a tool prints here; "" is silence."""
        line = " ".join(command)
        if line in self.tools:
            return self.tools[line]
        match command:
            case ("sysctl", "-n", "machdep.cpu.brand_string", *_):
                return f"{self.chip}\n{self.cores}\n{self.memory * GIB}\n" if self.chip else ""
            case ("sysctl", "-n", "kern.memorystatus_vm_pressure_level"):
                return "1\n"
            case ("sysctl", "-n", "iogpu.wired_limit_mb"):
                return "0\n"
            case ("ioreg", *_):
                return accelerator(self.chip.strip(), self.gpu_cores)
            case ("pmset", "-g"):
                return PMSET.format(sleep=1, displaysleep=10, low=0)
            case ("pmset", "-g", "batt"):
                return AC
            case ("pmset", "-g", "therm"):
                return NOMINAL
            case ("notifyutil", *_):
                return "com.apple.system.thermalpressurelevel 0\n"
        return ""


MACS = {
    "M1 with seven cores": Mac("Apple M1 ", 8, 8, 7, "apple-m1-7c"),  # the trailing space is real
    "M1": Mac("Apple M1", 8, 8, 8, "apple-m1-8c"),
    "M1 Pro": Mac("Apple M1 Pro", 10, 16, 16, "apple-m1-pro-16c"),
    "M1 Max": Mac("Apple M1 Max", 10, 64, 32, "apple-m1-max-32c"),
    "M1 Ultra": Mac("Apple M1 Ultra", 20, 128, 64, "apple-m1-ultra-64c"),
    "M2": Mac("Apple M2", 8, 8, 10, "apple-m2-10c"),
    "M2 Pro": Mac("Apple M2 Pro", 12, 16, 19, "apple-m2-pro-19c"),
    "M2 Max": Mac("Apple M2 Max", 12, 32, 30, "apple-m2-max-30c"),
    "M2 Ultra": Mac("Apple M2 Ultra", 24, 192, 76, "apple-m2-ultra-76c"),
    "M3 Pro": Mac("Apple M3 Pro", 12, 36, 18, "apple-m3-pro-18c"),
    "M3 Ultra": Mac("Apple M3 Ultra", 32, 512, 80, "apple-m3-ultra-80c"),
    "M4 Pro": Mac("Apple M4 Pro", 14, 48, 20, "apple-m4-pro-20c"),
    "M4 Max": Mac("Apple M4 Max", 16, 128, 40, "apple-m4-max-40c"),
    "M5": Mac("Apple M5", 10, 16, 10, "apple-m5-10c", os="26.1"),
    "M5 Max": Mac("Apple M5 Max", 18, 64, 40, "apple-m5-max-40c", os="26.1"),
    "GPU named by system_profiler alone": Mac(
        "Apple M4 Pro",
        14,
        24,
        20,
        "apple-m4-pro-20c",
        tools={
            "ioreg -r -d 1 -w 0 -c IOAccelerator": "",
            "system_profiler -json SPDisplaysDataType": '{"SPDisplaysDataType": [{"sppci_cores": "20"}]}',
        },
    ),
    "virtual": Mac("Apple M1 (Virtual)", 3, 7, None, "unknown", "virtual machine"),
    "virtual that names its GPU's cores": Mac("Apple M1 (Virtual)", 3, 7, 8, "unknown", "virtual machine"),
    "Rosetta": Mac("VirtualApple @ 2.50GHz processor", 10, 16, 16, "unknown", "Rosetta"),
    "silent sysctl": Mac("", 0, 0, 16, "unknown", "do not name"),
    "silent ioreg": Mac("Apple M4", 10, 16, None, "unknown", "do not name"),
}


def become(mac: Mac, monkeypatch: pytest.MonkeyPatch, *, limits: tuple[int, int] = (0, 0)) -> None:
    """Make this process think that it runs on `mac`, with `limits` as Metal gives them (`hardware._device_limits`)."""
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(platform, "mac_ver", lambda: (mac.os, ("", "", ""), "arm64"))
    for module in (hardware, fitness):
        monkeypatch.setattr(module, "run_tool", mac.tool)
    monkeypatch.setattr(hardware, "device", lambda: "metal")
    monkeypatch.setattr(hardware, "_device_limits", lambda: limits)
