"""The program in a real Solana VM: what each instruction does, and what it refuses.

Every instruction is staged where it would succeed; then every account of its list is forged in turn, every
signature and write permission is withheld, and none of that may pass.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import fields, replace
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from solders.account import Account
from solders.instruction import Instruction
from solders.pubkey import Pubkey
from solders.token.state import Mint, TokenAccount, TokenAccountState

from chain.program import PROGRAM_ID, codec
from chain.program.accounts import (
    Claimable,
    GlobalConfig,
    Project,
    Proposal,
    ProposalStatus,
    SolVault,
    VerifierEntry,
    discriminator_of,
)
from chain.program.addresses import SYSTEM_PROGRAM, ZERO_KEY, associated_token_account, token_metadata
from chain.program.errors import (
    ERRORS,
    AlreadyRegistered,
    ExpiryNotReached,
    InsufficientPayment,
    InvalidCurve,
    LockActive,
    LockExpired,
    MathOverflow,
    NothingToClaim,
    NotRegistered,
    NotVerifier,
    OverSupply,
    PoolCapExceeded,
    ProgramError,
    ScoreNotImproved,
    SolTransferFailed,
    StringTooLong,
    Unauthorized,
    WrongReviewer,
    WrongStatus,
    ZeroAddress,
    ZeroAmount,
    ZeroStake,
    error_for,
)
from chain.program.events import (
    BestUpdated,
    Bought,
    LedgerBurned,
    MinerRewardMinted,
    OwnershipTransferred,
    ProjectCreated,
    ProposalApproved,
    ProposalExpired,
    ProposalRejected,
    ProposalSubmitted,
    ReviewClaimed,
    ReviewReleased,
    RewardClaimed,
    Sold,
    StakeSlashed,
    VerifierAdded,
    VerifierRemoved,
)
from chain.program.instructions import (
    AddVerifier,
    CreateProject,
    Initialize,
    RemoveVerifier,
    RenounceAuthority,
    Submit,
    TransferAuthority,
    instruction_of,
)
from chain.program.tokens import create_associated_token_account, decode_mint, decode_token_account
from tests.chain.layout import TOKEN_ACCOUNT_SPACE, encode_account
from tests.chain.svm import KINDS, START, World, digest, key, place, project_args, swapped

DAY = 86_400
WEEK = 7 * DAY
MAX = 2**64 - 1
_Record = TypeVar("_Record")


def refused(world: World, error: type[ProgramError], *instructions: Instruction) -> None:
    """The program refuses with this error, in Anchor's words."""
    outcome = world.send(*instructions)
    assert outcome.code == error.code, (outcome.error, outcome.logs)
    said = f"Error Code: {error.__name__}. Error Number: {error.code}. Error Message: "
    assert any(said in line for line in outcome.logs)
    assert error_for(error.code, outcome.logs).text


def patch(world: World, address: Pubkey, record: object) -> None:
    """Write an account as the program itself might have, to reach states that take too long otherwise."""
    account = world.svm.get_account(address)
    assert account is not None
    data = encode_account(record)
    world.svm.set_account(address, Account(account.lamports, data.ljust(len(account.data), b"\0"), PROGRAM_ID))


def cost(base: int, slope: int, supply: int, amount: int) -> int:
    """Lamports for `amount` tokens when there are `supply`: the sum of base + slope·s over each of them."""
    return amount * base + slope * (amount * supply + amount * (amount - 1) // 2)


def affordable(base: int, slope: int, supply: int, lamports: int) -> int:
    """The most tokens that `lamports` pay for, by bisection."""
    low, high = 0, 1 << 65
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(base, slope, supply, middle) <= lamports else (low, middle - 1)
    return low


# --- configuration and verifiers ---


def test_initialize() -> None:
    world = World()
    world.run(instruction_of(PROGRAM_ID, Initialize(), world.authority.pubkey()))
    config = world.read(GlobalConfig, world.pdas.config())
    assert config == GlobalConfig(world.authority.pubkey(), 0, 0, 0, config.bump)
    again = world.send(instruction_of(PROGRAM_ID, Initialize(), world.stranger.pubkey()))
    assert again.error is not None
    assert world.read(GlobalConfig, world.pdas.config()) == config


def test_initialize_where_somebody_sent_lamports_before() -> None:
    """A few lamports on a future address must not keep the program from creating an account there."""
    world = World()
    for address in (world.pdas.config(), world.pdas.project(0), world.pdas.mint(0), world.pdas.sol_vault(0)):
        world.svm.airdrop(address, 1_000_000)
    for address in (world.pdas.proposal(0), world.pdas.proposal_escrow(0), world.pdas.project_pool(0)):
        world.svm.airdrop(address, 10**10)
    for address in (
        world.pdas.verifier_entry(world.verifier.pubkey()),
        world.pdas.claimable(0, world.verifier.pubkey()),
    ):
        world.svm.airdrop(address, 1)
    world.ready().submitted()
    assert world.proposal().stake == 10
    world.run(world.claim_review())
    world.run(world.reject())
    assert world.read(Claimable, world.pdas.claimable(0, world.verifier.pubkey())).amount == 5


def test_verifiers_come_and_go() -> None:
    world = World().ready()
    entry = world.pdas.verifier_entry(world.stranger.pubkey())
    assert world.run(world.add_verifier(world.stranger)) == (VerifierAdded(world.stranger.pubkey()),)
    added = world.read(VerifierEntry, entry)
    assert (added.verifier, added.added_at) == (world.stranger.pubkey(), START)
    assert world.read(GlobalConfig, world.pdas.config()).verifier_count == 2
    refused(world, AlreadyRegistered, world.add_verifier(world.stranger))
    remove = instruction_of(PROGRAM_ID, RemoveVerifier(world.stranger.pubkey()), world.authority.pubkey())
    before = world.lamports(world.authority.pubkey()) + world.lamports(entry)
    assert world.run(remove) == (VerifierRemoved(world.stranger.pubkey()),)
    assert not world.exists(entry)
    assert world.lamports(world.authority.pubkey()) == before
    assert world.read(GlobalConfig, world.pdas.config()).verifier_count == 1
    refused(world, NotRegistered, remove)


def test_the_zero_key_is_no_verifier() -> None:
    world = World().ready()
    zero = ZERO_KEY
    instruction = instruction_of(PROGRAM_ID, AddVerifier(zero), world.authority.pubkey())
    refused(world, ZeroAddress, instruction)


def test_a_removed_verifier_can_do_nothing() -> None:
    world = World().ready().submitted()
    world.run(world.claim_review())
    world.run(instruction_of(PROGRAM_ID, RemoveVerifier(world.verifier.pubkey()), world.authority.pubkey()))
    refused(world, NotVerifier, world.approve())
    refused(world, NotVerifier, world.reject())


def test_authority_moves_and_ends() -> None:
    world = World().ready()
    old, new = world.authority.pubkey(), world.stranger.pubkey()
    transfer = instruction_of(PROGRAM_ID, TransferAuthority(new), old)
    zero = instruction_of(PROGRAM_ID, TransferAuthority(ZERO_KEY), old)
    refused(world, ZeroAddress, zero)
    assert world.run(transfer) == (OwnershipTransferred(old, new),)
    refused(world, Unauthorized, transfer)
    refused(world, Unauthorized, world.add_verifier(world.miner))
    refused(world, Unauthorized, instruction_of(PROGRAM_ID, RenounceAuthority(), old))
    renounce = instruction_of(PROGRAM_ID, RenounceAuthority(), new)
    assert world.run(renounce) == (OwnershipTransferred(new, ZERO_KEY),)
    assert world.read(GlobalConfig, world.pdas.config()).authority == ZERO_KEY
    refused(world, Unauthorized, renounce)
    refused(world, Unauthorized, transfer)


# --- projects ---


def test_create_project() -> None:
    world = World().ready()
    events = world.run(world.create_project(1, token_name="é" * 16, token_symbol="T" * 10))
    args, project = project_args(token_name="é" * 16, token_symbol="T" * 10), world.project(1)
    mint = world.pdas.mint(1)
    assert events == (ProjectCreated(1, world.creator.pubkey(), mint, args.protocol_hash, args.protocol_irys_id),)
    for name in [field.name for field in fields(CreateProject)]:
        assert getattr(project, name) == getattr(args, name)
    assert (project.id, project.creator, project.created_at) == (1, world.creator.pubkey(), START)
    assert project.current_best_aggregate_score == project.baseline_aggregate_score
    assert not any(project.current_best_code_hash + project.current_best_code_irys_id)
    assert not any(bytes(project.current_best_miner))
    assert (project.mint, project.miner_pool_minted) == (mint, 0)
    account = world.svm.get_account(mint)
    assert account is not None
    authority = world.pdas.mint_authority(1)
    assert decode_mint(account.data) == Mint(authority, 0, 0, True, authority)
    pool = world.svm.get_account(world.pdas.project_pool(1))
    assert pool is not None
    assert decode_token_account(pool.data) == TokenAccount(
        mint, authority, 0, None, TokenAccountState.Initialized, None, 0
    )
    vault = world.read(SolVault, world.pdas.sol_vault(1))
    assert vault.project_id == 1
    assert world.read(GlobalConfig, world.pdas.config()).next_project_id == 2
    for address, bump in (
        (world.pdas.project(1), project.bump),
        (world.pdas.sol_vault(1), project.sol_vault_bump),
        (world.pdas.project_pool(1), project.project_pool_bump),
        (authority, project.mint_authority_bump),
    ):
        assert Pubkey.find_program_address(
            {
                world.pdas.project(1): [b"project", b"\1" + bytes(7)],
                world.pdas.sol_vault(1): [b"sol_vault", b"\1" + bytes(7)],
                world.pdas.project_pool(1): [b"pool", b"\1" + bytes(7)],
                authority: [b"mint_authority", b"\1" + bytes(7)],
            }[address],
            PROGRAM_ID,
        ) == (address, bump)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"base_price": 0, "slope": 0}, InvalidCurve),
        ({"base_price": MAX, "slope": 1}, MathOverflow),
        ({"token_name": "n" * 33}, StringTooLong),
        ({"token_symbol": "s" * 11}, StringTooLong),
    ],
)
def test_projects_that_cannot_be(changes: dict[str, object], error: type[ProgramError]) -> None:
    refused(World().ready(), error, World().create_project(1, **changes))


def test_a_project_takes_the_next_id_only() -> None:
    world = World().ready()
    for number in (0, 2):
        assert world.send(world.create_project(number)).error is not None
    world.create(1)


def test_ids_do_not_wrap_around() -> None:
    world = World().ready()
    config = world.read(GlobalConfig, world.pdas.config())
    patch(world, world.pdas.config(), replace(config, next_project_id=MAX, next_proposal_id=MAX))
    refused(world, MathOverflow, world.create_project(MAX))
    world.run(world.buy(10**6))
    refused(world, MathOverflow, world.submit(1, number=MAX))


# --- the curve ---


def test_buy_and_sell() -> None:
    world = World().ready()
    vault = world.pdas.sol_vault(0)
    before, held = world.lamports(world.miner.pubkey()), world.lamports(vault)
    rent = world.svm.minimum_balance_for_rent_exemption(TOKEN_ACCOUNT_SPACE)
    # 1000 + 1010 + 1020 = 3030; the fourth would cost 1030
    assert world.run(world.buy(4_059)) == (Bought(0, world.miner.pubkey(), 3_030, 3),)
    assert (world.tokens(world.miner), world.supply()) == (3, 3)
    assert world.lamports(world.miner.pubkey()) == before - 3_030 - rent
    assert world.lamports(vault) == held + 3_030
    assert world.run(world.buy(1_030)) == (Bought(0, world.miner.pubkey(), 1_030, 1),)
    assert world.run(world.sell(2)) == (Sold(0, world.miner.pubkey(), 2, 1_020 + 1_030),)
    assert world.run(world.sell(2)) == (Sold(0, world.miner.pubkey(), 2, 2_010),)
    assert (world.tokens(world.miner), world.supply(), world.lamports(vault)) == (0, 0, held)
    assert world.lamports(world.miner.pubkey()) == before - rent


def test_the_edges_of_the_curve() -> None:
    world = World().ready()
    refused(world, ZeroAmount, world.buy(0))
    refused(world, InsufficientPayment, world.buy(999))
    world.run(world.buy(1_000))
    refused(world, InsufficientPayment, world.buy(1_009))
    refused(world, ZeroAmount, world.sell(0))
    refused(world, OverSupply, world.sell(2))
    world.run(world.buy(10**6, world.stranger))
    assert world.send(world.sell(2)).error is not None  # more than the miner has, less than there are
    assert world.send(world.buy(10**13)).error is not None  # more than the miner can pay


def set_supply(world: World, supply: int) -> None:
    """Put `supply` tokens into the miner's account, and into existence."""
    world.run(world.token_account(world.miner))
    mint, wallet = world.pdas.mint(0), associated_token_account(world.miner.pubkey(), world.pdas.mint(0))
    for address, at in ((mint, 36), (wallet, 64)):
        account = world.svm.get_account(address)
        assert account is not None
        data = bytearray(account.data)
        data[at : at + 8] = supply.to_bytes(8, "little")
        world.svm.set_account(address, Account(account.lamports, bytes(data), account.owner))


curves = st.tuples(
    st.integers(0, 63).flatmap(lambda bits: st.integers(0, 1 << bits)),
    st.integers(0, 63).flatmap(lambda bits: st.integers(0, 1 << bits)),
    st.integers(0, 64).flatmap(lambda bits: st.integers(0, (1 << bits) - 1)),
    st.integers(0, 59).flatmap(lambda bits: st.integers(1, 1 << bits)),
    st.integers(0, 64).flatmap(lambda bits: st.integers(1, max((1 << bits) - 1, 1))),
).filter(lambda curve: 0 < curve[0] + curve[1] <= MAX)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(curves)
def test_the_curve_is_exact(curve: tuple[int, int, int, int, int]) -> None:
    """Buying and selling against the plain sum of prices, over the whole range of 64 bits."""
    base, slope, supply, lamports, amount = curve
    world = World().ready(base_price=base, slope=slope)
    set_supply(world, supply)
    vault = world.pdas.sol_vault(0)
    for address, content in ((world.miner.pubkey(), 1 << 61), (vault, 1 << 62)):
        account = world.svm.get_account(address)
        assert account is not None
        world.svm.set_account(address, Account(content, account.data, account.owner))
    amount = min(amount, supply)
    if amount:
        proceeds = cost(base, slope, supply - amount, amount)
        snapshot = supply
        if proceeds > MAX:
            refused(world, MathOverflow, world.sell(amount))
        elif proceeds > (1 << 62) - world.svm.minimum_balance_for_rent_exemption(17):
            refused(world, SolTransferFailed, world.sell(amount))
        else:
            assert world.run(world.sell(amount)) == (Sold(0, world.miner.pubkey(), amount, proceeds),)
            snapshot -= amount
            assert world.lamports(vault) == (1 << 62) - proceeds
        supply = snapshot
    bought = affordable(base, slope, supply, lamports)
    if base + slope * supply > MAX:
        refused(world, MathOverflow, world.buy(lamports))
    elif not bought:
        refused(world, InsufficientPayment, world.buy(lamports))
    elif supply + bought > MAX:
        refused(world, OverSupply, world.buy(lamports))
    else:
        spent = cost(base, slope, supply, bought)
        assert world.run(world.buy(lamports)) == (Bought(0, world.miner.pubkey(), spent, bought),)
        assert world.supply() == supply + bought


def test_the_vault_keeps_its_rent() -> None:
    """Minted rewards can be sold, but never for what keeps the vault alive."""
    world = World().ready(miner_pool_cap=5)
    set_supply(world, 3)
    refused(world, SolTransferFailed, world.sell(1))
    assert world.exists(world.pdas.sol_vault(0))


# --- proposals ---


def test_submit() -> None:
    world = World().ready()
    world.run(world.buy(10**6))
    before = world.tokens(world.miner)
    assert world.run(world.submit(7)) == (
        ProposalSubmitted(
            0,
            0,
            world.miner.pubkey(),
            world.recipient.pubkey(),
            digest("proposal 0"),
            digest("proposal 1"),
            2_100_000,
            7,
        ),
    )
    proposal = world.proposal()
    assert proposal == Proposal(
        id=0,
        project_id=0,
        miner=world.miner.pubkey(),
        reward_recipient=world.recipient.pubkey(),
        code_hash=digest("proposal 0"),
        code_irys_id=digest("proposal 1"),
        benchmark_log_hash=digest("proposal 2"),
        benchmark_log_irys_id=digest("proposal 3"),
        metrics_hash=bytes(32),
        metrics_irys_id=bytes(32),
        claimed_aggregate_score=2_100_000,
        verified_aggregate_score=0,
        stake=7,
        submitted_at=START,
        review_lock_until=0,
        reviewer=ZERO_KEY,
        status=ProposalStatus.PENDING,
        bump=proposal.bump,
        escrow_bump=proposal.escrow_bump,
    )
    escrow = world.svm.get_account(world.pdas.proposal_escrow(0))
    assert escrow is not None
    token = decode_token_account(escrow.data)
    assert token == TokenAccount(
        world.pdas.mint(0), world.pdas.mint_authority(0), 7, None, TokenAccountState.Initialized, None, 0
    )
    assert world.tokens(world.miner) == before - 7
    assert world.read(GlobalConfig, world.pdas.config()).next_proposal_id == 1
    world.run(world.submit(1, number=1, claimed_aggregate_score=-(2**63)))
    assert world.proposal(1).claimed_aggregate_score == -(2**63)


def test_what_cannot_be_submitted() -> None:
    world = World().ready()
    world.run(world.buy(10**6))
    refused(world, ZeroStake, world.submit(0))
    refused(world, ZeroAddress, world.submit(1, reward_recipient=ZERO_KEY))
    assert world.send(world.submit(10**9)).error is not None  # more than the miner has
    world.run(world.submit(1))
    assert world.send(world.submit(1)).error is not None  # a lost race: the id is taken
    assert world.send(world.submit(1, number=2)).error is not None  # an id ahead of its time
    assert world.send(world.submit(1, number=1, project=3)).error is not None  # no such project


def test_review() -> None:
    world = World().ready().submitted()
    world.wait(5)
    until = START + 5 + DAY
    assert world.run(world.claim_review()) == (ReviewClaimed(0, world.verifier.pubkey(), until),)
    proposal = world.proposal()
    assert (proposal.status, proposal.reviewer) == (ProposalStatus.IN_REVIEW, world.verifier.pubkey())
    assert proposal.review_lock_until == until
    refused(world, LockActive, world.claim_review())
    assert world.run(world.release_review()) == (ReviewReleased(0),)
    proposal = world.proposal()
    assert (proposal.status, proposal.reviewer) == (ProposalStatus.PENDING, ZERO_KEY)
    assert proposal.review_lock_until == 0
    refused(world, WrongStatus, world.release_review())
    refused(world, NotVerifier, world.claim_review(person=world.stranger))


def test_only_the_reviewer_may_release_inside_the_lock() -> None:
    world = World().ready().submitted()
    world.run(world.claim_review())
    world.wait(DAY)  # its last second
    refused(world, LockActive, world.release_review(person=world.stranger))
    world.wait(1)
    assert world.run(world.release_review(person=world.stranger)) == (ReviewReleased(0),)


def test_approve() -> None:
    world = World().ready().submitted(stake=10)
    miner, supply = world.tokens(world.miner), world.supply()
    world.run(world.claim_review())
    assert world.run(world.approve(2_050_000)) == (
        ProposalApproved(0, world.verifier.pubkey(), 2_050_000, digest("metrics"), digest("metrics id")),
        BestUpdated(
            0,
            world.miner.pubkey(),
            2_050_000,
            digest("proposal 0"),
            digest("proposal 1"),
            digest("metrics"),
            digest("metrics id"),
        ),
        MinerRewardMinted(0, world.miner.pubkey(), 1),
    )
    proposal, project = world.proposal(), world.project()
    assert (proposal.status, proposal.verified_aggregate_score) == (ProposalStatus.APPROVED, 2_050_000)
    assert (proposal.metrics_hash, proposal.metrics_irys_id) == (digest("metrics"), digest("metrics id"))
    assert (project.current_best_aggregate_score, project.current_best_miner) == (2_050_000, world.miner.pubkey())
    assert (project.current_best_code_hash, project.current_best_code_irys_id) == (
        digest("proposal 0"),
        digest("proposal 1"),
    )
    assert (project.current_best_metrics_hash, project.current_best_metrics_irys_id) == (
        digest("metrics"),
        digest("metrics id"),
    )
    assert project.baseline_aggregate_score == 2_000_000
    assert project.miner_pool_minted == 1
    assert (world.tokens(world.recipient), world.tokens(world.miner)) == (1, miner + 10)
    assert world.supply() == supply + 1
    assert world.amount(world.pdas.proposal_escrow(0)) == 0
    for again in (world.approve(), world.reject(), world.release_review(), world.claim_review()):
        refused(world, WrongStatus, again)
    world.wait(WEEK + 1)
    refused(world, WrongStatus, world.expire())


def test_a_miner_may_be_its_own_recipient() -> None:
    world = World().ready()
    world.submitted(stake=10, reward_recipient=world.miner.pubkey())
    before = world.tokens(world.miner)
    world.run(world.claim_review(), world.approve())
    assert world.tokens(world.miner) == before + 11


def test_approve_wants_review_reviewer_lock_and_progress() -> None:
    world = World().ready().submitted()
    world.run(world.add_verifier(world.stranger))
    refused(world, WrongStatus, world.approve())
    world.run(world.claim_review())
    refused(world, WrongReviewer, world.approve(person=world.stranger))
    refused(world, NotVerifier, world.approve(person=world.creator))
    for score in (2_000_000, 1_999_999, -1, -(2**63)):
        refused(world, ScoreNotImproved, world.approve(score))
    world.wait(DAY)
    refused(world, ScoreNotImproved, world.approve(0))
    world.wait(1)
    refused(world, LockExpired, world.approve())
    refused(world, LockExpired, world.reject())
    world.run(world.release_review(person=world.stranger), world.claim_review(person=world.stranger))
    refused(world, WrongReviewer, world.approve())
    world.run(world.approve(2_000_001, person=world.stranger))


def test_negative_scores_compare_as_signed() -> None:
    world = World().ready(baseline_aggregate_score=-2_667_000).submitted()
    world.run(world.claim_review())
    for score in (-2_667_000, -2_667_001, -(2**63)):
        refused(world, ScoreNotImproved, world.approve(score))
    world.run(world.approve(-2_666_999))
    assert world.project().current_best_aggregate_score == -2_666_999


def test_the_pool_has_a_cap() -> None:
    world = World().ready(miner_pool_cap=1).submitted()
    world.run(world.claim_review(), world.approve())
    world.run(world.submit(1, number=1), world.claim_review(1))
    refused(world, PoolCapExceeded, world.approve(2_200_000, 1))
    assert world.project().current_best_aggregate_score == 2_100_000


def test_reject() -> None:
    world = World().ready().submitted(stake=11)
    supply = world.supply()
    refused(world, WrongStatus, world.reject())
    world.run(world.claim_review())
    refused(world, NotVerifier, world.reject(person=world.stranger))
    events = world.run(world.reject())
    verifier = world.verifier.pubkey()
    assert events == (
        ProposalRejected(0, verifier, digest("metrics"), digest("metrics id")),
        StakeSlashed(0, verifier, 5, 6),  # the burn takes the larger half
        LedgerBurned(0, 6),
    )
    proposal = world.proposal()
    assert (proposal.status, proposal.metrics_hash) == (ProposalStatus.REJECTED, digest("metrics"))
    claimable = world.read(Claimable, world.pdas.claimable(0, verifier))
    assert (claimable.project_id, claimable.account, claimable.amount) == (0, verifier, 5)
    assert world.amount(world.pdas.project_pool(0)) == 5
    assert world.amount(world.pdas.proposal_escrow(0)) == 0
    assert world.supply() == supply - 6
    refused(world, WrongStatus, world.reject())
    world.run(world.submit(1, number=1), world.claim_review(1))
    assert world.run(world.reject(1))[1:] == (StakeSlashed(1, verifier, 0, 1), LedgerBurned(0, 1))
    world.run(world.submit(2, number=2), world.claim_review(2))
    world.run(world.reject(2))
    assert world.read(Claimable, world.pdas.claimable(0, verifier)).amount == 6
    assert world.amount(world.pdas.project_pool(0)) == 6


def test_expire() -> None:
    world = World().ready().submitted(stake=10)
    world.wait(WEEK - 1)
    refused(world, ExpiryNotReached, world.expire())
    world.run(world.claim_review())
    world.wait(1)  # due, and under review: the lock does not put it off
    cranker = world.stranger.pubkey()
    events = world.run(world.expire())
    assert events == (ProposalExpired(0, cranker), StakeSlashed(0, cranker, 5, 5), LedgerBurned(0, 5))
    assert world.proposal().status is ProposalStatus.EXPIRED
    assert world.read(Claimable, world.pdas.claimable(0, cranker)).amount == 5
    refused(world, WrongStatus, world.expire())
    refused(world, WrongStatus, world.claim_review())


def test_claim_reward() -> None:
    world = World().ready().submitted(stake=10)
    world.run(world.claim_review(), world.reject(), world.token_account(world.verifier))
    verifier = world.verifier.pubkey()
    assert world.run(world.claim_reward()) == (RewardClaimed(0, verifier, 5),)
    assert world.tokens(world.verifier) == 5
    assert world.amount(world.pdas.project_pool(0)) == 0
    refused(world, NothingToClaim, world.claim_reward())
    world.run(world.token_account(world.stranger))
    refused(world, NothingToClaim, world.claim_reward(world.stranger))


def test_sums_that_overflow_are_refused() -> None:
    world = World().ready().submitted(stake=10)
    world.run(world.claim_review(), world.reject(), world.submit(4, number=1), world.claim_review(1))
    address = world.pdas.claimable(0, world.verifier.pubkey())
    patch(world, address, replace(world.read(Claimable, address), amount=MAX))
    refused(world, MathOverflow, world.reject(1))
    world = World().ready(miner_pool_cap=MAX).submitted()
    patch(world, world.pdas.project(0), replace(world.project(), miner_pool_minted=MAX))
    world.run(world.claim_review())
    refused(world, MathOverflow, world.approve())
    world = World().ready().submitted()
    config = world.read(GlobalConfig, world.pdas.config())
    patch(world, world.pdas.config(), replace(config, verifier_count=MAX))
    refused(world, MathOverflow, world.add_verifier(world.stranger))
    patch(world, world.pdas.proposal(0), replace(world.proposal(), submitted_at=2**63 - 1))
    refused(world, MathOverflow, world.expire())


# --- hostile callers ---


def _staged_initialize(world: World) -> Instruction:
    return instruction_of(PROGRAM_ID, Initialize(), world.authority.pubkey())


def _staged_remove(world: World) -> Instruction:
    world.ready()
    return instruction_of(PROGRAM_ID, RemoveVerifier(world.verifier.pubkey()), world.authority.pubkey())


def _staged_transfer(world: World) -> Instruction:
    world.ready()
    new = world.stranger.pubkey()
    return instruction_of(PROGRAM_ID, TransferAuthority(new), world.authority.pubkey())


def _staged_renounce(world: World) -> Instruction:
    world.ready()
    return instruction_of(PROGRAM_ID, RenounceAuthority(), world.authority.pubkey())


def _staged_sell(world: World) -> Instruction:
    world.ready().run(world.buy(10**6))
    return world.sell(3)


def _staged_submit(world: World) -> Instruction:
    world.ready().run(world.buy(10**6))
    return world.submit()


def _two(world: World, *more: Callable[[], Instruction]) -> World:
    """Two projects, two proposals and a second verifier: neighbours whose accounts could be mixed up."""
    world.ready()
    world.create(1)
    world.submitted()
    world.run(world.submit(5, number=1), world.add_verifier(world.stranger), world.token_account(world.verifier))
    for step in more:
        world.run(step())
    return world


def _staged_claim_review(world: World) -> Instruction:
    return _two(world).claim_review()


def _staged_release(world: World) -> Instruction:
    return _two(world, world.claim_review).release_review()


def _staged_approve(world: World) -> Instruction:
    return _two(world, world.claim_review).approve()


def _staged_reject(world: World) -> Instruction:
    return _two(world, world.claim_review).reject()


def _staged_expire(world: World) -> Instruction:
    _two(world).wait(WEEK + 1)
    return world.expire()


def _staged_claim_reward(world: World) -> Instruction:
    return _two(world, world.claim_review, world.reject).claim_reward()


STAGES: dict[str, Callable[[World], Instruction]] = {
    "initialize": _staged_initialize,
    "add_verifier": lambda world: world.ready().add_verifier(world.stranger),
    "remove_verifier": _staged_remove,
    "transfer_authority": _staged_transfer,
    "renounce_authority": _staged_renounce,
    "create_project": lambda world: world.ready().create_project(1),
    "buy": lambda world: world.ready().buy(10**6),
    "sell": _staged_sell,
    "submit": _staged_submit,
    "claim_review": _staged_claim_review,
    "release_review": _staged_release,
    "approve": _staged_approve,
    "reject": _staged_reject,
    "expire": _staged_expire,
    "claim_reward": _staged_claim_reward,
}
SLOTS = [(name, slot.name) for name in STAGES for slot in KINDS[name].accounts]
SIGNERS = [(name, slot.name) for name in STAGES for slot in KINDS[name].accounts if slot.signer]
WRITABLE = [(name, slot.name) for name in STAGES for slot in KINDS[name].accounts if slot.writable]
# A person's token account is any token account of that person and mint, except where the program makes it.
ANY_TOKEN_ACCOUNT = {
    slot for slot in SLOTS if slot[1].endswith("_token_account") and slot != ("buy", "buyer_token_account")
}
ANYBODY = {("initialize", "authority"), ("create_project", "creator")}


def test_every_instruction_is_staged() -> None:
    assert set(STAGES) == set(KINDS)
    for name, stage in STAGES.items():
        world = World()
        outcome = world.send(stage(world))
        assert outcome.error is None, (name, outcome.error, outcome.logs)
        word = "".join(part.capitalize() for part in name.split("_"))
        assert f"Program log: Instruction: {word}" in outcome.logs
        assert outcome.units < 150_000, name  # the default limit is 200,000


@pytest.mark.parametrize(("name", "account"), SIGNERS)
def test_signatures_are_needed(name: str, account: str) -> None:
    world = World()
    assert world.send(swapped(STAGES[name](world), place(name, account), signer=False)).error is not None


@pytest.mark.parametrize(("name", "account"), WRITABLE)
def test_write_permission_is_needed(name: str, account: str) -> None:
    world = World()
    assert world.send(swapped(STAGES[name](world), place(name, account), writable=False)).error is not None


@pytest.mark.parametrize(("name", "account"), sorted(set(SIGNERS) - ANYBODY))
def test_nobody_else_can_sign(name: str, account: str) -> None:
    world = World()
    instruction = STAGES[name](world)
    other = world.stranger if instruction.accounts[0].pubkey != world.stranger.pubkey() else world.creator
    assert world.send(swapped(instruction, place(name, account), other.pubkey())).error is not None


@pytest.mark.parametrize(("name", "account"), sorted(set(SLOTS) - set(SIGNERS) - ANY_TOKEN_ACCOUNT))
def test_forged_accounts_are_refused(name: str, account: str) -> None:
    """The same owner and content under another address, and an address with nothing at all."""
    world = World()
    instruction, index = STAGES[name](world), place(name, account)
    real = instruction.accounts[index].pubkey
    assert world.send(swapped(instruction, index, world.copy(real, key("forgery").pubkey()))).error is not None
    assert world.send(swapped(instruction, index, key("nothing").pubkey())).error is not None
    assert world.send(instruction).error is None


@pytest.mark.parametrize(("name", "account"), sorted(set(SLOTS) - set(SIGNERS)))
def test_a_neighbours_accounts_are_refused(name: str, account: str) -> None:
    """Another project's, proposal's or person's account, valid in itself."""
    world = World()
    instruction, index = STAGES[name](world), place(name, account)
    pdas, stranger = world.pdas, key("neighbour")
    neighbour = {
        "verifier_entry": pdas.verifier_entry(world.miner.pubkey()),
        "claimable": pdas.claimable(0, stranger.pubkey()),
        "token_metadata": token_metadata(pdas.mint(7)),
    }.get(account)
    if account in ("proposal", "proposal_escrow"):
        neighbour = pdas.find(account, 1)
    elif account in ("project", "mint", "mint_authority", "sol_vault", "project_pool"):
        neighbour = pdas.find(account, 2 if name == "create_project" else 1)
    elif account.endswith("_token_account"):
        world.svm.airdrop(stranger.pubkey(), 10**9)
        mint = instruction.accounts[place(name, "mint")].pubkey
        neighbour = associated_token_account(stranger.pubkey(), mint)
        world.run(create_associated_token_account(world.payer.pubkey(), stranger.pubkey(), mint))
    if neighbour is None:
        return
    assert world.send(swapped(instruction, index, neighbour)).error is not None
    assert world.send(instruction).error is None


@pytest.mark.parametrize(("name", "account"), sorted(ANY_TOKEN_ACCOUNT))
def test_token_accounts_of_another_mint_are_refused(name: str, account: str) -> None:
    world = World()
    instruction, index = STAGES[name](world), place(name, account)
    real = world.svm.get_account(instruction.accounts[index].pubkey)
    assert real is not None
    for forged in (
        Account(10**9, bytes(key("mint").pubkey()) + real.data[32:], real.owner),
        Account(10**9, real.data, PROGRAM_ID),
        Account(10**9, real.data[:100], real.owner),
    ):
        world.svm.set_account(key("forgery").pubkey(), forged)
        assert world.send(swapped(instruction, index, key("forgery").pubkey())).error is not None


@pytest.mark.parametrize("account", ["project", "proposal", "verifier_entry"])
def test_accounts_of_another_kind_owner_or_size_are_refused(account: str) -> None:
    world = World()
    instruction = _staged_approve(world)
    address = instruction.accounts[place("approve", account)].pubkey
    real = world.svm.get_account(address)
    assert real is not None
    for forged in (
        Account(real.lamports, bytes(8) + real.data[8:], PROGRAM_ID),
        Account(real.lamports, discriminator_of(GlobalConfig) + real.data[8:], PROGRAM_ID),
        Account(real.lamports, real.data, SYSTEM_PROGRAM),
        Account(real.lamports, real.data[:40], PROGRAM_ID),
        Account(real.lamports, real.data[:8], PROGRAM_ID),
        Account(real.lamports, b"", PROGRAM_ID),
    ):
        world.svm.set_account(address, forged)
        assert world.send(instruction).error is not None
    world.svm.set_account(address, real)
    assert world.send(instruction).error is None


@pytest.mark.parametrize("name", sorted(STAGES))
def test_malformed_instructions_are_refused(name: str) -> None:
    world = World()
    instruction = STAGES[name](world)
    data, metas = bytes(instruction.data), list(instruction.accounts)
    broken = [Instruction(PROGRAM_ID, data[:length], metas) for length in sorted({0, 4, 7, 8, 9, len(data) - 1})]
    for short in (item for item in broken if bytes(item.data) != data):
        assert world.send(short).error is not None
    assert world.send(Instruction(PROGRAM_ID, b"notknown" + data[8:], metas)).error is not None
    for count in range(len(metas)):
        assert world.send(Instruction(PROGRAM_ID, data, metas[:count])).error is not None


@pytest.mark.parametrize("name", sorted(STAGES))
def test_no_account_can_stand_in_for_another(name: str) -> None:
    """Every account of an instruction in the place of every other: escrow and pool, project and proposal, ..."""
    world = World()
    instruction = STAGES[name](world)
    for index, slot in enumerate(KINDS[name].accounts):
        for other in instruction.accounts:
            if not slot.signer and other.pubkey != instruction.accounts[index].pubkey:
                assert world.send(swapped(instruction, index, other.pubkey)).error is not None, slot.name
    world.run(instruction)


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        (b"", True),
        ("aé€😀".encode(), True),
        (b"\xf4\x8f\xbf\xbf", True),
        (b"\x80", False),
        (b"\xc1\x81", False),  # overlong
        (b"\xe0\x80\xaf", False),  # overlong
        (b"\xf0\x80\x80\xaf", False),  # overlong
        (b"\xed\xa0\x80", False),  # a surrogate
        (b"\xf4\x90\x80\x80", False),  # above U+10FFFF
        (b"\xf8\x88\x80\x80\x80", False),
        (b"ab\xe2\x82", False),  # cut short
    ],
)
def test_names_are_utf8(text: bytes, fine: bool) -> None:
    """A name that no client can read would make the whole list of projects unreadable."""
    world = World().ready()
    placeholder = "N" * len(text)
    instruction = world.create_project(1, token_name=placeholder)
    data = bytes(instruction.data).replace(struct.pack("<I", len(text)) + placeholder.encode(), _text(text), 1)
    outcome = world.send(Instruction(PROGRAM_ID, data, list(instruction.accounts)))
    assert (outcome.code is None) is fine, outcome.logs
    if fine:
        assert world.project(1).token_name == text.decode()
    else:
        assert outcome.code == 102


def _text(text: bytes) -> bytes:
    return struct.pack("<I", len(text)) + text


def test_a_string_longer_than_the_data_is_refused() -> None:
    world = World().ready()
    instruction = world.create_project(1)
    data = bytearray(bytes(instruction.data))
    at = 8 + codec.offset(CreateProject, "token_name")
    for length in (200, 2**31, 2**32 - 1):
        data[at : at + 4] = length.to_bytes(4, "little")
        assert world.send(Instruction(PROGRAM_ID, bytes(data), list(instruction.accounts))).error is not None


def test_a_closed_or_delegated_escrow_cannot_be_redirected() -> None:
    """Tokens that a third person sends into the escrow change nothing about who gets what."""
    world = World().ready().submitted(stake=10)
    escrow = world.pdas.proposal_escrow(0)
    account = world.svm.get_account(escrow)
    assert account is not None
    world.svm.set_account(
        escrow,
        Account(account.lamports, account.data[:64] + (13).to_bytes(8, "little") + account.data[72:], account.owner),
    )
    before = world.tokens(world.miner)
    world.run(world.claim_review(), world.approve())
    assert world.tokens(world.miner) == before + 10
    assert world.tokens(world.recipient) == 1


@pytest.mark.parametrize("version", [0, 3])
def test_both_images_run_the_whole_way(version: int) -> None:
    world = World(version=version).ready().submitted()
    world.run(world.claim_review(), world.approve())
    world.run(world.submit(4, number=1), world.claim_review(1))
    world.run(world.reject(1))
    world.run(world.token_account(world.verifier), world.claim_reward(), world.sell(3))
    assert world.project().current_best_aggregate_score == 2_100_000
    assert world.tokens(world.verifier) == 2


def test_errors_are_named_in_the_image() -> None:
    """Every code of the interface, by its name and message, is in the program's text."""
    from chain.program import image

    for kind in ERRORS.values():
        assert kind.__name__.encode() in image(), kind


def test_projects_do_not_mix() -> None:
    world = World().ready()
    world.create(1, base_price=5)
    world.run(world.buy(10**5), world.buy(10**5, number=1))
    hashes = (bytes(32), bytes(32), bytes(32), bytes(32))
    args = Submit(0, *hashes, 1, 1, world.miner.pubkey())
    honest = instruction_of(PROGRAM_ID, args, world.miner.pubkey(), proposal_id=0)
    other = world.pdas.mint(1)
    mixed = swapped(honest, place("submit", "mint"), other)
    mixed = swapped(
        mixed, place("submit", "miner_token_account"), associated_token_account(world.miner.pubkey(), other)
    )
    assert world.send(mixed).error is not None
    assert world.send(honest).error is None
    assert world.read(Project, world.pdas.project(0)).miner_pool_minted == 0
