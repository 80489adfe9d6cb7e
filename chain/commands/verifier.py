"""`chain verifier`: the program's allowlist."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from chain.commands import address_of, connected, keypair_option
from chain.commands.options import Commands, answer, common


@click.group(cls=Commands)
def verifier() -> None:
    """Change the allowlist of verifiers (authority only)."""


def _allowlist(command: Callable[..., Any]) -> Callable[..., Any]:
    return common(keypair_option("authority")(click.argument("address")(command)))


@verifier.command("add", examples=("chain verifier add verifier", "chain verifier add 9xQe…VFin --network localnet"))
@_allowlist
def verifier_add(home: Path, network: str, as_json: bool, keypair: str | None, address: str) -> None:
    """Add ADDRESS to the allowlist of verifiers.

    ADDRESS is a public key, or the name of a wallet.
    """
    _change_allowlist(home, network, as_json, keypair, address, add=True)


@verifier.command("remove", examples=("chain verifier remove verifier",))
@_allowlist
def verifier_remove(home: Path, network: str, as_json: bool, keypair: str | None, address: str) -> None:
    """Remove ADDRESS from the allowlist of verifiers.

    ADDRESS is a public key, or the name of a wallet.
    """
    _change_allowlist(home, network, as_json, keypair, address, add=False)


def _change_allowlist(home: Path, network: str, as_json: bool, keypair: str | None, address: str, *, add: bool) -> None:
    from chain.connection.opening import AUTHORITY
    from chain.program.instructions import AddVerifier, RemoveVerifier

    with connected(network, home) as connection:
        key = address_of(home, address)
        authority = connection.wallet(keypair, AUTHORITY)
        done = connection.client.call(AddVerifier(key) if add else RemoveVerifier(key), authority)
        answer(
            as_json,
            {"verifier": str(key), "registered": add, "signature": str(done.receipt.signature)},
            f"{key} is {'now' if add else 'no longer'} a verifier",
        )
