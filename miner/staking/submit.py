"""Submission: from a kept candidate to a proposal on chain, once and only once.

The order makes a crash at any point harmless: the intent with both hashes is in the journal before
anything is uploaded, the signature of each transaction, the stake's purchase included, before it is
sent. `reconcile` runs at the next start: it looks them up on chain, by signature and by hash, and only
what is known never to have landed may be made again.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256

from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature

from chain.connection.opening import Connection
from chain.errors import InsufficientFunds, InvalidData
from chain.irys.client import Role
from chain.money import score
from chain.money.client import AlreadyDone, Client
from chain.money.trade import PriceMoved
from chain.network.base import sol
from chain.program.accounts import Project, Proposal
from chain.program.events import Bought, ProposalSubmitted
from chain.program.instructions import Buy
from common.terminal import Say, Step, plainly
from miner.journal.journal import Journal
from trainer.machine.hardware import Fingerprint


@dataclass(frozen=True, slots=True)
class Offer:
    """What is to be submitted: the archive, the log of a run, and the claim as an on-chain score."""

    trial: int
    code: bytes
    log: bytes
    claimed_score: int
    stake: int
    reward_recipient: Pubkey

    @property
    def code_hash(self) -> bytes:
        return sha256(self.code).digest()

    @property
    def log_hash(self) -> bytes:
        return sha256(self.log).digest()


def anchored_score(project: Project, convention: score.Convention, delta: float) -> tuple[Decimal, int]:
    """The metric and score to claim: the best on chain, moved by the gain measured on this machine.

    Absolute values differ between machines of a class; the gain is what carries over.
    """
    best = convention.to_metric(project.current_best_aggregate_score)
    gain = Decimal(repr(delta)) if convention.minimize else -Decimal(repr(delta))
    claimed = best - gain
    return claimed, convention.to_score(claimed)


def submit(
    connection: Connection,
    miner: Keypair,
    project: Project,
    offer: Offer,
    journal: Journal,
    *,
    machine: Fingerprint,
    data_snapshot: str,
    say: Say,
    step: Step | None = None,
) -> int:
    """Upload, buy the stake where it lacks, stake and confirm; the proposal's id. `step` shows what takes long."""
    client, showing = connection.client, step or plainly(say)
    journal.append("intent", number=offer.trial, code_hash=offer.code_hash.hex(), log_hash=offer.log_hash.hex())
    tags = [*machine.tags, ("Data-Snapshot", data_snapshot)]
    with showing("uploading the code archive and the run log"):
        code = connection.publish(miner, Role.PROPOSAL_CODE, offer.code, "application/x-tar", tags)
        log = connection.publish(miner, Role.BENCHMARK_LOG, offer.log, "text/plain", tags)
    with showing("checking the stake"):
        ensure_stake(client, miner, project, offer.stake, journal, say)

    def before_send(signature: Signature, last_valid: int) -> None:
        earlier = journal.session.pending
        # An earlier try lost the race for the next id, and may have cost its fee.
        lamports = client.paid(Signature.from_string(earlier.signature)) if earlier and earlier.signature else 0
        if lamports:
            journal.append("spent", lamports=lamports, stake=0)
        journal.append("sent", signature=str(signature), last_valid=last_valid)

    try:
        with showing(f"submitting the proposal with a stake of {offer.stake}"):
            done = client.submit(
                miner,
                project,
                code=code,
                log=log,
                claimed_score=offer.claimed_score,
                stake=offer.stake,
                reward_recipient=offer.reward_recipient,
                before_send=before_send,
                final=True,
            )
    except AlreadyDone as earlier:
        number = earlier.number
    else:
        number = done.event(ProposalSubmitted).id
    return _submitted(client, journal, client.proposal(number))


def _submitted(client: Client, journal: Journal, proposal: Proposal) -> int:
    """Record that a proposal is on chain, with what the transaction cost as far as the node tells."""
    pending = journal.session.pending
    lamports = client.paid(Signature.from_string(pending.signature)) if pending and pending.signature else 0
    journal.append("submitted", proposal=proposal.id, stake=proposal.stake, lamports=lamports)
    return proposal.id


def price(project: Project, supply: int, tokens: int) -> int:
    """Lamports for the next `tokens` tokens on the curve: the exact sum of their prices."""
    return tokens * project.base_price + project.slope * (tokens * supply + tokens * (tokens - 1) // 2)


def quote(client: Client, buyer: Pubkey, project: Project, tokens: int) -> int:
    """Lamports that buy exactly `tokens` now, by the curve and by simulation; PriceMoved where the two disagree.

    Where the wallet cannot pay, the curve's price alone.
    """
    for _ in range(3):
        cost = price(project, client.supply(project), tokens)
        if client.network.balance(buyer) < cost:
            return cost
        events = client.preview([client.instruction(Buy(project.id, cost), buyer)], buyer)
        if [event.tokens_out for event in events if isinstance(event, Bought)] == [tokens]:
            return cost
    raise PriceMoved(
        f"{sol(cost)} should buy {tokens:,} {project.token_symbol} by the curve; in simulation they do not.",
        "Nothing was sent. Try again; if it stays so, use another node with --rpc-url URL.",
    )


def ensure_stake(client: Client, miner: Keypair, project: Project, stake: int, journal: Journal, say: Say) -> None:
    """Buy what the miner's token account lacks of the stake, at the curve's exact price."""
    _look_up_purchase(client, journal)
    lacking = stake - client.tokens(project, miner.pubkey())
    if lacking <= 0:
        return
    cost = quote(client, miner.pubkey(), project, lacking)
    held = client.network.balance(miner.pubkey())
    if held < cost:
        raise InsufficientFunds(
            f"You need {lacking} more {project.token_symbol} to stake. They cost {sol(cost)}; the wallet "
            f"{miner.pubkey()} has {sol(held)}.",
            "Fund the wallet, or lower --stake.",
        )
    say(f"buying {lacking} {project.token_symbol} for {sol(cost)} to stake")

    def before_send(signature: Signature, last_valid: int) -> None:
        journal.append("buying", signature=str(signature), last_valid=last_valid)

    done = client.call(Buy(project.id, cost), miner, before_send=before_send, final=True)
    journal.append("bought", lamports=done.receipt.paid)


def reconcile(client: Client, miner: Pubkey, project: Project, journal: Journal) -> Proposal | None:
    """Settle what an interrupted session left open; the proposal where it did land.

    The state is asked first, by miner and code: a node may have forgotten the signature, and another process may have
    sent it. Then the signature, until the transaction has landed or never can; and then the state once more. Only
    what is still not there is recorded as abandoned, so that it may be submitted again.
    """
    _look_up_purchase(client, journal)
    pending = journal.session.pending
    if pending is None:
        return None
    found = _on_chain(client, miner, project, journal)
    if found is None and pending.signature:
        done = client.outcome(Signature.from_string(pending.signature), pending.last_valid)
        found = _on_chain(client, miner, project, journal)
        if done is not None and found is None:
            raise InvalidData(
                f"The transaction {pending.signature} has landed, and the node does not show the proposal it made.",
                "Run the command again, if need be with another node (--rpc-url URL); nothing is staked until then.",
            )
    if found is not None:
        _submitted(client, journal, found)
        return found
    lamports = client.paid(Signature.from_string(pending.signature)) if pending.signature else 0
    journal.append("abandoned", lamports=lamports)
    return None


def _on_chain(client: Client, miner: Pubkey, project: Project, journal: Journal) -> Proposal | None:
    """The proposal of the code that is pending, other than those that the journal knows already."""
    session = journal.session
    assert session.pending is not None
    known = {submission.proposal for submission in session.submissions}
    code = bytes.fromhex(session.pending.code_hash)
    return next((p for p in reversed(client.proposals_of(miner, project.id, code)) if p.id not in known), None)


def _look_up_purchase(client: Client, journal: Journal) -> None:
    """Find out the outcome of an interrupted purchase: until then, the miner's holdings are unknown."""
    if journal.session.purchase is not None:
        text, last_valid = journal.session.purchase
        signature = Signature.from_string(text)
        client.outcome(signature, last_valid)
        journal.append("bought", lamports=client.paid(signature))
