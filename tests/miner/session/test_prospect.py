"""What a session may expect: the arithmetic as a table, and which sessions count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from miner.context.goals import Goals
from miner.journal import about
from miner.journal.journal import Session
from miner.proposers.choice import Proposing
from miner.report import summary
from miner.report.summary import Time, Totals
from miner.session import prospect, start
from tests.miner import sessions


def totals(finished: int, kept: int, seconds: float, confirming: float = 0.0) -> Totals:
    time = Time(training=seconds - confirming, confirming=confirming)
    return replace(summary.totals(Session()), finished=finished, kept=kept, time=time)


@pytest.mark.parametrize(
    ("known", "minutes", "expected"),
    [
        ([], None, ""),
        ([totals(0, 0, 500.0)], None, ""),
        ([totals(2, 1, 500.0)], None, ""),  # too few
        ([totals(3, 0, 0.0)], None, ""),
        (
            [totals(20, 1, 20 * 780.0), totals(8, 0, 8 * 780.0 + 600, 600), totals(0, 0, 60.0)],
            None,
            "a trial takes about 13 min (2 sessions here, 28 trials, 1 kept); at that rate, expect 1 keep in 6.1 h",
        ),
        (
            [totals(10, 0, 400.0)],
            None,
            "a trial takes about 40 s (1 session here, 10 trials, 0 kept); none was kept so far, so there is no rate "
            "to expect one at",
        ),
        (
            [totals(10, 5, 400.0)],
            60.0,
            "a trial takes about 40 s (1 session here, 10 trials, 5 kept); at that rate, expect 1 keep in 80 s; "
            "60 min are enough for about 90 trials",
        ),
        (
            [totals(10, 1, 10 * 50_000.0)],
            5.0,
            "a trial takes about 13.9 h (1 session here, 10 trials, 1 kept); at that rate, expect 1 keep in 6 days; "
            "5 min may be too short for one",
        ),
    ],
)
def test_words(known: list[Totals], minutes: float | None, expected: str) -> None:
    assert prospect.words(prospect.prospect(known), minutes) == expected


def test_only_sessions_of_the_same_kind_count(night: Path) -> None:
    here = about.load(night / "work" / sessions.NAME)
    (found,) = prospect.similar(night, here)
    assert found.finished == 43
    for other in (replace(here, hardware_class="m4"), replace(here, budget=60.0), replace(here, bundle_id="x")):
        assert list(prospect.similar(night, other)) == []
    assert list(prospect.similar(night, about.About())) == []


def test_it_is_said_before_a_session_begins(night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    context: Any = SimpleNamespace(
        connection=SimpleNamespace(home=night, settings={"max_spend": None}),
        dashboard=SimpleNamespace(say=said.append),
        folder=night / "work" / sessions.NAME,
        session=SimpleNamespace(seed=1),
        task=SimpleNamespace(files={}),
        bench=None,
        trust_harness=False,
    )
    monkeypatch.setattr(start, "Miner", lambda *_, **__: None)
    start.miner(context, Goals(max_minutes=60), Proposing())
    assert len(said) == 1
    assert said[0].startswith("a trial takes about ")
    assert "43 trials" in said[0]
    context.folder = night / "work" / "a-new-one"
    start.miner(context, Goals(), Proposing())
    assert len(said) == 1
