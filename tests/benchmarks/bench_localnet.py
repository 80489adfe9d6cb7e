"""Local networks against each other: how long until they can be used, and transactions per second one after another.

Run by name: `uv run python -m tests.benchmarks.bench_localnet [--transactions N] [--starts N]`. Rows are the embedded
ledger, the same ledger as JSON-RPC in a process of its own, and `solana-test-validator` and `surfpool` where they are
found; where they are not, their row says so.

- start: seconds from nothing to a program that is initialized and wallets that are funded; the median of new homes.
- sent/s: transfers sent one after another, the last of them landed.
- settled/s: our client's whole way, simulated, sent and confirmed, one after another.

Ratios are to the embedded ledger, in this run.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from solders.keypair import Keypair
from solders.system_program import TransferParams, transfer

from chain.connection.opening import bootstrap, fund
from chain.errors import ChainError, NotFound
from chain.localnet.validator import Kind, Plan, Validator, find, free_port
from chain.money.client import Client
from chain.network.base import Network
from chain.network.embedded import EmbeddedNetwork
from chain.network.rpc import RpcNetwork
from chain.program import PROGRAM_ID, image
from tests.chain.networks import pay

SETTLED = 20  # transactions of the slow way
SECONDS = 120.0  # for anything to start


@dataclass(frozen=True, slots=True)
class Row:
    """Seconds to start; transactions per second."""

    start: float
    sent: float
    settled: float


@contextmanager
def embedded(home: Path) -> Iterator[Network]:
    embedded = EmbeddedNetwork(home)
    try:
        bootstrap(embedded, home)
        yield embedded
    finally:
        embedded.close()


@contextmanager
def served(home: Path) -> Iterator[Network]:
    """`chain localnet` as a user starts it."""
    command = [str(Path(sys.executable).parent / "chain"), "localnet", "--home", str(home)]
    process = subprocess.Popen(
        [*command, "--port", "0", "--irys-port", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    try:
        told = dict(process.stdout.readline().split(None, 1) for _ in range(4))
        network = RpcNetwork(told["rpc"].strip(), is_local=True)
        try:
            network.balance(Keypair().pubkey())
            yield network
        finally:
            network.close()
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def beside(kind: Kind, home: Path) -> Iterator[Network]:
    plan = Plan(kind, home / kind.value, free_port(), PROGRAM_ID, image())
    with Validator(find(kind), plan) as running:
        running.wait(SECONDS)
        network = RpcNetwork(plan.url, is_local=True)
        try:
            bootstrap(network, home)
            yield network
        finally:
            network.close()


def sent_rate(network: Network, count: int) -> float:
    """Transfers per second, each answered by the network and the last one landed."""
    source = fund(network, Keypair())
    to = fund(network, Keypair()).pubkey()
    blockhash = network.latest_blockhash()
    batch = [pay(source, to, 1 + number, blockhash.hash) for number in range(count)]
    before = network.balance(to)
    started = time.perf_counter()
    for tx in batch:
        network.send(tx)
    deadline = time.monotonic() + SECONDS
    while network.balance(to) - before < count * (count + 1) // 2:
        if time.monotonic() > deadline:
            raise SystemExit("not all transfers landed")
        time.sleep(0.01)
    return count / (time.perf_counter() - started)


def settled_rate(network: Network, count: int) -> float:
    """Transactions per second of our client, simulated, sent and confirmed one after another."""
    source, client = fund(network, Keypair()), Client(network)
    to = fund(network, Keypair()).pubkey()
    started = time.perf_counter()
    for number in range(count):
        step = transfer(TransferParams(from_pubkey=source.pubkey(), to_pubkey=to, lamports=1 + number))
        client.execute([step], source)
    return count / (time.perf_counter() - started)


def measure(name: str, folder: Path, transactions: int, starts: int) -> Row:
    """One network: started `starts` times anew, the last of them used."""
    seconds = []
    for number in range(starts):
        home = folder / f"{name}-{number}"
        home.mkdir()
        begun = time.perf_counter()
        opened = {"embedded": embedded, "json-rpc": served}.get(name)
        with opened(home) if opened else beside(Kind(name), home) as network:
            seconds.append(time.perf_counter() - begun)
            if number == starts - 1:
                return Row(statistics.median(seconds), sent_rate(network, transactions), settled_rate(network, SETTLED))
    raise ValueError("at least one start")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transactions", type=int, default=500)
    parser.add_argument("--starts", type=int, default=3)
    chosen = parser.parse_args()
    print(f"{'network':<12}{'start s':>10}{'ratio':>8}{'sent/s':>10}{'ratio':>8}{'settled/s':>11}{'ratio':>8}")
    base: Row | None = None
    with tempfile.TemporaryDirectory() as folder:
        for name in ("embedded", "json-rpc", *Kind):
            try:
                row = measure(str(name), Path(folder), chosen.transactions, max(1, chosen.starts))
            except NotFound as missing:
                print(f"{name:<12}not run: {missing.problem}")
                continue
            except ChainError as error:
                print(f"{name:<12}failed: {error.problem}")
                continue
            base = base or row
            print(
                f"{name:<12}{row.start:>10.2f}{row.start / base.start:>8.1f}{row.sent:>10.0f}"
                f"{row.sent / base.sent:>8.2f}{row.settled:>11.1f}{row.settled / base.settled:>8.2f}"
            )


if __name__ == "__main__":
    main()
