"""Operating characteristics of `trainer.statistics.comparison`, by simulation.

    python -m tests.benchmarks.bench_comparison

Prints false approvals, power and mean runs of the sequential test as a verifier uses it (both arms fresh) and
as a mining session uses it (incumbent history and noise record carried on), beside two references in use,
"3 against 3, bootstrap 95 %" and "median of 5, 1 % margin"; then what a wrong noise record, outliers and a
noisier candidate do to it, and the critical values with the per-look error each was computed for.
Everything is seeded; the whole takes less than a minute on one core.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from trainer.statistics.comparison import PAIRS_SHARE, WELCH_FREEDOM, WELCH_SHARE, Answer, look
from trainer.statistics.distributions import approval_point, rejection_point, suspicion_ratio
from trainer.statistics.error_rates import ComparisonPolicy, incumbent_lead
from trainer.statistics.mining import MiningPolicy
from trainer.statistics.noise import NoiseRecord

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TRIALS = 20_000
SIGMAS = (0.005, 0.01, 0.02, 0.03)
GAINS = (0.0, 1.0, 2.0, 3.0)
LEVEL = 2.534
"""val_bpb of the live project's sample log: the 1 % of the median rule is 1 % of this."""

KINDS = (Answer.APPROVE, Answer.REJECT, Answer.UNDECIDED)


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares of the trials by answer, and mean runs of each arm (history not counted)."""

    approve: float
    reject: float
    undecided: float
    candidate_runs: float
    incumbent_runs: float

    def __str__(self) -> str:
        return (
            f"{self.approve:7.2%} {self.reject:7.2%} {self.undecided:7.2%}"
            f" {self.candidate_runs:5.2f} {self.incumbent_runs:5.2f}"
        )


HEADER = "approve  reject undecid  cand   inc"


def play(
    incumbent: Floats,
    candidate: Floats,
    record_squares: Floats,
    record_df: float,
    history: int,
    policy: ComparisonPolicy,
) -> tuple[Ints, Ints, Ints]:
    """`decide` on many trials at once.

    incumbent (trials, runs) starts with the history; candidate (trials, max_candidate_runs);
    record_squares (trials,). Returns, each (trials,): index into KINDS, candidate runs used, incumbent runs
    used with history.
    """
    trials = len(candidate)
    looks = policy.looks(history, record_df)
    answer = np.full(trials, KINDS.index(Answer.UNDECIDED))
    used, used_incumbent = np.full(trials, looks[-1].candidate), np.full(trials, looks[-1].incumbent)
    live = np.ones(trials, dtype=bool)
    for at in looks:
        n, m = at.candidate, at.incumbent
        x, y, scale = incumbent[:, :m], candidate[:, :n], policy.scale(m, n)
        delta = (x[:, m - n :] - y).mean(axis=1) if policy.paired else x.mean(axis=1) - y.mean(axis=1)
        t = (delta - policy.margin) / scale
        theirs, df = x.var(axis=1) * m, m - 1
        noisier = np.zeros(trials, dtype=bool)
        if record_df and df:
            noisier = theirs / df > suspicion_ratio(df, record_df, policy.suspicion) * record_squares / record_df
        approve, reject = np.full(trials, at.alpha > 0), np.full(trials, at.beta > 0)
        bounds = [(theirs + record_squares, df + record_df, np.ones(trials, dtype=bool))]
        if not policy.paired:
            own = theirs + y.var(axis=1) * n
            bounds = [(own + record_squares, df + n - 1 + record_df, bounds[0][2]), (own, df + n - 1, noisier)]
        for squares, freedom, counts in bounds:
            if not counts.any():
                continue
            s = np.maximum(np.sqrt(squares / freedom), policy.resolution)
            if at.alpha:
                approve &= ~counts | (t / s - at.beyond / scale >= approval_point(freedom, at.alpha))
            if at.beta:
                reject &= ~counts | (t / s <= rejection_point(freedom, policy.effect / scale, at.beta))
        if policy.paired and at.alpha:
            approve &= _scatter(x, y, t, record_squares, record_df, noisier, at.alpha, policy)
        # A rejection is looked at again without what stands furthest: `look` itself is asked.
        odd = reject | _odd(x, y, record_squares, record_df) if policy.paired else _outlying(x)
        for k in np.flatnonzero(live & odd):
            said, _ = look(x[k].tolist(), y[k].tolist(), NoiseRecord(record_squares[k], record_df), policy, at)
            approve[k], reject[k] = said is Answer.APPROVE, said is Answer.REJECT
        for crossed, kind in ((approve & live, Answer.APPROVE), (reject & live & ~approve, Answer.REJECT)):
            answer[crossed], used[crossed], used_incumbent[crossed] = KINDS.index(kind), n, m
            live &= ~crossed
    return answer, used, used_incumbent


def _outlying(x: Floats) -> npt.NDArray[np.bool_]:
    """Where a run of the incumbent may stand apart for the worse: these ask `look` itself."""
    ordered = np.sort(x, axis=1)
    others = ordered[:, : x.shape[1] - x.shape[1] // 3]
    found: npt.NDArray[np.bool_] = ordered[:, -1] - np.median(others, axis=1) > 5.5 * others.std(axis=1)
    return found


def _odd(x: Floats, y: Floats, record_squares: Floats, record_df: float) -> npt.NDArray[np.bool_]:
    """Where a run of the incumbent, or a pair, may stand apart: these ask `look` itself."""
    m, n = x.shape[1], y.shape[1]
    sigma = np.sqrt((x.var(axis=1) * m + record_squares) / (m - 1 + record_df))
    found: npt.NDArray[np.bool_] = np.ptp(x[:, m - n :] - y, axis=1) > 5 * sigma
    if m > 2:
        place = np.abs(x - np.median(x, axis=1, keepdims=True)).argmax(axis=1)
        others = np.stack([np.delete(row, k) for row, k in zip(x, place, strict=True)])
        quiet = np.sqrt((others.var(axis=1) * (m - 1) + record_squares) / (m - 2 + record_df))
        found |= np.abs(x[np.arange(len(x)), place] - np.median(others, axis=1)) > 3.9 * quiet
    return found


def _scatter(
    x: Floats,
    y: Floats,
    t: Floats,
    record_squares: Floats,
    record_df: float,
    noisier: npt.NDArray[np.bool_],
    alpha: float,
    policy: ComparisonPolicy,
) -> npt.NDArray[np.bool_]:
    """Where the scatter of the pairs, or by Welch that of the candidate, lets the gain pass."""
    n, m = y.shape[1], x.shape[1]

    def deviation(squares: Floats, df: float) -> Floats:
        most: Floats = np.maximum(np.sqrt(squares / df), policy.resolution)
        return most

    pairs, theirs = deviation((x[:, m - n :] - y).var(axis=1) * n / 2, n - 1), x.var(axis=1) * m
    v = deviation(y.var(axis=1) * n, n - 1) ** 2
    w = np.maximum(deviation(theirs, m - 1), deviation(theirs + record_squares, m - 1 + record_df)) ** 2
    df = np.where(noisier, m - 1.0, m - 1 + record_df)
    freedom = np.floor(np.minimum((v + w) ** 2 / (v**2 / (n - 1) + w**2 / df), WELCH_FREEDOM * (n - 1)))
    points = {one: approval_point(float(one), alpha * WELCH_SHARE) for one in np.unique(freedom)}
    welch = t / np.sqrt((v + w) / 2) >= np.array([points[one] for one in freedom])
    found: npt.NDArray[np.bool_] = (t / pairs >= approval_point(n - 1.0, alpha * PAIRS_SHARE)) | welch
    return found


def simulate(
    rng: np.random.Generator,
    *,
    gain: float,
    sigma: float,
    policy: ComparisonPolicy,
    record_df: int,
    trials: int = TRIALS,
    history: int = 0,
    record_ratio: float = 1.0,
    candidate_ratio: float = 1.0,
    outliers: float = 0.0,
    shared: float = 0.0,
) -> Rates:
    """Independent trials of one scenario.

    gain: true delta beyond the margin, in sigma. record_ratio, candidate_ratio: sigma behind the noise record
    and of the candidate, over the incumbent's. outliers: share of runs of either arm that come out 10 sigma
    too high. shared: correlation of a pair's two runs.
    """
    runs = policy.looks(history, record_df)[-1].incumbent
    incumbent = LEVEL + sigma * rng.standard_normal((trials, runs))
    scatter = rng.standard_normal((trials, policy.max_candidate_runs))
    if shared:
        luck = (incumbent[:, -policy.max_candidate_runs :] - LEVEL) / sigma
        scatter = shared * luck + np.sqrt(1 - shared**2) * scatter
    candidate = LEVEL - policy.margin - gain * sigma + sigma * candidate_ratio * scatter
    for arm in (incumbent, candidate):
        arm += 10 * sigma * (rng.random(arm.shape) < outliers)
    squares = (record_ratio * sigma) ** 2 * (rng.chisquare(record_df, trials) if record_df else np.zeros(trials))
    answer, used, used_incumbent = play(incumbent, candidate, squares, record_df, history, policy)
    shares = [float((answer == i).mean()) for i in range(len(KINDS))]
    return Rates(shares[0], shares[1], shares[2], float(used.mean()), float(used_incumbent.mean()) - history)


@dataclass(frozen=True, slots=True)
class Session:
    """Means over mining sessions in which every candidate is a no-op."""

    kept_per_trial: float
    sessions_with_a_keep: float
    candidate_runs: float
    incumbent_runs: float


def mine_no_ops(
    rng: np.random.Generator, *, sigma: float, sessions: int = 10_000, trials: int = 30, window: int = 12
) -> Session:
    """Sessions from a first start: four incumbent runs and an empty noise record.

    A trial uses the incumbent's latest `window` runs as history and adds one. An ended candidate's runs
    enter the record; a kept candidate becomes the incumbent with its own runs as history and the old
    incumbent's runs enter the record, which never holds more than 20 degrees of freedom.
    """
    policy, cap = MiningPolicy(), 20
    history = np.full((sessions, window), np.nan)
    history[:, :4] = sigma * rng.standard_normal((sessions, 4))
    count, df, squares = np.full(sessions, 4), np.zeros(sessions, dtype=np.int64), np.zeros(sessions)
    keeps, spent, spent_incumbent = np.zeros(sessions, dtype=np.int64), 0, 0

    def pool(where: Ints, runs: Floats) -> None:
        """Add one group per session (where (k,), runs (k, n)) as NoiseRecord.update does."""
        new = runs.shape[1] - 1
        kept = np.minimum(1.0, (cap - new) / np.maximum(df[where], 1))
        squares[where] = squares[where] * kept + runs.var(axis=1) * runs.shape[1]
        df[where] = np.minimum(df[where] + new, cap)

    for _ in range(trials):
        states = np.unique(np.stack([df, count], axis=1), axis=0)
        groups = [(int(d), int(h), np.flatnonzero((df == d) & (count == h))) for d, h in states]
        for record_df, h, members in groups:
            fresh = policy.looks(h, record_df)[-1].incumbent - h
            before = history[members, :h]
            incumbent = np.hstack([before, sigma * rng.standard_normal((len(members), fresh))])
            candidate = sigma * rng.standard_normal((len(members), policy.max_candidate_runs))
            answer, used, used_incumbent = play(incumbent, candidate, squares[members], record_df, h, policy)
            spent, spent_incumbent = (
                spent + int(used.sum()),
                spent_incumbent + int(used_incumbent.sum()) - h * len(used),
            )
            kept = answer == KINDS.index(Answer.APPROVE)
            keeps[members] += kept
            for n, m, new in {*zip(used.tolist(), used_incumbent.tolist(), kept.tolist(), strict=True)}:
                rows = np.flatnonzero((used == n) & (used_incumbent == m) & (kept == new))
                where, runs, other = members[rows], incumbent[rows, :m], candidate[rows, :n]
                if new:
                    runs, other = other, runs
                if other.shape[1] > 1:
                    pool(where, other[:, -cap:])
                runs = runs[:, -window:]
                history[where, : runs.shape[1]], count[where] = runs, runs.shape[1]
    total = sessions * trials
    return Session(float(keeps.mean()) / trials, float((keeps > 0).mean()), spent / total, spent_incumbent / total)


_RESAMPLES = np.array(list(itertools.product(range(3), repeat=3)))


def bootstrap(rng: np.random.Generator, gain: float, sigma: float, quantile: float = 0.025) -> float:
    """Share kept by 3 runs against 3 when the exact bootstrap's lower `quantile` of delta is above 0."""
    kept = 0
    for _ in range(TRIALS // 2_000):
        x = sigma * rng.standard_normal((2_000, 3))
        y = sigma * rng.standard_normal((2_000, 3)) - gain * sigma
        deltas = (x[:, _RESAMPLES].mean(2)[:, :, None] - y[:, _RESAMPLES].mean(2)[:, None, :]).reshape(2_000, -1)
        rank = int(quantile * deltas.shape[1])
        kept += int((np.partition(deltas, rank, axis=1)[:, rank] > 0).sum())
    return kept / (TRIALS // 2_000 * 2_000)


def median_rule(rng: np.random.Generator, gain: float, sigma: float, level: float = LEVEL) -> float:
    """Share accepted when the median of 5 runs is 1 % below the median of the incumbent's 5."""
    x = level + sigma * rng.standard_normal((TRIALS, 5))
    y = level - gain * sigma + sigma * rng.standard_normal((TRIALS, 5))
    return float((np.median(y, axis=1) < 0.99 * np.median(x, axis=1)).mean())


def critical_values(
    rng: np.random.Generator, policy: ComparisonPolicy, record_df: int
) -> list[tuple[int, ...] | tuple[float, ...]]:
    """Per look: runs, df, both boundaries for T, and the share of trials that cross each at that look alone
    (approve under no gain, reject under a gain of effect·sigma) beside its nominal level."""
    rows: list[tuple[int, ...] | tuple[float, ...]] = []
    trials = 200_000
    for at in policy.looks(0, record_df):
        n, m = at.candidate, at.incumbent
        df, scale = m - 1 + record_df, policy.scale(m, n)
        upper, lower = approval_point(df, at.alpha), rejection_point(df, policy.effect / scale, at.beta)
        z, s = rng.standard_normal(trials), np.sqrt(rng.chisquare(df, trials) / df)
        rows.append(
            (
                n,
                m,
                df,
                lower,
                upper,
                at.alpha,
                float((z / s >= upper).mean()),
                at.beta,
                float(((z + policy.effect / scale) / s <= lower).mean()),
            )
        )
    return rows


def main() -> None:
    rng = np.random.default_rng(20_260_101)
    verify = ComparisonPolicy()
    print(f"{TRIALS:,} trials per row unless stated; gain in units of sigma; 95 % band of a 1 % rate: ±0.14 %.")

    print("\nCritical values for T; nominal and simulated error of each look alone")
    for record_df in (0, 3, 20):
        print(f" noise record df {record_df}, {incumbent_lead(record_df)} incumbents ahead")
        print("   n  m  df  reject≤ approve≥     a_n    sim.     b_n    sim.")
        for n, m, df, lower, upper, a, a_seen, b, b_seen in critical_values(rng, verify, record_df):
            levels = f"{a:7.3%} {a_seen:6.3%} {b:6.3%} {b_seen:6.3%}"
            print(f"  {n:2.0f} {m:2.0f} {df:3.0f} {lower:8.3f} {upper:8.3f} {levels}")

    modes: tuple[tuple[str, ComparisonPolicy, int, int], ...] = (
        ("verifier, first use (record df 0)", verify, 0, 0),
        ("verifier, 4 calibration runs (record df 3)", verify, 3, 0),
        ("verifier, record df 10", verify, 10, 0),
        ("verifier, record df 20 (full)", verify, 20, 0),
        ("mining, first trial (history 4, record df 0)", MiningPolicy(), 0, 4),
        ("mining, settled (history 10, record df 20)", MiningPolicy(), 20, 10),
        ("verifier, margin 0.01 bpb, record df 3, gains beyond the margin", ComparisonPolicy(margin=0.01), 3, 0),
    )
    for title, policy, record_df, history in modes:
        print(f"\n{title}\n sigma  gain  {HEADER}")
        for sigma, gain in itertools.product(SIGMAS, GAINS):
            rates = simulate(rng, gain=gain, sigma=sigma, policy=policy, record_df=record_df, history=history)
            print(f" {sigma:.3f}   {gain:.0f}s     {rates}")

    print("\nReferences: share kept (3v3: 3 + 3 runs; median: 5 + 5 runs), beside this test at record df 3")
    print(" sigma  gain  3v3 boot 95 %   median 1 %   sequential")
    for sigma, gain in itertools.product(SIGMAS, GAINS):
        ours = simulate(rng, gain=gain, sigma=sigma, policy=verify, record_df=3).approve
        boot, median = bootstrap(rng, gain, sigma), median_rule(rng, gain, sigma)
        print(f" {sigma:.3f}   {gain:.0f}s   {boot:13.2%} {median:12.2%} {ours:12.2%}")
    one_sided = bootstrap(rng, 0.0, 0.01, 0.05)
    print(f" bootstrap with a one-sided 95 % bound instead: {one_sided:.1%} of no-ops")
    shares = ", ".join(f"{median_rule(rng, 0.0, sigma, 1.0):.1%}" for sigma in SIGMAS)
    print(f" the median rule where val_bpb is 1.0 instead of {LEVEL}: {shares} of no-ops")

    print("\nMining sessions of 30 no-op trials from a first start (10,000 sessions)")
    print(" sigma  kept/trial  sessions with a keep  cand/trial  inc/trial")
    for sigma in SIGMAS:
        s = mine_no_ops(rng, sigma=sigma)
        print(
            f" {sigma:.3f} {s.kept_per_trial:10.2%} {s.sessions_with_a_keep:20.1%}"
            f" {s.candidate_runs:12.2f} {s.incumbent_runs:9.2f}"
        )

    print(f"\nWhen the assumptions fail (sigma = 0.01, verifier)              {HEADER}")
    unguarded = ComparisonPolicy(suspicion=1e-6)
    case = partial(simulate, rng, sigma=0.01)
    cases: list[tuple[str, partial[Rates]]] = []
    for df, ratio, policy in (
        (3, 0.25, verify),
        (3, 0.5, verify),
        (3, 2.0, verify),
        (20, 0.25, verify),
        (20, 0.25, unguarded),
        (20, 0.5, verify),
        (20, 0.5, unguarded),
        (20, 0.8, verify),
        (20, 1.25, verify),
        (20, 2.0, verify),
    ):
        title = f"record df {df:2d} says {ratio:g} sigma{'' if policy is verify else ', no guard'}"
        cases.append((title, partial(case, policy=policy, record_df=df, record_ratio=ratio)))
    for df, share in ((0, 0.05), (3, 0.05), (20, 0.05), (20, 0.10)):
        title = f"{share:.0%} of runs 10 sigma slow, record df {df}"
        cases.append((title, partial(case, policy=verify, record_df=df, outliers=share)))
    for df, ratio, policy in (
        (3, 2.0, verify),
        (20, 2.0, verify),
        (20, 4.0, verify),
        (20, 10.0, verify),
        (20, 10.0, ComparisonPolicy(first_approval=4)),
    ):
        rule = "" if policy is verify else ", ≥4 to approve"
        title = f"candidate's sigma is {ratio:g}x, record df {df}{rule}"
        cases.append((title, partial(case, policy=policy, record_df=df, candidate_ratio=ratio)))
    for (title, run), gain in itertools.product(cases, (0.0, 3.0)):
        print(f" {title:50s} {gain:.0f}s     {run(gain=gain)}")


if __name__ == "__main__":
    main()
