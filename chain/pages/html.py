"""A project's overview as one HTML file: no scripts, nothing loaded, light and dark by the reader's own setting.

Everything from outside goes through `_text`, which cleans and escapes it. The page's own policy forbids every load,
so that nothing in it could call home even if something slipped through. Charts are SVG stretched to the page's width;
their words are HTML beside them, so that they stay readable at any width.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from datetime import date
from itertools import pairwise

from chain.irys.dataitem import ItemId
from chain.network.base import sol
from chain.pages import show
from chain.pages.document import Row, Section, sections
from chain.pages.overview import Overview
from chain.pages.text import LEADERS, RECENT, gain_text
from chain.program.accounts import ProposalStatus
from common.text import multiline, printable

_STACK = (
    ProposalStatus.APPROVED,
    ProposalStatus.IN_REVIEW,
    ProposalStatus.PENDING,
    ProposalStatus.REJECTED,
    ProposalStatus.EXPIRED,
)
_BAR, _STEP = 7, 10  # a bar's width and the distance of two, in the chart's units
_CHART = 100  # height in the charts' units
_STYLE = """
:root { color-scheme: light dark; --page: #fbfbfa; --card: #fff; --ink: #1c1e21; --soft: #646a73; --line: #e4e5e7;
  --accent: #2f6f4f; --approved: #2f7d55; --in_review: #7a63b8; --pending: #4f86c6; --rejected: #c8674b;
  --expired: #b3b7bd; }
@media (prefers-color-scheme: dark) { :root { --page: #141618; --card: #1b1e21; --ink: #e7e8ea; --soft: #989fa8;
  --line: #2c3035; --accent: #6cc394; --approved: #58b384; --in_review: #a78fe0; --pending: #6aa3e0;
  --rejected: #de8468; --expired: #5d646d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 1020px; margin: 0 auto; padding: 48px 24px 72px; }
h1 { font-size: 27px; line-height: 1.2; font-weight: 640; letter-spacing: -.012em; margin: 0; overflow-wrap: anywhere; }
h1 span { color: var(--soft); font-weight: 420; }
h2 { font-size: 15px; font-weight: 620; margin: 44px 0 12px; }
h2 small { font-weight: 400; font-size: 13px; color: var(--soft); margin-left: 8px; }
h3 { font-size: 13px; font-weight: 620; margin: 0 0 8px; }
p { margin: 8px 0 0; max-width: 72ch; } .soft { color: var(--soft); }
.note { border-left: 3px solid var(--rejected); padding: 2px 0 2px 12px; margin: 20px 0 0; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1px; background: var(--line); margin-top: 28px;
  border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
.figures div { background: var(--card); padding: 15px 18px 14px; min-width: 0; }
.figures dt, .label { font-size: 12.5px; color: var(--soft); overflow-wrap: anywhere; }
.figures dd { margin: 2px 0 0; font-size: 18px; font-weight: 560; overflow-wrap: anywhere; line-height: 1.3; }
.figures .lead dd { font-size: 25px; font-weight: 620; letter-spacing: -.012em; } .good { color: var(--accent); }
.figures small { font-size: 12.5px; font-weight: 400; color: var(--soft); letter-spacing: 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px; }
.chart { position: relative; } .chart svg { display: block; width: 100%; height: 132px; overflow: visible; }
.edge { display: flex; justify-content: space-between; font-size: 12px; color: var(--soft); line-height: 1.5; }
.grid { stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke; }
.path { fill: none; stroke: var(--accent); stroke-width: 2; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.dot { stroke: var(--accent); stroke-width: 8; stroke-linecap: round; vector-effect: non-scaling-stroke; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 12px 0 0; padding: 0; list-style: none;
  font-size: 13px; color: var(--soft); }
.legend b { color: var(--ink); font-weight: 560; }
.key { display: inline-block; width: 9px; height: 9px; border-radius: 2px; margin-right: 7px; }
.approved { fill: var(--approved); background: var(--approved); }
.in_review { fill: var(--in_review); background: var(--in_review); }
.pending { fill: var(--pending); background: var(--pending); }
.rejected { fill: var(--rejected); background: var(--rejected); }
.expired { fill: var(--expired); background: var(--expired); }
.card + .card { margin-top: 12px; } .protocol .card + .card { margin-top: 0; }
.scroll { overflow-x: auto; padding: 4px 18px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th { text-align: left; font-weight: 400; color: var(--soft); font-size: 12.5px; }
th, td { padding: 8px 0 8px 20px; border-bottom: 1px solid var(--line); white-space: nowrap; vertical-align: baseline; }
th:first-child, td:first-child { padding-left: 0; } tr:last-child td { border-bottom: 0; }
.n { text-align: right; }
code, pre { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
a { color: inherit; text-decoration-color: var(--soft); text-underline-offset: 3px; }
code { overflow-wrap: anywhere; } td code { overflow-wrap: normal; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.protocol { display: grid; gap: 12px; }
.rows { display: grid; grid-template-columns: minmax(150px, 24%) 1fr; gap: 5px 22px; margin: 0; font-size: 13.5px; }
.rows dt { color: var(--soft); overflow-wrap: anywhere; } .rows dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
.rows ul { margin: 0; padding: 0; list-style: none; }
.rows .head { grid-column: 1 / -1; color: var(--ink); margin-top: 5px; }
dt.d1 { padding-left: 14px; } dt.d2 { padding-left: 28px; } dt.d3 { padding-left: 42px; }
footer { margin-top: 44px; font-size: 12.5px; color: var(--soft); }
@media (max-width: 760px) { main { padding: 28px 16px 48px; } .figures { grid-template-columns: repeat(2, 1fr); }
  h1 { font-size: 23px; } .figures .lead dd { font-size: 20px; } .figures dd { font-size: 16px; }
  .figures div { padding: 12px 14px; } .rows { grid-template-columns: 1fr; gap: 0; }
  .rows dd { margin-bottom: 8px; } dd.d1 { padding-left: 14px; } dd.d2 { padding-left: 28px; }
  dd.d3 { padding-left: 42px; } .chart svg { height: 104px; } }
"""


def page(found: Overview) -> bytes:
    """The file's bytes, UTF-8."""
    project = found.project
    name = _text(project.token_name, 64) or "(no name)"
    body = [
        f"<h1>{name} <span>{_text(project.token_symbol, 32)}</span></h1>",
        f'<p class="soft">Project {project.id} on chain at {show.when(found.now)} UTC</p>',
        _unknown(found),
        _figures(found),
        _record(found),
        _leaders(found),
        _days(found),
        _proposals(found),
        _protocol(found),
        _addresses(found),
    ]
    return frame(name, body)


def frame(title: str, parts: Iterable[str]) -> bytes:
    """A page in this style, of safe HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main></body></html>\n"
    ).encode()


def _text(value: object, limit: int = 2_000, *, lines: bool = False) -> str:
    return html.escape((multiline if lines else printable)(str(value), limit))


def _unknown(found: Overview) -> str:
    if found.meaning.convention:
        return ""
    return (
        '<p class="note">The meaning of this project’s scores is unknown, so they are shown raw. '
        f"{_text(found.meaning.problem)}</p>"
    )


def _figures(found: Overview) -> str:
    project, meaning = found.project, found.meaning
    metric = _text(meaning.metric, 32)
    best, baseline = meaning.text(found.best), meaning.text(project.baseline_aggregate_score)
    gain = gain_text(meaning, found.best - project.baseline_aggregate_score)
    delta = f"{meaning.convention.gain_percent(found.best):+.2f} %" if meaning.convention else "unknown"
    price = sol(found.next_price)
    pool = f"{project.miner_pool_minted:,} <small>of {project.miner_pool_cap:,}</small>"
    better = meaning.convention is not None and found.best > project.baseline_aggregate_score
    good = ' class="good"' if better else ""
    lead = [
        (f"best {metric}", best),
        ("gain over the baseline", f"<span{good}>{delta}</span>"),
        ("raw gain", gain.removeprefix("+")),
        ("next token", price),
    ]
    more = [
        (f"baseline {metric}", baseline),
        ("supply", f"{found.supply:,}"),
        ("miner pool minted", pool),
        ("approved", f"{len(found.record):,} <small>of {len(found.proposals):,} proposals</small>"),
    ]
    cells = [f'<div class="lead"><dt>{name}</dt><dd>{value}</dd></div>' for name, value in lead]
    cells += [f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in more]
    return f'<dl class="figures">{"".join(cells)}</dl>'


def _record(found: Overview) -> str:
    steps, meaning = found.record, found.meaning
    title = f"<h2>Track record<small>{len(steps)} approved</small></h2>"
    if not steps:
        return f'{title}<p class="soft">Nothing has been approved yet; the baseline is the best.</p>'
    rows = []
    for step in reversed(steps):
        entry = step.proposal
        share = (
            f"{meaning.convention.gain_percent(entry.verified_aggregate_score):+.2f} %" if meaning.convention else ""
        )
        rows.append(
            f'<tr><td class="n">{entry.id}</td><td class="n">{meaning.text(entry.verified_aggregate_score)}</td>'
            f'<td class="n">{gain_text(meaning, step.gain)}</td><td class="n">{share}</td>'
            f"<td>{show.when(entry.submitted_at)}</td><td>{_address(found, entry.miner)}</td></tr>"
        )
    head = (
        f'<tr><th class="n">proposal</th><th class="n">{_text(meaning.metric, 32)}</th><th class="n">gain</th>'
        '<th class="n">over baseline</th><th>submitted</th><th>miner</th></tr>'
    )
    return title + _progress(found) + table(head, rows)


def _leaders(found: Overview) -> str:
    """Two tables: miners by what they have won, verifiers by what they have settled."""
    miners = [
        f'<tr><td class="n">{rank.approved:,}</td><td class="n">{rank.proposals:,}</td>'
        f'<td class="n">{gain_text(found.meaning, rank.gain)}</td><td class="n">{rank.lost:,}</td>'
        f"<td>{show.when(rank.last)}</td><td>{_address(found, rank.miner)}</td></tr>"
        for rank in found.miners[:LEADERS]
    ]
    verifiers = [
        f'<tr><td class="n">{rank.approved:,}</td><td class="n">{rank.rejected:,}</td>'
        f'<td class="n">{rank.reviewing:,}</td><td>{_address(found, rank.verifier)}</td></tr>'
        for rank in found.verifiers[:LEADERS]
    ]
    out = ""
    if miners:
        head = (
            '<tr><th class="n">approved</th><th class="n">proposals</th><th class="n">gain</th>'
            '<th class="n">stake lost</th><th>last</th><th>miner</th></tr>'
        )
        out += f"<h2>Miners<small>{len(found.miners)}</small></h2>{table(head, miners)}"
    if verifiers:
        head = (
            '<tr><th class="n">approved</th><th class="n">rejected</th><th class="n">in review</th>'
            "<th>verifier</th></tr>"
        )
        out += f"<h2>Verifiers<small>{len(found.verifiers)}</small></h2>{table(head, verifiers)}"
    return out


def table(head: str, rows: Iterable[str]) -> str:
    """A table that scrolls sideways where it must, of rows of safe HTML."""
    return f'<div class="card scroll" tabindex="0"><table>{head}{"".join(rows)}</table></div>'


def _address(found: Overview, key: object) -> str:
    """An account's address, a link to the network's explorer where it has one."""
    shown = f"<code>{key}</code>"
    if not found.explorer:
        return shown
    target = html.escape(found.explorer.replace("{address}", str(key)))
    return f'<a href="{target}" rel="noopener noreferrer">{shown}</a>'


def _progress(found: Overview) -> str:
    """The best over time, from the project's creation until now."""
    project, meaning = found.project, found.meaning
    start, end = project.created_at, max(found.now, project.created_at + 1)
    falls = meaning.convention is not None and meaning.convention.minimize
    low, high = sorted((project.baseline_aggregate_score, found.best))
    span = max(1, high - low)

    def place(seconds: int, points: int) -> tuple[float, float]:
        share = (points - low) / span
        height = share if falls else 1 - share
        return 1_000 * min(1.0, max(0.0, (seconds - start) / (end - start))), 6 + (_CHART - 12) * height

    points = [place(start, project.baseline_aggregate_score)]
    for step in found.record:
        x, y = place(step.proposal.submitted_at, step.proposal.verified_aggregate_score)
        points.append((max(x, points[-1][0]), y))  # approvals may not come in the order of submission
    points.append((1_000.0, points[-1][1]))
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}" + "".join(
        f"H{x:.1f}V{y:.1f}" for (_, _), (x, y) in pairwise(points)
    )
    dots = "".join(f'<path class="dot" d="M{x:.1f} {y:.1f}h0.01"/>' for x, y in points[1:-1])
    ends = (high, low) if not falls else (low, high)
    top, bottom = meaning.text(ends[0]), meaning.text(ends[1])
    grid = "".join(f'<path class="grid" d="M0 {y}H1000"/>' for y in (6, _CHART // 2, _CHART - 6))
    return (
        f'<div class="card"><div class="edge"><span>{_text(meaning.metric, 32)} {top}</span></div><div class="chart">'
        f'<svg viewBox="0 0 1000 {_CHART}" preserveAspectRatio="none" role="img" aria-label="the best over time">'
        f'{grid}<path class="path" d="{path}"/>{dots}</svg></div>'
        f'<div class="edge"><span>{bottom}</span></div><div class="edge" style="margin-top:4px">'
        f"<span>{show.when(start)[:10]}</span><span>{show.when(found.now)[:10]}</span></div></div>"
    )


def _days(found: Overview) -> str:
    days, bands = found.days, [(status.name.lower(), show.status_words(status)) for status in _STACK]
    title = f"Proposals of the last {len(days)} days<small>{sum(day.total for day in days)} submitted</small>"
    columns = [(day.day, [day.counts[status] for status in _STACK]) for day in days]
    return stacked(title, "proposals by day and status", bands, columns)


def stacked(
    title: str, label: str, bands: Sequence[tuple[str, str]], days: Sequence[tuple[date, Sequence[int]]]
) -> str:
    """A heading, and a column for each day, stacked from the bottom of a count for each of `bands` (class, words).

    `title` is safe HTML, `label` says what is counted to who cannot see it.
    """
    top = max(sum(counts) for _, counts in days)
    if not top:
        return f'<h2>{title}</h2><p class="soft">None.</p>'
    columns = "".join(_column(day, counts, bands, number, top) for number, (day, counts) in enumerate(days))
    totals = [sum(counts[band] for _, counts in days) for band in range(len(bands))]
    legend = "".join(
        f'<li><span class="key {kind}"></span>{words} <b>{total}</b></li>'
        for (kind, words), total in zip(bands, totals, strict=True)
        if total
    )
    grid = "".join(f'<path class="grid" d="M0 {y}H{_STEP * len(days)}"/>' for y in (0, _CHART // 2, _CHART))
    return (
        f'<h2>{title}</h2><div class="card"><div class="edge"><span>{top}</span></div><div class="chart">'
        f'<svg viewBox="0 0 {_STEP * len(days)} {_CHART}" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}">{grid}{columns}</svg></div><div class="edge" style="margin-top:4px">'
        f"<span>{days[0][0]}</span><span>{days[-1][0]}</span></div>"
        f'<ul class="legend">{legend}</ul></div>'
    )


def _column(day: date, counts: Sequence[int], bands: Sequence[tuple[str, str]], number: int, top: int) -> str:
    parts, y, said = [], float(_CHART), []
    for (kind, words), count in zip(bands, counts, strict=True):
        if count:
            height = _CHART * count / top
            y -= height
            said.append(f"{count} {words}")
            parts.append(
                f'<rect class="{kind}" x="{number * _STEP + (_STEP - _BAR) / 2}" y="{y:.2f}" '
                f'width="{_BAR}" height="{height:.2f}"/>'
            )
    return f"<g><title>{day}: {', '.join(said)}</title>{''.join(parts)}</g>" if parts else ""


def _proposals(found: Overview) -> str:
    meaning, shown = found.meaning, found.proposals[-RECENT:]
    count = f"{len(found.proposals):,}" + (f", the last {RECENT}" if len(found.proposals) > RECENT else "")
    title = f"<h2>Proposals<small>{count}</small></h2>"
    rows = []
    for entry in reversed(shown):
        settled = entry.status is ProposalStatus.APPROVED
        verified = meaning.text(entry.verified_aggregate_score) if settled else ""
        rows.append(
            f'<tr><td class="n">{entry.id}</td><td><span class="key {entry.status.name.lower()}"></span>'
            f"{show.status_words(entry.status)}</td>"
            f'<td class="n">{meaning.text(entry.claimed_aggregate_score)}</td><td class="n">{verified}</td>'
            f'<td class="n">{entry.stake:,}</td><td>{show.when(entry.submitted_at)}</td>'
            f"<td>{_address(found, entry.miner)}</td></tr>"
        )
    wrong = "".join(f'<p class="note">{_text(show.malformed_line(entry).strip(" ?"))}</p>' for entry in found.malformed)
    if not rows:
        return f'{title}<p class="soft">None yet.</p>{wrong}'
    head = (
        '<tr><th class="n">id</th><th>status</th><th class="n">claimed</th><th class="n">verified</th>'
        '<th class="n">stake</th><th>submitted</th><th>miner</th></tr>'
    )
    return f"{title}{table(head, rows)}{wrong}"


def _protocol(found: Overview) -> str:
    if found.meaning.protocol is None:
        return '<h2>Protocol</h2><p class="soft">The protocol document is not available.</p>'
    cards = "".join(_section(section) for section in sections(found.meaning.protocol))
    return f'<h2>Protocol</h2><div class="protocol">{cards}</div>'


def _section(section: Section) -> str:
    rows = "".join(map(_row, section.rows))
    return f'<section class="card"><h3>{_text(section.title)}</h3><dl class="rows">{rows}</dl></section>'


def _row(row: Row) -> str:
    indent = f"d{min(row.depth, 3)}"
    if not row.values:
        return f'<dt class="head {indent}">{_text(row.name)}</dt>'
    if len(row.values) > 1:
        value = f"<ul>{''.join(f'<li>{_text(entry)}</li>' for entry in row.values)}</ul>"
    elif "\n" in row.values[0]:
        value = f"<pre>{_text(row.values[0], lines=True)}</pre>"
    else:
        value = _text(row.values[0])
    return f'<dt class="{indent}">{_text(row.name)}</dt><dd class="{indent}">{value}</dd>'


def _addresses(found: Overview) -> str:
    project = found.project
    artifacts = [
        ("protocol", project.protocol_irys_id, project.protocol_hash),
        ("repository snapshot", project.repo_snapshot_irys_id, project.repo_snapshot_hash),
        ("benchmark", project.benchmark_irys_id, project.benchmark_hash),
        ("baseline metrics", project.baseline_metrics_irys_id, project.baseline_metrics_hash),
    ]
    if found.improved:
        artifacts += [
            ("best code", project.current_best_code_irys_id, project.current_best_code_hash),
            ("best metrics", project.current_best_metrics_irys_id, project.current_best_metrics_hash),
        ]
    rows = [("mint", _address(found, project.mint)), ("creator", _address(found, project.creator))]
    rows.append(("created", f"<code>{show.when(project.created_at)}</code>"))
    if found.improved:
        rows.append(("best miner", _address(found, project.current_best_miner)))
    rows += [
        (name, f'<code>{ItemId(item)}</code><br><code class="soft">SHA-256 {digest.hex()}</code>')
        for name, item, digest in artifacts
    ]
    return f'<h2>On chain and on Irys</h2><div class="card"><dl class="rows">{_list(rows)}</dl></div>'


def _list(rows: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)
