"""The subcommands of `chain`, a module per group, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chain.commands.options import open_connection

if TYPE_CHECKING:
    from solders.pubkey import Pubkey

    from chain.connection.opening import Connection

KEYPAIR = "Wallet by name, or a keypair file."
irys_option = click.option(
    "--irys", metavar="URL", envvar="ARMLX_IRYS", help="Irys node, where it is not the network's own."
)


def keypair_option(role: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--keypair, by default the home's wallet for a role."""
    return click.option("--keypair", metavar="NAME|FILE", help=f"{KEYPAIR} [default: {role}]")


@contextmanager
def connected(network: str, home: Path, irys: str | None = None) -> Iterator[Connection]:
    """A command's connection, closed when it ends."""
    with open_connection(network, home, irys) as connection:
        if network != "embedded":  # where it takes a while, and Ctrl-C does not call it back
            connection.client.note_send = lambda signature, _: click.echo(f"sending {signature}", err=True)
        yield connection


def address_of(home: Path, text: str) -> Pubkey:
    """A public key given in base58, or as the name or file of a wallet."""
    from solders.pubkey import Pubkey

    from chain.wallet import wallet

    try:
        return Pubkey.from_string(text)
    except ValueError:
        return wallet.look(wallet.locate(home, text)).address


def typed(expected: str, given: str | None, what: str) -> None:
    """Have the user type `expected`, or compare it with what --confirm gave. ChainError where it differs."""
    from chain.errors import ChainError

    if given is None:
        click.echo(what, err=True)
        try:
            given = click.prompt(f"Type {expected} to go on", err=True, default="", show_default=False)
        except click.Abort:
            given = ""
    if given != expected:
        raise ChainError(
            "That was not confirmed, and nothing was sent.",
            f"Type exactly {expected} when asked, or give --confirm {expected}.",
        )
