"""Does the gain hold on holdout text? Pure, as all that judges.

**What is asked.** Let h be the gain on holdout text and g that on validation, which the comparison showed. A gain that
is memorised, or fitted to the validation text, is there on validation only. So the answer hangs on

    d = h - least_share · g

- BETTER when d is shown to be above zero at the level `alpha`: a candidate of which less than that share is true passes
  with at most that probability, whatever the noise.
- NOT_BETTER when d is shown to be below zero at the stricter level `beta` and no gain is shown on holdout text at all:
  an honest miner loses the stake with at most that probability.
- UNDECIDED else, which releases: a short text, or documents that differ much, show neither.

**What may be off.** Two things, measured apart. *Run noise*: what moves a whole run moves it on both texts, so d
has 1 - least_share of the comparison's own standard error of g, and h all of it. *Text*: h was found on a sample of
text, and its error as such is that of the paired differences of the blocks (`trainer.statistics.text_error`); g was
found on validation text that is at least as long, so least_share of the same error is added for it. Degrees of freedom
are Satterthwaite's. tests/benchmarks/bench_holdout.py simulates both kinds of error, and docs/measurements.md has what
came of it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.judging.policy import HoldoutPolicy
from trainer.judging.runs import ReplayRun, values
from trainer.judging.verdict import GainOutcome
from trainer.statistics.comparison import Arm
from trainer.statistics.distributions import approval_point
from trainer.statistics.error_rates import LookEvidence
from trainer.statistics.text_error import text_error


@dataclass(frozen=True, slots=True)
class HoldoutResult:
    """The gain on holdout text in bpb with its one-sided limits at the policy's `alpha`, and what it says.

    `beyond` is the gain less the share of the validation gain that it must reach, with its lower limit at `alpha`, by
    which it passes, and its upper one at `beta`, by which it is refused. `text_error` is the standard error of the gain
    that comes from the choice of text.
    """

    outcome: GainOutcome
    delta: float
    low: float
    high: float
    text_error: float
    beyond: tuple[float, float, float]

    def as_json(self) -> dict[str, Any]:
        """The numbers as an attestation holds them."""
        middle, low, high = self.beyond
        return {
            "outcome": self.outcome.value,
            "delta": self.delta,
            "interval": [self.low, self.high],
            "textError": self.text_error,
            "beyondLeast": middle,
            "beyondInterval": [low, high],
        }


def holdout_outcome(runs: Sequence[ReplayRun], seen: LookEvidence, policy: HoldoutPolicy) -> HoldoutResult | None:
    """Whether the gain that `seen` shows on validation holds on holdout text; see the module's docstring.

    None if either arm was not scored on it, or where its blocks are missing or too few.
    """
    incumbent = values(runs, Arm.INCUMBENT, on_holdout=True)
    candidate = values(runs, Arm.CANDIDATE, on_holdout=True)
    blocks = {
        arm: [run.holdout_blocks for run in runs if run.arm == arm.value and run.holdout_bpb is not None] for arm in Arm
    }
    old, new = ([run for run in blocks[arm] if run is not None] for arm in (Arm.INCUMBENT, Arm.CANDIDATE))
    if (len(old), len(new)) != (len(incumbent), len(candidate)) or (of_text := text_error(old, new)) is None:
        return None
    share, (text, text_df) = policy.least_share, of_text
    run = seen.sigma * seen.scale
    delta = statistics.fmean(incumbent) - statistics.fmean(candidate)
    spread, df = _joined(run, seen.df, text, text_df)
    reach = approval_point(df, policy.alpha) * spread
    beyond = delta - share * seen.delta
    spread, df = _joined((1 - share) * run, seen.df, math.hypot(1, share) * text, text_df)
    least, most = beyond - approval_point(df, policy.alpha) * spread, beyond + approval_point(df, policy.beta) * spread
    outcome = GainOutcome.UNDECIDED
    if least > 0:
        outcome = GainOutcome.BETTER
    elif most < 0 and delta - reach <= 0:
        outcome = GainOutcome.NOT_BETTER
    return HoldoutResult(outcome, delta, delta - reach, delta + reach, text, (beyond, least, most))


def _joined(run: float, run_df: float, text: float, text_df: float) -> tuple[float, float]:
    """The standard error of a sum of two independent errors, and its degrees of freedom by Satterthwaite."""
    v, w = run**2, text**2
    if not v + w:
        return 0.0, min(run_df, text_df)
    return math.sqrt(v + w), (v + w) ** 2 / (v**2 / run_df + w**2 / text_df)
