"""Scores: how a metric becomes the program's i64 and back, exactly.

Scores have scale 1,000,000 and the program accepts only rising ones. For a metric that is minimized two
conventions are in use, and a wrong one either approves anything or freezes the project for ever:

- **negated**: score = −metric·10⁶, so the baseline score is negative;
- **reflected**: score = 2·baseline − metric·10⁶, so the baseline score is +baseline·10⁶.

A metric that is maximized is simply scaled. The convention is inferred from the baseline score and the
baseline metric; if none fits, the error names both values. Arithmetic is decimal,
rounded half-even at six places, never float.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Literal

from chain.errors import InvalidData

SCALE = 1_000_000
_MAX = 2**63 - 1
_CONTEXT = Context(prec=50)

ConventionKind = Literal["negated", "reflected", "plain"]


@dataclass(frozen=True, slots=True)
class Convention:
    """How one project writes its scores; `baseline` is its baseline score as on chain."""

    kind: ConventionKind
    baseline: int

    @property
    def minimize(self) -> bool:
        """Whether a lower metric is a higher score."""
        return self.kind != "plain"

    def to_score(self, metric: Decimal) -> int:
        """The score of a metric; InvalidData if it does not fit an i64."""
        scaled = scale(metric)
        score = {"plain": scaled, "negated": -scaled, "reflected": 2 * self.baseline - scaled}[self.kind]
        if not -_MAX - 1 <= score <= _MAX:
            raise InvalidData(f"The score {score} of the metric {metric} exceeds 64 bits.")
        return score

    def to_metric(self, score: int) -> Decimal:
        """The metric of a score, with six decimals."""
        scaled = {"plain": score, "negated": -score, "reflected": 2 * self.baseline - score}[self.kind]
        return unscale(scaled)

    def fits(self, score: int) -> bool:
        """Whether a score can be meant in this convention: a minimized metric does not change its sign.

        The official client's miners claim +metric·10⁶ where its own validator computes −metric·10⁶.
        """
        return not self.minimize or self.to_metric(score) * self.to_metric(self.baseline) >= 0

    def gain(self, score: int) -> Decimal:
        """How much better than the baseline a score is, in the metric's unit; positive is better."""
        return unscale(score - self.baseline)

    def gain_percent(self, score: int) -> Decimal:
        """The gain as a share of the baseline metric, in percent with two decimals; 0 for a baseline of 0."""
        metric = _CONTEXT.abs(self.to_metric(self.baseline))
        if not metric:
            return Decimal("0.00")
        share = _CONTEXT.divide(_CONTEXT.multiply(self.gain(score), Decimal(100)), metric)
        return share.quantize(Decimal("0.01"), ROUND_HALF_EVEN, _CONTEXT)


def scale(metric: Decimal) -> int:
    """metric·10⁶, half-even; InvalidData if it is not a number that fits an i64."""
    try:
        # quantize first: it rounds once, from all the digits there are
        scaled = int(metric.quantize(Decimal("0.000001"), ROUND_HALF_EVEN, _CONTEXT).scaleb(6, _CONTEXT))
    except (ArithmeticError, ValueError):
        raise InvalidData(f"{metric} cannot be a score.") from None
    if not -_MAX - 1 <= scaled <= _MAX:
        raise InvalidData(f"The metric {metric} exceeds a score of 64 bits.")
    return scaled


def unscale(points: int) -> Decimal:
    """points·10⁻⁶ with six decimals: a score, or a difference of two, as a number."""
    return Decimal(points).scaleb(-6, _CONTEXT)


def infer(baseline_score: int, baseline_metric: Decimal, *, minimize: bool) -> Convention:
    """The convention under which this score is this metric; InvalidData, naming both, where there is none."""
    scaled = scale(baseline_metric)
    if not minimize and baseline_score == scaled:
        return Convention("plain", baseline_score)
    if minimize and scaled and baseline_score == scaled:
        return Convention("reflected", baseline_score)
    if minimize and scaled and baseline_score == -scaled:
        return Convention("negated", baseline_score)
    raise InvalidData(
        f"The baseline score {baseline_score} on chain matches no known convention for the baseline metric "
        f"{baseline_metric}.",
        "Do not stake on this project: the meaning of its scores is unknown.",
    )
