"""What may be spent: real money only where that was agreed to, and never more than a cap.

Rules, applied by `Client.execute` before anything is signed:

- Real money is that of mainnet, whatever name or URL it goes by: its genesis hash tells. It is spent only
  where `--network mainnet` was typed on the command line (an environment or a file is not enough) and a
  cap is given.
- A node that turns out to be of another cluster than the one it is configured for is paid through by nobody.
- A cap bounds what the fee payers lose in all transactions of one command, fees and rent included. What a
  simulation takes is reserved before signing, corrected by what the transaction took once it has landed and
  given back where it is known never to land. What is still open stays reserved.
"""

from __future__ import annotations

from dataclasses import dataclass

from chain.errors import ChainError
from chain.network.base import LAMPORTS_PER_SOL, Network

MAINNET_GENESIS = "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d"


class SpendingRefused(ChainError):
    """A transaction that would spend what nobody agreed to."""


@dataclass(frozen=True, slots=True)
class SpendingTerms:
    """What was agreed to. `typed`: the network's own name stood on the command line; `real`: it is configured as
    one of real money; `cap` in lamports, None for no bound; `genesis` the hash it must have, "" for any.
    """

    typed: bool = False
    real: bool = False
    cap: int | None = None
    genesis: str = ""


def refusal(terms: SpendingTerms, name: str, genesis: str) -> SpendingRefused | None:
    """Why nothing may be spent on the network called `name` with this genesis hash; None where it may."""
    if terms.genesis and genesis != terms.genesis:
        return SpendingRefused(
            f"The node of {name} belongs to another cluster: its genesis hash is {genesis}, "
            f"expected is {terms.genesis}.",
            "Correct rpc_url, or name the network that the node belongs to.",
        )
    if not terms.real and genesis != MAINNET_GENESIS:
        return None
    if not terms.real:
        return SpendingRefused(
            f"{name} is Solana's mainnet, and this would spend real money under another name.",
            "Type --network mainnet, with --rpc-url for this node, and a cap such as --max-spend 0.05.",
        )
    if not terms.typed:
        return SpendingRefused(
            f"This would spend real money on {name}, which was not named on the command line.",
            f"Type --network {name} where you mean it, and a cap such as --max-spend 0.05.",
        )
    if terms.cap is None:
        return SpendingRefused(
            f"This would spend real money on {name} without a cap.",
            "Give one with --max-spend SOL, or as max_spend in a configuration file.",
        )
    return None


class SpendingBudget:
    """What one command may spend, and has."""

    def __init__(self, terms: SpendingTerms = SpendingTerms()) -> None:
        self.terms = terms
        self.spent = 0  # lamports, reservations included
        self._agreed = False

    @property
    def capped(self) -> bool:
        """Whether `reserve` needs to know what a transaction takes."""
        return self.terms.cap is not None

    def authorize(self, network: Network) -> None:
        """SpendingRefused where nothing may be spent on this network; asked of it once."""
        if not self._agreed:
            refused = refusal(self.terms, network.name, str(network.genesis_hash))
            if refused is not None:
                raise refused
            self._agreed = True

    def reserve(self, lamports: int) -> int:
        """Set aside what a transaction would take (nothing for a gain); SpendingRefused where the cap forbids."""
        taken, cap = max(0, lamports), self.terms.cap
        if cap is not None and self.spent + taken > cap:
            raise SpendingRefused(
                f"This would take {_sol(taken)} SOL, and of the cap of {_sol(cap)} SOL "
                f"{_sol(max(0, cap - self.spent))} are left.",
                "Nothing was sent. Raise --max-spend if you mean it.",
            )
        self.spent += taken
        return taken

    def settle(self, reserved: int, taken: int) -> None:
        """Put what a finished transaction took in the place of what was reserved for it."""
        self.spent += max(0, taken) - reserved


def _sol(lamports: int) -> str:
    return f"{lamports // LAMPORTS_PER_SOL}.{lamports % LAMPORTS_PER_SOL:09d}"
