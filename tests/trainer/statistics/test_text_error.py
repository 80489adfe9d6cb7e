"""The error of a gain that comes from the choice of text."""

from __future__ import annotations

import random
import statistics

import pytest

from trainer.statistics.text_error import text_error

HARD = [0.2, 0.05, 0.1, 0.15] * 8  # some blocks cost more than others, in both arms


def test_what_both_arms_find_hard_cancels() -> None:
    found = text_error([HARD, HARD], [[x - 0.001 for x in HARD]])
    assert found is not None
    assert found[0] == pytest.approx(0.0, abs=1e-12)
    assert found[1] == 15.5


def test_it_is_the_spread_of_the_sum_over_other_texts() -> None:
    rng, errors, gains = random.Random(1), [], []
    for _ in range(3000):
        gain = [rng.gauss(0.001, 0.002) for _ in HARD]
        gains.append(sum(gain))
        found = text_error([HARD] * 3, [[x - g for x, g in zip(HARD, gain, strict=True)]] * 3)
        assert found is not None
        errors.append(found[0] ** 2)
    # the covariance of neighbours counts only upwards, so it is a little on the safe side
    assert 1.0 <= statistics.fmean(errors) / statistics.variance(gains) < 1.4


def test_documents_longer_than_a_block_are_allowed_for() -> None:
    rng, errors, gains = random.Random(2), [], []
    for _ in range(3000):
        gain = [g for _ in range(len(HARD) // 2) for g in [rng.gauss(0.0, 0.002)] * 2]
        gains.append(sum(gain))
        found = text_error([HARD], [[x - g for x, g in zip(HARD, gain, strict=True)]])
        assert found is not None
        errors.append(found[0] ** 2)
    assert statistics.fmean(errors) / statistics.variance(gains) > 0.9


@pytest.mark.parametrize(
    ("incumbent", "candidate"),
    [([], [HARD]), ([HARD], []), ([HARD], [HARD[:-1]]), ([[1.0]], [[0.9]]), ([[]], [[]])],
)
def test_without_blocks_of_both_there_is_none(incumbent: list[list[float]], candidate: list[list[float]]) -> None:
    assert text_error(incumbent, candidate) is None
