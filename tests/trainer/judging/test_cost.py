"""What one proposal can cost a verifier at most: the figures of docs/verification.md, which no script exceeds."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import resources
from common.terminal import View
from tests import local
from tests.trainer.judging.fakes import CRASH, FakeMeasurer, bench_of
from trainer.judging.cost import most_cost
from trainer.judging.policy import JudgePolicy
from trainer.judging.replay import HoldoutRows, replay
from trainer.measurement.values import MeasurementPolicy, Phase, Reference
from trainer.project import protocol, recipe, task
from trainer.statistics.comparison import Arm
from trainer.statistics.error_rates import ComparisonPolicy
from trainer.statistics.noise import NoiseRecord

TASK = task.read(local.artifacts())
LIMITS = MeasurementPolicy(memory_bytes=8 << 30)


def held(claim: float, probes: float) -> Reference:
    return Reference(np.ones(4, np.float32), {Phase.CLAIM: claim, Phase.PROBES: probes})


@pytest.mark.parametrize(
    ("name", "incumbent", "seconds"),
    [
        ("smoke", held(0.9, 0.9), 26 + 4 * 30),
        ("smoke", None, 26 + 4 * 600),
        ("armlx", held(60.0, 5.0), 600 + 2 * 480 + 2 * 40),
        ("armlx", held(1000.0, 1000.0), 600 + 4 * 600),
    ],
)
def test_the_most_a_proposal_costs(name: str, incumbent: Reference | None, seconds: float) -> None:
    rules = protocol.parse(recipe.load(name).files["protocol.json"])
    cost = most_cost(rules, ComparisonPolicy(), LIMITS, incumbent)
    assert cost.runs == ComparisonPolicy().max_candidate_runs + 1
    assert cost.seconds == cost.runs * seconds
    assert (cost.memory_bytes, cost.disk_bytes) == (8 << 30, 512 << 20)


def test_the_documents_say_so() -> None:
    text = (resources.ROOT / "docs" / "verification.md").read_text()
    smoke, armlx = (
        most_cost(protocol.parse(recipe.load(name).files["protocol.json"]), ComparisonPolicy(), LIMITS, incumbent)
        for name, incumbent in (("smoke", held(0.9, 0.9)), ("armlx", held(60.0, 5.0)))
    )
    assert f"| candidate runs | {smoke.runs} | {armlx.runs} |" in text
    assert f"| together | {smoke.seconds / 60:.0f} minutes | {armlx.seconds / 3600:.1f} hours |" in text


@pytest.mark.parametrize("seed", range(12))
def test_no_script_gets_more_runs(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Crashes, luck and noise at the candidate's will."""
    rng = random.Random(seed)

    def script(source: bytes, run: int) -> Any:
        if source == local.TRAIN:
            return 2.5
        return CRASH if rng.random() < 0.3 else 2.5 + rng.choice((-0.3, 0.0, 0.3, 3.0))

    measurer = FakeMeasurer(script)
    bench = bench_of(TASK, tmp_path, measurer, monkeypatch)
    trees = {Arm.INCUMBENT: TASK.files, Arm.CANDIDATE: {**TASK.files, "train.py": b"other"}}
    rows = HoldoutRows("made up", "cc" * 32, np.zeros((2, 9), np.int32))
    noise = NoiseRecord(20 * 0.05**2, 20.0)
    replay(bench, trees, rows, policy=JudgePolicy(), noise=noise, seed=seed, view=View(quiet=True))
    assert measurer.runs.count(b"other") <= most_cost(bench.protocol, ComparisonPolicy(), LIMITS, None).runs
