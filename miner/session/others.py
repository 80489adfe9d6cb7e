"""What others found, for the proposers: approved code on chain, earlier sessions of this home, other people's results.

- The diff between an approved best and the one before it is a change that verifiers confirmed.
- An earlier session on this class of machine measured here; its trials count less: projects differ.
- `imported/*.tsv` in the home are results.tsv files of other clients (`miner import`): weak, since nobody checked them.

All of it is a hint (`miner.proposers.clues`): what cannot be read is passed over, and nothing here stops a session.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chain.errors import ChainError
from chain.program.accounts import Proposal, ProposalStatus
from common.files import write_atomic
from miner.context.context import SessionContext
from miner.journal import about, sessions, trials
from miner.proposers import clues, diffs, tables
from miner.proposers.base import SCRIPT, Approved, Clue
from miner.proposers.edits.catalogue import BY_NAME
from trainer.errors import TrainerError
from trainer.project import bundle

MAX_APPROVED = 12  # archives fetched, the newest
MAX_SESSIONS = 10
MAX_TABLE = 4 * 1024 * 1024  # bytes of one imported table
MAX_TABLES = 50
IMPORTED = "imported"


@dataclass(frozen=True, slots=True)
class Found:
    """What others found: hints for what comes first, and approved changes to read, oldest first."""

    clues: tuple[Clue, ...] = ()
    approved: tuple[Approved, ...] = ()


def gather(context: SessionContext) -> Found:
    """All that there is now."""
    approved = list(_approved(context))
    hints = [clue for _, own in approved for clue in own]
    home = context.folder.parent.parent
    hints += [*_earlier(context, home), *_imported(home / IMPORTED)]
    return Found(tuple(hints[: clues.MAX_CLUES]), tuple(step for step, _ in approved))


def _approved(context: SessionContext) -> Iterator[tuple[Approved, list[Clue]]]:
    """The steps between approved codes, oldest first, from the project's own baseline."""
    try:
        approved = sorted(context.follower.proposals(ProposalStatus.APPROVED), key=lambda proposal: proposal.id)
    except ChainError:
        return
    to_metric, sign = context.convention.to_metric, 1.0 if context.convention.minimize else -1.0
    before: str | None = context.task.files.get(SCRIPT, b"").decode(errors="replace")
    score = context.project.baseline_aggregate_score
    if len(approved) > MAX_APPROVED:
        before = None  # the oldest that is fetched has nothing to be compared with
    for proposal in approved[-MAX_APPROVED:]:
        source = _source(context, proposal)
        if source is not None and before is not None:
            gain = sign * float(to_metric(score) - to_metric(proposal.verified_aggregate_score))
            step = Approved(proposal.id, gain, diffs.between(before, source))
            yield step, clues.between(before, source, gain, clues.APPROVED)
        before, score = source, proposal.verified_aggregate_score


def _source(context: SessionContext, proposal: Proposal) -> str | None:
    try:
        archive = context.connection.fetch(
            proposal.code_irys_id, proposal.code_hash, proposal.miner, f"code of proposal {proposal.id}"
        )
        files = bundle.unprefixed(bundle.read_archive(archive).files, context.task.files)
        return files[SCRIPT].decode()
    except (ChainError, TrainerError, KeyError, UnicodeDecodeError):
        return None


def _earlier(context: SessionContext, home: Path) -> Iterator[Clue]:
    """The trials of other sessions of this home on this class of machine, the newest sessions first."""
    here = context.bench.machine.hardware_class
    folders = [entry for entry in sessions.find(home) if entry.folder != context.folder]
    for entry in sorted(folders, key=_written, reverse=True)[:MAX_SESSIONS]:
        if about.load(entry.folder).hardware_class != here:
            continue
        try:
            _, history = trials.read(entry)
        except (TrainerError, OSError):
            continue
        yield from clues.of_trials(history)


def _written(entry: sessions.SessionFolder) -> float:
    try:
        return entry.journal.stat().st_mtime
    except OSError:
        return -math.inf


def _imported(folder: Path) -> Iterator[Clue]:
    """The clues in other clients' tables."""
    for path in sorted(folder.glob("*.tsv"))[:MAX_TABLES]:
        try:
            yield from tables.of_rows(tables.rows(_read(path)), BY_NAME)
        except (OSError, TrainerError):
            continue


@dataclass(frozen=True, slots=True)
class Imported:
    """A table that was taken in: where it lies, its rows, and how many hints they give."""

    path: Path
    rows: int
    hints: int


def take(home: Path, path: Path) -> Imported:
    """Copy somebody's results.tsv into the home, for every session to come; TrainerError if it has no rows.

    The name holds a part of its hash: the same table twice is one file, and two of one name are two.
    """
    try:
        text = _read(path)
    except OSError as error:
        raise TrainerError(f"Cannot read {path}: {error.strerror}.", "Choose another file.") from None
    rows = tables.rows(text)
    if not rows:
        raise TrainerError(
            f"{path} has no row with a status (keep, discard, crash) and a description.",
            "Use a tab-separated results.tsv: commit, val_bpb, memory_gb, status, description.",
        )
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem)[:60]
    kept = home / IMPORTED / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.tsv"
    if not kept.exists() and len(list(kept.parent.glob("*.tsv"))) >= MAX_TABLES:
        raise TrainerError(f"{kept.parent} holds {MAX_TABLES} tables already.", "Delete some there.")
    write_atomic(kept, text.encode())
    return Imported(kept, len(rows), len(tables.of_rows(rows, BY_NAME)))


def _read(path: Path) -> str:
    """A table's text; TrainerError if it is too long."""
    with path.open("rb") as file:
        content = file.read(MAX_TABLE + 1)
    if len(content) > MAX_TABLE:
        raise TrainerError(f"{path} is larger than {MAX_TABLE // 2**20} MiB.", "Import its last rows.")
    return content.decode(errors="replace")
