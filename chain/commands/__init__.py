"""The subcommands of `chain`, one module per group, and the options they share.

An amount is in SOL, or exact with --lamports; a project is `--project ID`; a key is `--keypair NAME|FILE`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chain.commands.options import NETWORK, WALLET, Function, Whole, grouped, open_connection

if TYPE_CHECKING:
    from solders.pubkey import Pubkey

    from chain.connection.opening import Connection

irys_option = grouped(
    NETWORK,
    "--irys",
    metavar="URL",
    envvar="ARMLX_IRYS",
    help="Use this Irys node instead of the network's own. [env: ARMLX_IRYS]",
)


def keypair_option(role: str) -> Callable[[Any], Any]:
    """--keypair, by default the home's wallet for a role."""
    words = f"Wallet name or keypair file to sign with. [default: {role}]"
    return grouped(WALLET, "--keypair", metavar="NAME|FILE", help=words)


def project_option(*names: str, what: str = "Project ID.", **attributes: Any) -> Callable[[Any], Any]:
    """--project ID; the first project of the network unless `attributes` say otherwise."""
    settings = {"default": 0, "show_default": True} | attributes
    return click.option("--project", *names, metavar="ID", type=Whole(0), help=what, **settings)


class Sol(click.ParamType[int]):
    """An amount in SOL, at most nine decimals; a command gets lamports."""

    name = "SOL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Lamports, at least 1."""
        try:
            exact = Decimal(value) * 10**9
            fits = 1 <= exact < 2**63 and exact == int(exact)
        except ArithmeticError:
            fits = False
        if not fits:
            self.fail(f"{value!r} is not an amount in SOL (for example 0.05).", param, ctx)
        return int(exact)


def amount(command: Function) -> Function:
    """[SOL] and --lamports, handed to the command as one argument `lamports`, None if neither is given."""

    @functools.wraps(command)
    def run(*, sol: int | None, lamports: int | None, **values: Any) -> Any:
        if sol is not None and lamports is not None:
            raise click.UsageError("Give the amount either in SOL or as --lamports.")
        return command(lamports=sol if lamports is None else lamports, **values)

    exact = click.option(
        "--lamports", metavar="LAMPORTS", type=Whole(1), help="Exact amount in lamports, instead of SOL."
    )
    return click.argument("sol", type=Sol(), required=False)(exact(run))


@contextmanager
def connected(network: str, home: Path, irys: str | None = None) -> Iterator[Connection]:
    """A command's connection, closed when it ends."""
    with open_connection(network, home, irys) as connection:
        if network != "embedded":  # it takes a while there, and Ctrl-C does not take it back
            connection.client.note_send = lambda signature, _: click.echo(f"sending {signature}", err=True)
        yield connection


def address_of(home: Path, text: str) -> Pubkey:
    """A public key, from base58 or from the name or file of a wallet."""
    from solders.pubkey import Pubkey

    from chain.wallet import wallet

    try:
        return Pubkey.from_string(text)
    except ValueError:
        return wallet.look(wallet.locate(home, text)).address


def typed(expected: str, given: str | None, what: str) -> None:
    """Ask the user to type `expected`, unless --confirm gave it. ChainError if it differs."""
    from chain.errors import ChainError

    if given is None:
        click.echo(what, err=True)
        try:
            given = click.prompt(f"Type {expected} to continue", err=True, default="", show_default=False)
        except click.Abort:
            given = ""
    if given != expected:
        raise ChainError(
            "Cancelled. Nothing was sent.",
            f"To continue, type {expected} when asked, or add --confirm {expected}.",
        )
