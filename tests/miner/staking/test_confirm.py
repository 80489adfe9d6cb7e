"""The confirming test gives the verifier's own answer: what it lets through, `verifier check` approves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.money.score import Convention
from miner.staking import confirm
from miner.staking.confirm import policy_at
from tests.trainer.judging.cases import NOISE, failing, runs
from trainer.judging.policy import JudgePolicy
from trainer.judging.runs import ReplayRun
from trainer.judging.verdict import VerdictKind, decide
from verifier import replay as verifying

BUDGET = 6.0
POLICY = policy_at(0.99, 0.0)


def answer(measured: tuple[ReplayRun, ...], *, method: str = "trusted", policy: JudgePolicy = POLICY) -> str:
    """Why it is not submitted; "" where it is."""
    _, said = confirm.answer((), measured, NOISE, policy, seed=7, budget_seconds=BUDGET, method=method)
    return "" if said.kind is VerdictKind.APPROVE else said.explanation


def verdict(measured: tuple[ReplayRun, ...]) -> VerdictKind:
    judged = verifying.judge(
        (),
        measured,
        noise=NOISE,
        seed=7,
        budget_seconds=BUDGET,
        method="trusted",
        best_score=2_500_000,
        convention=Convention("reflected", 2_500_000),
        policy=JudgePolicy(),
    )
    return decide(judged.evidence, JudgePolicy().verdict).kind


def late(measured: tuple[ReplayRun, ...], seconds: float) -> tuple[ReplayRun, ...]:
    return tuple(replace(run, train_seconds=seconds) if run.arm == "candidate" else run for run in measured)


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (runs(0.2), ""),
        (runs(-0.05), "No improvement over the incumbent"),
        (runs(0.0), "No improvement over the incumbent"),
        (runs(0.2, -0.02), "does not hold on holdout text"),
        (runs(0.2, 0.05), "is not clear, or far smaller"),
        (late(runs(0.2), 30.0), "8.5 s are allowed"),
        ((*runs(0.2), failing("candidate", "crash", "It broke.")), "It broke"),
        ((), "not carried out"),
        (tuple(replace(run, holdout_bpb=None) for run in runs(0.2)), "No holdout text could be scored"),
    ],
)
def test_what_is_not_submitted(measured: tuple[ReplayRun, ...], words: str) -> None:
    found = answer(measured)
    assert words in found
    assert bool(words) == bool(found)
    if found == "":
        assert verdict(measured) is VerdictKind.APPROVE


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
        assert verdict(measured) is VerdictKind.APPROVE
    elif not crash:
        assert verdict(measured) is not VerdictKind.APPROVE


def test_self_reported_numbers_are_not_scored_on_holdout_text() -> None:
    measured = tuple(replace(run, holdout_bpb=None) for run in runs(0.2))
    assert answer(measured, method="self-reported") == ""


@pytest.mark.parametrize(("confidence", "alpha"), [(0.9, 0.01), (0.99, 0.01), (0.999, 0.001)])
def test_the_owner_may_be_stricter_than_a_verifier_but_not_laxer(confidence: float, alpha: float) -> None:
    assert policy_at(confidence, 0.0).comparison.alpha == pytest.approx(alpha)


@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_the_projects_margin_must_be_cleared(margin: float) -> None:
    found: Any = answer(runs(0.04), policy=policy_at(0.99, margin))
    assert bool(found) is (margin > 0.04)
