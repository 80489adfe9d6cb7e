"""The chain's best as a session knows it: when it moved, whose it is, and where the search goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from miner.journal.journal import Journal, Session, Submission
from miner.journal.worktree import Workspace
from miner.session import frontier
from miner.session.frontier import FetchedBest, Moved
from trainer.project import hyperparameters

BASE, OURS, THEIRS = "LR = 0.1\n", "LR = 0.2\n", "LR = 0.4\n"
NOTHING, OUR_HASH, THEIR_HASH = "00" * 32, "aa" * 32, "bb" * 32


@pytest.mark.parametrize(
    ("seen", "submitted", "now", "state"),
    [
        ("", [], NOTHING, Moved.UNKNOWN),
        (NOTHING, [], NOTHING, Moved.SAME),
        (NOTHING, [], THEIR_HASH, Moved.THEIRS),
        (NOTHING, [Submission(1, OUR_HASH, "", proposal=7)], OUR_HASH, Moved.OURS),
        (NOTHING, [Submission(1, OUR_HASH, "", abandoned=True)], OUR_HASH, Moved.THEIRS),
        (NOTHING, [Submission(-1, OUR_HASH, "", proposal=7)], OUR_HASH, Moved.THEIRS),  # a file of the user's
        (OUR_HASH, [Submission(1, OUR_HASH, "", proposal=7)], OUR_HASH, Moved.SAME),
    ],
)
def test_moved(seen: str, submitted: list[Submission], now: str, state: Moved) -> None:
    session = Session(submissions=submitted)
    if seen:
        event = {"trial": 0, "commit": "c", "code_hash": seen, "metric": "2.5", "miner": "m", "own": False, "carry": ""}
        session.apply({"event": "frontier", "at": "", "adopted": False, **event})
    assert frontier.moved(session, now) is state


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Journal, Workspace]]:
    """A session whose baseline is on record as the frontier."""
    journal = Journal(tmp_path / "session.jsonl")
    workspace = Workspace.open(tmp_path / "tree", "tag", {"train.py": BASE.encode()})
    trial(journal, 0, BASE, workspace.head(), workspace.head())
    assert not frontier.adopt(journal, workspace, FetchedBest(NOTHING, BASE, "2.500000", "nobody"))
    yield journal, workspace
    journal.close()


def trial(journal: Journal, number: int, source: str, commit: str, base: str, decision: str = "keep") -> None:
    journal.append(
        "trial",
        number=number,
        hypothesis="",
        fingerprint=hyperparameters.fingerprint(source),
        commit=commit,
        base=base,
    )
    journal.append("decision", number=number, decision=decision, delta=0.1)


def keep_ours(journal: Journal, workspace: Workspace) -> str:
    commit = workspace.commit(1, OURS, "better")
    trial(journal, 1, OURS, commit, workspace.head())
    workspace.keep(commit)
    return commit


def test_the_baseline_is_the_first_frontier(place: tuple[Journal, Workspace]) -> None:
    journal, workspace = place
    assert journal.session.frontiers[0].commit == workspace.head() == journal.session.head
    assert (journal.session.frontiers[0].own, journal.session.displaced) == (False, "")


def test_our_approved_proposal_leaves_the_head_where_it_is(place: tuple[Journal, Workspace]) -> None:
    journal, workspace = place
    ours = keep_ours(journal, workspace)
    journal.append("intent", number=1, code_hash=OUR_HASH, log_hash="")
    journal.append("submitted", proposal=0)
    assert not frontier.adopt(journal, workspace, FetchedBest(OUR_HASH, OURS, "2.400000", "us"))
    latest = journal.session.frontiers[-1]
    assert (latest.commit, latest.own, journal.session.head, journal.session.displaced) == (ours, True, ours, "")


def test_somebody_elses_best_becomes_the_head_and_ours_is_carried_over(place: tuple[Journal, Workspace]) -> None:
    journal, workspace = place
    ours = keep_ours(journal, workspace)
    assert frontier.adopt(journal, workspace, FetchedBest(THEIR_HASH, THEIRS, "2.300000", "they"))
    theirs = journal.session.head
    assert workspace.head() == theirs != ours
    assert workspace.read(theirs, "train.py") == THEIRS
    assert journal.session.displaced == ours
    trial(journal, 2, OURS, ours, theirs, "discard")
    assert journal.session.displaced == ""


def test_nothing_is_carried_over_where_nothing_was_kept(place: tuple[Journal, Workspace]) -> None:
    journal, workspace = place
    assert frontier.adopt(journal, workspace, FetchedBest(THEIR_HASH, THEIRS, "2.300000", "they"))
    assert journal.session.displaced == ""


def test_a_best_that_was_discarded_here_is_adopted_all_the_same(place: tuple[Journal, Workspace]) -> None:
    journal, workspace = place
    head = workspace.head()
    discarded = workspace.commit(1, THEIRS, "worse here")
    trial(journal, 1, THEIRS, discarded, head, "discard")
    assert frontier.adopt(journal, workspace, FetchedBest(THEIR_HASH, THEIRS, "2.300000", "they"))
    assert workspace.head() not in (head, discarded)
    assert workspace.read(workspace.head(), "train.py") == THEIRS


def test_a_session_that_starts_again_knows_it_all(place: tuple[Journal, Workspace]) -> None:
    journal, workspace = place
    ours = keep_ours(journal, workspace)
    frontier.adopt(journal, workspace, FetchedBest(THEIR_HASH, THEIRS, "2.300000", "they"))
    journal.close()
    again = Journal(journal.path)
    assert (again.session.head, again.session.displaced) == (workspace.head(), ours)
    assert frontier.moved(again.session, THEIR_HASH) is Moved.SAME
    again.close()
