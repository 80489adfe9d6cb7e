"""What this machine is: the facts that say whether two measurements can be compared, and their class.

The class is one short string: `apple-m4-max-40c` (chip and GPU cores), `nvidia-h200` (the GPU in use), or
`cpu-amd-epyc-2c` (processor family and the cores this process may use). A machine that is not what it says, or of which
its tools say nothing, is `unknown`, which is comparable with nothing. Within a class, `platform` must be the same, and
memory counts: what fits on one machine may not fit on another. Every fact comes from a parser that is a pure function
of a tool's output; a tool that is missing, slow or prints garbage leaves its fact unknown.
Serial numbers, host names and display identifiers are not read.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final, Literal, Self

Device = Literal["metal", "cuda", "cpu"]

UNKNOWN: Final = "unknown"
CLASS_TAG, PLATFORM_TAG, MEMORY_TAG = "Hardware-Class", "Platform", "Device-Memory"
_SECONDS: Final = 15
_TOOL_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/nvidia/bin"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A machine; memory in bytes (the GPU's own where it has some), an unknown core count is None.

    `wheel` is the platform that MLX was built for ("macosx_15_0_arm64"), `device_memory_bytes` what MLX may use on its
    device (on a Mac less than all, and more by `sysctl iogpu.wired_limit_mb`), `buffer_bytes` the largest single array
    that Metal gives; unknown is "" or 0.
    """

    device: Device
    chip: str
    cpu_cores: int
    gpu: str | None
    gpu_cores: int | None
    memory_bytes: int
    os: str
    mlx: str
    python: str
    wheel: str = ""
    device_memory_bytes: int = 0
    buffer_bytes: int = 0

    @property
    def doubt(self) -> str:
        """Why nothing measured here can be compared with another machine; "" where it can."""
        return doubt(self.device, self.chip, self.gpu, self.gpu_cores, self.cpu_cores, self.memory_bytes)

    @property
    def hardware_class(self) -> str:
        """The class string, from `hardware_class`; "unknown" in doubt."""
        if self.doubt:
            return UNKNOWN
        return hardware_class(self.device, self.chip, self.gpu, self.gpu_cores, self.cpu_cores)

    @property
    def platform(self) -> str:
        """What else must be the same on two machines of a class: the system's major version and MLX's build."""
        system = re.match(r"macOS \d+|\S+", self.os)
        return f"{system[0] if system else 'unknown'}, mlx {self.mlx} {self.wheel}".strip()

    @property
    def tags(self) -> list[tuple[str, str]]:
        """What is published with whatever was measured here, so that it can be compared: names and values."""
        memory = self.device_memory_bytes
        said = [(CLASS_TAG, self.hardware_class), (PLATFORM_TAG, self.platform), (MEMORY_TAG, str(memory))]
        return said if memory else said[:2]

    def as_json(self) -> dict[str, str | int | None]:
        """The fields and the class, as plain JSON values."""
        return {**asdict(self), "class": self.hardware_class}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The reverse of `as_json`; ValueError if a field is missing or of another type."""
        kinds = {"gpu": str | None, "gpu_cores": int | None}
        kinds |= dict.fromkeys(("cpu_cores", "memory_bytes", "device_memory_bytes", "buffer_bytes"), int)
        later = {"wheel": "", "device_memory_bytes": 0, "buffer_bytes": 0}
        fields: dict[str, Any] = {name: value.get(name, later.get(name)) for name in cls.__slots__}
        for name, field in fields.items():
            if not isinstance(field, kinds.get(name, str)) or isinstance(field, bool):
                raise ValueError(f"the fingerprint's {name} is {field!r}")
        if fields["device"] not in ("metal", "cuda", "cpu"):
            raise ValueError(f"the fingerprint's device is {fields['device']!r}")
        return cls(**fields)


def fingerprint(packages: Sequence[Path] = ()) -> Fingerprint:
    """This machine, as this process's mlx and python see it. Asks system tools; takes up to a few seconds.

    `packages` are the site-packages folders of the environment that is measured in, this process's own where none.
    """
    system = {"Darwin": f"macOS {platform.mac_ver()[0]}"}.get(platform.system(), platform.system())
    kind = device()
    chip, cores, memory = _macos() if platform.system() == "Darwin" else _linux()
    gpu, gpu_cores = None, None
    if kind == "metal":
        gpu = chip
        gpu_cores = gpu_cores_from_ioreg(run_tool("ioreg", "-r", "-d", "1", "-w", "0", "-c", "IOAccelerator"))
        gpu_cores = gpu_cores or gpu_cores_from_profiler(run_tool("system_profiler", "-json", "SPDisplaysDataType"))
    elif kind == "cuda":
        query = "--query-gpu=name,memory.total", "--format=csv,noheader,nounits", *chosen_gpu(os.environ)
        gpu, gpu_memory = gpu_from_nvidia_smi(run_tool("nvidia-smi", *query)) or ("NVIDIA GPU", 0)
        memory = gpu_memory or memory
    mlx, wheel = mlx_build(packages)
    limits = _device_limits() if kind == "metal" else (memory, 0)
    return Fingerprint(
        device=kind,
        chip=chip,
        cpu_cores=cores,
        gpu=gpu,
        gpu_cores=gpu_cores,
        memory_bytes=memory,
        os=f"{system} {platform.machine()}",
        mlx=mlx,
        python=platform.python_version(),
        wheel=wheel,
        device_memory_bytes=limits[0],
        buffer_bytes=limits[1],
    )


def doubt(device: Device, chip: str, gpu: str | None, gpu_cores: int | None, cpu_cores: int, memory: int) -> str:
    """Why a machine cannot be named: it is virtual, translated, or its tools are silent; "" where it can."""
    if re.match(r"VirtualApple\b", chip):
        return "Python runs under Rosetta, which hides the chip: use a Python for arm64"
    if re.search(r"\(Virtual\)|Paravirtual", f"{chip} {gpu or ''}"):
        return f"this is a virtual machine ({chip}), whose speed depends on its host"
    if device == "metal" and (not re.match(r"Apple M\d", chip) or not gpu_cores):
        return f"the system tools do not name its chip and GPU cores (found {chip or 'nothing'!r})"
    if not chip or chip == UNKNOWN or cpu_cores <= 0 or memory <= 0:
        return "the system tools do not name its processor, cores and memory"
    return ""


def smaller(mine: int, theirs: int) -> bool:
    """Whether a machine may lack memory that another had, both in bytes, 0 for unknown. Kernels keep some for
    themselves, a percent of it more or less."""
    return mine <= 0 or theirs <= 0 or mine < 0.98 * theirs


def mlx_build(packages: Sequence[Path] = ()) -> tuple[str, str]:
    """MLX's version ("none" without it) and the platform that its wheel was built for ("" if unknown)."""
    paths = [str(path) for path in packages] or [path for path in sys.path if path]
    found: dict[str, tuple[str, str]] = {}
    for package in distributions(path=paths):
        name = str(package.metadata["Name"]).lower().replace("_", "-")
        if name in ("mlx", "mlx-metal") and name not in found:
            tag = re.search(r"^Tag: [\w.]+-[\w.]+-([\w.]{1,80})\s*$", package.read_text("WHEEL") or "", re.MULTILINE)
            found[name] = package.version, tag[1] if tag else ""
    if "mlx" not in found:
        return "none", ""
    return found["mlx"][0], found.get("mlx-metal", found["mlx"])[1]


def hardware_class(device: Device, chip: str, gpu: str | None, gpu_cores: int | None, cpu_cores: int) -> str:
    """The class that measurements are comparable within: see the module's docstring."""
    if device == "metal":
        return _slug(chip) + (f"-{gpu_cores}c" if gpu_cores else "")
    if device == "cuda":
        return _slug(gpu or "nvidia gpu")
    return f"cpu-{_slug(family(chip))}-{cpu_cores}c"


def family(model: str) -> str:
    """A processor's marketing name without marks, clock speed and core count ("AMD EPYC 7B13")."""
    name = re.sub(r"\((?:r|tm|c)\)", " ", model, flags=re.IGNORECASE)
    name = re.sub(r"@.*|\b\d+-core\b|\bprocessor\b|\bcpu\b", " ", name, flags=re.IGNORECASE)
    return " ".join(name.split())


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:48].strip("-") or "unknown"


def cpu_from_proc(cpuinfo: str, machine: str) -> str:
    """The model name in /proc/cpuinfo; Arm kernels print none, there it is the architecture."""
    found = re.search(r"^model name[ \t]*:[ \t]*(\S.*)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else machine


def memory_from_proc(meminfo: str) -> int:
    """MemTotal in /proc/meminfo in bytes, 0 if unknown."""
    found = re.search(r"^MemTotal:[ \t]+(\d{1,15}) kB$", meminfo, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def cpu_from_sysctl(output: str) -> tuple[str, int, int]:
    """Chip, cores and memory bytes from `sysctl -n machdep.cpu.brand_string hw.ncpu hw.memsize`."""
    lines = output.splitlines()
    if len(lines) != 3 or not all(re.fullmatch(r"\d{1,18}", line) for line in lines[1:]):
        return (lines[0].strip() if lines else "") or UNKNOWN, 0, 0
    return lines[0].strip(), int(lines[1]), int(lines[2])


def gpu_cores_from_ioreg(output: str) -> int | None:
    """The core count in `ioreg -r -d 1 -c IOAccelerator`."""
    found = re.search(r'"gpu-core-count"\s*=\s*(\d{1,5})\b', output)
    return int(found[1]) if found else None


def gpu_cores_from_profiler(output: str) -> int | None:
    """The core count in `system_profiler -json SPDisplaysDataType`, which gives it as text."""
    try:
        for gpu in json.loads(output)["SPDisplaysDataType"]:
            if re.fullmatch(r"\d{1,5}", str(gpu.get("sppci_cores", ""))):
                return int(gpu["sppci_cores"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return None


def chosen_gpu(environment: Mapping[str, str]) -> tuple[str, ...]:
    """nvidia-smi's arguments for the GPU that CUDA_VISIBLE_DEVICES puts first; none without one that can be asked for.

    CUDA counts as nvidia-smi does where all cards are alike, else with CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """
    first = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    return ("-i", first) if re.fullmatch(r"[0-9]{1,3}|GPU-[0-9a-f-]{8,36}", first) else ()


def gpu_from_nvidia_smi(output: str) -> tuple[str, int] | None:
    """Name and memory bytes of the first GPU in nvidia-smi's `name,memory.total` (MiB) table."""
    found = re.match(r"([^,\n]{1,100}), *(\d{1,9})\s*$", output, re.MULTILINE)
    return (found[1].strip(), int(found[2]) * 1024 * 1024) if found else None


def alike_gpus(output: str, visible: str | None) -> tuple[str, ...]:
    """The GPUs of nvidia-smi's `index,uuid,name` table that may be used, as CUDA_VISIBLE_DEVICES (`visible`, None where
    it is not set) would name them; none unless all of the machine are alike, since CUDA counts others in its own order.
    """
    rows = [tuple(word.strip() for word in line.split(",")) for line in output.splitlines() if line.strip()]
    if not rows or any(len(row) != 3 for row in rows) or len({row[2] for row in rows}) > 1:
        return ()
    asked = [row[0] for row in rows] if visible is None else [word.strip() for word in visible.split(",")]
    known = all(any(word == index or (word and uuid.startswith(word)) for index, uuid, _ in rows) for word in asked)
    return tuple(asked) if known and len(set(asked)) == len(asked) else ()


def gpus() -> tuple[str, ...]:
    """The NVIDIA GPUs that this process may use, where all are alike; else none."""
    table = run_tool("nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader")
    return alike_gpus(table, os.environ.get("CUDA_VISIBLE_DEVICES"))


def cuda_from_nvidia_smi(output: str) -> int | None:
    """The newest CUDA major version that the driver supports, in the banner of plain `nvidia-smi`."""
    found = re.search(r"CUDA (?:UMD )?Version: *(\d{1,3})\.", output)
    return int(found[1]) if found else None


def cuda_major() -> int | None:
    """The CUDA major version of this machine's NVIDIA driver; None without one."""
    return cuda_from_nvidia_smi(run_tool("nvidia-smi")) if platform.system() == "Linux" else None


def device() -> Device:
    """Where MLX computes by default. MLX is imported here, late, because it opens the device."""
    try:
        import mlx.core as mx
    except ImportError:
        return "cpu"
    if mx.default_device() == mx.Device(mx.cpu):
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def _device_limits() -> tuple[int, int]:
    """Bytes that Metal gives a process in all, and in one array; 0 where MLX does not say."""
    import mlx.core as mx

    try:
        known: Mapping[str, Any] = mx.device_info()
    except (AttributeError, RuntimeError):
        return 0, 0
    sizes = [known.get(name, 0) for name in ("max_recommended_working_set_size", "max_buffer_length")]
    return sizes[0], sizes[1]


def usable_cores() -> int:
    """Of this machine, those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _macos() -> tuple[str, int, int]:
    return cpu_from_sysctl(run_tool("sysctl", "-n", "machdep.cpu.brand_string", "hw.ncpu", "hw.memsize"))


def _linux() -> tuple[str, int, int]:
    chip = cpu_from_proc(read_text("/proc/cpuinfo"), platform.machine())
    return chip, usable_cores(), memory_from_proc(read_text("/proc/meminfo"))


def read_text(path: str) -> str:
    """A system file, at most 1 Mi characters of it, empty where it cannot be read."""
    try:
        with Path(path).open(errors="replace") as file:
            return file.read(1024 * 1024)
    except OSError:
        return ""


def run_tool(*command: str, seconds: float = _SECONDS) -> str:
    """A tool's standard output, empty where it is missing, fails or takes longer than `seconds`."""
    environment = {"PATH": f"{_TOOL_PATH}:{os.environ.get('PATH', '')}", "LC_ALL": "C"}
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=seconds, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout[: 4 * 1024 * 1024].decode(errors="replace") if done.returncode == 0 else ""
