"""The runner for other verifiers, on ones that are plain to see."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.attacks.run import scripts

ROOT = Path(__file__).resolve().parents[2]
# What a plain verifier does: it runs the file and believes the line that is printed.
GULLIBLE = "import sys; sys.exit(0 if 'val_bpb' in open(sys.argv[1]).read() else 1)"


@pytest.mark.parametrize(
    ("options", "command", "code", "last"),
    [
        ((), ("true", "{file}"), 1, "2 tried, 2 judged wrongly"),
        ((), ("false", "{file}"), 0, "2 tried, 0 judged wrongly"),
        ((), (sys.executable, "-c", GULLIBLE, "{file}"), 1, "2 tried, 2 judged wrongly"),
        (("--approved", "verdict: approve"), ("echo", "verdict: reject", "{file}"), 0, "2 tried, 0 judged wrongly"),
        (("--honest", __file__), ("false", "{file}"), 1, "3 tried, 1 judged wrongly"),
        ((), ("false",), 2, ""),
        (("--only", "no such attack"), ("false", "{file}"), 2, ""),
    ],
)
def test_each_attack_is_shown_to_the_command(
    options: tuple[str, ...], command: tuple[str, ...], code: int, last: str
) -> None:
    only = () if "--only" in options else ("--only", "peek_")
    tried = [sys.executable, "-m", "tests.attacks.run", *only, *options, "--", *command]
    done = subprocess.run(tried, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    count = sum("peek_" in name for name in scripts())
    expected = last.replace("2 tried, 2", f"{count} tried, {count}").replace("2 tried", f"{count} tried")
    assert done.stdout.strip().endswith(expected.replace("3 tried", f"{count + 1} tried"))
