"""Whether a stake pays: the possible outcomes of a proposal, their likelihood and worth. Pure.

A verifier runs its own comparison with its own runs on its own machine. What it will see is predicted from what the
gain is worth after all that was seen here (`worth`): its delta is Gaussian about that, with the variance of both, so a
gain that only just cleared the bar here is far from sure to clear it there.

What was kept was chosen for looking good, and the confirming test chose once more. So the gain that is claimed and
foretold from is shrunk by what the session's own candidates say of each other (`trainer.statistics.shrinkage`).

A proposal ends in one of two ways, whatever a first verifier makes of it:

- approved: the stake comes back and the reward is minted, at the price of the newest token on the curve;
- slashed: it is rejected, or nobody settles it within 7 days and somebody has it expire.

Who reviews is not known. Where the official validator would reject the archive unrun (`miner.staking.gates`), the
chance that a review is its own follows from the proposals that ended: it approves nothing but the very score that was
claimed, so an approval at another one is somebody else's, and any other end may be its.

A release is no end. The stake stays in escrow, and another verifier may review the proposal, with the same chances:
how likely that is follows from how many of the project's proposals were settled and how many expired. The rent of a
submission's accounts and its fees are paid in any case, and nothing returns them.

The reward per approval is not documented; it is the mean of what the project's approvals minted so far, and
unknown before the first. A token's worth moves with the supply, and selling moves it: the figure says whether to
stake, it is no forecast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from chain.network.base import sol
from miner.journal.journal import Confirmation, Session, TrialRecord
from trainer.judging.policy import JudgePolicy
from trainer.statistics.comparison import WELCH_FREEDOM, WELCH_SHARE
from trainer.statistics.distributions import approval_point
from trainer.statistics.error_rates import LookEvidence
from trainer.statistics.shrinkage import Posterior, fitted, together

LEAST_HISTORY = 2  # incumbent runs that a trial is measured against, beyond as many as the candidate's
REJECTED_AFTER = 3  # pairs of runs after which a verifier usually rejects what it does reject


MOST_RISK = 0.1
"""The foretold chance that a verifier that runs the code rejects it, over which nothing is staked unless the owner
says so. Of all that passes, far fewer are rejected (docs/measurements.md, "A project over time")."""


@dataclass(frozen=True, slots=True)
class Market:
    """A project's economy now: `price` (lamports) of its newest token; its proposals that were approved, rejected and
    expired; the tokens that approvals `minted`; of the approvals, those that were `measured`: at another score than
    was claimed."""

    price: int
    approved: int = 0
    rejected: int = 0
    expired: int = 0
    minted: int = 0
    measured: int = 0

    @property
    def reward(self) -> float | None:
        """Mean tokens minted per approval; None before the first."""
        return self.minted / self.approved if self.approved else None

    @property
    def settled(self) -> float:
        """The chance that a pending proposal is settled before it expires, by Laplace's rule of succession."""
        settled = self.approved + self.rejected
        return (settled + 1) / (settled + self.expired + 2)

    @property
    def official(self) -> float:
        """The chance that a review is the official validator's, by the same rule."""
        settled = self.approved + self.rejected
        return (settled - self.measured + 1) / (settled + 2)


@dataclass(frozen=True, slots=True)
class Outlook:
    """The chances of a review's three outcomes and what the ends are worth.

    `approved` and `rejected` are one review's, `again` is the chance of another review after a release. In lamports:
    the `reward` expected (None while unknown), the part of the stake that is expected to be `slashed`, `rent`, `fees`.
    `unrun` is the share of `rejected` that never runs the code.
    """

    approved: float
    rejected: float
    again: float
    reward: float | None
    slashed: float
    rent: int
    fees: int
    unrun: float = 0.0

    @property
    def risk(self) -> float:
        """The chance that a verifier that runs the code rejects it."""
        return (self.rejected - self.unrun) / (1 - self.unrun) if self.unrun < 1 else 0.0

    @property
    def released(self) -> float:
        return max(0.0, 1.0 - self.approved - self.rejected)

    @property
    def value(self) -> float | None:
        """Expected lamports; None while the reward is unknown."""
        return None if self.reward is None else self.reward - self.slashed - self.rent - self.fees

    def lines(self) -> list[str]:
        """The chances and the terms of the value, for people."""
        unrun = f" ({self.unrun:.0%} without running it)" if self.unrun else ""
        later = f" (then {self.again:.0%} are reviewed again; the others expire, which slashes the stake)"
        reward = "reward unknown" if self.reward is None else f"reward {sol(round(self.reward))}"
        worth = "unknown" if self.value is None else sol(round(self.value))
        return [
            f"chances with a verifier: approve {self.approved:.0%}, reject {self.rejected:.1%}{unrun}, "
            f"release {self.released:.0%}{later if round(self.released, 2) else ''}",
            f"expected value {worth}: {reward} − slashed stake {sol(round(self.slashed))} − "
            f"rent {sol(self.rent)} − fees {sol(self.fees)}",
        ]


def worth(session: Session, done: Confirmation, seen: LookEvidence) -> Posterior:
    """The true gain of what `done` confirmed, whose last look was `seen`, after this session's own trials (bpb).

    The steps that led to it were kept on top of each other since the chain's best; a file of the user's own has none,
    nor has what was judged against an earlier best.
    """

    def pair(trial: TrialRecord) -> tuple[float, float]:
        assert trial.delta is not None
        runs = len(trial.own_values)
        return trial.delta, seen.sigma * math.sqrt(1 / runs + 1 / (runs + LEAST_HISTORY))

    measured = [trial for trial in session.trials if trial.number and trial.delta is not None and trial.own_values]
    since = session.frontiers[-1].trial if session.frontiers else 0
    steps = [pair(trial) for trial in measured if trial.kept and since < trial.number <= done.trial and not done.lead]
    prior = fitted([pair(trial) for trial in measured], seen.sigma)
    return together(prior, steps, (seen.delta, seen.sigma * seen.scale))


def outlook(
    seen: LookEvidence,
    gained: Posterior,
    policy: JudgePolicy,
    market: Market,
    *,
    stake: int,
    rent: int = 0,
    fees: int = 0,
    refused: bool = False,
) -> Outlook:
    """What staking `stake` tokens on a gain worth `gained` and confirmed by `seen` promises.

    `rent` and `fees` in lamports. `refused`: the official validator would reject the archive unrun.
    """
    rules, df = policy.comparison, max(1.0, seen.df)
    gain = gained.mean - rules.margin

    def above(level: float, pairs: int, freedom: float) -> float:
        """The chance that so many pairs of runs show the gain at `level`."""
        theirs = seen.sigma * rules.scale(pairs, pairs)
        return _above(gain, approval_point(freedom, level) * theirs, math.hypot(theirs, gained.sd))

    # What is hopeless ends early, and what is unclear goes on to the last look.
    rejected = 1.0 - above(policy.suggestive, REJECTED_AFTER, df)
    last = rules.max_candidate_runs
    level = WELCH_SHARE * rules.approval_level(last)  # the safe guess: that salts do not do the same to both codes
    approved = min(1.0 - rejected, above(level, last, min(df, WELCH_FREEDOM * (last - 1))))
    unrun = market.official if refused else 0.0
    approved, rejected = (1 - unrun) * approved, unrun + (1 - unrun) * rejected
    again = market.settled
    # One review after the other until one is no release, or none comes: a geometric series.
    in_the_end = approved / (1 - max(0.0, 1 - approved - rejected) * again)
    return Outlook(
        approved,
        rejected,
        again,
        None if market.reward is None else in_the_end * market.reward * market.price,
        (1 - in_the_end) * stake * market.price,
        rent,
        fees,
        unrun,
    )


def verdict(seen: LookEvidence, found: Outlook, *, min_confidence: float, accept_loss: bool = False) -> str:
    """Why not to stake; "" to go ahead. An unknown reward is no reason not to: somebody has to be first."""
    if seen.confidence < min_confidence:
        return f"confidence {seen.confidence:.4f} is below --min-confidence {min_confidence:g}"
    if not accept_loss and found.value is not None and found.value <= 0:
        return f"it does not pay: expected value {sol(round(found.value))} (--accept-loss submits it anyway)"
    if not accept_loss and found.risk > MOST_RISK:
        often = f"a verifier that runs it would reject it with {found.risk:.0%}, which is over {MOST_RISK:.0%}"
        return f"{often} (--accept-loss submits it anyway)"
    return ""


def _above(mean: float, bar: float, spread: float) -> float:
    return 0.5 * math.erfc((bar - mean) / (spread * math.sqrt(2)))
