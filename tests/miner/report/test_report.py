"""The report: numbers and words on the page, hostile text and old journals."""

from __future__ import annotations

import base64
import json
import math
import re
import struct
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from common.text import printable
from miner.journal import journal
from miner.journal.about import About
from miner.journal.journal import Session
from miner.journal.sessions import choose
from miner.report import chart, material, page, png, summary
from miner.report.material import Exhibit, Material, OnChain
from miner.report.summary import IncumbentStep, Summary, TrialPoint
from miner.report.svg import decimals, ticks
from tests.miner import growth, sessions

VOID = {"meta", "link", "input", "br", "line", "circle", "path", "rect"}


@pytest.fixture(scope="module")
def gathered(night: Path) -> Material:
    return material.gather(choose(night), None)


@pytest.fixture(scope="module")
def html(gathered: Material) -> str:
    return page.build(gathered)


def data(document: str) -> dict[str, Any]:
    """What the page's script reads: all trials and their details."""
    found: dict[str, Any] = json.loads(document.split('id="data">')[1].split("</script>")[0])
    return found


def unpacked(text: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(text)))


class Strict(HTMLParser):
    """Collects tags and refuses what is not nested; the page's words are in `text`."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(document)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_it_says_what_the_journal_says(gathered: Material, html: str) -> None:
    read = Strict(html)
    found = gathered.summary
    assert f"{found.best:.4f}" in read.text
    assert f"+{found.gain:.4f}" in read.text
    for words in ("Made-up project of the tests", "made-up-machine-16c", "mlx 0.32.0", "300 s of training a run"):
        assert words in read.text
    trials = [attrs for tag, attrs in read.tags if tag == "tr" and (attrs.get("id") or "").startswith("t")]
    assert len(trials) == len(gathered.session.trials)
    assert sum(attrs["class"] == "keep" for attrs in trials) == found.kept
    assert sum(attrs["class"] == "baseline" for attrs in trials) == 1
    ids = {attrs["id"] for _, attrs in read.tags if "id" in attrs}
    links = {attrs["href"] for tag, attrs in read.tags if tag == "a"}
    assert links == {f"#t{trial.number}" for trial in gathered.session.trials if trial.runs}
    assert {link[1:] for link in links if link} <= ids
    shown = [unpacked(text) for text in data(html)["details"].values()]
    assert len(shown) == len(gathered.session.trials)
    assert any("+DEPTH" in line for detail in shown for line in detail["diff"])
    assert any("AssertionError: MODEL_DIM" in line for detail in shown for line in detail["log"])
    assert "another miner" in read.text
    assert "given up" in read.text


def test_nothing_in_it_acts_or_loads(html: str) -> None:
    read = Strict(html)
    assert {"iframe", "img", "object", "form"}.isdisjoint(tag for tag, _ in read.tags)
    assert [attrs.get("type") for tag, attrs in read.tags if tag == "script"] == ["application/json", None]
    for _, attributes in read.tags:
        assert not any(name.startswith("on") or name in ("style", "src") for name in attributes)
        assert (attributes.get("href") or "#").startswith(("#", "data:"))
    assert "url(" not in html
    assert "@import" not in html
    policy = next(a["content"] for _, a in read.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "script-src 'sha256-" in policy
    assert "connect-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e]", html)
    assert "try <script>document.title='owned'</script>" in read.text


def test_it_is_bounded_and_says_so(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"first\n" + b"\xff\x1b[31m" + b"A" * 100_000 + b"\r\nlast\r\n")
    shown = material._tail(log)
    assert shown[-1] == "last"
    assert max(map(len, shown)) <= material.MAX_LINE
    assert material._lines("x\n" * 9_999, 400)[-1] == "… more than 400 lines"
    (tmp_path / "link.log").symlink_to(log)
    assert material._tail(tmp_path / "link.log") == []
    assert material._tail(tmp_path / "absent.log") == []


def test_a_log_outside_the_folder_is_not_shown(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("a key")
    folder = sessions.make(tmp_path, trials=1)
    path = folder / "session.jsonl"
    path.write_text(path.read_text().replace("logs/0000-03-incumbent.log", str(secret)))
    document = page.build(material.gather(choose(tmp_path), None))
    assert "a key" not in document + json.dumps([unpacked(text) for text in data(document)["details"].values()])


def test_an_old_journal_has_unknowns(night: Path) -> None:
    """Neither facts nor curves nor intervals, no tree and no logs: everything else is there."""
    session = journal.read(night / "work" / sessions.NAME / "session.jsonl")
    for trial in session.trials:
        trial.low = trial.high = trial.p = None
        trial.runs = [replace(run, curve=(), tokens_per_second=None, conditions=()) for run in trial.runs]
    session.segments, session.frontiers = [], []
    old = Material("old", session, About(), summary.summarize(session), material.recorded(session, About()))
    read = Strict(page.build(old))
    assert read.text.count("unknown") >= 8
    assert "Not recorded." in read.text
    assert "idle time is unknown" in read.text


def test_conditions_that_differ_in_numbers_are_counted_as_one(night: Path) -> None:
    session = journal.read(night / "work" / sessions.NAME / "session.jsonl")
    for trial in session.trials:
        trial.runs = [replace(run, conditions=()) for run in trial.runs]
    for trial, words in zip(
        session.trials, ("machine overloaded: load 16.2", "machine overloaded: load 3", "hot"), strict=False
    ):
        trial.runs = [replace(trial.runs[0], conditions=(words,)), *trial.runs[1:]]
    document = page.build(
        Material("x", session, About(), summary.summarize(session), material.recorded(session, About()))
    )
    assert "Conditions noted during runs: machine overloaded (2 runs), hot (1 run)." in document


@pytest.mark.parametrize("trials", [0, 1])
def test_a_session_that_just_began(trials: int) -> None:
    session = Session(tag="t")
    if trials:
        fields = {"number": 0, "hypothesis": "baseline", "fingerprint": "f", "commit": "c", "base": "c", "at": ""}
        session.apply({"event": "trial", **fields})
    new = Material("new", session, About(), summary.summarize(session), OnChain("Not recorded."))
    assert "new" in Strict(page.build(new)).text


def test_what_git_cannot_show_is_said(gathered: Material) -> None:
    exhibits = {5: Exhibit(missing="The diff cannot be shown: git diff failed.")}
    other = Material("x", gathered.session, gathered.about, gathered.summary, gathered.chain, exhibits=exhibits)
    (shown,) = data(page.build(other))["details"].values()
    assert unpacked(shown)["missing"] == "The diff cannot be shown: git diff failed."


def test_the_range_of_the_chart_is_not_spoilt_by_one_that_diverged(gathered: Material) -> None:
    low, high = chart.value_range(gathered.summary)
    assert max(point.value or 0 for point in gathered.summary.points) > 5 > high
    assert all(low < step.level < high for step in gathered.summary.steps)
    kept = [point for point in gathered.summary.points if point.decision == "keep"]
    assert all(point.value is not None and low < point.value < high for point in kept)
    assert chart.progress(gathered.summary).count('class="off"') == 1


BASELINE = (1.450159, 1.451165, 1.451432)


def few(*losses: float, kept: tuple[float, ...] = ()) -> Summary:
    """A session with a quiet baseline, one trial for each loss against it, and those with the gains `kept`."""
    level = sum(BASELINE) / 3
    values = [level + loss for loss in losses] + [level - gain for gain in kept]
    words = ["discard"] * len(losses) + ["keep"] * len(kept)
    tried = [TrialPoint(n, word, v, None, None, (v,)) for n, (word, v) in enumerate(zip(words, values, strict=True), 1)]
    steps = [
        IncumbentStep(0.0, "b", level),
        *(IncumbentStep(p.number, "k", p.value or 0) for p in tried if p.decision == "keep"),
    ]
    points = (TrialPoint(0, "keep", level, None, None, BASELINE), *tried)
    return replace(summary.summarize(Session()), points=points, steps=tuple(steps), noise=0.0007)


@pytest.mark.parametrize(
    ("made", "beyond"),
    [
        (few(0.0188), []),  # a full-size session's only candidate, 28 of its sigmas away
        (few(-0.0264), []),
        (few(3.1), []),  # alone it is all there is to see
        (few(0.004, 0.0188), []),
        (few(0.0, 0.0001, 0.02), []),
        (few(0.02, 0.03, 4.0), [3]),
        (few(0.001, 0.004, 4.0, -0.02, 5.0), [3, 5]),
        (few(*[0.02, 0.05, 0.03] * 5), []),  # most changes lose
        (few(*[0.02, 0.05, 0.03] * 5, 0.9, 3.0, math.e), [16, 17, 18]),
        (few(*[0.002, -0.001] * 20, 0.4, 3.0, kept=(0.05,)), [41, 42]),
        (few(), []),
    ],
)
def test_the_range_of_the_chart_shows_what_is_usual(made: Summary, beyond: list[int]) -> None:
    low, high = chart.value_range(made)
    assert [p.number for p in made.points if p.value is not None and not low <= p.value <= high] == beyond
    assert all(low < value < high for value in BASELINE)
    assert png.draw(made, "few").startswith(b"\x89PNG")


def test_single_runs_of_a_shown_trial_are_shown() -> None:
    made = few(0.02)
    wide = replace(made.points[1], runs=(1.4685, 1.4715), low=1.40, high=1.50)
    low, high = chart.value_range(replace(made, points=(made.points[0], wide)))
    assert low < min(BASELINE)
    assert 1.4715 < high < 1.48  # an interval that is wide for two runs does not set the scale


def test_a_page_of_few_trials() -> None:
    """One open trial, interrupted: the legend explains what is drawn, and what is nothing says 0."""
    made = Session(tag="t")
    common = {"event": "trial", "hypothesis": "h", "fingerprint": "f", "base": "b" * 40, "at": "2026-01-01T00:00:00Z"}
    ran = {"event": "run", "at": "2026-01-01T00:06:00Z", "failure": "", "detail": "", "seconds": 360.0}
    ran |= {"memory_mb": None, "log": "", "curve": [[0.0, 9.0], [300.0, 3.3]]}
    made.apply({"event": "begin", "at": "2026-01-01T00:00:00Z"})
    made.apply({**common, "number": 0, "commit": "b" * 40})
    for minute, value in zip((6, 12, 18), BASELINE, strict=True):
        made.apply({**ran, "at": f"2026-01-01T00:{minute:02d}:00Z", "number": 0, "arm": "incumbent", "val_bpb": value})
    made.apply({"event": "decision", "number": 0, "decision": "keep", "delta": 0.0, "at": "2026-01-01T00:18:00Z"})
    made.apply({**common, "number": 1, "commit": "1" * 40})
    made.apply({**ran, "number": 1, "arm": "candidate", "val_bpb": 1.4697, "at": "2026-01-01T00:24:00Z"})
    made.apply({"event": "end", "at": "2026-01-01T00:27:00Z", "reason": "interrupted", "seconds": 1620.0})
    new = Material("new", made, About(), summary.summarize(made, budget=300.0), OnChain("Not recorded."))
    document = page.build(new)
    words = Strict(document).text
    assert "ended 2026-01-01T00:27:00Z (interrupted)" in words
    assert "interrupted runs 3.0 min (11 %)" in words
    assert "4; 0 trials finished, 1 open" in words
    assert "2 degrees of freedom" in words
    assert "0.0000" not in words.replace("0.0000 SOL", "")
    assert "1 start." in words
    legend = document.split("<ul class='legend'>")[1].split("</ul>")[0]
    assert re.findall(r"</svg>([^<]+)", legend) == [
        "the baseline",
        "still open",
        "one run",
        "the incumbent, at the mean of all its runs",
    ]
    assert 'class="off"' not in document
    decided = {"event": "decision", "number": 1, "decision": "discard", "at": "2026-01-01T00:25:00Z"}
    made.apply({**decided, "delta": -0.01, "low": -0.1, "high": 0.08})
    document = page.build(Material("new", made, About(), summary.summarize(made, budget=300.0), OnChain("")))
    assert "discarded<" in document
    assert "interval of its delta<" in document  # the bars of what was discarded are explained too


def kept(number: int, value: float, change: str = "DEPTH 1 → 2") -> TrialPoint:
    return TrialPoint(number, "keep", value, value - 0.001, value + 0.001, (value,), change)


@pytest.mark.parametrize(
    ("points", "named"),
    [
        ([kept(1, 2.0), kept(20, 1.5)], [1, 20]),
        ([kept(1, 2.0), kept(2, 1.999)], [2]),  # the later one, where two would lie on each other
        ([kept(1, 2.0), kept(2, 1.5)], [1, 2]),  # the lower stands apart
        ([kept(0, 2.0), kept(5, 1.5, change="")], []),
        ([kept(number, 2.0 - number / 100) for number in range(1, 41)], list(range(40, 0, -2))),
    ],
)
def test_names_do_not_lie_on_each_other(points: list[TrialPoint], named: list[int]) -> None:
    found = chart.named(points, lambda number: 10 * number, lambda value: 300 * (2.0 - value))
    assert sorted(found) == sorted(named)
    assert all(len(name) <= chart.MAX_NAME for name in found.values())


@pytest.mark.parametrize(
    ("low", "high", "about", "expected"),
    [
        (0, 10, 5, [0, 2, 4, 6, 8, 10]),
        (2.34, 2.56, 4, [2.35, 2.4, 2.45, 2.5, 2.55]),
        (-0.3, 0.3, 3, [-0.2, 0.0, 0.2]),
        (1, 1, 4, []),
        (float("nan"), 1, 4, []),
    ],
)
def test_ticks(low: float, high: float, about: int, expected: list[float]) -> None:
    assert ticks(low, high, about) == pytest.approx(expected)


def test_decimals() -> None:
    assert [decimals(v) for v in ([], [1.0], [2.35, 2.4], [1e-12])] == [0, 0, 2, 0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x1b[31mb\tc\nd", "a[31mb c d"),
        ("\u202eevil\u200b", "evil"),
        ("\ud800x\ue000", "x"),
        ("ab" * 20, "ababababa…"),
    ],
)
def test_printable(text: str, expected: str) -> None:
    assert printable(text, 10 if len(text) > 30 else 200) == expected


def test_the_chart_as_png(gathered: Material) -> None:
    drawn = png.draw(gathered.summary, "costs $5 and $\\frac{1}{$")
    assert drawn.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", drawn[16:24]) == (1600, 800)


def test_two_thousand_trials_make_a_page_that_can_be_sent(tmp_path: Path) -> None:
    """Under 500 kB, each trial a row; the details of as many as fit."""
    growth.make(tmp_path, 2_000)
    gathered = material.gather(choose(tmp_path), None)
    document = page.build(gathered)
    assert len(document.encode()) < 500_000
    assert len(unpacked(data(document)["rows"])["n"]) == 2_001
    assert len(data(document)["details"]) >= 150
    few = page.FIRST
    assert document.count("<tr class='") == few


def test_states_and_confirmed_gain() -> None:
    """A kept trial is kept, confirmed or not confirmed, then what the chain says; proposal 0 is a proposal."""
    made = Session()
    common = {"hypothesis": "h", "fingerprint": "f", "base": "b", "at": ""}
    about = {"at": "", "seed": 1, "holdout_seed": "", "noise": {}, "against": "b"}
    numbers = {"reason": "", "low": None, "high": None, "p": None, "holdout_delta": None, "at": ""}
    for number in range(1, 5):
        made.apply({"event": "trial", **common, "number": number, "commit": str(number)})
        made.apply({"event": "decision", "number": number, "decision": "keep", "delta": 0.2, "at": ""})
        if number > 1:
            made.apply({"event": "confirming", **about, "trial": number, "commit": str(number)})
            made.apply({"event": "confirmed", **numbers, "passed": number > 2, "delta": 0.1 * number})
    assert summary.states(made) == {1: "kept", 2: "not confirmed", 3: "confirmed", 4: "confirmed"}
    assert summary.totals(made).confirmed == pytest.approx(0.4)
    made.apply({"event": "held", "commit": "4", "against": "b", "reason": "does not pay", "at": ""})
    assert summary.states(made)[4] == "confirmed"
    made.apply({"event": "intent", "number": 4, "code_hash": "c", "log_hash": "l", "at": ""})
    made.apply({"event": "submitted", "proposal": 0, "at": ""})
    assert summary.states(made)[4] == "submitted"
    assert summary.states(made, {0: "approved"})[4] == "approved"
