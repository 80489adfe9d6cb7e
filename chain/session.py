"""One connection to everything a command needs: a network, its program and its Irys.

On the embedded network a local Irys node is served on a loopback port for as long as the connection is
open, and a new ledger is made usable: wallets for the roles, funds for them, the program initialized
and the local verifier on its allowlist.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import click
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chain import wallet
from chain.client import Client
from chain.errors import ChainError, InsufficientFunds, InvalidData, NotFound
from chain.irys.client import DEVNET, MAINNET, Endpoints, Irys, Role, artifact_tags
from chain.irys.dataitem import DataItem, ItemId
from chain.irys.node import RunningNode, serve
from chain.network import LAMPORTS_PER_SOL, Network, connect

LOCAL_IRYS_PORT = 8908
AUTHORITY, MINER, VERIFIER = "authority", "miner", "verifier"
MAX_ARTIFACT = 64 * 1024 * 1024  # bytes of any artifact that is fetched
_LOCAL_FUNDS = 10 * LAMPORTS_PER_SOL


class Connection:
    """An open network with its client and Irys; a context manager that closes them."""

    def __init__(self, name: str, home: Path, *, irys: str | None = None) -> None:
        self.home = home
        self.network: Network = connect(name, home)
        self.client = Client(self.network)
        self._node: RunningNode | None = None
        try:
            if name == "embedded":
                self._node = None if irys else serve(home / "irys")
                bootstrap(self.client, home)
            url = self._node.url if self._node else irys
            endpoints = Endpoints(url, (url,)) if url else _endpoints(self.network)
            self.irys = Irys(endpoints, cache=home / "cache", report=_warn)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give everything back; closing twice is harmless."""
        if hasattr(self, "irys"):
            self.irys.close()
        if self._node:
            self._node.close()
        self.network.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wallet(self, given: str | None, role: str) -> Keypair:
        """The keypair to sign with: the one given by name or path, else the home's wallet for this role.

        Local networks get a funded wallet on first use; elsewhere a missing wallet is refused.
        """
        if given:
            return wallet.resolve(self.home, given)
        if self.network.is_local:
            return fund(self.network, wallet.ensure(self.home, role))
        try:
            return wallet.load(wallet.path_of(self.home, role))
        except NotFound:
            raise NotFound(
                f"There is no wallet {role!r} for the network {self.network.name}.",
                f"Name a keypair file with --keypair, or make one with `chain wallet new {role}`.",
            ) from None

    def publish(
        self,
        key: Keypair,
        role: Role,
        data: bytes,
        content_type: str,
        tags: Iterable[tuple[str, str]] = (),
    ) -> tuple[bytes, bytes]:
        """Upload an artifact signed by `key`; its SHA-256 and its 32-byte Irys id."""
        digest = hashlib.sha256(data).digest()
        item = DataItem.sign(key, data, tags=artifact_tags(role, digest, content_type, tags))
        self.irys.upload(item)
        return digest, bytes(item.id)

    def fetch(self, item_id: bytes, sha256: bytes, owner: Pubkey | None, what: str) -> bytes:
        """An artifact by the id and SHA-256 that the chain holds; the SHA-256 is always verified, signature and
        owner wherever the gateway gives what they need.
        """
        try:
            artifact = self.irys.fetch_verified(
                item_id,
                sha256=sha256,
                owner=bytes(owner) if owner else None,
                max_bytes=MAX_ARTIFACT,
            )
        except ChainError as error:
            raise type(error)(f"The {what} ({ItemId(item_id)}): {error.problem}", error.cure) from error
        return artifact.data


def _warn(lie: InvalidData) -> None:
    """A gateway's lie is told even where another gateway had the truth."""
    click.echo(f"warning: {lie.problem}", err=True)


def _endpoints(network: Network) -> Endpoints:
    if network.is_local:
        local = f"http://127.0.0.1:{LOCAL_IRYS_PORT}"
        return Endpoints(local, (local,))
    return MAINNET if network.name == "mainnet" else DEVNET


def bootstrap(client: Client, home: Path) -> None:
    """Make a new local ledger usable: funded wallets, the program initialized, a registered verifier."""
    authority = wallet.ensure(home, AUTHORITY)
    verifier = wallet.ensure(home, VERIFIER)
    for key in (authority, verifier, wallet.ensure(home, MINER)):
        fund(client.network, key)
    try:
        config = client.config()
    except NotFound:
        client.initialize(authority)
        config = client.config()
    if config.authority == authority.pubkey() and not client.is_verifier(verifier.pubkey()):
        client.add_verifier(authority, verifier.pubkey())


def fund(network: Network, key: Keypair) -> Keypair:
    """See to it that a wallet on a local network can pay; returns it."""
    if network.balance(key.pubkey()) < _LOCAL_FUNDS // 10:
        network.airdrop(key.pubkey(), _LOCAL_FUNDS)
    return key


def ensure_funds(network: Network, key: Pubkey, lamports: int) -> None:
    """InsufficientFunds, naming both amounts, unless a wallet holds `lamports`."""
    held = network.balance(key)
    if held < lamports:
        raise InsufficientFunds(
            f"The wallet {key} holds {held / LAMPORTS_PER_SOL:.9f} SOL on {network.name}, "
            f"needed are {lamports / LAMPORTS_PER_SOL:.9f}.",
            f"Send it at least {(lamports - held) / LAMPORTS_PER_SOL:.9f} SOL.",
        )
