"""Unified diffs of train.py, applied by git in a scratch folder that holds nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from common.text import printable
from miner.proposers.base import SCRIPT, ProposerFailed
from trainer.errors import EnvironmentNotReady

MAX_DIFF = 1024 * 1024  # characters
_HEADER = re.compile(r"^(?:---|\+\+\+) (?P<path>[^\t\n]+)", re.MULTILINE)
_TIMEOUT = 20  # seconds


def is_diff(text: str) -> bool:
    """Whether the text starts as a unified diff does, rather than as a script."""
    return text.lstrip().startswith(("diff --git ", "--- ", "@@ "))


def apply(source: str, diff: str) -> str:
    """`source` as train.py with the diff applied: every hunk with all of its context, or ProposerFailed.

    Line numbers may be off and line counts wrong, as they are in what people and models write by hand. The diff may
    name train.py, with or without a/ and b/, and nothing else.
    """
    if len(diff) > MAX_DIFF:
        raise ProposerFailed(f"The diff is longer than {MAX_DIFF} characters.")
    text = diff.strip("\n") + "\n"
    if text.startswith("@@ "):
        text = f"--- a/{SCRIPT}\n+++ b/{SCRIPT}\n{text}"
    header = _HEADER.search(text)
    strip = 1 if header and header["path"].startswith(("a/", "b/")) else 0
    with tempfile.TemporaryDirectory(prefix="diff-") as scratch:
        script = Path(scratch, SCRIPT)
        script.write_bytes(source.encode())
        _git_apply(Path(scratch), strip, text)
        left = [
            entry for entry in os.scandir(scratch) if entry.name != SCRIPT or not entry.is_file(follow_symlinks=False)
        ]
        if left or not script.is_file():
            raise ProposerFailed(f"The diff changes more than {SCRIPT}.", f"Leave everything but {SCRIPT} as it is.")
        try:
            return script.read_bytes().decode()
        except UnicodeDecodeError:
            raise ProposerFailed(f"The diff leaves {SCRIPT} with invalid UTF-8.") from None


def _git_apply(folder: Path, strip: int, diff: str) -> None:
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        # The scratch may lie below a repository, which git must not take for its own.
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
    }
    command = ["git", "apply", "--recount", "--whitespace=nowarn", f"-p{strip}", "-"]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            input=diff.encode(),
            capture_output=True,
            env=environment,
            timeout=_TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise EnvironmentNotReady("git is not installed.", "Install git.") from None
    except (subprocess.TimeoutExpired, UnicodeEncodeError):
        raise ProposerFailed("The diff cannot be applied: git timed out.") from None
    if done.returncode != 0:
        raise ProposerFailed(f"The diff does not apply: {printable(done.stderr.decode(errors='replace'))}")
