"""What can go wrong between this client and a chain, a wallet or Irys."""

from __future__ import annotations

from common.errors import Refused


class ChainError(Refused):
    """Any refusal of this package."""


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
