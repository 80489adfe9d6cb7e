"""The session ledger: an append-only file of events, and the state they add up to.

Everything is written here, and on disk, before it is acted on. `Session` is a pure fold over the
events, so starting again after a kill is reading the file. A line that a crash cut short is the last
one and is dropped; anything else that does not parse is refused.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from miner.proposer import Tried
from trainer.errors import TrainerError

Event = Mapping[str, Any]
_RUN_FIELDS = ("at", "number", "arm", "val_bpb", "failure", "detail", "seconds", "memory_mb", "log")
_LATER_RUN_FIELDS: Mapping[str, Any] = {"fresh_bpb": None, "tokens_per_second": None, "curve": [], "conditions": []}


class LedgerDamaged(TrainerError):
    """A session ledger with a line that is not one of ours."""


@dataclass(slots=True)
class Trial:
    """One candidate being judged, or judged: its source, why, its runs and what became of it.

    `commit` is the candidate's, `base` the incumbent's it is measured against. A run is a mapping of its ledger
    fields: arm, val_bpb and fresh_bpb (None without a value), failure ("" or one word: "stopped" by its loss curve,
    "unfit" for this machine's state, else what went wrong), detail, seconds, memory_mb, tokens_per_second, curve
    (a list of [seconds, loss in nats], what the script printed) and conditions (words on the machine's state).
    `decision` is "" while it is open, then keep, discard or crash; `delta`, `low`, `high` in bpb and `p` are those
    of the comparison's last look, `reason` says in words what decided.
    """

    number: int
    hypothesis: str
    fingerprint: str
    commit: str
    base: str
    proposer: str = ""
    at: str = ""
    runs: list[dict[str, Any]] = field(default_factory=list)
    decision: str = ""
    delta: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    reason: str = ""
    decided: str = ""

    @property
    def kept(self) -> bool:
        return self.decision == "keep"


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
    """The chain's best when the session looked: `commit` is its code here, `metric` the value on chain."""

    at: str
    trial: int  # the number of the last trial before it
    commit: str
    code_hash: str
    metric: str
    miner: str
    own: bool


@dataclass(slots=True)
class Segment:
    """One life of the miner's process, from `begin` to `end` ("" where it was killed); `seconds` it ran."""

    begin: str
    end: str = ""
    reason: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class Session:
    """What a ledger adds up to. `spent` is in lamports, `staked` in tokens; both only of what landed on chain."""

    seed: int = 0
    tag: str = ""
    started: str = ""
    trials: list[Trial] = field(default_factory=list)
    submissions: list[Submission] = field(default_factory=list)
    frontiers: list[Frontier] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    spent: int = 0
    staked: int = 0

    def apply(self, event: Event) -> None:
        """Fold one event in; an unknown kind or a missing field raises LedgerDamaged."""
        try:
            match event["event"]:
                case "session":
                    self.seed, self.tag, self.started = event["seed"], event["tag"], event["at"]
                case "trial":
                    self.trials.append(
                        Trial(
                            event["number"],
                            event["hypothesis"],
                            event["fingerprint"],
                            event["commit"],
                            event["base"],
                            event.get("proposer", ""),
                            event["at"],
                        )
                    )
                case "run":
                    run = {name: event[name] for name in _RUN_FIELDS}
                    run |= {name: event.get(name, default) for name, default in _LATER_RUN_FIELDS.items()}
                    self._trial(event["number"]).runs.append(run)
                case "decision":
                    trial = self._trial(event["number"])
                    trial.decision, trial.delta, trial.decided = event["decision"], event["delta"], event["at"]
                    trial.low, trial.high, trial.p = event.get("low"), event.get("high"), event.get("p")
                    trial.reason = event.get("reason", "")
                case "intent":
                    self.submissions.append(Submission(event["number"], event["code_hash"], event["log_hash"]))
                case "sent":
                    self.submissions[-1].signature = event["signature"]
                    self.submissions[-1].last_valid = event["last_valid"]
                case "submitted":
                    self.submissions[-1].proposal = event["proposal"]
                case "abandoned":
                    self.submissions[-1].abandoned = True
                case "status":
                    of = next(s for s in self.submissions if s.proposal == event["proposal"])
                    of.status = event["status"]
                case "frontier":
                    names = ("at", "trial", "commit", "code_hash", "metric", "miner", "own")
                    self.frontiers.append(Frontier(*(event[name] for name in names)))
                case "spent":
                    self.spent += event["lamports"]
                    self.staked += event["stake"]
                case "begin":
                    self.segments.append(Segment(event["at"]))
                case "end":
                    segment = self.segments[-1]
                    segment.end, segment.reason, segment.seconds = event["at"], event["reason"], event["seconds"]
                case other:
                    raise KeyError(f"unknown event {other!r}")
        except (KeyError, TypeError, IndexError, StopIteration) as error:
            raise LedgerDamaged(
                f"The session ledger holds an event that does not fit: {error!r}.",
                "Move its folder away to start a new session.",
            ) from error

    def _trial(self, number: int) -> Trial:
        trial = self.trials[-1]
        if trial.number != number:
            raise KeyError(f"trial {number}")
        return trial

    @property
    def unfinished(self) -> Trial | None:
        """The trial that was being judged when the session ended, if any."""
        return self.trials[-1] if self.trials and not self.trials[-1].decision else None

    @property
    def pending(self) -> Submission | None:
        """The submission that may or may not have reached the chain, if any."""
        return self.submissions[-1] if self.submissions and self.submissions[-1].open else None

    def history(self) -> list[Tried]:
        """The finished trials as a proposer sees them."""
        return [Tried(t.fingerprint, t.hypothesis, t.kept, t.delta) for t in self.trials if t.decision]


class SessionBusy(TrainerError):
    """A session that another process is running."""


class Ledger:
    """The file, held by one process at a time. `append` returns once the event is on disk and in `session`.

    Raises SessionBusy where another process has it open, LedgerDamaged where it does not parse.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.session = Session()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        try:
            self._hold()
            kept, content = 0, path.read_bytes()
            for event, end in _events(content, path):
                self.session.apply(event)
                kept = end
            if kept < len(content):
                self._file.truncate(kept)
        except BaseException:
            self._file.close()
            raise

    def _hold(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SessionBusy(
                f"Another process is mining in {self.path.parent}.", "Wait for it, or use another wallet or --home."
            ) from None

    def append(self, kind: str, **fields: Any) -> None:
        """Write one event: durable first, then visible in `session`."""
        event = {"event": kind, "at": now(), **fields}
        self._file.write(json.dumps(event, sort_keys=True).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.session.apply(event)

    def close(self) -> None:
        """Close the file; every event is on disk already."""
        self._file.close()


def read(path: Path) -> Session:
    """The session in a ledger that another process may be writing: no lock, nothing changed, half a last line dropped.

    Raises LedgerDamaged where it cannot be read or does not parse.
    """
    session = Session()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LedgerDamaged(f"{path} cannot be read: {error.strerror}.", "Name another session.") from error
    for event, _ in _events(content, path):
        session.apply(event)
    return session


def _events(content: bytes, path: Path) -> Iterable[tuple[Event, int]]:
    end = 0
    while (newline := content.find(b"\n", end)) >= 0:
        try:
            event = json.loads(content[end:newline])
            if not isinstance(event, dict):
                raise ValueError("not an object")
        except ValueError as error:
            raise LedgerDamaged(
                f"{path} does not parse at byte {end}: {error}.",
                "Move its folder away to start a new session.",
            ) from error
        end = newline + 1
        yield event, end


def now() -> str:
    """The time as existing clients write it: ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
