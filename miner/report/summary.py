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
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from miner.journal.journal import INTERRUPTED, Segment, Session, Submission, TrialRecord
from miner.journal.run import ConfirmingRun, LossCurve, RunRecord

WORDS = {"keep": "kept", "discard": "discarded", "crash": "crashed", "": "open"}  # decisions, as people read them
THEIRS, DISPROVED = "another miner’s", "disproved"


@dataclass(frozen=True, slots=True)
class TrialPoint:
    """One trial: its mean value, its interval where it has one, and each of its own runs."""

    number: int
    decision: str
    value: float | None
    low: float | None
    high: float | None
    runs: tuple[float, ...]


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

    @property
    def running(self) -> float:
        """Seconds in runs of any kind: machine time."""
        with_value = self.training + self.evaluation + self.unsplit
        without = self.stopped + self.unfit + self.failed + (self.interrupted or 0.0)
        return with_value + without + self.confirming


@dataclass(frozen=True, slots=True)
class Summary:
    """A session in numbers. `baseline` and `best` are levels; `freedom` is that of the noise, in degrees; `killed`
    counts segments that did not end themselves."""

    finished: int
    kept: int
    discarded: int
    crashed: int
    runs: int
    submitted: int
    baseline: float | None
    best: float | None
    gain: float
    noise: float | None
    freedom: int
    killed: int
    time: Time
    points: tuple[TrialPoint, ...]
    steps: tuple[IncumbentStep, ...]

    @property
    def per_hour(self) -> float | None:
        """Gain per machine-hour; None before a quarter of a minute was run."""
        return self.gain / (self.time.running / 3600) if self.time.running >= 15 else None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "machine_seconds": self.time.running, "gain_per_machine_hour": self.per_hour}


def summarize(session: Session, *, budget: float | None = None, running: bool = False) -> Summary:
    """Sum a session up; `budget` is the training time in seconds, `running` says that a process mines now."""
    judged = [trial for trial in session.trials if trial.decision and trial.number]
    steps = incumbents(session)
    sigma, freedom = noise(session)
    open_segments = sum(not segment.end for segment in session.segments)
    return Summary(
        finished=len(judged),
        kept=sum(trial.kept for trial in judged),
        discarded=sum(trial.decision == "discard" for trial in judged),
        crashed=sum(trial.decision == "crash" for trial in judged),
        runs=sum(len(trial.runs) for trial in session.trials),
        submitted=sum(submission.proposal is not None for submission in session.submissions),
        baseline=steps[0].level if steps and steps[0].since == 0 else None,
        best=steps[-1].level if steps else None,
        gain=gain(session),
        noise=sigma,
        freedom=freedom,
        killed=open_segments - (running and open_segments > 0),
        time=time_split(session, budget),
        points=tuple(point(trial) for trial in session.trials),
        steps=tuple(steps),
    )


def gain(session: Session) -> float:
    """The sum of the deltas of what was kept and not disproved by a confirming test since, in bpb."""
    return math.fsum(trial.delta or 0.0 for trial in _standing(session))


def _standing(session: Session) -> list[TrialRecord]:
    """The kept trials but those from which a confirming test sent the search back."""
    kept = {trial.commit: trial for trial in session.trials if trial.kept and trial.number}
    for test in session.confirmations:
        at = test.commit if test.disproved else test.against
        while at != test.against and at in kept:
            at = kept.pop(at).base
    return list(kept.values())


def point(trial: TrialRecord) -> TrialPoint:
    """A trial as the chart shows it."""
    values = tuple(value for value in trial.own_values if math.isfinite(value))
    mean = statistics.fmean(values) if values else None
    low = high = None
    ends = [end for end in (trial.delta, trial.low, trial.high) if end is not None and math.isfinite(end)]
    if mean is not None and trial.number and len(ends) == 3:
        delta, least, most = ends
        low, high = mean - (most - delta), mean + (delta - least)
    return TrialPoint(trial.number, trial.decision, mean, low, high, values)


def levels(session: Session) -> dict[str, float]:
    """The mean of all runs of each commit."""
    return {commit: statistics.fmean(values) for commit, values in _values(session).items()}


def noise(session: Session) -> tuple[float | None, int]:
    """The standard deviation of one run and its degrees of freedom, pooled over commits that ran more than once."""
    groups = [values for values in _values(session).values() if len(values) > 1]
    freedom = sum(len(values) - 1 for values in groups)
    if not freedom:
        return None, 0
    squares = math.fsum(statistics.variance(values) * (len(values) - 1) for values in groups)
    return math.sqrt(squares / freedom), freedom


def incumbents(session: Session) -> list[IncumbentStep]:
    """The incumbents in order; one that never ran here has no level and is left out."""
    if not session.trials:
        return []
    changes = [(0.0, session.trials[0].base, "")]
    changes += [(float(trial.number), trial.commit, "") for trial in session.trials if trial.kept and trial.number]
    changes += [(test.trial + 0.5, test.against, DISPROVED) for test in session.confirmations if test.disproved]
    changes += [(frontier.trial + 0.5, frontier.commit, THEIRS) for frontier in session.frontiers if frontier.foreign]
    known = levels(session)
    return [
        IncumbentStep(since, commit, known[commit], why) for since, commit, why in sorted(changes) if commit in known
    ]


def curves(session: Session, commit: str) -> list[LossCurve]:
    """The loss curves of a commit's runs that gave a value, in order."""
    return [run.curve for of, run in _runs(session) if of == commit and not run.failure and run.curve]


def time_split(session: Session, budget: float | None = None) -> Time:
    """Where the time went; the docstring of `Time` says what is what."""
    sums = dict.fromkeys(("training", "evaluation", "unsplit", "stopped", "unfit", "failed"), 0.0)
    for _, run in _runs(session):
        if run.failure:
            sums[run.failure if run.failure in ("stopped", "unfit") else "failed"] += run.seconds
        elif run.curve or budget:
            trained = min(run.seconds, run.curve[-1][0] if run.curve else budget or 0.0)
            sums["training"] += trained
            sums["evaluation"] += run.seconds - trained
        else:
            sums["unsplit"] += run.seconds
    interrupted, idle, away = _outside(session)
    confirming = math.fsum(test.run.seconds for test in _confirming(session))
    return Time(**sums, confirming=confirming, interrupted=interrupted, idle=idle, away=away)


def counted(number: int, word: str) -> str:
    """A number of things: 1 run, 2 runs."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def lasted(seconds: float) -> str:
    """Seconds as hours, or minutes where these say more."""
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


def submission_state(entry: Submission, on_chain: str = "") -> str:
    """A submission's state in words: the chain's where it was asked, else the journal's last."""
    if entry.proposal is not None:
        return on_chain or entry.status or "submitted"
    return "given up" if entry.abandoned else "not known whether it landed"


def last_moment(session: Session) -> float | None:
    """Unix seconds of the last trial, run or decision; None if there is none."""
    return max((moment for moment in _moments(session) if moment is not None), default=None)


def seconds_of(at: str) -> float | None:
    """A journal's time as Unix seconds; None if it is not one."""
    try:
        return datetime.strptime(at, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _runs(session: Session) -> Iterator[tuple[str, RunRecord]]:
    """Every run with the commit it ran."""
    for trial in session.trials:
        for run in trial.runs:
            yield trial.commit_of(run), run


def _confirming(session: Session) -> list[ConfirmingRun]:
    """Every run of a confirming test."""
    return [run for test in session.confirmations for run in test.runs]


def _values(session: Session) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for commit, run in _runs(session):
        if run.val_bpb is not None and math.isfinite(run.val_bpb):
            found.setdefault(commit, []).append(run.val_bpb)
    return found


def _outside(session: Session) -> tuple[float | None, float | None, float | None]:
    """Interrupted, idle and away seconds; a killed segment is counted up to the last event that it wrote."""
    begins = [seconds_of(segment.begin) for segment in session.segments]
    if not begins or None in begins:
        return None, None, None
    starts = [begin for begin in begins if begin is not None]
    ran = [(seconds_of(run.at), run.seconds) for _, run in _runs(session)]
    ran += [(seconds_of(test.at), test.run.seconds) for test in _confirming(session)]
    interrupted, idle, away = 0.0, 0.0, 0.0
    for segment, begin, following in zip(session.segments, starts, [*starts[1:], math.inf], strict=True):
        until = seconds_of(segment.end or segment.last) or begin
        length = segment.seconds if segment.end else until - begin
        busy = math.fsum(seconds for at, seconds in ran if at is not None and begin < at <= until)
        cut = min(_interrupted(segment), max(0.0, length - busy))
        interrupted += cut
        idle += max(0.0, length - busy - cut)
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
