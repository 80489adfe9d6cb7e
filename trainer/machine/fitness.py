"""Whether this machine is fit to measure on now: what slows it, and whether a run was slowed.

`read` asks the system, `judge` says in words why runs measured now are suspect, and `fit` compares a run's
throughput with earlier runs of the same source. Parsers are pure functions of a tool's or a file's text. What a
system does not tell is None, never False.

macOS: `pmset` (power source, low power mode, CPU limits of Intel Macs), `notifyutil` (the thermal pressure
level, 0 nominal, of Apple silicon), `powermetrics` (the same by name; root only), `sysctl` (memory). Linux: /sys
and /proc, which tell less in containers and virtual machines, and `nvidia-smi` for the first GPU.
"""

from __future__ import annotations

import math
import os
import platform
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trainer.machine.hardware import read_text, run_tool

_SECONDS: Final = 5  # for one tool
_MAX_ENTRIES: Final = 1024  # of one folder below /sys
_MAX_STALL: Final = 10.0  # percent of the last 10 seconds in which some task waited for memory
_MIN_AVAILABLE: Final = 0.05  # of all memory
_LOAD_SECONDS: Final = 60.0  # time constant of the 1-minute load average

MIN_EARLIER: Final = 3
MAX_EARLIER: Final = 50
_FLOOR: Final = 0.02
# By how many earlier values: the multiple of 1.4826·MAD that one further value from the same Gaussian is away
# from the median with probability 1 % (400,000 simulated draws each; between rows, the row above holds).
_LIMITS: Final = {
    3: 111.6,
    4: 15.7,
    5: 14.3,
    6: 8.2,
    7: 7.8,
    8: 5.9,
    9: 5.8,
    10: 5.0,
    12: 4.4,
    15: 4.0,
    20: 3.5,
    30: 3.2,
    50: 2.9,
}


@dataclass(frozen=True, slots=True)
class MachineState:
    """The machine at one moment; None is unknown.

    load: the 1-minute load average, in tasks that run or wait. throttle_events: how often the CPU slowed down
    for heat since it started, a count to compare with an earlier one.
    """

    on_battery: bool | None = None
    low_power: bool | None = None
    throttled: bool | None = None
    throttle_events: int | None = None
    memory_short: bool | None = None
    load: float | None = None
    cores: int = 1


def read() -> MachineState:
    """This machine now. Asks system tools; takes well under a second where they answer."""
    try:
        load = os.getloadavg()[0]
    except OSError:
        load = None
    # The load average counts the whole machine's tasks, whatever share of it this process may use.
    cores = os.cpu_count() or 1
    if platform.system() == "Darwin":
        hot = [
            limited_from_pmset(_tool("pmset", "-g", "therm")),
            pressure_from_notifyutil(_tool("notifyutil", "-g", "com.apple.system.thermalpressurelevel")),
        ]
        if os.geteuid() == 0:
            hot.append(pressure_from_powermetrics(_tool("powermetrics", "-n", "1", "-i", "100", "-s", "thermal")))
        return MachineState(
            on_battery=battery_from_pmset(_tool("pmset", "-g", "batt")),
            low_power=low_power_from_pmset(_tool("pmset", "-g")),
            throttled=any_of(hot),
            memory_short=memory_from_sysctl(_tool("sysctl", "-n", "kern.memorystatus_vm_pressure_level")),
            load=load,
            cores=cores,
        )
    thermal = Path("/sys/class/thermal")
    nvidia = "clocks_throttle_reasons.hw_thermal_slowdown,clocks_throttle_reasons.sw_thermal_slowdown"
    hot = [
        throttled_from_sysfs(_entries(thermal, "thermal_zone"), _entries(thermal, "cooling_device")),
        throttled_from_nvidia_smi(_tool("nvidia-smi", "--query-gpu=" + nvidia, "--format=csv,noheader")),
    ]
    profile = read_text("/sys/firmware/acpi/platform_profile").strip()
    return MachineState(
        on_battery=battery_from_supplies(_entries(Path("/sys/class/power_supply"), "")),
        low_power=profile in ("low-power", "quiet", "cool") if profile else None,
        throttled=any_of(hot),
        throttle_events=events_from_sysfs(_entries(Path("/sys/devices/system/cpu"), "cpu", "thermal_throttle")),
        memory_short=memory_from_proc(read_text("/proc/meminfo"), read_text("/proc/pressure/memory")),
        load=load,
        cores=cores,
    )


def slowed(state: MachineState) -> tuple[str, ...]:
    """Why the machine runs at less than its speed, and will go on to, whatever else is the matter with it."""
    return judge(MachineState(on_battery=state.on_battery, low_power=state.low_power))


def judge(state: MachineState, *, own_load: float = 0.0, before: MachineState | None = None) -> tuple[str, ...]:
    """Why runs measured now are suspect, in plain words; empty if there is no known reason.

    `own_load` is what the load average owes to our own runs (`own_load` below): look before a run starts, not in
    the middle of it. `before` is an earlier look, for heat that came and went in between.
    """
    reasons = []
    if state.on_battery:
        reasons.append("running on battery")
    if state.low_power:
        reasons.append("low power mode is on")
    if state.throttled:
        reasons.append("throttled because of heat")
    elif before and None not in (before.throttle_events, state.throttle_events):
        times = (state.throttle_events or 0) - (before.throttle_events or 0)
        if times > 0:
            reasons.append(f"the CPU was throttled for heat {times} times since the last check")
    if state.load is not None:
        others = max(0.0, state.load - own_load)
        # A desktop at rest is below this; a quarter of our own load is the estimate's error.
        most = max(0.75, state.cores / 4, own_load / 4)
        if others > most:
            reasons.append(f"machine overloaded: other programs' load is {others:.2f}, at most {most:.2f} is fine")
    if state.memory_short:
        reasons.append("low on memory")
    return tuple(reasons)


def own_load(tasks: float, ran: float) -> float:
    """What the 1-minute load average holds of a run that kept `tasks` tasks running for `ran` seconds, at its end."""
    return max(0.0, tasks) * -math.expm1(-max(0.0, ran) / _LOAD_SECONDS)


def still_held(since: float) -> float:
    """The share that the 1-minute load average holds of a load that ended `since` seconds ago."""
    return math.exp(-max(0.0, since) / _LOAD_SECONDS)


def fit(value: float, earlier: Sequence[float]) -> str:
    """Why a run's throughput (tokens per second) is unfit beside `earlier` runs of the same source here, or "".

    Unfit is further from their median than noise goes: by more than 2 % of it, and by more than a multiple of
    1.4826·MAD that depends on how many they are. Of the earlier the last 50 count, and fewer than 3 say nothing.
    False alarms on Gaussian noise, by simulation (20,000 draws for each σ and number of earlier values, 3 to 60): 0.5
    to 1.1 % at σ of 2 and 5 %, 0.3 to 1.0 % at 1 %, at most 0.02 % at 0.5 %; 1.2 % in a row of 40 runs from which
    the unfit are left out. A run that is 10 % slow is found, at σ = 1 %, in 10 % of cases by 3 earlier values, in 46
    by 4, 81 by 6, 96 by 8 and 99 by 10. Which runs `earlier` should hold, `in_force` says.
    """
    if not (math.isfinite(value) and value > 0):
        return "the run reported no throughput"
    known = [x for x in earlier if math.isfinite(x) and x > 0][-MAX_EARLIER:]
    if len(known) < MIN_EARLIER:
        return ""
    median = statistics.median(known)
    spread = 1.4826 * statistics.median(abs(x - median) for x in known)
    limit = next(_LIMITS[n] for n in sorted(_LIMITS, reverse=True) if n <= len(known))
    tolerance = max(limit * spread, _FLOOR * median)
    off = value - median
    if abs(off) <= tolerance:
        return ""
    return (
        f"{value:,.0f} tokens/s is {abs(off) / median:.1%} {'above' if off > 0 else 'below'} the usual "
        f"{median:,.0f} of {len(known)} runs, more than the noise of {tolerance / median:.1%}"
    )


def in_force(runs: Iterable[tuple[float, bool]]) -> list[float]:
    """The throughputs that a further run is to be compared with, out of all earlier ones of a source, in order: each in
    tokens per second and whether it was left out as unfit.

    Those left out do not count, until MIN_EARLIER of them in a row are off to the same side and further from the usual
    than from one another: then the machine has changed, and what counts begins with them. Without that, one start on a
    busy machine would leave every later run out.
    """
    counted: list[float] = []
    left_out: list[float] = []
    for rate, unfit in runs:
        if not unfit:
            counted.append(rate)
            left_out.clear()
            continue
        left_out.append(rate)
        last = left_out[-MIN_EARLIER:]
        usual = statistics.median(counted) if counted else 0.0
        distance = max(min(last) - usual, usual - max(last))  # negative where they are not on one side
        if len(last) == MIN_EARLIER and distance > max(last) - min(last):
            counted, left_out = last, []
    return counted


# --- parsers ---


def any_of(answers: Iterable[bool | None]) -> bool | None:
    """True if one says so, False if one denies it and none says so, else None."""
    known = [answer for answer in answers if answer is not None]
    return any(known) if known else None


def battery_from_pmset(output: str) -> bool | None:
    """Whether `pmset -g batt` draws from a battery or a UPS."""
    found = re.search(r"^Now drawing from '(AC|Battery|UPS) Power'", output, re.MULTILINE)
    return found[1] != "AC" if found else None


def low_power_from_pmset(output: str) -> bool | None:
    """The low power mode in `pmset -g`: `lowpowermode` or `powermode` 1, in whatever order it prints them."""
    modes = re.findall(r"^[ \t]*(?:lowpowermode|powermode)[ \t]+(\d)[ \t]*$", output, re.MULTILINE)
    return "1" in modes if modes else None


def limited_from_pmset(output: str) -> bool | None:
    """Whether `pmset -g therm` shows a limit below 100 or a warning level. Its notes that nothing was recorded,
    which are all that Apple silicon prints, say nothing."""
    limits = re.findall(r"^[ \t]*CPU_(?:Speed|Scheduler)_Limit[ \t]*=[ \t]*(\d{1,3})[ \t]*$", output, re.MULTILINE)
    levels = re.findall(r"^(?:Thermal|Performance) Warning Level = (\d{1,3})[ \t]*$", output, re.MULTILINE)
    if not limits and not levels:
        return None
    return any(int(limit) < 100 for limit in limits) or any(int(level) > 0 for level in levels)


def pressure_from_notifyutil(output: str) -> bool | None:
    """Whether `notifyutil -g com.apple.system.thermalpressurelevel` is above nominal."""
    found = re.fullmatch(r"com\.apple\.system\.thermalpressurelevel[ \t]+(\d{1,3})\s*", output)
    return int(found[1]) > 0 if found else None


def pressure_from_powermetrics(output: str) -> bool | None:
    """Whether powermetrics' thermal sampler is above nominal."""
    found = re.search(r"^Current pressure level: (\w{1,20})[ \t]*$", output, re.MULTILINE)
    return found[1] != "Nominal" if found else None


def memory_from_sysctl(output: str) -> bool | None:
    """Whether `kern.memorystatus_vm_pressure_level` is above 1, normal."""
    found = re.fullmatch(r"([124])\s*", output)
    return found[1] != "1" if found else None


def memory_from_proc(meminfo: str, pressure: str) -> bool | None:
    """Whether /proc/meminfo or /proc/pressure/memory shows that memory is short."""
    sizes = dict(re.findall(r"^(MemTotal|MemAvailable):[ \t]+(\d{1,15}) kB$", meminfo, re.MULTILINE))
    stall = re.search(r"^some avg10=(\d{1,3}\.\d{1,4}) ", pressure, re.MULTILINE)
    full = None
    if len(sizes) == 2 and int(sizes["MemTotal"]):
        full = int(sizes["MemAvailable"]) < _MIN_AVAILABLE * int(sizes["MemTotal"])
    return any_of([full, float(stall[1]) > _MAX_STALL if stall else None])


def battery_from_supplies(supplies: Iterable[Mapping[str, str]]) -> bool | None:
    """Whether a battery of the machine discharges, by the files of each folder in /sys/class/power_supply.

    A mouse's or keyboard's battery has the scope Device and does not count.
    """
    answers: list[bool | None] = []
    for supply in supplies:
        kind, status, online = supply.get("type"), supply.get("status"), supply.get("online")
        if supply.get("scope") == "Device":
            continue
        if kind in ("Battery", "UPS") and status in ("Discharging", "Charging", "Full", "Not charging"):
            answers.append(status == "Discharging")
        elif kind in ("Mains", "USB") and online == "1":
            answers.append(False)
    return any_of(answers)


def throttled_from_sysfs(zones: Iterable[Mapping[str, str]], coolers: Iterable[Mapping[str, str]]) -> bool | None:
    """Whether a zone is at its passive trip point, or a cooling device holds the processor back."""
    answers: list[bool | None] = []
    for zone in zones:
        trips = [
            int(zone[f"trip_point_{n}_temp"])
            for n in range(12)
            if zone.get(f"trip_point_{n}_type") == "passive" and _positive(zone.get(f"trip_point_{n}_temp", ""))
        ]
        if trips and _positive(zone.get("temp", "")):
            answers.append(int(zone["temp"]) >= min(trips))
    for cooler in coolers:
        held = re.fullmatch(r"\d{1,6}", cooler.get("cur_state", ""))
        if held and re.match(r"Processor|(?:thermal-)?cpufreq", cooler.get("type", "")):
            answers.append(int(held[0]) > 0)
    return any_of(answers)


def events_from_sysfs(cores: Iterable[Mapping[str, str]]) -> int | None:
    """The sum of all cores' core_throttle_count."""
    counts = [core.get("core_throttle_count", "") for core in cores]
    known = [int(count) for count in counts if re.fullmatch(r"\d{1,15}", count)]
    return sum(known) if known else None


def throttled_from_nvidia_smi(output: str) -> bool | None:
    """Whether the first GPU's hardware or software thermal slowdown is active ("Active, Not Active")."""
    words = [word.strip() for word in output.partition("\n")[0].split(",")]
    return any_of([{"Active": True, "Not Active": False}.get(word) for word in words])


def _positive(text: str) -> bool:
    return re.fullmatch(r"[1-9]\d{0,8}", text) is not None


def _tool(*command: str) -> str:
    return run_tool(*command, seconds=_SECONDS)


def _entries(folder: Path, prefix: str, below: str = "") -> list[dict[str, str]]:
    """The small files that the parsers look at, of each folder `prefix`* in `folder`, by name."""
    wanted = {"type", "status", "online", "scope", "temp", "cur_state", "core_throttle_count"}
    wanted |= {f"trip_point_{n}_{what}" for n in range(12) for what in ("type", "temp")}
    try:
        names = sorted(os.listdir(folder))[:_MAX_ENTRIES]
    except OSError:
        return []
    found = []
    for name in names:
        place = folder / name / below
        if name.startswith(prefix):
            try:
                files = wanted.intersection(os.listdir(place))
            except OSError:
                continue
            found.append({file: read_text(str(place / file))[:64].strip() for file in files})
    return found
