"""Summary of a session: hand-computed sums, and journals that do not say everything."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from common.text import counted, lasted
from miner.journal.journal import Session
from miner.report import summary
from trainer.judging.runs import ReplayRun

BASE, KEPT, WORSE, THEIRS = "b" * 40, "1" * 40, "2" * 40, "3" * 40


def at(minute: float) -> str:
    return f"2026-01-01T{int(minute) // 60:02d}:{int(minute) % 60:02d}:00Z"


def trial(number: int, commit: str, base: str, minute: int = 0) -> dict[str, Any]:
    return {
        "event": "trial",
        "at": at(minute),
        "number": number,
        "hypothesis": "h",
        "fingerprint": "f",
        "commit": commit,
        "base": base,
    }


def run(number: int, arm: str, value: float | None, minute: int = 0, **more: Any) -> dict[str, Any]:
    plain = {"failure": "" if value else "crash", "detail": "", "seconds": 60.0, "memory_mb": None, "log": "logs/x"}
    return {"event": "run", "at": at(minute), "number": number, "arm": arm, "val_bpb": value, **plain, **more}


def decision(number: int, word: str, delta: float | None, **more: Any) -> dict[str, Any]:
    return {"event": "decision", "at": at(0), "number": number, "decision": word, "delta": delta, **more}


def session(*events: dict[str, Any]) -> Session:
    made = Session()
    for event in events:
        made.apply(event)
    return made


OLD = (
    trial(0, BASE, BASE),
    run(0, "incumbent", 2.5),
    run(0, "incumbent", 2.7),
    decision(0, "keep", 0.0),
    trial(1, KEPT, BASE),
    run(1, "candidate", 2.4),
    run(1, "incumbent", 2.6),
    decision(1, "keep", 0.2, low=0.1, high=0.35),
    trial(2, WORSE, KEPT),
    run(2, "incumbent", 2.5),
    run(2, "candidate", None),
    decision(2, "crash", None),
)


def test_levels_gain_and_steps() -> None:
    found = summary.summarize(session(*OLD))
    assert (found.finished, found.kept, found.discarded, found.crashed, found.runs) == (2, 1, 0, 1, 6)
    assert found.baseline == pytest.approx(2.6)  # all three of its runs
    assert found.best == pytest.approx(2.45)  # as a candidate and as the incumbent since
    assert found.gain == pytest.approx(0.2)
    assert [(step.since, step.commit) for step in found.steps] == [(0.0, BASE), (1.0, KEPT)]
    # pooled: (0.02 + 0.005) of 2 + 1 degrees of freedom
    assert found.noise == pytest.approx(math.sqrt(0.025 / 3))
    assert found.freedom == 3
    assert found.per_hour == pytest.approx(0.2 / 0.1)


def test_what_a_confirming_test_disproves_is_no_gain() -> None:
    more = (trial(3, WORSE, KEPT), run(3, "candidate", 2.3), decision(3, "keep", 0.1))
    about = {"at": at(9), "trial": 3, "commit": WORSE, "seed": 1, "holdout_seed": "", "noise": {}}
    numbers = {
        "passed": False,
        "reason": "",
        "delta": -0.01,
        "low": None,
        "high": None,
        "p": None,
        "holdout_delta": None,
    }
    for against, gain, last in ((BASE, 0.0, BASE), (KEPT, 0.2, KEPT)):
        confirmed = {"event": "confirming", **about, "against": against}, {"event": "confirmed", "at": at(9), **numbers}
        found = summary.summarize(session(*OLD, *more, *confirmed))
        assert found.gain == pytest.approx(gain)
        assert found.steps[-1].commit == last
    assert summary.summarize(session(*OLD, *more)).gain == pytest.approx(0.3)


def test_a_points_interval_is_that_of_its_delta() -> None:
    point = summary.summarize(session(*OLD)).points[1]
    assert (point.value, point.runs) == (2.4, (2.4,))
    assert [point.low, point.high] == pytest.approx([2.4 - 0.15, 2.4 + 0.1])
    baseline, _, crashed = summary.summarize(session(*OLD)).points
    assert (baseline.low, baseline.runs) == (None, (2.5, 2.7))
    assert (crashed.value, crashed.low, crashed.runs) == (None, None, ())


def test_an_old_journal_leaves_unknown_what_it_does_not_say() -> None:
    time = summary.summarize(session(*OLD)).time
    assert (time.training, time.evaluation, time.unsplit, time.failed) == (0, 0, 300, 60)
    assert (time.idle, time.away) == (None, None)
    assert summary.summarize(session(*OLD), budget=45.0).time.training == 225


def test_somebody_elses_code_is_an_incumbent_once_it_ran() -> None:
    frontier = {
        "event": "frontier",
        "at": at(9),
        "trial": 2,
        "commit": THEIRS,
        "code_hash": "c",
        "metric": "2.3",
        "miner": "m",
        "own": False,
    }
    unmeasured = session(*OLD, frontier)
    assert [step.commit for step in summary.incumbents(unmeasured)] == [BASE, KEPT]
    measured = session(*OLD, frontier, trial(3, "4" * 40, THEIRS), run(3, "incumbent", 2.3))
    assert [(s.since, s.level) for s in summary.incumbents(measured)][-1] == (2.5, 2.3)


def test_time_of_segments() -> None:
    """Ten minutes that ended, then a start killed after its run's end at minute 33."""
    curve = [[10.0, 4.0], [40.0, 3.0]]
    made = session(
        {"event": "begin", "at": at(0)},
        trial(0, BASE, BASE, 1),
        run(0, "incumbent", 2.5, 3, curve=curve),
        run(0, "incumbent", None, 5, failure="stopped"),
        run(0, "incumbent", None, 7, failure="unfit"),
        {"event": "end", "at": at(10), "reason": "limit", "seconds": 600.0},
        {"event": "begin", "at": at(30)},
        run(0, "incumbent", 2.5, 33, curve=curve),
        {"event": "begin", "at": at(60)},
    )
    found = summary.summarize(made)
    time = found.time
    assert (time.training, time.evaluation, time.stopped, time.unfit, time.failed) == (80, 40, 60, 60, 0)
    assert time.idle == 600 - 3 * 60 + 3 * 60 - 60
    assert time.away == 20 * 60 + 27 * 60
    assert found.killed == 2
    assert summary.summarize(made, running=True).killed == 1


def test_runs_side_by_side_keep_the_machine_busy_once() -> None:
    """Ten minutes: two runs at once, a third that began beside them, and one alone; another machine's count in full."""
    made = session(
        {"event": "begin", "at": at(0)},
        trial(0, BASE, BASE, 1),
        {**run(0, "incumbent", 2.5, 3), "seconds": 30.0},
        run(0, "incumbent", 2.5, 3),
        {**run(0, "incumbent", 2.5, 4), "seconds": 90.0},
        run(0, "incumbent", 2.5, 6),
        {"event": "end", "at": at(10), "reason": "limit", "seconds": 600.0},
    )
    time = summary.summarize(made).time
    assert (time.running, time.idle) == (240, 600 - 120 - 60)
    elsewhere = (
        {"event": "begin", "at": at(0)},
        trial(0, BASE, BASE, 1),
        {**run(0, "incumbent", 2.5, 3), "machine": "rack-1"},
    )
    assert summary.summarize(session(*elsewhere)).time.idle == 180 - 60


def test_a_clock_that_is_set_back_makes_no_machine_busier_than_its_runs() -> None:
    runs = [run(0, "incumbent", 2.5, minute) for minute in (120, 60, 60, 61)]  # by an hour, then two at once and one
    made = session({"event": "begin", "at": at(119)}, trial(0, BASE, BASE, 119), *runs)
    assert made.segments[0].busy == 180


def end(minute: float, reason: str, seconds: float) -> dict[str, Any]:
    return {"event": "end", "at": at(minute), "reason": reason, "seconds": seconds}


def test_what_follows_the_last_event_of_an_interrupted_trial_was_a_run() -> None:
    """Ten minutes with a run of one, then four minutes into the next: Ctrl-C, or the end of a session."""
    begun = ({"event": "begin", "at": at(0)}, trial(0, BASE, BASE, 1))
    ran = run(0, "incumbent", 2.5, 6)
    time = summary.time_split(session(*begun, ran, end(10, "interrupted", 600.0)), 45.0)
    assert (time.training, time.evaluation, time.interrupted, time.idle) == (45, 15, 240, 300)
    assert (time.running, time.candidates) == (300, 0)
    for others in ((ran, end(10, "limit", 600.0)), (ran, decision(0, "keep", 0.0), end(10, "interrupted", 600.0))):
        assert summary.time_split(session(*begun, *others)).interrupted == 0  # it ended itself, or between trials
    known = summary.time_split(session(*begun, end(10, "interrupted", 600.0), begun[0] | {"at": at(20)}))
    assert (known.interrupted, known.idle, known.away) == (540, 60, 600)
    killed = summary.time_split(session(*begun, ran, begun[0] | {"at": at(20)}))
    assert (killed.interrupted, killed.idle) == (0, 300)  # when it was killed is not known
    assert summary.time_split(session(*OLD)).interrupted is None


def test_an_interrupted_confirming_test_was_a_run() -> None:
    about = {"at": at(5), "trial": 0, "commit": KEPT, "seed": 1, "holdout_seed": "", "noise": {}, "against": BASE}
    begun = ({"event": "begin", "at": at(0)}, {"event": "confirming", **about})
    assert summary.time_split(session(*begun, end(10, "interrupted", 600.0))).interrupted == 300
    numbers = {"passed": True, "reason": "", "delta": 0.1, "low": None, "high": None, "p": None, "holdout_delta": None}
    over = {"event": "confirmed", "at": at(6), **numbers}
    assert summary.time_split(session(*begun, over, end(10, "interrupted", 600.0))).interrupted == 0
    run = ReplayRun("candidate", 2.5, None, None, 60.0, "", "", "", None, None, None)
    ran = {"event": "confirming_run", "at": at(6), "run": run.as_json()}
    time = summary.time_split(session(*begun, ran, end(10, "interrupted", 600.0)))
    assert (time.confirming, time.interrupted, time.idle) == (60, 240, 300)
    assert time.candidates == 60
    assert time.running == 300
    killed = summary.time_split(session(*begun, ran, begun[0] | {"at": at(20)}))
    assert (killed.confirming, killed.idle, killed.away) == (60, 300, 840)  # each minute is counted once


def test_an_empty_session() -> None:
    found = summary.summarize(Session())
    assert (found.baseline, found.best, found.noise, found.per_hour, found.points) == (None, None, None, None, ())
    assert found.as_json()["machine_seconds"] == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59, "59 s"), (3599, "60 min"), (7200, "2 h"), (36_500, "10.1 h"), (3 * 86400, "3 days")],
)
def test_words_for_lengths_and_counts(seconds: float, words: str) -> None:
    assert lasted(seconds) == words
    assert [counted(number, "run") for number in (0, 1, 2, 1000)] == ["0 runs", "1 run", "2 runs", "1,000 runs"]


@pytest.mark.parametrize(
    ("joules", "metered", "gain", "words"),
    [
        (0.0, 0, 0.2, ""),
        (3_600_000.0, 4, 0.2, "1.00 kWh, 250.0 Wh a run, +0.2000 gained per kWh"),
        (36_000.0, 3, 0.2, "10.0 Wh in 3 of 4 runs"),  # what was gained by the others is not theirs
    ],
)
def test_energy_is_told_where_it_was_measured(joules: float, metered: int, gain: float, words: str) -> None:
    found = replace(summary.totals(Session()), runs=4, joules=joules, metered=metered, gain=gain)
    assert found.energy() == words
    assert found.as_json()["gain_per_kwh"] == (0.2 if metered == 4 else None)
