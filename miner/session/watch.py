"""The session's looks at the chain: what became of its proposals, and whether somebody is ahead of it."""

from __future__ import annotations

from solders.pubkey import Pubkey

from chain.errors import ChainError
from chain.program.accounts import ProposalStatus
from miner.context.context import SessionContext
from miner.session import frontier
from trainer.errors import TrainerError

_STYLES = {ProposalStatus.APPROVED: "green", ProposalStatus.REJECTED: "red"}


class ChainWatch:
    """Keeps a session's project, frontier and proposals as the chain has them."""

    def __init__(self, context: SessionContext) -> None:
        self._context = context
        self._unreadable: set[Pubkey] = set()

    def look(self) -> None:
        """Take note of the project as it is now, of what became of our proposals and of a new best.

        A network that does not answer is no reason to stop mining, once the best was seen; the next look is after the
        next trial.
        """
        context = self._context
        try:
            context.follower.refresh()
            context.project = context.follower.project
            self._note_statuses()
            self._note_unreadable()
            code_hash = context.project.current_best_code_hash.hex()
            if frontier.moved(context.session, code_hash) is frontier.Moved.SAME:
                return
            best = frontier.fetch(context.connection, context.project, context.task, context.convention)
        except (ChainError, TrainerError) as error:
            if not context.session.frontiers:
                raise
            context.dashboard.say(f"cannot read the chain ({error.problem}); mining continues, will retry")
            return
        context.require_confined()
        self._adopt(best)

    def _adopt(self, best: frontier.FetchedBest) -> None:
        say = self._context.dashboard.say
        moved = frontier.adopt(self._context.journal, self._context.workspace, best)
        latest = self._context.session.frontiers[-1]
        if moved:
            say(f"new best on chain: {best.metric} by {best.miner}; continuing from it", "bold")
            if latest.carry:
                say("measuring what this session kept against it first")
        elif latest.own:
            say(f"the on-chain best is now ours: {best.metric}", "green")

    def _note_unreadable(self) -> None:
        """Say once which accounts are left out, and go on."""
        context = self._context
        found = {*context.connection.client.unreadable, *context.follower.unreadable()} - self._unreadable
        for address in sorted(found, key=str):
            context.dashboard.say(f"cannot read the account {address} of the program; going on without it", "yellow")
        self._unreadable |= found

    def _note_statuses(self) -> None:
        context = self._context
        statuses = {proposal.id: proposal.status for proposal in context.follower.proposals()}
        for sent in context.session.submissions:
            status = statuses.get(sent.proposal) if sent.proposal is not None else None
            word = status.name.lower() if status is not None else ""
            if status is not None and word != sent.status:
                if sent.status or status is not ProposalStatus.PENDING:  # pending follows from its submission
                    words = f"proposal {sent.proposal} is {word.replace('_', ' ')}"
                    context.dashboard.say(words, _STYLES.get(status, ""))
                context.journal.append("status", proposal=sent.proposal, status=word)
                context.rejections += status is ProposalStatus.REJECTED
