"""Simulated sessions: the clock and the truth add up, and ours keeps no noise where the references do."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from miner.journal.journal import Journal, JournalDamaged, Session, read
from tests.benchmarks.bench_comparison import bootstrap
from tests.benchmarks.simulate import simulate
from tests.benchmarks.simulation import (
    STRATEGIES,
    Count,
    Landscape,
    NothingToResample,
    TimeUp,
    World,
    advantage,
    bootstrap_low,
    mean,
    play,
    ratio,
    recorded,
    summarise,
)

SMALL = Landscape(effect=2.0)
ALL = sorted(STRATEGIES)


@pytest.mark.parametrize("name", ALL)
def test_a_session_adds_up_and_repeats(name: str) -> None:
    count = play(STRATEGIES[name], SMALL, hours=3, seed=5)
    assert count == play(STRATEGIES[name], SMALL, hours=3, seed=5)
    assert count.no_ops + count.harmful + count.improving <= count.proposed
    assert count.no_ops_kept <= count.no_ops
    assert count.improving_kept <= count.improving
    assert 0 < count.runs * SMALL.run_seconds <= 3 * 3600
    assert count.runs >= count.proposed * (1 - 2 * SMALL.crash) / 2


def test_every_strategy_meets_the_same_candidates() -> None:
    worlds = [World(Landscape(hardness=0.0), 1.0, 3) for _ in range(2)]
    seen: list[list[float]] = [[], []]
    for i in range(30):
        for k, world in enumerate(worlds):
            world.propose()
            seen[k].append(world.truth())
            if i % (k + 2) == 0 and world.truth() > 0:
                world.keep()
    assert seen[0] == seen[1]


def test_the_clock_stops_a_session() -> None:
    world = World(Landscape(run_seconds=1000.0), hours=1.0, seed=0)
    for _ in range(3):
        world.incumbent()
    with pytest.raises(TimeUp):
        world.incumbent()
    world.back(400.0)
    world.incumbent()
    assert world.count.runs == pytest.approx(3.6)


def test_gains_grow_rarer() -> None:
    easy = play(STRATEGIES["oracle"], Landscape(hardness=0.0), hours=20, seed=1)
    hard = play(STRATEGIES["oracle"], Landscape(hardness=5.0), hours=20, seed=1)
    assert hard.improving < 0.7 * easy.improving
    assert hard.gain < easy.gain


def test_error_rates_and_gains_of_all_strategies() -> None:
    """What the benchmark shows at length: no-ops kept by ours, by the references, and who finds more."""
    sessions = 12
    counts = {
        name: [play(strategy, SMALL, hours=8, seed=seed) for seed in range(sessions)]
        for name, strategy in STRATEGIES.items()
    }
    results = {name: summarise(name, count, counts["oracle"], 8.0) for name, count in counts.items()}
    for name in ("ours", "ours+pruning"):
        no_ops = sum(count.no_ops for count in counts[name])
        assert results[name].no_ops_kept.value < 0.01 + 3.5 * math.sqrt(0.01 * 0.99 / no_ops)
        assert results[name].harmful_kept.value < 0.005
        assert advantage(counts[name], counts["three-fresh"]).value > 2
    assert results["lower-fresh"].no_ops_kept.value == pytest.approx(0.5, abs=0.1)
    assert results["three-fresh"].no_ops_kept.value == pytest.approx(0.1, abs=0.08)
    assert results["oracle"].regret_per_hour.value == 0
    assert all(result.regret_per_hour.value >= 0 for result in results.values())


def test_the_bootstrap_is_the_one_of_the_other_benchmark() -> None:
    import random

    import numpy as np

    rng = random.Random(4)
    kept = 0
    for _ in range(1500):
        incumbent, candidate = ([rng.gauss(1, 0.01) for _ in range(3)] for _ in range(2))
        kept += bootstrap_low(incumbent, candidate) > 0
    assert kept / 1500 == pytest.approx(bootstrap(np.random.default_rng(1), 0.0, 0.01), abs=0.03)
    assert bootstrap_low([1.0, 1.0, 1.0], [0.5, 0.5]) == pytest.approx(0.5)


def test_estimates() -> None:
    assert mean([1.0, 3.0]).value == 2.0
    assert mean([1.0, 3.0]).error == pytest.approx(1.0)
    assert ratio([1.0, 2.0], [2.0, 4.0]).value == 0.5
    assert ratio([1.0, 2.0], [2.0, 4.0]).error == 0.0
    assert math.isnan(ratio([0.0], [0.0]).value)
    assert math.isnan(advantage([Count(gain=1.0)] * 2, [Count(gain=-1.0)] * 2).value)


# --- a recorded session -----------------------------------------------------------------------------------


def write_session(path: Path, trials: int, sigma: float = 0.01) -> None:
    """A journal of `trials` trials, every fourth a gain of 0.05, every tenth a crash, and a baseline."""
    import random

    rng = random.Random(2)
    journal = Journal(path)
    journal.append("session", seed=1, tag="20260101-000000")

    def add(number: int, arm: str, value: float | None) -> None:
        failure = "" if value is not None else "crash"
        seconds = 50.0 if value is not None else 5.0
        fields: dict[str, Any] = {"memory_mb": None, "log": "", "detail": "", "failure": failure, "seconds": seconds}
        journal.append("run", number=number, arm=arm, val_bpb=value, **fields)

    def begin(number: int) -> None:
        journal.append("trial", number=number, hypothesis="", fingerprint=str(number), commit="c", base="b")

    begin(0)
    for _ in range(4):
        add(0, "incumbent", rng.gauss(2, sigma))
    journal.append("decision", number=0, decision="keep", delta=0.0)
    for number in range(1, trials + 1):
        begin(number)
        if number % 10 == 0:
            add(number, "candidate", None)
            journal.append("decision", number=number, decision="crash", delta=None)
            continue
        true = 0.05 if number % 4 == 0 else -0.03
        values = [rng.gauss(2 - true, sigma) for _ in range(2)]
        for value in values:
            add(number, "candidate", value)
        journal.append("decision", number=number, decision="discard", delta=2 - statistics.fmean(values))
    journal.close()


def test_a_recorded_session_is_resampled(tmp_path: Path) -> None:
    write_session(tmp_path / "session.jsonl", 60)
    land = recorded(read(tmp_path / "session.jsonl"))
    assert land.sigma == pytest.approx(0.01, rel=0.25)
    assert (land.run_seconds, land.crash_seconds) == (50.0, 5.0)
    assert land.crash == pytest.approx(0.1)
    assert statistics.pvariance(land.residuals) == pytest.approx(1, rel=0.1)
    good = [effect for effect in land.effects if effect > 0]
    assert len(good) == pytest.approx(12, abs=1)
    assert statistics.fmean(good) * land.sigma == pytest.approx(0.05, rel=0.15)
    # Noise is drawn out of the gains: they scatter less than they were measured.
    measured = [trial.delta for trial in read(tmp_path / "session.jsonl").trials[1:] if trial.delta is not None]
    assert statistics.pstdev(land.effects) * land.sigma < 0.995 * statistics.pstdev(measured)
    count = play(STRATEGIES["ours"], land, hours=2, seed=0)
    assert count.improving_kept > 0


def test_a_short_session_has_nothing_to_resample(tmp_path: Path) -> None:
    write_session(tmp_path / "session.jsonl", 5)
    with pytest.raises(NothingToResample):
        recorded(read(tmp_path / "session.jsonl"))
    with pytest.raises(NothingToResample):
        recorded(Session())
    with pytest.raises(JournalDamaged):
        read(tmp_path / "none.jsonl")


# --- the command ------------------------------------------------------------------------------------------


def test_the_command_prints_a_table_and_a_document(tmp_path: Path) -> None:
    arguments = ["--sessions", "2", "--hours", "1", "--effect", "3", "--seed", "4"]
    table = CliRunner().invoke(simulate, arguments)
    assert table.exit_code == 0, table.stderr
    assert all(name in table.stdout for name in STRATEGIES)
    assert "2 sessions of 1 hours" in table.stderr
    answered = CliRunner().invoke(simulate, [*arguments, "--json"])
    document = json.loads(answered.stdout, parse_constant=pytest.fail)
    assert [result["name"] for result in document["results"]] == list(STRATEGIES)
    assert document["landscape"]["effect"] == 3.0
    assert answered.stderr == ""


def test_the_command_resamples_and_refuses(tmp_path: Path) -> None:
    journal = tmp_path / "session.jsonl"
    write_session(journal, 30)
    arguments = ["--sessions", "2", "--hours", "0.5", "--json", "--journal", str(journal)]
    document = json.loads(CliRunner().invoke(simulate, arguments).stdout)
    assert document["resampled"]["effects"] == 27
    journal.unlink()
    write_session(journal, 3)
    refused = CliRunner().invoke(simulate, arguments)
    assert refused.exit_code == 1
    assert "leave out --journal" in refused.stderr
    journal.write_text("{}\nnonsense\n")
    assert CliRunner().invoke(simulate, arguments).exit_code == 1
