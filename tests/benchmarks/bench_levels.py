"""How often a verdict's comparison approves what is no better, on noise that is not as its mathematics assumes.

    python -m tests.benchmarks.bench_levels [--trials N] [--processes N]

A simulator that knows nothing of the comparison but `decide`: it asks which arm runs next, makes up that run, and
stops at an answer, at the level of a first look. Runs are salted as a judge salts them: the runs of a pair share their
luck, and that part of the noise is what was measured on the smoke project (between seeds 0.0093 bpb, within one
0.0058). All figures are in units of sigma, the standard deviation of one salted run. A row prints the share of no-ops
approved, the share of true gains of 3 sigma that are approved, the mean runs of either arm over both, and the
break-even of submitting no-ops: the reward in stakes above which it would pay (rejections over approvals; a release
costs time only).
Whether an answer rejects is for the verdict to say (`trainer.judging.judge.compared`): a gain that is suggested, or a
machine that is louder than its record, releases.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from tests.trainer.judging.cases import replay_run
from trainer.judging.judge import compared
from trainer.judging.policy import JudgePolicy
from trainer.judging.verdict import GainOutcome
from trainer.statistics.comparison import Answer, Arm, TrialSamples, decide
from trainer.statistics.error_rates import ComparisonPolicy, incumbent_lead
from trainer.statistics.noise import NoiseRecord

SIGMA, LEVEL, RECORD_DF, GAIN = 0.01, 2.5, 20, 3.0
SEED_SHARE = 0.0093 / math.hypot(0.0093, 0.0058)
PACE_SHARE = math.sqrt(1 - SEED_SHARE**2)
JUDGE = JudgePolicy()
Rng = np.random.Generator
Draw = Callable[[Rng], float]


def normal(rng: Rng) -> float:
    return float(rng.standard_normal())


def student3(rng: Rng) -> float:
    return float(rng.standard_t(3)) / math.sqrt(3)


def fast_tail(rng: Rng) -> float:
    """Skewed towards low, lucky values."""
    return 1.0 - float(rng.exponential())


def slow_tail(rng: Rng) -> float:
    return float(rng.exponential()) - 1.0


def bad_runs(rng: Rng) -> float:
    """One run in twenty is 10 sigma too slow."""
    return normal(rng) + (10 / PACE_SHARE if rng.random() < 0.05 else 0.0)


def diverging(rng: Rng) -> float:
    """One run in thirty diverges and ends 20 sigma higher."""
    return normal(rng) + (20 / PACE_SHARE if rng.random() < 1 / 30 else 0.0)


@dataclass(frozen=True, slots=True)
class World:
    """What a run's noise is made of; see ROWS for the words. `luck` is a candidate's own, which no salt reaches;
    `pace_left` the share of the pace noise that is left where something tells the rest; a candidate `hides` a run
    whose noise is worse than that: it makes it 30 sigma bad."""

    draw: Draw = normal
    drift: float = 0.0
    step: float = 0.0
    correlation: float = 0.0
    scatter: float = 1.0
    record: float = 1.0
    rounding: float = 0.0
    luck: int = 0
    record_df: int = RECORD_DF
    pace_left: float = 1.0
    hides: float = math.inf


@dataclass(slots=True)
class Machine:
    """Makes up the runs of one trial."""

    world: World
    rng: Rng
    gain: float
    shared: list[float] = field(default_factory=list)  # the luck of each salt
    time: int = 0
    last: float = 0.0
    breaks_at: int = 0
    fixed: float = 0.0

    def __post_init__(self) -> None:
        self.breaks_at = int(self.rng.integers(1, 10))
        if self.world.luck:
            self.fixed = min(normal(self.rng) for _ in range(self.world.luck))

    def run(self, arm: Arm, number: int) -> float:
        world = self.world
        if arm is Arm.CANDIDATE:
            number += incumbent_lead(world.record_df)  # its pair's
        while len(self.shared) <= number:
            self.shared.append(normal(self.rng))
        pace = world.pace_left * world.draw(self.rng)
        if world.correlation:
            pace = world.correlation * self.last + math.sqrt(1 - world.correlation**2) * pace
            self.last = pace
        mine = arm is Arm.CANDIDATE
        luck = self.fixed if mine and world.luck else self.shared[number]
        noise = SEED_SHARE * luck + PACE_SHARE * pace
        if mine and world.scatter > 1:
            noise += math.sqrt(world.scatter**2 - 1) * normal(self.rng)
        elif mine:
            noise *= world.scatter
        if mine and noise > world.hides:
            noise = 30.0
        trend = world.drift * self.time + world.step * (self.time >= self.breaks_at)
        self.time += 1
        value = LEVEL + SIGMA * (noise + trend - (self.gain if mine else 0.0))
        return round(value / (world.rounding * SIGMA)) * world.rounding * SIGMA if world.rounding else value


def trial(world: World, rng: Rng, gain: float, policy: ComparisonPolicy) -> tuple[Answer, int, int]:
    """One trial's answer, candidate runs and incumbent runs."""
    usual = math.hypot(SEED_SHARE, PACE_SHARE * world.pace_left)
    squares = (world.record * usual * SIGMA) ** 2 * float(rng.chisquare(world.record_df)) if world.record_df else 0.0
    noise, machine, seed = (
        NoiseRecord(squares, float(world.record_df)),
        Machine(world, rng, gain),
        int(rng.integers(2**32)),
    )
    values: dict[Arm, list[float]] = {Arm.INCUMBENT: [], Arm.CANDIDATE: []}
    while True:
        decision = decide(TrialSamples(values[Arm.INCUMBENT], values[Arm.CANDIDATE]), noise, policy, seed=seed)
        if decision.next_arm is None:
            kind = decision.kind
            if kind is Answer.REJECT and not _slashed(values, noise, policy, seed):
                kind = Answer.UNDECIDED
            return kind, len(values[Arm.CANDIDATE]), len(values[Arm.INCUMBENT])
        runs = values[decision.next_arm]
        runs.append(machine.run(decision.next_arm, len(runs)))


def _slashed(values: dict[Arm, list[float]], noise: NoiseRecord, policy: ComparisonPolicy, seed: int) -> bool:
    """Whether the verdict follows a rejection by the comparison."""
    runs = [replay_run(arm.value, value) for arm, found in values.items() for value in found]
    return compared(runs, noise, replace(JUDGE, comparison=policy), seed)[0] is GainOutcome.NOT_BETTER


ROWS: dict[str, World] = {
    "Gaussian": World(),
    "Gaussian, no record": World(record_df=0),
    "Student's t, 3 degrees": World(student3),
    "tail towards fast": World(fast_tail),
    "tail towards slow": World(slow_tail),
    "bad runs": World(bad_runs),
    "bad runs, no record": World(bad_runs, record_df=0),
    "diverging": World(diverging),
    "diverging, no record": World(diverging, record_df=0),
    "drift 0.3 sigma a run": World(drift=0.3),
    "drift -0.3 sigma a run": World(drift=-0.3),
    "step of 3 sigma": World(step=3.0),
    "step of -3 sigma": World(step=-3.0),
    "autocorrelation 0.7": World(correlation=0.7),
    "candidate scatters 0.5x": World(scatter=0.5),
    "candidate scatters 2x": World(scatter=2.0),
    "candidate scatters 4x": World(scatter=4.0),
    "candidate scatters 10x": World(scatter=10.0),
    "hides runs over 0.5 sigma": World(hides=0.5),
    "hides runs over 1 sigma": World(hides=1.0),
    "hides runs over 1.5 sigma": World(hides=1.5),
    "record says half": World(record=0.5),
    "ties, 1 sigma apart": World(rounding=1.0),
    "own random numbers": World(luck=1),
    "own, best of 20 seeds": World(luck=20),
}


@dataclass(frozen=True, slots=True)
class LevelRow:
    """Shares of the no-ops approved and rejected, of the true gains approved, and mean runs."""

    approved: float
    rejected: float
    power: float
    gains_rejected: float
    candidate_runs: float
    incumbent_runs: float

    @property
    def break_even(self) -> float:
        return self.rejected / self.approved if self.approved else math.inf


def measure(world: World, trials: int, seed: int, policy: ComparisonPolicy) -> LevelRow:
    """A row, from `trials` trials without a gain and as many with one."""
    rng = np.random.default_rng(seed)
    found = {gain: [trial(world, rng, gain, policy) for _ in range(trials)] for gain in (0.0, GAIN)}

    def share(gain: float, answer: Answer) -> float:
        return sum(kind is answer for kind, _, _ in found[gain]) / trials

    return LevelRow(
        share(0.0, Answer.APPROVE),
        share(0.0, Answer.REJECT),
        share(GAIN, Answer.APPROVE),
        share(GAIN, Answer.REJECT),
        sum(runs for row in found.values() for _, runs, _ in row) / (2 * trials),
        sum(runs for row in found.values() for _, _, runs in row) / (2 * trials),
    )


def _mean(rows: list[LevelRow]) -> LevelRow:
    return LevelRow(*(sum(getattr(row, name) for row in rows) / len(rows) for name in LevelRow.__slots__))


def table(trials: int, processes: int, policy: ComparisonPolicy, only: str = "") -> Iterator[tuple[str, LevelRow]]:
    """Every row of ROWS, its trials spread over `processes`."""
    part = max(1, trials // processes)
    with ProcessPoolExecutor(processes) as pool:
        pending = {
            name: [pool.submit(measure, world, part, 1000 * index + k, policy) for k in range(processes)]
            for index, (name, world) in enumerate(ROWS.items())
            if only in name
        }
        for name, parts in pending.items():
            yield name, _mean([one.result() for one in parts])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=20_000, help="of each kind in a row")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    for name in ("alpha", "beta", "spending"):
        parser.add_argument(f"--{name}", type=float, help="another value than the policy's")
    given = parser.parse_args()
    changed = {name: getattr(given, name) for name in ("alpha", "beta", "spending") if getattr(given, name)}
    policy = replace(JUDGE.at_look(1).comparison, **changed)
    print(f"{'noise':<26} no-ops approved   3 sigma approved  rejected   runs            break-even")
    for name, row in table(given.trials, given.processes, policy, given.only):
        print(
            f"{name:<26} {row.approved:15.2%} {row.power:18.1%} {row.gains_rejected:9.1%}"
            f"   {row.candidate_runs:.2f} + {row.incumbent_runs:.2f}   {row.break_even:12.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
