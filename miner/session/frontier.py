"""The frontier: the chain's best code as this session knows it, and what to do when it moves.

Between trials the session looks at the project. If the best is our own approved proposal, the session continues
from where it is. If it is somebody else's, its code is fetched and verified, becomes the incumbent, and what this
session had kept and not submitted is the first candidate against it. `moved` decides, as a pure function.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from chain.connection.opening import Connection
from chain.money import score
from chain.program.accounts import Project
from chain.projects.artifacts import fetch_best_code
from miner.journal.journal import Journal, Session
from miner.journal.worktree import Workspace
from miner.proposers.base import SCRIPT
from trainer.errors import InvalidBundle
from trainer.project import hyperparameters
from trainer.project.task import Task


class Moved(StrEnum):
    """How the on-chain best relates to what the session knows."""

    SAME = "same"
    OURS = "ours"
    THEIRS = "theirs"
    UNKNOWN = "unknown"  # nothing was recorded yet


@dataclass(frozen=True, slots=True)
class FetchedBest:
    """The chain's best, fetched: its hash, the train.py in it, its metric in its own unit and its miner."""

    code_hash: str
    source: str
    metric: str
    miner: str


def moved(session: Session, code_hash: str) -> Moved:
    """Whether the chain's best (`code_hash` in hex) is what the session saw last, our own proposal or news."""
    if not session.frontiers:
        return Moved.UNKNOWN
    if session.frontiers[-1].code_hash == code_hash:
        return Moved.SAME
    if any(s.code_hash == code_hash and s.proposal is not None and s.trial > 0 for s in session.submissions):
        return Moved.OURS
    return Moved.THEIRS


def fetch(connection: Connection, project: Project, task: Task, convention: score.Convention) -> FetchedBest:
    """The best code on chain, verified. ChainError or TrainerError if it cannot be fetched or read."""
    archive = fetch_best_code(connection, project)
    tree = task.files if archive is None else task.tree(archive)
    try:
        script = tree[SCRIPT].decode()
        hyperparameters.fingerprint(script)
    except (KeyError, UnicodeDecodeError) as error:
        raise InvalidBundle(f"The on-chain best has no readable {SCRIPT}: {error}.") from None
    return FetchedBest(
        project.current_best_code_hash.hex(),
        script,
        str(convention.to_metric(project.current_best_aggregate_score)),
        str(project.current_best_miner),
    )


def adopt(journal: Journal, workspace: Workspace, best: FetchedBest) -> bool:
    """Make the fetched best the frontier; whether the head moved to it.

    A best that this session has as a commit of its own leaves the head where it is. Else the head moves, and what
    was kept and never submitted is carried over: `Session.displaced` is to be measured against the new head.
    """
    session = journal.session
    state = moved(session, best.code_hash)
    if state is Moved.OURS:
        trial = next(s.trial for s in reversed(session.submissions) if s.code_hash == best.code_hash)
        commit = session.trials[trial].commit
    else:
        commit = session.commit_with(hyperparameters.fingerprint(best.source))
    new = not commit
    if new:
        commit = workspace.adopt(best.source, f"on-chain best, {best.metric}, by {best.miner}")
    passed = session.frontiers[-1].commit if session.frontiers else ""
    journal.append(
        "frontier",
        trial=session.trials[-1].number,
        commit=commit,
        code_hash=best.code_hash,
        metric=best.metric,
        miner=best.miner,
        own=state is Moved.OURS,
        adopted=new,
        carry=session.head if new and session.head != passed else "",
    )
    if new:
        workspace.keep(commit)
    return new
