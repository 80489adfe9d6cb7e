"""A small project on an embedded ledger with its Irys: a real chain for tests that need no training."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from chain.connection import config
from chain.connection.opening import AUTHORITY, MINER, VERIFIER, Connection
from chain.irys.client import Role
from chain.money import score
from chain.money.client import Client
from chain.network.base import Network, Simulation, TransactionReceipt
from chain.network.embedded import EmbeddedNetwork
from chain.program.accounts import Project, Proposal
from chain.program.events import ProposalSubmitted
from chain.program.instructions import Buy
from chain.projects.artifacts import ProjectArtifacts, ProjectTerms, publish_project
from common import baseline
from trainer.project import bundle, recipe
from trainer.project.task import Benchmark

SMOKE = recipe.load("smoke")
TRAIN = SMOKE.files["train.py"]
PROTOCOL = SMOKE.files["protocol.json"]
BASELINE = Decimal("2.500000")
DATA_SNAPSHOT = "5a" * 32
BASE_PRICE, SLOPE = 1_000, 10
STAKE = 4


def artifacts() -> ProjectArtifacts:
    """The smoke bundle with a baseline of 2.5, measured nowhere."""
    metrics = baseline.dump("val_bpb", [2.5], [6.0], hardware={}, data_snapshot=DATA_SNAPSHOT)
    benchmark = Benchmark("armlx-smoke-1", ("--text", "stdlib"), DATA_SNAPSHOT).dump()
    return ProjectArtifacts(PROTOCOL, bundle.pack(SMOKE.files), benchmark, metrics, None, score.scale(BASELINE))


def connect(home: Path, network: str = "embedded", irys: str | None = None) -> Connection:
    """A connection as the environment and the files say, without a command."""
    return Connection(config.load({}, asked=network), home, irys=irys)


@cache
def _template() -> Path:
    """A home whose ledger holds project 0; made once in a process."""
    folder = Path(tempfile.mkdtemp(prefix="armlx-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with connect(folder) as connection:
        terms = ProjectTerms("Test", "TST", BASE_PRICE, SLOPE, 1_000)
        publish_project(connection, connection.wallet(None, AUTHORITY), artifacts(), terms)
    return folder


def home_with_project(folder: Path) -> Path:
    """`folder`, made a home whose embedded ledger holds project 0."""
    shutil.copytree(_template(), folder, dirs_exist_ok=True)
    return folder


def embedded_of(connection: Connection) -> EmbeddedNetwork:
    """The embedded ledger, which can warp time."""
    assert isinstance(connection.network, EmbeddedNetwork)
    return connection.network


def miner_of(connection: Connection) -> Keypair:
    return connection.wallet(None, MINER)


def verifier_of(connection: Connection) -> Keypair:
    return connection.wallet(None, VERIFIER)


def stranger(connection: Connection, lamports: int = 10**9) -> Keypair:
    """A new key with money."""
    key = Keypair()
    connection.network.airdrop(key.pubkey(), lamports)
    return key


def archive(source: bytes = TRAIN + b"# changed\n") -> bytes:
    """The smoke bundle with another train.py, as a miner packs it."""
    return bundle.pack({**SMOKE.files, "train.py": source})


def propose(
    connection: Connection,
    *,
    code: bytes | None = None,
    log: bytes = b"---\nval_bpb: 2.4\n",
    metric: str = "2.400000",
    stake: int = STAKE,
    miner: Keypair | None = None,
    tags: Sequence[tuple[str, str]] = (),
    published: tuple[bytes, bytes] | None = None,
) -> Proposal:
    """A proposal on chain with artifacts that can be fetched; `published` names other code by hash and Irys id."""
    client, project = connection.client, connection.client.project(0)
    miner = miner or miner_of(connection)
    client.call(Buy(project.id, cost(client.supply(project), stake)), miner)
    done = client.submit(
        miner,
        project,
        code=published
        or connection.publish(miner, Role.PROPOSAL_CODE, archive() if code is None else code, "application/x-tar"),
        log=connection.publish(miner, Role.BENCHMARK_LOG, log, "text/plain", tags),
        claimed_score=convention(project).to_score(Decimal(metric)),
        stake=stake,
        reward_recipient=miner.pubkey(),
    )
    return client.proposal(done.event(ProposalSubmitted).id)


def cost(supply: int, tokens: int) -> int:
    """Lamports for the next tokens, by the curve's definition."""
    return sum(BASE_PRICE + SLOPE * (supply + k) for k in range(tokens))


def convention(project: Project) -> score.Convention:
    return score.infer(project.baseline_aggregate_score, BASELINE, minimize=True)


class Watched:
    """A network that notes what is asked of it, and calls `before[name]` once, just before the first `name`."""

    def __init__(self, network: Network, **before: Any) -> None:
        self._network, self._before = network, before
        self.calls: list[str] = []
        self.simulated: list[VersionedTransaction] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def _note(self, name: str) -> None:
        self.calls.append(name)
        if name in self._before:
            self._before.pop(name)()

    def simulate(self, tx: VersionedTransaction, *, watch: Sequence[Pubkey] = ()) -> Simulation:
        self._note("simulate")
        self.simulated.append(tx)
        return self._network.simulate(tx, watch=watch)

    def send(self, tx: VersionedTransaction) -> Signature:
        self._note("send")
        return self._network.send(tx)

    def confirm(self, signature: Signature, last_valid_block_height: int, **how: Any) -> TransactionReceipt:
        self._note("confirm")
        return self._network.confirm(signature, last_valid_block_height, **how)


def watched(connection: Connection, **before: Any) -> tuple[Client, Watched]:
    """A client whose network is watched; it also becomes the connection's."""
    network = Watched(embedded_of(connection), **before)
    connection.client = Client(network)
    return connection.client, network
