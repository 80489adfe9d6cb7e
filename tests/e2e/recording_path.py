"""Recordings of the first commands on a terminal: something moves at least every 2 s, to the end.

By name: uv run pytest -s tests/e2e/recording_path.py. ARMLX_RECORDING_TRIALS is the number of trials (1 by default),
ARMLX_RECORDING_HOME a folder to keep it in, with the recordings as asciicasts (`asciinema play run.cast`).
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import struct
import sys
import time
from collections.abc import Iterator
from fcntl import ioctl
from itertools import pairwise
from pathlib import Path
from termios import TIOCSWINSZ

import pytest

MOST = 2.0  # seconds without a change on the screen
COLUMNS, LINES = 100, 32
LIMIT = 1800.0  # seconds
HOME, TRIALS = os.environ.get("ARMLX_RECORDING_HOME"), os.environ.get("ARMLX_RECORDING_TRIALS", "1")  # before conftest


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of all three; the first makes the project that the second checks a script against."""
    home = Path(HOME) if HOME else tmp_path_factory.mktemp("home")
    home.mkdir(parents=True, exist_ok=True)
    return home


def said(module: str, *arguments: str, until: str) -> Iterator[tuple[float, str]]:
    """What the command writes to a terminal and when, in seconds; Ctrl-C is pressed once it says `until`."""
    begun = time.monotonic()
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
    ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    pressed = False
    while time.monotonic() - begun < LIMIT:
        ready, _, _ = select.select([terminal], [], [], 60)
        try:
            data = os.read(terminal, 1 << 16) if ready else b""
        except OSError:  # Linux: nobody has the other end any more
            break
        if data:
            yield time.monotonic() - begun, data.decode(errors="replace")
            if until and not pressed and until.encode() in data:
                os.kill(pid, signal.SIGINT)
                pressed = True
        elif ready:
            break
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 3, 4, 130)  # a verdict, Ctrl-C


@pytest.mark.parametrize("name", ["run", "check", "localnet"])
def test_something_moves_at_least_every_two_seconds(home: Path, name: str) -> None:
    script = Path(__file__).parents[2] / "trainer" / "train.py"
    module, arguments, until = {
        "run": ("miner.commands.main", ["run", "--max-trials", TRIALS, "--submissions", "0"], ""),
        "check": ("verifier.cli", ["check", "--candidate", str(script)], ""),
        "localnet": ("chain.commands.main", ["localnet", "--port", "0", "--irys-port", "0"], "Press Ctrl-C"),
    }[name]
    heard = list(said(module, *arguments, "--home", str(home), until=until))
    head = json.dumps({"version": 2, "width": COLUMNS, "height": LINES})
    lines = [head, *(json.dumps([at, "o", text]) for at, text in heard)]
    (home / f"{name}.cast").write_text("\n".join(lines) + "\n", encoding="utf-8")
    gaps = sorted(((after - at, at) for at, after in pairwise([0.0, *(at for at, _ in heard)])), reverse=True)
    longest = [(round(gap, 2), round(at, 1)) for gap, at in gaps[:8]]
    print(f"\n{name}: first after {heard[0][0]:.2f} s, {heard[-1][0]:.0f} s, {len(heard)} changes; pauses: {longest}")
    assert gaps[0][0] <= MOST, gaps[:5]
