"""A chain and an Irys node over HTTP, behind proxies that spoil a fifth of all calls, and machines that use them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from chain.connection.opening import MINER, VERIFIER, Connection
from chain.irys.client import Endpoints, Irys
from chain.irys.node import RunningNode
from chain.irys.node import serve as serve_irys
from chain.localnet.server import Server, serve
from chain.money.client import Client
from chain.network.base import Network
from chain.network.embedded import EmbeddedNetwork
from chain.network.ledger import LandedTransaction
from chain.network.rpc import RpcNetwork
from chain.program.addresses import TOKEN_PROGRAM
from chain.program.events import Event, parse_events
from chain.program.instructions import AddVerifier
from chain.program.tokens import decode_token_account
from chain.wallet import wallet
from tests import local
from tests.faults.proxy import DELAY, HONEST, LATE, LIE, SHORT, Proxy, fifth

WAIT = 4  # seconds of the chain's time that pass in every wait of a client
RPC_FAULTS = (*HONEST, LATE, SHORT) * 4 + (DELAY,)
GATEWAY_FAULTS = (*HONEST, LATE, SHORT, LIE) * 4 + (DELAY,)
CALL_SECONDS = 0.6  # what a client waits for the chain at most


class Killed(BaseException):
    """What a kill is to the code: nothing of it runs on."""


@dataclass(slots=True)
class World:
    """`home` holds the chain's and Irys's files, the authority's and the miner's wallet."""

    home: Path
    embedded: EmbeddedNetwork
    server: Server
    node: RunningNode
    proxies: tuple[Proxy, Proxy, Proxy]

    def machine(self, home: Path) -> Connection:
        """A machine with this home: all that it knows of the world comes through the proxies."""
        rpc, first, second = self.proxies
        connection = local.connect(home, rpc.url, irys=first.url)
        connection.irys.close()
        connection.irys = Irys(
            Endpoints(first.url, (first.url, second.url)),
            timeout=CALL_SECONDS,
            sleep=lambda _: None,
            cache=home / "cache",
        )
        return connection

    def start(self, machine: Connection, rng: random.Random, chance: float) -> None:
        """A new process on that machine, which with this chance is killed at one of its next calls to the chain."""
        machine.network.close()
        machine.network = RpcNetwork(self.proxies[0].url, name="faulty", call_seconds=CALL_SECONDS, sleep=self._wait)
        machine.client = Client(Doomed(machine.network, rng, chance))

    def verifier(self, home: Path) -> Path:
        """`home`, made the home of a funded, registered verifier."""
        key = wallet.ensure(home, VERIFIER)
        self.embedded.airdrop(key.pubkey(), 100 * 10**9)
        Client(self.embedded).call(AddVerifier(key.pubkey()), wallet.load(wallet.path_of(self.home, "authority")))
        return home

    def miner(self, home: Path) -> Path:
        """`home`, made the home of a funded miner."""
        self.embedded.airdrop(wallet.ensure(home, MINER).pubkey(), 100 * 10**9)
        return home

    def direct(self) -> Connection:
        """Without faults."""
        return local.connect(self.home, self.server.url, irys=self.node.url)

    def landed(self) -> list[LandedTransaction]:
        """All transactions of the chain, in order."""
        found: list[LandedTransaction] = []
        while page := self.embedded.records_after(found[-1].slot if found else -1):
            found += page
        return found

    def events(self) -> list[Event]:
        """Everything that the program said, in order."""
        program = self.embedded.program_id
        return [e for record in self.landed() for e in parse_events(record.logs, program)]

    def _wait(self, seconds: float) -> None:
        self.embedded.warp(WAIT)


@contextmanager
def world(home: Path, seed: int) -> Iterator[World]:
    """The small project of `tests.local` as a world."""
    local.home_with_project(home)
    embedded = EmbeddedNetwork(home)
    with (
        serve(embedded, port=0).start() as server,
        serve_irys(home / "irys", network=embedded) as node,
        Proxy(server.url, fifth(seed, *shuffled(RPC_FAULTS, seed)), seconds=1.5 * CALL_SECONDS) as rpc,
        Proxy(node.url, fifth(seed + 1, *shuffled(GATEWAY_FAULTS, seed)), seconds=1.5 * CALL_SECONDS) as first,
        Proxy(node.url, fifth(seed + 2, *shuffled(GATEWAY_FAULTS, seed)), seconds=1.5 * CALL_SECONDS) as second,
    ):
        yield World(home, embedded, server, node, (rpc, first, second))
    embedded.close()


def shuffled(faults: tuple[str, ...], seed: int) -> list[str]:
    return random.Random(seed).sample(faults, len(faults))


class Doomed(local.Watched):
    """A network whose process is killed at a random call to it, `chance` of the times."""

    def __init__(self, network: Network, rng: random.Random, chance: float) -> None:
        super().__init__(network)
        self._left = rng.randrange(1, 8) if rng.random() < chance else 0
        self._after = rng.random() < 0.5

    def _note(self, name: str) -> None:
        super()._note(name)
        self._left -= 1
        if self._left == 0 and not (name == "send" and self._after):
            raise Killed

    def send(self, tx: VersionedTransaction) -> Signature:
        signature = super().send(tx)
        if self._left == 0:
            raise Killed
        return signature


def tokens_of(embedded: EmbeddedNetwork, mint: Pubkey) -> dict[Pubkey, int]:
    """All token accounts of a mint, and what is in them."""
    found = embedded.program_accounts(TOKEN_PROGRAM, size=165, memcmp=[(0, bytes(mint))])
    return {key: decode_token_account(account.data).amount for key, account in found}


def number(variable: str, default: int) -> int:
    """How many of something to try, from the environment."""
    return int(os.environ.get(variable, default))
