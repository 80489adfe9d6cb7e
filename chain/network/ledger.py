"""What the embedded network keeps: its blocks, accounts and transactions, in one SQLite file under the home folder.

Rules:
- A write holds the lock file and is one SQLite transaction, which raises the file's revision; whatever stops it before
  the commit leaves the file as it was.
- Every transaction that pays a fee makes one block, one slot after the last; between them an empty block
  passes every 400 ms. Empty blocks are not stored: their hashes follow from the block below. A hash ends
  with its slot, so its age is found without a list of hashes.
- Accounts stay; of transactions and their blocks the newest KEPT stay, as on a cluster's node, and the space of older
  ones is used again: the file does not grow without bound.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import ID as SYSTEM_PROGRAM

from chain.errors import ChainError, InvalidData
from chain.network.base import LAMPORTS_PER_SOL, Account, TransactionReceipt, error_text, matches, program_error_of
from chain.network.execution import TokenBalance
from common.files import lock, unlock

SLOT_MS = 400
FAUCET_LAMPORTS = 500_000_000 * LAMPORTS_PER_SOL
LOCK_SECONDS = 30.0  # a write takes milliseconds; longer means that its holder is stopped
KEPT = 100_000  # transactions, at about 1 kB each
_PRUNED = 1_000  # at a time
_FORMAT = 1  # PRAGMA user_version of the file
_SCHEMA = """
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 0), revision INTEGER NOT NULL,
    slot INTEGER NOT NULL, hash BLOB NOT NULL, ms INTEGER NOT NULL, warped_ms INTEGER NOT NULL,
    genesis_hash BLOB NOT NULL, genesis_ms INTEGER NOT NULL, faucet BLOB NOT NULL);
CREATE TABLE accounts (
    address BLOB PRIMARY KEY, revision INTEGER NOT NULL, lamports INTEGER NOT NULL, owner BLOB NOT NULL,
    executable INTEGER NOT NULL, rent_epoch INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX accounts_revision ON accounts (revision);
CREATE TABLE transactions (
    slot INTEGER PRIMARY KEY, hash BLOB NOT NULL, ms INTEGER NOT NULL, signature BLOB NOT NULL UNIQUE,
    wire BLOB NOT NULL, meta TEXT NOT NULL);
CREATE TABLE touched (address BLOB, slot INTEGER, PRIMARY KEY (address, slot)) WITHOUT ROWID;
"""


class LedgerBlock(NamedTuple):
    """A block and when it came, in milliseconds since 1970."""

    slot: int
    hash: bytes
    ms: int


_ACCOUNTS = "SELECT address, lamports, owner, executable, rent_epoch, data FROM accounts"


def make_hash(slot: int, *seed: bytes) -> bytes:
    """32 bytes that depend on `seed` and end with the slot."""
    return hashlib.sha256(b"".join(seed)).digest()[:24] + slot.to_bytes(8, "big")


def block_after(below: LedgerBlock, slot: int) -> LedgerBlock:
    """The empty block at `slot` where `below` is the last stored one at or under it."""
    if slot == below.slot:
        return below
    empty = slot - below.slot
    return LedgerBlock(slot, make_hash(slot, below.hash, slot.to_bytes(8, "big")), below.ms + empty * SLOT_MS)


def block_at(tip: LedgerBlock, now_ms: int) -> LedgerBlock:
    """The newest block at `now_ms`, where `tip` is the last stored one."""
    return block_after(tip, tip.slot + max(0, now_ms - tip.ms) // SLOT_MS)


@dataclass(frozen=True, slots=True)
class LandedTransaction:
    """A transaction that landed, as kept. `error` is an RPC node's JSON or None; `pre` and `post` are the
    lamports of its accounts; `inner` holds (program index, account indexes, data, stack height) per outer
    instruction; `loaded` the accounts that lookup tables added, writable and not; `cost` is in cost units.
    """

    slot: int
    block_time: int
    signature: Signature
    wire: bytes
    fee: int
    error: object
    logs: tuple[str, ...]
    units: int
    pre: tuple[int, ...]
    post: tuple[int, ...]
    returned: tuple[str, bytes] | None
    inner: tuple[tuple[tuple[int, bytes, bytes, int | None], ...], ...]
    loaded: tuple[tuple[Pubkey, ...], tuple[Pubkey, ...]]
    tokens: tuple[TokenBalance, ...]
    cost: int

    def receipt(self) -> TransactionReceipt:
        """The same in the words of `chain.network.base`."""
        return TransactionReceipt(
            signature=self.signature,
            slot=self.slot,
            block_time=self.block_time,
            fee=self.fee,
            paid=self.pre[0] - self.post[0],
            error=None if self.error is None else error_text(self.error),
            program_error=program_error_of(self.error),
            logs=self.logs,
            transaction=self.wire,
        )


class LedgerState(NamedTuple):
    """How far a ledger is: its revision, its last stored block and the milliseconds ever warped."""

    revision: int
    tip: LedgerBlock
    warped_ms: int


class Ledger:
    """The file `ledger.sqlite` in a home folder, made at `now_ms` where there is none. For one thread at a time.

    Raises InvalidData if the file is no ledger of this format, ChainError if the folder cannot be written or
    another process keeps the lock for longer than 30 s.
    """

    def __init__(self, home: Path, now_ms: int) -> None:
        self.path = home / "ledger.sqlite"
        with _in_words(self.path), ExitStack() as undo:
            home.mkdir(parents=True, exist_ok=True)
            self._lock = undo.enter_context(open(home / "ledger.lock", "wb"))
            self._db = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
            undo.callback(self._db.close)
            self._db.execute("PRAGMA synchronous = NORMAL")  # with WAL a kill loses nothing that was committed
            with self._locked():
                self._open(now_ms)
            row = self._db.execute("SELECT genesis_hash, genesis_ms, faucet FROM state").fetchone()
            undo.pop_all()
        self._appended = 0
        self._stored: list[LedgerBlock] = []  # the newest blocks up to the last stored one, read once
        self.genesis = LedgerBlock(0, bytes(row[0]), int(row[1]))
        self.faucet = Keypair.from_seed(bytes(row[2]))

    def _open(self, now_ms: int) -> None:
        """Make the tables where there are none."""
        self._db.execute("PRAGMA journal_mode = WAL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'state'").fetchone()
        # How many transactions were pruned. Ledgers of earlier versions have no such table.
        self._db.execute("CREATE TABLE IF NOT EXISTS pruned (transactions INTEGER NOT NULL)")
        if tables and version != _FORMAT:
            raise InvalidData(
                f"{self.path} has ledger format {version}; this version reads format {_FORMAT}.",
                "Move the file away, or use another --home.",
            )
        if tables:
            return
        faucet, genesis = os.urandom(32), make_hash(0, os.urandom(32))
        address = bytes(Keypair.from_seed(faucet).pubkey())
        state = (genesis, now_ms, genesis, now_ms, faucet)
        self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}")
        self._db.execute("INSERT INTO state VALUES (0, 1, 0, ?, ?, 0, ?, ?, ?)", state)
        self._db.execute(
            "INSERT INTO accounts VALUES (?, 1, ?, ?, 0, 0, x'')", (address, FAUCET_LAMPORTS, bytes(SYSTEM_PROGRAM))
        )
        self._db.execute(f"PRAGMA user_version = {_FORMAT}")
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Close the files; closing twice is harmless."""
        self._db.close()
        self._lock.close()

    # Reading.

    @contextmanager
    def reading(self) -> Iterator[None]:
        """A block of reads, whose failures are InvalidData or ChainError."""
        with _in_words(self.path):
            yield

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """A block of reads of one moment; within a write they are so anyway."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("COMMIT")

    def state(self) -> LedgerState:
        """How far it is."""
        row = self._db.execute("SELECT revision, slot, hash, ms, warped_ms FROM state").fetchone()
        return LedgerState(row[0], LedgerBlock(*row[1:4]), row[4])

    def accounts_after(self, revision: int, *, executable: bool) -> Iterator[tuple[Pubkey, Account]]:
        """Accounts written after a revision, closed ones as empty accounts: the programs among them, or the others."""
        for row in self._db.execute(f"{_ACCOUNTS} WHERE revision > ? AND executable = ?", (revision, executable)):
            yield _from_row(row)

    def account(self, key: Pubkey) -> Account | None:
        """An account as last written, of zero lamports where it was closed; None if none ever was."""
        row = self._db.execute(f"{_ACCOUNTS} WHERE address = ?", (bytes(key),)).fetchone()
        return _from_row(row)[1] if row else None

    def accounts_of(
        self, owner: Pubkey, size: int | None, memcmp: Sequence[tuple[int, bytes]]
    ) -> Iterator[tuple[Pubkey, Account]]:
        """An owner's accounts of exactly `size` data bytes (None: any) that hold each (offset, bytes)."""
        for row in self._db.execute(f"{_ACCOUNTS} WHERE owner = ? AND lamports != 0", (bytes(owner),)):
            if matches(row[5], size, memcmp):
                yield _from_row(row)

    def block_under(self, slot: int) -> LedgerBlock:
        """The last stored block at or under `slot`."""
        row = self._db.execute(
            "SELECT slot, hash, ms FROM transactions WHERE slot <= ? ORDER BY slot DESC LIMIT 1", (slot,)
        ).fetchone()
        return LedgerBlock(*row) if row else self.genesis

    def newest_blocks(self, newest: LedgerBlock, count: int) -> list[LedgerBlock]:
        """The `count` blocks up to `newest`, the newest first; fewer since genesis."""
        first = max(0, newest.slot - count + 1)
        if self._stored and self._stored[-1].slot + 1 < first:
            self._stored.clear()
        start = max(first, self._stored[-1].slot + 1) if self._stored else first
        below = self.block_under(start)
        rows = self._db.execute("SELECT slot, hash, ms FROM transactions WHERE slot > ? ORDER BY slot", (below.slot,))
        above = {slot: LedgerBlock(slot, *row) for slot, *row in rows}
        last = max(above, default=below.slot)
        blocks = []
        for slot in range(start, newest.slot + 1):
            below = above.get(slot, below)
            blocks.append(block_after(below, slot))
        kept = [block for block in self._stored if block.slot >= first]
        # Where others write too, an empty block above the last stored one may yet become another.
        self._stored = kept + [block for block in blocks if block.slot <= last]
        return (kept + blocks)[::-1]

    def transaction_count(self) -> int:
        """Transactions that landed."""
        kept, pruned = self._db.execute(
            "SELECT (SELECT count(*) FROM transactions), (SELECT coalesce(sum(transactions), 0) FROM pruned)"
        ).fetchone()
        return int(kept) + int(pruned)

    def first_slot(self) -> int:
        """The first slot whose block is known: 0 until older ones were pruned, then the oldest transaction's."""
        # As a subquery min() is one look; beside a WHERE that is false it reads the whole table.
        oldest = "SELECT min(slot) FROM transactions"
        (slot,) = self._db.execute(f"SELECT CASE WHEN EXISTS (SELECT 1 FROM pruned) THEN ({oldest}) END").fetchone()
        return int(slot or 0)

    def transactions_between(self, first: int, last: int) -> int:
        """Transactions that landed in the slots from `first` to `last`."""
        (count,) = self._db.execute(
            "SELECT count(*) FROM transactions WHERE slot BETWEEN ? AND ?", (first, last)
        ).fetchone()
        return int(count)

    def supply(self) -> int:
        """Lamports of all accounts."""
        (total,) = self._db.execute("SELECT sum(lamports) FROM accounts").fetchone()
        return int(total)

    def richest(self, count: int) -> list[tuple[Pubkey, int]]:
        """The accounts with most lamports, and these."""
        rows = self._db.execute(
            "SELECT address, lamports FROM accounts WHERE lamports > 0 ORDER BY lamports DESC LIMIT ?", (count,)
        )
        return [(Pubkey.from_bytes(address), lamports) for address, lamports in rows]

    def slot_of(self, signature: Signature) -> int | None:
        """Where a transaction landed, or None."""
        row = self._db.execute("SELECT slot FROM transactions WHERE signature = ?", (bytes(signature),))
        found: tuple[int] | None = row.fetchone()
        return found[0] if found else None

    def record(self, signature: Signature) -> LandedTransaction | None:
        """A landed transaction, or None."""
        found = self._records("signature = ?", bytes(signature))
        return found[0] if found else None

    def record_at(self, slot: int) -> LandedTransaction | None:
        """The transaction in the block at `slot`, or None."""
        found = self._records("slot = ?", min(slot, (1 << 63) - 1))
        return found[0] if found else None

    def records_after(self, slot: int, limit: int) -> list[LandedTransaction]:
        """Transactions that landed after `slot`, oldest first."""
        return self._records("slot > ? ORDER BY slot LIMIT ?", slot, limit)

    def history(
        self, address: Pubkey, limit: int, before: Signature | None, until: Signature | None
    ) -> list[LandedTransaction]:
        """Transactions that name `address`, newest first, below `before` and above `until`.

        None at all where `before` is unknown, as on a cluster.
        """
        low = self.slot_of(until) if until else None
        high = self.slot_of(before) if before else (1 << 63) - 1
        if high is None:
            return []
        return self._records(
            "slot IN (SELECT slot FROM touched WHERE address = ? AND slot > ? AND slot < ?"
            " ORDER BY slot DESC LIMIT ?) ORDER BY slot DESC",
            bytes(address),
            -1 if low is None else low,
            high,
            max(0, limit),
        )

    def _records(self, where: str, *values: object) -> list[LandedTransaction]:
        rows = self._db.execute(f"SELECT slot, ms, signature, wire, meta FROM transactions WHERE {where}", values)
        return [_from_meta(*row) for row in rows]

    # Writing.

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One write: all of it is committed, or none of it."""
        with _in_words(self.path), self._locked():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("UPDATE state SET revision = revision + 1")
                self._db.execute("COMMIT")
            except BaseException:
                self._stored.clear()
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock file, waiting up to LOCK_SECONDS; the kernel frees it should this process die."""
        if not lock(self._lock, wait=LOCK_SECONDS, every=0.002):
            raise ChainError(
                f"Another process has locked {self._lock.name} for {LOCK_SECONDS:.0f} s.",
                f"Find it with `fuser {self._lock.name}` and let it finish, or stop it.",
            )
        try:
            yield
        finally:
            unlock(self._lock)

    def append(
        self,
        block: LedgerBlock,
        record: LandedTransaction,
        named: Sequence[Pubkey],
        changed: Iterable[tuple[Pubkey, Account | None]],
    ) -> None:
        """Add a block with its transaction, the accounts that it names and those that it changed (None: closed)."""
        self._db.execute(
            "INSERT INTO transactions VALUES (?, ?, ?, ?, ?, ?)",
            (block.slot, block.hash, block.ms, bytes(record.signature), record.wire, _meta_json(record)),
        )
        self._db.executemany(
            "INSERT INTO touched VALUES (?, ?)", [(bytes(key), block.slot) for key in dict.fromkeys(named)]
        )
        revision = self.state().revision + 1
        self._db.executemany(
            "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?)",
            [_to_row(key, revision, account) for key, account in changed],
        )
        self._db.execute("UPDATE state SET slot = ?, hash = ?, ms = ?", block)
        if self._appended % _PRUNED == 0:
            self._prune()
        self._appended += 1

    def _prune(self) -> None:
        """Forget all transactions but the newest KEPT, where there are enough of them to be worth it."""
        newest = "SELECT slot FROM transactions ORDER BY slot DESC LIMIT 1 OFFSET ?"
        if self._db.execute(newest, (KEPT + _PRUNED,)).fetchone() is None:
            return
        last = self._db.execute(newest, (KEPT,)).fetchone()
        gone = self._db.execute("DELETE FROM transactions WHERE slot <= ?", last).rowcount
        self._db.execute("DELETE FROM touched WHERE slot <= ?", last)
        self._db.execute("INSERT INTO pruned VALUES (?)", (gone,))

    def warp(self, ms: int) -> None:
        """Put the time that passes here that much further ahead of the wall clock."""
        self._db.execute("UPDATE state SET warped_ms = warped_ms + ?", (ms,))


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system say into one line with a cure."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # use after close is a mistake of the caller's, not of the file
    except sqlite3.OperationalError as error:
        raise ChainError(
            f"The ledger {path} cannot be used: {error}.",
            "Check disk space and file permissions.",
        ) from error
    except sqlite3.DatabaseError as error:
        raise InvalidData(f"{path} is not a ledger: {error}.", "Move the file away, or use another --home.") from error
    except OSError as error:
        raise ChainError(
            f"The ledger {path} cannot be used: {error.strerror}.", "Use a --home that you can write to."
        ) from error


_Row = tuple[bytes, int, bytes, int, int, bytes]
_WRAP = 1 << 64  # SQLite's integers are signed


def _from_row(row: _Row) -> tuple[Pubkey, Account]:
    address, lamports, owner, executable, rent_epoch, data = row
    account = Account(lamports % _WRAP, Pubkey.from_bytes(owner), data, bool(executable), rent_epoch % _WRAP)
    return Pubkey.from_bytes(address), account


def _to_row(key: Pubkey, revision: int, account: Account | None) -> tuple[bytes, int, int, bytes, bool, int, bytes]:
    """A closed account stays as a row of zero lamports, so that other processes learn of it."""
    state = account or Account(0, SYSTEM_PROGRAM, b"", False, 0)
    lamports, rent_epoch = (n - _WRAP if n >> 63 else n for n in (state.lamports, state.rent_epoch))
    return bytes(key), revision, lamports, bytes(state.owner), state.executable, rent_epoch, state.data


def _meta_json(record: LandedTransaction) -> str:
    returned = record.returned
    return json.dumps(
        {
            "fee": record.fee,
            "error": record.error,
            "logs": record.logs,
            "units": record.units,
            "pre": record.pre,
            "post": record.post,
            "returned": [returned[0], returned[1].hex()] if returned else None,
            "inner": [
                [[program, accounts.hex(), data.hex(), height] for program, accounts, data, height in steps]
                for steps in record.inner
            ],
            "loaded": [[str(key) for key in keys] for keys in record.loaded],
            "tokens": record.tokens,
            "cost": record.cost,
        },
        separators=(",", ":"),
    )


def _from_meta(slot: int, ms: int, signature: bytes, wire: bytes, meta: str) -> LandedTransaction:
    kept = json.loads(meta)
    return LandedTransaction(
        slot=slot,
        block_time=ms // 1000,
        signature=Signature.from_bytes(signature),
        wire=wire,
        fee=kept["fee"],
        error=kept["error"],
        logs=tuple(kept["logs"]),
        units=kept["units"],
        pre=tuple(kept["pre"]),
        post=tuple(kept["post"]),
        returned=(kept["returned"][0], bytes.fromhex(kept["returned"][1])) if kept["returned"] else None,
        inner=tuple(
            tuple(
                (program, bytes.fromhex(accounts), bytes.fromhex(data), height)
                for program, accounts, data, height in steps
            )
            for steps in kept["inner"]
        ),
        # Ledgers of earlier versions do not say these.
        loaded=(_keys(kept.get("loaded", ((), ()))[0]), _keys(kept.get("loaded", ((), ()))[1])),
        tokens=tuple(TokenBalance(*balance) for balance in kept.get("tokens", ())),
        cost=kept.get("cost", 0),
    )


def _keys(texts: Sequence[str]) -> tuple[Pubkey, ...]:
    return tuple(Pubkey.from_string(text) for text in texts)
