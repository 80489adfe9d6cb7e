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

from tests.trainer.judging.cases import SIGMA, replay_run
from trainer.judging import ladder, trial
from trainer.judging.ladder import INCUMBENT, SNAPSHOT
from trainer.judging.policy import RULES_VERSION, JudgePolicy
from trainer.judging.runs import ReplayRun
from trainer.judging.verdict import CaseFinding, Fault, Reason, VerdictKind
from trainer.measurement.bench import SELF_REPORTED, TRUSTED
from trainer.statistics import comparison, text_error
from trainer.statistics.noise import NoiseRecord
from verifier import audit

CASES = 400
KNOWN = {1: "e17b4bd0538132a0af31c0538082dc18825c478fcbe4b14baa953126d05678f0"}
"""By the rules' version, the digest of what they make of the cases below."""

NUMBERS = (
    *(comparison.PAIRS_SHARE, comparison.WELCH_SHARE, comparison.OTHERS_SHARE, comparison.WELCH_FREEDOM),
    *(comparison.OUTLIER, comparison.MOST_APART, comparison.DIVERGED, trial.MAX_FAILURES, trial.MAX_UNFIT),
    *(text_error._REACH, ladder._LEAST),
)
"""Those that no policy has, some of which few cases depend on."""

FAILURES = (
    *("crash", "no_evaluation", "over_budget", "out_of_memory", "non_causal", "non_finite", "bad_output"),
    *("not_exportable", "out_of_range", "unfit", "host"),
)
FOUND = (
    (Reason.SOURCE_TOO_LARGE, Fault.BYTES),
    (Reason.HASH_MISMATCH, Fault.BYTES),
    (Reason.MALFORMED_ARCHIVE, Fault.FORM),
    (Reason.DATA_DIFFERS, Fault.HOST),
    (Reason.CRASH, Fault.RUN),
)
OF_BYTES_AND_HOST = {
    Reason.HASH_MISMATCH,
    Reason.FORBIDDEN_CHANGE,
    Reason.ARTIFACT_UNAVAILABLE,
    Reason.HARDWARE_DIFFERS,
}
"""Reasons that are only found beside the runs, where one of their kind stands for all."""

THIRD = "proposal 3"
RUNGS = ({"arm": INCUMBENT, "score": 140_000}, {"arm": THIRD, "score": 40_000}, {"arm": SNAPSHOT, "score": 0})
"""The ladder, by what each has gained over the baseline in millionths."""


def on_blocks(rng: random.Random, run: ReplayRun) -> ReplayRun:
    """With the value on holdout text divided among blocks, whose neighbours are alike."""
    if run.holdout_bpb is None:
        return run
    drift, blocks = 0.0, list[float]()
    for _ in range(15):
        drift = 0.7 * drift + rng.gauss(0, 0.002)
        blocks.append(run.holdout_bpb / 16 + drift)
    return replace(run, holdout_blocks=(*blocks, run.holdout_bpb - math.fsum(blocks)))


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
        run = on_blocks(rng, run)
        if rng.random() < (often if arm == "candidate" else often / 10):
            run = replace(run, val_bpb=None, holdout_bpb=None, holdout_blocks=None, failure=failure, detail=failure)
        elif arm == "candidate" and rng.random() < odd:
            charge = {"seconds": 0.5, "slope": -0.01, "error": 0.002, "bpb": 0.004}
            run = replace(run, train_seconds=6.5 + rng.choice([0.5, 3.0]), overtime=charge)
        if arm == "candidate" and run.probes:
            run = replace(run, probes={**run.probes, "gain_bound": bound})
        if unscored:
            run = replace(run, holdout_bpb=None, holdout_blocks=None)
        if rng.random() < odd / 10:
            run = replace(run, conditions=("machine overloaded: other programs' load is 3",))
        found.append(run)
    return found


def a_predicate(rng: random.Random) -> dict[str, Any]:
    """What an attestation holds of a case drawn by `rng`, as far as the rules read it."""
    gain = rng.choice([-0.02, 0.0, 0.0, 0.02, 0.05, 0.1])
    runs = some_runs(rng, gain, rng.choice([gain, gain, gain / 3, -gain]))
    df = rng.choice([0.0, 3.0, 40.0])
    policy = JudgePolicy().with_margin(rng.choice([0.0, 0.0, 0.004])).at_look(rng.choice([1, 1, 2]))
    findings = [CaseFinding(*rng.choice(FOUND), f"found {k}") for k in range(rng.choice([0] * 8 + [1, 2, 2]))]
    steps = None
    if rng.random() < 0.5:
        level = rng.choice([2.64, 2.6, 2.53])
        runs += [replay_run(SNAPSHOT, level + rng.gauss(0, SIGMA), 2.7) for _ in range(rng.choice([0, 3, 4]))]
        runs += [replay_run(THIRD, 2.5 + rng.gauss(0, SIGMA), 2.6) for _ in range(15)]
        steps = {
            "reference": rng.choice([INCUMBENT] * 4 + [THIRD] * 2 + [SNAPSHOT]),
            "rungs": RUNGS,
            "known": {"values": [level + rng.gauss(0, SIGMA) for _ in range(3)], "fresh": rng.random() < 0.5},
            "notes": [],
            "after": len(runs),
        }
    kind = rng.choice(["reflected", "reflected", "negated", "plain"])
    baseline = -2_640_000 if kind == "negated" else 2_640_000
    ground = audit._ground({"ladder": steps})
    return {
        "policy": policy.beyond(ground.lead if ground else 0.0).as_json(),
        "findings": [{"reason": f.reason.value, "fault": f.fault.value, "detail": f.detail} for f in findings],
        "runs": [run.as_json() for run in runs],
        "noise": NoiseRecord(df * SIGMA**2 * rng.choice([1.0, 0.3]), df).to_json(),
        "orderSeed": rng.randrange(1 << 32),
        "budgetSeconds": 6.0,
        "method": rng.choice([TRUSTED] * 9 + [SELF_REPORTED]),
        "baseline": {"score": baseline, "metric": "2.640000"},
        "bestScore": baseline + rng.choice([0, 140_000]),
        "minimize": kind != "plain",
        "ladder": steps,
        "claim": {"metric": f"{2.5 - rng.uniform(-0.1, 0.3):.6f}"},
    }


def plain(value: Any) -> Any:
    """JSON with floats to six digits, in which all machines agree."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else None
    return str(value) if isinstance(value, Decimal) else value


def said_by_the_rules(predicate: dict[str, Any]) -> dict[str, Any]:
    """What an auditor derives from it."""
    judged, verdict = audit.rederive(predicate)
    found = {"verdict": verdict.as_json(), "claim": audit._claim(predicate, judged), **judged.as_json()}
    if ground := audit._ground(predicate):
        runs, noise = [ReplayRun.from_json(run) for run in predicate["runs"]], NoiseRecord.from_json(predicate["noise"])
        policy = JudgePolicy.from_json(predicate["policy"])
        stood = ladder.footing(ground.rungs, runs, ground.known, noise, policy.ladder)
        found["lead"], found["follows"] = ground.lead, ground.follows(runs, noise, policy.beyond(-ground.lead))
        found["footing"] = [stood.ask, stood.notes, stood.reference and stood.reference.arm]
    return found


@pytest.fixture(scope="module")
def said() -> list[dict[str, Any]]:
    rng = random.Random(1)
    return [said_by_the_rules(a_predicate(rng)) for _ in range(CASES)]


def test_other_rules_have_another_version(said: Sequence[dict[str, Any]]) -> None:
    everything = [JudgePolicy().as_json(), NUMBERS, *map(plain, said)]
    digest = sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()
    assert KNOWN.get(RULES_VERSION) == digest, "Other rules: raise RULES_VERSION, and enter its digest here."


def test_the_cases_are_of_all_kinds(said: Sequence[dict[str, Any]]) -> None:
    """Else a rule could change and no case would notice."""
    reasons = Counter(Reason(case["verdict"]["reason"]) for case in said)
    assert {case["verdict"]["kind"] for case in said} == set(VerdictKind)
    of_runs = set(Reason) - OF_BYTES_AND_HOST
    assert of_runs <= reasons.keys(), of_runs - reasons.keys()
    assert {case["follows"] for case in said if "follows" in case} == {True, False}
    assert {case["claim"]["outside"] for case in said} == {True, False}
    assert {case["footing"][2] for case in said if "footing" in case} >= {INCUMBENT, THIRD, SNAPSHOT}
