"""The unattended loop over a project's proposals: one that fails is tried again after a growing pause, and stops no
other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from solders.keypair import Keypair

from chain.connection.opening import Connection
from chain.errors import ChainError
from chain.indexer.rules import Follower, index_path
from chain.program.accounts import Proposal, ProposalStatus
from common.terminal import View
from trainer.errors import TrainerError
from trainer.judging.policy import JudgePolicy
from verifier import check, settle

LONGEST_PAUSE = 3600.0  # seconds


@dataclass(slots=True)
class Turn:
    """A proposal's tries so far, when the next one is due, and whether there is none in this run."""

    tries: int = 0
    due: float = 0.0
    over: bool = False


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
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> list[dict[str, Any]]:
    """Settle what is pending or held by us, oldest first; the outcome of each proposal, in order.

    What raises, or was released, is tried again after a `pause`; with `once` what raises `retries` times in all, and
    then it ends. Another's review is no try: it is waited for. `ready` is that of `settle`, by default
    `check.prepare`. Raises ChainError, with `once`, where the network does not say what is pending.
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
    with Follower(connection.network, project_id, index_path(connection.home, connection.network)) as follower:
        follower.refresh()
        while True:
            open_ = _candidates(follower, view, strict=once)
            for number in open_:
                turn = turns.setdefault(number, Turn())
                if turn.over or now() < turn.due:
                    continue
                view.say(f"proposal {number}", style="bold")
                folder = check.folder_of(connection.home, connection.network.name, str(number))
                turn.tries += 1
                try:
                    done = settle.settle(connection, number, key, folder, prepare, judge, view.say)
                except settle.NotOurs as others:
                    turn.tries -= 1
                    turn.over, turn.due = once, now() + every
                    status, note = "waiting", others.problem
                    view.say(f"  {others.problem}")
                except (ChainError, TrainerError) as error:
                    turn.over, turn.due = once and turn.tries >= retries, now() + pause(turn.tries, every)
                    status, note = "failed", error.problem
                    view.say(f"  {error.problem} {error.cure}", style="yellow")
                else:
                    turn.over, turn.due = once, now() + pause(turn.tries, every)
                    status, note = done.status.name.lower(), done.note
                    view.say(f"  {done.note}")
                results.append({"proposal": number, "status": status, "note": note})
            waiting = [turns[number].due for number in open_ if not turns[number].over]
            if once and not waiting:
                return results
            next_look = now() + every
            sleep(max(0.0, (min(waiting) if once else next_look) - now()))


def _candidates(follower: Follower, view: View, *, strict: bool) -> list[int]:
    """Ids of what may be for us; empty, which is said, where the network does not answer just now, unless `strict`."""
    try:
        follower.refresh()
    except ChainError as error:
        if strict:
            raise
        view.say(f"What is pending is not known: {error.problem}", style="yellow")
        return []
    return [proposal.id for proposal in follower.proposals(ProposalStatus.PENDING, ProposalStatus.IN_REVIEW)]
