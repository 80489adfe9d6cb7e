"""The report as one HTML page: nothing loaded from elsewhere, readable on paper, a phone and a desk, with or without
scripts.

`build` is a pure function of its material. Every text passes `_say`, which strips control characters, bounds and
escapes, or `details`, which bounds and packs it; a Content-Security-Policy lets nothing but the page's own style sheet
and its own script act, by their hashes. What is not known is shown as unknown. A page stays under 500 kB: beyond that
the details of the oldest discarded trials are left out.
"""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import sha256
from html import escape
from pathlib import Path

from chain.network.base import LAMPORTS_PER_SOL
from common.text import counted, lasted, printable
from miner.journal.journal import Confirmation, Submission, TrialRecord
from miner.report import chart, details, summary
from miner.report.material import Material
from miner.report.summary import WORDS, submission_state
from miner.report.svg import element, svg

FIRST = 50  # trials that are listed without scripts
MAX_DATA = 300_000  # bytes of all trials and their details, packed
UNKNOWN = '<span class="unknown">unknown</span>'


def build(material: Material, *, live: bool = False) -> str:
    """The whole document; `live` for one that is served, which asks its server for a newer one."""
    script = "".join(
        Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("trials.js", "live.js")[: 1 + live]
    )
    title = material.about.token_name or material.name
    parts = [_header(material), _progress(material), _record(material), _time(material), _trials(material)]
    footer = (
        f"Session {_say(material.name)}, journal of {len(material.session.trials)} trials, "
        f"page created {_say(material.made)}. Deltas are incumbent − candidate: positive is better."
    )
    data = f'<script type="application/json" id="data">{details.packed(material, MAX_DATA)}</script>\n'
    body = "\n".join(part for part in parts if part)
    return document(f"{_say(title)}: mining report", body, footer, data=data, script=script, live=live)


def document(title: str, body: str, footer: str, *, data: str = "", script: str = "", live: bool = False) -> str:
    """A page in the report's style, of safe HTML: it runs `script` alone, after `data`, and loads nothing; a `live` one
    may ask its own server."""
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    acting = f"script-src '{_digest(script)}'; " if script else ""
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; {acting}img-src data:; "
        f"connect-src '{'self' if live else 'none'}'; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<link rel="icon" href="data:,">\n'
        f"<title>{title}</title>\n<style>{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n<footer>{footer}</footer>\n{data}"
        + (f"<script>{script}</script>\n" if script else "")
        + "</body>\n</html>\n"
    )


def _digest(text: str) -> str:
    """The hash by which a policy lets an inline style or script act."""
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode()


# --- parts of the page ---


def _header(material: Material) -> str:
    about, found, session = material.about, material.summary, material.session
    state = "Mining now" if material.running else "Not mining"
    last = session.segments[-1] if session.segments and not material.running else None
    ended = f"ended {_say(last.end)} ({_say(last.reason)}), " if last and last.end else ""
    lead = f"{state}. Started {_say(session.started) or 'at an unknown time'}, {ended}as of {_say(material.made)}."
    per_hour = UNKNOWN if found.per_hour is None else _signed(found.per_hour) if found.per_hour else "0"
    numbers = [
        (f"best {_say(about.metric)}", _value(found.best)),
        (
            "gain confirmed",
            f'<span class="good">{_signed(found.confirmed)}</span>' if found.confirmed > 0 else "0",
        ),
        ("gain found", _signed(found.gain) if found.gain > 0 else "0"),
        ("trials kept", f"{found.kept} <small>of {found.finished}</small>"),
        ("machine time", lasted(found.time.running)),
        ("gain per machine-hour", per_hour),
        ("spent", f"{session.spent / LAMPORTS_PER_SOL:.4f} <small>SOL</small>"),
    ]
    project = f"{about.token_name} ({about.token_symbol}), project {about.project}" if about.token_name else ""
    budget = "" if about.budget is None else f"{about.budget:g} s of training a run"
    machine = ", ".join(about.machine[key] for key in ("chip", "gpu", "os") if key in about.machine)
    freedom = f"{counted(found.freedom, 'degree')} of freedom"
    one = f"(one run, standard deviation, {freedom})"
    noise = "" if found.noise is None else f"{found.noise:.4f} {about.metric} {one}"
    unfinished = len(session.unfinished)
    judged = f"{counted(found.finished, 'trial')} finished" + (f", {unfinished} open" if unfinished else "")
    facts = [
        ("Project", project),
        ("Network", about.network),
        ("Protocol bundle", about.bundle_id),
        ("Hardware class", about.hardware_class),
        ("Machine", machine),
        ("Measurement", f"{about.method}, sandbox {about.isolation}" if about.method else ""),
        ("Data snapshot", about.data_snapshot[:16] + ("…" if about.data_snapshot[16:] else "")),
        ("Budget", budget),
        ("Noise", noise),
        ("Packages", ", ".join(f"{name} {version}" for name, version in about.versions.items())),
        ("Runs", f"{found.runs}; {judged}"),
        *([("Energy", found.energy())] if found.metered else []),
        ("Staked", f"{counted(session.staked, 'token')}, {counted(found.submitted, 'proposal')} submitted"),
        *((f"Asked: {_say(name, 20)}", used.words()) for name, used in material.asked.items()),
    ]
    return (
        f"<section id='head'><header><h1>{_say(about.token_name or 'Mining session')}</h1>"
        f"<p class='lead'>{lead}</p></header>\n"
        + _list("headline", numbers)
        + _list("facts", [(name, _say(value, 400) or UNKNOWN) for name, value in facts])
        + "</section>"
    )


def _progress(material: Material) -> str:
    whole = material.summary
    if not whole.points:
        return "<section id='progress'><h2>val_bpb over trials</h2><p class='note'>No trial yet.</p></section>"
    low, high = chart.value_range(whole)
    off = [p for p in whole.points if p.value is not None and not low <= p.value <= high]
    crashes = sum(point.decision == "crash" for point in whole.points)
    none = sum(p.value is None and p.decision == "discard" for p in whole.points)

    def key(kind: str, shape: str) -> str:
        return svg(22, 14, "", element("g", shape, class_=f"trial-mark {kind}"))

    dot = element("circle", cx=11, cy=7, r=4, class_="mean")
    bar = element("line", x1=11, x2=11, y1=0, y2=14, class_="interval")
    run = element("circle", cx=11, cy=7, r=1.8, class_="run")
    incumbent = element("line", x1=0, x2=22, y1=7, y2=7, class_="incumbent")
    drawn = {p.decision for p in whole.points if p.number and p.value is not None}
    entries = [
        key("keep", dot) + ("kept" if "keep" in drawn else "the baseline"),
        *([key("discard", dot) + "discarded"] if "discard" in drawn else []),
        *([key("open", dot) + "still open"] if "" in drawn else []),
        *([key("discard", bar) + "interval of its delta"] if whole.intervals else []),
        key("", run) + "one run",
        key("", incumbent) + "the incumbent, at the mean of all its runs",
    ]
    if crashes:
        entries.append(key("crash", '<text x="11" y="12" text-anchor="middle" class="crash">×</text>') + "crashed")
    if none:
        entries.append(key("", '<text x="11" y="12" text-anchor="middle" class="none">–</text>') + "stopped, no value")
    if off:
        arrow = element("path", d="M7 11L15 11L11 4Z", class_="off")
        entries.append(key("", arrow) + f"{len(off)} beyond the range")
    legend = "".join(f"<li>{entry}</li>" for entry in entries)
    return (
        f"<section id='progress'><h2>{_say(material.about.metric)} over trials</h2>"
        f"<p class='note'>Lower is better. Click a mark to see its trial.</p>"
        f"<div class='chart'>{chart.progress(whole)}{chart.progress(whole, narrow=True)}</div>"
        f"<ul class='legend'>{legend}</ul></section>"
    )


def _record(material: Material) -> str:
    chain, session = material.chain, material.session
    drawn = chart.track(chain.baseline, chain.bests, summary.last_moment(session))
    rows = [("baseline", _value(chain.baseline, 6), "")]
    previous = chain.baseline
    for best in chain.bests[-30:]:
        step = "" if previous is None else _signed(previous - best.metric, 6)
        rows.append(("this miner" if best.own else "another miner", _value(best.metric, 6), step))
        previous = best.metric
    if not chain.bests:
        rows.append(("best", _value(chain.best, 6), ""))
    bests = table(("", "on chain", "better by"), [(_say(a), b, c) for a, b, c in rows], "lrr")
    gap = ""
    if chain.baseline is not None and chain.best is not None:
        share = 100 * (chain.baseline - chain.best) / abs(chain.baseline) if chain.baseline else 0.0
        gap = f"The on-chain best is {chain.baseline - chain.best:.6f} below the baseline ({share:.2f} %). "
        if chain.baseline == chain.best:
            gap = "Nothing on chain beats the baseline. "
    out = (
        "<section id='record'><h2>Track record</h2>"
        f"<p class='note'>{gap}{_say(chain.note, 400)} On-chain values are anchored to the project's baseline and "
        "may differ from those of this machine.</p>"
    )
    out += f"<div class='pair'>{drawn}<div>{bests}</div></div>" if drawn else f"<div class='pair'>{bests}</div>"
    if session.submissions:
        heads = ("trial", "proposal", "state", "code", "transaction")
        rows_ = [_submission(entry, material) for entry in session.submissions[-100:]]
        out += f"<h2>Submissions</h2><div class='scroll' tabindex='0'>{table(heads, rows_, 'lllll')}</div>"
    if session.confirmations:
        names = ("trial", "outcome", "delta [interval]", "p", "runs", "")
        tests = [_confirmation(test) for test in session.confirmations[-100:]]
        out += f"<h2>Confirming tests</h2><div class='scroll' tabindex='0'>{table(names, tests, 'lllrrl')}</div>"
    return out + "</section>"


def _confirmation(test: Confirmation) -> tuple[str, ...]:
    word = "open" if test.confirmed is None else "confirmed" if test.confirmed else "not confirmed"
    delta = "–" if test.delta is None else _signed(test.delta, 6)
    if test.low is not None and test.high is not None:
        delta += f" <span class='interval-text'>[{_signed(test.low, 6)}, {_signed(test.high, 6)}]</span>"
    trial = str(test.trial) if test.trial >= 0 else "own file"
    p = "–" if test.p is None else f"{test.p:.2g}"
    return trial, word, delta, p, str(len(test.runs)), _say(test.reason, 160)


def _submission(entry: Submission, material: Material) -> tuple[str, ...]:
    told = "" if entry.proposal is None else material.chain.fates.get(entry.proposal, "")
    state = _say(submission_state(entry, told))
    number = UNKNOWN if entry.proposal is None else str(entry.proposal)
    code, signature = _say(entry.code_hash[:12]), _say(entry.signature[:12])
    trial = str(entry.trial) if entry.trial >= 0 else "own file"
    return trial, number if entry.proposal is not None else "–", state, _code(code), _code(signature)


def _time(material: Material) -> str:
    found, segments = material.summary, material.session.segments
    parts = chart.time_parts(found.time)
    total = math.fsum(seconds for _, _, seconds in parts)
    entries = "".join(
        f"<li>{svg(12, 12, '', element('rect', width=12, height=12, rx=2, class_=f'time-{kind}'))}"
        f"{words} {_hours(seconds)} ({_share(seconds / total)})</li>"
        for kind, words, seconds in parts
    )
    notes = []
    if not segments:
        notes.append("The journal does not record when the process ran, so idle time is unknown.")
    else:
        starts = "1 start" if len(segments) == 1 else f"{len(segments)} starts"
        cut = f", {found.killed} killed or crashed; the interrupted run is not counted"
        notes.append(f"{starts}{cut if found.killed else ''}.")
    if found.time.running:
        on_candidates = _share(found.time.candidates / found.time.running)
        notes.append(f"{on_candidates} of the time of runs went to candidates, the rest to their incumbents.")
    if found.time.unsplit:
        notes.append("Some runs left neither a loss curve nor a known budget: their training time is unknown.")
    kinds: Counter[str] = Counter()
    for run in (run for trial in material.session.trials for run in trial.runs):
        kinds.update({str(words).partition(":")[0] for words in run.conditions})  # its numbers differ from run to run
    if kinds:
        told = ", ".join(f"{_say(kind, 60)} ({counted(count, 'run')})" for kind, count in kinds.most_common(8))
        notes.append(f"Conditions noted during runs: {told}.")
    return (
        f"<section id='time'><h2>Time</h2>{chart.time_bar(found.time)}<ul class='legend'>{entries}</ul>"
        f"<p class='note legend'>{' '.join(notes)}</p></section>"
    )


def _trials(material: Material) -> str:
    """The newest trials as a table, for a reader without scripts; `trials.js` shows all of them in its place."""
    trials = material.session.trials
    counts = Counter(trial.decision for trial in trials if trial.number)
    choices = [
        ("all", "all", len(trials)),
        *((kind, WORDS[kind], counts[kind]) for kind in ("keep", "discard", "crash")),
    ]
    filters = "".join(
        f"<label><input type='radio' name='show' value='{kind}'{' checked' if kind == 'all' else ''}>"
        f"{words} {count}</label>"
        for kind, words, count in choices
    )
    heads = "".join(
        f"<th scope='col' class='{name}' data-key='{name}'>{words}</th>"
        for name, words in (
            ("n", "#"),
            ("idea", "hypothesis"),
            ("count", "runs"),
            ("value", _say(material.about.metric)),
            ("delta", "delta [interval]"),
            ("word", "outcome"),
        )
    )
    states = material.states
    rows = "".join(_trial(trial, states) for trial in trials[: -FIRST - 1 : -1])
    shown = "" if len(trials) <= FIRST else f" The newest {FIRST} are listed here; a browser with scripts shows all."
    return (
        "<section id='trials'><h2>Trials</h2>"
        f"<p class='note' id='trials-note'>Newest first.{shown}</p>"
        f"<div class='controls' hidden><fieldset class='filters' id='filters'><legend>Show</legend>{filters}</fieldset>"
        "<label class='find'>Find <input type='search' id='find' autocomplete='off'></label></div>"
        f"<table class='trials' id='trial-table'><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        "<nav class='pages' id='pages' aria-label='Pages of trials' hidden></nav></section>"
    )


def _trial(trial: TrialRecord, states: Mapping[int, str]) -> str:
    row = details.row(trial, states)
    delta = "" if row["delta"] is None else _signed(row["delta"])
    if delta and row["low"] is not None and row["high"] is not None:
        delta += f" <span class='interval-text'>[{_signed(row['low'])}, {_signed(row['high'])}]</span>"
    value = "–" if row["value"] is None else f"{row['value']:.4f}"
    return (
        f"<tr class='{row['kind']}' id='t{trial.number}'><td class='n'>{trial.number}</td>"
        f"<td class='idea'>{_say(trial.hypothesis, 300)}</td><td class='count'>{len(trial.runs)}</td>"
        f"<td class='value'>{value}</td><td class='delta'>{delta}</td>"
        f"<td class='word'><span>{_say(row['word'])}</span></td></tr>"
    )


# --- words and numbers ---


def _say(text: str, limit: int = 200) -> str:
    return escape(printable(str(text), limit))


def _code(safe: str) -> str:
    return f"<code>{safe}</code>" if safe else "–"


def _value(value: float | None, places: int = 4) -> str:
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:.{places}f}"


def _signed(value: float, places: int = 4) -> str:
    return f"{value:+.{places}f}".replace("-", "−") if math.isfinite(value) else UNKNOWN


def _hours(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _share(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.005 else "under 1 %"


def _list(kind: str, entries: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in entries)
    return f"<dl class='{kind}'>{rows}</dl>\n"


def table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]], sides: str) -> str:
    """A table of safe cells; `sides` says for each column whether it stands left or right (l, r)."""
    kinds = ["" if side == "l" else " class='r'" for side in sides]
    head = "".join(f"<th{kind}>{name}</th>" for kind, name in zip(kinds, heads, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
