"""The verifier's replay of a case: prepare this machine, measure both arms, gather the evidence for a verdict.

`trainer.judging` runs the arms and judges the numbers. Here is what only a verifier needs: whether this machine may
judge the case, and what goes on chain. `judge` and what it calls are pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

from chain.errors import ChainError
from chain.money import score
from common.terminal import View
from trainer.errors import TrainerError
from trainer.judging import judge as judging
from trainer.judging.climb import Climb, Step, asked, climb, of_this_machine
from trainer.judging.judge import Judgement
from trainer.judging.ladder import INCUMBENT, Known, Rung, anchored, footing, lead, over_snapshot
from trainer.judging.policy import JudgePolicy
from trainer.judging.replay import draw_holdout
from trainer.judging.runs import ReplayRun
from trainer.judging.verdict import CaseFinding, Fault, Reason
from trainer.machine import awake, hardware
from trainer.machine.hardware import Fingerprint
from trainer.machine.watch import Watch
from trainer.measurement.bench import Bench, open_bench
from trainer.project import bundle
from trainer.statistics.noise import NoiseRecord
from verifier import ladder
from verifier.intake import Case, not_ready
from verifier.ladder import EarlierBest
from verifier.record import ReplayRecord

GIB = 1 << 30


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
    footing: Ground | None = None


@dataclass(frozen=True, slots=True)
class Ground:
    """What the candidate was judged against, where the incumbent is not the snapshot itself.

    `steps` is the whole ladder, `known` what was known of the snapshot before, `notes` say what was stepped over;
    `after` is the number of runs that this was decided by.
    """

    steps: tuple[EarlierBest, ...]
    reference: EarlierBest
    known: Known
    notes: tuple[str, ...]
    after: int

    def over_snapshot(self, runs: Sequence[ReplayRun]) -> tuple[int, float] | None:
        """The snapshot's score, and the candidate's gain over it measured here (bpb); None where it was not."""
        shown = over_snapshot(runs, self.known)
        return None if shown is None else (self.steps[-1].score, shown)

    @property
    def rungs(self) -> list[Rung]:
        return [step.rung(self.steps[-1].score) for step in self.steps]

    @property
    def lead(self) -> float:
        """What the best on chain is ahead of the reference, in bpb."""
        return lead(self.rungs, self.reference.rung(self.steps[-1].score))

    def follows(self, runs: Sequence[ReplayRun], noise: NoiseRecord, policy: JudgePolicy) -> bool:
        """Whether the rules give this reference for these runs, under the policy before any lead."""
        runs = runs[: self.after]
        if not asked(runs, noise, policy):
            return (self.reference.arm, self.notes) == (INCUMBENT, ())
        found = footing(self.rungs, runs, self.known, noise, policy.ladder)
        return found.reference is not None and (found.reference.arm, found.notes) == (self.reference.arm, self.notes)

    @classmethod
    def of(cls, found: Climb, steps: Sequence[EarlierBest]) -> Ground:
        """What a climb of the ladder `steps` came to."""
        (reference,) = (step for step in steps if step.arm == found.reference)
        return cls(tuple(steps), reference, found.known, found.notes, found.after)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Ground:
        """The inverse of `as_json`, without the rungs' codes."""
        steps = tuple(EarlierBest(rung["arm"], rung["score"], {}) for rung in document["rungs"])
        (reference,) = (step for step in steps if step.arm == document["reference"])
        known = Known(tuple(document["known"]["values"]), document["known"]["fresh"])
        return cls(steps, reference, known, tuple(document["notes"]), document["after"])

    def as_json(self) -> dict[str, Any]:
        """The ladder as an attestation holds it."""
        return {
            "reference": self.reference.arm,
            "rungs": [
                {"arm": step.arm, "score": step.score, "code": sha256(step.tree.get("train.py", b"")).hexdigest()}
                for step in self.steps
            ],
            "known": {"values": list(self.known.values), "fresh": self.known.fresh},
            "notes": list(self.notes),
            "after": self.after,
        }


def replay(
    case: Case,
    policy: JudgePolicy,
    *,
    home: Path,
    holdout_seed: bytes,
    record: Path | None,
    view: View,
    isolated: bool = True,
    trust_harness: bool = False,
) -> Replay:
    """Measure a case. What may be this host's fault is a finding that releases, never an exception."""
    empty = Replay(None, (), NoiseRecord(), 0, "", "", ())
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
    view.say(f"this machine: {bench.machine.hardware_class}, measured in a sandbox ({bench.isolation})")
    for note in (*case.task.notes, *machine_notes(case, bench.data_snapshot)):
        view.say(note, style="yellow")
    differing = machine_findings(case, bench.machine, bench.data_snapshot, policy)
    if unfit := Watch(bench.protocol.execution.training_seconds, view.say, bench.home).refused():
        detail = f"This machine is not fit to judge anyone's code now: {', '.join(unfit)}."
        differing.append(CaseFinding(Reason.NOT_READY, Fault.HOST, detail))
    if differing:
        return replace(empty, bench=bench, findings=tuple(differing))
    kept = ReplayRecord(record, _question(case, bench, policy, holdout_seed), bench.noise())
    if kept.runs:
        view.say(f"{len(kept.runs)} runs of an earlier check of this proposal enter the same test")
    try:
        with awake.kept():
            return _measure(case, bench, policy, holdout_seed, view, kept)
    except (TrainerError, ChainError, OSError) as error:  # what was measured before stands
        return replace(
            empty,
            bench=bench,
            runs=tuple(kept.runs),
            noise=kept.noise,
            seed=kept.seed,
            findings=(not_ready(error),),
        )


def _question(case: Case, bench: Bench, policy: JudgePolicy, holdout_seed: bytes) -> dict[str, str]:
    """What runs must have in common to enter one test."""
    return {
        "candidate": bundle.digest(case.candidate),
        "incumbent": bundle.digest(case.task.incumbent),
        "protocol": sha256(case.task.protocol_bytes).hexdigest(),
        "data": bench.data_snapshot,
        "environment": bench.environment.packages_digest,
        "machine": f"{bench.machine.hardware_class}/{bench.machine.platform}/{bench.isolation}/{bench.method}",
        "holdout": f"{holdout_seed.hex()}/{policy.holdout.tokens}/{policy.holdout.probes}",
    }


def _measure(
    case: Case,
    bench: Bench,
    policy: JudgePolicy,
    holdout_seed: bytes,
    view: View,
    kept: ReplayRecord,
) -> Replay:
    """The whole measurement; each run is in `kept` as soon as it is made."""
    noise, seed, before = kept.noise, kept.seed, len(kept.runs)
    with ExitStack() as stack:
        with view.step("drawing holdout text") as word:
            public = not case.task.benchmark.data_arguments
            drawn = draw_holdout(bench, policy.holdout, holdout_seed, public=public, say=word)
            rows, bench = stack.enter_context(drawn)
        if rows is not None:
            view.say(f"holdout text: {rows.source}")

        steps = ladder.above(case.project, case.task, case.below)
        found = climb(
            bench,
            [Step(step.rung(steps[-1].score), step.tree) for step in steps],
            case.candidate,
            rows,
            policy=policy,
            noise=noise,
            seed=seed,
            view=view,
            done=tuple(kept.runs),
            on_run=kept.add,
            smaller=smaller(case, bench.machine),
        )
    bench.learn_noise(of_this_machine(found, before, noise, policy))
    source, digest = (rows.source, rows.sha256) if rows else ("", "")
    ground = Ground.of(found, steps) if case.below else None
    return Replay(bench, tuple(kept.runs), noise, seed, source, digest, (), ground)


# --- judging ---

_ANYWAY = "To judge it anyway, set `same_hardware = false` in a file and give it as --policy FILE."


def machine_findings(case: Case, machine: Fingerprint, data_snapshot: str, policy: JudgePolicy) -> list[CaseFinding]:
    """Whether this machine may judge the case: what the miner states of class, system, MLX and data must be so here.

    A miner that states nothing may be judged, since the gain is measured here: other clients' miners name no class, or
    the class alone. So may other data where the project pins none.
    """
    if case.proposal is None or not policy.same_hardware:
        return []
    found = []
    wanted, words = case.task.benchmark.data_snapshot, ""
    if machine.doubt:
        found.append(CaseFinding(Reason.HARDWARE_DIFFERS, Fault.HOST, f"This machine has no class: {machine.doubt}."))
    elif case.miner_class and case.miner_class != machine.hardware_class:
        words = f"The miner measured on {case.miner_class[:64]!r}; this machine is {machine.hardware_class!r}."
    elif case.miner_platform and case.miner_platform != machine.platform:
        words = f"The miner measured on {case.miner_platform[:64]!r}; this machine has {machine.platform!r}."
    if words:
        found.append(CaseFinding(Reason.HARDWARE_DIFFERS, Fault.HOST, f"{words} {_ANYWAY}"))
    if wanted and case.miner_data and case.miner_data != data_snapshot:
        words = f"The miner measured on data {case.miner_data[:16]!r}; this machine has {data_snapshot[:16]!r}."
        found.append(CaseFinding(Reason.DATA_DIFFERS, Fault.HOST, f"{words} {_ANYWAY}"))
    return found


def machine_notes(case: Case, data_snapshot: str) -> list[str]:
    """What the miner left open about its machine, or has otherwise where it does not matter, for whoever verifies."""
    if case.proposal is None:
        return []
    found = []
    if not case.miner_class:
        found.append("The proposal states no hardware class; its gain is measured on this machine.")
    if not case.task.benchmark.data_snapshot and case.miner_data not in ("", data_snapshot):
        found.append(f"The miner measured on other data, {case.miner_data[:16]!r}, and the project pins none.")
    return found


def smaller(case: Case, machine: Fingerprint) -> str:
    """Why running out of memory here is no fault of the candidate, as words; "" where it is.

    A miner's word that it had more only turns a rejection into a release, which gives no stake back.
    """
    if case.proposal is None or not hardware.smaller(machine.device_memory_bytes, case.miner_memory):
        return ""
    theirs = f"had {case.miner_memory / GIB:.1f} GiB" if case.miner_memory else "did not say how much memory it had"
    return f"its miner {theirs}, MLX may use {machine.device_memory_bytes / GIB:.1f} GiB on this machine"


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
    reference: str = INCUMBENT,
    reference_score: int | None = None,
    over: tuple[int, float] | None = None,
) -> Judged:
    """From findings and samples to evidence; pure, so that an auditor gets the same from an attestation.

    The score is anchored: that of the reference on chain, which is the best unless `reference_score` says otherwise,
    moved by the gain measured here. `over`, where there is a ladder, has the snapshot's score and the candidate's gain
    over it (`Ground.over_snapshot`), which the score follows in part; what beats the best stays above it.
    """
    found = judging.judge(
        findings,
        runs,
        noise=noise,
        seed=seed,
        budget_seconds=budget_seconds,
        method=method,
        policy=policy,
        reference=reference,
    )
    if found.comparison is None:
        return Judged(found.evidence, undeserved=found.undeserved)
    sign = -1 if convention.minimize else 1

    def moved(score_there: int, gain: float) -> Decimal:
        return convention.to_metric(score_there) + sign * Decimal(repr(round(gain, 6)))

    summed = moved(best_score if reference_score is None else reference_score, found.comparison.delta)
    improves = convention.to_score(summed) > best_score
    metric = summed
    if over is not None:
        base, shown = over
        before = float(sign * (summed - convention.to_metric(base)))
        metric = moved(base, anchored(before, shown, policy.ladder))
        if improves and convention.to_score(metric) <= best_score:
            metric = convention.to_metric(best_score + 1)
    evidence = replace(found.evidence, improves_chain=improves)
    return Judged(evidence, found.comparison, found.holdout, found.undeserved, convention.to_score(metric), metric)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a miner claimed on chain, beside what was measured, as metrics. `outside`: beyond the interval's ends by
    more than the interval is wide, on the side that flatters."""

    metric: Decimal
    measured: Decimal | None
    outside: bool

    @classmethod
    def of(cls, claimed_score: int, judged: Judged, convention: score.Convention) -> Claim:
        """The claim as this check sees it; nothing is outside of what was not measured."""
        claimed, seen = convention.to_metric(claimed_score), judged.comparison
        if judged.metric is None or seen is None:
            return cls(claimed, None, False)
        better = float(judged.metric - claimed) * (1 if convention.minimize else -1)
        return cls(claimed, judged.metric, better > (seen.high - seen.delta) + (seen.high - seen.low))

    def as_json(self) -> dict[str, Any]:
        """The fields as an attestation holds them."""
        measured = str(self.measured) if self.measured is not None else None
        return {"metric": str(self.metric), "measured": measured, "outside": self.outside}

    def text(self) -> str:
        """One line for people."""
        if self.measured is None:
            return f"claimed {self.metric:.6f}; nothing was measured to compare it with"
        if self.metric * self.measured < 0:
            words = "the claim does not fit the project's convention"
        else:
            words = "far better than what was measured" if self.outside else "as measured, within the noise"
        return f"claimed {self.metric:.6f}, measured {self.measured:.6f}: {words}"
