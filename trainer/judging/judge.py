"""The judge: from runs to evidence. Pure; the same for a verifier, an auditor and a miner's confirming test.

`judge` gathers, `trainer.judging.verdict.decide` says what follows.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.errors import UNFIT
from trainer.judging import trial
from trainer.judging.holdout_gain import HoldoutResult, holdout_outcome
from trainer.judging.policy import JudgePolicy, TimeBudget
from trainer.judging.runs import ReplayRun, against, said_unfit, values
from trainer.judging.verdict import CaseEvidence, CaseFinding, Fault, GainOutcome, Reason
from trainer.measurement.bench import SELF_REPORTED
from trainer.statistics import comparison
from trainer.statistics.comparison import Answer, Arm, TrialSamples
from trainer.statistics.distributions import approval_point
from trainer.statistics.error_rates import ComparisonPolicy, LookEvidence
from trainer.statistics.noise import NoiseRecord, sum_squares

_RUN_REASONS: Mapping[str, Reason] = {
    **{
        reason.value: reason
        for reason in (
            Reason.CRASH,
            Reason.NO_EVALUATION,
            Reason.OVER_BUDGET,
            Reason.OVER_RESOURCES,
            Reason.NON_CAUSAL,
            Reason.NON_FINITE,
            Reason.BAD_OUTPUT,
            Reason.NOT_EXPORTABLE,
        )
    },
    "out_of_memory": Reason.OVER_RESOURCES,
    "out_of_range": Reason.NO_IMPROVEMENT,  # a number, if no sample: worse than anything
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """The evidence of a case with the numbers behind it; None if there are none. `undeserved` is in bpb."""

    evidence: CaseEvidence
    comparison: LookEvidence | None = None
    holdout: HoldoutResult | None = None
    undeserved: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The numbers as an attestation holds them; an open limit of an interval is null."""
        first, second = self.comparison, self.holdout
        return {
            "comparison": {
                "outcome": self.evidence.comparison.value,
                "delta": first.delta,
                "interval": [value if math.isfinite(value) else None for value in (first.low, first.high)],
                "p": first.p,
                "confidence": first.confidence,
                "sigma": first.sigma,
                "degreesOfFreedom": first.df,
                "noisier": first.noisier,
                "louder": first.louder,
            }
            if first
            else None,
            "holdoutComparison": second.as_json() if second else None,
            "undeservedBound": self.undeserved,
        }


def judge(
    findings: Sequence[CaseFinding],
    runs: Sequence[ReplayRun],
    *,
    noise: NoiseRecord,
    seed: int,
    budget_seconds: float,
    method: str,
    policy: JudgePolicy,
    reference: str = Arm.INCUMBENT.value,
) -> Judgement:
    """From findings and runs to evidence. `seed` is that of the interleaving, `method` that of the measurement.

    `reference` names the runs that stand as the incumbent's.
    """
    unfit = said_unfit(runs)
    runs, stepped = against(runs, reference), reference != Arm.INCUMBENT.value
    found = [*findings, *run_findings(runs, budget_seconds, policy.budget)]
    outcome, seen = compared(runs, noise, policy, seed)
    second = holdout_outcome(runs, seen, policy.holdout) if seen else None
    if runs and method == SELF_REPORTED and policy.verdict.require_trusted and outcome is GainOutcome.BETTER:
        found.append(CaseFinding(Reason.SELF_REPORTED, Fault.HOST, "The value is self-reported: nothing proves it."))
    answer, bound = second.outcome if second else GainOutcome.MISSING, undeserved(runs)
    proven = seen is None or bound is None or bound <= seen.delta - policy.comparison.margin
    evidence = CaseEvidence(tuple(found), outcome, answer, stepped=stepped, proven=proven, unfit=unfit)
    return Judgement(evidence, seen, second, bound)


def run_findings(runs: Sequence[ReplayRun], budget_seconds: float, policy: TimeBudget) -> list[CaseFinding]:
    """Faults of runs: failures of the candidate, runs over the budget, and an incumbent that fails here."""
    found = []
    failing = [run for run in runs if run.arm == "incumbent" and run.failed]
    # One disagreement between the incumbent's own claim and proof shows that this host computes unreliably.
    if len(failing) >= trial.MAX_FAILURES or any(run.failure == Reason.NON_CAUSAL for run in failing):
        found.append(
            CaseFinding(
                Reason.INCUMBENT_FAILS, Fault.HOST, f"The incumbent fails on this machine too: {failing[-1].detail}"
            )
        )
    unfit = [run for run in runs if run.failure == UNFIT]
    if len(unfit) >= trial.MAX_UNFIT:
        found.append(CaseFinding(Reason.NOT_READY, Fault.HOST, f"This machine is unfit: {unfit[-1].detail}"))
    allowed = allowed_seconds(runs, budget_seconds, policy)
    for run in runs:
        if run.arm != "candidate":
            continue
        if run.failed and run.excused:
            found.append(CaseFinding(Reason.NOT_READY, Fault.HOST, run.detail))
        elif run.failed:
            found.append(CaseFinding(_RUN_REASONS.get(run.failure, Reason.CRASH), Fault.RUN, run.detail))
        elif allowed is not None and run.train_seconds is not None and run.train_seconds > allowed:
            found.append(
                CaseFinding(
                    Reason.OVER_BUDGET,
                    Fault.RUN,
                    f"It trained for {run.train_seconds:.1f} s by this machine's clock; the limit is {allowed:.1f} s.",
                )
            )
    return found


def allowed_seconds(runs: Sequence[ReplayRun], budget_seconds: float, policy: TimeBudget) -> float | None:
    """Seconds from start to evaluation that a candidate may take: the budget, the slowest incumbent's overhead
    here, and the grace. None without an incumbent's time to go by.
    """
    times = [run.train_seconds for run in runs if run.arm == "incumbent" and run.train_seconds is not None]
    if not times:
        return None
    overhead = max(0.0, max(times) - budget_seconds)
    return budget_seconds + overhead + max(policy.grace_seconds, policy.grace_share * budget_seconds)


def undeserved(runs: Sequence[ReplayRun]) -> float | None:
    """The most that the mean of the candidate's runs may owe to claims which no probe met, in bpb, at the confidence
    of the probes; None if no run was probed for it.

    Run i with the undeserved part u_i of its gain passes its probes with a probability of at most e^(u_i / b_i) to
    the probes' level e, b_i its `gain_bound` (trainer.measurement.scoring). All pass with at most the product, so
    the sum of u_i / b_i is bounded by 1, the sum of u_i by the largest b_i, and their mean by an n-th of that.
    """
    bounds = [
        run.probes["gain_bound"]
        for run in runs
        if run.arm == Arm.CANDIDATE.value and run.val_bpb is not None and run.probes and run.probes["gain_bound"]
    ]
    theirs = values(runs, Arm.INCUMBENT)
    return max(bounds) / len(bounds) * statistics.fmean(theirs) if bounds and theirs else None


def suggested(evidence: LookEvidence, level: float, margin: float = 0.0) -> bool:
    """Whether a single one-sided t test at `level` would call the gain larger than `margin` (bpb)."""
    reach = approval_point(evidence.df, level) * evidence.sigma
    return evidence.delta - margin > reach * evidence.scale


def compared(
    runs: Sequence[ReplayRun], noise: NoiseRecord, policy: JudgePolicy, seed: int
) -> tuple[GainOutcome, LookEvidence | None]:
    """The sequential comparison's answer on these runs, the same for everybody who has them."""
    incumbent, candidate = values(runs, Arm.INCUMBENT), values(runs, Arm.CANDIDATE)
    if not incumbent or not candidate:
        return GainOutcome.MISSING, None
    decision = comparison.decide(TrialSamples(incumbent, candidate), noise, policy.comparison, seed=seed)
    outcome = {
        Answer.APPROVE: GainOutcome.BETTER,
        Answer.REJECT: GainOutcome.NOT_BETTER,
        Answer.UNDECIDED: GainOutcome.UNDECIDED,
        Answer.CONTINUE: GainOutcome.MISSING,
    }[decision.kind]
    # A gain that is at least suggested, or that louder incumbents than this machine's record knows leave possible,
    # may be a true gain that this machine cannot show: that is no miner's fault.
    seen = decision.evidence
    if (
        outcome is GainOutcome.NOT_BETTER
        and seen is not None
        and (
            suggested(seen, policy.suggestive, policy.comparison.margin)
            or (seen.noisier and not excluded(seen, incumbent, policy.comparison))
        )
    ):
        outcome = GainOutcome.UNDECIDED
    return outcome, decision.evidence


def excluded(evidence: LookEvidence, incumbent: Sequence[float], policy: ComparisonPolicy) -> bool:
    """Whether the scatter of the incumbent's runs alone, whatever the record says, rules out a gain over the margin."""
    df = len(incumbent) - 1
    sigma = math.sqrt(sum_squares(incumbent) / df) if df else math.inf
    reach = approval_point(df, policy.beta) * sigma if df else math.inf
    return evidence.delta + reach * evidence.scale < policy.margin
