"""One run on this machine, with the machine watched: waited for while it is busy, and the run left out where it was
slowed. What is recorded of a run is up to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from miner.trials.listener import Pruner
from trainer.errors import UNFIT
from trainer.machine import energy, fitness
from trainer.machine.watch import Watch
from trainer.measurement.bench import Bench, left_out
from trainer.measurement.run import Run
from trainer.measurement.salts import fresh_salt
from trainer.measurement.values import Failure
from trainer.statistics import curve, pruning
from trainer.statistics.comparison import Arm

Say = Callable[[str], None]


@dataclass(slots=True)
class Rig:
    """A bench whose machine is watched; `say` hears what it waits for and what it leaves out."""

    bench: Bench
    say: Say
    _watch: Watch = field(init=False)
    _meter: energy.Meter | None = field(init=False, default_factory=energy.find)

    def __post_init__(self) -> None:
        self._watch = Watch(self.bench.protocol.execution.training_seconds, self.say, self.bench.home)

    def calm(self) -> tuple[str, ...]:
        """Wait a while for a machine that is busy or hot; the remaining reasons not to measure."""
        return self._watch.calm()

    def run(
        self,
        arm: Arm,
        files: Mapping[str, bytes],
        show: Say,
        *,
        rates: Sequence[float],
        band: pruning.Band | None,
        rules: pruning.PruningRules,
    ) -> tuple[Run, tuple[str, ...]]:
        """Run a tree once, after `calm`; the run and the reasons it is suspect, those that `calm` left included.

        `rates` are the tokens per second of earlier runs of the same code here, those in force: a run that is off by
        more than their noise has no value and is UNFIT. With a `band` it may be stopped, by `rules`.
        """
        budget = self.bench.protocol.execution.training_seconds
        with energy.metered(self._meter) as used:
            run = self.bench.measure(arm, files, Pruner(show, budget, band, rules), salt=fresh_salt())
        run = replace(run, joules=used.joules)
        conditions = self._watch.after(run.seconds)
        rate = curve.of_log(run.log).tokens_per_second
        unfit = fitness.fit(rate, rates) if run.val_bpb is not None and rate is not None else ""
        if run.failure == Failure.HOST:
            unfit = run.told
        run = left_out(run, unfit)
        if run.failure == UNFIT:
            self.say(f"  run discarded and repeated: {run.detail}")
        return run, conditions
