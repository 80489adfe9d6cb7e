"""What a step says where a live line cannot be drawn."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys

import pytest

STEP = "from common.terminal import View\nwith View().step('measuring', 3) as say:\n    say('loss 3.1')\n"


@pytest.mark.parametrize(("term", "plain"), [("dumb", True), ("xterm-256color", False)])
def test_a_dumb_terminal_gets_plain_lines(term: str, plain: bool) -> None:
    leader, follower = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    with subprocess.Popen([sys.executable, "-c", STEP], stderr=follower, env={**environment, "TERM": term}) as process:
        os.close(follower)
        said = b""
        while select.select([leader], [], [], 60)[0]:
            try:
                said += os.read(leader, 4096)
            except OSError:  # closed by its end
                break
        assert process.wait(60) == 0
    os.close(leader)
    assert (said == b"measuring (about 3 s) ...\r\n") == plain
    assert (b"\x1b[" in said) != plain
