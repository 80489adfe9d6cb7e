"""The one place through which all reads of accounts pass: each account proves that it is the one asked for.

Nothing a node says is trusted if it can be checked. An account of the program must belong to the program, start with
its kind's discriminator, decode, and lie at the address that its own ids derive; a project names its own token. A
mint and a token account must belong to the token program and name the authority, mint and holder asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from solders.pubkey import Pubkey
from solders.token.state import Mint, TokenAccount

from chain.errors import InvalidData
from chain.network.base import Account, Network, matches
from chain.program.accounts import (
    Claimable,
    GlobalConfig,
    Project,
    Proposal,
    SolVault,
    VerifierEntry,
    decode_account,
    discriminator_of,
)
from chain.program.addresses import SYSTEM_PROGRAM, TOKEN_PROGRAM, Pdas, associated_token_account
from chain.program.tokens import decode_mint, decode_token_account

_Kind = TypeVar("_Kind")
MANY = 20_000  # proposals that are asked for in one call: an answer of 15 MB
PAGE = 1_000  # proposals between two pieces of a longer reading
_DISTRUST = "Do not rely on this node: use another one with --rpc-url URL."
_ADDRESSES: Mapping[type, Callable[[Pdas, Any], Pubkey]] = {
    GlobalConfig: lambda pdas, record: pdas.config(),
    VerifierEntry: lambda pdas, record: pdas.verifier_entry(record.verifier),
    Project: lambda pdas, record: pdas.project(record.id),
    Proposal: lambda pdas, record: pdas.proposal(record.id),
    Claimable: lambda pdas, record: pdas.claimable(record.project_id, record.account),
    SolVault: lambda pdas, record: pdas.sol_vault(record.project_id),
}


@dataclass(frozen=True, slots=True)
class Malformed:
    """An account of the program that cannot be decoded, and why."""

    address: Pubkey
    size: int
    problem: str


@dataclass(frozen=True, slots=True)
class Listing(Generic[_Kind]):
    """The accounts of one kind with their addresses, and those marked as this kind that do not decode."""

    accounts: tuple[tuple[Pubkey, _Kind], ...]
    malformed: tuple[Malformed, ...]


def prove(pdas: Pdas, kind: type[_Kind], address: Pubkey, account: Account) -> _Kind:
    """What the program keeps at `address`; InvalidData if this is not an account of that kind and address."""
    if account.owner != pdas.program_id:
        raise InvalidData(
            f"The account {address} belongs to {account.owner}, not to the program {pdas.program_id}.", _DISTRUST
        )
    record = decode_account(kind, account.data)
    derived = _ADDRESSES[kind](pdas, record)
    if derived != address:
        raise InvalidData(
            f"The node answers for {address} with the {kind.__name__} of {derived}, another account.", _DISTRUST
        )
    if isinstance(record, Project) and record.mint != pdas.mint(record.id):
        raise InvalidData(
            f"Project {record.id} names the token {record.mint}, but its own is {pdas.mint(record.id)}.", _DISTRUST
        )
    return record


def read(network: Network, kind: type[_Kind], address: Pubkey) -> _Kind | None:
    """An account of the program, or None if there is none; InvalidData if it is another one or malformed."""
    account = network.account(address)
    if account is None or (account.owner == SYSTEM_PROGRAM and not account.data):  # lamports that anybody sent there
        return None
    return prove(Pdas(network.program_id), kind, address, account)


def read_all(network: Network, kind: type[_Kind], *memcmp: tuple[int, bytes]) -> Listing[_Kind]:
    """All accounts of a kind that hold each (offset, bytes), in one call."""
    wanted = [(0, discriminator_of(kind)), *memcmp]
    return _proved(network, kind, network.program_accounts(network.program_id, memcmp=wanted))


def _proved(network: Network, kind: type[_Kind], found: Sequence[tuple[Pubkey, Account]]) -> Listing[_Kind]:
    pdas = Pdas(network.program_id)
    accounts, malformed = [], []
    for address, account in found:
        try:
            accounts.append((address, prove(pdas, kind, address, account)))
        except InvalidData as error:
            malformed.append(Malformed(address, len(account.data), error.problem))
    return Listing(tuple(accounts), tuple(malformed))


def by_id(network: Network, ids: range) -> Iterator[list[tuple[int, Pubkey, Account | None]]]:
    """The accounts at the addresses of these proposals, in pages of at most PAGE, each (id, address, account)."""
    pdas = Pdas(network.program_id)
    for start in range(ids.start, ids.stop, PAGE):
        page = range(start, min(start + PAGE, ids.stop))
        addresses = [pdas.proposal(number) for number in page]
        yield list(zip(page, addresses, network.accounts(addresses), strict=True))


def read_proposals(network: Network, *memcmp: tuple[int, bytes]) -> Listing[Proposal]:
    """All proposals that hold each (offset, bytes): in one call, or by their ids where the program has over MANY."""
    config = read(network, GlobalConfig, Pdas(network.program_id).config())
    count = config.next_proposal_id if config else 0
    if count <= MANY:
        return read_all(network, Proposal, *memcmp)
    wanted = [(0, discriminator_of(Proposal)), *memcmp]
    found = [
        (address, account)
        for page in by_id(network, range(count))
        for _, address, account in page
        if account is not None and matches(account.data, None, wanted)
    ]
    return _proved(network, Proposal, found)


def read_mint(network: Network, project_id: int) -> Mint | None:
    """A project's token, or None if it does not exist; InvalidData if the node answers with another one."""
    pdas = Pdas(network.program_id)
    account = network.account(pdas.mint(project_id))
    if account is None:
        return None
    mint = _token_programs(pdas.mint(project_id), account, decode_mint)
    if mint.mint_authority != pdas.mint_authority(project_id):
        raise InvalidData(f"The token of project {project_id} is minted by {mint.mint_authority}.", _DISTRUST)
    return mint


def read_tokens(network: Network, owner: Pubkey, mint: Pubkey) -> TokenAccount | None:
    """An owner's associated token account, or None if it does not exist; InvalidData if it is another one."""
    address = associated_token_account(owner, mint)
    account = network.account(address)
    if account is None:
        return None
    found = _token_programs(address, account, decode_token_account)
    if (found.mint, found.owner) != (mint, owner):
        raise InvalidData(
            f"The node answers for {owner}'s account of the token {mint} with {found.owner}'s of {found.mint}.",
            _DISTRUST,
        )
    return found


def _token_programs(address: Pubkey, account: Account, decode: Callable[[bytes], _Kind]) -> _Kind:
    if account.owner != TOKEN_PROGRAM:
        raise InvalidData(f"The account {address} belongs to {account.owner}, not to the token program.", _DISTRUST)
    return decode(account.data)
