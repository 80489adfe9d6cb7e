"""An error of the program names its cause: what is so of the proposal, not only what does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from chain.connection.opening import Connection
from chain.errors import InsufficientFunds
from chain.money.causes import cause
from chain.program.accounts import Proposal, ProposalStatus
from chain.program.errors import (
    ExpiryNotReached,
    LockActive,
    LockExpired,
    ProgramError,
    WrongReviewer,
    WrongStatus,
    ZeroStake,
    error_for,
)
from chain.program.instructions import Buy, ClaimReview, Expire, Reject
from tests import local
from tests.chain.svm import digest

PENDING, IN_REVIEW, APPROVED = ProposalStatus.PENDING, ProposalStatus.IN_REVIEW, ProposalStatus.APPROVED


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    with local.connect(local.home_with_project(tmp_path_factory.mktemp("home"))) as connection:
        local.propose(connection)
        yield connection


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        (WrongStatus, APPROVED, "proposal 0 is approved already"),
        (WrongStatus, ProposalStatus.EXPIRED, "proposal 0 is expired already"),
        (WrongStatus, PENDING, "proposal 0 is pending: its review must be claimed first"),
        (WrongStatus, IN_REVIEW, "proposal 0 is in review by {reviewer} until 1970-01-02 00:00 UTC"),
        (WrongReviewer, IN_REVIEW, "proposal 0 is in review by {reviewer}"),
        (LockActive, IN_REVIEW, "proposal 0 is in review by {reviewer}, who has it until 1970-01-02 00:00 UTC"),
        (LockExpired, IN_REVIEW, "the review of proposal 0 lapsed at 1970-01-02 00:00 UTC"),
        (ExpiryNotReached, PENDING, "proposal 0 can expire from 1970-01-08 00:00 UTC on"),
        (ZeroStake, PENDING, ""),
    ],
)
def test_the_cause(connection: Connection, kind: type[ProgramError], status: ProposalStatus, words: str) -> None:
    proposal = replace(connection.client.proposal(0), status=status, review_lock_until=24 * 3600, submitted_at=0)
    assert cause(error_for(kind.code), proposal) == words.format(reviewer=proposal.reviewer)


def test_a_time_out_of_range_is_a_number(connection: Connection) -> None:
    proposal: Proposal = replace(connection.client.proposal(0), review_lock_until=2**62)
    assert cause(error_for(LockExpired.code), proposal).endswith(str(2**62))


def test_what_a_person_reads(connection: Connection) -> None:
    client, verifier = connection.client, local.verifier_of(connection)
    with pytest.raises(WrongStatus, match="proposal 0 is pending: its review must be claimed first"):
        client.call(Reject(0, digest("a"), digest("b")), verifier, project_id=0)
    with pytest.raises(ExpiryNotReached, match="proposal 0 can expire from 20"):
        client.call(Expire(0), verifier, project_id=0)
    client.call(ClaimReview(0), verifier)
    with pytest.raises(LockActive, match=f"in review by {verifier.pubkey()}"):
        client.call(ClaimReview(0), verifier)


def test_money_that_lacks_is_named_with_what_is_needed(connection: Connection) -> None:
    poor = local.stranger(connection, 10**7)
    with pytest.raises(InsufficientFunds, match=r"holds 0\.01 SOL; this needs at least [\d,]+\.\d{1,9} SOL\."):
        connection.client.call(Buy(0, 10**12), poor)


@pytest.mark.parametrize(
    ("code", "words"),
    [(3007, "does not exist, or belongs to another program"), (3012, "does not exist yet"), (2014, "another token")],
)
def test_an_account_that_does_not_fit_is_named(code: int, words: str) -> None:
    line = (
        "Program log: AnchorError caused by account: seller_token_account. Error Code: X. "
        f"Error Number: {code}. Error Message: It is so."
    )
    refusal = error_for(code, [line])
    assert refusal.problem.startswith("The program refused it: The account seller token account ")
    assert words in refusal.problem
    assert refusal.cure
    assert error_for(code, [line.replace("caused by account: seller_token_account. ", "")]).text == "It is so"
