"""A project as the official client publishes it: its documented arguments, written down from its public documentation.

The repository snapshot is a `git archive` of all files. The benchmark artifact is a tar of the harness, the baseline
metrics are the stdout log of the baseline run, which its harness ends with `BASELINE_METRIC=`. Prices and cap are those
of its examples, and of the live project. Nobody states a hardware class or pins data.
"""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Mapping
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

import httpx

from chain.connection.opening import AUTHORITY, Connection
from chain.irys.client import Role
from chain.irys.dataitem import ItemId
from chain.money import score
from chain.program import PROGRAM_ID
from chain.program.accounts import Project, decode_account
from chain.program.addresses import Pdas
from chain.program.events import ProjectCreated, ProposalSubmitted
from chain.program.instructions import Buy
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


def propose(connection: Connection, project: Project, files: Mapping[str, bytes], claim: Decimal) -> int:
    """A proposal as its miner makes it: the whole repository as a plain tar, the run's stdout, +metric·10⁶, no tags."""
    miner, packed = local.miner_of(connection), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    connection.client.call(Buy(project.id, 10_000_000), miner)
    done = connection.client.submit(
        miner,
        project,
        code=connection.publish(miner, Role.PROPOSAL_CODE, packed.getvalue(), "application/x-tar"),
        log=connection.publish(miner, Role.BENCHMARK_LOG, baseline_log(claim), "text/plain"),
        claimed_score=score.scale(claim),
        stake=1,
        reward_recipient=miner.pubkey(),
    )
    return done.event(ProposalSubmitted).id


def resolve(rpc: str, irys: str, number: int) -> tuple[dict[str, bytes], bytes, int]:
    """A project as its scripts read one: the account by raw RPC, each artifact by GET and SHA-256 alone. The four by
    role, the current best's archive (empty while that is the snapshot), and the best score.
    """
    question = [str(Pdas(PROGRAM_ID).project(number)), {"encoding": "base64"}]
    body = {"jsonrpc": "2.0", "id": 1, "method": "getAccountInfo", "params": question}
    told = httpx.post(rpc, json=body, trust_env=False).json()["result"]["value"]["data"][0]
    project = decode_account(Project, base64.b64decode(told))

    def get(item: bytes, digest: bytes) -> bytes:
        found = httpx.get(f"{irys}/{ItemId(item)}", trust_env=False, follow_redirects=True)
        assert (found.status_code, sha256(found.content).digest()) == (200, digest)
        return found.content

    four = {
        "protocol": get(project.protocol_irys_id, project.protocol_hash),
        "snapshot": get(project.repo_snapshot_irys_id, project.repo_snapshot_hash),
        "benchmark": get(project.benchmark_irys_id, project.benchmark_hash),
        "metrics": get(project.baseline_metrics_irys_id, project.baseline_metrics_hash),
    }
    best = b""
    if any(project.current_best_code_hash):
        best = get(project.current_best_code_irys_id, project.current_best_code_hash)
        assert get(project.current_best_metrics_irys_id, project.current_best_metrics_hash)
    return four, best, project.current_best_aggregate_score
