"""What the sessions of a home are doing, read while a miner may be running: no lock."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from chain.network.base import LAMPORTS_PER_SOL
from common.text import counted, lasted, printable
from miner.journal import about, journal
from miner.journal.about import About
from miner.journal.journal import Session, Submission, TrialRecord, seconds_of
from miner.journal.sessions import SessionFolder
from miner.proposers import usage
from miner.proposers.usage import Usage
from miner.report import find, summary
from miner.report.summary import WORDS, Totals, submission_state
from trainer.errors import TrainerError

SEGMENTS = 3  # of the last starts that are shown


def proposals(found: SessionFolder) -> list[int]:
    """The session's proposals on chain; none where its journal is damaged."""
    try:
        return [made.proposal for made in journal.read(found.journal).submissions if made.proposal is not None]
    except TrainerError:
        return []


def describe(found: SessionFolder, fates: Mapping[int, str] = {}) -> tuple[dict[str, Any], str]:
    """A session as a JSON document and as text; one whose journal is damaged says so in `problem`. `fates` are words on
    what the chain says of its proposals, by id, where it was asked.
    """
    where = {"session": found.name, "folder": str(found.folder), "network": found.network, "project": found.project}
    try:
        session = journal.read(found.journal)
    except TrainerError as error:
        return {**where, "problem": error.message}, f"{found.name}\n  {error.message}"
    facts, running = about.load(found.folder), journal.is_held(found.journal)
    asked = usage.spent(found.folder / "proposers")
    known = summary.totals(session, budget=facts.budget, running=running)

    states = summary.states(session, summary.statuses(fates))

    def state(entry: Submission) -> str:
        return submission_state(entry, "" if entry.proposal is None else fates.get(entry.proposal, ""))

    document = {
        **where,
        "running": running,
        "tag": session.tag,
        "started": session.started,
        "summary": known.as_json(),
        "unfinished": [{"number": trial.number, "machine": trial.machine} for trial in session.unfinished],
        "submissions": [
            {**asdict(entry), "state": state(entry).partition(":")[0], "fate": state(entry)}
            for entry in session.submissions
        ],
        "segments": [asdict(segment) for segment in session.segments],
        "frontiers": [asdict(frontier) for frontier in session.frontiers],
        "spent_lamports": session.spent,
        "asked": usage.as_json(asked),
        "staked": session.staked,
        "about": asdict(facts),
    }
    return document, _text(found, session, facts, known, running, time.time(), state, states, asked)


def _text(
    found: SessionFolder,
    session: Session,
    facts: About,
    known: Totals,
    running: bool,
    now: float,
    state: Callable[[Submission], str],
    states: Mapping[int, str],
    asked: Mapping[str, Usage],
) -> str:
    lines = [f"{found.name}: {'mining now' if running else 'not mining'}"]

    def row(name: str, words: str) -> None:
        lines.append(f"  {name:<12} {words}")

    if facts.token_name:
        row("project", printable(f"{facts.token_name} ({facts.token_symbol}), {facts.hardware_class}"))
    parts = f"{known.kept} kept, {known.discarded} discarded, {known.crashed} crashed"
    row("trials", f"{known.finished} finished: {parts}")
    for trial in session.unfinished:
        row("", _open(trial))
    if known.best is not None:
        baseline = "" if known.baseline is None else f", baseline {known.baseline:.6f}"
        gained = f"gain confirmed {known.confirmed:+.6f}, found {known.gain:+.6f}"
        row("best", f"{known.best:.6f} {facts.metric}{baseline}, {gained}")
    for kept, became in list(states.items())[-SEGMENTS:]:
        row("kept", f"trial {kept}, {find.headline(session.sums.by_number[kept], became)}")
    last = next((trial for trial in reversed(session.trials) if trial.runs), None)
    if last is not None:
        row("last run", _last_run(last, now))
    hourly = "" if known.per_hour is None else f", gained {known.per_hour:+.4f} bpb an hour"
    spent = f", {known.time.candidates / known.time.running:.0%} of it on candidates" if known.time.running else ""
    row("machine", f"{lasted(known.time.running)} in {counted(known.runs, 'run')}{spent}{hourly}")
    if known.metered:
        row("energy", known.energy())
    for entry in session.submissions[-5:]:
        number = "" if entry.proposal is None else f"proposal {entry.proposal}, "
        row("submission", f"{number}trial {entry.trial}: {state(entry)}")
    foreign = [frontier for frontier in session.frontiers if frontier.foreign]
    if foreign:
        row("frontier", printable(f"{foreign[-1].metric} by {foreign[-1].miner[:8]}…, seen {foreign[-1].at}"))
    row("spent", f"{session.spent / LAMPORTS_PER_SOL:.6f} SOL, {counted(session.staked, 'token')} staked")
    for name, used in asked.items():
        row("asked", printable(f"{name}: {used.words()}", 100))
    for segment in session.segments[-SEGMENTS:]:
        alive = running and segment is session.segments[-1]
        end = f"to {segment.end}: {segment.reason}" if segment.end else "until now" if alive else "until it was killed"
        row("ran", printable(f"from {segment.begin} {end}"))
    row("records", str(found.folder))
    return "\n".join(lines)


def _open(trial: TrialRecord) -> str:
    if trial.machine:
        return printable(f"trial {trial.number}: running on {trial.machine}: {trial.hypothesis}", 130)
    return f"trial {trial.number}: {counted(len(trial.runs), 'run')} so far: {printable(trial.hypothesis, 90)}"


def _last_run(trial: TrialRecord, now: float) -> str:
    run = trial.runs[-1]
    value = "no value" if run.val_bpb is None else f"{run.val_bpb:.6f}"
    at = seconds_of(run.at)
    ago = "" if at is None else f", {lasted(max(0.0, now - at))} ago"
    decision = WORDS.get(trial.decision, "")
    where = f" on {run.machine}" if run.machine else ""
    return printable(f"trial {trial.number} ({decision or 'open'}){where}, {run.arm.value}: {value}{ago}")
