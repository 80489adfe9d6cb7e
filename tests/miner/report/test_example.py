"""The kept session on two GPUs: its journal is read, its report renders, its README says what is in it."""

from __future__ import annotations

import json
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from miner.commands.main import main
from miner.journal import journal
from miner.journal.sessions import choose
from miner.report import summary
from miner.trials import history
from tests.miner.report.test_report import data, unpacked
from trainer.project import recipe
from trainer.statistics.comparison import Arm

EXAMPLE = Path(__file__).parents[3] / "docs" / "example"
FILES = [path for path in sorted(EXAMPLE.rglob("*")) if path.is_file()]


def minutes(event: dict[str, Any], since: str) -> str:
    begun, at = (datetime.fromisoformat(text) for text in (since, event["at"]))
    return f"{(at - begun).total_seconds() / 60:.1f}"


def test_the_readme_says_what_the_journal_says() -> None:
    path = choose(EXAMPLE).journal
    events = [json.loads(line) for line in path.read_text().splitlines()]
    session, words = journal.read(path), (EXAMPLE / "README.md").read_text()
    rows = re.findall(r"^\| ([\d.]+) \| (.+?) \| (.*?) ?\| (.*?) ?\|$", words, re.MULTILINE)
    told = [event for event in events if event["event"] in ("decision", "confirmed", "submitted", "end")]
    assert [row[0] for row in rows] == [minutes(event, events[0]["at"]) for event in told]
    for event, (_, what, values, gain) in zip(told, rows, strict=True):
        delta, low, high = (event.get(name) for name in ("delta", "low", "high"))
        interval = "" if low is None else f"{delta:.3f} ({low:.3f} to {high:.3f})"
        if event["event"] == "decision":
            trial = session.trials[event["number"]]
            arm = Arm.CANDIDATE if trial.number else Arm.INCUMBENT
            assert values == ", ".join(f"{value:.3f}" for value in history.values(trial, arm))
            assert what.startswith(f"trial {trial.number}, " if trial.number else "baseline, ")
            if trial.number and trial.decision == "keep":
                assert gain.startswith(interval)
            elif trial.delta is not None and trial.number:
                assert gain == f"{trial.delta:.3f}: discarded".replace("-", "−")
        elif event["event"] == "confirmed":
            assert gain == f"{interval}, on holdout text {event['holdout_delta']:.3f}"
        elif event["event"] == "submitted":
            assert what.startswith(f"**proposal {event['proposal']}**")
    assert f"was {summary.noise(session)[0]:.3f}" in words
    assert words.count("\n") <= 45


def test_the_report_renders_and_is_the_kept_one(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "work", tmp_path / "work")
    arguments = ["report", "--offline", "--json", "--home", str(tmp_path), "--png", str(tmp_path / "chart.png")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    document = Path(json.loads(done.stdout)["page"]).read_text(encoding="utf-8")
    kept = (EXAMPLE / "report.html").read_text(encoding="utf-8")
    shown = [unpacked(text)["missing"] for text in data(document)["details"].values()]
    assert "The diff cannot be shown: the session’s work tree is missing." in shown
    assert str(tmp_path) not in document
    details = [unpacked(text) for text in data(document)["details"].values()]
    assert {"0.758502", "0.906668"} <= {str(run[1]) for detail in details for run in detail["runs"]}
    for page in (document, kept):
        for words in (
            "confirming before staking 21.7 min",
            "NVIDIA H200",
            "Muon for the matrices inside the blocks",
        ):
            assert words in page
        assert "beyond the range" not in page
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    assert (EXAMPLE / "report.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_machine_is_named(path: Path) -> None:
    assert not re.search(rb"/(root|opt|tmp|home|usr|mnt|Users)/", path.read_bytes())


def test_it_is_no_bundle() -> None:
    assert recipe.names() == ["armlx", "smoke"]
