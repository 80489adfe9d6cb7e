"""The most that one proposal can cost a verifier, whatever its train.py does. Pure; the figures are in the docs.

A candidate is bounded in every phase of every run: training by the budget and the loose grace, the claim and the probes
on both texts by the incumbent's own seconds (`MeasurementPolicy.evaluation_limit`), the number of runs by the
comparison's limit and by `MAX_FAILURES`.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.judging.trial import MAX_FAILURES
from trainer.measurement.bench import loose_grace
from trainer.measurement.values import MeasurementPolicy, Phase, Reference
from trainer.project.protocol import Protocol
from trainer.statistics.policy import ComparisonPolicy


@dataclass(frozen=True, slots=True)
class MostCost:
    """`seconds` of candidate runs, `runs` of them; `memory_bytes` at a time, with the scratch, which is in memory;
    `disk_bytes` at a time, of the one graph that is kept while it is scored.
    """

    runs: int
    seconds: float
    memory_bytes: int
    disk_bytes: int


def most_cost(
    protocol: Protocol, comparison: ComparisonPolicy, limits: MeasurementPolicy, incumbent: Reference | None
) -> MostCost:
    """The bounds of one check; `incumbent` as it was measured here, None if it has not been."""
    runs = comparison.max_candidate_runs + MAX_FAILURES - 1
    training = protocol.execution.training_seconds + loose_grace(protocol)
    evaluation = 2 * sum(limits.evaluation_limit(phase, incumbent) for phase in (Phase.CLAIM, Phase.PROBES))
    return MostCost(runs, runs * (training + evaluation), limits.memory_bytes, limits.graph_bytes)
