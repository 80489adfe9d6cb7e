"""A project's artifacts on Irys: fetched and verified, or published. Plain bytes, not interpreted."""

from __future__ import annotations

from dataclasses import dataclass

from solders.keypair import Keypair

from chain.connection.opening import Connection
from chain.irys.client import Role
from chain.money.client import Landed
from chain.program.accounts import Project
from chain.program.instructions import CreateProject


@dataclass(frozen=True, slots=True)
class ProjectArtifacts:
    """The bytes that a project's hashes on chain stand for; `best_code` is None until something is approved."""

    protocol: bytes
    snapshot: bytes
    benchmark: bytes
    baseline_metrics: bytes
    best_code: bytes | None


@dataclass(frozen=True, slots=True)
class ProjectTerms:
    """A new project's token and curve; prices in lamports, cap in tokens, the score as on chain."""

    baseline_score: int
    token_name: str
    token_symbol: str
    base_price: int
    slope: int
    miner_pool_cap: int


def fetch_project(connection: Connection, project: Project) -> ProjectArtifacts:
    """All artifacts of a project, each verified (see `Connection.fetch`) before it is returned."""
    creator = project.creator
    return ProjectArtifacts(
        connection.fetch(project.protocol_irys_id, project.protocol_hash, creator, "protocol"),
        connection.fetch(project.repo_snapshot_irys_id, project.repo_snapshot_hash, creator, "repository snapshot"),
        connection.fetch(project.benchmark_irys_id, project.benchmark_hash, creator, "benchmark"),
        connection.fetch(project.baseline_metrics_irys_id, project.baseline_metrics_hash, creator, "baseline metrics"),
        fetch_best_code(connection, project),
    )


def fetch_best_code(connection: Connection, project: Project) -> bytes | None:
    """The archive of the best approved code; None until something is approved."""
    if not any(project.current_best_code_hash):
        return None
    return connection.fetch(
        project.current_best_code_irys_id,
        project.current_best_code_hash,
        project.current_best_miner,
        "best code",
    )


def publish_project(
    connection: Connection, creator: Keypair, artifacts: ProjectArtifacts, terms: ProjectTerms
) -> Landed:
    """Upload a new project's four artifacts and create it on chain."""
    protocol = connection.publish(creator, Role.PROTOCOL, artifacts.protocol, "application/json")
    snapshot = connection.publish(creator, Role.REPO_SNAPSHOT, artifacts.snapshot, "application/x-tar")
    benchmark = connection.publish(creator, Role.BENCHMARK, artifacts.benchmark, "application/json")
    metrics = connection.publish(creator, Role.BASELINE_METRICS, artifacts.baseline_metrics, "application/json")
    args = CreateProject(
        protocol_hash=protocol[0],
        protocol_irys_id=protocol[1],
        repo_snapshot_hash=snapshot[0],
        repo_snapshot_irys_id=snapshot[1],
        benchmark_hash=benchmark[0],
        benchmark_irys_id=benchmark[1],
        baseline_aggregate_score=terms.baseline_score,
        baseline_metrics_hash=metrics[0],
        baseline_metrics_irys_id=metrics[1],
        token_name=terms.token_name,
        token_symbol=terms.token_symbol,
        base_price=terms.base_price,
        slope=terms.slope,
        miner_pool_cap=terms.miner_pool_cap,
    )
    return connection.client.create_project(creator, args)
