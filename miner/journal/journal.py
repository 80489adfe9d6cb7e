"""The session journal: an append-only file of events, and the state they add up to.

Everything is written here, and on disk, before it is acted on. `Session` is a pure fold over the
events, so starting again after a kill is reading the file. A line that a crash cut short is the last
one and is dropped; anything else that does not parse is refused.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.files import lock
from common.jsonl import Jsonl, entries
from miner.journal.run import ConfirmingRun, RunRecord
from miner.journal.sums import Sums
from miner.proposers.base import Facts, Tried, decision
from trainer.errors import TrainerError
from trainer.project import hyperparameters
from trainer.statistics.comparison import Arm

Event = Mapping[str, Any]
_CURE = "Move its folder away to start a new session."
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_NEVER = (-math.inf, -math.inf)
INTERRUPTED = "interrupted"  # why a segment ended that did not end by itself


class JournalDamaged(TrainerError):
    """A session journal with a line that this program did not write."""


@dataclass(slots=True)
class TrialRecord:
    """One candidate being judged, or judged: its source, why, its runs and its outcome.

    `commit` is the candidate's, `base` the incumbent's it is measured against. `machine` is where it was given to
    last, `lost` how often it did not come back. `carries` is the trial whose change it tries on a new incumbent, or 0.
    `beside` are the numbers of the trials that were open when it began, `tests` counts the confirming tests before it,
    `noise` is this machine's record then ({} in an older journal): what ends while it is judged must not change how.
    `decision` is "" while it is open, then keep, discard or crash; `delta`, `low`, `high` in bpb and `p` are those
    of the comparison's last look, `reason` says in words what decided. `carry`: its incumbent was replaced while it was
    winning, and its change is to be tried on the new one.
    """

    number: int
    hypothesis: str
    fingerprint: str
    commit: str
    base: str
    runs: list[RunRecord] = field(default_factory=list)
    decision: str = ""
    delta: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    reason: str = ""
    decided: str = ""
    proposer: str = ""
    at: str = ""
    machine: str = ""
    lost: int = 0
    carry: bool = False
    carries: int = 0
    beside: frozenset[int] = frozenset()
    tests: int = 0
    noise: dict[str, float] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        return self.decision == "keep"

    @property
    def own_runs(self) -> list[RunRecord]:
        """The runs of the code that it is about: the candidate's, for the baseline the incumbent's."""
        own = Arm.CANDIDATE if self.number else Arm.INCUMBENT
        return [run for run in self.runs if run.arm is own]

    @property
    def own_values(self) -> list[float]:
        """val_bpb of its own runs that gave one."""
        return [run.val_bpb for run in self.own_runs if run.val_bpb is not None]

    @property
    def last_failure(self) -> str:
        """The last words of its last run that failed, or ""."""
        return self.last_failed.detail if self.last_failed else ""

    @property
    def last_failed(self) -> RunRecord | None:
        """Its last run that failed."""
        return next((run for run in reversed(self.runs) if run.failure), None)

    def facts(self) -> Facts:
        """What its own runs measured beside the delta."""
        rates = [run.tokens_per_second for run in self.own_runs if run.tokens_per_second is not None]
        memory = [run.memory_mb for run in self.own_runs if run.memory_mb is not None]
        curve = next((run.curve for run in reversed(self.own_runs) if run.curve), ())
        points = [curve[round(share * (len(curve) - 1))] for share in (0, 0.25, 0.5, 0.75, 1)] if curve else []
        return Facts(
            value=statistics.fmean(self.own_values) if self.own_values else None,
            low=self.low,
            high=self.high,
            rate=statistics.median(rates) if rates else None,
            memory=max(memory, default=None),
            curve=", ".join(f"{loss:.3f} at {seconds:.0f} s" for seconds, loss in points),
        )

    def commit_of(self, run: RunRecord) -> str:
        """The commit that a run of it ran."""
        return self.commit if run.arm is Arm.CANDIDATE else self.base


@dataclass(slots=True)
class Submission:
    """A proposal on its way: intended, then sent, then confirmed under an id, or given up."""

    trial: int
    code_hash: str
    log_hash: str
    signature: str = ""
    last_valid: int = 0
    proposal: int | None = None
    abandoned: bool = False
    status: str = ""  # the proposal's last known status on chain

    @property
    def open(self) -> bool:
        return self.proposal is None and not self.abandoned


@dataclass(frozen=True, slots=True)
class Frontier:
    """The chain's best when the session looked: `commit` is its code here, `metric` the value on chain.

    `own`: our approved proposal. `carry`: the commit that was the head and had not been submitted when somebody
    else's code became the head, or "". `lead`: where the chain's best did not hold here, `commit` is an earlier one, by
    `miner`, which that is so much ahead of (bpb, as attested).
    """

    at: str
    trial: int  # the number of the last trial before it
    commit: str
    code_hash: str
    metric: str
    miner: str
    own: bool
    carry: str = ""
    lead: float = 0.0

    @property
    def foreign(self) -> bool:
        """Whether it is somebody else's approved code: neither our own nor the project's baseline."""
        return not self.own and self.code_hash.strip("0") != "" and not self.lead


@dataclass(slots=True)
class Confirmation:
    """The test before a stake: the code of `commit` against the chain's best, `against`, with fresh runs of both.

    `seed` draws the order, `holdout_seed` (hex) the holdout text; `noise` is the machine's record when it began.
    `passed` is None while it is open; then `reason` says what decided, and the numbers are those of the comparison's
    last look in bpb. `confirmed` stays true where what passed is not staked on for another reason. `reference` names
    the rung that was judged against where the chain's best did not hold, `lead` what that is ahead of it, in bpb. `cut`
    is the share of the training text that was held out.
    """

    trial: int
    commit: str
    against: str
    seed: int
    holdout_seed: str
    noise: dict[str, float]
    at: str
    runs: list[ConfirmingRun] = field(default_factory=list)
    passed: bool | None = None
    confirmed: bool | None = None
    reason: str = ""
    delta: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    holdout_delta: float | None = None
    reference: str = ""
    lead: float = 0.0
    cut: float = 1.0  # not on record in an older journal

    @property
    def disproved(self) -> bool:
        """Whether the code is not even as good as the chain's best: then the search continues from that."""
        return self.passed is False and self.delta is not None and self.delta <= 0


@dataclass(slots=True)
class Segment:
    """One life of the miner's process, from `begin` to `end` ("" where it was killed); `seconds` it ran.

    `measured` says on what class of machine and how; "" in an older journal. `last` is the time of its last event
    before the end, `within` whether a trial or a confirming test was open at the end, `busy` the seconds of its runs,
    where those that went side by side on this machine count once.
    """

    begin: str
    measured: str = ""
    end: str = ""
    reason: str = ""
    seconds: float = 0.0
    last: str = ""
    within: bool = False
    busy: float = 0.0


@dataclass(slots=True)
class Session:
    """What a journal adds up to. `head` is the commit of the incumbent; `spent` is in lamports, `staked` in tokens,
    both only of what landed on chain. `purchase` is the signature and last block height of a purchase of tokens
    whose outcome is unknown. `sums` is what the events add up to, kept with each of them.
    """

    seed: int = 0
    tag: str = ""
    started: str = ""
    head: str = ""
    trials: list[TrialRecord] = field(default_factory=list)
    submissions: list[Submission] = field(default_factory=list)
    confirmations: list[Confirmation] = field(default_factory=list)
    frontiers: list[Frontier] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    spent: int = 0
    staked: int = 0
    purchase: tuple[str, int] | None = None
    sums: Sums = field(default_factory=Sums)
    _tried: list[Tried] = field(default_factory=list, repr=False)
    _span: tuple[float, float] = field(default=_NEVER, repr=False)  # of the runs that were counted as busy last

    def apply(self, event: Event) -> None:
        """Fold one event in; an unknown kind or a missing field raises JournalDamaged."""
        try:
            match event["event"]:
                case "session":
                    self.seed, self.tag, self.started = event["seed"], event["tag"], event["at"]
                case "trial":
                    self.trials.append(
                        TrialRecord(
                            event["number"],
                            event["hypothesis"],
                            event["fingerprint"],
                            event["commit"],
                            event["base"],
                            proposer=event.get("proposer", ""),
                            at=event["at"],
                            carries=event.get("carries", 0),
                            beside=frozenset(self.sums.open),
                            tests=len(self.confirmations) - self.confirming,
                            noise=event.get("noise", {}),
                        )
                    )
                    self.sums.began(self.trials[-1])
                    self.head = self.head or event["commit"]
                case "run":
                    trial, run = self._trial(event["number"]), RunRecord.decode(event)
                    trial.runs.append(run)
                    self.sums.ran(trial, run)
                    self._ran(event["at"], run.seconds, alone=bool(run.machine))
                case "decision":
                    trial = self._trial(event["number"])
                    before = trial.decision
                    trial.decision, trial.delta, trial.decided = event["decision"], event["delta"], event["at"]
                    trial.low, trial.high, trial.p = event.get("low"), event.get("high"), event.get("p")
                    trial.reason, trial.carry = event.get("reason", ""), event.get("carry", False)
                    self.sums.concluded(trial, before)
                    if trial.kept and trial.number:  # the baseline is the head already, unless another came meanwhile
                        self.head = trial.commit
                case "dispatched":
                    self._trial(event["number"]).machine = event["machine"]
                case "lost":
                    trial = self._trial(event["number"])
                    trial.lost += 1
                case "judged":  # a whole trial that another machine measured, in one line: all of it or nothing
                    which = {"number": event["number"], "at": event["at"]}
                    for entry in event["runs"]:
                        self.apply({**entry, **which, "event": "run"})
                    self.apply({**event["decision"], **which, "event": "decision"})
                case "confirming":
                    about = ("trial", "commit", "against", "seed", "holdout_seed", "noise", "at")
                    self.confirmations.append(Confirmation(**{name: event[name] for name in about}))
                case "confirming_run":
                    test = ConfirmingRun.decode(event)
                    self.confirmations[-1].runs.append(test)
                    self.sums.confirming += test.run.seconds
                    self.sums.candidates += test.run.seconds if test.run.arm == Arm.CANDIDATE.value else 0.0
                    self._ran(event["at"], test.run.seconds)
                case "confirmed":
                    last = self.confirmations[-1]
                    last.passed, last.reason = event["passed"], event["reason"]
                    last.delta, last.low, last.high = event["delta"], event["low"], event["high"]
                    last.p, last.holdout_delta = event["p"], event["holdout_delta"]
                    last.reference, last.lead = event.get("reference", ""), event.get("lead", 0.0)
                    last.cut = event.get("cut", 1.0)
                    last.confirmed = last.passed
                    self.sums.confirmed(last)
                    if last.disproved and self.head == last.commit:
                        self.head = last.against
                case "held":
                    for done in self.confirmations:
                        if (done.commit, done.against) == (event["commit"], event["against"]):
                            done.passed, done.reason = False, event["reason"]
                case "intent":
                    self.submissions.append(Submission(event["number"], event["code_hash"], event["log_hash"]))
                case "sent":
                    self.submissions[-1].signature = event["signature"]
                    self.submissions[-1].last_valid = event["last_valid"]
                case "buying":
                    self.purchase = (event["signature"], event["last_valid"])
                case "bought":
                    self.purchase = None
                    self.spent += event["lamports"]
                case "submitted":
                    self.submissions[-1].proposal = event["proposal"]
                    self.spent += event.get("lamports", 0)
                    self.staked += event.get("stake", 0)
                case "abandoned":
                    self.submissions[-1].abandoned = True
                    self.spent += event.get("lamports", 0)
                case "status":
                    of = next(s for s in self.submissions if s.proposal == event["proposal"])
                    of.status = event["status"]
                case "frontier":
                    names = ("at", "trial", "commit", "code_hash", "metric", "miner", "own")
                    found = {name: event[name] for name in names}
                    self.frontiers.append(Frontier(**found, carry=event.get("carry", ""), lead=event.get("lead", 0.0)))
                    self.sums.looked(self.frontiers[-1])
                    if event.get("adopted"):
                        self.head = event["commit"]
                case "spent":
                    self.spent += event["lamports"]
                    self.staked += event["stake"]
                case "begin":
                    self.segments.append(Segment(event["at"], event.get("measured", "")))
                    self._span = _NEVER
                case "end":
                    segment = self.segments[-1]
                    segment.end, segment.reason, segment.seconds = event["at"], event["reason"], event["seconds"]
                    segment.within = self.confirming or bool(self.unfinished)
                case other:
                    raise KeyError(f"unknown event {other!r}")
        except (KeyError, TypeError, ValueError, IndexError, StopIteration) as error:
            raise JournalDamaged(
                f"The session journal has an invalid event: {error!r}.",
                _CURE,
            ) from error
        if self.segments and not self.segments[-1].end:
            self.segments[-1].last = event.get("at", "")

    def _ran(self, at: str, seconds: float, *, alone: bool = False) -> None:
        """Count a run that ended `at` then, but unless it was `alone`, on a machine of its own, for what went beside
        those just counted."""
        if not self.segments:
            return
        segment, (first, last) = self.segments[-1], self._span
        end = seconds_of(at) or last + seconds
        begin = end - seconds
        if alone:
            segment.busy += seconds
        elif begin >= last - 1.0 or end < first:  # moments are whole seconds; or the clock was set back
            segment.busy, self._span = segment.busy + seconds, (begin, end)
        else:
            segment.busy += max(0.0, first - begin) + max(0.0, end - last)
            self._span = min(first, begin), max(last, end)

    def _trial(self, number: int) -> TrialRecord:
        return self.sums.by_number[number]

    @property
    def unfinished(self) -> list[TrialRecord]:
        """The trials that are being judged, or were when the session ended: one for each machine, or for each GPU."""
        return list(self.sums.open.values())

    @property
    def confirming(self) -> bool:
        """Whether the last confirming test has not ended."""
        return bool(self.confirmations) and self.confirmations[-1].passed is None

    @property
    def displaced(self) -> str:
        """The commit to measure against the new head before anything else, or "": what was kept when somebody else's
        best became the head."""
        last = self.frontiers[-1] if self.frontiers else None
        if last is None or not last.carry or self.head != last.commit:
            return ""
        return "" if any(t.commit == last.carry for t in self.sums.trials_of(last.commit)) else last.carry

    @property
    def carried(self) -> TrialRecord | None:
        """The trial whose change is to be tried on the new head, next after what is `displaced`."""
        return next(iter(self.sums.carried), None)

    def commit_with(self, fingerprint: str) -> str:
        """The newest commit of the baseline or a kept trial with this fingerprint, or "": then it is made."""
        found = (t.commit for t in reversed(self.trials) if t.fingerprint == fingerprint and (t.kept or not t.number))
        return next(found, "")

    @property
    def pending(self) -> Submission | None:
        """The submission that may or may not have reached the chain, if any."""
        return self.submissions[-1] if self.submissions and self.submissions[-1].open else None

    def history(self, read: Callable[[Sequence[str]], Sequence[str]]) -> list[Tried]:
        """The finished trials as a proposer sees them, in the order of their decisions; `read` gives the script at
        each of several commits. What was read once is kept."""
        new = self.sums.decided[len(self._tried) :]
        sources = read([trial.commit for trial in new]) if new else []
        known = self.sums.fingerprints
        for trial, source in zip(new, sources, strict=True):
            parent = "" if trial.base in known else read([trial.base])[0]
            base = known[trial.base] if trial.base in known else hyperparameters.fingerprint(parent)
            self._tried.append(
                Tried(
                    trial.number,
                    trial.fingerprint,
                    trial.hypothesis,
                    decision(trial.decision),
                    trial.delta,
                    source,
                    base,
                    trial.last_failure if trial.decision == "crash" else "",
                    trial.proposer,
                    trial.facts(),
                    parent,
                )
            )
        return list(self._tried)


class SessionBusy(TrainerError):
    """A session that another process is running."""


class Journal:
    """The file, held by one process at a time. `append` returns once the event is on disk and in `session`, and then
    `listeners` have heard of it.

    Raises SessionBusy if another process has it open, JournalDamaged if it does not parse.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.session = Session()
        self.listeners: list[Callable[[Event, Session], None]] = []
        self._lines = Jsonl(path, JournalDamaged, _CURE)
        try:
            self._hold()
            for event in self._lines.load():
                self.session.apply(event)
        except BaseException:
            self._lines.close()
            raise

    def _hold(self) -> None:
        if not lock(self._lines.file, wait=0.1, every=0.05):  # `is_held` holds it for an instant
            raise _busy(self.path)

    def append(self, kind: str, **fields: Any) -> None:
        """Write one event: durable first, then visible in `session`. `at` is now unless it is given."""
        event = {"event": kind, "at": now(), **fields}
        self._lines.append(event)
        self.session.apply(event)
        for hear in self.listeners:
            hear(event, self.session)

    def close(self) -> None:
        """Close the file; every event is on disk already."""
        self._lines.close()


def read(path: Path) -> Session:
    """The session in a journal that another process may be writing: no lock, nothing changed, half a last line dropped.

    Raises JournalDamaged if it cannot be read or does not parse.
    """
    session = Session()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise JournalDamaged(f"Cannot read {path}: {error.strerror}.", "Choose another session.") from error
    for event, _ in entries(content, path, JournalDamaged, _CURE):
        session.apply(event)
    return session


def require_free(path: Path) -> None:
    """SessionBusy if another process has the journal open, which need not exist: before long preparations."""
    if is_held(path):
        raise _busy(path)


def _busy(path: Path) -> SessionBusy:
    return SessionBusy(f"Another process is mining in {path.parent}.", "Wait for it, or use another wallet or --home.")


def is_held(path: Path) -> bool:
    """Whether a process has the journal open for writing, that is, is mining in its folder now."""
    try:
        with path.open("rb") as file:
            return not lock(file, shared=True)
    except OSError:
        return False


def now() -> str:
    """The time as existing clients write it: ISO 8601, UTC, whole seconds."""
    return written(time.time())


def written(moment: float) -> str:
    """A time in Unix seconds as `now` writes it."""
    return datetime.fromtimestamp(moment, UTC).strftime(_TIME)


def seconds_of(at: str) -> float | None:
    """A journal's time as Unix seconds; None if it is not one."""
    try:
        return datetime.strptime(at, _TIME).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
