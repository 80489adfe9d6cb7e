"""Tables of plain words as one HTML page in the style of the report: no script, nothing loaded."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from common.text import printable
from miner.report.compare_text import Sheet
from miner.report.page import document, table


def page(title: str, sheets: Sequence[Sheet], notes: Sequence[str]) -> str:
    """The whole document; every word is escaped, bounded and free of control characters."""
    lead = "".join(f"<p class='lead'>{_say(note)}</p>" for note in notes)
    header = f"<section><header><h1>{_say(title)}</h1>{lead}</header></section>"
    footer = "Values are val_bpb, lower is better; gains are positive. Nothing was run for this page."
    return document(f"{_say(title)}: comparison", "\n".join([header, *map(_section, sheets)]), footer)


def _section(sheet: Sheet) -> str:
    if not sheet.rows:
        return f"<section><h2>{_say(sheet.title)}</h2><p class='note'>{_say(sheet.empty)}</p></section>"
    rows = [tuple(map(_say, row)) for row in sheet.rows]
    made = table(tuple(map(_say, sheet.heads)), rows, "l" * len(sheet.heads))
    return f"<section><h2>{_say(sheet.title)}</h2><div class='scroll' tabindex='0'>{made}</div></section>"


def _say(text: str) -> str:
    return escape(printable(text, 200))
