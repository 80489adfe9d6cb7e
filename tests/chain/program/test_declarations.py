"""The declarations against facts known from outside: discriminators, sizes, addresses, foreign libraries."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.pubkey import Pubkey
from solders.token.associated import get_associated_token_address
from solders.token.state import Mint, TokenAccount, TokenAccountState

from chain.errors import InvalidData, TransactionFailed
from chain.program import PROGRAM_ID, codec
from chain.program.accounts import (
    ACCOUNTS,
    GlobalConfig,
    Project,
    Proposal,
    ProposalStatus,
    decode_account,
    discriminator_of,
    offset_of,
)
from chain.program.addresses import RENT_SYSVAR, SYSTEM_PROGRAM, TOKEN_PROGRAM, Pdas, associated_token_account
from chain.program.codec import discriminator
from chain.program.errors import ERRORS, ProgramError, ScoreNotImproved, error_for
from chain.program.events import EVENTS, Bought, encode_event, parse_events
from chain.program.instructions import INSTRUCTIONS, AddVerifier, Approve, Expire, Reject, Sell, Submit, instruction_of
from chain.program.tokens import decode_mint, decode_token_account
from tests.chain.layout import encode_account

KEYS = [Pubkey.from_bytes(bytes([number]) * 32) for number in range(1, 9)]
CONFIG = GlobalConfig(KEYS[0], 3, 4, 1, 255)


def test_discriminators() -> None:
    assert INSTRUCTIONS[Submit].discriminator.hex() == "58a666b5a27faa30"
    assert discriminator_of(Project).hex() == "cda8bdcab5f78e13"
    assert len({kind.discriminator for kind in INSTRUCTIONS.values()}) == 15
    assert len({discriminator("event", kind.__name__) for kind in EVENTS}) == 17


def test_sizes_and_offsets() -> None:
    assert offset_of(Proposal, "project_id") == 16
    assert offset_of(Proposal, "status") == 352
    assert offset_of(Project, "mint") == 488
    with pytest.raises(ValueError, match="string"):
        offset_of(Project, "bump")


def test_an_account_comes_back_and_may_have_more_space() -> None:
    data = encode_account(CONFIG)
    assert decode_account(GlobalConfig, data) == CONFIG
    assert decode_account(GlobalConfig, data + bytes(100)) == CONFIG


@pytest.mark.parametrize("cut", [0, 7, 8, 30, 64])
def test_a_short_account_is_refused(cut: int) -> None:
    with pytest.raises(InvalidData):
        decode_account(GlobalConfig, encode_account(CONFIG)[:cut])


def test_an_account_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidData, match="not a Proposal"):
        decode_account(Proposal, encode_account(CONFIG) + bytes(400))


def test_addresses_against_foreign_facts() -> None:
    pdas = Pdas(PROGRAM_ID)
    seeds = [b"claim", (7).to_bytes(8, "little"), bytes(KEYS[0])]
    assert pdas.claimable(7, KEYS[0]) == Pubkey.find_program_address(seeds, PROGRAM_ID)[0]
    assert pdas.project_pool(2) == Pubkey.find_program_address([b"pool", b"\2" + bytes(7)], PROGRAM_ID)[0]
    assert associated_token_account(*KEYS[:2]) == get_associated_token_address(*KEYS[:2])
    with pytest.raises(InvalidData):
        pdas.project(2**64)


def test_submit_account_list() -> None:
    pdas, mint = Pdas(PROGRAM_ID), Pdas(PROGRAM_ID).mint(5)
    args = Submit(5, b"a" * 32, b"b" * 32, b"c" * 32, b"d" * 32, -1, 10, KEYS[1])
    instruction = instruction_of(PROGRAM_ID, args, KEYS[0], proposal_id=9)
    assert bytes(instruction.data) == bytes.fromhex("58a666b5a27faa30") + codec.encode(args)
    assert [(meta.pubkey, meta.is_signer, meta.is_writable) for meta in instruction.accounts] == [
        (KEYS[0], True, True),
        (pdas.config(), False, True),
        (pdas.project(5), False, False),
        (mint, False, False),
        (pdas.mint_authority(5), False, False),
        (pdas.proposal(9), False, True),
        (pdas.proposal_escrow(9), False, True),
        (get_associated_token_address(KEYS[0], mint), False, True),
        (TOKEN_PROGRAM, False, False),
        (SYSTEM_PROGRAM, False, False),
        (RENT_SYSVAR, False, False),
    ]


def test_whose_accounts() -> None:
    pdas = Pdas(PROGRAM_ID)
    rejected = instruction_of(PROGRAM_ID, Reject(2, bytes(32), bytes(32)), KEYS[0], project_id=1)
    assert rejected.accounts[8].pubkey == pdas.claimable(1, KEYS[0])
    assert rejected.accounts[1].pubkey == pdas.verifier_entry(KEYS[0])
    added = instruction_of(PROGRAM_ID, AddVerifier(KEYS[1]), KEYS[0])
    assert added.accounts[2].pubkey == pdas.verifier_entry(KEYS[1])
    sold = instruction_of(PROGRAM_ID, Sell(1, 1), KEYS[0])
    assert [meta.pubkey for meta in sold.accounts][2:5:2] == [
        pdas.mint(1),
        get_associated_token_address(KEYS[0], pdas.mint(1)),
    ]


@pytest.mark.parametrize(
    ("args", "lacking"),
    [
        (Submit(5, bytes(32), bytes(32), bytes(32), bytes(32), 1, 1, KEYS[1]), "proposal"),
        (Expire(2), "project"),
        (Reject(2, bytes(32), bytes(32)), "project"),
    ],
)
def test_what_the_arguments_do_not_say_must_be_given(args: object, lacking: str) -> None:
    with pytest.raises(TypeError, match=lacking):
        instruction_of(PROGRAM_ID, args, KEYS[0])
    with pytest.raises(TypeError, match="miner"):
        instruction_of(PROGRAM_ID, Approve(2, 1, bytes(32), bytes(32)), KEYS[0], project_id=1)


# --- events ---

EVENT = Bought(1, KEYS[0], 224_000, 1)
DATA = encode_event(EVENT)


def logs_of(*lines: str) -> list[str]:
    return [f"Program {PROGRAM_ID} invoke [1]", *lines, f"Program {PROGRAM_ID} success"]


def line(data: bytes) -> str:
    return "Program data: " + base64.b64encode(data).decode()


def test_events() -> None:
    other = KEYS[5]
    nested = [f"Program {other} invoke [2]", line(DATA), f"Program {other} success"]
    logs = logs_of("Program log: Instruction: Buy", *nested, line(DATA), line(b"unknown!" + DATA))
    assert parse_events(logs) == [EVENT]
    assert parse_events(logs, other) == [EVENT]
    assert parse_events(logs, KEYS[6]) == []


@pytest.mark.parametrize(
    "forged",
    [
        [line(DATA)],
        [f"Program {KEYS[5]} invoke [1]", line(DATA), f"Program {KEYS[5]} success"],
        [f"Program {KEYS[5]} invoke [1]", f"Program log: Program {PROGRAM_ID} invoke [2]", line(DATA)],
        [*logs_of(), line(DATA)],
        logs_of(f"Program log: {line(DATA)}"),
        [f"Program {PROGRAM_ID} invoke [1]", f"Program {PROGRAM_ID} failed: custom", line(DATA)],
    ],
)
def test_only_the_programs_own_events_count(forged: list[str]) -> None:
    assert parse_events(forged) == []


@pytest.mark.parametrize("bad", [line(DATA[:-1]), line(DATA + b"\0"), "Program data: ***", "Program data: a"])
def test_an_event_that_does_not_parse_is_refused(bad: str) -> None:
    with pytest.raises(InvalidData):
        parse_events(logs_of(bad))


# --- errors ---


def test_errors_are_all_there_and_typed() -> None:
    assert sorted(ERRORS) == list(range(6000, 6023))
    assert ERRORS[6012] is ScoreNotImproved
    refusal = error_for(6012)
    assert isinstance(refusal, ScoreNotImproved)
    assert isinstance(refusal, TransactionFailed)
    assert "6012" in refusal.problem
    assert all(kind.text and error_for(code).problem.endswith(".") for code, kind in ERRORS.items())


def test_the_programs_own_message_wins() -> None:
    logs = (
        "Program log: AnchorError occurred. Error Code: NotVerifier. Error Number: 6003. Error Message: Not you.",
        "Program log: AnchorError thrown in p.rs:3. Error Code: Y. Error Number: 6004. Error Message: No.",
    )
    refusal = error_for(6003, logs)
    assert refusal.problem == "The program refused it: Not you (NotVerifier, error 6003)."
    assert refusal.logs == logs


def test_an_unknown_code() -> None:
    refusal = error_for(2006)
    assert type(refusal) is ProgramError
    assert refusal.code == 2006


# --- tokens ---


def test_mint_and_token_account() -> None:
    mint = b"\1\0\0\0" + bytes(KEYS[0]) + (12).to_bytes(8, "little") + b"\0\1" + bytes(36)
    assert decode_mint(mint) == Mint(KEYS[0], 12, 0, True)
    account = bytes(KEYS[1]) + bytes(KEYS[2]) + (3).to_bytes(8, "little") + bytes(36) + b"\1" + bytes(56)
    assert decode_token_account(account) == TokenAccount(
        KEYS[1], KEYS[2], 3, None, TokenAccountState.Initialized, None, 0
    )
    for bad in (mint[:-1], mint + b"\0", bytes(82), b"\2" + mint[1:]):
        with pytest.raises(InvalidData):
            decode_mint(bad)
    for bad in (account[:-1], account + b"\0", bytes(165), account[:108] + b"\3" + account[109:]):
        with pytest.raises(InvalidData):
            decode_token_account(bad)


@given(st.binary(max_size=400), st.sampled_from(ACCOUNTS))
def test_hostile_bytes(data: bytes, kind: type) -> None:
    for content in (data, discriminator_of(kind) + data):
        try:
            decode_account(kind, content)
        except InvalidData:
            continue
        assert content[:8] == discriminator_of(kind)


def test_an_unknown_status_is_refused() -> None:
    blank = codec.decode(Proposal, bytes(347))[0]
    proposal = replace(blank, miner=KEYS[0], stake=5, status=ProposalStatus.EXPIRED, escrow_bump=253)
    data = bytearray(encode_account(proposal))
    assert decode_account(Proposal, bytes(data)) == proposal
    data[352] = 5
    with pytest.raises(InvalidData, match="ProposalStatus"):
        decode_account(Proposal, bytes(data))
