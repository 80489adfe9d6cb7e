"""How many trials `tune` needs to find most of what there is to find, against the proposer that came before it.

    uv run python -m tests.benchmarks.bench_proposers [--landscapes 30] [--trials 200] [--seed 0]

Landscapes are synthetic: the loss is a quadratic in the logarithm of each constant, with random optima and
curvatures, a valley between learning rate and batch size, a cliff where the matrix learning rate is too high, and a
crash where HEAD_DIM does not divide MODEL_DIM; `--steep` makes it quartic and lopsided instead. A trial's delta is
the true one plus noise; it is kept where it exceeds 2.33 standard deviations. What counts is the true gain of the
incumbent as a share of the attainable one. `Turn` is the reference: it turns one constant, sometimes two, by a
factor of two or three, untried moves only. A session that does not get there counts as one trial more than it had.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from miner.proposers.base import Candidate, Context, Proposer, Tried
from miner.proposers.tune import Tune
from trainer.project import hyperparameters, protocol, recipe
from trainer.project.hyperparameters import Value

SCRIPT = """\
DEPTH = 5
MODEL_DIM = 320
HEAD_DIM = 64
MLP_RATIO = 4
ROPE_BASE = 10000.0
LOGIT_CAP = 15.0
TIE_EMBEDDINGS = False
BATCH_SIZE = 16
GRAD_ACCUM = 1
MATRIX_LR = 0.02
EMBED_LR = 0.02
HEAD_LR = 0.004
ADAM_BETA1 = 0.8
ADAM_BETA2 = 0.95
MUON_MOMENTUM = 0.95
WEIGHT_DECAY = 0.01
WARMUP_FRACTION = 0.0
WARMDOWN_FRACTION = 0.5
FINAL_LR_FRACTION = 0.05
EVAL_BATCH_SIZE = 64
SEED = 42
"""
# Spread of each constant's curvature, in bpb per squared doubling before scaling.
CURVATURES = {"LR": 1.0, "BATCH": 0.8, "DEPTH": 0.8, "MODEL_DIM": 0.8, "WARMDOWN": 0.4}
NOISE = 0.006  # standard deviation of a trial's measured delta, in bpb
KEEP = 2.33
ATTAINABLE = 0.15  # bpb


def position(name: str, value: Value) -> float:
    """Where a value lies, in doublings."""
    number = float(value) if not isinstance(value, str) else 0.0
    if name.startswith(("ADAM", "MUON")):
        return -math.log2(max(1e-6, 1 - number))
    if name in ("WARMUP_FRACTION", "FINAL_LR_FRACTION"):
        return math.log2(0.03 + number)
    return number if name.startswith("TIE") else math.log2(max(number, 1e-9))


class Landscape:
    """A random loss over the script's constants; `loss` is in bpb, None is a crash."""

    def __init__(self, seed: int, steep: bool) -> None:
        rng = random.Random(f"landscape/{seed}")
        self.steep = steep
        self.start = {c.name: c.value for c in hyperparameters.find(SCRIPT)}
        names = [name for name in self.start if not name.startswith(("EVAL", "SEED"))]
        self.best = {name: position(name, self.start[name]) + max(-2.5, min(2.5, rng.gauss(0, 1.2))) for name in names}
        self.curvature = {
            name: rng.lognormvariate(0, 0.7) * next((c for word, c in CURVATURES.items() if word in name), 0.2)
            for name in names
        }
        self.scale = 1.0
        self.floor = self._floor()
        start = self.loss(self.start)
        assert start is not None
        self.scale = ATTAINABLE / (start - self.floor)
        self.floor = self._floor()

    def _floor(self) -> float:
        """The lowest loss over a fine grid of every constant, one after the other."""
        at = dict(self.start)
        for _ in range(3):
            for name in self.best:
                at[name] = min(_grid(name, self.start[name]), key=lambda v, n=name: self._smooth({**at, n: v}))  # type: ignore[misc]
        return self._smooth(at)

    def loss(self, values: dict[str, Value]) -> float | None:
        model, head = values["MODEL_DIM"], values["HEAD_DIM"]
        assert isinstance(model, int)
        assert isinstance(head, int)
        too_high = position("MATRIX_LR", values["MATRIX_LR"]) > self.best["MATRIX_LR"] + 2.5
        return None if model % head or too_high else self._smooth(values)

    def _smooth(self, values: dict[str, Value]) -> float:
        away = {name: position(name, values[name]) - best for name, best in self.best.items()}
        away["MATRIX_LR"] -= 0.5 * away["BATCH_SIZE"]  # larger batches want larger rates
        return self.scale * sum(self.curvature[name] * self._shape(distance) for name, distance in away.items())

    def _shape(self, distance: float) -> float:
        if not self.steep:
            return distance**2
        return (0.5 * distance**2 + 0.15 * distance**4) * (2.0 if distance > 0 else 0.7)


def _grid(name: str, value: Value) -> list[Value]:
    if isinstance(value, bool):
        return [False, True]
    if isinstance(value, int):
        if name in ("BATCH_SIZE", "HEAD_DIM"):
            return [2**n for n in range(1, 11)]
        return [64 * n for n in range(1, 40)] if value >= 16 else list(range(1, 33))
    assert isinstance(value, float)
    if name.startswith(("ADAM", "MUON")):
        return [1 - (1 - value) * 2 ** (n / 8) for n in range(-32, 33) if (1 - value) * 2 ** (n / 8) < 1]
    most, zero = (1.0, [0.0]) if name.endswith("FRACTION") else (1e9, [])
    return [*zero, *(v for n in range(-32, 33) if (v := (value or 0.05) * 2 ** (n / 8)) <= most)]


@dataclass(frozen=True, slots=True)
class Course:
    """Share of the attainable gain after each trial."""

    shares: list[float]

    def reached(self, share: float) -> int:
        return next((n for n, found in enumerate(self.shares, 1) if found >= share), len(self.shares) + 1)


def session(landscape: Landscape, proposer: Proposer, trials: int, seed: int) -> Course:
    """A session of `trials` trials as the miner runs it, with drawn outcomes."""
    rng = random.Random(f"noise/{seed}")
    source, value = SCRIPT, landscape.loss(landscape.start)
    assert value is not None
    first = value
    mark = hyperparameters.fingerprint(source)
    history = [Tried(0, mark, "baseline", "keep", 0.0, source, mark)]
    described = protocol.parse(recipe.load("smoke").files["protocol.json"])
    shares: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, trials + 1):
            candidate = proposer.propose(Context(source, described, history, "", number, Path(folder)))
            if candidate is None:
                break
            base, mark = hyperparameters.fingerprint(source), hyperparameters.fingerprint(candidate.source)
            reached = landscape.loss({c.name: c.value for c in hyperparameters.find(candidate.source)})
            delta = None if reached is None else value - reached + rng.gauss(0, NOISE)
            kept = delta is not None and delta > KEEP * NOISE
            history.append(
                Tried(
                    number,
                    mark,
                    candidate.hypothesis,
                    "crash" if delta is None else "keep" if kept else "discard",
                    delta,
                    candidate.source,
                    base,
                )
            )
            if kept and reached is not None:
                source, value = candidate.source, reached
            shares.append((first - value) / (first - landscape.floor))
    return Course(shares + shares[-1:] * (trials - len(shares)))


class Turn:
    """The reference: one constant, sometimes two, by a factor of two or three."""

    name = "turn"
    _ROLES = (
        ("LR_FRACTION", 1.0),
        ("LR", 8.0),
        ("BATCH", 4.0),
        ("WARMDOWN", 3.0),
        ("DEPTH", 2.0),
        ("DIM", 2.0),
        ("ACCUM", 1.0),
        ("DECAY", 1.0),
        ("WARMUP", 1.0),
    )

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def propose(self, context: Context) -> Candidate | None:
        source, history = context.source, context.history
        tried = {trial.fingerprint for trial in history} | {hyperparameters.fingerprint(source)}
        found = [c for c in hyperparameters.find(source) if not any(word in c.name for word in ("SEED", "EVAL"))]
        moves = [(c.name, c.value, new) for c in found for new in self._moves(c.value)]
        rng = random.Random(f"{self._seed}/{len(history)}")
        weights = [next((w for word, w in self._ROLES if word in name), 0.5) for name, _, _ in moves]
        for _ in range(200):
            chosen = {}
            for name, old, new in rng.choices(moves, weights, k=2 if rng.random() < 0.25 else 1):
                chosen[name] = (old, new)
            changed = hyperparameters.replace(source, {name: new for name, (_, new) in chosen.items()})
            if hyperparameters.fingerprint(changed) not in tried:
                return Candidate(changed, ", ".join(f"{n} {old:g} -> {new:g}" for n, (old, new) in chosen.items()))
        return None

    @staticmethod
    def _moves(value: Value) -> list[int | float]:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return []
        if isinstance(value, int):
            return sorted({value * 2, max(1, value // 2)} - {value}) if value > 0 else [1]
        if value == 0:
            return [0.05, 0.1]
        moved = [float(f"{value * factor:.3g}") for factor in (1 / 3, 1 / 2, 2, 3)]
        return [new for new in moved if not 0 < value < 1 or new < 1]


def run(make: Callable[[int], Proposer], landscapes: int, trials: int, seed: int, steep: bool) -> list[Course]:
    """One session per landscape."""
    return [session(Landscape(seed + n, steep), make(seed + n), trials, seed + n) for n in range(landscapes)]


def compare(landscapes: int, trials: int, seed: int, steep: bool) -> tuple[list[Course], list[Course]]:
    """The courses of `tune` and of the reference on the same landscapes."""
    return (run(Tune, landscapes, trials, seed, steep), run(Turn, landscapes, trials, seed, steep))


def ratio(tune: list[Course], turn: list[Course], share: float) -> float:
    """How many times the trials of `tune` the reference needs on average; at least, where it does not get there."""
    return statistics.fmean(c.reached(share) for c in turn) / statistics.fmean(c.reached(share) for c in tune)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--landscapes", type=int, default=30)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for steep in (False, True):
        tune, turn = compare(options.landscapes, options.trials, options.seed, steep)
        print("quartic and lopsided" if steep else "quadratic in the logarithm", f"({options.landscapes} landscapes)")
        for share in (0.5, 0.75, 0.9):
            parts = []
            for name, courses in (("tune", tune), ("turn", turn)):
                reached = [c.reached(share) for c in courses]
                there = sum(n <= options.trials for n in reached)
                parts.append(f"{name} {statistics.median(reached):5.1f} median, {there} got there")
            print(f"  {share:.0%} of the gain: {'; '.join(parts)}; ratio of means {ratio(tune, turn, share):.2f}")
        for after in (10, 25, 50, 100):
            if after <= options.trials:
                means = [statistics.fmean(c.shares[after - 1] for c in courses) for courses in (tune, turn)]
                print(f"  after {after:3d} trials: tune {means[0]:.1%}, turn {means[1]:.1%}")


if __name__ == "__main__":
    main()
