"""What accounts look like to people and to scripts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

from solders.pubkey import Pubkey

from chain.irys.dataitem import ItemId
from chain.network.reading import Malformed
from chain.program.accounts import Project, Proposal, ProposalStatus
from common.text import printable


def as_json(record: Any) -> dict[str, Any]:
    """An account as JSON values: keys in base58, hashes in hex, Irys ids in base58, a status by name."""
    return {field.name: _plain(field.name, getattr(record, field.name)) for field in fields(record)}


def fields_text(record: Any) -> str:
    """An account as lines of name and value; times are shown as dates too."""
    lines = []
    for name, value in as_json(record).items():
        shown = printable(value) if isinstance(value, str) else value
        if name.endswith(("_at", "_until")) and value:
            shown = f"{value}  ({when(value)})"
        lines.append(f"{name.replace('_', ' '):<28} {shown}")
    return "\n".join(lines)


def projects(found: Sequence[Project], malformed: Sequence[Malformed] = ()) -> str:
    """A line per project, and one per account that should be a project but cannot be decoded."""
    if not found and not malformed:
        return "no projects"
    head = f"{'id':>4}  {'symbol':<10} {'baseline score':>14} {'best score':>14} {'rewards':>8}  name"
    rows = [
        f"{p.id:>4}  {printable(p.token_symbol, 10):<10} {p.baseline_aggregate_score:>14,} "
        f"{p.current_best_aggregate_score:>14,} {p.miner_pool_minted:>8,}  {printable(p.token_name, 40)}"
        for p in found
    ]
    return "\n".join([head, *rows, *map(malformed_line, malformed)])


def grouped(score: int) -> str:
    """A score as it is recorded."""
    return f"{score:,}"


def proposals(
    found: Sequence[Proposal], malformed: Sequence[Malformed] = (), *, value: Callable[[int], str] = grouped
) -> str:
    """A line per proposal, and one per account that should be a proposal but cannot be decoded.

    `value` shows a score; only an approved proposal has a verified one.
    """
    if not found and not malformed:
        return "no proposals"
    head = f"{'id':>4}  {'status':<10} {'claimed':>14} {'verified':>14} {'stake':>6}  {'submitted':<16}  miner"
    rows = []
    for entry in found:
        verified = value(entry.verified_aggregate_score) if entry.status is ProposalStatus.APPROVED else ""
        rows.append(
            f"{entry.id:>4}  {status_words(entry.status):<10} {value(entry.claimed_aggregate_score):>14} "
            f"{verified:>14} {entry.stake:>6,}  {when(entry.submitted_at):<16}  {entry.miner}"
        )
    return "\n".join([head, *rows, *map(malformed_line, malformed)])


def when(seconds: int) -> str:
    """Unix seconds as a short UTC date; the number itself if it is out of range."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def malformed_line(entry: Malformed) -> str:
    """An account that cannot be decoded, as one line."""
    return f"   ?  malformed account {entry.address} of {entry.size} bytes: {printable(entry.problem, 200)}"


def malformed_json(entry: Malformed) -> dict[str, Any]:
    """The same for scripts."""
    return {"malformed": str(entry.address), "bytes": entry.size, "problem": entry.problem}


def status_words(status: ProposalStatus) -> str:
    """A status as people read it."""
    return status.name.lower().replace("_", " ")


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, IntEnum):
        return value.name.lower()
    if isinstance(value, Pubkey):
        return str(value)
    if isinstance(value, bytes):
        return str(ItemId(value)) if name.endswith("_irys_id") else value.hex()
    return value
