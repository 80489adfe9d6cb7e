"""The report's charts as SVG, pure functions of a session's summary and runs.

Colours come from the page's style sheet by class; every mark has a title that a pointer shows. What lies outside
a chart's range is drawn at its edge as an arrow, never left out silently.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from itertools import zip_longest

from common.text import printable
from miner.report.summary import CHANGE, Summary, Time, TrialPoint
from miner.report.svg import Frame, decimals, element, line, svg, text, ticks

HANDFUL = 5  # trials
MANY = 400  # trials beyond which they are not marked one by one, but for the last kept ones
MAX_MARKS = 60
SLANT = 28  # degrees by which a name rises from its mark
MAX_NAME = CHANGE
ROOM = 0.16  # of the chart's width and height, for names of the last and the highest
WIDE, NARROW = (1080, 400), (400, 320)


def value_range(summary: Summary) -> tuple[float, float]:
    """The range of val_bpb to draw: all incumbents, what was kept, and the trials that are not far from these.

    Far is far for this session: of few trials all but a disaster are near, of many at least the usual ones.
    """
    levels = [step.level for step in summary.steps]
    means = [point.value for point in summary.points if point.value is not None]
    if not levels and not means:
        return 0.0, 1.0
    levels = levels or [statistics.median(means)]
    least, most = min(levels), max(levels)
    span = max(most - least, 6 * (summary.noise or 0.0), 1e-3 * max(map(abs, levels)), 1e-9)
    tried = [point.value for point in summary.points if point.value is not None and point.number]
    below = _reach([least - value for value in tried], 2 * span)
    above = _reach([value - most for value in tried], 0.55 * span)
    kept = [end for p in summary.points if p.decision == "keep" for end in (p.value, p.low, p.high) if end is not None]
    floor, roof = least - below, most + above
    near = [value for value in [*means, *kept] if floor <= value <= roof]
    inside = {*near}
    shown = [p for p in summary.points if p.value in inside]
    ends = [e for p in shown for e in (p.low, p.high) if e is not None]
    ends += [value for p in shown for value in p.runs]
    least, most = min([*levels, *near]), max([*levels, *near])
    ends = [end for end in ends if least - span <= end <= most + span]
    low, high = min([least, *ends]), max([most, *ends])
    pad = 0.04 * max(high - low, span)
    return low - pad, high + pad


def _reach(distances: Sequence[float], least: float) -> float:
    """How far beyond the incumbents trials are drawn: `least`, and further where trials usually lie further.

    A distance is negative for a trial that is not beyond them. Of a handful it is ten times the (lower) median of
    those that are, so that a single one is never too far; of more it is twice what two thirds of all lie within, so
    that a few disasters do not count.
    """
    if len(distances) <= HANDFUL:
        return max(least, 10 * statistics.median_low([max(d, least) for d in distances if d > 0] or [0.0]))
    return max(least, 2 * sorted(distances)[2 * len(distances) // 3])


def progress(summary: Summary, *, narrow: bool = False) -> str:
    """val_bpb over trials: the incumbent as a step line, kept trials with intervals, single runs as faint dots."""
    width, height = NARROW if narrow else WIDE
    last = max((point.number for point in summary.points), default=0)
    across, up = (-0.7, last + 0.7), value_range(summary)
    if not narrow and any(nameable(point) for point in summary.points):
        across, up = (-0.7, last + 0.7 + ROOM * (last + 1.4)), (up[0], up[1] + ROOM * (up[1] - up[0]))
    frame = Frame(width, height, 52 if narrow else 62, 14, 18, 52, across, up)
    levels = ticks(*frame.y_range, 4 if narrow else 6)
    numbers = [tick for tick in ticks(0, max(last, 1), 5 if narrow else 12) if tick == int(tick)]
    places = max(2, decimals(levels))
    parts = frame.axes([(n, f"{n:.0f}") for n in numbers], [(v, f"{v:.{places}f}") for v in levels])
    parts.append(text(width - frame.right, height - 8, "trial", class_="tick", text_anchor="end"))
    aside, radius = (3.2 if narrow else 6.5), (1.6 if last > 3 * HANDFUL else 2.2)
    few = len(summary.points) <= MANY
    parts += [_run_dots(frame, point, aside, radius) for point in summary.points] if few else _crowd(frame, summary)
    parts += _incumbent(frame, summary, last)
    shown = summary.points if few else [p for p in summary.points if p.decision == "keep"][-MAX_MARKS:]
    ordered = sorted(shown, key=lambda point: point.decision == "keep")
    names = {} if narrow else named(summary.points, frame.x, frame.y)
    parts += [_mark(frame, point, 3.2 if narrow else 4.2, names.get(point.number, "")) for point in ordered]
    kind = "narrow" if narrow else "wide"
    return svg(width, height, "val_bpb of every trial", *parts, class_=kind, role="group")


def _crowd(frame: Frame, summary: Summary) -> list[str]:
    """More trials than can be told apart: one path for each kind, a dot for each place that any of them takes."""
    kinds: dict[str, dict[tuple[int, int], None]] = {"many": {}, "many-kept": {}, "many-crashed": {}}
    for point in summary.points:
        x = round(frame.x(point.number) / 3) * 3
        if point.decision == "crash":
            kinds["many-crashed"][x, frame.floor - 4] = None
        elif point.value is not None:
            y = frame.y(min(max(point.value, frame.y_range[0]), frame.y_range[1]))
            kinds["many-kept" if point.decision == "keep" else "many"][x, round(y / 3) * 3] = None
    shapes = {"many-crashed": "M{} {}m-2-2l4 4m-4 0l4-4"}
    paths = {kind: "".join(shapes.get(kind, "M{} {}h0").format(x, y) for x, y in at) for kind, at in kinds.items()}
    return [element("path", d=path, fill="none", class_=kind) for kind, path in paths.items() if path]


def _run_dots(frame: Frame, point: TrialPoint, aside: float, radius: float) -> str:
    return "".join(
        element("circle", cx=frame.x(point.number) - aside, cy=frame.y(value), r=radius, class_="run")
        for value in point.runs
        if frame.holds(value)
    )


def _incumbent(frame: Frame, summary: Summary, last: int) -> list[str]:
    path: list[tuple[float, float]] = []
    parts = []
    for step, following in zip_longest(summary.steps, summary.steps[1:]):
        end = following.since if following else last + 0.7
        path += [(frame.x(step.since), frame.y(step.level)), (frame.x(end), frame.y(step.level))]
        if step.why:
            x = frame.x(step.since)
            parts.append(element("line", x1=x, x2=x, y1=frame.top, y2=frame.floor, class_="theirs"))
            parts.append(text(x + 5, frame.top + 8, step.why, class_="theirs-label"))
    if path:
        path[0] = (frame.x(-0.7), path[0][1]) if summary.steps[0].since == 0 else path[0]
        parts.append(line(path, class_="incumbent"))
    return parts


def named(
    points: Sequence[TrialPoint], x: Callable[[float], float], y: Callable[[float], float], apart: float = 13.0
) -> dict[int, str]:
    """The kept steps that are named by their change, at most MAX_NAME characters of it: the latest, and of the earlier
    ones those whose line of text is `apart` or more from that of every later one. `x` and `y` place a trial's number
    and value in the units of `apart`, downwards."""
    found: dict[int, str] = {}
    lines: list[float] = []
    slope = math.radians(SLANT)
    for point in reversed(points):
        if nameable(point) and point.value is not None:
            top = max(point.value, point.high if point.high is not None else point.value)
            line = x(point.number) * math.sin(slope) + y(top) * math.cos(slope)
            if all(abs(line - other) >= apart for other in lines):
                found[point.number] = printable(point.change, MAX_NAME)
                lines.append(line)
    return found


def nameable(point: TrialPoint) -> bool:
    """Whether a chart may name a trial: a kept one whose change is known."""
    return point.decision == "keep" and bool(point.number) and bool(point.change)


def _mark(frame: Frame, point: TrialPoint, radius: float, name: str) -> str:
    """A trial; `name` is written above a kept one, rising to the right, where the incumbents to come are not."""
    x = frame.x(point.number)
    if point.value is None:
        if not point.decision:
            return ""
        mark = "×" if point.decision == "crash" else "–"
        shape = text(
            x, frame.floor + 1, mark, class_="crash" if point.decision == "crash" else "none", text_anchor="middle"
        )
    elif not frame.holds(point.value):
        up = point.value > frame.y_range[1]
        y, tip = (frame.top, -7) if up else (frame.floor, 7)
        d = f"M{x - 4:.1f} {y:.1f}L{x + 4:.1f} {y:.1f}L{x:.1f} {y + tip:.1f}Z"
        shape = element("path", d=d, class_="off")
    else:
        shape = ""
        if point.low is not None and point.high is not None:
            low, high = (min(max(end, frame.y_range[0]), frame.y_range[1]) for end in (point.low, point.high))
            shape += element("line", x1=x, x2=x, y1=frame.y(low), y2=frame.y(high), class_="interval")
        shape += element("circle", cx=x, cy=frame.y(point.value), r=radius, class_="mean")
        if point.decision == "keep" and point.number:
            below = frame.y(min(point.low if point.low is not None else point.value, point.value))
            at = min(below + 14, frame.floor - 2)
            shape += text(x, at, str(point.number), class_="number", text_anchor="middle")
            above = frame.y(max(point.high if point.high is not None else point.value, point.value)) - 5
            turn = f"rotate({-SLANT} {x:.1f} {above:.1f})"
            shape += text(x + 3, above, name, class_="name", transform=turn) if name else ""
    words = _words(point)
    group = element("g", element("title", escape(words)), shape, class_=f"trial-mark {point.decision or 'open'}")
    return element("a", group, href=f"#t{point.number}")


def _words(point: TrialPoint) -> str:
    value = "no value" if point.value is None else f"{point.value:.6f} val_bpb"
    interval = "" if point.low is None or point.high is None else f" [{point.low:.6f}, {point.high:.6f}]"
    return f"trial {point.number}: {value}{interval}, {point.decision or 'being judged'}, {len(point.runs)} runs"


@dataclass(frozen=True, slots=True)
class BestMark:
    """The chain's best from `at` (Unix seconds) on; `own` says whose it is."""

    at: float
    metric: float
    own: bool
    words: str


def track(baseline: float | None, bests: Sequence[BestMark], until: float | None) -> str:
    """The chain's best over time, up to `until` at least, against its baseline; "" where there is nothing to draw."""
    if not bests:
        return ""
    until = max([best.at + 1800 for best in bests] + ([] if until is None else [until]))
    values = [best.metric for best in bests] + ([baseline] if baseline is not None else [])
    pad = 0.12 * ((max(values) - min(values)) or 1e-3)
    begin = bests[0].at - 0.06 * max(until - bests[0].at, 3600)
    frame = Frame(520, 220, 62, 16, 16, 34, (begin, until), (min(values) - pad, max(values) + pad))
    levels = ticks(*frame.y_range, 4)
    places = max(2, decimals(levels))
    parts = frame.axes(_dates(begin, until), [(v, f"{v:.{places}f}") for v in levels])
    path: list[tuple[float, float]] = []
    if baseline is not None:
        y = frame.y(baseline)
        parts.append(element("line", x1=frame.left, x2=frame.width - frame.right, y1=y, y2=y, class_="baseline"))
        parts.append(text(frame.width - frame.right, y - 5, "baseline", class_="tick", text_anchor="end"))
        path = [(frame.x(begin), y), (frame.x(bests[0].at), y)]
    for best, end in zip(bests, [*(b.at for b in bests[1:]), until], strict=True):
        path += [(frame.x(best.at), frame.y(best.metric)), (frame.x(end), frame.y(best.metric))]
    parts.append(line(path, class_="incumbent"))
    for best in bests:
        title = element("title", escape(best.words))
        kind = "dot-own" if best.own else "dot-theirs"
        parts.append(element("circle", title, cx=frame.x(best.at), cy=frame.y(best.metric), r=4.5, class_=kind))
    return svg(frame.width, frame.height, "the chain’s best over time", *parts)


def _dates(begin: float, until: float) -> list[tuple[float, str]]:
    """Round times of UTC, at most six."""
    day = 86400
    steps = [60, 300, 900, 1800, 3600, 7200, 4 * 3600, 6 * 3600, day // 2, *(day * n for n in (1, 2, 7, 28, 91, 365))]
    step = next((step for step in steps if (until - begin) / step <= 5), (until - begin) / 5)
    form = "%H:%M" if step < day // 2 else "%m-%d %Hh" if step < day else "%Y-%m-%d" if step > 91 * day else "%m-%d"
    first = math.ceil(begin / step)
    times = [k * step for k in range(first, first + 7) if k * step <= until]
    return [(t, datetime.fromtimestamp(t, UTC).strftime(form)) for t in times]


TIME_PARTS: Mapping[str, str] = {
    "training": "training",
    "evaluation": "start and evaluation",
    "unsplit": "runs, not broken down",
    "stopped": "stopped early",
    "unfit": "unfit machine",
    "failed": "failed",
    "confirming": "confirming before staking",
    "interrupted": "interrupted runs",
    "idle": "idle between runs",
    "away": "not running",
}


def time_parts(time: Time) -> list[tuple[str, str, float]]:
    """Class, words and seconds of each part that took time."""
    known: Iterable[tuple[str, str, float | None]] = ((k, words, getattr(time, k)) for k, words in TIME_PARTS.items())
    return [(kind, words, seconds) for kind, words, seconds in known if seconds]


def time_bar(time: Time) -> str:
    """One bar of the whole time, part by part."""
    parts = time_parts(time)
    total = math.fsum(seconds for _, _, seconds in parts)
    if not total:
        return ""
    drawn, x = [], 0.0
    for kind, words, seconds in parts:
        width = 1000 * seconds / total
        title = element("title", f"{escape(words)}: {seconds / 3600:.2f} h")
        drawn.append(element("rect", title, x=x, y=0, width=max(0.0, width - 1.5), height=22, class_=f"time-{kind}"))
        x += width
    return element(
        "svg",
        *drawn,
        xmlns="http://www.w3.org/2000/svg",
        viewBox="0 0 1000 22",
        preserveAspectRatio="none",
        role="img",
        aria_label="time by kind",
        class_="timebar",
    )
