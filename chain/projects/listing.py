"""The program's accounts as they are: every kind decodes, and one that does not is told of, not stumbled over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from solders.pubkey import Pubkey

from chain.errors import InvalidData
from chain.network.base import Network
from chain.program.accounts import ACCOUNTS, Project, Proposal, decode_account, discriminator_of, offset_of

_Kind = TypeVar("_Kind")


@dataclass(frozen=True, slots=True)
class Malformed:
    """An account of the program that cannot be read, and why."""

    address: Pubkey
    size: int
    problem: str


@dataclass(frozen=True, slots=True)
class Listing(Generic[_Kind]):
    """The accounts of one kind with their addresses, and those that say they are of it but do not decode."""

    accounts: tuple[tuple[Pubkey, _Kind], ...]
    malformed: tuple[Malformed, ...]


def projects(network: Network) -> Listing[Project]:
    """All projects, by id."""
    found = read_all(network, Project)
    return Listing(tuple(sorted(found.accounts, key=lambda pair: pair[1].id)), found.malformed)


def proposals(network: Network, project_id: int) -> Listing[Proposal]:
    """All proposals of a project, by id."""
    found = read_all(network, Proposal, (offset_of(Proposal, "project_id"), project_id.to_bytes(8, "little")))
    return Listing(tuple(sorted(found.accounts, key=lambda pair: pair[1].id)), found.malformed)


def read_all(network: Network, kind: type[_Kind], *memcmp: tuple[int, bytes]) -> Listing[_Kind]:
    """All accounts of a kind that hold each (offset, bytes), in one call."""
    discriminator = (0, discriminator_of(kind))
    accounts, malformed = [], []
    for address, account in network.program_accounts(network.program_id, memcmp=[discriminator, *memcmp]):
        try:
            accounts.append((address, decode_account(kind, account.data)))
        except InvalidData as error:
            malformed.append(Malformed(address, len(account.data), error.problem))
    return Listing(tuple(accounts), tuple(malformed))


def decode(data: bytes) -> object:
    """An account of any of the program's kinds; InvalidData where it is none or malformed."""
    for kind in ACCOUNTS:
        if data[:8] == discriminator_of(kind):
            decoded: object = decode_account(kind, data)
            return decoded
    raise InvalidData(f"No kind of account of the program starts with {data[:8].hex() or 'nothing'}.")
