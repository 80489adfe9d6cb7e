"""Whether a reference kernel, timed by the judge around a run, foretells its pace; and what knowing that would save.

    python -m tests.benchmarks.bench_pace HOME [--runs 40] [--kernel 0.4]     # on this machine
    python -m tests.benchmarks.bench_pace --saving [--trials 2000]            # in simulation

The first runs the unchanged smoke baseline, with one seed, again and again. Before and after each run a trusted child
trains a small model for `--kernel` seconds. It prints how much of the variance of val_bpb is explained by the
run's own steps (which a candidate could forge) and by the kernel (which it could not). The second plays trials as
`bench_levels` does, with a part of the pace noise taken away, as a covariate would that knows pace that well.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from tests.benchmarks import bench_levels
from trainer.statistics.comparison import Answer

_STEPS = re.compile(rb"^num_steps:\s+(\d+)", re.MULTILINE)
GAINS = (0.0, 1.0, 1.5, 2.0, 3.0)
LEFT = (1.0, 0.6, 0.3, 0.0)
_KERNEL = """
import sys, time
import mlx.core as mx
import mlx.optimizers as optim
from trainer.doctor.inside_speed import LENGTH, VOCABULARY, Model, nn
model, optimizer = Model(), optim.AdamW(1e-3)
tokens = mx.random.randint(0, VOCABULARY, (2, LENGTH + 1))
gradient = nn.value_and_grad(
    model, lambda m: nn.losses.cross_entropy(m(tokens[:, :-1]), tokens[:, 1:], reduction="mean"))
for line in sys.stdin:
    times, end = [], time.monotonic() + float(line)
    while time.monotonic() < end or len(times) < 3:
        begin = time.monotonic()
        _, found = gradient(model)
        optimizer.update(model, found)
        mx.eval(model.parameters(), optimizer.state)
        times.append(time.monotonic() - begin)
    print(sum(times) / len(times), sorted(times)[len(times) // 2], flush=True)
"""


class Kernel:
    """The reference kernel in a child of ours, which idles on its input while a run is on."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        pipe = subprocess.PIPE
        self._child = subprocess.Popen([sys.executable, "-c", _KERNEL], stdin=pipe, stdout=pipe, text=True)
        self.pace()

    def pace(self) -> tuple[float, float]:
        """ln of the steps a second, by the mean and by the median step; ValueError if the child is dead."""
        assert self._child.stdin
        assert self._child.stdout
        late = threading.Timer(60 + self._seconds, self._child.kill)
        late.start()
        print(self._seconds, file=self._child.stdin, flush=True)
        mean, median = self._child.stdout.readline().split()
        late.cancel()
        return -math.log(float(mean)), -math.log(float(median))

    def close(self) -> None:
        self._child.kill()
        self._child.wait()


def explained(values: list[float], *columns: list[float]) -> float:
    """The share of the variance of `values` that a straight line in the columns explains, for what it has fitted."""
    design = np.column_stack([np.ones(len(values)), *columns])
    y = np.array(values)
    left = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    spare = len(y) - design.shape[1]
    share: float = 1.0 - float(left @ left) / spare / float(np.var(y, ddof=1))
    return share


def record(home: Path, count: int, seconds: float) -> None:
    """The experiment, a line a run and the shares at the end."""
    from trainer.measurement.bench import open_bench
    from trainer.project import recipe

    smoke = recipe.load("smoke")
    bench = open_bench(
        smoke.files["protocol.json"],
        smoke.files,
        home=home,
        say=print,
        data_arguments=smoke.data_arguments,
        isolated=False,
    )
    kernel = Kernel(seconds)
    rows: list[tuple[float, ...]] = []
    try:
        before = kernel.pace()
        while len(rows) < count:
            run = bench.plain_run(smoke.files)
            after = kernel.pace()
            told = _STEPS.search(run.log)
            if run.val_bpb is None or told is None:
                raise SystemExit(f"the run failed: {run.detail}")
            rows.append((run.val_bpb, math.log(int(told[1])), *before, *after))
            print(len(rows), " ".join(f"{value:.4f}" for value in rows[-1]), flush=True)
            before = after
    finally:
        kernel.close()
    value, steps, mean0, middle0, mean1, middle1 = ([row[k] for row in rows] for k in range(6))
    print(f"val_bpb: sd {statistics.stdev(value):.4f}; ln(steps): sd {statistics.stdev(steps):.4f}")
    print(
        f"ln(kernel): sd {statistics.stdev(mean0):.4f} by the mean step, {statistics.stdev(middle0):.4f} by the median"
    )
    for name, columns in {
        "the run's own steps": [steps],
        "the kernel before it": [mean0],
        "the kernel before and after, mean step": [[(a + b) / 2 for a, b in zip(mean0, mean1, strict=True)]],
        "the kernel before and after, median step": [[(a + b) / 2 for a, b in zip(middle0, middle1, strict=True)]],
        "the order of the runs": [[float(number) for number in range(len(value))]],
    }.items():
        print(f"explained of the variance of val_bpb by {name}: {explained(value, *columns):.0%}")


def saving(trials: int) -> None:
    """Runs of both arms per trial and per approval, with that share of the pace noise left."""
    policy = bench_levels.JUDGE.at_look(1).comparison
    for left in LEFT:
        world = bench_levels.World(pace_left=left)
        shown = []
        for gain in GAINS:
            rng = np.random.default_rng(1)
            found = [bench_levels.trial(world, rng, gain, policy) for _ in range(trials)]
            approved = sum(kind is Answer.APPROVE for kind, _, _ in found)
            runs = sum(candidates + incumbents for _, candidates, incumbents in found)
            per = f"{runs / approved:.1f}" if approved else "-"
            shown.append(f"{gain:g} sigma: {approved / trials:.1%}, {runs / trials:.1f} runs, {per} an approval")
        print(f"{left:.0%} of the pace noise left | " + " | ".join(shown), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("home", type=Path, nargs="?")
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--kernel", type=float, default=0.4, help="seconds before and after each run")
    parser.add_argument("--saving", action="store_true", help="the simulation instead")
    parser.add_argument("--trials", type=int, default=2000)
    given = parser.parse_args()
    if given.saving:
        saving(given.trials)
    elif given.home is None:
        parser.error("Name a home folder, or give --saving.")
    else:
        record(given.home, given.runs, given.kernel)


if __name__ == "__main__":
    main()
