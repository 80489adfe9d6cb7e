"""What grows with the work: each cost at several sizes, and the exponent between two of them.

Run by name: `uv run python -m tests.benchmarks.bench_growth`; `--trials`, `--proposals`, `--transactions` give sizes.
An exponent of 1 is linear, 0 does not grow; what should be linear and is above 1.1 between the two largest sizes ends
it with status 1. CPU seconds of this process and its children, the least of three times where that is cheap, so that a
busy machine changes little; below 0.1 s nothing is concluded.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from unittest import mock

from solders.keypair import Keypair

from chain.indexer import rules
from chain.indexer.rules import Follower
from chain.localnet.server import serve
from chain.network import reading
from chain.network.embedded import EmbeddedNetwork
from chain.network.rpc import RpcNetwork
from chain.program import addresses
from miner.journal import journal
from miner.journal.records import Records
from miner.journal.sessions import choose
from miner.journal.worktree import Workspace
from miner.proposers.tune import Tune
from miner.report import material, page, summary
from miner.session import briefing
from tests.benchmarks.bench_index import fill
from tests.miner import growth
from tests.miner.sessions import TAG
from trainer.project import protocol, recipe

STEEP = 1.1
SMALL = 0.1  # seconds, below which a clock of 10 ms and a cache decide
CHEAP = 5.0  # seconds, above which once is enough
Costs = dict[str, float]


def used(work: Callable[[], object]) -> float:
    """CPU seconds of this process and of children that ended."""
    before = os.times()
    work()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


def least(work: Callable[[], object]) -> float:
    """The least that `work` takes, which must do the same again."""
    costs = [used(work)]
    while len(costs) < 3 and costs[0] < CHEAP:
        costs.append(used(work))
    return min(costs)


def session(trials: int) -> Costs:
    """What a session of so many trials costs to read, to show and to go on with; bytes of its commits."""
    with tempfile.TemporaryDirectory() as folder:
        made = growth.make(Path(folder), trials)
        found, tree = choose(Path(folder)), Workspace(made / "tree", TAG)
        rules = protocol.parse(recipe.load("smoke").files["protocol.json"])
        costs = {"read the journal": least(lambda: journal.read(found.journal))}
        costs["the report's page"] = least(lambda: page.build(material.gather(found, None)))
        known = journal.read(found.journal)
        costs["a summary"] = least(lambda: summary.summarize(known))
        records = Records(made, rules)
        costs["the records, first"] = used(lambda: records.update(known.sums.decided))
        costs["the records, after a trial"] = least(lambda: records.update(known.sums.decided))
        proposer = Tune(1)

        def propose() -> None:
            if proposer.propose(briefing.gather(known, tree, rules, made, seconds_left=None)) is None:
                raise SystemExit("no candidate")

        costs["a candidate, first"] = used(propose)
        costs["a candidate, next"] = used(propose)
        _unpack(tree)
        costs["packing commits"] = used(tree.pack)
        costs["commits, MB"] = size(tree.path / ".git") / 1e6
    return costs


def _unpack(tree: Workspace) -> None:
    """As commits lie that a session made one by one."""
    for pack in (tree.path / ".git" / "objects" / "pack").glob("*.pack"):
        data = pack.read_bytes()
        for part in pack.parent.glob(f"{pack.stem}.*"):
            part.unlink()
        subprocess.run(["git", "-C", str(tree.path), "unpack-objects", "-q"], input=data, check=True, timeout=600)


def size(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def served(home: Path) -> Iterator[RpcNetwork]:
    """A home's network over JSON-RPC."""
    with (
        closing(EmbeddedNetwork(home)) as embedded,
        serve(embedded, port=0).start() as node,
        closing(RpcNetwork(node.url)) as rpc,
    ):
        yield rpc


def proposals(count: int) -> Costs:
    """What following a project of so many proposals over JSON-RPC costs, the node's part included."""
    with tempfile.TemporaryDirectory() as folder:
        home, path = Path(folder) / "home", Path(folder) / "index.sqlite"
        fill(home, count)
        with served(home) as network:
            costs = {"read by their ids": least(lambda: _read_all(network, count, many=0))}
            if count <= reading.MANY:
                costs["read in one call"] = least(lambda: _read_all(network, count, many=count))
            with Follower(network, 0, path) as follower:
                follower.refresh()
                costs["refresh, 100 of them open"] = least(follower.refresh)
        costs["index, MB"] = path.stat().st_size / 1e6
    return costs


def _read_all(network: RpcNetwork, count: int, *, many: int) -> None:
    addresses._derived.cache_clear()  # as in a process that begins: it holds 4,096
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(rules, "MANY", many),
        Follower(network, 0, Path(folder) / "index.sqlite") as follower,
    ):
        follower.refresh()
        if len(follower.proposals()) != count:
            raise SystemExit(f"{len(follower.proposals())} of {count} proposals came")


def transactions(count: int) -> Costs:
    """What a practice network of so many transactions costs to make and to open."""
    with tempfile.TemporaryDirectory() as folder:
        home, key = Path(folder), Keypair().pubkey()

        def airdrops() -> None:
            with closing(EmbeddedNetwork(home)) as network:
                for number in range(count):
                    network.airdrop(key, 1_000_000 + number)

        def look() -> None:
            with closing(EmbeddedNetwork(home)) as network:
                network.balance(key)

        costs = {"transactions": used(airdrops), "open the ledger": least(look)}
        costs["ledger, MB"] = size(home) / 1e6
    return costs


def exponent(before: float, after: float, growth: float) -> float | None:
    """How a cost grew where the work grew `growth` times; None where it is too small to say."""
    return math.log(after / before) / math.log(growth) if before >= SMALL and after >= SMALL else None


def table(name: str, sizes: list[int], measure: Callable[[int], Costs]) -> list[str]:
    """Measure and print; the lines that are too steep."""
    found = []
    for count in sizes:
        found.append(measure(count))
        print(f"{name} {count:,}:", ", ".join(f"{what} {cost:.3f}" for what, cost in found[-1].items()), flush=True)
    steep = []
    print(f"\n{name:<28}" + "".join(f"{count:>12,}" for count in sizes) + "   exponents")
    for what in found[0]:
        costs = [measured[what] for measured in found if what in measured]
        steps = [exponent(costs[n], costs[n + 1], sizes[n + 1] / sizes[n]) for n in range(len(costs) - 1)]
        shown = "  ".join("-" if step is None else f"{step:.2f}" for step in steps)
        print(f"{what:<28}" + "".join(f"{cost:>12.3f}" for cost in costs) + f"   {shown}")
        if steps and steps[-1] is not None and steps[-1] > STEEP:
            steep.append(f"{what}: {steps[-1]:.2f}")
    print()
    return steep


def _sizes(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> int:
    """Measure and print; 1 where something is too steep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=_sizes, default=[100, 1_000, 10_000])
    parser.add_argument("--proposals", type=_sizes, default=[2_000, 20_000, 100_000])
    parser.add_argument("--transactions", type=_sizes, default=[100, 1_000, 10_000])
    chosen = parser.parse_args()
    steep = table("trials", chosen.trials, session)
    steep += table("proposals", chosen.proposals, proposals)
    steep += table("transactions", chosen.transactions, transactions)
    for line in steep:
        print(f"steeper than {STEEP}: {line}")
    return 1 if steep else 0


if __name__ == "__main__":
    sys.exit(main())
