"""A project's overview for a terminal: plain lines, safe to print."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from chain.money import score
from chain.network.base import sol
from chain.pages import show
from chain.pages.document import Section, sections
from chain.pages.overview import Day, Meaning, Overview
from chain.program.accounts import ProposalStatus
from common.text import printable

GLYPHS = {
    ProposalStatus.APPROVED: "█",
    ProposalStatus.IN_REVIEW: "▓",
    ProposalStatus.PENDING: "▒",
    ProposalStatus.REJECTED: "░",
    ProposalStatus.EXPIRED: "·",
}
RECENT = 30  # proposals listed
LEADERS = 20  # miners, and verifiers
SCORES = {"negated": "−{}", "reflected": "2 × baseline − {}", "plain": "{}"}  # of each convention, per 10⁻⁶
_HEIGHT = 6  # rows of the bar chart
_NAME = 32  # columns of a field's name


def text(found: Overview, width: int = 100) -> str:
    """Everything, at most `width` columns where lines can be broken."""
    return "\n".join(
        [
            *_figures(found),
            "",
            *_record(found),
            "",
            *_leaders(found),
            "",
            *_days(found.days),
            "",
            *_proposals(found),
            *_protocol(found, width),
        ]
    )


def _figures(found: Overview) -> list[str]:
    project, meaning = found.project, found.meaning
    lines = [f"{printable(project.token_name, 64)} ({printable(project.token_symbol, 32)}), project {project.id}", ""]

    def row(name: str, value: str) -> None:
        lines.append(f"  {name:<18} {value}")

    if meaning.convention:
        row(f"baseline {meaning.metric}", meaning.text(project.baseline_aggregate_score))
        if meaning.source:
            row("", f"from {meaning.source}")
        row(f"best {meaning.metric}", meaning.text(found.best))
        row("delta", f"{meaning.convention.gain_percent(found.best):+.2f} %")
        row("raw gain", f"{meaning.convention.gain(found.best):.6f}")
        row("on-chain score", f"{SCORES[meaning.convention.kind].format(meaning.metric)} (higher is better)")
    else:
        row("scores", f"baseline {project.baseline_aggregate_score:,}, best {found.best:,}")
        row("", f"shown raw, because their meaning is unknown: {meaning.problem}")
    row("best miner", str(project.current_best_miner) if found.improved else "none yet")
    row("next price", sol(found.next_price))
    row("supply", f"{found.supply:,}")
    row("miner pool", f"{project.miner_pool_minted:,} of {project.miner_pool_cap:,} minted")
    row("created", show.when(project.created_at))
    row("mint", str(project.mint))
    row("creator", str(project.creator))
    return lines


def _record(found: Overview) -> list[str]:
    steps, meaning = found.record, found.meaning
    lines = [f"track record ({len(steps)} approved)"]
    if steps:
        lines.append(
            f"  {'proposal':>8}  {meaning.metric[:14]:>14} {'gain':>12} {'total':>10}  {'submitted':<16}  miner"
        )
    for step in steps:
        entry = step.proposal
        total = (
            f"{meaning.convention.gain_percent(entry.verified_aggregate_score):+.2f} %" if meaning.convention else ""
        )
        lines.append(
            f"  {entry.id:>8}  {meaning.text(entry.verified_aggregate_score):>14} {gain_text(meaning, step.gain):>12} "
            f"{total:>10}  {show.when(entry.submitted_at):<16}  {entry.miner}"
        )
    return lines


def _leaders(found: Overview) -> list[str]:
    lines = [f"miners ({len(found.miners)})"]
    if found.miners:
        lines.append(f"  {'approved':>8} {'of':>5} {'gain':>12} {'stake lost':>10}  miner")
    for rank in found.miners[:LEADERS]:
        gain = gain_text(found.meaning, rank.gain)
        lines.append(f"  {rank.approved:>8,} {rank.proposals:>5,} {gain:>12} {rank.lost:>10,}  {rank.miner}")
    if found.verifiers:
        lines += [
            "",
            f"verifiers ({len(found.verifiers)})",
            f"  {'approved':>8} {'rejected':>8} {'in review':>9}  verifier",
        ]
    for entry in found.verifiers[:LEADERS]:
        lines.append(f"  {entry.approved:>8,} {entry.rejected:>8,} {entry.reviewing:>9,}  {entry.verifier}")
    return lines


def gain_text(meaning: Meaning, points: int) -> str:
    """A difference of scores with its sign: in the metric's unit, or raw."""
    return f"{score.unscale(points):+.6f}" if meaning.convention else f"{points:+,}"


def _days(days: Sequence[Day]) -> list[str]:
    total = sum(day.total for day in days)
    lines = [f"proposals of the last {len(days)} days ({total})"]
    if total:
        lines += ["  " + line for line in bars(days)]
        counts = {status: sum(day.counts[status] for day in days) for status in GLYPHS}
        legend = [f"{GLYPHS[s]} {show.status_words(s)} {n}" for s, n in counts.items() if n]
        lines.append("  " + "   ".join(legend))
    return lines


def bars(days: Sequence[Day], height: int = _HEIGHT) -> list[str]:
    """A column per day, stacked by status; the scale and the first and last day at the edges."""
    top = max(day.total for day in days)
    unit = max(1, -(-top // height))
    rows = -(-top // unit)
    columns = [_column(day, unit).ljust(rows) for day in days]
    edge = len(f"{rows * unit:,}")
    lines = []
    for row in range(rows - 1, -1, -1):
        label = f"{rows * unit:,}" if row == rows - 1 else ""
        lines.append((f"{label:>{edge}} ┤" + "".join(column[row] for column in columns)).rstrip())
    lines.append(f"{'0':>{edge}} └" + "─" * len(days))
    first, last = days[0].day.isoformat(), days[-1].day.isoformat()
    lines.append(" " * (edge + 2) + first + last.rjust(max(0, len(days) - len(first))))
    return lines


def _column(day: Day, unit: int) -> str:
    """The day's cells from the bottom; a day with proposals has at least one."""
    cells = -(-day.total // unit)
    stack = "".join(glyph * day.counts[status] for status, glyph in GLYPHS.items())
    return "".join(stack[min(len(stack) - 1, cell * unit + unit // 2)] for cell in range(cells))


def _proposals(found: Overview) -> list[str]:
    lines = [f"proposals ({len(found.proposals)})"]
    if len(found.proposals) > RECENT:
        lines[0] += f", the last {RECENT}; all: chain proposal list --project {found.project.id}"
    recent = show.proposals(found.proposals[-RECENT:], found.malformed, value=found.meaning.text)
    return lines + ["  " + line for line in recent.splitlines()]


def _protocol(found: Overview, width: int) -> list[str]:
    if found.meaning.protocol is None:
        return ["", f"protocol: not available. {found.meaning.problem}"]
    lines = ["", "protocol"]
    for section in sections(found.meaning.protocol):
        lines += ["", f"  {section.title}", *_section(section, width)]
    return lines


def _section(section: Section, width: int) -> list[str]:
    lines = []
    for row in section.rows:
        name = f"{'  ' * (row.depth + 2)}{row.name}"
        parts = [part for value in row.values for part in _wrapped(value, max(30, width - _NAME - 6))]
        if not parts:
            lines.append(name)
        elif len(name) > _NAME + 2:
            lines += [name, *(" " * (_NAME + 4) + part for part in parts)]
        else:
            lines.append(f"{name:<{_NAME + 4}}{parts[0]}".rstrip())
            lines += [" " * (_NAME + 4) + part for part in parts[1:]]
    return lines


def _wrapped(value: str, width: int) -> list[str]:
    return [part for line in value.splitlines() for part in textwrap.wrap(line, width) or [""]]
