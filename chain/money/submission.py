"""What a proposal's miner submitted, by its own signature, against what a node says of the proposal.

The account of a proposal is a node's word. The transaction that made it is the miner's: its signature covers hashes,
Irys ids, claim, stake and reward recipient. Where they differ, a verdict on the account's word would slash an honest
stake, or approve what nobody submitted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from chain.errors import InvalidData
from chain.network.base import TransactionReceipt
from chain.program import codec
from chain.program.accounts import Proposal
from chain.program.events import ProposalSubmitted, parse_events
from chain.program.instructions import INSTRUCTIONS, Submit

_KIND = INSTRUCTIONS[Submit]


def prove(proposal: Proposal, address: Pubkey, program_id: Pubkey, receipt: TransactionReceipt) -> bool:
    """Whether this transaction submitted `proposal`, at `address`; InvalidData if it submitted another than is shown.

    A transaction in which another program passed the submission on does not show it under a signature; there the
    program's own event must agree. A failed transaction submitted nothing.
    """
    if receipt.error is not None:
        return False
    found = next(_signed(receipt, address, program_id), None) or next(_told(receipt, proposal.id, program_id), None)
    for name, value in (found or {}).items():
        if value != getattr(proposal, name):
            raise lie(proposal, f"its {name} is not what the miner submitted")
    return found is not None


def _signed(receipt: TransactionReceipt, address: Pubkey, program_id: Pubkey) -> Iterator[dict[str, object]]:
    """The fields of this account's submission that the transaction holds in its own signed bytes."""
    try:
        transaction = VersionedTransaction.from_bytes(receipt.transaction)
    except ValueError:
        return
    if not all(transaction.verify_with_results()):
        return
    keys = dict(enumerate(transaction.message.account_keys))
    for step in transaction.message.instructions:
        named = dict(enumerate(map(keys.get, step.accounts)))
        if keys.get(step.program_id_index) != program_id or not bytes(step.data).startswith(_KIND.discriminator):
            continue
        if named.get(_KIND.index("proposal")) == address:
            yield _fields(codec.decode(Submit, bytes(step.data), 8)[0]) | {"miner": named.get(_KIND.index("miner"))}


def _told(receipt: TransactionReceipt, number: int, program_id: Pubkey) -> Iterator[dict[str, object]]:
    """The fields of this submission that the program's own event names."""
    for event in parse_events(receipt.logs, program_id):
        if isinstance(event, ProposalSubmitted) and event.id == number:
            yield _fields(event)


def _fields(record: Submit | ProposalSubmitted) -> dict[str, object]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def lie(proposal: Proposal, what: str) -> InvalidData:
    """What to raise where a node contradicts itself about a proposal."""
    return InvalidData(
        f"The node shows proposal {proposal.id} otherwise than its history: {what}.",
        "Do not rely on this node: use another one with --rpc-url URL.",
    )
