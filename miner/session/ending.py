"""The last screen of a session: what it found, and what became of that as far as the chain tells now."""

from __future__ import annotations

from contextlib import suppress

from chain.errors import ChainError
from miner.context.context import SessionContext
from miner.report import find, onchain
from trainer.errors import TrainerError


def show_finds(context: SessionContext) -> None:
    """Say the finds that stand, the diff from the session's baseline, and the command for the report."""
    session, fates, diff = context.session, dict[int, str](), ""
    approved = [s.proposal for s in session.submissions if s.proposal is not None and s.status == "approved"]
    if approved:
        with suppress(ChainError):  # then the journal's word has to do
            client = context.connection.client
            fates = onchain.fates(
                client, [client.proposal(number) for number in approved[-find.FINDS :]], context.project
            )
    if session.sums.standing:
        with suppress(TrainerError):
            diff = context.workspace.diff(session.trials[0].commit, session.head)
    for text, style in find.screen(session, diff, context.report_command, fates=fates):
        context.dashboard.say(text, style)
