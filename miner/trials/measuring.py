"""One run on this machine, with the machine watched: waited for while it is busy, and the run left out where it was
slowed. What is recorded of a run is up to the caller.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from miner.trials.pruner import Pruner
from trainer.machine import fitness
from trainer.measurement.bench import Bench
from trainer.measurement.run import UNFIT, Run
from trainer.measurement.salts import fresh_salt
from trainer.statistics import curve, pruning
from trainer.statistics.comparison import Arm

Say = Callable[[str], None]

CALM_SECONDS = 120.0  # that a busy machine is waited for, before a run goes ahead anyway
_CALM_LOOK = 10.0


@dataclass(slots=True)
class Rig:
    """A bench whose machine is watched; `say` hears what it waits for and what it leaves out."""

    bench: Bench
    say: Say
    _last: tuple[float, float] = field(default=(0.0, -math.inf))  # seconds that our last run took, when it ended

    def calm(self) -> tuple[str, ...]:
        """Wait a while for a machine that is busy, hot or on battery; the remaining reasons not to measure."""
        deadline = time.monotonic() + CALM_SECONDS
        said = False
        while True:
            seconds, ended = self._last
            state = fitness.read()
            own = fitness.own_load(state.cores, seconds, time.monotonic() - ended)
            reasons = fitness.judge(state, own_load=own)
            waiting = any("overloaded" in reason or "heat" in reason for reason in reasons)
            if not waiting or time.monotonic() >= deadline or self._small:
                return reasons
            if not said:
                self.say(f"  waiting for the machine: {', '.join(reasons)}")
                said = True
            time.sleep(_CALM_LOOK)

    @property
    def _small(self) -> bool:
        """Whether a run takes less time than waiting for a calm machine would; then its state is only noted."""
        return self.bench.protocol.execution.training_seconds < CALM_SECONDS

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
        """Run a tree once; the run and the reasons it is suspect.

        `rates` are the tokens per second of earlier runs of the same code here, those in force: a run that is off by
        more than their noise has no value and is UNFIT. With a `band` it may be stopped, by `rules`.
        """
        before = fitness.read()
        budget = self.bench.protocol.execution.training_seconds
        run = self.bench.measure(arm, files, Pruner(show, budget, band, rules), salt=fresh_salt())
        self._last = (run.seconds, time.monotonic())
        heat = fitness.judge(fitness.read(), before=before, own_load=float(before.cores))
        rate = curve.of_log(run.log).tokens_per_second
        unfit = fitness.fit(rate, rates) if run.val_bpb is not None and rate is not None else ""
        if unfit:
            run = replace(run, val_bpb=None, failure=UNFIT, detail=f"{unfit}; {run.val_bpb:.6f} val_bpb not counted")
            self.say(f"  run discarded and repeated: {unfit}")
        return run, tuple(dict.fromkeys(heat))
