"""Whole mining sessions on a landscape whose true gains are known: what a way of deciding earns per machine-hour.

A `Landscape` says what a proposer offers (true change of val_bpb, crashes) and how loud the machine is, from
stated distributions or resampled from a recorded session. A `World` is one session on it: it lends out runs
until the hours are spent and keeps the truth to itself. A strategy sees measured values only. Ours is the
miner's own code: `trainer.judging.trial.compare` with `MiningPolicy`, `usable_history`, the noise record and, where
asked for, `trainer.statistics.pruning` on made-up loss curves. References:

- lower:        one run; kept if it is below the best value so far, as most loops do it
- lower-fresh:  one run against one new run of the incumbent
- three:        three runs against the incumbent's three, kept if a 95 % bootstrap interval of delta lies above 0
- three-fresh:  the same with three new runs of the incumbent
- oracle:       one run, kept if truly better; nothing measured can do better, and regret is counted from it

Candidate number i of a session is the same for every strategy, but for what its successes use up.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from miner.journal.journal import Session
from miner.journal.run import RunRecord
from trainer.errors import TrainerError
from trainer.judging.trial import compare
from trainer.measurement.run import Run
from trainer.statistics import pruning
from trainer.statistics.comparison import Answer, Arm
from trainer.statistics.error_rates import ComparisonPolicy, LookEvidence
from trainer.statistics.mining import (
    BASELINE_RUNS,
    RECENT,
    STALE_TRIALS,
    MiningPolicy,
    lessons,
    usable_history,
    worth_of,
)
from trainer.statistics.noise import NoiseRecord
from trainer.statistics.pruning import Band, PruningRules

MIN_RECORDED = 10
_LEVEL = 100.0  # val_bpb of every session's first incumbent; only differences count, and no sum of gains reaches 0
_POINTS = 26  # of a made-up curve
DRIFT_RUNS = 20
DIVERGED_BY = 20.0  # sigma


class NothingToResample(TrainerError):
    """A recorded session with too few finished trials to draw from."""


@dataclass(frozen=True, slots=True)
class Landscape:
    """What is proposed and how loud it is measured; gains and losses in units of `sigma`, which is in bpb.

    `harmful`, `no_op`: shares of the candidates, the rest improves. Improvements are exponential with mean
    `effect`, losses exponential with mean `harm`·effect. After a true gain of `hardness`·effect an improvement is
    e times rarer (0: never). `crash`: share of candidates that crash, after `crash_seconds`. `fall`: what the
    incumbent's loss still falls in the second half of a run, for made-up curves. `drift`: standard deviation of a
    slow wander of the machine itself, correlated over `DRIFT_RUNS` runs, as of its temperature. `diverge`: share of
    all runs whose training goes wrong, by `DIVERGED_BY`. `effects` (sigma; positive is better) and `residuals` (of unit
    variance) replace the distributions where they are given.
    """

    sigma: float = 0.009
    effect: float = 1.0
    harm: float = 3.0
    harmful: float = 0.7
    no_op: float = 0.2
    hardness: float = 50.0
    crash: float = 0.05
    run_seconds: float = 140.0
    crash_seconds: float = 30.0
    fall: float = 16.0
    drift: float = 0.0
    diverge: float = 0.0
    effects: tuple[float, ...] = ()
    residuals: tuple[float, ...] = ()

    def propose(self, rng: random.Random, gained: float) -> float | None:
        """The true change of a candidate in sigma, or None if it crashes."""
        crash, kind, size, hard = rng.random(), rng.random(), rng.expovariate(1.0), rng.random()
        if crash < self.crash:
            return None
        if self.effects:
            value = self.effects[int(kind * len(self.effects))]
        elif kind < self.harmful:
            value = -self.harm * self.effect * size
        else:
            value = 0.0 if kind < self.harmful + self.no_op else self.effect * size
        used_up = max(0.0, gained) / (self.hardness * self.effect) if self.hardness and self.effect else 0.0
        if value > 0 and hard > math.exp(-used_up):
            return -self.harm * self.effect * size
        return value

    def noise(self, rng: random.Random) -> float:
        """One run's deviation in sigma."""
        if self.diverge and rng.random() < self.diverge:
            return DIVERGED_BY
        return rng.choice(self.residuals) if self.residuals else rng.gauss(0.0, 1.0)


def recorded(session: Session) -> Landscape:
    """A landscape like a recorded session: its noise, its candidates' gains, its crashes and its run times.

    Residuals are those of repeated runs of one script from their mean, scaled for the degree of freedom it costs.
    A measured delta also holds the noise of its own runs, so each is drawn towards their mean by the share of its
    variance that is noise; without that, noise would be resampled as gain. NothingToResample under
    `MIN_RECORDED` trials with a value or as many repeated runs.
    """
    trials = [trial for trial in session.trials if trial.number and trial.decision]
    groups = [values for trial in session.trials for values in _values(trial.runs) if len(values) > 1]
    deltas = [
        (trial.delta, 1 / len(candidate) + 1 / (len(candidate) + 2))
        for trial in trials
        if trial.delta is not None and (candidate := _values(trial.runs)[1])
    ]
    freedom = sum(len(group) - 1 for group in groups)
    if len(deltas) < MIN_RECORDED or freedom < MIN_RECORDED:
        raise NothingToResample(
            f"Resampling needs {MIN_RECORDED} finished trials and repeated runs, the session has {len(deltas)} and "
            f"{freedom}.",
            "Mine longer, or leave out --journal.",
        )
    residuals = [
        (value - statistics.fmean(group)) * math.sqrt(len(group) / (len(group) - 1))
        for group in groups
        for value in group
    ]
    sigma = max(1e-6, math.sqrt(math.fsum(r * r for r in residuals) / len(residuals)))
    mean = statistics.fmean(delta for delta, _ in deltas)
    noise = statistics.fmean(share for _, share in deltas) * sigma**2
    true = max(0.0, statistics.pvariance([delta for delta, _ in deltas]) - noise)
    effects = [mean + (delta - mean) * math.sqrt(true / (true + share * sigma**2)) for delta, share in deltas]
    finished = [run.seconds for trial in session.trials for run in trial.runs if run.val_bpb is not None]
    crashed = [run.seconds for trial in trials for run in trial.runs if run.failure == "crash"]
    return Landscape(
        sigma=sigma,
        effect=statistics.fmean([e / sigma for e in effects if e > 0] or [0.0]),
        crash=sum(trial.decision == "crash" for trial in trials) / len(trials),
        run_seconds=max(1e-3, statistics.median(finished)),
        crash_seconds=statistics.median(crashed) if crashed else 0.0,
        effects=tuple(effect / sigma for effect in effects),
        residuals=tuple(residual / sigma for residual in residuals),
    )


def _values(runs: Sequence[RunRecord]) -> list[list[float]]:
    """The values of the incumbent's and of the candidate's runs."""
    found: list[list[float]] = [[], []]
    for run in runs:
        if run.val_bpb is not None:
            found[run.arm is Arm.CANDIDATE].append(run.val_bpb)
    return found


# --- one session ------------------------------------------------------------------------------------------


class TimeUp(Exception):
    """The session's hours are spent; what was not kept by then is not."""


@dataclass(slots=True)
class Count:
    """What a session did: candidates by their truth, those kept, and the true gain in bpb at its end."""

    gain: float = 0.0
    proposed: int = 0
    no_ops: int = 0
    no_ops_kept: int = 0
    harmful: int = 0
    harmful_kept: int = 0
    improving: int = 0
    improving_kept: int = 0
    runs: float = 0.0


@dataclass(slots=True)
class World:
    """A session's clock, chance and truth. Strategies call `propose`, `candidate`, `incumbent` and `keep`."""

    landscape: Landscape
    hours: float
    seed: int
    seconds: float = 0.0
    count: Count = field(default_factory=Count)
    _effect: float | None = None
    _wander: float = 0.0
    _rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(f"noise {self.seed}")
        self._wander = self.landscape.drift * self._rng.gauss(0.0, 1.0)

    def propose(self) -> None:
        """Turn to the next candidate."""
        rng = random.Random(f"candidate {self.seed} {self.count.proposed}")
        self._effect = self.landscape.propose(rng, self.count.gain / self.landscape.sigma)
        self.count.proposed += 1
        self.count.no_ops += self._effect == 0
        self.count.harmful += self._effect is not None and self._effect < 0
        self.count.improving += self._effect is not None and self._effect > 0

    def candidate(self) -> float | None:
        """One run of the present candidate: its val_bpb, or None if it crashes."""
        if self._effect is None:
            self._spend(self.landscape.crash_seconds)
            return None
        return self._run(self._effect)

    def incumbent(self) -> float:
        """One run of the incumbent."""
        return self._run(0.0)

    def truth(self) -> float:
        """The candidate's true change in sigma: for the oracle and for made-up curves alone."""
        return self._effect or 0.0

    def keep(self) -> None:
        """Make the present candidate the incumbent."""
        effect = self._effect
        assert effect is not None
        self.count.gain += effect * self.landscape.sigma
        self.count.no_ops_kept += effect == 0
        self.count.harmful_kept += effect < 0
        self.count.improving_kept += effect > 0

    def back(self, seconds: float) -> None:
        """Give back what a run that was stopped early did not use."""
        self.seconds -= seconds
        self.count.runs -= seconds / self.landscape.run_seconds

    def curve(self, gap: float, rng: random.Random) -> list[tuple[float, float]]:
        """A made-up loss curve (share of a run, nats taken as bpb) that ends `gap` sigma above the incumbent's.

        Its shape follows the curves recorded in tests/benchmarks/data: the distance is open after two fifths of the
        run, and on top bulges or sags by chance in between, as other schedules and learning rates do.
        """
        fall, sag = self.landscape.fall, rng.gauss(0.0, 0.12)
        points = [i / (_POINTS - 1) for i in range(_POINTS)]
        left = [fall * ((2 * (1 - x)) ** 1.5 + sag * 4 * x * (1 - x)) for x in points]
        return [
            (x, self.landscape.sigma * (10 * fall + f + (gap + rng.gauss(0.0, 0.5)) * min(1.0, x / 0.4)))
            for x, f in zip(points, left, strict=True)
        ]

    def _run(self, effect: float) -> float:
        self._spend(self.landscape.run_seconds)
        deviation = self.landscape.noise(self._rng) - effect
        if self.landscape.drift:
            kept = math.exp(-1 / DRIFT_RUNS)
            self._wander = kept * self._wander + math.sqrt(1 - kept**2) * self.landscape.drift * self._rng.gauss(0, 1)
            deviation += self._wander
        return _LEVEL - self.count.gain + self.landscape.sigma * deviation

    def _spend(self, seconds: float) -> None:
        if self.seconds + seconds > 3600 * self.hours:
            raise TimeUp
        self.seconds += seconds
        self.count.runs += seconds / self.landscape.run_seconds


Strategy = Callable[[World], None]


def play(strategy: Strategy, landscape: Landscape, *, hours: float, seed: int) -> Count:
    """One session of a strategy."""
    world = World(landscape, hours, seed)
    with contextlib.suppress(TimeUp):
        strategy(world)
    return world.count


# --- the strategies ---------------------------------------------------------------------------------------

History = Callable[[Sequence[float], Sequence[float]], list[float]]


class PolicyOf(Protocol):
    """What a trial is judged by, as `MiningPolicy.now`."""

    def __call__(self, *, stale: bool, recent: bool, worth: float) -> ComparisonPolicy: ...


def ours(
    world: World,
    *,
    rules: PruningRules | None = None,
    history_of: History = usable_history,
    policy_of: PolicyOf = MiningPolicy.now,
) -> None:
    """The miner's own loop, without files and chain. `rules` turns pruning on, calibrated as the session goes."""
    noise, selected, fresh = NoiseRecord(), list[float](), [world.incumbent() for _ in range(BASELINE_RUNS)]
    race, last = _Race(world, rules) if rules else None, world.count.runs
    without_incumbent, earned = 0, list[tuple[int, float]]()
    for number in itertools.count(1):
        world.propose()
        history = history_of(selected, fresh)
        recent = bool(fresh) and world.count.runs - last <= RECENT
        policy = policy_of(stale=without_incumbent >= STALE_TRIALS, recent=recent, worth=worth_of(earned))

        def execute(ahead: Sequence[Arm]) -> list[Run]:
            arm = ahead[0]
            nonlocal last
            value = world.incumbent() if arm is Arm.INCUMBENT else world.candidate()
            last = world.count.runs if arm is Arm.INCUMBENT else last
            if race and arm is Arm.CANDIDATE and value is not None:
                race.watch(value)
            return [Run(arm, value, "" if value is not None else "crash", "", 0.0, None, b"")]

        try:
            outcome = compare(execute, history=history, noise=noise, policy=policy, seed=number)
        except _Stopped:
            without_incumbent += 1
            earned.append((1, 0.0))
            continue
        candidate, incumbent = outcome.values(Arm.CANDIDATE), outcome.values(Arm.INCUMBENT)
        without_incumbent = 0 if incumbent else without_incumbent + 1
        if race and outcome.decision and outcome.decision.evidence:
            race.learn(outcome.decision.evidence)
            race.seen(len(incumbent), kept=len(candidate) if outcome.decision.kind is Answer.APPROVE else 0)
        fresh += incumbent
        won = outcome.decision if outcome.decision and outcome.decision.kind is Answer.APPROVE else None
        earned.append((len(outcome.runs), won.evidence.delta if won and won.evidence else 0.0))
        noise = noise.update(lessons(candidate, [*selected, *fresh], won is not None, noise, policy))
        if won:
            world.keep()
            selected, fresh = candidate, []


class _Race:
    """Racing in a made-up session: curves for candidate runs, and the pairs that calibrate the rules."""

    def __init__(self, world: World, rules: PruningRules) -> None:
        self._world, self._rules = world, rules
        self._rng = random.Random(f"curves {world.seed}")
        self._curves = [world.curve(0.0, self._rng) for _ in range(BASELINE_RUNS)]
        self._band = Band.of(self._curves)
        self._lag: float | None = None
        self._pairs: list[tuple[float, float]] = []

    def watch(self, value: float) -> None:
        """Raise _Stopped, and give back the time, where a run that would end with `value` is hopeless."""
        world, band = self._world, self._band
        assert band is not None
        curve = world.curve((value - _LEVEL + world.count.gain) / world.landscape.sigma, self._rng)
        for n in range(1, len(curve)):
            if pruning.hopeless(curve[:n], band, budget_seconds=1.0, rules=self._rules):
                if not pruning.audited(world.seed * 1000 + world.count.proposed, self._rules):
                    world.back((1 - curve[n - 1][0]) * world.landscape.run_seconds)
                    raise _Stopped
                break
        self._lag = pruning.worst_lag(curve, band, budget_seconds=1.0, rules=self._rules)

    def seen(self, incumbents: int, *, kept: int) -> None:
        """So many more runs of the incumbent; or a new incumbent, which so many runs are known of."""
        before = [] if kept else self._curves
        if kept or incumbents:
            self._curves = [*before, *(self._world.curve(0.0, self._rng) for _ in range(kept or incumbents))]
            self._band = Band.of(self._curves)

    def learn(self, evidence: LookEvidence) -> None:
        """Pair the latest run's lag with what the trial found."""
        if self._lag is not None:
            self._pairs.append((self._lag, evidence.delta / evidence.sigma))
            self._rules = self._rules.calibrated(self._pairs)


class _Stopped(Exception):
    """Racing ended the candidate's run."""


def lower(world: World, *, fresh: bool = False) -> None:
    """Keep what one run measured lower than the best so far, or than one new run of the incumbent."""
    best = world.incumbent()
    while True:
        world.propose()
        value = world.candidate()
        if value is None:
            continue
        if fresh:
            best = world.incumbent()
        if value < best:
            world.keep()
            best = value


def three(world: World, *, fresh: bool = False) -> None:
    """Keep what three runs show lower than the incumbent's three, by a two-sided 95 % bootstrap of the means."""
    best = [world.incumbent() for _ in range(3)]
    while True:
        world.propose()
        values = [value for _ in range(3) if (value := world.candidate()) is not None]
        if not values:
            continue
        if fresh:
            best = [world.incumbent() for _ in range(3)]
        if bootstrap_low(best, values) > 0:
            world.keep()
            best = values


def oracle(world: World) -> None:
    """Keep what is truly better, for one run each."""
    while True:
        world.propose()
        if world.candidate() is not None and world.truth() > 0:
            world.keep()


def bootstrap_low(incumbent: Sequence[float], candidate: Sequence[float], quantile: float = 0.025) -> float:
    """The lower end of the exact bootstrap interval of the difference of means."""
    means = [[math.fsum(draw) / 3 for draw in itertools.product(values, repeat=3)] for values in (incumbent, candidate)]
    deltas = sorted(x - y for x in means[0] for y in means[1])
    return deltas[int(quantile * len(deltas))]


STRATEGIES: dict[str, Strategy] = {
    "ours": ours,
    "ours+pruning": lambda world: ours(world, rules=PruningRules()),
    "lower": lower,
    "lower-fresh": lambda world: lower(world, fresh=True),
    "three": three,
    "three-fresh": lambda world: three(world, fresh=True),
    "oracle": oracle,
}
REFERENCES = ("lower", "lower-fresh", "three", "three-fresh")


# --- many sessions ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over sessions and its standard error."""

    value: float
    error: float


@dataclass(frozen=True, slots=True)
class Result:
    """One strategy over many sessions. Gains in bpb per machine-hour, shares of the candidates of a kind."""

    name: str
    gain_per_hour: Estimate
    regret_per_hour: Estimate
    no_ops_kept: Estimate
    harmful_kept: Estimate
    improving_kept: Estimate
    trials: float


def summarise(name: str, counts: Sequence[Count], oracles: Sequence[Count], hours: float) -> Result:
    """The figures of one strategy's sessions; `oracles` are the oracle's, session by session."""

    def share(kept: str, of: str) -> Estimate:
        return ratio([getattr(count, kept) for count in counts], [getattr(count, of) for count in counts])

    return Result(
        name,
        mean([count.gain / hours for count in counts]),
        mean([(best.gain - count.gain) / hours for best, count in zip(oracles, counts, strict=True)]),
        share("no_ops_kept", "no_ops"),
        share("harmful_kept", "harmful"),
        share("improving_kept", "improving"),
        statistics.fmean(count.proposed for count in counts),
    )


def mean(values: Sequence[float]) -> Estimate:
    """The mean and its standard error."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(statistics.fmean(values), error)


def ratio(above: Sequence[float], below: Sequence[float]) -> Estimate:
    """The ratio of two means over the same sessions, with the delta method's standard error; nan where undefined."""
    bottom = statistics.fmean(below)
    if not bottom:
        return Estimate(math.nan, math.nan)
    value = statistics.fmean(above) / bottom
    return Estimate(value, mean([(a - value * b) / bottom for a, b in zip(above, below, strict=True)]).error)


def advantage(ours: Sequence[Count], theirs: Sequence[Count]) -> Estimate:
    """How many times the true gain of `theirs` `ours` found, session by session; nan where theirs found none."""
    if statistics.fmean(count.gain for count in theirs) <= 0:
        return Estimate(math.nan, math.nan)
    return ratio([count.gain for count in ours], [count.gain for count in theirs])


HEADER = f"{'':12s}  gain/hour, sigma   bpb  regret  no-ops kept  harmful kept  improvements kept  trials  ours over it"


def table(results: Sequence[Result], counts: dict[str, list[Count]], landscape: Landscape) -> str:
    """The figures as text, gains in units of sigma and in bpb."""
    sigma = landscape.sigma
    lines = [
        f"sigma {sigma:.4g} bpb, mean gain of an improvement {landscape.effect:.2g} sigma, "
        f"{landscape.run_seconds:.0f} s a run; ± is the standard error over sessions",
        HEADER,
    ]
    for result in results:
        times = advantage(counts["ours"], counts[result.name])
        gain, regret = result.gain_per_hour, result.regret_per_hour
        over = f"{times.value:6.2f} ±{times.error:.2f}" if times.value == times.value else "  theirs is not above 0"
        lines.append(
            f"{result.name:12s} {gain.value / sigma:7.3f} ±{gain.error / sigma:.3f} {gain.value:10.5f} "
            f"{regret.value / sigma:7.2f} {result.no_ops_kept.value:7.2%} ±{result.no_ops_kept.error:.2%} "
            f"{result.harmful_kept.value:13.2%} {result.improving_kept.value:18.1%} {result.trials:7.0f} {over}"
        )
    return "\n".join(lines)
