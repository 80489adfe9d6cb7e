"""What can go wrong between this client and a chain, a wallet or Irys.

Every refusal says what was expected, what was found and what to do about it. The base is click's
own exception, so that a command prints it as one line on stderr and exits with status 1, and a
program that imports these modules catches `ChainError`.
"""

from __future__ import annotations

import click


class ChainError(click.ClickException):
    """A refusal with a cure.

    `problem` is one sentence on what was expected and what was found; `cure` is one sentence on
    what to do, or empty where nothing can be done.
    """

    def __init__(self, problem: str, cure: str = "") -> None:
        super().__init__(f"{problem} {cure}".strip())
        self.problem = problem
        self.cure = cure


class NetworkUnreachable(ChainError):
    """No answer, or an answer that is not JSON-RPC or not Irys, within the time limit."""


class InvalidData(ChainError):
    """Bytes from outside that do not parse, or do not match the hash or signature they claim."""


class NotFound(ChainError):
    """An account, transaction or artifact that does not exist."""


class InsufficientFunds(ChainError):
    """A wallet that cannot pay for what was asked."""


class TransactionFailed(ChainError):
    """A transaction that was refused in simulation or failed on chain; `logs` hold the program's."""

    def __init__(self, problem: str, cure: str = "", logs: tuple[str, ...] = ()) -> None:
        super().__init__(problem, cure)
        self.logs = logs
