"""A project as the official client publishes it, by our commands to the end, and one of its miners' proposals."""

from __future__ import annotations

import io
import json
import tarfile
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import local, official
from tests.e2e import test_path
from tests.e2e.test_path import SECONDS, answer, environment, localnet, script, start
from trainer.project import bundle

if TYPE_CHECKING:
    from tests.attacks.tiny import TinyHome

home = test_path.home


def walk(tiny: TinyHome, home: Path, net: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Create with its shapes; our init, run, submit, check and settle; its reading; its proposal; our check."""
    (cache,) = (home / "data").iterdir()  # the project pins none: any that is prepared
    given = {**environment(), "AUTORESEARCH_CACHE": str(cache)}
    monkeypatch.setattr(test_path, "environment", lambda: given)
    metric = Decimal(f"{tiny.metric:.6f}")
    with local.connect(home, net[1], net[3]) as connection:
        shapes = official.artifacts(tiny.files["protocol.json"], bundle.pack(tiny.files), metric=metric)
        project = official.publish(connection, shapes)
    of = ["--project", project.id, *net]

    made = answer(home, "miner", "init", home.parent / "tree", *of)
    assert made["notes"][0].startswith("The benchmark artifact is ")
    mined = answer(home, "miner", "run", "--max-trials", 1, "--dry-run", *of)
    assert (mined["trials"], mined["proposals"]) == (1, [])
    better = script(home, "better.py", tiny.better)
    ours = answer(home, "miner", "submit", better, "--claim", tiny.claim, *of)["proposal"]
    found = answer(home, "verifier", "check", ours, "--settle", "--yes", *net)
    assert (found["verdict"], found["settlement"]["status"]) == ("approve", "approved"), found["reason"]
    assert answer(home, "verifier", "audit", found["attestation"], *net)["passed"]

    four, best, reached = official.resolve(net[1], net[3], project.id)
    assert four["benchmark"] == shapes.benchmark
    assert four["metrics"].endswith(f"BASELINE_METRIC={metric}\n".encode())
    with tarfile.open(fileobj=io.BytesIO(best)) as tar:
        member = tar.extractfile("train.py")
        assert member is not None
        assert member.read().decode() == tiny.better
    assert reached > project.baseline_aggregate_score

    with local.connect(home, net[1], net[3]) as connection:
        files = {**tiny.files, "train.py": b"raise SystemExit('by another client')\n"}
        theirs = official.propose(connection, project, files, Decimal(tiny.claim))
    process = start(home, "verifier", "check", theirs, *net, "--json")
    found = json.loads(process.communicate(timeout=SECONDS)[0])
    # Measured, though no machine is stated: it takes two runs to say what this script does.
    assert (found["verdict"], found["reason"]) == ("reject", "crash")
    assert sum(run["arm"] == "candidate" for run in found["runs"]) == 2


def test_an_official_project_is_mined_settled_and_read(
    tiny_home: TinyHome, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with localnet(home) as net:
        walk(tiny_home, home, net, monkeypatch)
