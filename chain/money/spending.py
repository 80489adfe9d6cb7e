"""What may be spent: real money only with explicit consent, and never more than a cap.

Rules, applied by `Client.execute` before anything is signed:

- Real money is that of mainnet, whatever name or URL it goes by: its genesis hash tells. It is spent only
  where `--network mainnet` was typed on the command line (an environment or a file is not enough) and a
  cap is given.
- Nothing is paid through a node of another cluster than the configured one.
- A cap bounds what the fee payers lose in all transactions of one command, fees and rent included. Reserved before
  signing is what the instructions themselves permit to leave the wallet (`permitted`), or what the simulation takes
  where that is more; and the transaction ends with a guard (`guard`), which fails it whole where more would leave.
- What was reserved stays counted, for a node that tells of a lower cost is not believed. Only where a transaction
  failed, and receipt and balance agree on what it cost, is the rest given back.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from solders.instruction import Instruction
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer

from chain.errors import ChainError
from chain.network.base import Network, sol
from chain.program import codec
from chain.program.addresses import ASSOCIATED_TOKEN_PROGRAM, SYSTEM_PROGRAM
from chain.program.instructions import INSTRUCTIONS

# Data bytes of what an instruction may create; a program that takes more is stopped by the guard.
SPACES: Mapping[str, int] = {
    "config": 65,
    "verifier_entry": 49,
    "project": 606,
    "mint": 82,
    "sol_vault": 17,
    "project_pool": 165,
    "token_metadata": 607,
    "proposal": 355,
    "proposal_escrow": 165,
    "claimable": 57,
    "buyer_token_account": 165,
}
_TOKEN_ACCOUNT = 165
_TRANSFER = struct.Struct("<IQ")  # of the system program: instruction 2, lamports
_KINDS = {kind.discriminator: kind for kind in INSTRUCTIONS.values()}
MAINNET_GENESIS = "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d"


class SpendingRefused(ChainError):
    """A transaction that would spend without consent."""


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
    """Why nothing may be spent on the network called `name` with this genesis hash; None if it may."""
    if terms.genesis and genesis != terms.genesis:
        return SpendingRefused(
            f"The node of {name} belongs to another cluster: its genesis hash is {genesis}, expected {terms.genesis}.",
            "Correct rpc_url, or use --network for the node's own network.",
        )
    if not terms.real and genesis != MAINNET_GENESIS:
        return None
    if not terms.real:
        return SpendingRefused(
            f"{name} is Solana's mainnet, and this would spend real money under another name.",
            "Use --network mainnet with --rpc-url for this node, and a cap, for example --max-spend 0.05.",
        )
    if not terms.typed:
        return SpendingRefused(
            f"This would spend real money on {name}, which is not named on the command line.",
            f"To allow that, add --network {name} and a cap, for example --max-spend 0.05.",
        )
    if terms.cap is None:
        return SpendingRefused(
            f"This would spend real money on {name} without a cap.",
            "Add --max-spend SOL, or set max_spend in a configuration file.",
        )
    return None


@dataclass(frozen=True, slots=True)
class Permitted:
    """What instructions permit to leave a wallet: `lamports`, and the rent of `created` (address: data bytes), as far
    as those accounts do not exist yet.
    """

    lamports: int
    created: Mapping[Pubkey, int]


def permitted(steps: Sequence[Instruction], payer: Pubkey, program_id: Pubkey) -> Permitted:
    """What these instructions permit to leave `payer`'s wallet, fees apart; InvalidData if one does not decode."""
    lamports, created = 0, dict[Pubkey, int]()
    for step in steps:
        data, keys = bytes(step.data), [meta.pubkey for meta in step.accounts]
        if step.program_id == SYSTEM_PROGRAM and len(data) == _TRANSFER.size and data[:4] == b"\2\0\0\0":
            lamports += _TRANSFER.unpack(data)[1] if keys[0] == payer != keys[1] else 0
        elif step.program_id == ASSOCIATED_TOKEN_PROGRAM:
            created[keys[1]] = _TOKEN_ACCOUNT
        elif step.program_id == program_id and (kind := _KINDS.get(data[:8])):
            args: object = codec.decode(kind.args, data, 8)[0]
            lamports += getattr(args, kind.pays) if kind.pays else 0
            slots = zip(kind.accounts, keys, strict=True)
            created |= {key: SPACES[slot.name] for slot, key in slots if slot.created}
    return Permitted(lamports, created)


def guard(payer: Pubkey, floor: int) -> list[Instruction]:
    """A last instruction that fails the whole transaction unless the wallet still holds `floor` lamports."""
    if floor <= 0:
        return []
    return [transfer(TransferParams(from_pubkey=payer, to_pubkey=payer, lamports=floor))]


def exceeded(reserved: int) -> SpendingRefused:
    """The refusal where a guard failed a transaction, in simulation or on chain."""
    return SpendingRefused(
        f"More than the {sol(reserved)} set aside for this transaction would have left the wallet.",
        "It failed as a whole; at most its fee was lost. Check the network, or the price, and try again.",
    )


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
        """SpendingRefused if nothing may be spent on this network; asked of it once."""
        if not self._agreed:
            refused = refusal(self.terms, network.name, str(network.genesis_hash))
            if refused is not None:
                raise refused
            self._agreed = True

    def reserve(self, lamports: int) -> int:
        """Set aside what a transaction may take (nothing for a gain); SpendingRefused if the cap forbids."""
        taken, cap = max(0, lamports), self.terms.cap
        if cap is not None and self.spent + taken > cap:
            raise SpendingRefused(
                f"This may take {sol(taken)}; {sol(max(0, cap - self.spent))} are left of the cap of {sol(cap)}.",
                "Nothing was sent. To allow it, raise --max-spend.",
            )
        self.spent += taken
        return taken

    def settle(self, reserved: int, taken: int) -> None:
        """Put what a failed transaction took in the place of what was reserved for it, where that is less."""
        self.spent -= max(0, reserved - max(0, taken))
