"""The addresses of the program and of those it uses, and what follows from seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from solders import system_program
from solders.pubkey import Pubkey
from solders.token.associated import get_associated_token_address

from chain.program.codec import pack_u64

SYSTEM_PROGRAM = system_program.ID
TOKEN_PROGRAM = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
ASSOCIATED_TOKEN_PROGRAM = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
METADATA_PROGRAM = Pubkey.from_string("metaqbxxUerdq28cj1RbAWkYQm3ybzjb6a8bt518x1s")
RENT_SYSVAR = Pubkey.from_string("SysvarRent111111111111111111111111111111111")
ZERO_KEY = Pubkey.default()

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
        return _derived(self.program_id, name, number, key)


@lru_cache(maxsize=4096)  # an account is asked for at its address and proves it again when it comes
def _derived(program_id: Pubkey, name: str, number: int, key: Pubkey) -> Pubkey:
    values = {b"id": pack_u64(number), b"key": bytes(key)}
    seeds = [values.get(seed, seed) for seed in _SEEDS[name]]
    return Pubkey.find_program_address(seeds, program_id)[0]


def token_metadata(mint: Pubkey) -> Pubkey:
    """The address of a mint's Metaplex metadata."""
    seeds = [b"metadata", bytes(METADATA_PROGRAM), bytes(mint)]
    return Pubkey.find_program_address(seeds, METADATA_PROGRAM)[0]


def associated_token_account(owner: Pubkey, mint: Pubkey) -> Pubkey:
    """The address of the owner's associated token account."""
    return get_associated_token_address(owner, mint, TOKEN_PROGRAM)
