"""The hyperparameters of a script as dimensions of a search: which may turn, on what scale, how eagerly.

Every number has a coordinate in which a step of one is a doubling, so that learning rates, widths and shares can
be searched alike:

- `log`: log2 of the value; floats and small integers.
- `power`: the same over powers of two; batch sizes, head widths, what is spelt `2**n`.
- `multiple`: the same over multiples of a power of two that divides the value, 64 for 320; larger integers.
- `complement`: -log2(1 - value); momenta and betas, for which 0.9 -> 0.95 is one step.
- `share`: log2(1 + value / 0.05); shares that may be zero, such as a warm-up.
- `choice`: no order; true or false, and window patterns of short (S) and long (L) attention.

Seeds, what belongs to the evaluation, and what keeps the time are never dimensions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from trainer.project import hyperparameters
from trainer.project.hyperparameters import Hyperparameter, Value

Scale = Literal["log", "power", "multiple", "complement", "share", "choice"]

_FIXED = re.compile(r"SEED|EVAL|(^|_)(VAL|VALID|TIME|BUDGET|SECONDS|STARTUP|EXCLUDE|TIMEOUT|LOG|PRINT|VOCAB)(_|$)")
_PATTERNS = ("L", "SL", "SSL", "SSSL", "SSSSL")
_SHARE_UNIT = 0.05
_SMALL = 16  # below this an integer moves in ones, unless its role is a size

# What moves first: the words that name a hyperparameter's role, its weight, and its scale where the name tells.
# Learning rates and batch size move val_bpb most within a fixed time, the rest of the schedule and the shape next.
_ROLES: tuple[tuple[tuple[str, ...], float, Scale | None], ...] = (
    (("WARMUP", "DROPOUT"), 1.0, "share"),
    (("FINAL",), 1.0, "share"),
    (("WARMDOWN", "COOLDOWN"), 3.0, None),
    (("MOMENTUM", "BETA"), 0.8, "complement"),
    (("LR", "LEARNING"), 8.0, None),
    (("ACCUM",), 1.5, None),
    (("BATCH",), 6.0, "power"),
    (("DEPTH", "LAYER"), 3.0, None),
    (("HEAD_DIM",), 1.0, "power"),
    (("DIM", "WIDTH", "EMBD", "ASPECT"), 3.0, None),
    (("DECAY",), 1.5, None),
    (("WINDOW", "PATTERN"), 1.5, None),
)


@dataclass(frozen=True, slots=True)
class Dimension:
    """A hyperparameter that may turn: its present value, weight and scale; `choices` only where there is no order."""

    name: str
    value: Value
    weight: float
    scale: Scale
    unit: int = 1
    most: float = math.inf
    choices: tuple[Value, ...] = ()

    def coordinate(self, value: Value) -> float | None:
        """Where `value` lies on the scale, or None if it is not on it; a choice's is its index."""
        if self.scale == "choice":
            return float(self.choices.index(value)) if value in self.choices else None
        if isinstance(value, str):
            return None
        number = float(value)
        if self.scale == "share":
            return math.log2(1 + number / _SHARE_UNIT) if number >= 0 else None
        if self.scale == "complement":
            return -math.log2(1 - number) if 0 < number < 1 else None
        return math.log2(number) if number > 0 else None

    def at(self, coordinate: float) -> Value:
        """The nearest value at a coordinate that the hyperparameter's kind and role allow."""
        if self.scale == "choice":
            return self.choices[min(max(round(coordinate), 0), len(self.choices) - 1)]
        coordinate = min(max(coordinate, -60.0), 60.0)
        if self.scale == "share":
            number = _SHARE_UNIT * (math.exp2(coordinate) - 1)
            return 0.0 if number < 0.002 else _rounded(min(number, self.most))
        if self.scale == "complement":
            rest = float(f"{math.exp2(-coordinate):.2g}")
            return round(1 - min(max(rest, 1e-6), 0.999), 8)
        if isinstance(self.value, float):
            return _rounded(min(math.exp2(coordinate), self.most))
        if self.scale == "power":
            return 1 << max(0, round(coordinate))
        return self.unit * max(1, round(math.exp2(coordinate) / self.unit))


def dimensions(source: str) -> list[Dimension]:
    """The dimensions of a script, in the order of its hyperparameters."""
    found = []
    for hyperparameter in hyperparameters.find(source):
        dimension = None if _FIXED.search(hyperparameter.name) else _dimension(hyperparameter, source)
        if dimension is not None:
            found.append(dimension)
    return found


def point(dims: list[Dimension], values: Mapping[str, Value]) -> tuple[float, ...] | None:
    """The coordinates of a script's values, or None if one is missing or off its scale."""
    found = []
    for dimension in dims:
        value = values.get(dimension.name)
        coordinate = None if value is None else dimension.coordinate(value)
        if coordinate is None:
            return None
        found.append(coordinate)
    return tuple(found)


def _dimension(hyperparameter: Hyperparameter, source: str) -> Dimension | None:
    name, value = hyperparameter.name, hyperparameter.value
    weight, scale = next(((w, s) for words, w, s in _ROLES if any(word in name for word in words)), (0.5, None))
    if isinstance(value, bool):
        return Dimension(name, value, weight, "choice", choices=(False, True))
    if isinstance(value, str):
        if not value or set(value) - {"S", "L"} or not any(word in name for word in ("WINDOW", "PATTERN")):
            return None
        return Dimension(name, value, weight, "choice", choices=tuple(dict.fromkeys((value, *_PATTERNS))))
    if value < 0:
        return None
    if isinstance(value, int):
        return _whole(name, value, weight, scale, source[slice(*hyperparameter.span)])
    # A fraction stays a fraction, except a rate, whose size means nothing by itself.
    share = 0 < value < 1 and not (weight == 8.0 or "DECAY" in name)
    most = (1.0 if "DOWN" in name else 0.95) if share or scale == "share" else math.inf
    if scale == "share" or value == 0:
        return Dimension(name, value, weight, "share", most=0.95 if value < 1 else math.inf)
    if scale == "complement" and share:
        return Dimension(name, value, weight, "complement")
    return Dimension(name, value, weight, "log", most=max(most, value))


def _whole(name: str, value: int, weight: float, scale: Scale | None, text: str) -> Dimension:
    if value == 0:
        return Dimension(name, value, weight, "choice", choices=(0, 1))
    even = value & -value  # the largest power of two that divides it
    if even == value and (scale == "power" or "**" in text):
        return Dimension(name, value, weight, "power")
    if value < _SMALL:
        return Dimension(name, value, weight, "log")
    return Dimension(name, value, weight, "multiple", unit=min(even, 64, value // 2))


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
