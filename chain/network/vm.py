"""The Solana VM of the embedded network (LiteSVM), in this project's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from solders import account as solders_account
from solders.litesvm import LiteSVM
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.transaction_metadata import TransactionMetadata

from chain.network.base import Account, account_of


@dataclass(frozen=True, slots=True)
class SimulationOutcome:
    """What a simulated transaction came to; `error` is an RPC node's JSON or None."""

    error: object
    logs: tuple[str, ...] = ()
    units: int = 0
    fee: int = 0
    returned: tuple[str, bytes] | None = None
    accounts: dict[Pubkey, Account | None] = field(default_factory=dict)


def writable_keys(message: Message | MessageV0) -> list[Pubkey]:
    """The accounts among a message's own that it may write; the first pays the fee."""
    keys, header = message.account_keys, message.header
    signers = header.num_required_signatures
    return [
        *keys[: signers - header.num_readonly_signed_accounts],
        *keys[signers : len(keys) - header.num_readonly_unsigned_accounts],
    ]


def virtual_machine() -> LiteSVM:
    """LiteSVM as on mainnet; whoever runs it judges blockhashes and duplicates."""
    return (
        LiteSVM.default()
        .with_mainnet_features()
        .with_builtins()
        .with_lamports(0)
        .with_sysvars()
        .with_feature_accounts()
        .with_default_programs()
        .with_sigverify(True)
        .with_blockhash_check(False)
        .with_transaction_history(0)
    )


def account_in(state: solders_account.Account | None) -> Account | None:
    """A VM's account in this project's words."""
    return None if state is None else account_of(state)


def vm_account(account: Account | None) -> solders_account.Account:
    """An account for the VM."""
    if account is None:  # zero lamports is how the VM forgets one
        return solders_account.Account(0, b"", SYSTEM_PROGRAM)
    return solders_account.Account(
        account.lamports, account.data, account.owner, account.executable, account.rent_epoch
    )


def returned_by(meta: TransactionMetadata) -> tuple[str, bytes] | None:
    """The program that returned data last, and the data."""
    returned = meta.return_data()
    return (str(returned.program_id), returned.data) if returned.data else None


def lamports_of(states: dict[Pubkey, Account | None], keys: Sequence[Pubkey]) -> tuple[int, ...]:
    """What each of `keys` holds."""
    accounts = (states[key] for key in keys)
    return tuple(account.lamports if account else 0 for account in accounts)


def inner_of(meta: TransactionMetadata) -> tuple[tuple[tuple[int, bytes, bytes, int | None], ...], ...]:
    """The calls that each outer instruction made: program index, account indexes, data, stack height."""
    return tuple(
        tuple(
            (call.program_id_index, call.accounts, call.data, step.stack_height())
            for step in steps
            for call in (step.instruction(),)
        )
        for steps in meta.inner_instructions()
    )
