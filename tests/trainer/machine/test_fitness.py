"""The machine's state from samples of tools and files, what is said about it, and unfit throughput."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.machine import fitness
from trainer.machine.fitness import MachineState, fit, in_force, judge, own_load, read, still_held

BATTERY = """Now drawing from 'Battery Power'
 -InternalBattery-0 (id=22085731)\t61%; discharging; 4:10 remaining present: true
"""
NOTES = """Note: No thermal warning level has been recorded
Note: No performance warning level has been recorded
Note: No CPU power status has been recorded
"""
LIMITS = """Note: No thermal warning level has been recorded
Note: No performance warning level has been recorded
2026-03-01 09:15:00 +0100 CPU Power notify
\tCPU_Scheduler_Limit \t= 100
\tCPU_Available_CPUs \t= 12
\tCPU_Speed_Limit \t= {}
"""
SETTINGS = """System-wide power settings:
Currently in use:
 standby              1
 lowpowermode         {}
 displaysleep         10
"""
MEMINFO = "MemTotal:       32000000 kB\nMemFree:          100000 kB\nMemAvailable:   {} kB\n"
STALL = "some avg10={} avg60=0.50 avg300=0.10 total=12345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"


@pytest.mark.parametrize(
    ("parser", "text", "found"),
    [
        ("battery_from_pmset", BATTERY, True),
        ("battery_from_pmset", BATTERY.replace("Battery Power", "AC Power").replace("discharging", "charged"), False),
        ("battery_from_pmset", BATTERY.replace("Battery Power", "UPS Power"), True),
        ("battery_from_pmset", "Now drawing from 'AC Power'\n", False),
        ("battery_from_pmset", " Now drawing from", None),
        ("low_power_from_pmset", SETTINGS.format(1), True),
        ("low_power_from_pmset", SETTINGS.format(0), False),
        ("low_power_from_pmset", SETTINGS.format(2).replace("lowpowermode", "powermode"), False),
        ("low_power_from_pmset", " lowpowermode x\n", None),
        ("limited_from_pmset", LIMITS.format(100), False),
        ("limited_from_pmset", LIMITS.format(35), True),
        ("limited_from_pmset", LIMITS.format(100).replace("Limit \t= 100\n\tCPU_A", "Limit \t= 60\n\tCPU_A"), True),
        ("limited_from_pmset", "Thermal Warning Level = 1\n", True),
        ("limited_from_pmset", "Thermal Warning Level = 0\nPerformance Warning Level = 0\n", False),
        ("limited_from_pmset", NOTES, None),
        ("pressure_from_notifyutil", "com.apple.system.thermalpressurelevel 0\n", False),
        ("pressure_from_notifyutil", "com.apple.system.thermalpressurelevel 2\n", True),
        ("pressure_from_notifyutil", "com.apple.system.thermalpressurelevel -1\n", None),
        ("pressure_from_notifyutil", "com.apple.system.other 2\n", None),
        ("pressure_from_powermetrics", "**** Thermal pressure ****\n\nCurrent pressure level: Nominal\n", False),
        ("pressure_from_powermetrics", "Current pressure level: Heavy\n", True),
        ("pressure_from_powermetrics", "powermetrics must be invoked as the superuser\n", None),
        ("memory_from_sysctl", "1\n", False),
        ("memory_from_sysctl", "2\n", True),
        ("memory_from_sysctl", "4\n", True),
        ("memory_from_sysctl", "3\n", None),
        ("throttled_from_nvidia_smi", "Not Active, Not Active\n", False),
        ("throttled_from_nvidia_smi", "Not Active, Active\nNot Active, Not Active\n", True),
        ("throttled_from_nvidia_smi", "[N/A], [N/A]\n", None),
    ],
)
def test_what_tools_say(parser: str, text: str, found: bool | None) -> None:
    assert getattr(fitness, parser)(text) is found
    assert getattr(fitness, parser)("") is None


@pytest.mark.parametrize(
    ("available", "stall", "found"),
    [
        (16_000_000, "0.00", False),
        (1_000_000, "0.00", True),
        (16_000_000, "25.31", True),
        (None, "0.00", False),
        (16_000_000, None, False),
        (None, None, None),
    ],
)
def test_memory(available: int | None, stall: str | None, found: bool | None) -> None:
    meminfo = "" if available is None else MEMINFO.format(available)
    assert fitness.memory_from_proc(meminfo, STALL.format(stall) if stall else "") is found


MAINS, BATTERY_OFF = {"type": "Mains", "online": "1"}, {"type": "Battery", "status": "Discharging", "scope": "System"}


@pytest.mark.parametrize(
    ("supplies", "found"),
    [
        ([], None),
        ([MAINS], False),
        ([MAINS, {"type": "Battery", "status": "Charging"}], False),
        ([{**MAINS, "online": "0"}, BATTERY_OFF], True),
        ([{**BATTERY_OFF, "scope": "Device"}], None),  # a mouse
        ([{"type": "Battery", "status": "Unknown"}], None),
        ([{"type": "Mains", "online": "0"}], None),
        ([{}], None),
    ],
)
def test_power_supplies(supplies: list[dict[str, str]], found: bool | None) -> None:
    assert fitness.battery_from_supplies(supplies) is found


ZONE = {"type": "x86_pkg_temp", "temp": "61000", "trip_point_0_type": "passive", "trip_point_0_temp": "95000"}


@pytest.mark.parametrize(
    ("zones", "coolers", "found"),
    [
        ([], [], None),
        ([ZONE], [], False),
        ([{**ZONE, "temp": "95000"}], [], True),
        ([{**ZONE, "trip_point_0_type": "critical"}], [], None),
        ([{**ZONE, "trip_point_0_temp": "0"}], [], None),  # not set
        ([{**ZONE, "temp": "-274000"}], [], None),  # no sensor
        ([ZONE], [{"type": "Processor", "cur_state": "3"}], True),
        ([], [{"type": "thermal-cpufreq-0", "cur_state": "0"}], False),
        ([], [{"type": "Fan", "cur_state": "3"}, {"type": "intel_powerclamp", "cur_state": "-1"}], None),
        ([], [{"type": "Processor", "cur_state": "x"}, {}], None),
    ],
)
def test_heat(zones: list[dict[str, str]], coolers: list[dict[str, str]], found: bool | None) -> None:
    assert fitness.throttled_from_sysfs(zones, coolers) is found


def test_counts_of_slow_downs() -> None:
    assert fitness.events_from_sysfs([{"core_throttle_count": "3"}, {"core_throttle_count": "4"}, {}]) == 7
    assert fitness.events_from_sysfs([{}, {"core_throttle_count": "-1"}]) is None


def test_files_below_a_folder_are_read_once_each(tmp_path: Path) -> None:
    for name, events in (("cpu0", "2"), ("cpu1", "5"), ("other", "9")):
        (tmp_path / name / "thermal_throttle").mkdir(parents=True)
        (tmp_path / name / "thermal_throttle" / "core_throttle_count").write_text(events + "\n")
        (tmp_path / name / "thermal_throttle" / "unwanted").write_text("x" * 10_000)
    (tmp_path / "cpufreq").mkdir()
    found = fitness._entries(tmp_path, "cpu", "thermal_throttle")
    assert found == [{"core_throttle_count": "2"}, {"core_throttle_count": "5"}]
    assert fitness._entries(tmp_path / "none", "") == []


@given(st.text(max_size=200))
def test_no_text_breaks_a_parser(text: str) -> None:
    for name in dir(fitness):
        if "_from_" in name and name.split("_from_")[1] in {"pmset", "notifyutil", "powermetrics", "sysctl"}:
            assert getattr(fitness, name)(text) in (None, True, False)
    fitness.throttled_from_nvidia_smi(text)
    fitness.memory_from_proc(text, text)
    values = dict.fromkeys(ZONE | MAINS | {"cur_state": ""}, text)
    fitness.throttled_from_sysfs([values], [values])
    fitness.battery_from_supplies([values])


@pytest.mark.parametrize(
    ("state", "own", "before", "words"),
    [
        (MachineState(), 0, None, []),
        (MachineState(False, False, False, 3, False, 0.5, 2), 0, MachineState(throttle_events=3), []),
        (MachineState(on_battery=True), 0, None, ["battery"]),
        (MachineState(low_power=True), 0, None, ["low power"]),
        (
            MachineState(throttled=True, throttle_events=5),
            0,
            MachineState(throttle_events=3),
            ["throttled because of heat"],
        ),
        (MachineState(throttle_events=5), 0, MachineState(throttle_events=3), ["2 times since"]),
        (MachineState(throttle_events=5), 0, MachineState(), []),
        (MachineState(throttle_events=1), 0, MachineState(throttle_events=3), []),  # started again in between
        (MachineState(memory_short=True), 0, None, ["memory"]),
        (MachineState(load=0.7, cores=2), 0, None, []),
        (MachineState(load=2.0, cores=2), 0, None, ["load is 2.00, at most 0.75 is fine"]),
        (MachineState(load=2.0, cores=2), 1.6, None, []),
        (MachineState(load=4.0, cores=2), 1.6, None, ["load is 2.40, at most 0.75"]),
        (MachineState(load=1.0, cores=2), 5.0, None, []),
        (MachineState(load=3.0, cores=16), 0, None, []),
        (MachineState(on_battery=True, load=9, cores=4), 0, None, ["battery", "load is 9.00, at most 1.00"]),
    ],
)
def test_judge(state: MachineState, own: float, before: MachineState | None, words: list[str]) -> None:
    reasons = judge(state, own_load=own, before=before)
    assert len(reasons) == len(words)
    for reason, word in zip(reasons, words, strict=True):
        assert word in reason


def test_own_load_rises_and_decays() -> None:
    assert own_load(2, 0) == 0
    assert own_load(2, 600) == pytest.approx(2, rel=1e-4)
    assert own_load(2, 60) == pytest.approx(2 * (1 - math.exp(-1)))
    assert own_load(-1, -1) == 0
    assert still_held(60) == pytest.approx(math.exp(-1))
    assert still_held(-1) == 1


def test_this_machine_can_be_read() -> None:
    state = read()
    assert state.cores >= 1
    assert state.load is None or state.load >= 0
    for answer in (state.on_battery, state.low_power, state.throttled, state.memory_short):
        assert answer in (None, True, False)
    assert all(isinstance(reason, str) for reason in judge(state))


# --- throughput ---


@pytest.mark.parametrize(
    ("value", "earlier", "words"),
    [
        (100.0, [], ""),
        (1.0, [100, 100], ""),  # too few to say
        (99.0, [100, 100, 100], ""),
        (97.0, [100, 100, 100], "3.0% below the usual 100 of 3 runs"),
        (103.0, [100, 100, 100], "3.0% above"),
        (50.0, [100, 100.1, 99.9], "50.0% below"),
        (90.0, [100, 101, 99], ""),  # three values allow that much
        (90.0, [100, 101, 99, 100.5, 99.5, 100.2, 99.8, 100.1], "10.0% below"),
        (90.0, [100, 101, 99, 100.5, 99.5, 100.2, 99.8, 10.0], "9.9% below"),  # one outlier spoils nothing
        (0.0, [], "no throughput"),
        (-1.0, [100] * 9, "no throughput"),
        (math.nan, [100] * 9, "no throughput"),
        (math.inf, [100] * 9, "no throughput"),
        (100.0, [math.nan, 0.0, -5.0, math.inf, 1.0, 1.0], ""),  # two values that count
        (100.0, [1.0] * 60 + [100.0] * 50, ""),  # the latest count
    ],
)
def test_fit(value: float, earlier: list[float], words: str) -> None:
    found = fit(value, earlier)
    assert words in found
    assert bool(found) == bool(words)


@pytest.mark.parametrize("sigma", [0.01, 0.05])
@pytest.mark.parametrize("earlier", [3, 8, 30])
def test_false_alarms_are_rare(earlier: int, sigma: float) -> None:
    rng = random.Random(5)
    runs = [[1e5 * (1 + rng.gauss(0, sigma)) for _ in range(earlier + 1)] for _ in range(1_000)]
    assert sum(bool(fit(values[0], values[1:])) for values in runs) <= 22  # 1 %, and four of its deviations


@given(st.floats(), st.lists(st.floats(), max_size=80))
def test_any_numbers_have_an_answer(value: float, earlier: list[float]) -> None:
    assert isinstance(fit(value, earlier), str)


@pytest.mark.parametrize(
    ("usual", "left_out", "expected"),
    [
        ([], [], []),
        ([100.0, 101.0, 99.0], [], [100.0, 101.0, 99.0]),
        ([100.0, 101.0, 99.0], [120.0, 121.0], [100.0, 101.0, 99.0]),  # two may be chance
        ([100.0, 101.0, 99.0], [120.0, 121.0, 126.0], [120.0, 121.0, 126.0]),  # a busy start is over
        ([100.0, 101.0, 99.0], [80.0, 81.0, 79.0], [80.0, 81.0, 79.0]),
        ([100.0, 101.0, 99.0], [120.0, 80.0, 121.0], [100.0, 101.0, 99.0]),  # now this way, now that
        ([100.0, 101.0, 99.0], [110.0, 140.0, 190.0], [100.0, 101.0, 99.0]),  # unlike one another
        ([100.0, 101.0, 99.0], [50.0, 80.0, 81.0, 79.0], [80.0, 81.0, 79.0]),
    ],
)
def test_what_a_run_is_compared_with(usual: list[float], left_out: list[float], expected: list[float]) -> None:
    runs = [*((rate, False) for rate in usual), *((rate, True) for rate in left_out)]
    assert in_force(runs) == expected
    if left_out:  # a fit run in between says that the usual still holds
        assert in_force([*runs[:-1], (100.0, False), runs[-1]]) == [*usual, 100.0] or len(left_out) > 3


def test_a_start_on_a_busy_machine_does_not_leave_every_later_run_out() -> None:
    runs = [(17_020.0, False), (17_010.0, False), (17_030.0, False)]
    for rate in (20_510.0, 19_545.0, 21_265.0, 20_022.0, 21_726.0, 20_300.0):
        runs.append((rate, bool(fit(rate, in_force(runs)))))
    assert [unfit for _, unfit in runs] == [False] * 3 + [True] * 3 + [False] * 3
