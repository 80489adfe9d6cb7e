"""A program's end is the end of all that it started."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from common import git, processes
from tests.support import is_alive


def test_what_it_prints_and_its_status() -> None:
    done = processes.run(["sh", "-c", "cat; echo no >&2; exit 3"], seconds=10, given=b"yes")
    assert (done.stdout, done.stderr, done.returncode) == (b"yes", b"no\n", 3)


def ended(pid: int) -> bool:
    """Whether a process ends, in a moment at most."""
    for _ in range(200):
        if not is_alive(pid):
            return True
        time.sleep(0.02)
    return False


def test_git_that_takes_too_long_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """git gc works in children of its own, which went on after it was given up."""
    child = tmp_path / "child"
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {child}\nwait\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(git, "SECONDS", 1.0)
    with pytest.raises(git.GitFailed, match="git gc failed"):
        git.run(tmp_path, "gc", environment=git.own())
    assert ended(int(child.read_text()))


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        processes.run(["no-such-program"], seconds=1)
    with pytest.raises(subprocess.TimeoutExpired):
        processes.run(["sleep", "60"], seconds=0.05)
