"""Upstream's kind of project, the whole path: one trial mined, an improvement approved, a no-op rejected.

About a minute on two cores, so it is not collected with the others: `uv run pytest tests/e2e/upstream_path.py`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import upstream
from tests.e2e.test_path import REJECTED, answer, script
from tests.support import require


def test_mined_approved_and_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require(sys.platform != "linux" or shutil.which("bwrap") is not None, "bubblewrap (apt-get install bubblewrap)")
    monkeypatch.delenv("AUTORESEARCH_CACHE", raising=False)
    project = upstream.publish(tmp_path)
    home, claim = project.home, f"{0.9 * project.baseline:.6f}"

    mined = answer(home, "miner", "run", "--project", 0, "--max-trials", 1, "--dry-run")
    assert (mined["trials"], mined["proposals"]) == (1, [])

    better = script(home, "better.py", project.better)
    assert answer(home, "miner", "submit", better, "--claim", claim)["proposal"] == 0
    found = answer(home, "verifier", "check", 0, "--settle", "--yes")
    assert (found["verdict"], found["settlement"]["status"]) == ("approve", "approved"), found["reason"]

    policy = script(home, "policy.toml", "[verdict]\ncalm = false\n")  # other tests may load this machine
    no_op = script(home, "no_op.py", project.better + "\n# nothing new\n")
    assert answer(home, "miner", "submit", no_op, "--claim", f"{0.5 * project.baseline:.6f}")["proposal"] == 1
    found = answer(home, "verifier", "check", 1, "--settle", "--yes", "--policy", policy, code=REJECTED)
    assert (found["verdict"], found["settlement"]["status"]) == ("reject", "rejected")
    assert abs(found["delta"]) < 0.05

    # laid out now, the approved code is a commit on top of the snapshot
    laid = answer(home, "miner", "init", "--project", 0, tmp_path / "tree")
    assert laid["branch"] == "autoresearch/best"
    assert [artifact["name"] for artifact in laid["artifacts"]][-1] == "best code"
    assert {result["state"] for result in laid["setup"]} == {"declined"}
    log = ["git", "-C", str(tmp_path / "tree"), "log", "--format=%s"]
    subjects = subprocess.run(log, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(subjects) == 2
    assert subjects[1] == "snapshot of the project"
    assert (tmp_path / "tree" / "train.py").read_text() == project.better
