"""What a session is about: where it mines what on which machine, written down when it starts.

`about.json` lies beside the journal, so that looking at a session needs neither its chain nor its machine. The
journal does not depend on it: a session without one has these facts unknown.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.files import write_atomic
from miner.journal.journal import now

if TYPE_CHECKING:
    from chain.money.score import Convention
    from chain.program.accounts import Project
    from trainer.measurement.bench import Bench
    from trainer.project.task import Task

NAME = "about.json"
_MAX_BYTES = 256 * 1024
_MAX_TEXT = 300


@dataclass(frozen=True, slots=True)
class About:
    """Facts of a session as of its last start; "" or None is unknown.

    `budget` is the training time in seconds, `baseline` and `best` are the chain's metrics as decimal text, `machine`
    the fingerprint's known fields as text, `versions` those of the packages that matter.
    """

    at: str = ""
    network: str = ""
    project: int | None = None
    token_name: str = ""
    token_symbol: str = ""
    bundle_id: str = ""
    metric: str = "val_bpb"
    direction: str = "minimize"
    baseline: str = ""
    best: str = ""
    budget: float | None = None
    hardware_class: str = ""
    data_snapshot: str = ""
    method: str = ""
    isolation: str = ""
    machine: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def describe(network: str, project: Project, task: Task, convention: Convention, bench: Bench) -> About:
    """The facts of a session that starts now."""
    machine = bench.machine
    return About(
        at=now(),
        network=network,
        project=project.id,
        token_name=project.token_name,
        token_symbol=project.token_symbol,
        bundle_id=task.protocol.bundle_id,
        metric=task.protocol.primary.name,
        direction=task.protocol.primary.direction,
        baseline=str(task.baseline),
        best=str(convention.to_metric(project.current_best_aggregate_score)),
        budget=task.protocol.execution.training_seconds,
        hardware_class=machine.hardware_class,
        data_snapshot=bench.data_snapshot,
        method=bench.method,
        isolation=bench.isolation,
        machine={name: str(value) for name, value in machine.as_json().items() if value is not None},
        versions={
            "openresearch-miner": version("openresearch-miner"),
            "python": machine.python,
            **locked_versions(task.files),
        },
    )


def locked_versions(files: Mapping[str, bytes]) -> dict[str, str]:
    """What the bundle's uv.lock pins of the packages that its pyproject.toml asks for by name."""
    try:
        lock = tomllib.loads(files.get("uv.lock", b"").decode())
        own = next(p for p in lock.get("package", []) if "version" in p and "registry" not in p.get("source", {}))
        wanted = {dependency["name"] for dependency in own.get("dependencies", [])}
        found = {p["name"]: str(p["version"]) for p in lock["package"] if p["name"] in wanted and "version" in p}
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError):
        return {}
    return dict(sorted(found.items())[:40])


def save(folder: Path, about: About) -> None:
    """Write the facts into a session's folder, whole or not at all."""
    write_atomic(folder / NAME, json.dumps(asdict(about), indent=2, sort_keys=True).encode() + b"\n")


def load(folder: Path) -> About:
    """The facts of a session; what is missing, too long or of another type is unknown."""
    try:
        with (folder / NAME).open("rb") as file:
            document = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return About()
    if not isinstance(document, dict):
        return About()
    known: dict[str, Any] = {}
    for entry in fields(About):
        value = document.get(entry.name)
        match entry.name:
            case "project":
                good = isinstance(value, int) and not isinstance(value, bool)
            case "budget":
                good = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e7
            case "machine" | "versions":
                good = isinstance(value, dict) and len(value) <= 64
                if isinstance(value, dict):
                    value = {k[:64]: str(v)[:_MAX_TEXT] for k, v in value.items() if v is not None}
            case _:
                good = isinstance(value, str) and len(value) <= _MAX_TEXT
        if good:
            known[entry.name] = value
    return About(**known)
