"""What a session's journal adds up to: for the dashboard, `miner status` and `miner report`.

All of it is a pure function of the `Session`. Values are val_bpb, lower is better; deltas are incumbent − candidate.

- A trial's value is the mean of its own runs. Its interval is that of its delta, laid about this mean.
- The level of a commit is the mean of all its runs, as a candidate and as the incumbent since: a lucky keep
  settles where its repeats put it.
- The gain is the sum of the deltas of what was kept, less what a confirming test disproved since.
- What a journal does not say (an older one has no segments and no curves) is None or unsplit, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import Any

from common.text import printable
from miner.journal.journal import INTERRUPTED, Segment, Session, Submission, TrialRecord, seconds_of
from miner.journal.run import LossCurve
from trainer.errors import STOPPED, UNFIT

WORDS = {"keep": "kept", "discard": "discarded", "crash": "crashed", "": "open"}  # decisions, as people read them


@dataclass(frozen=True, slots=True)
class TrialPoint:
    """One trial: its mean value, its interval where it has one, each of its own runs, and in short what it changed."""

    number: int
    decision: str
    value: float | None
    low: float | None
    high: float | None
    runs: tuple[float, ...]
    change: str = ""


CHANGE = 30  # characters that a chart has for one


@dataclass(frozen=True, slots=True)
class IncumbentStep:
    """The incumbent from trial `since` on (a half where it came between two trials), at its level.

    `why` says where it came from if it was not kept here: another miner's, or back to the best on chain.
    """

    since: float
    commit: str
    level: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Time:
    """Where the hours went, in seconds.

    Runs with a value: `training`, and `evaluation` with start and compilation; `unsplit` where neither a curve nor
    the budget tells the two apart. Runs without: `stopped` early, `unfit` machine, `failed`, and `interrupted`:
    begun and not finished when the process was stopped, so that only the time since the last event is known.
    `confirming`: all runs of the tests before a stake. `idle`:
    the process ran, but nothing of the above. `away`: no process ran. The last three are None without segments.
    `candidates` is the part of all these that ran candidates rather than what they are compared with.
    """

    training: float = 0.0
    evaluation: float = 0.0
    unsplit: float = 0.0
    stopped: float = 0.0
    unfit: float = 0.0
    failed: float = 0.0
    confirming: float = 0.0
    interrupted: float | None = None
    idle: float | None = None
    away: float | None = None
    candidates: float = 0.0

    @property
    def running(self) -> float:
        """Seconds in runs of any kind: machine time."""
        with_value = self.training + self.evaluation + self.unsplit
        without = self.stopped + self.unfit + self.failed + (self.interrupted or 0.0)
        return with_value + without + self.confirming


@dataclass(frozen=True, slots=True)
class Totals:
    """A session in numbers.

    `baseline` and `best` are levels; `gain` is what was found and `confirmed` what confirming tests found of it;
    `freedom` is that of the noise, in degrees; `killed` counts segments that did not end themselves;
    `joules` is the energy of the `metered` runs, those that the machine told of.
    """

    finished: int
    kept: int
    discarded: int
    crashed: int
    runs: int
    submitted: int
    baseline: float | None
    best: float | None
    gain: float
    confirmed: float
    noise: float | None
    freedom: int
    killed: int
    time: Time
    joules: float = field(default=0.0, kw_only=True)
    metered: int = field(default=0, kw_only=True)

    @property
    def per_hour(self) -> float | None:
        """Gain per machine-hour; None before a quarter of a minute was run."""
        return self.gain / (self.time.running / 3600) if self.time.running >= 15 else None

    @property
    def per_kwh(self) -> float | None:
        """Gain per kilowatt-hour; None unless every run was metered."""
        return self.gain / (self.joules / 3.6e6) if self.joules > 0 and self.metered == self.runs else None

    def energy(self) -> str:
        """The energy in words, "" where none was measured."""
        if not self.metered:
            return ""
        hours = self.joules / 3600
        said = f"{hours / 1000:.2f} kWh" if hours >= 1000 else f"{hours:.1f} Wh"
        said += (
            f", {hours / self.metered:.1f} Wh a run"
            if self.metered == self.runs
            else f" in {self.metered} of {self.runs} runs"
        )
        return said + ("" if self.per_kwh is None else f", {signed(self.per_kwh)} gained per kWh")

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        rates = {"gain_per_machine_hour": self.per_hour, "gain_per_kwh": self.per_kwh}
        return {**asdict(self), "machine_seconds": self.time.running, **rates}


@dataclass(frozen=True, slots=True)
class Summary(Totals):
    """A session in numbers, with every trial as a point and every incumbent as a step."""

    points: tuple[TrialPoint, ...]
    steps: tuple[IncumbentStep, ...]

    @property
    def intervals(self) -> bool:
        """Whether any trial has one to draw."""
        return any(point.low is not None for point in self.points if point.number)


def totals(session: Session, *, budget: float | None = None, running: bool = False) -> Totals:
    """What a session comes to, from sums that the session keeps: it costs the same after any number of trials.

    `budget` is the training time in seconds, `running` says that a process mines now.
    """
    sums, (sigma, freedom) = session.sums, noise(session)
    open_segments = sum(not segment.end for segment in session.segments)
    known = (sums.levels[commit].mean for _, commit, _ in reversed(sums.changes) if commit in sums.levels)
    first = sums.levels.get(sums.changes[0][1]) if sums.changes else None
    return Totals(
        finished=sums.decisions.total(),
        kept=sums.decisions["keep"],
        discarded=sums.decisions["discard"],
        crashed=sums.decisions["crash"],
        runs=sums.runs,
        submitted=sum(submission.proposal is not None for submission in session.submissions),
        baseline=first.mean if first else None,
        best=next(known, None),
        gain=sums.gain,
        confirmed=confirmed_gain(session),
        noise=sigma,
        freedom=freedom,
        killed=open_segments - (running and open_segments > 0),
        time=time_split(session, budget),
        joules=sums.joules,
        metered=sums.metered,
    )


def summarize(session: Session, *, budget: float | None = None, running: bool = False) -> Summary:
    """`totals` with every trial and every incumbent."""
    found = totals(session, budget=budget, running=running)
    named = {field.name: getattr(found, field.name) for field in fields(Totals)}
    return Summary(**named, points=tuple(map(point, session.trials)), steps=tuple(incumbents(session)))


def point(trial: TrialRecord) -> TrialPoint:
    """A trial as the chart shows it."""
    values = tuple(value for value in trial.own_values if math.isfinite(value))
    mean = math.fsum(values) / len(values) if values else None
    low = high = None
    ends = [end for end in (trial.delta, trial.low, trial.high) if end is not None and math.isfinite(end)]
    if mean is not None and trial.number and len(ends) == 3:
        delta, least, most = ends
        low, high = mean - (most - delta), mean + (delta - least)
    return TrialPoint(trial.number, trial.decision, mean, low, high, values, change(trial.hypothesis, CHANGE))


def noise(session: Session) -> tuple[float | None, int]:
    """The standard deviation of one run and its degrees of freedom, pooled over commits that ran more than once."""
    freedom = session.sums.freedom
    return (math.sqrt(session.sums.squares / freedom), freedom) if freedom else (None, 0)


def incumbents(session: Session) -> list[IncumbentStep]:
    """The incumbents in order; one that never ran here has no level and is left out."""
    known = session.sums.levels
    return [
        IncumbentStep(since, commit, known[commit].mean, why)
        for since, commit, why in session.sums.changes
        if commit in known
    ]


def curves(session: Session, commit: str, *, last: int) -> list[LossCurve]:
    """The loss curves of a commit's `last` runs that gave one and a value, in order."""
    found: list[LossCurve] = []
    for trial in reversed(session.sums.by_base.get(commit, [])):
        for run in reversed(trial.runs):
            if trial.commit_of(run) == commit and not run.failure and run.curve:
                found.append(run.curve)
                if len(found) == last:
                    return found[::-1]
    return found[::-1]


def time_split(session: Session, budget: float | None = None) -> Time:
    """Where the time went; the docstring of `Time` says what is what."""
    sums = session.sums
    plain = math.fsum(sums.curveless)
    trained = math.fsum(min(seconds, budget) for seconds in sums.curveless) if budget else 0.0
    interrupted, idle, away = _outside(session)
    return Time(
        training=sums.trained + trained,
        evaluation=sums.seconds.get("value", 0.0) - sums.trained + (plain - trained if budget else 0.0),
        unsplit=0.0 if budget else plain,
        stopped=sums.seconds.get(STOPPED, 0.0),
        unfit=sums.seconds.get(UNFIT, 0.0),
        failed=sums.seconds.get("failed", 0.0),
        confirming=sums.confirming,
        interrupted=interrupted,
        idle=idle,
        away=away,
        candidates=sums.candidates,
    )


def change(hypothesis: str, limit: int = 60) -> str:
    """What a trial changed, in short: its hypothesis up to the explanation, with real arrows. Of a list that is longer
    than `limit`, its first changes that fit and the number of the others."""
    short = printable(hypothesis, 400).partition(": ")[0].replace("->", "→")
    parts = short.split(", ")
    for shown in range(len(parts) - 1, 0, -1):
        if len(short) > limit:
            short = f"{', '.join(parts[:shown])}, +{len(parts) - shown} more"
    return printable(short, limit)


def signed(value: float, places: int = 4) -> str:
    """A number with its sign, a real minus."""
    return f"{value:+.{places}f}".replace("-", "−")


def states(session: Session, on_chain: Mapping[int, str] = MappingProxyType({})) -> dict[int, str]:
    """What became of each kept trial, by its number: kept, confirmed, not confirmed, and from its submission on what
    the chain says (`on_chain` by proposal, else the journal's last): pending, approved, rejected, released, expired."""
    found = {number: "kept" for number, trial in session.sums.by_number.items() if trial.kept and number}
    for test in session.confirmations:
        if test.trial in found and test.confirmed is not None:
            found[test.trial] = "confirmed" if test.confirmed else "not confirmed"
    for entry in session.submissions:
        if entry.trial in found and entry.proposal is not None:
            found[entry.trial] = submission_state(entry, on_chain.get(entry.proposal, "")).replace("_", " ")
    return found


def statuses(fates: Mapping[int, str]) -> dict[int, str]:
    """Only the status of what the chain says of each proposal, as `states` takes it."""
    return {proposal: words.partition(":")[0] for proposal, words in fates.items()}


def confirmed_gain(session: Session) -> float:
    """The gain that confirming tests found, in bpb: the last of those that passed against each on-chain best."""
    last = {test.against: test.delta for test in session.confirmations if test.confirmed and test.delta is not None}
    return math.fsum(last.values())


def submission_state(entry: Submission, on_chain: str = "") -> str:
    """A submission's state in words: the chain's where it was asked, else the journal's last."""
    if entry.proposal is not None:
        return on_chain or entry.status or "submitted"
    return "given up" if entry.abandoned else "not known whether it landed"


def last_moment(session: Session) -> float | None:
    """Unix seconds of the last trial, run or decision; None if there is none."""
    return max((moment for moment in _moments(session) if moment is not None), default=None)


def _outside(session: Session) -> tuple[float | None, float | None, float | None]:
    """Interrupted, idle and away seconds; a killed segment is counted up to the last event that it wrote."""
    begins = [seconds_of(segment.begin) for segment in session.segments]
    if not begins or None in begins:
        return None, None, None
    starts = [begin for begin in begins if begin is not None]
    interrupted, idle, away = 0.0, 0.0, 0.0
    for segment, begin, following in zip(session.segments, starts, [*starts[1:], math.inf], strict=True):
        until = seconds_of(segment.end or segment.last) or begin
        length = segment.seconds if segment.end else until - begin
        cut = min(_interrupted(segment), max(0.0, length - segment.busy))
        interrupted += cut
        idle += max(0.0, length - segment.busy - cut)
        if following != math.inf:
            away += max(0.0, following - until)
    return interrupted, idle, away


def _interrupted(segment: Segment) -> float:
    """Seconds from a segment's last event to its end, where it was interrupted within a trial or a confirming test."""
    last, end = seconds_of(segment.last), seconds_of(segment.end)
    if segment.reason != INTERRUPTED or not segment.within or last is None or end is None:
        return 0.0
    return max(0.0, end - last)


def _moments(session: Session) -> Iterator[float | None]:
    for trial in session.trials:
        yield seconds_of(trial.at)
        yield seconds_of(trial.decided)
        for run in trial.runs:
            yield seconds_of(run.at)
