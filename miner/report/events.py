"""What a session does, event by event, for scripts (`miner run --json`) and for notifications.

Each comes of an event that is in the journal already, so that nothing is told that is not on disk. The keys below are
stable: others may be added, none is renamed or taken away. Every event has `event`, `at` (ISO 8601, UTC), `project` and
`network`; values are of the project's metric, deltas are incumbent − candidate, what is not known is null.

    start         resumed (whether the session had begun before), folder
    run           trial, arm (candidate, incumbent), value, failure ("" where there is a value), seconds, machine,
                  joules (null where the machine does not tell)
    decision      trial, hypothesis, decision (keep, discard, crash), delta, low, high, p, reason
    keep          trial, hypothesis, value, delta, low, high, gain (of all that stands)
    confirmation  trial, confirmed, delta, low, high, p, reason
    submission    trial, proposal, stake (tokens)
    settlement    trial, proposal, status (approved, rejected, expired)
    stop          reason, trials, kept, best_delta, proposals, folder

The trial of a file that `miner submit` was given is -1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from common.text import counted
from miner.journal.journal import Session
from miner.report import summary

ENDED: Final = ("approved", "rejected", "expired")
NOTIFIED: Final = ("keep", "confirmation", "submission", "settlement", "stop")


def told(event: Mapping[str, Any], session: Session) -> Iterator[dict[str, Any]]:
    """The events to tell of one of the journal's, which `session` holds already; without project and network. Pure."""
    at = event.get("at", "")
    match event["event"]:
        case "begin":
            yield {"event": "start", "at": at, "resumed": len(session.segments) > 1}
        case "judged":
            which = {"number": event["number"], "at": at}
            for run in event["runs"]:
                yield _run({**run, **which})
            yield from _decision({**event["decision"], **which}, session)
        case "run":
            yield _run(event)
        case "decision" if event["number"]:
            yield from _decision(event, session)
        case "confirming_run":
            yield _run({**event["run"], "at": at, "number": session.confirmations[-1].trial})
        case "confirmed":
            test = session.confirmations[-1]
            numbers = {name: event.get(name) for name in ("delta", "low", "high", "p")}
            about = {"trial": test.trial, "confirmed": event["passed"], **numbers, "reason": event["reason"]}
            yield {"event": "confirmation", "at": at, **about}
        case "submitted":
            sent = session.submissions[-1]
            which = {"trial": sent.trial, "proposal": event["proposal"], "stake": event.get("stake", 0)}
            yield {"event": "submission", "at": at, **which}
        case "status" if event["status"] in ENDED:
            trial = next((s.trial for s in session.submissions if s.proposal == event["proposal"]), None)
            which = {"trial": trial, "proposal": event["proposal"], "status": event["status"]}
            yield {"event": "settlement", "at": at, **which}
        case "end":
            yield {"event": "stop", "at": at, "reason": event["reason"], **ended(session)}


def ended(session: Session) -> dict[str, Any]:
    """What a session comes to, as `stop` says it."""
    finished = [trial for trial in session.trials if trial.decision and trial.number]
    kept = [trial for trial in finished if trial.kept]
    return {
        "trials": len(finished),
        "kept": len(kept),
        "best_delta": max((trial.delta for trial in kept if trial.delta is not None), default=None),
        "proposals": [sent.proposal for sent in session.submissions if sent.proposal is not None],
    }


def words(event: Mapping[str, Any]) -> str:
    """One of `NOTIFIED` as a sentence. Pure."""
    delta = "" if event.get("delta") is None else f" ({summary.signed(-event['delta'])})"
    match event["event"]:
        case "keep":
            return f"Found: {summary.change(event['hypothesis'])}{delta}, trial {event['trial']}"
        case "confirmation" if event["confirmed"]:
            return f"Confirmed: {_which(event['trial'])}{delta}"
        case "confirmation":
            return f"Not confirmed: {_which(event['trial'])}: {event['reason']}"
        case "submission":
            return f"Submitted: {_which(event['trial'])} as proposal {event['proposal']}"
        case "settlement":
            return f"Proposal {event['proposal']} is {event['status']}"
    trials = counted(event["trials"], "trial")
    return f"Mining stopped: {event['reason']}; {trials}, {event['kept']} kept"


def _which(trial: int) -> str:
    return f"trial {trial}" if trial >= 0 else "your file"


def _run(event: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "event": "run",
        "at": event["at"],
        "trial": event["number"],
        "arm": event["arm"],
        "value": event["val_bpb"],
        "failure": event["failure"],
        "seconds": event["seconds"],
        "machine": event.get("machine", ""),
        "joules": event.get("joules"),
    }


def _decision(event: Mapping[str, Any], session: Session) -> Iterator[dict[str, Any]]:
    trial = session.sums.by_number[event["number"]]
    numbers = {name: event.get(name) for name in ("delta", "low", "high")}
    which = {"at": event["at"], "trial": trial.number, "hypothesis": trial.hypothesis}
    how = {"decision": trial.decision, **numbers, "p": event.get("p"), "reason": trial.reason}
    yield {"event": "decision", **which, **how}
    if trial.kept:
        yield {"event": "keep", **which, "value": summary.point(trial).value, **numbers, "gain": session.sums.gain}
