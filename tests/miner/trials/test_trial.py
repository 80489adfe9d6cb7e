"""Trials on this machine with a bench that is written down: what runs when, what is on record, what is learnt."""

from __future__ import annotations

from pathlib import Path

import pytest

from miner.journal.journal import TrialRecord, read
from miner.trials import history, trial
from miner.trials.trial import BASELINE_RUNS, LocalTrials
from tests.miner.fakes import LOG, SIGMA, SOURCE, Fake
from trainer.errors import STOPPED, UNFIT, EnvironmentNotReady
from trainer.judging.trial import MAX_UNFIT
from trainer.statistics.comparison import Arm
from trainer.statistics.mining import STALE_TRIALS
from trainer.statistics.noise import NoiseRecord

BETTER, WORSE, BROKEN = (SOURCE.replace("0.1", rate) for rate in ("0.2", "0.3", "0.4"))
TRUE = {SOURCE: 2.5, BETTER: 2.3, WORSE: 2.7, BROKEN: None}


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """A session whose baseline is begun and not measured."""
    made = Fake(tmp_path, TRUE)
    made.trial(SOURCE)
    return made


def arms(fake: Fake) -> list[str]:
    return [arm.value for _, arm in fake.machine.ran]


def test_the_baseline_is_measured_once_and_kept(fake: Fake) -> None:
    trials = LocalTrials(fake.context)
    trials.baseline()
    baseline = fake.context.session.trials[0]
    assert (baseline.kept, baseline.delta, len(baseline.runs)) == (True, 0.0, BASELINE_RUNS)
    trials.baseline()
    assert arms(fake) == ["incumbent"] * BASELINE_RUNS


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
    assert fake.context.session.carried == current.commit


def test_an_incumbent_that_fails_in_a_trial_ends_the_session(fake: Fake) -> None:
    trials = LocalTrials(fake.context)
    trials.baseline()
    fake.values = {SOURCE: None, BETTER: 2.49}
    with pytest.raises(EnvironmentNotReady, match="no longer runs on this machine"):
        trials.judge([fake.trial(BETTER)])
    assert not fake.context.session.trials[1].decision


def test_the_incumbents_history_is_not_used_alone_when_it_is_stale(fake: Fake) -> None:
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


def test_candidates_are_judged_side_by_side_where_there_is_room(fake: Fake) -> None:
    """The loser goes after its one run; the other's next runs have the new candidate's first one beside them."""
    fake.machine.gpus = ("0", "1")
    fake.values = {**TRUE, BETTER: 2.45}  # a gain that is not obvious
    trials = LocalTrials(fake.context)
    assert trials.room == 2
    trials.baseline()
    fake.machine.ran.clear()
    won, lost = fake.trial(BETTER), fake.trial(WORSE)
    trials.judge([won, lost])
    assert [won.decision, lost.decision] == ["", "discard"]
    assert sorted(fake.machine.ran, key=str) == sorted([(BETTER, Arm.CANDIDATE), (WORSE, Arm.CANDIDATE)], key=str)
    broken = fake.trial(BROKEN)
    trials.judge([won, broken])
    assert [won.decision, broken.decision] == ["keep", ""]
    assert fake.machine.ran[2:4].count((BROKEN, Arm.CANDIDATE)) == 1
    trials.judge([broken])
    assert (broken.decision, broken.carry) == ("crash", False)
    assert read(fake.journal.path) == fake.context.session


def test_of_two_winners_one_is_kept_and_the_other_measured_against_it(fake: Fake) -> None:
    fake.machine.gpus = ("0", "1")
    fake.values = {**TRUE, WORSE: 2.2}
    trials = LocalTrials(fake.context)
    trials.baseline()
    first, second = fake.trial(BETTER), fake.trial(WORSE)
    trials.judge([first, second])
    assert (first.decision, second.decision, second.carry) == ("keep", "discard", True)
    assert fake.context.session.carried == second.commit


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
    ("ahead", "room", "expected"),
    [
        (["c"], 2, ["0c"]),
        (["cic"], 1, ["0c"]),
        (["cic"], 2, ["0c", "0i"]),
        (["ci", "ci"], 2, ["0c", "1c"]),
        (["ci", "c"], 4, ["0c", "1c", "0i"]),
        (["i", "ccc", "c"], 4, ["0i", "1c", "2c", "1c"]),
    ],
)
def test_runs_are_made_in_turn(ahead: list[str], room: int, expected: list[str]) -> None:
    arms_of = {"c": Arm.CANDIDATE, "i": Arm.INCUMBENT}
    records = [TrialRecord(number, "", "", "", "") for number in range(len(ahead))]
    found = trial.in_turn([(records[n], [arms_of[a] for a in some]) for n, some in enumerate(ahead)], room)
    assert [f"{current.number}{arm.value[0]}" for current, arm in found] == expected


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
