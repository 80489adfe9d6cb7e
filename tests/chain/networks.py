"""Parts that the tests of ledger, RPC node and RPC client share."""

from __future__ import annotations

from functools import cache

from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

SOL = 1_000_000_000
MEMO = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")


@cache
def memo_image() -> bytes:
    """A small real program: SPL Memo as LiteSVM brings it. It logs its data and refuses broken UTF-8."""
    account = LiteSVM().get_account(MEMO)
    assert account is not None
    assert account.data[:4] == b"\x7fELF"
    return account.data


def pay(source: Keypair, to: Pubkey, lamports: int, blockhash: Hash) -> VersionedTransaction:
    """A signed transfer."""
    step = transfer(TransferParams(from_pubkey=source.pubkey(), to_pubkey=to, lamports=lamports))
    return sign(source, [step], blockhash)


def memo(source: Keypair, data: bytes, blockhash: Hash, program: Pubkey = MEMO) -> VersionedTransaction:
    """A signed memo."""
    step = Instruction(program, data, [AccountMeta(source.pubkey(), True, False)])
    return sign(source, [step], blockhash)


def sign(source: Keypair, steps: list[Instruction], blockhash: Hash, *more: Keypair) -> VersionedTransaction:
    """A transaction that `source` pays."""
    return VersionedTransaction(MessageV0.try_compile(source.pubkey(), steps, [], blockhash), [source, *more])
