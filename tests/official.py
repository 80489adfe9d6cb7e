"""A project as the official client publishes it: its documented arguments, written down from its public documentation.

The repository snapshot is a `git archive` of all files. The benchmark artifact is a tar of the harness, the baseline
metrics are the stdout log of the baseline run, which its harness ends with `BASELINE_METRIC=`. Prices and cap are those
of its examples, and of the live project. Nobody states a hardware class or pins data.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from chain.connection.opening import AUTHORITY, Connection
from chain.money import score
from chain.program.accounts import Project
from chain.program.events import ProjectCreated
from chain.projects.artifacts import ProjectArtifacts, ProjectTerms, publish_project
from tests import local
from trainer.project import bundle

TERMS = ProjectTerms("My Research Token", "MRT", 100_000, 1_000, 21_000_000)


def baseline_log(metric: Decimal = local.BASELINE) -> bytes:
    """The log of a run of an upstream train.py, as the official harness leaves it."""
    return (
        "Data/tokenizer loaded in 1.2s\n"
        "step 00045 (99.1%) | loss: 7.2\rstep 00046 (100.0%) | loss: 7.1\n"
        "---\n"
        f"val_bpb:          {metric}\n"
        "training_seconds: 300.9\n"
        "peak_vram_mb:     27528.9\n"
        f"BASELINE_METRIC={metric}\n"
    ).encode()


def artifacts(
    protocol: bytes = local.PROTOCOL,
    snapshot: bytes | None = None,
    *,
    metric: Decimal = local.BASELINE,
    negated: bool = False,
) -> ProjectArtifacts:
    """The four files, and the score: positive as the live project's, or `negated` as its validator computes it."""
    harness = {"prepare.py": local.SMOKE.files["prepare.py"], "README.md": b"benchmark: uv run train.py\n"}
    scaled = score.scale(metric)
    return ProjectArtifacts(
        protocol,
        bundle.pack(local.SMOKE.files) if snapshot is None else snapshot,
        bundle.pack(harness),
        baseline_log(metric),
        None,
        -scaled if negated else scaled,
    )


def publish(connection: Connection, given: ProjectArtifacts) -> Project:
    """The project on chain."""
    done = publish_project(connection, connection.wallet(None, AUTHORITY), given, TERMS)
    return connection.client.project(done.event(ProjectCreated).project_id)


def home_with_project(folder: Path, *, negated: bool = False) -> Path:
    """`folder`, made a home whose embedded ledger holds such a project, 0."""
    with local.connect(folder) as connection:
        publish(connection, artifacts(negated=negated))
    return folder
