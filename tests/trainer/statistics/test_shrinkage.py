"""Shrinking what was chosen for looking good: against numerical integration, and in simulated sessions."""

from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest

from tests.benchmarks.bench_claims import session
from trainer.statistics.shrinkage import Prior, fitted, posterior, together, usual

PRIOR = Prior(0.3, 0.2, 0.5, 2.0, 6.0)


@pytest.mark.parametrize("delta", [-40.0, -3.0, -0.2, 0.0, 0.5, 2.0, 4.0, 30.0])
@pytest.mark.parametrize("error", [0.05, 0.7, 3.0])
def test_it_is_the_integral(delta: float, error: float) -> None:
    grid = np.linspace(-80, 80, 640_001)
    width = grid[1] - grid[0]
    density = np.where(grid > 0, PRIOR.better / PRIOR.gain * np.exp(-np.abs(grid) / PRIOR.gain), 0) + np.where(
        grid < 0, PRIOR.worse / PRIOR.loss * np.exp(-np.abs(grid) / PRIOR.loss), 0
    )
    likely = np.exp(-0.5 * ((delta - grid) / error) ** 2)
    weights = density * likely * width
    total = weights.sum() + PRIOR.nothing * math.exp(-0.5 * (delta / error) ** 2)
    mean = float((weights * grid).sum() / total)
    sd = math.sqrt(float((weights * grid**2).sum() / total) - mean**2)
    found = posterior(PRIOR, delta, error)
    assert found.mean == pytest.approx(mean, abs=2e-3)
    assert found.sd == pytest.approx(sd, abs=3e-3)


def test_what_is_clear_stays() -> None:
    found = posterior(usual(1.0), 60.0, 1.0)
    assert found.mean == pytest.approx(59.0)
    assert found.sd == pytest.approx(1.0)


def test_two_measurements_of_one_gain_are_one_better_one() -> None:
    found, once = together(PRIOR, [(3.0, 1.0)], (1.0, 1.0)), posterior(PRIOR, 2.0, math.sqrt(0.5))
    assert found.mean == pytest.approx(once.mean)
    assert found.sd == pytest.approx(once.sd)
    assert together(PRIOR, [], (1.0, 1.0)) == posterior(PRIOR, 1.0, 1.0)


def test_steps_add_up() -> None:
    found = together(PRIOR, [(30.0, 1.0), (20.0, 1.0)], (50.0, 1.0))
    assert 48 < found.mean < 50
    assert found.sd < 1.0


@pytest.mark.parametrize("shares", [(0.2, 0.1, 0.7), (0.6, 0.3, 0.1)])
def test_it_finds_the_prior_that_made_the_session(shares: tuple[float, float, float]) -> None:
    rng = random.Random(1)
    truths = [drawn(rng, shares, 2.0, 5.0) for _ in range(1500)]
    prior = fitted([(truth + rng.gauss(0, 0.8), 0.8) for truth in truths], 1.0)
    assert (prior.nothing, prior.better, prior.worse) == pytest.approx(shares, abs=0.06)
    assert (prior.gain, prior.loss) == pytest.approx((2.0, 5.0), rel=0.25)


def drawn(rng: random.Random, shares: tuple[float, float, float], gain: float, loss: float) -> float:
    kind = rng.choices(("nothing", "better", "worse"), shares)[0]
    return 0.0 if kind == "nothing" else rng.expovariate(1 / gain) if kind == "better" else -rng.expovariate(1 / loss)


@pytest.mark.slow
def test_claims_that_were_chosen_promise_what_they_hold() -> None:
    """Gains of one sigma in the mean, the prior from the session itself: most of the bias of the claim goes."""
    rng = random.Random(1)
    found = [one for _ in range(160) for one in session(rng, 1.0)]
    errors = [[one.measured - one.truth for one in found], [one.claimed - one.truth for one in found]]
    raw, shrunk = map(statistics.fmean, errors)
    assert raw > 0.1
    assert 0.1 < raw - shrunk < 0.25  # the bias itself is known only to 0.05 from so few
    assert statistics.fmean(x * x for x in errors[1]) < statistics.fmean(x * x for x in errors[0])
