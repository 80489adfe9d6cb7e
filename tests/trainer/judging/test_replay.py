"""What a candidate's runs are held to: the incumbent's last run on the same rows, which therefore comes first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.terminal import View
from tests import local
from tests.trainer.judging.fakes import FakeMeasurer, bench_of
from trainer.judging.policy import JudgePolicy
from trainer.judging.replay import HoldoutRows, replay
from trainer.measurement.bench import Bench
from trainer.measurement.values import Measurement, Reference, Score
from trainer.project import task
from trainer.statistics.comparison import Arm
from trainer.statistics.noise import NoiseRecord

TASK = task.read(local.artifacts())
NOISE = NoiseRecord(20 * 0.002**2, 20.0)


class Noting(FakeMeasurer):
    """Notes what each run and each second score was held to."""

    def __init__(self) -> None:
        super().__init__(lambda source, _: 2.5 if source == local.TRAIN else 2.4)
        self.held: list[tuple[str, Reference | None, Reference | None]] = []

    def measure(self, files: Any, **options: Any) -> Measurement:
        arm = "incumbent" if files["train.py"] == local.TRAIN else "candidate"
        self.held.append((arm, options["reference"], None))
        return super().measure(files, **options)

    def score(self, graph: Path, rows: Any, **options: Any) -> Score:
        arm, first, _ = self.held[-1]
        self.held[-1] = arm, first, options["reference"]
        return super().score(graph, rows, **options)


@pytest.mark.parametrize("seed", range(6))
def test_a_candidate_is_held_to_the_incumbent_on_both_texts(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurer = Noting()
    bench: Bench = bench_of(TASK, tmp_path, measurer, monkeypatch)
    trees = {Arm.INCUMBENT: TASK.files, Arm.CANDIDATE: {**TASK.files, "train.py": b"better"}}
    rows = HoldoutRows("made up", "cc" * 32, np.zeros((2, 9), np.int32))
    runs = replay(bench, trees, rows, policy=JudgePolicy(), noise=NOISE, seed=seed, view=View(quiet=True))
    assert runs[0].arm == "incumbent"
    assert {arm for arm, _, _ in measurer.held} == {"incumbent", "candidate"}
    for arm, validation, holdout in measurer.held:
        if arm == "incumbent":
            assert validation is None
            assert holdout is None
        else:
            assert validation is not None
            assert holdout is not None
            assert holdout.losses.mean() == pytest.approx(validation.losses.mean() + 0.1, abs=1e-4)
