"""The session's loop with fakes at its edge: what it does in which order, when it ends and how it goes on."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from solders.pubkey import Pubkey

from chain.errors import ChainError
from chain.program.accounts import ProposalStatus
from miner.context.context import Earlier
from miner.context.goals import Goals
from miner.journal.journal import Submission, read
from miner.proposers.base import edit_of
from miner.report import summary
from miner.session import frontier
from miner.session.frontier import FetchedBest
from miner.session.loop import Miner
from miner.session.watch import ChainWatch
from miner.staking import stepping
from tests.miner.fakes import SOURCE, Fake, Scripted, Tree
from trainer.errors import EnvironmentNotReady
from trainer.measurement.run import Run
from trainer.statistics.comparison import Arm

BETTER, BEST, WORSE, BROKEN, THEIRS, SMALL = (SOURCE.replace("0.1", f"0.{rate}") for rate in (2, 3, 4, 5, 6, 8))
TRUE = {SOURCE: 2.5, BETTER: 2.3, BEST: 2.1, WORSE: 2.7, BROKEN: None, THEIRS: 2.2}


@pytest.fixture(autouse=True)
def fetched(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The code of each best on chain, by its hash; the baseline's is all zeros."""
    known = {"00" * 32: SOURCE}

    def fetch(_: object, project: object, *__: object) -> FetchedBest:
        code_hash = project.current_best_code_hash.hex()  # type: ignore[attr-defined]
        return FetchedBest(code_hash, known[code_hash], "2.500000", "somebody")

    monkeypatch.setattr(frontier, "fetch", fetch)
    return known


def session(folder: Path, *sources: str, goals: Goals | None = None) -> tuple[Fake, Scripted, Miner]:
    fake, proposer = Fake(folder, TRUE, goals=goals), Scripted(*sources)
    return fake, proposer, Miner(fake.context, proposer)


def theirs(fake: Fake, known: dict[str, str], source: str = THEIRS) -> None:
    """Somebody's proposal is approved."""
    fake.chain.project.current_best_code_hash = bytes([0xBB]) * 32
    known["bb" * 32] = source


def decisions(fake: Fake) -> list[str]:
    return [trial.decision for trial in fake.context.session.trials]


def test_a_session_from_its_baseline_to_its_proposal(tmp_path: Path) -> None:
    fake, _, miner = session(tmp_path, WORSE, BROKEN, BETTER, BEST)
    end = miner.run()
    assert (end.reason, end.trials, end.kept, end.proposals) == ("submitted", 3, 1, (0,))
    assert decisions(fake) == ["keep", "discard", "crash", "keep"]
    assert end.best_delta == pytest.approx(0.2, abs=0.01)
    kinds = [kind for kind in dict.fromkeys(fake.events()) if kind != "run"]
    assert kinds == [
        *("session", "begin", "trial", "frontier", "decision"),
        *("confirming", "confirming_run", "confirmed", "intent", "submitted", "status", "end"),
    ]


@pytest.mark.parametrize(
    ("goals", "sources", "reason", "trials", "sent"),
    [
        (Goals(max_trials=2), [WORSE] * 5, "reached --max-trials 2", 2, 0),
        (Goals(stagnation=3, submissions=0), [BETTER, *[WORSE] * 5], "3 trials without an improvement", 4, 1),
        (Goals(), [WORSE], "the proposer has no candidates left", 1, 0),
        (Goals(dry_run=True), [BETTER, BEST], "dry run", 1, 0),
        (Goals(max_trials=1), [BETTER, BEST], "submitted", 1, 1),  # what was won is submitted at the limit as well
        (Goals(submissions=2), [BETTER, BEST], "submitted", 2, 2),
    ],
)
def test_when_it_ends(goals: Goals, sources: list[str], reason: str, trials: int, sent: int, tmp_path: Path) -> None:
    fake, _, miner = session(tmp_path, *sources, goals=goals)
    end = miner.run()
    assert reason in end.reason
    assert (end.trials, len(fake.chain.sent)) == (trials, sent)


@pytest.mark.parametrize(
    ("goals", "sources", "decided", "left"),
    [
        (Goals(max_trials=3), [WORSE] * 5, [1, 2, 3], []),
        (Goals(max_trials=1), [WORSE] * 5, [1], []),
        (
            Goals(submissions=2),
            [BETTER, WORSE, BROKEN, BEST, WORSE],
            [1, 2, 4],
            [3],
        ),  # it crashed once: not yet decided
    ],
)
def test_on_two_gpus_two_candidates_are_judged_at_once(
    goals: Goals, sources: list[str], decided: list[int], left: list[int], tmp_path: Path
) -> None:
    """Each is proposed with the other in sight, and no more are begun than the goals ask for."""
    fake = Fake(tmp_path, TRUE, goals=goals)
    fake.machine.gpus, proposer = ("0", "1"), Scripted(*sources)
    end = Miner(fake.context, proposer).run()
    trials = fake.context.session.trials
    assert [trial.number for trial in trials[1:] if trial.decision] == decided
    assert [trial.number for trial in fake.context.session.unfinished] == left
    assert end.trials == len(decided)
    assert [len(seen.pending) for seen in proposer.seen][:2] == [0, 1][: len(decided)]
    assert len(fake.chain.sent) == (2 if left else 0)


@pytest.mark.parametrize(
    ("first", "second", "merged"),
    [
        (BETTER, SOURCE.replace("2\n", "3\n"), BETTER.replace("2\n", "3\n")),  # each line by one of them
        (BETTER, BEST, BEST),  # the same line: as it was
    ],
)
def test_what_won_beside_a_find_is_tried_on_it(first: str, second: str, merged: str, tmp_path: Path) -> None:
    true = {**TRUE, second: 2.25, merged: 2.1}
    fake = Fake(tmp_path, true, goals=Goals(max_trials=3, submissions=0))
    fake.context.rejections = 1  # so that nothing is submitted
    fake.machine.gpus, proposer = ("0", "1"), Scripted(first, second)
    Miner(fake.context, proposer).run()
    one, other, last = fake.context.session.trials[1:]
    assert (one.decision, other.decision, other.carry) == ("keep", "discard", True)
    assert (fake.tree.sources[last.commit], last.base, last.carries) == (merged, one.commit, other.number)
    assert (last.kept, fake.context.session.carried) == (True, None)
    assert last.proposer == other.proposer
    assert len(proposer.seen) == 2  # nobody was asked for another
    again = read(fake.journal.path)
    assert (again.carried, again.trials[3].carries) == (None, 2)


def test_what_is_left_open_beside_a_find_is_no_trial_without_an_improvement(tmp_path: Path) -> None:
    """Two are left when the third is kept, and each is tried on it before three in a row say that nothing is found."""
    beside = (SOURCE.replace("2\n", "3\n"), SOURCE.replace("2\n", "4\n"))
    merged = tuple(BETTER.replace("2\n", f"{depth}\n") for depth in (3, 4))
    true = {**TRUE, **dict.fromkeys(beside, 2.494), **dict.fromkeys(merged, 2.7), WORSE: 2.7}
    fake = Fake(tmp_path, true, goals=Goals(stagnation=3, submissions=0))
    fake.context.rejections = 1  # so that nothing is submitted
    fake.machine.gpus = ("0", "1", "2")
    Miner(fake.context, Scripted(*beside, BETTER, *[WORSE] * 3)).run()
    ran = {source for source, _ in fake.machine.ran}
    assert [t.carry for t in fake.context.session.trials[1:4]] == [True, True, False]
    assert ran >= set(merged)
    assert fake.context.session.sums.since_kept == 3


def test_a_change_left_twice_still_tells_which_edit_it_is(tmp_path: Path) -> None:
    """Where it does not fit the new best as well, it is tried as it was."""
    fake = Fake(tmp_path, TRUE)
    fake.trial(SOURCE, decision="keep", delta=0.0)
    fake.trial(WORSE, hypothesis="edit silu: SiLU")
    fake.trial(BEST, decision="keep", delta=0.4)
    miner = Miner(fake.context, Scripted())
    miner._trials.judge(fake.context.session.unfinished)
    assert fake.context.session.carried is not None
    assert miner._begin_trial()
    again = fake.context.session.trials[-1]
    assert (again.carries, fake.tree.sources[again.commit], edit_of(again.hypothesis)) == (1, WORSE, "silu")


def test_a_second_life_goes_on_with_both_trials(tmp_path: Path) -> None:
    fake = Fake(tmp_path, TRUE, goals=Goals(max_trials=2))
    fake.machine.gpus = ("0", "1")
    stopped = [False]

    def values(source: str) -> float | None:
        if source == SMALL and not stopped[0]:
            stopped[0] = True
            raise KeyboardInterrupt
        return 2.6 if source == SMALL else TRUE[source]

    fake.machine.values = lambda source, _: values(source) or "crash"
    with pytest.raises(KeyboardInterrupt):
        Miner(fake.context, Scripted(SMALL, WORSE)).run()
    assert [t.number for t in fake.context.session.unfinished] == [1, 2]
    end = Miner(fake.context, Scripted(BEST)).run()
    assert (end.trials, fake.context.session.unfinished) == (2, [])
    assert {source for source, _ in fake.machine.ran} == {SOURCE, SMALL, WORSE}


def test_after_a_rejection_it_mines_on_and_stakes_no_more(tmp_path: Path) -> None:
    fake, _, miner = session(tmp_path, BETTER, WORSE, BEST, goals=Goals(submissions=0))

    def reject() -> None:
        fake.chain.statuses = dict.fromkeys(fake.chain.statuses, ProposalStatus.REJECTED)

    fake.chain.before_look = reject
    end = miner.run()
    assert end.reason == "the proposer has no candidates left"
    assert (end.kept, len(fake.chain.sent)) == (2, 1)
    assert fake.context.rejections == 1  # counted once, not at every look
    assert [s.status for s in fake.context.session.submissions] == ["rejected"]
    assert "rejected" in fake.context.session.confirmations[-1].reason


def test_somebody_elses_best_is_searched_on_from_and_ours_measured_against_it(
    tmp_path: Path, fetched: dict[str, str]
) -> None:
    fake, proposer, miner = session(tmp_path, BETTER, WORSE, goals=Goals(dry_run=False, submissions=0))
    fake.context.rejections = 1  # so that what is kept stays unsubmitted
    fake.chain.before_look = lambda: theirs(fake, fetched) if len(fake.context.session.trials) == 2 else None
    miner.run()
    first, carried, last = fake.context.session.trials[1:]
    assert (carried.commit, carried.decision) == (first.commit, "discard")
    assert fake.tree.sources[carried.base] == THEIRS
    assert fake.tree.sources[last.base] == THEIRS == proposer.seen[-1].source
    assert fake.tree.sources[fake.context.session.head] == THEIRS


@pytest.mark.parametrize(("sandbox", "unconfined"), [(False, False), (True, False), (False, True)])
def test_somebody_elses_best_needs_a_sandbox_or_leave(
    sandbox: bool, unconfined: bool, tmp_path: Path, fetched: dict[str, str]
) -> None:
    fake, _, miner = session(tmp_path, WORSE, BROKEN, goals=Goals(dry_run=True))
    fake.context.unconfined, fake.machine.measurer = unconfined, object() if sandbox else None
    fake.context.connection.network = SimpleNamespace(name="embedded")
    fake.chain.project.current_best_miner = "somebody"
    fake.chain.before_look = lambda: theirs(fake, fetched) if len(fake.context.session.trials) == 2 else None
    if sandbox or unconfined:
        miner.run()
        assert THEIRS in {source for source, _ in fake.machine.ran}
        return
    with pytest.raises(EnvironmentNotReady, match="code by somebody with your own rights"):
        miner.run()
    assert THEIRS not in {source for source, _ in fake.machine.ran}


def test_a_chain_that_does_not_answer_stops_no_mining(tmp_path: Path) -> None:
    fake, _, miner = session(tmp_path, WORSE, WORSE)

    def down() -> None:
        fake.chain.down = len(fake.context.session.trials) > 1

    fake.chain.before_look = down
    assert miner.run().trials == 2
    assert any("cannot read the chain" in words for words in fake.said)


def test_a_chain_that_never_answered_does(tmp_path: Path) -> None:
    fake, _, miner = session(tmp_path, WORSE)
    fake.chain.down = True
    with pytest.raises(ChainError):
        miner.run()
    assert fake.events()[-1] == "end"
    assert fake.context.session.segments[-1].reason == "nobody answers"


@pytest.mark.parametrize("at", [1, 3, 4, 6])
def test_interrupted_at_any_run_it_goes_on_where_it_was(at: int, tmp_path: Path) -> None:
    fake, _, miner = session(tmp_path, WORSE, BETTER)
    usual, calls = fake.machine.values, 0

    def killed(source: str, arm: Arm) -> float | str:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return usual(source, arm)

    fake.machine.values = killed
    with pytest.raises(KeyboardInterrupt):
        miner.run()
    assert fake.context.session.segments[-1].reason == "interrupted"
    left = [WORSE, BETTER][len(fake.context.session.trials) - 1 :]
    end = Miner(fake.context, Scripted(*left)).run()
    assert (end.reason, end.trials, len(fake.chain.sent)) == ("submitted", 2, 1)
    assert decisions(fake) == ["keep", "discard", "keep"]
    recorded = sum(len(trial.runs) for trial in fake.context.session.trials)
    tested = sum(len(test.runs) for test in fake.context.session.confirmations)
    assert len(fake.machine.ran) == recorded + tested + 2  # one run was cut off, one is the benchmark's


def test_this_lifes_limits_do_not_count_what_was_before(tmp_path: Path) -> None:
    fake, _, miner = session(tmp_path, WORSE, WORSE, WORSE, goals=Goals(max_trials=1))
    assert miner.run().trials == 1
    assert Miner(fake.context, Scripted(WORSE)).run().trials == 2


def test_the_branch_follows_the_journal_after_a_kill(tmp_path: Path) -> None:
    fake, _, miner = session(tmp_path, goals=Goals(submissions=0))
    fake.trial(SOURCE, decision="keep", delta=0.0)
    fake.frontier()
    base = fake.tree.head()
    won = fake.trial(BETTER, decision="keep", delta=0.2)
    fake.tree.keep(base)  # the decision is on record, the branch had not moved
    fake.context.rejections = 1
    miner.run()
    assert fake.tree.head() == fake.context.session.head == won.commit


def test_a_session_of_another_machine_is_not_continued(tmp_path: Path) -> None:
    fake, _, miner = session(tmp_path, WORSE)
    miner.run()
    fake.machine.machine = replace(fake.machine.machine, chip="Other", cpu_cores=4)
    with pytest.raises(EnvironmentNotReady, match="made-up-8c"):
        Miner(fake.context, Scripted(WORSE)).run()


def test_baseline_runs_that_published_the_project_count(tmp_path: Path) -> None:
    fake = Fake(tmp_path, TRUE)
    run = Run(Arm.INCUMBENT, 2.5, "", "", 10.0, None, b"")
    fake.context.published = [Earlier(run, 1e9 + n, 1e9 + n + 10) for n in range(3)]
    Miner(fake.context, Scripted()).run()
    assert fake.machine.ran == []
    session = fake.context.session
    assert session.segments[0].begin == session.trials[0].at == "2001-09-09T01:46:40Z"
    assert [run.at[-3:] for run in session.trials[0].runs] == ["50Z", "51Z", "52Z"]


@pytest.mark.parametrize(("minutes", "trials"), [(1, 0), (2, 1)])
def test_limits_count_the_baseline_that_publishes(tmp_path: Path, minutes: float, trials: int) -> None:
    fake = Fake(tmp_path, TRUE, goals=Goals(max_minutes=minutes))
    now, run = time.time(), Run(Arm.INCUMBENT, 2.5, "", "", 20.0, None, b"")
    fake.context.published = [Earlier(run, now - ago, now - ago + 20) for ago in (60, 40, 20)]
    summary = Miner(fake.context, Scripted(WORSE)).run()
    assert summary.trials == trials
    assert (summary.reason == "reached --max-minutes 1") == (trials == 0)


@pytest.mark.parametrize(
    ("status", "rejections"), [(ProposalStatus.PENDING, 0), (ProposalStatus.APPROVED, 0), (ProposalStatus.REJECTED, 1)]
)
def test_what_became_of_a_proposal_is_on_record_once(status: ProposalStatus, rejections: int, tmp_path: Path) -> None:
    fake, _, _ = session(tmp_path)
    fake.trial(SOURCE, decision="keep", delta=0.0)
    fake.frontier()
    fake.journal.append("intent", number=0, code_hash="aa", log_hash="bb")
    fake.journal.append("submitted", proposal=3)
    fake.chain.statuses = {3: status, 4: ProposalStatus.REJECTED}  # the other is somebody else's
    watch = ChainWatch(fake.context)
    watch.look()
    watch.look()
    assert fake.events().count("status") == 1
    assert fake.context.rejections == rejections
    told = [] if status is ProposalStatus.PENDING else [f"proposal 3 is {status.name.lower()}"]  # pending is no news
    assert [words for words in fake.said if words.startswith("proposal 3 is")] == told
    assert fake.context.session.submissions == [Submission(0, "aa", "bb", proposal=3, status=status.name.lower())]


def test_the_end_of_a_session_closes_its_proposer(tmp_path: Path) -> None:
    fake, proposer, _ = session(tmp_path, WORSE)
    closed: list[bool] = []
    proposer.close = lambda: closed.append(True)  # type: ignore[attr-defined]
    Miner(fake.context, proposer).run()
    assert closed == [True]


def test_a_proposer_is_told_which_trial_is_the_last(tmp_path: Path) -> None:
    fake, proposer, _ = session(tmp_path, WORSE, BROKEN, THEIRS, goals=Goals(max_trials=2))
    Miner(fake.context, proposer).run()
    assert [seen.last for seen in proposer.seen] == [False, True]


def test_an_account_that_cannot_be_read_is_told_once_and_mining_goes_on(tmp_path: Path) -> None:
    """Found by the client's lists or by the follower; one more later is told then."""
    fake, _, _ = session(tmp_path)
    fake.trial(SOURCE, decision="keep", delta=0.0)
    fake.frontier()
    one, two = Pubkey(bytes([1] * 32)), Pubkey(bytes([2] * 32))
    fake.chain.unreadable[one] = None
    watch = ChainWatch(fake.context)
    watch.look()
    watch.look()
    fake.chain.unreadable.followed = [one, two]
    watch.look()
    told = [f"cannot read the account {key} of the program; going on without it" for key in (one, two)]
    assert [line for line in fake.said if "cannot read" in line] == told


@pytest.mark.parametrize(
    ("at_once", "between", "stepped"),
    [
        (True, WORSE, True),  # the baseline crashes
        (False, SMALL, True),  # a trial in which the incumbent runs again does
        (False, WORSE, False),  # the confirming test does, which steps over it by itself
    ],
)
def test_a_best_on_chain_that_crashes_ends_nobodys_session(
    at_once: bool, between: str, stepped: bool, tmp_path: Path, fetched: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """THEIRS was approved at 2.2, after EARLIER at 2.3; then it crashes, and its project stood still."""
    fake, proposer = Fake(tmp_path, TRUE), Scripted(WORSE, between.replace("DEPTH = 2", "DEPTH = 3"), BEST)
    fake.tree = Tree(THEIRS)
    fake.context._workspace = cast("Any", fake.tree)
    miner = Miner(fake.context, proposer)
    earlier = SOURCE.replace("0.1", "0.7")
    project = fake.chain.project
    project.current_best_aggregate_score = 2_800_000
    theirs(fake, fetched)
    step = SimpleNamespace(id=4, verified_aggregate_score=2_700_000, miner=Pubkey.default())
    monkeypatch.setattr(stepping, "fetch_earlier", lambda *_: [(step, earlier.encode())])
    awake = {**TRUE, earlier: 2.3}
    awake |= {source.replace("DEPTH = 2", "DEPTH = 3"): value for source, value in ((SMALL, 2.192), (WORSE, 2.7))}
    fake.values = {**awake, THEIRS: None if at_once else 2.2}

    def sleep() -> None:
        if len(fake.context.session.trials) == 2:
            fake.values = {**awake, THEIRS: None}

    fake.chain.before_look = sleep
    end = miner.run()
    assert end.proposals == (0,)
    latest = fake.context.session.frontiers[-1]
    assert (fake.tree.sources[latest.commit] == earlier) is (latest.lead == pytest.approx(0.1)) is stepped
    assert fake.context.session.confirmations[-1].reference == ("" if stepped else "proposal 4")
    (sent,) = fake.chain.sent
    assert 0.05e6 < sent["claimed_score"] - 2_800_000 < 0.11e6
    assert "discard" in decisions(fake)
    assert [step.why for step in summary.incumbents(fake.context.session)].count("an earlier best") == stepped


def test_a_best_that_comes_before_the_baseline_is_the_head(tmp_path: Path, fetched: dict[str, str]) -> None:
    fake, _, miner = session(tmp_path, WORSE)
    theirs(fake, fetched)
    miner.run()
    assert fake.context.session.head == fake.tree.head() == fake.context.session.frontiers[-1].commit


def test_where_nothing_runs_a_session_ends(tmp_path: Path, fetched: dict[str, str]) -> None:
    """Then it is this machine that fails, and nobody's code."""
    fake, _, miner = session(tmp_path, BETTER)
    theirs(fake, fetched)
    fake.values = dict.fromkeys(TRUE)
    with pytest.raises(EnvironmentNotReady, match="does not run on this machine"):
        miner.run()
