"""A node that answers with another account than the one asked for is refused, whatever it altered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from solders.pubkey import Pubkey
from solders.token.state import Mint, TokenAccount, TokenAccountState

from chain.errors import InvalidData
from chain.network.base import Account, matches, sol
from chain.network.reading import prove, read, read_all, read_mint, read_tokens
from chain.program import PROGRAM_ID
from chain.program.accounts import ACCOUNTS, Claimable, GlobalConfig, Project, Proposal, SolVault, VerifierEntry
from chain.program.addresses import SYSTEM_PROGRAM, TOKEN_PROGRAM, Pdas, associated_token_account
from tests import local
from tests.chain import live
from tests.chain.layout import encode_account

KEY, OTHER = Pubkey(bytes([7] * 32)), Pubkey(bytes([8] * 32))
PDAS = Pdas(PROGRAM_ID)
PROJECT = live.project(KEY, [(bytes(32), bytes(32))] * 2)
AT: list[tuple[Any, Pubkey]] = [
    (GlobalConfig(KEY, 1, 2, 3, 255), PDAS.config()),
    (VerifierEntry(KEY, 5, 254), PDAS.verifier_entry(KEY)),
    (PROJECT, PDAS.project(0)),
    (live.proposal(4), PDAS.proposal(4)),
    (Claimable(0, KEY, 7, 253), PDAS.claimable(0, KEY)),
    (SolVault(0, 252), PDAS.sol_vault(0)),
]
EACH = pytest.mark.parametrize(("record", "address"), AT, ids=[type(record).__name__ for record, _ in AT])


def account(data: bytes, owner: Pubkey = PROGRAM_ID) -> Account:
    return Account(10**7, owner, data, False, 0)


class Node:
    """Answers with these accounts, and with nothing for any other address."""

    program_id = PROGRAM_ID

    def __init__(self, accounts: dict[Pubkey, Account]) -> None:
        self._accounts = accounts

    def account(self, key: Pubkey) -> Account | None:
        return self._accounts.get(key)

    def program_accounts(self, program: Pubkey, *, memcmp: Sequence[tuple[int, bytes]]) -> list[tuple[Pubkey, Account]]:
        return [(key, a) for key, a in self._accounts.items() if matches(a.data, None, memcmp)]


def test_every_kind_is_here() -> None:
    assert {type(record) for record, _ in AT} == set(ACCOUNTS)


@EACH
def test_an_account_where_it_belongs(record: Any, address: Pubkey) -> None:
    data = encode_account(record)
    assert prove(PDAS, type(record), address, account(data)) == record
    assert prove(PDAS, type(record), address, account(data + bytes(20))) == record
    assert read(Node({}), type(record), address) is None  # type: ignore[arg-type]


@EACH
def test_any_other_account_is_refused(record: Any, address: Pubkey) -> None:
    kind, data = type(record), encode_account(record)
    other = next(a for r, a in AT if type(r) is not kind)
    for lie, words, at in (
        (account(data, OTHER), "belongs to", address),
        (account(data, SYSTEM_PROGRAM), "belongs to", address),
        (account(data[:-1]), "ends at byte", address),
        (account(b"12345678" + data[8:]), "not a", address),
        (account(data), "another account", other),
    ):
        with pytest.raises(InvalidData, match=words):
            read(Node({at: lie}), kind, at)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("record", "lie"),
    [
        (VerifierEntry(KEY, 5, 254), {"verifier": OTHER}),
        (PROJECT, {"id": 1}),
        (PROJECT, {"mint": OTHER}),
        (live.proposal(4), {"id": 5}),
        (Claimable(0, KEY, 7, 253), {"project_id": 1}),
        (Claimable(0, KEY, 7, 253), {"account": OTHER}),
        (SolVault(0, 252), {"project_id": 1}),
    ],
)
def test_an_id_that_is_not_the_addresss_is_refused(record: Any, lie: dict[str, object]) -> None:
    address = next(a for r, a in AT if r == record)
    with pytest.raises(InvalidData):
        prove(PDAS, type(record), address, account(encode_account(replace(record, **lie))))


def test_lamports_that_somebody_sent_ahead_are_no_account() -> None:
    node = Node({PDAS.project(0): account(b"", SYSTEM_PROGRAM)})
    assert read(node, Project, PDAS.project(0)) is None  # type: ignore[arg-type]


def test_a_listing_goes_on_past_what_cannot_be_read() -> None:
    good, moved, broken = (encode_account(live.proposal(n)) for n in (1, 2, 3))
    found = read_all(
        Node({PDAS.proposal(1): account(good), OTHER: account(moved), PDAS.proposal(3): account(broken[:-9])}),  # type: ignore[arg-type]
        Proposal,
    )
    assert [record.id for _, record in found.accounts] == [1]
    assert [entry.address for entry in found.malformed] == [OTHER, PDAS.proposal(3)]


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (account(bytes(Mint(PDAS.mint_authority(0), 5, 0, True)), OTHER), "token program"),
        (account(bytes(Mint(PDAS.mint_authority(1), 5, 0, True)), TOKEN_PROGRAM), "minted by"),
        (account(bytes(Mint(None, 5, 0, True)), TOKEN_PROGRAM), "minted by"),
        (account(bytes(81), TOKEN_PROGRAM), "not a token mint"),
    ],
)
def test_another_mint(lie: Account, words: str) -> None:
    with pytest.raises(InvalidData, match=words):
        read_mint(Node({PDAS.mint(0): lie}), 0)  # type: ignore[arg-type]


def tokens(mint: Pubkey, owner: Pubkey) -> bytes:
    return bytes(TokenAccount(mint, owner, 9, None, TokenAccountState.Initialized, None, 0))


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (account(tokens(PDAS.mint(0), KEY), OTHER), "token program"),
        (account(tokens(PDAS.mint(1), KEY), TOKEN_PROGRAM), "answers for"),
        (account(tokens(PDAS.mint(0), OTHER), TOKEN_PROGRAM), "answers for"),
        (account(bytes(10), TOKEN_PROGRAM), "not a token account"),
    ],
)
def test_another_token_account(lie: Account, words: str) -> None:
    address, mint = associated_token_account(KEY, PDAS.mint(0)), PDAS.mint(0)
    honest = Node({address: account(tokens(mint, KEY), TOKEN_PROGRAM)})
    assert read_tokens(honest, KEY, mint) is not None  # type: ignore[arg-type]
    with pytest.raises(InvalidData, match=words):
        read_tokens(Node({address: lie}), KEY, mint)  # type: ignore[arg-type]


def test_everything_that_the_program_wrote_proves_itself(tmp_path: Path) -> None:
    with local.connect(local.home_with_project(tmp_path)) as connection:
        local.propose(connection)
        network = connection.network
        found = [len(read_all(network, kind).accounts) for kind in ACCOUNTS]
        assert not any(read_all(network, kind).malformed for kind in ACCOUNTS)
    assert found == [1, 1, 1, 1, 0, 1]


@pytest.mark.parametrize(
    ("lamports", "text"),
    [
        (0, "0 SOL"),
        (1, "0.000000001 SOL"),
        (10**9, "1 SOL"),
        (10**14 - 5 * 10**8, "99,999.5 SOL"),
        (10**11, "100 SOL"),
        (-1, "−0.000000001 SOL"),
    ],
)
def test_an_amount_in_a_sentence(lamports: int, text: str) -> None:
    assert sol(lamports) == text
