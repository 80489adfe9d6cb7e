"""A project behind a provider of so many calls a second: when its state is known, and when its whole history is.

Run by name: `uv run python -m tests.benchmarks.bench_rates [--transactions N] [--proposals N]`. The real follower and
client over JSON-RPC; the provider refuses with 429 what is above its rate, and its clock is moved by calls and waits.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import closing
from pathlib import Path

from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.system_program import TransferParams, transfer

from chain.indexer.rules import Follower
from chain.network.embedded import EmbeddedNetwork
from tests.benchmarks.bench_index import fill
from tests.chain.metered import metered
from tests.chain.networks import sign

PROVIDERS = (  # calls a second, seconds a call takes, whether refused calls count
    (10, 0.02, False),
    (10, 0.02, True),
    (10, 0.1, False),
    (50, 0.1, False),
)


def main() -> None:
    """Print fake seconds for each provider."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transactions", type=int, default=10_000)
    parser.add_argument("--proposals", type=int, default=1_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        fill(home, chosen.proposals)
        with closing(EmbeddedNetwork(home)) as embedded:
            history(embedded, chosen.transactions)
            for number, (rate, latency, strict) in enumerate(PROVIDERS):
                index = Path(folder) / f"{number}.sqlite"
                with (
                    metered(embedded, rate, latency, strict=strict) as (network, provider),
                    Follower(network, 0, index) as follower,
                ):
                    follower.refresh()
                    state, calls = provider.now, provider.told[200]
                    if len(follower.proposals()) != chosen.proposals:
                        raise SystemExit("not all proposals came")
                    follower.sync()
                    while not follower.backfill().done:
                        pass
                    print(
                        f"{rate} a second, {1000 * latency:.0f} ms a call{', refused ones count' if strict else ''}: "
                        f"state after {state:.1f} s and {calls} calls; history of {chosen.transactions:,} transactions "
                        f"after {provider.now / 60:.1f} min: {provider.told[200]:,} calls, "
                        f"{provider.told[429]:,} refused",
                        flush=True,
                    )


def history(embedded: EmbeddedNetwork, count: int) -> None:
    """Transactions that name the program, and do nothing with it."""
    key = Keypair()
    embedded.airdrop(key.pubkey(), 10**12)
    for number in range(count):
        step = transfer(TransferParams(from_pubkey=key.pubkey(), to_pubkey=key.pubkey(), lamports=number + 1))
        named = [*step.accounts, AccountMeta(embedded.program_id, False, False)]
        steps = [Instruction(step.program_id, step.data, named)]
        embedded.send(sign(key, steps, embedded.latest_blockhash().hash))


if __name__ == "__main__":
    main()
