"""Is the candidate really better than the incumbent on this machine? One answer for miner and verifier.

Everything that decides here is a pure function of measured val_bpb values (lower is better); delta is
incumbent - candidate, so positive is better. Runs of both arms are interleaved in random order and a
sequential test looks at them once after each further candidate run.

**The test.** A look at n candidate and m incumbent runs forms T = (delta - margin) / (s·√(1/m + 1/n)), with
s² pooled from both arms and the machine's `NoiseRecord`, df degrees of freedom in all. When the true delta
equals the margin, T has Student's t distribution with df degrees; when the gain beyond the margin is
`effect`·sigma, the noncentral t with noncentrality effect/√(1/m + 1/n).

- APPROVE when T ≥ the upper alpha_n point of Student's t: the interval lies above the margin.
- REJECT (no improvement shown) when T ≤ the lower beta_n point of the noncentral t: a gain of `effect`·sigma
  would hardly ever look this poor. REJECT thus says "not a gain of that size", not "no gain at all".
- UNDECIDED when the run limit is reached with neither: too noisy to tell, and the verifier releases.

**Where the critical values come from.** The alpha_n are fixed in advance, shrink by the factor `spending`
from look to look and sum to alpha; the beta_n are equal and sum to beta. Bonferroni's inequality then bounds
false approvals by alpha, and false rejections of a true gain of `effect`·sigma by beta, for every sigma,
every df and any dependence between looks: no table was calibrated, and a first session with few degrees of
freedom merely gets wider critical values. For this, run counts at a look must not depend on the values seen,
and a noise record must hold no run that is also in the samples. Noise is taken to be Gaussian with one
sigma for both arms. `critical_values` in tests/benchmarks/bench_comparison.py recomputes the boundaries and
simulates each look's error; the same module simulates every figure below.

**Few degrees of freedom** are met with more incumbent runs, which also steady the mean: before its first
look a trial has `incumbent_lead` more incumbents than candidates, 5 with an empty record, 2 with a full one.

**Mining** asks another question: not whether this candidate is good, but how to find the most true gain in
the hours there are. As approval has its alpha whatever is rejected, REJECT may follow economy (`MiningPolicy`):

- A candidate's first run is looked at beside the history as it stands, and most candidates end there. Then comes
  one fresh run of the incumbent, and a gain of many sigma is kept at once, one that is `obvious` even without: in
  public logs of real sessions most gains are of 3 to 70 sigma (tests/benchmarks/bench_real_logs.py). Only what is
  neither tops the incumbent up.
- A trial must promise more per further run than `worth`: half of what a run has earned of late in this session.
  So a session that finds large gains does not spend itself on small ones, and one that finds little does.

`usable_history` says which of the incumbent's runs count, and STALE_TRIALS when one is due.
tests/benchmarks/bench_mining.py and bench_real_logs.py play whole sessions.

**A lucky incumbent.** What was kept was chosen for low values. Left in the history for good, those runs only make
false keeps rarer and hide some gains; over simulated sessions the loss is within 2 %, less than they can tell
apart, since fresh runs soon dilute them. They are dropped all the same once enough fresh ones are there, so that no
luck stays for ever; to drop them at once costs up to 5 %, in incumbent runs.

**A record that is wrong** (the machine is louder today) would approve noise. When the runs of this trial
vary more than the record allows (one-sided F test at level `suspicion`), a boundary counts as crossed only
when it is crossed with the trial's own variance as well. That can only remove decisions, so both bounds
stand; `Evidence.noisier` tells, and a REJECT with it may be this host's fault.

**Outliers** (a run hit by machine load) are never dropped: every run counts. A slow outlier in the candidate
hides a gain; one in the incumbent raises delta and s together, which keeps T small.

**Operating characteristics** with the defaults, the same at every sigma from 0.005 to 0.03 (20,000 trials
each; runs are candidate + incumbent, on average):

    record, mode          no gain: approved, runs     gain of 3 sigma: approved, rejected, runs
    empty, verifier       0.7 %  2.2 + 7.2            97 %  1.4 %  2.8 + 7.8
    4 calibration runs    0.6 %  2.3 + 5.3            96 %  1.5 %  3.0 + 6.0
    df 20, verifier       0.6 %  2.3 + 4.3            96 %  1.5 %  2.7 + 4.7
    df 20, mining         0.5 %  1.2 + 0.1            94 %  5.4 %  2.1 + 1.0   (incumbent history of 10)
    empty, mining         0.7 %  1.2 + 0.6            92 %  6.8 %  2.8 + 3.6   (incumbent history of 4)

In between, a verifier approves a gain of 2 sigma in 60 to 70 % and rejects it in 25 % (3.0 to 3.9 candidate
runs), one of 1 sigma in 12 to 15 % and 82 % (2.5 to 3.3 runs). What the bounds do not cover: a record of 20
degrees that says half the true sigma approves 2.8 % of no-ops (6.6 % without the F test); a candidate whose own runs
scatter twice as much, 4 to 5 %, ten times as much, 11 %. With one run in twenty 10 sigma too slow, 0.4 % of
no-ops are approved, but only 66 % of 3 sigma gains.
"""

from __future__ import annotations

import json
import math
import os
import random
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from trainer.errors import TrainerError

MAX_RUNS = 1000
"""Most values per arm that are looked at; a trial needs fewer than twenty."""

STALE_TRIALS = 8
"""Trials in a row without an incumbent run after which history no longer says what the machine does now."""

HISTORY_WINDOW = 16
"""Most values of history that are used, the latest: more hardly steady the mean, and age."""

EARNING_TRIALS = 30
"""Trials, the latest, that say what a run earns in this session."""

EARNING_SHARE = 0.5
"""What a further run must promise, of what one has earned."""

LEAST_DF = 3
"""Degrees of freedom below which a mining trial's first run is not looked at."""

FRESH_ENOUGH = 4
"""Fresh incumbent runs from which on those that it was kept by are left out of history."""

MAX_NOISE_DF = 1e4
MAX_NOISE_FILE_BYTES = 1 << 18
_NODES = 160


class InvalidComparison(TrainerError):
    """Samples, a policy or a noise record that no decision can rest on."""


class Arm(Enum):
    """Whose code a run executes."""

    INCUMBENT = "incumbent"
    CANDIDATE = "candidate"


class Kind(Enum):
    """What the runs so far allow to say."""

    APPROVE = "approve"
    REJECT = "reject"
    CONTINUE = "continue"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Policy:
    """Error rates and limits of one comparison, fixed before its first run.

    alpha: most false approvals (probability). beta: most rejections of a true gain of `effect`·sigma beyond
    the margin. margin: smallest gain worth approving, in bpb. effect: in units of run-to-run sigma.
    first_approval and first_rejection: fewest candidate runs for each answer. spending: ratio of the error
    allowed at one look to that at the look before. suspicion: level of the F test against the noise record.
    refresh: fresh incumbent runs before a trial may approve even when history would do; early_refresh: of these,
    how many before its very first look. resolution: floor of sigma, in bpb, so that values printed with six
    decimals cannot look noiseless.
    """

    alpha: float = 0.01
    beta: float = 0.03
    margin: float = 0.0
    effect: float = 3.0
    max_candidate_runs: int = 6
    first_approval: int = 2
    first_rejection: int = 2
    spending: float = 0.7
    suspicion: float = 0.1
    refresh: int = 0
    early_refresh: int = 0
    resolution: float = 1e-6

    least_approval: ClassVar[int] = 2

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
            "refresh": (0, 50),
            "early_refresh": (0, self.refresh),
        }
        whole = {"max_candidate_runs", "first_approval", "first_rejection", "refresh", "early_refresh"}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            kinds = (int,) if name in whole else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                raise InvalidComparison(
                    f"Policy {name} must be {'a whole number ' if name in whole else ''}"
                    f"from {low:g} to {high:g}, found {value!r}.",
                    "Correct the policy.",
                )

    @property
    def first_look(self) -> int:
        """Candidate runs before anything can be decided."""
        return min(self.first_approval, self.first_rejection)

    def approval_level(self, n: int) -> float:
        """alpha_n, the false-approval probability allowed at the look after `n` candidate runs; else 0."""
        if not self.first_approval <= n <= self.max_candidate_runs:
            return 0.0
        weights = [self.spending**i for i in range(self.max_candidate_runs - self.first_approval + 1)]
        return self.alpha * weights[n - self.first_approval] / sum(weights)

    def rejection_level(self, n: int) -> float:
        """beta_n, likewise for rejecting a true gain of `effect`·sigma."""
        if not self.first_rejection <= n <= self.max_candidate_runs:
            return 0.0
        return self.beta / (self.max_candidate_runs - self.first_rejection + 1)

    def looks(self, history: int, noise_df: float) -> tuple[Look, ...]:
        """The looks of a trial that begins with `history` incumbent values, in order. They depend on no value."""
        return tuple(
            Look(incumbent_runs(n, history, noise_df, self), n, self.approval_level(n), self.rejection_level(n))
            for n in range(self.first_look, self.max_candidate_runs + 1)
        )

    def gives_up(self, seen: Evidence, noise_df: float, later: Sequence[Look]) -> bool:
        """Whether what was seen is not worth the `later` looks, which is never so when somebody's stake hangs on it."""
        return False


@dataclass(frozen=True, slots=True)
class MiningPolicy(Policy):
    """For a session whose incumbent has history: losers stop after a single run, without one of the incumbent.

    glance: level of the looks at the first candidate run before the incumbent is topped up, each for rejecting a
    true gain of `effect`·sigma. obvious: a gain of so many sigma beyond the boundary is no drift of the machine, and
    is kept without a fresh run of the incumbent. worth: least gain that a further run must promise, in bpb
    (`worth_of`). Set `early_refresh` to 1 after `STALE_TRIALS` trials without a run of the incumbent: history then
    says little about the machine as it is now.
    """

    beta: float = 0.25
    effect: float = 2.5
    max_candidate_runs: int = 4
    first_approval: int = 1
    first_rejection: int = 1
    spending: float = 2.5
    refresh: int = 1
    glance: float = 0.1
    obvious: float = 20.0
    worth: float = 0.0

    least_approval: ClassVar[int] = 1

    def __post_init__(self) -> None:
        Policy.__post_init__(self)
        good = 0 < self.glance < 0.5 and 0 <= self.obvious < 1e4 and 0 <= self.worth < 100
        if not good or self.first_rejection != 1:
            raise InvalidComparison(
                f"A mining policy has a first_rejection of 1, found {self.first_rejection!r}, a glance from 0 to 0.5, "
                f"found {self.glance!r}, obvious from 0 to 10,000, found {self.obvious!r}, and a worth from 0 to 100, "
                f"found {self.worth!r}.",
                "Correct the policy.",
            )

    def looks(self, history: int, noise_df: float) -> tuple[Look, ...]:
        """As they stand, with one fresh run of the incumbent, topped up, and from then on as any trial's."""
        begun, alpha = history + self.early_refresh, self.approval_level(1)
        fresh = max(begun, history + self.refresh, math.ceil(LEAST_DF + 1 - noise_df))
        found = [Look(fresh, 1, alpha, self.glance)]
        if begun and begun < fresh and noise_df + begun - 1 >= LEAST_DF:
            found = [Look(begun, 1, alpha / 2, self.glance, self.obvious), Look(fresh, 1, alpha / 2, self.glance)]
        first, *rest = Policy.looks(self, history, noise_df)
        if first.incumbent > fresh:
            found.append(replace(first, alpha=0.0))
        return (*found, *(replace(look, incumbent=max(look.incumbent, fresh)) for look in rest))

    def gives_up(self, seen: Evidence, noise_df: float, later: Sequence[Look]) -> bool:
        """Whether the gain seen, spread over the runs until it would be approved, is less than `worth` for each."""
        if not self.worth:
            return False
        gain = seen.delta - self.margin

        def approves(look: Look) -> bool:
            df = noise_df + look.incumbent + look.candidate - 2
            scale = math.sqrt(1 / look.incumbent + 1 / look.candidate)
            return look.alpha > 0 and gain >= (approval_point(df, look.alpha) * scale + look.beyond) * seen.sigma

        until = next((look for look in later if approves(look)), later[-1])
        runs = until.incumbent - seen.incumbent_runs + until.candidate - seen.candidate_runs
        return gain <= self.worth * runs


def worth_of(trials: Iterable[tuple[int, float]]) -> float:
    """`MiningPolicy.worth` after a session's finished trials: the runs of each and what was kept of it, in bpb."""
    latest = list(trials)[-EARNING_TRIALS:]
    runs, gain = sum(runs for runs, _ in latest), math.fsum(gain for _, gain in latest)
    return max(0.0, EARNING_SHARE * gain / runs) if runs else 0.0


@dataclass(frozen=True, slots=True)
class Look:
    """A moment at which a trial is judged: runs of either arm, the history's included, and the error allowed there.

    alpha: probability of a false approval, beta: of a rejection of a true gain of `Policy.effect`·sigma; 0 where that
    answer is not given. beyond: what an approval asks for beyond its boundary, in sigma.
    """

    incumbent: int
    candidate: int
    alpha: float
    beta: float
    beyond: float = 0.0


@dataclass(frozen=True, slots=True)
class Samples:
    """val_bpb of every run of this trial in the order they were run, and of the incumbent's history.

    The first `history` values of `incumbent` were measured before the trial began. Refuses values that are
    not finite positive numbers: a run without a valid value is a finding of its own, never a sample.
    """

    incumbent: Sequence[float]
    candidate: Sequence[float]
    history: int = 0

    def __post_init__(self) -> None:
        for arm, values in (("incumbent", self.incumbent), ("candidate", self.candidate)):
            object.__setattr__(self, arm, _checked(values, f"{arm} sample"))
        if isinstance(self.history, bool) or not 0 <= self.history <= len(self.incumbent):
            raise InvalidComparison(
                f"History must be 0 to {len(self.incumbent)} (the incumbent runs), found {self.history!r}.",
                "Count the incumbent runs measured before this trial.",
            )


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
                    "Delete the noise file; it is measured anew.",
                )
        if self.df < 1 and (self.df or self.sum_squares):
            raise InvalidComparison(
                f"A noise record is empty or has at least one degree of freedom, found {self.df!r}.",
                "Delete the noise file; it is measured anew.",
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
            values = _checked(group, "noise sample")
            if len(values) > 1:
                new_ss += _sum_squares(values)
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
                "Delete the noise file; it is measured anew.",
            )
        return cls(data["sum_squares"], data["df"])


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one look saw. delta, low, high and sigma in bpb; (low, high) holds the true delta.

    low and high are repeated confidence limits: each covers with probability 1 - alpha at all looks
    together, so stopping early does not spoil them. p is the smallest alpha at which this look would approve.
    sigma and df are those of the variance that bound the decision; noisier says that the trial's runs varied
    more than the noise record allows.
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

    @property
    def confidence(self) -> float:
        """1 - p: how sure that the true delta exceeds the margin."""
        return 1.0 - self.p


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer so far, the last look's evidence (None before the first) and, to continue, the next run.

    `spared` says that a REJECT is for the runs that showing the gain would take.
    """

    kind: Kind
    evidence: Evidence | None
    next_arm: Arm | None
    spared: bool = False


def decide(samples: Samples, noise: NoiseRecord, policy: Policy, *, seed: int = 0) -> Decision:
    """The sequential test's answer on `samples`, replayed from its first look.

    The first boundary crossed is the answer: runs beyond it change nothing, so continuing after a
    REJECT cannot turn it round, and an auditor gets the same answer from the same values. `noise` is the
    record as it stood when the trial began. `seed` draws the interleaving that `next_arm` follows.
    """
    evidence = None
    looks = policy.looks(samples.history, noise.df)
    for place, at in enumerate(looks, 1):
        if len(samples.candidate) < at.candidate or len(samples.incumbent) < at.incumbent:
            break
        kind, evidence = look(samples.incumbent[: at.incumbent], samples.candidate[: at.candidate], noise, policy, at)
        if kind is not Kind.CONTINUE:
            return Decision(kind, evidence, None)
        if place == len(looks):
            return Decision(Kind.UNDECIDED, evidence, None)
        if policy.gives_up(evidence, noise.df, looks[place:]):
            return Decision(Kind.REJECT, evidence, None, spared=True)
    order = schedule(random.Random(seed), samples.history, looks)
    return Decision(Kind.CONTINUE, evidence, _next_arm(order, samples))


def look(
    incumbent: Sequence[float], candidate: Sequence[float], noise: NoiseRecord, policy: Policy, at: Look
) -> tuple[Kind, Evidence]:
    """One look at all the given values, with the error levels of `at`: APPROVE, REJECT or CONTINUE.

    ValueError where there is no degree of freedom: a single run of each arm and an empty record.
    """
    m, n = len(incumbent), len(candidate)
    scale = math.sqrt(1 / m + 1 / n)
    delta = math.fsum(incumbent) / m - math.fsum(candidate) / n
    own_ss, own_df = _sum_squares(incumbent) + _sum_squares(candidate), m + n - 2
    if own_df + noise.df <= 0:
        raise ValueError("two runs and no noise record say nothing of the noise")
    estimates = [(own_ss + noise.sum_squares, own_df + noise.df)]
    noisier = (
        noise.df > 0
        and own_df > 0
        and own_ss / own_df
        > suspicion_ratio(own_df, noise.df, policy.suspicion) * max(noise.sum_squares / noise.df, policy.resolution**2)
    )
    if noisier:
        estimates.append((own_ss, own_df))

    # Where nothing can be approved, interval and p are drawn at the strictest level; they decide nothing.
    level = at.alpha or min(
        policy.approval_level(k) for k in range(policy.first_approval, policy.max_candidate_runs + 1)
    )
    approve, reject = at.alpha > 0, at.beta > 0
    low, high, p, sigma, df = math.inf, -math.inf, 0.0, 0.0, 0.0
    for squares, freedom in estimates:
        s = max(math.sqrt(squares / freedom), policy.resolution)
        t = (delta - policy.margin) / (s * scale)
        upper = approval_point(freedom, level)
        approve &= t - at.beyond / scale >= upper
        reject = reject and t <= rejection_point(freedom, policy.effect / scale, at.beta)
        low, high = min(low, delta - upper * s * scale), max(high, delta + upper * s * scale)
        p = max(p, min(1.0, _upper_tail(t, freedom) * policy.alpha / level))
        sigma, df = max((sigma, df), (s, float(freedom)))
    evidence = Evidence(delta, low, high, p, sigma, df, m, n, noisier)
    return (Kind.APPROVE if approve else Kind.REJECT if reject else Kind.CONTINUE), evidence


def incumbent_lead(noise_df: float) -> int:
    """How many more incumbents than candidates a look without history needs, by the record's df."""
    return 5 if noise_df < 3 else 3 if noise_df < 10 else 2


def incumbent_runs(n: int, history: int, noise_df: float, policy: Policy) -> int:
    """Incumbent runs, history included, at the look after `n` candidate runs."""
    refresh = policy.refresh if n >= policy.first_approval else policy.early_refresh
    return max(n + incumbent_lead(noise_df), history + refresh)


def usable_history(selected: Sequence[float], fresh: Sequence[float]) -> list[float]:
    """What of an incumbent's earlier values a mining trial uses as its history.

    selected: its runs as the candidate that was kept, in order; fresh: its runs as the incumbent since. The test
    chose the former for being low, so while they count the incumbent looks better than it is: that never raises
    false keeps, but hides gains. They go once FRESH_ENOUGH fresh runs are there. Which values those are does
    not change the error rates: neither rule looks at a value.
    """
    if len(fresh) >= FRESH_ENOUGH:
        return list(fresh[-HISTORY_WINDOW:])
    return [*selected, *fresh][-HISTORY_WINDOW:]


def schedule(rng: random.Random, history: int, looks: Sequence[Look]) -> tuple[Arm, ...]:
    """A random interleaving of all fresh runs up to the last look; a trial stops somewhere in it.

    Blocks end at the looks. A block's incumbents are spread evenly over its candidates and every part is shuffled,
    so that neither a drift nor the order favours an arm.
    """
    order: list[Arm] = []
    before = Look(history, 0, 0.0, 0.0)
    for at in looks:
        fresh, parts = at.incumbent - before.incumbent, max(1, at.candidate - before.candidate)
        for i in range(parts):
            part = [Arm.CANDIDATE] * (at.candidate > before.candidate)
            part += [Arm.INCUMBENT] * (fresh * (i + 1) // parts - fresh * i // parts)
            rng.shuffle(part)
            order += part
        before = at
    return tuple(order)


def _next_arm(order: Iterable[Arm], samples: Samples) -> Arm | None:
    """The first run of `order` that the samples do not hold yet."""
    left = {Arm.INCUMBENT: len(samples.incumbent) - samples.history, Arm.CANDIDATE: len(samples.candidate)}
    for arm in order:
        left[arm] -= 1
        if left[arm] < 0:
            return arm
    return None


# --- distributions: chi, Student's t, noncentral t and F, by one quadrature -------------------------------


@lru_cache(maxsize=1024)
def _chi(df: float) -> tuple[tuple[float, float], ...]:
    """Nodes u and weights of U = √(χ²_df / df): the trapezoid rule in log χ², where the density is
    analytic and decays on both sides, so that the rule converges geometrically."""

    def log_density(x: float) -> float:
        return df / 2 * x - math.exp(x) / 2

    mode, step = math.log(df), math.sqrt(2 / df)
    low = high = mode
    while log_density(mode) - log_density(low) < 40:
        low -= step
    while log_density(mode) - log_density(high) < 40:
        high += step / 4
    grid = [low + (high - low) * i / (_NODES - 1) for i in range(_NODES)]
    weights = [math.exp(log_density(x) - log_density(mode)) for x in grid]
    total = math.fsum(weights)
    return tuple((math.exp(x / 2) / math.sqrt(df), w / total) for x, w in zip(grid, weights, strict=True))


def _upper_tail(t: float, df: float, noncentrality: float = 0.0) -> float:
    """P(T > t) for (noncentral) Student's t: Z + noncentrality > t·U."""
    return 0.5 * math.fsum(w * math.erfc((t * u - noncentrality) / math.sqrt(2)) for u, w in _chi(df))


def _chi2_upper_tail(x: float, df: int) -> float:
    """P(χ²_df > x) for whole df, by the recurrence that adds two degrees at a time."""
    half = x / 2
    k, tail = (1, math.erfc(math.sqrt(half))) if df % 2 else (2, math.exp(-half))
    term = math.exp(-half) * (math.sqrt(half) / math.gamma(1.5) if df % 2 else half)
    while k < df:
        tail += term
        k += 2
        term *= half / (k / 2)
    return tail


@lru_cache(maxsize=65536)
def approval_point(df: float, level: float) -> float:
    """The t that Student's t with `df` exceeds with probability `level`."""
    return _falling_root(lambda t: _upper_tail(t, df) - level, 0.0, 4.0)


@lru_cache(maxsize=65536)
def rejection_point(df: float, noncentrality: float, level: float) -> float:
    """The t below which the noncentral t falls with probability `level`."""
    return -_falling_root(lambda t: _upper_tail(t, df, -noncentrality) - level, -noncentrality, 4.0)


@lru_cache(maxsize=4096)
def suspicion_ratio(own_df: int, record_df: float, level: float) -> float:
    """The ratio of trial to record variance that F(own_df, record_df) exceeds with probability `level`."""
    return _falling_root(
        lambda f: math.fsum(w * _chi2_upper_tail(own_df * f * u * u, own_df) for u, w in _chi(record_df)) - level,
        0.0,
        4.0,
    )


def _falling_root(f: Callable[[float], float], low: float, width: float) -> float:
    """The zero of a falling function that is positive at `low`, by doubling and bisection."""
    while f(low + width) > 0 and width < 1e12:
        width *= 2
    high = low + width
    for _ in range(100):
        middle = (low + high) / 2
        if middle in (low, high) or high - low < 1e-11 * max(1.0, abs(middle)):
            break
        low, high = (middle, high) if f(middle) > 0 else (low, middle)
    return (low + high) / 2


def _sum_squares(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((x - mean) ** 2 for x in values)


def _checked(values: Sequence[float], what: str) -> tuple[float, ...]:
    if len(values) > MAX_RUNS:
        raise InvalidComparison(f"At most {MAX_RUNS} {what}s are read, found {len(values)}.", "Give the latest.")
    for x in values:
        if isinstance(x, bool) or not isinstance(x, (int, float)) or not 0 < x < 1e4:
            raise InvalidComparison(
                f"Each {what} must be a finite positive val_bpb below 10,000, found {x!r}.",
                "Treat a run without a valid value as failed and leave it out of the samples.",
            )
    return tuple(float(x) for x in values)


# --- the noise file ---------------------------------------------------------------------------------------


def load_noise(path: Path) -> dict[str, NoiseRecord]:
    """A noise file's records by key; empty when there is no file, InvalidComparison when it is malformed."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_NOISE_FILE_BYTES + 1)
    except FileNotFoundError:
        return {}
    cure = f"Delete {path}; it is measured anew."
    if len(raw) > MAX_NOISE_FILE_BYTES:
        raise InvalidComparison(f"A noise file has at most {MAX_NOISE_FILE_BYTES} bytes, {path} has more.", cure)
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidComparison(f"{path} is not JSON.", cure) from error
    if not isinstance(data, dict):
        raise InvalidComparison(f"{path} must hold one JSON object.", cure)
    return {key: NoiseRecord.from_json(record) for key, record in data.items()}


def save_noise(path: Path, records: Mapping[str, NoiseRecord]) -> None:
    """Write all records atomically; a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({key: record.to_json() for key, record in records.items()}, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
