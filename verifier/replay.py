"""Replay: measure incumbent and candidate on this machine and gather the evidence for a verdict.

Both arms run interleaved in random order, each run in a fresh sandbox, until the comparison has an answer.
Every run is scored twice: on the validation rows and on fresh rows drawn by the submission's slot hash.
The functions that judge (`run_findings`, `compared`, `fresh_outcome`, `judge`) are pure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from chain import score
from chain.errors import ChainError
from trainer import comparison, trial
from trainer.bench import SELF_REPORTED, Bench, open_bench
from trainer.comparison import Arm, NoiseRecord
from trainer.errors import TrainerError
from trainer.measurement import Measurer
from trainer.measurement.scoring import Losses, Tokens
from trainer.trial import Run
from trainer.view import View
from verifier import fresh
from verifier.intake import Case, not_ready
from verifier.policy import Budget, Fresh, Policy
from verifier.verdict import Evidence, Fault, Finding, Outcome, Reason


@dataclass(frozen=True, slots=True)
class ReplayRun:
    """One run as an attestation holds it; bpb values are None where there is none, times in seconds."""

    arm: str
    val_bpb: float | None
    fresh_bpb: float | None
    train_seconds: float | None
    seconds: float
    failure: str
    detail: str
    code_sha256: str
    graph_sha256: str | None
    probes: dict[str, Any] | None
    fresh_probes: dict[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


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
    rows: Tokens | None = None
    source, digest = "", ""
    if bench.measurer is not None:
        with view.step("drawing fresh text") as word:
            text, rows, bench = _fresh_rows(case, bench, policy.fresh, folder, fresh_seed, word)
            source, digest = text.source, text.sha256
        view.say(f"fresh text: {source}")
    trees = {Arm.INCUMBENT: case.task.incumbent, Arm.CANDIDATE: case.candidate}
    runs: list[ReplayRun] = []
    losses: Losses | None = None
    seconds = bench.usual_seconds

    def execute(arm: Arm) -> Run:
        nonlocal losses, seconds
        with view.step(f"run {len(runs) + 1} ({arm.value})", seconds) as word:
            run = bench.measure(
                arm,
                trees[arm],
                word,
                incumbent_losses=losses if arm is Arm.CANDIDATE else None,
                keep_graph=True,
            )
            second = _score_fresh(bench.measurer, run, rows, policy.fresh)
        if arm is Arm.INCUMBENT and run.measurement is not None and run.measurement.losses is not None:
            losses = run.measurement.losses
        entry = _entry(run, trees[arm], second)
        runs.append(entry)
        seconds = statistics.median(r.seconds for r in runs)
        shown = f"{entry.val_bpb:.6f} val_bpb" if entry.val_bpb is not None else f"{entry.failure}: {entry.detail}"
        if entry.fresh_bpb is not None:
            shown += f", {entry.fresh_bpb:.6f} on fresh text"
        view.say(f"  run {len(runs)}  {arm.value:<9}  {shown}  ({entry.seconds:.1f} s)")
        failed = replace(run, val_bpb=None, failure=entry.failure) if entry.failure else run
        return replace(failed, measurement=None)

    trial.compare(execute, history=[], noise=noise, policy=policy.comparison, seed=order_seed)
    bench.learn_noise([values(runs, Arm.INCUMBENT)])  # never from a candidate, whose author could make it say anything
    return Replay(bench, tuple(runs), noise, order_seed, source, digest, ())


def _fresh_rows(
    case: Case, bench: Bench, policy: Fresh, folder: Path, seed: bytes, say: Callable[[str], None]
) -> tuple[fresh.FreshText, Tokens, Bench]:
    """Fresh rows, and the bench on the data that does not show them."""
    assert bench.measurer is not None
    facts = bench.measurer.facts
    count = max(1, min(len(facts.rows), policy.tokens // facts.length))
    # A token stands for at least two bytes of text on average; what is too much is cut below.
    enough = 5 * count * (facts.length + 1)
    text = fresh.fresh_text(
        bench.cache,
        folder,
        seed,
        enough,
        val_filename=facts.val_filename,
        public=not case.task.benchmark.data_arguments,
        say=say,
    )
    rows = bench.measurer.encode(text.texts)[:count]
    if text.view != bench.cache:
        bench = bench.on_view(text.view)
    return text, rows, bench


def _score_fresh(
    measurer: Measurer | None, run: Run, rows: Tokens | None, policy: Fresh
) -> tuple[float | None, dict[str, Any] | None, str, str]:
    """(bpb, probes, failure, detail) of a measured run's graph on the fresh rows; its graph is then removed."""
    if measurer is None or run.measurement is None or rows is None:
        return None, None, "", ""
    try:
        if run.val_bpb is None or run.measurement.graph is None:
            return None, None, "", ""
        second = measurer.score(run.measurement.graph, rows, probes=policy.probes)
        first = second.findings[0] if second.findings else None
        return (
            second.val_bpb,
            _probes(second.probes),
            str(first.failure) if first else "",
            f"On fresh text: {first.detail}" if first else "",
        )
    finally:
        measurer.discard(run.measurement)


def _entry(
    run: Run, tree: Mapping[str, bytes], second: tuple[float | None, dict[str, Any] | None, str, str]
) -> ReplayRun:
    from hashlib import sha256

    found = run.measurement
    fresh_bpb, fresh_probes, failure, detail = second
    return ReplayRun(
        run.arm.value,
        None if failure else run.val_bpb,
        fresh_bpb,
        found.train_seconds if found else None,
        round(run.seconds, 3),
        run.failure or failure,
        run.detail or detail,
        sha256(tree["train.py"]).hexdigest() if "train.py" in tree else "",
        found.graph_sha256 if found else None,
        _probes(found.probes) if found else None,
        fresh_probes,
    )


def _probes(report: Any) -> dict[str, Any] | None:
    if report is None:
        return None
    return {
        "count": len(report.probes),
        "mean": report.mean,
        "worst": report.worst,
        "gain_bound": report.gain_bound,
        "share_bound": report.share_bound,
    }


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


def allowed_seconds(runs: Sequence[ReplayRun], budget_seconds: float, policy: Budget) -> float | None:
    """Seconds from start to evaluation that a candidate may take: the budget, the slowest incumbent's overhead
    here, and the grace. None without an incumbent's time to go by.
    """
    times = [run.train_seconds for run in runs if run.arm == "incumbent" and run.train_seconds is not None]
    if not times:
        return None
    overhead = max(0.0, max(times) - budget_seconds)
    return budget_seconds + overhead + max(policy.grace_seconds, policy.grace_share * budget_seconds)


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


def values(runs: Sequence[ReplayRun], arm: Arm, *, on_fresh: bool = False) -> list[float]:
    """The values of an arm in the order they were measured."""
    found = [run.fresh_bpb if on_fresh else run.val_bpb for run in runs if run.arm == arm.value]
    return [value for value in found if value is not None]


def suggested(evidence: comparison.Evidence, level: float) -> bool:
    """Whether a single one-sided t test at `level` would call the gain positive."""
    reach = comparison.approval_point(evidence.df, level) * evidence.sigma
    return evidence.delta > reach * math.sqrt(1 / evidence.incumbent_runs + 1 / evidence.candidate_runs)


def compared(
    runs: Sequence[ReplayRun], noise: NoiseRecord, policy: comparison.Policy, seed: int, suggestive: float
) -> tuple[Outcome, comparison.Evidence | None]:
    """The sequential comparison's answer on these runs, the same for everybody who has them."""
    incumbent, candidate = values(runs, Arm.INCUMBENT), values(runs, Arm.CANDIDATE)
    if not incumbent or not candidate:
        return Outcome.MISSING, None
    decision = comparison.decide(comparison.Samples(incumbent, candidate), noise, policy, seed=seed)
    outcome = {
        comparison.Kind.APPROVE: Outcome.BETTER,
        comparison.Kind.REJECT: Outcome.NOT_BETTER,
        comparison.Kind.UNDECIDED: Outcome.UNDECIDED,
        comparison.Kind.CONTINUE: Outcome.MISSING,
    }[decision.kind]
    # Louder runs than this machine's record knows, or a gain that is at least suggested, may be a true gain that
    # this machine cannot show: that is no miner's fault.
    seen = decision.evidence
    if outcome is Outcome.NOT_BETTER and seen is not None and (seen.noisier or suggested(seen, suggestive)):
        outcome = Outcome.UNDECIDED
    return outcome, decision.evidence


@dataclass(frozen=True, slots=True)
class FreshResult:
    """The gain on fresh text in bpb, its one-sided limits at the policy's level, and what it says."""

    outcome: Outcome
    delta: float
    low: float
    high: float


def fresh_outcome(runs: Sequence[ReplayRun], gain: float, noise: NoiseRecord, policy: Fresh) -> FreshResult | None:
    """Whether the gain holds on fresh text. None where no run was scored on any.

    Vanished: the upper limit of the fresh gain is below `least_share` of the gain on validation, so that a small
    true gain cannot carry a memorised one. Else better: its lower limit is above zero. Limits are Student's,
    one-sided at `alpha`, with the variance pooled from both arms and the machine's record.
    """
    incumbent = values(runs, Arm.INCUMBENT, on_fresh=True)
    candidate = values(runs, Arm.CANDIDATE, on_fresh=True)
    freedom = len(incumbent) + len(candidate) - 2 + noise.df
    if not incumbent or not candidate or freedom < 1:
        return None
    delta = statistics.fmean(incumbent) - statistics.fmean(candidate)
    squares = sum(sum((v - statistics.fmean(group)) ** 2 for v in group) for group in (incumbent, candidate))
    sigma = max(math.sqrt((squares + noise.sum_squares) / freedom), 1e-6)
    reach = comparison.approval_point(float(freedom), policy.alpha) * sigma
    reach *= math.sqrt(1 / len(incumbent) + 1 / len(candidate))
    low, high = delta - reach, delta + reach
    if high < policy.least_share * gain:
        outcome = Outcome.NOT_BETTER
    elif low > 0:
        outcome = Outcome.BETTER
    else:
        outcome = Outcome.UNDECIDED
    return FreshResult(outcome, delta, low, high)


@dataclass(frozen=True, slots=True)
class Judged:
    """The evidence of a case with the numbers behind it."""

    evidence: Evidence
    comparison: comparison.Evidence | None
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
