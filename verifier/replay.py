"""The verifier's replay of a case: prepare this machine, measure both arms, gather the evidence for a verdict.

`trainer.judging` runs the arms and judges the numbers. Here is what only a verifier needs: whether this machine may
judge the case, and what goes on chain. `judge` and what it calls are pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from chain.errors import ChainError
from chain.money import score
from common.terminal import View
from trainer.errors import TrainerError
from trainer.judging import judge as judging
from trainer.judging.judge import Judgement, values
from trainer.judging.policy import JudgePolicy
from trainer.judging.replay import draw_holdout
from trainer.judging.replay import replay as run_both
from trainer.judging.runs import ReplayRun
from trainer.judging.verdict import CaseFinding, Fault, Reason
from trainer.measurement.bench import Bench, open_bench
from trainer.statistics.comparison import Arm
from trainer.statistics.noise import NoiseRecord
from verifier.intake import Case, not_ready


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay found. `holdout_source` says where the holdout text is from; `decision` is None without one."""

    bench: Bench | None
    runs: tuple[ReplayRun, ...]
    noise: NoiseRecord
    seed: int
    holdout_source: str
    holdout_sha256: str
    findings: tuple[CaseFinding, ...]


def replay(
    case: Case,
    policy: JudgePolicy,
    *,
    home: Path,
    holdout_seed: bytes,
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
    runs: list[ReplayRun] = []
    noise = bench.noise()
    try:
        return _measure(case, bench, policy, holdout_seed, order_seed, view, noise, runs)
    except (TrainerError, ChainError, OSError) as error:  # what was measured before stands
        return replace(empty, bench=bench, runs=tuple(runs), noise=noise, findings=(not_ready(error),))


def _measure(
    case: Case,
    bench: Bench,
    policy: JudgePolicy,
    holdout_seed: bytes,
    order_seed: int,
    view: View,
    noise: NoiseRecord,
    runs: list[ReplayRun],
) -> Replay:
    """The whole measurement; each run is in `runs` as soon as it is made."""
    with ExitStack() as stack:
        with view.step("drawing holdout text") as word:
            public = not case.task.benchmark.data_arguments
            drawn = draw_holdout(bench, policy.holdout, holdout_seed, public=public, say=word)
            rows, bench = stack.enter_context(drawn)
        if rows is not None:
            view.say(f"holdout text: {rows.source}")
        run_both(
            bench,
            {Arm.INCUMBENT: case.task.incumbent, Arm.CANDIDATE: case.candidate},
            rows,
            policy=policy,
            noise=noise,
            seed=order_seed,
            view=view,
            on_run=lambda entry, _: runs.append(entry),
        )
    bench.learn_noise([values(runs, Arm.INCUMBENT)])  # never from a candidate, whose author could make it say anything
    source, digest = (rows.source, rows.sha256) if rows else ("", "")
    return Replay(bench, tuple(runs), noise, order_seed, source, digest, ())


# --- judging ---


def machine_findings(case: Case, hardware_class: str, data_snapshot: str, policy: JudgePolicy) -> list[CaseFinding]:
    """Whether this machine may judge the case: the miner's hardware class and data must be its own."""
    if case.proposal is None or not policy.same_hardware:
        return []
    found = []
    if case.miner_class != hardware_class:
        said = case.miner_class or "nothing"
        found.append(
            CaseFinding(
                Reason.HARDWARE_DIFFERS,
                Fault.HOST,
                f"The miner's log says hardware {said[:64]!r}, this machine is {hardware_class!r}.",
            )
        )
    if case.miner_data and case.miner_data != data_snapshot:
        found.append(
            CaseFinding(
                Reason.DATA_DIFFERS,
                Fault.HOST,
                f"The miner measured on data {case.miner_data[:16]!r}, this machine has {data_snapshot[:16]!r}.",
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class Judged(Judgement):
    """A judgement, and what it would put on chain."""

    score: int | None = None
    metric: Decimal | None = None

    def as_json(self) -> dict[str, Any]:
        """The numbers as an attestation holds them."""
        metric = str(self.metric) if self.metric is not None else None
        return {**Judgement.as_json(self), "score": {"verified": self.score, "metric": metric}}


def judge(
    findings: Sequence[CaseFinding],
    runs: Sequence[ReplayRun],
    *,
    noise: NoiseRecord,
    seed: int,
    budget_seconds: float,
    method: str,
    best_score: int,
    convention: score.Convention,
    policy: JudgePolicy,
) -> Judged:
    """From findings and samples to evidence; pure, so that an auditor gets the same from an attestation.

    The score is anchored: the best metric on chain, moved by the gain measured here.
    """
    found = judging.judge(
        findings, runs, noise=noise, seed=seed, budget_seconds=budget_seconds, method=method, policy=policy
    )
    if found.comparison is None:
        return Judged(found.evidence)
    gain = Decimal(repr(round(found.comparison.delta, 6)))
    metric = convention.to_metric(best_score) + (-gain if convention.minimize else gain)
    anchored = convention.to_score(metric)
    evidence = replace(found.evidence, improves_chain=anchored > best_score)
    return Judged(evidence, found.comparison, found.holdout, anchored, metric)
