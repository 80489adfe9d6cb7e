"""The error rates of a comparison and the moments at which it looks, fixed before its first run. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from trainer.statistics.noise import InvalidComparison

DENSE = 6
"""Candidate runs up to which a comparison looks after each."""


@dataclass(frozen=True, slots=True)
class Look:
    """A moment at which a trial is judged: runs of either arm, the history's included, and the error allowed there.

    alpha: probability of a false approval, beta: of a rejection of a true gain of `ComparisonPolicy.effect`·sigma; 0
    where that answer is not given. beyond: what an approval asks for beyond its boundary, in sigma.
    """

    incumbent: int
    candidate: int
    alpha: float
    beta: float
    beyond: float = 0.0


@dataclass(frozen=True, slots=True)
class LookEvidence:
    """What one look saw. delta, low, high and sigma in bpb; (low, high) holds the true delta.

    low and high are repeated confidence limits: each covers with probability 1 - alpha at all looks
    together, so stopping early does not spoil them. p is the smallest alpha at which this look would approve.
    sigma and df are those of the variance that bound the decision; noisier says that the incumbent's runs varied
    more than the noise record allows. scale: delta's standard error is sigma·scale.
    louder says that an approval hung on the scatter of the pairs or the candidate, not on the incumbent's noise.
    """

    delta: float
    low: float
    high: float
    p: float
    sigma: float
    df: float
    incumbent_runs: int
    candidate_runs: int
    noisier: bool
    scale: float
    louder: bool = False

    @property
    def confidence(self) -> float:
        """1 - p: how sure that the true delta exceeds the margin."""
        return 1.0 - self.p


@dataclass(frozen=True, slots=True)
class ComparisonPolicy:
    """Error rates and limits of one comparison, fixed before its first run.

    alpha: most false approvals (probability). beta: most rejections of a true gain of `effect`·sigma beyond
    the margin. margin: smallest gain worth approving, in bpb. effect: in units of run-to-run sigma.
    first_approval and first_rejection: fewest candidate runs for each answer. spending: ratio of the error
    allowed at one look to that at the look before. suspicion: level of the F test of the incumbent's runs against the
    noise record. resolution: floor of sigma, in bpb, so that values printed with six decimals cannot look noiseless.
    """

    alpha: float = 0.01
    beta: float = 0.03
    margin: float = 0.0
    effect: float = 3.0
    max_candidate_runs: int = 12
    first_approval: int = 3
    first_rejection: int = 2
    spending: float = 1.2
    suspicion: float = 0.1
    resolution: float = 1e-6

    least_approval: ClassVar[int] = 2
    refresh: ClassVar[int] = 0
    early_refresh: ClassVar[int] = 0
    paired: ClassVar[bool] = True  # candidate run k is compared with the incumbent's run beside it, under one salt

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "alpha": (1e-6, 0.25),
            "beta": (1e-6, 0.25),
            "margin": (0.0, 100.0),
            "effect": (0.1, 100.0),
            "spending": (0.05, 20.0),
            "suspicion": (1e-6, 0.5),
            "resolution": (1e-12, 1.0),
            "max_candidate_runs": (2, 50),
            "first_approval": (self.least_approval, self.max_candidate_runs),
            "first_rejection": (1, self.max_candidate_runs),
        }
        whole = {"max_candidate_runs", "first_approval", "first_rejection"}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            kinds = (int,) if name in whole else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                raise InvalidComparison(
                    f"ComparisonPolicy {name} must be {'a whole number ' if name in whole else ''}"
                    f"from {low:g} to {high:g}, found {value!r}.",
                    "Correct the policy.",
                )

    @property
    def first_look(self) -> int:
        """Candidate runs before anything can be decided."""
        return min(self.first_approval, self.first_rejection)

    @property
    def counts(self) -> tuple[int, ...]:
        """Candidate runs at each look: one more each until DENSE, then 2, 4, 8 more, up to the limit."""
        found, step = [self.first_look], 1
        while found[-1] < self.max_candidate_runs:
            step = 1 if found[-1] < DENSE else 2 * step
            found.append(min(found[-1] + step, self.max_candidate_runs))
        return tuple(found)

    def approval_level(self, n: int) -> float:
        """alpha_n, the false-approval probability allowed at the look after `n` candidate runs; else 0."""
        approving = [count for count in self.counts if count >= self.first_approval]
        if n not in approving:
            return 0.0
        weights = [self.spending**i for i in range(len(approving))]
        return self.alpha * weights[approving.index(n)] / sum(weights)

    def rejection_level(self, n: int) -> float:
        """beta_n, likewise for rejecting a true gain of `effect`·sigma."""
        rejecting = [count for count in self.counts if count >= self.first_rejection]
        return self.beta / len(rejecting) if n in rejecting else 0.0

    def scale(self, incumbents: int, candidates: int) -> float:
        """The standard error of delta after so many runs, in units of sigma."""
        return math.sqrt(2 / candidates if self.paired else 1 / incumbents + 1 / candidates)

    def looks(self, history: int, noise_df: float) -> tuple[Look, ...]:
        """The looks of a trial that begins with `history` incumbent values, in order. They depend on no value."""
        return tuple(
            Look(incumbent_runs(n, history, noise_df, self), n, self.approval_level(n), self.rejection_level(n))
            for n in self.counts
        )

    def gives_up(self, seen: LookEvidence, noise_df: float, later: Sequence[Look]) -> bool:
        """Whether what was seen is not worth the `later` looks, which is never so when somebody's stake hangs on it."""
        return False


def incumbent_lead(noise_df: float) -> int:
    """How many more incumbents than candidates a look without history needs, by the record's df."""
    return 3 if noise_df < 3 else 1 if noise_df < 10 else 0


def incumbent_runs(n: int, history: int, noise_df: float, policy: ComparisonPolicy) -> int:
    """Incumbent runs, history included, at the look after `n` candidate runs."""
    refresh = policy.refresh if n >= policy.first_approval else policy.early_refresh
    return max(n + incumbent_lead(noise_df), history + refresh)
