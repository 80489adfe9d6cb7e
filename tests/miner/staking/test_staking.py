"""From a won trial to a stake, with fakes at the edge: what is confirmed, weighed, held back and sent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from solders.pubkey import Pubkey

from chain.network.base import sol
from chain.program.accounts import ProposalStatus
from miner.context.goals import Goals
from miner.proposers.base import SCRIPT
from miner.session.own_file import submit_file
from miner.staking import stepping
from miner.staking.staking import Staking
from tests.miner.fakes import FILES, SIGMA, SOURCE, Fake
from trainer.errors import TrainerError
from trainer.statistics.comparison import Arm

BETTER, OTHER, THEIRS = (SOURCE.replace("0.1", rate) for rate in ("0.2", "0.3", "0.4"))
TRUE = {SOURCE: 2.5, BETTER: 2.3, OTHER: 2.2, THEIRS: 2.1}


def session(folder: Path, gain: float = 0.2, *, goals: Goals | None = None, bips: int = 0) -> tuple[Fake, Staking]:
    """A session that kept a candidate with this true gain over the best on chain, which is the baseline."""
    fake = Fake(folder, {**TRUE, BETTER: 2.5 - gain}, goals=goals, bips=bips)
    fake.trial(SOURCE, decision="keep", delta=0.0)
    fake.frontier()
    fake.trial(BETTER, decision="keep", delta=gain)
    return fake, Staking(fake.context, lambda: None)


def attempt(fake: Fake, staking: Staking) -> None:
    won = staking.candidate()
    assert won is not None
    staking.attempt(won)


def held(fake: Fake) -> str:
    """Why nothing was sent; "" where something was."""
    if fake.chain.sent:
        return ""
    return fake.context.session.confirmations[-1].reason


def test_a_gain_is_confirmed_and_what_will_last_of_it_claimed(tmp_path: Path) -> None:
    fake, staking = session(tmp_path)
    attempt(fake, staking)
    (test,) = fake.context.session.confirmations
    assert test.passed
    assert test.delta == pytest.approx(0.2, abs=3 * SIGMA)
    (sent,) = fake.chain.sent
    claimed = sent["claimed_score"] - 2_500_000  # the best on chain, moved by the gain
    assert 0.15e6 < claimed < 1e6 * (test.delta or 0)  # that one was chosen, if not from many
    assert any("should last" in line for line in fake.said)
    assert fake.events()[-2:] == ["intent", "submitted"]
    assert staking.candidate() is None  # it is on chain: once is enough
    assert fake.machine.learnt == [[[entry.run.val_bpb for entry in test.runs if entry.run.arm == "incumbent"]]]


@pytest.mark.parametrize("gpus", [(), ("0", "1")])
def test_the_benchmark_logs_run_is_made_once_and_early_where_a_gpu_is_idle(
    gpus: tuple[str, ...], tmp_path: Path
) -> None:
    fake, staking = session(tmp_path)
    fake.machine.gpus = gpus
    attempt(fake, staking)
    (test,) = fake.context.session.confirmations
    assert test.passed
    assert len(fake.machine.ran) == len(test.runs) + 1
    plain = (BETTER, Arm.CANDIDATE)
    assert fake.machine.ran.count(plain) == sum(entry.run.arm == "candidate" for entry in test.runs) + 1
    early = fake.machine.ran[:2] if gpus else fake.machine.ran[-1:]
    assert plain in early
    (log,) = (fake.context.folder / "logs").glob("*benchmark*")
    assert b"one run by the protocol's own command" in log.read_bytes()


@pytest.mark.parametrize(("network", "told"), [("devnet", True), ("embedded", False)])
def test_the_official_validator_counts_where_it_may_review(tmp_path: Path, network: str, *, told: bool) -> None:
    fake = Fake(tmp_path, {SOURCE: 2.5, BETTER + "# mx.eval(": 2.3})
    fake.chain.network.name = network
    fake.trial(SOURCE, decision="keep", delta=0.0)
    fake.frontier()
    fake.trial(BETTER + "# mx.eval(", decision="keep", delta=0.2)
    attempt(fake, Staking(fake.context, lambda: None))
    assert any("would reject this unrun" in line for line in fake.said) is told
    assert any("without running it" in line for line in fake.said) is told


def test_what_is_not_confirmed_is_not_tried_again(tmp_path: Path) -> None:
    fake, staking = session(tmp_path, 0.0)
    attempt(fake, staking)
    assert held(fake).startswith(("No improvement", "Inconclusive"))  # the order of runs is drawn: either is right
    assert staking.candidate() is None


def test_what_is_worse_sends_the_search_back_to_the_best_on_chain(tmp_path: Path) -> None:
    fake, staking = session(tmp_path, -0.1)
    best = fake.context.session.frontiers[-1].commit
    attempt(fake, staking)
    assert fake.context.session.head == fake.tree.head() == best
    assert fake.chain.sent == []


@pytest.mark.parametrize(("gain", "confirmed"), [(0.2, True), (-0.1, False)])
def test_what_is_kept_while_this_machine_confirms_is_tested_next(tmp_path: Path, gain: float, confirmed: bool) -> None:
    """Another machine of a cluster finds it meanwhile, on top of what is being tested."""
    fake, _ = session(tmp_path, gain)
    calls = list[int]()

    def between() -> None:
        calls.append(len(fake.context.session.confirmations[-1].runs))
        if len(calls) == 2:
            fake.trial(OTHER, decision="keep", delta=0.3)

    staking = Staking(fake.context, lambda: None, between)
    attempt(fake, staking)
    assert calls == list(range(1, len(fake.context.session.confirmations[0].runs) + 1))
    assert bool(fake.context.session.confirmations[0].passed) is confirmed
    assert len(fake.chain.sent) == confirmed
    found = staking.candidate()
    assert found is not None
    assert fake.tree.head() == fake.context.session.head == found.commit
    assert fake.tree.sources[found.commit] == OTHER
    staking.attempt(found)
    assert len(fake.chain.sent) == confirmed + 1


@pytest.mark.parametrize(("bips", "sent"), [(0, True), (100, True), (2000, False)])
def test_a_gain_within_the_projects_margin_is_not_staked_on(bips: int, sent: bool, tmp_path: Path) -> None:
    """A gain of 0.2 of 2.5 is 8 percent; the project may want 20."""
    fake, staking = session(tmp_path, bips=bips)
    attempt(fake, staking)
    assert bool(fake.chain.sent) is sent


def test_after_a_rejection_nothing_is_staked(tmp_path: Path) -> None:
    fake, staking = session(tmp_path)
    fake.context.rejections = 1
    attempt(fake, staking)
    assert "rejected" in held(fake)
    assert fake.events()[-1] == "held"
    assert staking.candidate() is None


def test_what_somebody_was_faster_with_is_not_sent(tmp_path: Path) -> None:
    """The look after the confirming test may find another best: what was confirmed is not confirmed against that."""
    fake, _ = session(tmp_path)

    def look() -> None:
        fake.frontier(fake.tree.commit(0, THEIRS, "theirs"), "ab" * 32)

    staking = Staking(fake.context, look)
    attempt(fake, staking)
    assert fake.context.session.confirmations[-1].passed
    assert fake.chain.sent == []
    assert "intent" not in fake.events()


def test_what_is_beyond_the_owners_limits_is_held(tmp_path: Path) -> None:
    for number, (goals, words) in enumerate(
        [(Goals(stake=3, max_stake=2), "--max-stake"), (Goals(stake=20, max_spend=100), "--max-spend")]
    ):
        fake, staking = session(tmp_path / str(number), goals=goals)
        attempt(fake, staking)
        assert words in held(fake)


@pytest.mark.parametrize(
    ("rent", "local", "accept_loss", "sent"),
    [
        (0, False, False, True),  # a token is worth more than the fees
        (5_400_960, False, False, False),  # and less than the rent, which nothing returns
        (5_400_960, False, True, True),  # the owner's word
        (5_400_960, True, False, True),  # practice: no real tokens
    ],
)
def test_what_does_not_pay_is_held(rent: int, local: bool, accept_loss: bool, sent: bool, tmp_path: Path) -> None:
    fake, staking = session(tmp_path, goals=Goals(accept_loss=accept_loss))
    fake.chain.statuses = {7: ProposalStatus.APPROVED}
    fake.chain.project.miner_pool_minted, fake.chain.project.base_price = 1, 224_000
    fake.chain.network.rent, fake.chain.network.is_local = rent, local
    attempt(fake, staking)
    assert ("it does not pay" in held(fake)) is not sent
    assert any(f"rent {sol(rent)} " in line and "expected value" in line for line in fake.said)


def test_a_confirmation_is_made_once_and_goes_on_where_it_was(tmp_path: Path) -> None:
    fake, staking = session(tmp_path)
    usual, calls = fake.machine.values, 0

    def killed(source: str, arm: Arm) -> float | str:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return usual(source, arm)

    fake.machine.values = killed
    with pytest.raises(KeyboardInterrupt):
        attempt(fake, staking)
    assert len(fake.context.session.confirmations[-1].runs) == 2
    attempt(fake, staking)
    (test,) = fake.context.session.confirmations
    assert test.passed
    assert len(fake.machine.ran) == len(test.runs) + 2  # the run in flight once more, and the benchmark's
    assert len(fake.chain.sent) == 1


def test_a_submission_that_was_cut_off_needs_no_second_confirmation(tmp_path: Path) -> None:
    fake, staking = session(tmp_path)
    publish = fake.context.connection.publish

    def cut(*_: object) -> tuple[bytes, bytes]:
        raise KeyboardInterrupt

    fake.context.connection.publish = cut  # type: ignore[method-assign,assignment]
    with pytest.raises(KeyboardInterrupt):
        attempt(fake, staking)
    ran = len(fake.machine.ran)
    fake.journal.append("abandoned")
    fake.context.connection.publish = publish  # type: ignore[method-assign]
    attempt(fake, staking)
    assert len(fake.machine.ran) == ran  # neither a confirming run nor the benchmark's
    assert len(fake.chain.sent) == 1


def test_candidates(tmp_path: Path) -> None:
    fake, staking = session(tmp_path)
    won = staking.candidate()
    assert won is not None
    assert won.number == 1
    fake.frontier(fake.tree.head(), "cd" * 32, own=True)  # ours is the best on chain
    assert staking.candidate() is None
    assert fake.trial(OTHER, decision="discard", delta=-0.1) is not None
    assert staking.candidate() is None
    assert fake.trial(OTHER, decision="keep", delta=0.1) is staking.candidate()


def test_the_margin_is_of_the_best_that_is_on_chain_now(tmp_path: Path) -> None:
    fake, staking = session(tmp_path, bips=400)  # 4 percent: 0.1 of 2.5, and 0.4 of 10
    attempt(fake, staking)
    assert len(fake.chain.sent) == 1
    other, staking = session(tmp_path / "other", bips=400)
    other.context.convention = replace(other.context.convention, baseline=10_000_000)
    other.chain.project.current_best_aggregate_score = 10_000_000
    attempt(other, staking)
    assert other.chain.sent == []


# --- a best on chain that is not what was approved any more ---


def sleeping(
    folder: Path, monkeypatch: pytest.MonkeyPatch, gain: float, *, best: float | None = 2.5
) -> tuple[Fake, Staking]:
    """A session that kept BETTER, by `gain` over the baseline, against THEIRS, the best on chain.

    That was approved at 0.2 better than the baseline, and now trains to `best`. Proposal 4 (OTHER), before it, was
    approved at 0.1 better, and is.
    """
    fake = Fake(folder, {SOURCE: 2.5, THEIRS: best, OTHER: 2.4, BETTER: 2.5 - gain})
    fake.trial(SOURCE, decision="keep", delta=0.0)
    fake.chain.project.current_best_code_hash = bytes([7]) * 32
    fake.chain.project.current_best_aggregate_score = 2_700_000
    fake.frontier(fake.tree.commit(0, THEIRS, "theirs"), "07" * 32)
    fake.tree.keep(fake.context.session.frontiers[-1].commit)
    fake.trial(BETTER, decision="keep", delta=gain)
    earlier = SimpleNamespace(id=4, verified_aggregate_score=2_600_000, miner=Pubkey.default())
    monkeypatch.setattr(stepping, "fetch_earlier", lambda *_: [(earlier, OTHER.encode())])
    return fake, Staking(fake.context, lambda: None)


@pytest.mark.parametrize("best", [2.5, None])
def test_what_beats_only_a_sleeping_best_is_not_staked_and_the_session_steps_down(
    best: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No verifier approves it: each of these stakes was lost to expiry before."""
    fake, staking = sleeping(tmp_path, monkeypatch, 0.15, best=best)
    won = fake.context.session.head
    attempt(fake, staking)
    assert fake.chain.sent == []
    assert "was stepped over" in held(fake)
    session = fake.context.session
    assert session.frontiers[-1].lead == pytest.approx(0.1)
    assert session.head == fake.tree.head() == session.frontiers[-1].commit
    assert fake.tree.sources[session.head] == OTHER
    assert session.displaced == won  # what was kept is measured against it first
    assert staking.candidate() is None


def test_gains_over_an_earlier_best_are_staked_once_they_exceed_the_lead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, staking = sleeping(tmp_path, monkeypatch, 0.15)
    attempt(fake, staking)
    fake.trial(BETTER, decision="keep", delta=0.05)
    assert staking.candidate() is None  # 0.05 of the 0.1 that the chain is ahead
    further = SOURCE.replace("0.1", "0.5")
    fake.values = {**fake.values, further: 2.2}
    fake.trial(further, decision="keep", delta=0.15)
    attempt(fake, staking)
    (sent,) = fake.chain.sent
    test = fake.context.session.confirmations[-1]
    assert test.reference == ""
    assert test.delta == pytest.approx(0.2, abs=0.01)
    assert 0.05e6 < sent["claimed_score"] - 2_700_000 < 0.11e6  # beyond the chain's best, not beyond the earlier one
    assert {source for source, _ in fake.machine.ran[-4:]} <= {OTHER, further}


def test_what_beats_the_best_as_it_was_approved_is_staked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, staking = sleeping(tmp_path, monkeypatch, 0.3)
    attempt(fake, staking)
    (sent,) = fake.chain.sent
    assert 0.05e6 < sent["claimed_score"] - 2_700_000 < 0.11e6
    assert fake.context.session.confirmations[-1].reference == "proposal 4"


def test_without_a_sandbox_nobody_elses_earlier_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, staking = sleeping(tmp_path, monkeypatch, 0.15)
    asked: list[int] = []

    def nothing(*given: Any) -> list[Any]:
        asked.append(given[-1])
        return []

    monkeypatch.setattr(stepping, "fetch_earlier", nothing)
    fake.context.unconfined = False
    attempt(fake, staking)
    assert asked == [0]
    assert fake.context.session.frontiers[-1].lead == pytest.approx(0.2)  # down to the snapshot


def test_a_file_of_the_users_own_is_held_to_the_same_ladder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, _ = sleeping(tmp_path, monkeypatch, 0.15)
    fake.context.task = replace_incumbent(fake, THEIRS)
    file = tmp_path / "mine.py"
    file.write_text(BETTER)
    with pytest.raises(TrainerError, match=r"stepped over.*Nothing was submitted"):
        submit_file(fake.context, file, None)
    assert fake.chain.sent == []


def replace_incumbent(fake: Fake, source: str) -> Any:
    return SimpleNamespace(**{**vars(fake.context.task), "incumbent": {**FILES, SCRIPT: source.encode()}})
