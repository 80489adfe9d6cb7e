"""Parsers of system tools' output on samples of our own, and the class strings."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.machine import hardware
from trainer.machine.hardware import Device, Fingerprint

IOREG = """\
+-o AGXAcceleratorG16X  <class AGXAcceleratorG16X, id 0x100000123, registered, matched, active, busy 0>
    {
      "IOClass" = "AGXAcceleratorG16X"
      "model" = "Apple M4 Max"
      "gpu-core-count" = 40
      "PerformanceStatistics" = {"Device Utilization %"=3}
    }
"""
PROFILER = json.dumps(
    {"SPDisplaysDataType": [{"_name": "kHW_AppleM4Max", "sppci_model": "Apple M4 Max", "sppci_cores": "40"}]}
)
CPUINFO = "processor\t: 0\nmodel\t\t: 79\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.20GHz\nflags\t\t: fpu\n"
SMI = """\
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 550.54.15              Driver Version: 550.54.15      CUDA Version: 12.4     |
|-----------------------------------------+------------------------+----------------------+
"""


def test_samples() -> None:
    assert hardware.cpu_from_sysctl("Apple M4 Max\n16\n68719476736\n") == ("Apple M4 Max", 16, 2**36)
    assert hardware.gpu_cores_from_ioreg(IOREG) == 40
    assert hardware.gpu_cores_from_profiler(PROFILER) == 40
    assert hardware.cpu_from_proc(CPUINFO, "x86_64") == "Intel(R) Xeon(R) CPU @ 2.20GHz"
    assert hardware.cpu_from_proc("processor : 0\nCPU part : 0xd0c\n", "aarch64") == "aarch64"
    assert hardware.memory_from_proc("MemFree: 1 kB\nMemTotal:       24684096 kB\n") == 24684096 * 1024
    assert hardware.gpu_from_nvidia_smi("NVIDIA H200, 143771\n") == ("NVIDIA H200", 143771 * 2**20)
    assert hardware.gpu_from_nvidia_smi("NVIDIA A, 5\nNVIDIA B, 6\n") == ("NVIDIA A", 5 * 2**20)
    assert hardware.cuda_from_nvidia_smi(SMI) == 12
    assert hardware.cuda_from_nvidia_smi(SMI.replace("CUDA Version: 12.4", "CUDA UMD Version: 13.0")) == 13


@pytest.mark.parametrize(
    ("visible", "arguments"),
    [
        ("1", ("-i", "1")),
        ("1,0", ("-i", "1")),
        ("GPU-8a1b2c3d-0000-1111-2222-333344445555", ("-i", "GPU-8a1b2c3d-0000-1111-2222-333344445555")),
        ("", ()),
        ("-1", ()),
        ("MIG-8a1b2c3d", ()),
        ("0 --help", ()),
    ],
)
def test_chosen_gpu(visible: str, arguments: tuple[str, ...]) -> None:
    assert hardware.chosen_gpu({"CUDA_VISIBLE_DEVICES": visible}) == arguments
    assert hardware.chosen_gpu({}) == ()


@given(st.text(max_size=80) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_nonsense_is_unknown(text: str) -> None:
    hardware.cpu_from_sysctl(text)
    for parse in (
        hardware.gpu_cores_from_ioreg,
        hardware.gpu_cores_from_profiler,
        hardware.cuda_from_nvidia_smi,
    ):
        assert parse(text) is None
    assert hardware.memory_from_proc(text) == 0
    assert hardware.gpu_cores_from_profiler(json.dumps({"SPDisplaysDataType": text})) is None
    assert hardware.gpu_cores_from_profiler(json.dumps({"SPDisplaysDataType": [{"sppci_cores": [text]}]})) is None


@pytest.mark.parametrize(
    ("device", "chip", "gpu", "gpu_cores", "cpu_cores", "expected"),
    [
        ("metal", "Apple M4 Max", "Apple M4 Max", 40, 16, "apple-m4-max-40c"),
        ("metal", "Apple M1", "Apple M1", 7, 8, "apple-m1-7c"),
        ("metal", "Apple M1", "Apple M1", None, 8, "apple-m1"),
        ("cuda", "AMD EPYC", "NVIDIA H200", None, 16, "nvidia-h200"),
        ("cuda", "x", "NVIDIA GeForce RTX 4090", None, 16, "nvidia-geforce-rtx-4090"),
        ("cuda", "x", None, None, 16, "nvidia-gpu"),
        ("cpu", "AMD EPYC", None, None, 2, "cpu-amd-epyc-2c"),
        ("cpu", "AMD EPYC 7B13 64-Core Processor", None, None, 4, "cpu-amd-epyc-7b13-4c"),
        ("cpu", "Intel(R) Xeon(R) CPU @ 2.20GHz", None, None, 2, "cpu-intel-xeon-2c"),
        ("cpu", "Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz", None, None, 12, "cpu-intel-core-i7-9750h-12c"),
        ("cpu", "aarch64", None, None, 4, "cpu-aarch64-4c"),
        ("cpu", "", None, None, 4, "cpu-unknown-4c"),
        ("cpu", "\u2603 x/../y\n" + "z" * 200, None, None, 4, "cpu-x-y-" + "z" * 44 + "-4c"),
    ],
)
def test_class(
    device: Device, chip: str, gpu: str | None, gpu_cores: int | None, cpu_cores: int, expected: str
) -> None:
    assert hardware.hardware_class(device, chip, gpu, gpu_cores, cpu_cores) == expected


def test_this_machine() -> None:
    found = hardware.fingerprint()
    assert found.memory_bytes > 2**28
    assert found.cpu_cores >= 1
    assert found.python == platform.python_version()
    assert found.mlx[0].isdigit()
    assert found.as_json()["class"] == found.hardware_class
    assert Fingerprint.from_json(json.loads(json.dumps(found.as_json()))) == found
    assert hardware.fingerprint() == found


@pytest.mark.parametrize(
    ("field", "value"),
    [("device", "tpu"), ("chip", None), ("cpu_cores", "2"), ("cpu_cores", True), ("gpu", 3), ("python", ...)],
)
def test_a_fingerprint_from_outside_is_checked(field: str, value: Any) -> None:
    found = Fingerprint("cpu", "AMD EPYC", 2, None, None, 2**34, "Linux x86_64", "0.32.4", "3.11.7")
    fields = {**replace(found).as_json(), field: value}
    if value is ...:
        del fields[field]
    with pytest.raises(ValueError, match=field):
        Fingerprint.from_json(fields)


ALIKE = "0, GPU-8a1b2c3d-0000, NVIDIA H200\n1, GPU-77777777-1111, NVIDIA H200\n2, GPU-99999999-2222, NVIDIA H200\n"


@pytest.mark.parametrize(
    ("table", "visible", "found"),
    [
        (ALIKE, None, ("0", "1", "2")),
        (ALIKE, "2, 0", ("2", "0")),
        (ALIKE, "1", ("1",)),
        (ALIKE, "GPU-8a1b,GPU-7777", ("GPU-8a1b", "GPU-7777")),
        (ALIKE, "", ()),
        (ALIKE, "0,0", ()),  # CUDA refuses it
        (ALIKE, "0,7", ()),
        (ALIKE, "MIG-8a1b2c3d", ()),
        (ALIKE.replace("1, GPU-77777777-1111, NVIDIA H200", "1, GPU-77777777-1111, NVIDIA T4"), None, ()),
        ("No devices were found\n", None, ()),
        ("", None, ()),
    ],
)
def test_gpus_that_may_be_used_at_once(table: str, visible: str | None, found: tuple[str, ...]) -> None:
    assert hardware.alike_gpus(table, visible) == found
