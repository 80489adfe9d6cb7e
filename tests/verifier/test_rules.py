"""The rules' version: whoever changes what follows from the same runs raises it, or old attestations look forged."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from typing import Any

import pytest

from chain.money.score import Convention
from tests.trainer.judging.cases import SIGMA, replay_run
from trainer.judging import trial
from trainer.judging.ladder import INCUMBENT, SNAPSHOT, Known, Rung, footing
from trainer.judging.policy import RULES_VERSION, JudgePolicy
from trainer.judging.runs import ReplayRun
from trainer.judging.verdict import CaseFinding, Fault, Reason, VerdictKind, decide
from trainer.measurement.bench import SELF_REPORTED, TRUSTED
from trainer.statistics import comparison
from trainer.statistics.noise import NoiseRecord
from verifier.replay import judge

FAILURES = (
    *("crash", "no_evaluation", "over_budget", "out_of_memory", "non_causal", "non_finite", "bad_output"),
    *("not_exportable", "out_of_range", "unfit", "host"),
)
CASES = 300
KNOWN = {1: "57d402da1da99817f640e40698073f149ba5470935accd65eaabd76bd6c661e2"}
"""By the rules' version, the digest of what they make of the cases below."""


def some_runs(rng: random.Random, gain: float, fresh_gain: float) -> list[ReplayRun]:
    """Leading runs of the incumbent and pairs, with what happens to runs: some diverge, fail, or take longer."""
    loud, odd = rng.choice([1.0, 1.0, 3.0]), rng.choice([0.0, 0.0, 0.2])
    failure, often = rng.choice(FAILURES), rng.choice([0.0, 0.0, 0.1, 0.5])
    bound, unscored = rng.choice([1e-5] * 5 + [0.5]), rng.random() < 0.1
    found = []
    for arm in [INCUMBENT] * 3 + [INCUMBENT, "candidate"] * 12:
        better, fresher = (gain, fresh_gain) if arm == "candidate" else (0.0, 0.0)
        scatter = SIGMA * (loud if arm == "candidate" else 1.0)
        far = rng.choice([1, 1, -1]) * rng.uniform(3, 15) * SIGMA if rng.random() < odd else 0.0
        run = replay_run(arm, 2.5 - better + far + rng.gauss(0, scatter), 2.6 - fresher + far + rng.gauss(0, scatter))
        if rng.random() < (often if arm == "candidate" else often / 10):
            run = replace(run, val_bpb=None, holdout_bpb=None, holdout_blocks=None, failure=failure, detail=failure)
        elif arm == "candidate" and rng.random() < odd:
            run = replace(
                run,
                train_seconds=6.5 + rng.choice([0.5, 3.0]),
                overtime={"seconds": 0.5, "slope": -0.01, "error": 0.002, "bpb": 0.004},
            )
        if arm == "candidate" and run.probes:
            run = replace(run, probes={**run.probes, "gain_bound": bound})
        if unscored:
            run = replace(run, holdout_bpb=None, holdout_blocks=None)
        if rng.random() < odd / 10:
            run = replace(run, conditions=("machine overloaded: other programs' load is 3",))
        found.append(run)
    return found


def plain(value: Any) -> Any:
    """JSON with floats to six digits, in which all machines agree."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else None
    return str(value) if isinstance(value, Decimal) else value


def said_by_the_rules(rng: random.Random) -> tuple[Reason, Any]:
    """What the rules make of a case drawn by `rng`."""
    gain = rng.choice([-0.02, 0.0, 0.0, 0.02, 0.05, 0.1])
    runs = some_runs(rng, gain, rng.choice([gain, gain, gain / 3, -gain]))
    df = rng.choice([0.0, 3.0, 40.0])
    noise = NoiseRecord(df * SIGMA**2 * rng.choice([1.0, 0.3]), df)
    policy = JudgePolicy().with_margin(rng.choice([0.0, 0.0, 0.004])).at_look(rng.choice([1, 1, 2]))
    findings = rng.choice([[]] * 12 + [[CaseFinding(reason, fault, "found")] for reason, fault in FOUND])
    known = Known(tuple(2.6 + rng.gauss(0, SIGMA) for _ in range(3)), rng.random() < 0.5)
    rungs = [Rung(INCUMBENT, 0.1 + rng.choice([0.0, 0.1])), Rung("proposal 3", 0.04), Rung(SNAPSHOT, 0.0)]
    runs += [replay_run("proposal 3", 2.5 + rng.gauss(0, SIGMA), 2.6) for _ in range(15)]
    stood = footing(rungs, runs, known, noise, policy.ladder)
    judged = judge(
        findings,
        runs,
        noise=noise,
        seed=rng.randrange(1 << 32),
        budget_seconds=6.0,
        method=rng.choice([TRUSTED] * 9 + [SELF_REPORTED]),
        best_score=rng.choice([0, 100_000]),
        convention=Convention("reflected", 2_500_000),
        policy=policy,
        reference=rng.choice([INCUMBENT] * 5 + ["proposal 3"]),
        reference_score=rng.choice([None, 0]),
        over=rng.choice([None, (0, gain + 0.1)]),
    )
    verdict = decide(judged.evidence, policy.verdict)
    ground = {"ask": stood.ask, "notes": stood.notes, "reference": stood.reference and stood.reference.arm}
    return verdict.reason, [verdict.as_json(), judged.as_json(), ground]


NUMBERS = (
    *(comparison.PAIRS_SHARE, comparison.WELCH_SHARE, comparison.OTHERS_SHARE, comparison.WELCH_FREEDOM),
    *(comparison.OUTLIER, comparison.MOST_APART, comparison.DIVERGED, trial.MAX_FAILURES, trial.MAX_UNFIT),
)
"""Those that no policy has, some of which few cases depend on."""

OF_BYTES_AND_HOST = {
    Reason.HASH_MISMATCH,
    Reason.FORBIDDEN_CHANGE,
    Reason.ARTIFACT_UNAVAILABLE,
    Reason.HARDWARE_DIFFERS,
}
"""Reasons that are only found beside the runs, where one of their kind stands for all."""

FOUND: Sequence[tuple[Reason, Fault]] = (
    (Reason.SOURCE_TOO_LARGE, Fault.BYTES),
    (Reason.MALFORMED_ARCHIVE, Fault.FORM),
    (Reason.DATA_DIFFERS, Fault.HOST),
    (Reason.CRASH, Fault.RUN),
)


@pytest.fixture(scope="module")
def said() -> list[tuple[Reason, Any]]:
    rng = random.Random(1)
    return [said_by_the_rules(rng) for _ in range(CASES)]


def test_other_rules_have_another_version(said: Sequence[tuple[Reason, Any]]) -> None:
    everything = [JudgePolicy().as_json(), NUMBERS, *(plain(case) for _, case in said)]
    digest = sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()
    assert KNOWN.get(RULES_VERSION) == digest, (
        "Other rules: raise trainer.judging.policy.RULES_VERSION, and enter its digest here."
    )


def test_the_cases_are_of_all_kinds(said: Sequence[tuple[Reason, Any]]) -> None:
    """Else a rule could change and no case would notice."""
    found = Counter(reason for reason, _ in said)
    assert {case[0]["kind"] for _, case in said} == set(VerdictKind)
    of_numbers = set(Reason) - OF_BYTES_AND_HOST
    assert of_numbers <= found.keys(), of_numbers - found.keys()
