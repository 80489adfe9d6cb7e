"""Clues: what the step between two scripts, a trial or a row of a table says, and how far it moves a look."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from miner.proposers import clues, space
from miner.proposers.base import Candidate, Clue
from miner.proposers.tune import Tune
from tests.miner.proposers.support import baseline, context, tried

SOURCE = "MATRIX_LR = 0.02\nWEIGHT_DECAY = 0.1\nDEPTH = 4\n"


def test_a_step_between_scripts() -> None:
    found = clues.between(SOURCE, SOURCE.replace("0.1", "0.0").replace("DEPTH = 4", "DEPTH = 6"), 0.02, 1.0)
    assert found == [Clue("WEIGHT_DECAY", 0.1, 0.0, 0.02, 0.5), Clue("DEPTH", 4, 6, 0.02, 0.5)]
    assert clues.between(SOURCE, "def f(:", 0.1, 1.0) == []


def test_the_trials_of_a_session_and_their_edits() -> None:
    made = [Candidate(SOURCE.replace("0.02", "0.04"), "x"), Candidate(SOURCE + "X = 1\n", "edit silu: SiLU")]
    history = [baseline(SOURCE), *(tried(n, c, SOURCE, -0.01) for n, c in enumerate(made, 1))]
    assert clues.of_trials(history) == [
        Clue("MATRIX_LR", 0.02, 0.04, -0.01, clues.OWN),
        Clue("edit:silu", None, None, -0.01, clues.OWN),
    ]


def test_what_won_elsewhere_comes_earlier_and_what_lost_later() -> None:
    dims = space.dimensions(SOURCE)
    won = [Clue("WEIGHT_DECAY", 0.2, 0.0, 0.05, 1.0)]
    lost = [Clue("WEIGHT_DECAY", 0.2, 0.0, -0.05, 1.0)]
    off = {"WEIGHT_DECAY": 0.0}
    assert clues.factor(won, off, dims) > 2 > 1 > clues.factor(lost, off, dims)
    assert clues.factor(won, {"WEIGHT_DECAY": 1.0}, dims) == 1
    assert clues.factor(won, {"DEPTH": 8}, dims) == 1
    assert clues.values([Clue("DEPTH", 4, 7, 0.1, 1.0)], dims) == [("DEPTH", 7, 2.3)]


def test_a_value_that_was_approved_elsewhere_is_looked_at_first(tmp_path: Path) -> None:
    told = [Clue("DEPTH", 4, 7, 0.2, clues.APPROVED)]
    seen = replace(context(tmp_path, [baseline(SOURCE)], source=SOURCE), clues=told)
    found = Tune(1).propose(seen)
    assert found is not None
    assert found.hypothesis == "DEPTH 4 -> 7"


def test_names_of_other_scripts_for_the_same_thing_count() -> None:
    dims = space.dimensions("EMBED_LR = 0.3\nWARMDOWN_FRACTION = 0.5\nBATCH_SIZE = 16\nLOGIT_CAP = 15.0\n")
    for name, old, new, here in (
        ("EMBEDDING_LR", 0.1, 0.4, {"EMBED_LR": 0.6}),
        ("WARMDOWN_RATIO", 0.3, 0.5, {"WARMDOWN_FRACTION": 0.8}),
        ("TOTAL_BATCH_SIZE", 2**18, 2**16, {"BATCH_SIZE": 8}),
        ("SOFTCAP", 30, 15, {"LOGIT_CAP": 7.5}),
    ):
        assert clues.factor([Clue(name, old, new, 0.01, 1.0)], here, dims) > 1.5
    # tokens are no rows: what is too far away to be the same unit is no value to look at
    assert clues.values([Clue("TOTAL_BATCH_SIZE", 2**18, 2**16, 0.3, 1.0)], dims) == []
    assert clues.values([Clue("SOFTCAP", 15, 30, 0.3, 0.25)], dims) == [("LOGIT_CAP", 30.0, 0.75)]


def test_a_name_that_may_be_two_things_counts_for_neither() -> None:
    dims = space.dimensions("BATCH_SIZE = 16\nTOTAL_BATCH_SIZE = 65536\n")
    assert clues.factor([Clue("BATCH", 16, 8, 0.01, 1.0)], {"BATCH_SIZE": 8}, dims) == 1
    assert clues.factor([Clue("BATCH_SIZE", 16, 8, 0.01, 1.0)], {"BATCH_SIZE": 8}, dims) > 1.5
