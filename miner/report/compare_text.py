"""A comparison as tables of words, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.text import lasted, printable
from miner.report import summary
from miner.report.compare import Find, Outcome, Scripts, Sessions, Side, Weight
from trainer.project.hyperparameters import Value

NOTHING, KEPT = "–", " kept"


@dataclass(frozen=True, slots=True)
class Sheet:
    """One table: its title, heads and rows of plain words, and what to say where it has no rows."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    empty: str = ""


def of_sessions(found: Sessions) -> list[Sheet]:
    """Two sessions as tables."""
    a, b = found.a, found.b
    numbers = tuple((name, first, second) for (name, first), (_, second) in zip(_numbers(a), _numbers(b), strict=True))
    sheets = [Sheet("In numbers", ("", a.name, b.name), numbers)]
    pairs = tuple((_change(pair.change.replace(" and ", ", ")), _gain(pair.a), _gain(pair.b)) for pair in found.pairs)
    nothing = "No change was tried by both."
    sheets.append(Sheet("Tried by both", ("change", a.name, b.name), pairs, nothing))
    for one in (a, b):
        heads = ("trial", "kept", "gain", "state")
        sheets.append(Sheet(f"Found by {one.name}", heads, tuple(map(_find, one.finds)), "It kept nothing."))
        sheets.append(_weights(f"What mattered in {one.name}", one.weights))
    return sheets


def of_scripts(found: Scripts) -> list[Sheet]:
    """Two scripts as tables."""
    constants = tuple((name, _shown(first), _shown(second)) for name, first, second in found.constants)
    lines = f"{found.removed} lines removed, {found.added} added in all"
    measured = tuple((m.session, _span(m.delta, m.low, m.high), m.how) for m in found.measured)
    never = "No session here measured both. `miner submit` and `miner run` measure; this command only reads."
    return [
        Sheet(f"Hyperparameters ({lines})", ("", found.a, found.b), constants, "None differs."),
        Sheet(f"Measured: how much better {found.b} is", ("session", "gain", "by"), measured, never),
        _weights("How much they moved the metric in all sessions here", found.weights),
    ]


def text(sheets: Sequence[Sheet], notes: Sequence[str] = ()) -> str:
    """The tables for a terminal, columns aligned."""
    parts = [*notes]
    for sheet in sheets:
        if not sheet.rows:
            parts.append(f"{sheet.title}\n  {sheet.empty}")
            continue
        rows = [sheet.heads, *sheet.rows]
        widths = [max(len(row[at]) for row in rows) for at in range(len(sheet.heads))]
        lines = ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        parts.append("\n".join([sheet.title, *lines]))
    return "\n\n".join(parts)


def notes(found: Sessions) -> list[str]:
    """What to bear in mind."""
    if not found.apart:
        return []
    what = " and ".join(found.apart)
    return [f"The sessions differ in {what}: compare what they found, not their numbers."]


def _numbers(one: Side) -> list[tuple[str, str]]:
    totals = one.totals
    return [
        ("hardware class", printable(one.about.hardware_class, 40) or NOTHING),
        ("baseline", _value(totals.baseline)),
        ("best", _value(totals.best)),
        ("gain found", f"{totals.gain:+.6f}"),
        ("gain confirmed", f"{totals.confirmed:+.6f}"),
        ("trials kept", f"{totals.kept} of {totals.finished}"),
        ("crashed", str(totals.crashed)),
        ("noise of a run", _value(totals.noise)),
        ("machine time", lasted(totals.time.running)),
        ("gain a trial", NOTHING if one.per_trial is None else f"{one.per_trial:+.6f}"),
        ("gain an hour", NOTHING if totals.per_hour is None else f"{totals.per_hour:+.6f}"),
    ]


def _find(find: Find) -> tuple[str, ...]:
    gain = _gain(find.outcome).removesuffix(KEPT)
    return str(find.outcome.trial), _change(find.hypothesis), gain, find.state


def _change(words: str) -> str:
    """So short that two gains fit beside it."""
    return summary.change(words, 44)


def _weights(title: str, weights: Sequence[Weight]) -> Sheet:
    rows = tuple(
        (printable(w.name, 60), f"{100 * w.share:.0f} %", str(w.trials), f"{w.best:+.6f}") for w in weights[:12]
    )
    return Sheet(title, ("", "share", "trials", "best gain"), rows, "No trial changed one.")


def _gain(outcome: Outcome) -> str:
    if outcome.delta is None:
        return "crashed"
    return f"{_span(outcome.delta, outcome.low, outcome.high, 4)}{KEPT if outcome.decision == 'keep' else ''}"


def _span(delta: float, low: float | None, high: float | None, places: int = 6) -> str:
    inside = "" if low is None or high is None else f" [{low:+.{places}f}, {high:+.{places}f}]"
    return f"{delta:+.{places}f}{inside}"


def _value(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.6f}"


def _shown(value: Value | None) -> str:
    return NOTHING if value is None else printable(str(value), 40)
