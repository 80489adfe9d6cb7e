"""A project like the live one on an embedded ledger: real accounts in the ledger's file, real artifacts on Irys."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.token.state import Mint

from chain.irys.client import Role
from chain.program import PROGRAM_ID
from chain.program.accounts import Project, Proposal, ProposalStatus
from chain.program.addresses import TOKEN_PROGRAM, Pdas
from tests import local
from tests.chain.layout import SPACE, encode_account

PDAS = Pdas(PROGRAM_ID)
MINER = Keypair.from_seed(bytes([7]) * 32).pubkey()
PROTOCOL = (Path(__file__).parents[2] / "configs" / "armlx" / "protocol.json").read_bytes()
METRICS = b'{"schemaKind": "metrics", "metric_name": "val_bpb", "metric_value": 2.667}'
CREATED = 1_778_313_609
DAY = 86_400


def put(home: Path, *accounts: tuple[Pubkey, bytes, Pubkey]) -> None:
    """Write accounts (address, data, owner) into the ledger's file; open ledgers take them up."""
    with sqlite3.connect(home / "ledger.sqlite") as db:
        (revision,) = db.execute("UPDATE state SET revision = revision + 1 RETURNING revision").fetchone()
        db.executemany(
            "INSERT OR REPLACE INTO accounts VALUES (?, ?, 10000000, ?, 0, 0, ?)",
            [(bytes(address), revision, bytes(owner), data) for address, data, owner in accounts],
        )
    db.close()


def project_account(project: Project) -> tuple[Pubkey, bytes, Pubkey]:
    """As the program allocates it: room for the longest name, zeros after the content."""
    return PDAS.project(project.id), encode_account(project).ljust(SPACE[Project], b"\0"), PROGRAM_ID


def proposal_account(proposal: Proposal) -> tuple[Pubkey, bytes, Pubkey]:
    return PDAS.proposal(proposal.id), encode_account(proposal), PROGRAM_ID


def mint_account(project: Project, supply: int) -> tuple[Pubkey, bytes, Pubkey]:
    authority = PDAS.mint_authority(project.id)
    return project.mint, bytes(Mint(authority, supply, 0, True, authority)), TOKEN_PROGRAM


def proposal(number: int, status: ProposalStatus = ProposalStatus.PENDING, **fields: Any) -> Proposal:
    """A proposal of project 0 by MINER."""
    made = Proposal(
        id=number,
        project_id=0,
        miner=MINER,
        reward_recipient=MINER,
        code_hash=bytes([1]) * 32,
        code_irys_id=bytes([2]) * 32,
        benchmark_log_hash=bytes([3]) * 32,
        benchmark_log_irys_id=bytes([4]) * 32,
        metrics_hash=bytes(32),
        metrics_irys_id=bytes(32),
        claimed_aggregate_score=3_342_544,
        verified_aggregate_score=0,
        stake=1,
        submitted_at=CREATED + DAY,
        review_lock_until=0,
        reviewer=Pubkey.default(),
        status=status,
        bump=255,
        escrow_bump=254,
    )
    return replace(made, **fields)


def project(creator: Pubkey, artifacts: Sequence[tuple[bytes, bytes]], **fields: Any) -> Project:
    """The live project's figures; `artifacts` are (SHA-256, Irys id) of protocol and baseline metrics."""
    (protocol_hash, protocol_id), (metrics_hash, metrics_id) = artifacts
    made = Project(
        id=0,
        creator=creator,
        created_at=CREATED,
        protocol_hash=protocol_hash,
        protocol_irys_id=protocol_id,
        repo_snapshot_hash=bytes([5]) * 32,
        repo_snapshot_irys_id=bytes([6]) * 32,
        benchmark_hash=bytes([7]) * 32,
        benchmark_irys_id=bytes([8]) * 32,
        baseline_aggregate_score=2_667_000,
        baseline_metrics_hash=metrics_hash,
        baseline_metrics_irys_id=metrics_id,
        current_best_code_hash=bytes([1]) * 32,
        current_best_code_irys_id=bytes([2]) * 32,
        current_best_aggregate_score=3_342_544,
        current_best_metrics_hash=bytes([9]) * 32,
        current_best_metrics_irys_id=bytes([10]) * 32,
        current_best_miner=MINER,
        mint=PDAS.mint(0),
        base_price=100_000,
        slope=1_000,
        miner_pool_cap=21_000_000,
        miner_pool_minted=1,
        token_name="Autoresearch MLX",
        token_symbol="ARMLX",
        bump=255,
        mint_authority_bump=254,
        sol_vault_bump=253,
        project_pool_bump=252,
    )
    return replace(made, **fields)


def publish(
    home: Path,
    *,
    protocol: bytes = PROTOCOL,
    metrics: bytes = METRICS,
    supply: int = 124,
    proposals: Sequence[Proposal] = (),
    **fields: Any,
) -> Project:
    """Project 0 in a home: artifacts on the local Irys node, accounts in the ledger."""
    with local.connect(home) as connection:
        creator = connection.wallet(None, "authority")
        artifacts = [
            connection.publish(creator, Role.PROTOCOL, protocol, "application/json"),
            connection.publish(creator, Role.BASELINE_METRICS, metrics, "application/json"),
        ]
    made = project(creator.pubkey(), artifacts, **fields)
    put(home, project_account(made), mint_account(made, supply), *map(proposal_account, proposals))
    return made


def approved(number: int = 0, score: int = 3_342_544, **fields: Any) -> Proposal:
    return proposal(number, ProposalStatus.APPROVED, verified_aggregate_score=score, **fields)


def with_purpose(text: str, **more: Any) -> bytes:
    """The live protocol with another purpose, and fields that nobody knows."""
    document = json.loads(PROTOCOL)
    document["meta"]["purposeStatement"] = text
    return json.dumps({**document, **more}).encode()
