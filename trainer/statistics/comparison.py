"""Is the candidate really better than the incumbent on this machine? One answer for miner and verifier.

Everything that decides here is a pure function of measured val_bpb values (lower is better); delta is
incumbent - candidate, so positive is better. A sequential test looks at the runs once after each further candidate run.

**The judge's test** compares pairs. After some leading runs of the incumbent every run of the candidate has one of the
incumbent beside it, in random order, under the same secret salt (`trainer.measurement.salts`): what drifts, and what
luck a salt brings, is in both and cancels. delta is the mean difference of the n pairs, T = (delta - margin) /
(s·√(2/n)). An approval must pass two estimates of s:

- that of the incumbent's runs and the machine's `NoiseRecord`. Their salts differ, so it holds the luck that cancels in
  a pair: it is on the safe side, by a factor of about two in the smoke project.
- that of this trial's scatter, without which a loud candidate would be approved for its noise: of the pairs'
  differences, or by Welch's test of the candidate's runs beside the incumbent's. The first is sharp where salts do to
  both codes the same, the second where the codes differ in shape. Each may use its share of the look's error
  (`PAIRS_SHARE`, `WELCH_SHARE`). Two pairs cannot show scatter, so nothing is approved before the third.

**The miner's test** has a history of incumbent runs under salts of their own instead of pairs: T = (delta - margin) /
(s·√(1/m + 1/n)), with s² pooled from both arms and the record, runs of both arms interleaved in random order.

In both, with df degrees of freedom in all:

- APPROVE when T ≥ the upper alpha_n point of Student's t: the interval lies above the margin.
- REJECT (no improvement shown) when T ≤ the lower beta_n point of the noncentral t: a gain of `effect`·sigma
  would hardly ever look this poor. REJECT thus says "not a gain of that size", not "no gain at all".
- UNDECIDED when the run limit is reached with neither: too noisy to tell, and the verifier releases.

**Where the critical values come from.** The alpha_n are fixed in advance, grow by the factor `spending`
from look to look and sum to alpha; the beta_n are equal and sum to beta. Bonferroni's inequality then bounds
false approvals by alpha, and false rejections of a true gain of `effect`·sigma by beta, for every sigma,
every df and any dependence between looks: no table was calibrated, and a first session with few degrees of
freedom merely gets wider critical values. For this, run counts at a look must not depend on the values seen,
and a noise record must hold no run that is also in the samples. Where noise is not Gaussian, drifts, or differs
between the arms, simulation says what holds: tests/benchmarks/bench_levels.py, which knows nothing but `decide`.

**Few degrees of freedom** are met with more incumbent runs: before its first look a trial has `incumbent_lead` more
incumbents than candidates, 3 with an empty record, none with a full one.

**Looks thin out**: after each pair up to the sixth, then after 8 and 12 of them. What is clear by then costs nothing
more, and what is not, such as a candidate that scatters twice as much as the incumbent, has the runs to be shown.

**Mining** asks another question: not whether this candidate is good, but how to find the most true gain in
the hours there are. As approval has its alpha whatever is rejected, REJECT may follow economy (`MiningPolicy`):

- A candidate's first run is looked at beside the history as it stands, and most candidates end there. Then comes
  one fresh run of the incumbent, and a gain of many sigma is kept at once, one that is `obvious` even without, and any
  where the incumbent ran just before: in public logs of real sessions most gains are of 3 to 70 sigma
  (tests/benchmarks/bench_real_logs.py). Only what is neither tops the incumbent up.
- A trial must promise more per further run than `worth`: half of what a run has earned of late in this session.
  So a session that finds large gains does not spend itself on small ones, and one that finds little does.

`usable_history` says which of the incumbent's runs count, and STALE_TRIALS when one is due.
tests/benchmarks/bench_mining.py and bench_real_logs.py play whole sessions.

**A lucky incumbent.** What was kept was chosen for low values. Left in the history for good, those runs only make
false keeps rarer and hide some gains; over simulated sessions the loss is within 2 %, less than they can tell
apart, since fresh runs soon dilute them. They are still dropped once enough fresh ones are there, so that no
luck stays for ever; to drop them at once costs up to 5 %, in incumbent runs.

**A record that is wrong** (the machine is louder today) would keep noise. When the incumbent's runs of this trial
vary more than the record allows (one-sided F test at level `suspicion`), a mining trial's boundary counts as crossed
only when it is crossed with the trial's own variance as well, and Welch's test has the degrees of freedom of its own
runs alone. `LookEvidence.noisier` tells, and a REJECT with it may be this host's fault. The candidate's runs have no
say in this: a script that sees that it is unlucky could turn a rejection into a release by printing garbage.

**Outliers** (a run hit by machine load). In the judge's test, runs of the incumbent that stand `OUTLIER` deviations
apart from the others do not count, nor do their pairs: no candidate can touch them. And nobody is rejected but by
the noise of all that count and by that without the one or two that stand furthest: early, few others say how far is
too far, and what diverged would hide any gain in its scatter. Where up to `MOST_APART` pairs stand apart from the
best by as much, nobody is rejected but by all pairs and by the others too; and where they stand apart from the
others, either way, these may approve, at their own level: it is divided by the number of ways to choose those left
out, so that it holds whatever the candidate's scatter. A script that makes its unlucky runs bad gains no approval
by it: it may do so twice, and fewer runs judge it. The miner's test leaves out the incumbent's runs that stand
apart for the worse, of which one at the beginning would hide all gains of a night in its scatter; without them the
incumbent is only better. A slow outlier in the candidate hides a gain.

**Operating characteristics** of the judge's test are a table in docs/measurements.md. What no salt reaches stays: a
script that brings its own random numbers keeps the luck of its own seed.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from trainer.statistics.distributions import approval_point, rejection_point, suspicion_ratio, upper_tail
from trainer.statistics.error_rates import ComparisonPolicy, Look, LookEvidence
from trainer.statistics.noise import InvalidComparison, NoiseRecord, checked, sum_squares

PAIRS_SHARE, WELCH_SHARE, OTHERS_SHARE = 0.5, 0.25, 0.25
"""Of a look's level, what an approval may use by the scatter of the pairs, by Welch's test, and by the pairs without
those that stand apart."""

WELCH_FREEDOM = 2.0
"""Most degrees of freedom of Welch's test, by those of the candidate's runs. Its own rule goes by the scatter seen,
and three runs of a loud candidate that happen to lie close together gave it the incumbent's."""

OUTLIER, MOST_APART = 4.0, 2
"""By how many standard deviations a pair, or a run of the incumbent, stands apart from the others, and most pairs that
are left out for the candidate's runs."""

LEAST_OTHERS, DIVERGED = 4, 6.0
"""In a mining trial a run of the incumbent stands apart for the worse from so many others at least, by so many of their
standard deviations. Training that diverged does so by more; what the luck of being kept does to the others is less.
In the judge's test several for the worse stand apart by as much."""


class Arm(Enum):
    """Whose code a run executes."""

    INCUMBENT = "incumbent"
    CANDIDATE = "candidate"


class Answer(Enum):
    """What the runs so far allow to say."""

    APPROVE = "approve"
    REJECT = "reject"
    CONTINUE = "continue"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class TrialSamples:
    """val_bpb of every run of this trial in the order they were run, and of the incumbent's history.

    The first `history` values of `incumbent` were measured before the trial began. Refuses values that are
    not finite positive numbers: a run without a valid value is a finding of its own, never a sample.
    """

    incumbent: Sequence[float]
    candidate: Sequence[float]
    history: int = 0

    def __post_init__(self) -> None:
        for arm, values in (("incumbent", self.incumbent), ("candidate", self.candidate)):
            object.__setattr__(self, arm, checked(values, f"{arm} sample"))
        if isinstance(self.history, bool) or not 0 <= self.history <= len(self.incumbent):
            raise InvalidComparison(
                f"history must be from 0 to {len(self.incumbent)} (the incumbent runs), not {self.history!r}.",
                "Count the incumbent runs measured before this trial.",
            )


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer so far, the last look's evidence (None before the first) and, to continue, the runs `ahead`, in order.

    The first `wanted` of these are those until the next look: a run beyond them may not be needed. `spared` says that a
    REJECT is for the runs that showing the gain would take.
    """

    kind: Answer
    evidence: LookEvidence | None
    ahead: tuple[Arm, ...] = ()
    wanted: int = 0
    spared: bool = False

    @property
    def next_arm(self) -> Arm | None:
        """The next run; None at an answer."""
        return self.ahead[0] if self.ahead else None


def decide(samples: TrialSamples, noise: NoiseRecord, policy: ComparisonPolicy, *, seed: int = 0) -> Decision:
    """The sequential test's answer on `samples`, replayed from its first look.

    The first boundary crossed is the answer: runs beyond it change nothing, so continuing after a
    REJECT cannot turn it round, and an auditor gets the same answer from the same values. `noise` is the
    record as it stood when the trial began. `seed` draws the interleaving that `ahead` follows.
    """
    if policy.paired and samples.history:
        raise InvalidComparison("A paired comparison has no history.", "Measure both arms fresh.")
    evidence, wanted = None, 0
    looks = policy.looks(samples.history, noise.df)
    for place, at in enumerate(looks, 1):
        if len(samples.candidate) < at.candidate or len(samples.incumbent) < at.incumbent:
            wanted = sum(
                max(0, n) for n in (at.candidate - len(samples.candidate), at.incumbent - len(samples.incumbent))
            )
            break
        kind, evidence = look(samples.incumbent[: at.incumbent], samples.candidate[: at.candidate], noise, policy, at)
        if kind is not Answer.CONTINUE:
            return Decision(kind, evidence)
        if place == len(looks):
            return Decision(Answer.UNDECIDED, evidence)
        if policy.gives_up(evidence, noise.df, looks[place:]):
            return Decision(Answer.REJECT, evidence, spared=True)
    order = schedule(random.Random(seed), samples.history, looks, policy)
    return Decision(Answer.CONTINUE, evidence, _ahead(order, samples), wanted)


def look(
    incumbent: Sequence[float], candidate: Sequence[float], noise: NoiseRecord, policy: ComparisonPolicy, at: Look
) -> tuple[Answer, LookEvidence]:
    """One look at all the given values, with the error levels of `at`: APPROVE, REJECT or CONTINUE.

    ValueError if there is no degree of freedom: a single run of each arm and an empty record.
    """
    m, n = len(incumbent), len(candidate)
    if m + (0 if policy.paired else n - 1) - 1 + noise.df <= 0:
        raise ValueError("two runs and no noise record say nothing about the noise")
    if not policy.paired:
        theirs = steady(incumbent, noise, policy)
        delta, noisier = statistics.fmean(theirs) - statistics.fmean(candidate), is_noisier(theirs, noise, policy)
        bounds = _pooled(theirs, candidate, noise, policy, noisier)
        return _answer(delta, (m, n), bounds, noisier, policy, at, policy.scale(len(theirs), n))
    those = calm(incumbent, noise, policy) if n > 1 else range(m)
    kind, evidence = _paired(incumbent, candidate, those, those, noise, policy, at)
    if kind is Answer.REJECT:
        inward = _inward(incumbent, those)
        for nearest in (inward[:-left_out] for left_out in range(1, MOST_APART + 1) if len(inward) > left_out + 1):
            if _paired(incumbent, candidate, those, nearest, noise, policy, at)[0] is not kind:
                return Answer.CONTINUE, evidence
    return kind, evidence


def _inward(values: Sequence[float], those: Sequence[int]) -> list[int]:
    """The places `those`, from the value nearest to their median to the furthest."""
    middle = statistics.median(values[k] for k in those)
    return sorted(those, key=lambda k: abs(values[k] - middle))


def _paired(
    incumbent: Sequence[float],
    candidate: Sequence[float],
    those: Sequence[int],
    alike: Sequence[int],
    noise: NoiseRecord,
    policy: ComparisonPolicy,
    at: Look,
) -> tuple[Answer, LookEvidence]:
    """A look at the pairs with the incumbent's runs at the places `those`, by the noise of its runs at `alike`."""
    m, n = len(incumbent), len(candidate)
    quiet, beside = [incumbent[k] for k in alike], [k for k in those if k >= m - n]
    counted = [candidate[k - (m - n)] for k in beside]
    pairs = [incumbent[k] - value for k, value in zip(beside, counted, strict=True)]
    noisier = is_noisier(quiet, noise, policy)
    record = _estimate(sum_squares(quiet) + noise.sum_squares, len(quiet) - 1 + noise.df, policy)

    def said(those: Sequence[float], *own: _Estimate) -> tuple[Answer, LookEvidence]:
        """What these pairs say, by the incumbent's noise and by whichever of their `own` estimates is first."""
        bounds = [[record], list(own)] if own else [[record]]
        return _answer(statistics.fmean(those), (m, n), bounds, noisier, policy, at, policy.scale(m, len(those)))

    own = _own(pairs, counted, quiet, record, policy, noisier) if len(pairs) > 1 else ()
    kind, evidence = said(pairs, *own)
    if kind is Answer.APPROVE:
        return (kind if own else Answer.CONTINUE), evidence  # a single pair left shows no scatter
    far = OUTLIER * math.sqrt(2) * record.sigma
    if kind is Answer.REJECT:
        low = sorted(pairs)[:MOST_APART]
        kind = said([gain for gain in pairs if max(pairs) - gain <= far or gain not in low])[0]
        kind = kind if kind is Answer.REJECT else Answer.CONTINUE
    others, ways = pairs, 1.0
    for left_out in range(1, MOST_APART + 1):
        if len(others) < 3:
            break
        worst = _furthest(others)
        apart, others = others[worst], [*others[:worst], *others[worst + 1 :]]
        if abs(apart - statistics.median(others)) <= far:
            break
        ways *= (len(others) + 1) / left_out
        without = said(others, _of_pairs(others, policy, OTHERS_SHARE / MOST_APART / ways))
        if without[0] is Answer.APPROVE:
            return without
    return kind, evidence


def _answer(
    delta: float,
    runs: tuple[int, int],
    estimates: Sequence[Sequence[_Estimate]],
    noisier: bool,
    policy: ComparisonPolicy,
    at: Look,
    scale: float,
) -> tuple[Answer, LookEvidence]:
    """What a gain of `delta` (bpb), of the standard error sigma·`scale`, in so many `runs` of each arm says by all the
    estimates of its noise."""
    # Where nothing can be approved, interval and p are drawn at the strictest level; they decide nothing.
    level = at.alpha or min(filter(None, map(policy.approval_level, policy.counts)))
    gain = delta - policy.margin
    reach, p, sigma, df, reject, louder = 0.0, 0.0, 0.0, 0.0, at.beta > 0, False
    for bound in estimates:  # all must be crossed, each by whichever of its alternatives is crossed first
        nearest = min(
            (approval_point(one.df, level * one.share) * one.sigma * scale, one.sigma, one.df) for one in bound
        )
        louder = policy.paired and 0 < reach < nearest[0]
        reach, sigma, df = max((reach, sigma, df), nearest)
        p = max(p, min(min(1.0, upper_tail(gain / (one.sigma * scale), one.df) / one.share) for one in bound))
    for one in [one for bound in estimates for one in bound if one.rejects]:
        t = gain / (one.sigma * scale)
        reject = reject and t <= rejection_point(one.df, policy.effect / scale, at.beta)
    approve = at.alpha > 0 and gain >= reach + at.beyond * sigma
    p = min(1.0, p * policy.alpha / level)
    evidence = LookEvidence(delta, delta - reach, delta + reach, p, sigma, df, *runs, noisier, scale, louder)
    return (Answer.APPROVE if approve else Answer.REJECT if reject else Answer.CONTINUE), evidence


def _furthest(values: Sequence[float]) -> int:
    """The place of the value that stands furthest from the middle of all."""
    middle = statistics.median(values)
    return max(range(len(values)), key=lambda k: abs(values[k] - middle))


def steady(incumbent: Sequence[float], noise: NoiseRecord, policy: ComparisonPolicy) -> list[float]:
    """The incumbent's values without those that stand apart from the others for the worse, at most a third of all."""
    numbers = range(min(len(incumbent) // 3, len(incumbent) - LEAST_OTHERS), 0, -1)
    least = _diverged(incumbent, numbers, noise, policy, quieter=True)
    return [value for value in incumbent if value < least]


def _diverged(
    incumbent: Sequence[float], numbers: Iterable[int], noise: NoiseRecord, policy: ComparisonPolicy, *, quieter: bool
) -> float:
    """The least of the values that diverged together: of the first of these `numbers` of values that all stand apart
    from the others for the worse. Several at once, since one of them hides how far others stand. Infinite if none does.

    `quieter` says that the record may be of a quieter day: the others' own scatter counts as well.
    """
    ordered = sorted(incumbent)
    for left_out in numbers:
        others, nearest = ordered[:-left_out], ordered[-left_out]
        own = _estimate(sum_squares(others), len(others) - 1.0, policy)
        known = _estimate(sum_squares(others) + noise.sum_squares, own.df + noise.df, policy)
        sigma = max(own.sigma, known.sigma) if quieter else known.sigma
        if known.df > 3 and nearest - statistics.median(others) > DIVERGED * sigma:
            return nearest
    return math.inf


def calm(incumbent: Sequence[float], noise: NoiseRecord, policy: ComparisonPolicy) -> Sequence[int]:
    """The places of the incumbent's runs but those that stand apart from the others, at most a third of all.

    Several at once only for the worse, as what diverged does: without its lucky runs an incumbent whose author makes it
    lucky now and then would lose to what is no better on the whole.
    """
    least = _diverged(incumbent, range(len(incumbent) // 3, 1, -1), noise, policy, quieter=False)
    left = [k for k, value in enumerate(incumbent) if value < least]
    while len(left) > 2 and len(incumbent) - len(left) < len(incumbent) // 3:
        worst = left[_furthest([incumbent[k] for k in left])]
        others = [incumbent[k] for k in left if k != worst]
        estimate = _estimate(sum_squares(others) + noise.sum_squares, len(others) - 1 + noise.df, policy)
        distance = abs(incumbent[worst] - statistics.median(others))
        if estimate.df <= 3 or distance <= OUTLIER * estimate.sigma:
            break
        left.remove(worst)
    return left


@dataclass(frozen=True, slots=True)
class _Estimate:
    """Of the noise: sigma such that delta's standard error is sigma·scale, in bpb, and its degrees of freedom.

    share: of a look's level that an approval by this estimate may use. rejects: whether a rejection goes by it.
    """

    sigma: float
    df: float
    share: float = 1.0
    rejects: bool = True


def is_noisier(incumbent: Sequence[float], noise: NoiseRecord, policy: ComparisonPolicy) -> bool:
    """Whether the incumbent is louder than the record says. No candidate may turn this on: only its runs are asked."""
    df = len(incumbent) - 1
    if noise.df <= 0 or df < 1:
        return False
    most = suspicion_ratio(df, noise.df, policy.suspicion) * max(noise.sum_squares / noise.df, policy.resolution**2)
    return sum_squares(incumbent) / df > most


def _pooled(
    incumbent: Sequence[float], candidate: Sequence[float], noise: NoiseRecord, policy: ComparisonPolicy, noisier: bool
) -> list[list[_Estimate]]:
    """Both arms and the record in one, and without the record where the incumbent is noisier than it."""
    own, df = sum_squares(incumbent) + sum_squares(candidate), len(incumbent) + len(candidate) - 2.0
    found = [[_estimate(own + noise.sum_squares, df + noise.df, policy)]]
    return [*found, [_estimate(own, df, policy)]] if noisier and df else found


def _own(
    pairs: Sequence[float],
    candidate: Sequence[float],
    incumbent: Sequence[float],
    record: _Estimate,
    policy: ComparisonPolicy,
    noisier: bool,
) -> tuple[_Estimate, _Estimate]:
    """This trial's scatter: that of the pairs, and by Welch that of the candidate's runs beside the incumbent's noise,
    which is the record's or, where that is more, its own."""
    theirs = _estimate(sum_squares(candidate), len(candidate) - 1.0, policy)
    ours = _estimate(sum_squares(incumbent), len(incumbent) - 1.0, policy)
    v, w = theirs.sigma**2, max(ours.sigma, record.sigma) ** 2
    freedom = (v + w) ** 2 / (v**2 / theirs.df + w**2 / (ours if noisier else record).df)
    freedom = math.floor(min(freedom, WELCH_FREEDOM * theirs.df))
    welch = _Estimate(math.sqrt((v + w) / 2), float(freedom), WELCH_SHARE, rejects=False)
    return _of_pairs(pairs, policy, PAIRS_SHARE), welch


def _of_pairs(pairs: Sequence[float], policy: ComparisonPolicy, share: float) -> _Estimate:
    one = _estimate(sum_squares(pairs) / 2, len(pairs) - 1.0, policy)
    return _Estimate(one.sigma, one.df, share, rejects=False)


def _estimate(squares: float, df: float, policy: ComparisonPolicy) -> _Estimate:
    return _Estimate(max(math.sqrt(squares / df), policy.resolution), df)


def schedule(rng: random.Random, history: int, looks: Sequence[Look], policy: ComparisonPolicy) -> tuple[Arm, ...]:
    """A random interleaving of all fresh runs up to the last look; a trial stops somewhere in it.

    Where runs are paired, the incumbent's leading runs come first, then pairs of adjacent runs: what drifts is in both.
    Else blocks end at the looks; a block's incumbents are spread evenly over its candidates and every part is
    shuffled, so that neither a drift nor the order favours an arm. The very first run is always the incumbent's where
    nothing was measured before: how well and how fast it evaluates is what the candidate is probed and bounded by.
    """
    order: list[Arm] = []
    before = Look(history, 0, 0.0, 0.0)
    if policy.paired:
        lead = looks[0].incumbent - looks[0].candidate
        order, before = [Arm.INCUMBENT] * lead, replace(before, incumbent=lead)
    for at in looks:
        fresh, parts = at.incumbent - before.incumbent, max(1, at.candidate - before.candidate)
        for i in range(parts):
            part = [Arm.CANDIDATE] * (at.candidate > before.candidate)
            part += [Arm.INCUMBENT] * (fresh * (i + 1) // parts - fresh * i // parts)
            rng.shuffle(part)
            order += part
        before = at
    if not history and Arm.INCUMBENT in order:
        first = order.index(Arm.INCUMBENT)
        order[0], order[first] = order[first], order[0]
    return tuple(order)


def _ahead(order: Iterable[Arm], samples: TrialSamples) -> tuple[Arm, ...]:
    """The runs of `order` that the samples do not hold yet."""
    left, found = {Arm.INCUMBENT: len(samples.incumbent) - samples.history, Arm.CANDIDATE: len(samples.candidate)}, []
    for arm in order:
        left[arm] -= 1
        if left[arm] < 0:
            found.append(arm)
    return tuple(found)
