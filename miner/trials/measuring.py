"""Runs on this machine, with the machine watched: waited for while it is busy, and a run left out where it was
slowed. What is recorded of a run is up to the caller.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from miner.trials.listener import Pruner
from trainer.errors import UNFIT
from trainer.machine import energy, fitness
from trainer.machine.watch import Watch
from trainer.measurement.abreast import abreast
from trainer.measurement.bench import Bench, left_out
from trainer.measurement.run import Run
from trainer.measurement.salts import fresh_salt
from trainer.measurement.values import Failure
from trainer.statistics import curve, pruning
from trainer.statistics.comparison import Arm

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run to make of the tree `files`.

    `rates` are the tokens per second of earlier runs of the same code here, those in force: a run that is off by
    more than their noise has no value and is UNFIT. With a `band` it may be stopped, by `rules`.
    """

    arm: Arm
    files: Mapping[str, bytes]
    rates: Sequence[float] = ()
    band: pruning.Band | None = None
    rules: pruning.PruningRules = field(default_factory=pruning.PruningRules)


@dataclass(slots=True)
class Rig:
    """A bench whose machine is watched; `say` hears what it waits for and what it leaves out."""

    bench: Bench
    say: Say
    _watch: Watch = field(init=False)
    _places: list[tuple[Bench, energy.Meter | None]] = field(init=False)  # one for each run that can be made at once

    def __post_init__(self) -> None:
        self._watch = Watch(self.bench.protocol.execution.training_seconds, self.say, self.bench.home)
        benches = self.bench.each_gpu()
        chosen = [{"CUDA_VISIBLE_DEVICES": one.gpus[0]} if len(benches) > 1 else os.environ for one in benches]
        self._places = [(one, energy.find(environment)) for one, environment in zip(benches, chosen, strict=True)]

    @property
    def room(self) -> int:
        """How many runs can be made at once: one on each GPU of several, else one."""
        return len(self._places)

    def calm(self) -> tuple[str, ...]:
        """Wait a while for a machine that is busy or hot; the remaining reasons not to measure."""
        return self._watch.calm()

    def run(self, planned: Sequence[PlannedRun], show: Say) -> tuple[list[Run], tuple[str, ...]]:
        """Make as many of these at once as there is `room` for, after `calm`; the runs and the reasons to suspect them,
        those that `calm` left included. `show` gets the lines of the first one's log.
        """
        placed = zip(self._places, planned, strict=False)
        made = abreast([partial(self._measure, *place, plan) for place, plan in placed], show)
        conditions = self._watch.after(max(run.seconds for run in made))
        return [self._fit(run, plan) for run, plan in zip(made, planned, strict=False)], conditions

    def _measure(self, bench: Bench, meter: energy.Meter | None, plan: PlannedRun, show: Say) -> Run:
        budget = bench.protocol.execution.training_seconds
        with energy.metered(meter) as used:
            pruner = Pruner(show, budget, plan.band, plan.rules)
            run = bench.measure(plan.arm, plan.files, pruner, salt=fresh_salt())
        return replace(run, joules=used.joules)

    def _fit(self, run: Run, plan: PlannedRun) -> Run:
        rate = curve.of_log(run.log).tokens_per_second
        unfit = fitness.fit(rate, plan.rates) if run.val_bpb is not None and rate is not None else ""
        if run.failure == Failure.HOST:
            unfit = run.told
        run = left_out(run, unfit)
        if run.failure == UNFIT:
            self.say(f"  run discarded and repeated: {run.detail}")
        return run
