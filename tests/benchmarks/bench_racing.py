"""What `trainer.racing` stops and saves on recorded loss curves.

    python -m tests.benchmarks.bench_racing

data/smoke_curves.json.gz are runs of the smoke project on two CPU cores with 95 varied codes around three
incumbents, data/smoke_curves_held_out.json.gz runs of a later recording with other random codes, made after the
rules were fixed (`record_curves`; hardware, date and settings are in the files). Three views:

1. Each code against its round's incumbent, as a session would see it. A winner is a code whose one value is below
   the mean of the incumbent's, which also counts lucky no-ops. Few, so the binomial limit is wide.
2. Each run against every other run as its incumbent, so that a good half of all pairs has a winner: warm-downs,
   learning rates and batch sizes that differ at will. The band of a single run has no spread, which makes the rule
   stop more. Pairs share runs; the limit is that of a bootstrap over runs, not over pairs.
3. As 2, with the candidate's curve bent by chance: moved by a random walk that ends three of the band's spreads away,
   and its time stretched by up to 5 % and up to 15 %, as on a machine under load. The stretch leaves the run's value
   as it was, so it asks more than load does: that would cost the run its win as well, and the miner discards a run
   whose throughput is off.

Time saved is the share of the losers' run time, and of all.
"""

from __future__ import annotations

import gzip
import json
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.racing import MIN_POINTS, Band, Rules, hopeless, worst_lag

DATA = Path(__file__).parent / "data"
TUNED, HELD_OUT = DATA / "smoke_curves.json.gz", DATA / "smoke_curves_held_out.json.gz"
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
    """Winners and losers, those stopped, and the share of run time saved on losers and on all."""

    winners: int
    winners_stopped: int
    losers: int
    losers_stopped: int
    saved_of_losers: float
    saved: float
    limit: float

    def __str__(self) -> str:
        return (
            f"winners stopped {self.winners_stopped:4d} of {self.winners:5d} "
            f"({self.winners_stopped / max(1, self.winners):6.2%}, 95 % limit {self.limit:6.2%})   "
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


def stopped_at(curve: Points, band: Band, budget: float, rules: Rules) -> float | None:
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


def within_rounds(recording: Recording, rules: Rules) -> Tally:
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
    return tally(outcomes, binomial_limit(stopped, sum(won for won, _ in outcomes)))


def across(recording: Recording, rules: Rules, *, stretch: float | None = None, resamples: int = 1000) -> Tally:
    """View 2, or view 3 with a largest `stretch`. The limit is the 95 % point of a bootstrap over runs."""
    runs = [run for run in recording.runs if len(run.curve) >= MIN_POINTS]
    chance = random.Random(3)
    bands = [Band.of([run.curve] * 2) for run in runs]
    table: list[list[tuple[bool, float | None] | None]] = []
    for i, run in enumerate(runs):
        row: list[tuple[bool, float | None] | None] = []
        for j, other in enumerate(runs):
            band = bands[j]
            if i == j or band is None:
                row.append(None)
                continue
            curve = run.curve if stretch is None else bend(run.curve, chance, stretch)
            row.append((run.val_bpb < other.val_bpb, stopped_at(curve, band, recording.budget_seconds, rules)))
        table.append(row)
    rng, shares = random.Random(1), []
    wins = [[1 if cell and cell[0] else 0 for cell in row] for row in table]
    wrong = [[1 if cell and cell[0] and cell[1] is not None else 0 for cell in row] for row in table]
    for _ in range(resamples):
        rows = rng.choices(range(len(runs)), k=len(runs))
        columns = rng.choices(range(len(runs)), k=len(runs))
        above = sum(wrong[i][j] for i in rows for j in columns)
        below = sum(wins[i][j] for i in rows for j in columns)
        shares.append(above / max(1, below))
    return tally([cell for row in table for cell in row if cell], sorted(shares)[int(0.95 * resamples)])


def bend(curve: Points, rng: random.Random, stretch: float, spread: float = 0.02) -> Points:
    """A curve under load and by chance: its time stretched, its loss moved by a walk of three spreads at the end."""
    factor, moved, walk = 1 + rng.uniform(0, stretch), [], 0.0
    for time, loss in curve:
        moved.append((time * factor, loss + walk))
        walk += rng.gauss(0, 3 * spread / math.sqrt(len(curve)))
    return tuple(moved)


def tally(outcomes: Sequence[tuple[bool, float | None]], limit: float) -> Tally:
    """The counts of (won, share at which it was stopped)."""
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
        limit,
    )


def pairs(recording: Recording, rules: Rules) -> list[tuple[float, float]]:
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
    rules = Rules()
    print(rules)
    for path in (TUNED, HELD_OUT):
        recording = load(path)
        print(f"\n{path.name}: {len(recording.runs)} runs; {recording.about}")
        print(f" 1 own incumbent  {within_rounds(recording, rules)}")
        print(f" 2 any incumbent  {across(recording, rules)}")
        print(f" 3 bent, 5 %      {across(recording, rules, stretch=0.05)}")
        print(f" 3 bent, 15 %     {across(recording, rules, stretch=0.15)}")
        calibrated = rules.calibrated(pairs(recording, rules))
        print(f" calibrated by its own pairs: ratio {calibrated.ratio:.2f} instead of {rules.ratio:.2f}")
    recording = load(HELD_OUT)
    print("\nOther ratios, held-out recording, any incumbent")
    for ratio in (0.5, 0.75, 1.5, 2.0):
        print(f" ratio {ratio:4.2f}       {across(recording, Rules(ratio=ratio))}")


if __name__ == "__main__":
    main()
