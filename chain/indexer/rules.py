"""Following a project: its state and the program's events, kept in an index and brought up to date in small steps.

Rules:
- State needs no history: one call gives everything at first, or page after page by id where there are more than MANY
  proposals or the node does not list accounts; each page is kept, and the next step goes on where one was stopped.
  Then a step reads the project, the proposals that can still change, and the ids that were given out since; of over
  MAX_CHANGEABLE open ones those that the node lists as open, and one by one what it does not. It is as new as the
  network's answer. What a node once told wrongly of one of the newest proposals is not believed for ever: a follower's
  first step, and then one in AGAIN, reads them again, settled or not, and those that were said to be another project's.
- A step lists the history from its tip down to the last final transaction known, so that it finds both what was
  missed and what vanished, and reads a bounded number of the transactions that it found. The next step continues with
  what one leaves, in this process or another.
- History from before the first step is old: `backfill` reads it, newest first, and `sync` never reports it.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

from solders.pubkey import Pubkey
from solders.signature import Signature

from chain.errors import InvalidData, NetworkUnreachable, NotFound
from chain.indexer.store import Gap, Index, IndexedEvent, ProposalRow, drop_unused
from chain.network.base import Account, HistoryEntry, Network, RpcError
from chain.network.reading import MANY, by_id, prove
from chain.program.accounts import (
    GlobalConfig,
    Project,
    Proposal,
    ProposalStatus,
    decode_account,
    discriminator_of,
    offset_of,
)
from chain.program.addresses import Pdas
from chain.program.events import Event, scan_events
from common.closing import Closing

PAGE: Final = 1_000  # of a listing
MAX_PAGES: Final = 200  # of one step's listing
SYNC_TRANSACTIONS: Final = 200  # read in one step
MAX_CHANGEABLE: Final = 500  # accounts read one by one; above that the open ones are listed
RECENT: Final = 100  # newest proposals that are read again; as many accounts as one call gives
AGAIN: Final = 256
RECHECK_SLOTS: Final = 150  # a confirmed slot is final well before that


@dataclass(frozen=True, slots=True)
class Backlog:
    """History still to be read: `transactions` are listed; `unlisted`: there is more that is not even listed."""

    transactions: int
    unlisted: bool

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return not self.transactions and not self.unlisted


def index_path(home: Path, network: Network) -> Path:
    """Where a home keeps the index of a network's program; a chain that began anew has another."""
    chain = sha256(bytes(network.genesis_hash) + bytes(network.program_id)).hexdigest()[:16]
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", network.name)[:40].strip("-.")
    return home / "index" / f"{name}-{chain}.sqlite"


class Follower(Closing):
    """One project on one network, indexed in the file `path`; a context manager that closes it.

    For one thread at a time; other processes may have their own on the same file. `progress` is told how far a long
    reading is.

    Every method may raise NetworkUnreachable, and loses nothing then; NotFound if there is no such project.
    """

    def __init__(
        self, network: Network, project_id: int, path: Path, progress: Callable[[str], None] = lambda _: None
    ) -> None:
        self.network = network
        self._progress = progress
        self.project_id = project_id
        self._pdas = Pdas(network.program_id)
        self.index = Index(path, network.genesis_hash, network.program_id)
        os.utime(path)  # in use, even if nothing is written
        drop_unused(path.parent, time.time())
        self._told = self.index.last()
        self._steps = itertools.count()
        self._matched = 0  # of all events stored up to this one, the proposals' accounts were seen

    def close(self) -> None:
        """Close the index; closing twice is harmless."""
        self.index.close()

    # --- what is known ---

    @property
    def project(self) -> Project:
        """The project as of the last step."""
        return self._known()[0]

    def proposals(self, *statuses: ProposalStatus) -> list[Proposal]:
        """Its proposals as of the last step, by id: those of these statuses, or all that can be read."""
        return self.index.proposals(self.project_id, *statuses)

    def unreadable(self) -> list[Pubkey]:
        """Addresses of its proposals that cannot be read, as of the last step."""
        return self.index.malformed(self.project_id)

    def events(self, since: int | None = None) -> list[IndexedEvent]:
        """Its events that are indexed, in the chain's order, from the time `since` (seconds since 1970) on."""
        return self.index.events(self.project_id, since=since)

    # --- steps ---

    def sync(self, transactions: int = SYNC_TRANSACTIONS) -> list[IndexedEvent]:
        """One step: state and recent history. Gives the events that are new, and those that vanished.

        Reads at most `transactions` transactions; three calls when nothing happened.
        """
        removed = self._list_head()
        removed += self._read(transactions, old=False)
        self.refresh()
        return self._news(removed)

    def refresh(self) -> None:
        """Bring project and proposals up to date, without any history."""
        final_slot = self.network.final_slot()
        known = self.index.project(self.project_id)
        changeable = self.index.changeable(self.project_id, final_slot)
        listed = len(changeable) > MAX_CHANGEABLE
        keys = [self._pdas.config(), self._pdas.project(self.project_id), *([] if listed else changeable)]
        config, project, *proposals = self.network.accounts(keys)
        next_id, first_new = self._next_id(config), known[1] if known else 0
        if known is None or next_id - first_new > MAX_CHANGEABLE:
            recheck = 0 if known is None else final_slot + RECHECK_SLOTS
            first_new = self._read_new(self._project_data(project), range(first_new, next_id), recheck)
            if known is None or first_new < next_id:
                return
        if listed:
            proposals = self._changeable(tuple(changeable))
        again = next(self._steps) % AGAIN == 0
        recent = range(max(0, next_id - RECENT), next_id) if again else ()
        last, after = self.index.last(), 0 if again else self._matched
        unknown = self.index.unknown(self.project_id, MAX_CHANGEABLE, after=after)
        if not unknown:
            self._matched = last
        ids = dict.fromkeys([*range(first_new, next_id), *unknown, *recent])
        new = [self._pdas.proposal(number) for number in ids]
        made = self.network.accounts(new) if new else []
        # A node that lags may not have the newest yet; then its id is asked for again.
        lacking = [number for number, account in zip(ids, made, strict=True) if account is None and number >= first_new]
        rows, gone = [], []
        for address, account in zip([*changeable, *new], [*proposals, *made], strict=True):
            if account is not None and changeable.get(address) == account.data:
                continue
            row = None if account is None else self._row(address, account, final_slot + RECHECK_SLOTS)
            if row is not None:
                rows.append(row)
            elif account is not None or address in changeable:
                gone.append(address)
        with self.index.writing():
            self.index.store_project(self.project_id, self._project_data(project), min([*lacking, next_id]))
            self.index.forget_proposals(gone)
            self.index.store_proposals(self.project_id, rows)

    def backfill(self, transactions: int = SYNC_TRANSACTIONS, since: int | None = None) -> Backlog:
        """Read at most `transactions` of what is left of the history, back to the time `since`; what remains."""
        for gap in self.index.gaps(since)[:1]:
            page = self.network.entries(self.network.program_id, limit=PAGE, before=gap.before)
            inside = [entry for entry in page if entry.slot > gap.floor]
            final_slot = self.network.final_slot()
            with self.index.writing():
                self.index.store_listing(inside, final_slot, old=gap.old)
                self.index.close_gap(gap)
                if len(inside) == PAGE:
                    self.index.open_gap(_gap(inside, gap.floor, old=gap.old))
        read = len(self.index.unread(transactions, old=False))
        self._read(transactions, old=False)
        self._read(transactions - read, old=True)
        return self.backlog(since)

    def backlog(self, since: int | None = None) -> Backlog:
        """What `backfill` has left to do."""
        return Backlog(self.index.count_unread(since), bool(self.index.gaps(since)))

    def heard(self, signature: Signature, slot: int, *, failed: bool, logs: Sequence[str]) -> list[IndexedEvent]:
        """Record what a subscription reported; returns the new events."""
        removed: list[IndexedEvent] = []
        with self.index.writing():
            if self.index.hear(signature, slot, failed=failed) and not failed:
                removed = self.index.store_events(signature, self._events(logs))
        return self._news(removed)

    def _list_head(self) -> list[IndexedEvent]:
        """List from the tip down to what is known; gives the events of what vanished."""
        first = self.index.is_new()
        final_slot = self.network.final_slot()  # before the listing, which then covers it
        # Some way below what is final, for the node that answers may lag behind the one that said so.
        floor = self.index.floor(final_slot - RECHECK_SLOTS)
        low = floor[1] if floor else -1
        listed: list[HistoryEntry] = []
        complete = False
        for _ in range(MAX_PAGES):
            before = listed[-1].signature if listed else None
            page = self.network.entries(self.network.program_id, limit=PAGE, before=before)
            inside = [entry for entry in page if entry.slot > low]
            listed += inside
            complete = len(inside) < PAGE
            # What is below can wait: the tip comes first. A gap must begin at a transaction that stays.
            if complete or (inside[-1].final and inside[-1].slot <= final_slot):
                break
        with self.index.writing():
            # Below a transaction that was listed before, all is listed, or a gap that is known.
            gap = not complete and not self.index.is_listed(listed[-1].signature)
            reach = low if complete else listed[-1].slot
            removed = self.index.take_vanished((entry.signature for entry in listed), reach, final_slot)
            self.index.store_listing(listed, final_slot, old=first)
            removed += self.index.take_failed(listed)
            if gap:
                self.index.open_gap(_gap(listed, low, old=first))
        return removed

    def _read(self, limit: int, *, old: bool) -> list[IndexedEvent]:
        removed: list[IndexedEvent] = []
        for signature in self.index.unread(max(0, limit), old=old):
            receipt = self.network.transaction(signature)
            with self.index.writing():
                if receipt is None:  # listed, but this node does not have it yet, or no longer
                    self.index.missed(signature)
                else:
                    events = [] if receipt.error is not None else self._events(receipt.logs)
                    removed += self.index.store_events(signature, events)
        return removed

    def _events(self, logs: Sequence[str]) -> list[Event | InvalidData]:
        return scan_events(logs, self.network.program_id)

    def _news(self, removed: Sequence[IndexedEvent]) -> list[IndexedEvent]:
        last = self.index.last()
        news = self.index.news(self.project_id, self._told)
        told = [replace(event, removed=True) for event in removed if event.seq <= self._told]
        self._told = last
        return told + news

    def _read_new(self, project: bytes, ids: range, recheck: int) -> int:
        """Read the proposals of these ids; gives the first one that is still to be read, their end if none is."""
        if ids.stop <= MANY:
            try:
                found = self._listed()
            except (RpcError, NetworkUnreachable):
                pass  # a provider may not offer this call, which is dear for it
            else:
                self._store(project, ids.stop, found, recheck)
                return ids.stop
        for page in by_id(self.network, ids):
            there = [(address, account) for _, address, account in page if account is not None]
            lacking = [number for number, _, account in page if account is None]
            reached = page[-1][0] + 1
            self._store(project, min([*lacking, reached]), there, recheck)
            if lacking:  # a node that lags: the next step asks again
                return lacking[0]
            if reached < ids.stop:
                self._progress(f"{reached:,} of {ids.stop:,} proposals read")
        return ids.stop

    def _changeable(self, addresses: Sequence[Pubkey]) -> list[Account | None]:
        """These accounts, of which most are open: listed by status where the node does that, else one by one."""
        found: dict[Pubkey, Account] = {}
        with suppress(RpcError, NetworkUnreachable):
            for status in (ProposalStatus.PENDING, ProposalStatus.IN_REVIEW):
                found |= dict(self._listed((offset_of(Proposal, "status"), bytes([status]))))
        others = [address for address in addresses if address not in found]
        one_by_one = dict(zip(others, self.network.accounts(others), strict=True)) if others else {}
        return [found.get(address) or one_by_one.get(address) for address in addresses]

    def _listed(self, *memcmp: tuple[int, bytes]) -> list[tuple[Pubkey, Account]]:
        wanted = [(0, discriminator_of(Proposal)), self._filter(), *memcmp]
        return self.network.program_accounts(self.network.program_id, memcmp=wanted)

    def _store(self, project: bytes, next_id: int, found: Sequence[tuple[Pubkey, Account]], recheck: int) -> None:
        rows = [row for address, account in found if (row := self._row(address, account, recheck))]
        with self.index.writing():
            self.index.store_project(self.project_id, project, next_id)
            self.index.store_proposals(self.project_id, rows)

    def _filter(self) -> tuple[int, bytes]:
        return offset_of(Proposal, "project_id"), self.project_id.to_bytes(8, "little")

    def _row(self, address: Pubkey, account: Account, recheck: int) -> ProposalRow | None:
        """A proposal of this project, which may be one that cannot be read; None where it is another account."""
        offset, number = self._filter()
        if account.owner != self.network.program_id or not account.data.startswith(discriminator_of(Proposal)):
            return None
        if account.data[offset : offset + 8] != number:
            return None
        proposal = None
        with suppress(InvalidData):
            proposal = decode_account(Proposal, account.data)
        if proposal is not None and self._pdas.proposal(proposal.id) != address:
            return None
        return ProposalRow(address, account.data, proposal, recheck)

    def _next_id(self, account: Account | None) -> int:
        if account is None:
            raise NotFound("The program is not initialized on this network.", self._check_network())
        return prove(self._pdas, GlobalConfig, self._pdas.config(), account).next_proposal_id

    def _project_data(self, account: Account | None) -> bytes:
        if account is None:
            raise NotFound(f"There is no project {self.project_id}.", self._check_network())
        prove(self._pdas, Project, self._pdas.project(self.project_id), account)
        return account.data

    def _check_network(self) -> str:
        return f"Check the ID and --network ({self.network.name})."

    def _known(self) -> tuple[Project, int]:
        known = self.index.project(self.project_id)
        if known is None:
            self.refresh()
            known = self.index.project(self.project_id)
        assert known is not None
        return known


def _gap(listed: Sequence[HistoryEntry], floor: int, *, old: bool) -> Gap:
    return Gap(listed[-1].signature, floor, old, listed[-1].block_time)
