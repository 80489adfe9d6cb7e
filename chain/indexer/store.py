"""What is known of a program's history and of followed projects' proposals, in one SQLite file.

Rules:
- An event is keyed by its transaction's signature and its place among that transaction's events, so whoever
  stores it and however often, it is there once. Several processes may share a file: writes are short
  transactions of SQLite's one writer, and network calls happen outside them.
- A transaction is listed first (slot, time, fate) and read later; what is listed and not read is the work left.
  A stretch of history that was not even listed is a gap: everything older than `before`, down to slot `floor`.
- A transaction that is not final may vanish. It is taken out, with its events, when a listing that covers its
  slot lacks it and the slot is final.
- The file is bound to one chain and program. It holds nothing that the chain does not: losing it costs time only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.signature import Signature

from chain.errors import ChainError, InvalidData
from chain.network.base import HistoryEntry
from chain.program.accounts import Project, Proposal, ProposalStatus, decode_account
from chain.program.events import Event, decode_event, encode_event

UNUSED_DAYS = 90
_FORMAT = 1  # PRAGMA user_version
_SCHEMA = """
CREATE TABLE chain (id INTEGER PRIMARY KEY CHECK (id = 0), genesis BLOB NOT NULL, program BLOB NOT NULL);
CREATE TABLE transactions (
    signature BLOB PRIMARY KEY, slot INTEGER NOT NULL, ordinal INTEGER NOT NULL, time INTEGER, failed INTEGER NOT NULL,
    final INTEGER NOT NULL, read INTEGER NOT NULL, old INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX unread ON transactions (old, tries, slot) WHERE NOT read;
CREATE INDEX unsettled ON transactions (slot) WHERE NOT final;
CREATE INDEX settled ON transactions (slot) WHERE final;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, signature BLOB NOT NULL, position INTEGER NOT NULL, kind TEXT NOT NULL,
    project BLOB, proposal BLOB, data BLOB NOT NULL, problem TEXT NOT NULL, UNIQUE (signature, position));
CREATE INDEX submissions ON events (project, proposal) WHERE kind = 'ProposalSubmitted';
CREATE TABLE gaps (before BLOB PRIMARY KEY, floor INTEGER NOT NULL, old INTEGER NOT NULL, time INTEGER) WITHOUT ROWID;
CREATE TABLE projects (id BLOB PRIMARY KEY, data BLOB NOT NULL, next_proposal BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE proposals (
    address BLOB PRIMARY KEY, id BLOB, project BLOB NOT NULL, status INTEGER, recheck INTEGER NOT NULL,
    data BLOB NOT NULL);
CREATE INDEX proposals_of ON proposals (project, status, id);
"""
# Made where a file lacks them: files of this format were written before there were any.
_LATER = """
CREATE INDEX IF NOT EXISTS proposals_unsettled ON proposals (project, recheck) WHERE recheck > 0;
CREATE INDEX IF NOT EXISTS proposals_by_id ON proposals (project, id)
"""
_HEARD = 1 << 30  # the ordinal of a transaction that was heard of and not listed yet: last in its slot
_COLUMNS = (
    "SELECT e.seq, e.signature, e.position, t.slot, t.time, t.final, e.kind, e.data, e.problem"
    " FROM events e JOIN transactions t USING (signature)"
)
_IN_ORDER = " ORDER BY t.slot, t.ordinal, e.position"
# Of a project are: what names it, what names a proposal of it, and what concerns every project.
_OF_PROJECT = """ WHERE (e.project = :project OR e.project IS NULL AND (e.proposal IS NULL
    OR e.proposal IN (SELECT id FROM proposals WHERE project = :project)
    OR e.proposal IN (SELECT proposal FROM events WHERE kind = 'ProposalSubmitted' AND project = :project)))"""


_Values = tuple[Any, ...] | dict[str, Any]


@dataclass(frozen=True, slots=True)
class IndexedEvent:
    """An event with its place on the chain; `time` in seconds since 1970, None while not known.

    `event` is None, and `problem` says why, where the program logged what cannot be read. `removed`: it was
    reported before and is no longer on the chain.
    """

    seq: int
    signature: Signature
    position: int
    slot: int
    time: int | None
    final: bool
    event: Event | None
    problem: str
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """Unlisted history: older than `before`, newer than slot `floor` (-1: down to the first)."""

    before: Signature
    floor: int
    old: bool
    time: int | None


@dataclass(frozen=True, slots=True)
class ProposalRow:
    """A proposal's account as read, `proposal` None where it cannot be; `recheck`: its settlement may vanish until
    this slot is final.
    """

    address: Pubkey
    data: bytes
    proposal: Proposal | None
    recheck: int


def drop_unused(folder: Path, now: float) -> list[Path]:
    """Delete the indexes in `folder` that nobody wrote in the UNUSED_DAYS before `now` (seconds since 1970), such as
    those of a practice network that began anew; gives their paths. What cannot be deleted stays.
    """
    gone = []
    for path in folder.glob("*.sqlite"):
        parts = [path.with_name(path.name + end) for end in ("-wal", "-shm", "")]
        with suppress(OSError):
            if max(part.stat().st_mtime for part in parts if part.exists()) < now - UNUSED_DAYS * 86_400:
                for part in parts:
                    part.unlink(missing_ok=True)
                gone.append(path)
    return gone


class Index:
    """One file. Raises InvalidData if it is none of this chain, program and format, ChainError if the disk
    refuses.
    """

    def __init__(self, path: Path, genesis: Hash, program: Pubkey) -> None:
        self.path = path
        with self._readable():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=20, isolation_level=None, check_same_thread=False)
        try:
            self._open(bytes(genesis), bytes(program))
        except BaseException:
            self._db.close()
            raise

    def _open(self, genesis: bytes, program: bytes) -> None:
        with self._readable():
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
        with self.writing():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if not tables:
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute("INSERT INTO chain VALUES (0, ?, ?)", (genesis, program))
                self._db.execute(f"PRAGMA user_version = {_FORMAT}")
            elif version != _FORMAT:
                raise self._wrong(f"has index format {version}; this version reads format {_FORMAT}")
            if self._db.execute("SELECT genesis, program FROM chain").fetchone() != (genesis, program):
                raise self._wrong("is the index of another chain or program")
            for statement in _LATER.split(";"):
                self._db.execute(statement)

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        self._db.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """All that is written inside, or nothing of it."""
        with self._readable():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _wrong(self, what: str) -> InvalidData:
        return InvalidData(f"{self.path} {what}.", "Move it away; it will be rebuilt from the chain.")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # use after close is a mistake of the caller's, not of the file
        except (sqlite3.OperationalError, OSError) as error:
            raise ChainError(
                f"The index {self.path} cannot be used: {error}.", "Check disk space and file permissions."
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._wrong(f"is not an index: {error}") from error

    # --- transactions ---

    def is_new(self) -> bool:
        """Whether nothing was ever listed."""
        return self._one("SELECT 1 FROM transactions LIMIT 1") is None

    def is_listed(self, signature: Signature) -> bool:
        """Whether a listing gave it; hearing of it is not enough."""
        query = "SELECT 1 FROM transactions WHERE signature = ? AND ordinal < ?"
        return self._one(query, (bytes(signature), _HEARD)) is not None

    def floor(self, below: int) -> tuple[Signature, int] | None:
        """A final transaction under all that are not final, and its slot: a listing may end there.

        The newest one under slot `below`, or under the others alone where nothing known is that old.
        """
        for bound in (below, 1 << 62):
            row = self._one(
                "SELECT signature, slot FROM transactions WHERE final AND slot <"
                " min(?, coalesce((SELECT min(slot) FROM transactions WHERE NOT final), 1 << 62))"
                " ORDER BY slot DESC LIMIT 1",
                (bound,),
            )
            if row:
                return Signature.from_bytes(row[0]), row[1]
        return None

    def store_listing(self, newest_first: Sequence[HistoryEntry], final_slot: int, *, old: bool) -> None:
        """Enter what a listing gave. One that moved to another slot is read again."""
        slot, ordinal = -1, 0
        for entry in reversed(newest_first):
            slot, ordinal = entry.slot, ordinal + 1 if entry.slot == slot else 0
            final = entry.final or entry.slot <= final_slot
            values = (bytes(entry.signature), slot, ordinal, entry.block_time, entry.failed, final, entry.failed, old)
            self._db.execute(
                "INSERT INTO transactions VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT (signature) DO UPDATE SET"
                " read = read AND slot = excluded.slot OR excluded.failed, slot = excluded.slot,"
                " ordinal = excluded.ordinal, time = coalesce(excluded.time, time), failed = excluded.failed,"
                " final = excluded.final",
                values,
            )

    def take_failed(self, listed: Iterable[HistoryEntry]) -> list[IndexedEvent]:
        """Take out the events of transactions that were heard of as good and are listed as failed."""
        failed = [(bytes(entry.signature),) for entry in listed if entry.failed]
        return self._take([event for key in failed for event in self._events(_COLUMNS + " WHERE t.signature = ?", key)])

    def take_vanished(self, listed: Iterable[Signature], low: int, final_slot: int) -> list[IndexedEvent]:
        """Take out what a listing of all slots above `low` should have and has not; gives its events."""
        there = {bytes(signature) for signature in listed}
        rows = self._db.execute(
            "SELECT signature FROM transactions WHERE NOT final AND slot > ? AND slot <= ?", (low, final_slot)
        )
        gone = [(signature,) for (signature,) in rows.fetchall() if signature not in there]
        taken = [event for key in gone for event in self._events(_COLUMNS + " WHERE t.signature = ?", key)]
        self._take(taken)
        self._db.executemany("DELETE FROM transactions WHERE signature = ?", gone)
        return taken

    def hear(self, signature: Signature, slot: int, *, failed: bool) -> bool:
        """Record a transaction that a subscription reported; whether it was new."""
        row = (bytes(signature), slot, _HEARD, failed, failed)
        found = self._db.execute(
            "INSERT INTO transactions VALUES (?, ?, ?, NULL, ?, 0, ?, 0, 0) ON CONFLICT DO NOTHING", row
        )
        return found.rowcount > 0

    def unread(self, limit: int, *, old: bool) -> list[Signature]:
        """Listed and not read: the oldest first, of old history the newest first; what failed to come last."""
        order = "DESC" if old else "ASC"
        rows = self._all(
            "SELECT signature FROM transactions WHERE NOT read AND old = ?"
            f" ORDER BY tries, slot {order}, ordinal {order} LIMIT ?",
            (old, limit),
        )
        return [Signature.from_bytes(row[0]) for row in rows]

    def count_unread(self, since: int | None = None) -> int:
        """How many are listed and not read, of those not known to be older than `since`."""
        row = self._one(
            "SELECT count(*) FROM transactions WHERE NOT read AND coalesce(time, 1 << 62) >= ?", (since or 0,)
        )
        return int(row[0]) if row else 0

    def missed(self, signature: Signature) -> None:
        """It was requested and not returned; others come first next time."""
        self._db.execute("UPDATE transactions SET tries = tries + 1 WHERE signature = ?", (bytes(signature),))

    def store_events(self, signature: Signature, found: Sequence[Event | InvalidData]) -> list[IndexedEvent]:
        """Enter a transaction's events; gives those that it was thought to have had and has not."""
        rows = [_event_row(event) for event in found]
        key = bytes(signature)
        kept = self._all("SELECT kind, data, problem FROM events WHERE signature = ? ORDER BY position", (key,))
        taken = []
        if kept != [(kind, data, problem) for kind, _, _, data, problem in rows]:
            taken = self._take(self._events(_COLUMNS + " WHERE t.signature = ?", (key,)))
            self._db.executemany(
                "INSERT INTO events (signature, position, kind, project, proposal, data, problem)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(key, position, *row) for position, row in enumerate(rows)],
            )
        self._db.execute("UPDATE transactions SET read = 1 WHERE signature = ?", (key,))
        return taken

    def gaps(self, since: int | None = None) -> list[Gap]:
        """Unlisted stretches, the newest first, without those known to be older than `since`."""
        rows = self._all(
            "SELECT before, floor, old, time FROM gaps WHERE coalesce(time, 1 << 62) >= ? ORDER BY floor DESC",
            (since or 0,),
        )
        return [Gap(Signature.from_bytes(before), floor, bool(old), time) for before, floor, old, time in rows]

    def open_gap(self, gap: Gap) -> None:
        """Remember a stretch to list."""
        row = (bytes(gap.before), gap.floor, gap.old, gap.time)
        self._db.execute("INSERT OR REPLACE INTO gaps VALUES (?, ?, ?, ?)", row)

    def close_gap(self, gap: Gap) -> None:
        """It is listed."""
        self._db.execute("DELETE FROM gaps WHERE before = ?", (bytes(gap.before),))

    # --- events ---

    def last(self) -> int:
        """The highest `seq` ever given."""
        row = self._one("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
        return int(row[0]) if row else 0

    def events(self, project_id: int, *, after: int = 0, since: int | None = None) -> list[IndexedEvent]:
        """A project's events in the chain's order, those stored after `after` and not older than `since`."""
        where = f"{_OF_PROJECT} AND e.seq > :after AND coalesce(t.time, 1 << 62) >= :since"
        values = {"project": _key(project_id), "after": after, "since": since or 0}
        return self._events(_COLUMNS + where + _IN_ORDER, values)

    def news(self, project_id: int, after: int) -> list[IndexedEvent]:
        """As `events`, without old history."""
        where = f"{_OF_PROJECT} AND e.seq > :after AND NOT t.old"
        return self._events(_COLUMNS + where + _IN_ORDER, {"project": _key(project_id), "after": after})

    def _events(self, query: str, values: _Values = ()) -> list[IndexedEvent]:
        return [_indexed(*row) for row in self._all(query, values)]

    def _take(self, events: list[IndexedEvent]) -> list[IndexedEvent]:
        self._db.executemany("DELETE FROM events WHERE seq = ?", [(event.seq,) for event in events])
        return events

    # --- accounts ---

    def project(self, project_id: int) -> tuple[Project, int] | None:
        """A followed project, and the first proposal id that was not looked at yet; None if it is not followed."""
        row = self._one("SELECT data, next_proposal FROM projects WHERE id = ?", (_key(project_id),))
        return (decode_account(Project, row[0]), int.from_bytes(row[1], "big")) if row else None

    def store_project(self, project_id: int, data: bytes, next_proposal: int) -> None:
        """Enter a project's account."""
        row = (_key(project_id), data, _key(next_proposal))
        self._db.execute("INSERT OR REPLACE INTO projects VALUES (?, ?, ?)", row)

    def proposals(self, project_id: int, *statuses: ProposalStatus) -> list[Proposal]:
        """A project's proposals by id, of these statuses or of all; those that cannot be read are left out."""
        wanted = statuses or tuple(ProposalStatus)
        marks = ", ".join("?" * len(wanted))
        rows = self._all(
            f"SELECT data FROM proposals WHERE project = ? AND status IN ({marks}) ORDER BY id",
            (_key(project_id), *map(int, wanted)),
        )
        return [decode_account(Proposal, row[0]) for row in rows]

    def malformed(self, project_id: int) -> list[Pubkey]:
        """Addresses of a project's proposals that cannot be read."""
        rows = self._all("SELECT address FROM proposals WHERE project = ? AND status IS NULL", (_key(project_id),))
        return [Pubkey.from_bytes(row[0]) for row in rows]

    def changeable(self, project_id: int, final_slot: int) -> dict[Pubkey, bytes]:
        """Proposals that may still change, as known: open ones, and those whose settlement is not final."""
        rows = self._all(  # in two parts, for an OR would read every row
            "SELECT address, data FROM proposals WHERE project = :project AND status IN (0, 1) UNION ALL"
            " SELECT address, data FROM proposals WHERE project = :project AND recheck > 0 AND recheck > :final",
            {"project": _key(project_id), "final": final_slot},
        )
        return {Pubkey.from_bytes(address): data for address, data in rows}

    def unknown(self, project_id: int, limit: int, *, after: int = 0) -> list[int]:
        """Ids of proposals whose submission was seen, in an event stored after `after`, and their account not."""
        rows = self._all(  # with a + no index of the column is used, but the range of `seq`
            "SELECT e.proposal FROM events e WHERE e.seq > ? AND e.kind = 'ProposalSubmitted' AND +e.project = ?"
            " AND NOT EXISTS (SELECT 1 FROM proposals p WHERE p.project = e.project AND p.id = e.proposal) LIMIT ?",
            (after, _key(project_id), limit),
        )
        return [int.from_bytes(row[0], "big") for row in rows]

    def store_proposals(self, project_id: int, rows: Iterable[ProposalRow]) -> None:
        """Enter accounts of a project's proposals."""
        self._db.executemany(
            "INSERT INTO proposals VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (address) DO UPDATE SET id = excluded.id,"
            " project = excluded.project, data = excluded.data, status = excluded.status,"
            " recheck = iif(status IS excluded.status, recheck, excluded.recheck)",
            [_proposal_row(project_id, row) for row in rows],
        )

    def forget_proposals(self, addresses: Iterable[Pubkey]) -> None:
        """They are no longer on the chain."""
        self._db.executemany("DELETE FROM proposals WHERE address = ?", [(bytes(key),) for key in addresses])

    def _one(self, query: str, values: _Values = ()) -> tuple[Any, ...] | None:
        with self._readable():
            row: tuple[Any, ...] | None = self._db.execute(query, values).fetchone()
            return row

    def _all(self, query: str, values: _Values = ()) -> list[tuple[Any, ...]]:
        with self._readable():
            return self._db.execute(query, values).fetchall()


def _key(number: int) -> bytes:
    """A u64 so that SQLite, whose integers are signed, keeps its order."""
    return number.to_bytes(8, "big")


def _event_row(found: Event | InvalidData) -> tuple[str, bytes | None, bytes | None, bytes, str]:
    if isinstance(found, InvalidData):
        return "malformed", None, None, b"", found.problem
    project, proposal = getattr(found, "project_id", None), getattr(found, "id", None)
    return (
        type(found).__name__,
        None if project is None else _key(project),
        None if proposal is None else _key(proposal),
        encode_event(found),
        "",
    )


def _indexed(
    seq: int,
    signature: bytes,
    position: int,
    slot: int,
    time: int | None,
    final: int,
    kind: str,
    data: bytes,
    problem: str,
) -> IndexedEvent:
    event = None if problem else decode_event(data)
    return IndexedEvent(seq, Signature.from_bytes(signature), position, slot, time, bool(final), event, problem)


def _proposal_row(project_id: int, row: ProposalRow) -> tuple[bytes, bytes | None, bytes, int | None, int, bytes]:
    proposal = row.proposal
    if proposal is None:
        return bytes(row.address), None, _key(project_id), None, 0, row.data
    settled = proposal.status not in (ProposalStatus.PENDING, ProposalStatus.IN_REVIEW)
    return (
        bytes(row.address),
        _key(proposal.id),
        _key(project_id),
        int(proposal.status),
        row.recheck if settled else 0,
        row.data,
    )
