"""What goes wrong beside a trial: none of it may cost another trial, or the session, what it has."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from miner.context.goals import Goals
from miner.session import frontier
from miner.session.frontier import FetchedBest
from miner.session.loop import Miner
from miner.trials import history
from miner.trials.trial import LocalTrials
from tests.miner.fakes import SOURCE, Fake, Scripted
from trainer.errors import STOPPED, EnvironmentNotReady, TrainerError
from trainer.statistics.comparison import Arm
from trainer.statistics.noise import NoiseRecord

BETTER, CLOSE, BEST, WORSE = (SOURCE.replace("0.1", f"0.{rate}") for rate in (2, 3, 4, 5))
TRUE = {SOURCE: 2.5, BETTER: 2.3, CLOSE: 2.485, BEST: 2.1, WORSE: 2.7}
EIGHT = tuple("01234567")


@pytest.fixture(autouse=True)
def fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "recent", lambda *_: False)  # here no time passes
    monkeypatch.setattr(frontier, "fetch", lambda *_: FetchedBest("00" * 32, SOURCE, "2.500000", "somebody"))


@pytest.mark.parametrize("failure", [STOPPED, "crash"])
@pytest.mark.parametrize("gpus", [(), ("0", "1", "2", "3"), EIGHT])
def test_a_run_beyond_the_answer_changes_nothing(gpus: tuple[str, ...], failure: str, tmp_path: Path) -> None:
    fake, made = Fake(tmp_path, TRUE), list[str]()
    fake.machine.gpus = gpus

    def value(source: str, _: Arm) -> float | str:
        made.append(source)
        wiggle = 0.002 * (len(made) % 2)
        return failure if made.count(BETTER) > 1 and source == BETTER else TRUE[source] + wiggle

    fake.machine.values = value
    fake.trial(SOURCE)
    trials = LocalTrials(fake.context)
    trials.baseline()
    current = fake.trial(BETTER)
    trials.judge([current])
    assert current.kept


def test_a_session_goes_on_once_its_machine_was_mended(tmp_path: Path) -> None:
    fake, broken = Fake(tmp_path, TRUE, goals=Goals(max_trials=1)), [False]

    def value(source: str, arm: Arm) -> float | str:
        broken[0] |= source == CLOSE
        wiggle = 0.002 * (len(fake.machine.ran) % 2)
        return "crash" if broken == [True] and arm is Arm.INCUMBENT and not mended else TRUE[source] + wiggle

    mended = list[bool]()
    fake.machine.values = value
    with pytest.raises(EnvironmentNotReady, match="no longer runs"):
        Miner(fake.context, Scripted(CLOSE)).run()
    mended.append(True)
    assert Miner(fake.context, Scripted()).run().trials == 1


def test_an_earlier_incumbent_that_fails_does_not_end_the_session(tmp_path: Path) -> None:
    """The head is another one since the trial beside it was kept."""
    fake = Fake(tmp_path, TRUE)
    fake.machine.gpus, fake.machine.record = ("0", "1"), NoiseRecord()
    begun = LocalTrials(fake.context)
    fake.trial(SOURCE)
    begun.baseline()
    trials = [fake.trial(BETTER), fake.trial(CLOSE)]
    fake.machine.values = lambda source, _: "crash" if source == SOURCE else TRUE[source]
    fake.run(Arm.CANDIDATE, 2.485)
    fake.journal.append("decision", number=1, decision="keep", delta=0.2)
    fake.tree.keep(trials[0].commit)
    LocalTrials(fake.context).judge([trials[1]])
    assert (trials[1].decision, trials[1].carry) == ("discard", True)


@pytest.mark.parametrize("gpus", [(), ("0", "1"), EIGHT])
def test_no_more_trials_without_a_gain_than_asked_for(gpus: tuple[str, ...], tmp_path: Path) -> None:
    fake = Fake(tmp_path, TRUE, goals=Goals(stagnation=4))
    fake.machine.gpus = gpus
    assert Miner(fake.context, Scripted(*[WORSE] * 20)).run().trials == 4


def test_a_proposer_that_fails_costs_no_open_trial(tmp_path: Path) -> None:
    fake, asked = Fake(tmp_path, TRUE), list[int]()
    fake.machine.gpus, proposer = ("0", "1"), Scripted(WORSE)
    give = proposer.propose

    def propose(context: object) -> object:
        asked.append(1)
        if len(asked) > 1:
            raise TrainerError("no credit left", "Pay.")
        return give(context)  # type: ignore[arg-type]

    proposer.propose = propose  # type: ignore[method-assign,assignment]
    with pytest.raises(TrainerError, match="no credit left"):
        Miner(fake.context, proposer).run()
    assert fake.context.session.trials[1].decision == "discard"
    assert fake.context.session.unfinished == []


def test_what_was_open_before_there_was_a_cluster_ends_with_the_goals(tmp_path: Path) -> None:
    fake = Fake(tmp_path, TRUE, goals=Goals(max_trials=1))
    fake.trial(SOURCE)
    for value in (2.5, 2.502, 2.498):
        fake.run(Arm.INCUMBENT, value)
    fake.decide("keep", 0.0)
    for number in (1, 2, 3):
        fake.trial(WORSE)
        fake.run(Arm.CANDIDATE, 2.7, number=number)
    cluster = SimpleNamespace(close=lambda: None, idle=list, opening=lambda: False)
    assert Miner(fake.context, Scripted(), cluster=cast("Any", cluster)).run().trials == 1
    assert [trial.number for trial in fake.context.session.unfinished] == [2, 3]
