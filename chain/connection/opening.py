"""One connection to everything a command needs: a network, its program and its Irys.

On the embedded network a local Irys node is served on a loopback port once something asks for Irys, until the
connection is closed, and a new network is made usable: wallets for the roles, funds for them, the program initialized
and the local verifier on its allowlist.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chain.connection import config
from chain.connection.config import Settings
from chain.errors import ChainError, InsufficientFunds, NotFound
from chain.network.base import LAMPORTS_PER_SOL, Network, sol
from chain.network.opening import connect
from chain.network.reading import read
from chain.program.accounts import GlobalConfig, VerifierEntry
from chain.program.addresses import Pdas
from chain.wallet import wallet
from chain.wallet.passphrase import Source
from common.closing import Closing

if TYPE_CHECKING:
    from chain.irys.client import Artifact, Endpoints, Irys, Role
    from chain.irys.node import RunningNode
    from chain.money.client import Client

LOCAL_IRYS_PORT = 8908
AUTHORITY, MINER, VERIFIER = "authority", "miner", "verifier"
MAX_ARTIFACT = 64 * 1024 * 1024  # bytes of any artifact that is fetched
_LOCAL_FUNDS = 10 * LAMPORTS_PER_SOL
_FAUCET_SECONDS = 60.0


class Connection(Closing):
    """An open network with its client and Irys; a context manager that closes them.

    `passphrases` opens encrypted wallets, `warn` gets a gateway's wrong answer even if another answered correctly.
    """

    def __init__(
        self,
        settings: Settings,
        home: Path,
        *,
        irys: str | None = None,
        passphrases: Source = wallet.KEYCHAIN,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.home = home
        self.settings = settings
        self.passphrases = passphrases
        self._warn = warn
        program = self.settings["program_id"]
        self.network: Network = connect(
            self.settings.network,
            home,
            url=self.settings["rpc_url"],
            program_id=Pubkey.from_string(program) if program else None,
            commitment=self.settings["commitment"],
            is_local=self.settings["is_local"],
        )
        self._node: RunningNode | None = None
        try:
            self._irys_url = irys or self.settings["irys"]
            if self.settings.network == "embedded":
                bootstrap(self.network, home, passphrases)
        except BaseException:
            self.close()
            raise

    @cached_property
    def client(self) -> Client:
        """The client of the program, made when something first asks for it: what only lists accounts never does."""
        from chain.money.client import Client
        from chain.money.spending import SpendingBudget, SpendingTerms

        terms = SpendingTerms(
            self.settings.typed, self.settings["real_money"], self.settings["max_spend"], self.settings["genesis"]
        )
        return Client(self.network, budget=SpendingBudget(terms), priority_fee=self.settings["priority_fee"])

    @cached_property
    def irys(self) -> Irys:
        """The client of Irys, made when something first asks for it: most commands never do."""
        from chain.irys.client import Endpoints, Irys

        if self.settings.network == "embedded" and not self._irys_url:
            from chain.irys.node import serve

            self._node = serve(self.home / "irys", network=self.network)
        url = self._node.url if self._node else self._irys_url
        endpoints = Endpoints(url, (url,)) if url else _endpoints(self.network, self.settings)
        return Irys(endpoints, cache=self.home / "cache", report=lambda lie: self._warn(lie.problem))

    def close(self) -> None:
        """Give everything back; closing twice is harmless."""
        if "irys" in self.__dict__:
            self.irys.close()
        if self._node:
            self._node.close()
        self.network.close()

    def wallet(self, given: str | None, role: str) -> Keypair:
        """The keypair to sign with: the one given by name or path, else the home's wallet for this role.

        Local networks get a funded wallet on first use. Elsewhere a configured one goes before the home's, the
        Solana command line's after it, and where there is none that is refused.
        """
        keypair = wallet.load(self._wallet_file(given, role), self.passphrases)
        return fund(self.network, keypair) if self.network.is_local and not given else keypair

    def address(self, given: str | None, role: str) -> Pubkey:
        """The address of the same wallet, for which no passphrase is needed."""
        return wallet.look(self._wallet_file(given, role)).address

    def _wallet_file(self, given: str | None, role: str) -> Path:
        if given:
            return wallet.locate(self.home, given)
        if self.network.is_local:
            return wallet.ensure_file(self.home, role)
        configured, own = self.settings.found["keypair"], wallet.path_of(self.home, role)
        if configured.value and (configured.origin != config.SOLANA or not own.exists()):
            return wallet.locate(self.home, configured.value)
        if own.exists():
            return own
        raise NotFound(
            f"There is no wallet {role!r} for the network {self.network.name}.",
            f"Use --keypair, or create it with `chain wallet new {role}`.",
        )

    def publish(
        self,
        key: Keypair,
        role: Role,
        data: bytes,
        content_type: str,
        tags: Iterable[tuple[str, str]] = (),
    ) -> tuple[bytes, bytes]:
        """Upload an artifact signed by `key`; its SHA-256 and its 32-byte Irys id.

        Only where a transaction may follow: SpendingRefused elsewhere.
        """
        from chain.irys.client import artifact_tags
        from chain.irys.dataitem import DataItem

        self.client.budget.authorize(self.network)
        digest = hashlib.sha256(data).digest()
        item = DataItem.sign(key, data, tags=artifact_tags(role, digest, content_type, tags))
        self.irys.upload(item)
        return digest, bytes(item.id)

    def artifact(self, item_id: bytes, sha256: bytes, owner: Pubkey | None, what: str) -> Artifact:
        """An artifact by the id and SHA-256 that the chain holds; the SHA-256 is always verified, signature and
        owner wherever the gateway gives what they need.
        """
        try:
            return self.irys.fetch_verified(
                item_id,
                sha256=sha256,
                owner=bytes(owner) if owner else None,
                max_bytes=MAX_ARTIFACT,
            )
        except ChainError as error:
            from chain.irys.dataitem import ItemId

            raise type(error)(f"The {what} ({ItemId(item_id)}): {error.problem}", error.cure) from error

    def fetch(self, item_id: bytes, sha256: bytes, owner: Pubkey | None, what: str) -> bytes:
        """The bytes of an `artifact`."""
        return self.artifact(item_id, sha256, owner, what).data


def _endpoints(network: Network, settings: Settings) -> Endpoints:
    from chain.irys.client import DEVNET, Endpoints

    local = Endpoints(f"http://127.0.0.1:{LOCAL_IRYS_PORT}", (f"http://127.0.0.1:{LOCAL_IRYS_PORT}",))
    other = local if network.is_local else DEVNET
    return Endpoints(settings["irys_uploader"] or other.uploader, settings["irys_gateways"] or other.gateways)


def bootstrap(network: Network, home: Path, passphrases: Source = wallet.KEYCHAIN) -> None:
    """Make a new local network usable: funded wallets, the program initialized, a registered verifier."""
    # By address: an encrypted wallet is opened only to sign.
    authority, verifier, miner = (
        wallet.look(wallet.ensure_file(home, role)).address for role in (AUTHORITY, VERIFIER, MINER)
    )
    for key in (authority, verifier, miner):
        _top_up(network, key)
    pdas = Pdas(network.program_id)

    def call(args: object) -> None:
        from chain.money.client import Client

        Client(network).call(args, wallet.ensure(home, AUTHORITY, passphrases))

    config = read(network, GlobalConfig, pdas.config())
    if config is None:
        from chain.program.instructions import Initialize

        call(Initialize())
        config = read(network, GlobalConfig, pdas.config())
    is_ours = config is not None and config.authority == authority
    if is_ours and read(network, VerifierEntry, pdas.verifier_entry(verifier)) is None:
        from chain.program.instructions import AddVerifier

        call(AddVerifier(verifier))


def fund(network: Network, key: Keypair) -> Keypair:
    """Fund a wallet on a local network if needed; returns it."""
    _top_up(network, key.pubkey())
    return key


def _top_up(network: Network, key: Pubkey) -> None:
    least = _LOCAL_FUNDS // 10
    if network.balance(key) >= least:
        return
    network.airdrop(key, _LOCAL_FUNDS)
    deadline = time.monotonic() + _FAUCET_SECONDS
    while network.balance(key) < least:  # a validator's faucet pays within a block or two
        if time.monotonic() > deadline:
            raise InsufficientFunds(
                f"The faucet of {network.name} did not pay {key} within {_FAUCET_SECONDS:.0f} s.",
                "Try again, or check the validator's log.",
            )
        time.sleep(0.2)


def ensure_funds(network: Network, key: Pubkey, lamports: int) -> None:
    """InsufficientFunds, naming both amounts, unless a wallet holds `lamports`."""
    held = network.balance(key)
    if held < lamports:
        raise InsufficientFunds(
            f"The wallet {key} holds {sol(held)} on {network.name}; this needs {sol(lamports)}.",
            f"Send it at least {sol(lamports - held)}.",
        )
