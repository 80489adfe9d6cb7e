"""The ladder: is the incumbent still what was approved, and if not, against what is a candidate judged? Pure.

A script decides by itself how well it trains today. One that was approved and then trains badly lets its author "gain"
what it lost, again and again; one that stops running takes every other proposal with it. So the incumbent is a
reference only as long as it holds what was attested for it.

- The lowest rung is the project's pinned snapshot, which nobody can change. Each approved best is a rung with the
  gain over the snapshot that its approval put on chain.
- A rung **holds** unless, by the snapshot measured on this machine, its gain falls short of that by more than
  the noise of both means explains (one-sided t test at `level`), it scatters far more than the snapshot (`scatters`),
  or it fails twice, or once in its own proof (a claim that it cannot reproduce), while the snapshot runs. Else a best
  whose runs are good or bad by chance would bury every gain over it in noise, and one that looks ahead now and then
  would have each verdict on it released.
- The reference is the highest rung that holds. A candidate is judged against it, and must gain what the best on chain
  is above that rung as well (`lead`): so the score on chain never leaves what a run of its code shows here.
- A score on chain is a sum of gains, and each was approved for looking good: their errors add up. So an approved score
  goes half the way (`LadderPolicy.anchor`) to what the candidate shows over the snapshot here and now (`anchored`),
  where the snapshot's runs are known: an error then halves with every approval, whichever way it points.
- The snapshot's runs are few. They are asked for only where a gain is to be approved, where none can be told from
  noise, or where the incumbent fails, and then only where its runs here leave what the snapshot's latest
  known ones predict; those of the last hour count as new.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.judging.policy import LadderPolicy
from trainer.judging.runs import ReplayRun, values
from trainer.judging.trial import MAX_FAILURES
from trainer.measurement.values import Failure
from trainer.statistics.comparison import Arm
from trainer.statistics.distributions import approval_point, suspicion_ratio
from trainer.statistics.noise import NoiseRecord, sum_squares

INCUMBENT, SNAPSHOT = "incumbent", "snapshot"
_LEAST = 1e-6  # bpb: the least noise that is believed


@dataclass(frozen=True, slots=True)
class Rung:
    """`arm` names its runs: "incumbent", "proposal N" or "snapshot". `gain` over the snapshot was attested, in bpb."""

    arm: str
    gain: float


@dataclass(frozen=True, slots=True)
class Known:
    """Values of the snapshot (bpb) from an earlier check on this machine and data; `fresh` within the hour."""

    values: tuple[float, ...] = ()
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Footing:
    """What the candidate is judged against, or which arm must run first; `notes` say what was stepped over."""

    reference: Rung | None
    ask: str
    notes: tuple[str, ...] = ()


def footing(
    rungs: Sequence[Rung], runs: Sequence[ReplayRun], known: Known, noise: NoiseRecord, policy: LadderPolicy
) -> Footing:
    """The highest rung that holds, by the runs so far; `rungs` from the incumbent down to the snapshot."""
    notes: list[str] = []
    base = values(runs, SNAPSHOT)
    if len(base) < policy.runs and failures(runs, SNAPSHOT) < MAX_FAILURES:
        base = list(known.values) if known.fresh else []
    for rung in rungs[:-1]:
        own, failed = values(runs, rung.arm), failures(runs, rung.arm) >= MAX_FAILURES
        if not failed and len(own) < (1 if rung.arm == INCUMBENT else policy.runs):
            return Footing(None, rung.arm, tuple(notes))
        predicted = base or known.values
        if not failed and predicted and not _doubtful(rung, own, predicted, noise, policy):
            return Footing(rung, "", tuple(notes))
        if len(base) < policy.runs and failures(runs, SNAPSHOT) < MAX_FAILURES:
            return Footing(None, SNAPSHOT, tuple(notes))
        if not failed and not _doubtful(rung, own, base, noise, policy):
            return Footing(rung, "", tuple(notes))
        notes.append(_note(rung, own, base, noise, policy))
    return Footing(rungs[-1], "", tuple(notes))


def falls_short(
    rung: Rung,
    own: Sequence[float],
    base: Sequence[float],
    noise: NoiseRecord,
    policy: LadderPolicy,
) -> bool:
    """Whether the rung's gain over the snapshot is less than attested, beyond the noise of both means."""
    if not own or not base:
        return False
    df = len(own) + len(base) - 2 + noise.df
    if df < 1:
        return False
    sigma = max(math.sqrt((sum_squares(own) + sum_squares(base) + noise.sum_squares) / df), _LEAST)
    missing = rung.gain - (statistics.fmean(base) - statistics.fmean(own))
    return missing > approval_point(float(df), policy.level) * sigma * math.sqrt(1 / len(own) + 1 / len(base))


def scatters(own: Sequence[float], base: Sequence[float], noise: NoiseRecord, policy: LadderPolicy) -> bool:
    """Whether a rung's runs stand `LadderPolicy.scatter` times as far apart as the snapshot's do on this machine, and
    beyond chance (F test at `level`). The record counts with these unless they contradict it: a rung may have fed it.
    Up to a third of the rung's runs, the worst, do not count: what else this machine did may have hit them.
    """
    if len(own) < 2 or len(base) < 2:
        return False
    own = sorted(own)[: len(own) - len(own) // 3]
    df, variance = len(base) - 1.0, max(sum_squares(base) / (len(base) - 1), _LEAST**2)
    if noise.df and noise.sum_squares / noise.df <= suspicion_ratio(int(noise.df), df, policy.level) * variance:
        df, variance = df + noise.df, max((sum_squares(base) + noise.sum_squares) / (df + noise.df), _LEAST**2)
    least = max(policy.scatter**2, suspicion_ratio(len(own) - 1, df, policy.level))
    return sum_squares(own) / (len(own) - 1) > least * variance


def _doubtful(
    rung: Rung, own: Sequence[float], base: Sequence[float], noise: NoiseRecord, policy: LadderPolicy
) -> bool:
    return falls_short(rung, own, base, noise, policy) or scatters(own, base, noise, policy)


def lead(rungs: Sequence[Rung], reference: Rung) -> float:
    """What the best on chain is ahead of the reference, in bpb."""
    return max(0.0, rungs[0].gain - reference.gain)


def over_snapshot(runs: Sequence[ReplayRun], known: Known) -> float | None:
    """The candidate's gain over the snapshot (bpb), as measured on this machine; None where either was not."""
    base = values(runs, SNAPSHOT) or known.values
    own = values(runs, Arm.CANDIDATE)
    return statistics.fmean(base) - statistics.fmean(own) if base and own else None


def anchored(summed: float, shown: float | None, policy: LadderPolicy) -> float:
    """The gain over the snapshot (bpb) that an approval puts on chain.

    `summed` is that of the reference on chain with the candidate's gain over it, `shown` what `over_snapshot` says.
    """
    return summed if shown is None else summed + policy.anchor * (shown - summed)


def _note(rung: Rung, own: Sequence[float], base: Sequence[float], noise: NoiseRecord, policy: LadderPolicy) -> str:
    if not own or not base:
        return f"The {rung.arm} fails here and was stepped over."
    if scatters(own, base, noise, policy):
        return (
            f"The {rung.arm} was stepped over: its runs are {max(own) - min(own):.6f} bpb apart, those of the "
            f"snapshot {max(base) - min(base):.6f}."
        )
    shown = statistics.fmean(base) - statistics.fmean(own)
    return (
        f"The {rung.arm} was stepped over: {rung.gain:+.6f} bpb over the snapshot were attested for it, "
        f"{shown:+.6f} are left."
    )


def failures(runs: Sequence[ReplayRun], arm: str) -> int:
    """Of an arm by itself. A claim that it cannot reproduce counts as MAX_FAILURES: honest code makes none."""
    failed = [run for run in runs if run.arm == arm and run.failed]
    return sum(MAX_FAILURES if run.failure == Failure.NON_CAUSAL else 1 for run in failed)
