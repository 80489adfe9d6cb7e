"""`tune`: searches the hyperparameters of train.py, offline. What it does, first that applies:

1. Further: what was kept last and came of turning hyperparameters is turned as far again.
2. While there are fewer than ten results: one of the hyperparameters that matter most (rates, batch, shape,
   warm-down) by a factor of two, up or down, the one that promises most on a surface drawn from what is known
   (`surface`).
3. After that, at random: the best of the mean surface, all hyperparameters at once; or the best one to three
   hyperparameters of a drawn surface.

Never proposed: what was tried (up to comments and formatting), and what crashes speak against (`evidence`). All
of it follows from the seed, the trial's number and the history, so a session that starts again proposes the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from miner.proposers import evidence, space
from miner.proposers.base import Candidate, Context
from miner.proposers.evidence import Point, SearchHistory
from miner.proposers.space import Dimension
from trainer.project import hyperparameters
from trainer.project.hyperparameters import Value

if TYPE_CHECKING:
    from miner.proposers.surface import GainSurface, Vector

EARLY = 10  # results until joint draws begin
MAIN = 3.0  # weight of what is turned before that: rates, batch, shape, warm-down
REACH = 1.0  # the longest step along one dimension, in doublings
ALL = 0.55  # share of the mean surface's best
_MOST = (1, 2, 3)  # hyperparameters at once on a drawn surface
_ATTEMPTS = 60  # drawn surfaces until nothing is taken to be left


class Tune:
    """The default proposer; `seed` is the session's."""

    name = "tune"

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def propose(self, context: Context) -> Candidate | None:
        """The next setting of the hyperparameters, or None if nothing untried is left within reach."""
        dims = space.dimensions(context.source)
        if not dims:
            return None
        values = {found.name: found.value for found in hyperparameters.find(context.source)}
        dims = [d for d in dims if d.coordinate(values[d.name]) is not None]
        origin = space.point(dims, values)
        if origin is None:
            return None
        found = evidence.gather(context.source, context.history, dims)
        known = context.known()
        for setting in self._settings(context, dims, origin, found):
            changed = {d.name: new for d, new in zip(dims, setting, strict=True) if new != values[d.name]}
            if not changed or not evidence.allowed({**values, **changed}, found):
                continue
            source = hyperparameters.replace(context.source, changed)
            if hyperparameters.fingerprint(source) not in known:
                text = ", ".join(f"{name} {_shown(values[name])} -> {_shown(new)}" for name, new in changed.items())
                return Candidate(source, text)
        return None

    def _settings(
        self, context: Context, dims: list[Dimension], origin: Point, found: SearchHistory
    ) -> Iterator[list[Value]]:
        """Values for all dimensions, most promising first."""
        import numpy as np

        from miner.proposers import surface

        last = next((move for move in reversed(found.moves) if move.kept), None)
        if last is not None and last.end == origin:
            yield _values(dims, tuple(b + (b - a) for a, b in zip(last.start, last.end, strict=True)))
        fitted = surface.fit(dims, origin, found.moves)
        rng = np.random.default_rng([self._seed, context.number])
        lot = random.Random(f"{self._seed}/{context.number}/tune")
        if sum(move.gain is not None for move in found.moves) >= EARLY:
            if lot.random() < ALL:
                yield _values(dims, _joint(fitted, fitted.mean, len(dims), fine=True))
            most = lot.choice(_MOST)
            fine = True
        else:
            most, fine = 1, False
        for attempt in range(_ATTEMPTS):
            unknowns = fitted.draw(rng)
            if most > 1 and attempt < _ATTEMPTS // 2:
                yield _values(dims, _joint(fitted, unknowns, most, fine=fine))
                continue
            late = attempt >= _ATTEMPTS // 2
            for step in _steps(fitted, unknowns, fine=fine or late):
                moved = next(d for d, a, b in zip(dims, origin, step, strict=True) if a != b)
                if fine or late or moved.weight >= MAIN:
                    yield _values(dims, step)


def _joint(fitted: GainSurface, unknowns: Vector, most: int, *, fine: bool) -> Point:
    """The best steps of up to `most` dimensions together."""
    end = list(fitted.origin)
    taken: set[int] = set()
    for step in _steps(fitted, unknowns, fine=fine):
        if len(taken) == most or fitted.gain(unknowns, step) <= 0:
            break
        index = next(i for i, (a, b) in enumerate(zip(fitted.origin, step, strict=True)) if a != b)
        if index not in taken:
            taken.add(index)
            end[index] = step[index]
    return tuple(end)


def _steps(fitted: GainSurface, unknowns: Vector, *, fine: bool) -> list[Point]:
    """Every step along one dimension, best first: doublings; if `fine`, half of them and the parabola's top too."""
    found: list[tuple[float, Point]] = []
    at = 0
    for index, (dimension, centre) in enumerate(zip(fitted.dims, fitted.origin, strict=True)):
        if dimension.scale == "choice":
            ends = [float(i) for i in range(len(dimension.choices)) if i != round(centre)]
            at += len(dimension.choices)
        else:
            shifts = [REACH, -REACH]
            if fine:
                slope, curvature = float(unknowns[at]), float(unknowns[at + 1])
                top = slope / (2 * curvature) if curvature > 0 else 0.0
                shifts += [0.5, -0.5, *([top] if 0.15 < abs(top) < REACH else [])]
            ends = [_snapped(dimension, centre + shift) for shift in shifts]
            at += 2
        for end in ends:
            if end != centre:
                step = (*fitted.origin[:index], end, *fitted.origin[index + 1 :])
                found.append((fitted.gain(unknowns, step), step))
    return [step for _, step in sorted(found, key=lambda pair: -pair[0])]


def _snapped(dimension: Dimension, coordinate: float) -> float:
    """The coordinate of the nearest value that the dimension allows."""
    snapped = dimension.coordinate(dimension.at(coordinate))
    return coordinate if snapped is None else snapped


def _values(dims: list[Dimension], at: Point) -> list[Value]:
    """The values at a point; where a coordinate is the present one, the present value to the last digit."""
    return [
        dimension.value if coordinate == dimension.coordinate(dimension.value) else dimension.at(coordinate)
        for dimension, coordinate in zip(dims, at, strict=True)
    ]


def _shown(value: Value) -> str:
    return str(value) if isinstance(value, bool | str) else f"{value:g}"
