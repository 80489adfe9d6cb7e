"""Racing: who is stopped, who never is, and what finished runs teach the rule; on made-up and recorded curves."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.bench_pruning import (
    HELD_OUT,
    TUNED,
    across,
    binomial_limit,
    late_warm_downs,
    load,
    pairs,
    stopped_at,
    within_rounds,
)
from trainer.statistics.pruning import (
    MIN_POINTS,
    Band,
    Curve,
    PruningRules,
    at,
    audited,
    hopeless,
    prints_same_loss,
    worst_lag,
)

RULES = PruningRules()
BUDGET = 100.0


def curve(loss: Callable[[float], float], points: int = 101) -> list[tuple[float, float]]:
    """A run of 100 s; `loss` takes the share of the budget."""
    return [(100 * i / (points - 1), loss(i / (points - 1))) for i in range(points)]


def usual(x: float) -> float:
    """A fast fall, a plateau, a warm-down over the second half."""
    return 2.0 + 4.2 * math.exp(-8 * x) - 0.6 * max(0.0, x - 0.5)


BAND = Band.of([curve(usual), curve(lambda x: usual(x) + 0.01 * x)])
assert BAND is not None


def stop(candidate: Curve, rules: PruningRules = RULES) -> float | None:
    assert BAND is not None
    return stopped_at(tuple(candidate), BAND, BUDGET, rules)


@pytest.mark.parametrize(
    ("loss", "stopped"),
    [
        (usual, False),
        (lambda x: usual(x) - 0.3 * x, False),
        (lambda x: usual(x) + 1.0 * x, True),  # ever further behind
        (lambda x: min(6.2, usual(x) + 3 * x), True),  # has stopped learning
        (lambda x: usual(x) + (4.0 if x > 0.45 else 0.0), True),  # diverged
        (lambda x: usual(x) + 0.05 * x, False),  # behind, but not by what is left
        (lambda x: usual(x) + 1.2 * x * (1 - x) ** 0.5, True),  # would have come back only at the very end
        (lambda x: 6.2 - 4.6 * x, False),  # a slow starter that falls straight to the win
        (lambda x: usual(x) + 1.0 * x if x < 0.39 else usual(x), False),  # was behind before anything is judged
        (lambda x: usual(x) + (1.0 if 0.5 < x < 0.53 else 0.0), False),  # one bad stretch shorter than `settled`
        (lambda x: 2 * usual(x) + x, False),  # prints another loss
        (lambda x: usual(x) + 1.0 + x, False),
    ],
)
def test_who_is_stopped(loss: Callable[[float], float], stopped: bool) -> None:
    at_share = stop(curve(loss))
    assert (at_share is not None) == stopped
    if at_share is not None:
        assert RULES.earliest <= at_share <= RULES.latest


def test_the_reason_is_a_sentence_with_figures() -> None:
    assert BAND is not None
    reason = hopeless(curve(lambda x: usual(x) + x)[:60], BAND, budget_seconds=BUDGET, rules=RULES)
    assert reason.startswith("stopped at ")
    assert "of 100 s" in reason


def test_a_script_that_prints_seldom_or_hardly_anything_is_let_go() -> None:
    poor = lambda x: usual(x) + x  # noqa: E731
    assert stop(curve(poor)) is not None
    assert stop(curve(poor, 41)) is None
    assert stop(curve(poor, MIN_POINTS - 1)) is None
    assert stop([]) is None


@pytest.mark.parametrize(
    "curves",
    [
        [],
        [curve(usual)[: MIN_POINTS - 1]],
        [list(reversed(curve(usual)))],
        [[(0.0, math.nan), *curve(usual)[1:]]],
        [[(0.0, 6.0)] * 20],
    ],
)
def test_no_band_without_usable_curves(curves: list[Curve]) -> None:
    assert Band.of(curves) is None
    with_one = Band.of([*curves, curve(usual)])
    assert with_one == Band.of([curve(usual)])
    assert with_one is not None
    assert set(with_one.spread) == {0.0}


@given(
    points=st.lists(
        st.tuples(st.floats(allow_nan=True, allow_infinity=True), st.floats(allow_nan=True, allow_infinity=True)),
        max_size=60,
    )
)
def test_any_printed_text_gives_an_answer(points: list[tuple[float, float]]) -> None:
    assert BAND is not None
    for candidate in (points, sorted(points, key=str)):
        assert isinstance(hopeless(candidate, BAND, budget_seconds=BUDGET, rules=RULES), str)
        worst_lag(candidate, BAND, budget_seconds=BUDGET, rules=RULES)
        Band.of([candidate, candidate])


@given(factor=st.floats(0.1, 10), seconds=st.sampled_from([25.0, 50.0, 200.0, 400.0]), behind=st.floats(0, 2))
def test_units_do_not_matter(factor: float, seconds: float, behind: float) -> None:
    """Another tokenizer scales the loss, another budget the time; the answer stays."""

    def scaled(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(time * seconds / 100, loss * factor) for time, loss in points]

    poor, one, two = curve(lambda x: usual(x) + behind * x), curve(usual), curve(lambda x: usual(x) + 0.01 * x)
    band, other = Band.of([one, two]), Band.of([scaled(one), scaled(two)])
    assert band is not None
    assert other is not None
    lag = worst_lag(poor, band, budget_seconds=BUDGET, rules=RULES)
    assert lag is not None
    assert worst_lag(scaled(poor), other, budget_seconds=seconds, rules=RULES) == pytest.approx(lag, rel=1e-6, abs=1e-9)


def test_a_curve_between_its_points() -> None:
    points = [(0.0, 6.0), (10.0, 4.0), (10.0, 3.0), (20.0, 2.0)]
    assert [at(points, time) for time in (-1, 0, 5, 15, 20, 99)] == [6.0, 6.0, 5.0, 2.5, 2.0, 2.0]


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("LR = 0.1\nprint(loss)\n", "LR = 0.2  # faster\nprint(loss)\n", True),
        ("LR = 0.1\nprint(loss)\n", "LR = 0.1\n  print(loss)\n", True),
        ("LABEL_SMOOTHING = 0.0\n", "LABEL_SMOOTHING = 0.1\n", False),
        ("x = norm(x)\n", "x = dropout(norm(x))\n", False),
        ("value = loss.item()\n", "value = 2 * loss.item()\n", False),
        ("a\nb\n", "b\na\n", True),
        ("", "nn.losses.cross_entropy(logits, targets, label_smoothing=0.1)", False),
    ],
)
def test_candidates_that_touch_the_loss_are_known(before: str, after: str, same: bool) -> None:
    assert prints_same_loss(before, after) is same


def test_calibration_loosens_at_once_and_tightens_slowly() -> None:
    assert RULES.calibrated([]).ratio == RULES.ratio
    # One run far behind that won: at once half as much again.
    assert RULES.calibrated([(1.4, 0.5)]).ratio == pytest.approx(2.1)
    # One far behind that lost says nothing.
    assert RULES.calibrated([(9.0, -8.0)] * 100).ratio == RULES.ratio
    near = [(0.1 + i / 1000, 0.0) for i in range(60)]
    assert RULES.calibrated(near[:48]).ratio == RULES.ratio
    assert RULES.calibrated(near[:49]).ratio == RULES.floor
    assert RULES.calibrated([*near, (0.6, 1.0)]).ratio == pytest.approx(0.9)
    assert RULES.calibrated([(math.inf, 1.0)]).ratio == RULES.ratio


def test_one_in_twenty_is_audited_and_always_the_same() -> None:
    chosen = [seed for seed in range(4000) if audited(seed, RULES)]
    assert 140 < len(chosen) < 260
    assert chosen == [seed for seed in range(4000) if audited(seed, RULES)]
    assert not any(audited(seed, PruningRules(audit=0)) for seed in range(100))


def test_binomial_limits() -> None:
    assert binomial_limit(0, 59) == pytest.approx(1 - 0.05 ** (1 / 59))
    assert binomial_limit(3, 100) == pytest.approx(0.0757, abs=1e-3)


def test_recorded_curves() -> None:
    """On real curves no winner of its own round is stopped, and losers are."""
    for path in (TUNED, HELD_OUT):
        recording = load(path)
        tally = within_rounds(recording, RULES)
        assert tally.winners_stopped == 0
        assert tally.winners > 15
        assert tally.losers_stopped > 0.08 * tally.losers
        found = pairs(recording, RULES)
        assert max(lag for lag, delta in found if delta >= 0) < RULES.ratio


@pytest.mark.slow
@pytest.mark.parametrize("above", [0.0, 0.06, 0.1])
def test_a_late_warm_down_is_not_stopped(above: float) -> None:
    """At full size: it holds the incumbent's plateau, or stays above it, until its last tenth, and wins."""
    assert late_warm_downs(0.1, above, 20, RULES) == 0.0
    assert late_warm_downs(0.1, above, 20, PruningRules(latest=0.85)) > 0.7  # as it was


@pytest.mark.slow
def test_recorded_curves_against_each_other() -> None:
    recording = load(HELD_OUT)
    thinned = type(recording)(recording.about, recording.budget_seconds, recording.runs[::3])
    tally = across(thinned, RULES)
    assert tally.winners > 200
    assert tally.winners_stopped <= 0.02 * tally.winners
    assert tally.saved_of_losers > 0.03


@pytest.mark.parametrize(("ahead", "lag"), [(-0.1, math.inf), (0.1, -math.inf), (0.0, 0.0)])
def test_where_the_incumbent_falls_no_further_any_difference_decides(ahead: float, lag: float) -> None:
    band = Band.of([curve(usual)])
    assert band is not None
    assert band.lag(BUDGET, band.mean[-1] - ahead) == lag
