"""A session of the home as it lies on disk: its journal, and its trials with their code."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from miner.journal import journal
from miner.journal.journal import Session
from miner.journal.sessions import SessionFolder
from miner.journal.worktree import Workspace
from miner.proposers.base import SCRIPT, Tried


def read(entry: SessionFolder) -> tuple[Session, list[Tried]]:
    """The session and its history; TrainerError if the journal is damaged or the work tree is gone."""
    session = past(entry)
    tree = Workspace(entry.folder / "tree", session.tag)
    return session, session.history(lambda commits: tree.read_many(commits, SCRIPT))


def past(entry: SessionFolder) -> Session:
    """Another session of the home, read once for as long as its journal stays as it is; nobody may change it.

    Raises as `journal.read` does.
    """
    try:
        state = entry.journal.stat()
    except OSError:
        return journal.read(entry.journal)  # says what is wrong
    return _read(entry.journal, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _read(path: Path, modified: int, size: int) -> Session:
    return journal.read(path)
