"""What is judged from runs, as tables, and what stops a replay before there are any."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.connection.opening import Connection
from chain.money.score import Convention
from tests import local
from tests.verifier.cases import NOISE, failing, replay_run, runs
from trainer.judging.replay import (
    Budget,
    Fresh,
    Outcome,
    ReplayRun,
    allowed_seconds,
    compared,
    fresh_outcome,
    suggested,
    values,
)
from trainer.project.source import SourceCaps
from trainer.statistics.comparison import Arm
from trainer.statistics.noise import NoiseRecord
from verifier.intake import open_case
from verifier.policy import Policy
from verifier.replay import Judged, judge, machine_findings, run_findings
from verifier.verdict import Fault, Finding, Kind, Reason, decide

RULES = Policy()
REFLECTED = Convention("reflected", 2_500_000)


def trained(arm: str, seconds: float | None) -> ReplayRun:
    return replay_run(arm, 2.5, train_seconds=seconds)


# --- the budget ---


@pytest.mark.parametrize(
    ("incumbent", "budget", "policy", "allowed"),
    [
        ([6.0], 6, Budget(), 8.0),  # no overhead: the budget and 2 s
        ([6.5, 7.25, 6.1], 6, Budget(), 9.25),  # its slowest run's overhead
        ([5.0], 6, Budget(), 8.0),  # a fast incumbent takes nothing away
        ([300.0], 300, Budget(), 309.0),  # 3 % of a long budget
        ([310.0], 300, Budget(grace_seconds=1, grace_share=0), 311.0),
        ([], 6, Budget(), None),
        ([None], 6, Budget(), None),
    ],
)
def test_allowed_seconds(incumbent: list[float | None], budget: float, policy: Budget, allowed: float | None) -> None:
    found = [trained("incumbent", seconds) for seconds in incumbent] + [trained("candidate", 999.0)]
    assert allowed_seconds(found, budget, policy) == (None if allowed is None else pytest.approx(allowed))


# --- findings of runs ---


@pytest.mark.parametrize(
    ("measured", "found"),
    [
        ([], []),
        ([replay_run("incumbent", 2.5), replay_run("candidate", 2.4)], []),
        ([failing("candidate", "crash")], [(Reason.CRASH, Fault.RUN)]),
        (
            [failing("candidate", "crash"), failing("candidate", "non_causal")],
            [(Reason.CRASH, Fault.RUN), (Reason.NON_CAUSAL, Fault.RUN)],
        ),
        ([failing("candidate", "host")], [(Reason.NOT_READY, Fault.HOST)]),
        ([failing("candidate", "something_new")], [(Reason.CRASH, Fault.RUN)]),
        # one bad run of the incumbent may happen, two may not, and a broken proof never
        ([failing("incumbent", "crash")], []),
        ([failing("incumbent", "crash")] * 2, [(Reason.INCUMBENT_FAILS, Fault.HOST)]),
        ([failing("incumbent", "non_causal")], [(Reason.INCUMBENT_FAILS, Fault.HOST)]),
        ([failing("incumbent", "host")] * 2, [(Reason.INCUMBENT_FAILS, Fault.HOST)]),
        (
            [failing("incumbent", "crash")] * 2 + [failing("candidate", "crash")],
            [(Reason.INCUMBENT_FAILS, Fault.HOST), (Reason.CRASH, Fault.RUN)],
        ),
        # the time budget is measured by the incumbent
        ([trained("incumbent", 6.5), trained("candidate", 8.4)], []),
        ([trained("incumbent", 6.5), trained("candidate", 8.6)], [(Reason.OVER_BUDGET, Fault.RUN)]),
        ([trained("incumbent", 8.0), trained("candidate", 8.6)], []),
        ([trained("candidate", 60.0)], []),  # nothing to go by
        ([trained("incumbent", 6.5), trained("candidate", None)], []),
    ],
)
def test_run_findings(measured: list[ReplayRun], found: list[tuple[Reason, Fault]]) -> None:
    assert [(f.reason, f.fault) for f in run_findings(measured, 6.0, Budget())] == found


@pytest.mark.parametrize(
    "failure",
    [
        "crash",
        "no_evaluation",
        "over_budget",
        "over_resources",
        "non_causal",
        "non_finite",
        "bad_output",
        "not_exportable",
    ],
)
def test_every_failure_has_its_reason(failure: str) -> None:
    (finding,) = run_findings([failing("candidate", failure, "Why.")], 6.0, Budget())
    assert (finding.reason.value, finding.detail) == (failure, "Why.")


# --- the machine ---


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with Connection("embedded", local.home_with_project(tmp_path)) as connection:
        yield connection


def test_machine_findings(connection: Connection) -> None:
    case = open_case(connection, local.propose(connection), SourceCaps())
    same = replace(case, miner_class="cpu-x-2c", miner_data="ab" * 32)

    def reasons(changed: Any, policy: Policy = RULES) -> list[Reason]:
        found = machine_findings(changed, "cpu-x-2c", "ab" * 32, policy)
        assert all(finding.fault is Fault.HOST for finding in found)
        return [finding.reason for finding in found]

    assert reasons(same) == []
    assert reasons(replace(same, miner_data="")) == []
    assert reasons(replace(same, miner_class="apple-m4-max-40c")) == [Reason.HARDWARE_DIFFERS]
    assert reasons(replace(same, miner_class="")) == [Reason.HARDWARE_DIFFERS]
    assert reasons(replace(same, miner_data="cd" * 32)) == [Reason.DATA_DIFFERS]
    assert reasons(replace(same, miner_class="", miner_data="x")) == [Reason.HARDWARE_DIFFERS, Reason.DATA_DIFFERS]
    assert reasons(replace(same, miner_class="", miner_data="x"), Policy(same_hardware=False)) == []
    assert reasons(replace(same, proposal=None, miner_class="")) == []
    # what a miner writes there is shown, but not at any length
    (finding,) = machine_findings(replace(same, miner_class="x" * 10_000), "cpu-x-2c", "ab" * 32, Policy())
    assert len(finding.detail) < 300


# --- the comparison ---


@pytest.mark.parametrize(
    ("gain", "outcome"),
    [(0.1, Outcome.BETTER), (0.0, Outcome.NOT_BETTER), (-0.3, Outcome.NOT_BETTER)],
)
def test_compared(gain: float, outcome: Outcome) -> None:
    found, evidence = compared(runs(gain), NOISE, RULES.comparison, 1, RULES.suggestive)
    assert found is outcome
    assert evidence is not None
    assert evidence.delta == pytest.approx(gain, abs=0.03)


@pytest.mark.parametrize(
    ("measured", "outcome"),
    [
        ([], Outcome.MISSING),
        ([replay_run("incumbent", 2.5)], Outcome.MISSING),
        ([replay_run("candidate", 2.3)], Outcome.MISSING),
        ([replay_run("incumbent", 2.5), replay_run("candidate", 2.3)], Outcome.MISSING),  # too few to look
        ([replay_run("incumbent", 2.5)] * 6 + [failing("candidate", "crash")] * 2, Outcome.MISSING),
    ],
)
def test_without_enough_runs_nothing_is_said(measured: list[ReplayRun], outcome: Outcome) -> None:
    assert compared(measured, NOISE, RULES.comparison, 1, RULES.suggestive)[0] is outcome


def test_louder_runs_than_the_record_knows_release() -> None:
    """No better, but by runs far louder than this machine's record: that may hide a gain."""
    loud = [
        replay_run(arm, value)
        for value in (2.2, 2.8, 2.1, 2.9, 2.5, 2.5, 2.2, 2.8)
        for arm in ("incumbent", "candidate")
    ]
    outcome, evidence = compared(loud, NOISE, RULES.comparison, 1, RULES.suggestive)
    assert evidence is not None
    assert evidence.noisier
    assert outcome is Outcome.UNDECIDED


def test_a_gain_that_is_suggested_releases() -> None:
    """Too small for this machine to show, too large to be called none: nobody is slashed for it."""
    exact = [
        replay_run(arm, 2.5 - 0.010 * (arm == "candidate")) for _ in range(8) for arm in ("incumbent", "candidate")
    ]
    outcome, evidence = compared(exact, NOISE, RULES.comparison, 1, 0.2)
    assert evidence is not None
    assert not evidence.noisier
    assert suggested(evidence, 0.2)
    assert not suggested(evidence, 1e-4)
    assert outcome is Outcome.UNDECIDED
    assert compared(exact, NOISE, RULES.comparison, 1, 1e-4)[0] is Outcome.NOT_BETTER


def test_values() -> None:
    measured = [replay_run("incumbent", 1.0, 2.0), failing("incumbent", "crash"), replay_run("candidate", 3.0, None)]
    assert values(measured, Arm.INCUMBENT) == [1.0]
    assert values(measured, Arm.INCUMBENT, on_fresh=True) == [2.0]
    assert values(measured, Arm.CANDIDATE, on_fresh=True) == []


# --- fresh text ---


@pytest.mark.parametrize(
    ("gain", "fresh_gain", "outcome"),
    [
        (0.2, 0.2, Outcome.BETTER),
        (0.2, 0.12, Outcome.BETTER),  # smaller, but there
        (0.2, 0.05, Outcome.UNDECIDED),  # there, but too small: memorised, or text that is not like the validation text
        (0.2, -0.02, Outcome.NOT_BETTER),
        (0.2, -0.1, Outcome.NOT_BETTER),
        (0.02, -0.01, Outcome.UNDECIDED),  # neither shown to hold nor to have vanished
    ],
)
def test_fresh_outcome(gain: float, fresh_gain: float, outcome: Outcome) -> None:
    found = fresh_outcome(runs(gain, fresh_gain, count=3), gain, NOISE, Fresh())
    assert found is not None
    assert found.outcome is outcome
    assert found.low < found.delta < found.high


def test_without_fresh_values_there_is_no_answer() -> None:
    bare = [replace(run, fresh_bpb=None) for run in runs(0.2)]
    assert fresh_outcome(bare, 0.2, NOISE, Fresh()) is None
    only = [run if run.arm == "incumbent" else replace(run, fresh_bpb=None) for run in runs(0.2)]
    assert fresh_outcome(only, 0.2, NOISE, Fresh()) is None
    # two values and no record: no degree of freedom is left
    assert fresh_outcome(runs(0.2, count=1), 0.2, NoiseRecord(), Fresh()) is None


# --- judging ---


def judged(measured: Any, *findings: Finding, **changes: Any) -> Judged:
    given: dict[str, Any] = {
        "noise": NOISE,
        "seed": 1,
        "budget_seconds": 6.0,
        "method": "trusted",
        "best_score": 2_500_000,
        "convention": REFLECTED,
        "policy": Policy(),
        **changes,
    }
    return judge(findings, measured, **given)


def verdict(found: Judged) -> tuple[Kind, Reason]:
    said = decide(found.evidence, Policy().verdict)
    return said.kind, said.reason


@pytest.mark.parametrize(
    ("measured", "kind", "reason"),
    [
        (runs(0.2), Kind.APPROVE, Reason.IMPROVED),
        (runs(0.0), Kind.REJECT, Reason.NO_IMPROVEMENT),
        (runs(-0.2), Kind.REJECT, Reason.NO_IMPROVEMENT),
        (runs(0.2, -0.02), Kind.REJECT, Reason.NOT_ON_FRESH_DATA),
        (runs(0.2, 0.05), Kind.RELEASE, Reason.FRESH_DATA_UNDECIDED),
        ([replace(run, fresh_bpb=None) for run in runs(0.2)], Kind.RELEASE, Reason.FRESH_DATA_UNAVAILABLE),
        ([*runs(0.2, count=3), failing("candidate", "crash")], Kind.RELEASE, Reason.UNCONFIRMED),
        ([*runs(0.2, count=3), *[failing("candidate", "non_causal")] * 2], Kind.REJECT, Reason.NON_CAUSAL),
        ([replay_run("incumbent", 2.5), *[failing("candidate", "crash")] * 2], Kind.REJECT, Reason.CRASH),
        ([failing("incumbent", "crash")] * 2, Kind.RELEASE, Reason.INCUMBENT_FAILS),
        (
            [replace(run, train_seconds=20.0) if run.arm == "candidate" else run for run in runs(0.2)],
            Kind.REJECT,
            Reason.OVER_BUDGET,
        ),
        ([], Kind.RELEASE, Reason.NOT_READY),
    ],
)
def test_from_runs_to_a_verdict(measured: Any, kind: Kind, reason: Reason) -> None:
    assert verdict(judged(measured)) == (kind, reason)


def test_what_is_self_reported_proves_nothing() -> None:
    assert verdict(judged(runs(0.2), method="self-reported")) == (Kind.RELEASE, Reason.SELF_REPORTED)
    assert verdict(judged(runs(0.0), method="self-reported")) == (Kind.REJECT, Reason.NO_IMPROVEMENT)


@pytest.mark.parametrize(
    ("convention", "best", "sign"),
    [
        (REFLECTED, 2_500_000, 1),
        (REFLECTED, 3_000_000, 1),
        (Convention("negated", -2_500_000), -2_400_000, 1),
        (Convention("plain", 2_500_000), 2_500_000, 1),
    ],
)
def test_the_score_is_the_chains_best_moved_by_the_gain(convention: Convention, best: int, sign: int) -> None:
    found = judged(runs(0.2), convention=convention, best_score=best)
    assert found.comparison is not None
    assert found.score == best + round(found.comparison.delta * 1_000_000)
    assert found.metric == convention.to_metric(found.score)


def test_a_gain_that_rounds_to_nothing_is_none() -> None:
    """The best on chain cannot be beaten by less than its last decimal."""
    tiny = [
        replay_run(run.arm, 2.5 - 4e-7 * (run.arm == "candidate"), 2.6 - 1e-3 * (run.arm == "candidate"))
        for run in runs(0)
    ]
    quiet = NoiseRecord(1e-18, 20.0)
    found = judged(
        tiny, noise=quiet, policy=replace(Policy(), comparison=replace(Policy().comparison, resolution=1e-9))
    )
    assert found.evidence.comparison is Outcome.BETTER
    assert found.score == 2_500_000
    assert not found.evidence.improves_chain
    assert verdict(found) == (Kind.REJECT, Reason.NO_IMPROVEMENT)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["incumbent", "candidate"]),
            st.none() | st.floats(0.5, 5.0),
            st.none() | st.floats(0.5, 5.0),
        ),
        max_size=24,
    ),
    st.integers(0, 2**32),
)
def test_any_runs_are_judged_and_judged_alike(
    measured: list[tuple[str, float | None, float | None]], seed: int
) -> None:
    """No run of values breaks the judge, and an approval always has a positive, significant gain behind it."""
    made = [replay_run(arm, a, b) if a is not None else failing(arm, "crash") for arm, a, b in measured]
    found = judged(made, seed=seed)
    assert found == judged(made, seed=seed + 1)  # the order of runs decides nothing
    if verdict(found)[0] is Kind.APPROVE:
        assert found.comparison is not None
        assert found.comparison.low > 0
        assert found.fresh is not None
        assert found.fresh.low > 0
        assert found.score is not None
        assert found.score > 2_500_000
    assert found.score is None or found.metric == REFLECTED.to_metric(found.score)
    assert isinstance(found.metric, Decimal | None)
