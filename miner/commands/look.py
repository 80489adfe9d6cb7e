"""`miner status`, `miner report`, `miner export`: what the miner's owner looks at. None of them changes a session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chain.commands.options import answer, home_option, json_option, open_connection

if TYPE_CHECKING:
    from chain.connection.opening import Connection
    from miner.journal.sessions import SessionFolder
    from miner.report.material import OnChain


def _which(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say which session is meant."""
    options = [
        home_option,
        click.option("--network", envvar="ARMLX_NETWORK", help="Only sessions on this network, or an RPC URL."),
        click.option("--project", type=click.IntRange(min=0), help="Only sessions of this project."),
        click.option("--session", metavar="NAME", help="The session of this name. [default: the only one]"),
        json_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


_chain_options = (
    click.option("--offline", is_flag=True, help="Do not ask the chain."),
    click.option("--irys", metavar="URL", envvar="ARMLX_IRYS", help="Irys node, where it is not the network's own."),
)


@click.command()
@_which
def status(home: Path, network: str | None, project: int | None, session: str | None, as_json: bool) -> None:
    """Show what the sessions under --home are doing, also while they mine.

    Trials, what was kept, the best so far, submissions and their state, spend, the last starts and where the records
    are. Nothing is locked and no chain is asked. Sessions that a newer one took the place of are shown by --session.
    """
    from miner.journal import sessions
    from miner.report.status import status as of

    if session is not None:
        found = [sessions.choose(home, network=network, project=project, session=session)]
    else:
        every = sessions.find(home, network=network, project=project)
        found = [entry for entry in every if not entry.until]
    shown = [of(entry) for entry in found]
    text = "\n\n".join(text for _, text in shown) or f"no session under {home / 'work'}; begin one with `miner run`"
    answer(as_json, [document for document, _ in shown], text)


@click.command()
@_which
@_chain_options[0]
@_chain_options[1]
@click.option(
    "--output", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="[default: in its folder]"
)
@click.option("--png", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Main chart as PNG, too.")
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
def report(
    home: Path,
    network: str | None,
    project: int | None,
    session: str | None,
    as_json: bool,
    offline: bool,
    irys: str | None,
    output: Path | None,
    png: Path | None,
    show: bool,
) -> None:
    """Write one HTML page on a session: val_bpb over trials, the track record, time, every trial with diff and log.

    The page stands alone: it loads nothing and runs no script. --json prints its numbers as well.
    """
    import webbrowser

    from common import extras
    from common.terminal import View
    from miner.journal import sessions
    from miner.report import material, page
    from miner.report import png as picture

    if png is not None:
        extras.need("matplotlib", "png", "--png")

    view = View(quiet=as_json)
    found = sessions.choose(home, network=network, project=project, session=session)
    chain = None if offline else _on_chain(found, home, network, irys, view.say)
    with view.step("reading journal, commits and logs"):
        gathered = material.gather(found, chain)
        document = page.build(gathered)
    output = output or found.folder / "report.html"
    _write(output, document.encode())
    if png is not None:
        with view.step("drawing the chart"):
            drawn = picture.progress(gathered.summary, gathered.about.token_name or found.name)
        _write(png, drawn)
    if show and not webbrowser.open(output.absolute().as_uri()):
        view.say(f"no browser could be opened here; the page is {output}", style="yellow")
    numbers = {
        "session": found.name,
        "page": str(output),
        "png": str(png) if png else None,
        "running": gathered.running,
        "summary": gathered.summary.as_json(),
        "chain": {**asdict(gathered.chain), "bests": [asdict(best) for best in gathered.chain.bests]},
        "spent_lamports": gathered.session.spent,
        "staked": gathered.session.staked,
        "about": asdict(gathered.about),
    }
    answer(as_json, numbers, f"{output}" + (f"\n{png}" if png else ""))


@click.command()
@_which
@_chain_options[0]
@_chain_options[1]
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
def export(
    home: Path,
    network: str | None,
    project: int | None,
    session: str | None,
    as_json: bool,
    offline: bool,
    irys: str | None,
    directory: Path,
) -> None:
    """Write results.tsv, trials.jsonl and network_state.json into DIR, as other OpenResearch clients read them.

    network_state.json holds the chain's best of now; --offline leaves it out.
    """
    from chain.errors import ChainError
    from miner.journal import sessions
    from miner.report.export import export as write
    from miner.report.export import network_state

    found = sessions.choose(home, network=network, project=project, session=session)
    state = None
    if not offline:
        try:
            with _open(home, _network(found, network), irys) as connection:
                state = network_state(connection, found.project)
        except ChainError as error:
            raise ChainError(error.problem, f"{error.cure} --offline exports without network_state.json.") from error
    paths = [str(path) for path in write(found, directory, state)]
    answer(as_json, {"session": found.name, "files": paths}, "\n".join(paths))


def _network(found: SessionFolder, given: str | None) -> str:
    """What to connect to: as given, as the session wrote it down, or as its folder is named."""
    from miner.journal import about

    return given or about.load(found.folder).network or found.network


def _open(home: Path, network: str, irys: str | None) -> Connection:
    """A connection to look through; ChainError where it would have to make an embedded ledger first."""
    from chain.errors import ChainError

    if network == "embedded" and not (home / "ledger.sqlite").exists():
        raise ChainError(f"There is no embedded ledger in {home}.", "Check --home.")
    return open_connection(network, home, irys)


def _on_chain(
    found: SessionFolder, home: Path, network: str | None, irys: str | None, say: Callable[[str], None]
) -> OnChain | None:
    """The chain's state; None, and said so, where it cannot be had."""
    from chain.errors import ChainError
    from miner.report import onchain

    try:
        with _open(home, _network(found, network), irys) as connection:
            return onchain.read(connection, found.project, found.wallet)
    except ChainError as error:
        say(f"the chain could not be read, the page shows what the session saw of it: {error.problem}")
        return None


def _write(path: Path, data: bytes) -> None:
    from common.files import write_atomic

    try:
        write_atomic(path, data)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}. Name another file.") from None


def register(group: click.Group) -> None:
    """Add the commands to the `miner` group."""
    for command in (status, report, export):
        group.add_command(command)
