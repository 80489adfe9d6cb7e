"""Replay: both arms run interleaved on this machine, each run scored on validation and on holdout text.

The evidence that a verdict rests on, and that a miner gathers before it stakes anything; `judge` judges it.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from common.terminal import View
from trainer.judging import holdout, trial
from trainer.judging.policy import HoldoutPolicy, JudgePolicy
from trainer.judging.runs import ReplayRun, against
from trainer.machine import scratch
from trainer.machine.watch import Watch
from trainer.measurement import Measurer, ProbeReport, Reference, Score, ScoringText
from trainer.measurement.abreast import abreast
from trainer.measurement.bench import HOLDOUT, Bench
from trainer.measurement.run import Run
from trainer.measurement.salts import fresh_salt, salt_of
from trainer.measurement.scoring import Tokens, block_bits
from trainer.measurement.values import PROBES, Failure, Phase
from trainer.project import bundle
from trainer.statistics import overtime
from trainer.statistics.comparison import Arm
from trainer.statistics.error_rates import incumbent_lead
from trainer.statistics.noise import NoiseRecord
from trainer.statistics.overtime import TimeSlope

Say = Callable[[str], None]
Meanwhile = Callable[[str, Say], Run]
"""Makes a run on the GPU of that name, and has the lines of its log shown."""


@dataclass(frozen=True, slots=True)
class HoldoutRows:
    """Holdout text as rows of tokens, int32 (N, T + 1); `source` says where it is from, `sha256` is of the text, `cut`
    the share of the training text that is missing for it."""

    source: str
    sha256: str
    rows: Tokens
    cut: float = 0.0


@contextmanager
def draw_holdout(
    bench: Bench, policy: HoldoutPolicy, seed: bytes, *, public: bool, say: Say
) -> Iterator[tuple[HoldoutRows | None, Bench]]:
    """Holdout rows, and the bench on the data that does not show them; None if measurement is self-reported.

    `public` says that the data is the public dataset. What is downloaded or cut for it lies in a folder of the bench's
    home, whose name tells a run nothing of the case, and goes with the context; after a kill, when a bench is opened
    again. EnvironmentNotReady if there is no text.
    """
    if bench.measurer is None:
        yield None, bench
        return
    (bench.home / HOLDOUT).mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = scratch.hold(Path(tempfile.mkdtemp(dir=bench.home / HOLDOUT)))
    try:
        yield _draw(bench, bench.measurer, policy, folder, seed, public=public, say=say)
    finally:
        scratch.remove(folder)


def _draw(
    bench: Bench, measurer: Measurer, policy: HoldoutPolicy, folder: Path, seed: bytes, *, public: bool, say: Say
) -> tuple[HoldoutRows, Bench]:
    facts = measurer.facts
    count = max(1, min(len(facts.rows), policy.tokens // facts.length))
    # A token stands for at least two bytes of text on average; what is too much is cut below.
    enough = 5 * count * (facts.length + 1)
    text = holdout.holdout_text(
        bench.cache, folder, seed, enough, val_filename=facts.val_filename, public=public, say=say
    )
    rows = measurer.encode(text.texts)[:count]
    if text.view != bench.cache:
        bench = bench.on_view(text.view)
    return HoldoutRows(text.source, text.sha256, rows, text.cut), bench


def replay(
    bench: Bench,
    trees: Mapping[Arm, Mapping[str, bytes]],
    rows: HoldoutRows | None,
    *,
    policy: JudgePolicy,
    noise: NoiseRecord,
    seed: int,
    view: View,
    done: Sequence[ReplayRun] = (),
    on_run: Callable[[ReplayRun], None] | None = None,
    reference: str = Arm.INCUMBENT.value,
    smaller: str = "",
    side_by_side: bool = False,
    meanwhile: Meanwhile | None = None,
) -> list[ReplayRun]:
    """Run both arms until the comparison has an answer; every run in order, those `done` before included.

    `on_run` gets each new run as soon as it is scored, for the caller's record. `reference` names what stands as the
    incumbent. `smaller` says, where it is so, that the candidate's author may have had more memory than this machine:
    then running out of it is this machine's fault. `side_by_side` makes the two runs of a pair at the same time where
    there are several GPUs: not where the candidate's author gains by what slows the incumbent. The first run of all has
    one of `meanwhile` beside it then.
    """
    watch = Watch(bench.protocol.execution.training_seconds, view.say, bench.home)
    made, runs = list(done), against(done, reference)
    slopes: list[TimeSlope] = []
    lead = incumbent_lead(noise.df)  # a candidate's run has the salt of the incumbent's that it is compared with
    known: dict[bool, Reference | None] = {}  # the incumbent's last run; True: on holdout text

    benches = bench.each_gpu() if side_by_side else (bench,)

    def measure(on: Bench, arm: Arm, word: Say) -> Run:
        held_to = known if arm is Arm.CANDIDATE else {}
        number = sum(r.arm == arm.value and r.val_bpb is not None for r in runs)
        salt = salt_of(seed, number + (lead if arm is Arm.CANDIDATE else 0))
        text = _text(rows, policy.holdout, held_to.get(True))
        return on.measure(arm, trees[arm], word, reference=held_to.get(False), holdout=text, salt=salt)

    def enter(run: Run, conditions: tuple[str, ...], word: Say) -> ReplayRun:
        arm, second = run.arm, run.measurement.holdout if run.measurement else None
        call = _call_seconds(bench.measurer, run, rows, policy.holdout)
        charge = _charge(bench, run, call, runs, trees[Arm.INCUMBENT], noise, slopes, word)
        if arm is Arm.INCUMBENT:
            known[False] = (run.measurement and run.measurement.reference) or known.get(False)
            known[True] = (second and second.reference) or known.get(True)
        entry = _entry(run, trees[arm], second, charge, _blocks(bench.measurer, second, rows), conditions, call)
        if smaller and arm is Arm.CANDIDATE:
            entry = forgiven(entry, smaller)
        runs.append(entry)
        return entry

    def execute(ahead: Sequence[Arm]) -> list[Run]:
        arms = _at_once(ahead, len(benches), any(r.arm == Arm.INCUMBENT.value for r in runs))
        watch.calm()
        seconds = statistics.median(r.seconds for r in runs) if runs else bench.usual_seconds
        what = " and ".join(arm.value if arm is Arm.CANDIDATE else reference for arm in arms)
        with view.step(f"run {len(made) + 1} ({what})", seconds) as word:
            at_once = [partial(measure, on, arm) for on, arm in zip(benches, arms, strict=False)]
            idle = benches[len(at_once) :]
            other = [partial(meanwhile, idle[0].gpus[0])] if meanwhile and idle and not made else []
            ended = abreast([*at_once, *other], word)
            conditions = watch.after(max(run.seconds for run in ended), foreign=bool(other) or Arm.CANDIDATE in arms)
            # The incumbent's first, also on the caller's record: a candidate is charged for time beyond that of the run
            # beside it as well.
            measured = sorted(ended[: len(arms)], key=lambda run: run.arm is Arm.CANDIDATE)
            entries = [enter(run, conditions, word) for run in measured]
        for entry, run in zip(entries, measured, strict=True):
            named = entry if run.arm is Arm.CANDIDATE else replace(entry, arm=reference)
            made.append(named)
            shown = _shown(entry, run)
            if entry.holdout_bpb is not None:
                shown += f", {entry.holdout_bpb:.6f} on holdout text"
            if over := entry.overtime:
                shown += f", {over['bpb']:+.6f} for {over['seconds']:.1f} s more of training than the incumbent"
            kinds = {words.partition(":")[0]: words for words in entry.conditions}  # the same is said once
            shown += "".join(f" [{words}]" for words in kinds.values())
            view.say(f"  run {len(made)}  {named.arm:<9}  {shown}  ({entry.seconds:.1f} s)")
            if on_run:
                on_run(named)
        return [entry.as_run() for entry in entries]

    trial.compare(
        execute, history=[], noise=noise, policy=policy.comparison, seed=seed, done=[entry.as_run() for entry in runs]
    )
    return made


def _at_once(ahead: Sequence[Arm], room: int, begun: bool) -> Sequence[Arm]:
    """Of the runs ahead, those to make at the same time: the first of each arm where there is room, so that salts
    follow the values. The first of all is alone, since what a candidate is held to is the incumbent's, and so are its
    leading runs, since a pair's two runs are to be close in time. Pure."""
    leading = ahead.count(Arm.INCUMBENT) > ahead.count(Arm.CANDIDATE) + 1
    return tuple(dict.fromkeys(ahead)) if room > 1 and begun and not leading else ahead[:1]


def one_run(
    bench: Bench,
    name: str,
    tree: Mapping[str, bytes],
    rows: HoldoutRows | None,
    *,
    policy: JudgePolicy,
    view: View,
    seed: int,
    number: int,
) -> ReplayRun:
    """A run of a rung of the ladder, as `name`; `number` counts its runs, from 0, as `seed` salts them.

    A run that was left out is made again; EnvironmentNotReady where that keeps happening.
    """
    watch = Watch(bench.protocol.execution.training_seconds, view.say, bench.home)

    def run_it(_: int) -> list[ReplayRun]:
        watch.calm()
        with view.step(f"run of the {name}", bench.usual_seconds) as word:
            text = _text(rows, policy.holdout, None)
            run = bench.measure(Arm.INCUMBENT, tree, word, holdout=text, salt=salt_of(seed, number))
            conditions = watch.after(run.seconds)
            second = run.measurement.holdout if run.measurement else None
        entry = _entry(run, tree, second, None, _blocks(bench.measurer, second, rows), conditions)
        view.say(f"  {name}  {_shown(entry, run)}  ({entry.seconds:.1f} s)")
        return [replace(entry, arm=name)]

    return trial.until_fit(run_it)[0]


def forgiven(run: ReplayRun, smaller: str) -> ReplayRun:
    """A candidate's run on a machine that may have less memory than its author's: running out of it is not its own."""
    if run.failure != Failure.OUT_OF_MEMORY:
        return run
    return replace(run, failure=str(Failure.HOST), detail=f"{run.detail}; {smaller}")


def _shown(entry: ReplayRun, run: Run) -> str:
    return f"{entry.val_bpb:.6f} val_bpb" if entry.val_bpb is not None else f"{entry.failure}: {run.told}"


def _text(rows: HoldoutRows | None, policy: HoldoutPolicy, reference: Reference | None) -> ScoringText | None:
    return None if rows is None else ScoringText(rows.rows, reference, policy.probes)


def _charge(
    bench: Bench,
    run: Run,
    call_seconds: float | None,
    before: Sequence[ReplayRun],
    incumbent: Mapping[str, bytes],
    noise: NoiseRecord,
    slopes: list[TimeSlope],
    say: Say,
) -> dict[str, float] | None:
    """The charge for a candidate's training beyond the incumbent's own time (`trainer.statistics.overtime`).

    The slope is measured once, at the first run that needs it, and kept in `slopes`.
    """
    full = [r for r in before if r.arm == Arm.INCUMBENT.value and r.val_bpb is not None and r.train_seconds is not None]
    seconds = run.measurement.train_seconds if run.measurement else None
    if run.arm is not Arm.CANDIDATE or run.val_bpb is None or seconds is None or not full:
        return None
    times = [r.train_seconds for r in full if r.train_seconds is not None]
    calls = [r.call_seconds for r in full if r.call_seconds is not None]
    budget = bench.protocol.execution.training_seconds
    extra = overtime.overtime(seconds, max(times), budget)
    if call_seconds is not None and calls:
        extra += max(0.0, call_seconds - max(calls))
    if extra == 0:
        return None
    usual = _Full(
        statistics.fmean(r.val_bpb for r in full if r.val_bpb is not None), statistics.fmean(times), len(full)
    )
    if overtime.negligible(extra, budget, usual.bpb, noise.sigma):
        slope = overtime.assumed_slope(usual.bpb)
    else:
        if not slopes:
            ours = bundle.digest(incumbent) == bundle.digest(bench.files)
            slopes.append(_slope(bench, usual if ours else None, noise.sigma, say) or overtime.assumed_slope(usual.bpb))
        slope = slopes[0]
    return {
        "seconds": extra,
        "slope": slope.bpb,
        "error": slope.error,
        "bpb": overtime.charge(extra, budget, slope),
    }


@dataclass(frozen=True, slots=True)
class _Full:
    """The mean of so many runs on the whole budget: bits per byte, and seconds of training by the judge's clock."""

    bpb: float
    seconds: float
    runs: int


def _slope(bench: Bench, full: _Full | None, sigma: float | None, say: Say) -> TimeSlope | None:
    """What time is worth to the pinned snapshot; `full` are its runs, where some were made. None if it does not say.

    Of no other code: a script sees how much time it has, and an incumbent's author gains by a short run that is too
    good, with an accomplice in the grace, or too bad, with every other candidate.
    """

    def run(share: float) -> _Full | None:
        say(f"one run of the snapshot on {share:.0%} of the budget, for what time is worth")
        made = bench.measure(Arm.INCUMBENT, bench.files, budget_share=share, salt=fresh_salt())
        took = made.measurement.train_seconds if made.measurement else None
        return None if made.val_bpb is None or took is None else _Full(made.val_bpb, took, 1)

    full = full or run(1.0)
    short = run(overtime.SHARE) if full else None
    if full is None or short is None:
        return None
    budget = bench.protocol.execution.training_seconds
    return overtime.measured_slope(full.bpb, full.runs, full.seconds, short.bpb, short.seconds, budget, sigma)


def _call_seconds(measurer: Measurer | None, run: Run, rows: HoldoutRows | None, policy: HoldoutPolicy) -> float | None:
    """How long one call of the run's graph took at most: the claim's seconds over its calls, or what it took longer
    than the probes over the calls that it had more, which leaves out the start of both and a GPU's compiler."""
    seconds = run.measurement.seconds if run.measurement else {}
    if measurer is None or Phase.CLAIM not in seconds:
        return None
    counts = [(len(measurer.facts.rows), PROBES), *([(len(rows.rows), policy.probes)] if rows else [])]
    calls = -(-sum(count for count, _ in counts) // measurer.facts.batch)
    fewer = -(-sum(min(pair) for pair in counts) // measurer.facts.batch)
    found = seconds[Phase.CLAIM] / calls
    if calls > fewer and Phase.PROBES in seconds:
        found = min(found, max(0.0, seconds[Phase.CLAIM] - seconds[Phase.PROBES]) / (calls - fewer))
    return round(found, 6)


def _blocks(measurer: Measurer | None, second: Score | None, rows: HoldoutRows | None) -> tuple[float, ...] | None:
    """What each block of the holdout text adds to the run's value on it; None if there is no value."""
    if measurer is None or rows is None or second is None or second.losses is None or second.val_bpb is None:
        return None
    return block_bits(second.losses.reshape(len(rows.rows), -1), rows.rows[:, 1:], measurer.facts.token_bytes)


def _entry(
    run: Run,
    tree: Mapping[str, bytes],
    second: Score | None,
    charge: dict[str, float] | None,
    blocks: tuple[float, ...] | None,
    conditions: tuple[str, ...],
    call_seconds: float | None = None,
) -> ReplayRun:
    found = run.measurement
    finding = second.findings[0] if second and second.findings else None
    return ReplayRun(
        run.arm.value,
        None if finding else run.val_bpb,
        second.val_bpb if second else None,
        found.train_seconds if found else None,
        round(run.seconds + (sum(second.seconds.values()) if second else 0.0), 3),
        run.failure or (str(finding.failure) if finding else ""),
        run.detail or (f"On holdout text: {finding.detail}" if finding else ""),
        sha256(tree["train.py"]).hexdigest() if "train.py" in tree else "",
        found.graph_sha256 if found else None,
        _probes(found.probes) if found else None,
        _probes(second.probes) if second else None,
        charge,
        blocks,
        conditions,
        call_seconds,
    )


def _probes(report: ProbeReport | None) -> dict[str, Any] | None:
    if report is None:
        return None
    return {
        "count": len(report.probes),
        "mean": report.mean,
        "worst": report.worst,
        "gain_bound": report.gain_bound,
        "share_bound": report.share_bound,
    }
