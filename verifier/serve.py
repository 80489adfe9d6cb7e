"""The unattended loop over a project's proposals.

- One that fails is tried again after a growing pause, and stops no other; neither does a full disk.
- A released one is looked at again after a growing pause where its reason may be gone (data there now, a gateway that
  answers). Where the reason lies in the proposal or the machine, the same runs would release it again: that waits for
  another best, or another start. So does one whose candidate ran MOST_DRAWN times in vain: a script can leave load
  behind, or end as only a machine should, and every such check begins anew.
- Another's review is no try: it is waited for, with a growing pause.
- What cannot be read is said, once, and left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chain.connection.opening import Connection
from chain.errors import ChainError
from chain.indexer.rules import Follower, index_path
from chain.program.accounts import Project, Proposal, ProposalStatus
from common.errors import Refused
from common.terminal import View
from trainer.errors import TrainerError
from trainer.judging.policy import JudgePolicy
from trainer.judging.verdict import Reason, Verdict, VerdictKind
from trainer.statistics.comparison import Arm
from verifier import check, settle

LONGEST_PAUSE = 3600.0  # seconds
MOST_DRAWN = 3  # checks of a proposal whose runs count for nothing, while there is no other best
PASSING = frozenset(
    {
        Reason.ARTIFACT_UNAVAILABLE,
        Reason.DATA_DIFFERS,
        Reason.HOLDOUT_UNAVAILABLE,
        Reason.INCUMBENT_FAILS,
        Reason.NOT_READY,
    }
)
"""Reasons of a release that may be gone the next time on the same machine; those of the others are on record here."""


@dataclass(slots=True)
class Turn:
    """A proposal's tries so far, how often it was another's and how often it ran in vain, when the next look is due,
    whether there is none in this run, and the best (code hash and score) while which it stays released."""

    tries: int = 0
    waits: int = 0
    drawn: int = 0
    due: float = 0.0
    over: bool = False
    under: tuple[bytes, int] | None = None


def pause(tries: int, every: float) -> float:
    """Seconds until a proposal is tried again after `tries` tries: twice as long each time, an hour at most."""
    return min(every * 2.0 ** min(tries - 1, 30), LONGEST_PAUSE)


def serve(
    connection: Connection,
    project_id: int,
    key: Keypair,
    policy: JudgePolicy,
    view: View,
    *,
    once: bool,
    every: float,
    retries: int,
    trust_harness: bool,
    ready: settle.Ready | None = None,
    tell: Callable[[dict[str, Any]], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> list[dict[str, Any]]:
    """Settle what is pending or held by us, oldest first; with `once` the outcome of each proposal, in order.

    With `once` what raises gets `retries` tries in all, and then it ends. `ready` is that of `settle`, by default
    `check.prepare`; `tell` hears of each settlement and release, as `outcome` says them. Raises ChainError, with
    `once`, where the network does not say what is pending.
    """
    if ready is None:
        check.ready()

    def prepare(proposal: Proposal) -> None:
        if ready is None:
            check.prepare(connection, proposal, policy)
        else:
            ready(proposal)

    def judge(proposal: Proposal) -> check.CheckResult:
        return check.check_proposal(connection, proposal, key, policy, view, trust_harness=trust_harness)

    turns: dict[int, Turn] = {}
    results: list[dict[str, Any]] = []
    unreadable: set[Pubkey] = set()
    path = index_path(connection.home, connection.network)
    with Follower(connection.network, project_id, path, view.say) as follower:
        follower.refresh()
        while True:
            open_ = _candidates(follower, view, unreadable, strict=once)
            best = _best(follower.project)
            for number in open_:
                turn = turns.setdefault(number, Turn())
                if turn.over or turn.under == best or now() < turn.due:
                    continue
                view.say(f"proposal {number}", style="bold")
                folder = check.folder_of(connection.home, connection.network.name, str(number))
                turn.tries += 1
                try:
                    done = settle.settle(connection, number, key, folder, prepare, judge, view.say, step=view.step)
                except settle.NotOurs as others:
                    turn.tries, turn.waits = turn.tries - 1, turn.waits + 1
                    turn.over, turn.due = once, now() + pause(turn.waits, every)
                    status, note = "waiting", others.problem
                    view.say(f"  {others.problem}")
                except (ChainError, TrainerError, OSError) as error:
                    turn.over, turn.due = once and turn.tries >= retries, now() + pause(turn.tries, every)
                    status, note = "failed", error.problem if isinstance(error, Refused) else _of_machine(error)
                    cure = f" {error.cure}" if isinstance(error, Refused) else ""
                    view.say(f"  {note}{cure}", style="yellow")
                else:
                    turn.over, turn.due = once, now() + pause(turn.tries, every)
                    turn.drawn += done.checked is not None and _in_vain(done.checked)
                    stays = done.checked is not None and (_stays(done.checked.verdict) or turn.drawn >= MOST_DRAWN)
                    turn.under = _best(done.checked.project) if done.checked and stays else None
                    turn.drawn = 0 if stays else turn.drawn
                    status, note = done.status.name.lower(), done.note
                    view.say(f"  {done.note}")
                    if event := outcome(number, done):
                        tell(event)
                if once:
                    results.append({"proposal": number, "status": status, "note": note})
            waiting = [turns[number].due for number in open_ if not turns[number].over]
            if once and not waiting:
                return results
            next_look = now() + every
            sleep(max(0.0, (min(waiting) if once else next_look) - now()))


def outcome(number: int, done: settle.Settled) -> dict[str, Any] | None:
    """What we did about a proposal, for notifications: `settlement` or `release`; None where others ended it. Pure."""
    if done.checked is None and not done.signature:
        return None
    ended = done.status in (ProposalStatus.APPROVED, ProposalStatus.REJECTED)
    kind = "settlement" if ended else "release"
    return {"event": kind, "proposal": number, "status": done.status.name.lower(), "note": done.note}


def words(event: Mapping[str, Any]) -> str:
    """One of those, or `stop` with its `reason`, as a sentence. Pure."""
    match event["event"]:
        case "settlement":
            return f"Settled: proposal {event['proposal']} is {event['status']}"
        case "release":
            return f"Proposal {event['proposal']}: {event['note']}"
    return f"Verifying stopped: {event['reason']}"


def _stays(verdict: Verdict) -> bool:
    """Whether a release would come of the same runs again."""
    return verdict.kind is VerdictKind.RELEASE and verdict.reason not in PASSING


def _in_vain(checked: check.CheckResult) -> bool:
    """Whether a release that may pass took runs of the candidate."""
    released = checked.verdict.kind is VerdictKind.RELEASE and not _stays(checked.verdict)
    return released and any(run.arm == Arm.CANDIDATE.value for run in checked.replay.runs)


def _best(project: Project) -> tuple[bytes, int]:
    return project.current_best_code_hash, project.current_best_aggregate_score


def _of_machine(error: OSError) -> str:
    """A failure of this machine's own, such as a full disk, in one line."""
    where = f" ({error.filename})" if error.filename else ""
    return f"This machine failed: {error.strerror or error}{where}."


def _candidates(follower: Follower, view: View, unreadable: set[Pubkey], *, strict: bool) -> list[int]:
    """Ids of what may be for us; empty, which is said, where the network does not answer just now, unless `strict`."""
    try:
        follower.refresh()
    except ChainError as error:
        if strict:
            raise
        view.say(f"What is pending is not known: {error.problem}", style="yellow")
        return []
    for address in follower.unreadable():
        if address not in unreadable:
            view.say(f"cannot read the proposal account {address}; going on without it", style="yellow")
            unreadable.add(address)
    return [proposal.id for proposal in follower.proposals(ProposalStatus.PENDING, ProposalStatus.IN_REVIEW)]
