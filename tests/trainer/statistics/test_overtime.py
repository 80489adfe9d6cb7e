"""The charge for training time beyond the incumbent's own."""

from __future__ import annotations

import math
import random

import pytest

from trainer.statistics.overtime import TimeSlope, assumed_slope, charge, measured_slope, negligible, overtime


@pytest.mark.parametrize(
    ("seconds", "incumbent", "budget", "extra"),
    [
        (6.5, 6.5, 6.0, 0.0),
        (6.4, 6.5, 6.0, 0.0),
        (8.5, 6.5, 6.0, 2.0),
        (6.0, 6.0, 6.0, 0.0),
        (8.0, 3.0, 6.0, 0.0),  # the incumbent leaves its budget unused
        (309.0, 304.0, 300.0, 5.0),
    ],
)
def test_overtime(seconds: float, incumbent: float, budget: float, extra: float) -> None:
    assert overtime(seconds, incumbent, budget) == pytest.approx(extra)


@pytest.mark.parametrize(
    ("extra", "budget", "slope", "bpb"),
    [
        (0.0, 6.0, TimeSlope(0.31, 0.01), 0.0),
        (2.0, 6.0, TimeSlope(0.31, 0.0), 0.31 * math.log(8 / 6)),
        (2.0, 6.0, TimeSlope(0.31, 0.01), 0.33 * math.log(8 / 6)),
        (9.0, 300.0, TimeSlope(0.139, 0.0), 0.139 * math.log(1.03)),
        (2.0, 6.0, TimeSlope(0.0, 0.0), 0.0),
        (2.0, 6.0, assumed_slope(2.4), 0.72 * math.log(8 / 6)),
    ],
)
def test_charge(extra: float, budget: float, slope: TimeSlope, bpb: float) -> None:
    assert charge(extra, budget, slope) == pytest.approx(bpb)


def test_a_slope_is_measured_between_two_budgets() -> None:
    found = measured_slope(2.4, 4, 6.5, 2.4 + 0.31 * math.log(2), 3.5, 6.0, 0.006)
    assert found is not None
    assert found.bpb == pytest.approx(0.31)
    assert found.error == pytest.approx(0.006 * math.sqrt(1.25) / math.log(2))
    unknown = measured_slope(2.4, 1, 6.5, 2.6, 3.5, 6.0, None)
    assert unknown is not None
    assert unknown.error > found.error


@pytest.mark.parametrize(("short_seconds", "short_value"), [(6.5, 2.4), (5.1, 2.5), (7.0, 9.0)])
def test_a_short_run_that_took_its_time_says_nothing(short_seconds: float, short_value: float) -> None:
    assert measured_slope(2.4, 1, 6.5, short_value, short_seconds, 6.0, 0.006) is None


@pytest.mark.parametrize(
    ("extra", "budget", "sigma", "small"),
    [
        (0.05, 6.0, 0.03, True),
        (0.05, 6.0, 0.006, False),
        (2.0, 6.0, 0.03, False),
        (0.5, 300.0, 0.01, True),
        (9.0, 300.0, 0.01, False),
        (0.05, 6.0, None, True),
    ],
)
def test_negligible(extra: float, budget: float, sigma: float | None, small: bool) -> None:
    assert negligible(extra, budget, 2.4, sigma) is small


def test_no_slope_pays() -> None:
    found = measured_slope(2.4, 1, 6.5, 2.39, 3.5, 6.0, 0.006)  # a short run that was lucky
    assert found is not None
    assert found.bpb == 0
    assert charge(2.0, 6.0, found) > 0


@pytest.mark.parametrize("extra", [0.1, 0.5, 1.0, 2.0])
def test_time_on_top_is_not_worth_taking(extra: float) -> None:
    """The same script with more time, on a curve with run noise: charged, it is no better, in 19 of 20 cases."""
    rng, slope, sigma, budget = random.Random(3), 0.31, 0.006, 6.0

    def run(seconds: float) -> float:
        return 2.4 - slope * math.log(seconds / budget) + rng.gauss(0, sigma)

    better = 0
    for _ in range(400):
        full = [run(budget) for _ in range(3)]
        found = measured_slope(sum(full) / 3, 3, 6.5, run(budget / 2), 3.5, budget, sigma)
        assert found is not None
        gained = slope * math.log1p(extra / budget)
        better += charge(extra, budget, found) < gained
    assert better <= 400 // 20
