"""The verdict: from what was found and measured to approve, reject or release.

Pure: no file, clock, process or socket. The rules, in the order in which they are applied:

1.  A fault of the proposal that any machine would find in its bytes alone (`Fault.BYTES`: they do not
    match the hashes on chain, touch what the protocol forbids, or exceed the source caps) is a
    **reject**. It does not depend on this host.
    An archive that another reader may see otherwise (`Fault.FORM`) is a **release**, with the reason.
2.  Anything that may be this host's fault (`Fault.HOST`: an artifact that could not be fetched, data
    or environment or sandbox not ready, another hardware class than the miner's, the incumbent
    itself failing here, a measurement that rests on the candidate's own word) is a **release**.
3.  A fault of the candidate's behaviour (`Fault.RUN`: a crash, no evaluation, over the time or
    resource budget, non-causal or non-finite outputs) is a **reject** once it was seen in
    `policy.repeats` runs of it while the incumbent ran fine. Seen once, it may be the host's: it stands in
    the way of an approval, which becomes a **release**, and of nothing else. A script that crashes when it
    sees that it is unlucky does not escape its rejection.
4.  With nothing of that kind, the comparison speaks: shown no better is a **reject**; undecided is a
    **release** (the run limit was reached, this machine was louder than its record, or the gain was suggested
    though not shown); better goes on to 5. Where the incumbent no longer is what was approved, the candidate is
    judged against the best that still is, and must gain what the chain's best is ahead of that as well; not to
    show that much is a **release**: its author could not know.
5.  The gain must hold on holdout text: not measured there is a **release**; undecided there, or shown but
    much smaller, is a **release**; shown to be much smaller and not shown to be there at all is a **reject**.
    A gain that could be undeserved as a whole, as far as the probes bound that, is a **release**.
6.  A machine that called itself overloaded, hot or short of memory beside any run but the candidate's rejects nobody
    for want of a gain or of time: that is a **release**, and the next check begins anew, as one more look.
7.  What is left is an **approve**, provided that the anchored score is above the best on chain after
    rounding to the chain's six decimals; else it is a **reject** for no improvement.

Release is the answer in doubt. It slashes nothing by itself, and it gives nothing back: the stake stays in escrow until
a review settles the proposal, or until it expires. Nothing rests on a single run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from trainer.judging.policy import VerdictPolicy


class GainOutcome(StrEnum):
    """What a test says of the gain."""

    BETTER = "better"
    NOT_BETTER = "not_better"
    UNDECIDED = "undecided"
    MISSING = "missing"


class Fault(StrEnum):
    """Whose fault a finding is, and how it can be reproduced."""

    BYTES = "bytes"
    FORM = "form"
    RUN = "run"
    HOST = "host"


class Reason(StrEnum):
    """Why; one word per rule, used in attestations and by scripts."""

    IMPROVED = "improved"
    NO_IMPROVEMENT = "no_improvement"
    TOO_NOISY = "too_noisy"
    NOT_ON_HOLDOUT = "not_on_holdout"
    HOLDOUT_UNDECIDED = "holdout_undecided"
    HOLDOUT_UNAVAILABLE = "holdout_unavailable"
    HASH_MISMATCH = "hash_mismatch"
    MALFORMED_ARCHIVE = "malformed_archive"
    FORBIDDEN_CHANGE = "forbidden_change"
    SOURCE_TOO_LARGE = "source_too_large"
    CRASH = "crash"
    NO_EVALUATION = "no_evaluation"
    OVER_BUDGET = "over_budget"
    OVER_RESOURCES = "over_resources"
    NON_CAUSAL = "non_causal"
    NON_FINITE = "non_finite"
    BAD_OUTPUT = "bad_output"
    NOT_EXPORTABLE = "not_exportable"
    ARTIFACT_UNAVAILABLE = "artifact_unavailable"
    NOT_READY = "not_ready"
    HARDWARE_DIFFERS = "hardware_differs"
    DATA_DIFFERS = "data_differs"
    INCUMBENT_FAILS = "incumbent_fails"
    SELF_REPORTED = "self_reported"
    UNCONFIRMED = "unconfirmed"
    BELOW_CHAIN = "below_chain"
    UNPROVEN = "unproven"


class VerdictKind(StrEnum):
    """What a verifier does with a proposal."""

    APPROVE = "approve"
    REJECT = "reject"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class CaseFinding:
    """One thing that was found wrong."""

    reason: Reason
    fault: Fault
    detail: str


@dataclass(frozen=True, slots=True)
class CaseEvidence:
    """All that the verdict rests on. `improves_chain` says whether the anchored score beats the best on chain,
    `stepped` that the incumbent was stepped over (`trainer.judging.ladder`), `proven` that the probes leave no room for
    the whole gain to be undeserved. `unfit` says in words why this machine was not fit to measure; "" if it was."""

    findings: Sequence[CaseFinding] = ()
    comparison: GainOutcome = GainOutcome.MISSING
    holdout: GainOutcome = GainOutcome.MISSING
    improves_chain: bool = True
    stepped: bool = False
    proven: bool = True
    unfit: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, why in one word, and why in one sentence."""

    kind: VerdictKind
    reason: Reason
    explanation: str

    def as_json(self) -> dict[str, str]:
        """The fields as an attestation holds them."""
        return {"kind": self.kind.value, "reason": self.reason.value, "explanation": self.explanation[:1000]}


_OF_COMPARISON = {
    GainOutcome.NOT_BETTER: (VerdictKind.REJECT, Reason.NO_IMPROVEMENT, "No improvement over the incumbent was shown."),
    GainOutcome.UNDECIDED: (
        VerdictKind.RELEASE,
        Reason.TOO_NOISY,
        "Inconclusive: too noisy on this machine to tell whether it is better.",
    ),
    GainOutcome.MISSING: (VerdictKind.RELEASE, Reason.NOT_READY, "The comparison did not run."),
}
_OF_HOLDOUT = {
    GainOutcome.NOT_BETTER: (VerdictKind.REJECT, Reason.NOT_ON_HOLDOUT, "The gain does not hold on holdout text."),
    GainOutcome.UNDECIDED: (
        VerdictKind.RELEASE,
        Reason.HOLDOUT_UNDECIDED,
        "The gain on holdout text is not clear, or far smaller than on validation.",
    ),
    GainOutcome.MISSING: (VerdictKind.RELEASE, Reason.HOLDOUT_UNAVAILABLE, "No holdout text could be scored."),
}


def decide(evidence: CaseEvidence, policy: VerdictPolicy) -> Verdict:
    """Apply the rules of this module's docstring, in their order."""
    by_fault = {fault: [f for f in evidence.findings if f.fault is fault] for fault in Fault}
    if by_fault[Fault.BYTES]:
        return _from(VerdictKind.REJECT, by_fault[Fault.BYTES][0])
    if doubt := (*by_fault[Fault.FORM], *by_fault[Fault.HOST]):
        return _from(VerdictKind.RELEASE, doubt[0])
    runs, unfit = by_fault[Fault.RUN], evidence.unfit if policy.calm else ""
    own = [run for run in runs if not unfit or run.reason is not Reason.OVER_BUDGET]
    if len(own) >= policy.repeats:
        return _from(VerdictKind.REJECT, own[0])
    said = _of_numbers(evidence, policy)
    if unfit and (said.kind is VerdictKind.REJECT or len(runs) >= policy.repeats):
        return Verdict(VerdictKind.RELEASE, Reason.NOT_READY, f"This machine was not fit to reject anyone: {unfit}.")
    if runs and said.kind is not VerdictKind.REJECT:
        return Verdict(VerdictKind.RELEASE, Reason.UNCONFIRMED, f"Seen in only one run: {runs[0].detail}")
    return said


def _of_numbers(evidence: CaseEvidence, policy: VerdictPolicy) -> Verdict:
    """Rules 4, 5 and 7."""
    if evidence.stepped and evidence.comparison is GainOutcome.NOT_BETTER:
        return Verdict(
            VerdictKind.RELEASE,
            Reason.BELOW_CHAIN,
            "It does not reach the best on chain, and neither does that code here any more.",
        )
    if evidence.comparison is not GainOutcome.BETTER:
        return Verdict(*_OF_COMPARISON[evidence.comparison])
    if policy.require_holdout and evidence.holdout is not GainOutcome.BETTER:
        return Verdict(*_OF_HOLDOUT[evidence.holdout])
    if not evidence.proven:
        return Verdict(
            VerdictKind.RELEASE, Reason.UNPROVEN, "The gain is smaller than what the probes cannot tell from peeking."
        )
    if not evidence.improves_chain:
        return Verdict(
            VerdictKind.REJECT,
            Reason.NO_IMPROVEMENT,
            "Rounded to six decimals, the score does not beat the on-chain best.",
        )
    return Verdict(VerdictKind.APPROVE, Reason.IMPROVED, "Every check passed and the improvement is significant.")


def _from(kind: VerdictKind, finding: CaseFinding) -> Verdict:
    return Verdict(kind, finding.reason, finding.detail)
