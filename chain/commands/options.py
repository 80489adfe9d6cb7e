"""Options that every command shares, and how commands answer.

Results go to stdout, as text for people or with `--json` as one JSON document for scripts; progress
and refusals go to stderr. Exit status: 0 done, 1 refused, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from common.errors import Refused

if TYPE_CHECKING:
    from chain.connection.config import Settings
    from chain.connection.opening import Connection
    from chain.wallet.passphrase import Source

Command = Callable[..., Any]


class Refusing(click.Command):
    """A command whose refusals become one line on stderr and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        try:
            return super().invoke(ctx)
        except Refused as refusal:
            raise click.ClickException(refusal.message) from refusal


class Commands(Refusing, click.Group):
    """A group of such commands."""


def _home(_: click.Context, __: click.Parameter, value: Path | None) -> Path:
    if value is None:
        from chain.connection import config

        value = config.home()
    home = value.expanduser().absolute()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(
            f"The home folder {home} cannot be made: {error.strerror}. Choose another with --home."
        ) from None
    if not os.access(home, os.W_OK):
        raise click.ClickException(f"The home folder {home} is not writable. Choose another with --home.")
    return home


_PASSPHRASE_FILE, _SETTINGS = "chain.passphrase_file", "chain.settings"  # in a command's click context


def _passphrase_file(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    context.meta[_PASSPHRASE_FILE] = value


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


def _version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    from importlib.metadata import version

    from chain.program import INTERFACE, PROGRAM_ID

    click.echo(f"{context.find_root().command_path} {version('openresearch-miner')}")
    click.echo(f"OpenResearch program interface {INTERFACE}, program {PROGRAM_ID}")
    context.exit()


versioned = click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version of this client and of the program interface it speaks.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")


def _showing(context: click.Context, _: click.Parameter, value: bool) -> bool:
    # Then nothing else has to be given.
    context.resilient_parsing |= value
    return value


_NETWORK_OPTIONS = (
    click.option(
        "--network",
        metavar="NAME|URL",
        help="embedded (inside this process; nothing leaves the machine), localnet, devnet, mainnet, a network of "
        "your armlx.toml, or an RPC URL. [env: ARMLX_NETWORK; default: embedded]",
    ),
    click.option("--rpc-url", metavar="URL", help="Another RPC node of that network. [env: ARMLX_RPC_URL]"),
    click.option(
        "--commitment",
        type=click.Choice(["processed", "confirmed", "finalized"]),
        help="How settled a transaction and what is read must be. [env: ARMLX_COMMITMENT; default: confirmed]",
    ),
    click.option(
        "--priority-fee",
        metavar="MICROLAMPORTS|auto",
        help="Offered per compute unit; auto: what others paid lately. [env: ARMLX_PRIORITY_FEE; default: 0]",
    ),
    click.option(
        "--max-spend",
        metavar="SOL",
        help="Most that all transactions of this command may take from the wallet, fees and rent included; needed on "
        "mainnet. [env: ARMLX_MAX_SPEND]",
    ),
    click.option(
        "--show-config",
        is_flag=True,
        is_eager=True,
        callback=_showing,
        help="Print every value in force and where it comes from, and do nothing else.",
    ),
)
_OWN = ("rpc_url", "commitment", "priority_fee", "max_spend")  # of use to the connection alone


def common(command: Command) -> Command:
    """--home, --network with what belongs to it, --passphrase-file and --json.

    The command gets `home`, `network` and `as_json`. `chain.connection.config` decides between flags, environment
    and files; `open_connection` goes by what it decided.
    """

    @functools.wraps(command)
    def run(*, show_config: bool, **values: Any) -> Any:
        context = click.get_current_context()
        settings = context.meta[_SETTINGS] = _settings(context)
        if show_config:
            return answer(values["as_json"], settings.as_json(), settings.text())
        kept = {name: value for name, value in values.items() if name not in _OWN}
        return command(**kept | {"network": settings.network})

    for option in reversed((home_option, *_NETWORK_OPTIONS, passphrase_option, json_option)):
        run = option(run)
    return run


def _settings(context: click.Context) -> Settings:
    from chain.connection import config

    names = ("network", "irys", "keypair", *_OWN)
    typed = {name: context.params.get(name) for name in (*names, "home") if _typed(context, name)}
    settings = config.load({**typed, "home": str(typed["home"]) if "home" in typed else None})
    home = config.SettingValue(str(context.params["home"]), settings.found["home"].origin)
    return config.Settings({**settings.found, "home": home})


def passphrases() -> Source:
    """Where the running command's passphrases come from."""
    from chain.wallet.passphrase import Source

    return Source(click.get_current_context().meta.get(_PASSPHRASE_FILE), _ask if sys.stdin.isatty() else None)


def _ask(question: str, twice: bool) -> str:
    return str(click.prompt(question, hide_input=True, confirmation_prompt=twice, err=True))


def open_connection(network: str, home: Path, irys: str | None = None) -> Connection:
    """A connection as the running command's options say; to another network, as environment and files do."""
    from chain.connection import config
    from chain.connection.opening import Connection

    settings: Settings | None = click.get_current_context().meta.get(_SETTINGS)
    if settings is None or settings.network != network:
        settings = config.load({}, asked=network)
    return Connection(settings, home, irys=irys, passphrases=passphrases(), warn=_warn)


def _warn(problem: str) -> None:
    click.echo(f"warning: {problem}", err=True)


def _typed(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def stoppable() -> None:
    """Have SIGTERM end a long command as Ctrl-C does, and SIGINT too where a shell had it ignored (a job with &)."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def agrees(question: str) -> bool:
    """Ask yes or no on a terminal; False where nobody can answer."""
    return sys.stdin.isatty() and click.confirm(question, err=True)


def answer(as_json: bool, document: Mapping[str, Any] | list[Any], text: str) -> None:
    """Print a result: the document for scripts, or the text for people."""
    click.echo(json.dumps(document, indent=2) if as_json else text)
