"""`chain proposal`: list and show proposals; the steps of a review are in `review`."""

from __future__ import annotations

from pathlib import Path

import click

from chain.commands import connected, review
from chain.options import answer, common


@click.group()
def proposal() -> None:
    """List and show proposals, and review them by hand."""


@proposal.command("list")
@common
@click.option("--project", "project_id", type=click.IntRange(0), default=0, show_default=True, help="Project id.")
def proposal_list(home: Path, network: str, as_json: bool, project_id: int) -> None:
    """All proposals of a project."""
    from chain import show

    with connected(network, home) as connection:
        connection.client.project(project_id)
        proposals = connection.client.proposals(project_id)
        answer(as_json, [show.as_json(entry) for entry in proposals], show.proposals(proposals))


@proposal.command("show")
@common
@click.argument("proposal_id", type=click.IntRange(0))
def proposal_show(home: Path, network: str, as_json: bool, proposal_id: int) -> None:
    """Everything the chain holds of a proposal."""
    from chain import show

    with connected(network, home) as connection:
        found = connection.client.proposal(proposal_id)
        answer(as_json, show.as_json(found), show.fields_text(found))


for _command in (review.claim, review.release, review.approve, review.reject, review.expire):
    proposal.add_command(_command)
