"""The options of `miner run` that say where trials are measured."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import click

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
                raise click.UsageError("--ray-address is HOST:PORT of the cluster's head, or auto.")

    def cluster(
        self, task: Task, bench: Bench, say: Callable[[str], None], *, trust_harness: bool = False
    ) -> Cluster | None:
        """The machines of this machine's class on the project's data snapshot; None for the local executor."""
        if self.executor != RAY:
            return None
        from miner.executors.cluster import Cluster
        from miner.executors.worker import Setup, program
        from trainer.judging.trial import MAX_FAILURES, MAX_UNFIT
        from trainer.statistics.comparison import MiningPolicy

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


def executing(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options, handed to the command as one argument `executing`."""

    @functools.wraps(command)
    def collected(*args: Any, **given: Any) -> Any:
        chosen = {field.name: given.pop(field.name) for field in fields(Executing)}
        return command(*args, executing=Executing(**chosen), **given)

    options = [
        click.option(
            "--executor",
            type=click.Choice([LOCAL, RAY]),
            default=LOCAL,
            show_default=True,
            help="Where trials are measured: here, or on the machines of a Ray cluster that are of this machine's "
            "class and have its data snapshot, one trial on each. What is to be submitted is confirmed here.",
        ),
        click.option(
            "--ray-address",
            metavar="ADDRESS",
            default="auto",
            show_default=True,
            help="ray: the cluster's head as HOST:PORT; auto is the cluster that this machine is part of.",
        ),
        click.option(
            "--ray-home",
            metavar="DIR",
            default="",
            help="ray: folder of environment, data and noise on each machine. [default: ARMLX_HOME there, else its "
            "user's data folder]",
        ),
    ]
    for option in reversed(options):
        collected = option(collected)
    return collected
