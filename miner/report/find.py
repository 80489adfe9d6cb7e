"""A find on one screen: what changed, by how much, what became of it, the diff, and where to see more. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from common.text import counted, printable
from miner.journal.journal import Session, TrialRecord
from miner.report import summary

MAX_DIFF = 24  # lines of a diff
FINDS = 5  # that the end of a session lists
_NONE: Mapping[int, str] = MappingProxyType({})
Line = tuple[str, str]  # words and a style of rich


def gain(trial: TrialRecord) -> str:
    """By how much a trial's value is below the incumbent's: share, difference and half its interval; "" if unknown."""
    if trial.delta is None:
        return ""
    point = summary.point(trial)
    before = None if point.value is None else point.value + trial.delta
    share = f"{summary.signed(-100 * trial.delta / before, 1)} % " if before else ""
    about = ""
    if trial.low is not None and trial.high is not None:
        about = f" ± {max(trial.high - trial.delta, trial.delta - trial.low):.2g}"
    return f"{share}({summary.signed(-trial.delta)}{about})"


def headline(trial: TrialRecord, state: str = "", fate: str = "") -> str:
    """One line: the change, the gain, what became of it (`state`), and what the chain says of its proposal (`fate`)."""
    known = [part for part in (gain(trial), state if state != "kept" else "", reward(fate)) if part]
    return f"{summary.change(trial.hypothesis)}: {', '.join(known)}" if known else summary.change(trial.hypothesis)


def reward(fate: str) -> str:
    """The reward in the words of `onchain.fate`, or ""."""
    found = re.search(r"\+[\d,]+ [^,]+", fate)
    return found[0] if found else ""


def diff_lines(diff: str, most: int = MAX_DIFF) -> list[Line]:
    """A diff's changed lines and where they are, coloured, at most `most`."""
    found: list[Line] = []
    for line in diff.splitlines():
        if line.startswith(("diff ", "index ", "+++ ", "--- ", "new file", "deleted file", "\\")):
            continue
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        if style:
            found.append(("    " + printable(line, 160, spaces=True), style))
    left = len(found) - most
    return [*found[:most], (f"    … {counted(left, 'more line')}", "dim")] if left > 0 else found


def screen(session: Session, diff: str, command: str, *, fates: Mapping[int, str] = _NONE) -> Iterator[Line]:
    """The end of a session: the last finds that still stand, what all of them changed, and the command for the report.
    Nothing where nothing was found."""
    shown = list(session.sums.standing.values())[-FINDS:]
    if not shown:
        return
    states, by_trial = summary.states(session, summary.statuses(fates)), _fates(session, fates)
    for trial in shown:
        state = states.get(trial.number, "kept")
        good = state not in ("not confirmed", "rejected", "expired")
        yield headline(trial, state, by_trial.get(trial.number, "")), "bold green" if good else "yellow"
    yield from diff_lines(diff)
    yield f"see it all: {command}", ""


def _fates(session: Session, fates: Mapping[int, str]) -> dict[int, str]:
    """The chain's words by trial."""
    sent = [entry for entry in session.submissions if entry.proposal is not None]
    return {entry.trial: fates.get(entry.proposal or 0, "") for entry in sent}
