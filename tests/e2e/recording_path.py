"""A recording of the very first `miner run` on a terminal: something moves at least every 2 s, to the end.

By name: uv run pytest -s tests/e2e/recording_path.py. ARMLX_RECORDING_TRIALS is the number of trials (1 by default),
ARMLX_RECORDING_HOME a folder to keep it in, with the recording as asciicast (`asciinema play recording.cast`).
"""

from __future__ import annotations

import json
import os
import pty
import select
import struct
import sys
import time
from fcntl import ioctl
from itertools import pairwise
from pathlib import Path
from termios import TIOCSWINSZ

MOST = 2.0  # seconds without a change on the screen
COLUMNS, LINES = 100, 32
LIMIT = 1800.0  # seconds
HOME, TRIALS = os.environ.get("ARMLX_RECORDING_HOME"), os.environ.get("ARMLX_RECORDING_TRIALS", "1")  # before conftest


def test_something_moves_at_least_every_two_seconds(tmp_path: Path) -> None:
    home = Path(HOME or tmp_path / "home")
    command = [sys.executable, "-m", "miner.commands.main", "run", "--home", str(home)]
    command += ["--max-trials", TRIALS, "--submissions", "0"]
    begun = time.monotonic()
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.executable, command)
    ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    said: list[tuple[float, str]] = []
    while time.monotonic() - begun < LIMIT:
        ready, _, _ = select.select([terminal], [], [], 60)
        try:
            data = os.read(terminal, 1 << 16) if ready else b""
        except OSError:  # Linux: nobody has the other end any more
            break
        if data:
            said.append((time.monotonic() - begun, data.decode(errors="replace")))
        elif ready:
            break
    _, status = os.waitpid(pid, 0)
    home.mkdir(parents=True, exist_ok=True)
    head = json.dumps({"version": 2, "width": COLUMNS, "height": LINES})
    (home / "recording.cast").write_text("\n".join([head, *(json.dumps([at, "o", text]) for at, text in said)]) + "\n")
    moments = [0.0, *(at for at, _ in said)]
    gaps = sorted(((after - at, at) for at, after in pairwise(moments)), reverse=True)
    longest = [(round(gap, 2), round(at, 1)) for gap, at in gaps[:8]]
    print(f"\n{said[-1][0]:.0f} s, {len(said)} changes; longest pauses: {longest}")
    assert os.waitstatus_to_exitcode(status) == 0
    assert gaps[0][0] <= MOST, gaps[:5]
