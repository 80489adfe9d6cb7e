"""The OpenResearch program as a client uses it: read its accounts, send its transactions.

Rules for money:

- Nothing is signed that was not simulated against the network's present state.
- A transaction is recorded before it is sent: `execute` hands its signature to `before_send` first.
- Nothing is sent twice: the same signed bytes are repeated until they have landed or their blockhash has
  expired. After a crash `outcome` tells from the recorded signature whether it landed, is known dead, or is
  still open, and only a dead one may be made again, after the state itself was read.
- A node is believed on nothing that can be checked: an account proves that it is the one asked for
  (`chain.network.reading`), a blockhash its life, a landed submission its proposal.
- Nothing is spent beyond what was agreed to (`chain.money.spending`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from chain.errors import ChainError, InsufficientFunds, InvalidData, NetworkUnreachable, NotFound, TransactionFailed
from chain.money import spending
from chain.money.causes import refusal_of, with_cause
from chain.money.fees import auto_fee, priority_fee, unit_limit
from chain.money.spending import SpendingBudget
from chain.network.base import (
    BLOCKHASH_AGE,
    FEE_PER_SIGNATURE,
    Blockhash,
    Network,
    Simulation,
    TransactionReceipt,
    matches,
)
from chain.network.reading import Listing, Malformed, prove, read, read_all, read_mint, read_proposals, read_tokens
from chain.program.accounts import Claimable, GlobalConfig, Project, Proposal, VerifierEntry, offset_of
from chain.program.addresses import Pdas
from chain.program.codec import pack_u64
from chain.program.errors import ProgramError, error_for
from chain.program.events import Event, ProposalSubmitted, parse_events
from chain.program.instructions import Approve, ClaimReward, CreateProject, Submit, instruction_of
from chain.program.tokens import create_associated_token_account, transfer_to_self

BeforeSend = Callable[[Signature, int], None]
PriorityFee = int | Literal["auto"]
"""Micro-lamports per compute unit; "auto": what recent transactions on the same accounts paid."""
_NEWEST = 100  # proposals looked at one by one: a call's worth
_GUARD_UNITS = 300  # compute units of a guard's transfer, with some to spare
_MAX_LIFE = 10 * BLOCKHASH_AGE  # blocks; a node's final block may be far behind its newest
_Account = TypeVar("_Account")


@dataclass(frozen=True, slots=True)
class Landed:
    """A transaction that landed: its receipt and the program's events, in order."""

    receipt: TransactionReceipt
    events: tuple[Event, ...]

    def event(self, kind: type[_Account]) -> _Account:
        """The first event of a kind; TransactionFailed if there is none."""
        for event in self.events:
            if isinstance(event, kind):
                return event
        raise TransactionFailed(
            f"Transaction {self.receipt.signature} landed without the event {kind.__name__}.",
            "This is not the program that this client supports; check --network.",
        )


class AlreadyDone(ChainError):
    """What was to be sent is on chain already: an earlier try landed. `number` is its id."""

    def __init__(self, found: Project | Proposal) -> None:
        name = type(found).__name__.lower()
        super().__init__(
            f"It is on chain already, as {name} {found.id}: an earlier try landed, whatever the node said of it.",
            f"See `chain {name} show {found.id}`.",
        )
        self.number = found.id


def unsigned(instructions: Sequence[Instruction], payer: Pubkey, blockhash: Blockhash) -> VersionedTransaction:
    """What `payer` would sign alone, as it can be simulated. Of the kind without a version: a new Agave 4.1 validator
    takes no other before block 33."""
    message = Message.new_with_blockhash(list(instructions), payer, blockhash.hash)
    return VersionedTransaction.populate(message, [Signature.default()])


class Client:
    """One program on one network; `budget` is what may be spent there. `note_send`, if set, is called with
    every transaction just before it is sent.
    """

    def __init__(
        self, network: Network, *, budget: SpendingBudget | None = None, priority_fee: PriorityFee = 0
    ) -> None:
        self.network = network
        self.budget = budget or SpendingBudget()
        self.priority_fee: PriorityFee = priority_fee
        self.note_send: BeforeSend | None = None
        self.pdas = Pdas(network.program_id)
        self.unreadable: dict[Pubkey, Malformed] = {}  # accounts that listings left out, by address

    # --- reading ---

    def config(self) -> GlobalConfig:
        """The program's global state; NotFound if it was never initialized."""
        return self._found(
            GlobalConfig,
            self.pdas.config(),
            "The program is not initialized on this network.",
        )

    def project(self, project_id: int) -> Project:
        """A project by id."""
        return self._found(Project, self.pdas.project(project_id), f"There is no project {project_id}.")

    def proposal(self, proposal_id: int) -> Proposal:
        """A proposal by id."""
        return self._found(Proposal, self.pdas.proposal(proposal_id), f"There is no proposal {proposal_id}.")

    def projects(self) -> list[Project]:
        """All projects that can be read, by id."""
        return sorted(self._readable(read_all(self.network, Project)), key=lambda project: project.id)

    def proposals(self, project_id: int) -> list[Proposal]:
        """All proposals of a project that can be read, by id."""
        return self._proposals((offset_of(Proposal, "project_id"), pack_u64(project_id)))

    def all_proposals(self) -> list[Proposal]:
        """The proposals of all projects that can be read, by id."""
        return self._proposals()

    def proposals_of(self, miner: Pubkey, project_id: int, code_hash: bytes) -> list[Proposal]:
        """A miner's proposals of this code, by id; InvalidData if the node gives one that cannot be read.

        Asked in two ways, so that no single answer can hide one: by what they hold, and the newest by their ids.
        """
        wanted = (
            (offset_of(Proposal, "project_id"), pack_u64(project_id)),
            (offset_of(Proposal, "miner"), bytes(miner)),
            (offset_of(Proposal, "code_hash"), code_hash),
        )
        found = read_all(self.network, Proposal, *wanted)
        malformed = list(found.malformed)
        proposals = {proposal.id: proposal for _, proposal in found.accounts}
        next_id = self.config().next_proposal_id
        addresses = [self.pdas.proposal(number) for number in range(max(0, next_id - _NEWEST), next_id)]
        for address, account in zip(addresses, self.network.accounts(addresses), strict=True):
            if account is not None and matches(account.data, None, wanted):
                try:
                    proposal = prove(self.pdas, Proposal, address, account)
                except InvalidData as error:
                    malformed.append(Malformed(address, len(account.data), error.problem))
                else:
                    proposals[proposal.id] = proposal
        for entry in malformed:
            raise InvalidData(
                f"The account {entry.address} is a proposal of this code and cannot be read: {entry.problem}",
                "Ask another node with --rpc-url URL.",
            )
        return sorted(proposals.values(), key=lambda proposal: proposal.id)

    def is_verifier(self, key: Pubkey) -> bool:
        """Whether a key is on the program's allowlist of verifiers."""
        return read(self.network, VerifierEntry, self.pdas.verifier_entry(key)) is not None

    def claimable(self, project_id: int, key: Pubkey) -> int:
        """Tokens that a verifier or cranker may claim from the project's pool."""
        found = read(self.network, Claimable, self.pdas.claimable(project_id, key))
        return found.amount if found else 0

    def supply(self, project: Project) -> int:
        """Tokens of a project in existence."""
        mint = read_mint(self.network, project.id)
        if mint is None:
            raise NotFound(f"The mint {project.mint} of project {project.id} does not exist.")
        return mint.supply

    def tokens(self, project: Project, owner: Pubkey) -> int:
        """Tokens of a project that an owner holds in its associated token account."""
        found = read_tokens(self.network, owner, self.pdas.mint(project.id))
        return found.amount if found else 0

    def _found(self, kind: type[_Account], address: Pubkey, missing: str) -> _Account:
        record = read(self.network, kind, address)
        if record is None:
            raise NotFound(missing, f"Check the ID and --network ({self.network.name}).")
        return record

    def _proposals(self, *memcmp: tuple[int, bytes]) -> list[Proposal]:
        return sorted(self._readable(read_proposals(self.network, *memcmp)), key=lambda proposal: proposal.id)

    def _readable(self, found: Listing[_Account]) -> list[_Account]:
        self.unreadable |= {entry.address: entry for entry in found.malformed}
        return [record for _, record in found.accounts]

    # --- sending ---

    def execute(
        self,
        instructions: Sequence[Instruction],
        payer: Keypair,
        *,
        before_send: BeforeSend | None = None,
        final: bool = False,
    ) -> Landed:
        """Simulate, sign, record, send and confirm one transaction paid by `payer`, at the network's commitment, or
        with `final` until it can no longer vanish.

        With a priority fee two instructions for it come first, with a limit of units from the simulation, and under
        a cap the guard of `spending` last; what is signed was simulated as it is. Raises the program's own error as
        a typed exception, InsufficientFunds, SpendingRefused or TransactionFailed; NetworkUnreachable if it may
        still land; InvalidData if the node lies. `before_send` gets the signature and the last block height at
        which it can land.
        """
        self.budget.authorize(self.network)
        key, blockhash, steps = payer.pubkey(), self._blockhash(), list(instructions)
        held = self.network.balance(key) if self.budget.capped else 0
        simulated, simulation = self._simulate(steps, key, blockhash)
        if price := self._price(steps, key):
            limit = unit_limit(simulation.units + _GUARD_UNITS)
            steps = [set_compute_unit_limit(limit), set_compute_unit_price(price), *steps]
            simulated, simulation = self._simulate(steps, key, blockhash)
        reserved = 0
        if self.budget.capped:
            fees = FEE_PER_SIGNATURE + (priority_fee(limit, price) if price else 0)
            after = simulation.accounts.get(key)
            reserved = self.budget.reserve(
                max(fees + self._permitted(steps, key), held - (after.lamports if after else 0))
            )
            steps += spending.guard(key, held - reserved)
            try:
                simulated, _ = self._simulate(steps, key, blockhash)
            except ChainError as refusal:
                self.budget.settle(reserved, 0)  # nothing was signed
                raise (spending.exceeded(reserved) if isinstance(refusal, InsufficientFunds) else refusal) from None
        transaction = VersionedTransaction(simulated.message, [payer])
        signature = transaction.signatures[0]
        for note in (before_send, self.note_send):
            if note:
                note(signature, blockhash.last_valid_block_height)
        try:
            self.network.send(transaction)
            receipt = self._confirmed(signature, blockhash.last_valid_block_height, final=final)
        except TransactionFailed as failure:
            self._settle(key, signature, held, reserved)
            if reserved and getattr(failure, "error", None) == {"InstructionError": [len(steps) - 1, {"Custom": 1}]}:
                raise spending.exceeded(reserved) from failure
            code = getattr(failure, "program_error", None)
            if code is not None:
                raise error_for(code, failure.logs) from failure
            raise
        return self._done(receipt)

    def outcome(self, signature: Signature, last_valid_block_height: int) -> Landed | None:
        """What became of a recorded transaction, once that can no longer change: done where it landed and succeeded,
        None if it failed or is known never to land. NetworkUnreachable if it is still open after a while.
        """
        try:
            return self._done(self._confirmed(signature, last_valid_block_height, final=True))
        except TransactionFailed:
            return None

    def paid(self, signature: Signature) -> int:
        """Lamports that the payer of a transaction lost by it, also where it failed; 0 where it did not land."""
        receipt = self.network.transaction(signature)
        return receipt.paid if receipt else 0

    def _confirmed(self, signature: Signature, last_valid: int, *, final: bool) -> TransactionReceipt:
        more = {"final": True} if final else {}
        return self.network.confirm(signature, last_valid, **more)

    def _blockhash(self) -> Blockhash:
        """A blockhash to sign with; InvalidData if the node lies about how long it lives.

        A node that says less could have a transaction taken for dead, and signed anew, while it can still land.
        """
        height = self.network.block_height()
        found = self.network.latest_blockhash()
        if not height <= found.last_valid_block_height <= height + _MAX_LIFE:
            raise InvalidData(
                f"The node's blockhash is valid up to block height {found.last_valid_block_height}, and its own height "
                f"is {height}: one of the two is wrong.",
                "Use another node with --rpc-url URL.",
            )
        return replace(found, last_valid_block_height=max(found.last_valid_block_height, height + BLOCKHASH_AGE))

    def _permitted(self, steps: Sequence[Instruction], payer: Pubkey) -> int:
        """Lamports that instructions permit to leave the wallet, rent included, fees not."""
        found = spending.permitted(steps, payer, self.network.program_id)
        there = self.network.accounts(list(found.created)) if found.created else []
        missing = [size for size, account in zip(found.created.values(), there, strict=True) if account is None]
        return found.lamports + sum(map(self.network.rent, missing))

    def _settle(self, payer: Pubkey, signature: Signature, held: int, reserved: int) -> None:
        """Count what a transaction that did not succeed cost, where receipt and balance agree on it."""
        receipt = self.network.transaction(signature) if reserved else None
        if receipt is not None and receipt.error is not None:
            self.budget.settle(reserved, max(receipt.fee, receipt.paid, held - self.network.balance(payer)))

    def preview(self, instructions: Sequence[Instruction], payer: Pubkey) -> tuple[Event, ...]:
        """The events that a transaction would give now; nothing is signed. Raises as `execute` does."""
        _, simulation = self._simulate(instructions, payer, self.network.latest_blockhash())
        return tuple(parse_events(simulation.logs, self.network.program_id))

    def fee_bound(self, instructions: Sequence[Instruction], payer: Pubkey) -> int:
        """Lamports that a transaction of one signature costs at most in fees, with a guard added to its steps."""
        _, simulation = self._simulate(instructions, payer, self.network.latest_blockhash())
        units = unit_limit(simulation.units + 2_000 + _GUARD_UNITS)
        return FEE_PER_SIGNATURE + priority_fee(units, self._price(instructions, payer))

    def _simulate(
        self, instructions: Sequence[Instruction], payer: Pubkey, blockhash: Blockhash
    ) -> tuple[VersionedTransaction, Simulation]:
        transaction = unsigned(instructions, payer, blockhash)
        simulation = self.network.simulate(transaction, watch=[payer] if self.budget.capped else ())
        if simulation.error is not None:
            raise refusal_of(simulation, payer, self.network.balance)
        return transaction, simulation

    def _price(self, steps: Sequence[Instruction], payer: Pubkey) -> int:
        """Micro-lamports per compute unit to offer for these instructions."""
        if self.priority_fee != "auto":
            return self.priority_fee
        written = (entry.pubkey for step in steps for entry in step.accounts if entry.is_writable)
        return auto_fee(self.network.priority_fees(list(dict.fromkeys((payer, *written)))))

    def _done(self, receipt: TransactionReceipt) -> Landed:
        return Landed(receipt, tuple(parse_events(receipt.logs, self.network.program_id)))

    # --- instructions ---

    def call(
        self,
        args: object,
        signer: Keypair,
        *,
        before_send: BeforeSend | None = None,
        final: bool = False,
        **more: Any,
    ) -> Landed:
        """Send one instruction of the program; `args` and `more` as for `instruction_of`."""
        step = self.instruction(args, signer.pubkey(), **more)
        try:
            return self.execute([step], signer, before_send=before_send, final=final)
        except ProgramError as refusal:
            raise self._with_cause(refusal, getattr(args, "proposal_id", None)) from refusal.__cause__

    def _with_cause(self, refusal: ProgramError, proposal_id: int | None) -> ProgramError:
        """The refusal with what is so of the proposal it is about, as far as that can be read."""
        if proposal_id is not None:
            with suppress(ChainError):
                return with_cause(refusal, self.proposal(proposal_id))
        return refusal

    def instruction(self, args: object, signer: Pubkey, **more: Any) -> Instruction:
        """What `call` sends."""
        return instruction_of(self.network.program_id, args, signer, **more)

    def create_project(self, creator: Keypair, args: CreateProject) -> Landed:
        """Create a project under the next free id, trying again where another creator took it first."""
        key = creator.pubkey()

        def made(first: int, number: int) -> Project | None:
            found = read(self.network, Project, self.pdas.project(number))
            ours = found and (found.creator, found.protocol_hash) == (key, args.protocol_hash)
            return found if ours else None

        return self._with_next_id(
            lambda number: self.execute([self.instruction(args, key, project_id=number)], creator),
            lambda: self.config().next_project_id,
            made,
        )

    def submit(
        self,
        miner: Keypair,
        project: Project,
        *,
        code: tuple[bytes, bytes],
        log: tuple[bytes, bytes],
        claimed_score: int,
        stake: int,
        reward_recipient: Pubkey,
        before_send: BeforeSend | None = None,
        final: bool = False,
    ) -> Landed:
        """Stake a proposal; `code` and `log` are (SHA-256, Irys id). Makes the token accounts it will need.

        Staked once: before anything is signed anew the state itself is read, and AlreadyDone raised where an earlier
        try did land; and each try fails on chain unless the miner still holds the tokens it held at the first one,
        so that no two of them can land.
        """
        key, signed = miner.pubkey(), False
        args = Submit(project.id, *code, *log, claimed_score, stake, reward_recipient)
        accounts = self._token_accounts(key, project, key, reward_recipient)
        held = self.tokens(project, key)

        def note(signature: Signature, last_valid: int) -> None:
            nonlocal signed
            signed = True
            if before_send:
                before_send(signature, last_valid)

        def stake_once(number: int) -> Landed:
            nonlocal held
            if not signed:
                held = self.tokens(project, key)
            once = [transfer_to_self(key, self.pdas.mint(project.id), held)] if held else []
            step = self.instruction(args, key, proposal_id=number)
            return self.execute([*accounts, *once, step], miner, before_send=note, final=final)

        def staked(first: int, number: int) -> Proposal | None:
            here = read(self.network, Proposal, self.pdas.proposal(number))
            if here and (here.project_id, here.miner, here.code_hash) == (project.id, key, code[0]):
                return here
            return next((p for p in self.proposals_of(key, project.id, code[0]) if p.id >= first), None)

        first = self.config().next_proposal_id
        done = self._with_next_id(stake_once, lambda: self.config().next_proposal_id, staked)
        event = done.event(ProposalSubmitted)
        there = staked(first, event.id)
        if there is None:
            raise NetworkUnreachable(
                f"The transaction {done.receipt.signature} has landed, and the node does not show the proposal.",
                "Run the command again: it looks the proposal up first.",
            )
        if there.id != event.id:
            raise AlreadyDone(there)
        return done

    def approve(
        self,
        verifier: Keypair,
        proposal: Proposal,
        project: Project,
        *,
        verified_score: int,
        metrics: tuple[bytes, bytes],
        before_send: BeforeSend | None = None,
        final: bool = False,
    ) -> Landed:
        """Approve with the verified score and the attestation's (SHA-256, Irys id)."""
        miner, recipient = proposal.miner, proposal.reward_recipient
        step = self.instruction(
            Approve(proposal.id, verified_score, *metrics),
            verifier.pubkey(),
            project_id=proposal.project_id,
            miner=miner,
            reward_recipient=recipient,
        )
        accounts = self._token_accounts(verifier.pubkey(), project, miner, recipient)
        try:
            return self.execute([*accounts, step], verifier, before_send=before_send, final=final)
        except ProgramError as refusal:
            raise self._with_cause(refusal, proposal.id) from refusal.__cause__

    def claim_reward(self, claimer: Keypair, project: Project) -> Landed:
        """Take out what is claimable, into the claimer's token account, made where it is missing."""
        key = claimer.pubkey()
        step = self.instruction(ClaimReward(project.id), key)
        return self.execute([*self._token_accounts(key, project, key), step], claimer)

    @staticmethod
    def _token_accounts(payer: Pubkey, project: Project, *owners: Pubkey) -> list[Instruction]:
        return [create_associated_token_account(payer, owner, project.mint) for owner in dict.fromkeys(owners)]

    def _with_next_id(
        self,
        send: Callable[[int], Landed],
        next_id: Callable[[], int],
        made: Callable[[int, int], Project | Proposal | None],
    ) -> Landed:
        """Send what takes the next id; where somebody else took that id meanwhile, take the one after.

        `made(first, number)` reads whether an earlier try made it after all: under `number`, or any id from `first`.
        """
        first = number = next_id()
        for _ in range(5):
            try:
                return send(number)
            except (TransactionFailed, InsufficientFunds):
                if (found := made(first, number)) is not None:
                    raise AlreadyDone(found) from None
                if next_id() == number:
                    raise
                number = next_id()
        raise ChainError("Other transactions took the next ID five times.", "Run the command again.")
