"""The ladder of a project as the chain has it: the codes of its rungs.

`trainer.judging.ladder` says what a rung is and which one holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from chain.connection.opening import Connection
from chain.money import score
from chain.program.accounts import Project, Proposal
from chain.projects.artifacts import fetch_earlier
from trainer.errors import TrainerError
from trainer.judging.ladder import INCUMBENT, SNAPSHOT, Rung
from trainer.project.task import Task


@dataclass(frozen=True, slots=True)
class EarlierBest:
    """A rung with its code and the score it has on chain."""

    arm: str
    score: int
    tree: Mapping[str, bytes]

    def rung(self, baseline: int) -> Rung:
        """The rung over a snapshot with this score."""
        return Rung(self.arm, float(score.unscale(self.score - baseline)))


def steps(
    connection: Connection, project: Project, proposals: Sequence[Proposal], task: Task, most: int
) -> tuple[EarlierBest, ...]:
    """The rungs below the incumbent, out of the project's `proposals`: at most `most` earlier bests that can be
    fetched, the latest first, and the snapshot. Empty while the snapshot is the best itself."""
    if not any(project.current_best_code_hash):
        return ()
    found: list[EarlierBest] = []
    for proposal, archive in fetch_earlier(connection, project, proposals, most):
        with suppress(TrainerError):  # one rung less: the snapshot is always there
            rung = EarlierBest(f"proposal {proposal.id}", proposal.verified_aggregate_score, task.tree(archive))
            found.append(rung)
    return (*found, EarlierBest(SNAPSHOT, project.baseline_aggregate_score, task.files))


def above(project: Project, task: Task, below: Sequence[EarlierBest]) -> tuple[EarlierBest, ...]:
    """The whole ladder, the incumbent on top."""
    return (EarlierBest(INCUMBENT, project.current_best_aggregate_score, task.incumbent), *below)
