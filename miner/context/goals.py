"""When a session ends: the owner's limits, else those of the project's protocol. Pure.

A flag given by the owner overrides the protocol's `miningLoop`; without either there is no limit. The protocol's
limits are of a session, so they count what earlier lives of the same session did; flags count this life only,
except for money, which is counted over the whole session.
"""

from __future__ import annotations

from dataclasses import dataclass

from chain.network.base import sol
from trainer.project.protocol import MiningLoop


@dataclass(frozen=True, slots=True)
class Goals:
    """When to stop and what to risk. None is no limit; `submissions` 0 never stops mining.

    stagnation: trials in a row without a kept one. max_spend in lamports, stake and max_stake in tokens.
    min_confidence: how sure the confirming test must be that the code beats the chain's best before it is staked on.
    accept_loss: stake also where the expected value is negative or the risk of a rejection large.
    """

    max_trials: int | None = None
    max_minutes: float | None = None
    stagnation: int | None = None
    submissions: int = 1
    stake: int = 1
    max_stake: int | None = None
    max_spend: int | None = None
    min_confidence: float = 0.99
    accept_loss: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """What there is to compare with the goals: of this life trials, seconds and submissions; of the whole session
    `all_trials` and `all_seconds`; `since_kept` trials in a row without a kept one."""

    trials: int = 0
    seconds: float = 0.0
    submissions: int = 0
    all_trials: int = 0
    all_seconds: float = 0.0
    since_kept: int = 0


def enough(goals: Goals, done: Progress) -> bool:
    """Whether as much was submitted as was asked for."""
    return 0 < goals.submissions <= done.submissions


def reached(goals: Goals, loop: MiningLoop, done: Progress) -> str:
    """Why the session ends now, in words; "" while it goes on."""
    if enough(goals, done):
        return "submitted"
    if goals.max_trials is not None and done.trials >= goals.max_trials:
        return f"reached --max-trials {goals.max_trials}"
    if goals.max_minutes is not None and done.seconds >= 60 * goals.max_minutes:
        return f"reached --max-minutes {goals.max_minutes:g}"
    if goals.stagnation is not None and done.since_kept >= goals.stagnation:
        return f"{done.since_kept} trials without an improvement (--stagnation)"
    if goals.max_trials is None and loop.max_trials is not None and done.all_trials >= loop.max_trials:
        return f"the protocol's limit of {loop.max_trials} trials"
    limit = loop.max_session_seconds
    if goals.max_minutes is None and limit is not None and done.all_seconds >= limit:
        return f"the protocol's limit of {limit / 60:g} minutes"
    limit = loop.max_consecutive_non_improvements
    if goals.stagnation is None and limit is not None and done.since_kept >= limit:
        return f"{done.since_kept} trials without an improvement (the protocol's limit)"
    return ""


def affordable(goals: Goals, *, spent: int, staked: int, cost: int) -> str:
    """Why the next stake may not be made, in words; "" where it may. `cost` is in lamports, `spent` (lamports) and
    `staked` (tokens) are the whole session's."""
    if goals.max_stake is not None and staked + goals.stake > goals.max_stake:
        return f"{staked} tokens are already staked; --max-stake allows {goals.max_stake}"
    if goals.max_spend is not None and spent + cost > goals.max_spend:
        return f"{sol(spent)} are spent, this would cost {sol(cost)} more; --max-spend allows {sol(goals.max_spend)}"
    return ""


def seconds_left(goals: Goals, loop: MiningLoop, done: Progress) -> float | None:
    """Seconds until the nearest limit of time; None without one."""
    left = []
    if goals.max_minutes is not None:
        left.append(60 * goals.max_minutes - done.seconds)
    elif loop.max_session_seconds is not None:
        left.append(loop.max_session_seconds - done.all_seconds)
    return max(0.0, min(left)) if left else None
