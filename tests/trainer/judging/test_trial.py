"""The loop around the sequential test, on scripted runs: what it asks for, when it stops, how it resumes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.errors import UNFIT, EnvironmentNotReady
from trainer.judging.trial import MAX_FAILURES, MAX_UNFIT, Trial, compare, until_fit
from trainer.measurement.run import Run
from trainer.statistics.comparison import Answer, Arm
from trainer.statistics.error_rates import ComparisonPolicy
from trainer.statistics.mining import MiningPolicy
from trainer.statistics.noise import NoiseRecord

QUIET = NoiseRecord(20 * 0.01**2, 20.0)
LIMIT = 2 * (ComparisonPolicy().max_candidate_runs + 5) + 2 * MAX_FAILURES


def run(arm: Arm, value: float | None, failure: str = "crash") -> Run:
    return Run(arm, value, "" if value is not None else failure, "", 1.0, None, b"")


class Script:
    """An `execute` that gives each arm's next value and counts what was asked."""

    def __init__(self, incumbent: Iterable[float | None], candidate: Iterable[float | None]) -> None:
        self._left: dict[Arm, Iterator[float | None]] = {Arm.INCUMBENT: iter(incumbent), Arm.CANDIDATE: iter(candidate)}
        self.asked: list[Arm] = []
        self.room = 1  # runs made at once

    def __call__(self, ahead: Sequence[Arm]) -> list[Run]:
        arms = ahead[: self.room]
        self.asked += arms
        assert len(self.asked) <= LIMIT
        return [run(arm, next(self._left[arm])) for arm in arms]


def around(mean: float, seed: int = 0) -> Iterator[float]:
    rng = random.Random(seed)
    while True:
        yield rng.gauss(mean, 0.01)


def judge(execute: Callable[[Sequence[Arm]], Sequence[Run]], **changes: object) -> Trial:
    given: dict[str, object] = {"history": [], "noise": QUIET, "policy": ComparisonPolicy(), "seed": 1, **changes}
    return compare(execute, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("candidate", "kind"),
    [(2.30, Answer.APPROVE), (2.50, Answer.REJECT), (2.90, Answer.REJECT)],
)
def test_it_stops_at_a_clear_answer(candidate: float, kind: Answer) -> None:
    script = Script(around(2.5, 1), around(candidate, 2))
    outcome = judge(script)
    assert outcome.decision is not None
    assert outcome.decision.kind is kind
    assert [r.arm for r in outcome.runs] == script.asked
    assert len(script.asked) <= 10
    assert set(script.asked) == set(Arm)
    assert outcome.values(Arm.CANDIDATE) == [r.val_bpb for r in outcome.runs if r.arm is Arm.CANDIDATE]


@pytest.mark.parametrize(("candidate", "kind"), [(2.30, Answer.APPROVE), (2.50, Answer.REJECT)])
def test_runs_beyond_an_answer_do_not_change_it(candidate: float, kind: Answer) -> None:
    """Two runs at once follow the same schedule; at most one of them was not needed any more."""
    one, two = Script(around(2.5, 1), around(candidate, 2)), Script(around(2.5, 1), around(candidate, 2))
    two.room = 2
    first, second = judge(one), judge(two)
    assert first.decision == second.decision
    assert first.decision is not None
    assert first.decision.kind is kind
    assert second.runs[: len(first.runs)] == first.runs
    assert len(second.runs) - len(first.runs) in (0, 1)


def test_at_the_run_limit_it_is_undecided() -> None:
    """Runs too loud for an answer: the loop ends all the same."""
    wide = NoiseRecord(20 * 1.0, 20.0)
    policy = ComparisonPolicy(max_candidate_runs=3)
    script = Script(itertools.repeat(6.0), itertools.repeat(4.6))
    outcome = judge(script, noise=wide, policy=policy)
    assert outcome.decision is not None
    assert outcome.decision.kind is Answer.UNDECIDED
    assert len(outcome.values(Arm.CANDIDATE)) == 3


def test_a_candidate_that_keeps_failing_ends_it() -> None:
    script = Script(around(2.5), itertools.repeat(None))
    outcome = judge(script)
    assert outcome.decision is None
    assert len(outcome.failures(Arm.CANDIDATE)) == MAX_FAILURES
    assert outcome.failures(Arm.INCUMBENT) == []
    assert script.asked[-1] is Arm.CANDIDATE


@pytest.mark.parametrize(("policy", "tries"), [(MiningPolicy(), 1), (ComparisonPolicy(), MAX_FAILURES)])
def test_one_run_over_its_budget_is_enough_to_a_miner(policy: ComparisonPolicy, tries: int) -> None:
    """Each takes two runs' time; a verifier slashes for it and sees it twice."""

    def execute(ahead: Sequence[Arm]) -> list[Run]:
        arm = ahead[0]
        return [run(arm, 2.5 if arm is Arm.INCUMBENT else None, "over_budget")]

    outcome = judge(execute, policy=policy, history=[] if policy.paired else [2.5, 2.51, 2.49])
    assert outcome.decision is None
    assert len(outcome.failures(Arm.CANDIDATE)) == tries


def test_an_incumbent_that_keeps_failing_ends_it() -> None:
    outcome = judge(Script(itertools.repeat(None), around(2.4)))
    assert outcome.decision is None
    assert len(outcome.failures(Arm.INCUMBENT)) == MAX_FAILURES


def test_one_failure_is_made_up_for() -> None:
    """A run without a value is no sample: the arm is asked again."""
    script = Script(around(2.5, 1), itertools.chain([None], around(2.3, 2)))
    outcome = judge(script)
    assert outcome.decision is not None
    assert outcome.decision.kind is Answer.APPROVE
    assert len(outcome.failures(Arm.CANDIDATE)) == 1
    assert outcome.decision.evidence is not None
    assert outcome.decision.evidence.candidate_runs == len(outcome.values(Arm.CANDIDATE))


@pytest.mark.parametrize(
    ("candidate", "stale", "incumbents"),
    [
        (2.8, False, 0),  # a clear loser costs one run
        (2.8, True, 1),  # unless the history is old
        (2.3, False, 1),  # and a gain costs a fresh run of the incumbent
        (2.3, True, 1),
        (1.5, False, 0),  # unless no drift of the machine could be as large
    ],
)
def test_history_spares_incumbent_runs(candidate: float, stale: bool, incumbents: int) -> None:
    history = list(itertools.islice(around(2.5, 9), 10))
    script = Script(around(2.5, 1), around(candidate, 2))
    outcome = judge(script, history=history, policy=MiningPolicy(early_refresh=int(stale)))
    assert outcome.decision is not None
    assert outcome.decision.kind is (Answer.REJECT if candidate > 2.5 else Answer.APPROVE)
    assert script.asked.count(Arm.INCUMBENT) == incumbents
    assert script.asked.count(Arm.CANDIDATE) == 1


def test_an_exception_passes_through() -> None:
    def broken(ahead: Sequence[Arm]) -> list[Run]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge(broken)


@settings(deadline=None)
@given(
    st.lists(st.none() | st.floats(1.0, 4.0), min_size=20, max_size=20),
    st.lists(st.none() | st.floats(1.0, 4.0), min_size=20, max_size=20),
    st.integers(0, 2**32),
    st.data(),
)
def test_interrupted_anywhere_it_goes_on_the_same(
    incumbent: list[float | None], candidate: list[float | None], seed: int, data: st.DataObject
) -> None:
    """With the runs of the first part as `done`, only the rest is run, and the outcome is that of one go."""
    whole = judge(Script(incumbent, candidate), seed=seed)
    cut = data.draw(st.integers(0, len(whole.runs)))
    done = whole.runs[:cut]
    used = {arm: sum(r.arm is arm for r in done) for arm in Arm}
    rest = Script(incumbent[used[Arm.INCUMBENT] :], candidate[used[Arm.CANDIDATE] :])
    again = judge(rest, seed=seed, done=done)
    assert again == whole
    assert len(rest.asked) == len(whole.runs) - cut
    # and it ended for a reason
    failed = any(len(whole.failures(arm)) >= MAX_FAILURES for arm in Arm)
    assert (whole.decision is None) == failed
    if whole.decision is not None:
        assert whole.decision.kind is not Answer.CONTINUE


def test_the_seed_orders_the_runs() -> None:
    orders = set()
    for seed in range(12):
        script = Script(around(2.5, 1), around(2.3, 2))
        judge(script, seed=seed)
        orders.add(tuple(script.asked))
    assert len(orders) > 3


@pytest.mark.parametrize(
    ("failures", "taken"),
    [([""], 0), ([UNFIT, ""], 1), ([UNFIT, "crash", ""], 1), ([UNFIT] * (MAX_UNFIT - 1) + [""], MAX_UNFIT - 1)],
)
def test_a_run_is_made_again_until_the_machine_is_fit(failures: list[str], taken: int) -> None:
    made = [run(Arm.INCUMBENT, None if failure else 2.5, failure) for failure in failures]
    left = iter(made)
    assert until_fit(lambda _: [next(left)]) == [made[taken]]


def test_a_machine_that_stays_unfit_is_given_up() -> None:
    made = iter([run(Arm.INCUMBENT, None, UNFIT)] * (MAX_UNFIT + 1))
    with pytest.raises(EnvironmentNotReady, match="unfit"):
        until_fit(lambda _: [next(made)])
    assert len(list(made)) == 1


def test_of_several_at_once_only_those_are_made_again_that_were_unfit() -> None:
    asked, left = list[int](), iter([2.5, None, 2.6, 2.7])

    def make(wanting: int) -> list[Run]:
        asked.append(wanting)
        values = [next(left) for _ in range(min(2, wanting))]
        return [run(Arm.INCUMBENT, value, "" if value else UNFIT) for value in values]

    assert [one.val_bpb for one in until_fit(make, 3)] == [2.5, 2.6, 2.7]
    assert asked == [3, 2]
