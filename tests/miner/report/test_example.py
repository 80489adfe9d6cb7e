"""The kept session at full size: its journal is read, its report renders, its README says what is in it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from miner.commands.main import main
from miner.journal import journal
from miner.journal.sessions import choose
from miner.report import summary
from tests.miner.report.test_report import data, unpacked
from trainer.project import recipe

EXAMPLE = Path(__file__).parents[3] / "docs" / "example"
FILES = [path for path in sorted(EXAMPLE.rglob("*")) if path.is_file()]


def test_the_readme_says_what_the_journal_says() -> None:
    session = journal.read(choose(EXAMPLE).journal)
    runs = [run for trial in session.trials for run in trial.runs]
    words = (EXAMPLE / "README.md").read_text()
    rows = [f"| {run.val_bpb:.6f} | {run.tokens_per_second:,.0f} | {run.seconds:.1f} |\n" for run in runs]
    assert len(rows) == 4
    assert re.findall(r"^\| A \| [^|]+(.+\n)", words, re.MULTILINE) == rows
    assert session.trials[1].hypothesis in words
    assert f"{summary.noise(session)[0]:.4f} and 0.0108" in words
    (segment,) = session.segments
    assert (segment.reason, segment.within, session.trials[1].decision) == ("interrupted", True, "")
    assert summary.time_split(session, 300.0).interrupted == pytest.approx(195)
    assert words.count("\n") <= 40


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
    assert {"1.469716", "1.451165"} <= {str(run[1]) for detail in details for run in detail["runs"]}
    for page in (document, kept):
        for words in (
            "interrupted runs 3.2 min",
            "NVIDIA H100 80GB HBM3",
            "still open",
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
