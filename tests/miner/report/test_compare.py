"""`miner compare`: the arithmetic as tables, then the command on two sessions and on two files."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from miner.commands.main import main
from miner.journal import journal
from miner.journal.about import About
from miner.journal.journal import Session
from miner.journal.worktree import Workspace
from miner.proposers.base import Candidate, Tried
from miner.report import compare, compare_text, sheets
from miner.report.compare import Outcome, Pair
from tests.miner import sessions
from tests.miner.proposers.support import baseline, tried
from trainer.project import hyperparameters

SOURCE = "LR = 0.1\nDEPTH = 2\n"
FAST, DEEP, BOTH = "LR = 0.2\nDEPTH = 2\n", "LR = 0.1\nDEPTH = 4\n", "LR = 0.4\nDEPTH = 4\n"
OTHER = SOURCE + "X = f()\n"


def history(*trials: tuple[str, str, float | None]) -> list[Tried]:
    """Trials against SOURCE: code, hypothesis, delta."""
    made = [tried(n, Candidate(code, words), SOURCE, delta) for n, (code, words, delta) in enumerate(trials, 1)]
    return [baseline(SOURCE), *made]


def test_the_weight_of_what_moved_the_number() -> None:
    told = history(
        (FAST, "", 0.3), (DEEP, "", -0.1), (BOTH, "", 0.2), (OTHER, "edit silu: SiLU", -0.1), (OTHER, "", None)
    )
    found = compare.weights(told)
    assert [(w.name, w.trials, w.best) for w in found] == [
        ("LR", 2, 0.3),
        ("DEPTH", 2, 0.2),
        ("edit silu", 1, -0.1),
    ]
    assert [w.share for w in found] == [pytest.approx(part / 0.15) for part in (0.11, 0.03, 0.01)]
    assert sum(w.share for w in found) == pytest.approx(1.0)
    assert compare.weights([]) == ()


def test_one_run_that_went_wild_does_not_hide_the_rest() -> None:
    told = history((FAST, "", 0.03), (FAST.replace("0.2", "0.3"), "", 0.02), (DEEP, "", -50.0))
    found = {weight.name: weight for weight in compare.weights(told)}
    assert 0.02 < found["LR"].share < 0.2
    assert found["DEPTH"].best == -50.0


def side(name: str, told: list[Tried], **about: object) -> compare.Side:
    return compare.side(name, replace(About(), **about), Session(), told)  # type: ignore[arg-type]


def test_changes_that_both_tried_are_pairs() -> None:
    a = side("a", history((FAST, "", 0.3), (DEEP, "", -0.1), (OTHER, "edit silu: SiLU", 0.02), (BOTH, "", 0.1)))
    b = side("b", history((OTHER, "edit silu: SiLU", None), (FAST, "tuned", 0.2), (OTHER + "Y = g()\n", "", 0.1)))
    found = compare.sessions(a, b)
    assert [(pair.change, pair.a.delta, pair.b.delta) for pair in found.pairs] == [
        ("LR -> 0.2", 0.3, 0.2),
        ("edit silu", 0.02, None),
    ]
    assert found.pairs[0] == Pair(
        "LR -> 0.2", Outcome(1, "discard", 0.3, None, None), Outcome(2, "discard", 0.2, None, None)
    )


def test_the_same_lines_of_other_code_are_a_pair() -> None:
    a, b = (side(name, history((OTHER, "x", gain))) for name, gain in (("a", 0.3), ("b", 0.1)))
    assert [pair.change for pair in compare.sessions(a, b).pairs] == ["+ X = f()"]


def test_what_makes_two_sessions_differ_is_said() -> None:
    a, b = (
        side("a", history(), hardware_class="m1", budget=60.0),
        side("b", history(), hardware_class="m4", budget=60.0),
    )
    found = compare.sessions(a, b)
    assert found.apart == ("hardware class",)
    assert "differ in hardware class" in compare_text.notes(found)[0]
    assert compare_text.notes(compare.sessions(a, a)) == []


def test_text_from_elsewhere_stays_words() -> None:
    hostile = "<script>alert(1)</script>\x1b[31m"
    a = side(hostile, history((FAST, hostile, 0.3)))
    shown = compare_text.of_sessions(compare.sessions(a, a))
    page = sheets.page(hostile, shown, [hostile])
    assert "<script" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;" in page


def ask(home: Path, *arguments: object) -> tuple[dict[str, Any], str]:
    given = ["compare", *map(str, arguments), "--home", str(home)]
    done = CliRunner().invoke(main, [*given, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), CliRunner().invoke(main, given).stdout


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two made-up sessions of one project."""
    home = tmp_path_factory.mktemp("pair")
    sessions.make(home, trials=12, seed=5)
    sessions.make(home, trials=9, seed=6, name="embedded-0-Another1")
    return home


def test_two_sessions(pair: Path, tmp_path: Path) -> None:
    document, text = ask(pair, sessions.NAME, "embedded-0-Another1", "--output", tmp_path / "page.html")
    a, b = document["a"], document["b"]
    assert (a["session"], b["session"]) == (sessions.NAME, "embedded-0-Another1")
    assert a["summary"]["kept"] == len(a["finds"]) > 0
    assert {w["name"] for w in a["weights"]} >= {"MATRIX_LR", "BATCH_SIZE"}
    assert sum(w["share"] for w in a["weights"]) == pytest.approx(1.0)
    assert any(entry["change"] == "MATRIX_LR -> 0.02" for entry in document["pairs"])
    assert "Tried by both" in text
    assert "gain an hour" in text
    page = (tmp_path / "page.html").read_text()
    assert "Found by embedded-0-Another1" in page
    assert "<script" not in page


def test_two_files_that_a_session_measured(pair: Path, tmp_path: Path) -> None:
    folder = pair / "work" / sessions.NAME
    session = journal.read(folder / "session.jsonl")
    tree = Workspace(folder / "tree", session.tag)
    kept = next(trial for trial in session.trials if trial.kept and trial.number)
    # The made-up journal names its fingerprints after trials; two of them get their real ones here.
    home = tmp_path / "home"
    shutil.copytree(pair, home)
    path = home / "work" / sessions.NAME / "session.jsonl"
    first = next(trial for trial in session.trials if trial.commit == kept.base)
    content, codes = path.read_text(), {}
    for trial in (first, kept):
        codes[trial.number] = tree.read(trial.commit, "train.py")
        content = content.replace(f'"{trial.fingerprint}"', f'"{hyperparameters.fingerprint(codes[trial.number])}"')
    path.write_text(content)
    (tmp_path / "a.py").write_text(codes[first.number])
    (tmp_path / "b.py").write_text(codes[kept.number])
    document, text = ask(home, tmp_path / "a.py", tmp_path / "b.py")
    measured = document["measured"][0]
    assert measured["delta"] == kept.delta
    assert measured["how"].startswith(f"trial {kept.number}, ")
    assert [name for name, *_ in document["constants"]] == [w["name"] for w in document["weights"]]
    assert f"{kept.delta:+.6f}" in text
    backwards, _ = ask(home, tmp_path / "b.py", tmp_path / "a.py")
    assert backwards["measured"][0]["delta"] == -(kept.delta or 0.0)


def test_two_files_that_nobody_measured(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(SOURCE)
    (tmp_path / "b.py").write_text(BOTH)
    document, text = ask(tmp_path, tmp_path / "a.py", tmp_path / "b.py")
    assert document["constants"] == [["LR", 0.1, 0.4], ["DEPTH", 2, 4]]
    assert document["measured"] == []
    assert "No session here measured both" in text


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a.py", "nowhere"), "One of the two is a file"),
        (("nowhere", "elsewhere"), "There is no session"),
        (("a.py", "broken.py"), "broken.py: The script is not valid Python"),
    ],
)
def test_what_cannot_be_compared(tmp_path: Path, names: tuple[str, str], words: str) -> None:
    (tmp_path / "a.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("def f(:\n")
    given = [str(tmp_path / name) if name.endswith(".py") else name for name in names]
    done = CliRunner().invoke(main, ["compare", *given, "--home", str(tmp_path)])
    assert done.exit_code == 1
    assert words in done.output
