"""A bench whose measurer makes its values up: everything above the measurement is real, and nothing is trained."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from trainer.judging import holdout
from trainer.judging.holdout import HoldoutText
from trainer.machine.hardware import Fingerprint
from trainer.measurement import Measurer
from trainer.measurement.bench import Bench
from trainer.measurement.facts import HarnessFacts
from trainer.measurement.values import Failure, Measurement, Phase, Probe, ProbeReport, RunFinding, Score
from trainer.project import bundle, protocol
from trainer.project.task import Task

SIGMA = 0.002
Script = Callable[[bytes, int], float | RunFinding]
"""What a train.py comes to in its n-th run, from 0: its true val_bpb, or how it fails."""

CRASH = RunFinding(Failure.CRASH, Phase.TRAINING, "exit status 1: it broke")


class FakeMeasurer:
    """`script` says what a run comes to; noise of SIGMA is added. Holdout text is 0.1 bpb harder."""

    def __init__(self, script: Script, *, seed: int = 1, seconds: float = 6.5) -> None:
        self.script, self.seconds, self.rng = script, seconds, random.Random(seed)
        self.runs: list[bytes] = []
        self.facts = HarnessFacts("", 6.0, "val.parquet", np.zeros((4, 9), np.int32), np.ones(16, np.int32))

    def measure(self, files: Mapping[str, bytes], **options: Any) -> Measurement:
        source = files["train.py"]
        found = self.script(source, self.runs.count(source))
        self.runs.append(source)
        seconds, digest = {Phase.TRAINING: self.seconds}, bundle.digest(files)
        if isinstance(found, RunFinding):
            return Measurement(None, None, None, None, None, digest, "", (found,), seconds)
        value, text = found + self.rng.gauss(0, SIGMA), options["holdout"]
        score, second = self._score(value, self.facts.rows), text and self._score(value + 0.1, text.rows)
        return Measurement(value, score, self.seconds, Path("graph"), "ab" * 32, digest, "", (), seconds, second)

    def _score(self, value: float, rows: Any) -> Score:
        probes = ProbeReport((Probe(0, 1, 2.0, 2.0),), 0.0, 0.0, 1e-5, 1e-2)
        return Score(value, value, np.full(rows[:, 1:].size, value * math.log(2), np.float32), probes, (), {})

    def encode(self, texts: Sequence[str]) -> Any:
        return np.zeros((2, 9), np.int32)

    def on_data(self, cache: Path) -> FakeMeasurer:
        return self

    def on_gpu(self, gpu: str) -> FakeMeasurer:
        return self

    def discard(self, measurement: Measurement) -> None:
        """Nothing is kept."""


def bench_of(task: Task, home: Path, measurer: FakeMeasurer, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench for the task, with holdout text that is drawn from nowhere."""
    text = HoldoutText("made up", ("text",), home / "cache", "cc" * 32)
    monkeypatch.setattr(holdout, "holdout_text", lambda *_, **__: text)
    return Bench(
        protocol.parse(task.protocol_bytes),
        task.files,
        cast("Any", SimpleNamespace(packages_digest="dd" * 32)),
        home / "cache",
        task.benchmark.data_snapshot or "",
        Fingerprint("cpu", "Fake", 2, None, None, 1 << 34, "Linux x86_64", "0.32", "3.12.1"),
        home,
        "fake",
        cast("Measurer", measurer),
        "",
    )
