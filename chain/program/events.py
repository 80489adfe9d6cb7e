"""The program's events, declared once, and how they are read out of a transaction's log.

The program logs the first eight bytes of SHA-256 over "event:Bought" and the Borsh fields; a node shows them as
"Program data: " and base64.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from solders.pubkey import Pubkey

from chain.errors import InvalidData
from chain.program import PROGRAM_ID, codec
from chain.program.codec import I64, U64, Hash, discriminator


@dataclass(frozen=True, slots=True)
class BestUpdated:
    """A project has a new best."""

    project_id: U64
    miner: Pubkey
    new_aggregate_score: I64
    code_hash: Hash
    code_irys_id: Hash
    metrics_hash: Hash
    metrics_irys_id: Hash


@dataclass(frozen=True, slots=True)
class Bought:
    """Tokens were bought from the curve."""

    project_id: U64
    buyer: Pubkey
    lamports_spent: U64
    tokens_out: U64


@dataclass(frozen=True, slots=True)
class LedgerBurned:
    """Tokens were burned out of a slashed stake."""

    project_id: U64
    amount: U64


@dataclass(frozen=True, slots=True)
class MinerRewardMinted:
    """Tokens were minted for an approved proposal."""

    project_id: U64
    miner: Pubkey
    amount: U64


@dataclass(frozen=True, slots=True)
class OwnershipTransferred:
    """The program's authority changed; the zero key when it was renounced."""

    previous_owner: Pubkey
    new_owner: Pubkey


@dataclass(frozen=True, slots=True)
class ProjectCreated:
    """A project was created."""

    project_id: U64
    creator: Pubkey
    mint: Pubkey
    protocol_hash: Hash
    protocol_irys_id: Hash


@dataclass(frozen=True, slots=True)
class ProposalApproved:
    """A proposal was approved."""

    id: U64
    verifier: Pubkey
    verified_aggregate_score: I64
    metrics_hash: Hash
    metrics_irys_id: Hash


@dataclass(frozen=True, slots=True)
class ProposalExpired:
    """A proposal expired unsettled."""

    id: U64
    cranker: Pubkey


@dataclass(frozen=True, slots=True)
class ProposalRejected:
    """A proposal was rejected."""

    id: U64
    verifier: Pubkey
    metrics_hash: Hash
    metrics_irys_id: Hash


@dataclass(frozen=True, slots=True)
class ProposalSubmitted:
    """A proposal was submitted."""

    id: U64
    project_id: U64
    miner: Pubkey
    reward_recipient: Pubkey
    code_hash: Hash
    code_irys_id: Hash
    claimed_aggregate_score: I64
    stake: U64


@dataclass(frozen=True, slots=True)
class ReviewClaimed:
    """A verifier locked a proposal for review."""

    id: U64
    verifier: Pubkey
    review_lock_until: I64


@dataclass(frozen=True, slots=True)
class ReviewReleased:
    """A proposal is pending again."""

    id: U64


@dataclass(frozen=True, slots=True)
class RewardClaimed:
    """Claimable tokens were taken out of the pool."""

    project_id: U64
    account: Pubkey
    amount: U64


@dataclass(frozen=True, slots=True)
class Sold:
    """Tokens were sold back to the curve."""

    project_id: U64
    seller: Pubkey
    tokens_in: U64
    lamports_out: U64


@dataclass(frozen=True, slots=True)
class StakeSlashed:
    """A stake was split between the burn and a beneficiary's claim."""

    id: U64
    beneficiary: Pubkey
    to_verifier_pool: U64
    burned: U64


@dataclass(frozen=True, slots=True)
class VerifierAdded:
    """A verifier joined the allowlist."""

    verifier: Pubkey


@dataclass(frozen=True, slots=True)
class VerifierRemoved:
    """A verifier left the allowlist."""

    verifier: Pubkey


Event = (
    BestUpdated
    | Bought
    | LedgerBurned
    | MinerRewardMinted
    | OwnershipTransferred
    | ProjectCreated
    | ProposalApproved
    | ProposalExpired
    | ProposalRejected
    | ProposalSubmitted
    | ReviewClaimed
    | ReviewReleased
    | RewardClaimed
    | Sold
    | StakeSlashed
    | VerifierAdded
    | VerifierRemoved
)
EVENTS: tuple[type, ...] = Event.__args__

_EVENT_KINDS: Mapping[bytes, type] = {discriminator("event", kind.__name__): kind for kind in EVENTS}
_INVOKED = re.compile(r"Program (\w+) invoke \[\d+\]")
_RETURNED = re.compile(r"Program (\w+) (?:success|failed)")
_DATA = "Program data: "


def parse_events(logs: Sequence[str], program_id: Pubkey = PROGRAM_ID) -> list[Event]:
    """The events that `program_id` itself emitted, in order.

    What other programs of the transaction log is ignored, whatever it looks like, and so are kinds of
    events this client does not know; one that it knows but cannot read is InvalidData.
    """
    events: list[Event] = []
    for found in scan_events(logs, program_id):
        if isinstance(found, InvalidData):
            raise found
        events.append(found)
    return events


def scan_events(logs: Sequence[str], program_id: Pubkey = PROGRAM_ID) -> list[Event | InvalidData]:
    """As `parse_events`, with the error itself in the place of an event that cannot be read."""
    found: list[Event | InvalidData] = []
    for text in _own_data(logs, str(program_id)):
        try:
            event = decode_event(_base64(text))
        except InvalidData as error:
            found.append(error)
        else:
            found += [] if event is None else [event]
    return found


def _own_data(logs: Sequence[str], program: str) -> Iterator[str]:
    running: list[str] = []
    for line in logs:
        if match := _INVOKED.fullmatch(line):
            running.append(match[1])
        elif _RETURNED.match(line) and running:
            running.pop()
        elif line.startswith(_DATA) and running and running[-1] == program:
            yield line[len(_DATA) :]


def _base64(text: str) -> bytes:
    try:
        return b"".join(base64.b64decode(part, validate=True) for part in text.split(" "))
    except ValueError:  # among them what is no ASCII
        raise InvalidData(f"The program's log holds no base64: {text[:120]!r}.") from None


def encode_event(event: Event) -> bytes:
    """An event's bytes as the program logs them."""
    return discriminator("event", type(event).__name__) + codec.encode(event)


def decode_event(data: bytes) -> Event | None:
    """An event from its bytes; None for a kind this client does not know, InvalidData if it is malformed."""
    kind = _EVENT_KINDS.get(data[:8])
    if kind is None:
        return None
    event: Event
    event, end = codec.decode(kind, data, 8)
    if end != len(data):
        raise InvalidData(f"A {kind.__name__} event has {len(data)} bytes, expected {end}.")
    return event
