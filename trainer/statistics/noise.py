"""What a machine's repeated runs say about its noise. Pure; `trainer.machine.noise_file` keeps the records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trainer.errors import TrainerError

MAX_RUNS = 1000
"""Most values per arm that are looked at; a trial needs fewer than twenty."""

MAX_NOISE_DF = 1e4


class InvalidComparison(TrainerError):
    """Samples, a policy or a noise record that no decision can rest on."""


@dataclass(frozen=True, slots=True)
class NoiseRecord:
    """Run-to-run variance of one machine, bundle and budget, pooled over groups of repeated runs.

    sum_squares: of deviations from each group's own mean, bpb². df: their degrees of freedom. Group
    sums of squares minus sigma²·df stay a martingale when a trial stops early, so pooling sums (rather than
    averaging variances) is unbiased in the long run although trials stop on what they see.
    """

    sum_squares: float = 0.0
    df: float = 0.0

    def __post_init__(self) -> None:
        for name, value, top in (("sum_squares", self.sum_squares, 1e9), ("df", self.df, MAX_NOISE_DF)):
            good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= top
            if not good:
                raise InvalidComparison(
                    f"A noise record's {name} must be a number from 0 to {top:g}, found {value!r}.",
                    "Delete the noise file; it will be measured again.",
                )
        if self.df < 1 and (self.df or self.sum_squares):
            raise InvalidComparison(
                f"A noise record is empty or has at least one degree of freedom, found {self.df!r}.",
                "Delete the noise file; it will be measured again.",
            )

    @property
    def sigma(self) -> float | None:
        """Estimated standard deviation of one run in bpb; None before any repeat."""
        return math.sqrt(self.sum_squares / self.df) if self.df else None

    def update(self, groups: Iterable[Sequence[float]], cap: float = 20.0) -> NoiseRecord:
        """The record after further groups, each the values of one unchanged script on this machine.

        Give each run once: a candidate's when its trial ends, an incumbent's when it is replaced. Older
        evidence is scaled down so that at most `cap` (at least 1) degrees of freedom remain: a record that
        outweighs the trial's own runs could not follow a machine that changes. The sum of decayed
        weights understates the true degrees of freedom (Satterthwaite), which errs to the safe side.
        """
        new_ss, new_df = 0.0, 0
        for group in groups:
            values = checked(group, "noise sample")
            if len(values) > 1:
                new_ss += sum_squares(values)
                new_df += len(values) - 1
        if not new_df:
            return self
        keep = min(1.0, max(0.0, cap - new_df) / self.df) if self.df else 0.0
        shrink = min(1.0, cap / new_df)
        return NoiseRecord(self.sum_squares * keep + new_ss * shrink, self.df * keep + new_df * shrink)

    def to_json(self) -> dict[str, float]:
        return {"sum_squares": self.sum_squares, "df": self.df}

    @classmethod
    def from_json(cls, data: object) -> NoiseRecord:
        """The inverse of `to_json`; InvalidComparison for anything else."""
        if not isinstance(data, dict) or set(data) != {"sum_squares", "df"}:
            raise InvalidComparison(
                "A noise record must have exactly the fields sum_squares and df.",
                "Delete the noise file; it will be measured again.",
            )
        return cls(data["sum_squares"], data["df"])


def sum_squares(values: Sequence[float]) -> float:
    """Of the deviations from the values' own mean."""
    mean = math.fsum(values) / len(values)
    return math.fsum((x - mean) ** 2 for x in values)


def checked(values: Sequence[float], what: str) -> tuple[float, ...]:
    """The values as floats; InvalidComparison if one is no val_bpb."""
    if len(values) > MAX_RUNS:
        raise InvalidComparison(f"Too many {what}s: {len(values)}; the limit is {MAX_RUNS}.", "Give the latest.")
    for x in values:
        if isinstance(x, bool) or not isinstance(x, (int, float)) or not 0 < x < 1e4:
            raise InvalidComparison(
                f"Each {what} must be a finite positive val_bpb below 10,000, found {x!r}.",
                "Treat a run without a valid value as failed and leave it out of the samples.",
            )
    return tuple(float(x) for x in values)
