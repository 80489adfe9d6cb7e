"""What every method of the local node needs: the network, its slot with what a request asks of it, and who it is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from solders.pubkey import Pubkey

from chain.localnet.parameters import CONTEXT_NOT_REACHED, Refusal, number
from chain.localnet.shapes import ui_account
from chain.network.base import Account
from chain.network.embedded import EmbeddedNetwork
from chain.network.execution import mint_of

VERSION = "4.1.2"  # the Agave release whose shapes these are


class NodeContext:
    """One network as its methods see it; `identity` is the one validator's address, `vote_account` its voter's.

    Nobody has their keys. The state is always final.
    """

    def __init__(self, network: EmbeddedNetwork) -> None:
        self.network = network
        genesis = bytes(network.genesis_hash)
        self.identity, self.vote_account = (
            Pubkey.from_bytes(hashlib.sha256(name + genesis).digest()) for name in (b"identity", b"vote account")
        )

    def slot(self, config: Mapping[str, object]) -> int:
        """The newest slot; a Refusal if that is before the request's `minContextSlot`."""
        slot = self.network.clock().slot
        if slot < number(config, "minContextSlot", 0):
            raise Refusal(CONTEXT_NOT_REACHED, "Minimum context slot has not been reached", {"contextSlot": slot})
        return slot

    def at(self, slot: int, value: object) -> dict[str, object]:
        """A value with the slot that it is of."""
        return {"context": {"slot": slot, "apiVersion": VERSION}, "value": value}

    def noticed(self, slot: int, value: object) -> dict[str, object]:
        """The same in a notification."""
        return {"context": {"slot": slot}, "value": value}

    def decimals(self, mint: Pubkey) -> int:
        """The decimals of a mint; 0 if it is none."""
        found = mint_of(self.network.account(mint))
        return found.decimals if found else 0

    def account(self, account: Account | None, config: Mapping[str, object], key: Pubkey | None = None) -> object:
        """An account as the request wants it."""
        return None if account is None else ui_account(account, config, self.decimals, key)

    def keyed(self, found: list[tuple[Pubkey, Account]], config: Mapping[str, object]) -> list[object]:
        """Accounts with their addresses."""
        return [{"pubkey": str(key), "account": self.account(account, config, key)} for key, account in found]
