"""The dashboard of a mining session: the run under way, the last trials, the best so far, spend.

`Dashboard` is a `View`: everywhere but on a terminal, and until it is entered, it behaves as one, in plain lines.
Entered on a terminal it takes the whole screen, follows its size and gives it back at the end, whatever ended it;
messages from meanwhile are then printed, so that none is lost with the screen.

`render` is a pure function of the state and a size: never wider, never higher.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live as Screen
from rich.text import Text

from chain.network.base import LAMPORTS_PER_SOL
from common.terminal import Say, View, clock
from common.text import counted, lasted, printable
from miner.journal.journal import Session, TrialRecord
from miner.report import summary

BLOCKS = "▁▂▃▄▅▆▇█"
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
ROWS = 8  # trials at 80 x 24
_STYLES = {"keep": "green", "discard": "dim", "crash": "red", "": "cyan"}
_WIDE = 72  # columns from which intervals are shown

Curve = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Sample:
    """What a line of a run's log tells: training seconds, loss in nats, tokens per second where it says them."""

    seconds: float
    loss: float
    tokens_per_second: float | None = None


Reader = Callable[[str], Sample | None]


@dataclass(frozen=True, slots=True)
class TrialRow:
    """A trial as the table shows it; `state` is what became of one that was kept."""

    number: int
    hypothesis: str
    runs: int
    delta: float | None
    low: float | None
    high: float | None
    decision: str
    state: str = ""


@dataclass(slots=True)
class Running:
    """The run under way; `begun` on the clock of `DashboardState.now`, `expected` seconds or None."""

    what: str
    begun: float
    expected: float | None = None
    incumbent: Curve = ()
    usual_rate: float | None = None
    word: str = ""
    rate: float | None = None
    curve: list[tuple[float, float]] = field(default_factory=list)


@dataclass(slots=True)
class DashboardState:
    """All that the view shows."""

    title: str = "mining"
    begun: float = 0.0
    now: float = 0.0
    status: str = ""
    running: Running | None = None
    rows: Sequence[TrialRow] = ()
    best: str = ""
    spend: str = ""
    machine: str = ""
    said: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=200))

    def observe(self, session: Session) -> None:
        """Take over what the journal says."""
        found = summary.totals(session, running=True)
        trials, states = session.trials[-200:], summary.states(session)
        rows = [_row(trial, states.get(trial.number, "")) for trial in trials]
        self.rows = [row for row in rows if row.number] or rows
        best = "no value yet" if found.best is None else f"{found.best:.6f} val_bpb"
        since = "" if found.baseline is None else f" from {found.baseline:.6f}"
        self.best = f"{best}{since}, gain {found.gain:+.4f} ({found.confirmed:+.4f} confirmed), "
        self.best += f"kept {found.kept} of {found.finished}"
        sent = f", {found.submitted} submitted" if found.submitted else ""
        sent += ", one being submitted" if session.pending else ""
        self.spend = f"{session.spent / LAMPORTS_PER_SOL:.6f} SOL, {counted(session.staked, 'token')} staked{sent}"
        last, unfit = session.sums.last_run, session.sums.unfit
        conditions = ", ".join(last.conditions) if last else ""
        hours = f"{lasted(found.time.running)} in {counted(found.runs, 'run')}"
        self.machine = ", ".join(part for part in (hours, f"{unfit} unfit" if unfit else "", conditions) if part)


def render(state: DashboardState, width: int, height: int) -> Group:
    """The view in exactly `height` lines of at most `width` columns."""
    room = max(0, height - 24)
    rows = min(len(state.rows), ROWS + 3 * room // 5) if height >= 24 else max(1, min(ROWS, height - 13))
    parts = [_title(state, width), Text("─" * width, style="dim"), *_run(state, width)]
    parts += [_heads(width), *_rows(state, width, rows)]
    fixed = {"best": state.best, "spent": state.spend, "machine": state.machine}
    facts = [_pair(name, words, width) for name, words in fixed.items()]
    foot = _cut(Text("Ctrl-C stops; run the same command to resume", style="dim"), width)
    left = height - len(parts) - len(facts) - 2
    said = [_cut(Text(text, style=style), width) for text, style in list(state.said)[-left:]] if left > 0 else []
    blank = [Text("")] * max(0, left - len(said))
    lines = [*parts, *facts, Text("─" * width, style="dim"), *said, *blank, foot]
    return Group(*lines[:height])


def spark(curve: Curve, end: float, width: int, low: float, high: float) -> list[int | None]:
    """A curve in `width` columns of equal time up to `end`: per column a level 0 to 7, None after its last point.

    The levels grow with the square root, because a loss curve is nearly flat for most of its length.
    """
    columns: list[list[float]] = [[] for _ in range(width)]
    last = -1
    for seconds, loss in curve:
        column = min(width - 1, int(seconds / end * width)) if end > 0 else 0
        if column >= 0:
            columns[column].append(loss)
            last = max(last, column)
    levels: list[int | None] = []
    value: float | None = None
    for number, inside in enumerate(columns):
        value = sum(inside) / len(inside) if inside else value
        if value is None or number > last:
            levels.append(None)
        else:
            share = (value - low) / (high - low) if high > low else 0.0
            levels.append(int(min(7.0, 8 * math.sqrt(max(0.0, share)))))
    return levels


def at(curve: Curve, seconds: float) -> float | None:
    """The loss of the last point no later than `seconds`."""
    return next((loss for moment, loss in reversed(curve) if moment <= seconds), None)


def _row(trial: TrialRecord, state: str) -> TrialRow:
    delta = trial.delta if trial.number else None
    shown = printable(trial.hypothesis)
    return TrialRow(trial.number, shown, len(trial.runs), delta, trial.low, trial.high, trial.decision, state)


def _title(state: DashboardState, width: int) -> Text:
    elapsed = _clock(state.now - state.begun)
    right = f"{state.status}   {elapsed}" if state.status else elapsed
    room = max(0, width - len(right) - 2)
    return _cut(Text(_fit(state.title, room) + "  ", style="bold").append(right, style="default"), width)


def _run(state: DashboardState, width: int) -> list[Text]:
    """Five lines, whether something runs or not."""
    run = state.running
    if run is None:
        turn = SPINNER[int(4 * state.now) % len(SPINNER)]  # the clock above may show minutes only
        return [Text(f"{turn} between runs", style="dim"), *[Text("")] * 4]
    elapsed = state.now - run.begun
    rate = "" if run.rate is None else f"  {_short(run.rate)} tok/s"
    if run.rate is not None and run.usual_rate:
        rate += f" ({100 * (run.rate / run.usual_rate - 1):+.1f} %)"
    if run.expected:
        left = f" {clock(elapsed, run.expected)}{rate}"
        bar = max(10, min(60, width - len(left)))
        filled = round(bar * min(1.0, elapsed / run.expected))
        progress = (
            Text("━" * filled, style="cyan").append("━" * (bar - filled), style="dim").append(left, style="default")
        )
    else:
        progress = Text(f"{elapsed:.0f} s{rate}")
    what = Text(run.what, style="bold")
    return [_cut(line, width) for line in (what, progress, *_curves(run, width), Text(run.word, style="dim"))]


def _curves(run: Running, width: int) -> tuple[Text, Text]:
    """The run's loss above the incumbent's, aligned in time and on one scale."""
    points = [*run.curve, *((p[0], p[1]) for p in run.incumbent)]
    if not points:
        return Text("loss       not seen yet" if run.expected else "", style="dim"), Text("")
    end = max(seconds for seconds, _ in points)
    end = max(end, run.incumbent[-1][0] if run.incumbent else (run.expected or 0.0))
    # The first steps fall so far that the rest would be flat: the scale begins after a tenth of the time.
    late = [loss for seconds, loss in points if seconds >= 0.1 * end] or [loss for _, loss in points]
    columns = max(8, width - 34)
    own, theirs = (spark(c, end, columns, min(late), max(late)) for c in (run.curve, run.incumbent))
    first, second = Text("loss       "), Text("incumbent  ", style="dim")
    for mine, other in zip(own, theirs, strict=True):
        style = "" if mine is None or other is None or mine == other else "green" if mine < other else "yellow"
        first.append(" " if mine is None else BLOCKS[mine], style=style)
        second.append(" " if other is None else BLOCKS[other], style="dim")
    if run.curve:
        seconds, loss = run.curve[-1]
        reference = at(run.incumbent, seconds)
        first.append(f"  {loss:.4f}")
        if reference is not None:
            first.append(f"  {loss - reference:+.4f}", style="green" if loss < reference else "yellow")
            second.append(f"  {reference:.4f} then", style="dim")
    return first, second


def _heads(width: int) -> Text:
    delta = f"{'delta [interval]':<27}" if width >= _WIDE else f"{'delta':<8}"
    return _cut(Text(f"{'#':>4} {_fit('hypothesis', _room(width))} runs {delta} decision", style="dim"), width)


def _room(width: int) -> int:
    """Columns for a hypothesis."""
    return max(4, width - 4 - 1 - 1 - 4 - 1 - (27 if width >= _WIDE else 8) - 1 - (13 if width >= _WIDE else 9))


def _rows(state: DashboardState, width: int, count: int) -> list[Text]:
    lines = []
    for row in list(state.rows)[-count:]:
        delta = "" if row.delta is None else f"{row.delta:+.4f}"
        if width >= _WIDE and row.low is not None and row.high is not None:
            delta += f" [{row.low:+.4f}, {row.high:+.4f}]"
        cells = 27 if width >= _WIDE else 8
        text = Text(f"{row.number:>4} {_fit(row.hypothesis, _room(width))} {row.runs:>4} ")
        text.append(f"{_fit(delta, cells)} ")
        bad = row.state in ("not confirmed", "rejected", "expired")
        style = "yellow" if bad else _STYLES.get(row.decision, "")
        text.append(row.state or summary.WORDS.get(row.decision, ""), style=style)
        if row.decision == "discard":
            text.stylize("dim")
        lines.append(_cut(text, width))
    return lines


def _fit(words: str, cells: int) -> str:
    """Words in exactly so many columns, which some characters take two of."""
    return set_cell_size(words, cells) if cell_len(words) <= cells else set_cell_size(words, cells - 1) + "…"


def _pair(name: str, words: str, width: int) -> Text:
    return _cut(Text(f"{name:<10} ", style="dim").append(words, style="default"), width)


def _cut(text: Text, width: int) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    text.truncate(width, overflow="ellipsis")
    return text


def _clock(seconds: float) -> str:
    minutes = int(max(0.0, seconds) // 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def _short(rate: float) -> str:
    return f"{rate / 1e6:.2f}M" if rate >= 1e6 else f"{rate / 1e3:.1f}k" if rate >= 1e4 else f"{rate:.0f}"


class Dashboard(View):
    """A `View` that, while it is entered on a terminal, shows the whole session.

    `reader` finds loss and throughput in a line of a run's log; `title` says what is mined.
    """

    def __init__(self, *, quiet: bool = False, title: str = "mining", reader: Reader | None = None) -> None:
        super().__init__(quiet=quiet)
        self.reader = reader
        self._lock = threading.RLock()
        self._screen: Screen | None = None
        self._kept: deque[tuple[str, str]] = deque(maxlen=5000)
        self.state = DashboardState(title=title)

    def __enter__(self) -> Self:
        if not self._quiet and self._console.is_terminal and not self._console.is_dumb_terminal:
            self.state.begun = time.monotonic()
            self._screen = Screen(
                self,
                console=self._console,
                screen=True,
                refresh_per_second=4,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._screen.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._screen is None:
            return
        screen, self._screen = self._screen, None
        screen.stop()
        while self._kept:
            text, style = self._kept.popleft()
            super().say(text, style)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self._lock:
            self.state.now, self.state.status = time.monotonic(), printable(self.status, 60)
            yield render(self.state, options.max_width, options.height or console.height)

    def say(self, text: str, style: str = "") -> None:
        """A line that stays: on the screen for a while, and on the terminal afterwards."""
        if self._screen is None:
            super().say(text, style)
            return
        with self._lock:
            self._kept.append((text, style))
            self.state.said.extend((printable(part), style) for part in text.splitlines() if part.strip())

    def observe(self, session: Session) -> None:
        """Show what the journal says now; the session is read during the call only."""
        with self._lock:
            self.state.observe(session)

    @contextmanager
    def step(self, what: str, expected: float | None = None) -> Iterator[Say]:
        """Show `what` until the block ends, as `View.step`."""
        if self._screen is None:
            with super().step(what, expected) as word:
                yield word
            return
        with self._showing(Running(printable(what), time.monotonic(), expected)):
            yield self.line

    @contextmanager
    def run(
        self,
        what: str,
        about: str,
        expected: float | None,
        incumbent_curve: Curve = (),
        usual_rate: float | None = None,
    ) -> Iterator[Say]:
        """Show a run until the block ends; yields what takes its log's lines.

        `what` says which run it is, `about` more where there is room for it. It is expected to take so many seconds in
        all; `incumbent_curve` [[seconds, nats], ...] and `usual_rate` (tokens a second) are what it is shown against.
        """
        if self._screen is None:
            with super().step(what, expected) as word:
                yield word
            return
        shown = printable(f"{what}: {about}")
        with self._showing(Running(shown, time.monotonic(), expected, incumbent_curve, usual_rate)):
            yield self.line

    def line(self, text: str) -> None:
        """The latest line of the run's log."""
        sample = self.reader(text) if self.reader else None
        with self._lock:
            run = self.state.running
            if run is None:
                return
            run.word = printable(text)
            if sample is not None:
                run.curve.append((sample.seconds, sample.loss))
                run.rate = sample.tokens_per_second or run.rate

    @contextmanager
    def _showing(self, running: Running) -> Iterator[None]:
        with self._lock:
            before, self.state.running = self.state.running, running
        try:
            yield
        finally:
            with self._lock:
                self.state.running = before
