"""A project as its site shows it: figures, track record, proposals by day, protocol.

What a score means is inferred from the baseline metrics artifact and the protocol (`chain.money.score`), never
assumed: a number in the artifact counts as the baseline metric only if the baseline score on chain is exactly
that number under a known convention. Otherwise the reason is given and scores are shown raw. Where the artifact
states no number, the score on chain is read back as one, and the page says so.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from chain.connection.opening import Connection
from chain.errors import ChainError, InvalidData
from chain.money import score
from chain.network.reading import Malformed
from chain.pages import leaders, show
from chain.pages.leaders import MinerRank, VerifierRank
from chain.program.accounts import Project, Proposal, ProposalStatus
from chain.projects import artifacts, listing, packing
from common import baseline
from common.baseline import InvalidBaseline
from common.text import printable

DAYS = 35
NO_FIT = "does not fit the convention"
_DOCUMENT_BYTES = 1024 * 1024
_DOCUMENT_DEPTH = 32
_LAST_DAY = 253_402_214_400  # 9999-12-31


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a project's scores mean. If that is unknown, `convention` is None and `problem` says why.

    `protocol` is the parsed protocol.json with exact decimals, None if it is not available. `source` is where the
    baseline was read, "" for the usual metrics document.
    """

    metric: str
    convention: score.Convention | None
    problem: str
    protocol: Any
    source: str = ""

    def value(self, points: int) -> Decimal | None:
        """A score in the metric's unit."""
        return self.convention.to_metric(points) if self.convention else None

    def text(self, points: int) -> str:
        """A score as its metric with six decimals, or as the raw score where it has no meaning."""
        if self.convention is None:
            return f"{points:,}"
        if not self.convention.fits(points):
            return f"{points:,} ({NO_FIT})"
        return f"{self.convention.to_metric(points):.6f}"

    def percent(self, points: int) -> str:
        """How much better than the baseline a score is, in percent with a sign."""
        if self.convention is None or not self.convention.fits(points):
            return NO_FIT if self.convention else "unknown"
        return f"{self.convention.gain_percent(points):+.2f}"


@dataclass(frozen=True, slots=True)
class Approval:
    """An approved proposal; `gain` is the score it won over the best before it, `total` over the baseline."""

    proposal: Proposal
    gain: int
    total: int


@dataclass(frozen=True, slots=True)
class Day:
    """Proposals submitted on one day (UTC), by the status they have now."""

    day: date
    counts: Counter[ProposalStatus]

    @property
    def total(self) -> int:
        """All of them."""
        return self.counts.total()


@dataclass(frozen=True, slots=True)
class Overview:
    """A project with everything its page shows; `now` is the chain's time in seconds since 1970, `explorer` the address
    of a page about an account, with {address} in it, or ""."""

    project: Project
    meaning: Meaning
    supply: int
    proposals: tuple[Proposal, ...]
    malformed: tuple[Malformed, ...]
    now: int
    explorer: str = ""

    @property
    def best(self) -> int:
        """The best score: the baseline's until something is approved."""
        project = self.project
        return project.current_best_aggregate_score if self.improved else project.baseline_aggregate_score

    @property
    def improved(self) -> bool:
        """Whether anything was approved."""
        return any(self.project.current_best_code_hash)

    @property
    def next_price(self) -> int:
        """Lamports for the next token."""
        return self.project.base_price + self.project.slope * self.supply

    @property
    def record(self) -> list[Approval]:
        """The track record, oldest approval first."""
        return track_record(self.proposals, self.project.baseline_aggregate_score)

    @property
    def miners(self) -> list[MinerRank]:
        """Who proposed, the most gain first."""
        return leaders.miners(self.proposals, [(step.proposal.id, step.gain) for step in self.record])

    @property
    def verifiers(self) -> list[VerifierRank]:
        """Who settled, the most first."""
        return leaders.verifiers(self.proposals)

    @property
    def days(self) -> list[Day]:
        """The last 35 days, oldest first."""
        return by_day(self.proposals, self.now)

    def as_json(self) -> dict[str, Any]:
        """For scripts; metrics are decimal strings."""
        project, known = self.project, self.meaning.convention
        return {
            "project": show.as_json(project),
            "metric": self.meaning.metric,
            "convention": known.kind if known else None,
            "problem": self.meaning.problem or None,
            "baseline_source": self.meaning.source or None,
            "baseline": _text(self.meaning.value(project.baseline_aggregate_score)),
            "best": _text(self.meaning.value(self.best)),
            "raw_gain": _text(known.gain(self.best)) if known else None,
            "delta_percent": _text(known.gain_percent(self.best)) if known else None,
            "next_price_lamports": self.next_price,
            "supply": self.supply,
            "miner_pool_minted": project.miner_pool_minted,
            "miner_pool_cap": project.miner_pool_cap,
            "track_record": [
                {
                    "proposal": step.proposal.id,
                    "score": step.proposal.verified_aggregate_score,
                    "metric": _text(self.meaning.value(step.proposal.verified_aggregate_score)),
                    "gain": _text(score.unscale(step.gain)) if known else None,
                    "miner": str(step.proposal.miner),
                    "submitted_at": step.proposal.submitted_at,
                }
                for step in self.record
            ],
            "miners": [show.as_json(rank) for rank in self.miners],
            "verifiers": [show.as_json(rank) for rank in self.verifiers],
            "days": [
                {"day": day.day.isoformat(), **{status.name.lower(): day.counts[status] for status in ProposalStatus}}
                for day in self.days
            ],
            "proposals": [show.as_json(entry) for entry in self.proposals],
            "malformed": [show.malformed_json(entry) for entry in self.malformed],
            "protocol": json.loads(json.dumps(self.meaning.protocol, default=_number)),
        }


def overview(connection: Connection, project_id: int) -> Overview:
    """Read a project, its proposals and what its scores mean."""
    client = connection.client
    project = client.project(project_id)
    found = listing.proposals(connection.network, project_id)
    return Overview(
        project,
        meaning(connection, project),
        client.supply(project),
        tuple(proposal for _, proposal in found.accounts),
        found.malformed,
        connection.network.clock().unix_timestamp,
        connection.settings["explorer"],
    )


def meaning(connection: Connection, project: Project) -> Meaning:
    """What a project's scores mean, from its artifacts; never raises if these are missing or malformed."""
    protocol: Any = None
    try:
        protocol = _fetch(connection, project, project.protocol_irys_id, project.protocol_hash)
        metrics = artifacts.fetch_baseline_metrics(connection, project)
        return infer(project.baseline_aggregate_score, protocol, metrics)
    except (ChainError, InvalidBaseline) as error:
        return Meaning("score", None, printable(error.problem, 400), protocol)


def infer(baseline_score: int, protocol: Any, metrics: bytes) -> Meaning:
    """What scores mean; InvalidData or InvalidBaseline where the two documents do not settle it."""
    try:
        primary = protocol["measurement"]["primaryMetric"]
        name, direction = primary["name"], primary["direction"]
    except (KeyError, TypeError, IndexError):
        raise InvalidData("The protocol has no primary metric with a direction.") from None
    if not isinstance(name, str) or direction not in ("minimize", "maximize"):
        raise InvalidData("The protocol's primary metric has no usable name and direction.")
    minimize = direction == "minimize"
    found = baseline.of_project(metrics, name, packing.log_pattern(primary), score=baseline_score, minimize=minimize)
    convention = score.infer(baseline_score, found.metric, minimize=minimize)
    return Meaning(printable(name, 32), convention, "", protocol, printable(found.source, 200))


def track_record(proposals: Sequence[Proposal], baseline: int) -> list[Approval]:
    """Approved proposals in the order of their approval: the program takes rising scores only."""
    approved = [entry for entry in proposals if entry.status is ProposalStatus.APPROVED]
    steps, best = [], baseline
    for entry in sorted(approved, key=lambda entry: (entry.verified_aggregate_score, entry.id)):
        verified = entry.verified_aggregate_score
        steps.append(Approval(entry, verified - best, verified - baseline))
        best = verified
    return steps


def by_day(proposals: Sequence[Proposal], now: int, days: int = DAYS) -> list[Day]:
    """The last `days` days (UTC) up to today, oldest first, each with its proposals by status."""
    now = min(max(now, 0), _LAST_DAY)
    today = datetime.fromtimestamp(now, UTC).date()
    found = [Day(today - timedelta(days=back), Counter()) for back in range(days - 1, -1, -1)]
    first = now // 86_400 - (days - 1)
    for entry in proposals:
        number = entry.submitted_at // 86_400 - first
        if 0 <= number < days:
            found[number].counts[entry.status] += 1
    return found


def _fetch(connection: Connection, project: Project, item_id: bytes, digest: bytes) -> Any:
    data = connection.fetch(item_id, digest, project.creator, "artifact")
    if len(data) > _DOCUMENT_BYTES:
        raise InvalidData(f"An artifact of {len(data):,} bytes is not a document of this kind.")
    return parse_json(data)


def parse_json(data: bytes) -> Any:
    """A JSON document with exact decimals; InvalidData unless it is one."""
    try:
        document = json.loads(data, parse_float=Decimal, parse_constant=_no_number)
    except (ValueError, RecursionError, ArithmeticError):
        raise InvalidData("An artifact is not valid JSON.") from None
    level = [document]
    for _ in range(_DOCUMENT_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise InvalidData(f"An artifact's JSON is nested more than {_DOCUMENT_DEPTH} levels deep.")
    return document


def _no_number(text: str) -> None:
    raise ValueError(text)


def _number(value: Decimal) -> float | str:
    number = float(value)
    return number if math.isfinite(number) else str(value)


def _text(value: Decimal | None) -> str | None:
    return None if value is None else str(value)
