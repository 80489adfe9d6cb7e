"""What holdout text says of a gain, as tables, and the error rates it is built for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.benchmarks.bench_holdout import Setting, simulate
from tests.trainer.judging.cases import NOISE, SIGMA, replay_run
from trainer.judging.holdout_gain import HoldoutResult, holdout_outcome
from trainer.judging.judge import compared
from trainer.judging.policy import HoldoutPolicy, JudgePolicy
from trainer.judging.runs import ReplayRun
from trainer.judging.verdict import GainOutcome
from trainer.statistics.error_rates import LookEvidence

POLICY = HoldoutPolicy()
BLOCKS = 16


def runs(holdout_gain: float, by_block: float, gain: float = 0.2, count: int = 5) -> list[ReplayRun]:
    """`count` runs of each arm; the gain on holdout text differs from block to block by `by_block` (bpb of a block)."""
    rng = random.Random(1)
    off = [rng.gauss(0, by_block) for _ in range(BLOCKS)]
    middle = sum(off) / BLOCKS
    found = []
    for _ in range(count):
        for arm, better, fresher in (("incumbent", 0.0, 0.0), ("candidate", gain, holdout_gain)):
            moved = rng.gauss(0, SIGMA)
            blocks = [(2.6 - fresher + moved + (x - middle if fresher else 0.0)) / BLOCKS for x in off]
            found.append(replay_run(arm, 2.5 - better + moved, sum(blocks), holdout_blocks=tuple(blocks)))
    return found


def said(measured: Sequence[ReplayRun]) -> HoldoutResult | None:
    _, seen = compared(measured, NOISE, JudgePolicy(), 1)
    assert seen is not None
    return holdout_outcome(measured, seen, POLICY)


@pytest.mark.parametrize(
    ("holdout_gain", "by_block", "outcome"),
    [
        (0.2, 0.0, GainOutcome.BETTER),
        (0.12, 0.0, GainOutcome.BETTER),  # smaller, but there
        (0.08, 0.0, GainOutcome.UNDECIDED),  # there, but too small: memorised, or text unlike the validation text
        (-0.02, 0.0, GainOutcome.NOT_BETTER),
        (-0.1, 0.0, GainOutcome.NOT_BETTER),
        # the same on text whose documents differ so much that it says little
        (0.2, 1.0, GainOutcome.UNDECIDED),
        (0.12, 0.1, GainOutcome.UNDECIDED),
        (-0.02, 1.0, GainOutcome.UNDECIDED),
        (-0.1, 0.1, GainOutcome.NOT_BETTER),
    ],
)
def test_outcome(holdout_gain: float, by_block: float, outcome: GainOutcome) -> None:
    found = said(runs(holdout_gain, by_block))
    assert found is not None
    assert found.outcome is outcome
    assert found.low < found.delta < found.high
    assert (found.text_error > 0.01) == (by_block > 0)


def test_without_blocks_of_both_there_is_no_answer() -> None:
    whole = runs(0.2, 0.0)
    _, seen = compared(whole, NOISE, JudgePolicy(), 1)
    assert isinstance(seen, LookEvidence)
    for changes in (
        {"holdout_bpb": None, "holdout_blocks": None},
        {"holdout_blocks": None},
        {"holdout_blocks": (2.6,)},
    ):
        for arms in (("incumbent", "candidate"), ("incumbent",)):
            bare = [replace(run, **changes) if run.arm in arms else run for run in whole]
            assert holdout_outcome(bare, seen, POLICY) is None


@pytest.mark.slow
@pytest.mark.parametrize("document", [0.001, 0.03])
def test_honest_gains_are_not_rejected_and_memorised_ones_do_not_pass(document: float) -> None:
    """On a short text, whose documents are alike or differ much: as the rule that knew run noise only did not."""
    honest, before = simulate(Setting(16_384, 3.0, 1.0, document), 60, JudgePolicy())
    assert honest.rejected <= 0.02
    assert document < 0.01 or before.rejected > 0.05
    memorised, before = simulate(Setting(16_384, 3.0, 0.35, document), 60, JudgePolicy(), seed=2)
    assert memorised.passed <= 0.07
    assert before.passed > 0.2
