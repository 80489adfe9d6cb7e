"""The OpenResearch program's interface, declared once: accounts, instructions, events, errors, addresses.

The layout is the deployed program's (Anchor IDL spec 0.1.0, program 0.1.0); field order and account order
are the wire format. What follows from the declarations is derived here: a discriminator is the first eight
bytes of SHA-256 over "global:submit", "account:Project" or "event:Bought", then come the Borsh fields;
an account list comes from `INSTRUCTIONS`, its addresses from `_SEEDS`. All ids and amounts are u64, times
are seconds since 1970, prices lamports, tokens whole (0 decimals), scores i64 at scale 1,000,000.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import TypeVar

from solders import system_program
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from chain.errors import InvalidData, TransactionFailed
from chain.program import PROGRAM_ID, codec
from chain.program.codec import I64, U8, U64, Hash

SYSTEM_PROGRAM = system_program.ID
TOKEN_PROGRAM = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
ASSOCIATED_TOKEN_PROGRAM = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
METADATA_PROGRAM = Pubkey.from_string("metaqbxxUerdq28cj1RbAWkYQm3ybzjb6a8bt518x1s")
RENT_SYSVAR = Pubkey.from_string("SysvarRent111111111111111111111111111111111")
ZERO_KEY = Pubkey.default()

REVIEW_LOCK_SECONDS = 86_400
EXPIRY_WINDOW_SECONDS = 604_800
SLASH_BURN_BPS = 5_000  # of 10,000, rounded up to a whole token; the rest becomes claimable
MAX_TOKEN_NAME = 32  # bytes; Metaplex' own limits
MAX_TOKEN_SYMBOL = 10

# --- accounts ---


@dataclass(frozen=True, slots=True)
class GlobalConfig:
    """The program's one global account; `authority` is the zero key after renounce_authority."""

    authority: Pubkey
    next_project_id: U64
    next_proposal_id: U64
    verifier_count: U64
    bump: U8


@dataclass(frozen=True, slots=True)
class VerifierEntry:
    """A verifier's place on the allowlist: that the account exists is the permission."""

    verifier: Pubkey
    added_at: I64
    bump: U8


@dataclass(frozen=True, slots=True)
class Project:
    """A research project: its artifacts by SHA-256 and Irys id, its best code so far, its token's curve."""

    id: U64
    creator: Pubkey
    created_at: I64
    protocol_hash: Hash
    protocol_irys_id: Hash
    repo_snapshot_hash: Hash
    repo_snapshot_irys_id: Hash
    benchmark_hash: Hash
    benchmark_irys_id: Hash
    baseline_aggregate_score: I64
    baseline_metrics_hash: Hash
    baseline_metrics_irys_id: Hash
    current_best_code_hash: Hash
    current_best_code_irys_id: Hash
    current_best_aggregate_score: I64
    current_best_metrics_hash: Hash
    current_best_metrics_irys_id: Hash
    current_best_miner: Pubkey
    mint: Pubkey
    base_price: U64
    slope: U64
    miner_pool_cap: U64
    miner_pool_minted: U64
    token_name: str
    token_symbol: str
    bump: U8
    mint_authority_bump: U8
    sol_vault_bump: U8
    project_pool_bump: U8


class ProposalStatus(IntEnum):
    """Where a proposal stands; the last three are final."""

    PENDING = 0
    IN_REVIEW = 1
    APPROVED = 2
    REJECTED = 3
    EXPIRED = 4


@dataclass(frozen=True, slots=True)
class Proposal:
    """A miner's staked claim. `reviewer` and `review_lock_until` mean something only while in review."""

    id: U64
    project_id: U64
    miner: Pubkey
    reward_recipient: Pubkey
    code_hash: Hash
    code_irys_id: Hash
    benchmark_log_hash: Hash
    benchmark_log_irys_id: Hash
    metrics_hash: Hash
    metrics_irys_id: Hash
    claimed_aggregate_score: I64
    verified_aggregate_score: I64
    stake: U64
    submitted_at: I64
    review_lock_until: I64
    reviewer: Pubkey
    status: ProposalStatus
    bump: U8
    escrow_bump: U8


@dataclass(frozen=True, slots=True)
class Claimable:
    """Tokens of slashed stakes that `account` may take out of the project's pool."""

    project_id: U64
    account: Pubkey
    amount: U64
    bump: U8


@dataclass(frozen=True, slots=True)
class SolVault:
    """The lamports behind a project's curve, held by this account beyond its own rent."""

    project_id: U64
    bump: U8


ACCOUNTS: tuple[type, ...] = (GlobalConfig, VerifierEntry, Project, Proposal, Claimable, SolVault)

# --- instruction arguments ---


@dataclass(frozen=True, slots=True)
class NoArgs:
    """An instruction without arguments."""


@dataclass(frozen=True, slots=True)
class VerifierArgs:
    """Of add_verifier and remove_verifier."""

    verifier: Pubkey


@dataclass(frozen=True, slots=True)
class TransferAuthorityArgs:
    """Of transfer_authority."""

    new_authority: Pubkey


@dataclass(frozen=True, slots=True)
class CreateProjectArgs:
    """Of create_project. `base_price` and `slope` in lamports, one of them above 0; the cap in tokens."""

    protocol_hash: Hash
    protocol_irys_id: Hash
    repo_snapshot_hash: Hash
    repo_snapshot_irys_id: Hash
    benchmark_hash: Hash
    benchmark_irys_id: Hash
    baseline_aggregate_score: I64
    baseline_metrics_hash: Hash
    baseline_metrics_irys_id: Hash
    token_name: str
    token_symbol: str
    base_price: U64
    slope: U64
    miner_pool_cap: U64


@dataclass(frozen=True, slots=True)
class BuyArgs:
    """Of buy: the most lamports to spend."""

    project_id: U64
    lamports_in: U64


@dataclass(frozen=True, slots=True)
class SellArgs:
    """Of sell: tokens."""

    project_id: U64
    amount: U64


@dataclass(frozen=True, slots=True)
class SubmitArgs:
    """Of submit; the stake in tokens."""

    project_id: U64
    code_hash: Hash
    code_irys_id: Hash
    benchmark_log_hash: Hash
    benchmark_log_irys_id: Hash
    claimed_aggregate_score: I64
    stake: U64
    reward_recipient: Pubkey


@dataclass(frozen=True, slots=True)
class ProposalArgs:
    """Of claim_review, release_review and expire."""

    proposal_id: U64


@dataclass(frozen=True, slots=True)
class ApproveArgs:
    """Of approve."""

    proposal_id: U64
    verified_aggregate_score: I64
    metrics_hash: Hash
    metrics_irys_id: Hash


@dataclass(frozen=True, slots=True)
class RejectArgs:
    """Of reject."""

    proposal_id: U64
    metrics_hash: Hash
    metrics_irys_id: Hash


@dataclass(frozen=True, slots=True)
class ProjectArgs:
    """Of claim_reward."""

    project_id: U64


# --- events ---


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

# --- errors ---


class ProgramError(TransactionFailed):
    """The program refused; `code` is its custom error code, `logs` what it logged."""

    code: int = 0
    text: str = ""
    advice: str = ""

    def __init__(self, code: int, message: str, cure: str = "", logs: tuple[str, ...] = ()) -> None:
        name = "" if type(self) is ProgramError else f"{type(self).__name__}, "
        super().__init__(f"The program refused it: {message.rstrip('.')} ({name}error {code}).", cure, logs)
        self.code = code
        self.text = message


def _error(code: int, name: str, message: str, advice: str = "") -> type[ProgramError]:
    body = {"code": code, "text": message, "advice": advice, "__doc__": message, "__module__": __name__}
    return type(name, (ProgramError,), body)


_CHECK_KEY = "Use the keypair of the program's authority."
_LOOK = "Look at it with `chain proposal show`."
Unauthorized = _error(6000, "Unauthorized", "The signer is not the authority", _CHECK_KEY)
AlreadyRegistered = _error(6001, "AlreadyRegistered", "The verifier is already registered")
NotRegistered = _error(6002, "NotRegistered", "The verifier is not registered")
NotVerifier = _error(
    6003, "NotVerifier", "The signer is not a registered verifier", "The authority runs `chain verifier add`."
)
ZeroAddress = _error(6004, "ZeroAddress", "The zero address is not allowed", "Name another address.")
UnknownProject = _error(6005, "UnknownProject", "There is no such project", "See `chain project list`.")
UnknownProposal = _error(6006, "UnknownProposal", "There is no such proposal", "See `chain proposal list`.")
WrongStatus = _error(6007, "WrongStatus", "The proposal's status does not allow this", _LOOK)
WrongReviewer = _error(6008, "WrongReviewer", "Another verifier claimed this review", _LOOK)
LockActive = _error(6009, "LockActive", "The review lock is still active", "Try again once it has lapsed.")
LockExpired = _error(6010, "LockExpired", "The review lock has expired", "Release the review, then claim it again.")
ExpiryNotReached = _error(6011, "ExpiryNotReached", "The proposal has not reached its expiry", _LOOK)
ScoreNotImproved = _error(
    6012, "ScoreNotImproved", "The score does not improve on the current best", "See `chain project show`."
)
ZeroStake = _error(6013, "ZeroStake", "The stake must be greater than zero", "Give a stake of 1 or more.")
ZeroAmount = _error(6014, "ZeroAmount", "The amount must be greater than zero", "Give an amount of 1 or more.")
InsufficientPayment = _error(
    6015, "InsufficientPayment", "The payment does not cover the price", "See the price in `chain project show`."
)
OverSupply = _error(6016, "OverSupply", "The amount exceeds the token's supply", "Name a smaller amount.")
PoolCapExceeded = _error(6017, "PoolCapExceeded", "The reward would exceed the miner pool's cap")
NothingToClaim = _error(6018, "NothingToClaim", "There is nothing to claim")
SolTransferFailed = _error(6019, "SolTransferFailed", "The transfer of lamports failed")
MathOverflow = _error(6020, "MathOverflow", "Arithmetic overflow", "Name a smaller amount.")
InvalidCurve = _error(
    6021, "InvalidCurve", "The curve is invalid: base_price + slope must be above zero", "Give one of them above 0."
)
StringTooLong = _error(
    6022,
    "StringTooLong",
    "The string is too long",
    f"A token's name has at most {MAX_TOKEN_NAME} bytes, its symbol {MAX_TOKEN_SYMBOL}.",
)
ERRORS: Mapping[int, type[ProgramError]] = {kind.code: kind for kind in ProgramError.__subclasses__()}

_ERROR_MESSAGE = re.compile(r"AnchorError .*Error Number: (\d+)\. Error Message: (.*?)\.*$")


def error_for(code: int, logs: Sequence[str] = ()) -> ProgramError:
    """The exception of a custom error code, with the message the program itself logged where there is one.

    A code outside the program's own range gives a plain ProgramError.
    """
    found = [match[2] for line in logs if (match := _ERROR_MESSAGE.search(line)) and int(match[1]) == code]
    kind = ERRORS.get(code, ProgramError)
    message = found[-1][:200] if found else kind.text or "an error this client does not know"
    return kind(code, message, kind.advice, tuple(logs))


# --- addresses ---

# Seeds in words: text as it stands, then project or proposal (u64 little-endian) or key (32 bytes).
_SEEDS: Mapping[str, tuple[bytes, ...]] = {
    "config": (b"config",),
    "verifier_entry": (b"verifier", b"key"),
    "project": (b"project", b"id"),
    "mint": (b"mint", b"id"),
    "mint_authority": (b"mint_authority", b"id"),
    "sol_vault": (b"sol_vault", b"id"),
    "project_pool": (b"pool", b"id"),
    "proposal": (b"proposal", b"id"),
    "proposal_escrow": (b"proposal_escrow", b"id"),
    "claimable": (b"claim", b"id", b"key"),
}


@dataclass(frozen=True, slots=True)
class Pdas:
    """The addresses that a program derives; each method gives one, see `_SEEDS`."""

    program_id: Pubkey

    def config(self) -> Pubkey:
        """The GlobalConfig."""
        return self.find("config")

    def verifier_entry(self, verifier: Pubkey) -> Pubkey:
        """A verifier's VerifierEntry."""
        return self.find("verifier_entry", key=verifier)

    def project(self, project_id: int) -> Pubkey:
        """A Project."""
        return self.find("project", project_id)

    def mint(self, project_id: int) -> Pubkey:
        """The project's token."""
        return self.find("mint", project_id)

    def mint_authority(self, project_id: int) -> Pubkey:
        """The key that signs for mint, escrows and pool; it has no account."""
        return self.find("mint_authority", project_id)

    def sol_vault(self, project_id: int) -> Pubkey:
        """The SolVault."""
        return self.find("sol_vault", project_id)

    def project_pool(self, project_id: int) -> Pubkey:
        """The token account that holds what is claimable."""
        return self.find("project_pool", project_id)

    def proposal(self, proposal_id: int) -> Pubkey:
        """A Proposal."""
        return self.find("proposal", proposal_id)

    def proposal_escrow(self, proposal_id: int) -> Pubkey:
        """The token account that holds the proposal's stake."""
        return self.find("proposal_escrow", proposal_id)

    def claimable(self, project_id: int, account: Pubkey) -> Pubkey:
        """A Claimable."""
        return self.find("claimable", project_id, account)

    def find(self, name: str, number: int = 0, key: Pubkey = ZERO_KEY) -> Pubkey:
        """The address called `name` in the account lists; `number` is the project's or the proposal's id."""
        values = {b"id": codec.encode(ProjectArgs(number)), b"key": bytes(key)}
        seeds = [values.get(seed, seed) for seed in _SEEDS[name]]
        return Pubkey.find_program_address(seeds, self.program_id)[0]


def token_metadata(mint: Pubkey) -> Pubkey:
    """The address of a mint's Metaplex metadata."""
    seeds = [b"metadata", bytes(METADATA_PROGRAM), bytes(mint)]
    return Pubkey.find_program_address(seeds, METADATA_PROGRAM)[0]


def associated_token_account(owner: Pubkey, mint: Pubkey) -> Pubkey:
    """The address of the owner's associated token account."""
    seeds = [bytes(owner), bytes(TOKEN_PROGRAM), bytes(mint)]
    return Pubkey.find_program_address(seeds, ASSOCIATED_TOKEN_PROGRAM)[0]


# --- reading ---

_Record = TypeVar("_Record")


def discriminator(namespace: str, name: str) -> bytes:
    """Anchor's eight bytes for "global" (instructions), "account" or "event" and a name."""
    return sha256(f"{namespace}:{name}".encode()).digest()[:8]


def discriminator_of(kind: type) -> bytes:
    """The eight bytes that an account or event of this kind starts with."""
    return discriminator("account" if kind in ACCOUNTS else "event", kind.__name__)


def offset_of(kind: type, field: str) -> int:
    """Where a field starts in an account's data, for a memcmp filter; ValueError where that varies."""
    return 8 + codec.offset(kind, field)


def space_of(kind: type) -> int:
    """Bytes of an account's data. A Project has room for the longest name and symbol."""
    room = MAX_TOKEN_NAME + MAX_TOKEN_SYMBOL if kind is Project else 0
    return 8 + codec.max_size(kind, 0) + room


def encode_account(record: object) -> bytes:
    """An account's data, without the zeros that may follow."""
    return discriminator_of(type(record)) + codec.encode(record)


def decode_account(kind: type[_Record], data: bytes) -> _Record:
    """An account of a kind; InvalidData where it is of another kind or malformed.

    Bytes after the content are ignored, as by Anchor. Who owns the account is for the caller to check.
    """
    if data[:8] != discriminator_of(kind):
        raise InvalidData(
            f"The account is not a {kind.__name__}: it starts with {data[:8].hex() or 'nothing'}.",
            "Check the address and --network.",
        )
    return codec.decode(kind, data, 8)[0]


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
    return discriminator_of(type(event)) + codec.encode(event)


def decode_event(data: bytes) -> Event | None:
    """An event from its bytes; None for a kind this client does not know, InvalidData where it is malformed."""
    kind = _EVENT_KINDS.get(data[:8])
    if kind is None:
        return None
    event: Event
    event, end = codec.decode(kind, data, 8)
    if end != len(data):
        raise InvalidData(f"A {kind.__name__} event has {len(data)} bytes, expected {end}.")
    return event


@dataclass(frozen=True, slots=True)
class Mint:
    """An SPL Token mint; the authorities are None where there is none."""

    mint_authority: Pubkey | None
    supply: int
    decimals: int
    freeze_authority: Pubkey | None


@dataclass(frozen=True, slots=True)
class TokenAccount:
    """An SPL Token account, as far as this client needs it."""

    mint: Pubkey
    owner: Pubkey
    amount: int
    frozen: bool


MINT_SPACE = 82
TOKEN_ACCOUNT_SPACE = 165
_MINT = struct.Struct("<I32sQBBI32s")  # option, authority, supply, decimals, initialized, option, freeze
_TOKEN_ACCOUNT = struct.Struct("<32s32sQI32sB")  # mint, owner, amount, option, delegate, state


def decode_mint(data: bytes) -> Mint:
    """A mint account's data (82 bytes); InvalidData where it is none."""
    if len(data) != MINT_SPACE:
        raise InvalidData(f"A mint has {MINT_SPACE} bytes, this account {len(data)}.")
    has_authority, authority, supply, decimals, initialized, has_freeze, freeze = _MINT.unpack(data)
    if initialized != 1 or has_authority > 1 or has_freeze > 1:
        raise InvalidData("The account is not an initialized mint.")
    return Mint(
        Pubkey.from_bytes(authority) if has_authority else None,
        supply,
        decimals,
        Pubkey.from_bytes(freeze) if has_freeze else None,
    )


def decode_token_account(data: bytes) -> TokenAccount:
    """A token account's data (165 bytes); InvalidData where it is none."""
    if len(data) != TOKEN_ACCOUNT_SPACE:
        raise InvalidData(f"A token account has {TOKEN_ACCOUNT_SPACE} bytes, this account {len(data)}.")
    mint, owner, amount, _, _, state = _TOKEN_ACCOUNT.unpack_from(data)
    if state not in (1, 2):
        raise InvalidData(f"The account is not an initialized token account: its state is {state}.")
    return TokenAccount(Pubkey.from_bytes(mint), Pubkey.from_bytes(owner), amount, state == 2)


# --- instructions ---


@dataclass(frozen=True, slots=True)
class Slot:
    """One place in an instruction's account list."""

    name: str
    writable: bool
    signer: bool


@dataclass(frozen=True, slots=True)
class InstructionKind:
    """An instruction's arguments and its accounts, in wire order."""

    name: str
    args: type
    accounts: tuple[Slot, ...]

    @property
    def discriminator(self) -> bytes:
        """The eight bytes its data starts with."""
        return discriminator("global", self.name)

    def index(self, account: str) -> int:
        """Where an account stands in the list; ValueError where it does not."""
        return [slot.name for slot in self.accounts].index(account)


def _declare(name: str, args: type, accounts: str) -> InstructionKind:
    """`accounts`: names separated by commas, each with w (writable), s (signer) or ws after it."""
    parts = [(*part.split(), "")[:2] for part in accounts.split(",")]
    return InstructionKind(name, args, tuple(Slot(word, "w" in flags, "s" in flags) for word, flags in parts))


INSTRUCTIONS: Mapping[str, InstructionKind] = {
    kind.name: kind
    for kind in (
        _declare("initialize", NoArgs, "authority ws, config w, system_program"),
        _declare("add_verifier", VerifierArgs, "authority ws, config w, verifier_entry w, system_program"),
        _declare("remove_verifier", VerifierArgs, "authority ws, config w, verifier_entry w"),
        _declare("transfer_authority", TransferAuthorityArgs, "authority s, config w"),
        _declare("renounce_authority", NoArgs, "authority s, config w"),
        _declare(
            "create_project",
            CreateProjectArgs,
            "creator ws, config w, project w, mint w, mint_authority, sol_vault w, project_pool w, "
            "token_metadata w, token_program, associated_token_program, metadata_program, system_program, rent",
        ),
        _declare(
            "buy",
            BuyArgs,
            "buyer ws, project, mint w, mint_authority, sol_vault w, buyer_token_account w, token_program, "
            "associated_token_program, system_program",
        ),
        _declare("sell", SellArgs, "seller ws, project, mint w, sol_vault w, seller_token_account w, token_program"),
        _declare(
            "submit",
            SubmitArgs,
            "miner ws, config w, project, mint, mint_authority, proposal w, proposal_escrow w, "
            "miner_token_account w, token_program, system_program, rent",
        ),
        _declare("claim_review", ProposalArgs, "verifier s, verifier_entry, proposal w"),
        _declare("release_review", ProposalArgs, "cranker s, proposal w"),
        _declare(
            "approve",
            ApproveArgs,
            "verifier ws, verifier_entry, proposal w, project w, mint w, mint_authority, proposal_escrow w, "
            "miner_token_account w, reward_recipient_token_account w, token_program",
        ),
        _declare(
            "reject",
            RejectArgs,
            "verifier ws, verifier_entry, proposal w, project, mint w, mint_authority, proposal_escrow w, "
            "project_pool w, claimable w, token_program, system_program",
        ),
        _declare(
            "expire",
            ProposalArgs,
            "cranker ws, proposal w, project, mint w, mint_authority, proposal_escrow w, project_pool w, "
            "claimable w, token_program, system_program",
        ),
        _declare(
            "claim_reward",
            ProjectArgs,
            "claimer ws, project, mint, mint_authority, project_pool w, claimable w, claimer_token_account w, "
            "token_program",
        ),
    )
}

_FIXED: Mapping[str, Pubkey] = {
    "token_program": TOKEN_PROGRAM,
    "associated_token_program": ASSOCIATED_TOKEN_PROGRAM,
    "metadata_program": METADATA_PROGRAM,
    "system_program": SYSTEM_PROGRAM,
    "rent": RENT_SYSVAR,
}
_TOKEN_ACCOUNT_OF = re.compile(r"(\w+)_token_account")


def build(
    program_id: Pubkey,
    name: str,
    args: object,
    *,
    project_id: int = 0,
    proposal_id: int = 0,
    **keys: Pubkey | None,
) -> Instruction:
    """The instruction `name` with its accounts in order.

    `keys` are people ("miner", "verifier", ...) and any account that is not to be derived (None: derive it).
    The claimable is that of the first account, the signer. InvalidData where an argument does not fit.
    """
    kind = INSTRUCTIONS[name]
    if type(args) is not kind.args:
        raise TypeError(f"{name} takes {kind.args.__name__}, not {type(args).__name__}")
    given = {word: key for word, key in keys.items() if key is not None}
    pdas = Pdas(program_id)

    def address(word: str) -> Pubkey:
        if word in given:
            return given[word]
        if word in _FIXED:
            return _FIXED[word]
        if word == "token_metadata":
            return token_metadata(address("mint"))
        if match := _TOKEN_ACCOUNT_OF.fullmatch(word):
            return associated_token_account(given[match[1]], address("mint"))
        number = proposal_id if word in ("proposal", "proposal_escrow") else project_id
        person = given["verifier"] if word == "verifier_entry" else given[kind.accounts[0].name]
        return pdas.find(word, number, person)

    metas = [AccountMeta(address(slot.name), slot.signer, slot.writable) for slot in kind.accounts]
    return Instruction(program_id, kind.discriminator + codec.encode(args), metas)


def initialize(program_id: Pubkey, *, authority: Pubkey) -> Instruction:
    """Create the global configuration; the signer becomes the authority."""
    return build(program_id, "initialize", NoArgs(), authority=authority)


def add_verifier(program_id: Pubkey, *, authority: Pubkey, verifier: Pubkey) -> Instruction:
    """Put a key on the allowlist."""
    return build(program_id, "add_verifier", VerifierArgs(verifier), authority=authority, verifier=verifier)


def remove_verifier(program_id: Pubkey, *, authority: Pubkey, verifier: Pubkey) -> Instruction:
    """Take a key off the allowlist; the entry's rent goes to the authority."""
    return build(program_id, "remove_verifier", VerifierArgs(verifier), authority=authority, verifier=verifier)


def transfer_authority(program_id: Pubkey, *, authority: Pubkey, new_authority: Pubkey) -> Instruction:
    """Hand the program's authority to another key."""
    return build(program_id, "transfer_authority", TransferAuthorityArgs(new_authority), authority=authority)


def renounce_authority(program_id: Pubkey, *, authority: Pubkey) -> Instruction:
    """Give up the authority for good: the list of verifiers can never change again."""
    return build(program_id, "renounce_authority", NoArgs(), authority=authority)


def create_project(program_id: Pubkey, *, creator: Pubkey, project_id: int, args: CreateProjectArgs) -> Instruction:
    """Create the project that takes `config.next_project_id`, which `project_id` must be."""
    return build(program_id, "create_project", args, creator=creator, project_id=project_id)


def buy(
    program_id: Pubkey, *, buyer: Pubkey, project_id: int, lamports_in: int, mint: Pubkey | None = None
) -> Instruction:
    """Buy as many whole tokens as `lamports_in` pays for, at their exact cost."""
    args = BuyArgs(project_id, lamports_in)
    return build(program_id, "buy", args, project_id=project_id, buyer=buyer, mint=mint)


def sell(
    program_id: Pubkey, *, seller: Pubkey, project_id: int, amount: int, mint: Pubkey | None = None
) -> Instruction:
    """Sell tokens back to the curve."""
    args = SellArgs(project_id, amount)
    return build(program_id, "sell", args, project_id=project_id, seller=seller, mint=mint)


def submit(
    program_id: Pubkey, *, miner: Pubkey, proposal_id: int, args: SubmitArgs, mint: Pubkey | None = None
) -> Instruction:
    """Stake a proposal under `config.next_proposal_id`, which `proposal_id` must be."""
    return build(
        program_id,
        "submit",
        args,
        project_id=args.project_id,
        proposal_id=proposal_id,
        miner=miner,
        mint=mint,
    )


def claim_review(program_id: Pubkey, *, verifier: Pubkey, proposal_id: int) -> Instruction:
    """Lock a pending proposal for the verifier."""
    return build(program_id, "claim_review", ProposalArgs(proposal_id), proposal_id=proposal_id, verifier=verifier)


def release_review(program_id: Pubkey, *, cranker: Pubkey, proposal_id: int) -> Instruction:
    """Make a proposal in review pending again."""
    return build(program_id, "release_review", ProposalArgs(proposal_id), proposal_id=proposal_id, cranker=cranker)


def approve(
    program_id: Pubkey,
    *,
    verifier: Pubkey,
    proposal: Proposal,
    args: ApproveArgs,
    mint: Pubkey | None = None,
) -> Instruction:
    """Approve: stake back to the miner, reward to the recipient; both token accounts must exist."""
    return build(
        program_id,
        "approve",
        args,
        project_id=proposal.project_id,
        proposal_id=args.proposal_id,
        verifier=verifier,
        miner=proposal.miner,
        reward_recipient=proposal.reward_recipient,
        mint=mint,
    )


def reject(
    program_id: Pubkey, *, verifier: Pubkey, project_id: int, args: RejectArgs, mint: Pubkey | None = None
) -> Instruction:
    """Reject: half the stake is burned, half becomes claimable by the verifier."""
    return build(
        program_id,
        "reject",
        args,
        project_id=project_id,
        proposal_id=args.proposal_id,
        verifier=verifier,
        mint=mint,
    )


def expire(
    program_id: Pubkey, *, cranker: Pubkey, proposal_id: int, project_id: int, mint: Pubkey | None = None
) -> Instruction:
    """Slash a proposal that nobody settled in time; half becomes claimable by the caller."""
    return build(
        program_id,
        "expire",
        ProposalArgs(proposal_id),
        project_id=project_id,
        proposal_id=proposal_id,
        cranker=cranker,
        mint=mint,
    )


def claim_reward(program_id: Pubkey, *, claimer: Pubkey, project_id: int, mint: Pubkey | None = None) -> Instruction:
    """Take out what is claimable, into the claimer's associated token account."""
    return build(program_id, "claim_reward", ProjectArgs(project_id), project_id=project_id, claimer=claimer, mint=mint)


def create_associated_token_account(payer: Pubkey, owner: Pubkey, mint: Pubkey) -> Instruction:
    """Create the owner's associated token account; nothing happens where it exists."""
    return Instruction(
        ASSOCIATED_TOKEN_PROGRAM,
        bytes([1]),  # CreateIdempotent
        [
            AccountMeta(payer, True, True),
            AccountMeta(associated_token_account(owner, mint), False, True),
            AccountMeta(owner, False, False),
            AccountMeta(mint, False, False),
            AccountMeta(SYSTEM_PROGRAM, False, False),
            AccountMeta(TOKEN_PROGRAM, False, False),
        ],
    )


def transfer_to_self(owner: Pubkey, mint: Pubkey, amount: int) -> Instruction:
    """Move tokens from the owner's associated token account to itself: it fails where there are fewer."""
    account = associated_token_account(owner, mint)
    return Instruction(
        TOKEN_PROGRAM,
        bytes([3]) + struct.pack("<Q", amount),  # Transfer
        [AccountMeta(account, False, True), AccountMeta(account, False, True), AccountMeta(owner, True, False)],
    )
