"""The program's accounts, declared once: their fields in wire order, and how their data is read.

An account's data starts with the first eight bytes of SHA-256 over "account:Project", then come the Borsh fields.
All ids and amounts are u64, times are seconds since 1970, prices lamports, tokens whole (0 decimals), scores i64
at scale 1,000,000.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

from solders.pubkey import Pubkey

from chain.errors import InvalidData
from chain.program import codec
from chain.program.codec import I64, U8, U64, Hash, discriminator

EXPIRY_WINDOW_SECONDS = 604_800


@dataclass(frozen=True, slots=True)
class GlobalConfig:
    """The program's one global account; `authority` is the zero key after renounce_authority."""

    authority: Pubkey
    next_project_id: U64
    next_proposal_id: U64
    verifier_count: U64
    bump: U8


@dataclass(frozen=True, slots=True)
class VerifierEntry:
    """A verifier's place on the allowlist: that the account exists is the permission."""

    verifier: Pubkey
    added_at: I64
    bump: U8


@dataclass(frozen=True, slots=True)
class Project:
    """A research project: its artifacts by SHA-256 and Irys id, its best code so far, its token's curve."""

    id: U64
    creator: Pubkey
    created_at: I64
    protocol_hash: Hash
    protocol_irys_id: Hash
    repo_snapshot_hash: Hash
    repo_snapshot_irys_id: Hash
    benchmark_hash: Hash
    benchmark_irys_id: Hash
    baseline_aggregate_score: I64
    baseline_metrics_hash: Hash
    baseline_metrics_irys_id: Hash
    current_best_code_hash: Hash
    current_best_code_irys_id: Hash
    current_best_aggregate_score: I64
    current_best_metrics_hash: Hash
    current_best_metrics_irys_id: Hash
    current_best_miner: Pubkey
    mint: Pubkey
    base_price: U64
    slope: U64
    miner_pool_cap: U64
    miner_pool_minted: U64
    token_name: str
    token_symbol: str
    bump: U8
    mint_authority_bump: U8
    sol_vault_bump: U8
    project_pool_bump: U8


class ProposalStatus(IntEnum):
    """Where a proposal stands; the last three are final."""

    PENDING = 0
    IN_REVIEW = 1
    APPROVED = 2
    REJECTED = 3
    EXPIRED = 4


@dataclass(frozen=True, slots=True)
class Proposal:
    """A miner's staked claim. `reviewer` and `review_lock_until` mean something only while in review."""

    id: U64
    project_id: U64
    miner: Pubkey
    reward_recipient: Pubkey
    code_hash: Hash
    code_irys_id: Hash
    benchmark_log_hash: Hash
    benchmark_log_irys_id: Hash
    metrics_hash: Hash
    metrics_irys_id: Hash
    claimed_aggregate_score: I64
    verified_aggregate_score: I64
    stake: U64
    submitted_at: I64
    review_lock_until: I64
    reviewer: Pubkey
    status: ProposalStatus
    bump: U8
    escrow_bump: U8


@dataclass(frozen=True, slots=True)
class Claimable:
    """Tokens of slashed stakes that `account` may take out of the project's pool."""

    project_id: U64
    account: Pubkey
    amount: U64
    bump: U8


@dataclass(frozen=True, slots=True)
class SolVault:
    """The lamports behind a project's curve, held by this account beyond its own rent."""

    project_id: U64
    bump: U8


ACCOUNTS: tuple[type, ...] = (GlobalConfig, VerifierEntry, Project, Proposal, Claimable, SolVault)
_Record = TypeVar("_Record")


def discriminator_of(kind: type) -> bytes:
    """The eight bytes that an account of this kind starts with."""
    return discriminator("account", kind.__name__)


def offset_of(kind: type, field: str) -> int:
    """Where a field starts in an account's data, for a memcmp filter; ValueError if that varies."""
    return 8 + codec.offset(kind, field)


def decode_account(kind: type[_Record], data: bytes) -> _Record:
    """An account of a kind; InvalidData if it is of another kind or malformed.

    Bytes after the content are ignored, as by Anchor. Who owns the account is for the caller to check.
    """
    if data[:8] != discriminator_of(kind):
        raise InvalidData(
            f"The account is not a {kind.__name__}: it starts with {data[:8].hex() or 'nothing'}.",
            "Check the address and --network.",
        )
    return codec.decode(kind, data, 8)[0]
