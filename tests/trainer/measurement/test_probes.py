"""What the probes of a claim prove, as a table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np
import pytest

from trainer.measurement import scoring
from trainer.measurement.claims import judge
from trainer.measurement.values import Failure, MeasurementPolicy, Probe, ProbeReport

POLICY = MeasurementPolicy()


def report(off: Sequence[float]) -> ProbeReport:
    """Probes whose proof differs from the claim by these nats."""
    probes = tuple(Probe(row, 1, 2.0, 2.0 + by) for row, by in enumerate(off))
    return ProbeReport(probes, statistics.fmean(off), max(off, key=abs), None, 0.01)


@pytest.mark.parametrize(
    ("off", "causal"),
    [
        ([0.0] * 8, True),
        ([0.9e-3, -0.9e-3] * 4, True),  # each within the tolerance, and none on average
        ([2e-3, *[0.0] * 99], False),
        ([-2e-3, *[0.0] * 99], False),
        ([2e-4] * 8, False),  # within the tolerance, off on average: a drift either way
        ([-2e-4] * 8, False),
        ([0.9e-4] * 8, True),
        ([-0.9e-4] * 8, True),
        ([float("nan"), *[0.0] * 7], False),
    ],
)
def test_agreement(off: list[float], causal: bool) -> None:
    found = judge(report(off), POLICY)
    assert (found is None) is causal
    if found is not None:
        assert found.failure is Failure.NON_CAUSAL


@pytest.mark.parametrize(("positions", "blocks"), [(5, 5), (8, 8), (100, 8), (40_960, 10), (1 << 20, 64)])
def test_blocks_of_text_add_up_to_its_bits_per_byte(positions: int, blocks: int) -> None:
    random = np.random.default_rng(1)
    losses, targets = random.uniform(0, 9, positions), random.integers(0, 16, positions)
    table = np.arange(16) % 5
    found = scoring.block_bits(losses, targets, table)
    assert len(found) == blocks
    assert sum(found) == pytest.approx(scoring.bits_per_byte(losses, targets, table), abs=1e-8)
    assert scoring.block_bits(losses, targets, np.zeros(16, np.int64)) == ()
