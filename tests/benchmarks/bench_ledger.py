"""What persistence costs: the embedded ledger against bare LiteSVM, and its start with many accounts.

Run by name: `uv run python -m tests.benchmarks.bench_ledger [--transactions N] [--accounts N]`. Prints
transactions per second of both on this machine, their ratio, and the seconds to open a ledger.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import time
from pathlib import Path

from solders.account import Account
from solders.hash import Hash
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM
from solders.transaction import VersionedTransaction

from chain.network.embedded import EmbeddedNetwork
from tests.chain.networks import SOL, memo_image, pay


def transfers(source: Keypair, count: int, blockhash: Hash) -> list[VersionedTransaction]:
    """Signed beforehand, so that only executing them is timed."""
    to = Keypair().pubkey()
    return [pay(source, to, SOL + n, blockhash) for n in range(count)]


def rate_bare(count: int) -> float:
    """Transactions per second in LiteSVM alone."""
    svm, alice = LiteSVM().with_blockhash_check(False).with_transaction_history(0), Keypair()
    svm.set_account(alice.pubkey(), Account(10**9 * SOL, b"", SYSTEM))
    batch = transfers(alice, count, Hash.default())
    started = time.perf_counter()
    for tx in batch:
        svm.send_transaction(tx)
    return count / (time.perf_counter() - started)


def rate_ledger(home: Path, count: int) -> float:
    """Transactions per second of the ledger: lock, execute, record, commit."""
    embedded, alice = EmbeddedNetwork(home, image=memo_image()), Keypair()
    embedded.airdrop(alice.pubkey(), 10**6 * SOL)
    batch = transfers(alice, count, embedded.latest_blockhash().hash)
    started = time.perf_counter()
    for tx in batch:
        embedded.send(tx)
    elapsed = time.perf_counter() - started
    embedded.close()
    return count / elapsed


def start_seconds(home: Path, accounts: int) -> float:
    """Seconds to open a ledger that holds `accounts` accounts of 400 bytes."""
    EmbeddedNetwork(home, image=memo_image()).close()
    with sqlite3.connect(home / "ledger.sqlite") as db:
        db.executemany(
            "INSERT INTO accounts VALUES (?, 1, ?, ?, 0, 0, ?)",
            [(bytes(Pubkey.new_unique()), SOL, bytes(SYSTEM), bytes(400)) for _ in range(accounts)],
        )
    db.close()
    started = time.perf_counter()
    embedded = EmbeddedNetwork(home, image=memo_image())
    elapsed = time.perf_counter() - started
    found = len(embedded.program_accounts(SYSTEM, size=400))
    embedded.close()
    if found != accounts:
        raise SystemExit(f"{found} of {accounts} accounts came back")
    return elapsed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transactions", type=int, default=3_000)
    parser.add_argument("--accounts", type=int, default=10_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bare = rate_bare(chosen.transactions)
        kept = rate_ledger(Path(folder) / "rate", chosen.transactions)
        empty = start_seconds(Path(folder) / "empty", 0)
        full = start_seconds(Path(folder) / "full", chosen.accounts)
    print(f"transactions/s: bare LiteSVM {bare:,.0f}, embedded ledger {kept:,.0f}, ratio {kept / bare:.2f}")
    print(f"start: empty {empty * 1000:.0f} ms, {chosen.accounts:,} accounts {full * 1000:.0f} ms")
    print(f"start ratio: {full / empty:.1f}")


if __name__ == "__main__":
    main()
