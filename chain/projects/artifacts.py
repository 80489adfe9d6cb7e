"""A project's artifacts on Irys: fetched and verified, or published. Plain bytes, not interpreted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chain.connection.opening import Connection
from chain.errors import ChainError
from chain.irys.client import Role
from chain.irys.dataitem import ItemId
from chain.money.client import Landed
from chain.program.accounts import Project, Proposal, ProposalStatus
from chain.program.instructions import CreateProject


@dataclass(frozen=True, slots=True)
class ProjectArtifacts:
    """The bytes that a project's hashes on chain stand for, with its baseline score on chain.

    `best_code` is None until something is approved. `benchmark` and `baseline_metrics` are empty where a creator
    pinned a hash and uploaded nothing.
    """

    protocol: bytes
    snapshot: bytes
    benchmark: bytes
    baseline_metrics: bytes
    best_code: bytes | None
    baseline_score: int


@dataclass(frozen=True, slots=True)
class CheckedArtifact:
    """An artifact that was verified: SHA-256 (hex) and Irys id as on chain; `signed` by its owner as far as a
    gateway told what is needed to check that."""

    name: str
    sha256: str
    irys_id: str
    owner: str
    size: int
    signed: bool

    @property
    def line(self) -> str:
        """For people."""
        who = f"signed by {self.owner}" if self.signed else "signature not available from any gateway"
        return f"✓ {self.name}: {self.size:,} bytes, SHA-256 {self.sha256[:16]}…, {who}"


Say = Callable[[CheckedArtifact], object]
_DISPENSABLE = ("benchmark", "baseline metrics")


@dataclass(frozen=True, slots=True)
class ProjectTerms:
    """A new project's token and curve; prices in lamports, cap in tokens."""

    token_name: str
    token_symbol: str
    base_price: int
    slope: int
    miner_pool_cap: int


def fetch_project(connection: Connection, project: Project, say: Say = lambda artifact: None) -> ProjectArtifacts:
    """All artifacts of a project, each told when its SHA-256, signature and owner were verified.

    The error of one that cannot be had, or is not what the chain says, names it.
    """
    protocol, snapshot, benchmark, metrics = (
        _fetch(connection, name, item, digest, project.creator, say)
        for name, item, digest in (
            ("protocol", project.protocol_irys_id, project.protocol_hash),
            ("repository snapshot", project.repo_snapshot_irys_id, project.repo_snapshot_hash),
            ("benchmark", project.benchmark_irys_id, project.benchmark_hash),
            ("baseline metrics", project.baseline_metrics_irys_id, project.baseline_metrics_hash),
        )
    )
    best = fetch_best_code(connection, project, say)
    return ProjectArtifacts(protocol, snapshot, benchmark, metrics, best, project.baseline_aggregate_score)


def fetch_best_code(connection: Connection, project: Project, say: Say = lambda artifact: None) -> bytes | None:
    """The archive of the best approved code; None until something is approved."""
    if not any(project.current_best_code_hash):
        return None
    ids = project.current_best_code_irys_id, project.current_best_code_hash
    return _fetch(connection, "best code", *ids, project.current_best_miner, say)


def fetch_earlier(
    connection: Connection, project: Project, proposals: Sequence[Proposal], most: int
) -> list[tuple[Proposal, bytes]]:
    """Of a project's `proposals`, the approved ones below the best, at most `most`, the highest score first, each with
    its archive. One whose archive cannot be had is left out.
    """
    approved = [
        proposal
        for proposal in proposals
        if proposal.status is ProposalStatus.APPROVED
        and proposal.code_hash != project.current_best_code_hash
        and proposal.verified_aggregate_score < project.current_best_aggregate_score
    ]
    approved.sort(key=lambda proposal: (proposal.verified_aggregate_score, proposal.id), reverse=True)
    found = []
    for proposal in approved[:most]:
        with suppress(ChainError):
            ids = proposal.code_irys_id, proposal.code_hash
            found.append((proposal, connection.fetch(*ids, proposal.miner, f"code of proposal {proposal.id}")))
    return found


def fetch_baseline_metrics(connection: Connection, project: Project) -> bytes:
    """The baseline metrics artifact, empty where it was not uploaded."""
    ids = project.baseline_metrics_irys_id, project.baseline_metrics_hash
    return _fetch(connection, "baseline metrics", *ids, project.creator, lambda artifact: None)


def _fetch(connection: Connection, name: str, item: bytes, digest: bytes, owner: Pubkey, say: Say) -> bytes:
    if not any(item) and name in _DISPENSABLE:
        return b""
    found = connection.artifact(item, digest, owner, name)
    size, signed = len(found.data), found.signature_checked
    say(CheckedArtifact(name, digest.hex(), str(ItemId(item)), str(owner), size, signed))
    return found.data


def publish_project(
    connection: Connection, creator: Keypair, artifacts: ProjectArtifacts, terms: ProjectTerms
) -> Landed:
    """Upload a new project's four artifacts and create it on chain."""
    protocol = connection.publish(creator, Role.PROTOCOL, artifacts.protocol, "application/json")
    snapshot = connection.publish(creator, Role.REPO_SNAPSHOT, artifacts.snapshot, "application/x-tar")
    kind = "application/json" if artifacts.benchmark[:1] == b"{" else "application/x-tar"
    benchmark = connection.publish(creator, Role.BENCHMARK, artifacts.benchmark, kind)
    kind = "application/json" if artifacts.baseline_metrics[:1] == b"{" else "text/plain"
    metrics = connection.publish(creator, Role.BASELINE_METRICS, artifacts.baseline_metrics, kind)
    args = CreateProject(
        protocol_hash=protocol[0],
        protocol_irys_id=protocol[1],
        repo_snapshot_hash=snapshot[0],
        repo_snapshot_irys_id=snapshot[1],
        benchmark_hash=benchmark[0],
        benchmark_irys_id=benchmark[1],
        baseline_aggregate_score=artifacts.baseline_score,
        baseline_metrics_hash=metrics[0],
        baseline_metrics_irys_id=metrics[1],
        token_name=terms.token_name,
        token_symbol=terms.token_symbol,
        base_price=terms.base_price,
        slope=terms.slope,
        miner_pool_cap=terms.miner_pool_cap,
    )
    return connection.client.create_project(creator, args)
