"""Replay: both arms run interleaved on this machine, each run scored on validation and on fresh text.

The evidence that a verdict rests on, and that a miner gathers before it stakes anything: one piece of code,
so that a miner never submits what its own verifier would not approve. `replay` runs; what judges
(`allowed_seconds`, `compared`, `fresh_outcome`) is pure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any

from common.terminal import View
from trainer.judging import holdout, trial
from trainer.measurement import Measurer, ProbeReport
from trainer.measurement.bench import Bench
from trainer.measurement.run import Run
from trainer.measurement.scoring import Losses, Tokens
from trainer.statistics import comparison
from trainer.statistics.comparison import Answer, Arm, TrialSamples
from trainer.statistics.distributions import approval_point
from trainer.statistics.noise import NoiseRecord
from trainer.statistics.policy import ComparisonPolicy, LookEvidence

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Budget:
    """When a run is over its time budget: later than budget + the incumbent's own overhead here + a grace.

    The grace is the larger of `grace_seconds` and `grace_share` of the budget.
    """

    grace_seconds: float = 2.0
    grace_share: float = 0.03


@dataclass(frozen=True, slots=True)
class Fresh:
    """The second score: at most `tokens` of fresh text, `probes` of it; `alpha` is the level of its test.

    A gain that is shown to be less than `least_share` of the gain on validation does not count as one.
    """

    tokens: int = 262_144
    probes: int = 128
    alpha: float = 0.05
    least_share: float = 0.5


class Outcome(StrEnum):
    """The answer of a sequential comparison."""

    BETTER = "better"
    NOT_BETTER = "not_better"
    UNDECIDED = "undecided"
    MISSING = "missing"


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

    def as_run(self) -> Run:
        """What the comparison needs of it."""
        return Run(Arm(self.arm), self.val_bpb, self.failure, self.detail, self.seconds, None, b"")


@dataclass(frozen=True, slots=True)
class FreshRows:
    """Fresh text as rows of tokens, int32 (N, T + 1); `source` says where it is from, `sha256` is of the text."""

    source: str
    sha256: str
    rows: Tokens


def draw_fresh(
    bench: Bench, policy: Fresh, folder: Path, seed: bytes, *, public: bool, say: Say
) -> tuple[FreshRows | None, Bench]:
    """Fresh rows, and the bench on the data that does not show them; None where measurement is self-reported.

    `public` says that the data is the public dataset. EnvironmentNotReady where there is no text to be had.
    """
    if bench.measurer is None:
        return None, bench
    facts = bench.measurer.facts
    count = max(1, min(len(facts.rows), policy.tokens // facts.length))
    # A token stands for at least two bytes of text on average; what is too much is cut below.
    enough = 5 * count * (facts.length + 1)
    text = holdout.fresh_text(
        bench.cache, folder, seed, enough, val_filename=facts.val_filename, public=public, say=say
    )
    rows = bench.measurer.encode(text.texts)[:count]
    if text.view != bench.cache:
        bench = bench.on_view(text.view)
    return FreshRows(text.source, text.sha256, rows), bench


def replay(
    bench: Bench,
    trees: Mapping[Arm, Mapping[str, bytes]],
    rows: FreshRows | None,
    *,
    policy: ComparisonPolicy,
    fresh_policy: Fresh,
    noise: NoiseRecord,
    seed: int,
    view: View,
    done: Sequence[ReplayRun] = (),
    on_run: Callable[[ReplayRun, Run], None] | None = None,
) -> list[ReplayRun]:
    """Run both arms until the comparison has an answer; every run in order, those `done` before included.

    `on_run` gets each new run as soon as it is scored, for the caller's record.
    """
    runs = list(done)
    losses: Losses | None = None

    def execute(arm: Arm) -> Run:
        nonlocal losses
        seconds = statistics.median(r.seconds for r in runs) if runs else bench.usual_seconds
        with view.step(f"run {len(runs) + 1} ({arm.value})", seconds) as word:
            run = bench.measure(
                arm, trees[arm], word, incumbent_losses=losses if arm is Arm.CANDIDATE else None, keep_graph=True
            )
            second = _score_fresh(bench.measurer, run, rows, fresh_policy)
        if arm is Arm.INCUMBENT and run.measurement is not None and run.measurement.losses is not None:
            losses = run.measurement.losses
        entry = _entry(run, trees[arm], second)
        runs.append(entry)
        shown = f"{entry.val_bpb:.6f} val_bpb" if entry.val_bpb is not None else f"{entry.failure}: {entry.detail}"
        if entry.fresh_bpb is not None:
            shown += f", {entry.fresh_bpb:.6f} on fresh text"
        view.say(f"  run {len(runs)}  {arm.value:<9}  {shown}  ({entry.seconds:.1f} s)")
        if on_run:
            on_run(entry, run)
        return entry.as_run()

    trial.compare(execute, history=[], noise=noise, policy=policy, seed=seed, done=[entry.as_run() for entry in runs])
    return runs


def _score_fresh(
    measurer: Measurer | None, run: Run, rows: FreshRows | None, policy: Fresh
) -> tuple[float | None, dict[str, Any] | None, str, str]:
    """(bpb, probes, failure, detail) of a measured run's graph on the fresh rows; its graph is then removed."""
    if measurer is None or run.measurement is None or rows is None:
        return None, None, "", ""
    try:
        if run.val_bpb is None or run.measurement.graph is None:
            return None, None, "", ""
        second = measurer.score(run.measurement.graph, rows.rows, probes=policy.probes)
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


def _probes(report: ProbeReport | None) -> dict[str, Any] | None:
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


def allowed_seconds(runs: Sequence[ReplayRun], budget_seconds: float, policy: Budget) -> float | None:
    """Seconds from start to evaluation that a candidate may take: the budget, the slowest incumbent's overhead
    here, and the grace. None without an incumbent's time to go by.
    """
    times = [run.train_seconds for run in runs if run.arm == "incumbent" and run.train_seconds is not None]
    if not times:
        return None
    overhead = max(0.0, max(times) - budget_seconds)
    return budget_seconds + overhead + max(policy.grace_seconds, policy.grace_share * budget_seconds)


def values(runs: Sequence[ReplayRun], arm: Arm, *, on_fresh: bool = False) -> list[float]:
    """The values of an arm in the order they were measured."""
    found = [run.fresh_bpb if on_fresh else run.val_bpb for run in runs if run.arm == arm.value]
    return [value for value in found if value is not None]


def suggested(evidence: LookEvidence, level: float) -> bool:
    """Whether a single one-sided t test at `level` would call the gain positive."""
    reach = approval_point(evidence.df, level) * evidence.sigma
    return evidence.delta > reach * math.sqrt(1 / evidence.incumbent_runs + 1 / evidence.candidate_runs)


def compared(
    runs: Sequence[ReplayRun], noise: NoiseRecord, policy: ComparisonPolicy, seed: int, suggestive: float
) -> tuple[Outcome, LookEvidence | None]:
    """The sequential comparison's answer on these runs, the same for everybody who has them."""
    incumbent, candidate = values(runs, Arm.INCUMBENT), values(runs, Arm.CANDIDATE)
    if not incumbent or not candidate:
        return Outcome.MISSING, None
    decision = comparison.decide(TrialSamples(incumbent, candidate), noise, policy, seed=seed)
    outcome = {
        Answer.APPROVE: Outcome.BETTER,
        Answer.REJECT: Outcome.NOT_BETTER,
        Answer.UNDECIDED: Outcome.UNDECIDED,
        Answer.CONTINUE: Outcome.MISSING,
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

    Limits are Student's, one-sided at `alpha`, with the variance pooled from both arms and the machine's record.
    Better: the lower one is above zero and the upper one reaches `least_share` of the gain on validation, so that a
    small true gain cannot carry a memorised one. Vanished: neither. Else undecided: what is shown on fresh text,
    only smaller, may be an honest gain on text that is not like the validation text, which the limits, made of
    run-to-run noise, do not know (4,096 tokens of one text showed 0.39 of it, 16,384 at least 0.87).
    """
    incumbent = values(runs, Arm.INCUMBENT, on_fresh=True)
    candidate = values(runs, Arm.CANDIDATE, on_fresh=True)
    freedom = len(incumbent) + len(candidate) - 2 + noise.df
    if not incumbent or not candidate or freedom < 1:
        return None
    delta = statistics.fmean(incumbent) - statistics.fmean(candidate)
    squares = sum(sum((v - statistics.fmean(group)) ** 2 for v in group) for group in (incumbent, candidate))
    sigma = max(math.sqrt((squares + noise.sum_squares) / freedom), 1e-6)
    reach = approval_point(float(freedom), policy.alpha) * sigma
    reach *= math.sqrt(1 / len(incumbent) + 1 / len(candidate))
    low, high = delta - reach, delta + reach
    shown, whole = low > 0, high >= policy.least_share * gain
    outcome = Outcome.UNDECIDED
    if shown and whole:
        outcome = Outcome.BETTER
    elif not shown and not whole:
        outcome = Outcome.NOT_BETTER
    return FreshResult(outcome, delta, low, high)
