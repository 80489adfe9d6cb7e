"""The Solana VM of the embedded network (LiteSVM), in this project's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from solders import account as solders_account
from solders import clock
from solders.epoch_schedule import EpochSchedule
from solders.hash import Hash
from solders.litesvm import LiteSVM
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.token.state import Mint
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata, SimulatedTransactionInfo, TransactionMetadata

from chain.network.base import (
    BLOCKHASH_AGE,
    CLOCK_SYSVAR,
    FEE_PER_SIGNATURE,
    LAMPORTS_PER_SOL,
    Account,
    Simulation,
    TransactionRejected,
    account_of,
    error_json,
    error_text,
    program_error_of,
)
from chain.network.execution import TOKEN_PROGRAM, Keys, State, TokenBalance, cost_of, loaded_size, token_balances
from chain.network.ledger import SLOT_MS, LandedTransaction, LedgerBlock

SLOTS_PER_EPOCH = 432_000
SLOT_HASHES_KEPT = 512  # entries of that sysvar
NATIVE_MINT = Pubkey.from_string("So11111111111111111111111111111111111111112")
_RECENT_BLOCKHASHES_SIZE = 6_008  # bytes
_RECENT_BLOCKHASHES = Pubkey.from_string("SysvarRecentB1ockHashes11111111111111111111")
MOVING_SYSVARS = (
    CLOCK_SYSVAR,
    Pubkey.from_string("SysvarS1otHashes111111111111111111111111111"),
    _RECENT_BLOCKHASHES,
)
_Result = TransactionMetadata | FailedTransactionMetadata | SimulatedTransactionInfo
Inner = tuple[tuple[tuple[int, bytes, bytes, int | None], ...], ...]


@dataclass(frozen=True, slots=True)
class SimulationOutcome:
    """What a simulated transaction came to; `error` is an RPC node's JSON or None. `fee` is None, and the rest empty,
    where it never ran; `pre`, `post` and `tokens` are as of `chain.network.ledger.LandedTransaction`.
    """

    error: object
    logs: tuple[str, ...] = ()
    units: int = 0
    fee: int | None = None
    returned: tuple[str, bytes] | None = None
    accounts: dict[Pubkey, Account | None] = field(default_factory=dict)
    keys: Keys | None = None
    pre: tuple[int, ...] = ()
    post: tuple[int, ...] = ()
    tokens: tuple[TokenBalance, ...] = ()
    inner: Inner = ()
    loaded_size: int = 0

    def simulation(self) -> Simulation:
        """What a client of the network sees of it."""
        return Simulation(
            error=None if self.error is None else error_text(self.error),
            program_error=program_error_of(self.error),
            logs=self.logs,
            units=self.units,
            return_data=self.returned[1] if self.returned else b"",
            accounts=self.accounts,
        )


def virtual_machine() -> LiteSVM:
    """LiteSVM as on mainnet, without the short epochs of its beginning; whoever runs it judges blockhashes and
    duplicates.
    """
    vm = (
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
    vm.set_account(NATIVE_MINT, solders_account.Account(LAMPORTS_PER_SOL, _native_mint(), TOKEN_PROGRAM, False, 1))
    vm.set_epoch_schedule(EpochSchedule.without_warmup())
    return vm


def set_sysvars(vm: LiteSVM, block: LedgerBlock, below: Sequence[LedgerBlock]) -> None:
    """What programs see in `block`: its time, and the hashes of the blocks `below` it, the newest first."""
    epoch, into = divmod(block.slot, SLOTS_PER_EPOCH)
    start = (block.ms - into * SLOT_MS) // 1000
    vm.set_clock(clock.Clock(block.slot, start, epoch, epoch + 1, block.ms // 1000))
    vm.set_slot_hashes([(old.slot, Hash.from_bytes(old.hash)) for old in below])
    hashes = [old.hash + FEE_PER_SIGNATURE.to_bytes(8, "little") for old in below[:BLOCKHASH_AGE]]
    held = vm.get_account(_RECENT_BLOCKHASHES)
    if held is not None:
        data = (len(hashes).to_bytes(8, "little") + b"".join(hashes)).ljust(_RECENT_BLOCKHASHES_SIZE, b"\0")
        vm.set_account(_RECENT_BLOCKHASHES, solders_account.Account(held.lamports, data, held.owner))


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


def _native_mint() -> bytes:
    """The mint of wrapped SOL, as it is at every cluster's genesis."""
    return bytes(Mint(None, 0, 9, True, None))


def outcome_of(result: _Result) -> SimulationOutcome:
    """What the VM says of a transaction that it ran."""
    meta = result if isinstance(result, TransactionMetadata) else result.meta()
    return SimulationOutcome(
        error=error_json(result.err()) if isinstance(result, FailedTransactionMetadata) else None,
        logs=tuple(meta.logs()),
        units=meta.compute_units_consumed(),
        fee=meta.fee(),
        returned=returned_by(meta),
        inner=inner_of(meta),
    )


def returned_by(meta: TransactionMetadata) -> tuple[str, bytes] | None:
    """The program that returned data last, and the data."""
    returned = meta.return_data()
    return (str(returned.program_id), returned.data) if returned.data else None


def lamports_of(states: dict[Pubkey, Account | None], keys: Sequence[Pubkey]) -> tuple[int, ...]:
    """What each of `keys` holds."""
    accounts = (states[key] for key in keys)
    return tuple(account.lamports if account else 0 for account in accounts)


def inner_of(meta: TransactionMetadata) -> Inner:
    """The calls that each outer instruction made: program index, account indexes, data, stack height."""
    return tuple(
        tuple(
            (call.program_id_index, call.accounts, call.data, step.stack_height())
            for step in steps
            for call in (step.instruction(),)
        )
        for steps in meta.inner_instructions()
    )


def known_message(tx: VersionedTransaction) -> Message | MessageV0:
    """The message of a signed transaction of a version that the VM runs; TransactionRejected if it is none."""
    if not tx.signatures:
        raise TransactionRejected("SignatureFailure")
    if not isinstance(tx.message, Message | MessageV0):
        raise TransactionRejected("UnsupportedVersion")
    return tx.message


def landed_transaction(
    tx: VersionedTransaction,
    block: LedgerBlock,
    outcome: SimulationOutcome,
    keys: Keys,
    before: dict[Pubkey, Account | None],
    after: dict[Pubkey, Account | None],
    state: State,
) -> LandedTransaction:
    """The record of a transaction that ran in `block`; its accounts `before` and `after` are those of `keys`."""
    return LandedTransaction(
        slot=block.slot,
        block_time=block.ms // 1000,
        signature=tx.signatures[0],
        wire=bytes(tx),
        fee=outcome.fee or 0,
        error=outcome.error,
        logs=outcome.logs,
        units=outcome.units,
        pre=lamports_of(before, keys.all),
        post=lamports_of(after, keys.all),
        returned=outcome.returned,
        inner=outcome.inner,
        loaded=(keys.loaded_writable, keys.loaded_readonly),
        tokens=token_balances(keys, before, after, state),
        cost=cost_of(known_message(tx), keys, outcome.units, loaded_size(keys, before, state)),
    )
