"""Chi, Student's t, noncentral t and F, by one quadrature: what the sequential test needs, without scipy."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

_NODES = 160
_ROOT2 = math.sqrt(2)


@lru_cache(maxsize=1024)
def _chi(df: float) -> tuple[tuple[float, float], ...]:
    """Nodes u and weights of U = √(χ²_df / df): the trapezoid rule in log χ², where the density is
    analytic and decays on both sides, so that the rule converges geometrically."""

    def log_density(x: float) -> float:
        return df / 2 * x - math.exp(x) / 2

    mode, step = math.log(df), math.sqrt(2 / df)
    low = high = mode
    while log_density(mode) - log_density(low) < 40:
        low -= step
    while log_density(mode) - log_density(high) < 40:
        high += step / 4
    grid = [low + (high - low) * i / (_NODES - 1) for i in range(_NODES)]
    weights = [math.exp(log_density(x) - log_density(mode)) for x in grid]
    total = math.fsum(weights)
    return tuple((math.exp(x / 2) / math.sqrt(df), w / total) for x, w in zip(grid, weights, strict=True))


def upper_tail(t: float, df: float, noncentrality: float = 0.0) -> float:
    """P(T > t) for (noncentral) Student's t: Z + noncentrality > t·U."""
    erfc, t, shift = math.erfc, t / _ROOT2, noncentrality / _ROOT2
    return 0.5 * math.fsum([w * erfc(t * u - shift) for u, w in _chi(df)])


def _chi2_upper_tail(x: float, df: int) -> float:
    """P(χ²_df > x) for whole df, by the recurrence that adds two degrees at a time."""
    half = x / 2
    k, tail = (1, math.erfc(math.sqrt(half))) if df % 2 else (2, math.exp(-half))
    term = math.exp(-half) * (math.sqrt(half) / math.gamma(1.5) if df % 2 else half)
    while k < df:
        tail += term
        k += 2
        term *= half / (k / 2)
    return tail


@lru_cache(maxsize=65536)
def approval_point(df: float, level: float) -> float:
    """The t that Student's t with `df` exceeds with probability `level`."""
    return _crossing(lambda t: upper_tail(t, df), level, 0.0, 4.0)


@lru_cache(maxsize=65536)
def rejection_point(df: float, noncentrality: float, level: float) -> float:
    """The t below which the noncentral t falls with probability `level`."""
    return -_crossing(lambda t: upper_tail(t, df, -noncentrality), level, -noncentrality, 4.0)


@lru_cache(maxsize=4096)
def suspicion_ratio(own_df: int, record_df: float, level: float) -> float:
    """The ratio of trial to record variance that F(own_df, record_df) exceeds with probability `level`."""
    return _crossing(
        lambda f: math.fsum(w * _chi2_upper_tail(own_df * f * u * u, own_df) for u, w in _chi(record_df)),
        level,
        0.0,
        4.0,
    )


def _crossing(tail: Callable[[float], float], level: float, low: float, width: float) -> float:
    """Where a falling `tail`, above `level` at `low`, crosses it: by doubling, then by the Illinois rule on the tail's
    logarithm, which is nearly straight, so that a few steps do."""

    def above(x: float) -> float:
        return math.log(max(tail(x), 1e-300) / level)

    left = above(low)
    while (right := above(low + width)) > 0 and width < 1e12:
        low, left, width = low + width, right, 2 * width
    high, side = low + width, 0
    for _ in range(100):
        if high - low < 1e-11 * max(1.0, abs(high)) or left == right:
            break
        middle = (low * right - high * left) / (right - left)
        value = above(middle)
        if value == 0 or middle in (low, high):
            return middle
        if value > 0:
            low, left, right, side = middle, value, right / 2 if side > 0 else right, 1
        else:
            high, right, left, side = middle, value, left / 2 if side < 0 else left, -1
    return (low + high) / 2
