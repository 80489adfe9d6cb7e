"""Where a session's trials are measured, as plain values, and the cluster that they name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.errors import TrainerError

if TYPE_CHECKING:
    from miner.executors.cluster import Cluster
    from trainer.measurement.bench import Bench
    from trainer.project.task import Task

LOCAL, RAY = "local", "ray"
_PAUSE_SECONDS = 300.0  # around any one run: waiting for the machine, scoring, starting


@dataclass(frozen=True, slots=True)
class Executing:
    """What was chosen on the command line; the defaults are those of `miner run`."""

    executor: str = LOCAL
    ray_address: str = "auto"
    ray_home: str = ""

    def check(self) -> None:
        """Refuse what is missing before any long work begins."""
        if self.executor == RAY:
            from miner.executors import cluster

            cluster.load()
            if "://" in self.ray_address:
                raise TrainerError(
                    f"--ray-address {self.ray_address!r} is not an address.", "Use HOST:PORT of the cluster's head."
                )

    def cluster(
        self, task: Task, bench: Bench, say: Callable[[str], None], *, trust_harness: bool = False
    ) -> Cluster | None:
        """The machines of this machine's class on the project's data snapshot; None for the local executor."""
        if self.executor != RAY:
            return None
        from miner.executors.cluster import Cluster
        from miner.executors.worker import Setup, program
        from trainer.judging.trial import MAX_FAILURES, MAX_UNFIT
        from trainer.statistics.mining import MiningPolicy

        setup = Setup(
            task.protocol_bytes,
            dict(task.files),
            task.benchmark.data_arguments,
            bench.data_snapshot,
            bench.machine.hardware_class,
            bench.method,
            program(),
            self.ray_home,
            trust_harness,
        )
        # The policy bounds the candidate's runs; the incumbent has a lead of at most as many again.
        runs = 3 * MiningPolicy().max_candidate_runs + 2 * MAX_FAILURES + MAX_UNFIT
        seconds = runs * (2 * task.protocol.execution.hard_timeout_seconds + _PAUSE_SECONDS)
        return Cluster(self.ray_address, setup, say, trial_seconds=seconds)
