"""The accounts' bytes, written: the product only reads them."""

from __future__ import annotations

from chain.program import codec
from chain.program.accounts import Claimable, GlobalConfig, Project, Proposal, SolVault, VerifierEntry, discriminator_of

SPACE = {GlobalConfig: 65, VerifierEntry: 49, Project: 606, Proposal: 355, Claimable: 57, SolVault: 17}
TOKEN_ACCOUNT_SPACE = 165


def encode_account(record: object) -> bytes:
    """An account's data, without the zeros that may follow."""
    return discriminator_of(type(record)) + codec.encode(record)
