"""How many trials `tune` needs to find most of what there is to find, against the proposer that came before it.

    uv run python -m tests.benchmarks.bench_proposers [--landscapes 30] [--trials 200] [--seed 0]

Landscapes are synthetic, of five kinds. `smooth`: the loss is a quadratic in the logarithm of each constant, with
random optima within 2.5 doublings, a valley between learning rate and batch size, a cliff where the matrix learning
rate is too high, and a crash where HEAD_DIM does not divide MODEL_DIM. `steep`: the same, quartic and lopsided.
`plateau`: on top of a bowl, most of the gain lies where WEIGHT_DECAY is under a hundredth of what it is, zero
included, and nothing changes on the way there, as it was in our own baseline. `far`: the optima of three constants
lie three to five doublings away. `coupled`: most of the gain needs all three rates raised by four, and each alone
loses. With `--structure`, the default proposers search a real script (`structural`), where edits carry half of the
gain. A trial's delta is the true one plus noise; it is kept where it exceeds 2.33 standard deviations. What counts is
the true gain of the incumbent as a share of the attainable one. `Turn` is the reference: it turns one constant,
sometimes two, by a factor of two or three, untried moves only. A session that does not get there counts as one trial
more than it had.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from miner.proposers.base import Candidate, Context, Proposer, Tried
from miner.proposers.choice import Proposing
from miner.proposers.edits.catalogue import CATALOGUE
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
BONUS = 0.7  # share of it that lies beyond a plateau, or in rates moved together
RATES = ("MATRIX_LR", "EMBED_LR", "HEAD_LR")
KINDS = ("smooth", "steep", "plateau", "far", "coupled")


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

    def __init__(self, seed: int, kind: str) -> None:
        rng = random.Random(f"landscape/{seed}")
        self.kind = kind
        self.start = {c.name: c.value for c in hyperparameters.find(SCRIPT)}
        names = [name for name in self.start if not name.startswith(("EVAL", "SEED"))]
        self.best = {name: position(name, self.start[name]) + max(-2.5, min(2.5, rng.gauss(0, 1.2))) for name in names}
        self.curvature = {
            name: rng.lognormvariate(0, 0.7) * next((c for word, c in CURVATURES.items() if word in name), 0.2)
            for name in names
        }
        if kind == "far":
            for name in rng.sample(("MATRIX_LR", "EMBED_LR", "HEAD_LR", "BATCH_SIZE", "WEIGHT_DECAY", "ROPE_BASE"), 3):
                away = rng.uniform(3.0, 5.0) * (-1.0 if name == "BATCH_SIZE" else rng.choice((-1.0, 1.0)))
                self.best[name] = position(name, self.start[name]) + away
        self.scale = 1.0
        self.extra = 0.0
        self.floor = self._floor()
        start = self.loss(self.start)
        assert start is not None
        own = BONUS if kind in ("plateau", "coupled") else 0.0
        self.scale = (1.0 - own) * ATTAINABLE / (start - self.floor)
        self.extra = own * ATTAINABLE
        self.floor = self._floor() - self.extra

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
        if model % head or (too_high and self.kind in ("smooth", "steep")):
            return None
        return self._smooth(values) - self.extra * self._bonus(values)

    def _bonus(self, values: dict[str, Value]) -> float:
        """The share of what does not lie in the bowl that these values have, from -0.3 to 1."""
        if self.kind == "plateau":
            decay, start = values["WEIGHT_DECAY"], self.start["WEIGHT_DECAY"]
            assert isinstance(decay, float)
            assert isinstance(start, float)
            return 1.0 if decay < start / 50 else 0.0
        if self.kind == "coupled":
            raised = [position(name, values[name]) - position(name, self.start[name]) for name in RATES]
            return 1.0 if min(raised) >= 1.5 and max(raised) <= 3.0 else -0.3 if max(raised) >= 1.5 else 0.0
        return 0.0

    def _smooth(self, values: dict[str, Value]) -> float:
        skipped = RATES if self.kind == "coupled" else ("WEIGHT_DECAY",) if self.kind == "plateau" else ()
        away = {n: position(n, values[n]) - best for n, best in self.best.items() if n not in skipped}
        if "MATRIX_LR" in away:
            away["MATRIX_LR"] -= 0.5 * away["BATCH_SIZE"]  # larger batches want larger rates
        return self.scale * sum(self.curvature[name] * self._shape(distance) for name, distance in away.items())

    def _shape(self, distance: float) -> float:
        if self.kind != "steep":
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


def run(make: Callable[[int], Proposer], landscapes: int, trials: int, seed: int, kind: str) -> list[Course]:
    """One session per landscape."""
    return [session(Landscape(seed + n, kind), make(seed + n), trials, seed + n) for n in range(landscapes)]


def compare(landscapes: int, trials: int, seed: int, kind: str) -> tuple[list[Course], list[Course]]:
    """The courses of `tune` and of the reference on the same landscapes."""
    return (run(Tune, landscapes, trials, seed, kind), run(Turn, landscapes, trials, seed, kind))


def ratio(tune: list[Course], turn: list[Course], share: float) -> float:
    """How many times the trials of `tune` the reference needs on average; at least, where it does not get there."""
    return statistics.fmean(c.reached(share) for c in turn) / statistics.fmean(c.reached(share) for c in tune)


def structural(proposer: Proposer, source: str, trials: int, seed: int) -> float:
    """The gain (bpb) of a session on a real script where each library edit that it takes is worth something of its own.

    Every second edit wins what it won in public sessions, the others lose as much; what changes constants draws from
    a distribution as wide as the constants' median there.
    """
    rng = random.Random(f"structure/{seed}")
    worth = {e.name: e.gain * (1.0 if rng.random() < 0.5 else -1.0) for e in CATALOGUE}
    mark = hyperparameters.fingerprint(source)
    history, gained, truths = [Tried(0, mark, "baseline", "keep", 0.0, source, mark)], 0.0, dict[int, float]()
    described = protocol.parse(recipe.load("smoke").files["protocol.json"])
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, trials + 1):
            seen = Context(source, described, history, "", number, Path(folder), sigma=NOISE)
            candidate = proposer.propose(seen)
            if candidate is None:
                break
            tried = Tried(
                number,
                hyperparameters.fingerprint(candidate.source),
                candidate.hypothesis,
                "discard",
                None,
                candidate.source,
                hyperparameters.fingerprint(source),
                proposer=candidate.proposer,
            )
            again = re.match(r"crossover: trial (\d+) ", candidate.hypothesis)  # worth what it was
            true = truths[int(again[1])] if again else worth.get(tried.kind, rng.gauss(-0.01, 0.01))
            truths[number] = true
            delta = true + rng.gauss(0, NOISE)
            kept = delta > KEEP * NOISE
            history.append(replace(tried, delta=delta, decision="keep" if kept else "discard"))
            if kept:
                source, gained = candidate.source, gained + true
    return gained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--landscapes", type=int, default=30)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--structure", type=Path, help="a train.py: the default proposers against tune alone on it")
    options = parser.parse_args()
    if options.structure is not None:
        source = options.structure.read_text()
        for name, spec in (("default", Proposing().proposer), ("edits,tune", "edits,tune"), ("tune", "tune")):
            gains = [
                structural(Proposing(spec).build(seed=n, files={}, say=lambda _: None), source, options.trials, n)
                for n in range(options.landscapes)
            ]
            print(f"{name:12} {statistics.fmean(gains):+.4f} bpb in {options.trials} trials")
        return
    for kind in options.kinds:
        tune, turn = compare(options.landscapes, options.trials, options.seed, kind)
        print(f"{kind} ({options.landscapes} landscapes)")
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
