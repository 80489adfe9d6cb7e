"""A local response surface: how the gain depends on the coordinates near the incumbent, and how sure that is.

Each ordered dimension has a slope and a curvature, each unordered choice a value of its own; the gain of a move is
the difference between its ends plus noise that grows with the move's length, since a parabola holds only nearby.
That is linear in the unknowns, so with Gaussian priors the posterior is exact: ridge regression with a covariance.
The prior's scale and the noise are those of a small grid that make the observed gains most likely. `draw` takes
one surface from the posterior (Thompson sampling): the best move on it is worth a trial, because it is good
or because it is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from miner.proposers.evidence import Move, Point
from miner.proposers.space import Dimension

Vector = np.ndarray[Any, np.dtype[np.float64]]

_SCALES = (0.15, 0.5, 1.5)  # of the prior, in units of the observed gains' size
_NOISES = (0.1, 0.3, 1.0)
_UNSEEN = 0.01  # bpb per step before anything was observed; only its ratio to itself matters then


@dataclass(frozen=True, slots=True)
class GainSurface:
    """The posterior over the unknowns of `dims` about `origin`."""

    dims: Sequence[Dimension]
    origin: Point
    mean: Vector
    root: Vector  # the covariance's square root, lower triangular

    def draw(self, rng: np.random.Generator) -> Vector:
        """One set of unknowns from the posterior."""
        return np.asarray(self.mean + self.root @ rng.standard_normal(len(self.mean)))

    def gain(self, unknowns: Vector, end: Point) -> float:
        """The gain of moving from the origin to `end`, in bpb."""
        return float(_features(self.dims, self.origin, end) @ unknowns)


def fit(dims: Sequence[Dimension], origin: Point, moves: Sequence[Move]) -> GainSurface:
    """The surface after `moves`; crashes tell nothing here."""
    seen = [move for move in moves if move.gain is not None]
    prior_mean, prior_deviation = _prior(dims)
    size = float(np.median([abs(move.gain or 0.0) for move in seen])) if seen else _UNSEEN
    size = max(size, 1e-6)
    rows = np.array([_features(dims, origin, m.end) - _features(dims, origin, m.start) for m in seen])
    gains = np.array([move.gain or 0.0 for move in seen])
    length = np.array([1.0 + 0.5 * sum((b - a) ** 2 for a, b in zip(m.start, m.end, strict=True)) for m in seen])
    best: tuple[float, Vector, Vector] | None = None
    for scale in _SCALES if seen else (1.0,):
        mean, covariance = prior_mean * scale * size, np.diag((prior_deviation * scale * size) ** 2)
        for noise in _NOISES if seen else (1.0,):
            if not seen:
                best = (0.0, mean, covariance)
                continue
            spread = rows @ covariance @ rows.T + np.diag((noise * size) ** 2 * length)
            residual = gains - rows @ mean
            solved = np.linalg.solve(spread, np.column_stack([residual, rows @ covariance]))
            likelihood = -0.5 * (float(residual @ solved[:, 0]) + float(np.linalg.slogdet(spread)[1]))
            if best is None or likelihood > best[0]:
                gain = rows @ covariance
                best = (likelihood, mean + gain.T @ solved[:, 0], covariance - gain.T @ solved[:, 1:])
    assert best is not None
    _, mean, covariance = best
    floor = 1e-9 * max(float(np.trace(covariance)) / len(mean), 1e-12)
    return GainSurface(
        dims, origin, mean, np.asarray(np.linalg.cholesky(covariance + floor * np.eye(len(mean))), np.float64)
    )


def _features(dims: Sequence[Dimension], origin: Point, at: Point) -> Vector:
    found: list[float] = []
    for dimension, centre, coordinate in zip(dims, origin, at, strict=True):
        if dimension.scale == "choice":
            found += [float(round(coordinate) == index) for index in range(len(dimension.choices))]
        else:
            found += [coordinate - centre, -((coordinate - centre) ** 2)]
    return np.array(found)


def _prior(dims: Sequence[Dimension]) -> tuple[Vector, Vector]:
    """Means and deviations of the unknowns: nobody knows which way, but every way has its best point."""
    mean: list[float] = []
    deviation: list[float] = []
    for dimension in dims:
        strength = dimension.weight**0.65
        if dimension.scale == "choice":
            mean += [0.0] * len(dimension.choices)
            deviation += [strength] * len(dimension.choices)
        else:
            mean += [0.0, 0.5 * strength]
            deviation += [strength, 0.5 * strength]
    return np.array(mean), np.array(deviation)
