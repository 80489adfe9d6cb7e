"""The confirming test gives the verifier's own answer: what it lets through, `verifier check` approves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.money.score import Convention
from miner.staking.confirm import Rules, judge
from tests.verifier.cases import NOISE, failing, runs
from trainer.judging.replay import ReplayRun
from verifier import replay as verifying
from verifier.policy import Policy
from verifier.verdict import Kind, decide

BUDGET = 6.0
RULES = Rules.at(0.99, 0.0)


def answer(measured: tuple[ReplayRun, ...], *, trusted: bool = True, rules: Rules = RULES) -> str:
    return judge(measured, NOISE, rules, seed=7, budget_seconds=BUDGET, trusted=trusted).problem


def verdict(measured: tuple[ReplayRun, ...]) -> Kind:
    judged = verifying.judge(
        (),
        measured,
        noise=NOISE,
        seed=7,
        budget_seconds=BUDGET,
        method="trusted",
        best_score=2_500_000,
        convention=Convention("reflected", 2_500_000),
        policy=Policy(),
    )
    return decide(judged.evidence, Policy().verdict).kind


def late(measured: tuple[ReplayRun, ...], seconds: float) -> tuple[ReplayRun, ...]:
    return tuple(replace(run, train_seconds=seconds) if run.arm == "candidate" else run for run in measured)


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (runs(0.2), ""),
        (runs(-0.05), "not shown to be better"),
        (runs(0.0), "not shown to be better"),
        (runs(0.2, -0.02), "does not hold on fresh text"),
        (runs(0.2, 0.05), "not clear or much smaller"),
        (late(runs(0.2), 30.0), "8.5 s are allowed"),
        ((*runs(0.2), failing("candidate", "crash", "It broke.")), "It broke"),
        ((), "no end"),
        (tuple(replace(run, fresh_bpb=None) for run in runs(0.2)), "could not be scored on fresh text"),
    ],
)
def test_what_is_not_submitted(measured: tuple[ReplayRun, ...], words: str) -> None:
    found = answer(measured)
    assert words in found
    assert bool(words) == bool(found)
    if found == "":
        assert verdict(measured) is Kind.APPROVE


@settings(max_examples=300, deadline=None)
@given(
    st.floats(-0.1, 0.2),
    st.none() | st.floats(-0.1, 0.2),
    st.integers(0, 999),
    st.integers(0, 9),
    st.sampled_from([6.5, 8.4, 8.6, 20.0]),
    st.booleans(),
)
def test_what_passes_the_verifier_approves(
    gain: float, fresh: float | None, seed: int, count: int, seconds: float, crash: bool
) -> None:
    measured = late(runs(gain, fresh, seed=seed, count=count), seconds)
    if crash:
        measured = (*measured, failing("candidate", "crash"))
    if answer(measured) == "":
        assert verdict(measured) is Kind.APPROVE
    elif not crash:
        assert verdict(measured) is not Kind.APPROVE


def test_self_reported_numbers_are_not_scored_on_fresh_text() -> None:
    measured = tuple(replace(run, fresh_bpb=None) for run in runs(0.2))
    assert answer(measured, trusted=False) == ""


@pytest.mark.parametrize(("confidence", "alpha"), [(0.9, 0.01), (0.99, 0.01), (0.999, 0.001)])
def test_the_owner_may_be_stricter_than_a_verifier_but_not_laxer(confidence: float, alpha: float) -> None:
    assert Rules.at(confidence, 0.0).comparison.alpha == pytest.approx(alpha)


@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_the_projects_margin_must_be_cleared(margin: float) -> None:
    found: Any = answer(runs(0.04), rules=Rules.at(0.99, margin))
    assert bool(found) is (margin > 0.04)
