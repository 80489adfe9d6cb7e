"""`chain proposal`: what `look` shows of proposals, and the steps of a review in `review`."""

from __future__ import annotations

import click

from chain.commands import look, review


@click.group()
def proposal() -> None:
    """List and show proposals, and review them by hand."""


for _command in (
    look.proposal_list,
    look.proposal_show,
    review.claim,
    review.release,
    review.approve,
    review.reject,
    review.expire,
):
    proposal.add_command(_command)
