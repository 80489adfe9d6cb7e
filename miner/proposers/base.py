"""The interface of everything that proposes candidates.

A proposer takes the incumbent's source and the history of trials and gives a candidate source with a one-line
hypothesis. It learns outcomes from the history alone: files in `Context.folder` are caches that it checks against
the history, so a session that is killed at any moment and starts again loses nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, cast, runtime_checkable

from trainer.errors import TrainerError
from trainer.project import hyperparameters, protocol
from trainer.project.hyperparameters import Value

Decision = Literal["keep", "discard", "crash"]

SCRIPT = "train.py"
MAX_HYPOTHESIS = 200  # characters
EDIT = "edit "  # how the hypothesis of a library edit begins
_EDIT = re.compile(rf"(?:crossover: [\w ]+ on the best: |trial \d+ again: )*{EDIT}([\w-]+): ")
_ACCELERATORS = ("cuda", "nvidia", "h100", "h200", "a100", "rtx")


class ProposerFailed(TrainerError):
    """A proposer that gave no candidate this time: no answer, a bad one, a patch that does not apply.

    `retry_after` is how many seconds it asked to be left alone, 0 where it did not.
    """

    def __init__(self, problem: str, cure: str = "", *, retry_after: float = 0.0) -> None:
        super().__init__(problem, cure)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Candidate:
    """A changed train.py and why it might be better; `proposer` is its source, if several are mixed."""

    source: str
    hypothesis: str
    proposer: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What else was measured in a trial, for who reads it as text; each is None or "" where it is not known.

    `value` is the mean of its val_bpb, `low` and `high` the interval of its delta, `rate` in tokens per second,
    `memory` in MB, `curve` its loss over the budget in brief.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    rate: float | None = None
    memory: float | None = None
    curve: str = ""


@dataclass(frozen=True, slots=True)
class Clue:
    """What somebody else found: `name` is a site's or "edit:" and an edit's; `gain` in bpb (None: it crashed),
    positive is better; `weight` from 0 to 1 says how far it is to be believed."""

    name: str
    old: Value | None
    new: Value | None
    gain: float | None
    weight: float


@dataclass(frozen=True, slots=True)
class Approved:
    """A change that verifiers confirmed on chain: the proposal, its `gain` in the metric, positive is better, and the
    diff from the best before it."""

    proposal: int
    gain: float
    diff: str


@dataclass(frozen=True, slots=True)
class Tried:
    """One finished trial, as a proposer sees it.

    `delta` is in val_bpb, positive is better, None after a crash. `base` is the fingerprint of the incumbent's
    source that it was measured against, `parent` that source where it was no trial here: somebody else's code.
    `detail` is the last word of a crash, or "".
    """

    number: int
    fingerprint: str
    hypothesis: str
    decision: Decision
    delta: float | None
    source: str
    base: str
    detail: str = ""
    proposer: str = ""
    facts: Facts = field(default_factory=lambda: Facts())
    parent: str = ""

    @property
    def kind(self) -> str:
        """Which edit of `miner.proposers.edits` it was, or ""."""
        return edit_of(self.hypothesis)

    @property
    def kept(self) -> bool:
        return self.decision == "keep"


def edit_of(hypothesis: str) -> str:
    """The name of the library edit that a hypothesis tells of, be it moved onto another best, or ""."""
    found = _EDIT.match(hypothesis)
    return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class Pending:
    """A candidate that is being measured now, on another machine or GPU."""

    number: int
    fingerprint: str
    hypothesis: str


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a proposer is told beside the trials; see `Context` for each."""

    sigma: float | None = None
    hardware: str = ""
    program: str = ""
    clues: Sequence[Clue] = ()
    approved: Sequence[Approved] = ()
    rehearse: Callable[[str], str] | None = None


@dataclass(frozen=True, slots=True)
class Context(Surroundings):
    """What a proposer may use.

    `source` is the incumbent's train.py, `log` the tail of its last log, `number` that of the next trial, `folder`
    this session's folder for proposers' files. `seconds_left` of the session is None without a limit. `stop` says
    whether the session is to end, for work that takes long. `pending` are candidates without an outcome yet.
    `sigma` is the noise of a run in bpb, where it is known; `hardware` says what measures, `program` is the project's
    program.md. `clues` are what others found, `approved` the steps between bests on chain, oldest first. `rehearse`
    runs a script for two tiny steps where untrusted code may run, and says what went wrong, or "". `crash` is the end
    of the log of the newest candidate that crashed. `last` says that no trial is to follow this one.
    """

    source: str
    protocol: protocol.Protocol
    history: Sequence[Tried]
    log: str
    number: int
    folder: Path
    seconds_left: float | None = None
    stop: Callable[[], bool] = _never
    pending: Sequence[Pending] = ()
    crash: str = ""
    last: bool = False

    def known(self) -> set[str]:
        """The fingerprints of everything that was or is being tried, the incumbent's included."""
        known = {trial.fingerprint for trial in self.history} | {trial.fingerprint for trial in self.pending}
        return known | {hyperparameters.fingerprint(self.source)}


def accelerated(hardware: str) -> bool:
    """Whether `Context.hardware` has a discrete accelerator, on which larger models win."""
    return any(word in hardware.lower() for word in _ACCELERATORS)


def by_fingerprint(history: Sequence[Tried]) -> dict[str, str]:
    """The sources of trials and of what they were measured against."""
    foreign = {trial.base: trial.parent for trial in history if trial.parent}
    return foreign | {trial.fingerprint: trial.source for trial in history}


class Proposer(Protocol):
    """What `miner run --proposer` chooses."""

    @property
    def name(self) -> str:
        """One word, as the specification and the journal have it."""

    def propose(self, context: Context) -> Candidate | None:
        """The next candidate, or None if nothing is left to try; ProposerFailed if this attempt failed."""


@runtime_checkable
class ClosingProposer(Protocol):
    """A proposer that has something to end with the session."""

    def close(self) -> None:
        """End it; a short wait at most."""


def decision(word: str) -> Decision:
    """A journal's word for how a trial ended."""
    if word not in ("keep", "discard", "crash"):
        raise TrainerError(f"Expected keep, discard or crash, found {word!r}.", "Move the session's folder away.")
    return cast("Decision", word)


@runtime_checkable
class BoldProposer(Protocol):
    """A proposer that may have a candidate worth more than anything that others are likely to have."""

    def is_bold(self, context: Context) -> bool:
        """Whether its next candidate is one: then it is asked before all others."""
