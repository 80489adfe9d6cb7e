"""SVG by hand: escaped elements, linear scales and round ticks. Colours and fonts are the page's style sheet's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


def element(name: str, *inside: str, **attributes: object) -> str:
    """An element; `class_` is the attribute class, `_` in a name stands for `-`, None leaves one out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{written}>{''.join(inside)}</{name}>" if inside else f"<{name}{written}/>"


def text(x: float, y: float, words: str, **attributes: object) -> str:
    """Words at a place, escaped."""
    return element("text", escape(words), x=x, y=y, **attributes)


def svg(width: int, height: int, label: str, *inside: str, class_: str = "", role: str = "img") -> str:
    """A picture as wide as its place, at most `width` CSS pixels; `label` says in words what it shows, "" for one that
    its neighbour says. One that holds links is no `img` but a `group`."""
    return element(
        "svg",
        *inside,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role=role if label else None,
        aria_label=label or None,
        aria_hidden=None if label else "true",
        class_=class_ or None,
    )


def line(points: Sequence[tuple[float, float]], **attributes: object) -> str:
    """A line through points."""
    return element("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), fill="none", **attributes)


@dataclass(frozen=True, slots=True)
class Frame:
    """A plot's place in a picture, with the values at its edges: y grows upwards."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom)

    @property
    def floor(self) -> int:
        return self.height - self.bottom

    def holds(self, value: float) -> bool:
        """Whether a value of y is within the plot."""
        return self.y_range[0] <= value <= self.y_range[1]

    def axes(self, x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]]) -> list[str]:
        """Level lines with their values left of them, and the marks below."""
        parts = []
        for value, words in y_ticks:
            y = self.y(value)
            parts.append(element("line", x1=self.left, x2=self.width - self.right, y1=y, y2=y, class_="grid"))
            parts.append(text(self.left - 8, y + 4, words, class_="tick", text_anchor="end"))
        for value, words in x_ticks:
            parts.append(text(self.x(value), self.floor + 18, words, class_="tick", text_anchor="middle"))
        return parts


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round values within a range, near `about` of them."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return []
    rough = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= 0.7 * rough)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, first + 50) if k * step <= high + step * 1e-9]


def decimals(values: Sequence[float]) -> int:
    """How many decimals tell round values apart."""
    return next((n for n in range(7) if all(abs(v - round(v, n)) < 1e-9 for v in values)), 6)


def _text(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
