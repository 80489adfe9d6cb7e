"""Macs by their tools' output: what they are called, what is published of them, and when they are fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.trainer.machine import macs
from tests.trainer.machine.macs import BATTERY, GIB, MACS, PMSET, Mac
from trainer.machine import fitness, hardware
from trainer.machine.hardware import Fingerprint, mlx_build, smaller
from trainer.machine.watch import Watch

M4 = MACS["M4 Max"]


@pytest.mark.parametrize("name", MACS)
def test_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mac = MACS[name]
    macs.become(mac, monkeypatch, limits=(mac.memory * GIB * 3 // 4, mac.memory * GIB // 2))
    found = hardware.fingerprint()
    assert found.hardware_class == mac.hardware_class
    assert mac.doubt in found.doubt
    assert bool(found.doubt) is bool(mac.doubt)  # a machine that cannot be named says why
    assert found.platform.startswith(f"macOS {mac.os.split('.')[0]}, mlx ")
    assert dict(found.tags).get("Device-Memory") == (str(mac.memory * GIB * 3 // 4) if mac.memory else None)
    assert Fingerprint.from_json(found.as_json()) == found


def test_what_is_published_tells_two_of_a_class_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same name, half the memory, another system: none of it is in the class."""
    found = []
    for mac, limit in ((M4, 96 * GIB), (replace(M4, memory=48, os="26.1"), 36 * GIB)):
        macs.become(mac, monkeypatch, limits=(limit, limit // 2))
        found.append(hardware.fingerprint())
    large, small = found
    assert large.hardware_class == small.hardware_class
    assert large.tags != small.tags
    assert large.platform != small.platform
    assert smaller(small.device_memory_bytes, large.device_memory_bytes)
    assert not smaller(large.device_memory_bytes, small.device_memory_bytes)


def test_a_raised_wired_limit_counts_as_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """`iogpu.wired_limit_mb` moves what Metal recommends; two machines with 24 GB are then not alike."""
    mac = replace(M4, memory=24)
    sizes = []
    for limit in (16 * GIB, 22 * GIB):  # as MLX reports it, without and with the setting
        macs.become(mac, monkeypatch, limits=(limit, 14 * GIB))
        sizes.append(hardware.fingerprint().device_memory_bytes)
    assert smaller(*sizes)


@pytest.mark.parametrize(
    ("wheels", "expected"),
    [
        ({"mlx": "cp312-cp312-macosx_14_0_arm64", "mlx_metal": "py3-none-macosx_26_0_arm64"}, "macosx_26_0_arm64"),
        ({"mlx": "cp312-cp312-macosx_15_0_arm64"}, "macosx_15_0_arm64"),
        ({"mlx": "garbage"}, ""),
        ({}, ""),
    ],
)
def test_the_build_of_mlx_is_that_of_the_environment(wheels: dict[str, str], expected: str, tmp_path: Path) -> None:
    for name, tag in wheels.items():
        folder = tmp_path / f"{name}-0.32.4.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 0.32.4\n")
        (folder / "WHEEL").write_text(f"Wheel-Version: 1.0\nTag: {tag}\n")
    assert mlx_build([tmp_path]) == ("0.32.4" if wheels else "none", expected)


# --- fitness ---


@pytest.mark.parametrize(
    ("text", "low"),
    [
        (" lowpowermode         1\n", True),
        (" powermode            1\n", True),
        (" powermode            0\n lowpowermode         1\n", True),  # was read as off
        (" lowpowermode         1\n powermode            0\n", True),
        (" powermode            2\n lowpowermode         0\n", False),  # high power
        (" standby 1\n", None),
    ],
)
def test_power_modes_in_any_order(text: str, low: bool | None) -> None:
    assert fitness.low_power_from_pmset(text) is low


POWER = {
    "mains": ({}, ()),
    "battery": ({"pmset -g batt": BATTERY}, ("running on battery",)),
    "low power": ({"pmset -g": PMSET.format(sleep=1, displaysleep=10, low=1)}, ("low power mode is on",)),
    "hot": ({"notifyutil -g com.apple.system.thermalpressurelevel": "com.apple.system.thermalpressurelevel 2\n"}, ()),
    "silent": ({"pmset -g batt": "", "pmset -g": "", "pmset -g therm": ""}, ()),
}


@pytest.mark.parametrize("name", POWER)
def test_no_stake_depends_on_a_machine_at_less_than_its_speed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools, words = POWER[name]
    macs.become(Mac("Apple M4", 10, 16, 10, "apple-m4-10c", tools=tools), monkeypatch)
    assert Watch(300.0, print, tmp_path).refused() == words
    assert Watch(6.0, print, tmp_path).refused() == ()  # a practice run: its state is only noted
