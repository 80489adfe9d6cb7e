"""Settlement: claim, check, then approve, reject or release, safely.

- The review is claimed before anything is measured; a live claim of our own is adopted.
- Just before approving the project is read again: where the best moved, the check is made again.
- A verdict is recorded as settled only once its transaction is final; a claim that a fork dropped is noticed before
  anything is settled on it.
- Every step is in `settlement.jsonl` beside the attestation: an intent with its signature before it is
  sent, the result once it is known. A send that failed is never recorded as done; what an interrupted
  settlement sent is looked up before anything else is sent.
- One process at a time is at work on a proposal: the lock beside the record is held from the first look to the end.
- LockActive on a release is recorded and the lock left to lapse. Either way the stake stays in escrow, for the next
  review or, 7 days after the submission, for whoever has the proposal expire.

`next_step` decides, as a pure function; the rest does what it says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature

from chain.connection.opening import Connection
from chain.errors import ChainError, InvalidData
from chain.irys.client import Role
from chain.money.client import Client, Landed
from chain.pages.show import when
from chain.program.accounts import Project, Proposal, ProposalStatus
from chain.program.errors import LockActive, NotVerifier, WrongStatus, error_for
from chain.program.instructions import ClaimReview, Reject, ReleaseReview
from common.files import lock, write_atomic
from common.jsonl import Jsonl
from common.terminal import Say, Step, plainly
from trainer.judging.verdict import VerdictKind
from verifier.check import CheckResult

MAX_CHECKS = 3
SETTLING = "attestation.json"
"""The attestation that settles, beside those of all checks (`check.file_of`)."""
_CURE = "Move it away to start again."
LOCK_MARGIN = 120  # seconds of the review lock within which nothing new is begun

Ready = Callable[[Proposal], object]
Check = Callable[[Proposal], CheckResult]


class SettlementStep(StrEnum):
    """What to do about a proposal."""

    CLAIM = "claim"
    CHECK = "check"
    WAIT = "wait"
    DONE = "done"


class NotOurs(ChainError):
    """A proposal that somebody else is reviewing or has settled."""


@dataclass(frozen=True, slots=True)
class Settled:
    """How a proposal was left: the verdict's kind, the status on chain now, and our transaction, if any."""

    checked: CheckResult | None
    status: ProposalStatus
    signature: str
    note: str


def next_step(proposal: Proposal, us: Pubkey, now: int) -> SettlementStep:
    """Claim what is pending or whose lock has lapsed, check what we hold, wait for what others hold."""
    if proposal.status is ProposalStatus.PENDING:
        return SettlementStep.CLAIM
    if proposal.status is not ProposalStatus.IN_REVIEW:
        return SettlementStep.DONE
    if now > proposal.review_lock_until - (LOCK_MARGIN if proposal.reviewer == us else 0):
        return SettlementStep.CLAIM if now > proposal.review_lock_until else SettlementStep.WAIT
    return SettlementStep.CHECK if proposal.reviewer == us else SettlementStep.WAIT


def frontier_moved(checked: CheckResult, now: Project) -> bool:
    """Whether another proposal was approved since the check began."""
    then = checked.project
    return (then.current_best_aggregate_score, then.current_best_code_hash) != (
        now.current_best_aggregate_score,
        now.current_best_code_hash,
    )


class SettlementRecord:
    """The append-only record of one settlement."""

    def __init__(self, path: Path) -> None:
        self.open: dict[str, Any] | None = None
        self.folder = path.parent
        self._lines = Jsonl(path, InvalidData, _CURE)
        for entry in self._lines.load():
            self._fold(entry)

    def append(self, event: str, **fields: Any) -> None:
        """On disk before this returns."""
        entry = {"event": event, **fields}
        self._lines.append(entry)
        self._fold(entry)

    def sending(self, action: str) -> Callable[[Signature, int], None]:
        """What `Client.execute` calls before it sends."""
        return lambda signature, last_valid: self.append(
            "sent", action=action, signature=str(signature), last_valid=last_valid
        )

    def _fold(self, entry: dict[str, Any]) -> None:
        """`open` is the transaction that was sent and whose outcome is unknown."""
        try:
            if entry["event"] == "sent":
                self.open = {key: entry[key] for key in ("action", "signature", "last_valid")}
            elif entry["event"] in ("landed", "dead"):
                self.open = None
        except KeyError as error:
            raise InvalidData(f"{self._lines.path} does not parse: an entry lacks {error}.", _CURE) from None


@contextlib.contextmanager
def alone(folder: Path, showing: Step, wait: float = 0.0) -> Iterator[None]:
    """Be the only process that is at work on the proposal whose record is in `folder`.

    Another one is waited for, which is shown; NotOurs where it has not finished after `wait` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting = f"waiting for another verifier that is at work on this proposal ({folder})"
    with (folder / "lock").open("ab") as file:
        with contextlib.ExitStack() as shown:
            free = lock(file, wait=wait, every=0.5, busy=lambda: shown.enter_context(showing(waiting)))
        if not free:
            raise NotOurs(
                f"Another verifier on this machine is at work on this proposal ({folder}).",
                "Let it finish, or stop it.",
            )
        yield


def settle(
    connection: Connection,
    proposal_id: int,
    key: Keypair,
    folder: Path,
    ready: Ready,
    check: Check,
    say: Say,
    *,
    wait: float = 0.0,
    step: Step | None = None,
) -> Settled:
    """Bring one proposal to an end, or as far as it goes now. NotOurs where it is not for us, or another process on
    this machine has kept it for `wait` seconds.

    `ready` reads and checks everything that needs no review, and raises if this machine could not judge the
    proposal: before a claim, which would block other verifiers. `step` shows what waits for the chain or for Irys.
    """
    showing = step or plainly(say)
    with alone(folder, showing, wait):
        return _settle(connection, proposal_id, key, folder, ready, check, say, showing)


def _settle(
    connection: Connection,
    proposal_id: int,
    key: Keypair,
    folder: Path,
    ready: Ready,
    check: Check,
    say: Say,
    showing: Step,
) -> Settled:
    client, record = connection.client, SettlementRecord(folder / "settlement.jsonl")
    if not client.is_verifier(key.pubkey()):
        raise error_for(NotVerifier.code)
    released = _resume(client, record, showing)
    if released:
        return Settled(None, ProposalStatus.PENDING, released, "released before the interruption")
    for _ in range(MAX_CHECKS):
        proposal = client.proposal(proposal_id)
        step = next_step(proposal, key.pubkey(), client.network.clock().unix_timestamp)
        if step is SettlementStep.DONE:
            return Settled(None, proposal.status, "", f"proposal {proposal_id} is {proposal.status.name.lower()}")
        if step is SettlementStep.WAIT:
            raise NotOurs(
                f"Proposal {proposal_id} is in review by {proposal.reviewer} until "
                f"{when(proposal.review_lock_until)} UTC.",
                "Try again after that.",
            )
        if step is SettlementStep.CLAIM:
            ready(proposal)
            try:
                with showing("claiming the review"):
                    done = client.call(ClaimReview(proposal.id), key, before_send=record.sending("claim"))
            except (LockActive, WrongStatus):  # somebody else was faster: look again whose it is
                _resume(client, record, showing)
                continue
            _landed(record, done)
            proposal = client.proposal(proposal_id)
        else:
            say("continuing with our own claim")
        checked = check(proposal)
        if checked.verdict.kind is VerdictKind.APPROVE and frontier_moved(checked, client.project(proposal.project_id)):
            say("the on-chain best changed during the check; checking again against the new one")
            continue
        now = client.proposal(proposal_id)
        if (now.status, now.reviewer) != (ProposalStatus.IN_REVIEW, key.pubkey()):
            say("the review is no longer ours: the claim was dropped with a fork, or its lock has lapsed")
            continue
        with showing(f"settling: {checked.verdict.kind.value}"):
            return _conclude(connection, proposal, key, checked, record)
    proposal = client.proposal(proposal_id)
    if (proposal.status, proposal.reviewer) != (ProposalStatus.IN_REVIEW, key.pubkey()):
        raise NotOurs(f"Other verifiers keep taking the review of proposal {proposal_id}.", "Try again later.")
    with showing(f"settling: {VerdictKind.RELEASE.value}"):
        return _release(connection, proposal, key, None, record, "the on-chain best kept changing")


def _conclude(
    connection: Connection, proposal: Proposal, key: Keypair, checked: CheckResult, record: SettlementRecord
) -> Settled:
    client, kind = connection.client, checked.verdict.kind
    if kind is VerdictKind.RELEASE:
        return _release(connection, proposal, key, checked, record, checked.verdict.explanation)
    role = Role.VERIFIER_METRICS if kind is VerdictKind.APPROVE else Role.VERIFIER_REJECT_EVIDENCE
    record.append("verdict", kind=kind.value, attestation=checked.digest.hex())
    write_atomic(record.folder / SETTLING, checked.attestation)
    metrics = connection.publish(key, role, checked.attestation, "application/json")
    before = record.sending(kind.value)
    if kind is VerdictKind.APPROVE:
        assert checked.judged.score is not None
        done = client.approve(
            key,
            proposal,
            checked.project,
            verified_score=checked.judged.score,
            metrics=metrics,
            before_send=before,
            final=True,
        )
    else:
        done = client.call(
            Reject(proposal.id, *metrics), key, project_id=proposal.project_id, before_send=before, final=True
        )
    _landed(record, done)
    status = ProposalStatus.APPROVED if kind is VerdictKind.APPROVE else ProposalStatus.REJECTED
    return Settled(checked, status, str(done.receipt.signature), kind.value)


def _release(
    connection: Connection,
    proposal: Proposal,
    key: Keypair,
    checked: CheckResult | None,
    record: SettlementRecord,
    why: str,
) -> Settled:
    client = connection.client
    record.append("verdict", kind=VerdictKind.RELEASE.value, attestation=checked.digest.hex() if checked else None)
    try:
        done = client.call(ReleaseReview(proposal.id), key, before_send=record.sending("release"), final=True)
    except LockActive:
        record.append("left_to_lapse", until=proposal.review_lock_until)
        note = f"not released, the lock will lapse: {why}"
        return Settled(checked, proposal.status, "", note)
    _landed(record, done)
    return Settled(checked, ProposalStatus.PENDING, str(done.receipt.signature), f"released: {why}")


def _resume(client: Client, record: SettlementRecord, showing: Step) -> str:
    """Find out the outcome of a transaction sent by an interrupted settlement.

    The signature of a release that landed, else "": that settlement is at its end, though the proposal is free again.
    """
    sent = record.open
    if sent is None:
        return ""
    with showing(f"looking up the {sent['action']} sent before the interruption"):
        done = client.outcome(Signature.from_string(sent["signature"]), sent["last_valid"])
    record.append("landed" if done else "dead", signature=sent["signature"])
    return str(sent["signature"]) if done and sent["action"] == "release" else ""


def _landed(record: SettlementRecord, done: Landed) -> None:
    record.append("landed", signature=str(done.receipt.signature), slot=done.receipt.slot)
