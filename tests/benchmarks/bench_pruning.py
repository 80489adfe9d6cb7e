"""What `trainer.statistics.pruning` stops and saves on recorded loss curves.

    python -m tests.benchmarks.bench_pruning

data/smoke_curves.json.gz are runs of the smoke project on two CPU cores with 96 varied codes around three
incumbents. The other three files there are later recordings with 128, 160 and 160 other codes around four incumbents
each: no rule was changed after the second was first looked at. That one was extended once, from 80 codes, and the last
two were recorded to narrow the limits further, their size fixed beforehand (`record_curves`; hardware, date and
settings are in the files). Four views:

1. Each code against its round's incumbent, as a session would see it. A winner is a code whose one value is below
   the mean of the incumbent's, which also counts lucky no-ops. Few, so the binomial limit is wide.
2. Each run against every other run as its incumbent, so that a good half of all pairs has a winner: warm-downs,
   learning rates and batch sizes that differ at will. The band of a single run has no spread, which makes the rule
   stop more. Pairs share runs, so the limit counts each run once as a candidate, against one run that it beats,
   drawn at random: these are independent trainings.
3. As 2, with the candidate's curve bent by chance: moved by a random walk that ends three of the band's spreads away,
   and its time stretched by up to 5 % and up to 15 %, as on a machine under load. The stretch leaves the run's value
   as it was, so it asks more than load does: that would cost the run its win as well, and the miner discards a run
   whose throughput is off.

4. Made-up winners with a late warm-down, against the incumbent's runs of a recorded session (11.4M parameters, 300 s on
   an H100, warm-down over the last half): each holds the incumbent's plateau, or stays above it, until its own
   warm-down takes it below the incumbent's end.

Time saved is the share of the losers' run time, and of all.
"""

from __future__ import annotations

import gzip
import json
import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.statistics.pruning import MIN_POINTS, Band, PruningRules, hopeless, worst_lag

DATA = Path(__file__).parent / "data"
RECORDED = DATA / "session-h100-300s.jsonl"
TUNED, HELD_OUT = DATA / "smoke_curves.json.gz", DATA / "smoke_curves_held_out.json.gz"
FILES = (TUNED, HELD_OUT, DATA / "smoke_curves_third.json.gz", DATA / "smoke_curves_fourth.json.gz")
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Run:
    """A recorded run: its round, what differs from the round's incumbent, its value (bpb) and curve."""

    round: int
    changed: str
    val_bpb: float
    curve: Points


@dataclass(frozen=True, slots=True)
class Recording:
    """The runs of one file that gave a value, and their budget."""

    about: str
    budget_seconds: float
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Tally:
    """Winners and losers, those stopped, the share of run time saved on losers and on all, and the winners that are
    independent of each other with those of them stopped."""

    winners: int
    winners_stopped: int
    losers: int
    losers_stopped: int
    saved_of_losers: float
    saved: float
    independent_stopped: int
    independent: int

    def __str__(self) -> str:
        return (
            f"winners stopped {self.winners_stopped:4d} of {self.winners:5d} "
            f"({self.winners_stopped / max(1, self.winners):6.2%}; "
            f"independent {self.independent_stopped} of {self.independent:3d}, 95 % limit "
            f"{binomial_limit(self.independent_stopped, self.independent):6.2%})   "
            f"losers stopped {self.losers_stopped / max(1, self.losers):6.1%}   "
            f"time saved {self.saved_of_losers:6.1%} of losers', {self.saved:6.1%} of all"
        )


def load(path: Path) -> Recording:
    """A recording; runs without a value are left out."""
    document: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    runs = [
        Run(
            number,
            json.dumps(run["changed"], sort_keys=True) if run["changed"] else "",
            run["val_bpb"],
            tuple((float(time), float(loss)) for time, loss in run["curve"]),
        )
        for number, part in enumerate(document["rounds"])
        for run in part["runs"]
        if run["val_bpb"] is not None
    ]
    about = f"{document['recorded']}, {document['hardware']['class']}, {document['project']}, {document['clock']}"
    return Recording(about, float(document["budget_seconds"]), tuple(runs))


def stopped_at(curve: Points, band: Band, budget: float, rules: PruningRules) -> float | None:
    """The share of the budget at which the run would have been stopped."""
    for end in range(MIN_POINTS, len(curve) + 1):
        if hopeless(curve[:end], band, budget_seconds=budget, rules=rules):
            return curve[end - 1][0] / budget
    return None


def binomial_limit(failures: int, trials: int, level: float = 0.05) -> float:
    """The exact (Clopper-Pearson) one-sided upper limit of a share: where so few would be seen with 5 %."""
    low, high = failures / trials if trials else 0.0, 1.0
    for _ in range(60):
        p = (low + high) / 2
        seen = math.fsum(math.comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(failures + 1))
        low, high = (p, high) if seen > level else (low, p)
    return high


def within_rounds(recording: Recording, rules: PruningRules) -> Tally:
    """View 1."""
    outcomes = []
    for number in {run.round for run in recording.runs}:
        incumbents = [run for run in recording.runs if run.round == number and not run.changed]
        band = Band.of([run.curve for run in incumbents])
        if band is None:
            continue
        mean = statistics.fmean(run.val_bpb for run in incumbents)
        outcomes += [
            (run.val_bpb < mean, stopped_at(run.curve, band, recording.budget_seconds, rules))
            for run in recording.runs
            if run.round == number and run.changed
        ]
    stopped = sum(won and at is not None for won, at in outcomes)
    return tally(outcomes, stopped, sum(won for won, _ in outcomes))


def across(recording: Recording, rules: PruningRules, *, stretch: float | None = None) -> Tally:
    """View 2, or view 3 with a largest `stretch`."""
    runs = [run for run in recording.runs if len(run.curve) >= MIN_POINTS]
    bands = [Band.of([run.curve]) for run in runs]
    chance, draw = random.Random(3), random.Random(1)
    outcomes, once = [], []
    for i, run in enumerate(runs):
        beaten = []
        for j, other in enumerate(runs):
            band = bands[j]
            if i == j or band is None:
                continue
            curve = run.curve if stretch is None else bend(run.curve, chance, stretch)
            at = stopped_at(curve, band, recording.budget_seconds, rules)
            outcomes.append((run.val_bpb < other.val_bpb, at))
            if run.val_bpb < other.val_bpb:
                beaten.append(at is not None)
        if beaten:
            once.append(draw.choice(beaten))
    return tally(outcomes, sum(once), len(once))


def recorded() -> tuple[list[Points], float]:
    """The loss curves of a recorded session at full size, and their budget in seconds."""
    events = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    curves = [event["curve"] for event in events if event["event"] == "run" and event["curve"]]
    return [tuple((float(time), float(loss)) for time, loss in curve) for curve in curves], 300.0


def late_warm_downs(share: float, above: float, number: int, rules: PruningRules) -> float:
    """View 4: the share of such winners that are stopped. They warm down over the last `share` of the run, from a
    plateau that many nats `above` the incumbent's.
    """
    (*incumbents, other), budget = recorded()
    band, rng, stopped = Band.of(incumbents), random.Random(1), 0
    assert band is not None
    plateau, final, begin = band.loss(0.5 * budget) + above, band.mean[-1] - 0.01, (1 - share) * budget
    for _ in range(number):
        curve = [
            (time, max(loss, plateau) + rng.gauss(0, 0.03))
            if time <= begin
            else (time, plateau + (final - plateau) * (time - begin) / (band.end - begin) + rng.gauss(0, 0.03))
            for time, loss in other
        ]
        stopped += stopped_at(tuple(curve), band, budget, rules) is not None
    return stopped / number


def bend(curve: Points, rng: random.Random, stretch: float, spread: float = 0.02) -> Points:
    """A curve under load and by chance: its time stretched, its loss moved by a walk of three spreads at the end."""
    factor, moved, walk = 1 + rng.uniform(0, stretch), [], 0.0
    for time, loss in curve:
        moved.append((time * factor, loss + walk))
        walk += rng.gauss(0, 3 * spread / math.sqrt(len(curve)))
    return tuple(moved)


def tally(outcomes: Sequence[tuple[bool, float | None]], stopped: int, independent: int) -> Tally:
    """The counts of (won, share at which it was stopped); of the `independent` winners `stopped` were stopped."""
    winners = [at for won, at in outcomes if won]
    losers = [at for won, at in outcomes if not won]
    saved = [1 - at for at in losers if at is not None]
    return Tally(
        len(winners),
        sum(at is not None for at in winners),
        len(losers),
        len(saved),
        math.fsum(saved) / max(1, len(losers)),
        math.fsum(saved) / max(1, len(outcomes)),
        stopped,
        independent,
    )


def pairs(recording: Recording, rules: PruningRules) -> list[tuple[float, float]]:
    """(worst lag, delta in sigma) of every code against its round's incumbent: what a session calibrates with."""
    found = []
    for number in {run.round for run in recording.runs}:
        incumbents = [run for run in recording.runs if run.round == number and not run.changed]
        band = Band.of([run.curve for run in incumbents])
        if band is None:
            continue
        values = [run.val_bpb for run in incumbents]
        mean, sigma = statistics.fmean(values), statistics.stdev(values)
        for run in recording.runs:
            if run.round == number and run.changed:
                lag = worst_lag(run.curve, band, budget_seconds=recording.budget_seconds, rules=rules)
                if lag is not None:
                    found.append((lag, (mean - run.val_bpb) / sigma))
    return found


def main() -> None:
    rules = PruningRules()
    print(rules)
    recordings = [load(path) for path in FILES]
    views: dict[str, Callable[[Recording], Tally]] = {
        "1 own incumbent": lambda recording: within_rounds(recording, rules),
        "2 any incumbent": lambda recording: across(recording, rules),
        "3 bent, 5 %": lambda recording: across(recording, rules, stretch=0.05),
        "3 bent, 15 %": lambda recording: across(recording, rules, stretch=0.15),
    }
    found = {name: [view(recording) for recording in recordings] for name, view in views.items()}
    for i, (path, recording) in enumerate(zip(FILES, recordings, strict=True)):
        print(f"\n{path.name}: {len(recording.runs)} runs; {recording.about}")
        for name, tallies in found.items():
            print(f" {name:16s} {tallies[i]}")
        calibrated = rules.calibrated(pairs(recording, rules))
        print(f" calibrated by its own pairs: ratio {calibrated.ratio:.2f} instead of {rules.ratio:.2f}")
    print("\nAll recordings, independent winners: stopped, exact 95 % limit")
    for name, tallies in found.items():
        stopped, winners = sum(t.independent_stopped for t in tallies), sum(t.independent for t in tallies)
        print(f" {name:16s} {stopped} of {winners}, {binomial_limit(stopped, winners):.2%}")
    print("\n4 late warm-downs: winners stopped, by the last share of a run and nats above the plateau")
    for latest in (rules.latest, 0.85):
        cells = [
            f"{share:.0%} {above:.2f}: {late_warm_downs(share, above, 100, PruningRules(latest=latest)):4.0%}"
            for share in (0.1, 0.2, 0.3)
            for above in (0.0, 0.03, 0.06, 0.1)
        ]
        print(f" latest {latest:.2f}  " + "  ".join(cells))
    print("\nOther ratios, held-out recording, any incumbent")
    for ratio in (0.5, 0.75, 1.5, 2.0):
        print(f" ratio {ratio:4.2f}       {across(recordings[1], PruningRules(ratio=ratio))}")


if __name__ == "__main__":
    main()
