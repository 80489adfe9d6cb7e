"""The training-loss curve and the throughput in a run's log: the progress lines, as the bundled script and
autoresearch's print them, ended by a line feed or printed over each other with carriage returns.

    step 00010 (  3.3%) | loss: 5.1234 | lrm: 1.00 | dt: 100ms | tok/sec: 12,345 | mfu: 1.0% | remaining: 290s

Rules:
- A line counts whole or not at all: step, progress from 0 to 100 % and a finite loss are there, `tok/sec` may be.
- Progress never falls: a line behind the last one is left out, one beside it replaces it.
- At most 200 points are kept, evenly thinned, the first and the last among them; work and memory are bounded
  whatever the log holds.

The log is the script's own word. A curve advises (stop a clear loser early, show it, notice a slow machine); it
decides nothing that is claimed or staked.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

MAX_POINTS: Final = 200
MAX_LINES: Final = 1_000_000  # that are looked at
MAX_LINE: Final = 400  # characters

_LINE: Final = re.compile(r"step +[0-9]{1,9} \( *([0-9]{1,3}(?:\.[0-9]{1,3})?)%\) \|(.*)")
_NUMBER: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?(?:e[+-][0-9]{1,2})?")
_COMMAS: Final = re.compile(r"[0-9]{1,3}(?:,[0-9]{3}){0,4}(?:\.[0-9]{1,3})?|[0-9]{1,15}(?:\.[0-9]{1,3})?")


class CurvePoint(NamedTuple):
    """progress: share of the training budget, 0 to 1. loss: smoothed, nats per token. rate: tokens per second."""

    progress: float
    loss: float
    rate: float | None


@dataclass(frozen=True, slots=True)
class Curve:
    """Points by rising progress, and the run's tokens per second: the median over its second half so far,
    None if no line tells."""

    points: tuple[CurvePoint, ...] = ()
    tokens_per_second: float | None = None

    def at(self, progress: float) -> float | None:
        """The loss at a progress, linear between points; None outside of them."""
        for low, high in zip(self.points, self.points[1:], strict=False):
            if low.progress <= progress <= high.progress:
                share = (progress - low.progress) / (high.progress - low.progress)
                return low.loss + share * (high.loss - low.loss)
        return self.points[-1].loss if self.points and self.points[-1].progress == progress else None


def parse(lines: Iterable[str]) -> Curve:
    """The curve in a log's lines, each perhaps several with carriage returns between."""
    points: list[CurvePoint] = []
    stride = skipped = 1
    newest: CurvePoint | None = None  # the last line's point, kept even if it falls between two strides
    for text in islice(_pieces(lines), MAX_LINES):
        point = read(text)
        if point is None or (newest and point.progress < newest.progress):
            continue
        if newest is not None and newest.progress < point.progress:
            if skipped >= stride:
                points.append(newest)
                skipped = 0
            skipped += 1
        newest = point
        if len(points) == 2 * MAX_POINTS:
            del points[1::2]
            stride *= 2
    if newest is not None:
        points.append(newest)
    return Curve(_thinned(points), _throughput(points))


def of_log(log: bytes) -> Curve:
    """The curve in a captured log."""
    return parse(log.decode(errors="replace").split("\n"))


def read(line: str) -> CurvePoint | None:
    """One progress line; None for any other."""
    if len(line) > MAX_LINE or not (found := _LINE.fullmatch(line.strip())):
        return None
    fields: dict[str, str] = {}
    for part in found[2].split("|"):
        name, _, value = part.partition(":")
        fields.setdefault(name.strip(), value.strip())
    loss = fields.get("loss", "")
    if not _NUMBER.fullmatch(loss):
        return None
    progress, rate = float(found[1]) / 100, fields.get("tok/sec", "")
    speed = float(rate.replace(",", "")) if _COMMAS.fullmatch(rate) else 0.0
    # The script's first line comes before its clock and says 0.
    return CurvePoint(progress, float(loss), speed or None) if progress <= 1 and math.isfinite(float(loss)) else None


def _pieces(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        yield from line.replace("\n", "\r").split("\r")


def _thinned(points: list[CurvePoint]) -> tuple[CurvePoint, ...]:
    """At most MAX_POINTS of the points, evenly, with both ends."""
    if len(points) <= MAX_POINTS:
        return tuple(points)
    last = len(points) - 1
    return tuple(points[round(i * last / (MAX_POINTS - 1))] for i in range(MAX_POINTS))


def _throughput(points: list[CurvePoint]) -> float | None:
    rates = [point.rate for point in points if point.rate and point.progress >= points[-1].progress / 2]
    return statistics.median(rates) if rates else None
