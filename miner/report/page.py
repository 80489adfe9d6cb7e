"""The report as one HTML page: no script, nothing loaded from elsewhere, readable on paper, a phone and a desk.

`build` is a pure function of its material. Every text passes `_say`, which strips control characters, bounds and
escapes; a Content-Security-Policy lets nothing but the page's own style sheet act. What is not known is shown as
unknown.
"""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from html import escape
from pathlib import Path

from chain.network.base import LAMPORTS_PER_SOL
from common.text import printable
from miner.journal.journal import Submission, TrialRecord
from miner.journal.run import RunRecord
from miner.report import chart, summary
from miner.report.material import MAX_DETAILED, Exhibit, Material
from miner.report.summary import WORDS, counted, lasted, submission_state
from miner.report.svg import element, svg

UNKNOWN = '<span class="unknown">unknown</span>'


def build(material: Material) -> str:
    """The whole document."""
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    title = material.about.token_name or material.name
    body = "\n".join([_header(material), _progress(material), _record(material), _time(material), _trials(material)])
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="referrer" content="no-referrer">\n<link rel="icon" href="data:,">\n'
        f"<title>{_say(title)}: mining report</title>\n<style>{style}</style>\n</head>\n<body>\n{body}\n"
        f"<footer>Session {_say(material.name)}, journal of {len(material.session.trials)} trials, "
        f"page created {_say(material.made)}. Deltas are incumbent − candidate: positive is better.</footer>\n"
        "</body>\n</html>\n"
    )


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
            "gain found, not yet confirmed",
            f'<span class="good">{_signed(found.gain)}</span>' if found.gain > 0 else "0",
        ),
        ("trials kept", f"{found.kept} <small>of {found.finished}</small>"),
        ("machine time", lasted(found.time.running)),
        ("gain per machine-hour", per_hour),
        ("spent", f"{session.spent / LAMPORTS_PER_SOL:.4f} <small>SOL</small>"),
    ]
    project = f"{about.token_name} ({about.token_symbol}), project {about.project}" if about.token_name else ""
    budget = "" if about.budget is None else f"{about.budget:g} s of training a run"
    machine = ", ".join(about.machine[key] for key in ("chip", "gpu", "os") if key in about.machine)
    freedom = f"{found.freedom} degree{'s' if found.freedom > 1 else ''} of freedom"
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
        ("Staked", f"{counted(session.staked, 'token')}, {counted(found.submitted, 'proposal')} submitted"),
    ]
    return (
        f"<header><h1>{_say(about.token_name or 'Mining session')}</h1><p class='lead'>{lead}</p></header>\n"
        + _list("headline", numbers)
        + _list("facts", [(name, _say(value, 400) or UNKNOWN) for name, value in facts])
    )


def _progress(material: Material) -> str:
    whole = material.summary
    if not whole.points:
        return "<h2>val_bpb over trials</h2><p class='note'>No trial yet.</p>"
    off = [p for p in whole.points if p.value is not None and not _inside(p.value, whole)]
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
        *([key("keep", dot) + "the baseline"] if "keep" not in drawn else []),
        *([key("keep", bar + dot) + "kept, with the interval of its delta"] if "keep" in drawn else []),
        *([key("discard", dot) + "discarded"] if "discard" in drawn else []),
        *([key("open", dot) + "still open"] if "" in drawn else []),
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
        f"<h2>{_say(material.about.metric)} over trials</h2>"
        f"<p class='note'>Lower is better. Click a mark to see its trial.</p>"
        f"<div class='chart'>{chart.progress(whole)}{chart.progress(whole, narrow=True)}</div>"
        f"<ul class='legend'>{legend}</ul>"
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
    table = _table(("", "on chain", "better by"), [(_say(a), b, c) for a, b, c in rows], "lrr")
    gap = ""
    if chain.baseline is not None and chain.best is not None:
        share = 100 * (chain.baseline - chain.best) / abs(chain.baseline) if chain.baseline else 0.0
        gap = f"The on-chain best is {chain.baseline - chain.best:.6f} below the baseline ({share:.2f} %). "
        if chain.baseline == chain.best:
            gap = "Nothing on chain beats the baseline. "
    out = (
        "<h2>Track record</h2>"
        f"<p class='note'>{gap}{_say(chain.note, 400)} On-chain values are anchored to the project's baseline and "
        "may differ from those of this machine.</p>"
    )
    out += f"<div class='pair'>{drawn}<div>{table}</div></div>" if drawn else f"<div class='pair'>{table}</div>"
    if session.submissions:
        heads = ("trial", "proposal", "state", "code", "transaction")
        rows_ = [_submission(entry, material) for entry in session.submissions[-100:]]
        out += f"<h2>Submissions</h2><div class='scroll'>{_table(heads, rows_, 'lllll')}</div>"
    return out


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
    if found.time.unsplit:
        notes.append("Some runs left neither a loss curve nor a known budget: their training time is unknown.")
    conditions = Counter(str(word) for t in material.session.trials for r in t.runs for word in r.conditions)
    if conditions:
        told = ", ".join(f"{_say(word, 60)} ({count})" for word, count in conditions.most_common(8))
        notes.append(f"Conditions noted during runs: {told}.")
    return (
        f"<h2>Time</h2>{chart.time_bar(found.time)}<ul class='legend'>{entries}</ul>"
        f"<p class='note legend'>{' '.join(notes)}</p>"
    )


def _trials(material: Material) -> str:
    trials = material.session.trials
    found = [end for t in trials if t.number for end in (t.delta, t.low, t.high) if end is not None]
    ends = sorted(abs(end) for end in found if math.isfinite(end))
    reach = 1.1 * ends[int(0.9 * (len(ends) - 1))] if ends else 0.0
    counts = Counter(trial.decision for trial in trials if trial.number)
    choices = [
        ("all", "all", len(trials)),
        *((kind, WORDS[kind], counts[kind]) for kind in ("keep", "discard", "crash")),
    ]
    filters = "".join(
        f"<label><input type='radio' name='show' id='show-{kind}'{' checked' if kind == 'all' else ''}>"
        f"{words} {count}</label>"
        for kind, words, count in choices
    )
    rows = "\n".join(_trial(trial, material, reach) for trial in reversed(trials))
    heads = "".join(
        f"<span>{name}</span>" for name in ("#", "hypothesis", "runs", "val_bpb", "", "delta [interval]", "")
    )
    bound = f" Diffs and logs of the last {MAX_DETAILED} and of all kept ones." if len(trials) > MAX_DETAILED else ""
    return (
        f"<h2>Trials</h2><p class='note'>Newest first; click a row to open it.{bound}</p>"
        f"<fieldset class='filters'>{filters}</fieldset>"
        f"<div class='trials'><div class='heads'>{heads}</div>{rows}</div>"
    )


def _trial(trial: TrialRecord, material: Material, reach: float) -> str:
    point = summary.point(trial)
    delta = ""
    if trial.delta is not None and trial.number:
        delta = f"{_signed(trial.delta)} "
        if trial.low is not None and trial.high is not None:
            delta += f"<span class='interval-text'>[{_signed(trial.low)}, {_signed(trial.high)}]</span>"
    word = "baseline" if trial.number == 0 else WORDS.get(trial.decision, "")
    forest = chart.forest(trial.delta, trial.low, trial.high, reach) if trial.number else ""
    value = "–" if point.value is None else f"{point.value:.4f}"
    head = (
        f"<summary><span class='n'>{trial.number}</span><span class='idea'>{_say(trial.hypothesis, 300)}</span>"
        f"<span class='count r'>{len(trial.runs)}</span><span class='value r'>{value}</span>"
        f"{forest or '<span class=forest></span>'}<span class='delta'>{delta}</span>"
        f"<span class='word'>{_say(word)}</span></summary>"
    )
    exhibit = material.exhibits.get(trial.number, Exhibit())
    kind = (
        "baseline" if not trial.number else trial.decision if trial.decision in ("keep", "discard", "crash") else "open"
    )
    inside = f"<div class='inside' id='t{trial.number}'>{_inside_trial(trial, exhibit, material)}</div>"
    return f"<details class='trial {kind}'>{head}{inside}</details>"


def _inside_trial(trial: TrialRecord, exhibit: Exhibit, material: Material) -> str:
    said = [f"{WORDS.get(trial.decision, '') or 'open'}: {trial.reason}" if trial.reason else ""]
    said += [
        f"p = {trial.p:.2g}" if trial.p is not None else "",
        f"proposed by {trial.proposer}" if trial.proposer else "",
    ]
    said += [f"begun {trial.at}" if trial.at else "", f"decided {trial.decided}" if trial.decided else ""]
    facts = _say("; ".join(part for part in said if part), 600)
    out = f"<p class='full'>{facts}<br>commit {_code(_say(trial.commit[:12]))} on {_code(_say(trial.base[:12]))}</p>"
    incumbent = summary.curves(material.session, trial.base) if trial.number else []
    drawn = chart.losses([run.curve for run in trial.own_runs], incumbent)
    heads = ("arm", "val_bpb", "tok/s", "seconds", "")
    rows = [
        (
            _say(run.arm.value),
            _value(run.val_bpb, 6) if run.val_bpb is not None else "–",
            f"{run.tokens_per_second:,.0f}" if run.tokens_per_second else "–",
            f"{run.seconds:.0f}",
            _say(_remark(run), 160),
        )
        for run in trial.runs[:60]
    ]
    runs = f"<h3>Runs</h3><div class='scroll'>{_table(heads, rows, 'lrrrl')}</div>" if rows else ""
    curve = f"<h3>Loss{', against the incumbent’s last runs in grey' if incumbent else ''}</h3>{drawn}" if drawn else ""
    out += f"<div>{runs}</div><div>{curve}</div>"
    if exhibit.diff:
        out += f"<div class='full'><h3>Change</h3><pre>{''.join(map(_diff_line, exhibit.diff))}</pre></div>"
    if exhibit.missing:
        out += f"<p class='full note'>{_say(exhibit.missing, 300)}</p>"
    if exhibit.log:
        lines = "\n".join(escape(line) for line in exhibit.log)
        out += (
            f"<details class='log full'{' open' if trial.decision == 'crash' else ''}><summary>End of "
            f"{_say(exhibit.log_name)}</summary><pre>{lines}</pre></details>"
        )
    return out


def _remark(run: RunRecord) -> str:
    words = [run.failure, run.detail if run.failure else "", *run.conditions]
    return "; ".join(word for word in words if word)


def _diff_line(line: str) -> str:
    kind = {"+": "add", "-": "del", "@": "at"}.get(line[:1], "")
    if line.startswith(("diff ", "index ", "+++", "---")):
        kind = "at"
    return f"<span class='{kind}'>{escape(line)}</span>\n" if kind else f"{escape(line)}\n"


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


def _inside(value: float, found: summary.Summary) -> bool:
    low, high = chart.value_range(found)
    return low <= value <= high


def _list(kind: str, entries: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in entries)
    return f"<dl class='{kind}'>{rows}</dl>\n"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]], sides: str) -> str:
    kinds = ["" if side == "l" else " class='r'" for side in sides]
    head = "".join(f"<th{kind}>{name}</th>" for kind, name in zip(kinds, heads, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
