"""Submission: from a kept candidate to a proposal on chain, once and only once.

The order makes a crash at any point harmless: the intent with both hashes is in the journal before
anything is uploaded, the signature of each transaction, the stake's purchase included, before it is
sent. `reconcile` runs at the next start: it looks them up on chain, by signature and by hash, and only
what is known never to have landed may be made again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256

from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature

from chain.connection.opening import Connection
from chain.errors import InsufficientFunds
from chain.irys.client import Role
from chain.money import score
from chain.money.client import Client, Landed
from chain.program.accounts import Project, Proposal
from chain.program.events import ProposalSubmitted
from chain.program.instructions import Buy
from miner.journal.journal import Journal
from trainer.machine.hardware import Fingerprint

Say = Callable[[str], None]


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
) -> int:
    """Upload, buy the stake where it lacks, stake and confirm; the proposal's id."""
    client = connection.client
    journal.append("intent", number=offer.trial, code_hash=offer.code_hash.hex(), log_hash=offer.log_hash.hex())
    tags = [("Hardware-Class", machine.hardware_class), ("Data-Snapshot", data_snapshot)]
    say("uploading the code archive and the run's log")
    code = connection.publish(miner, Role.PROPOSAL_CODE, offer.code, "application/x-tar", tags)
    log = connection.publish(miner, Role.BENCHMARK_LOG, offer.log, "text/plain", tags)
    ensure_stake(client, miner, project, offer.stake, journal, say)
    say(f"submitting the proposal with a stake of {offer.stake}")

    def before_send(signature: Signature, last_valid: int) -> None:
        journal.append("sent", signature=str(signature), last_valid=last_valid)

    done = client.submit(
        miner,
        project,
        code=code,
        log=log,
        claimed_score=offer.claimed_score,
        stake=offer.stake,
        reward_recipient=offer.reward_recipient,
        before_send=before_send,
    )
    return _submitted(journal, done, offer.stake)


def _submitted(journal: Journal, done: Landed, stake: int) -> int:
    proposal = int(done.event(ProposalSubmitted).id)
    journal.append("submitted", proposal=proposal, stake=stake, lamports=done.receipt.paid)
    return proposal


def price(project: Project, supply: int, tokens: int) -> int:
    """Lamports for the next `tokens` tokens on the curve: the exact sum of their prices."""
    return tokens * project.base_price + project.slope * (tokens * supply + tokens * (tokens - 1) // 2)


def ensure_stake(client: Client, miner: Keypair, project: Project, stake: int, journal: Journal, say: Say) -> None:
    """Buy what the miner's token account lacks of the stake, at the curve's exact price."""
    _look_up_purchase(client, journal)
    lacking = stake - client.tokens(project, miner.pubkey())
    if lacking <= 0:
        return
    cost = price(project, client.supply(project), lacking)
    held = client.network.balance(miner.pubkey())
    if held < cost:
        raise InsufficientFunds(
            f"The stake of {stake} {project.token_symbol} lacks {lacking}, which cost {cost:,} lamports; "
            f"the wallet {miner.pubkey()} holds {held:,}.",
            "Fund the wallet, or lower --stake.",
        )
    say(f"buying {lacking} {project.token_symbol} for {cost:,} lamports to stake")

    def before_send(signature: Signature, last_valid: int) -> None:
        journal.append("buying", signature=str(signature), last_valid=last_valid)

    done = client.call(Buy(project.id, cost), miner, before_send=before_send)
    journal.append("bought", lamports=done.receipt.paid)


def reconcile(client: Client, miner: Pubkey, project: Project, journal: Journal) -> Proposal | None:
    """Settle what an interrupted session left open; the proposal where it did land.

    By signature first; without one, by the hashes, in case another process sent it. What is known never
    to have landed is recorded as abandoned, so that it may be submitted again.
    """
    _look_up_purchase(client, journal)
    pending = journal.session.pending
    if pending is None:
        return None
    if pending.signature:
        done = client.outcome(Signature.from_string(pending.signature), pending.last_valid)
        if done is not None:
            proposal = client.proposal(done.event(ProposalSubmitted).id)
            _submitted(journal, done, proposal.stake)
            return proposal
    else:
        for proposal in client.proposals(project.id):
            if proposal.miner == miner and proposal.code_hash.hex() == pending.code_hash:
                journal.append("submitted", proposal=proposal.id, stake=proposal.stake)
                return proposal
    journal.append("abandoned")
    return None


def _look_up_purchase(client: Client, journal: Journal) -> None:
    """Find out what became of a purchase that was interrupted: until then, what the miner holds is not known."""
    if journal.session.purchase is not None:
        signature, last_valid = journal.session.purchase
        done = client.outcome(Signature.from_string(signature), last_valid)
        journal.append("bought", lamports=done.receipt.paid if done else 0)
