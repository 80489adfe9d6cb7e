"""`chain verifier`: the program's allowlist."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from chain.commands import KEYPAIR, connected
from chain.options import answer, common


@click.group()
def verifier() -> None:
    """The program's allowlist of verifiers; only its authority may change it."""


def allowlist(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.argument("address")(command)
    return common(click.option("--keypair", help=KEYPAIR + " [default: authority]")(command))


@verifier.command("add")
@allowlist
def verifier_add(home: Path, network: str, as_json: bool, keypair: str | None, address: str) -> None:
    """Register ADDRESS (or a wallet's name) as a verifier."""
    _changeallowlist(home, network, as_json, keypair, address, add=True)


@verifier.command("remove")
@allowlist
def verifier_remove(home: Path, network: str, as_json: bool, keypair: str | None, address: str) -> None:
    """Take ADDRESS (or a wallet's name) off the allowlist."""
    _changeallowlist(home, network, as_json, keypair, address, add=False)


def _changeallowlist(home: Path, network: str, as_json: bool, keypair: str | None, address: str, *, add: bool) -> None:
    from solders.pubkey import Pubkey

    from chain import wallet as wallets
    from chain.session import AUTHORITY

    with connected(network, home) as connection:
        try:
            key = Pubkey.from_string(address)
        except ValueError:
            key = wallets.resolve(home, address).pubkey()
        authority = connection.wallet(keypair, AUTHORITY)
        change = connection.client.add_verifier if add else connection.client.remove_verifier
        done = change(authority, key)
        answer(
            as_json,
            {"verifier": str(key), "registered": add, "signature": str(done.receipt.signature)},
            f"{key} is {'now' if add else 'no longer'} a verifier",
        )
