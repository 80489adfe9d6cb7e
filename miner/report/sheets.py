"""Tables of plain words as one HTML page in the style of the report: no script, nothing loaded."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from common.text import printable
from miner.report.compare_text import Sheet
from miner.report.page import digest, table


def page(title: str, sheets: Sequence[Sheet], notes: Sequence[str]) -> str:
    """The whole document; every word is escaped, bounded and free of control characters."""
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    policy = f"default-src 'none'; style-src '{digest(style)}'; img-src data:; base-uri 'none'; form-action 'none'"
    lead = "".join(f"<p class='lead'>{_say(note)}</p>" for note in notes)
    body = "\n".join(map(_section, sheets))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<link rel="icon" href="data:,">\n'
        f"<title>{_say(title)}: comparison</title>\n<style>{style}</style>\n</head>\n"
        f"<body>\n<main>\n<section><header><h1>{_say(title)}</h1>{lead}</header></section>\n{body}\n</main>\n"
        "<footer>Values are val_bpb, lower is better; gains are positive. Nothing was run for this page.</footer>\n"
        "</body>\n</html>\n"
    )


def _section(sheet: Sheet) -> str:
    if not sheet.rows:
        return f"<section><h2>{_say(sheet.title)}</h2><p class='note'>{_say(sheet.empty)}</p></section>"
    rows = [tuple(map(_say, row)) for row in sheet.rows]
    made = table(tuple(map(_say, sheet.heads)), rows, "l" * len(sheet.heads))
    return f"<section><h2>{_say(sheet.title)}</h2><div class='scroll' tabindex='0'>{made}</div></section>"


def _say(text: str) -> str:
    return escape(printable(text, 200))
