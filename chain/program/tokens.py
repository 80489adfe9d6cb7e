"""SPL tokens as the program uses them: solders reads their accounts; two instructions are written here."""

from __future__ import annotations

import struct

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.token.state import Mint, TokenAccount

from chain.errors import InvalidData
from chain.program.addresses import (
    ASSOCIATED_TOKEN_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_PROGRAM,
    associated_token_account,
)


def decode_mint(data: bytes) -> Mint:
    """A mint account's data; InvalidData unless it is one."""
    try:
        return Mint.from_bytes(data)
    except ValueError as error:
        raise InvalidData(f"The account is not a token mint: {error}.", "Check the address and --network.") from None


def decode_token_account(data: bytes) -> TokenAccount:
    """A token account's data; InvalidData unless it is one."""
    try:
        return TokenAccount.from_bytes(data)
    except ValueError as error:
        raise InvalidData(f"The account is not a token account: {error}.", "Check the address and --network.") from None


def create_associated_token_account(payer: Pubkey, owner: Pubkey, mint: Pubkey) -> Instruction:
    """Create the owner's associated token account; nothing happens where it exists."""
    return Instruction(
        ASSOCIATED_TOKEN_PROGRAM,
        bytes([1]),  # CreateIdempotent
        [
            AccountMeta(payer, True, True),
            AccountMeta(associated_token_account(owner, mint), False, True),
            AccountMeta(owner, False, False),
            AccountMeta(mint, False, False),
            AccountMeta(SYSTEM_PROGRAM, False, False),
            AccountMeta(TOKEN_PROGRAM, False, False),
        ],
    )


def transfer_to_self(owner: Pubkey, mint: Pubkey, amount: int) -> Instruction:
    """Move tokens from the owner's associated token account to itself: it fails where there are fewer."""
    account = associated_token_account(owner, mint)
    return Instruction(
        TOKEN_PROGRAM,
        bytes([3]) + struct.pack("<Q", amount),  # Transfer
        [AccountMeta(account, False, True), AccountMeta(account, False, True), AccountMeta(owner, True, False)],
    )
