"""Whether a stake pays: what may become of a proposal, how likely, and what that is worth. Pure.

A verifier runs its own comparison with its own runs on its own machine. What it will see is predicted from what
was seen here: its delta is Gaussian about ours, with the variance of both estimates, so a gain that only just
cleared the bar here is far from sure to clear it there.

The three ends, and what each is worth to the miner in lamports:

- approved: the stake comes back and the reward is minted, at the price of the newest token on the curve;
- released: the stake comes back when the proposal expires at the latest, nothing is won;
- rejected: the stake is slashed.

The reward per approval is not documented; it is the mean of what the project's approvals minted so far, and
unknown before the first. Fees are paid in any case. A token's worth moves with the supply, and selling moves it:
the figure says whether to stake, it is no forecast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainer.judging.policy import JudgePolicy
from trainer.statistics.distributions import approval_point
from trainer.statistics.policy import LookEvidence

VERIFIER_RUNS = (6, 3)  # incumbent and candidate runs of a verifier's usual last look


@dataclass(frozen=True, slots=True)
class Market:
    """A project's economy now: `price` (lamports) of its newest token, approvals so far and what they minted."""

    price: int
    approvals: int
    minted: int

    @property
    def reward(self) -> float | None:
        """Mean tokens minted per approval; None before the first."""
        return self.minted / self.approvals if self.approvals else None


@dataclass(frozen=True, slots=True)
class Outlook:
    """Chances of the three ends and the stake's expected value in lamports (None while the reward is unknown)."""

    approved: float
    rejected: float
    value: float | None

    @property
    def released(self) -> float:
        return max(0.0, 1.0 - self.approved - self.rejected)

    def text(self) -> str:
        """One line for people."""
        worth = "its reward is not known yet" if self.value is None else f"expected value {self.value:+,.0f} lamports"
        return (
            f"a verifier would approve with {self.approved:.0%}, release with {self.released:.0%}, "
            f"reject with {self.rejected:.1%}; {worth}"
        )


def outlook(seen: LookEvidence, policy: JudgePolicy, market: Market, *, stake: int, fees: int) -> Outlook:
    """What staking `stake` tokens on a gain confirmed by `seen` promises; `fees` in lamports, paid in any case."""
    incumbent, candidate = VERIFIER_RUNS
    theirs = math.sqrt(1 / incumbent + 1 / candidate)
    ours = math.sqrt(1 / seen.incumbent_runs + 1 / seen.candidate_runs)
    spread = seen.sigma * math.hypot(theirs, ours)
    df = max(1.0, seen.df)
    bar = approval_point(df, policy.comparison.alpha / 2) * seen.sigma * theirs
    doubt = approval_point(df, policy.suggestive) * seen.sigma * theirs
    gain = seen.delta - policy.comparison.margin
    approved = _above(gain, bar, spread)
    rejected = 1.0 - _above(gain, doubt, spread)
    value = None
    if market.reward is not None:
        value = approved * market.reward * market.price - rejected * stake * market.price - fees
    return Outlook(approved, rejected, value)


def verdict(seen: LookEvidence, found: Outlook, *, min_confidence: float) -> str:
    """Why not to stake, in words; "" to go on. An unknown reward is no reason: somebody has to be first."""
    if seen.confidence < min_confidence:
        return f"confidence {seen.confidence:.4f} is below --min-confidence {min_confidence:g}"
    if found.value is not None and found.value <= 0:
        return f"it does not pay: {found.text()}"
    return ""


def _above(mean: float, bar: float, spread: float) -> float:
    return 0.5 * math.erfc((bar - mean) / (spread * math.sqrt(2)))
