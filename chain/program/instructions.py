"""The program's instructions, each declared once: its arguments, and its accounts in wire order.

What a client sends follows from the declaration: the data starts with the first eight bytes of SHA-256 over
"global:claim_review" (the class's name in snake case), then come the Borsh arguments; `instruction_of` derives the
addresses. In an account list w is for writable, s for a signer, + for an account that the signer pays the rent of
where it does not exist yet; the first account is always the signer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from chain.program import codec
from chain.program.addresses import (
    ASSOCIATED_TOKEN_PROGRAM,
    METADATA_PROGRAM,
    RENT_SYSVAR,
    SYSTEM_PROGRAM,
    TOKEN_PROGRAM,
    Pdas,
    associated_token_account,
    token_metadata,
)
from chain.program.codec import I64, U64, Hash, discriminator


@dataclass(frozen=True, slots=True)
class AccountSlot:
    """One place in an instruction's account list."""

    name: str
    writable: bool
    signer: bool
    created: bool


@dataclass(frozen=True, slots=True)
class InstructionKind:
    """An instruction's arguments and its accounts, in wire order; `pays` names the argument that holds the most
    lamports it takes from the signer beside rent, "" where it takes none.
    """

    name: str
    args: type
    accounts: tuple[AccountSlot, ...]
    pays: str

    @property
    def discriminator(self) -> bytes:
        """The eight bytes its data starts with."""
        return discriminator("global", self.name)

    def index(self, account: str) -> int:
        """Where an account stands in the list; ValueError if it does not."""
        return [slot.name for slot in self.accounts].index(account)


INSTRUCTIONS: dict[type, InstructionKind] = {}
_Args = TypeVar("_Args")


@dataclass_transform(frozen_default=True)
def _accounts(listed: str, *, pays: str = "") -> Callable[[type[_Args]], type[_Args]]:
    """Declare a class of arguments as an instruction with these accounts: names, each with flags after it."""
    parts = [(*part.split(), "")[:2] for part in listed.split(",")]
    slots = tuple(AccountSlot(word, "w" in flags, "s" in flags, "+" in flags) for word, flags in parts)

    def declare(kind: type[_Args]) -> type[_Args]:
        kind = dataclass(frozen=True, slots=True)(kind)
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()
        INSTRUCTIONS[kind] = InstructionKind(name, kind, slots, pays)
        return kind

    return declare


@_accounts("authority ws, config w+, system_program")
class Initialize:
    """Create the global configuration; the signer becomes the authority."""


@_accounts("authority ws, config w, verifier_entry w+, system_program")
class AddVerifier:
    """Put a key on the allowlist."""

    verifier: Pubkey


@_accounts("authority ws, config w, verifier_entry w")
class RemoveVerifier:
    """Take a key off the allowlist; the entry's rent goes to the authority."""

    verifier: Pubkey


@_accounts("authority s, config w")
class TransferAuthority:
    """Hand the program's authority to another key."""

    new_authority: Pubkey


@_accounts("authority s, config w")
class RenounceAuthority:
    """Give up the authority for good: the list of verifiers can never change again."""


@_accounts(
    "creator ws, config w, project w+, mint w+, mint_authority, sol_vault w+, project_pool w+, token_metadata w+, "
    "token_program, associated_token_program, metadata_program, system_program, rent"
)
class CreateProject:
    """Create the project that takes `config.next_project_id`.

    `base_price` and `slope` are lamports, one of them above 0; the cap is in tokens.
    """

    protocol_hash: Hash
    protocol_irys_id: Hash
    repo_snapshot_hash: Hash
    repo_snapshot_irys_id: Hash
    benchmark_hash: Hash
    benchmark_irys_id: Hash
    baseline_aggregate_score: I64
    baseline_metrics_hash: Hash
    baseline_metrics_irys_id: Hash
    token_name: str
    token_symbol: str
    base_price: U64
    slope: U64
    miner_pool_cap: U64


@_accounts(
    "buyer ws, project, mint w, mint_authority, sol_vault w, buyer_token_account w+, token_program, "
    "associated_token_program, system_program",
    pays="lamports_in",
)
class Buy:
    """Buy as many whole tokens as `lamports_in` pays for, at their exact cost."""

    project_id: U64
    lamports_in: U64


@_accounts("seller ws, project, mint w, sol_vault w, seller_token_account w, token_program")
class Sell:
    """Sell tokens back to the curve."""

    project_id: U64
    amount: U64


@_accounts(
    "miner ws, config w, project, mint, mint_authority, proposal w+, proposal_escrow w+, "
    "miner_token_account w, token_program, system_program, rent"
)
class Submit:
    """Stake a proposal, in tokens, under `config.next_proposal_id`."""

    project_id: U64
    code_hash: Hash
    code_irys_id: Hash
    benchmark_log_hash: Hash
    benchmark_log_irys_id: Hash
    claimed_aggregate_score: I64
    stake: U64
    reward_recipient: Pubkey


@_accounts("verifier s, verifier_entry, proposal w")
class ClaimReview:
    """Lock a pending proposal for the verifier."""

    proposal_id: U64


@_accounts("cranker s, proposal w")
class ReleaseReview:
    """Make a proposal in review pending again; its stake stays in escrow."""

    proposal_id: U64


@_accounts(
    "verifier ws, verifier_entry, proposal w, project w, mint w, mint_authority, proposal_escrow w, "
    "miner_token_account w, reward_recipient_token_account w, token_program"
)
class Approve:
    """Approve: stake back to the miner, reward to the recipient; both token accounts must exist."""

    proposal_id: U64
    verified_aggregate_score: I64
    metrics_hash: Hash
    metrics_irys_id: Hash


@_accounts(
    "verifier ws, verifier_entry, proposal w, project, mint w, mint_authority, proposal_escrow w, project_pool w, "
    "claimable w+, token_program, system_program"
)
class Reject:
    """Reject: half the stake is burned, half becomes claimable by the verifier."""

    proposal_id: U64
    metrics_hash: Hash
    metrics_irys_id: Hash


@_accounts(
    "cranker ws, proposal w, project, mint w, mint_authority, proposal_escrow w, project_pool w, claimable w+, "
    "token_program, system_program"
)
class Expire:
    """Slash a proposal that nobody settled in time; half becomes claimable by the caller."""

    proposal_id: U64


@_accounts(
    "claimer ws, project, mint, mint_authority, project_pool w, claimable w, claimer_token_account w, token_program"
)
class ClaimReward:
    """Take out what is claimable, into the claimer's associated token account."""

    project_id: U64


_FIXED: Mapping[str, Pubkey] = {
    "token_program": TOKEN_PROGRAM,
    "associated_token_program": ASSOCIATED_TOKEN_PROGRAM,
    "metadata_program": METADATA_PROGRAM,
    "system_program": SYSTEM_PROGRAM,
    "rent": RENT_SYSVAR,
}
_TOKEN_ACCOUNT_OF = re.compile(r"(\w+)_token_account")


def instruction_of(
    program_id: Pubkey,
    args: object,
    signer: Pubkey,
    *,
    project_id: int | None = None,
    proposal_id: int | None = None,
    **people: Pubkey,
) -> Instruction:
    """The instruction that `args` declares, signed by `signer`, with its accounts in order.

    The ids are taken from the arguments where those have them. `people` are the owners of further token accounts
    ("miner", "reward_recipient"). TypeError if an id or one of these is lacking, InvalidData if an argument
    does not fit.
    """
    kind, pdas = INSTRUCTIONS[type(args)], Pdas(program_id)
    owners = {kind.accounts[0].name: signer, **people}
    project_id, proposal_id = getattr(args, "project_id", project_id), getattr(args, "proposal_id", proposal_id)

    def address(word: str) -> Pubkey:
        if word in owners:
            return owners[word]
        if word in _FIXED:
            return _FIXED[word]
        if word == "config":
            return pdas.config()
        if word == "verifier_entry":
            return pdas.verifier_entry(getattr(args, "verifier", signer))
        number = proposal_id if word in ("proposal", "proposal_escrow") else project_id
        if number is None:
            raise TypeError(f"{kind.name} needs the id of its {word}")
        if word == "token_metadata":
            return token_metadata(pdas.mint(number))
        if match := _TOKEN_ACCOUNT_OF.fullmatch(word):
            if match[1] not in owners:
                raise TypeError(f"{kind.name} needs its {match[1]}")
            return associated_token_account(owners[match[1]], pdas.mint(number))
        return pdas.find(word, number, signer)

    metas = [AccountMeta(address(slot.name), slot.signer, slot.writable) for slot in kind.accounts]
    return Instruction(program_id, kind.discriminator + codec.encode(args), metas)
