"""The dashboard: every size and text fits, and a real terminal shows it and is given back."""

from __future__ import annotations

import fcntl
import io
import itertools
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from miner.journal import journal
from miner.journal.journal import Session
from miner.report import dashboard
from miner.report.dashboard import Dashboard, DashboardState, Running, TrialRow
from tests.miner import sessions

INCUMBENT = [[10.0 * k, 3.0 + 3.0 / k] for k in range(1, 31)]


def shown(state: DashboardState, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, record=True, file=io.StringIO(), color_system=None)
    console.print(dashboard.render(state, width, height))
    return console.export_text(styles=False).split("\n")[:-1]


def busy(rows: int = 12) -> DashboardState:
    state = DashboardState("a project on a network", 0.0, 5000.0, "best so far: +0.1")
    state.rows = [TrialRow(k, f"LR {k} -> {k + 1}", 3, 0.01, -0.02, 0.04, "discard") for k in range(1, rows)]
    state.rows = [*state.rows, TrialRow(rows, "DEPTH 2 -> 3", 5, 0.05, 0.02, 0.08, "keep")]
    state.best, state.spend, state.machine = "2.4", "0.1 SOL", "on battery"
    curve = [(seconds, loss - 0.05) for seconds, loss in INCUMBENT[:15]]
    state.running = Running("trial 13, run 1", 4900.0, 200.0, INCUMBENT, 1000.0, "step 15", 1100.0, curve)
    state.said.append(("something was said", ""))
    return state


def test_at_80_by_24_everything_is_there() -> None:
    lines = shown(busy(), 80, 24)
    assert len(lines) == 24
    text = "\n".join(lines)
    assert "a project on a network" in lines[0]
    assert lines[0].endswith("1 h 23 min")
    assert "100 s, about 100 s left  1100 tok/s (+10.0 %)" in text
    own, theirs = lines[4], lines[5]
    assert own.startswith("loss")
    assert "3.1500  -0.0500" in own
    assert theirs.startswith("incumbent")
    assert "3.2000 then" in theirs
    # aligned in time: half way, the run's row ends in the middle of the incumbent's
    assert len(re.sub(r"[^▁▂▃▄▅▆▇█]", "", own)) == pytest.approx(len(re.sub(r"[^▁▂▃▄▅▆▇█]", "", theirs)) / 2, abs=1)
    assert [line.split()[0] for line in lines if "LR" in line or "DEPTH" in line] == [str(k) for k in range(5, 13)]
    assert "+0.0500 [+0.0200, +0.0800]" in text
    for words in ("2.4", "0.1 SOL", "on battery", "something was said", "Ctrl-C stops"):
        assert words in text


@pytest.mark.parametrize("state", ["kept", "not confirmed", "submitted", "rejected"])
def test_what_became_of_a_kept_trial_is_in_the_table(state: str) -> None:
    made = Session()
    about = {"hypothesis": "DEPTH 2 -> 3", "fingerprint": "f", "base": "b", "at": ""}
    made.apply({"event": "trial", **about, "number": 1, "commit": "1"})
    made.apply({"event": "decision", "number": 1, "decision": "keep", "delta": 0.2, "at": ""})
    if state != "kept":
        test = {"at": "", "seed": 1, "holdout_seed": "", "noise": {}, "against": "b"}
        numbers = {"reason": "", "delta": 0.2, "low": None, "high": None, "p": None, "holdout_delta": None, "at": ""}
        made.apply({"event": "confirming", **test, "trial": 1, "commit": "1"})
        made.apply({"event": "confirmed", **numbers, "passed": state != "not confirmed"})
    if state in ("submitted", "rejected"):
        made.apply({"event": "intent", "number": 1, "code_hash": "c", "log_hash": "l", "at": ""})
        made.apply({"event": "submitted", "proposal": 0, "at": ""})
    if state == "rejected":
        made.apply({"event": "status", "proposal": 0, "status": state, "at": ""})
    view = DashboardState()
    view.observe(made)
    assert any(line.endswith(f" {state}") for line in shown(view, 80, 24))


def test_it_grows_with_the_terminal() -> None:
    lines = shown(busy(40), 140, 50)
    assert sum("LR" in line for line in lines) > 15
    assert max(map(len, lines)) == 140


def test_with_nothing_to_show() -> None:
    lines = shown(DashboardState(), 80, 24)
    assert len(lines) == 24
    state = DashboardState()
    state.observe(Session())
    assert "no value yet" in "\n".join(shown(state, 80, 24))


@pytest.mark.parametrize(
    "running",
    [
        None,
        Running("preparing the data", 4990.0),
        Running("trial 1, run 1", 4990.0, 200.0),
        Running("trial 1, run 1", 4990.0, 20_000.0, INCUMBENT, 1000.0),
        Running("a run that takes longer than expected", 0.0, 200.0, INCUMBENT),
    ],
    ids=["between runs", "a step", "a run", "a long run", "overdue"],
)
def test_something_moves_every_two_seconds(running: Running | None) -> None:
    state = busy()  # a session of more than an hour, whose clock shows minutes
    state.running = running
    seen = []
    for moment in range(5000, 5060, 2):
        state.now = float(moment)
        seen.append("\n".join(shown(state, 80, 24)))
    assert all(one != other for one, other in itertools.pairwise(seen))


texts = st.text(st.characters(), max_size=60) | st.just(sessions.HOSTILE) | st.just("寬" * 70)
losses = st.lists(st.tuples(st.floats(0, 400), st.floats(0.1, 20)), max_size=12).map(sorted)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(20, 200),
    st.integers(5, 70),
    st.lists(texts, max_size=25),
    losses,
    losses,
    st.none() | st.floats(0, 1e4),
)
def test_any_text_fits_any_size(
    width: int,
    height: int,
    words: list[str],
    own: list[tuple[float, float]],
    theirs: list[tuple[float, float]],
    expected: float | None,
) -> None:
    view = Dashboard(quiet=True)
    state = view.state
    state.now = 100.0
    made = Session()
    for number, word in enumerate(words):
        fields = {"number": number, "hypothesis": word, "fingerprint": "f", "commit": "c", "base": "b", "at": "t"}
        made.apply({"event": "trial", **fields})
    state.observe(made)
    state.running = Running("x", 0.0, expected, theirs, 1.0)
    for word in words:
        view.line(word)
    state.running.curve = own
    console = Console(width=width, height=height, file=io.StringIO(), color_system=None)
    lines = console.render_lines(dashboard.render(state, width, height), pad=False)
    assert len(lines) == height
    for line in lines:
        assert sum(segment.cell_length for segment in line) <= width
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e]", "".join(segment.text for segment in line))


@pytest.mark.parametrize(
    ("curve", "levels"),
    [
        ([], [None] * 4),
        ([(0.0, 0.0)], [0, None, None, None]),
        ([(0.0, 1.0), (39.0, 0.0)], [7, 7, 7, 0]),
        ([(25.0, 0.25)], [None, None, 4, None]),
        ([(5.0, 9.0), (99.0, -9.0)], [7, 7, 7, 0]),
    ],
)
def test_spark(curve: list[tuple[float, float]], levels: list[int | None]) -> None:
    assert dashboard.spark(curve, 40.0, 4, 0.0, 1.0) == levels


def test_without_a_terminal_it_is_plain_lines(capfd: pytest.CaptureFixture[str]) -> None:
    made = Session()
    made.apply(
        {"event": "trial", "number": 0, "hypothesis": "h", "fingerprint": "", "commit": "c", "base": "b", "at": ""}
    )
    with Dashboard() as view:
        view.say("hello")
        view.observe(made)
        with view.run("trial 0, run 1 (incumbent)", "h", 3.0) as word:
            word("a line")
        with view.step("looking") as word:
            word("further")
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "hello\ntrial 0, run 1 (incumbent) (about 3 s) ...\nlooking ...\n"


PROGRAM = """
import sys, time
from pathlib import Path
from miner.journal import journal
from miner.journal.journal import Session
from miner.report import dashboard
session = journal.read(Path(sys.argv[1]))
read = lambda line: dashboard.Sample(float(line.split()[0]), 3.0) if line[0].isdigit() else None
with dashboard.Dashboard(title="made-up project", reader=read) as view:
    view.say("said while it was shown")
    view.observe(session)
    what = f"trial {session.trials[-1].number}, run 3 (candidate)"
    with view.run(what, "idea", 100.0, [[0.0, 4.0], [90.0, 3.0]]) as word:
        for second in range(3000):
            word(f"{second % 90} of the log")
            time.sleep(0.02)
"""


class Terminal:
    """A pseudo-terminal with a program in it, and everything that it wrote."""

    def __init__(self, command: list[str], columns: int, rows: int) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self.slave)
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            command,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=environment | {"TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.set_blocking(self.master, False)
        self.text = ""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self) -> str:
        while True:
            try:
                self.text += os.read(self.master, 65536).decode(errors="replace")
            except BlockingIOError:
                return self.text

    def until(self, what: Callable[[str], bool]) -> None:
        for _ in range(600):
            if what(self.read()):
                return
            time.sleep(0.05)
        raise AssertionError(self.text[-3000:])


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_in_a_terminal_it_is_shown_resized_and_given_back(night: Path) -> None:
    path = night / "work" / sessions.NAME / "session.jsonl"
    number = journal.read(path).trials[-1].number
    terminal = Terminal([sys.executable, "-c", PROGRAM, str(path)], 80, 24)
    terminal.until(lambda text: "\x1b[?1049h" in text and " of the log" in text)
    frame = plain(terminal.text)
    assert f"trial {number}, run 3 (candidate)" in frame
    assert "made-up project" in frame
    assert "\u202e" not in terminal.text
    assert "─" * 80 in frame
    assert "─" * 81 not in frame
    terminal.resize(120, 40)
    terminal.until(lambda text: "─" * 120 in plain(text))
    assert "\x1b[?1049l" not in terminal.text
    os.kill(terminal.process.pid, signal.SIGINT)
    terminal.until(lambda text: "\x1b[?1049l" in text)
    terminal.until(lambda _: terminal.process.poll() is not None)
    ending = terminal.read().split("\x1b[?1049l")[1]
    assert "\x1b[?25h" in terminal.text.rsplit("\x1b[?25l", 1)[1]  # the cursor is shown again
    assert "said while it was shown" in plain(ending)
    assert termios.tcgetattr(terminal.slave) == terminal.before
    os.close(terminal.slave)
    os.close(terminal.master)
