"""What a person sees while long work goes on: lines that stay, and one live line for the current step.

On a terminal the live line shows what runs, how far it is by the clock, elapsed and expected seconds
and the latest word from the run. Elsewhere (a file, a pipe, CI, TERM=dumb) each step prints when it starts and
ends and every 15 seconds between. All of it goes to stderr, so that stdout stays for results.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

Say = Callable[[str], None]
Step = Callable[[str], AbstractContextManager[object]]  # shows what is done until the block ends


def plainly(say: Say) -> Step:
    """Steps that are said when they begin, and show nothing while they last."""

    @contextmanager
    def step(what: str) -> Iterator[None]:
        say(what)
        yield

    return step


def clock(elapsed: float, expected: float | None) -> str:
    """How long it has taken and will take, both in seconds, in words."""
    if not expected:
        return f"{elapsed:.0f} s"
    left = expected - elapsed
    return f"{elapsed:.0f} s, " + (f"about {left:.0f} s left" if left >= 0.5 else f"usually {expected:.0f} s")


class View:
    """`say` prints a line that stays; `step` shows one piece of work while it lasts."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._quiet = quiet
        self.status = ""  # shown at the end of every live line, for example the best value so far

    def say(self, text: str, style: str = "") -> None:
        """A line that stays. Where it cannot be written, the work goes on."""
        with suppress(OSError):
            self._console.print(text, style=style, markup=False, soft_wrap=True)

    @contextmanager
    def step(self, what: str, expected: float | None = None) -> Iterator[Say]:
        """Show `what` until the block ends; `expected` is its usual length in seconds, if known.

        Yields a function that shows the latest word from the work.
        """
        if self._quiet:
            yield lambda _: None
        elif self._console.is_terminal and not self._console.is_dumb_terminal:
            yield from self._live(what, expected)
        else:
            yield from self._plain(what, expected)

    def _live(self, what: str, expected: float | None) -> Iterator[Say]:
        progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            _Bar(expected),
            TextColumn("{task.fields[word]}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
            TextColumn("{task.fields[status]}", markup=False, style="green", table_column=Column(no_wrap=True)),
            console=self._console,
            transient=True,
            refresh_per_second=5,
            expand=True,
        )
        with progress:
            task = progress.add_task(what, total=None, word="", status=self.status)
            yield lambda word: progress.update(task, word=" ".join(word.split()))

    def _plain(self, what: str, expected: float | None) -> Iterator[Say]:
        usual = f" (about {expected:.0f} s)" if expected else ""
        self.say(f"{what}{usual} ...")
        done, latest, started = threading.Event(), [""], time.monotonic()

        def remind() -> None:
            while not done.wait(15):
                self.say(f"  {clock(time.monotonic() - started, expected)}  {latest[0]}  {self.status}".rstrip())

        def hear(word: str) -> None:
            latest[0] = " ".join(word.split())

        thread = threading.Thread(target=remind, daemon=True)
        thread.start()
        try:
            yield hear
        finally:
            done.set()
            thread.join()


class _Bar(ProgressColumn):
    """A bar by the clock, then elapsed and remaining seconds."""

    def __init__(self, expected: float | None) -> None:
        super().__init__(Column(no_wrap=True))
        self._expected = expected

    def render(self, task: Task) -> Text:
        elapsed = task.elapsed or 0.0
        if not self._expected:
            return Text(clock(elapsed, None))
        share = min(1.0, elapsed / self._expected)
        filled = round(20 * share)
        bar = Text("━" * filled, style="cyan").append("━" * (20 - filled), style="dim")
        return bar.append(f" {clock(elapsed, self._expected)}", style="default")
