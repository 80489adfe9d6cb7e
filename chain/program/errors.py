"""The program's error codes, declared once: each is an exception with the program's message and a cure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from chain.errors import TransactionFailed

FRAMEWORK = 100  # the first error code of the framework; its own begin at 6000, those of other programs are smaller
MAX_TOKEN_NAME = 32  # bytes; Metaplex' own limits
MAX_TOKEN_SYMBOL = 10


class ProgramError(TransactionFailed):
    """The program refused; `code` is its custom error code, `logs` what it logged."""

    code: int = 0
    text: str = ""
    advice: str = ""

    def __init__(self, code: int, message: str, cure: str = "", logs: tuple[str, ...] = ()) -> None:
        name = "" if type(self) is ProgramError else f"{type(self).__name__}, "
        super().__init__(f"The program refused it: {message.rstrip('.')} ({name}error {code}).", cure, logs)
        self.code = code
        self.text = message


def _error(code: int, name: str, message: str, advice: str = "") -> type[ProgramError]:
    body = {"code": code, "text": message, "advice": advice, "__doc__": message, "__module__": __name__}
    return type(name, (ProgramError,), body)


_CHECK_KEY = "Use the keypair of the program's authority."
_LOOK = "Look at it with `chain proposal show`."
Unauthorized = _error(6000, "Unauthorized", "The signer is not the authority", _CHECK_KEY)
AlreadyRegistered = _error(6001, "AlreadyRegistered", "The verifier is already registered")
NotRegistered = _error(6002, "NotRegistered", "The verifier is not registered")
NotVerifier = _error(
    6003, "NotVerifier", "The signer is not a registered verifier", "The authority runs `chain verifier add`."
)
ZeroAddress = _error(6004, "ZeroAddress", "The zero address is not allowed", "Name another address.")
UnknownProject = _error(6005, "UnknownProject", "There is no such project", "See `chain project list`.")
UnknownProposal = _error(6006, "UnknownProposal", "There is no such proposal", "See `chain proposal list`.")
WrongStatus = _error(6007, "WrongStatus", "The proposal's status does not allow this", _LOOK)
WrongReviewer = _error(6008, "WrongReviewer", "Another verifier claimed this review", _LOOK)
LockActive = _error(6009, "LockActive", "The review lock is still active", "Try again once it has lapsed.")
LockExpired = _error(6010, "LockExpired", "The review lock has expired", "Release the review, then claim it again.")
ExpiryNotReached = _error(6011, "ExpiryNotReached", "The proposal has not reached its expiry", _LOOK)
ScoreNotImproved = _error(
    6012, "ScoreNotImproved", "The score does not improve on the current best", "See `chain project show`."
)
ZeroStake = _error(6013, "ZeroStake", "The stake must be greater than zero", "Give a stake of 1 or more.")
ZeroAmount = _error(6014, "ZeroAmount", "The amount must be greater than zero", "Give an amount of 1 or more.")
InsufficientPayment = _error(
    6015, "InsufficientPayment", "The payment does not cover the price", "See the price in `chain project show`."
)
OverSupply = _error(6016, "OverSupply", "The amount exceeds the token's supply", "Name a smaller amount.")
PoolCapExceeded = _error(6017, "PoolCapExceeded", "The reward would exceed the miner pool's cap")
NothingToClaim = _error(6018, "NothingToClaim", "There is nothing to claim")
SolTransferFailed = _error(6019, "SolTransferFailed", "The transfer of lamports failed")
MathOverflow = _error(6020, "MathOverflow", "Arithmetic overflow", "Name a smaller amount.")
InvalidCurve = _error(
    6021, "InvalidCurve", "The curve is invalid: base_price + slope must be above zero", "Give one of them above 0."
)
StringTooLong = _error(
    6022,
    "StringTooLong",
    "The string is too long",
    f"A token's name has at most {MAX_TOKEN_NAME} bytes, its symbol {MAX_TOKEN_SYMBOL}.",
)
ERRORS: Mapping[int, type[ProgramError]] = {kind.code: kind for kind in ProgramError.__subclasses__()}

_OF_ACCOUNT: Mapping[int, str] = {
    2006: "is not the one that belongs to these IDs",
    2014: "holds another token",
    2015: "belongs to another owner",
    3002: "is of another kind",
    3003: "cannot be read",
    3007: "does not exist, or belongs to another program",
    3012: "does not exist yet",
    3014: "is not the owner's usual token account",
}
"""What is so where the framework that the program is written in refuses an account, by its error code."""

_ACCOUNT = re.compile(r"AnchorError caused by account: (\w+)\. ")
_ERROR_MESSAGE = re.compile(r"AnchorError .*Error Number: (\d+)\. Error Message: (.*?)\.*$")


def error_for(code: int, logs: Sequence[str] = ()) -> ProgramError:
    """The exception of a custom error code, with the message the program itself logged where there is one.

    A code outside the program's own range gives a plain ProgramError: of an account, as far as the logs name one.
    """
    if code in _OF_ACCOUNT and (named := [match[1] for line in logs if (match := _ACCOUNT.search(line))]):
        return ProgramError(
            code,
            f"The account {named[-1].replace('_', ' ')} {_OF_ACCOUNT[code]}",
            "Check the IDs and --network, and that the wallet has the project's token.",
            tuple(logs),
        )
    found = [match[2] for line in logs if (match := _ERROR_MESSAGE.search(line)) and int(match[1]) == code]
    kind = ERRORS.get(code, ProgramError)
    message = found[-1][:200] if found else kind.text or "an error this client does not know"
    return kind(code, message, kind.advice, tuple(logs))
