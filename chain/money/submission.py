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


def prove(proposal: Proposal, address: Pubkey, program_id: Pubkey, receipt: TransactionReceipt) -> None:
    """InvalidData unless this transaction submitted `proposal`, at `address`, as the node shows it.

    A transaction in which another program passed the submission on does not show it under a signature; there the
    program's own event must agree.
    """
    found = list(_signed(receipt, address, program_id)) or [
        event
        for event in parse_events(receipt.logs, program_id)
        if isinstance(event, ProposalSubmitted) and event.id == proposal.id
    ]
    if not found:
        raise _lie(proposal, f"the transaction {receipt.signature}, its first, did not submit it")
    for name in (field.name for field in fields(found[0])):  # type: ignore[arg-type]
        if getattr(found[0], name) != getattr(proposal, name):
            raise _lie(proposal, f"its {name} is not what the miner submitted")


def _signed(receipt: TransactionReceipt, address: Pubkey, program_id: Pubkey) -> Iterator[object]:
    """The submissions of this account that the transaction holds in its own signed bytes."""
    try:
        transaction = VersionedTransaction.from_bytes(receipt.transaction)
    except ValueError:
        return
    message = transaction.message
    keys = message.account_keys
    if not all(transaction.verify_with_results()):
        return
    for step in message.instructions:
        named = [keys[index] if index < len(keys) else None for index in step.accounts]
        if keys[step.program_id_index] != program_id or not bytes(step.data).startswith(_KIND.discriminator):
            continue
        if named[_KIND.index("proposal")] == address:
            yield codec.decode(Submit, bytes(step.data), 8)[0]


def _lie(proposal: Proposal, what: str) -> InvalidData:
    return InvalidData(
        f"The node shows proposal {proposal.id} otherwise than its history: {what}.",
        "Do not rely on this node: use another one with --rpc-url URL.",
    )
