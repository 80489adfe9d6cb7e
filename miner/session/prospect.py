"""What a session may expect, said before it begins: how long a trial takes and how often one is kept.

All of it comes from sessions measured here: of the same project bundle, budget and hardware class, this one's earlier
lives among them. Where there are too few trials to say anything, nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.text import counted, lasted
from miner.journal import about, sessions, trials
from miner.journal.about import About
from miner.report import summary
from miner.report.summary import Totals
from trainer.errors import TrainerError

FEWEST = 3  # finished trials, below which nothing is said
MAX_SESSIONS = 50


@dataclass(frozen=True, slots=True)
class Prospect:
    """What similar sessions came to: how many, their finished and kept trials, and machine seconds a trial."""

    sessions: int
    trials: int
    kept: int
    seconds: float


def prospect(known: Sequence[Totals]) -> Prospect | None:
    """What sessions add up to; None where they say too little."""
    known = [totals for totals in known if totals.finished]
    trials = sum(totals.finished for totals in known)
    seconds = sum(totals.time.running - totals.time.confirming for totals in known)
    if trials < FEWEST or seconds <= 0:
        return None
    return Prospect(len(known), trials, sum(totals.kept for totals in known), seconds / trials)


def words(found: Prospect | None, minutes: float | None = None) -> str:
    """In one line; "" for nothing. `minutes` is the limit that the user gave, if any."""
    if found is None:
        return ""
    basis = f"{counted(found.sessions, 'session')} here, {counted(found.trials, 'trial')}, {found.kept} kept"
    said = f"a trial takes about {lasted(found.seconds)} ({basis})"
    if found.kept:
        each = found.seconds * found.trials / found.kept
        said += f"; at that rate, expect 1 keep in {lasted(each)}"
    else:
        said += "; none was kept so far, so there is no rate to expect one at"
    if minutes is not None:
        many = round(60 * minutes / found.seconds)
        said += f"; {minutes:g} min are enough for about {counted(many, 'trial')}" if many else ""
        said += f"; {minutes:g} min may be too short for one" if not many else ""
    return said


def similar(home: Path, here: About) -> Iterator[Totals]:
    """What each session of the same kind in a home came to; a damaged one is passed over."""
    for entry in sessions.find(home)[-MAX_SESSIONS:]:
        facts = about.load(entry.folder)
        if not _alike(facts, here):
            continue
        try:
            yield summary.totals(trials.past(entry), budget=facts.budget)
        except TrainerError:
            continue


def _alike(one: About, other: About) -> bool:
    facts = [(about.bundle_id, about.budget, about.hardware_class) for about in (one, other)]
    return facts[0] == facts[1] and bool(one.hardware_class)
