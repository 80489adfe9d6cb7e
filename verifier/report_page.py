"""The verifier's report as one HTML file, in the style of a project's page: no scripts, nothing loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from html import escape

from chain.pages import show
from chain.pages.html import frame, stacked, table
from common.text import printable
from verifier.report import KINDS, Checked, Report, figures

SHOWN = 200  # checks
_COLOURS = {"approve": "approved", "reject": "rejected", "release": "pending"}  # the style's classes


def page(found: Report) -> bytes:
    """The file's bytes, UTF-8."""
    where = f"on {_text(found.network)}" + ("" if found.project is None else f", project {found.project}")
    cells = "".join(
        f"<div><dt>{name}</dt><dd>{_text(value)}</dd><dd><small>{_text(more)}</small></dd></div>"
        for name, value, more in figures(found)
    )
    parts = [
        "<h1>Verifier</h1>",
        f'<p class="soft">{where}, {found.now:%Y-%m-%d %H:%M} UTC</p>',
        f'<p class="note">{_text(found.note)}</p>' if found.note else "",
        f'<dl class="figures">{cells}</dl>',
        _queue(found),
        _days(found.days),
        _checks(found.checks),
        _leftovers(found.leftovers),
    ]
    return frame("Verifier", parts)


def _queue(found: Report) -> str:
    if found.queue is None:
        return '<h2>Queue</h2><p class="soft">The chain was not asked.</p>'
    rows = [
        (str(w.proposal), w.status, f"{w.stake:,}", show.when(w.submitted), f"<code>{_text(w.reviewer)}</code>")
        for w in found.queue[:SHOWN]
    ]
    heads = (("proposal", "n"), ("status", ""), ("stake", "n"), ("submitted", ""), ("reviewer", ""))
    return f"<h2>Queue<small>{len(found.queue)}</small></h2>" + _table(heads, rows, "Nothing is pending.")


def _days(days: list[tuple[date, Counter[str]]]) -> str:
    title = f"Verdicts of the last {len(days)} days<small>{sum(counts.total() for _, counts in days)}</small>"
    columns = [(day, [counts[kind] for kind in KINDS]) for day, counts in days]
    return stacked(title, "verdicts by day", [(_COLOURS[kind], kind) for kind in KINDS], columns)


def _checks(checks: Iterable[Checked]) -> str:
    known = list(checks)
    rows = [
        (
            entry.at[:16].replace("T", " "),
            "local file" if entry.proposal is None else str(entry.proposal),
            f'<span class="key {_COLOURS.get(entry.kind, "expired")}"></span>{_text(entry.kind)}',
            _text(entry.reason.replace("_", " ")),
            "" if entry.delta is None else f"{entry.delta:+.6f}".replace("-", "−"),
            str(entry.runs),
            f"{entry.seconds / 60:.1f}",
            "yes" if entry.settled else "",
            f"<code>{_text(entry.attestation)}</code>",
        )
        for entry in known[: -SHOWN - 1 : -1]
    ]
    heads = (
        *(("judged", ""), ("proposal", "n"), ("verdict", ""), ("reason", ""), ("delta", "n"), ("runs", "n")),
        *(("minutes", "n"), ("settled", ""), ("attestation", "")),
    )
    more = f", the last {SHOWN}" if len(known) > SHOWN else ""
    return f"<h2>Judged<small>{len(known)}{more}</small></h2>" + _table(heads, rows, "Nothing yet.")


def _leftovers(leftovers: Iterable[str]) -> str:
    items = "".join(f'<p class="note">{_text(words)}</p>' for words in leftovers)
    return "<h2>Left over</h2>" + (items or '<p class="soft">Nothing.</p>')


def _table(heads: Iterable[tuple[str, str]], rows: Sequence[tuple[str, ...]], none: str) -> str:
    if not rows:
        return f'<p class="soft">{none}</p>'
    sides = [(name, f' class="{side}"' if side else "") for name, side in heads]
    head = "".join(f'<th scope="col"{side}>{name}</th>' for name, side in sides)
    cells = ("".join(f"<td{side}>{cell}</td>" for (_, side), cell in zip(sides, row, strict=True)) for row in rows)
    return table(f"<tr>{head}</tr>", (f"<tr>{row}</tr>" for row in cells))


def _text(words: str) -> str:
    return escape(printable(words, 400))
