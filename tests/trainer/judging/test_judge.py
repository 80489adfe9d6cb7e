"""What is judged from runs, as tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chain.money.score import Convention
from tests.trainer.judging.cases import NOISE, failing, replay_run, runs
from trainer.judging.judge import allowed_seconds, compared, judge, run_findings, suggested, undeserved
from trainer.judging.policy import JudgePolicy, TimeBudget
from trainer.judging.runs import ReplayRun, values
from trainer.judging.verdict import Fault, GainOutcome, Reason, VerdictKind, decide
from trainer.measurement.values import Failure
from trainer.statistics.comparison import Arm

RULES = JudgePolicy()
REFLECTED = Convention("reflected", 2_500_000)


def trained(arm: str, seconds: float | None) -> ReplayRun:
    return replay_run(arm, 2.5, train_seconds=seconds)


# --- the budget ---


@pytest.mark.parametrize(
    ("incumbent", "budget", "policy", "allowed"),
    [
        ([6.0], 6, TimeBudget(), 8.0),  # no overhead: the budget and 2 s
        ([6.5, 7.25, 6.1], 6, TimeBudget(), 9.25),  # its slowest run's overhead
        ([5.0], 6, TimeBudget(), 8.0),  # a fast incumbent takes nothing away
        ([300.0], 300, TimeBudget(), 309.0),  # 3 % of a long budget
        ([310.0], 300, TimeBudget(grace_seconds=1, grace_share=0), 311.0),
        ([], 6, TimeBudget(), None),
        ([None], 6, TimeBudget(), None),
    ],
)
def test_allowed_seconds(
    incumbent: list[float | None], budget: float, policy: TimeBudget, allowed: float | None
) -> None:
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
    assert [(f.reason, f.fault) for f in run_findings(measured, 6.0, TimeBudget())] == found


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
    (finding,) = run_findings([failing("candidate", failure, "Why.")], 6.0, TimeBudget())
    assert (finding.reason.value, finding.detail) == (failure, "Why.")


def test_whatever_a_run_comes_to_is_the_candidates_but_for_the_hosts_own() -> None:
    for failure in Failure:
        (finding,) = run_findings([failing("candidate", failure)], 6.0, TimeBudget())
        assert (finding.fault is Fault.HOST) == (failure in (Failure.HOST, Failure.REFUSED_MEMORY))
    (finding,) = run_findings([failing("candidate", Failure.OUT_OF_RANGE)], 6.0, TimeBudget())
    assert finding.reason is Reason.NO_IMPROVEMENT


def test_runs_that_the_machine_spoilt_are_nobodys_until_it_keeps_spoiling_them() -> None:
    """Left out and made again, on both sides; a machine that goes on like that judges nobody."""
    spoilt = [failing(arm, "unfit", "This machine slept.") for arm in ("incumbent", "candidate")]
    assert run_findings(spoilt * 2, 6.0, TimeBudget()) == []
    rules: Any = {"noise": NOISE, "seed": 1, "budget_seconds": 6.0, "method": "trusted", "policy": RULES}
    found = judge([], [*runs(0.1, 0.1), *spoilt * 2], **rules).evidence
    assert decide(found, RULES.verdict).kind is VerdictKind.APPROVE
    (finding,) = run_findings(spoilt * 3, 6.0, TimeBudget())
    assert (finding.reason, finding.fault) == (Reason.NOT_READY, Fault.HOST)
    assert "slept" in finding.detail


# --- the comparison ---


@pytest.mark.parametrize(
    ("gain", "outcome"),
    [(0.1, GainOutcome.BETTER), (0.0, GainOutcome.NOT_BETTER), (-0.3, GainOutcome.NOT_BETTER)],
)
def test_compared(gain: float, outcome: GainOutcome) -> None:
    found, evidence = compared(runs(gain), NOISE, RULES, 1)
    assert found is outcome
    assert evidence is not None
    assert evidence.delta == pytest.approx(gain, abs=0.03)


@pytest.mark.parametrize(
    ("measured", "outcome"),
    [
        ([], GainOutcome.MISSING),
        ([replay_run("incumbent", 2.5)], GainOutcome.MISSING),
        ([replay_run("candidate", 2.3)], GainOutcome.MISSING),
        ([replay_run("incumbent", 2.5), replay_run("candidate", 2.3)], GainOutcome.MISSING),  # too few to look
        ([replay_run("incumbent", 2.5)] * 6 + [failing("candidate", "crash")] * 2, GainOutcome.MISSING),
    ],
)
def test_without_enough_runs_nothing_is_said(measured: list[ReplayRun], outcome: GainOutcome) -> None:
    assert compared(measured, NOISE, RULES, 1)[0] is outcome


def test_louder_runs_than_the_record_knows_release() -> None:
    """No better, but by runs far louder than this machine's record: that may hide a gain."""
    loud = [
        replay_run(arm, value)
        for value in (2.2, 2.8, 2.1, 2.9, 2.5, 2.5, 2.2, 2.8)
        for arm in ("incumbent", "candidate")
    ]
    outcome, evidence = compared(loud, NOISE, RULES, 1)
    assert evidence is not None
    assert evidence.noisier
    assert outcome is GainOutcome.UNDECIDED


def test_what_is_far_worse_is_rejected_on_a_louder_machine_too() -> None:
    """No candidate is released for the machine's noise where even that noise hides no gain."""
    loud = [
        replay_run(arm, value + (1.5 if arm == "candidate" else 0.0))
        for value in (2.2, 2.8, 2.1, 2.9, 2.5, 2.5, 2.2, 2.8)
        for arm in ("incumbent", "candidate")
    ]
    outcome, evidence = compared(loud, NOISE, RULES, 1)
    assert evidence is not None
    assert evidence.noisier
    assert outcome is GainOutcome.NOT_BETTER


def test_a_gain_that_is_suggested_releases() -> None:
    """Too small for this machine to show, too large to be called none: nobody is slashed for it."""
    exact = [
        replay_run(arm, 2.5 - 0.010 * (arm == "candidate")) for _ in range(8) for arm in ("incumbent", "candidate")
    ]
    outcome, evidence = compared(exact, NOISE, replace(RULES, suggestive=0.2), 1)
    assert evidence is not None
    assert not evidence.noisier
    assert suggested(evidence, 0.2)
    assert not suggested(evidence, 1e-4)
    assert outcome is GainOutcome.UNDECIDED
    assert compared(exact, NOISE, replace(RULES, suggestive=1e-4), 1)[0] is GainOutcome.NOT_BETTER


def test_values() -> None:
    measured = [replay_run("incumbent", 1.0, 2.0), failing("incumbent", "crash"), replay_run("candidate", 3.0, None)]
    assert values(measured, Arm.INCUMBENT) == [1.0]
    assert values(measured, Arm.INCUMBENT, on_holdout=True) == [2.0]
    assert values(measured, Arm.CANDIDATE, on_holdout=True) == []


# --- what the probes prove ---


def probed(bounds: list[float | None], gain: float = 0.2) -> list[ReplayRun]:
    """Runs whose candidates' probes bound the undeserved share of the incumbent's loss (2.5 bpb) so."""
    made = [replay_run("incumbent", 2.5, 2.6) for _ in range(8)]
    for bound in bounds:
        probes = {"count": 4, "mean": 0.0, "worst": 0.0, "gain_bound": bound, "share_bound": 0.01}
        made.append(replay_run("candidate", 2.5 - gain, 2.6 - gain, probes=probes))
    return made


@pytest.mark.parametrize(
    ("bounds", "bound"),
    [
        ([], None),
        ([None, None], None),
        ([0.01], 0.025),
        ([0.01, 0.01], 0.0125),  # who deceives in two runs must pass both
        ([0.01, 0.02, None], 0.025),  # a run that was not probed for it counts for nothing
        ([0.01] * 5, 0.005),
    ],
)
def test_what_may_be_undeserved(bounds: list[float | None], bound: float | None) -> None:
    found = undeserved(probed(bounds))
    assert found == (None if bound is None else pytest.approx(bound))


@pytest.mark.parametrize(("bound", "margin", "proven"), [(0.1, 0.0, True), (0.3, 0.0, False), (0.1, 0.18, False)])
def test_a_gain_that_could_be_all_undeserved_is_not_approved(bound: float, margin: float, proven: bool) -> None:
    """Until the bound decided something, a gain of any size was approved whatever the probes could tell."""
    policy = RULES.with_margin(margin)
    runs_, about = probed([bound] * 3), {"seed": 1, "budget_seconds": 6.0, "method": "trusted"}
    found = judge((), runs_, noise=NOISE, policy=policy, **about)  # type: ignore[arg-type]
    assert found.evidence.proven is proven
    said = decide(replace(found.evidence, comparison=GainOutcome.BETTER), policy.verdict)
    assert (said.reason is Reason.UNPROVEN) is not proven
