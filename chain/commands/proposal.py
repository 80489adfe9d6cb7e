"""`chain proposal`: reading proposals (`look`) and reviewing them by hand (`review`)."""

from __future__ import annotations

import click

from chain.commands import look, review
from chain.commands.options import Commands


@click.group(cls=Commands)
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
