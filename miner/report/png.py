"""The main chart as a PNG, by matplotlib without a display; the same summary and rules as `chart.progress`."""

from __future__ import annotations

import io
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from miner.report.chart import HANDFUL, ROOM, SLANT, nameable, named, value_range
from miner.report.summary import Summary

if TYPE_CHECKING:
    from matplotlib.lines import Line2D

_KEEP, _MARK, _RUN, _CRASH, _THEIRS, _OPEN = "#0a7560", "#9a9ca3", "#c3c4c9", "#b23a2e", "#a1620a", "#3d5a98"


def draw(summary: Summary, title: str) -> bytes:
    """A PNG of 1600 x 800 pixels: val_bpb over trials."""
    import numpy
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
    from matplotlib.transforms import ScaledTranslation

    picture = Figure(figsize=(10, 5), dpi=160, layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.add_subplot()
    low, high = value_range(summary)
    last = max((point.number for point in summary.points), default=0)
    beside = axes.transData + ScaledTranslation(-6 / 72, 0, picture.dpi_scale_trans)
    room = ROOM if any(map(nameable, summary.points)) else 0.0
    top, right = high + (0.1 + room) * (high - low), last + 0.7 + room * (last + 1.4)  # for the legend and the names
    names = named(
        summary.points,
        lambda number: 1460 * number / (right + 0.7),
        lambda value: 640 * (top - value) / (top - low),
        apart=20.0,
    )
    dot = 3 if last > 3 * HANDFUL else 4.5
    for point in summary.points:
        kept = point.decision == "keep"
        at = [point.number] * len(point.runs)
        axes.plot(at, point.runs, ".", color=_RUN, markersize=dot, zorder=1, transform=beside)
        if point.decision == "crash":
            axes.plot(point.number, low, "x", color=_CRASH, markersize=6, clip_on=False, zorder=4)
        if point.value is None:
            continue
        if point.value > high or point.value < low:
            up = point.value > high
            axes.plot(point.number, high if up else low, "^" if up else "v", color=_MARK, markersize=5, clip_on=False)
            continue
        color = _KEEP if kept else _MARK if point.decision else _OPEN
        if point.low is not None and point.high is not None:
            axes.vlines(point.number, point.low, point.high, color=color, linewidth=1.4 if kept else 0.9, zorder=3)
        face = color if kept else "white"
        axes.plot(
            point.number, point.value, "o", color=color, markerfacecolor=face, markersize=6 if kept else 5, zorder=4
        )
    for step, following in zip_longest(summary.steps, summary.steps[1:]):
        begin, end = max(step.since, -0.7) if step.since else -0.7, following.since if following else last + 0.7
        axes.hlines(step.level, begin, end, color=_KEEP, linewidth=1.6, zorder=2)
        if following:
            axes.vlines(following.since, following.level, step.level, color=_KEEP, linewidth=1.6, zorder=2)
        if step.why:
            axes.axvline(step.since, color=_THEIRS, linewidth=0.9, linestyle="--", zorder=1)
            axes.text(step.since + 0.15, high, step.why, color=_THEIRS, fontsize=8, va="top")
    for point in summary.points:
        if point.number in names and point.value is not None and low <= point.value <= high:
            axes.annotate(
                _plain(names[point.number]),
                (point.number, min(high, max(point.value, point.high or point.value))),
                xytext=(3, 5),
                textcoords="offset points",
                rotation=SLANT,
                rotation_mode="anchor",
                fontsize=7.5,
                color="#5d6067",
                clip_on=True,
            )
    axes.legend(handles=_legend(summary), loc="upper right", fontsize=8, frameon=False, ncols=3)
    axes.set(xlim=(-0.7, right), ylim=(low, top), xlabel="trial", ylabel="val_bpb (lower is better)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_title(_plain(title), loc="left", fontsize=11)
    axes.grid(axis="y", color="#e4e3de", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(colors="#5d6067", length=0, labelsize=9)
    out = io.BytesIO()
    with numpy.errstate(invalid="ignore"):  # now and then its ticker warns of values that are all finite
        picture.savefig(out, format="png")
    return out.getvalue()


def _legend(summary: Summary) -> list[Line2D]:
    """What the marks that are drawn mean."""
    from matplotlib.lines import Line2D

    drawn = {point.decision for point in summary.points if point.number and (point.value is not None)}
    wide: dict[str, Any] = {"markersize": 5, "linestyle": "none"}
    entries = [
        ("keep" in drawn, Line2D([], [], color=_KEEP, marker="o", label="kept", **wide)),
        (
            "discard" in drawn,
            Line2D([], [], color=_MARK, marker="o", markerfacecolor="white", label="discarded", **wide),
        ),
        ("" in drawn, Line2D([], [], color=_OPEN, marker="o", markerfacecolor="white", label="still open", **wide)),
        (summary.intervals, Line2D([], [], color=_MARK, marker="|", label="interval of its delta", **wide)),
        (bool(drawn), Line2D([], [], color=_RUN, marker=".", label="one run", linestyle="none")),
        (bool(summary.steps), Line2D([], [], color=_KEEP, label="the incumbent")),
        (
            any(point.decision == "crash" for point in summary.points),
            Line2D([], [], color=_CRASH, marker="x", label="crashed", **wide),
        ),
    ]
    return [line for shown, line in entries if shown]


def _plain(text: str) -> str:
    """No mathematics: a dollar sign would start it."""
    return text.replace("\\", "/").replace("$", "\\$")
