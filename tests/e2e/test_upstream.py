"""A project of the upstream repository's kind, from its repository to an approved proposal.

What takes longer, mining it and judging a no-op, is in `upstream_path.py`, run by name.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests import upstream
from tests.e2e.test_path import answer, script
from tests.support import require


def test_created_laid_out_submitted_and_approved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require(sys.platform != "linux" or shutil.which("bwrap") is not None, "bubblewrap (apt-get install bubblewrap)")
    monkeypatch.delenv("AUTORESEARCH_CACHE", raising=False)
    project = upstream.publish(tmp_path)
    home = project.home

    # the setup commands, run by the rules of `miner init`, make the same data as the owner's
    shutil.rmtree(project.cache)
    laid = answer(home, "miner", "init", "--project", 0, tmp_path / "tree", "--yes")
    assert [(artifact["name"], artifact["signed"]) for artifact in laid["artifacts"]] == [
        ("protocol", True),
        ("repository snapshot", True),
        ("benchmark", True),
        ("baseline metrics", True),
    ]
    assert {result["state"] for result in laid["setup"]} == {"done"}
    points = {point["name"]: point["state"] for point in laid["machine"]}
    assert points["data"] == points["uv"] == "ok"
    assert "--trust-harness" not in laid["next"]
    assert (tmp_path / "tree" / "protocol.json").read_bytes() == project.spec
    assert (tmp_path / "tree" / "train.py").read_bytes() == upstream.FILES["train.py"]
    assert "tokenizer.pkl" in os.listdir(project.cache / "tokenizer")

    better = script(home, "better.py", project.better)
    claim = f"{0.9 * project.baseline:.6f}"
    assert answer(home, "miner", "submit", "--project", 0, better, "--claim", claim)["proposal"] == 0
    found = answer(home, "verifier", "check", 0, "--settle", "--yes")
    assert (found["verdict"], found["settlement"]["status"]) == ("approve", "approved"), found["reason"]
    assert found["delta"] > 0.2
    assert found["holdout_delta"] > 0.1
