"""What a transaction names before it runs, and what its record says of it afterwards. Pure functions.

Facts, from Agave: the accounts that lookup tables add come after the message's own, the writable ones first; what a
table got in a slot is of use from the next one on, and preflight looks at the newest block's. A
transaction may carry the value of a nonce account in place of a blockhash if its first instruction advances that
account with its authority's signature; a failed one advances it as well. Cost units: 720 a signature, 300 a
writable account, a quarter a byte of instruction data, the compute units, and 8 for each 32 KiB of accounts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from solders.address_lookup_table_account import ID as LOOKUP_TABLES
from solders.address_lookup_table_account import AddressLookupTable
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.token.state import Mint, TokenAccount

from chain.network.base import Account, TransactionRejected

TOKEN_PROGRAM = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
TOKEN_2022_PROGRAM = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
TOKEN_PROGRAMS = {TOKEN_PROGRAM: "spl-token", TOKEN_2022_PROGRAM: "spl-token-2022"}
UPGRADEABLE_LOADER = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")
_TOKEN_SIZE, _MINT_SIZE = 165, 82  # bytes
_ADVANCE_NONCE = (4).to_bytes(4, "little")
_NONCE_SIZE = 80  # bytes: version u32, state u32, authority, value, fee u64
_NONCE_VALUE = slice(40, 72)
_USABLE_NONCE = (1).to_bytes(4, "little") * 2  # of the present version, initialized
_PAGE = 32 << 10  # bytes
_EXEMPT = (1 << 64) - 1  # the rent epoch that never comes

State = Callable[[Pubkey], Account | None]


@dataclass(frozen=True, slots=True)
class Keys:
    """The accounts of a transaction, in the order of its indexes; those that lookup tables added stand last."""

    all: tuple[Pubkey, ...]
    writable: tuple[Pubkey, ...]
    loaded_writable: tuple[Pubkey, ...] = ()
    loaded_readonly: tuple[Pubkey, ...] = ()


class TokenBalance(NamedTuple):
    """The tokens of a transaction's account number `at` before and after it; None where it was no token account."""

    at: int
    mint: str
    owner: str
    program: str
    decimals: int
    before: int | None
    after: int | None


def keys_of(message: Message | MessageV0, state: State, slot: int) -> Keys:
    """A message's accounts as of a bank at `slot`: what a lookup table got in that slot is of use after it.

    Raises TransactionRejected where a lookup table is none or is too short.
    """
    own, header = message.account_keys, message.header
    signers = header.num_required_signatures
    writable = [
        *own[: signers - header.num_readonly_signed_accounts],
        *own[signers : len(own) - header.num_readonly_unsigned_accounts],
    ]
    more: list[Pubkey] = []
    fixed: list[Pubkey] = []
    for lookup in message.address_table_lookups if isinstance(message, MessageV0) else ():
        listed = _table(state(lookup.account_key), slot)
        if max(bytes(lookup.writable_indexes) + bytes(lookup.readonly_indexes), default=0) >= len(listed):
            raise TransactionRejected("InvalidAddressLookupTableIndex")
        more += [listed[index] for index in bytes(lookup.writable_indexes)]
        fixed += [listed[index] for index in bytes(lookup.readonly_indexes)]
    return Keys((*own, *more, *fixed), (*writable, *more), tuple(more), tuple(fixed))


def _table(account: Account | None, slot: int) -> list[Pubkey]:
    if account is None:
        raise TransactionRejected("AddressLookupTableNotFound")
    if account.owner != LOOKUP_TABLES:
        raise TransactionRejected("InvalidAddressLookupTableOwner")
    try:
        table = AddressLookupTable.deserialize(account.data)
    except ValueError:
        raise TransactionRejected("InvalidAddressLookupTableData") from None
    extended = table.meta.last_extended_slot >= slot
    return list(table.addresses)[: table.meta.last_extended_slot_start_index if extended else None]


def nonce_of(message: Message | MessageV0, state: State) -> Pubkey | None:
    """The nonce account whose value the message carries as its blockhash; None if it carries none."""
    own, first = message.account_keys, next(iter(message.instructions), None)
    if first is None or own[first.program_id_index] != SYSTEM_PROGRAM or bytes(first.data)[:4] != _ADVANCE_NONCE:
        return None
    accounts = bytes(first.accounts)
    if not accounts or max(accounts) >= len(own):
        return None
    key, signers = own[accounts[0]], message.header.num_required_signatures
    account = state(key)
    if account is None or nonce_value(account) != bytes(message.recent_blockhash):
        return None
    signed = [bytes(own[index]) for index in accounts if index < signers]
    return key if account.data[8:40] in signed else None


def nonce_value(account: Account | None) -> bytes | None:
    """The value of a nonce account, 32 bytes; None if it is none."""
    if account is None or account.owner != SYSTEM_PROGRAM or len(account.data) != _NONCE_SIZE:
        return None
    return account.data[_NONCE_VALUE] if account.data[:8] == _USABLE_NONCE else None


def settle(before: Account | None, after: Account | None, blockhash: bytes, *, advance: bool) -> Account | None:
    """What a writable account is after a transaction, where the VM leaves it otherwise than a validator.

    A nonce that was advanced, or must be for `advance`, gets the value that belongs to `blockhash`; an account that
    holds anything is exempt from rent for ever.
    """
    if after is None or (after == before and not advance):
        return after
    if not after.executable and after.rent_epoch == 0:
        after = replace(after, rent_epoch=_EXEMPT)
    value = nonce_value(after)
    if value is None or (value == nonce_value(before) and not advance):
        return after
    new = hashlib.sha256(b"DURABLE_NONCE" + blockhash).digest()
    return replace(after, data=after.data[: _NONCE_VALUE.start] + new + after.data[_NONCE_VALUE.stop :])


def token_account(account: Account | None) -> TokenAccount | None:
    """The token account of either token program in `account`; None if it holds none."""
    if account is None or account.owner not in TOKEN_PROGRAMS or len(account.data) < _TOKEN_SIZE:
        return None
    # A Token-2022 account or mint with extensions says which it is after the 165 bytes they share.
    if len(account.data) > _TOKEN_SIZE and account.data[_TOKEN_SIZE] != 2:
        return None
    try:
        token = TokenAccount.from_bytes(account.data[:_TOKEN_SIZE])
    except ValueError:
        return None
    return token if account.data[108] else None


def mint_of(account: Account | None) -> Mint | None:
    """The mint of either token program in `account`; None if it holds none."""
    if account is None or account.owner not in TOKEN_PROGRAMS:
        return None
    size = len(account.data)
    if size != _MINT_SIZE and not (size > _TOKEN_SIZE and account.data[_TOKEN_SIZE] == 1):
        return None
    try:
        mint = Mint.from_bytes(account.data[:_MINT_SIZE])
    except ValueError:
        return None
    return mint if mint.is_initialized else None


def token_balances(
    keys: Keys, before: Mapping[Pubkey, Account | None], after: Mapping[Pubkey, Account | None], state: State
) -> tuple[TokenBalance, ...]:
    """The token accounts among `keys`, none where no token program is; `state` tells of mints that are not."""
    found = []
    if not TOKEN_PROGRAMS.keys() & set(keys.all):
        return ()
    for at, key in enumerate(keys.all):
        old, new = before.get(key), after.get(key)
        had, has = token_account(old), token_account(new)
        held, account = (has, new) if has else (had, old)
        if held is None or account is None:
            continue
        mint = mint_of(after.get(held.mint) or before.get(held.mint) or state(held.mint))
        if mint is not None:
            amounts = (had.amount if had else None, has.amount if has else None)
            found.append(TokenBalance(at, str(held.mint), str(held.owner), str(account.owner), mint.decimals, *amounts))
    return tuple(found)


def loaded_size(keys: Keys, before: Mapping[Pubkey, Account | None], state: State) -> int:
    """Bytes of all accounts that a transaction loads, 64 on top for each, with the code of the programs."""
    total = 0
    for key in keys.all:
        account = before.get(key)
        total += 64 + (len(account.data) if account else 0)
        if account and account.executable and account.owner == UPGRADEABLE_LOADER:
            code = state(Pubkey.from_bytes(account.data[4:36]))
            total += 64 + len(code.data) if code else 0
    return total


def cost_of(message: Message | MessageV0, keys: Keys, units: int, loaded: int) -> int:
    """The cost units of a transaction that used `units` compute units and loaded `loaded` bytes."""
    data = sum(len(bytes(step.data)) for step in message.instructions)
    called = {message.account_keys[step.program_id_index] for step in message.instructions}
    writable = sum(key not in called for key in keys.writable)
    return message.header.num_required_signatures * 720 + writable * 300 + data // 4 + units + -(-loaded // _PAGE) * 8
