"""The numbers of public logs: the file is whole, and changes and noise are taken from it as the benchmark says."""

from __future__ import annotations

import json
import random
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.bench_mining import topped_up
from tests.benchmarks.bench_real_logs import (
    DATA,
    GROUPS,
    BadLog,
    changes,
    landscape,
    noise,
    pace_slope,
    read,
    shrunk,
    unfolded,
)
from tests.benchmarks.simulation import Landscape, ours, play

GOOD: dict[str, Any] = {
    "repository": "a/b",
    "commit": "0" * 40,
    "path": "results.tsv",
    "group": "m5max",
    "device": "",
    "complete": True,
    "budget_stated": True,
    "values": [1.3, 1.2, None, 1.25, 1.1, 1.22],
    "statuses": "bkcddr",
    "steps": [100, 100, None, 100, 200, 90],
    "memory_gb": [2.0, 2.0, None, 2.0, 3.0, 2.0],
    "repeats": [[1, 5]],
    "no_ops": [3],
}


def write(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"about": "", "sessions": entries}), encoding="utf-8")
    return path


def test_the_logs_that_are_shipped() -> None:
    logs = read()
    macs = [log for log in logs if log.group in (*GROUPS["Macs"], *GROUPS["one M5 Max"])]
    assert DATA.stat().st_size < 100_000
    assert len(logs) == 42
    assert len({log.repository for log in macs}) >= 20
    assert sum(len(changes(log)) for log in macs if log.complete) >= 500
    assert noise(log for log in logs if log.group == "gpu").sigma < 0.001
    hot = [log for log in logs if log.group == "m5max"]
    assert noise(hot, pace_slope(hot)).sigma < 0.5 * noise(hot).sigma


def test_changes_are_against_the_best_kept_before(tmp_path: Path) -> None:
    (log,) = read(write(tmp_path / "logs.json", GOOD))
    assert [change.raw for change in changes(log)] == pytest.approx([0.1, 0.1])  # no crash, no-op or rerun
    assert noise([log]).sigma == pytest.approx(statistics.stdev([1.2, 1.22]))
    slope = pace_slope([log])
    assert slope < 0
    assert [change.paced for change in changes(log, slope)] == pytest.approx([0.1, 0.1])  # another shape stays
    place = landscape([log], 0.01, slope=slope)
    assert place.crash == pytest.approx(0.25)
    assert 0.0 in place.effects


@pytest.mark.parametrize(
    "other",
    [
        {"commit": "main"},
        {"group": "tpu"},
        {"statuses": "bkcdd"},
        {"statuses": "kkcddr"},
        {"statuses": "bkdddr"},
        {"values": [1.3, 1.2, None, 0.0, 1.1, 1.22]},
        {"repeats": [[1, 2]]},
        {"repeats": [[1]]},
        {"no_ops": [5]},
        {"steps": [100]},
    ],
)
def test_what_no_log_can_hold_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    with pytest.raises(BadLog):
        read(write(tmp_path / "logs.json", GOOD | other))


def test_a_log_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadLog, match="begins as another"):
        read(write(tmp_path / "logs.json", GOOD, GOOD | {"repository": "c/fork"}))


def test_unfolding_leaves_less_noise_as_gain_than_one_factor() -> None:
    """Four in five change nothing, the others much: the noise of the four shall not become gains."""
    rng, sigma = random.Random(1), 1.0
    true = [0.0] * 160 + [-60.0] * 30 + [8.0] * 10
    measured = [change + rng.gauss(0.0, 2**0.5 * sigma) for change in true]
    gains = [sum(x for x in part if x > 0) / len(part) for part in (true, shrunk(measured, sigma))]
    effects = unfolded(measured, sigma)
    found = sum(x for x in effects if x > 0) / len(effects)
    assert gains[1] > 1.5 * gains[0]
    assert found == pytest.approx(gains[0], rel=0.25)


def test_deciding_what_is_clear_after_one_run_finds_more() -> None:
    place = Landscape(effects=(-90.0, -40.0, 0.0, 60.0), hardness=0.0)
    before = partial(ours, policy_of=topped_up)
    counts = [[play(strategy, place, hours=8, seed=seed) for seed in range(4)] for strategy in (before, ours)]
    assert counts[1] == [play(ours, place, hours=8, seed=seed) for seed in range(4)]
    assert sum(c.gain for c in counts[1]) > 1.1 * sum(c.gain for c in counts[0])
    assert sum(c.harmful_kept for c in counts[1]) == 0
