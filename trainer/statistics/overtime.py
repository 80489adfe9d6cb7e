"""What training time beyond the incumbent's own is worth, so that no one is paid for it. Pure.

A judge forgives a slow start: a run may take a grace longer than the incumbent's. A script that simply trains into
that grace would turn it into a gain, and so would a graph that goes on training in each of its calls. So the seconds
that a candidate takes beyond the incumbent's, until its graph is there and in one call of that (which keeps nothing for
the next), are charged by what time is worth: val_bpb falls with the logarithm of training time (92 % of the variance of
one M5 Max's repeats, 96 % on the smoke project), and how steeply is measured, by a run of the project's pinned snapshot
on a share of the budget; the incumbent's author could have a run that is known to be short say anything. Where such a
run says nothing the slope is `ASSUMED` times its value, about twice what was measured in both
projects (0.139 of 1.0 bpb and 0.31 of 2.4).

A few hundredths of a second, which chance alone explains, are charged at the assumed slope as well: the
run that would measure it costs more than it could change.

The charge is made at the upper limit of the slope, `LIMIT` standard errors above it: who takes no more time than
the incumbent never pays, and who does had better take less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SHARE = 0.5  # of the budget, for the run that shows the slope
ASSUMED = 0.3
LIMIT = 2.0
NEGLIGIBLE = 0.25  # of a run's noise: a charge that small is made without measuring the slope
_ROUGH_SIGMA = 0.02  # of the value: run noise where none is known


@dataclass(frozen=True, slots=True)
class TimeSlope:
    """Bits per byte that a run gains per unit of ln(training time), and the standard error of that."""

    bpb: float
    error: float


def assumed_slope(value: float) -> TimeSlope:
    """The slope of an incumbent of which only its val_bpb is known."""
    return TimeSlope(ASSUMED * value, 0.0)


def negligible(extra: float, budget: float, value: float, sigma: float | None) -> bool:
    """Whether the charge at the assumed slope is so small beside run noise that the slope need not be measured."""
    noise = _ROUGH_SIGMA * value if sigma is None else sigma
    return charge(extra, budget, assumed_slope(value)) <= NEGLIGIBLE * noise


def measured_slope(
    value: float,
    runs: int,
    seconds: float,
    short_value: float,
    short_seconds: float,
    budget: float,
    sigma: float | None,
) -> TimeSlope | None:
    """The slope between the mean of `runs` full runs of a script and its run on SHARE of the budget.

    `seconds` and `short_seconds` are by the judge's clock, start included; `sigma` is the noise of one run in bpb.
    None if the short run did not train for less: then it says nothing.
    """
    if seconds - short_seconds < 0.5 * (1 - SHARE) * budget:
        return None
    noise = _ROUGH_SIGMA * value if sigma is None else sigma
    span = math.log(1 / SHARE)
    return TimeSlope(max(0.0, (short_value - value) / span), noise * math.sqrt(1 + 1 / runs) / span)


def overtime(seconds: float, incumbent_seconds: float, budget: float) -> float:
    """Seconds beyond the incumbent's slowest run. Zero where that one does not use its budget: its start cannot be
    told from its training, and a candidate that uses the whole budget only does what it may.
    """
    return 0.0 if incumbent_seconds < budget else max(0.0, seconds - incumbent_seconds)


def charge(extra: float, budget: float, slope: TimeSlope) -> float:
    """Bits per byte that `extra` seconds of training on top of the budget are worth, at the slope's upper limit."""
    return (slope.bpb + LIMIT * slope.error) * math.log1p(extra / budget)
