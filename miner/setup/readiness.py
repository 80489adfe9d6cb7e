"""What a project needs from this machine, and what is there. `points` is pure; `read` asks the system."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.checks import Check
from common.resources import HARNESS
from common.text import printable
from trainer.doctor import lines
from trainer.errors import INSTALL_BUBBLEWRAP, EnvironmentNotReady
from trainer.machine import environment, hardware
from trainer.project.task import Task
from trainer.running import dataset


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """The facts about this machine that matter to a project; sizes in bytes. `uv` and `sandbox` name what was found.

    `data` is the id of the data in `data_folder`, None without any; `own_harness` whether prepare.py is this
    repository's own.
    """

    device: str
    hardware_class: str
    memory: int
    disk: int
    uv: str | None
    sandbox: str | None
    data_folder: str
    data: str | None
    own_harness: bool


def read(parsed: Task, home: Path) -> MachineFacts:
    """This machine as it is now. Takes a few seconds; runs nothing of the project."""
    machine = hardware.fingerprint()
    cache = dataset.folder_of(home, parsed.protocol.bundle_id, parsed.benchmark.data_arguments)
    try:
        uv: str | None = str(environment.find_uv())
    except EnvironmentNotReady:
        uv = None
    name = "bwrap" if sys.platform == "linux" else "sandbox-exec"
    return MachineFacts(
        device=machine.device,
        hardware_class=machine.hardware_class,
        memory=machine.memory_bytes,
        disk=shutil.disk_usage(home).free,
        uv=uv,
        sandbox=shutil.which(name),
        data_folder=str(cache),
        data=dataset.snapshot_id(cache),
        own_harness=parsed.files.get("prepare.py") == HARNESS.read_bytes(),
    )


def points(facts: MachineFacts, parsed: Task) -> list[Check]:
    """What is there and what is missing, most important first."""
    wanted = parsed.benchmark.data_snapshot
    found = [
        _hardware(facts, parsed.baseline_class, _hints(parsed.protocol.raw)),
        Check("uv", "ok", facts.uv) if facts.uv else Check("uv", "missing", "not found.", environment.INSTALL_UV),
        _sandbox(facts.sandbox),
    ]
    if facts.data is None:
        found.append(Check("data", "missing", f"no prepared data in {facts.data_folder}.", "Run the setup commands."))
    elif wanted is None:
        what = f"{facts.data[:16]}… in {facts.data_folder}; the project pins none, so gains are measured on this"
        found.append(Check("data", "ok", what))
    elif facts.data != wanted:
        cure = "Run the setup commands, or move that folder away and then run them."
        what = f"{facts.data_folder} holds {facts.data[:16]}…, the project was measured on {wanted[:16]}…"
        found.append(Check("data", "missing", what, cure))
    else:
        found.append(Check("data", "ok", f"{wanted[:16]}… in {facts.data_folder}"))
    found.append(lines.disk(facts.disk))
    found.append(lines.size("memory", facts.memory, lines.LEAST_MEMORY, lines.LARGE_MODELS))
    return found


def _hardware(facts: MachineFacts, baseline_class: str, hints: str) -> Check:
    device = {"metal": "Metal", "cuda": "CUDA", "cpu": "CPU only"}[facts.device]
    here = f"{facts.hardware_class} ({device})"
    if baseline_class == facts.hardware_class:
        return Check("hardware", "ok", f"{here}, the class that the baseline was measured on")
    measured = f"was measured on {baseline_class}" if baseline_class else "does not record its own"
    hint = f" The project says: {hints}." if hints else ""
    cure = "Only gains measured on one machine can be compared."
    return Check("hardware", "differs", f"{here}; the baseline {measured}.{hint}", cure)


def _sandbox(path: str | None) -> Check:
    if path:
        return Check("sandbox", "ok", path)
    cure = INSTALL_BUBBLEWRAP if sys.platform == "linux" else ""
    return Check(
        "sandbox", "differs", "no sandbox: results are self-reported, and this machine cannot run the verifier.", cure
    )


def _hints(raw: Mapping[str, Any]) -> str:
    """What the protocol says about hardware: its author's words, cleaned and cut."""
    said: list[str] = []
    match raw:
        case {"environment": {"osHints": [*hints]}}:
            said = [hint for hint in hints[:8] if isinstance(hint, str)]
    return printable(", ".join(said), 120)
