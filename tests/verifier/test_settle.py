"""Settlement on a real ledger: what is claimed, decided and sent, and that a crash never makes it twice."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.keypair import Keypair
from solders.signature import Signature

from chain.connection.opening import AUTHORITY, Connection
from chain.errors import ChainError, InvalidData, NetworkUnreachable
from chain.indexer.rules import Follower
from chain.money.client import Client
from chain.program import PROGRAM_ID
from chain.program.accounts import Proposal, ProposalStatus
from chain.program.errors import NotVerifier
from chain.program.instructions import AddVerifier, ClaimReview, Reject
from common.terminal import View, plainly
from tests import local
from tests.chain import live
from tests.chain.layout import encode_account
from tests.chain.svm import digest
from tests.trainer.judging.cases import runs
from tests.verifier.cases import RULES, Answer, approving, checked, rejecting, releasing
from trainer.errors import EnvironmentNotReady, TrainerError
from trainer.judging.policy import JudgePolicy
from trainer.judging.verdict import CaseFinding, Fault, Reason
from verifier import attestation, check, serve, settle, show
from verifier.audit import audit, passed
from verifier.check import CheckResult, folder_of
from verifier.settle import (
    LOCK_MARGIN,
    MAX_CHECKS,
    NotOurs,
    Settled,
    SettlementRecord,
    SettlementStep,
    frontier_moved,
    next_step,
)

US, THEM = Keypair().pubkey(), Keypair().pubkey()


class Killed(BaseException):
    """What a kill is to the code."""


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with local.connect(local.home_with_project(tmp_path)) as connection:
        yield connection


def ready(proposal: Proposal) -> None:
    """A machine whose sandbox works: here no candidate is run."""


def settled(
    connection: Connection, proposal: int, how: Answer, key: Keypair | None = None, ready: settle.Ready = ready
) -> Settled:
    folder = folder_of(connection.home, "embedded", str(proposal))
    return settle.settle(
        connection,
        proposal,
        key or local.verifier_of(connection),
        folder,
        ready,
        lambda current: how(connection, current),
        lambda _: None,
    )


def record(connection: Connection, proposal: int = 0) -> list[dict[str, Any]]:
    path = folder_of(connection.home, "embedded", str(proposal)) / "settlement.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def never(connection: Connection, proposal: Proposal) -> CheckResult:
    raise AssertionError("nothing is to be checked here")


# --- what is to be done, as a table ---

_PENDING, _IN_REVIEW = ProposalStatus.PENDING, ProposalStatus.IN_REVIEW


@pytest.mark.parametrize(
    ("status", "reviewer", "until", "step"),
    [
        (_PENDING, THEM, 0, SettlementStep.CLAIM),
        (_PENDING, US, 10**9, SettlementStep.CLAIM),
        (_IN_REVIEW, US, 1_000 + LOCK_MARGIN, SettlementStep.CHECK),
        (_IN_REVIEW, US, 1_000 + LOCK_MARGIN - 1, SettlementStep.WAIT),  # too little left of our lock to begin anything
        (_IN_REVIEW, US, 1_000, SettlementStep.WAIT),
        (_IN_REVIEW, US, 999, SettlementStep.CLAIM),
        (_IN_REVIEW, THEM, 10**9, SettlementStep.WAIT),
        (_IN_REVIEW, THEM, 1_000, SettlementStep.WAIT),
        (_IN_REVIEW, THEM, 999, SettlementStep.CLAIM),
        *[
            (status, US, 10**9, SettlementStep.DONE)
            for status in ProposalStatus
            if status not in (_PENDING, _IN_REVIEW)
        ],
    ],
)
def test_next_step(
    connection_free: Proposal, status: ProposalStatus, reviewer: Any, until: int, step: SettlementStep
) -> None:
    proposal = replace(connection_free, status=status, reviewer=reviewer, review_lock_until=until)
    assert next_step(proposal, US, 1_000) is step


@pytest.fixture(scope="module")
def connection_free(tmp_path_factory: pytest.TempPathFactory) -> Proposal:
    """A proposal to change."""
    with local.connect(local.home_with_project(tmp_path_factory.mktemp("home"))) as connection:
        return local.propose(connection)


# --- the whole way ---


def test_an_approval(connection: Connection) -> None:
    proposal = local.propose(connection)
    done = settled(connection, 0, approving)
    assert (done.status, done.note) == (ProposalStatus.APPROVED, "approve")
    assert done.checked is not None
    now, project = connection.client.proposal(0), connection.client.project(0)
    assert now.status is ProposalStatus.APPROVED
    assert now.verified_aggregate_score == done.checked.judged.score == project.current_best_aggregate_score
    assert project.current_best_code_hash == proposal.code_hash
    assert connection.client.tokens(project, proposal.miner) == local.STAKE + project.miner_pool_minted > local.STAKE
    # the attestation is what settled it, and it can be had by its id
    assert now.metrics_hash == done.checked.digest
    sealed = connection.fetch(
        now.metrics_irys_id, now.metrics_hash, local.verifier_of(connection).pubkey(), "attestation"
    )
    signer, body = attestation.open_envelope(sealed)
    assert signer == local.verifier_of(connection).pubkey()
    assert body["predicate"]["proposal"] == 0
    events = [(entry["event"], entry.get("action", entry.get("kind"))) for entry in record(connection)]
    assert events == [
        ("sent", "claim"),
        ("landed", None),
        ("verdict", "approve"),
        ("sent", "approve"),
        ("landed", None),
    ]


def test_a_rejection_slashes(connection: Connection) -> None:
    proposal = local.propose(connection)
    done = settled(connection, 0, rejecting)
    assert (done.status, done.note) == (ProposalStatus.REJECTED, "reject")
    now, project = connection.client.proposal(0), connection.client.project(0)
    assert now.status is ProposalStatus.REJECTED
    assert project.current_best_aggregate_score == project.baseline_aggregate_score
    assert connection.client.tokens(project, proposal.miner) == 0
    assert connection.client.supply(project) < local.STAKE
    assert connection.client.claimable(0, local.verifier_of(connection).pubkey()) > 0
    evidence = connection.fetch(
        now.metrics_irys_id, now.metrics_hash, local.verifier_of(connection).pubkey(), "evidence"
    )
    assert attestation.open_envelope(evidence)[1]["predicate"]["verdict"]["kind"] == "reject"


def test_a_release_under_an_active_lock_is_left_to_lapse(connection: Connection) -> None:
    local.propose(connection)
    done = settled(connection, 0, releasing)
    now = connection.client.proposal(0)
    if done.status is ProposalStatus.PENDING:  # a reviewer may give back at once
        assert record(connection)[-1]["event"] == "landed"
    else:
        assert done.status is now.status is ProposalStatus.IN_REVIEW
        assert done.signature == ""
        assert "lapse" in done.note
        assert record(connection)[-1] == {"event": "left_to_lapse", "until": now.review_lock_until}
    assert not any(now.metrics_hash)


def test_after_the_lock_has_lapsed_it_is_released_or_claimed_again(connection: Connection) -> None:
    local.propose(connection)
    settled(connection, 0, releasing)
    lock = connection.client.proposal(0).review_lock_until - connection.network.clock().unix_timestamp
    if lock > 0:
        local.embedded_of(connection).warp(lock + 1)
    done = settled(connection, 0, approving)
    assert done.status is ProposalStatus.APPROVED


# --- whose it is ---


def test_our_own_live_claim_is_adopted(connection: Connection) -> None:
    proposal = local.propose(connection)
    connection.client.call(ClaimReview(proposal.id), local.verifier_of(connection))
    client, network = local.watched(connection)
    assert settled(connection, 0, approving).status is ProposalStatus.APPROVED
    assert network.calls.count("send") == 1  # no second claim
    assert client.proposal(0).status is ProposalStatus.APPROVED


def test_somebody_elses_claim_is_left_alone(connection: Connection) -> None:
    proposal, other = local.propose(connection), local.stranger(connection)
    connection.client.call(AddVerifier(other.pubkey()), connection.wallet(None, AUTHORITY))
    connection.client.call(ClaimReview(proposal.id), other)
    _, network = local.watched(connection)
    with pytest.raises(NotOurs, match=rf"{other.pubkey()} until \d{{4}}-\d\d-\d\d \d\d:\d\d UTC") as refusal:
        settled(connection, 0, never)
    assert refusal.value.cure
    assert "send" not in network.calls
    # once it has lapsed, it is anybody's
    lock = proposal.review_lock_until or connection.client.proposal(0).review_lock_until
    local.embedded_of(connection).warp(max(1, lock - connection.network.clock().unix_timestamp + 1))
    assert settled(connection, 0, approving).status is ProposalStatus.APPROVED


@pytest.mark.parametrize("then", [ClaimReview, None])
def test_a_claim_that_another_verifier_won_in_the_same_moment(connection: Connection, then: type | None) -> None:
    """It is the other one's review, and no failure of this one."""
    proposal, other = local.propose(connection), local.stranger(connection)
    connection.client.call(AddVerifier(other.pubkey()), connection.wallet(None, AUTHORITY))

    def faster() -> None:
        direct = Client(local.embedded_of(connection))
        direct.call(ClaimReview(proposal.id), other)
        if then is None:
            direct.call(Reject(proposal.id, digest("a"), digest("b")), other, project_id=0)

    local.watched(connection, simulate=faster)
    if then is None:
        assert settled(connection, 0, never).status is ProposalStatus.REJECTED
        return
    with pytest.raises(NotOurs, match=str(other.pubkey())):
        settled(connection, 0, never)


def test_who_is_no_verifier_is_told_before_anything_is_done(connection: Connection) -> None:
    local.propose(connection)
    _, network = local.watched(connection)
    with pytest.raises(NotVerifier):
        settled(connection, 0, never, local.stranger(connection))
    assert "send" not in network.calls


@pytest.mark.skipif(sys.platform != "linux", reason="on macOS the sandbox is part of the system")
def test_a_machine_without_a_sandbox_claims_nothing(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.propose(connection)
    _, network = local.watched(connection)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentNotReady) as refusal:
        settled(connection, 0, never, ready=lambda found: check.prepare(connection, found, JudgePolicy()))
    assert "apt-get install bubblewrap" in refusal.value.cure
    with pytest.raises(EnvironmentNotReady):
        served(connection, monkeypatch, never, ready=None)
    assert "send" not in network.calls
    assert connection.client.proposal(0).status is ProposalStatus.PENDING


def test_what_is_settled_stays_settled(connection: Connection) -> None:
    local.propose(connection)
    settled(connection, 0, rejecting)
    again = settled(connection, 0, never)
    assert (again.checked, again.status, again.note) == (None, ProposalStatus.REJECTED, "proposal 0 is rejected")


# --- the frontier ---


def _overtake(connection: Connection, score: int, settlement: Client) -> None:
    """Another verifier approves another proposal meanwhile."""
    other = local.stranger(connection)
    client = Client(local.embedded_of(connection) if settlement is None else settlement.network)
    client.call(AddVerifier(other.pubkey()), connection.wallet(None, AUTHORITY))
    rival = local.propose(connection, code=local.archive(b"RIVAL = %d\n" % score), miner=local.stranger(connection))
    client.call(ClaimReview(rival.id), other)
    client.approve(
        other, client.proposal(rival.id), client.project(0), verified_score=score, metrics=(digest("m"), digest("i"))
    )


def test_a_frontier_that_moves_is_checked_again(connection: Connection) -> None:
    local.propose(connection)
    seen: list[int] = []

    def check(connection: Connection, proposal: Proposal) -> CheckResult:
        found = approving(connection, proposal)
        seen.append(found.project.current_best_aggregate_score)
        if len(seen) == 1:
            _overtake(connection, 2_550_000, connection.client)
            assert frontier_moved(found, connection.client.project(0))
        return found

    done = settled(connection, 0, check)
    assert seen == [2_500_000, 2_550_000]
    assert done.status is ProposalStatus.APPROVED
    assert done.checked is not None
    assert done.checked.judged.score is not None
    assert connection.client.project(0).current_best_aggregate_score == done.checked.judged.score > 2_700_000
    assert sum(entry.get("action") == "claim" for entry in record(connection)) == 1


def test_no_longer_better_than_the_new_best_it_is_rejected(connection: Connection) -> None:
    local.propose(connection)
    answers = [approving, rejecting]

    def check(connection: Connection, proposal: Proposal) -> CheckResult:
        found = answers.pop(0)(connection, proposal)
        if answers:
            _overtake(connection, 2_900_000, connection.client)
        return found

    assert settled(connection, 0, check).status is ProposalStatus.REJECTED
    assert connection.client.project(0).current_best_aggregate_score == 2_900_000


def test_a_frontier_that_never_rests_is_given_up(connection: Connection) -> None:
    local.propose(connection)
    scores = iter(range(2_510_000, 2_600_000, 1_000))
    count = 0

    def check(connection: Connection, proposal: Proposal) -> CheckResult:
        nonlocal count
        count += 1
        found = approving(connection, proposal)
        _overtake(connection, next(scores), connection.client)
        return found

    done = settled(connection, 0, check)
    assert count == MAX_CHECKS
    assert done.checked is None
    assert "kept changing" in done.note
    assert done.status in (ProposalStatus.PENDING, ProposalStatus.IN_REVIEW)


def test_a_rejection_does_not_depend_on_the_frontier(connection: Connection) -> None:
    local.propose(connection)

    def check(connection: Connection, proposal: Proposal) -> CheckResult:
        found = rejecting(connection, proposal)
        _overtake(connection, 2_510_000, connection.client)
        return found

    assert settled(connection, 0, check).status is ProposalStatus.REJECTED


# --- crashes ---


@pytest.mark.parametrize(
    ("name", "skip", "sends"),
    [
        ("send", 0, 2),  # before the claim went out
        ("confirm", 0, 1),  # after it, its end not known
        ("send", 1, 1),  # before the approval went out
        ("confirm", 1, 0),  # after it
    ],
)
@pytest.mark.parametrize("how", [approving, rejecting])
def test_killed_at_any_point_it_is_settled_once(
    connection: Connection, name: str, skip: int, sends: int, how: Answer
) -> None:
    local.propose(connection)
    left = [skip]

    def strike() -> None:
        if left[0]:
            left[0] -= 1
            network._before[name] = strike
            return
        raise Killed

    _, network = local.watched(connection, **{name: strike})
    with pytest.raises(Killed):
        settled(connection, 0, how)
    entry = record(connection)[-1]
    assert entry["event"] == "sent"
    _, network = local.watched(connection)
    done = settled(connection, 0, how)
    wanted = ProposalStatus.APPROVED if how is approving else ProposalStatus.REJECTED
    assert done.status is connection.client.proposal(0).status is wanted
    assert network.calls.count("send") == sends
    # what was sent before was looked up: landed or dead, as it was
    ended = next(
        e for e in record(connection) if e["event"] in ("landed", "dead") and e["signature"] == entry["signature"]
    )
    assert ended["event"] == ("landed" if name == "confirm" else "dead")


def test_killed_while_checking_it_goes_on_with_its_claim(connection: Connection) -> None:
    local.propose(connection)

    def killed(connection: Connection, proposal: Proposal) -> CheckResult:
        raise Killed

    with pytest.raises(Killed):
        settled(connection, 0, killed)
    assert connection.client.proposal(0).status is ProposalStatus.IN_REVIEW
    _, network = local.watched(connection)
    assert settled(connection, 0, approving).status is ProposalStatus.APPROVED
    assert network.calls.count("send") == 1


def test_a_refused_settlement_is_not_recorded_as_done(connection: Connection) -> None:
    """The score is no longer above the best when it is sent: simulated, refused, nothing signed."""
    local.propose(connection)
    made = []

    def check(connection: Connection, proposal: Proposal) -> CheckResult:
        found = approving(connection, proposal)
        made.append(found)
        return replace(found, judged=replace(found.judged, score=1))

    with pytest.raises(ChainError):
        settled(connection, 0, check)
    assert [entry["event"] for entry in record(connection)] == ["sent", "landed", "verdict"]
    assert connection.client.proposal(0).status is ProposalStatus.IN_REVIEW


# --- the record ---

EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("sent", {"action": "claim", "signature": "a", "last_valid": 1}),
    ("landed", {"signature": "a", "slot": 3}),
    ("verdict", {"kind": "approve", "attestation": "00"}),
    ("sent", {"action": "approve", "signature": "b", "last_valid": 2}),
    ("dead", {"signature": "b"}),
    ("left_to_lapse", {"until": 5}),
    ("sent", {"action": "reject", "signature": "c", "last_valid": 3}),
]


def test_a_record_knows_what_is_open(tmp_path: Path) -> None:
    made = SettlementRecord(tmp_path / "deep" / "settlement.jsonl")
    opened = []
    for event, fields in EVENTS:
        made.append(event, **fields)
        opened.append(made.open["signature"] if made.open else None)
    assert opened == ["a", None, None, "b", None, None, "c"]
    assert SettlementRecord(tmp_path / "deep" / "settlement.jsonl").open == {
        "action": "reject",
        "signature": "c",
        "last_valid": 3,
    }
    made.sending("claim")(Signature.default(), 9)
    assert SettlementRecord(tmp_path / "deep" / "settlement.jsonl").open == {
        "action": "claim",
        "signature": str(Signature.default()),
        "last_valid": 9,
    }


def test_cut_at_every_byte_a_record_is_a_prefix(tmp_path: Path) -> None:
    path = tmp_path / "settlement.jsonl"
    made, states = SettlementRecord(path), [None]
    for event, fields in EVENTS:
        made.append(event, **fields)
        states.append(made.open)  # type: ignore[arg-type]
    content = path.read_bytes()
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        again = SettlementRecord(path)
        assert again.open == states[content[:length].count(b"\n")]
        if length % 10:
            continue
        again.append("sent", action="x", signature="z", last_valid=1)
        reread = SettlementRecord(path).open
        assert reread is not None
        assert reread["signature"] == "z"


@given(st.binary(max_size=100))
def test_any_other_bytes_are_refused_or_a_record(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("record") / "settlement.jsonl"
    path.write_bytes(data + b"\n")
    with pytest.raises(InvalidData, match="damaged"):
        SettlementRecord(path)


# --- two of the same ---

HOLDER = """
import sys
from pathlib import Path
from common.terminal import plainly
from verifier.settle import alone
with alone(Path(sys.argv[1]), plainly(print)):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that is at work on the proposal until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_two_verifiers_with_one_home_and_key_settle_once(connection: Connection) -> None:
    """The second finds the first at work, or waits and finds it done; it neither measures nor attests."""
    local.propose(connection)
    folder = folder_of(connection.home, "embedded", "0")

    def first(connection: Connection, current: Proposal) -> CheckResult:
        with pytest.raises(NotOurs, match="at work on this proposal"):
            settled(connection, 0, never)
        return approving(connection, current)

    assert settled(connection, 0, first).status is ProposalStatus.APPROVED
    before = (folder / "attestation.json").read_bytes()
    assert settled(connection, 0, never).status is ProposalStatus.APPROVED
    assert (folder / "attestation.json").read_bytes() == before


def test_another_process_at_work_is_waited_for_and_named(tmp_path: Path) -> None:
    process, said = holder(tmp_path), list[str]()

    def say(text: str) -> None:
        said.append(text)
        process.kill()

    with process:
        with (
            pytest.raises(NotOurs, match="Another verifier on this machine"),
            settle.alone(tmp_path, plainly(said.append)),
        ):
            raise AssertionError("two are at work")
        assert said == []
        with settle.alone(tmp_path, plainly(say), 60):
            assert len(said) == 1
            assert str(tmp_path) in said[0]


def test_every_check_leaves_an_attestation_and_the_settling_one_is_marked(connection: Connection) -> None:
    """A dry check afterwards changes neither; the verifier's own audit of the marked one goes on saying yes."""
    folder = folder_of(connection.home, "embedded", str(local.propose(connection).id))
    first = releasing(connection, connection.client.proposal(0)).attestation
    done = settled(connection, 0, approving)
    assert done.checked is not None
    second = done.checked.attestation
    third = rejecting(connection, connection.client.proposal(0)).attestation
    assert len({first, second, third}) == 3
    assert (folder / settle.SETTLING).read_bytes() == second
    assert sha256(second).digest() == connection.client.proposal(0).metrics_hash
    for sealed in (first, second, third):
        assert check.file_of(folder, sealed).read_bytes() == sealed
    points, _ = audit((folder / settle.SETTLING).read_bytes(), connection.client, {}, policy=RULES)
    assert passed(points)


def test_a_dry_check_of_what_is_settled_says_so_first(connection: Connection) -> None:
    local.propose(connection)
    assert show.already(connection.client.proposal(0)) == ""
    settled(connection, 0, rejecting)
    now = connection.client.proposal(0)
    assert show.already(now) == (
        f"Proposal 0 is rejected already by {now.reviewer}, attestation {now.metrics_hash.hex()[:16]}. "
        "This check changes nothing on chain."
    )


def test_what_cannot_be_read_is_not_claimed(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    local.propose(connection)
    monkeypatch.setattr(check, "ready", lambda: "")
    _, network = local.watched(connection)

    def prepare(found: Proposal) -> None:
        check.prepare(connection, found, JudgePolicy())

    with monkeypatch.context() as gone:
        gone.setattr(connection.irys, "fetch_verified", _unavailable)
        with pytest.raises(ChainError, match="no gateway"):
            settled(connection, 0, never, ready=prepare)
    assert "send" not in network.calls
    assert connection.client.proposal(0).status is ProposalStatus.PENDING
    assert settled(connection, 0, rejecting, ready=prepare).status is ProposalStatus.REJECTED


def _unavailable(*_: Any, **__: Any) -> Any:
    raise ChainError("There is no gateway.", "Try again.")


def test_a_claim_that_a_fork_dropped_is_noticed_before_anything_is_settled(connection: Connection) -> None:
    """It was confirmed, and while we measured its block vanished: the review is claimed again."""
    proposal = local.propose(connection)
    before = encode_account(proposal)
    looks: list[int] = []

    def how(connection: Connection, current: Proposal) -> CheckResult:
        looks.append(current.id)
        if len(looks) == 1:
            live.put(connection.home, (live.PDAS.proposal(0), before, PROGRAM_ID))
        return rejecting(connection, current)

    assert settled(connection, 0, how).status is ProposalStatus.REJECTED
    assert looks == [0, 0]


def test_a_verdict_is_recorded_once_it_is_final(connection: Connection) -> None:
    local.propose(connection)
    how: list[tuple[str, bool]] = []

    class Watching(local.Watched):
        def confirm(self, signature: Signature, last_valid_block_height: int, **more: Any) -> Any:
            how.append((str(signature), more.get("final", False)))
            return super().confirm(signature, last_valid_block_height, **more)

    connection.client = Client(Watching(connection.network))
    done = settled(connection, 0, rejecting)
    assert [final for _, final in how] == [False, True]
    assert how[1][0] == done.signature


# --- the unattended loop ---


def served(
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    how: Answer,
    retries: int = 3,
    ready: settle.Ready | None = ready,
    told: list[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    def check(connection: Connection, proposal: Proposal, *_: Any, **__: Any) -> CheckResult:
        return how(connection, proposal)

    monkeypatch.setattr("verifier.check.check_proposal", check)
    return serve.serve(
        connection,
        0,
        local.verifier_of(connection),
        JudgePolicy(),
        View(quiet=True),
        once=True,
        every=1.0,
        retries=retries,
        trust_harness=False,
        ready=ready,
        tell=(told if told is not None else []).append,
        sleep=lambda _: None,
        now=iter(range(0, 10**9, 1000)).__next__,
    )


def test_the_loop_settles_all_and_one_bad_one_stops_no_other(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        local.propose(connection)
    tries: dict[int, int] = {}

    def how(connection: Connection, proposal: Proposal) -> CheckResult:
        tries[proposal.id] = tries.get(proposal.id, 0) + 1
        if proposal.id == 1:
            raise TrainerError("This one cannot be checked.", "Never.")
        if proposal.id == 2:
            return releasing(connection, proposal)
        return checked(connection, proposal, runs(0.2 if proposal.id == 0 else -0.05))

    told: list[dict[str, Any]] = []
    results = served(connection, monkeypatch, how, told=told)
    assert tries == {0: 1, 1: 3, 2: 1, 3: 1}
    assert [(event["event"], event["proposal"]) for event in told] == [
        *(("settlement", 0), ("release", 2), ("settlement", 3))
    ]
    statuses = [proposal.status for proposal in connection.client.proposals(0)]
    assert (statuses[0], statuses[3]) == (ProposalStatus.APPROVED, ProposalStatus.REJECTED)
    said = [(result["proposal"], result["status"]) for result in results]
    assert said[:4] == [(0, "approved"), (1, "failed"), (2, statuses[2].name.lower()), (3, "rejected")]
    assert said[4:] == [(1, "failed"), (1, "failed")]


def test_the_loop_waits_for_nobody_elses_review(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    other, proposal = local.stranger(connection), local.propose(connection)
    connection.client.call(AddVerifier(other.pubkey()), connection.wallet(None, AUTHORITY))
    connection.client.call(ClaimReview(proposal.id), other)
    results = served(connection, monkeypatch, never, retries=2)
    assert [result["status"] for result in results] == ["waiting"]
    assert "in review by" in results[0]["note"]
    assert sha256(b"").digest() != connection.client.proposal(0).metrics_hash


def test_nothing_pending(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    assert served(connection, monkeypatch, never) == []


@pytest.mark.parametrize(("tries", "seconds"), [(1, 30), (2, 60), (3, 120), (7, 1920), (8, 3600), (10**6, 3600)])
def test_the_pause_grows_up_to_an_hour(tries: int, seconds: float) -> None:
    assert serve.pause(tries, 30.0) == seconds


def released_for(reason: Reason) -> Answer:
    """A check of a machine that found this of its own fault."""

    def how(connection: Connection, proposal: Proposal) -> CheckResult:
        return checked(connection, proposal, [], findings=(CaseFinding(reason, Fault.HOST, "It is so."),))

    return how


class Unattended:
    """`verifier run` with its own clock, for so many seconds; `at` are the times of its checks, `said` its words."""

    def __init__(self, connection: Connection, monkeypatch: pytest.MonkeyPatch, how: Answer, seconds: float) -> None:
        self.at: list[float] = []
        self.said: list[str] = []
        self._now, view = 0.0, View(quiet=True)

        class Over(BaseException):
            pass

        def check(connection: Connection, proposal: Proposal, *_: Any, **__: Any) -> CheckResult:
            self.at.append(self._now)
            return how(connection, proposal)

        def sleep(pause: float) -> None:
            self._now += max(1.0, pause)
            if self._now > seconds:
                raise Over

        monkeypatch.setattr("verifier.check.check_proposal", check)
        monkeypatch.setattr(view, "say", lambda text, style="": self.said.append(text))
        with pytest.raises(Over):
            serve.serve(
                connection,
                0,
                local.verifier_of(connection),
                JudgePolicy(),
                view,
                once=False,
                every=10.0,
                retries=3,
                trust_harness=False,
                ready=ready,
                sleep=sleep,
                now=lambda: self._now,
            )


@pytest.fixture
def free_at_once(connection: Connection) -> Connection:
    """A connection whose released proposals are pending at once, as of the program that allows it."""
    local.propose(connection)
    if settled(connection, 0, releasing).status is not ProposalStatus.PENDING:
        pytest.fail("this program's releases must wait for the lock: the test needs another image")
    return connection


def test_a_release_whose_reason_may_pass_is_looked_at_again_with_a_growing_pause(
    free_at_once: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Unattended(free_at_once, monkeypatch, released_for(Reason.DATA_DIFFERS), 400)
    assert run.at == [0, 10, 30, 70, 150, 310]


def test_a_release_that_would_come_again_waits_for_another_best(
    free_at_once: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same runs are on record: to claim the review again would only keep others from it."""
    connection, other = free_at_once, list[Proposal]()

    def how(connection: Connection, proposal: Proposal) -> CheckResult:
        if proposal.id == 1:
            return checked(connection, proposal, runs(0.2))
        if not other:
            other.append(local.propose(connection, code=local.archive(b"LR = 2\n")))
        return released_for(Reason.HARDWARE_DIFFERS)(connection, proposal)

    run = Unattended(connection, monkeypatch, how, 400)
    assert run.at == [0, 10, 20]  # itself, the one that becomes the best, and itself against that
    assert connection.client.proposal(1).status is ProposalStatus.APPROVED


@pytest.mark.parametrize("reason", [Reason.NOT_READY, Reason.INCUMBENT_FAILS])
def test_runs_that_are_thrown_away_are_not_made_for_ever(
    free_at_once: Connection, monkeypatch: pytest.MonkeyPatch, reason: Reason
) -> None:
    """A script can leave load behind, or end as only a machine should: each check is as dear as any, for one stake."""

    def how(connection: Connection, proposal: Proposal) -> CheckResult:
        return checked(connection, proposal, runs(-0.1), findings=(CaseFinding(reason, Fault.HOST, "It is so."),))

    run = Unattended(free_at_once, monkeypatch, how, 4000)
    assert run.at == [0, 10, 30]


def test_a_full_disk_ends_nothing(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    local.propose(connection)
    left = [OSError(errno.ENOSPC, "No space left on device", "runs.jsonl")] * 2

    def how(connection: Connection, proposal: Proposal) -> CheckResult:
        if left:
            raise left.pop()
        return rejecting(connection, proposal)

    run = Unattended(connection, monkeypatch, how, 100)
    assert run.at == [0, 10, 30]
    assert run.said.count("  This machine failed: No space left on device (runs.jsonl).") == 2
    assert connection.client.proposal(0).status is ProposalStatus.REJECTED


def test_a_node_that_fails_is_said_and_asked_again(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    local.propose(connection)
    refresh, failing = Follower.refresh, [2, 3]

    def sometimes(follower: Follower) -> None:
        failing[:] = [left - 1 for left in failing]
        if 0 in failing:
            raise NetworkUnreachable("The node is gone.", "Ask later.")
        refresh(follower)

    monkeypatch.setattr(Follower, "refresh", sometimes)
    run = Unattended(connection, monkeypatch, rejecting, 100)
    assert run.said.count("What is pending is not known: The node is gone.") == 2
    assert run.at == [20]
    failing[:] = [2]
    with pytest.raises(NetworkUnreachable, match="gone"):
        served(connection, monkeypatch, never)


def test_an_account_that_cannot_be_read_is_said_once_and_stops_nothing(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.propose(connection), local.propose(connection, code=local.archive(b"LR = 2\n"))
    address = connection.client.pdas.proposal(0)
    data = bytearray(encode_account(connection.client.proposal(0)))
    data[352] = 9  # the status
    live.put(connection.home, (address, bytes(data), PROGRAM_ID))
    run = Unattended(connection, monkeypatch, rejecting, 100)
    assert run.said.count(f"cannot read the proposal account {address}; going on without it") == 1
    assert connection.client.proposal(1).status is ProposalStatus.REJECTED
