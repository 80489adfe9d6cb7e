"""What others found: approved code from a chain, earlier sessions of the home, and imported tables."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner

from chain.errors import ChainError
from chain.money.score import Convention
from miner.commands.main import main
from miner.context.context import SessionContext
from miner.proposers import clues, prompt, tables
from miner.proposers.base import Approved, Clue, Surroundings
from miner.session import briefing, others
from tests.miner import sessions
from tests.miner.proposers.test_tables import FIVE, SEVEN
from trainer.errors import TrainerError
from trainer.project import bundle

SOURCE = "LR = 0.1\nDEPTH = 2\n"
BETTER, BEST = SOURCE.replace("0.1", "0.2"), "LR = 0.2\nDEPTH = 4\n"


def context(home: Path, *approved: tuple[int, str | None, int], where: str = "") -> SessionContext:
    """A session's context beside a chain with approved proposals: id, code (None: it cannot be fetched), score."""
    listed = [
        SimpleNamespace(id=number, code_irys_id=number, code_hash=b"", miner=b"", verified_aggregate_score=score)
        for number, _, score in reversed(approved)
    ]
    codes = {number: code for number, code, _ in approved}

    def fetch(number: int, *_: object) -> bytes:
        code = codes[number]
        if code is None:
            raise ChainError("The gateway is away.")
        return bundle.pack({"train.py": code.encode()})

    return cast(
        "SessionContext",
        SimpleNamespace(
            follower=SimpleNamespace(proposals=lambda _: listed),
            connection=SimpleNamespace(fetch=fetch),
            convention=Convention("negated", -2_500_000),
            project=SimpleNamespace(baseline_aggregate_score=-2_500_000),
            task=SimpleNamespace(files={"train.py": SOURCE.encode()}),
            folder=home / "work" / "embedded-0-Another1",
            bench=SimpleNamespace(machine=SimpleNamespace(hardware_class=where)),
        ),
    )


def test_the_steps_between_approved_codes_are_diffs_and_strong_hints(tmp_path: Path) -> None:
    found = others.gather(context(tmp_path, (3, BETTER, -2_400_000), (5, BEST, -2_310_000)))
    assert found.approved == (
        Approved(3, 0.1, "@@ -1,2 +1,2 @@\n-LR = 0.1\n+LR = 0.2\n DEPTH = 2"),
        Approved(5, 0.09, "@@ -1,2 +1,2 @@\n LR = 0.2\n-DEPTH = 2\n+DEPTH = 4"),
    )
    assert found.clues == (
        Clue("LR", 0.1, 0.2, 0.1, clues.APPROVED),
        Clue("DEPTH", 2, 4, 0.09, clues.APPROVED),
    )


def test_a_code_that_cannot_be_fetched_breaks_the_chain_at_its_place_only(tmp_path: Path) -> None:
    found = others.gather(
        context(
            tmp_path, (1, BETTER, -2_400_000), (2, None, -2_350_000), (3, BEST, -2_310_000), (4, SOURCE, -2_300_000)
        )
    )
    assert [step.proposal for step in found.approved] == [1, 4]


def test_of_a_long_history_the_newest_are_fetched(tmp_path: Path) -> None:
    many = [(n, f"LR = {n}\n", -2_500_000 + n) for n in range(30)]
    found = others.gather(context(tmp_path, *many))
    assert [step.proposal for step in found.approved] == list(range(19, 30))


def test_a_chain_that_does_not_answer_stops_nothing(tmp_path: Path) -> None:
    silent = context(tmp_path)

    def refuse(_: object) -> Any:
        raise ChainError("It timed out.")

    silent.follower.proposals = refuse  # type: ignore[method-assign, assignment]
    assert others.gather(silent) == others.Found()


def test_earlier_sessions_on_this_class_of_machine_tell(night: Path) -> None:
    told = others.gather(context(night, where="made-up-machine-16c")).clues
    assert any(clue.name == "MATRIX_LR" and (clue.gain or 0) > 0 for clue in told)
    assert others.gather(context(night, where="another-machine")).clues == ()


def test_imported_tables_are_weak_hints(tmp_path: Path) -> None:
    (tmp_path / "results.tsv").write_text(FIVE)
    (tmp_path / "fork").mkdir()
    (tmp_path / "fork" / "results.tsv").write_text(SEVEN)
    home = tmp_path / "home"
    files = [str(tmp_path / "results.tsv"), str(tmp_path / "fork" / "results.tsv")]
    done = CliRunner().invoke(main, ["import", *files, files[0], "--json", "--home", str(home)])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert [(entry["rows"], entry["hints"]) for entry in document] == [(4, 3), (2, 1), (4, 3)]
    assert len(list((home / "imported").glob("results-*.tsv"))) == 2
    told = others.gather(context(home)).clues
    assert {clue.name for clue in told} == {"WEIGHT_DECAY", "MATRIX_LR", "TOTAL_BATCH_SIZE", "edit:silu"}
    assert {clue.weight for clue in told} == {tables.HEARD}


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.tsv").write_text("nothing of the kind\n")
    with pytest.raises(TrainerError, match="no row with a status"):
        others.take(tmp_path / "home", tmp_path / "notes.tsv")
    (tmp_path / "huge.tsv").write_bytes(b"x" * (others.MAX_TABLE + 1))
    with pytest.raises(TrainerError, match="larger than 4 MiB"):
        others.take(tmp_path / "home", tmp_path / "huge.tsv")
    assert not (tmp_path / "home").exists()


def test_the_prompt_of_a_real_journal_and_git_tree_tells_all_that_was_measured(night: Path) -> None:
    """A night's journal, logs and git tree as the session writes them; the prompt as an agent gets it."""
    from miner.journal import journal
    from miner.journal.worktree import Workspace
    from trainer.project import protocol, recipe

    folder = night / "work" / sessions.NAME
    session = journal.read(folder / "session.jsonl")
    around = Surroundings(
        sigma=0.0061,
        hardware="made-up-machine-16c",
        program="Be bold.",
        clues=[Clue("DEPTH", 4, 8, 0.02, 1.0)],
        approved=[Approved(3, 0.1, "@@ -1 +1 @@\n-LR = 0.1\n+LR = 0.2")],
    )
    parsed = protocol.parse(recipe.load("smoke").files["protocol.json"])
    workspace = Workspace(folder / "tree", session.tag)
    seen = briefing.gather(session, workspace, parsed, folder, seconds_left=None, around=around)
    text = prompt.build(seen, "Answer.", with_source=True)
    kept = [trial for trial in session.trials if trial.kept and trial.number]
    near = max((t for t in session.trials if t.decision == "discard"), key=lambda t: t.delta or -9.0)
    for words in (
        "The noise of one run is 0.00610 val_bpb",
        "made-up-machine-16c",
        "Be bold.",
        "DEPTH: 4 -> 8: +0.02000",
        "proposal 3 (+0.100000 better):\n@@ -1 +1 @@\n-LR = 0.1\n+LR = 0.2",
        f"trial {kept[-1].number} (keep):\n@@ ",
        f"trial {near.number} (discard):\n@@ ",  # the archive: near misses
        "AssertionError: MODEL_DIM must be divisible by HEAD_DIM",  # and a crash that one fix would mend
        f"{kept[-1].delta:+.6f} better, interval {kept[-1].low:+.5f} to {kept[-1].high:+.5f}",
        "tokens/s, 9120 MB, loss ",
        workspace.read(workspace.head(), "train.py").rstrip(),
    ):
        assert words in text, words
    assert "\x1b" not in text
    assert len(text) < 120_000
