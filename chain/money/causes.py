"""Why a transaction is refused: what is so, and then what to do. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

from solders.pubkey import Pubkey

from chain.errors import ChainError, InsufficientFunds, TransactionFailed
from chain.network.base import Simulation, sol
from chain.program.accounts import Proposal, ProposalStatus
from chain.program.errors import (
    FRAMEWORK,
    ExpiryNotReached,
    LockActive,
    LockExpired,
    ProgramError,
    WrongReviewer,
    WrongStatus,
    error_for,
)

_TAKEN = re.compile(r"account Address \{ address: (\w{32,44}), base: \w+ \} already in use")
_NEED = re.compile(r"insufficient lamports \d+, need (\d{1,20})$")
EXPIRY = 7 * 24 * 3600  # seconds after its submission


def refusal_of(simulation: Simulation, payer: Pubkey, balance: Callable[[Pubkey], int]) -> ChainError:
    """The refusal of a transaction that failed in simulation; `balance` reads a wallet's lamports."""
    code, logs, error = simulation.program_error, simulation.logs, simulation.error or ""
    if code is not None and code >= FRAMEWORK:
        return error_for(code, logs)
    if needed := next((match[1] for line in logs if (match := _NEED.search(line))), ""):
        return InsufficientFunds(
            f"The wallet {payer} holds {sol(balance(payer))}; this needs at least {sol(int(needed))}.",
            "Fund it (`chain wallet airdrop` on a local network), or spend less.",
        )
    if any("Error: insufficient funds" in line for line in logs):  # the token program's words
        return InsufficientFunds(
            f"The wallet {payer} holds fewer of the project's tokens than this needs.",
            "Buy some with `chain token buy`, or name a smaller amount.",
        )
    if taken := next((match[1] for line in logs if (match := _TAKEN.search(line))), ""):
        return TransactionFailed(f"The account {taken} exists already.", "Nothing was sent.", logs)
    # Codes 0 and 1 are the token program's "not enough rent" and "insufficient funds".
    lacking = code == 1 or any("insufficient" in line.lower() for line in logs)
    if lacking or "AccountNotFound" in error or "account not found" in error:
        return InsufficientFunds(
            f"The wallet {payer} cannot pay for this: it holds {sol(balance(payer))}.",
            "Fund it (`chain wallet airdrop` on a local network).",
        )
    return TransactionFailed(f"The transaction would fail: {error}.", "Nothing was sent.", logs)


def with_cause(error: ProgramError, proposal: Proposal) -> ProgramError:
    """The refusal with what is so of the proposal it is about, where that is its cause."""
    return type(error)(error.code, cause(error, proposal) or error.text, error.cure, error.logs)


def cause(error: ProgramError, proposal: Proposal) -> str:
    """One sentence without a full stop; "" where the proposal does not tell."""
    name, reviewer = f"proposal {proposal.id}", proposal.reviewer
    match error:
        case WrongStatus() if proposal.status is ProposalStatus.IN_REVIEW:
            return f"{name} is in review by {reviewer} until {_time(proposal.review_lock_until)}"
        case WrongStatus() if proposal.status is ProposalStatus.PENDING:
            return f"{name} is pending: its review must be claimed first"
        case WrongStatus():
            return f"{name} is {proposal.status.name.lower()} already"
        case WrongReviewer():
            return f"{name} is in review by {reviewer}"
        case LockActive():
            return f"{name} is in review by {reviewer}, who has it until {_time(proposal.review_lock_until)}"
        case LockExpired():
            return f"the review of {name} lapsed at {_time(proposal.review_lock_until)}"
        case ExpiryNotReached():
            return f"{name} can expire from {_time(proposal.submitted_at + EXPIRY)} on"
    return ""


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return str(seconds)
