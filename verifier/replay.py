"""The verifier's replay of a case: prepare this machine, measure both arms, gather the evidence for a verdict.

`trainer.judging.replay` runs the arms and judges the numbers. Here are the rules around them: whether this machine may
judge the case, whose fault a failed run is, and what goes on chain. `judge` and what it calls are pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from chain.errors import ChainError
from chain.money import score
from common.terminal import View
from trainer.errors import TrainerError
from trainer.judging import trial
from trainer.judging.replay import (
    Budget,
    FreshResult,
    Outcome,
    ReplayRun,
    allowed_seconds,
    compared,
    draw_fresh,
    fresh_outcome,
    values,
)
from trainer.judging.replay import replay as run_both
from trainer.measurement.bench import SELF_REPORTED, Bench, open_bench
from trainer.statistics.comparison import Arm
from trainer.statistics.noise import NoiseRecord
from trainer.statistics.policy import LookEvidence
from verifier.intake import Case, not_ready
from verifier.policy import Policy
from verifier.verdict import Evidence, Fault, Finding, Reason


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay found. `fresh_source` says where the fresh text is from; `decision` is None without one."""

    bench: Bench | None
    runs: tuple[ReplayRun, ...]
    noise: NoiseRecord
    seed: int
    fresh_source: str
    fresh_sha256: str
    findings: tuple[Finding, ...]


def replay(
    case: Case,
    policy: Policy,
    *,
    home: Path,
    folder: Path,
    fresh_seed: bytes,
    order_seed: int,
    view: View,
    isolated: bool = True,
    trust_harness: bool = False,
) -> Replay:
    """Measure a case. What may be this host's fault is a finding that releases, never an exception."""
    empty = Replay(None, (), NoiseRecord(), order_seed, "", "", ())
    try:
        with view.step("preparing environment, data and sandbox") as word:
            bench = open_bench(
                case.task.protocol_bytes,
                case.task.files,
                home=home,
                say=word,
                data_arguments=case.task.benchmark.data_arguments,
                expected_snapshot=case.task.benchmark.data_snapshot,
                trust_harness=trust_harness,
                require_sandbox=True,
                isolated=isolated,
            )
    except (TrainerError, ChainError) as error:
        return replace(empty, findings=(not_ready(error),))
    view.say(f"this machine: {bench.machine.hardware_class}, measurement {bench.method} ({bench.isolation})")
    differing = machine_findings(case, bench.machine.hardware_class, bench.data_snapshot, policy)
    if differing:
        return replace(empty, bench=bench, findings=tuple(differing))
    try:
        return _measure(case, bench, policy, folder, fresh_seed, order_seed, view)
    except (TrainerError, ChainError) as error:
        return replace(empty, bench=bench, findings=(not_ready(error),))


def _measure(
    case: Case, bench: Bench, policy: Policy, folder: Path, fresh_seed: bytes, order_seed: int, view: View
) -> Replay:
    noise = bench.noise()
    with view.step("drawing fresh text") as word:
        public = not case.task.benchmark.data_arguments
        rows, bench = draw_fresh(bench, policy.fresh, folder, fresh_seed, public=public, say=word)
    if rows is not None:
        view.say(f"fresh text: {rows.source}")
    runs = run_both(
        bench,
        {Arm.INCUMBENT: case.task.incumbent, Arm.CANDIDATE: case.candidate},
        rows,
        policy=policy.comparison,
        fresh_policy=policy.fresh,
        noise=noise,
        seed=order_seed,
        view=view,
    )
    bench.learn_noise([values(runs, Arm.INCUMBENT)])  # never from a candidate, whose author could make it say anything
    source, digest = (rows.source, rows.sha256) if rows else ("", "")
    return Replay(bench, tuple(runs), noise, order_seed, source, digest, ())


# --- judging ----------------------------------------------------------------------------------

_RUN_REASONS: Mapping[str, Reason] = {
    "crash": Reason.CRASH,
    "no_evaluation": Reason.NO_EVALUATION,
    "over_budget": Reason.OVER_BUDGET,
    "over_resources": Reason.OVER_RESOURCES,
    "non_causal": Reason.NON_CAUSAL,
    "non_finite": Reason.NON_FINITE,
    "bad_output": Reason.BAD_OUTPUT,
    "not_exportable": Reason.NOT_EXPORTABLE,
}


def machine_findings(case: Case, hardware_class: str, data_snapshot: str, policy: Policy) -> list[Finding]:
    """Whether this machine may judge the case: the miner's hardware class and data must be its own."""
    if case.proposal is None or not policy.same_hardware:
        return []
    found = []
    if case.miner_class != hardware_class:
        said = case.miner_class or "nothing"
        found.append(
            Finding(
                Reason.HARDWARE_DIFFERS,
                Fault.HOST,
                f"The miner's log says hardware {said[:64]!r}, this machine is {hardware_class!r}.",
            )
        )
    if case.miner_data and case.miner_data != data_snapshot:
        found.append(
            Finding(
                Reason.DATA_DIFFERS,
                Fault.HOST,
                f"The miner measured on data {case.miner_data[:16]!r}, this machine has {data_snapshot[:16]!r}.",
            )
        )
    return found


def run_findings(runs: Sequence[ReplayRun], budget_seconds: float, policy: Budget) -> list[Finding]:
    """Faults of runs: failures of the candidate, runs over the budget, and an incumbent that fails here."""
    found = []
    failing = [run for run in runs if run.arm == "incumbent" and run.failure]
    # One disagreement between the incumbent's own claim and proof shows that this host computes unreliably.
    if len(failing) >= trial.MAX_FAILURES or any(run.failure == Reason.NON_CAUSAL for run in failing):
        found.append(
            Finding(Reason.INCUMBENT_FAILS, Fault.HOST, f"The incumbent fails here as well: {failing[-1].detail}")
        )
    allowed = allowed_seconds(runs, budget_seconds, policy)
    for run in runs:
        if run.arm != "candidate":
            continue
        if run.failure == "host":
            found.append(Finding(Reason.NOT_READY, Fault.HOST, run.detail))
        elif run.failure:
            reason = _RUN_REASONS.get(run.failure, Reason.CRASH)
            found.append(Finding(reason, Fault.RUN, run.detail))
        elif allowed is not None and run.train_seconds is not None and run.train_seconds > allowed:
            found.append(
                Finding(
                    Reason.OVER_BUDGET,
                    Fault.RUN,
                    f"It trained for {run.train_seconds:.1f} s by this host's clock, {allowed:.1f} s are allowed.",
                )
            )
    return found


@dataclass(frozen=True, slots=True)
class Judged:
    """The evidence of a case with the numbers behind it."""

    evidence: Evidence
    comparison: LookEvidence | None
    fresh: FreshResult | None
    score: int | None
    metric: Decimal | None

    def as_json(self) -> dict[str, Any]:
        """The numbers as an attestation holds them; an open limit of an interval is null."""
        first, second = self.comparison, self.fresh
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
            }
            if first
            else None,
            "freshComparison": {
                "outcome": second.outcome.value,
                "delta": second.delta,
                "interval": [second.low, second.high],
            }
            if second
            else None,
            "score": {"verified": self.score, "metric": str(self.metric) if self.metric is not None else None},
        }


def judge(
    findings: Sequence[Finding],
    runs: Sequence[ReplayRun],
    *,
    noise: NoiseRecord,
    seed: int,
    budget_seconds: float,
    method: str,
    best_score: int,
    convention: score.Convention,
    policy: Policy,
) -> Judged:
    """From findings and samples to evidence; pure, so that an auditor gets the same from an attestation.

    The score is anchored: the best metric on chain, moved by the gain measured here.
    """
    found = [*findings, *run_findings(runs, budget_seconds, policy.budget)]
    outcome, evidence = compared(runs, noise, policy.comparison, seed, policy.suggestive)
    second, anchored, metric, improves = None, None, None, True
    if evidence is not None:
        second = fresh_outcome(runs, evidence.delta, noise, policy.fresh)
        gain = Decimal(repr(round(evidence.delta, 6)))
        metric = convention.to_metric(best_score) + (-gain if convention.minimize else gain)
        anchored = convention.to_score(metric)
        improves = anchored > best_score
    if runs and method == SELF_REPORTED and outcome is Outcome.BETTER:
        found.append(
            Finding(Reason.SELF_REPORTED, Fault.HOST, "The value is the candidate's own word: nothing proves it.")
        )
    fresh_answer = second.outcome if second else Outcome.MISSING
    return Judged(Evidence(tuple(found), outcome, fresh_answer, improves), evidence, second, anchored, metric)
