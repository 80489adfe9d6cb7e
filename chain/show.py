"""What accounts look like to people and to scripts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum
from typing import Any

from solders.pubkey import Pubkey

from chain import score
from chain.errors import ChainError, InvalidData
from chain.interface import Project, Proposal, ProposalStatus
from chain.irys.dataitem import ItemId
from chain.network import LAMPORTS_PER_SOL
from chain.session import Connection

_METRIC_BYTES = 1024 * 1024


def as_json(record: Any) -> dict[str, Any]:
    """An account as JSON values: keys in base58, hashes in hex, Irys ids in base58, a status by name."""
    return {field.name: _plain(field.name, getattr(record, field.name)) for field in fields(record)}


def fields_text(record: Any) -> str:
    """An account as lines of name and value; times are shown as dates too."""
    lines = []
    for name, value in as_json(record).items():
        shown = value
        if name.endswith(("_at", "_until")) and value:
            shown = f"{value}  ({when(value)})"
        lines.append(f"{name.replace('_', ' '):<28} {shown}")
    return "\n".join(lines)


def projects(found: Sequence[Project]) -> str:
    """A line per project."""
    if not found:
        return "no projects"
    head = f"{'id':>4}  {'symbol':<10} {'baseline':>14} {'best':>14} {'rewards':>8}  name"
    rows = [
        f"{p.id:>4}  {p.token_symbol:<10} {p.baseline_aggregate_score:>14,} {p.current_best_aggregate_score:>14,} "
        f"{p.miner_pool_minted:>8,}  {p.token_name}"
        for p in found
    ]
    return "\n".join([head, *rows])


def proposals(found: Sequence[Proposal]) -> str:
    """A line per proposal."""
    if not found:
        return "no proposals"
    head = f"{'id':>4}  {'status':<10} {'claimed':>14} {'verified':>14} {'stake':>6}  {'submitted':<16}  miner"
    rows = [
        f"{p.id:>4}  {_status(p.status):<10} {p.claimed_aggregate_score:>14,} {p.verified_aggregate_score:>14,} "
        f"{p.stake:>6,}  {when(p.submitted_at):<16}  {p.miner}"
        for p in found
    ]
    return "\n".join([head, *rows])


@dataclass(frozen=True, slots=True)
class Overview:
    """A project as its site shows it. Metrics are in their own unit, None where their meaning is not known."""

    project: Project
    metric_name: str
    convention: score.Convention | None
    problem: str
    supply: int
    proposals: tuple[Proposal, ...]

    @property
    def next_price(self) -> int:
        """Lamports for the next token."""
        return self.project.base_price + self.project.slope * self.supply

    def metric(self, value: int) -> Decimal | None:
        """A score in the metric's unit."""
        return self.convention.to_metric(value) if self.convention else None

    def as_json(self) -> dict[str, Any]:
        """For scripts; metrics are decimal strings."""
        project, best = self.project, self.project.current_best_aggregate_score
        known = self.convention
        return {
            "project": as_json(project),
            "metric": self.metric_name,
            "convention": known.kind if known else None,
            "baseline": _text(self.metric(project.baseline_aggregate_score)),
            "best": _text(self.metric(best)),
            "raw_gain": _text(known.gain(best)) if known else None,
            "delta_percent": _text(known.gain_percent(best)) if known else None,
            "next_price_lamports": self.next_price,
            "supply": self.supply,
            "miner_pool_minted": project.miner_pool_minted,
            "miner_pool_cap": project.miner_pool_cap,
            "proposals": [as_json(entry) for entry in self.proposals],
        }

    def text(self) -> str:
        """For people."""
        project, best = self.project, self.project.current_best_aggregate_score
        lines = [f"{project.token_name} ({project.token_symbol}), project {project.id}", ""]

        def row(name: str, value: str) -> None:
            lines.append(f"  {name:<18} {value}")

        if self.convention:
            row(f"baseline {self.metric_name}", f"{self.metric(project.baseline_aggregate_score):.6f}")
            row(f"best {self.metric_name}", f"{self.metric(best):.6f}")
            row("delta", f"{self.convention.gain_percent(best):+.2f} %")
            row("raw gain", f"{self.convention.gain(best):.6f}")
        else:
            row("scores", f"baseline {project.baseline_aggregate_score:,}, best {best:,}; {self.problem}")
        row("best miner", str(project.current_best_miner) if any(project.current_best_code_hash) else "none yet")
        row("next price", f"{self.next_price / LAMPORTS_PER_SOL:.6f} SOL")
        row("supply", f"{self.supply:,}")
        row("miner pool", f"{project.miner_pool_minted:,} of {project.miner_pool_cap:,} minted")
        row("mint", str(project.mint))
        row("creator", str(project.creator))
        record = [entry for entry in self.proposals if entry.status is ProposalStatus.APPROVED]
        lines += ["", f"track record ({len(record)} approved)"]
        for entry in record:
            metric = self.metric(entry.verified_aggregate_score)
            shown = f"{metric:.6f}" if metric is not None else f"{entry.verified_aggregate_score:,}"
            lines.append(f"  proposal {entry.id:<5} {shown}  {when(entry.submitted_at)}  {entry.miner}")
        lines += ["", f"proposals ({len(self.proposals)})"]
        lines += ["  " + line for line in proposals(self.proposals).splitlines()]
        return "\n".join(lines)


def overview(connection: Connection, project_id: int) -> Overview:
    """Read a project, its proposals and its baseline metric; the metric's meaning is inferred, never assumed."""
    client = connection.client
    project = client.project(project_id)
    metric_name, convention, problem = "score", None, ""
    try:
        metrics = _artifact(connection, project.baseline_metrics_irys_id, project.baseline_metrics_hash, project)
        document = json.loads(metrics, parse_float=Decimal, parse_int=Decimal)
        protocol = json.loads(_artifact(connection, project.protocol_irys_id, project.protocol_hash, project))
        primary = protocol["measurement"]["primaryMetric"]
        convention = score.infer(
            project.baseline_aggregate_score, document["metric_value"], minimize=primary["direction"] == "minimize"
        )
        metric_name = str(primary["name"])[:32]
    except ChainError as error:
        problem = error.problem
    except (ValueError, KeyError, TypeError, ArithmeticError, AttributeError, RecursionError) as error:
        problem = f"its artifacts do not say what a score means ({error!r})."
    return Overview(
        project, metric_name, convention, problem, client.supply(project), tuple(client.proposals(project_id))
    )


def when(seconds: int) -> str:
    """Unix seconds as a short UTC date; the number itself where no calendar reaches."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def _artifact(connection: Connection, item_id: bytes, digest: bytes, project: Project) -> bytes:
    data = connection.fetch(item_id, digest, project.creator, "artifact")
    if len(data) > _METRIC_BYTES:
        raise InvalidData(f"An artifact of {len(data):,} bytes is not a document of this kind.")
    return data


def _status(status: ProposalStatus) -> str:
    return status.name.lower().replace("_", " ")


def _text(value: Decimal | None) -> str | None:
    return None if value is None else str(value)


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, IntEnum):
        return value.name.lower()
    if isinstance(value, Pubkey):
        return str(value)
    if isinstance(value, bytes):
        return str(ItemId(value)) if name.endswith("_irys_id") else value.hex()
    return value
