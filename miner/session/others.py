"""What others found, for the proposers: approved code on chain, earlier sessions of this home, other people's results.

- The diff between an approved best and the one before it is a change that verifiers confirmed.
- An earlier session on this class of machine measured here; its trials count less: projects differ.
- `imported/*.tsv` in the home are results.tsv files of other clients: weak, since nobody checked them.

All of it is a hint (`miner.proposers.clues`): what cannot be read is passed over, and nothing here stops a session.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

from chain.errors import ChainError
from chain.program.accounts import Proposal, ProposalStatus
from miner.context.context import SessionContext
from miner.journal import about, journal, sessions
from miner.journal.worktree import Workspace
from miner.proposers import clues
from miner.proposers.base import SCRIPT, Clue
from miner.proposers.edits.library import BY_NAME
from trainer.errors import TrainerError
from trainer.project import bundle

MAX_APPROVED = 12  # archives fetched, the newest
MAX_SESSIONS = 10
MAX_TABLE = 4 * 1024 * 1024  # bytes of one imported table
IMPORTED = "imported"


def gather(context: SessionContext) -> list[Clue]:
    """All clues that there are now."""
    found = [*_approved(context), *_earlier(context), *_imported(context.folder.parent.parent / IMPORTED)]
    return found[: clues.MAX_CLUES]


def _approved(context: SessionContext) -> Iterator[Clue]:
    """The steps between approved codes, oldest first, from the project's own baseline."""
    try:
        approved = sorted(context.follower.proposals(ProposalStatus.APPROVED), key=lambda proposal: proposal.id)
    except ChainError:
        return
    before, score = (
        context.task.files.get(SCRIPT, b"").decode(errors="replace"),
        context.project.baseline_aggregate_score,
    )
    if len(approved) > MAX_APPROVED:
        before, score = "", 0
    for proposal in approved[-MAX_APPROVED:]:
        source = _source(context, proposal)
        if source is not None and before:
            to_metric = context.convention.to_metric
            gain = float(to_metric(score) - to_metric(proposal.verified_aggregate_score))
            sign = 1.0 if context.convention.minimize else -1.0
            yield from clues.between(before, source, sign * gain, clues.APPROVED)
        before, score = source or "", proposal.verified_aggregate_score


def _source(context: SessionContext, proposal: Proposal) -> str | None:
    try:
        archive = context.connection.fetch(
            proposal.code_irys_id, proposal.code_hash, proposal.miner, f"code of proposal {proposal.id}"
        )
        files = bundle.unprefixed(bundle.read_archive(archive).files, context.task.files)
        return files[SCRIPT].decode()
    except (ChainError, TrainerError, KeyError, UnicodeDecodeError):
        return None


def _earlier(context: SessionContext) -> Iterator[Clue]:
    """The trials of other sessions of this home on this class of machine, the newest sessions first."""
    here, home = context.bench.machine.hardware_class, context.folder.parent.parent
    folders = [entry for entry in sessions.find(home) if entry.folder != context.folder]
    for entry in sorted(folders, key=_age)[:MAX_SESSIONS]:
        if about.load(entry.folder).hardware_class != here:
            continue
        try:
            session = journal.read(entry.journal)
            workspace = Workspace(entry.folder / "tree", session.tag)
            yield from clues.of_trials(session.history(lambda commits, w=workspace: w.read_many(commits, SCRIPT)))  # type: ignore[misc]
        except (TrainerError, OSError):
            continue


def _age(entry: sessions.SessionFolder) -> float:
    try:
        return time.time() - entry.journal.stat().st_mtime
    except OSError:
        return math.inf


def _imported(folder: Path) -> Iterator[Clue]:
    """The rows of other clients' results.tsv: commit, val_bpb, memory_gb, status, description."""
    for path in sorted(folder.glob("*.tsv"))[:50]:
        try:
            if path.stat().st_size > MAX_TABLE:
                continue
            text = path.read_text(errors="replace")
        except OSError:
            continue
        yield from clues.of_rows(rows(text), BY_NAME)


def rows(text: str) -> list[tuple[str, str, float | None]]:
    """Description, status and value of each row that has them; what does not parse is passed over."""
    found: list[tuple[str, str, float | None]] = []
    header, *lines = text.replace("\r\n", "\n").split("\n")
    names = header.split("\t")
    for line in lines:
        row = dict(zip(names, line.split("\t"), strict=False))
        words, status, value = row.get("description"), row.get("status"), row.get("val_bpb")
        try:
            number = float(value or "")
        except ValueError:
            number = None
        if words and status:
            found.append((words, status.strip().lower(), number))
    return found
