"""The verdict's rules as a table."""

from __future__ import annotations

import pytest

from trainer.judging.replay import Outcome
from verifier.verdict import Evidence, Fault, Finding, Kind, Reason, VerdictPolicy, decide

BYTES = Finding(Reason.FORBIDDEN_CHANGE, Fault.BYTES, "prepare.py differs.")
CRASH = Finding(Reason.CRASH, Fault.RUN, "It crashed.")
CAUSAL = Finding(Reason.NON_CAUSAL, Fault.RUN, "It reads the future.")
HARDWARE = Finding(Reason.HARDWARE_DIFFERS, Fault.HOST, "Another class.")
BETTER, WORSE, UNCLEAR, NONE = Outcome.BETTER, Outcome.NOT_BETTER, Outcome.UNDECIDED, Outcome.MISSING


@pytest.mark.parametrize(
    ("findings", "comparison", "fresh", "kind", "reason"),
    [
        ([], BETTER, BETTER, Kind.APPROVE, Reason.IMPROVED),
        ([], WORSE, NONE, Kind.REJECT, Reason.NO_IMPROVEMENT),
        ([], UNCLEAR, NONE, Kind.RELEASE, Reason.TOO_NOISY),
        ([], NONE, NONE, Kind.RELEASE, Reason.NOT_READY),
        ([], BETTER, WORSE, Kind.REJECT, Reason.NOT_ON_FRESH_DATA),
        ([], BETTER, UNCLEAR, Kind.RELEASE, Reason.FRESH_DATA_UNDECIDED),
        ([], BETTER, NONE, Kind.RELEASE, Reason.FRESH_DATA_UNAVAILABLE),
        # what is in the bytes is the miner's on any host, even on one that could not run it
        ([BYTES], NONE, NONE, Kind.REJECT, Reason.FORBIDDEN_CHANGE),
        ([HARDWARE, BYTES], NONE, NONE, Kind.REJECT, Reason.FORBIDDEN_CHANGE),
        # what may be the host's releases, whatever else was seen
        ([HARDWARE], BETTER, BETTER, Kind.RELEASE, Reason.HARDWARE_DIFFERS),
        ([CRASH, CRASH, HARDWARE], NONE, NONE, Kind.RELEASE, Reason.HARDWARE_DIFFERS),
        ([CAUSAL, HARDWARE], NONE, NONE, Kind.RELEASE, Reason.HARDWARE_DIFFERS),
        # a fault of a run must repeat, unless it is proof
        ([CRASH], BETTER, BETTER, Kind.RELEASE, Reason.UNCONFIRMED),
        ([CRASH, CRASH], NONE, NONE, Kind.REJECT, Reason.CRASH),
        ([CAUSAL], BETTER, BETTER, Kind.RELEASE, Reason.UNCONFIRMED),
        ([CAUSAL, CAUSAL], BETTER, BETTER, Kind.REJECT, Reason.NON_CAUSAL),
        ([CRASH, CAUSAL], NONE, NONE, Kind.REJECT, Reason.CRASH),
    ],
)
def test_rules(findings: list[Finding], comparison: Outcome, fresh: Outcome, kind: Kind, reason: Reason) -> None:
    verdict = decide(Evidence(findings, comparison, fresh), VerdictPolicy())
    assert (verdict.kind, verdict.reason) == (kind, reason)
    assert verdict.explanation.endswith(".") or findings


def test_an_improvement_that_rounding_hides_is_none() -> None:
    verdict = decide(Evidence((), BETTER, BETTER, improves_chain=False), VerdictPolicy())
    assert (verdict.kind, verdict.reason) == (Kind.REJECT, Reason.NO_IMPROVEMENT)


def test_fresh_data_can_be_waived_by_policy_only() -> None:
    assert decide(Evidence((), BETTER, NONE), VerdictPolicy(require_fresh=False)).kind is Kind.APPROVE


def test_approval_needs_everything() -> None:
    """Over all combinations there is exactly one way to an approval."""
    approved = [
        (findings, comparison, fresh, improves)
        for findings in ((), (BYTES,), (CRASH,), (CAUSAL,), (HARDWARE,))
        for comparison in Outcome
        for fresh in Outcome
        for improves in (True, False)
        if decide(Evidence(findings, comparison, fresh, improves), VerdictPolicy()).kind is Kind.APPROVE
    ]
    assert approved == [((), BETTER, BETTER, True)]
