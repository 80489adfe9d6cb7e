"""What the local node charges, and what each owner has deposited with it.

One file per deposit and per charge, named by what it is for and written whole or not at all, so that a deposit
named twice is credited once and an item that is uploaded again after a crash is not charged again:

    <folder>/<hex owner>/deposit-<hex of the first half of the signature>   lamports as text
    <folder>/<hex owner>/charge-<hex item id>                               lamports as text

A balance is the sum of the deposits less the charges. Charges are made under the store's lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.transaction import VersionedTransaction

from chain.errors import InsufficientFunds, InvalidData, NotFound
from chain.irys.dataitem import ItemId
from chain.network.base import TransactionReceipt, sol
from common.files import write_atomic

_TRANSFER = (2).to_bytes(4, "little")
"""The system program's Transfer, followed by the lamports as u64."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """`lamports_per_byte` for the whole of an item of more than `free_bytes`; smaller ones are free."""

    lamports_per_byte: int = 0
    free_bytes: int = 0

    def price(self, size: int) -> int:
        """Lamports for an item of `size` bytes."""
        return 0 if size <= self.free_bytes else size * self.lamports_per_byte


FREE = Tariff()


class Accounts:
    """The balances under `folder`. Safe for several processes, charges under the caller's lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def balance(self, owner: Pubkey) -> int:
        """Lamports deposited by `owner` and not used up."""
        return self._sum(owner, "deposit") - self._sum(owner, "charge")

    def credit(self, owner: Pubkey, signature: Signature, lamports: int) -> None:
        """Add a deposit; the same signature counts once."""
        write_atomic(self._entry(owner, "deposit", bytes(signature)[:32]), str(lamports).encode())

    def charge(self, owner: Pubkey, item_id: ItemId, lamports: int) -> None:
        """Take the price of an item, once. Raises InsufficientFunds if the balance is too small."""
        entry = self._entry(owner, "charge", item_id)
        if lamports == 0 or entry.exists():
            return
        balance = self.balance(owner)
        if balance < lamports:
            raise InsufficientFunds(
                f"Not enough balance: the item costs {sol(lamports)}, and {owner} has {sol(balance)} deposited."
            )
        write_atomic(entry, str(lamports).encode())

    def _entry(self, owner: Pubkey, kind: str, name: bytes) -> Path:
        return self.folder / bytes(owner).hex() / f"{kind}-{name.hex()}"

    def _sum(self, owner: Pubkey, kind: str) -> int:
        return sum(int(path.read_bytes()) for path in (self.folder / bytes(owner).hex()).glob(f"{kind}-*"))


def deposit_of(receipt: TransactionReceipt | None, signature: Signature, address: Pubkey) -> tuple[Pubkey, int]:
    """Who paid how many lamports to `address` in a transaction, as an uploader sees it: its fee payer, by plain
    transfers. NotFound if there is no such transaction (yet), InvalidData if it pays nothing.
    """
    if receipt is None:
        raise NotFound(f"Transaction {signature} is unknown to the network.", "Post it again once it is final.")
    message = VersionedTransaction.from_bytes(receipt.transaction).message
    keys, paid = message.account_keys, 0
    for step in message.instructions:
        program, accounts, data = keys[step.program_id_index], bytes(step.accounts), bytes(step.data)
        plain = program == SYSTEM_PROGRAM and data[:4] == _TRANSFER and len(data) == 12 and len(accounts) == 2
        if plain and max(accounts) < len(keys) and (keys[accounts[0]], keys[accounts[1]]) == (keys[0], address):
            paid += int.from_bytes(data[4:], "little")
    if receipt.error is not None or not paid:
        raise InvalidData(
            f"Transaction {signature} transfers nothing to {address}.",
            "Post a transfer to the address in /info.",
        )
    return keys[0], paid
