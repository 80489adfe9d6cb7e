"""What the history of trials says about the hyperparameters: moves between points of the search, and what crashed.

A trial counts where it differs from its base in hyperparameters alone. Its gain is relative to its base, so bases are
linked by the gains of what was kept; what descends from another root, such as someone else's
code taken over in between, says nothing about levels here, but its moves still do. In a dimension that an edit added
since, a script counts as standing where the incumbent does. No move is known across a change of the kind of optimizer,
after which rates and shapes are a new question.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

from miner.proposers.base import Tried, by_fingerprint
from miner.proposers.space import Dimension, orthogonalises, point
from trainer.errors import InvalidBundle
from trainer.project import hyperparameters, sites
from trainer.project.hyperparameters import Value
from trainer.project.sites import Site

_LITERAL = re.compile(
    r"(?:-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{0,18})?(?:e[+-]?[0-9]{1,3})?|True|False)(?=[ \t]*(?:#|$))", re.MULTILINE
)
_FAMILIES = (("BATCH", "ACCUM"), ("DIM", "HEAD", "WIDTH", "EMBD", "LAYER", "DEPTH"))

Point = tuple[float, ...]
Values = Mapping[str, Value]
Scales = tuple[tuple[str, str, tuple[Value, ...]], ...]  # by dimension: name, scale, choices


@dataclass(frozen=True, slots=True)
class Move:
    """One trial from `start` to `end`, both coordinates in the dimensions' order; `gain` is None after a crash."""

    start: Point
    end: Point
    gain: float | None
    kept: bool


@dataclass(frozen=True)
class SearchHistory:
    """The usable trials in their order, and the values of scripts that ran and that crashed."""

    moves: tuple[Move, ...]
    ran: tuple[Values, ...]
    crashed: tuple[tuple[Values, Values], ...]  # what it was changed from, and what crashed

    @cached_property
    def relations(self) -> list[tuple[str, str]]:
        """The pairs (A, B) of integer hyperparameters, A % B == 0 in everything that ran."""
        first = self.ran[0]
        names = [name for name, value in first.items() if type(value) is int and value > 0]
        pairs = [(a, b) for a in names for b in names if a != b and first[b] != 1 and _related(a, b)]
        return [pair for pair in pairs if all(_divides(values, pair) for values in self.ran)]


def gather(source: str, history: Sequence[Tried], dims: list[Dimension]) -> SearchHistory:
    """The evidence in `history` on the dimensions of the incumbent `source`."""
    head = hyperparameters.fingerprint(source)
    texts = by_fingerprint(history) | {head: source}
    read = {t.fingerprint: _read(t.source, texts.get(t.base)) for t in history}
    read |= {mark: _read(text, None) for mark, text in texts.items() if mark not in read}  # no trials: without a base
    scales, here = tuple((d.name, d.scale, d.choices) for d in dims), point(dims, _values(source))
    moves, ran, crashed, kind = [], [_values(source)], [], orthogonalises(source)
    for trial in history:
        at, before = read[trial.fingerprint], read.get(trial.base)
        if trial.decision != "crash":
            ran.append(at.values)
        if before is None or trial.fingerprint == trial.base or not at.turned:
            continue
        if trial.decision == "crash":
            crashed.append((before.values, at.values))
        if here is None or orthogonalises(texts[trial.base]) != kind:
            continue
        start, end = before.point(dims, scales, here), at.point(dims, scales, here)
        if start is not None and end is not None and start != end:
            gain = None if trial.decision == "crash" else trial.delta
            if gain is not None or trial.decision == "crash":
                moves.append(Move(start, end, gain, trial.kept))
    return SearchHistory(tuple(moves), tuple(ran), tuple(crashed))


@dataclass(eq=False, slots=True)
class Reading:
    """A script's hyperparameters, and whether setting its base's to them gives its code; read once and kept."""

    values: Values
    turned: bool
    _points: dict[Scales, tuple[float | None, ...] | None] = field(default_factory=dict)

    def point(self, dims: list[Dimension], scales: Scales, here: Point) -> Point | None:
        """Its coordinates in the dimensions, which `scales` tells apart; those of `here` in what it does not have."""
        if scales not in self._points:
            own = [d for d in dims if d.name in self.values]
            known = point(own, self.values)
            places = None if known is None else dict(zip([d.name for d in own], known, strict=True))
            self._points[scales] = None if places is None else tuple(places.get(d.name) for d in dims)
        found = self._points[scales]
        return None if found is None else tuple(b if a is None else a for a, b in zip(found, here, strict=True))


def _values(source: str) -> Values:
    return {found.name: found.value for found in _found(source)}


@cache
def _found(source: str) -> tuple[Site, ...]:
    try:
        return sites.find(source)
    except InvalidBundle:
        return ()


@cache  # the history comes again with every trial
def _read(source: str, base: str | None) -> Reading:
    """What there is to know of `source`, whose base may be unknown.

    Nearly every candidate differs from its base in the text of literals, which is seen without parsing it as a whole.
    """
    if base is None:
        return Reading(_values(source), turned=False)
    found = _found(base)
    literals = _literals(source, base, found)
    if literals is not None:
        return Reading({known.name: value for known, value in zip(found, literals, strict=True)}, turned=True)
    known, values = _values(base), _values(source)
    if known.keys() != values.keys() or any(type(known[name]) is not type(values[name]) for name in known):
        return Reading(values, turned=False)
    same = hyperparameters.fingerprint(sites.replace(base, values)) == hyperparameters.fingerprint(source)
    return Reading(values, same)


def _literals(source: str, base: str, found: Sequence[Site]) -> list[Value] | None:
    """The base's hyperparameters as `source` has them, where it differs from it in their plain literals alone."""
    read: dict[int, Value] = {}
    at, end = 0, 0
    places = sorted((span, index) for index, site in enumerate(found) for span in site.spans)
    for span, index in places:
        known = found[index]
        between = base[end : span[0]]
        if not source.startswith(between, at):
            return None
        at, end = at + len(between), span[1]
        text = base[span[0] : end]
        if source.startswith(text, at) and source[at + len(text) : at + len(text) + 1] == base[end : end + 1]:
            value = known.value
            at += len(text)
        else:
            literal = _LITERAL.match(source, at)
            if literal is None:
                return None
            value = ast.literal_eval(literal[0])
            # The same value in another spelling, such as 2**19, is another syntax tree.
            if (
                type(value).__name__ != known.kind
                or isinstance(value, str)
                or abs(value) > 2**64
                or value == known.value
            ):
                return None
            at = literal.end()
        if read.setdefault(index, value) != value:  # places that turn together do not agree
            return None
    return [read[index] for index in range(len(found))] if found and source[at:] == base[end:] else None


def allowed(candidate: Values, evidence: SearchHistory) -> bool:
    """Whether these values are free of known causes of a crash. The rules:

    1. A divisibility A % B == 0 between two integers that held in everything that ran and was broken by a crash
       that changed A or B must hold.
    2. A crash that no such relation explains forbids going as far as it went: to change, in the same direction
       and at least as far, every hyperparameter that it changed.
    """
    for before, after in evidence.crashed:
        changed = [name for name in after if before.get(name) != after[name]]
        broken = [pair for pair in evidence.relations if set(pair) & set(changed) and not _divides(after, pair)]
        if broken:
            # Several relations may explain it and only one need be the cause, but which is unknown: all are kept.
            if not all(_divides(candidate, pair) for pair in broken):
                return False
        elif changed and all(_as_far(before.get(name), after[name], candidate.get(name)) for name in changed):
            return False
    return True


def _related(first: str, second: str) -> bool:
    """Whether one may have to divide the other: a batch has to do with batches, a width with the model's shape."""
    families = {
        next((n for n, words in enumerate(_FAMILIES) if any(w in name for w in words)), -1) for name in (first, second)
    }
    return len(families) == 1 or -1 in families


def _divides(values: Values, pair: tuple[str, str]) -> bool:
    a, b = values.get(pair[0]), values.get(pair[1])
    return type(a) is not int or type(b) is not int or (b != 0 and a % b == 0)


def _as_far(before: Value | None, crashed: Value, candidate: Value | None) -> bool:
    """Whether `candidate` lies at `crashed` or beyond it as seen from `before`."""
    if candidate == crashed:
        return True
    if (
        isinstance(before, bool | str | None)
        or isinstance(crashed, bool | str)
        or isinstance(candidate, bool | str | None)
    ):
        return False
    return candidate >= crashed if crashed > before else candidate <= crashed
