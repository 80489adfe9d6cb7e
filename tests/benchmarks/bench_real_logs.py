"""What the ways of deciding find on changes and noise of real sessions, from public logs.

    python -m tests.benchmarks.bench_real_logs [--quick]

data/real_logs.json holds the numbers of 42 segments of public results.tsv files (its "about" says what is what, and
each line its repository and commit): Macs with MLX and MPS, six long and one short session on one owner's M5 Max with
the steps of every run, and NVIDIA and AMD cards. What is taken from them:

- **Noise**: repeats of code that is the same in effect. On the M5 Max it is almost all *pace*: the laptop makes 255 to
  530 steps with the same code as it heats up, val_bpb follows the logarithm of the steps, and around that line little
  is left. So there are two figures, as measured and at equal pace.
- **Changes**: best kept value before a candidate minus the candidate's, crashes, reruns and known no-ops apart. Where a
  log has steps and the candidate's memory is that of the incumbent (the same shape), the change is taken to the
  incumbent's pace along the line of the repeats.
- **True changes**: a measured change holds the noise of two single runs. `tests.benchmarks.simulation.recorded`
  shrinks all by one factor, which leaves noise as gain where the changes have heavy tails: the largest losses make
  the variance. Here the distribution is unfolded instead (Kiefer-Wolfowitz maximum likelihood by EM, `NEAR` noise
  deviations around 0; what is further is taken as it is), for each assumed sigma. Both are shown. Neither mends the
  selection: the best kept value is a lucky one, so changes are understated by up to about one sigma. Known no-ops
  come in as zeros.

Sigma is the least known figure, so each landscape is played at several. Candidates are drawn from all of a group's,
from the first EARLY of each session, or from later ones; "used up" makes gains rarer as they are found. 8-hour
sessions, 330 s a run, everything seeded. A good quarter of an hour on one core; --quick plays a tenth of the sessions.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_mining import EFFECTS, HEADER, HOURS, compare_all, sessions, topped_up
from tests.benchmarks.simulation import REFERENCES, STRATEGIES, Count, Landscape, Strategy, advantage, ours, summarise
from trainer.statistics.mining import MiningPolicy

DATA = Path(__file__).parent / "data" / "real_logs.json"
EARLY = 10
NEAR = 8.0  # deviations of a change's noise from 0 within which changes are unfolded
DRAWS = 2000
RUN_SECONDS = 330.0
GROUPS = {"Macs": ("mlx", "mps"), "one M5 Max": ("m5max",), "GPUs": ("gpu",)}
SIGMAS = {
    "Macs": (0.0016, 0.0008, 0.0032, 0.006),
    "one M5 Max": (0.001, 0.0005, 0.002),
    "GPUs": (0.0003, 0.00015, 0.0006, 0.0011),
}
"""Sigma of one run, in bpb, that a group's changes are unfolded with and played at: measured, half, double, and what
else was measured. Macs: two pairs of repeats (a third Mac, of 15 to 20 steps a run, scatters by 0.032), and two runs of
our own on H100s. M5 Max: at equal pace, without one tiny model that scatters by 0.007. GPUs: repeats, near copies."""
HOT = 0.0085  # repeats on the M5 Max with the pace they had
NUMBER = 600
_ROUNDS, _STEP = 300, 0.25


class BadLog(ValueError):
    """A log file with something in it that cannot be."""


@dataclass(frozen=True, slots=True)
class Log:
    """One session or segment: see the file's "about" for the letters of `statuses`."""

    repository: str
    commit: str
    path: str
    group: str
    device: str
    complete: bool
    budget_stated: bool
    values: tuple[float | None, ...]
    statuses: str
    steps: tuple[int | None, ...]
    memory_gb: tuple[float | None, ...]
    repeats: tuple[tuple[int, ...], ...]
    near_copies: tuple[tuple[int, ...], ...]
    no_ops: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What one candidate changed, in bpb (positive is better), as logged and at the incumbent's pace."""

    raw: float
    paced: float
    early: bool


@dataclass(frozen=True, slots=True)
class Noise:
    """The standard deviation of one run, in bpb, and its degrees of freedom."""

    sigma: float
    df: int


# --- reading ----------------------------------------------------------------------------------------------


def read(path: Path = DATA) -> list[Log]:
    """The logs of a file; BadLog where it holds what no log can."""
    data = json.loads(path.read_text(encoding="utf-8"))
    logs = [_log(entry) for entry in data["sessions"]]
    seen: set[tuple[float | None, ...]] = set()
    for log in logs:
        head = log.values[:5]
        if head in seen:
            raise BadLog(f"{log.repository} {log.path}: begins as another one does")
        seen.add(head)
    return logs


def _log(entry: dict[str, Any]) -> Log:
    values, statuses = tuple(entry["values"]), entry["statuses"]
    n = len(values)
    log = Log(
        repository=entry["repository"],
        commit=entry["commit"],
        path=entry["path"],
        group=entry["group"],
        device=entry["device"],
        complete=entry["complete"],
        budget_stated=entry["budget_stated"],
        values=values,
        statuses=statuses,
        steps=tuple(entry.get("steps", [None] * n)),
        memory_gb=tuple(entry.get("memory_gb", [None] * n)),
        repeats=tuple(tuple(group) for group in entry.get("repeats", [])),
        near_copies=tuple(tuple(group) for group in entry.get("near_copies", [])),
        no_ops=tuple(entry.get("no_ops", [])),
    )

    def must(good: bool, what: str) -> None:
        if not good:
            raise BadLog(f"{log.repository} {log.path}: {what}")

    must(re.fullmatch(r"[\w.-]+/[\w.-]+", log.repository) is not None, "no repository")
    must(re.fullmatch(r"[0-9a-f]{40}", log.commit) is not None or log.path.startswith("https://"), "no source")
    must(log.group in {group for groups in GROUPS.values() for group in groups}, f"group {log.group!r}")
    must(n > 1 and n == len(statuses) == len(log.steps) == len(log.memory_gb), "lengths differ")
    must(statuses[0] == "b" and not set(statuses[1:]) - set("kdcrx"), f"statuses {statuses!r}")
    for value, status, steps in zip(values, statuses, log.steps, strict=True):
        must((value is None) == (status == "c"), "a crash has no value, and nothing else lacks one")
        must(value is None or (isinstance(value, float) and 0.5 < value < 5), f"value {value!r}")
        must(steps is None or (isinstance(steps, int) and steps > 0), f"steps {steps!r}")
    for group in (*log.repeats, *log.near_copies):
        must(len(set(group)) == len(group) > 1, "a group of repeats has two members or more")
        must(all(0 <= i < n and statuses[i] in "bkdr" for i in group), "a repeat without a value")
    must(all(0 < i < n and statuses[i] in "kd" for i in log.no_ops), "a no-op that is no candidate")
    return log


# --- noise and changes ------------------------------------------------------------------------------------


def noise(logs: Iterable[Log], slope: float | None = None, *, near: bool = False) -> Noise:
    """Pooled over groups of repeats (or of near copies); with a `slope`, of those with steps and at equal pace."""
    squares, df = 0.0, 0
    for log in logs:
        for group in log.near_copies if near else log.repeats:
            if slope is None:
                values = [_value(log, i) for i in group]
            elif all(log.steps[i] for i in group):
                values = [_value(log, i) - slope * math.log(log.steps[i] or 1) for i in group]
            else:
                continue
            squares += statistics.variance(values) * (len(values) - 1)
            df += len(values) - 1
    df -= slope is not None
    return Noise(math.sqrt(squares / df) if df > 0 else math.nan, max(0, df))


def pace_slope(logs: Iterable[Log]) -> float:
    """bpb per unit of the logarithm of a run's steps, within groups of repeats; 0 where no log has steps."""
    xy, xx = 0.0, 0.0
    for log in logs:
        for group in log.repeats:
            if all(log.steps[i] for i in group):
                x, y = [math.log(log.steps[i] or 1) for i in group], [_value(log, i) for i in group]
                xy += sum((a - statistics.fmean(x)) * (b - statistics.fmean(y)) for a, b in zip(x, y, strict=True))
                xx += sum((a - statistics.fmean(x)) ** 2 for a in x)
    return xy / xx if xx else 0.0


def changes(log: Log, slope: float = 0.0) -> list[Change]:
    """A session's candidates that ran, known no-ops apart, each against the best kept before it."""
    found, best, number = list[Change](), 0, 0
    for i, status in enumerate(log.statuses):
        if status not in "kd":
            number += status == "c"
            continue
        number += 1
        raw = _value(log, best) - _value(log, i)
        steps, usual = log.steps[i], log.steps[best]
        same_shape = log.memory_gb[i] is not None and log.memory_gb[i] == log.memory_gb[best]
        pace = slope * math.log(steps / usual) if same_shape and steps and usual else 0.0
        if i not in log.no_ops:
            found.append(Change(raw, raw + pace, number <= EARLY))
        if status == "k" and raw > 0:
            best = i
    return found


def _value(log: Log, i: int) -> float:
    value = log.values[i]
    assert value is not None
    return value


# --- from measured to true changes ------------------------------------------------------------------------


def shrunk(deltas: Sequence[float], sigma: float) -> list[float]:
    """All drawn towards their mean by the share of variance that two single runs explain, as `recorded` does."""
    middle, spread = statistics.fmean(deltas), statistics.pvariance(deltas)
    factor = math.sqrt(max(0.0, spread - 2 * sigma**2) / spread)
    return [middle + (delta - middle) * factor for delta in deltas]


def unfolded(deltas: Sequence[float], sigma: float) -> list[float]:
    """`DRAWS` or so equally likely true changes that make the measured ones likeliest, with the noise of two runs."""
    scale = math.sqrt(2) * sigma
    near = [delta for delta in deltas if abs(delta) <= NEAR * scale]
    grid = [k * _STEP * scale for k in range(-math.ceil(NEAR / _STEP), math.ceil(NEAR / _STEP) + 1)]
    weights = [1 / len(grid)] * len(grid)
    density = [[math.exp(-0.5 * ((delta - g) / scale) ** 2) for g in grid] for delta in near]
    for _ in range(_ROUNDS if near else 0):
        shares = [0.0] * len(grid)
        for row in density:
            joint = [w * d for w, d in zip(weights, row, strict=True)]
            total = math.fsum(joint)
            for k, part in enumerate(joint):
                shares[k] += part / total
        weights = [share / len(near) for share in shares]
    copies = max(1, DRAWS // len(deltas))
    effects = [delta for delta in deltas if abs(delta) > NEAR * scale for _ in range(copies)]
    due, given = 0.0, 0
    for g, weight in zip(grid, weights, strict=True):
        due += weight * len(near) * copies
        effects += [g] * (round(due) - given)
        given = round(due)
    return effects


def landscape(
    logs: Sequence[Log],
    sigma: float,
    *,
    slope: float = 0.0,
    wanted: Callable[[Change], bool] = lambda _: True,
    truth: Callable[[Sequence[float], float], list[float]] = unfolded,
    hardness: float = 0.0,
    played: float | None = None,
    drift: float = 0.0,
) -> Landscape:
    """A landscape of the true changes behind these logs' candidates. `played`: sigma of the sessions, if another."""
    whole = [log for log in logs if log.complete]
    deltas = [change.paced for log in whole for change in changes(log, slope) if wanted(change)]
    effects = truth(deltas, sigma)
    candidates = sum(log.statuses.count(letter) for log in whole for letter in "kdc")
    idle = sum(len(log.no_ops) for log in whole) / candidates
    effects += [0.0] * round(len(effects) * idle / (1 - idle))
    sigma = played or sigma
    in_sigma = sorted(effect / sigma for effect in effects)
    gains = [effect for effect in in_sigma if effect > 0]
    return Landscape(
        sigma=sigma,
        effect=statistics.fmean(gains) if gains else 0.0,
        harm=1.0,
        hardness=hardness,
        crash=sum(log.statuses.count("c") for log in whole) / candidates,
        run_seconds=RUN_SECONDS,
        drift=drift,
        effects=tuple(in_sigma),
    )


def describe(place: Landscape) -> str:
    """How many improve and by how much."""
    gains = sorted(effect for effect in place.effects if effect > 0)
    if not gains:
        return "nothing improves"
    top = math.fsum(gains[-max(1, len(gains) // 10) :]) / math.fsum(gains)
    return (
        f"{len(gains) / len(place.effects):.1%} improve, by {statistics.fmean(gains):.2f} sigma in the mean and "
        f"{statistics.median(gains):.2f} in the median ({sum(g > 3 for g in gains) / len(gains):.0%} by over 3), their "
        f"top tenth holds {top:.0%}; "
        f"{sum(-1 < effect <= 0 for effect in place.effects) / len(place.effects):.1%} lose less than 1 sigma"
    )


# --- other policies ---------------------------------------------------------------------------------------


def policies() -> dict[str, Strategy]:
    """Ours, with one number of its policy changed, and as it was before it looked early."""

    def strategy(*, economy: float = 1.0, **other: Any) -> Strategy:
        return partial(
            ours,
            policy_of=lambda *, stale, recent, worth: replace(
                MiningPolicy.now(stale=stale, recent=recent, worth=economy * worth), **other
            ),
        )

    return {
        "as built": ours,
        "before": partial(ours, policy_of=topped_up),
        "no economy": strategy(economy=0.0),
        "twice economy": strategy(economy=2.0),
        "glance 0.2": strategy(glance=0.2),
        "always fresh": strategy(obvious=1000.0),
        "obvious 10": strategy(obvious=10.0),
        "effect 3": strategy(effect=3.0),
        "at most 3 runs": strategy(max_candidate_runs=3),
        "spending 1": strategy(spending=1.0),
        "alpha 0.02": strategy(alpha=0.02),
    }


def compare_policies(places: dict[str, Landscape], number: int) -> None:
    """Each policy's gain over that of the one as built and over `lower-fresh`, and its kept no-ops."""
    for title, place in places.items():
        print(f"  {title}\n   {'':16s}over the built  over lower-fresh    no-ops kept  improving  runs a candidate")
        lower = sessions(STRATEGIES["lower-fresh"], place, number)
        built: list[Count] = []
        for name, strategy in policies().items():
            counts = sessions(strategy, place, number)
            built = built or counts
            ratios = [advantage(counts, other) for other in (built, lower)]
            times = [f"{r.value:7.3f} ±{r.error:.3f}" if r.value == r.value else f"{'≤ 0':>14s}" for r in ratios]
            result = summarise(name, counts, counts, HOURS)
            print(
                f"   {name:16s}{'   '.join(times)}{result.no_ops_kept.value:10.2%} "
                f"±{result.no_ops_kept.error:.2%} {result.improving_kept.value:10.1%}"
                f"{sum(c.runs for c in counts) / sum(c.proposed for c in counts):14.2f}",
                flush=True,
            )


def possible(counts: dict[str, list[Count]]) -> str:
    """How many times a reference's gain the oracle finds, and how often a candidate of ours ran."""
    times = [(name, advantage(counts["oracle"], counts[name])) for name in REFERENCES]
    runs = [
        sum(count.runs for count in counts[name]) / sum(count.proposed for count in counts[name])
        for name in ("ours", "ours+pruning")
    ]
    return (
        "   oracle over "
        + ", ".join(
            f"{name} {r.value:.2f} ±{r.error:.2f}" if r.value == r.value else f"{name} ≤ 0" for name, r in times
        )
        + f"; runs for a candidate: ours {runs[0]:.2f}, with pruning {runs[1]:.2f}"
    )


def block(title: str, place: Landscape, number: int) -> None:
    """One landscape: what it is like, who finds what, and what is possible."""
    print(f"\n  {title}: sigma {place.sigma:.4g} bpb\n   {describe(place)}\n{HEADER}")
    print(possible(compare_all(place, number)), flush=True)


def main() -> None:
    divisor = 10 if "--quick" in sys.argv[1:] else 1
    logs = read()
    print("Noise of one run, bpb (degrees of freedom)")
    for title, groups in GROUPS.items():
        some = [log for log in logs if log.group in groups]
        whole, slope = [log for log in some if log.complete], pace_slope(some)
        raw, paced, near = noise(some), noise(some, slope), noise(some, near=True)
        print(
            f"   {title}: {len(some)} sessions, {len(whole)} with their discards; in these "
            f"{sum(len(changes(log)) for log in whole)} candidates that ran, "
            f"{sum(log.statuses.count('c') for log in whole)} crashes, {sum(len(log.no_ops) for log in whole)} known "
            f"no-ops\n      repeats {raw.sigma:.5f} ({raw.df}), at equal pace {paced.sigma:.5f} ({paced.df}; "
            f"{slope:+.3f} per unit of ln steps), near copies {near.sigma:.5f} ({near.df})"
        )
    places: dict[str, Landscape] = {}
    for title, groups in GROUPS.items():
        some = [log for log in logs if log.group in groups]
        build = partial(landscape, some, slope=pace_slope(some))
        middle = SIGMAS[title][0]
        print(f"\n{title}; {NUMBER // divisor} sessions of {HOURS:.0f} h")
        for sigma in SIGMAS[title]:
            block("all candidates", build(sigma), NUMBER // divisor)
        places[title] = build(middle)
        if title == "Macs":
            places["Macs at 0.006"] = build(SIGMAS[title][-1])
        block("the first ten of each session", build(middle, wanted=lambda change: change.early), NUMBER // divisor)
        places[f"{title}, later"] = build(middle, wanted=lambda change: not change.early)
        block("later ones", places[f"{title}, later"], NUMBER // divisor)
        block("all, used up", build(middle, hardness=10.0), NUMBER // divisor)
        block("all, shrunk by one factor", build(middle, truth=shrunk), NUMBER // divisor)
        if title == "one M5 Max":
            for name, wanted in (("all", lambda _: True), ("later ones", lambda change: not change.early)):
                hot = build(middle, wanted=wanted, played=HOT)
                places[f"one M5 Max, {name}, pace as noise"] = hot
                block(f"{name}, pace not evened out, as noise", hot, NUMBER // divisor)
                wander = build(middle, wanted=wanted, drift=HOT / middle)
                block(
                    f"{name}, pace not evened out, as a wander of {HOT / middle:.1f} sigma", wander, NUMBER // divisor
                )

    number = NUMBER // divisor // 2
    print(f"\nOther policies; {number} sessions")
    made_up = Landscape(sigma=0.004, run_seconds=RUN_SECONDS)
    places |= {f"exponential gains of {effect} sigma": replace(made_up, effect=effect) for effect in EFFECTS}
    places["exponential gains of 2 sigma, machine wanders by 2"] = replace(made_up, effect=2.0, drift=2.0)
    compare_policies(places, number)


if __name__ == "__main__":
    main()
