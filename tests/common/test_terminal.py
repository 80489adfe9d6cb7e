"""What a step says where a live line cannot be drawn, and that something moves before anything heavy is loaded."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

from common.terminal import clock

STEP = "from common.terminal import View\nwith View().step('measuring', 3) as say:\n    say('loss 3.1')\n"


WAKING = "from common.waking import waking\nwith waking():\n    pass\n"
HEAVY = ("asyncio", "httpx", "libcst", "numpy", "rich.console", "chain.network.embedded")
# Runs a command as far as its wheel, and says what was loaded by then.
PROBE = f"""
import sys
from click.testing import CliRunner
import chain.commands.localnet, chain.commands.main, miner.commands.main, verifier.cli
def probe(*, quiet):
    raise SystemExit([name for name in {HEAVY} if name in sys.modules] or 77)
for module in (chain.commands.localnet, miner.commands.main, verifier.cli):
    module.waking = probe
mine, verify, chains = miner.commands.main.main, verifier.cli.main, chain.commands.main.main
for program, line in (
    (mine, ["run"]), (mine, ["submit", sys.executable]), (verify, ["check", "0"]), (verify, ["run", "--yes"]),
    (chains, ["localnet"]),
):
    print(CliRunner().invoke(program, line).exit_code)
"""


def terminal_says(code: str, term: str) -> bytes:
    """What Python `code` writes to its stderr, a terminal."""
    leader, follower = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    with subprocess.Popen([sys.executable, "-c", code], stderr=follower, env={**environment, "TERM": term}) as process:
        os.close(follower)
        said = b""
        while select.select([leader], [], [], 60)[0]:
            try:
                said += os.read(leader, 4096)
            except OSError:  # closed by its end
                break
        assert process.wait(60) == 0
    os.close(leader)
    return said


@pytest.mark.parametrize(("term", "plain"), [("dumb", True), ("xterm-256color", False)])
def test_a_dumb_terminal_gets_plain_lines(term: str, plain: bool) -> None:
    said = terminal_says(STEP, term)
    assert (said == b"measuring (about 3 s) ...\r\n") == plain
    assert (b"\x1b[" in said) != plain


@pytest.mark.parametrize(
    ("elapsed", "expected", "words"),
    [
        (7.4, None, "7 s"),
        (0.0, 20.0, "0 s, about 20 s left"),
        (19.4, 20.0, "19 s, about 1 s left"),
        (19.6, 20.0, "20 s, usually 20 s"),
        (61.0, 20.0, "61 s, usually 20 s"),
    ],
)
def test_what_takes_longer_than_usual_promises_no_end(elapsed: float, expected: float | None, words: str) -> None:
    assert clock(elapsed, expected) == words


def test_a_wheel_turns_at_once_and_leaves_no_trace() -> None:
    said = terminal_says(WAKING, "xterm-256color")
    assert b" starting" in said
    assert said.endswith(b"\r\x1b[K")
    assert terminal_says(WAKING, "dumb") == b""


def test_the_wheel_turns_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    environment = {**os.environ, "ARMLX_HOME": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, env=environment, check=True)
    assert found.stdout.split() == ["77"] * 5, found.stdout + found.stderr
