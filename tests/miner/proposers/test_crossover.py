"""What another line found, or what nearly won, is offered again on the incumbent of now: once, and where it fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from miner.proposers.base import Candidate, Context, Tried
from miner.proposers.crossover import Crossover
from tests.miner.proposers.support import baseline, context, tried

SOURCE = "".join(f"{name} = 1\n\n\n" for name in ("A", "B", "C", "D"))


def turned(source: str, *names: str) -> str:
    for name in names:
        source = source.replace(f"{name} = 1", f"{name} = 2")
    return source


def trial(number: int, source: str, base: str, delta: float, *, kept: bool = False) -> Tried:
    return tried(number, Candidate(source, f"idea {number}"), base, delta, "keep" if kept else "discard")


def seen(folder: Path, history: list[Tried], source: str) -> Context:
    return replace(context(folder, history, source=source), sigma=0.01)


def offers(folder: Path, history: list[Tried], source: str) -> list[tuple[str, str]]:
    """Everything it offers, each discarded in turn."""
    found: list[tuple[str, str]] = []
    while (candidate := Crossover().propose(seen(folder, history, source))) is not None:
        found.append((candidate.hypothesis, candidate.source))
        history = [*history, tried(history[-1].number + 1, candidate, source, -0.01)]
        assert len(found) < 10
    return found


def test_nothing_before_the_incumbent_moves(tmp_path: Path) -> None:
    history = [baseline(SOURCE), trial(1, turned(SOURCE, "A"), SOURCE, 0.05)]
    assert offers(tmp_path, history, SOURCE) == []


def test_near_finds_on_the_new_best_the_largest_first(tmp_path: Path) -> None:
    best = turned(SOURCE, "D")
    history = [
        baseline(SOURCE),
        trial(1, turned(SOURCE, "A"), SOURCE, 0.02),
        trial(2, turned(SOURCE, "B"), SOURCE, 0.03),
        trial(3, turned(SOURCE, "C"), SOURCE, 0.005),  # within the noise of a run
        trial(4, best, SOURCE, 0.2, kept=True),
    ]
    assert offers(tmp_path, history, best) == [
        ("crossover: trial 2 on the best: idea 2", turned(SOURCE, "B", "D")),
        ("crossover: trial 1 on the best: idea 1", turned(SOURCE, "A", "D")),
    ]


def test_a_line_that_somebody_elses_best_replaced_is_tried_whole_and_then_by_steps(tmp_path: Path) -> None:
    first, theirs = turned(SOURCE, "A"), turned(SOURCE, "D")
    tip = turned(first, "B")
    history = [baseline(SOURCE), trial(1, first, SOURCE, 0.03, kept=True), trial(2, tip, first, 0.05, kept=True)]
    assert offers(tmp_path, history, tip) == []
    assert offers(tmp_path, history, theirs) == [
        ("crossover: trials 1 to 2 on the best: idea 2", turned(SOURCE, "A", "B", "D")),
        ("crossover: trial 2 on the best: idea 2", turned(SOURCE, "B", "D")),
        ("crossover: trial 1 on the best: idea 1", turned(SOURCE, "A", "D")),
    ]


def test_what_conflicts_or_is_there_already_is_passed_over(tmp_path: Path) -> None:
    best = SOURCE.replace("A = 1", "A = 3")
    history = [
        baseline(SOURCE),
        trial(1, turned(SOURCE, "A"), SOURCE, 0.05),  # its line reads otherwise now
        trial(2, SOURCE.replace("A = 1", "A = 3"), turned(SOURCE, "B"), 0.04),  # its base was not measured here
        trial(3, best, SOURCE, 0.2, kept=True),
    ]
    assert offers(tmp_path, history, best) == []
