"""Many tries, one error budget: the k-th look at the same thing gets a level so that all looks together stay at alpha.

A no-op is approved in one of a hundred looks. Who may look again for free needs patience only. So looks are counted
that have something in common: the code (its archive's hash, or what it says once names, comments and digits that
matter to nobody are left out), or an author who was released for what its own code did. `JudgePolicy.at_look` gives the
k-th of them its level.

What is counted: every trial that this verifier made, from its own record; and from the chain, for the proposal and for
earlier ones with the very same archive, each other verifier that claimed a review before. A release puts neither runs
nor reasons on chain, so each of these counts as a trial, although some ended before a run. What other verifiers made of
the same source in another archive is not on chain, and not counted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from trainer.judging.judge import Judgement
from trainer.judging.runs import ReplayRun
from trainer.judging.verdict import Reason, Verdict, VerdictKind
from trainer.statistics.comparison import Arm

MAX_BYTES = 1 << 26
_OWN = frozenset({Reason.UNCONFIRMED, Reason.HOLDOUT_UNDECIDED, Reason.MALFORMED_ARCHIVE})


@dataclass(frozen=True, slots=True)
class Inspection:
    """One trial of a proposal's code. `against` is the incumbent's digest: another best is another look. `own` says
    that it was released for what its code did."""

    network: str
    project: int
    proposal: int
    against: str
    code: str
    source: str
    author: str
    own: bool = False


def number(earlier: Iterable[Inspection], look: Inspection, others: Mapping[int, int]) -> int:
    """Which look this is, from 1.

    `others` has how many other verifiers reviewed this proposal, and each earlier one with the very same archive: a
    copy counts at least once, unless it is among the `earlier` looks, which are this verifier's own.
    """
    counted: set[tuple[int, str]] = set()
    for other in earlier:
        if (other.network, other.project) != (look.network, look.project):
            continue
        if (other.proposal, other.against) == (look.proposal, look.against):
            continue
        same = look.code == other.code or (look.source and look.source == other.source)
        if same or (other.own and other.author == look.author):
            counted.add((other.proposal, other.against))
    known = {look.proposal, *(proposal for proposal, _ in counted)}
    elsewhere = (
        count if proposal in known else max(1, count) for proposal, count in others.items() if proposal <= look.proposal
    )
    return 1 + len(counted) + sum(elsewhere)


def own_behaviour(judged: Judgement, verdict: Verdict, runs: Sequence[ReplayRun]) -> bool:
    """Whether a release was, or could have been, brought about by the candidate itself."""
    if verdict.kind is not VerdictKind.RELEASE:
        return False
    if any(run.arm == Arm.CANDIDATE.value and run.failed for run in runs):
        return True
    loud = verdict.reason is Reason.TOO_NOISY and not (judged.comparison and judged.comparison.noisier)
    return loud or verdict.reason in _OWN


def read(path: Path) -> list[Inspection]:
    """The looks on record; a line that is not one is left out."""
    names = {field.name for field in fields(Inspection)}
    found = []
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES)
    except FileNotFoundError:
        return []
    for line in content.splitlines():
        try:
            document = json.loads(line)
            found.append(Inspection(**{name: document[name] for name in names}))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return found


def add(path: Path, look: Inspection) -> None:
    """Record a look, on disk before this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(
            b"\n" * (file.tell() > 0 and not _ends(path)) + json.dumps(asdict(look), sort_keys=True).encode() + b"\n"
        )
        file.flush()
        os.fsync(file.fileno())


def _ends(path: Path) -> bool:
    """Whether the last line is whole: a kill may have cut it."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
