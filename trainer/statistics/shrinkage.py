"""What a gain is worth that was chosen for looking good: empirical Bayes over a session's candidates. Pure.

A search keeps what measured well, and measured well is partly luck: of gains about as large as the noise, the kept ones
look half a sigma better than they are, and a confirming test that has to be passed chooses once more. Bayes' rule needs
no account of how something was chosen, only of what there was to choose from. So the prior is what the session's own
candidates say of each other: a candidate

- changes nothing, with a probability of its own (a spike at 0), or
- is better by an exponential gain, or
- is worse by an exponential loss (most are, and they must not be taken for noise).

The three shares and two means are those of maximum likelihood on all (delta, standard error) pairs, by EM, started from
and weighted with `BEFORE` candidates of a usual session, so that two trials do not settle it. The posterior mean and
standard deviation of a gain follow in closed form: that of an exponential under Gaussian noise is a truncated normal.

tests/benchmarks/bench_claims.py simulates sessions, and docs/measurements.md has what is left of the bias.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

BEFORE = 4.0
"""Candidates that the starting values count for."""

_ROUNDS = 50
Pair = tuple[float, float]
"""A measured delta and its standard error, in bpb."""


@dataclass(frozen=True, slots=True)
class Prior:
    """What candidates are worth: shares that sum to 1, and the mean `gain` and `loss` in bpb, both positive."""

    nothing: float
    better: float
    worse: float
    gain: float
    loss: float


@dataclass(frozen=True, slots=True)
class Posterior:
    """A true gain, in bpb, after what was measured."""

    mean: float
    sd: float


def usual(sigma: float) -> Prior:
    """A session before its first trial, on a machine whose runs scatter by `sigma` (bpb)."""
    return Prior(0.3, 0.2, 0.5, sigma, 6 * sigma)


def fitted(pairs: Sequence[Pair], sigma: float) -> Prior:
    """The prior of a session whose trials measured `pairs`, on a machine whose runs scatter by `sigma` (bpb)."""
    start = prior = usual(sigma)
    for _ in range(_ROUNDS):
        nothing, better, worse = (BEFORE * share for share in (start.nothing, start.better, start.worse))
        gains, losses = better * start.gain, worse * start.loss
        for delta, error in pairs:
            (none, _), (up, gained), (down, lost) = _parts(prior, delta, error)
            nothing, better, worse = nothing + none, better + up, worse + down
            gains, losses = gains + up * gained.mean, losses - down * lost.mean
        total = nothing + better + worse
        prior = Prior(nothing / total, better / total, worse / total, gains / better, losses / worse)
    return prior


def posterior(prior: Prior, delta: float, error: float) -> Posterior:
    """The true gain of a candidate that measured `delta` with that standard error; both in bpb."""
    parts = _parts(prior, delta, error)
    mean = math.fsum(weight * one.mean for weight, one in parts)
    square = math.fsum(weight * (one.sd**2 + one.mean**2) for weight, one in parts)
    return Posterior(mean, math.sqrt(max(0.0, square - mean**2)))


def together(prior: Prior, steps: Sequence[Pair], whole: Pair) -> Posterior:
    """The sum of the true gains of `steps`, each kept on top of the last, of which `whole` was measured afresh.

    Up to one step is exact; of more, the sum of their posteriors is taken as a normal one.
    """
    if len(steps) < 2:
        return posterior(prior, *_mean_of([*steps, whole]))
    each = [posterior(prior, *step) for step in steps]
    before = (math.fsum(one.mean for one in each), math.sqrt(math.fsum(one.sd**2 for one in each)))
    return Posterior(*_mean_of([before, whole]))


def _mean_of(measured: Iterable[Pair]) -> Pair:
    """Measurements of the same thing in one, by their precision."""
    weighted = [(delta, 1 / max(error, 1e-12) ** 2) for delta, error in measured]
    precision = math.fsum(weight for _, weight in weighted)
    return math.fsum(delta * weight for delta, weight in weighted) / precision, 1 / math.sqrt(precision)


def _parts(prior: Prior, delta: float, error: float) -> tuple[tuple[float, Posterior], ...]:
    """Of nothing, better and worse: the probability given what was measured, and the gain in that case."""
    up, gained = _exponential(delta, error, prior.gain)
    down, lost = _exponential(-delta, error, prior.loss)
    spike = -0.5 * (delta / error) ** 2 - math.log(error * math.sqrt(2 * math.pi))
    logs = [
        math.log(share) + density
        for share, density in ((prior.nothing, spike), (prior.better, up), (prior.worse, down))
    ]
    most = max(logs)
    weights = [math.exp(value - most) for value in logs]
    total = math.fsum(weights)
    none, better, worse = (weight / total for weight in weights)
    return (none, Posterior(0.0, 0.0)), (better, gained), (worse, Posterior(-lost.mean, lost.sd))


def _exponential(delta: float, error: float, mean: float) -> tuple[float, Posterior]:
    """The logarithm of the density of `delta` where the truth is exponential, and that truth's posterior."""
    z = delta / error - error / mean
    log_below, mills = _normal(z)
    density = -math.log(mean) - delta / mean + 0.5 * (error / mean) ** 2 + log_below
    return density, Posterior(error * (z + mills), error * math.sqrt(max(0.0, 1 - z * mills - mills**2)))


def _normal(z: float) -> Pair:
    """ln Φ(z) and φ(z) / Φ(z), by the asymptotic series where Φ is nearly nothing."""
    if z > -20:
        below = 0.5 * math.erfc(-z / math.sqrt(2))
        return math.log(below), math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / below
    series = 1 - 1 / z**2 + 3 / z**4 - 15 / z**6
    return -z * z / 2 - math.log(-z * math.sqrt(2 * math.pi)) + math.log(series), -z / series
