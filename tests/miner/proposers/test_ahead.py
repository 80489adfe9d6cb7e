"""Thinking ahead: what is ready, what becomes of it when the incumbent changes, and what a kill leaves."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from miner.proposers.ahead import Ahead
from miner.proposers.base import Candidate, Context, ProposerFailed
from tests.miner.proposers.support import baseline, context, tried
from trainer.project import hyperparameters

SOURCE = "LR = 0.1\n\n\nDEPTH = 2\n"


class Slow:
    """A model that answers once `go` is set: the number of the call as DEPTH, in the script that it was given."""

    name = "llm"

    def __init__(self) -> None:
        self.go, self.asked, self.seen = threading.Event(), 0, list[Context]()

    def propose(self, context: Context) -> Candidate | None:
        self.asked += 1
        number = self.asked
        self.seen.append(context)
        while not self.go.wait(0.01):
            if context.stop():
                return None
        if number == 4:
            raise ProposerFailed("busy", retry_after=7.0)
        return Candidate(context.source.replace("DEPTH = 2", f"DEPTH = 1{number}"), f"idea {number}")


@pytest.fixture
def slow() -> Slow:
    found = Slow()
    found.go.set()
    return found


def settled(ahead: Ahead) -> None:
    assert ahead._thread is not None
    ahead._thread.join(10)


def at(folder: Path, number: int, source: str = SOURCE) -> Context:
    return replace(context(folder, [baseline(SOURCE)], source=source), number=number)


def test_the_next_one_is_thought_of_while_the_first_is_measured(tmp_path: Path, slow: Slow) -> None:
    ahead = Ahead(slow)
    first = ahead.propose(at(tmp_path, 1))
    assert first is not None
    settled(ahead)
    assert slow.asked == 2
    assert [p.fingerprint for p in slow.seen[1].pending] == [hyperparameters.fingerprint(first.source)]
    assert slow.seen[1].number == 2
    second = ahead.propose(at(tmp_path, 2))
    assert second is not None
    assert (second.hypothesis, second.source) == ("idea 2", SOURCE.replace("= 2", "= 12"))
    ahead.close()


def test_the_incumbent_changed_meanwhile(tmp_path: Path, slow: Slow) -> None:
    ahead = Ahead(slow)
    ahead.propose(at(tmp_path, 1))
    settled(ahead)
    found = ahead.propose(at(tmp_path, 2, source=SOURCE.replace("0.1", "0.2")))
    assert found is not None
    assert found.source == "LR = 0.2\n\n\nDEPTH = 12\n"


def test_what_does_not_fit_any_more_or_was_tried_is_dropped(tmp_path: Path, slow: Slow) -> None:
    ahead = Ahead(slow)
    ahead.propose(at(tmp_path, 1))
    settled(ahead)
    other = ahead.propose(at(tmp_path, 2, source="A = f()\nB = DEPTH_OF(A)\n# DEPTH = 2\n"))
    assert other is not None
    assert other.hypothesis == "idea 3"
    ahead.close()
    again = Ahead(slow)
    slow.asked = 0
    again.propose(at(tmp_path / "b", 1))
    settled(again)
    known = tried(2, Candidate(SOURCE.replace("= 2", "= 12"), "elsewhere"), SOURCE, -0.1)
    seen = replace(at(tmp_path / "b", 3), history=[baseline(SOURCE), known])
    third = again.propose(seen)
    assert third is not None
    assert third.hypothesis == "idea 3"


def test_a_kill_loses_nothing_that_was_paid_for(tmp_path: Path, slow: Slow) -> None:
    killed = Ahead(slow)
    killed.propose(at(tmp_path, 1))
    settled(killed)
    after = Ahead(slow).propose(at(tmp_path, 2))
    assert after is not None
    assert after.hypothesis == "idea 2"


def test_nothing_is_thought_of_after_the_last_trial(tmp_path: Path, slow: Slow) -> None:
    ahead = Ahead(slow)
    assert ahead.propose(replace(at(tmp_path, 1), last=True)) is not None
    assert ahead._thread is None
    assert slow.asked == 1


def test_a_damaged_file_is_nothing(tmp_path: Path, slow: Slow) -> None:
    (tmp_path / "llm-ready.json").write_text('{"base": 1, "source": [], "hypothesis": "x"}')
    found = Ahead(slow).propose(at(tmp_path, 1))
    assert found is not None
    assert found.hypothesis == "idea 1"


def test_a_failure_ahead_is_told_when_its_turn_comes(tmp_path: Path, slow: Slow) -> None:
    ahead = Ahead(slow)
    for number in (1, 2, 3):
        ahead.propose(at(tmp_path, number))
        settled(ahead)
    assert slow.asked == 4
    with pytest.raises(ProposerFailed) as failed:
        ahead.propose(at(tmp_path, 4))
    assert failed.value.retry_after == 7.0
    assert ahead.propose(at(tmp_path, 4)) is not None


def test_the_end_of_a_session_ends_the_thought(tmp_path: Path) -> None:
    slow = Slow()
    slow.go.set()
    ahead = Ahead(slow)
    assert ahead.propose(at(tmp_path, 1)) is not None
    settled(ahead)
    slow.go.clear()
    ahead.propose(at(tmp_path, 2))
    thread = ahead._thread
    assert thread is not None
    assert thread.is_alive()
    ahead.close()
    assert not thread.is_alive()
