"""The unattended loop over a project's proposals: limited attempts each; a failure does not stop the rest."""

from __future__ import annotations

import time
from typing import Any

from solders.keypair import Keypair

from chain.connection.opening import Connection
from chain.errors import ChainError
from chain.indexer.rules import Follower, index_path
from chain.program.accounts import ProposalStatus
from common.terminal import View
from trainer.errors import TrainerError
from trainer.judging.policy import JudgePolicy
from verifier import check, settle


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
    ready: settle.Ready = check.ready,
) -> list[dict[str, Any]]:
    """Settle what is pending or held by us, oldest first; the outcome of each proposal, in order.

    A proposal that raises is tried `retries` times in all and then left alone, as is one that was
    released: the same machine would only release it again. `ready` raises if this machine cannot judge at all.
    """
    ready()
    tries: dict[int, int] = {}
    results: list[dict[str, Any]] = []
    with Follower(connection.network, project_id, index_path(connection.home, connection.network)) as follower:
        follower.refresh()
        while True:
            worked = False
            for proposal in _candidates(follower):
                if tries.get(proposal, 0) >= retries:
                    continue
                worked = True
                tries[proposal] = tries.get(proposal, 0) + 1
                view.say(f"proposal {proposal}", style="bold")
                folder = check.folder_of(connection.home, connection.network.name, str(proposal))
                try:
                    done = settle.settle(
                        connection,
                        proposal,
                        key,
                        folder,
                        ready,
                        lambda current: check.check_proposal(
                            connection, current, key, policy, view, trust_harness=trust_harness
                        ),
                        view.say,
                    )
                except (ChainError, TrainerError) as error:
                    view.say(f"  {error.problem} {error.cure}", style="yellow")
                    results.append({"proposal": proposal, "status": "failed", "note": error.problem})
                    continue
                if done.status in (ProposalStatus.PENDING, ProposalStatus.IN_REVIEW):
                    tries[proposal] = retries
                view.say(f"  {done.note}")
                results.append({"proposal": proposal, "status": done.status.name.lower(), "note": done.note})
            if once and not worked:
                return results
            if not worked:
                time.sleep(every)


def _candidates(follower: Follower) -> list[int]:
    """Ids of what may be for us; empty if the network does not answer."""
    try:
        follower.refresh()
    except ChainError:
        return []
    return [proposal.id for proposal in follower.proposals(ProposalStatus.PENDING, ProposalStatus.IN_REVIEW)]
