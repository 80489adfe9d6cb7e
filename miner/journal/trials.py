"""A session of the home as it lies on disk: its journal, and its trials with their code."""

from __future__ import annotations

from miner.journal import journal
from miner.journal.journal import Session
from miner.journal.sessions import SessionFolder
from miner.journal.worktree import Workspace
from miner.proposers.base import SCRIPT, Tried


def read(entry: SessionFolder) -> tuple[Session, list[Tried]]:
    """The session and its history; TrainerError if the journal is damaged or the work tree is gone."""
    session = journal.read(entry.journal)
    tree = Workspace(entry.folder / "tree", session.tag)
    return session, session.history(lambda commits: tree.read_many(commits, SCRIPT))
