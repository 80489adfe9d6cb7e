"""The sequential test: its distributions, its decisions as a table, its error rates by simulation."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.benchmarks.bench_comparison import KINDS, bootstrap, median_rule, mine_no_ops, play, simulate
from trainer.machine.noise_file import load_noise, save_noise
from trainer.statistics.comparison import Answer, Arm, TrialSamples, calm, decide, look, schedule, steady
from trainer.statistics.distributions import approval_point, rejection_point, suspicion_ratio
from trainer.statistics.error_rates import ComparisonPolicy, Look
from trainer.statistics.mining import (
    EARNING_TRIALS,
    FRESH_ENOUGH,
    HISTORY_WINDOW,
    LEAST_DF,
    MiningPolicy,
    baseline_runs,
    lessons,
    usable_history,
    worth_of,
)
from trainer.statistics.noise import InvalidComparison, NoiseRecord

FULL = NoiseRecord(20 * 0.01**2, 20)  # a full record of sigma = 0.01
EMPTY = NoiseRecord()
POLICY = ComparisonPolicy()
MINING = MiningPolicy()


@pytest.mark.parametrize(
    ("df", "level", "expected"),
    [(1, 0.025, 12.7062), (2, 1e-4, 70.7001), (5, 0.01, 3.36493), (30, 0.001, 3.38518), (1e4, 0.05, 1.64501)],
)
def test_student_points_agree_with_tables(df: float, level: float, expected: float) -> None:
    assert approval_point(df, level) == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize(
    ("own", "record", "level", "expected"),
    [
        (1, 1, 0.1, 39.8635),
        (3, 10, 0.1, 2.72767),
        (4, 20, 0.05, 2.86608),
        (7, 3, 0.1, 5.26619),
        (5, 10, 0.01, 5.63633),
        (6, 20, 0.01, 3.87143),
    ],
)
def test_f_points_agree_with_tables(own: int, record: float, level: float, expected: float) -> None:
    assert suspicion_ratio(own, record, level) == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize(("df", "noncentrality", "level"), [(3, 3.0, 0.05), (7, 3.6, 0.006), (25, 4.0, 0.006)])
def test_rejection_points_hold_their_level(df: int, noncentrality: float, level: float) -> None:
    rng = np.random.default_rng(7)
    t = (rng.standard_normal(400_000) + noncentrality) / np.sqrt(rng.chisquare(df, 400_000) / df)
    share = float((t <= rejection_point(df, noncentrality, level)).mean())
    assert share == pytest.approx(level, abs=4 * math.sqrt(level / 400_000))


@pytest.mark.parametrize(
    ("policy", "approve", "reject"),
    [(POLICY, 0.01, 0.03), (MINING, 0.01, 0.25), (ComparisonPolicy(spending=1), 0.01, 0.03)],
)
def test_levels_sum_to_the_promised_error(policy: ComparisonPolicy, approve: float, reject: float) -> None:
    runs = range(60)
    assert sum(map(policy.approval_level, runs)) == pytest.approx(approve)
    assert sum(map(policy.rejection_level, runs)) == pytest.approx(reject)


FLAT = [1.0, 1.01, 0.99, 1.0]  # mean 1.0
LONG = [*FLAT, 1.0]
MORE = [*FLAT, 1.01, 0.99, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("incumbent", "candidate", "noise", "policy", "kind"),
    [
        # A clear gain, no gain, a loss, and too few runs of either arm.
        (LONG, [0.78, 0.781, 0.78], FULL, POLICY, Answer.APPROVE),
        (LONG, [0.95, 0.951], FULL, POLICY, Answer.CONTINUE),
        (FLAT, [1.0, 1.01], FULL, POLICY, Answer.REJECT),
        (FLAT, [1.05, 1.06], FULL, POLICY, Answer.REJECT),
        (FLAT, [0.9], FULL, POLICY, Answer.CONTINUE),
        (FLAT[:3], [0.9, 0.9], FULL, POLICY, Answer.CONTINUE),
        ([], [], FULL, POLICY, Answer.CONTINUE),
        # An empty record asks for more incumbents before it decides the same.
        (FLAT, [0.9, 0.9], EMPTY, POLICY, Answer.CONTINUE),
        (MORE, [0.85, 0.851, 0.85], EMPTY, POLICY, Answer.APPROVE),
        # Neither clear at the limit.
        (
            MORE,
            [0.982, 0.980, 0.984, 0.985, 0.986, 0.987],
            NoiseRecord(20 * 0.03**2, 20),
            POLICY,
            Answer.REJECT,
        ),
        (
            MORE,
            [0.90, 1.0, 0.91, 0.99, 0.90, 1.0, 0.90, 1.0, 0.90, 1.0, 0.90, 1.0],
            NoiseRecord(20 * 0.03**2, 20),
            POLICY,
            Answer.UNDECIDED,
        ),
        # The margin moves both boundaries.
        (LONG, [0.95, 0.951, 0.95], FULL, ComparisonPolicy(margin=0.03), Answer.CONTINUE),
        (LONG, [0.85, 0.851, 0.85], FULL, ComparisonPolicy(margin=0.01), Answer.APPROVE),
        (FLAT, [0.95, 0.96], FULL, ComparisonPolicy(margin=0.05), Answer.REJECT),
        # One candidate run may end a clear loser when mining, never a verification, and never approves.
        (MORE, [1.05], FULL, MINING, Answer.REJECT),
        (MORE, [1.05], FULL, POLICY, Answer.CONTINUE),
        # The trial is far louder than the record: the record's small sigma may not approve.
        ([1.0, 1.1, 0.9, 1.0], [0.85, 0.95], FULL, POLICY, Answer.CONTINUE),
        # A machine without noise: any gain above the resolution counts, equality does not.
        ([1.0] * 8, [0.9999] * 3, EMPTY, POLICY, Answer.APPROVE),
        ([1.0] * 8, [1.0, 1.0], EMPTY, POLICY, Answer.REJECT),
        # A candidate as good as that on average, but louder than the incumbent by far: its luck is no gain.
        (LONG, [0.90, 1.0, 0.95], FULL, POLICY, Answer.CONTINUE),
        (LONG, [0.80, 1.1, 1.1], FULL, POLICY, Answer.CONTINUE),  # nor does the worst alone reject
        (LONG, [1.05, 1.1, 1.1], FULL, POLICY, Answer.REJECT),
        # Three runs of a loud one that happen to lie close together do not show that it is quiet.
        ([1.02, 1.0, 0.98], [0.95, 0.951, 0.95], FULL, POLICY, Answer.CONTINUE),
        # One incumbent run that diverged, or two, rejects no gain: early, no rule leaves it out.
        ([1.0, 1.003, 1.6, 0.998, 1.0], [0.97, 0.968], EMPTY, POLICY, Answer.CONTINUE),
        ([1.6, 1.61, 1.003, 0.998, 1.0], [0.97, 0.968], EMPTY, POLICY, Answer.CONTINUE),
        ([1.0, 1.003, 1.6, 0.998, 1.0], [1.0, 1.005], EMPTY, POLICY, Answer.REJECT),
        # Several are left out at once: each hides how far the other stands.
        ([1.0, 1.003, 1.6, 0.998, 1.0, 1.65], [0.97, 0.968, 0.972], EMPTY, POLICY, Answer.CONTINUE),
        # A single pair that is left shows no scatter of a loud candidate.
        ([1.0, 1.003, 0.998, 1.6, 1.61, 1.001], [1.3, 1.2, 0.9], NoiseRecord(1e-5, 1.0), POLICY, Answer.CONTINUE),
        # One slow incumbent run makes no gain out of nothing.
        ([1.0, 1.01, 1.2, 1.0], [1.0, 1.0], FULL, POLICY, Answer.CONTINUE),
    ],
)
def test_decisions(
    incumbent: list[float], candidate: list[float], noise: NoiseRecord, policy: ComparisonPolicy, kind: Answer
) -> None:
    decision = decide(TrialSamples(incumbent, candidate), noise, policy)
    assert decision.kind is kind
    assert (decision.next_arm is None) == (kind is not Answer.CONTINUE)


@pytest.mark.parametrize(
    ("apart", "left_out"),
    [
        ((1.2, 1.21), [1, 4]),
        ((0.8, 0.81), []),  # else what is no better on the whole would win by an incumbent's unlucky runs
        ((0.8, 1.0), [1]),
        ((1.2, 1.0), [1]),
    ],
)
def test_several_incumbents_stand_apart_at_once_only_for_the_worse(
    apart: tuple[float, float], left_out: list[int]
) -> None:
    values = [1.0, apart[0], 1.001, 0.999, apart[1], 1.0, 1.002]
    assert [k for k in range(7) if k not in calm(values, EMPTY, POLICY)] == left_out


def test_evidence_says_what_decided() -> None:
    evidence = decide(TrialSamples([*LONG, 5.0], [0.78, 0.781, 0.78]), FULL, POLICY).evidence
    assert evidence is not None
    assert (evidence.incumbent_runs, evidence.candidate_runs, evidence.noisier) == (3, 3, False)
    assert evidence.delta == pytest.approx((1.0 + 1.01 + 0.99 - 0.78 - 0.781 - 0.78) / 3)
    assert (evidence.df, evidence.louder) == (4, True)  # three runs of the candidate say little of its own scatter
    assert 0 < evidence.low < evidence.delta < evidence.high
    assert evidence.p < POLICY.alpha
    assert evidence.confidence == 1 - evidence.p


def test_noisier_trial_is_flagged_and_judged_by_its_own_scatter() -> None:
    """Mining: by the trial's own runs without the record. A judge: by the pairs, whose scatter no record holds."""
    at = Look(4, 2, MINING.approval_level(2), MINING.rejection_level(2))
    _, quiet = look([1.0, 1.1, 0.9, 1.0], [0.85, 0.95], EMPTY, MINING, at)
    _, loud = look([1.0, 1.1, 0.9, 1.0], [0.85, 0.95], FULL, MINING, at)
    assert (loud.noisier, quiet.noisier) == (True, False)
    assert (loud.sigma, loud.df, loud.p) == (quiet.sigma, quiet.df, quiet.p)
    at = Look(5, 3, POLICY.approval_level(3), POLICY.rejection_level(3))
    _, paired = look([1.0, 1.0, 1.0, 1.0, 1.0], [0.80, 1.0, 0.9], FULL, POLICY, at)
    assert (paired.noisier, paired.louder) == (False, True)
    assert paired.low < 0


def test_what_both_runs_of_a_pair_share_cancels() -> None:
    """A drift far larger than the gain, or lucky salts: the pairs show the gain all the same."""
    drift = [1.0 + 0.02 * k for k in range(4)]
    candidate = [value - 0.08 for value in drift]
    record = NoiseRecord(20 * 0.02**2, 20)
    assert decide(TrialSamples(drift, candidate), record, POLICY).kind is Answer.APPROVE
    assert decide(TrialSamples(drift, drift), record, POLICY).kind is Answer.REJECT


def test_pairs_are_adjacent_and_in_random_order() -> None:
    orders = set()
    for seed in range(30):
        order = schedule(random.Random(seed), 0, POLICY.looks(0, 20.0), POLICY)
        assert order[0] is Arm.INCUMBENT
        pairs = [order[i : i + 2] for i in range(0, len(order), 2)]
        assert len(pairs) == POLICY.max_candidate_runs
        assert all(set(pair) == {*Arm} for pair in pairs)
        orders.add(order)
    assert len(orders) > 20


def test_a_paired_comparison_has_no_history() -> None:
    with pytest.raises(InvalidComparison, match="no history"):
        decide(TrialSamples([1.0], [], 1), FULL, POLICY)


values = st.floats(0.5, 3.0)
records = st.one_of(st.just(EMPTY), st.builds(NoiseRecord, st.floats(0, 0.1), st.floats(1, 20)))
policies = st.builds(MiningPolicy, refresh=st.integers(1, 2), margin=st.sampled_from([0.0, 0.01])) | st.builds(
    ComparisonPolicy,
    margin=st.sampled_from([0.0, 0.01]),
    max_candidate_runs=st.integers(3, 7),
    first_rejection=st.integers(1, 3),
    spending=st.sampled_from([0.7, 1.0, 1.5]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(values, max_size=14), st.lists(values, max_size=9), records, policies, st.integers(0, 8))
def test_decision_properties(
    incumbent: list[float], candidate: list[float], noise: NoiseRecord, policy: ComparisonPolicy, history: int
) -> None:
    history = 0 if policy.paired else min(history, len(incumbent))
    decision = decide(TrialSamples(incumbent, candidate, history), noise, policy)
    seen = decision.evidence
    if decision.kind is Answer.CONTINUE:
        needed = policy.looks(history, noise.df)[-1].incumbent
        assert decision.next_arm is not None
        assert len(candidate) < policy.max_candidate_runs or len(incumbent) < needed
        return
    assert seen is not None
    assert (decision.kind is Answer.APPROVE) <= (seen.low >= policy.margin - 1e-12 and seen.p <= policy.alpha + 1e-9)
    assert seen.low <= seen.delta <= seen.high
    # Runs after the stop change nothing, and a candidate lower still is approved all the more.
    more = TrialSamples([*incumbent, 1.0], [*candidate, 0.6], history)
    assert decide(more, noise, policy) == decision
    if decision.kind is Answer.APPROVE and seen.candidate_runs == policy.first_look:
        lower = TrialSamples(incumbent, [y - 0.1 for y in candidate], history)
        assert decide(lower, noise, policy).kind is Answer.APPROVE


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), records, policies, st.integers(0, 15))
def test_next_arm_follows_the_schedule_to_the_end(
    seed: int, noise: NoiseRecord, policy: ComparisonPolicy, history: int
) -> None:
    history = 0 if policy.paired else history
    looks = policy.looks(history, noise.df)
    order = schedule(random.Random(seed), history, looks, policy)
    assert order.count(Arm.CANDIDATE) == looks[-1].candidate == policy.max_candidate_runs
    assert order.count(Arm.INCUMBENT) + history == looks[-1].incumbent
    # Values that never decide: a gain halfway between the boundaries, and noise that keeps them apart.
    undecided = replace(policy, alpha=1e-6, beta=1e-6, spending=1.0)
    incumbent = [1.0 + 0.1 * (-1) ** i for i in range(history)]
    candidate: list[float] = []
    for arm in order:
        decision = decide(TrialSamples(incumbent, candidate, history), noise, undecided, seed=seed)
        if decision.kind is not Answer.CONTINUE:
            return
        assert decision.next_arm is arm
        soon = decision.ahead[: decision.wanted]
        then = (len(incumbent) + soon.count(Arm.INCUMBENT), len(candidate) + soon.count(Arm.CANDIDATE))
        assert soon
        assert then in [(at.incumbent, at.candidate) for at in looks]
        run = incumbent if arm is Arm.INCUMBENT else candidate
        run.append((1.0 if arm is Arm.INCUMBENT else 0.85) + (0.1 if len(run) % 2 == 0 else -0.1))
    assert decide(TrialSamples(incumbent, candidate, history), noise, undecided, seed=seed).next_arm is None


def test_schedules_interleave_and_differ() -> None:
    looks = POLICY.looks(0, 3)
    drawn = {schedule(random.Random(seed), 0, looks, POLICY) for seed in range(50)}
    assert len(drawn) > 25
    for order in drawn:
        first_look = looks[0].incumbent + looks[0].candidate
        assert order[:first_look].count(Arm.CANDIDATE) == 2
        assert {*order[:3]} | {*order[3:first_look]} == {*Arm}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.0, -1.0, 1e5, True, "1.0", None])
def test_bad_samples_are_refused(bad: Any) -> None:
    for incumbent, candidate in (([1.0, bad], [1.0]), ([1.0], [bad])):
        with pytest.raises(InvalidComparison, match="finite positive"):
            TrialSamples(incumbent, candidate)
    with pytest.raises(InvalidComparison):
        EMPTY.update([[1.0, bad]])


def test_bounds_of_samples() -> None:
    with pytest.raises(InvalidComparison, match="history"):
        TrialSamples([1.0], [], history=2)
    with pytest.raises(InvalidComparison, match="Too many"):
        TrialSamples([1.0] * 1001, [])


@pytest.mark.parametrize(
    "fields",
    [
        {"alpha": 0.0},
        {"alpha": math.nan},
        {"beta": 0.5},
        {"margin": -0.1},
        {"margin": math.inf},
        {"effect": 0.0},
        {"effect": 100.5},
        {"max_candidate_runs": 1},
        {"max_candidate_runs": 2.5},
        {"first_approval": 1},
        {"first_rejection": 13},
        {"spending": 0.0},
    ],
)
def test_bad_policies_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidComparison, match=next(iter(fields))):
        ComparisonPolicy(**fields)


def test_noise_record_pools_within_groups() -> None:
    record = EMPTY.update([[1.0, 1.02], [2.0, 2.01, 1.99], [3.0]])
    assert record.df == 3
    assert record.sum_squares == pytest.approx(0.0002 + 0.0002)
    assert record.sigma == pytest.approx(math.sqrt(0.0004 / 3))
    assert EMPTY.sigma is None
    assert EMPTY.update([[1.0]]) == EMPTY


def test_noise_record_forgets() -> None:
    loud = EMPTY.update([[1.0 + 0.1 * (-1) ** i for i in range(21)]])
    assert loud.df == 20
    quiet = loud
    for _ in range(60):
        quiet = quiet.update([[1.0, 1.001]])
        assert quiet.df == pytest.approx(20)
    assert loud.sigma == pytest.approx(0.1, rel=0.05)
    assert quiet.sigma is not None
    assert quiet.sigma < 0.025
    assert loud.update([[1.0] * 40]) == NoiseRecord(0.0, 20.0)


@settings(deadline=None)
@given(st.lists(st.lists(values, min_size=1, max_size=6), max_size=8), st.floats(1, 50))
def test_noise_record_stays_valid_and_survives_json(groups: list[list[float]], cap: float) -> None:
    record = EMPTY
    for group in groups:
        record = record.update([group], cap)
        assert record.df <= cap * (1 + 1e-12)
    assert NoiseRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"df": 3},
        {"sum_squares": 1.0, "df": 3, "more": 1},
        {"sum_squares": -1.0, "df": 3},
        {"sum_squares": math.nan, "df": 3},
        {"sum_squares": 1.0, "df": math.inf},
        {"sum_squares": 1.0, "df": 0},
        {"sum_squares": 1.0, "df": 0.5},
        {"sum_squares": True, "df": 3},
        {"sum_squares": "1", "df": 3},
    ],
)
def test_bad_records_are_refused(data: object) -> None:
    with pytest.raises(InvalidComparison):
        NoiseRecord.from_json(data)


def test_noise_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "noise.json"
    assert load_noise(path) == {}
    save_noise(path, {"a/b": FULL, "c": EMPTY})
    assert load_noise(path) == {"a/b": FULL, "c": EMPTY}
    assert [entry.name for entry in path.parent.iterdir()] == ["noise.json"]
    for bad in (
        b"{",
        b"[]",
        b'{"a": 1}',
        b"\xff",
        b"[" * 100_000,
        b" " * (1 << 19),
        b'{"a": {"df": NaN, "sum_squares": 1}}',
    ):
        path.write_bytes(bad)
        with pytest.raises(InvalidComparison) as caught:
            load_noise(path)
        assert caught.value.cure.startswith("Delete")


@pytest.mark.parametrize(
    ("policy", "df", "history"),
    [(POLICY, 0, 0), (POLICY, 3, 0), (ComparisonPolicy(margin=0.01), 20, 0), (MINING, 10, 7)],
)
def test_simulation_and_decide_agree(policy: ComparisonPolicy, df: int, history: int) -> None:
    rng = np.random.default_rng(11)
    trials = 60
    runs = policy.looks(history, df)[-1].incumbent
    incumbent = 2.0 + 0.02 * rng.standard_normal((trials, runs))
    shift = policy.margin + 0.02 * rng.choice([0.0, 1.0, 2.0, 3.0], (trials, 1))
    candidate = 2.0 - shift + 0.03 * rng.standard_normal((trials, policy.max_candidate_runs))
    squares = 0.01**2 * rng.chisquare(df, trials) if df else np.zeros(trials)
    answers, used, used_incumbent = play(incumbent, candidate, squares, df, history, policy)
    for i in range(trials):
        samples = TrialSamples(incumbent[i].tolist(), candidate[i].tolist(), history)
        decision = decide(samples, NoiseRecord(float(squares[i]), df), policy)
        assert decision.kind is KINDS[answers[i]]
        assert decision.evidence is not None
        assert (decision.evidence.candidate_runs, decision.evidence.incumbent_runs) == (
            used[i],
            used_incumbent[i],
        )


def binomial_slack(rate: float, trials: int) -> float:
    return 3.5 * math.sqrt(rate * (1 - rate) / trials)


@pytest.mark.parametrize(
    ("policy", "df", "history", "sigma"),
    [(POLICY, 0, 0, 0.03), (POLICY, 3, 0, 0.005), (POLICY, 20, 0, 0.03), (MINING, 20, 10, 0.005)],
)
def test_error_rates(policy: ComparisonPolicy, df: int, history: int, sigma: float) -> None:
    rng, trials = np.random.default_rng(2026), 1_000
    shared = 0.72 if policy.paired else 0.0  # the share of the seed's luck in the smoke project's noise
    idle, better = (
        simulate(
            rng, gain=gain, sigma=sigma, policy=policy, record_df=df, history=history, trials=trials, shared=shared
        )
        for gain in (0.0, 3.0)
    )
    assert idle.approve <= 0.01 + binomial_slack(0.01, trials)
    assert better.approve >= (0.95 if history else 0.94) - binomial_slack(0.95, trials)
    assert better.reject <= policy.beta + binomial_slack(policy.beta, trials)
    assert idle.candidate_runs < (3 if df else 3.2)
    assert better.candidate_runs < 6


def test_a_record_that_is_too_quiet_or_outliers_do_not_open_the_gate() -> None:
    """Where runs are paired their own scatter holds it too; a mining trial has the suspicion alone."""
    rng, open_gate = np.random.default_rng(3), replace(MINING, suspicion=1e-6)
    quiet, without = (
        simulate(rng, gain=0, sigma=0.01, policy=policy, record_df=20, history=10, record_ratio=0.25, trials=2_000)
        for policy in (MINING, open_gate)
    )
    assert quiet.approve < 0.01
    assert without.approve > 0.03
    assert simulate(rng, gain=0, sigma=0.01, policy=POLICY, record_df=20, record_ratio=0.25, trials=600).approve < 0.01
    assert simulate(rng, gain=0, sigma=0.01, policy=POLICY, record_df=20, outliers=0.1, trials=600).approve < 0.01


def test_references_behave_as_reported() -> None:
    rng = np.random.default_rng(5)
    assert bootstrap(rng, 0.0, 0.01) == pytest.approx(0.1, abs=0.02)
    assert median_rule(rng, 0.0, 0.02) == pytest.approx(0.045, abs=0.008)
    assert median_rule(rng, 0.0, 0.03) == pytest.approx(0.13, abs=0.012)


def test_a_mining_session_keeps_no_noise() -> None:
    session = mine_no_ops(np.random.default_rng(8), sigma=0.01, sessions=150, trials=12)
    assert session.kept_per_trial < 0.01 + binomial_slack(0.01, 1800)
    assert session.candidate_runs < 2


def test_history_lets_the_runs_go_that_an_incumbent_was_kept_by() -> None:
    kept, fresh = [0.9, 0.91], [1.0, 1.01, 1.02, 1.03]
    assert usable_history(kept, []) == kept
    assert usable_history(kept, fresh[: FRESH_ENOUGH - 1]) == [*kept, *fresh[: FRESH_ENOUGH - 1]]
    assert usable_history(kept, fresh[:FRESH_ENOUGH]) == fresh[:FRESH_ENOUGH]
    many = [1.0 + i / 1000 for i in range(50)]
    assert usable_history(kept, many) == many[-HISTORY_WINDOW:]
    assert len(usable_history(many, fresh[:1])) == HISTORY_WINDOW


@given(
    history=st.integers(0, 40),
    df=st.sampled_from([0.0, 1.0, 3.0, 20.0]),
    stale=st.booleans(),
    first_approval=st.integers(1, 3),
)
def test_the_looks_of_a_mining_trial(history: int, df: float, stale: bool, first_approval: int) -> None:
    policy = MiningPolicy(early_refresh=int(stale), first_approval=first_approval)
    looks = policy.looks(history, df)
    runs = [(at.incumbent, at.candidate) for at in looks]
    assert runs == sorted(set(runs))  # each sees more than the one before
    assert looks[0].incumbent >= history + stale
    # nothing is kept without a fresh run but what no drift could be
    assert all(at.incumbent > history or at.beyond == policy.obvious for at in looks if at.alpha)
    assert all(df + at.incumbent - 1 >= LEAST_DF for at in looks)
    # Bonferroni: the levels of all looks sum to alpha
    assert sum(at.alpha for at in looks) == pytest.approx(policy.alpha)


RECENT = [1.0, 1.01, 0.99, 1.0, 1.0]


@pytest.mark.parametrize(
    ("fresh", "candidate", "policy", "kind", "spared", "next_arm"),
    [
        ([], [], MINING, Answer.CONTINUE, False, Arm.CANDIDATE),
        # One run of the candidate ends what is worse or the same, and one fresh run keeps a gain of many sigma.
        ([], [1.05], MINING, Answer.REJECT, False, None),
        ([], [1.0], MINING, Answer.REJECT, False, None),
        ([], [0.9], MINING, Answer.CONTINUE, False, Arm.INCUMBENT),
        ([1.0], [0.9], MINING, Answer.APPROVE, False, None),
        ([], [0.7], MINING, Answer.APPROVE, False, None),  # no drift of the machine is that large
        ([0.92], [0.9], MINING, Answer.CONTINUE, False, Arm.CANDIDATE),  # the machine has changed, not the code
        ([1.0], [0.97], MINING, Answer.CONTINUE, False, Arm.CANDIDATE),
        ([1.0], [0.97, 0.97], MINING, Answer.APPROVE, False, None),
        # What a further run must promise: this gain would take three runs
        ([], [0.97], MiningPolicy(worth=0.002), Answer.CONTINUE, False, Arm.INCUMBENT),
        ([], [0.97], MiningPolicy(worth=0.02), Answer.REJECT, True, None),
        ([], [0.9], MiningPolicy(worth=0.02), Answer.CONTINUE, False, Arm.INCUMBENT),
        ([], [0.9], MiningPolicy(worth=0.2), Answer.REJECT, True, None),
        # With an old history the fresh run comes with the candidate's.
        ([], [1.05], MiningPolicy(early_refresh=1), Answer.CONTINUE, False, Arm.INCUMBENT),
        ([1.0], [1.05], MiningPolicy(early_refresh=1), Answer.REJECT, False, None),
    ],
)
def test_mining_decisions(
    fresh: list[float],
    candidate: list[float],
    policy: ComparisonPolicy,
    kind: Answer,
    spared: bool,
    next_arm: Arm | None,
) -> None:
    decision = decide(TrialSamples([*RECENT, *fresh], candidate, len(RECENT)), FULL, policy)
    assert (decision.kind, decision.spared, decision.next_arm) == (kind, spared, next_arm)


DIVERGED = (1.052, 0.891, 0.914, 0.903, 0.901, 0.897)  # upstream's train.py, unchanged, on two H200s


@pytest.mark.parametrize(
    ("values", "df", "left"),
    [
        (DIVERGED, 0.0, DIVERGED[1:]),
        (DIVERGED[:4], 0.0, DIVERGED[:4]),  # three others cannot say how far apart is too far
        (DIVERGED[:4], 20.0, DIVERGED[:4]),
        (DIVERGED[:5], 20.0, DIVERGED[1:5]),  # with an old record, four can
        ((0.7, *DIVERGED[1:]), 0.0, (0.7, *DIVERGED[1:])),  # better than the others: it may be what the code can do
        ((1.2, 1.1, *DIVERGED[1:]), 0.0, DIVERGED[1:]),
        ((0.9,), 20.0, (0.9,)),
    ],
)
def test_runs_of_the_incumbent_that_stand_apart_for_the_worse_are_left_out(
    values: tuple[float, ...], df: float, left: tuple[float, ...]
) -> None:
    record = NoiseRecord(df * 0.007**2, df)
    assert steady(values, record, MiningPolicy()) == list(left)


def test_a_run_that_diverged_hides_no_gain() -> None:
    """Seven times sigma, after six runs of the incumbent of which one went wrong."""
    gained = TrialSamples(DIVERGED, [0.840, 0.846], 5)
    found = decide(gained, NoiseRecord(), MiningPolicy())
    assert found.kind is Answer.APPROVE
    assert found.evidence is not None
    assert found.evidence.delta == pytest.approx(0.0582, abs=0.001)


@pytest.mark.parametrize(
    ("candidate", "kept", "taught"),
    [
        ((0.84, 0.85), False, [(0.84, 0.85)]),
        ((0.84, 0.85), True, [(0.84, 0.85), DIVERGED[1:]]),
        ((0.84, 1.10), False, []),  # its training went wrong, which says nothing of the machine
        ((0.84, 1.10, 0.85), True, [DIVERGED[1:]]),
        ((0.84, 0.89), False, [(0.84, 0.89)]),  # four times the noise of one run: it may be chance
        ((), False, [()]),
    ],
)
def test_what_a_trial_teaches_of_the_noise(
    candidate: tuple[float, ...], kept: bool, taught: list[tuple[float, ...]]
) -> None:
    found = lessons(candidate, DIVERGED, kept, NoiseRecord(), MiningPolicy())
    assert found == [list(group) for group in taught]


@pytest.mark.parametrize(
    ("values", "runs"), [((), 3), ((0.9,), 3), ((0.90, 0.91, 0.89), 3), (DIVERGED[:3], 6), (DIVERGED, 6)]
)
def test_a_baseline_that_scatters_gets_more_runs(values: tuple[float, ...], runs: int) -> None:
    assert baseline_runs(values) == runs


def test_a_first_trial_waits_until_the_noise_is_known() -> None:
    for history in ([], [1.0, 1.01, 0.99]):
        fresh = [1.0] * (4 - len(history))
        begun = decide(TrialSamples(history, [0.5], len(history)), EMPTY, MINING)
        assert (begun.kind, begun.next_arm) == (Answer.CONTINUE, Arm.INCUMBENT)
        assert decide(TrialSamples([*history, *fresh], [1.5], len(history)), EMPTY, MINING).kind is Answer.REJECT
    with pytest.raises(ValueError, match="no noise record"):
        look([1.0], [1.0], EMPTY, MINING, Look(1, 1, 0.01, 0.1))


@pytest.mark.parametrize(
    ("trials", "worth"),
    [
        ([], 0.0),
        ([(3, 0.0)], 0.0),
        ([(1, 0.0), (1, 0.0), (2, 0.04)], 0.005),
        ([(4, -0.04)], 0.0),
        ([(1, 9.0), *[(1, 0.01)] * EARNING_TRIALS], 0.005),  # what was earned long ago says nothing
    ],
)
def test_what_a_run_must_promise(trials: list[tuple[int, float]], worth: float) -> None:
    assert worth_of(trials) == pytest.approx(worth)


@pytest.mark.parametrize(
    "fields",
    [
        {"glance": 0.0},
        {"refresh": 51},
        {"refresh": 1, "early_refresh": 2},
        {"obvious": -1.0},
        {"worth": -1.0},
        {"worth": math.nan},
        {"first_rejection": 2},
    ],
)
def test_bad_mining_policies_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidComparison, match=next(iter(fields))):
        MiningPolicy(**fields)


@pytest.mark.parametrize("at", [*POLICY.looks(0, 20.0), Look(8, 6, 0.0, 0.01)])
def test_interval_and_p_are_at_the_level_of_the_look(at: Look) -> None:
    """Where nothing can be approved, the strictest level there is: what is shown never looks surer than it is."""
    level = at.alpha or POLICY.approval_level(POLICY.first_approval)
    incumbent, candidate = [1.0] * at.incumbent, [0.96] * at.candidate
    _, seen = look(incumbent, candidate, FULL, POLICY, at)
    scale = seen.sigma * seen.scale
    assert seen.low == pytest.approx(seen.delta - approval_point(seen.df, level) * scale)
    assert seen.high == pytest.approx(seen.delta + approval_point(seen.df, level) * scale)
    # p is the alpha of all looks together at which this one would just approve
    at_its_p = approval_point(seen.df, seen.p * level / POLICY.alpha)
    assert seen.delta / scale == pytest.approx(at_its_p, rel=1e-6)


@pytest.mark.parametrize("ratio", [4.0, 10.0])
def test_a_louder_candidate_is_not_approved_for_its_scatter(ratio: float) -> None:
    """Without the guard 27 and 52 % of no-ops were; figures: bench_comparison."""
    rng, trials = np.random.default_rng(6), 300
    for df in (0, 20):
        found = simulate(rng, gain=0, sigma=0.01, policy=POLICY, record_df=df, candidate_ratio=ratio, trials=trials)
        assert found.approve <= 0.02 + binomial_slack(0.02, trials)


def test_only_the_incumbents_runs_say_that_the_machine_is_loud() -> None:
    """A script that prints garbage when it is unlucky must not turn its rejection into a release."""
    at = POLICY.looks(0, 20.0)[0]
    _, garbage = look(LONG[: at.incumbent], [0.5, 2.0], FULL, POLICY, at)
    assert (garbage.noisier, garbage.louder) == (False, True)
    _, machine = look([1.0, 1.2, 0.8, 1.1], [1.0, 1.0], FULL, POLICY, at)
    assert machine.noisier


OUTLYING = NoiseRecord(20 * 0.01**2, 20.0)


@pytest.mark.parametrize(
    ("pairs", "kind"),
    [
        ((0.03, -0.1), Answer.CONTINUE),  # a gain of three sigma, and a run that something delayed
        ((0.03, 0.03, -0.1), Answer.CONTINUE),
        ((0.03, -0.1, -0.1), Answer.CONTINUE),  # two such runs
        ((0.0, -0.02), Answer.REJECT),
        ((-0.1, -0.1), Answer.REJECT),  # nothing stands apart
        ((0.0, 0.0), Answer.REJECT),
        ((0.0, 0.0, -0.1), Answer.REJECT),  # the others reject as well
        ((0.04, 0.04, 0.04, 0.04, 0.04, -0.1, -0.1, 0.04, 0.04, 0.04, 0.04, 0.04), Answer.APPROVE),
    ],
)
def test_bad_runs_of_the_candidate_reject_nobody(pairs: tuple[float, ...], kind: Answer) -> None:
    incumbent = [2.5, 2.51, 2.49, 2.5, 2.5, 2.5, 2.51, 2.5, 2.5, 2.49, 2.5, 2.5][: len(pairs)]
    candidate = [i - gain for i, gain in zip(incumbent, pairs, strict=True)]
    assert decide(TrialSamples(incumbent, candidate), OUTLYING, POLICY).kind is kind


def test_a_pair_whose_incumbent_run_stands_apart_says_nothing() -> None:
    """A slow run of the incumbent neither makes a gain nor hides one."""
    at = POLICY.looks(0, OUTLYING.df)[2]
    quiet, slow = [2.5, 2.51, 2.49, 2.5], [2.5, 2.7, 2.49, 2.5]
    candidate = [2.5, 2.4, 2.48, 2.5]
    kind, seen = look(slow, candidate, OUTLYING, POLICY, at)
    assert seen.delta == pytest.approx((0.0 + 0.01 + 0.0) / 3)
    assert seen.scale == pytest.approx(math.sqrt(2 / 3))
    assert not seen.noisier
    assert kind is Answer.REJECT
    assert look(quiet, candidate, OUTLYING, POLICY, at)[1].delta == pytest.approx((0.0 + 0.11 + 0.01 + 0.0) / 4)
