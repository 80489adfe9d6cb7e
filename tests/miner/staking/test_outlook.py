"""Whether a stake pays, as tables and against a simulation of what a verifier would see."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from chain.network.base import sol
from miner.staking.outlook import Market, outlook, verdict
from tests.benchmarks.bench_claims import POLICY, judged
from trainer.judging.judge import suggested
from trainer.judging.policy import JudgePolicy
from trainer.statistics.comparison import Answer
from trainer.statistics.error_rates import LookEvidence
from trainer.statistics.shrinkage import Posterior

SIGMA = 0.02
SEEN = LookEvidence(
    delta=3 * SIGMA,
    low=0.01,
    high=0.1,
    p=0.001,
    sigma=SIGMA,
    df=20.0,
    incumbent_runs=6,
    candidate_runs=3,
    noisier=False,
    scale=(2 / 3) ** 0.5,
)
PLAIN = Posterior(SEEN.delta, SIGMA * SEEN.scale)  # as where nothing is known of other candidates
MARKET = Market(price=200_000, approved=4, minted=4)
LIVE = Market(price=224_000, approved=1, minted=1)  # the live project's figures


@pytest.mark.slow
@pytest.mark.parametrize("gain", [1.0, 2.0, 3.0])
def test_chances_are_those_of_a_simulated_verifier(gain: float) -> None:
    """Of the judge's own test, on gains as uncertain as the forecast takes them to be."""
    found = outlook(SEEN, replace(PLAIN, mean=gain * SIGMA), POLICY, MARKET, stake=1, fees=0)
    rng, answers = random.Random(5), []
    for _ in range(150):
        decision = judged(rng, rng.gauss(gain, SEEN.scale))
        assert decision.evidence is not None
        suggests = suggested(decision.evidence, POLICY.suggestive)
        answers.append(Answer.UNDECIDED if decision.kind is Answer.REJECT and suggests else decision.kind)
    assert found.approved == pytest.approx(answers.count(Answer.APPROVE) / 150, abs=0.12)
    assert found.rejected == pytest.approx(answers.count(Answer.REJECT) / 150, abs=0.1)


@pytest.mark.parametrize(
    ("market", "official"),
    [
        (Market(1000), 0.5),  # nothing is known
        (Market(1000, approved=8, measured=8), 0.1),  # all approved at what was measured: not its way
        (Market(1000, approved=8), 0.9),  # all at the very score that was claimed
        (Market(1000, approved=4, measured=4, rejected=4), 0.5),
    ],
)
def test_a_validator_that_rejects_unrun_is_priced(market: Market, official: float) -> None:
    assert market.official == pytest.approx(official)
    usual = outlook(SEEN, PLAIN, JudgePolicy(), market, stake=4)
    found = outlook(SEEN, PLAIN, JudgePolicy(), market, stake=4, refused=True)
    assert found.approved == pytest.approx((1 - official) * usual.approved)
    assert found.rejected == pytest.approx(official + (1 - official) * usual.rejected)
    assert found.released == pytest.approx((1 - official) * usual.released)
    assert found.slashed > usual.slashed
    assert f"({official:.0%} without running it)" in "\n".join(found.lines())
    assert "without running" not in "\n".join(usual.lines())


@pytest.mark.parametrize(
    ("delta", "market", "stake", "fees", "positive"),
    [
        (10 * SIGMA, MARKET, 1, 15_000, True),  # surely approved: a token for the fees
        (10 * SIGMA, MARKET, 1, 300_000, False),  # the fees cost more than a token
        (0.0, MARKET, 1, 0, False),  # a likely rejection
        (1.5 * SIGMA, MARKET, 1000, 0, False),  # too much at stake for one token
        (10 * SIGMA, replace(MARKET, minted=400), 1, 300_000, True),  # a hundred tokens per approval
    ],
)
def test_the_value_weighs_reward_slash_and_fees(
    delta: float, market: Market, stake: int, fees: int, positive: bool
) -> None:
    found = outlook(SEEN, replace(PLAIN, mean=delta), JudgePolicy(), market, stake=stake, fees=fees)
    assert found.value is not None
    assert (found.value > 0) is positive
    assert bool(verdict(SEEN, found, min_confidence=0.9)) is not positive


@pytest.mark.parametrize(
    ("delta", "market", "value"),
    [
        # Surely approved: a token of 224,000 lamports, for a rent of 5,400,960 and fees of 5,000.
        (10 * SIGMA, LIVE, -5_181_960),
        (-10 * SIGMA, LIVE, -224_000 - 5_405_960),  # surely rejected
    ],
)
def test_what_a_submission_costs_is_in_its_value(delta: float, market: Market, value: int) -> None:
    found = outlook(SEEN, replace(PLAIN, mean=delta), JudgePolicy(), market, stake=1, rent=5_400_960, fees=5_000)
    assert found.value == pytest.approx(value, abs=1)
    assert f"expected value {sol(value)}: " in "\n".join(found.lines())
    assert "rent 0.00540096 SOL − fees 0.000005 SOL" in "\n".join(found.lines())
    assert "does not pay" in verdict(SEEN, found, min_confidence=0.9)
    assert verdict(SEEN, found, min_confidence=0.9, accept_loss=True) == ""


@pytest.mark.parametrize(
    ("expired", "again"),
    [(0, 0.8), (1, 4 / 6), (3, 0.5), (996, 4 / 1001)],
)
def test_a_release_is_reviewed_again_or_expires(expired: int, again: float) -> None:
    """Where nobody settles what was released, it is slashed as if it had been rejected."""
    market = replace(MARKET, approved=2, rejected=1, minted=2, expired=expired)
    found = outlook(SEEN, replace(PLAIN, mean=1.5 * SIGMA), JudgePolicy(), market, stake=7)
    assert found.again == pytest.approx(again)
    assert found.released > 0.1
    rng, approved = random.Random(1), 0
    for _ in range(20_000):
        review = rng.random()
        while review >= found.approved + found.rejected and rng.random() < found.again:
            review = rng.random()
        approved += review < found.approved
    assert found.reward == pytest.approx(approved / 20_000 * market.price, rel=0.03)
    assert found.slashed == pytest.approx((1 - approved / 20_000) * 7 * market.price, rel=0.03)


def test_an_unknown_reward_is_no_reason_but_low_confidence_is() -> None:
    found = outlook(SEEN, PLAIN, JudgePolicy(), Market(1000), stake=1, fees=5000)
    assert found.value is None
    assert verdict(SEEN, found, min_confidence=0.99) == ""
    assert "--min-confidence" in verdict(SEEN, found, min_confidence=0.9999)


@pytest.mark.parametrize(("gain", "held"), [(3.0, False), (2.2, True), (1.5, True)])
def test_what_may_well_be_rejected_is_held(gain: float, held: bool) -> None:
    """However well it pays in the mean."""
    rich = replace(MARKET, minted=3 * MARKET.minted)
    found = outlook(SEEN, replace(PLAIN, mean=gain * SIGMA), JudgePolicy(), rich, stake=1)
    assert found.value is not None
    assert found.value > 0
    assert ("reject" in verdict(SEEN, found, min_confidence=0.99)) is held
    assert verdict(SEEN, found, min_confidence=0.99, accept_loss=True) == ""


def test_one_that_rejects_unrun_is_a_matter_of_price() -> None:
    found = outlook(SEEN, PLAIN, JudgePolicy(), MARKET, stake=1, refused=True)
    assert found.rejected > 0.8
    assert found.risk == pytest.approx(outlook(SEEN, PLAIN, JudgePolicy(), MARKET, stake=1).rejected)


def test_the_three_ends_add_up() -> None:
    for gain in (-0.1, 0.0, 0.01, 0.05, 0.3):
        found = outlook(SEEN, replace(PLAIN, mean=gain), JudgePolicy(), MARKET, stake=1, fees=0)
        assert found.approved + found.released + found.rejected == pytest.approx(1.0)
        assert min(found.approved, found.released, found.rejected) >= 0
