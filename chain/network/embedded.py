"""The embedded network: a Solana VM in this process, and its ledger on disk (`chain.network.ledger`).

Rules:
- What is on the ledger is the chain, and accounts are read there. The VM in memory (LiteSVM) is a copy of them that is
  brought up to date, account by account, whenever the ledger's revision is ahead. It starts with the first transaction
  or the first look at what only it has (sysvars, the programs every cluster has): many commands need neither. Whatever
  stops a write leaves both as they were.
- Block height counts time only, hence a blockhash lives for 150 x 400 ms whatever the load.
- Time is the wall clock plus the seconds ever warped; it never goes back.
- A nonce account's value follows from the newest block's hash, since the VM's own hashes repeat.
- Not here: votes and stakes.
- The OpenResearch program comes from the package at every start and is not stored.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from solders.hash import Hash
from solders.litesvm import LiteSVM
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import SimulatedTransactionInfo

from chain.errors import ChainError, TransactionFailed
from chain.network.base import (
    BLOCKHASH_AGE,
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
    matches,
    sol,
)
from chain.network.execution import (
    UPGRADEABLE_LOADER,
    keys_of,
    loaded_size,
    nonce_of,
    settle,
    token_balances,
)
from chain.network.ledger import SLOT_MS, LandedTransaction, Ledger, LedgerBlock, block_after, block_at, make_hash
from chain.network.vm import (
    MOVING_SYSVARS,
    SLOT_HASHES_KEPT,
    SimulationOutcome,
    account_in,
    known_message,
    lamports_of,
    landed_transaction,
    outcome_of,
    set_sysvars,
    virtual_machine,
    vm_account,
)
from chain.program import PROGRAM_ID

MAX_AIRDROP = 1_000_000 * LAMPORTS_PER_SOL


class EmbeddedNetwork:
    """The network called "embedded". Threads may share one; processes open their own on the same home.

    Raises InvalidData if the file is no ledger of this format, ChainError if the home folder cannot
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
        self.home = home
        self.program_id = program_id
        self._image = image
        self._now = now
        self._guard = threading.RLock()  # LiteSVM and the connection serve one thread at a time
        self._revision = 0
        self._ledger = Ledger(home, int(now() * 1000))
        self.path = self._ledger.path
        self.genesis_hash = Hash.from_bytes(self._ledger.genesis.hash)
        self._tip, self._warped_ms, self._floor_ms = self._ledger.genesis, 0, 0
        self._started: LiteSVM | None = None
        with self.reading():
            pass  # the tip

    # What the network protocol asks for.

    def account(self, key: Pubkey) -> Account | None:
        """The account, or None if there is none."""
        with self.reading():
            if key in MOVING_SYSVARS:
                newest = self._newest()
                self._set_sysvars(newest, newest)
                return self._state(key)
            return self._account(key)

    def accounts(self, keys: Sequence[Pubkey]) -> list[Account | None]:
        """One entry per key, in order, of one moment."""
        with self.reading(), self._ledger.snapshot():
            return [self.account(key) for key in keys]

    def program_accounts(
        self, program: Pubkey, *, size: int | None = None, memcmp: Sequence[tuple[int, bytes]] = ()
    ) -> list[tuple[Pubkey, Account]]:
        """Accounts owned by `program` with exactly `size` data bytes that hold each (offset, bytes)."""
        with self.reading():
            found = dict(self._ledger.accounts_of(program, size, memcmp))
            if program != self.program_id:  # of others the VM may have some that no transaction ever wrote
                for key, state in self._svm.get_program_accounts(program):
                    if matches(state.data, size, memcmp):
                        found.setdefault(key, account_of(state))
        return sorted(found.items(), key=lambda pair: bytes(pair[0]))

    def balance(self, key: Pubkey) -> int:
        """Lamports; 0 where there is no account."""
        with self.reading():
            account = self._account(key)
            return account.lamports if account else 0

    def rent(self, size: int) -> int:
        """Lamports that exempt an account of `size` data bytes from rent."""
        with self.reading():
            return self._svm.minimum_balance_for_rent_exemption(size)

    def clock(self) -> Clock:
        """Slot of the newest block, and now."""
        with self.reading():
            now = self._now_ms()
            return Clock(block_at(self._tip, now).slot, now // 1000)

    def block_height(self) -> int:
        """Blocks of 400 ms since genesis."""
        with self.reading():
            return self._height(self._now_ms())

    def height_of(self, block: LedgerBlock) -> int:
        """The block height when `block` came."""
        return self._height(block.ms)

    def first_slot(self) -> int:
        """The first slot whose block is kept."""
        with self.reading():
            return self._ledger.first_slot()

    def transaction_count(self) -> int:
        """Transactions that landed."""
        with self.reading():
            return self._ledger.transaction_count()

    def latest_blockhash(self) -> Blockhash:
        """The newest block's hash."""
        with self.reading():
            block = self._newest()
            return Blockhash(Hash.from_bytes(block.hash), self._height(block.ms) + BLOCKHASH_AGE)

    def block_hash(self, slot: int) -> Hash | None:
        """The hash of the block at `slot` (none is skipped); None if it is still to come."""
        block = self.block(slot)
        return None if block is None else Hash.from_bytes(block.hash)

    def block(self, slot: int) -> LedgerBlock | None:
        """The block at `slot`, or None if it is still to come or is no longer kept."""
        with self.reading():
            if not self._ledger.first_slot() <= slot <= self._newest().slot:
                return None
            return block_after(self._ledger.block_under(slot), slot)

    def blockhash_valid(self, blockhash: Hash) -> bool:
        """Whether a transaction that carries this hash could land now."""
        raw = bytes(blockhash)
        with self.reading():
            block = self.block(int.from_bytes(raw[24:], "big") & (1 << 63) - 1)
            age = self._height(self._now_ms()) - self._height(block.ms) if block else 0
            return block is not None and block.hash == raw and age <= BLOCKHASH_AGE

    def priority_fees(self, keys: Sequence[Pubkey]) -> list[int]:
        """None: every transaction has a block to itself."""
        return []

    def simulate(self, tx: VersionedTransaction, *, watch: Sequence[Pubkey] = ()) -> Simulation:
        """Run `tx` on the state of now and keep nothing; neither signatures nor blockhash are checked."""
        return self.run(tx, watch=watch).simulation()

    def run(
        self,
        tx: VersionedTransaction,
        *,
        watch: Sequence[Pubkey] = (),
        signatures: bool = False,
        fresh: bool = False,
    ) -> SimulationOutcome:
        """Simulate; where asked, check its signatures, and that it is fresh: not landed yet, and with a
        valid blockhash.
        """
        message = known_message(tx)
        with self.reading():
            try:
                keys = keys_of(message, self._state, self._newest().slot)
            except TransactionRejected as rejected:
                return SimulationOutcome(rejected.error)
            before = {key: self._state(key) for key in keys.all}
            pre = lamports_of(before, keys.all)
            never_ran = replace(SimulationOutcome(None, keys=keys), pre=pre, post=pre)
            if fresh and not self._is_fresh(message):
                return replace(never_ran, error="BlockhashNotFound")
            if fresh and self._ledger.slot_of(tx.signatures[0]) is not None:
                return replace(never_ran, error="AlreadyProcessed")
            self._set_sysvars(self._newest(), self._next())
            self._svm.with_sigverify(signatures)
            try:
                result = self._svm.simulate_transaction(tx)
            finally:
                self._svm.with_sigverify(True)
            outcome = outcome_of(result)
            if outcome.error == "SignatureFailure":
                return SimulationOutcome(outcome.error)
            after = dict(before)
            if isinstance(result, SimulatedTransactionInfo):
                after |= {key: account_in(state) for key, state in result.post_accounts()}
            elif (payer := before[keys.all[0]]) is not None and outcome.fee:
                after[keys.all[0]] = replace(payer, lamports=payer.lamports - outcome.fee)
            return replace(
                outcome,
                accounts={} if outcome.error else {key: after.get(key) or self.account(key) for key in watch},
                keys=keys,
                pre=pre,
                post=lamports_of(after, keys.all),
                tokens=token_balances(keys, before, after, self._state),
                loaded_size=loaded_size(keys, before, self._state),
            )

    def send(self, tx: VersionedTransaction) -> Signature:
        """Execute and commit. Raises TransactionRejected where it fails; then nothing was charged."""
        return self.submit(tx)

    def submit(self, tx: VersionedTransaction, *, preflight: bool = True) -> Signature:
        """`send`; without `preflight` a transaction that fails after paying its fee is kept as failed."""
        with self._writing() as journal:
            return self._execute(tx, journal, preflight)

    def confirm(
        self,
        signature: Signature,
        last_valid_block_height: int,
        *,
        timeout: float = CONFIRM_SECONDS,
        final: bool = False,
    ) -> TransactionReceipt:
        """The receipt; at once, for `send` returns only when a transaction has landed, and what landed is final.

        Raises TransactionRejected where it failed on chain, TransactionFailed if it never landed.
        """
        record = self.record(signature)
        if record is None:
            raise TransactionFailed(
                f"The transaction {signature} is not in the ledger {self.path}.",
                "Sign it again with a fresh blockhash and send it.",
            )
        if record.error is not None:
            raise TransactionRejected(record.error, record.logs, record.units, where="on chain")
        return record.receipt()

    def transaction(self, signature: Signature) -> TransactionReceipt | None:
        """A landed transaction, or None."""
        record = self.record(signature)
        return record.receipt() if record else None

    def record(self, signature: Signature) -> LandedTransaction | None:
        """A landed transaction with all that is known of it, or None."""
        with self.reading():
            return self._ledger.record(signature)

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

    def records_after(self, slot: int, *, limit: int = 1000) -> list[LandedTransaction]:
        """Transactions that landed after `slot`, oldest first."""
        with self.reading():
            return self._ledger.records_after(slot, limit)

    def history(
        self,
        address: Pubkey,
        *,
        limit: int = 1000,
        before: Signature | None = None,
        until: Signature | None = None,
    ) -> list[LandedTransaction]:
        """Transactions that name `address`, newest first, below `before` and above `until`.

        None at all where `before` is unknown, as on a cluster.
        """
        with self.reading():
            return self._ledger.history(address, limit, before, until)

    def airdrop(self, key: Pubkey, lamports: int) -> Signature:
        """A transfer from the faucet. Raises TransactionFailed outside 1 to 10^15 lamports."""
        if not 0 < lamports <= MAX_AIRDROP:
            raise TransactionFailed(
                f"The faucet pays up to {sol(MAX_AIRDROP)} at a time, not {sol(lamports)}.", "Request less."
            )
        with self._writing() as journal:
            faucet = self._ledger.faucet.pubkey()
            pay = transfer(TransferParams(from_pubkey=faucet, to_pubkey=key, lamports=lamports))
            message = Message.new_with_blockhash([pay], faucet, Hash.from_bytes(self._newest().hash))
            return self._execute(VersionedTransaction(message, [self._ledger.faucet]), journal, preflight=True)

    def warp(self, seconds: int) -> Clock:
        """Move the ledger's time forward for good, for every process; slots pass accordingly."""
        if seconds < 0:
            raise ChainError(f"Time only moves forward, not by {seconds} s.", "Use a positive number.")
        with self._writing():
            self._ledger.warp(seconds * 1000)
        return self.clock()

    def close(self) -> None:
        """Close the files; closing twice is harmless."""
        with self._guard:
            self._ledger.close()

    # Time.

    def _now_ms(self) -> int:
        self._floor_ms = max(int(self._now() * 1000) + self._warped_ms, self._tip.ms, self._floor_ms)
        return self._floor_ms

    def _height(self, ms: int) -> int:
        return max(0, ms - self._ledger.genesis.ms) // SLOT_MS

    def _newest(self) -> LedgerBlock:
        return block_at(self._tip, self._now_ms())

    def _next(self) -> LedgerBlock:
        """The block in which a transaction would land now; its hash is not known before."""
        now = self._now_ms()
        return LedgerBlock(block_at(self._tip, now).slot + 1, b"", now)

    def _set_sysvars(self, newest: LedgerBlock, block: LedgerBlock) -> None:
        """What programs see in `block`, below which `newest` is the last one."""
        set_sysvars(self._svm, block, self._ledger.newest_blocks(newest, SLOT_HASHES_KEPT))

    @property
    def _svm(self) -> LiteSVM:
        """The VM, with every account as of the ledger's revision; within `reading` or a write."""
        if self._started is None:
            if self._image is None:
                from chain.program import image

                self._image = image()
            vm, genesis = virtual_machine(), self._ledger.genesis
            set_sysvars(vm, LedgerBlock(1, b"", genesis.ms), [genesis])
            vm.add_program(self.program_id, self._image)
            self._started, self._revision = vm, 0
            self._refresh()
        return self._started

    def _state(self, key: Pubkey) -> Account | None:
        """An account as the VM has it: before a transaction the ledger's, after it what is to be written."""
        return account_in(self._svm.get_account(key))

    def _account(self, key: Pubkey) -> Account | None:
        """An account that no block changes by itself: the ledger's, or one that only the VM has."""
        found = self._ledger.account(key)
        if found is None:
            return self._state(key)
        return found if found.lamports else None

    def _is_fresh(self, message: Message | MessageV0) -> bool:
        return self.blockhash_valid(message.recent_blockhash) or nonce_of(message, self._state) is not None

    # The ledger, and the VM as its copy.

    @contextmanager
    def reading(self) -> Iterator[Ledger]:
        """A block of reads of the ledger, which no other thread of this process interrupts."""
        with self._guard, self._ledger.reading():
            self._refresh()
            yield self._ledger

    @contextmanager
    def _writing(self) -> Iterator[dict[Pubkey, Account | None]]:
        """One write: all of it is committed, or none of it. Yields a dict that takes accounts as they were before the
        VM changed them, to be put back if the write does not get through.
        """
        before: dict[Pubkey, Account | None] = {}
        with self._guard, self._ledger.reading():
            try:
                with self._ledger.writing():
                    self._refresh()
                    yield before
            except BaseException:
                for key, account in before.items():
                    if self._state(key) != account:
                        self._svm.set_account(key, vm_account(account))
                raise
            self._revision += 1  # the VM has what was written
            self._refresh()

    def _refresh(self) -> None:
        """Bring tip, warp and VM up to the ledger's revision."""
        state = self._ledger.state()
        if self._started is not None and state.revision != self._revision:
            with self._ledger.snapshot():
                state = self._ledger.state()
                self._load()
                self._revision = state.revision
        self._tip, self._warped_ms = state.tip, state.warped_ms

    def _load(self) -> None:
        """Give the VM every account written since its revision; programs last, for they need their data."""
        programs = False
        for key, account in self._ledger.accounts_after(self._revision, executable=False):
            self._svm.set_account(key, vm_account(account))
            programs |= account.owner == UPGRADEABLE_LOADER
        changed = -1 if programs else self._revision  # an upgrade changes the data alone: load all anew
        for key, account in self._ledger.accounts_after(changed, executable=True):
            self._svm.set_account(key, vm_account(account))

    # Executing.

    def _execute(self, tx: VersionedTransaction, journal: dict[Pubkey, Account | None], preflight: bool) -> Signature:
        wire, message = bytes(tx), known_message(tx)
        if len(wire) > MAX_TRANSACTION:
            raise TransactionFailed(
                f"The transaction has {len(wire)} bytes; the limit is {MAX_TRANSACTION}.",
                "Split it into several.",
            )
        signature = tx.signatures[0]
        nonce = None
        if not self.blockhash_valid(message.recent_blockhash):
            nonce = nonce_of(message, self._state)
            if nonce is None:
                raise TransactionRejected("BlockhashNotFound")
        if self._ledger.slot_of(signature) is not None:  # asked second, as Agave does: a spent nonce has moved on
            raise TransactionRejected("AlreadyProcessed")
        newest, block = self._newest(), self._next()
        keys = keys_of(message, self._state, (newest if preflight else block).slot)
        before = {key: self._state(key) for key in keys.all}
        journal.update({key: before[key] for key in keys.writable})
        self._set_sysvars(newest, block)
        outcome = outcome_of(self._svm.send_transaction(tx))
        after = before | {key: self._state(key) for key in keys.writable}
        # A transaction that could not even pay is on no chain, preflight or not.
        if outcome.error is not None and (preflight or after == before):
            raise TransactionRejected(outcome.error, outcome.logs, outcome.units)
        for key in keys.writable:
            settled = settle(before[key], after[key], newest.hash, advance=key == nonce)
            if settled is not None and settled != after[key]:
                after[key] = settled
                self._svm.set_account(key, vm_account(settled))
        landed = landed_transaction(tx, block, outcome, keys, before, after, self._state)
        blockhash = make_hash(block.slot, self._tip.hash, bytes(signature), os.urandom(32))
        changed = [(key, after[key]) for key in keys.writable if after[key] != before[key]]
        self._ledger.append(block._replace(hash=blockhash), landed, keys.all, changed)
        return signature
