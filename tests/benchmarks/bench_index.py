"""What indexing costs: decoding proposals, the first sync of many, an incremental restart, transactions per second.

Run by name: `uv run python -m tests.benchmarks.bench_index [--proposals N] [--sample N] [--transactions N]`. Every
figure is printed with its ratio to a reference from the same run: decoding to a bare `struct` unpacking, syncs to
reading a sample of the same proposals one account at a time over the same connection, the ledger's buys to bare
LiteSVM transfers. All over JSON-RPC from a node in this process unless it says embedded.
"""

from __future__ import annotations

import argparse
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from chain.indexer.rules import Follower
from chain.indexer.watch import catch_up
from chain.localnet.server import serve
from chain.network.base import Network
from chain.network.embedded import EmbeddedNetwork
from chain.network.rpc import RpcNetwork
from chain.program import PROGRAM_ID
from chain.program.accounts import GlobalConfig, Proposal, ProposalStatus, decode_account
from chain.program.addresses import Pdas
from chain.program.events import ProposalSubmitted
from chain.program.instructions import Buy
from tests import local
from tests.benchmarks.bench_ledger import rate_bare
from tests.chain import live
from tests.chain.layout import encode_account

_LAYOUT = struct.Struct("<8sQQ32s32s32s32s32s32s32s32sqqQqq32sBBB")
_OPEN = 100  # proposals that are still open


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def best(work: Callable[[], object], times: int = 3) -> float:
    """The shortest of several."""
    return min(seconds(work) for _ in range(times))


def decoding(count: int) -> tuple[float, float]:
    """Proposals per second: decoded, and merely unpacked."""
    data = [encode_account(live.proposal(number)) for number in range(count)]
    typed = best(lambda: [decode_account(Proposal, raw) for raw in data])
    bare = best(lambda: [_LAYOUT.unpack(raw) for raw in data])
    return count / typed, count / bare


def fill(home: Path, count: int) -> None:
    """Project 0 with `count` proposals, most of them settled."""
    local.home_with_project(home)
    made = [
        live.proposal(n, ProposalStatus.PENDING if n >= count - _OPEN else ProposalStatus.REJECTED)
        for n in range(count)
    ]
    with local.connect(home) as connection:
        config = connection.client.config()
    raised = GlobalConfig(config.authority, config.next_project_id, count, config.verifier_count, config.bump)
    accounts = [(live.PDAS.config(), encode_account(raised), PROGRAM_ID)]
    live.put(home, *accounts, *map(live.proposal_account, made))


def first_sync(network: Network, path: Path, count: int) -> float:
    """Seconds until all proposals are in the index."""

    def work() -> None:
        with Follower(network, 0, path) as follower:
            follower.sync()
            if len(follower.proposals()) != count:
                raise SystemExit(f"{len(follower.proposals())} of {count} proposals came")

    return seconds(work)


def restart(network: Network, path: Path, submitted: int) -> float:
    """Seconds for a new process to open the index and find one proposal that was submitted meanwhile."""

    def work() -> None:
        with Follower(network, 0, path) as follower:
            events = [event.event for event in follower.sync()]
            if [event.id for event in events if isinstance(event, ProposalSubmitted)] != [submitted]:
                raise SystemExit(f"expected proposal {submitted}, found {events}")

    return seconds(work)


def one_at_a_time(network: Network, sample: int) -> float:
    """Seconds per proposal, read and decoded singly."""
    pdas = Pdas(network.program_id)

    def work() -> None:
        for number in range(sample):
            account = network.account(pdas.proposal(number))
            if account is None:
                raise SystemExit(f"there is no proposal {number}")
            decode_account(Proposal, account.data)

    return seconds(work) / sample


def transactions(home: Path, count: int) -> tuple[float, float]:
    """Per second on the embedded ledger: buys, each simulated, sent and confirmed; and reading their history."""
    with local.connect(home) as connection:
        miner, project = local.miner_of(connection), connection.client.project(0)
        with Follower(connection.network, 0, home / "rate.sqlite") as follower:
            follower.sync()
            price = local.BASE_PRICE + local.SLOPE * (count + 100)
            bought = seconds(lambda: [connection.client.call(Buy(project.id, price + n), miner) for n in range(count)])
            read = seconds(lambda: (follower.sync(count), catch_up(follower, lambda words: None)))
    return count / bought, count / read


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proposals", type=int, default=10_000)
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--transactions", type=int, default=300)
    chosen = parser.parse_args()
    count = chosen.proposals
    typed, bare = decoding(count)
    print(f"decode: {typed:,.0f} proposals/s, bare struct {bare:,.0f}/s, ratio {typed / bare:.3f}")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        fill(home, count)
        embedded = EmbeddedNetwork(home)
        with serve(embedded, port=0).start() as node:
            rpc = RpcNetwork(node.url)
            for name, network in (("embedded", embedded), ("JSON-RPC", rpc)):
                naive = one_at_a_time(network, min(chosen.sample, count)) * count
                path = Path(folder) / f"{name}.sqlite"
                first = first_sync(network, path, count)
                print(
                    f"first sync of {count:,} proposals, {name}: {first:.2f} s, "
                    f"one at a time {naive:.2f} s (from {chosen.sample}), ratio {first / naive:.3f}"
                )
                with local.connect(home) as connection:
                    submitted = local.propose(connection).id
                again = restart(network, path, submitted)
                print(f"restart with one new proposal, {name}: {again * 1000:.0f} ms, ratio {again / first:.3f}")
                count += 1
            rpc.close()
        embedded.close()
        buys, history = transactions(local.home_with_project(Path(folder) / "rate"), chosen.transactions)
    reference = rate_bare(chosen.transactions)
    print(f"embedded buys: {buys:,.0f}/s, bare LiteSVM transfers {reference:,.0f}/s, ratio {buys / reference:.3f}")
    print(f"history read: {history:,.0f} transactions/s, ratio to making them {history / buys:.1f}")


if __name__ == "__main__":
    main()
