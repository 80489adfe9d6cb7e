"""The verdict's rules as a table."""

from __future__ import annotations

import pytest

from trainer.judging.policy import VerdictPolicy
from trainer.judging.verdict import CaseEvidence, CaseFinding, Fault, GainOutcome, Reason, VerdictKind, decide

BYTES = CaseFinding(Reason.FORBIDDEN_CHANGE, Fault.BYTES, "prepare.py differs.")
CRASH = CaseFinding(Reason.CRASH, Fault.RUN, "It crashed.")
CAUSAL = CaseFinding(Reason.NON_CAUSAL, Fault.RUN, "It reads the future.")
FORM = CaseFinding(Reason.MALFORMED_ARCHIVE, Fault.FORM, "A link.")
HARDWARE = CaseFinding(Reason.HARDWARE_DIFFERS, Fault.HOST, "Another class.")
BETTER, WORSE, UNCLEAR, NONE = GainOutcome.BETTER, GainOutcome.NOT_BETTER, GainOutcome.UNDECIDED, GainOutcome.MISSING


@pytest.mark.parametrize(
    ("findings", "comparison", "holdout", "kind", "reason"),
    [
        ([], BETTER, BETTER, VerdictKind.APPROVE, Reason.IMPROVED),
        ([], WORSE, NONE, VerdictKind.REJECT, Reason.NO_IMPROVEMENT),
        ([], UNCLEAR, NONE, VerdictKind.RELEASE, Reason.TOO_NOISY),
        ([], NONE, NONE, VerdictKind.RELEASE, Reason.NOT_READY),
        ([], BETTER, WORSE, VerdictKind.REJECT, Reason.NOT_ON_HOLDOUT),
        ([], BETTER, UNCLEAR, VerdictKind.RELEASE, Reason.HOLDOUT_UNDECIDED),
        ([], BETTER, NONE, VerdictKind.RELEASE, Reason.HOLDOUT_UNAVAILABLE),
        # what is in the bytes is the miner's on any host, even on one that could not run it
        ([BYTES], NONE, NONE, VerdictKind.REJECT, Reason.FORBIDDEN_CHANGE),
        ([FORM, BYTES], NONE, NONE, VerdictKind.REJECT, Reason.FORBIDDEN_CHANGE),
        ([FORM], NONE, NONE, VerdictKind.RELEASE, Reason.MALFORMED_ARCHIVE),
        ([HARDWARE, BYTES], NONE, NONE, VerdictKind.REJECT, Reason.FORBIDDEN_CHANGE),
        # what may be the host's releases, whatever else was seen
        ([HARDWARE], BETTER, BETTER, VerdictKind.RELEASE, Reason.HARDWARE_DIFFERS),
        ([CRASH, CRASH, HARDWARE], NONE, NONE, VerdictKind.RELEASE, Reason.HARDWARE_DIFFERS),
        ([CAUSAL, HARDWARE], NONE, NONE, VerdictKind.RELEASE, Reason.HARDWARE_DIFFERS),
        # a fault of a run must repeat, unless it is proof
        ([CRASH], BETTER, BETTER, VerdictKind.RELEASE, Reason.UNCONFIRMED),
        ([CRASH], UNCLEAR, NONE, VerdictKind.RELEASE, Reason.UNCONFIRMED),
        # a script that sees its own luck must not get away by one crash: this was a release
        ([CRASH], WORSE, NONE, VerdictKind.REJECT, Reason.NO_IMPROVEMENT),
        ([CRASH], BETTER, WORSE, VerdictKind.REJECT, Reason.NOT_ON_HOLDOUT),
        ([CRASH, CRASH], NONE, NONE, VerdictKind.REJECT, Reason.CRASH),
        ([CAUSAL], BETTER, BETTER, VerdictKind.RELEASE, Reason.UNCONFIRMED),
        ([CAUSAL, CAUSAL], BETTER, BETTER, VerdictKind.REJECT, Reason.NON_CAUSAL),
        ([CRASH, CAUSAL], NONE, NONE, VerdictKind.REJECT, Reason.CRASH),
    ],
)
def test_rules(
    findings: list[CaseFinding], comparison: GainOutcome, holdout: GainOutcome, kind: VerdictKind, reason: Reason
) -> None:
    verdict = decide(CaseEvidence(findings, comparison, holdout), VerdictPolicy())
    assert (verdict.kind, verdict.reason) == (kind, reason)
    assert verdict.explanation.endswith(".") or findings


LATE = CaseFinding(Reason.OVER_BUDGET, Fault.RUN, "It trained for 400 s.")


@pytest.mark.parametrize(
    ("findings", "comparison", "holdout", "kind"),
    [
        ([], BETTER, BETTER, VerdictKind.APPROVE),
        ([], WORSE, NONE, VerdictKind.RELEASE),
        ([], BETTER, WORSE, VerdictKind.RELEASE),
        ([LATE, LATE], NONE, NONE, VerdictKind.RELEASE),
        ([LATE, CRASH], NONE, NONE, VerdictKind.RELEASE),
        ([CRASH, CRASH], NONE, NONE, VerdictKind.REJECT),  # load makes nobody crash, peek or break a rule
        ([LATE, CAUSAL, CAUSAL], NONE, NONE, VerdictKind.REJECT),
        ([BYTES], NONE, NONE, VerdictKind.REJECT),
    ],
)
def test_an_unfit_machine_rejects_nobody_for_want_of_gain_or_time(
    findings: list[CaseFinding], comparison: GainOutcome, holdout: GainOutcome, kind: VerdictKind
) -> None:
    seen = CaseEvidence(findings, comparison, holdout, unfit="machine overloaded: load 9.1 on 2 cores")
    assert decide(seen, VerdictPolicy()).kind is kind
    if kind is VerdictKind.RELEASE:
        assert "load 9.1 on 2 cores" in decide(seen, VerdictPolicy()).explanation
        assert decide(seen, VerdictPolicy(calm=False)).kind is VerdictKind.REJECT or findings == [LATE, CRASH]


def test_an_improvement_that_rounding_hides_is_none() -> None:
    verdict = decide(CaseEvidence((), BETTER, BETTER, improves_chain=False), VerdictPolicy())
    assert (verdict.kind, verdict.reason) == (VerdictKind.REJECT, Reason.NO_IMPROVEMENT)


def test_holdout_can_be_waived_by_policy_only() -> None:
    assert decide(CaseEvidence((), BETTER, NONE), VerdictPolicy(require_holdout=False)).kind is VerdictKind.APPROVE


def test_approval_needs_everything() -> None:
    """Over all combinations there is exactly one way to an approval."""
    approved = [
        (findings, comparison, holdout, improves)
        for findings in ((), (BYTES,), (CRASH,), (CAUSAL,), (HARDWARE,))
        for comparison in GainOutcome
        for holdout in GainOutcome
        for improves in (True, False)
        if decide(CaseEvidence(findings, comparison, holdout, improves), VerdictPolicy()).kind is VerdictKind.APPROVE
    ]
    assert approved == [((), BETTER, BETTER, True)]


def test_what_does_not_reach_the_chain_where_its_best_fails_slashes_nobody() -> None:
    verdict = decide(CaseEvidence((), WORSE, NONE, stepped=True), VerdictPolicy())
    assert (verdict.kind, verdict.reason) == (VerdictKind.RELEASE, Reason.BELOW_CHAIN)
    assert decide(CaseEvidence((), BETTER, BETTER, stepped=True), VerdictPolicy()).kind is VerdictKind.APPROVE
