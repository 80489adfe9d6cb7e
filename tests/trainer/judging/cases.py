"""Runs as they could have been measured."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from trainer.judging.runs import ReplayRun
from trainer.statistics.noise import NoiseRecord

SIGMA = 0.01
NOISE = NoiseRecord(20 * SIGMA**2, 20.0)


def replay_run(arm: str, value: float | None, fresh: float | None = None, **changes: Any) -> ReplayRun:
    """A run that trained for 6.5 s; a candidate gains more on every other of 16 blocks of the holdout text."""
    probes = {"count": 4, "mean": 0.0, "worst": 1e-6, "gain_bound": 1e-5, "share_bound": 0.01}
    made = ReplayRun(arm, value, fresh, 6.5, 9.0, "", "", "aa" * 32, "bb" * 32, probes, None)
    if fresh is not None:
        more = 0.0005 if arm == "candidate" else 0.0
        made = replace(made, holdout_blocks=tuple(fresh / 16 + (more if i % 2 else -more) for i in range(16)))
    return replace(made, **changes)


def runs(gain: float, holdout_gain: float | None = None, *, seed: int = 1, count: int = 8) -> tuple[ReplayRun, ...]:
    """`count` runs of each arm around 2.5 and 2.5 - gain, interleaved; on holdout text around 2.6."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        for arm, better, fresher in (
            ("incumbent", 0.0, 0.0),
            ("candidate", gain, gain if holdout_gain is None else holdout_gain),
        ):
            found.append(replay_run(arm, 2.5 - better + rng.gauss(0, SIGMA), 2.6 - fresher + rng.gauss(0, SIGMA)))
    return tuple(found)


def failing(arm: str, failure: str, detail: str = "It failed.") -> ReplayRun:
    return replay_run(arm, None, failure=failure, detail=detail, train_seconds=None)
