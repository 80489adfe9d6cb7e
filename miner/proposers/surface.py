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
FAR = 2.6  # steps along one dimension
CLIP = 6.0  # of the usual size of a gain or loss
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
        gain, index = 0.0, 0
        for dimension, centre, coordinate in zip(self.dims, self.origin, end, strict=True):
            if dimension.scale == "choice":
                gain += unknowns[index + round(coordinate)]
                index += len(dimension.choices)
            else:
                gain += unknowns[index] * (coordinate - centre) - unknowns[index + 1] * (coordinate - centre) ** 2
                index += 2
        return float(gain)


def fit(dims: Sequence[Dimension], origin: Point, moves: Sequence[Move]) -> GainSurface:
    """The surface after `moves`; crashes tell nothing here, nor do moves so far that a parabola is no picture of them.

    Losses far beyond the usual count as large ones only: their size would drown the rest.
    """
    seen = [move for move in moves if move.gain is not None and _length(dims, move) <= FAR]
    prior_mean, prior_deviation = _prior(dims)
    size = float(np.median([abs(move.gain or 0.0) for move in seen])) if seen else _UNSEEN
    size = max(size, 1e-6)
    starts = np.array([move.start for move in seen]).reshape(len(seen), len(dims))
    ends = np.array([move.end for move in seen]).reshape(len(seen), len(dims))
    rows = _features(dims, origin, ends) - _features(dims, origin, starts)
    gains = np.clip(np.array([move.gain or 0.0 for move in seen]), -CLIP * size, CLIP * size)
    length = 1.0 + 0.5 * ((ends - starts) ** 2).sum(axis=1)
    # All in the space of the unknowns: what it costs grows with their number alone, not with that of the moves.
    weighted = rows.T / length
    seen_twice, seen_once, seen_size = weighted @ rows, weighted @ gains, float(gains @ (gains / length))
    best: tuple[float, Vector, Vector] | None = None
    for scale in _SCALES if seen else (1.0,):
        mean, deviation = prior_mean * scale * size, prior_deviation * scale * size
        pull = seen_once - seen_twice @ mean
        misfit = seen_size - 2 * float(mean @ seen_once) + float(mean @ seen_twice @ mean)
        for noise in _NOISES if seen else (1.0,):
            variance = (noise * size) ** 2
            # Scaled by the prior's deviation, the precision is at least one in every direction.
            precision = np.eye(len(mean)) + deviation[:, None] * seen_twice * deviation / variance
            moved = np.linalg.solve(precision, deviation * pull / variance)
            error = misfit / variance - float((deviation * pull / variance) @ moved)
            likelihood = -0.5 * (error + float(np.linalg.slogdet(precision)[1]) + len(seen) * float(np.log(variance)))
            if best is None or likelihood > best[0]:
                covariance = deviation[:, None] * np.linalg.inv(precision) * deviation
                best = (likelihood, mean + deviation * moved, (covariance + covariance.T) / 2)
    assert best is not None
    _, mean, covariance = best
    floor = 1e-9 * max(float(np.trace(covariance)) / len(mean), 1e-12)
    return GainSurface(
        dims, origin, mean, np.asarray(np.linalg.cholesky(covariance + floor * np.eye(len(mean))), np.float64)
    )


def _length(dims: Sequence[Dimension], move: Move) -> float:
    """The longest step of a move along an ordered dimension."""
    steps = zip(dims, move.start, move.end, strict=True)
    return max((abs(b - a) for d, a, b in steps if d.scale != "choice"), default=0.0)


def _features(dims: Sequence[Dimension], origin: Point, at: Vector) -> Vector:
    """The features of points, one a row: (n, dimensions) to (n, unknowns)."""
    found: list[Vector] = []
    for index, (dimension, centre) in enumerate(zip(dims, origin, strict=True)):
        coordinates = at[:, index]
        if dimension.scale == "choice":
            found += [(np.rint(coordinates) == choice).astype(float) for choice in range(len(dimension.choices))]
        else:
            found += [coordinates - centre, -((coordinates - centre) ** 2)]
    return np.stack(found, axis=1)


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
