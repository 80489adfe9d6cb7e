"""What commands share: their help pages, their common options, and how they print results.

Results go to stdout, as text for people or with `--json` as one JSON document for scripts; progress
and errors go to stderr. Exit status: 0 done, 1 refused, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import json
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from click.exceptions import NoSuchCommand

from common.errors import Refused
from common.text import printable

if TYPE_CHECKING:
    from chain.connection.config import Settings
    from chain.connection.opening import Connection
    from chain.wallet.passphrase import Source

Function = Callable[..., Any]

# Headings of a help page. A command's own options stand first, under "Options"; these follow in this order.
STOPPING = "When to stop"
PROPOSERS = "Proposer options"
EXECUTORS = "Executor options"
NETWORK = "Network options"
WALLET = "Wallet options"
GENERAL = "General options"
_OWN_HEADING = "Options"
_OPEN_RANGE = re.compile(r"  \[x>=?[01]\]|; x>=?[01](?=\])")  # says no more than the metavar
_HEADINGS = (_OWN_HEADING, STOPPING, PROPOSERS, EXECUTORS, NETWORK, WALLET, GENERAL)


_FULL = "Free some space, then run the command again."
_DENIED = "Make it accessible to you, or choose another place."
_CURES: Mapping[int, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _DENIED),
}


def _bounds(kind: click.IntRange | click.FloatRange) -> str:
    low, high = kind.min, kind.max
    least = "" if low is None else f" above {low:,}" if kind.min_open else f" of at least {low:,}"
    most = "" if high is None else f" and at most {high:,}" if least else f" of at most {high:,}"
    return least + most


class Whole(click.IntRange):
    """A whole number within bounds; a refusal says which, and what was given."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        with contextlib.suppress(click.BadParameter):
            return super().convert(value, param, ctx)
        what = f"give a whole number{_bounds(self)}, not {printable(str(value), 80)!r}."
        raise click.BadParameter(what, ctx, param)


class Number(click.FloatRange):
    """A number within bounds; a refusal says which, and what was given."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        with contextlib.suppress(click.BadParameter):
            found: float = super().convert(value, param, ctx)
            if math.isfinite(found):
                return found
        raise click.BadParameter(f"give a number{_bounds(self)}, not {printable(str(value), 80)!r}.", ctx, param)


class GroupedOption(click.Option):
    """An option shown under a heading of its own in the help page."""

    def __init__(self, *names: Any, heading: str, **attributes: Any) -> None:
        super().__init__(*names, **attributes)
        self.heading = heading


def grouped(heading: str, *names: str, **attributes: Any) -> Callable[[Any], Any]:
    """`click.option`, shown under `heading`."""
    return click.option(*names, cls=GroupedOption, heading=heading, **attributes)


class Command(click.Command):
    """A command whose refusals become one line on stderr and exit status 1.

    `examples` are command lines, shown before the options, which are grouped under headings. `stopped` is said after
    Ctrl-C, wherever it comes; the exit status is then 130.
    """

    help_heading = GENERAL

    def __init__(
        self, *arguments: Any, examples: tuple[str, ...] = (), stopped: str = "Stopped.", **attributes: Any
    ) -> None:
        super().__init__(*arguments, **attributes)
        self.examples, self.stopped = examples, stopped

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        """Read the arguments."""
        with self._stopping():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        with self._stopping():
            try:
                return super().invoke(ctx)
            except Refused as refusal:
                raise click.ClickException(refusal.message) from refusal

    @contextlib.contextmanager
    def _stopping(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            click.echo(f"\n{self.stopped}", err=True)
            raise click.exceptions.Exit(130) from None

    def main(self, *arguments: Any, **more: Any) -> Any:
        """Run it as a program; what the file system refuses ends in one line as well, also while help is printed."""
        try:
            return super().main(*arguments, **more)
        except OSError as error:
            if not more.get("standalone_mode", True):
                raise
            _forget_stdout()
            click.echo(f"Error: {_in_words(error)}", err=True)
            raise SystemExit(1) from error

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The description, then the examples."""
        super().format_help_text(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own options, then the shared ones by heading."""
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in _HEADINGS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record:
                heading = getattr(
                    parameter, "heading", self.help_heading if "--help" in parameter.opts else _OWN_HEADING
                )
                sections[heading].append((record[0], _OPEN_RANGE.sub("", record[1])))
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def _in_words(error: OSError) -> str:
    """A failure of the file system as one line with its cure."""
    name = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else error.filename
    where = f"{printable(str(name))}: " if name is not None else ""
    return f"{where}{error.strerror or error}. {_CURES.get(error.errno or 0, '')}".strip()


def _forget_stdout() -> None:
    """What stdout could not take must not fail once more at the very end."""
    with contextlib.suppress(AttributeError, ValueError):  # it is closed, or a test's
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Commands(Command, click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type
    help_heading = _OWN_HEADING

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self._lazy: dict[str, str] = {}

    def add_lazy(self, name: str, module: str) -> None:
        """Add the command `name` of a module, which is imported once the command is asked for."""
        self._lazy[name] = module

    def all_commands(self) -> dict[str, click.Command]:
        """Every command by its name, imported."""
        context = click.Context(self)
        found = {name: self.get_command(context, name) for name in self.list_commands(context)}
        return {name: command for name, command in found.items() if command is not None}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in order."""
        return sorted({*super().list_commands(ctx), *self._lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported where it was not yet."""
        if cmd_name in self._lazy:
            found = getattr(importlib.import_module(self._lazy.pop(cmd_name)), cmd_name)
            self.add_command(found, cmd_name)
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command asked for; a name that is none is answered with those like it, imported or not."""
        try:
            return super().resolve_command(ctx, args)
        except NoSuchCommand as error:
            raise NoSuchCommand(error.command_name, possibilities=self.list_commands(ctx), ctx=ctx) from None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands, then the options."""
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)


def program(name: str) -> Callable[[Function], Commands]:
    """The root group of the program `name`: -h, --version, and how to get shell completion."""
    completion = (
        f'Shell completion: eval "$(_{name.upper()}_COMPLETE=bash_source {name})" in ~/.bashrc; '
        "zsh_source and fish_source work too."
    )

    def decorated(function: Function) -> Commands:
        settings = {"help_option_names": ["-h", "--help"]}
        return click.group(name, cls=Commands, epilog=completion, context_settings=settings)(versioned(function))

    return decorated


def _home_to_read(_: click.Context, __: click.Parameter, value: Path | None) -> Path:
    if value is None:
        from chain.connection import config

        value = config.home()
    return value.expanduser().absolute()


def _home(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path:
    home = _home_to_read(context, parameter, value)
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(
            f"The home folder {home} cannot be created: {error.strerror}. Choose another with --home."
        ) from None
    if not os.access(home, os.W_OK):
        raise click.ClickException(f"The home folder {home} is not writable. Choose another with --home.")
    return home


_PASSPHRASE_FILE, _SETTINGS = "chain.passphrase_file", "chain.settings"  # in a command's click context


def _passphrase_file(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    context.meta[_PASSPHRASE_FILE] = value


passphrase_option = grouped(
    WALLET,
    "--passphrase-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    callback=_passphrase_file,
    expose_value=False,
    help="Read the passphrase of an encrypted wallet from FILE. [default: the OS keychain, then a prompt]",
)

home_option, home_to_read_option = (
    grouped(
        GENERAL,
        "--home",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="ARMLX_HOME",
        callback=callback,
        help="Folder for the ledger, wallets, data and work trees. [env: ARMLX_HOME; default: your data folder]",
    )
    for callback in (_home, _home_to_read)  # the second neither makes it nor needs to write there
)
json_option = grouped(GENERAL, "--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")


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
    help="Print the version of this client and of the program interface, then exit.",
)


def _showing(context: click.Context, _: click.Parameter, value: bool) -> bool:
    # No other argument is required then.
    context.resilient_parsing |= value
    return value


_NETWORK_OPTIONS = (
    grouped(
        NETWORK,
        "--network",
        metavar="NAME|URL",
        help="embedded (inside this process), localnet, devnet, mainnet, a network from your armlx.toml, or an RPC "
        "URL. [env: ARMLX_NETWORK; default: embedded]",
    ),
    grouped(NETWORK, "--rpc-url", metavar="URL", help="Use another RPC node of that network. [env: ARMLX_RPC_URL]"),
    grouped(
        NETWORK,
        "--commitment",
        type=click.Choice(["processed", "confirmed", "finalized"]),
        help="How final a transaction or an account must be. [env: ARMLX_COMMITMENT; default: confirmed]",
    ),
)
_SPENDING_OPTIONS = (
    grouped(
        WALLET,
        "--priority-fee",
        metavar="MICROLAMPORTS|auto",
        help="Price offered per compute unit; auto follows recent fees. [env: ARMLX_PRIORITY_FEE; default: 0]",
    ),
    grouped(
        WALLET,
        "--max-spend",
        metavar="SOL",
        help="Most that this command may spend in total, fees and rent included. Required on mainnet. "
        "[env: ARMLX_MAX_SPEND]",
    ),
)
_show_config_option = grouped(
    GENERAL,
    "--show-config",
    is_flag=True,
    is_eager=True,
    callback=_showing,
    help="Print every setting in force and where it comes from, then exit.",
)
_OWN = ("rpc_url", "commitment", "priority_fee", "max_spend")  # of use to the connection alone


def reading(command: Function) -> Function:
    """Options of commands that only read a network: --network and what belongs to it, --home, --json.

    The command gets `home`, `network` and `as_json`. `chain.connection.config` decides between flags, environment
    and files; `open_connection` goes by what it decided.
    """
    return _shared(command, *_NETWORK_OPTIONS)


def reading_records(command: Function) -> Function:
    """`reading`'s options, of a command that can do with a home that it may not write to."""
    return _shared(command, *_NETWORK_OPTIONS, home=home_to_read_option)


def signing(command: Function) -> Function:
    """Options of commands that need a wallet and send no transaction: `reading`'s and --passphrase-file."""
    return _shared(command, *_NETWORK_OPTIONS, passphrase_option)


def common(command: Function) -> Function:
    """Options of commands that send transactions: `signing`'s, --priority-fee and --max-spend."""
    return _shared(command, *_NETWORK_OPTIONS, passphrase_option, *_SPENDING_OPTIONS)


def _shared(command: Function, *options: Callable[[Any], Any], home: Callable[[Any], Any] = home_option) -> Function:
    @functools.wraps(command)
    def run(*, show_config: bool, **values: Any) -> Any:
        context = click.get_current_context()
        settings = context.meta[_SETTINGS] = _settings(context)
        if show_config:
            return answer(values["as_json"], settings.as_json(), settings.text())
        kept = {name: value for name, value in values.items() if name not in _OWN}
        return command(**kept | {"network": settings.network})

    for option in reversed((*options, home, json_option, _show_config_option)):
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


def current_settings() -> Settings:
    """The running command's settings, of a command with `reading`'s options or more."""
    settings: Settings = click.get_current_context().meta[_SETTINGS]
    return settings


def _typed(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def stoppable() -> None:
    """Make SIGTERM stop a long command as Ctrl-C does, and SIGINT too if the shell ignores it (a job with &)."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def agrees(question: str) -> bool:
    """Ask yes or no on a terminal; False if nobody can answer."""
    return sys.stdin.isatty() and click.confirm(question, err=True)


def answer(as_json: bool, document: Mapping[str, Any] | list[Any], text: str) -> None:
    """Print a result: the document for scripts, or the text for people."""
    if sys.stdout is None:
        raise click.ClickException("The result cannot be printed: standard output is closed.")
    click.echo(json.dumps(document, indent=2) if as_json else text)
