"""A proposal as a node shows it against what its miner signed: each field altered in turn is refused by name."""

from __future__ import annotations

import base64
from dataclasses import fields, replace
from typing import Any

import pytest
from solders.hash import Hash
from solders.instruction import CompiledInstruction, Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from chain.errors import InvalidData
from chain.money import submission
from chain.network.base import TransactionReceipt
from chain.program import PROGRAM_ID
from chain.program.accounts import Proposal
from chain.program.addresses import Pdas
from chain.program.events import ProposalSubmitted, encode_event
from chain.program.instructions import Submit, instruction_of
from tests.chain import live
from tests.chain.networks import sign

MINER, OTHER = Keypair.from_seed(bytes([7]) * 32), Pubkey(bytes([9] * 32))
PROPOSAL = live.proposal(4, stake=3, reward_recipient=Pubkey(bytes([5] * 32)))
ADDRESS = Pdas(PROGRAM_ID).proposal(4)
SUBMITTED = Submit(**{field.name: getattr(PROPOSAL, field.name) for field in fields(Submit)})
TOLD = ProposalSubmitted(**{field.name: getattr(PROPOSAL, field.name) for field in fields(ProposalSubmitted)})
SIGNED_FIELDS = ["miner", *(field.name for field in fields(Submit))]
TOLD_FIELDS = [field.name for field in fields(ProposalSubmitted) if field.name != "id"]


def other(record: object, name: str) -> dict[str, Any]:
    """Another value of this field's kind."""
    match getattr(record, name):
        case int(number):
            return {name: number + 1}
        case bytes(data):
            return {name: bytes([data[0] ^ 1]) + data[1:]}
    return {name: OTHER}


def step(args: Submit = SUBMITTED, number: int = 4, program: Pubkey = PROGRAM_ID) -> Instruction:
    return instruction_of(program, args, MINER.pubkey(), proposal_id=number, miner=MINER.pubkey())


def receipt(*steps: Instruction, logs: tuple[str, ...] = (), error: str | None = None) -> TransactionReceipt:
    return landed(bytes(sign(MINER, list(steps), Hash.default())), logs, error)


def landed(wire: bytes, logs: tuple[str, ...] = (), error: str | None = None) -> TransactionReceipt:
    return TransactionReceipt(Signature.default(), 1, 1, 5000, 5000, error, None, logs, wire)


def said(event: ProposalSubmitted, program: Pubkey = PROGRAM_ID) -> tuple[str, ...]:
    """The log of a program that emits an event."""
    data = base64.b64encode(encode_event(event)).decode()
    return (f"Program {program} invoke [2]", f"Program data: {data}", f"Program {program} success")


def proved(found: TransactionReceipt, shown: Proposal = PROPOSAL) -> bool:
    return submission.prove(shown, ADDRESS, PROGRAM_ID, found)


def test_what_was_signed_is_proved() -> None:
    assert proved(receipt(step()))
    assert proved(receipt(step(number=3, args=replace(SUBMITTED, stake=9)), step()))  # beside another's submission
    assert proved(receipt(logs=said(TOLD)))  # by another program's call


@pytest.mark.parametrize("name", SIGNED_FIELDS)
def test_a_node_that_alters_a_field_of_the_account_is_refused(name: str) -> None:
    with pytest.raises(InvalidData, match=f"its {name} is not what the miner submitted"):
        proved(receipt(step()), replace(PROPOSAL, **other(PROPOSAL, name)))


@pytest.mark.parametrize("name", [field.name for field in fields(Submit)])
def test_a_transaction_with_another_field_is_refused(name: str) -> None:
    """Signed anew, as a node cannot, and told by an event that agrees with the account, as a node can."""
    with pytest.raises(InvalidData, match=f"its {name} is not what the miner submitted"):
        proved(receipt(step(replace(SUBMITTED, **other(SUBMITTED, name))), logs=said(TOLD)))


@pytest.mark.parametrize("name", TOLD_FIELDS)
def test_an_event_with_another_field_is_refused(name: str) -> None:
    with pytest.raises(InvalidData, match=f"its {name} is not what the miner submitted"):
        proved(receipt(logs=said(replace(TOLD, **other(TOLD, name)))))


def test_every_field_that_the_miner_chose_is_compared() -> None:
    """What is left is the program's own: counters, times and what a review writes."""
    assert {field.name for field in fields(Proposal)} - set(SIGNED_FIELDS) == {
        *("id", "metrics_hash", "metrics_irys_id", "verified_aggregate_score", "submitted_at"),
        *("review_lock_until", "reviewer", "status", "bump", "escrow_bump"),
    }


def wire_with(alter: tuple[int, int]) -> bytes:
    """The signed submission with one byte altered, as a node that cannot sign would."""
    place, by = alter
    raw = bytearray(bytes(sign(MINER, [step()], Hash.default())))
    raw[place] ^= by
    return bytes(raw)


def crafted(program: int, accounts: bytes) -> bytes:
    """Signed by whoever made it, with indices that name nothing."""
    message = MessageV0.try_compile(MINER.pubkey(), [step()], [], Hash.default())
    odd = [CompiledInstruction(program, bytes(step().data), accounts)]
    made = MessageV0(message.header, message.account_keys, message.recent_blockhash, odd, [])
    return bytes(VersionedTransaction(made, [MINER]))


@pytest.mark.parametrize(
    "found",
    [
        receipt(step(), error="it failed"),
        receipt(step(number=5)),
        receipt(step(program=OTHER)),
        receipt(logs=said(TOLD, OTHER)),
        receipt(logs=said(replace(TOLD, id=5))),
        landed(b""),
        landed(b"nonsense"),
        landed(wire_with((1, 1))),  # the signature
        landed(wire_with((-20, 1))),  # what it signs
        landed(crafted(200, bytes(range(9)))),
        landed(crafted(0, b"")),
        landed(crafted(9, bytes([250] * 9))),
    ],
    ids=range(12),
)
def test_what_submits_nothing_here_proves_nothing(found: TransactionReceipt) -> None:
    assert not proved(found)
