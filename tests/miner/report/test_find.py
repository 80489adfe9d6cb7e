"""A find on one screen: its line, its diff and the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from miner.journal.journal import TrialRecord
from miner.journal.run import RunRecord
from miner.report import find, summary
from miner.session import ending
from tests.miner.fakes import SOURCE, Fake
from trainer.statistics.comparison import Arm

BETTER = SOURCE.replace("0.1", "0.2")
DIFF = "diff --git a/t b/t\nindex 1..2 100644\n--- a/t\n+++ b/t\n@@ -1,2 +1,2 @@\n-LR = 0.1\n+LR = 0.2\n DEPTH = 2\n"


def trial(delta: float | None = 0.2387, low: float | None = 0.2087, high: float | None = 0.2687) -> TrialRecord:
    run = RunRecord(Arm.CANDIDATE, 2.603, "", "", 1.0, None)
    words = "HEAD_LR 0.001 -> 0.002: heads learn slowly"
    return TrialRecord(3, words, "", "c", "b", [run], "keep", delta, low, high)


@pytest.mark.parametrize(
    ("of", "state", "fate", "line"),
    [
        (
            trial(),
            "approved",
            "approved: +1 SMOKE, stake of 1 SMOKE returned",
            "HEAD_LR 0.001 → 0.002: −8.4 % (−0.2387 ± 0.03), approved, +1 SMOKE",
        ),
        (trial(), "kept", "", "HEAD_LR 0.001 → 0.002: −8.4 % (−0.2387 ± 0.03)"),
        (trial(low=None), "confirmed", "", "HEAD_LR 0.001 → 0.002: −8.4 % (−0.2387), confirmed"),
        (
            trial(),
            "rejected",
            "rejected: stake of 1 SMOKE lost",
            "HEAD_LR 0.001 → 0.002: −8.4 % (−0.2387 ± 0.03), rejected",
        ),
        (trial(delta=None), "kept", "", "HEAD_LR 0.001 → 0.002"),
    ],
)
def test_the_headline(of: TrialRecord, state: str, fate: str, line: str) -> None:
    assert find.headline(of, state, fate) == line


def test_a_diff_is_its_changed_lines_in_colour_and_bounded() -> None:
    assert find.diff_lines(DIFF) == [
        ("    @@ -1,2 +1,2 @@", "cyan"),
        ("    -LR = 0.1", "red"),
        ("    +LR = 0.2", "green"),
    ]
    long = find.diff_lines("@@ @@\n" + "+x\n" * 100, most=10)
    assert long[-1] == ("    … 91 more lines", "dim")
    assert len(long) == 11
    assert find.diff_lines("+\x1b[31mred\u202e")[0][0] == "    +[31mred"


def test_the_end_of_a_session_shows_its_finds_and_one_without_says_nothing(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "home" / "work" / "fake-0-Someone1", {})
    ending.show_finds(fake.context)
    assert fake.said == []
    fake.trial(SOURCE, decision="keep", delta=0.0)
    ending.show_finds(fake.context)
    assert fake.said == []
    fake.trial(BETTER)
    fake.run(Arm.CANDIDATE, 2.3)
    fake.decide("keep", 0.2)
    ending.show_finds(fake.context)
    headline, *diff, command = fake.said
    assert headline == "idea 1: −8.0 % (−0.2000)"
    assert [line.strip() for line in diff] == ["@@ -1,2 +1,2 @@", "-LR = 0.1  # rate", "+LR = 0.2  # rate"]
    assert "miner report --session fake-0-Someone1" in command


def test_what_was_disproved_is_no_find(tmp_path: Path) -> None:
    fake = Fake(tmp_path, {})
    fake.trial(SOURCE, decision="keep", delta=0.0)
    fake.frontier()
    kept = fake.trial(BETTER)
    fake.decide("keep", 0.2)
    about = {"trial": 1, "commit": kept.commit, "against": fake.context.session.frontiers[-1].commit}
    fake.journal.append("confirming", **about, seed=1, holdout_seed="", noise={})
    numbers = dict.fromkeys(("low", "high", "p", "holdout_delta"))
    fake.journal.append("confirmed", passed=False, reason="no gain", delta=-0.1, **numbers)
    assert list(find.screen(fake.context.session, "", "miner report")) == []


def test_a_change_is_named_in_short() -> None:
    assert summary.change("DEPTH 1 -> 2: more layers") == "DEPTH 1 → 2"
    assert len(summary.change("x" * 500)) == 60
    many = "MATRIX_LR 0.01 -> 0.04, EMBED_LR 0.01 -> 0.04, HEAD_LR 0.001 -> 0.004"
    assert summary.change(many, 70) == many.replace("->", "→")
    assert summary.change(many) == "MATRIX_LR 0.01 → 0.04, EMBED_LR 0.01 → 0.04, +1 more"
    assert summary.change(many, 30) == "MATRIX_LR 0.01 → 0.04, +2 more"
    assert summary.change(many, 20) == "MATRIX_LR 0.01 → 0.…"
