"""`chain proposal claim | release | approve | reject | expire`: the review's steps, by hand.

`verifier check --settle` does the same after measuring. These commands are for a verifier who reached a verdict by
other means, and for cleaning up.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chain.commands import connected, irys_option, keypair_option, project_option
from chain.commands.options import Command, Whole, answer, common

if TYPE_CHECKING:
    from solders.keypair import Keypair
    from solders.pubkey import Pubkey

    from chain.money.client import Client, Landed
    from chain.program.accounts import Proposal

_MAX_METRICS = 16 * 1024 * 1024  # bytes
_metrics_option = click.option(
    "--metrics",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Measurements to upload; their hash is recorded on chain.",
)


def _review(command: Callable[..., Any]) -> Callable[..., Any]:
    return common(keypair_option("verifier")(click.argument("proposal_id", metavar="ID", type=Whole(0))(command)))


@click.command(cls=Command, examples=("chain proposal claim 7",))
@_review
def claim(home: Path, network: str, as_json: bool, keypair: str | None, proposal_id: int) -> None:
    """Lock a proposal for your review for 24 hours."""
    from chain.connection.opening import VERIFIER
    from chain.pages import show
    from chain.program.events import ReviewClaimed
    from chain.program.instructions import ClaimReview

    with connected(network, home) as connection:
        found = connection.client.proposal(proposal_id)
        done = connection.client.call(ClaimReview(found.id), connection.wallet(keypair, VERIFIER))
        until = done.event(ReviewClaimed).review_lock_until
        more = {"review_lock_until": until}
        _say(as_json, proposal_id, "in_review", done, f"is yours to review until {show.when(until)} UTC", more)


@click.command(cls=Command, examples=("chain proposal release 7",))
@_review
def release(home: Path, network: str, as_json: bool, keypair: str | None, proposal_id: int) -> None:
    """Release a review, so that others can claim it.

    The stake stays in escrow: a later review settles it, and 7 days after submission anyone may expire it, which
    slashes it. Once the 24 hours of its lock are over, anyone may release a review.
    """
    from chain.connection.opening import VERIFIER
    from chain.program.instructions import ReleaseReview

    with connected(network, home) as connection:
        found = connection.client.proposal(proposal_id)
        done = connection.client.call(ReleaseReview(found.id), connection.wallet(keypair, VERIFIER))
        _say(as_json, proposal_id, "pending", done, "is pending again")


@click.command(
    cls=Command,
    examples=(
        "chain proposal approve 7 --metrics measured.json --verified 2.5281",
        "chain proposal approve 7 --metrics measured.json --score 2471900",
    ),
)
@_review
@irys_option
@_metrics_option
@click.option("--verified", metavar="METRIC", help="Verified value, in the metric's own unit.")
@click.option("--score", type=int, help="Verified value as an on-chain score, if the project's convention is unknown.")
def approve(
    home: Path,
    network: str,
    as_json: bool,
    keypair: str | None,
    proposal_id: int,
    irys: str | None,
    metrics: Path,
    verified: str | None,
    score: int | None,
) -> None:
    """Approve a proposal under your review.

    The miner gets the stake back and the reward is minted.
    """
    from chain.connection.opening import VERIFIER
    from chain.irys.client import Role
    from chain.program.errors import ScoreNotImproved, error_for
    from chain.program.events import MinerRewardMinted
    from chain.projects import packing

    if (verified is None) == (score is None):
        raise click.UsageError("Give the verified value, either as --verified METRIC or as --score.")
    data = packing.read(metrics, _MAX_METRICS)
    with connected(network, home, irys) as connection:
        client, key = connection.client, connection.wallet(keypair, VERIFIER)
        found = client.proposal(proposal_id)
        project = client.project(found.project_id)
        _ours(found, key.pubkey())
        if score is None:
            from chain.pages.overview import meaning

            meant = meaning(connection, project)
            if meant.convention is None:
                raise click.UsageError(f"The meaning of a score is unknown: {meant.problem} Use --score.")
            score = meant.convention.to_score(_decimal(verified))
        if score <= project.current_best_aggregate_score:  # before anything is uploaded
            raise error_for(ScoreNotImproved.code)
        pinned = connection.publish(key, Role.VERIFIER_METRICS, data, "application/json")
        done = client.approve(key, found, project, verified_score=score, metrics=pinned)
        reward = done.event(MinerRewardMinted).amount
        more = {"score": score, "metrics_hash": pinned[0].hex(), "reward": reward}
        words = f"approved with score {score:,}; {reward:,} {project.token_symbol} minted"
        _say(as_json, proposal_id, "approved", done, words, more)


@click.command(cls=Command, examples=("chain proposal reject 7 --metrics measured.json",))
@_review
@irys_option
@_metrics_option
def reject(
    home: Path, network: str, as_json: bool, keypair: str | None, proposal_id: int, irys: str | None, metrics: Path
) -> None:
    """Reject a proposal under your review.

    The stake is slashed; you can claim half of it.
    """
    from chain.connection.opening import VERIFIER
    from chain.irys.client import Role
    from chain.program.events import StakeSlashed
    from chain.program.instructions import Reject
    from chain.projects import packing

    data = packing.read(metrics, _MAX_METRICS)
    with connected(network, home, irys) as connection:
        key, found = connection.wallet(keypair, VERIFIER), connection.client.proposal(proposal_id)
        _ours(found, key.pubkey())
        pinned = connection.publish(key, Role.VERIFIER_REJECT_EVIDENCE, data, "application/json")
        done = connection.client.call(Reject(found.id, *pinned), key, project_id=found.project_id)
        slashed = done.event(StakeSlashed)
        more = {"burned": slashed.burned, "claimable": slashed.to_verifier_pool, "metrics_hash": pinned[0].hex()}
        words = f"rejected: {slashed.burned} burned, {slashed.to_verifier_pool} claimable"
        _say(as_json, proposal_id, "rejected", done, words, more)


@click.command(cls=Command, examples=("chain proposal expire 7", "chain proposal expire --all-due --project 0"))
@common
@keypair_option("miner")
@click.option("--all-due", is_flag=True, help="Expire every proposal that is due; a failure does not stop the rest.")
@project_option("project_id", what="With --all-due: only this project.", default=None)
@click.option(
    "--limit", type=Whole(1, 10_000), default=100, show_default=True, help="With --all-due: at most this many."
)
@click.argument("proposal_id", metavar="[ID]", type=Whole(0), required=False)
def expire(
    home: Path,
    network: str,
    as_json: bool,
    keypair: str | None,
    all_due: bool,
    project_id: int | None,
    limit: int,
    proposal_id: int | None,
) -> None:
    """Expire a proposal that nobody settled in 7 days.

    The stake is slashed; you can claim half of it. With --all-due the exit status is 1 if any of them failed; run the
    command again for the rest.
    """
    from chain.connection.opening import MINER
    from chain.program.events import StakeSlashed
    from chain.program.instructions import Expire

    if all_due == (proposal_id is not None):
        raise click.UsageError("Give a proposal ID, or --all-due.")
    with connected(network, home) as connection:
        client, key = connection.client, connection.wallet(keypair, MINER)
        if proposal_id is not None:
            due_now = client.proposal(proposal_id)
            done = client.call(Expire(due_now.id), key, project_id=due_now.project_id)
            slashed = done.event(StakeSlashed)
            more = {"burned": slashed.burned, "claimable": slashed.to_verifier_pool}
            words = f"expired: {slashed.burned} burned, {slashed.to_verifier_pool} claimable"
            return _say(as_json, proposal_id, "expired", done, words, more)
        found = client.all_proposals() if project_id is None else client.proposals(project_id)
        chosen = due(found, client.network.clock().unix_timestamp)
        rows = _expire_each(client, key, chosen[:limit])
        left, failed = len(chosen) - len(rows), sum(row["status"] == "failed" for row in rows)
        lines = [
            f"proposal {row['proposal']} {row['status']}{': ' if row['problem'] else ''}{row['problem']}"
            for row in rows
        ]
        lines += [f"{left} more are due. Run the command again."] if left else []
        answer(as_json, rows, "\n".join(lines) or "No proposal is due.")
        raise SystemExit(1 if failed else 0)


def due(proposals: list[Proposal], now: int) -> list[Proposal]:
    """Those that nobody settled within the expiry window, longest due first. A review lock does not extend it."""
    from chain.program.accounts import EXPIRY_WINDOW_SECONDS, ProposalStatus

    unsettled = (ProposalStatus.PENDING, ProposalStatus.IN_REVIEW)
    found = [entry for entry in proposals if entry.status in unsettled]
    found = [entry for entry in found if entry.submitted_at + EXPIRY_WINDOW_SECONDS <= now]
    return sorted(found, key=lambda entry: (entry.submitted_at, entry.id))


def _expire_each(client: Client, key: Keypair, chosen: list[Proposal]) -> list[dict[str, Any]]:
    """Expire one after the other. A refused one does not stop the rest; a wallet, a cap or a network that would
    fail all of them does, and the result says so.
    """
    from chain.errors import ChainError, TransactionFailed
    from chain.program.instructions import Expire

    rows: list[dict[str, Any]] = []
    for number, entry in enumerate(chosen, 1):
        click.echo(f"proposal {entry.id} ({number} of {len(chosen)})", err=True)
        row = {"proposal": entry.id, "status": "expired", "signature": None, "problem": ""}
        try:
            row["signature"] = str(client.call(Expire(entry.id), key, project_id=entry.project_id).receipt.signature)
        except ChainError as error:
            rows.append(row | {"status": "failed", "problem": error.problem})
            if not isinstance(error, TransactionFailed):
                break
        else:
            rows.append(row)
    return rows


def _ours(proposal: Proposal, key: Pubkey) -> None:
    """Refuse as the program would, before anything is uploaded, unless `key` holds the review."""
    from chain.money.causes import with_cause
    from chain.program.accounts import ProposalStatus
    from chain.program.errors import WrongReviewer, WrongStatus, error_for

    if proposal.status is not ProposalStatus.IN_REVIEW:
        raise with_cause(error_for(WrongStatus.code), proposal)
    if proposal.reviewer != key:
        raise with_cause(error_for(WrongReviewer.code), proposal)


def _decimal(text: str | None) -> Decimal:
    try:
        return Decimal(text or "")
    except ArithmeticError:
        raise click.BadParameter(f"{text!r} is not a number", param_hint="--verified") from None


def _say(
    as_json: bool, proposal: int, status: str, done: Landed, words: str, more: dict[str, Any] | None = None
) -> None:
    document = {"proposal": proposal, "status": status, "signature": str(done.receipt.signature)}
    answer(as_json, document | (more or {}), f"proposal {proposal} {words}")
