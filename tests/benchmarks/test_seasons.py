"""A short season with the real verdict code: what `bench_seasons` prints of long ones, as bounds."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.benchmarks.bench_seasons import Tally, lines, profit, season
from trainer.judging.verdict import VerdictKind

pytestmark = pytest.mark.slow


def test_a_season_pays_the_honest_alone() -> None:
    tallies: list[Tally] = [season(seed, 40) for seed in range(2)]
    ends: Counter[tuple[str, str]] = sum((tally.ends for tally in tallies), Counter())
    honest = {end: ends["honest", end] for end in ("approve", "reject", "expired", "overtaken")}
    assert honest[VerdictKind.APPROVE.value] > 0.8 * (sum(honest.values()) - honest["overtaken"])
    for kind in ("resubmitter", "gambler"):
        assert ends[kind, "approve"] <= (kind == "gambler")  # scatter wins once in 150 tries, by docs/measurements.md
        assert profit(ends, kind)[0] < 0
    # A sleeper's first proposal is a true gain, and is paid for; what falls asleep after it earns nothing more.
    assert ends["sleeper", "approve"] <= len(tallies)
    assert max(tally.excess for tally in tallies) < 4
    assert min(tally.gained for tally in tallies) > 10
    assert any("stakes" in line for line in lines(tallies))
