"""A real Solana VM with the program in it, and a short way to bring a project to any stage."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from typing import Any, TypeVar

from solders.account import Account
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import Transaction
from solders.transaction_metadata import FailedTransactionMetadata

from chain.network.base import program_error_of
from chain.program import PROGRAM_ID, image
from chain.program.accounts import Project, Proposal, decode_account
from chain.program.addresses import SYSTEM_PROGRAM, Pdas, associated_token_account
from chain.program.events import Event, parse_events
from chain.program.instructions import (
    INSTRUCTIONS,
    AddVerifier,
    Approve,
    Buy,
    ClaimReview,
    ClaimReward,
    CreateProject,
    Expire,
    Initialize,
    Reject,
    ReleaseReview,
    Sell,
    Submit,
    instruction_of,
)
from chain.program.tokens import create_associated_token_account, decode_mint, decode_token_account

SOL = 1_000_000_000
START = 1_700_000_000  # seconds since 1970
KINDS = {kind.name: kind for kind in INSTRUCTIONS.values()}
_Record = TypeVar("_Record")


def key(name: str) -> Keypair:
    """The same keypair for the same name."""
    return Keypair.from_seed(sha256(name.encode()).digest())


def digest(name: str) -> bytes:
    """32 bytes for a hash or an id."""
    return sha256(name.encode()).digest()


def project_args(**changes: object) -> CreateProject:
    """A project that sells at 1000 + 10 lamports a token, baseline score 2,000,000, pool cap 5."""
    hashes = [digest(f"project {number}") for number in range(8)]
    values: dict[str, object] = {
        **dict(zip([field.name for field in fields(CreateProject)][:6], hashes, strict=False)),
        "baseline_aggregate_score": 2_000_000,
        "baseline_metrics_hash": hashes[6],
        "baseline_metrics_irys_id": hashes[7],
        "token_name": "Smoke",
        "token_symbol": "SMK",
        "base_price": 1_000,
        "slope": 10,
        "miner_pool_cap": 5,
    }
    return CreateProject(**{**values, **changes})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a transaction: `error` None when it succeeded, `code` a custom error code."""

    error: str | None
    code: int | None
    logs: tuple[str, ...]
    events: tuple[Event, ...]
    units: int


@dataclass
class World:
    """One VM. `payer` pays every fee, so that the balances of the others move only by what the program does."""

    version: int = 0
    svm: LiteSVM = field(default_factory=LiteSVM)
    pdas: Pdas = field(default_factory=lambda: Pdas(PROGRAM_ID))
    payer: Keypair = field(default_factory=lambda: key("payer"))
    authority: Keypair = field(default_factory=lambda: key("authority"))
    verifier: Keypair = field(default_factory=lambda: key("verifier"))
    creator: Keypair = field(default_factory=lambda: key("creator"))
    miner: Keypair = field(default_factory=lambda: key("miner"))
    recipient: Keypair = field(default_factory=lambda: key("recipient"))
    stranger: Keypair = field(default_factory=lambda: key("stranger"))

    def __post_init__(self) -> None:
        self.svm.add_program(PROGRAM_ID, image(self.version))
        self.wait(START)
        for person in self.people:
            self.svm.airdrop(person.pubkey(), 1_000 * SOL)

    @property
    def people(self) -> list[Keypair]:
        """Everybody with a key and lamports."""
        known = self.payer, self.authority, self.verifier, self.creator, self.miner, self.recipient, self.stranger
        return list(known)

    # --- the VM ---

    def wait(self, seconds: int) -> None:
        """Let time pass."""
        clock = self.svm.get_clock()
        clock.unix_timestamp += seconds
        self.svm.set_clock(clock)

    @property
    def now(self) -> int:
        """Seconds since 1970."""
        return self.svm.get_clock().unix_timestamp

    def send(self, *instructions: Instruction) -> Outcome:
        """Run one transaction, signed by everybody of `people` who has to."""
        self.svm.expire_blockhash()
        blockhash = self.svm.latest_blockhash()
        message = Message.new_with_blockhash(list(instructions), self.payer.pubkey(), blockhash)
        needed = message.account_keys[: message.header.num_required_signatures]
        signers = [person for person in self.people if person.pubkey() in needed]
        result = self.svm.send_transaction(Transaction(signers, message, blockhash))
        if isinstance(result, FailedTransactionMetadata):
            error, meta = result.err(), result.meta()
            return Outcome(str(error), program_error_of(error), tuple(meta.logs()), (), meta.compute_units_consumed())
        logs = tuple(result.logs())
        return Outcome(None, None, logs, tuple(parse_events(logs)), result.compute_units_consumed())

    def run(self, *instructions: Instruction) -> tuple[Event, ...]:
        """Run one transaction that must succeed; its events."""
        outcome = self.send(*instructions)
        assert outcome.error is None, (outcome.error, outcome.logs)
        return outcome.events

    def read(self, kind: type[_Record], address: Pubkey) -> _Record:
        """An account of the program."""
        account = self.svm.get_account(address)
        assert account is not None
        assert account.owner == PROGRAM_ID
        return decode_account(kind, account.data)

    def project(self, number: int = 0) -> Project:
        """A project."""
        return self.read(Project, self.pdas.project(number))

    def proposal(self, number: int = 0) -> Proposal:
        """A proposal."""
        return self.read(Proposal, self.pdas.proposal(number))

    def exists(self, address: Pubkey) -> bool:
        """Whether there is an account with lamports."""
        return bool(self.svm.get_balance(address))

    def lamports(self, address: Pubkey) -> int:
        """An account's lamports."""
        return self.svm.get_balance(address) or 0

    def amount(self, address: Pubkey) -> int:
        """Tokens in a token account."""
        account = self.svm.get_account(address)
        return decode_token_account(account.data).amount if account else 0

    def tokens(self, person: Keypair, number: int = 0) -> int:
        """Tokens in a person's associated account."""
        return self.amount(associated_token_account(person.pubkey(), self.pdas.mint(number)))

    def supply(self, number: int = 0) -> int:
        """Tokens of a project in existence."""
        account = self.svm.get_account(self.pdas.mint(number))
        assert account is not None
        return decode_mint(account.data).supply

    def copy(self, source: Pubkey, to: Pubkey, data: bytes | None = None) -> Pubkey:
        """A forgery: the same owner and, unless given, the same data under another address."""
        account = self.svm.get_account(source)
        if account is None:
            self.svm.set_account(to, Account(SOL, b"", SYSTEM_PROGRAM))
        else:
            content = account.data if data is None else data
            self.svm.set_account(to, Account(max(account.lamports, SOL), content, account.owner, account.executable))
        return to

    # --- the stages ---

    def ready(self, **changes: Any) -> World:
        """Initialized, one verifier, one project."""
        self.run(instruction_of(PROGRAM_ID, Initialize(), self.authority.pubkey()))
        self.run(self.add_verifier(self.verifier))
        self.create(**changes)
        return self

    def add_verifier(self, person: Keypair) -> Instruction:
        """Put somebody on the allowlist."""
        return instruction_of(PROGRAM_ID, AddVerifier(person.pubkey()), self.authority.pubkey())

    def create_project(self, number: int = 0, **changes: object) -> Instruction:
        """A project with `project_args`."""
        return instruction_of(PROGRAM_ID, project_args(**changes), self.creator.pubkey(), project_id=number)

    def create(self, number: int = 0, **changes: object) -> None:
        """Create it."""
        self.run(self.create_project(number, **changes))

    def buy(self, lamports: int, person: Keypair | None = None, number: int = 0) -> Instruction:
        """Buy, by default for the miner."""
        buyer = (person or self.miner).pubkey()
        return instruction_of(PROGRAM_ID, Buy(number, lamports), buyer)

    def sell(self, amount: int, person: Keypair | None = None) -> Instruction:
        """Sell, by default for the miner."""
        return instruction_of(PROGRAM_ID, Sell(0, amount), (person or self.miner).pubkey())

    def submit(
        self, stake: int = 10, score: int = 2_100_000, number: int = 0, project: int = 0, **changes: Any
    ) -> Instruction:
        """A proposal of the miner's whose reward goes to `recipient`."""
        code, code_id, log, log_id = (digest(f"proposal {part}") for part in range(4))
        args = Submit(project, code, code_id, log, log_id, score, stake, self.recipient.pubkey())
        return instruction_of(PROGRAM_ID, replace(args, **changes), self.miner.pubkey(), proposal_id=number)

    def submitted(self, stake: int = 10, number: int = 0, **changes: object) -> World:
        """A proposal with a stake, bought by the miner; both token accounts exist."""
        self.run(self.buy(10**7), self.token_account(self.recipient), self.submit(stake, number=number, **changes))  # type: ignore[arg-type]
        return self

    def token_account(self, person: Keypair, number: int = 0) -> Instruction:
        """Somebody's associated token account."""
        return create_associated_token_account(self.payer.pubkey(), person.pubkey(), self.pdas.mint(number))

    def claim_review(self, number: int = 0, person: Keypair | None = None) -> Instruction:
        """Claim, by default for the verifier."""
        who = (person or self.verifier).pubkey()
        return instruction_of(PROGRAM_ID, ClaimReview(number), who)

    def release_review(self, number: int = 0, person: Keypair | None = None) -> Instruction:
        """Release, by default by the verifier."""
        who = (person or self.verifier).pubkey()
        return instruction_of(PROGRAM_ID, ReleaseReview(number), who)

    def approve(self, score: int = 2_100_000, number: int = 0, person: Keypair | None = None) -> Instruction:
        """Approve, by default by the verifier."""
        proposal = self.proposal(number)
        return instruction_of(
            PROGRAM_ID,
            Approve(number, score, digest("metrics"), digest("metrics id")),
            (person or self.verifier).pubkey(),
            project_id=proposal.project_id,
            miner=proposal.miner,
            reward_recipient=proposal.reward_recipient,
        )

    def reject(self, number: int = 0, person: Keypair | None = None) -> Instruction:
        """Reject, by default by the verifier."""
        args = Reject(number, digest("metrics"), digest("metrics id"))
        project = self.proposal(number).project_id
        return instruction_of(PROGRAM_ID, args, (person or self.verifier).pubkey(), project_id=project)

    def expire(self, number: int = 0, person: Keypair | None = None) -> Instruction:
        """Expire, by default by a stranger."""
        project = self.proposal(number).project_id
        return instruction_of(PROGRAM_ID, Expire(number), (person or self.stranger).pubkey(), project_id=project)

    def claim_reward(self, person: Keypair | None = None) -> Instruction:
        """Claim tokens, by default for the verifier."""
        return instruction_of(PROGRAM_ID, ClaimReward(0), (person or self.verifier).pubkey())


def swapped(
    instruction: Instruction,
    index: int,
    address: Pubkey | None = None,
    *,
    signer: bool | None = None,
    writable: bool | None = None,
) -> Instruction:
    """The instruction with one account changed."""
    metas = list(instruction.accounts)
    old = metas[index]
    metas[index] = AccountMeta(
        address or old.pubkey,
        old.is_signer if signer is None else signer,
        old.is_writable if writable is None else writable,
    )
    return Instruction(instruction.program_id, bytes(instruction.data), metas)


def place(name: str, account: str) -> int:
    """Where an account stands in an instruction's list."""
    return KINDS[name].index(account)
