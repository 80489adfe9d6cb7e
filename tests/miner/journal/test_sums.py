"""What a session keeps as it goes is what its trials add up to, at every event."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import pytest

from miner.journal.journal import Session
from tests.miner import sessions


def test_sums_are_those_of_all_trials_after_each_event(night: Path) -> None:
    session = Session()
    lines = (night / "work" / sessions.NAME / "session.jsonl").read_text().splitlines()
    for place, line in enumerate(lines, 1):
        session.apply(json.loads(line))
        if place > 60 and place % 8 and place < len(lines):  # to add all up takes ever longer
            continue
        sums, trials = session.sums, session.trials
        runs = [(trial.commit_of(run), run) for trial in trials for run in trial.runs]
        values: dict[str, list[float]] = {}
        for commit, run in runs:
            if run.val_bpb is not None and math.isfinite(run.val_bpb):
                values.setdefault(commit, []).append(run.val_bpb)
        assert {commit: level.mean for commit, level in sums.levels.items()} == pytest.approx(
            {commit: statistics.fmean(some) for commit, some in values.items()}
        )
        several = [some for some in values.values() if len(some) > 1]
        assert sums.freedom == sum(len(some) - 1 for some in several)
        squares = math.fsum(statistics.variance(some) * (len(some) - 1) for some in several)
        assert sums.squares == pytest.approx(squares, abs=1e-12)
        assert session.unfinished == [trial for trial in trials if not trial.decision]
        finished = [trial for trial in trials if trial.decision and trial.number]
        assert sums.decisions["keep"] == sum(trial.kept for trial in finished)
        assert sums.gain == pytest.approx(math.fsum(trial.delta or 0.0 for trial in finished if trial.kept))
        places = [place for place, trial in enumerate(finished, 1) if trial.kept]
        assert sums.since_kept == len(finished) - max(places, default=0)
        assert sums.usual == sorted(run.seconds for _, run in runs if not run.failure)
        for commit in values:
            assert sums.involving(commit) == [trial for trial in trials if commit in (trial.commit, trial.base)]
    assert len(session.trials) == 45
