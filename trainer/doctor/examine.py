"""Asks this machine for everything in `lines`, in about a minute."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from common.checks import Check
from common.resources import HARNESS
from common.terminal import View
from trainer.doctor import lines
from trainer.errors import EnvironmentNotReady
from trainer.machine import awake, environment, fitness, hardware
from trainer.machine.hardware import run_tool
from trainer.running import dataset
from trainer.sandbox import STARTS, Line, choose
from trainer.sandbox import examine as prove

_SPEED_SECONDS: Final = 5
_PACKAGES: Final = ("openresearch-miner", "mlx", "numpy", "pyarrow", "tokenizers", "solders", "solana", "uv")


def examine(home: Path, *, verifier: bool, view: View) -> Iterator[Check]:
    """The lines about this machine as they are found; `verifier` says that other people's code is to run here."""
    mac = platform.system() == "Darwin"
    with view.step("asking the system", 5):
        machine, state = hardware.fingerprint(), fitness.read()
    yield lines.named(machine)
    limit = lines.wired_limit(run_tool("sysctl", "-n", "iogpu.wired_limit_mb")) if mac else None
    yield lines.memory(machine, limit)
    yield Check("system", "ok", f"{machine.os} ({machine.platform})")
    yield lines.power(state)
    yield lines.heat(state)
    yield lines.load(state)
    if mac:
        settings = run_tool("pmset", "-g")
        with awake.kept():
            assertions = run_tool("pmset", "-g", "assertions")
        yield lines.sleep(settings, assertions)
        yield lines.display(settings, machine.os)
    yield lines.python(platform.python_version(), platform.machine(), platform.system())
    yield _uv()
    yield lines.git(_git(mac))
    yield lines.disk(shutil.disk_usage(home).free)
    with view.step("proving the sandbox", 20):
        proof = _prove()
    yield from lines.sandbox(proof, needed=verifier)
    if mac and not all(line.holds for line in proof):
        from trainer.sandbox.macos import denials

        with view.step("reading what the system refused", 30):
            for words in denials():
                yield Check("refused by macOS", "differs", words)
    with view.step("training a small model", _SPEED_SECONDS + 5), awake.kept():
        rate = _speed()
    yield lines.speed(rate, machine.device)
    yield _data(home)
    yield Check("versions", "ok", ", ".join(_versions()))


def _git(mac: bool) -> str:
    """What the git that PATH finds says of its version; a Mac's own, without the command line tools, only asks for
    them.
    """
    found = shutil.which("git")
    stand_in = mac and found == "/usr/bin/git" and not run_tool("xcode-select", "-p")
    return "" if found is None or stand_in else run_tool(found, "--version")


def _uv() -> Check:
    try:
        path = environment.find_uv()
    except EnvironmentNotReady as error:
        return Check("uv", "missing", "not found.", error.cure)
    found = re.match(r"uv (\S{1,40})", run_tool(str(path), "--version"))
    return Check("uv", "ok", found[1] if found else "it does not say its version")


def _prove() -> list[Line]:
    try:
        return prove(choose(cuda=hardware.cuda_major() is not None), harness=HARNESS.read_bytes())
    except (EnvironmentNotReady, OSError) as error:
        problem, cure = (error.problem, error.cure) if isinstance(error, EnvironmentNotReady) else (str(error), "")
        return [Line(STARTS, False, problem, cure)]


def _speed() -> float | None:
    script = Path(__file__).with_name("inside_speed.py")
    said = run_tool(sys.executable, "-I", str(script), str(_SPEED_SECONDS), seconds=60)
    found = re.fullmatch(r"\d{1,12}\.\d\s*", said)
    return float(found[0]) if found else None


def _data(home: Path) -> Check:
    """What is prepared, by the id that projects pin."""
    folders = [Path.home() / dataset.CACHE, *sorted((home / "data").glob("*"))[:20]]
    if given := os.environ.get("AUTORESEARCH_CACHE"):
        folders.insert(0, Path(given))
    found = []
    for folder in folders:
        try:
            known = dataset.snapshot_id(folder) if folder.is_dir() else None
        except EnvironmentNotReady:
            known = None
        if known:
            found.append(known[:16])
    return Check("data", "ok", f"prepared: {', '.join(found)}" if found else "none prepared yet; the first run does it")


def _versions() -> Iterator[str]:
    for name in _PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
