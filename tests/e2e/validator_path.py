"""The whole path on Agave's validator: published, mined, submitted, checked, settled, audited.

The validator alone keeps a core busy, so it wants a quiet machine and is not collected with the others: with
`solana-test-validator` on PATH or as SOLANA_TEST_VALIDATOR, `uv run pytest tests/e2e/validator_path.py`.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from chain.localnet.validator import Kind
from tests.attacks import tiny
from tests.e2e.test_official import walk
from tests.e2e.test_path import answer, localnet, script
from tests.support import optional, require

PATIENCE = 5  # beside the validator a run that its seconds end would end after fewer steps than another


def _require() -> None:
    named = os.environ.get(Kind.VALIDATOR.variable, Kind.VALIDATOR.program)
    optional(shutil.which(named) is not None, f"{Kind.VALIDATOR.program}, on PATH or as {Kind.VALIDATOR.variable}")
    require(sys.platform != "linux" or shutil.which("bwrap") is not None, "bubblewrap (apt-get install bubblewrap)")


def test_a_project_of_the_official_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _require()
    home = tmp_path / "home"
    made = tiny.publish(
        home, patience=PATIENCE
    )  # the tiny project's data; on the embedded network, which is not asked again
    with localnet(home, "--validator") as net:
        walk(made, home, net, monkeypatch)


def test_published_mined_settled_and_audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _require()
    monkeypatch.delenv("AUTORESEARCH_CACHE", raising=False)
    home = tmp_path / "home"
    with localnet(home, "--validator") as net:
        project = tiny.publish(home, network=net[1], irys=net[3], patience=PATIENCE)
        mined = answer(home, "miner", "run", "--max-trials", 1, "--dry-run", *net)
        assert (mined["trials"], mined["proposals"]) == (1, [])

        better = script(home, "better.py", project.better)
        assert answer(home, "miner", "submit", better, "--claim", project.claim, *net)["proposal"] == 0
        found = answer(home, "verifier", "check", 0, "--settle", "--yes", *net)
        assert (found["verdict"], found["settlement"]["status"]) == ("approve", "approved"), found["reason"]

        audited = answer(home, "verifier", "audit", found["attestation"], *net)
        assert audited["passed"], audited
        shown = answer(home, "chain", "project", "show", 0, *net)
        assert shown["best"] == found["metric"]
        assert [(p["id"], p["status"]) for p in shown["proposals"]] == [(0, "approved")]
