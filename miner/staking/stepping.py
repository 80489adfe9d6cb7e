"""The ladder as a miner climbs it, and the step down where the best on chain is not what was approved any more.

A verifier judges against the highest rung that holds, and wants what the chain's best is ahead of that rung as well
(`trainer.judging.ladder`). So does the confirming test. Where it finds a lower rung and the gain does not suffice, the
session continues from that rung's code: what it had kept is measured against it first, gains add up there, and the next
confirming test is made once they exceed the lead.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from chain.money import score
from chain.program.accounts import ProposalStatus
from chain.projects.artifacts import fetch_earlier
from miner.context.context import SessionContext
from miner.journal.journal import TrialRecord
from miner.proposers.base import SCRIPT
from trainer.errors import TrainerError
from trainer.judging.climb import Step, stand
from trainer.judging.ladder import INCUMBENT, SNAPSHOT, Rung
from trainer.judging.policy import JudgePolicy, LadderPolicy
from trainer.judging.runs import values
from trainer.project import hyperparameters


def steps(context: SessionContext, incumbent: Mapping[str, bytes]) -> list[Step]:
    """The ladder from the best on chain (`incumbent`) down to the snapshot; the incumbent alone where it is that.

    Earlier bests are other people's code: without a sandbox, and without leave to do without, there are none.
    """
    project, task = context.project, context.task
    if not any(project.current_best_code_hash):
        return [Step(Rung(INCUMBENT, 0.0), incumbent)]

    def rung(arm: str, scored: int) -> Rung:
        return Rung(arm, float(score.unscale(scored - project.baseline_aggregate_score)))

    found = [Step(rung(INCUMBENT, project.current_best_aggregate_score), incumbent)]
    most = LadderPolicy().rungs if context.bench.measurer is not None or context.unconfined else 0
    approved = context.follower.proposals(ProposalStatus.APPROVED)
    for proposal, archive in fetch_earlier(context.connection, project, approved, most):
        with suppress(TrainerError):
            arm = rung(f"proposal {proposal.id}", proposal.verified_aggregate_score)
            found.append(Step(arm, task.tree(archive), str(proposal.miner)))
    return [*found, Step(Rung(SNAPSHOT, 0.0), task.files)]


def standing(context: SessionContext) -> tuple[Step, float] | None:
    """The rung to go on from where the best on chain fails here, and what that is ahead of it by what was attested.

    None where there is no such rung, or this machine is the one that fails: then nothing runs on it.
    """
    session, best = context.session, context.session.frontiers[-1]
    below = [] if best.lead or session.head != best.commit else steps(context, context.tree(best.commit))
    if len(below) < 2:
        return None
    policy, view, bench = JudgePolicy(), context.dashboard, context.bench
    found = stand(bench, below, None, [], policy=policy, noise=bench.noise(), seed=session.seed, view=view)
    if found.reference == INCUMBENT or not values(found.runs, found.reference):
        return None
    return next(step for step in below if step.rung.arm == found.reference), found.lead


def step_down(context: SessionContext, to: Step, lead: float) -> None:
    """Go on from the rung `to`, which the best on chain is `lead` (bpb) ahead of by what was attested."""
    session, passed, source = context.session, context.session.frontiers[-1], to.tree[SCRIPT].decode()
    commit = session.commit_with(hyperparameters.fingerprint(source))
    commit = commit or context.workspace.adopt(source, f"{to.rung.arm}, which holds")
    context.journal.append(
        "frontier",
        trial=session.trials[-1].number,
        commit=commit,
        code_hash=passed.code_hash,
        metric=passed.metric,
        miner=to.author,
        own=False,
        adopted=True,
        carry=session.head if session.head != passed.commit else "",
        lead=lead,
    )
    context.workspace.keep(commit)
    context.dashboard.say(
        f"  going on from the {to.rung.arm}; a proposal must gain more than {lead:.6f} over it", "bold"
    )


def gained(context: SessionContext, won: TrialRecord) -> float:
    """What the session's kept trials up to `won` add up to since the frontier, in bpb."""
    standing, at, total = context.session.sums.standing, won.commit, 0.0
    while at != context.session.frontiers[-1].commit and at in standing:
        total, at = total + (standing[at].delta or 0.0), standing[at].base
    return total
