"""Options that every command shares, and how commands answer.

Results go to stdout, as text for people or with `--json` as one JSON document for scripts; progress
and refusals go to stderr. Exit status: 0 done, 1 refused, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def default_home() -> Path:
    """Where ledger, wallets, data and work trees live unless --home or ARMLX_HOME says otherwise."""
    import platformdirs

    return Path(platformdirs.user_data_dir("armlx", appauthor=False))


def _home(_: click.Context, __: click.Parameter, value: Path | None) -> Path:
    home = (value or default_home()).expanduser().absolute()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(
            f"The home folder {home} cannot be made: {error.strerror}. Choose another with --home."
        ) from None
    if not os.access(home, os.W_OK):
        raise click.ClickException(f"The home folder {home} is not writable. Choose another with --home.")
    return home


PASSPHRASE_FILE = "chain.passphrase_file"  # of a click context's `meta`, where `chain.passphrase.current` looks


def _passphrase_file(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    context.meta[PASSPHRASE_FILE] = value


passphrase_option = click.option(
    "--passphrase-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    callback=_passphrase_file,
    expose_value=False,
    help="Passphrase of the encrypted wallet that is used. [default: the OS keychain, else asked for]",
)

home_option = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="ARMLX_HOME",
    callback=_home,
    help="Folder of ledger, wallets, data and work trees. [env: ARMLX_HOME; default: your data folder]",
)
network_option = click.option(
    "--network",
    default="embedded",
    show_default=True,
    envvar="ARMLX_NETWORK",
    help="embedded (inside this process; nothing leaves the machine), localnet, devnet, mainnet or an RPC URL.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")


def common(command: Command) -> Command:
    """--home, --network, --json and --passphrase-file."""
    return home_option(network_option(json_option(passphrase_option(command))))


def answer(as_json: bool, document: Mapping[str, Any] | list[Any], text: str) -> None:
    """Print a result: the document for scripts, or the text for people."""
    click.echo(json.dumps(document, indent=2) if as_json else text)
