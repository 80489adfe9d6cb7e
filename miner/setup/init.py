"""A project's bundle, verified and laid out as a git work tree: what `miner init` does first.

In the folder, which is made whole or not at all:

    (the snapshot's files)        git branch autoresearch/snapshot, its only commit
                                  git branch autoresearch/best, checked out: the best approved code on top, if any
    protocol.json                 } outside git; in .openresearch/ where the snapshot has a file of that name
    network_state.json            }
    .openresearch/                benchmark.json or .tar, baseline-metrics.json or .log, protocol.json; outside git

Nothing of the bundle is run here.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from chain.money import score
from chain.program.accounts import Project
from chain.projects.artifacts import ProjectArtifacts
from miner.journal import records
from miner.journal.worktree import Workspace
from trainer.errors import TrainerError
from trainer.project import bundle
from trainer.project.task import Task

DOT: Final = ".openresearch"
SNAPSHOT, BEST = "snapshot", "best"


def folder_name(symbol: str, project_id: int) -> str:
    """A plain folder name for a token's symbol, which is its author's word."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", symbol).strip("-_")[:32]
    return plain or f"project-{project_id}"


def require_empty(folder: Path) -> None:
    """TrainerError unless `folder` is absent or an empty folder."""
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise TrainerError(f"{folder} already exists and is not empty.", "Choose another folder: miner init … DIR.")


def publishable(artifacts: ProjectArtifacts) -> tuple[str, ...]:
    """No notes; TrainerError if a snapshot about to be published could not be laid out."""
    if any(bundle.fold(path.split("/")[0]) == DOT for path in bundle.read_archive(artifacts.snapshot).files):
        raise TrainerError(f"The snapshot contains a {DOT} folder.", "Remove it from the commit.")
    return ()


def lay_out(folder: Path, project: Project, parsed: Task, artifacts: ProjectArtifacts, where: Mapping[str, str]) -> str:
    """Make the work tree in `folder`, absent or empty before; the branch that is checked out.

    `where` names the `network` and the `program_id` that network_state.json shall name.
    """
    require_empty(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as building:
        tree = Path(building) / "tree"
        workspace = Workspace.open(tree, SNAPSHOT, parsed.files)
        if artifacts.best_code is not None:
            message = f"best approved code, by {project.current_best_miner}"
            workspace = workspace.fork(BEST, {**parsed.incumbent}, message)
        beside = {
            "protocol.json": artifacts.protocol,
            "network_state.json": _network_state(project, parsed, where).encode(),
        }
        dot = tree / DOT
        if dot.exists():
            raise TrainerError(f"The snapshot contains a {DOT} folder.", "Ask the project's owner.")
        dot.mkdir()
        taken = {bundle.fold(path.split("/")[0]) for path in parsed.incumbent}
        outside = [f"/{DOT}/"]
        for name, data in beside.items():
            if bundle.fold(name) in taken:
                (dot / name).write_bytes(data)
            else:
                (tree / name).write_bytes(data)
                outside.append(f"/{name}")
        benchmark = "benchmark.json" if parsed.benchmark.data_snapshot else "benchmark.tar"
        metrics = "baseline-metrics.json" if artifacts.baseline_metrics[:1] == b"{" else "baseline-metrics.log"
        (dot / benchmark).write_bytes(artifacts.benchmark)
        (dot / metrics).write_bytes(artifacts.baseline_metrics)
        exclude = tree / ".git" / "info" / "exclude"
        exclude.parent.mkdir(exist_ok=True)
        exclude.write_text("\n".join([*outside, "/.venv/", ""]))
        try:
            tree.replace(folder)
        except OSError as error:
            raise TrainerError(f"Cannot create {folder}: {error.strerror}.", "Choose another folder.") from error
    return workspace.branch


def _network_state(project: Project, parsed: Task, where: Mapping[str, str]) -> str:
    spec = parsed.protocol
    return records.network_state_json(
        project,
        score.infer(project.baseline_aggregate_score, parsed.baseline, minimize=parsed.minimize),
        bundle_id=spec.bundle_id,
        network=where["network"],
        program_id=where["program_id"],
        metric=spec.primary.name,
        updated_at=datetime.now(UTC).isoformat(timespec="seconds"),
        min_improvement_bips=spec.min_improvement_bips,
    )
