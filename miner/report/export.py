"""Export: a session's records and the chain's best as the files that other OpenResearch clients read."""

from __future__ import annotations

from pathlib import Path

from chain.connection.opening import Connection
from chain.money import score
from chain.projects.artifacts import fetch_project
from common.files import write_atomic
from miner.journal import about, journal, records
from miner.journal.sessions import SessionFolder
from trainer.errors import TrainerError
from trainer.project import task


def write_files(found: SessionFolder, directory: Path, state: str | None) -> list[Path]:
    """Write the files into `directory`; `state` is the text of network_state.json, None leaves it out."""
    session, facts = journal.read(found.journal), about.load(found.folder)
    if not facts.bundle_id:
        raise TrainerError(
            f"The session {found.name} was made by an older version and does not record its protocol bundle.",
            "Run `miner run` on it once more, then export.",
        )
    texts = {
        records.RESULTS: records.results_tsv(session.sums.decided),
        records.TRIALS: records.trials_jsonl(
            session.sums.decided, bundle_id=facts.bundle_id, metric=facts.metric, direction=facts.direction
        ),
    }
    if state is not None:
        texts[records.STATE] = state
    try:
        for name, text in texts.items():
            write_atomic(directory / name, text.encode())
    except OSError as error:
        raise TrainerError(f"Cannot write {directory}: {error.strerror}.", "Choose another folder.") from error
    return [directory / name for name in texts]


def network_state(connection: Connection, project_id: int) -> str:
    """The text of network_state.json from the chain; ChainError or TrainerError if its artifacts do not fit."""
    project = connection.client.project(project_id)
    artifacts = fetch_project(connection, project)
    parsed = task.read(artifacts)
    convention = score.infer(project.baseline_aggregate_score, parsed.baseline, minimize=parsed.minimize)
    return records.network_state_json(
        project,
        convention,
        bundle_id=parsed.protocol.bundle_id,
        network=connection.network.name,
        program_id=str(connection.network.program_id),
        metric=parsed.protocol.primary.name,
        updated_at=journal.now(),
        min_improvement_bips=parsed.protocol.min_improvement_bips,
    )
