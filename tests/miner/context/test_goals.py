"""When a session ends and what it may stake, as tables."""

from __future__ import annotations

import pytest

from miner.context.goals import Goals, Progress, affordable, reached, seconds_left
from trainer.project.protocol import MiningLoop

NONE = MiningLoop()


@pytest.mark.parametrize(
    ("goals", "loop", "done", "words"),
    [
        (Goals(), NONE, Progress(trials=10**6, seconds=1e9, since_kept=10**6), ""),
        (Goals(), NONE, Progress(submissions=1), "submitted"),
        (Goals(submissions=0), NONE, Progress(submissions=9), ""),
        (Goals(submissions=2), NONE, Progress(submissions=1), ""),
        (Goals(max_trials=3), NONE, Progress(trials=2, all_trials=50), ""),
        (Goals(max_trials=3), NONE, Progress(trials=3), "--max-trials 3"),
        (Goals(max_minutes=2), NONE, Progress(seconds=119.9, all_seconds=1e6), ""),
        (Goals(max_minutes=2), NONE, Progress(seconds=120), "--max-minutes 2"),
        (Goals(stagnation=5), NONE, Progress(since_kept=5), "5 trials without"),
        # The protocol's limits count the whole session and give way to a flag.
        (Goals(), MiningLoop(max_trials=4), Progress(trials=1, all_trials=4), "protocol's limit of 4 trials"),
        (Goals(max_trials=9), MiningLoop(max_trials=4), Progress(trials=1, all_trials=4), ""),
        (Goals(), MiningLoop(max_session_seconds=600), Progress(seconds=1, all_seconds=600), "10 minutes"),
        (Goals(max_minutes=60), MiningLoop(max_session_seconds=600), Progress(seconds=1, all_seconds=600), ""),
        (Goals(), MiningLoop(max_consecutive_non_improvements=3), Progress(since_kept=3), "3 trials without"),
        (Goals(stagnation=9), MiningLoop(max_consecutive_non_improvements=3), Progress(since_kept=3), ""),
    ],
)
def test_reached(goals: Goals, loop: MiningLoop, done: Progress, words: str) -> None:
    found = reached(goals, loop, done)
    assert words in found
    assert bool(words) == bool(found)


@pytest.mark.parametrize(
    ("goals", "spent", "staked", "cost", "refused"),
    [
        (Goals(stake=5), 10**12, 10**6, 10**9, False),
        (Goals(stake=5, max_stake=10), 0, 5, 0, False),
        (Goals(stake=5, max_stake=10), 0, 6, 0, True),
        (Goals(max_spend=1000), 600, 0, 400, False),
        (Goals(max_spend=1000), 600, 0, 401, True),
    ],
)
def test_affordable(goals: Goals, spent: int, staked: int, cost: int, refused: bool) -> None:
    assert bool(affordable(goals, spent=spent, staked=staked, cost=cost)) is refused


def test_amounts_are_in_the_unit_that_the_option_takes() -> None:
    said = affordable(Goals(max_spend=50_000_000), spent=49_000_000, staked=0, cost=2_000_000)
    assert said == "0.049 SOL are spent, this would cost 0.002 SOL more; --max-spend allows 0.05 SOL"


@pytest.mark.parametrize(
    ("goals", "loop", "done", "left"),
    [
        (Goals(), NONE, Progress(), None),
        (Goals(max_minutes=2), NONE, Progress(seconds=50, all_seconds=500), 70),
        (Goals(max_minutes=2), NONE, Progress(seconds=500), 0),
        (Goals(), MiningLoop(max_session_seconds=600), Progress(seconds=50, all_seconds=500), 100),
        (Goals(max_minutes=2), MiningLoop(max_session_seconds=600), Progress(seconds=50, all_seconds=500), 70),
    ],
)
def test_seconds_left(goals: Goals, loop: MiningLoop, done: Progress, left: float | None) -> None:
    assert seconds_left(goals, loop, done) == left
