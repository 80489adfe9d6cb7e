"""A machine's facts as lines, each with what to do about it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from common.checks import Check
from common.git import INSTALL as INSTALL_GIT
from trainer.machine import fitness
from trainer.machine.fitness import MachineState
from trainer.machine.hardware import Fingerprint
from trainer.sandbox import Line

GIB = 1 << 30
LEAST_DISK = 4 * GIB  # environment with MLX and pyarrow, and a data set like the live project's
LEAST_MEMORY = 4 * GIB
LARGE_MODELS = "Large models will not fit."
_VISIBLE_WATCHDOG = 26  # the first macOS that kills long GPU work while the display is on


def named(machine: Fingerprint) -> Check:
    """The class, or why there is none."""
    if machine.doubt:
        cure = "Practice works here; nothing measured here can be staked on or judged."
        return Check("machine", "differs", f"{machine.doubt}.", cure)
    return Check("machine", "ok", f"{machine.hardware_class} ({machine.device})")


def memory(machine: Fingerprint, wired_limit: int | None) -> Check:
    """All of it, what MLX may use, the largest array, and whether the limit was moved (`wired_limit`, MB)."""
    words = f"{machine.memory_bytes / GIB:.1f} GiB"
    if machine.device_memory_bytes:
        words += f", {machine.device_memory_bytes / GIB:.1f} GiB for MLX"
    if machine.buffer_bytes:
        words += f", {machine.buffer_bytes / GIB:.1f} GiB in one array"
    if wired_limit:
        words += f"; iogpu.wired_limit_mb is set to {wired_limit}"
    if machine.memory_bytes < LEAST_MEMORY:
        return Check("memory", "differs", words + ".", LARGE_MODELS)
    return Check("memory", "ok", words)


def wired_limit(output: str) -> int | None:
    """MB in `sysctl -n iogpu.wired_limit_mb`; None where it is not set or not known."""
    found = re.fullmatch(r"([1-9]\d{0,8})\s*", output)
    return int(found[1]) if found else None


def power(state: MachineState) -> Check:
    """The source and the mode."""
    if reasons := fitness.slowed(state):
        cure = "Connect it to mains and turn low power mode off: a verifier judges nobody like this."
        return Check("power", "differs", f"{', '.join(reasons)}.", cure)
    known = state.on_battery is not None
    return Check("power", "ok", "mains, full speed" if known else "the system does not say")


def heat(state: MachineState) -> Check:
    """Whether it is slowed down for heat."""
    if state.throttled:
        return Check("heat", "differs", "throttled because of heat.", "Let it cool: runs wait two minutes for that.")
    return Check("heat", "ok", "not throttled" if state.throttled is False else "the system does not say")


def load(state: MachineState) -> Check:
    """Other work on the machine."""
    reasons = fitness.judge(MachineState(load=state.load, cores=state.cores, memory_short=state.memory_short))
    if reasons:
        return Check("load", "differs", f"{', '.join(reasons)}.", "Close what else runs.")
    return Check("load", "ok", "unknown" if state.load is None else f"{state.load:.1f} on {state.cores} cores")


def setting(output: str, name: str) -> int | None:
    """A number in `pmset -g`; None if it is not there."""
    found = re.search(rf"^[ \t]*{name}[ \t]+(\d{{1,5}})\b", output, re.MULTILINE)
    return int(found[1]) if found else None


def sleep(settings: str, assertions: str) -> Check:
    """Whether the assertion that runs hold keeps the machine awake: `pmset -g`, and `pmset -g assertions` under it."""
    minutes = setting(settings, "sleep")
    held = setting(assertions, "PreventUserIdleSystemSleep")
    words = {None: "the system does not say when it sleeps", 0: "never sleeps of itself"}.get(
        minutes, f"sleeps after {minutes} min without input"
    )
    if held:
        return Check("sleep", "ok", f"{words}; held awake while it measures (a closed lid still sleeps)")
    if minutes == 0:
        return Check("sleep", "ok", words)
    return Check("sleep", "differs", f"{words}, and could not be held awake.", "Run `sudo pmset -a sleep 0`.")


def display(settings: str, system: str) -> Check:
    """Whether the display goes to sleep, which GPU work wants on macOS 26."""
    minutes = setting(settings, "displaysleep")
    words = "never sleeps" if minutes == 0 else f"sleeps after {minutes} min" if minutes else "the system does not say"
    found = re.match(r"macOS (\d+)", system)
    if minutes == 0 and found and int(found[1]) >= _VISIBLE_WATCHDOG:
        cure = "This macOS ends long GPU work while the display is on: use `sudo pmset -a displaysleep 10`."
        return Check("display", "differs", f"{words}.", cure)
    return Check("display", "ok", words)


def disk(free: int) -> Check:
    """Free space in the home."""
    return size("free disk", free, LEAST_DISK, "Make room, or choose another --home.")


def size(name: str, found: int, least: int, cure: str) -> Check:
    """Whether there are as many bytes as a project needs."""
    text = f"{found / GIB:.1f} GiB"
    if found >= least:
        return Check(name, "ok", text)
    return Check(name, "differs", f"{text}, less than the {least / GIB:.0f} GiB that a project needs.", cure)


def python(version: str, machine: str, system: str) -> Check:
    """The interpreter; on a Mac it must be built for its processor."""
    if system == "Darwin" and machine != "arm64":
        return Check("python", "missing", f"{version} for {machine}.", "Use one for arm64: `uv python install 3.12`.")
    return Check("python", "ok", f"{version} for {machine}")


def git(output: str) -> Check:
    """`git --version`, or nothing where there is no git."""
    if output.startswith("git version"):
        return Check("git", "ok", output.removeprefix("git version").strip())
    return Check("git", "missing", "not found.", INSTALL_GIT)


def sandbox(lines: Iterable[Line], *, needed: bool) -> list[Check]:
    """Each line of the sandbox's proof. Who verifies needs them all; a miner works without, on its own word."""
    state = "missing" if needed else "differs"
    found = []
    for line in lines:
        if line.holds:
            found.append(Check(f"sandbox: {line.name}", "ok", "yes"))
        else:
            words = (line.found or "no").rstrip(".") + "."
            found.append(Check(f"sandbox: {line.name}", state, words, line.cause))
    return found


def speed(rate: float | None, device: str) -> Check:
    """Tokens per second of a small model, comparable with itself alone."""
    if rate is None:
        cure = "See whether `python -c 'import mlx.core'` works."
        return Check("speed", "missing", f"MLX did not train a small model on {device}.", cure)
    return Check("speed", "ok", f"{rate:,.0f} tokens/s on {device}, training a small model")
