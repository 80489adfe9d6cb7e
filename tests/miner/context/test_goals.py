"""When a session ends and what it may stake, as tables."""

from __future__ import annotations

import pytest

from miner.context.goals import Done, Goals, affordable, reached, seconds_left
from trainer.project.protocol import MiningLoop

NONE = MiningLoop()


@pytest.mark.parametrize(
    ("goals", "loop", "done", "words"),
    [
        (Goals(), NONE, Done(trials=10**6, seconds=1e9, since_kept=10**6), ""),
        (Goals(), NONE, Done(submissions=1), "submitted"),
        (Goals(submissions=0), NONE, Done(submissions=9), ""),
        (Goals(submissions=2), NONE, Done(submissions=1), ""),
        (Goals(max_trials=3), NONE, Done(trials=2, all_trials=50), ""),
        (Goals(max_trials=3), NONE, Done(trials=3), "--max-trials 3"),
        (Goals(max_minutes=2), NONE, Done(seconds=119.9, all_seconds=1e6), ""),
        (Goals(max_minutes=2), NONE, Done(seconds=120), "--max-minutes 2"),
        (Goals(stagnation=5), NONE, Done(since_kept=5), "5 trials without"),
        # The protocol's limits count the whole session and give way to a flag.
        (Goals(), MiningLoop(max_trials=4), Done(trials=1, all_trials=4), "protocol's limit of 4 trials"),
        (Goals(max_trials=9), MiningLoop(max_trials=4), Done(trials=1, all_trials=4), ""),
        (Goals(), MiningLoop(max_session_seconds=600), Done(seconds=1, all_seconds=600), "10 minutes"),
        (Goals(max_minutes=60), MiningLoop(max_session_seconds=600), Done(seconds=1, all_seconds=600), ""),
        (Goals(), MiningLoop(max_consecutive_non_improvements=3), Done(since_kept=3), "3 trials without"),
        (Goals(stagnation=9), MiningLoop(max_consecutive_non_improvements=3), Done(since_kept=3), ""),
    ],
)
def test_reached(goals: Goals, loop: MiningLoop, done: Done, words: str) -> None:
    found = reached(goals, loop, done)
    assert words in found
    assert bool(words) == bool(found)


@pytest.mark.parametrize(
    ("goals", "done", "cost", "refused"),
    [
        (Goals(stake=5), Done(spent=10**12, staked=10**6), 10**9, False),
        (Goals(stake=5, max_stake=10), Done(staked=5), 0, False),
        (Goals(stake=5, max_stake=10), Done(staked=6), 0, True),
        (Goals(max_spend=1000), Done(spent=600), 400, False),
        (Goals(max_spend=1000), Done(spent=600), 401, True),
    ],
)
def test_affordable(goals: Goals, done: Done, cost: int, refused: bool) -> None:
    assert bool(affordable(goals, done, cost)) is refused


@pytest.mark.parametrize(
    ("goals", "loop", "done", "left"),
    [
        (Goals(), NONE, Done(), None),
        (Goals(max_minutes=2), NONE, Done(seconds=50, all_seconds=500), 70),
        (Goals(max_minutes=2), NONE, Done(seconds=500), 0),
        (Goals(), MiningLoop(max_session_seconds=600), Done(seconds=50, all_seconds=500), 100),
        (Goals(max_minutes=2), MiningLoop(max_session_seconds=600), Done(seconds=50, all_seconds=500), 70),
    ],
)
def test_seconds_left(goals: Goals, loop: MiningLoop, done: Done, left: float | None) -> None:
    assert seconds_left(goals, loop, done) == left
