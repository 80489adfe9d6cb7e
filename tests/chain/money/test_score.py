"""Scores: the live project's figures, exact conversion both ways, and refusal where no convention fits."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.errors import InvalidData
from chain.money.score import Convention, ConventionKind, infer, scale

LIVE = infer(2_667_000, Decimal("2.667"), minimize=True)


def test_the_live_project() -> None:
    assert (LIVE.kind, LIVE.baseline) == ("reflected", 2_667_000)
    assert LIVE.to_metric(3_342_544) == Decimal("1.991456")
    assert LIVE.gain(3_342_544) == Decimal("0.675544")
    assert LIVE.gain_percent(3_342_544) == Decimal("25.33")
    assert LIVE.to_score(Decimal("1.991456")) == 3_342_544


def test_a_callers_context_of_few_digits_changes_no_score() -> None:
    with localcontext(prec=3):
        test_the_live_project()
        assert scale(Decimal("1.234567")) == 1_234_567


@pytest.mark.parametrize(
    ("score", "metric", "minimize", "kind"),
    [
        (2_667_000, "2.667", True, "reflected"),
        (-2_667_000, "2.667000", True, "negated"),
        (2_667_000, "2.667", False, "plain"),
        (-5, "-0.000005", False, "plain"),
        (0, "0", False, "plain"),
        (5, "-0.000005", True, "negated"),
    ],
)
def test_inference(score: int, metric: str, minimize: bool, kind: ConventionKind) -> None:
    assert infer(score, Decimal(metric), minimize=minimize).kind == kind


@pytest.mark.parametrize(
    ("score", "metric", "minimize", "claim", "fits"),
    [
        (-2_667_000, "2.667", True, -2_000_000, True),
        (-2_667_000, "2.667", True, -9_000_000, True),  # worse, but meant
        (-2_667_000, "2.667", True, 2_000_000, False),  # as the official client's miners claim
        (2_667_000, "2.667", True, 3_342_544, True),
        (2_667_000, "2.667", True, 5_334_000, True),  # a metric of zero
        (2_667_000, "2.667", True, 5_334_001, False),
        (2_667_000, "2.667", False, -1, True),
    ],
)
def test_a_minimized_metric_keeps_its_sign(score: int, metric: str, minimize: bool, claim: int, fits: bool) -> None:
    assert infer(score, Decimal(metric), minimize=minimize).fits(claim) is fits


@pytest.mark.parametrize(
    ("score", "metric", "minimize"),
    [
        (2_667_001, "2.667", True),
        (2_667, "2.667", True),
        (-2_667_000, "2.667", False),
        (0, "0", True),  # either would fit, and they differ
        (0, "2.667", True),
    ],
)
def test_refusal_names_both_values(score: int, metric: str, minimize: bool) -> None:
    with pytest.raises(InvalidData) as refusal:
        infer(score, Decimal(metric), minimize=minimize)
    assert str(score) in refusal.value.problem
    assert metric in refusal.value.problem
    assert refusal.value.cure == "Do not stake on this project: the meaning of its scores is unknown."


@pytest.mark.parametrize(
    ("metric", "scaled"),
    [
        ("1.9914565", 1_991_456),
        ("1.9914575", 1_991_458),
        ("-0.0000005", 0),
        ("0.0000015", 2),
        ("0.0000005" + "0" * 60 + "1", 1),
        ("1e-30", 0),
        ("9223372036854.775807", 2**63 - 1),
    ],
)
def test_scaling_is_exact_and_half_even(metric: str, scaled: int) -> None:
    assert scale(Decimal(metric)) == scaled


@pytest.mark.parametrize("metric", ["NaN", "sNaN", "Infinity", "1e30", "1e999999", "9223372036854.775808"])
def test_what_no_score_can_hold(metric: str) -> None:
    with pytest.raises(InvalidData):
        scale(Decimal(metric))


def test_a_score_must_fit_64_bits() -> None:
    with pytest.raises(InvalidData):
        Convention("reflected", 2**62).to_score(Decimal(-(2**62)) / 1_000_000)


@given(st.sampled_from(["negated", "reflected", "plain"]), st.integers(1, 10**9), st.integers(-(10**9), 10**9))
def test_both_ways(kind: ConventionKind, baseline: int, score: int) -> None:
    convention = Convention(kind, -baseline if kind == "negated" else baseline)
    metric = convention.to_metric(score)
    assert convention.to_score(metric) == score
    better = metric - Decimal("0.000001") if convention.minimize else metric + Decimal("0.000001")
    assert convention.to_score(better) == score + 1
    first = convention.to_metric(convention.baseline)
    assert convention.gain(score) == (first - metric if convention.minimize else metric - first)


def test_a_baseline_of_zero_has_no_percentage() -> None:
    assert Convention("plain", 0).gain_percent(5) == Decimal("0.00")
