"""`tune`: searches the numbers, switches and choices of train.py, offline. What it does, first that applies:

1. Further: what was kept last and came of turning hyperparameters is turned as far again.
2. Screening: the first looks far away (`space.Dimension.far`, `space.together`), off, ten times, a tenth, in the order
   of what they are worth on this class of machine: with Muon a discrete accelerator looks at twice the width first,
   others at less work. An author's prior is most often wrong by much, and small steps cannot cross a plateau.
   Other people's evidence (`miner.proposers.clues`) moves a look up or down. A look that another loss on the same way
   already answers is left out. Those worth most come before all else, and what is so without other people's evidence
   before what others propose too (`is_bold`); of the first sixteen trials one in four is a look, later one in twenty
   while any is left: on a plain bowl a look is a trial lost.
3. Else, at random: the best of the mean surface (`surface`), the few hyperparameters that promise most at once; or the
   best one to three of a surface drawn from what is known.

Never proposed: what was tried (up to comments and formatting) or lies within a step of `space.MIN_STEP` of what was,
what promises less than half the noise of a run while anything else is left, and what crashes speak against
(`evidence`). All of it follows from the seed, the trial's number and the history, so a session that starts again
proposes the same.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from miner.proposers import clues, evidence, space
from miner.proposers.base import Candidate, Context, accelerated
from miner.proposers.evidence import Point, SearchHistory
from miner.proposers.space import Dimension
from trainer.project import hyperparameters, sites
from trainer.project.hyperparameters import Value

if TYPE_CHECKING:
    from miner.proposers.surface import GainSurface, Vector

BOLD = 1.4  # a look worth this comes before all else
FIRST = 16  # trials of which a part are looks far away
OFTEN = 0.25  # that part
LOOKS = 0.05  # and after that
WORTH = 0.06  # below this a look waits until the surface has nothing left
EARLY = 8  # results until joint draws begin
MAIN = 3.0  # weight of what is turned before that: rates, batch, shape, warm-down
REACH = 1.0  # the longest step along one dimension, in doublings
ALL = 0.55  # share of the mean surface's best
JOINT = 6  # hyperparameters at once on the mean surface
_MOST = (1, 2, 3)  # on a drawn one
_ATTEMPTS = 60  # drawn surfaces until nothing is taken to be left
_ANSWERED = 1.5  # a loss this many doublings from a look answers it

Changes = Mapping[str, Value]
Settings = Callable[[Context, list[Dimension], Point, SearchHistory], Iterator[Changes]]


class _Look(NamedTuple):
    """A first look far away, its worth, and that without what others found."""

    changes: Changes
    worth: float
    own: float


class Tune:
    """`seed` is the session's."""

    name = "tune"

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def propose(self, context: Context) -> Candidate | None:
        """The next setting of the hyperparameters, or None if nothing untried is left within reach."""
        return self._first(context, self._settings)

    def is_bold(self, context: Context) -> bool:
        """Whether the first look that is open is worth BOLD, also without what others found: a table that nobody
        checked could say so of any number of looks."""
        seen: list[_Look] = []

        def looks(context: Context, dims: list[Dimension], _: Point, found: SearchHistory) -> Iterator[Changes]:
            for look in self._looks(context, dims, found):
                seen.append(look)
                yield look.changes

        return self._first(context, looks) is not None and min(seen[-1].worth, seen[-1].own) >= BOLD

    def _first(self, context: Context, settings: Settings) -> Candidate | None:
        """The first of these settings that was not tried and that nothing speaks against."""
        values = sites.values(context.source)
        dims = [d for d in space.dimensions(context.source) if d.coordinate(values[d.name]) is not None]
        origin = space.point(dims, values)
        if not dims or origin is None:
            return None
        found = evidence.gather(context.source, context.history, dims)
        known = context.known()
        tried = [move.end for move in found.moves if move.gain is not None] + [origin]
        for changes in settings(context, dims, origin, found):
            changed = {name: new for name, new in changes.items() if new != values[name]}
            if not changed or not evidence.allowed({**values, **changed}, found):
                continue
            at = space.point(dims, {**values, **changed})
            if at is None or any(_same(dims, at, other) for other in tried):
                continue
            source = sites.replace(context.source, changed)
            if hyperparameters.fingerprint(source) not in known:
                text = ", ".join(f"{name} {_shown(values[name])} -> {_shown(new)}" for name, new in changed.items())
                return Candidate(source, text)
        return None

    def _looks(self, context: Context, dims: list[Dimension], found: SearchHistory) -> list[_Look]:
        return _looks(dims, found, context, random.Random(f"{self._seed}/looks"))

    def _settings(
        self, context: Context, dims: list[Dimension], origin: Point, found: SearchHistory
    ) -> Iterator[Changes]:
        """What to change, most promising first."""
        from miner.proposers import surface

        last = next((move for move in reversed(found.moves) if move.kept), None)
        if last is not None and last.end == origin:
            yield _values(dims, tuple(b + (b - a) for a, b in zip(last.start, last.end, strict=True)))
        lot = random.Random(f"{self._seed}/{context.number}/tune")
        looks = self._looks(context, dims, found)
        yield from (look.changes for look in looks if look.worth >= BOLD)
        if lot.random() < (OFTEN if context.number <= FIRST else LOOKS):
            yield from (look.changes for look in looks if look.worth >= WORTH)
        fitted = surface.fit(dims, origin, found.moves)
        early = sum(move.gain is not None for move in found.moves) < EARLY
        yield from self._steps(context, fitted, lot, early=early, least=(context.sigma or 0.0) / 2)
        yield from (look.changes for look in looks)
        yield from self._steps(context, fitted, lot, early=early, least=None)

    def _steps(
        self, context: Context, fitted: GainSurface, lot: random.Random, *, early: bool, least: float | None
    ) -> Iterator[Changes]:
        """Steps on the mean surface and on drawn ones that promise at least `least` bpb."""
        import numpy as np

        dims, origin = fitted.dims, fitted.origin
        rng = np.random.default_rng([self._seed, context.number])

        def enough(unknowns: Vector, end: Point) -> bool:
            return least is None or fitted.gain(unknowns, end) > least

        if not early and lot.random() < ALL:
            best = _joint(fitted, fitted.mean, JOINT, fine=True)
            if enough(fitted.mean, best):
                yield _values(dims, best)
        most = 1 if early else lot.choice(_MOST)
        for attempt in range(_ATTEMPTS):
            unknowns = fitted.draw(rng)
            late = attempt >= _ATTEMPTS // 2
            if most > 1 and not late:
                best = _joint(fitted, unknowns, most, fine=not early)
                if enough(unknowns, best):
                    yield _values(dims, best)
                continue
            for step in _steps(fitted, unknowns, fine=late or not early):
                moved = next(d for d, a, b in zip(dims, origin, step, strict=True) if a != b)
                if (late or not early or moved.weight >= MAIN) and enough(unknowns, step):
                    yield _values(dims, step)


def _looks(dims: Sequence[Dimension], found: SearchHistory, context: Context, lot: random.Random) -> list[_Look]:
    """The first looks that are still open, the one worth most first; `lot` shuffles what is worth about the same."""
    looks: list[tuple[Changes, float]] = []
    ranked: list[_Look] = []
    told, gpu, orthogonal = context.clues, accelerated(context.hardware), space.orthogonalises(context.source)
    for dimension in dims:
        far = dimension.far(accelerated=gpu, orthogonal=orthogonal)
        looks += [({dimension.name: value}, worth) for value, worth in far]
    looks += list(space.together(dims, accelerated=gpu))
    heard = [({name: value}, worth) for name, value, worth in clues.values(told, dims)]
    losses: dict[frozenset[int], list[Point]] = {}  # where trials that lost ended, by what they changed
    for move in found.moves:
        if not move.kept:
            moved = frozenset(i for i, (a, b) in enumerate(zip(move.start, move.end, strict=True)) if a != b)
            losses.setdefault(moved, []).append(move.end)
    for place, (changes, worth) in enumerate([*looks, *heard]):
        worth *= math.exp(lot.gauss(0.0, 0.15))
        if not _answered(dims, losses, changes):
            own = worth if place < len(looks) else 0.0
            ranked.append(_Look(changes, worth * clues.factor(told, changes, dims), own))
    return sorted(ranked, key=lambda look: -look.worth)


def _answered(dims: Sequence[Dimension], losses: Mapping[frozenset[int], Sequence[Point]], changes: Changes) -> bool:
    """Whether a loss that changed the same, and nothing else, to about the same says enough."""
    ends = {
        i: end for i, d in enumerate(dims) if d.name in changes and (end := d.coordinate(changes[d.name])) is not None
    }
    reach = {
        i: _ANSWERED if dims[i].scale != "choice" and end != dims[i].coordinate(0) else 0.01 for i, end in ends.items()
    }
    return any(
        all(abs(lost[i] - end) < reach[i] for i, end in ends.items()) for lost in losses.get(frozenset(ends), ())
    )


def _same(dims: Sequence[Dimension], a: Point, b: Point) -> bool:
    """Whether two points are the same idea: less than a step apart along every dimension."""
    return all(d.apart(x, y) < 1.0 for d, x, y in zip(dims, a, b, strict=True))


def _joint(fitted: GainSurface, unknowns: Vector, most: int, *, fine: bool) -> Point:
    """The best steps of up to `most` dimensions together, leaving out what adds little to the first."""
    end, first = list(fitted.origin), 0.0
    taken: set[int] = set()
    for step in _steps(fitted, unknowns, fine=fine):
        gain = fitted.gain(unknowns, step)
        first = first or gain
        if len(taken) == most or gain <= 0.15 * first:
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
                shifts += [0.5, -0.5, *([top] if space.MIN_STEP < abs(top) < REACH else [])]
            ends = [_snapped(dimension, centre + shift) for shift in shifts]
            at += 2
        for end in ends:
            if dimension.apart(centre, end) >= 1.0:
                step = (*fitted.origin[:index], end, *fitted.origin[index + 1 :])
                found.append((fitted.gain(unknowns, step), step))
    return [step for _, step in sorted(found, key=lambda pair: -pair[0])]


def _snapped(dimension: Dimension, coordinate: float) -> float:
    """The coordinate of the nearest value that the dimension allows."""
    snapped = dimension.coordinate(dimension.at(coordinate))
    return coordinate if snapped is None else snapped


def _values(dims: Sequence[Dimension], at: Point) -> dict[str, Value]:
    """The values at a point; where a coordinate is the present one, the present value to the last digit."""
    return {
        dimension.name: dimension.value
        if coordinate == dimension.coordinate(dimension.value)
        else dimension.at(coordinate)
        for dimension, coordinate in zip(dims, at, strict=True)
    }


def _shown(value: Value) -> str:
    return str(value) if isinstance(value, bool | str) else f"{value:g}"
