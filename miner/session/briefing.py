"""What a proposer is told: the trials of the journal with their sources, and the end of the incumbent's last log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from miner.journal.journal import Session
from miner.journal.worktree import Workspace
from miner.proposers.base import SCRIPT, Context, Pending, Surroundings
from trainer.project.protocol import Protocol

_LOG_BYTES = 16 * 1024  # the end of a log
_TRACE_BYTES = 2000


_NONE = Surroundings()


def gather(
    session: Session,
    workspace: Workspace,
    protocol: Protocol,
    folder: Path,
    *,
    seconds_left: float | None,
    last: bool = False,
    stop: Callable[[], bool] = lambda: False,
    around: Surroundings = _NONE,
) -> Context:
    """The context of the session's next trial; `folder` is the session's."""
    head = workspace.head()
    return Context(
        source=workspace.read(head, SCRIPT),
        protocol=protocol,
        history=session.history(lambda commits: workspace.read_many(commits, SCRIPT)),
        log=_log(session, head, folder),
        number=session.trials[-1].number + 1 if session.trials else 1,
        folder=folder / "proposers",
        seconds_left=seconds_left,
        stop=stop,
        pending=[Pending(trial.number, trial.fingerprint, trial.hypothesis) for trial in session.unfinished],
        **{field.name: getattr(around, field.name) for field in fields(Surroundings)},
        crash=_crash(session, folder),
        last=last,
    )


def _crash(session: Session, folder: Path) -> str:
    """The last lines of the newest candidate that crashed, or ""."""
    trial = next((t for t in reversed(session.sums.decided) if t.decision == "crash"), None)
    run = None if trial is None else trial.last_failed
    try:
        return "" if run is None else (folder / run.log).read_bytes()[-_TRACE_BYTES:].decode(errors="replace")
    except OSError:
        return ""


def _log(session: Session, head: str, folder: Path) -> str:
    """The end of the newest log of the code at `head`, or ""."""
    for trial in reversed(session.sums.involving(head)):
        for run in reversed(trial.runs):
            if trial.commit_of(run) == head and not run.failure:
                try:
                    return (folder / run.log).read_bytes()[-_LOG_BYTES:].decode(errors="replace")
                except OSError:
                    continue
    return ""
