"""The ladder of a project as the chain has it, and what this machine remembers of its lowest rung.

`trainer.judging.ladder` says what a rung is and which one holds; here are their codes and files.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chain.connection.opening import Connection
from chain.errors import ChainError
from chain.money import score
from chain.program.accounts import Project, ProposalStatus
from common.files import write_atomic
from trainer.errors import TrainerError
from trainer.judging.ladder import INCUMBENT, SNAPSHOT, Known, Rung
from trainer.project import bundle
from trainer.project.task import Task

MAX_BYTES = 1 << 18
MAX_VALUES = 16


@dataclass(frozen=True, slots=True)
class EarlierBest:
    """A rung with its code and the score it has on chain."""

    arm: str
    score: int
    tree: Mapping[str, bytes]

    def rung(self, baseline: int) -> Rung:
        """The rung over a snapshot with this score."""
        return Rung(self.arm, float(score.unscale(self.score - baseline)))


def steps(connection: Connection, project: Project, task: Task, most: int) -> tuple[EarlierBest, ...]:
    """The rungs below the incumbent: at most `most` earlier bests that can be fetched, the latest first, and the
    snapshot. Empty while the snapshot is the best itself."""
    if not any(project.current_best_code_hash):
        return ()
    best = project.current_best_code_hash
    earlier = sorted(
        (
            proposal
            for proposal in connection.client.proposals(project.id)
            if proposal.status is ProposalStatus.APPROVED and proposal.code_hash != best
        ),
        key=lambda proposal: (proposal.verified_aggregate_score, proposal.id),
        reverse=True,
    )
    found: list[EarlierBest] = []
    for proposal in earlier[:most]:
        try:
            data = connection.fetch(proposal.code_irys_id, proposal.code_hash, proposal.miner, "earlier best code")
            files = bundle.unprefixed(bundle.read_archive(data).files, task.files)
            tree = bundle.overlay(task.files, files, task.protocol.surface)
        except (ChainError, TrainerError):
            continue  # one rung less: the snapshot is always there
        found.append(EarlierBest(f"proposal {proposal.id}", proposal.verified_aggregate_score, tree))
    return (*found, EarlierBest(SNAPSHOT, project.baseline_aggregate_score, task.files))


def above(project: Project, task: Task, below: Sequence[EarlierBest]) -> tuple[EarlierBest, ...]:
    """The whole ladder, the incumbent on top."""
    return (EarlierBest(INCUMBENT, project.current_best_aggregate_score, task.incumbent), *below)


def known(path: Path, key: str, hours: float) -> Known:
    """What this machine remembers of the snapshot's runs; nothing where the file is not there or not ours."""
    values, at = _read(path).get(key, ((), 0.0))
    return Known(values, fresh=bool(values) and 0 <= time.time() - at < hours * 3600)


def remember(path: Path, key: str, values: Sequence[float]) -> None:
    """Keep the snapshot's values of this check in the place of older ones."""
    entries = {name: {"values": list(old), "at": at} for name, (old, at) in _read(path).items()}
    entries[key] = {"values": list(values)[-MAX_VALUES:], "at": time.time()}
    write_atomic(path, json.dumps(entries, indent=1, sort_keys=True).encode())


def _read(path: Path) -> dict[str, tuple[tuple[float, ...], float]]:
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(MAX_BYTES))
        return {
            str(key): (tuple(float(value) for value in entry["values"]), float(entry["at"]))
            for key, entry in document.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # it is measured anew
