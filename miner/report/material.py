"""What a report is made of, gathered from a session's folder and its chain; all that touches files is here.

Everything is bounded: the newest trials and all kept ones get their diff and the tail of a log, and of each only so
many lines. What could not be read is reported, not left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.text import printable
from miner.journal import about, journal
from miner.journal.about import About
from miner.journal.journal import Session, TrialRecord, now, seconds_of
from miner.journal.sessions import SessionFolder
from miner.journal.worktree import Workspace
from miner.proposers import usage
from miner.proposers.usage import Usage
from miner.report import summary
from miner.report.chart import BestMark
from miner.report.summary import Summary
from trainer.errors import TrainerError

MAX_DETAILED = 150  # trials with diff and log, the newest, and as many kept ones
MAX_DIFF_LINES, MAX_LOG_LINES = 400, 25
MAX_LINE = 300  # characters
_TAIL = 16 * 1024  # bytes of a log


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A trial's diff and the tail of its last own run's log, as safe lines; empty with the reason in `missing`."""

    diff: Sequence[str] = ()
    log: Sequence[str] = ()
    log_name: str = ""
    missing: str = ""


@dataclass(frozen=True, slots=True)
class OnChain:
    """The project as the chain has it. `note` says how it is known, or why it is not; `fates` are words on what became
    of this miner's proposals, with reward and stake."""

    note: str
    baseline: float | None = None
    best: float | None = None
    bests: Sequence[BestMark] = ()
    statuses: Mapping[int, str] = field(default_factory=dict)
    fates: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Material:
    """Everything a page shows, as values. `running` says that a process mines in the folder, `made` is the time."""

    name: str
    session: Session
    about: About
    summary: Summary
    chain: OnChain
    running: bool = False
    made: str = ""
    exhibits: Mapping[int, Exhibit] = field(default_factory=dict)
    asked: Mapping[str, Usage] = field(default_factory=dict)  # what models and agents have cost, by proposer

    @property
    def states(self) -> Mapping[int, str]:
        """What became of each kept trial."""
        return summary.states(self.session, self.chain.statuses)


def gather(found: SessionFolder, chain: OnChain | None) -> Material:
    """Read a session's folder; JournalDamaged if its journal does not parse."""
    session, facts = journal.read(found.journal), about.load(found.folder)
    running = journal.is_held(found.journal)
    kept = [trial for trial in session.sums.decided if trial.kept]
    detailed = {t.number: t for t in [*session.trials[-MAX_DETAILED:], *kept[-MAX_DETAILED:]]}
    tree = Workspace(found.folder / "tree", session.tag)
    diffs = _diffs(tree, list(detailed.values()))
    return Material(
        found.name,
        session,
        facts,
        summary.summarize(session, budget=facts.budget, running=running),
        chain or recorded(session, facts),
        running,
        now(),
        {t.number: _exhibit(found.folder, tree, t, diffs) for t in detailed.values()},
        usage.spent(found.folder / "proposers"),
    )


def recorded(session: Session, facts: About, why: str = "") -> OnChain:
    """The chain's state as the session itself wrote it down."""
    bests = []
    for frontier in session.frontiers:
        at, metric = seconds_of(frontier.at), _number(frontier.metric)
        if at is not None and metric is not None and (frontier.own or frontier.foreign):
            whose = "this miner" if frontier.own else f"miner {printable(frontier.miner, 12)}"
            bests.append(BestMark(at, metric, frontier.own, f"{metric:.6f} by {whose}, seen {frontier.at}"))
    best = bests[-1].metric if bests else _number(facts.best)
    note = "As last seen by this session (chain not queried)." if facts.at or bests else "Not recorded."
    return OnChain(f"{note} {why}".strip(), _number(facts.baseline), best, bests)


def _diffs(tree: Workspace, trials: Sequence[TrialRecord]) -> Mapping[tuple[str, str], str]:
    """What changed from base to commit, of those whose commit's parent is the base: by one git process."""
    try:
        return tree.diffs([trial.commit for trial in trials if trial.number]) if tree.path.is_dir() else {}
    except TrainerError:
        return {}  # asked one by one, each says what is wrong


def _exhibit(folder: Path, tree: Workspace, trial: TrialRecord, diffs: Mapping[tuple[str, str], str]) -> Exhibit:
    missing, diff = "", ""
    if trial.commit != trial.base and not tree.path.is_dir():
        missing = "The diff cannot be shown: the session’s work tree is missing."
    elif trial.commit != trial.base:
        known = diffs.get((trial.base, trial.commit))
        try:
            diff = tree.diff(trial.base, trial.commit) if known is None else known
        except TrainerError as error:
            missing = f"The diff cannot be shown: {error.problem}"
    logs = [run.log for run in trial.own_runs if run.log]
    name = Path(logs[-1]).name if logs else ""
    return Exhibit(_lines(diff, MAX_DIFF_LINES), _tail(folder / "logs" / name) if name else (), name, missing)


def _lines(text: str, most: int) -> list[str]:
    lines = text.split("\n", most + 1)[: most + 1]
    shown = [printable(line, MAX_LINE, spaces=True) for line in lines[:most]]
    while shown and not shown[-1]:
        shown.pop()
    return [*shown, f"… more than {most} lines"] if len(lines) > most else shown


def _tail(path: Path) -> list[str]:
    """The last lines of a log; a link is not followed."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _TAIL))
            data = file.read(_TAIL)
    except OSError:
        return []
    lines = re.split(r"[\r\n]+", data.decode(errors="replace").strip())
    return [printable(line, MAX_LINE, spaces=True) for line in lines[-MAX_LOG_LINES:]]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 1e12 else None
