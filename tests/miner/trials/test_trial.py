"""Trials on this machine with a bench that is written down: what runs when, what is on record, what is learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from miner.journal import journal
from miner.journal.journal import TrialRecord, read
from miner.trials import history, trial
from miner.trials.decision import DROPPED, LEFT, SAME
from miner.trials.trial import LocalTrials
from tests.miner.fakes import LOG, SIGMA, SOURCE, Fake
from trainer.errors import STOPPED, UNFIT, EnvironmentNotReady
from trainer.judging.runs import ReplayRun
from trainer.judging.trial import MAX_UNFIT, Trial
from trainer.statistics.comparison import Answer, Arm, Decision
from trainer.statistics.mining import BASELINE_RUNS, STALE_TRIALS
from trainer.statistics.noise import NoiseRecord

BETTER, WORSE, BROKEN = (SOURCE.replace("0.1", rate) for rate in ("0.2", "0.3", "0.4"))
TRUE = {SOURCE: 2.5, BETTER: 2.3, WORSE: 2.7, BROKEN: None}


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """A session whose baseline is begun and not measured."""
    made = Fake(tmp_path, TRUE)
    made.trial(SOURCE)
    return made


@pytest.fixture
def aged(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run of the incumbent is recent: in these tests no time passes."""
    monkeypatch.setattr(history, "recent", lambda *_: False)


def replayed(arm: str, value: float | None) -> dict[str, Any]:
    """A run of a confirming test as the journal has it."""
    failure = "" if value is not None else "crash"
    return ReplayRun(arm, value, value, 9.0, 10.0, failure, failure, "aa", None, None, None).as_json()


def arms(fake: Fake) -> list[str]:
    return [arm.value for _, arm in fake.machine.ran]


def test_the_baseline_is_measured_once_and_kept(fake: Fake) -> None:
    trials = LocalTrials(fake.context)
    trials.baseline()
    baseline = fake.context.session.trials[0]
    assert (baseline.kept, baseline.delta, len(baseline.runs)) == (True, 0.0, BASELINE_RUNS)
    trials.baseline()
    assert arms(fake) == ["incumbent"] * BASELINE_RUNS


@pytest.mark.parametrize(("gpus", "runs"), [((), 3), (("0", "1"), 4), (("0", "1", "2"), 3), (tuple("01234567"), 8)])
def test_a_baseline_leaves_no_gpu_idle(gpus: tuple[str, ...], runs: int, fake: Fake) -> None:
    fake.machine.gpus = gpus
    LocalTrials(fake.context).baseline()
    assert arms(fake) == ["incumbent"] * runs


def test_a_first_run_that_diverges_costs_three_more_and_hides_no_gain(fake: Fake) -> None:
    fake.machine.record = NoiseRecord()
    usual = fake.machine.values
    fake.values = {**TRUE, BETTER: 2.45}
    fake.machine.values = lambda source, arm: usual(source, arm) if fake.machine.ran[1:] else 3.1
    trials = LocalTrials(fake.context)
    trials.baseline()
    assert arms(fake) == ["incumbent"] * 6
    current = fake.trial(BETTER)
    trials.judge([current])
    assert current.kept
    assert len(current.runs) <= 4
    assert 3.1 not in fake.machine.learnt[-1][1]


def test_a_baseline_that_does_not_run_ends_the_session(fake: Fake) -> None:
    fake.values = {SOURCE: None}
    with pytest.raises(EnvironmentNotReady, match="incumbent does not run"):
        LocalTrials(fake.context).baseline()
    assert fake.events()[-1] == "run"  # on record all the same


@pytest.mark.parametrize(
    ("source", "decision", "head"), [(BETTER, "keep", BETTER), (WORSE, "discard", SOURCE), (BROKEN, "crash", SOURCE)]
)
def test_a_trial_is_decided_and_acted_on(source: str, decision: str, head: str, fake: Fake) -> None:
    trials = LocalTrials(fake.context)
    trials.baseline()
    current = fake.trial(source)
    trials.judge([current])
    assert current.decision == decision
    assert fake.tree.sources[fake.tree.head()] == head
    assert fake.context.session.head == fake.tree.head()
    logs = [fake.context.folder / run.log for run in current.runs]
    assert {path.read_bytes() for path in logs} == {LOG}
    assert len(set(logs)) == len(current.runs)
    assert (fake.context.folder / "results.tsv").read_text().splitlines()[-1].split("\t")[3] == decision
    assert read(fake.journal.path) == fake.context.session


def test_noise_is_learnt_from_the_incumbent_only_once_it_is_replaced(fake: Fake) -> None:
    trials = LocalTrials(fake.context)
    trials.baseline()
    trials.judge([fake.trial(WORSE)])
    trials.judge([fake.trial(BETTER)])
    lost, won = fake.machine.learnt
    assert len(lost) == 1
    assert len(won) == 2
    assert len(won[1]) >= BASELINE_RUNS


def test_an_interrupted_trial_keeps_its_runs(fake: Fake) -> None:
    trials = LocalTrials(fake.context)
    trials.baseline()
    current = fake.trial(BETTER)
    fake.run(Arm.CANDIDATE, 2.3)
    made = len(fake.machine.ran)
    trials.judge([current])
    assert current.kept
    assert current.runs[0].val_bpb == 2.3
    assert len(fake.machine.ran) - made == len(current.runs) - 1


def test_a_trial_that_was_another_machines_is_this_ones_now(fake: Fake) -> None:
    trials = LocalTrials(fake.context)
    trials.baseline()
    current = fake.trial(BETTER)
    fake.journal.append("dispatched", number=1, machine="rack-1")
    trials.judge([current])
    assert (current.machine, current.decision) == ("", "keep")


def test_a_gain_over_an_old_head_is_carried_and_not_kept(fake: Fake) -> None:
    trials = LocalTrials(fake.context)
    trials.baseline()
    current, old = fake.trial(BETTER), fake.tree.head()
    fake.trial(WORSE)
    fake.decide("keep", 0.1)  # meanwhile, by another machine
    trials.judge([current])
    assert (current.decision, current.carry, current.base) == ("discard", True, old)
    assert fake.context.session.carried is current


@pytest.mark.parametrize(("value", "carry"), [(2.47, True), (2.51, False), (None, False)])
def test_an_open_trial_costs_no_run_once_its_incumbent_is_replaced(
    value: float | None, carry: bool, fake: Fake
) -> None:
    """What looked better is tried on the new one, which is what a run against the old one could have led to at best."""
    trials = LocalTrials(fake.context)
    trials.baseline()
    fake.machine.record = NoiseRecord()  # so that one run decides nothing
    current = fake.trial(BETTER)
    fake.run(Arm.CANDIDATE, value, failure="" if value else "crash")
    fake.trial(BROKEN)
    fake.decide("keep", 0.1)
    fake.machine.ran.clear()
    trials.judge([current])
    assert (current.decision, current.carry, fake.machine.ran) == ("discard", carry, [])
    assert current.reason == (LEFT if carry else DROPPED)
    assert (fake.context.session.carried is current) == carry
    assert read(fake.journal.path) == fake.context.session


def test_what_somebody_else_found_as_well_is_not_tried_against_itself(fake: Fake) -> None:
    trials = LocalTrials(fake.context)
    trials.baseline()
    current = fake.trial(BETTER)
    best = {"code_hash": "bb" * 32, "metric": "2.47", "miner": "m", "own": False}
    fake.journal.append("frontier", trial=1, commit=fake.tree.adopt(BETTER, "best"), adopted=True, **best)
    trials.judge([current])
    assert (current.decision, current.carry, current.reason) == ("discard", False, SAME)
    assert fake.context.session.carried is None


@pytest.mark.parametrize(
    ("ago", "runs"),
    [
        (25, [Arm.CANDIDATE]),
        (45, [Arm.CANDIDATE, Arm.INCUMBENT]),
        (-86400, [Arm.CANDIDATE, Arm.INCUMBENT]),  # the clock was set back
    ],
)
def test_a_run_of_the_incumbent_is_fresh_for_a_while(
    ago: float, runs: list[Arm], fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For three times the 10 s that it took, until the candidate's first run begins."""
    fake.values = {**TRUE, BETTER: 2.47}
    LocalTrials(fake.context).baseline()
    ended = journal.seconds_of(fake.context.session.trials[0].runs[-1].at)
    assert ended is not None
    monkeypatch.setattr(trial, "now", lambda: journal.written(ended + ago + 10))
    current = fake.trial(BETTER)
    LocalTrials(fake.context).judge([current])
    assert ([run.arm for run in current.runs], current.kept) == (runs, True)


@pytest.mark.parametrize(("cut", "known"), [(0.0, True), (0.05, True), (0.06, False), (None, False)])
def test_the_runs_that_confirmed_an_incumbent_are_its_history(cut: float | None, known: bool, fake: Fake) -> None:
    """Not those made while a trial was open, nor where much of the text was missing; not those of the other arm."""
    LocalTrials(fake.context).baseline()
    kept, beside = fake.trial(BETTER), fake.trial(WORSE)
    fake.journal.append("decision", number=1, decision="keep", delta=0.2)
    about = {"seed": 1, "holdout_seed": "00", "noise": {}, "against": kept.base}
    fake.journal.append("confirming", trial=1, commit=kept.commit, **about)
    runs = [replayed("candidate", value) for value in (2.31, None, 2.29)] + [replayed("incumbent", 2.5)]
    for run in runs:
        fake.journal.append("confirming_run", run=run)
    session, during = fake.context.session, fake.trial(BROKEN)
    result = dict.fromkeys(("delta", "low", "high", "p", "holdout_delta")) | ({} if cut is None else {"cut": cut})
    fake.journal.append("confirmed", passed=True, reason="", **result)
    fake.tree.keep(kept.commit)
    after = fake.trial(BROKEN)
    assert (during.tests, after.tests, after.base) == (0, 1, kept.commit)
    assert history.incumbent_values(session, after) == ([2.31, 2.29] if known else [])
    assert history.recent(session, after) == known
    assert history.incumbent_values(session, after, "rack-1") == []
    assert 2.31 not in history.incumbent_values(session, beside)
    again = read(fake.journal.path)
    assert history.incumbent_values(again, again.trials[-1]) == history.incumbent_values(session, after)


def test_an_incumbent_that_fails_in_a_trial_ends_the_session(fake: Fake, aged: None) -> None:
    trials = LocalTrials(fake.context)
    trials.baseline()
    fake.values = {SOURCE: None, BETTER: 2.49}
    with pytest.raises(EnvironmentNotReady, match="no longer runs on this machine"):
        trials.judge([fake.trial(BETTER)])
    assert not fake.context.session.trials[1].decision


def test_the_incumbents_history_is_not_used_alone_when_it_is_stale(fake: Fake, aged: None) -> None:
    """After so many trials without a run of the incumbent, one comes before the candidate's first is judged."""
    trials = LocalTrials(fake.context)
    trials.baseline()
    for _ in range(STALE_TRIALS - 1):
        fake.trial(WORSE)
        fake.run(Arm.CANDIDATE, 2.7)
        fake.decide("discard", -0.2)
    session = fake.context.session
    current = fake.trial(WORSE)
    assert not history.stale(session, current)  # the baseline is among the last trials
    trials.judge([current])
    assert [run.arm for run in current.runs] == [Arm.CANDIDATE]
    current = fake.trial(WORSE)
    assert history.stale(session, current)
    trials.judge([current])
    assert {run.arm for run in current.runs} == set(Arm)
    assert not history.stale(session, fake.trial(WORSE))


def test_what_another_machine_measured_is_no_history_here(fake: Fake) -> None:
    LocalTrials(fake.context).baseline()
    fake.trial(WORSE)
    fake.run(Arm.INCUMBENT, 9.9, machine="rack-1")
    fake.decide("discard", -0.1)
    session, current = fake.context.session, fake.trial(BETTER)
    here, there = (history.incumbent_values(session, current, machine) for machine in ("", "rack-1"))
    assert (len(here), there) == (BASELINE_RUNS, [9.9])


def test_candidates_are_judged_side_by_side_where_there_is_room(fake: Fake, aged: None) -> None:
    """The loser goes after its one run; the next run of what may be a gain has the next candidate's first one beside
    it."""
    fake.machine.gpus = ("0", "1")
    fake.machine.values = lambda source, _: {**TRUE, BETTER: 2.493}[source] or "crash"  # whichever thread is first
    trials = LocalTrials(fake.context)
    trials.baseline()
    fake.machine.ran.clear()
    left = [WORSE, BROKEN, WORSE]
    unclear, begin = fake.trial(BETTER), lambda: fake.trial(left.pop(0))
    trials.judge([unclear], begin)
    lost = fake.context.session.trials[-1]
    assert [unclear.decision, lost.decision, len(left)] == ["", "discard", 2]
    assert set(fake.machine.ran) == {(BETTER, Arm.CANDIDATE), (WORSE, Arm.CANDIDATE)}
    fake.machine.ran.clear()
    trials.judge([unclear], begin)
    assert len(left) == 1
    assert set(fake.machine.ran[:2]) == {(SOURCE, Arm.INCUMBENT), (BROKEN, Arm.CANDIDATE)}
    assert read(fake.journal.path) == fake.context.session


def test_what_is_likely_to_be_kept_has_the_room_to_itself(fake: Fake, aged: None) -> None:
    """What was begun beside it would be measured against an incumbent that is about to be replaced."""
    fake.machine.gpus = ("0", "1")
    fake.values = {**TRUE, BETTER: 2.45}  # a gain that is not obvious
    trials = LocalTrials(fake.context)
    trials.baseline()
    won, lost = fake.trial(BETTER), fake.trial(WORSE)
    trials.judge([won, lost])
    assert [won.decision, lost.decision] == ["", "discard"]
    fake.machine.ran.clear()
    trials.judge([won], lambda: pytest.fail("begun beside a winner"))
    assert won.kept
    assert set(fake.machine.ran) == {(SOURCE, Arm.INCUMBENT), (BETTER, Arm.CANDIDATE)}
    assert read(fake.journal.path) == fake.context.session


def test_what_failed_beside_a_winner_is_not_carried(fake: Fake, aged: None) -> None:
    fake.machine.gpus = ("0", "1")
    fake.values = {**TRUE, BETTER: 2.45}
    trials = LocalTrials(fake.context)
    trials.baseline()
    won = fake.trial(BETTER)
    trials.judge([won, fake.trial(WORSE)])
    fake.machine.ran.clear()
    broken = fake.trial(BROKEN)
    trials.judge([won, broken])
    assert [won.decision, broken.decision] == ["keep", ""]
    assert set(fake.machine.ran) == {(SOURCE, Arm.INCUMBENT), (BROKEN, Arm.CANDIDATE)}
    trials.judge([broken])
    assert (broken.decision, broken.carry) == ("discard", False)
    assert read(fake.journal.path) == fake.context.session


def test_no_candidate_is_begun_that_has_no_room(fake: Fake) -> None:
    """Both runs until the first look are this one's, as long as little is known of the noise."""
    fake.machine.record = NoiseRecord()
    LocalTrials(fake.context).baseline()
    fake.machine.gpus = ("0", "1")
    trials = LocalTrials(fake.context)
    trials.judge([fake.trial(WORSE)], lambda: pytest.fail("begun without room"))
    assert {run.arm for run in fake.context.session.trials[1].runs} == set(Arm)


def test_of_two_winners_one_is_kept_and_the_other_measured_against_it(fake: Fake) -> None:
    fake.machine.gpus = ("0", "1")
    fake.values = {**TRUE, WORSE: 2.2}
    trials = LocalTrials(fake.context)
    trials.baseline()
    first, second = fake.trial(BETTER), fake.trial(WORSE)
    trials.judge([first, second])
    assert (first.decision, second.decision, second.carry) == ("keep", "discard", True)
    assert fake.context.session.carried is second


def test_what_ends_beside_a_trial_changes_none_of_its_looks(fake: Fake) -> None:
    """Its history, policy and noise are those of its beginning, in this life of the session and the next."""
    fake.machine.gpus = ("0", "1")
    trials = LocalTrials(fake.context)
    trials.baseline()
    noise = fake.machine.record
    session, other, current = fake.context.session, fake.trial(WORSE), fake.trial(BETTER)
    for mine, after in ((other, current), (current, other)):
        assert (mine.number in after.beside) == (mine.number < after.number)
    before = history.incumbent_values(session, current), history.policy(session, current)
    fake.journal.append("run", **{**session.trials[0].runs[0].encode(), "log": "", "val_bpb": 2.4}, number=1)
    fake.journal.append("decision", number=1, decision="discard", delta=-0.1)
    fake.machine.record = NoiseRecord(1.0, 50.0)
    assert (history.incumbent_values(session, current), history.policy(session, current)) == before
    assert NoiseRecord.from_json(read(fake.journal.path).trials[2].noise) == noise
    later = fake.trial(BROKEN)
    assert history.incumbent_values(session, later) == [*before[0], 2.4]


@pytest.mark.parametrize(
    ("trials", "room", "expected"),
    [
        (["c"], 2, ["0c"]),
        (["c.ic"], 1, ["0c"]),
        (["c.ic"], 2, ["0c", "0i"]),  # a run beyond the next look, rather than none
        (["c.ic", "c.i"], 2, ["0c", "1c"]),
        (["ic.ic", "c.i"], 2, ["0i", "0c"]),  # whose look is near is not held up
        (["i.c", "c.", "ic.c"], 3, ["0i", "1c", "2i"]),
        (["c.i", "c."], 4, ["0c", "1c", "0i"]),
    ],
)
def test_runs_are_made_in_turn(trials: list[str], room: int, expected: list[str]) -> None:
    arms_of, stand = {"c": Arm.CANDIDATE, "i": Arm.INCUMBENT}, list[tuple[TrialRecord, Trial]]()
    for number, runs in enumerate(trials):
        ahead = tuple(arms_of[arm] for arm in runs if arm != ".")
        decision = Decision(Answer.CONTINUE, None, ahead, len(runs.partition(".")[0]))
        stand.append((TrialRecord(number, "", "", "", ""), Trial((), decision)))
    assert [f"{current.number}{arm.value[0]}" for current, arm in trial.in_turn(stand, room)] == expected


@pytest.mark.parametrize(
    ("prune", "source", "may"),
    [
        (True, SOURCE.replace("0.1", "0.5"), True),
        (False, SOURCE.replace("0.1", "0.5"), False),
        (True, "loss = 1.0\nprint(loss / 2)\n" + SOURCE, False),  # what it prints as its loss is another thing
    ],
)
def test_whose_runs_may_be_stopped_by_their_curves(prune: bool, source: str, may: bool, fake: Fake) -> None:
    fake.context.prune = prune
    current = fake.trial(source)
    assert trial.may_prune(fake.context, current) is may


def test_a_machine_that_stays_unfit_ends_the_baseline(fake: Fake) -> None:
    fake.machine.values = lambda source, arm: UNFIT
    with pytest.raises(EnvironmentNotReady, match="This machine is unfit"):
        LocalTrials(fake.context).baseline()
    assert len(fake.context.session.trials[0].runs) == MAX_UNFIT


@pytest.mark.parametrize("failure", [STOPPED, UNFIT])
def test_a_failure_that_is_not_the_scripts_own_is_no_crash(failure: str, fake: Fake) -> None:
    trials = LocalTrials(fake.context)
    trials.baseline()
    fake.machine.values = lambda source, arm: failure if source == BETTER else 2.5
    current = fake.trial(BETTER)
    trials.judge([current])
    assert current.decision == "discard"


def test_a_run_takes_what_runs_took_here(fake: Fake) -> None:
    assert fake.context.usual_seconds() == fake.machine.usual_seconds
    fake.run(Arm.INCUMBENT, 2.5 + SIGMA)
    assert fake.context.usual_seconds() == 10.0
