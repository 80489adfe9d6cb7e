"""The embedded network: a Solana VM in this process, its ledger in one SQLite file under the home folder.

Rules:
- What is in `ledger.sqlite` is the chain. The VM in memory (LiteSVM) is a copy of its accounts that is
  brought up to date, account by account, whenever the file's revision is ahead.
- A write holds the lock file, runs in the VM and commits accounts, transaction and indexes in one SQLite
  transaction; whatever stops it before the commit leaves file and VM as they were.
- Every transaction that pays a fee makes one block, one slot after the last; between them an empty block
  passes every 400 ms. Empty blocks are not stored: their hashes follow from the block below. A hash ends
  with its slot, so its age is found without a list of hashes. Block height counts time only, hence a
  blockhash lives for 150 x 400 ms whatever the load.
- Time is the wall clock plus the seconds ever warped; it never goes back.
- Not here: address lookup tables, durable nonces, votes and stakes.
- The OpenResearch program comes from the package at every start and is not stored.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from solders import account as solders_account
from solders import clock as solders_clock
from solders.hash import Hash
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata, TransactionMetadata

from chain.errors import ChainError, InvalidData, TransactionFailed
from chain.network.base import (
    BLOCKHASH_AGE,
    CLOCK_SYSVAR,
    CONFIRM_SECONDS,
    LAMPORTS_PER_SOL,
    MAX_TRANSACTION,
    Account,
    Blockhash,
    Clock,
    HistoryEntry,
    Simulation,
    TransactionReceipt,
    TransactionRejected,
    account_of,
    error_json,
    error_text,
    matches,
    program_error_of,
)
from chain.program import PROGRAM_ID
from common.files import lock, unlock

SLOT_MS = 400
SLOTS_PER_EPOCH = 432_000
FAUCET_LAMPORTS = 500_000_000 * LAMPORTS_PER_SOL
MAX_AIRDROP = 1_000_000 * LAMPORTS_PER_SOL
LOCK_SECONDS = 30.0  # a write takes milliseconds; longer means that its holder is stopped
_UPGRADEABLE_LOADER = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")
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


class Block(NamedTuple):
    """A block and when it came, in milliseconds since 1970."""

    slot: int
    hash: bytes
    ms: int


def make_hash(slot: int, *seed: bytes) -> bytes:
    """32 bytes that depend on `seed` and end with the slot."""
    return hashlib.sha256(b"".join(seed)).digest()[:24] + slot.to_bytes(8, "big")


def block_after(below: Block, slot: int) -> Block:
    """The empty block at `slot` where `below` is the last stored one at or under it."""
    if slot == below.slot:
        return below
    empty = slot - below.slot
    return Block(slot, make_hash(slot, below.hash, slot.to_bytes(8, "big")), below.ms + empty * SLOT_MS)


def block_at(tip: Block, now_ms: int) -> Block:
    """The newest block at `now_ms`, where `tip` is the last stored one."""
    return block_after(tip, tip.slot + max(0, now_ms - tip.ms) // SLOT_MS)


@dataclass(frozen=True, slots=True)
class Record:
    """A transaction that landed, as kept. `error` is an RPC node's JSON or None; `pre` and `post` are the
    lamports of its message's accounts; `inner` holds (program index, account indexes, data, stack height)
    per outer instruction.
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulated transaction came to; `error` is an RPC node's JSON or None."""

    error: object
    logs: tuple[str, ...] = ()
    units: int = 0
    fee: int = 0
    returned: tuple[str, bytes] | None = None
    accounts: dict[Pubkey, Account | None] = field(default_factory=dict)


class EmbeddedNetwork:
    """The network called "embedded". Threads may share one; processes open their own on the same home.

    Raises InvalidData where the file is no ledger of this format, ChainError where the home folder cannot
    be written or another process keeps the lock for longer than 30 s. `image` replaces the program's ELF,
    `now` the wall clock (seconds since 1970).
    """

    name = "embedded"
    is_local = True

    def __init__(
        self,
        home: Path,
        *,
        program_id: Pubkey = PROGRAM_ID,
        image: bytes | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        if image is None:
            from chain.program import image as packaged

            image = packaged()
        self.home = home
        self.path = home / "ledger.sqlite"
        self.program_id = program_id
        self._now = now
        self._guard = threading.RLock()  # LiteSVM and the connection serve one thread at a time
        self._revision = 0
        self._warped_ms = self._floor_ms = 0
        self._tip = Block(0, b"", 0)
        with _readable(self.path), ExitStack() as undo:
            home.mkdir(parents=True, exist_ok=True)
            self._lock = undo.enter_context(open(home / "ledger.lock", "wb"))
            self._db = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
            undo.callback(self._db.close)
            self._db.execute("PRAGMA synchronous = NORMAL")  # with WAL a kill loses nothing that was committed
            genesis_hash, self.genesis_ms, faucet = self._open()
            undo.pop_all()
        self.genesis_hash = Hash.from_bytes(genesis_hash)
        self._faucet = Keypair.from_seed(faucet)
        self._svm = _virtual_machine()
        self._set_clock(Block(1, b"", self.genesis_ms))
        self._svm.add_program(program_id, image)
        with self._reading():
            pass  # loads every account

    def _open(self) -> tuple[bytes, int, bytes]:
        """Make the tables where there are none; gives genesis hash, genesis time and the faucet's seed."""
        with self._locked():
            self._db.execute("PRAGMA journal_mode = WAL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if not tables:
                self._create()
            elif version != _FORMAT:
                raise InvalidData(
                    f"{self.path} has ledger format {version}; this version reads format {_FORMAT}.",
                    "Move the file away or give another --home.",
                )
        row = self._db.execute("SELECT genesis_hash, genesis_ms, faucet FROM state").fetchone()
        return bytes(row[0]), int(row[1]), bytes(row[2])

    def _create(self) -> None:
        faucet, ms = os.urandom(32), int(self._now() * 1000)
        genesis = make_hash(0, os.urandom(32))
        address = bytes(Keypair.from_seed(faucet).pubkey())
        self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}")
        self._db.execute("INSERT INTO state VALUES (0, 1, 0, ?, ?, 0, ?, ?, ?)", (genesis, ms, genesis, ms, faucet))
        self._db.execute(
            "INSERT INTO accounts VALUES (?, 1, ?, ?, 0, 0, x'')",
            (address, FAUCET_LAMPORTS, bytes(SYSTEM_PROGRAM)),
        )
        self._db.execute(f"PRAGMA user_version = {_FORMAT}")
        self._db.execute("COMMIT")

    # What the network protocol asks for.

    def account(self, key: Pubkey) -> Account | None:
        """The account, or None where there is none."""
        with self._reading():
            if key == CLOCK_SYSVAR:
                self._set_clock(self._newest())
            return _account(self._svm.get_account(key))

    def accounts(self, keys: Sequence[Pubkey]) -> list[Account | None]:
        """One entry per key, in order, of one moment."""
        with self._reading():
            return [self.account(key) for key in keys]

    def program_accounts(
        self, program: Pubkey, *, size: int | None = None, memcmp: Sequence[tuple[int, bytes]] = ()
    ) -> list[tuple[Pubkey, Account]]:
        """Accounts owned by `program` with exactly `size` data bytes that hold each (offset, bytes)."""
        with self._reading():
            found = self._svm.get_program_accounts(program)
        kept = [(key, account_of(state)) for key, state in found if matches(state.data, size, memcmp)]
        return sorted(kept, key=lambda pair: bytes(pair[0]))

    def balance(self, key: Pubkey) -> int:
        """Lamports; 0 where there is no account."""
        with self._reading():
            return self._svm.get_balance(key) or 0

    def rent(self, size: int) -> int:
        """Lamports that exempt an account of `size` data bytes from rent."""
        with self._guard:
            return self._svm.minimum_balance_for_rent_exemption(size)

    def clock(self) -> Clock:
        """Slot of the newest block, and now."""
        with self._reading():
            now = self._now_ms()
            return Clock(block_at(self._tip, now).slot, now // 1000)

    def block_height(self) -> int:
        """Blocks of 400 ms since genesis."""
        with self._reading():
            return self._height(self._now_ms())

    def height_of(self, block: Block) -> int:
        """The block height when `block` came."""
        return self._height(block.ms)

    def transaction_count(self) -> int:
        """Transactions that landed."""
        with self._reading():
            (count,) = self._db.execute("SELECT count(*) FROM transactions").fetchone()
            return int(count)

    def latest_blockhash(self) -> Blockhash:
        """The newest block's hash."""
        with self._reading():
            block = self._newest()
            return Blockhash(Hash.from_bytes(block.hash), self._height(block.ms) + BLOCKHASH_AGE)

    def block_hash(self, slot: int) -> Hash | None:
        """The hash of the block at `slot` (none is skipped); None where it is still to come."""
        block = self.block(slot)
        return None if block is None else Hash.from_bytes(block.hash)

    def block(self, slot: int) -> Block | None:
        """The block at `slot`, or None where it is still to come."""
        with self._reading():
            if not 0 <= slot <= self._newest().slot:
                return None
            row = self._db.execute(
                "SELECT slot, hash, ms FROM transactions WHERE slot <= ? ORDER BY slot DESC LIMIT 1", (slot,)
            ).fetchone()
            below = Block(*row) if row else Block(0, bytes(self.genesis_hash), self.genesis_ms)
            return block_after(below, slot)

    def blockhash_valid(self, blockhash: Hash) -> bool:
        """Whether a transaction that carries this hash could land now."""
        raw = bytes(blockhash)
        with self._reading():
            block = self.block(int.from_bytes(raw[24:], "big") & (1 << 63) - 1)
            age = self._height(self._now_ms()) - self._height(block.ms) if block else 0
            return block is not None and block.hash == raw and age <= BLOCKHASH_AGE

    def priority_fees(self, keys: Sequence[Pubkey]) -> list[int]:
        """None: every transaction has a block to itself."""
        return []

    def simulate(self, tx: VersionedTransaction, *, watch: Sequence[Pubkey] = ()) -> Simulation:
        """Run `tx` on the state of now and keep nothing; neither signatures nor blockhash are checked."""
        outcome = self.run(tx, watch=watch)
        return Simulation(
            error=None if outcome.error is None else error_text(outcome.error),
            program_error=program_error_of(outcome.error),
            logs=outcome.logs,
            units=outcome.units,
            return_data=outcome.returned[1] if outcome.returned else b"",
            accounts=outcome.accounts,
        )

    def run(
        self,
        tx: VersionedTransaction,
        *,
        watch: Sequence[Pubkey] = (),
        signatures: bool = False,
        fresh: bool = False,
    ) -> Outcome:
        """Simulate; where asked, check its signatures, and that it is fresh: not landed yet, and with a
        valid blockhash.
        """
        with self._reading():
            if fresh and self._slot_of(tx.signatures[0]) is not None:
                return Outcome("AlreadyProcessed")
            if fresh and not self.blockhash_valid(tx.message.recent_blockhash):
                return Outcome("BlockhashNotFound")
            self._set_clock(self._next())
            self._svm.with_sigverify(signatures)
            try:
                result = self._svm.simulate_transaction(tx)
            finally:
                self._svm.with_sigverify(True)
            if isinstance(result, FailedTransactionMetadata):
                meta = result.meta()
                logs, units = tuple(meta.logs()), meta.compute_units_consumed()
                return Outcome(error_json(result.err()), logs, units, meta.fee(), _returned(meta))
            meta = result.meta()
            after = {key: _account(state) for key, state in result.post_accounts()}
            return Outcome(
                error=None,
                logs=tuple(meta.logs()),
                units=meta.compute_units_consumed(),
                fee=meta.fee(),
                returned=_returned(meta),
                accounts={key: after[key] if key in after else self.account(key) for key in watch},
            )

    def send(self, tx: VersionedTransaction) -> Signature:
        """Execute and commit. Raises TransactionRejected where it fails; then nothing was charged."""
        return self.submit(tx)

    def submit(self, tx: VersionedTransaction, *, preflight: bool = True) -> Signature:
        """`send`; without `preflight` a transaction that fails after paying its fee is kept as failed."""
        with self._writing() as journal:
            return self._execute(tx, journal, preflight)

    def confirm(
        self, signature: Signature, last_valid_block_height: int, *, timeout: float = CONFIRM_SECONDS
    ) -> TransactionReceipt:
        """The receipt; at once, for `send` returns only when a transaction has landed.

        Raises TransactionRejected where it failed on chain, TransactionFailed where it never landed.
        """
        record = self.record(signature)
        if record is None:
            raise TransactionFailed(
                f"The transaction {signature} is not on the ledger {self.path}.",
                "Sign it again with a fresh blockhash and send it.",
            )
        if record.error is not None:
            raise TransactionRejected(record.error, record.logs, record.units, where="on chain")
        return record.receipt()

    def transaction(self, signature: Signature) -> TransactionReceipt | None:
        """A landed transaction, or None."""
        record = self.record(signature)
        return record.receipt() if record else None

    def record(self, signature: Signature) -> Record | None:
        """A landed transaction with all that is known of it, or None."""
        found = self._records("signature = ?", bytes(signature))
        return found[0] if found else None

    def record_at(self, slot: int) -> Record | None:
        """The transaction in the block at `slot`, or None."""
        found = self._records("slot = ?", min(slot, (1 << 63) - 1))
        return found[0] if found else None

    def signatures(self, address: Pubkey, *, limit: int = 1000, before: Signature | None = None) -> list[Signature]:
        """Transactions that name `address`, newest first, those below `before` where it is given."""
        return [record.signature for record in self.history(address, limit=limit, before=before)]

    def entries(self, address: Pubkey, *, limit: int = 1000, before: Signature | None = None) -> list[HistoryEntry]:
        """One page of `signatures`, at most 1,000, with slot, time and fate of each; all are final."""
        return [
            HistoryEntry(record.signature, record.slot, record.block_time, record.error is not None, True)
            for record in self.history(address, limit=min(limit, 1000), before=before)
        ]

    def final_slot(self) -> int:
        """The newest block's slot: what is on this ledger stays."""
        return self.clock().slot

    def records_after(self, slot: int, *, limit: int = 1000) -> list[Record]:
        """Transactions that landed after `slot`, oldest first."""
        return self._records("slot > ? ORDER BY slot LIMIT ?", slot, limit)

    def history(
        self,
        address: Pubkey,
        *,
        limit: int = 1000,
        before: Signature | None = None,
        until: Signature | None = None,
    ) -> list[Record]:
        """Transactions that name `address`, newest first, below `before` and above `until`.

        None at all where `before` is unknown, as on a cluster.
        """
        with self._reading():
            low = self._slot_of(until) if until else None
            high = self._slot_of(before) if before else (1 << 63) - 1
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

    def airdrop(self, key: Pubkey, lamports: int) -> Signature:
        """A transfer from the faucet. Raises TransactionFailed outside 1 to 10^15 lamports."""
        if not 0 < lamports <= MAX_AIRDROP:
            raise TransactionFailed(
                f"The faucet gives 1 to {MAX_AIRDROP} lamports at a time, not {lamports}.", "Ask for less."
            )
        with self._writing() as journal:
            faucet = self._faucet.pubkey()
            pay = transfer(TransferParams(from_pubkey=faucet, to_pubkey=key, lamports=lamports))
            message = Message.new_with_blockhash([pay], faucet, Hash.from_bytes(self._newest().hash))
            return self._execute(VersionedTransaction(message, [self._faucet]), journal, preflight=True)

    def warp(self, seconds: int) -> Clock:
        """Move the ledger's time forward for good, for every process; slots pass accordingly."""
        if seconds < 0:
            raise ChainError(f"Time only goes forward, not by {seconds} s.", "Give a positive number.")
        with self._writing():
            self._db.execute("UPDATE state SET warped_ms = warped_ms + ?", (seconds * 1000,))
        return self.clock()

    def close(self) -> None:
        """Close the files; closing twice is harmless."""
        with self._guard:
            self._db.close()
            self._lock.close()

    # Time.

    def _now_ms(self) -> int:
        self._floor_ms = max(int(self._now() * 1000) + self._warped_ms, self._tip.ms, self._floor_ms)
        return self._floor_ms

    def _height(self, ms: int) -> int:
        return max(0, ms - self.genesis_ms) // SLOT_MS

    def _newest(self) -> Block:
        return block_at(self._tip, self._now_ms())

    def _next(self) -> Block:
        """The block in which a transaction would land now; its hash is not known before."""
        now = self._now_ms()
        return Block(block_at(self._tip, now).slot + 1, b"", now)

    def _set_clock(self, block: Block) -> None:
        epoch, into = divmod(block.slot, SLOTS_PER_EPOCH)
        start = (block.ms - into * SLOT_MS) // 1000
        self._svm.set_clock(solders_clock.Clock(block.slot, start, epoch, epoch + 1, block.ms // 1000))

    # Reading and writing the file.

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._guard, _readable(self.path):
            self._refresh()
            yield

    @contextmanager
    def _writing(self) -> Iterator[dict[Pubkey, Account | None]]:
        """One write: all of it is committed, or none of it. Yields a journal that takes accounts as they
        were before the VM changed them, to be put back if the write does not get through.
        """
        journal: dict[Pubkey, Account | None] = {}
        with self._guard, _readable(self.path), self._locked():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._refresh()
                yield journal
                self._db.execute("UPDATE state SET revision = revision + 1")
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                for key, account in journal.items():
                    if _account(self._svm.get_account(key)) != account:
                        self._svm.set_account(key, _vm_account(account))
                raise
            self._revision += 1
            self._refresh()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock file, waiting up to LOCK_SECONDS; the kernel frees it should this process die."""
        if not lock(self._lock, wait=LOCK_SECONDS, every=0.002):
            raise ChainError(
                f"Another process has kept {self._lock.name} locked for {LOCK_SECONDS:.0f} s.",
                f"Find it with `fuser {self._lock.name}` and let it finish or end it.",
            )
        try:
            yield
        finally:
            unlock(self._lock)

    def _refresh(self) -> None:
        """Bring tip, warp and VM up to the file's revision."""
        revision, slot, blockhash, ms, warped = self._state()
        if revision != self._revision:
            whole = not self._db.in_transaction
            if whole:
                self._db.execute("BEGIN")  # one snapshot for the revision and its accounts
            try:
                revision, slot, blockhash, ms, warped = self._state()
                self._load()
                self._revision = revision
            finally:
                if whole:
                    self._db.execute("COMMIT")
        self._tip, self._warped_ms = Block(slot, blockhash, ms), warped

    def _state(self) -> tuple[int, int, bytes, int, int]:
        row: tuple[int, int, bytes, int, int]
        row = self._db.execute("SELECT revision, slot, hash, ms, warped_ms FROM state").fetchone()
        return row

    def _load(self) -> None:
        """Give the VM every account written since its revision; programs last, for they need their data."""
        columns = "SELECT address, lamports, owner, executable, rent_epoch, data FROM accounts"
        programs = False
        for row in self._db.execute(f"{columns} WHERE revision > ? AND NOT executable", (self._revision,)):
            self._svm.set_account(*_from_row(row))
            programs |= row[2] == bytes(_UPGRADEABLE_LOADER)
        changed = -1 if programs else self._revision  # an upgrade changes the data alone: load all anew
        for row in self._db.execute(f"{columns} WHERE revision > ? AND executable", (changed,)):
            self._svm.set_account(*_from_row(row))

    def _slot_of(self, signature: Signature) -> int | None:
        row = self._db.execute("SELECT slot FROM transactions WHERE signature = ?", (bytes(signature),))
        found: tuple[int] | None = row.fetchone()
        return found[0] if found else None

    def _records(self, where: str, *values: object) -> list[Record]:
        with self._reading():
            rows = self._db.execute(f"SELECT slot, ms, signature, wire, meta FROM transactions WHERE {where}", values)
            return [_record(*row) for row in rows]

    # Executing.

    def _execute(self, tx: VersionedTransaction, journal: dict[Pubkey, Account | None], preflight: bool) -> Signature:
        wire, message = bytes(tx), tx.message
        if len(wire) > MAX_TRANSACTION:
            raise TransactionFailed(
                f"The transaction has {len(wire)} bytes; a cluster takes {MAX_TRANSACTION}.",
                "Split it into several.",
            )
        if not isinstance(message, Message | MessageV0) or not tx.signatures:
            raise TransactionRejected("UnsupportedVersion" if tx.signatures else "SignatureFailure")
        signature = tx.signatures[0]
        if self._slot_of(signature) is not None:
            raise TransactionRejected("AlreadyProcessed")
        if not self.blockhash_valid(message.recent_blockhash):
            raise TransactionRejected("BlockhashNotFound")
        if isinstance(message, MessageV0) and message.address_table_lookups:
            raise TransactionRejected("AddressLookupTableNotFound")
        keys, writable = message.account_keys, writable_keys(message)
        before = {key: _account(self._svm.get_account(key)) for key in keys}
        journal.update({key: before[key] for key in writable})
        block = self._next()
        self._set_clock(block)
        result = self._svm.send_transaction(tx)
        error = error_json(result.err()) if isinstance(result, FailedTransactionMetadata) else None
        meta = result.meta() if isinstance(result, FailedTransactionMetadata) else result
        after = before | {key: _account(self._svm.get_account(key)) for key in writable}
        changed = [key for key in writable if after[key] != before[key]]
        # A transaction that could not even pay is on no chain, preflight or not.
        if error is not None and (preflight or not changed):
            raise TransactionRejected(error, tuple(meta.logs()), meta.compute_units_consumed())
        blockhash = make_hash(block.slot, self._tip.hash, bytes(signature), os.urandom(32))
        self._db.execute(
            "INSERT INTO transactions VALUES (?, ?, ?, ?, ?, ?)",
            (
                block.slot,
                blockhash,
                block.ms,
                bytes(signature),
                wire,
                _meta_json(meta, error, [before[k] for k in keys], [after[k] for k in keys]),
            ),
        )
        self._db.executemany(
            "INSERT INTO touched VALUES (?, ?)", [(bytes(key), block.slot) for key in dict.fromkeys(keys)]
        )
        self._db.executemany(
            "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?)",
            [_to_row(key, self._revision + 1, after[key]) for key in changed],
        )
        self._db.execute("UPDATE state SET slot = ?, hash = ?, ms = ?", (block.slot, blockhash, block.ms))
        return signature


def writable_keys(message: Message | MessageV0) -> list[Pubkey]:
    """The accounts among a message's own that it may write; the first pays the fee."""
    keys, header = message.account_keys, message.header
    signers = header.num_required_signatures
    return [
        *keys[: signers - header.num_readonly_signed_accounts],
        *keys[signers : len(keys) - header.num_readonly_unsigned_accounts],
    ]


def _virtual_machine() -> LiteSVM:
    """LiteSVM as on mainnet; blockhashes and duplicates are the ledger's to judge."""
    return (
        LiteSVM.default()
        .with_mainnet_features()
        .with_builtins()
        .with_lamports(0)
        .with_sysvars()
        .with_feature_accounts()
        .with_default_programs()
        .with_sigverify(True)
        .with_blockhash_check(False)
        .with_transaction_history(0)
    )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system say into one line with a cure."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # use after close is a mistake of the caller's, not of the file
    except sqlite3.OperationalError as error:
        raise ChainError(
            f"The ledger {path} cannot be used: {error}.",
            "Check the disk's space and the file's permissions.",
        ) from error
    except sqlite3.DatabaseError as error:
        raise InvalidData(f"{path} is not a ledger: {error}.", "Move the file away or give another --home.") from error
    except OSError as error:
        raise ChainError(
            f"The ledger {path} cannot be used: {error.strerror}.", "Give a --home that you may write to."
        ) from error


def _account(state: solders_account.Account | None) -> Account | None:
    return None if state is None else account_of(state)


def _vm_account(account: Account | None) -> solders_account.Account:
    if account is None:  # zero lamports is how the VM forgets one
        return solders_account.Account(0, b"", SYSTEM_PROGRAM)
    return solders_account.Account(
        account.lamports, account.data, account.owner, account.executable, account.rent_epoch
    )


_Row = tuple[bytes, int, bytes, int, int, bytes]
_WRAP = 1 << 64  # SQLite's integers are signed


def _from_row(row: _Row) -> tuple[Pubkey, solders_account.Account]:
    address, lamports, owner, executable, rent_epoch, data = row
    return Pubkey.from_bytes(address), solders_account.Account(
        lamports % _WRAP, data, Pubkey.from_bytes(owner), bool(executable), rent_epoch % _WRAP
    )


def _to_row(key: Pubkey, revision: int, account: Account | None) -> tuple[bytes, int, int, bytes, bool, int, bytes]:
    """A closed account stays as a row of zero lamports, so that other processes learn of it."""
    state = account or Account(0, SYSTEM_PROGRAM, b"", False, 0)
    lamports, rent_epoch = (n - _WRAP if n >> 63 else n for n in (state.lamports, state.rent_epoch))
    return bytes(key), revision, lamports, bytes(state.owner), state.executable, rent_epoch, state.data


def _returned(meta: TransactionMetadata) -> tuple[str, bytes] | None:
    returned = meta.return_data()
    return (str(returned.program_id), returned.data) if returned.data else None


def _meta_json(
    meta: TransactionMetadata,
    error: object,
    before: list[Account | None],
    after: list[Account | None],
) -> str:
    returned = _returned(meta)
    inner = [
        [
            [i.program_id_index, i.accounts.hex(), i.data.hex(), step.stack_height()]
            for step in steps
            for i in (step.instruction(),)
        ]
        for steps in meta.inner_instructions()
    ]
    return json.dumps(
        {
            "fee": meta.fee(),
            "error": error,
            "logs": meta.logs(),
            "units": meta.compute_units_consumed(),
            "pre": [account.lamports if account else 0 for account in before],
            "post": [account.lamports if account else 0 for account in after],
            "returned": [returned[0], returned[1].hex()] if returned else None,
            "inner": inner,
        },
        separators=(",", ":"),
    )


def _record(slot: int, ms: int, signature: bytes, wire: bytes, meta: str) -> Record:
    kept = json.loads(meta)
    return Record(
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
    )
