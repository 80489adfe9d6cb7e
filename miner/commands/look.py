"""`miner status`, `miner report`, `miner export`: reading sessions. None of them changes one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chain.commands import irys_option, project_option
from chain.commands.options import NETWORK, Command, answer, grouped, home_option, json_option, open_connection

if TYPE_CHECKING:
    from chain.connection.opening import Connection
    from miner.journal.sessions import SessionFolder
    from miner.report.material import OnChain


def _which(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that select a session."""
    options = [
        project_option(what="Only sessions of this project.", default=None),
        click.option("--session", metavar="NAME", help="Only the session with this name. [default: the only one]"),
        grouped(
            NETWORK,
            "--network",
            metavar="NAME|URL",
            envvar="ARMLX_NETWORK",
            help="Only sessions on this network. [env: ARMLX_NETWORK]",
        ),
        home_option,
        json_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


_offline_option = click.option("--offline", is_flag=True, help="Do not query the chain.")


@click.command(cls=Command, examples=("miner status", "miner status --project 0 --network devnet --json"))
@_which
@_offline_option
def status(
    home: Path, network: str | None, project: int | None, session: str | None, as_json: bool, offline: bool
) -> None:
    """Show the progress of sessions, also of running ones.

    Trials, improvements, the best so far, submissions and their state, spending, recent starts, and the folder of the
    records. Nothing is locked. The chain is asked what became of proposals. Use --session to see one that a newer
    session replaced.
    """
    from miner.journal import sessions
    from miner.report.status import describe

    if session is not None:
        found = [sessions.choose(home, network=network, project=project, session=session)]
    else:
        every = sessions.find(home, network=network, project=project)
        found = [entry for entry in every if not entry.until]
    shown = [describe(entry, {} if offline else _fates(entry, home, network)) for entry in found]
    text = "\n\n".join(text for _, text in shown) or sessions.none(home, network, project).message
    answer(as_json, [document for document, _ in shown], text)


@click.command(cls=Command, examples=("miner report --open", "miner report --output report.html --png report.png"))
@_which
@_offline_option
@irys_option
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write. [default: report.html in the session's folder]",
)
@click.option(
    "--png", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Also write the main chart as PNG."
)
@click.option("--open", "show", is_flag=True, help="Open the page in a browser.")
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
    """Write an HTML report of a session.

    It shows val_bpb over trials, improvements, time, and every trial with its diff and log. The page loads
    nothing; its one script sorts and pages the table. --json also prints its numbers.
    """
    import webbrowser

    from common import extras
    from common.terminal import View
    from miner.journal import sessions
    from miner.proposers import usage
    from miner.report import material, page
    from miner.report.png import draw

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
            drawn = draw(gathered.summary, gathered.about.token_name or found.name)
        _write(png, drawn)
    if show and not webbrowser.open(output.absolute().as_uri()):
        view.say(f"Cannot open a browser here. The page is {output}.", style="yellow")
    numbers = {
        "session": found.name,
        "page": str(output),
        "png": str(png) if png else None,
        "running": gathered.running,
        "summary": gathered.summary.as_json(),
        "chain": {**asdict(gathered.chain), "bests": [asdict(best) for best in gathered.chain.bests]},
        "spent_lamports": gathered.session.spent,
        "staked": gathered.session.staked,
        "asked": usage.as_json(gathered.asked),
        "about": asdict(gathered.about),
    }
    answer(as_json, numbers, f"{output}" + (f"\n{png}" if png else ""))


@click.command(cls=Command, examples=("miner export results", "miner export results --offline"))
@_which
@_offline_option
@irys_option
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
    """Export a session for other OpenResearch clients.

    Writes results.tsv, trials.jsonl and network_state.json into DIR. The last one holds the current on-chain best;
    --offline omits it.
    """
    from chain.errors import ChainError
    from miner.journal import sessions
    from miner.report.export import network_state, write_files

    found = sessions.choose(home, network=network, project=project, session=session)
    state = None
    if not offline:
        try:
            with _open(home, _network(found, network), irys) as connection:
                state = network_state(connection, found.project)
        except ChainError as error:
            raise ChainError(error.problem, f"{error.cure} --offline exports without network_state.json.") from error
    paths = [str(path) for path in write_files(found, directory, state)]
    answer(as_json, {"session": found.name, "files": paths}, "\n".join(paths))


def _network(found: SessionFolder, given: str | None) -> str:
    """The network to query: as given, as recorded by the session, or by its folder's name."""
    from miner.journal import about

    return given or about.load(found.folder).network or found.network


def _open(home: Path, network: str, irys: str | None) -> Connection:
    """A connection to look through; ChainError if it would have to make an embedded ledger first."""
    from chain.errors import ChainError

    if network == "embedded" and not (home / "ledger.sqlite").exists():
        raise ChainError(f"There is no embedded ledger in {home}.", "Check --home.")
    return open_connection(network, home, irys)


def _on_chain(
    found: SessionFolder, home: Path, network: str | None, irys: str | None, say: Callable[[str], None]
) -> OnChain | None:
    """The chain's state; None, with a message, if it cannot be read."""
    from chain.errors import ChainError
    from miner.report import onchain

    try:
        with _open(home, _network(found, network), irys) as connection:
            return onchain.read(connection, found.project, found.wallet)
    except ChainError as error:
        say(f"Cannot read the chain; the page shows what the session last saw. {error.problem}")
        return None


def _fates(found: SessionFolder, home: Path, network: str | None) -> dict[int, str]:
    """What the chain says of a session's proposals; nothing, with a message, if it cannot be read."""
    from chain.errors import ChainError, NotFound
    from miner.report import onchain
    from miner.report.status import proposals

    numbers = proposals(found)[-onchain.MOST :]
    if not numbers:
        return {}
    try:
        with _open(home, _network(found, network), None) as connection:
            client, read = connection.client, []
            for number in numbers:
                with contextlib.suppress(NotFound):  # a local network that began anew
                    read.append(client.proposal(number))
            return onchain.fates(client, read, client.project(found.project))
    except ChainError as error:
        click.echo(f"Cannot read the chain; shown is what the session last saw. {error.problem}", err=True)
        return {}


def _write(path: Path, data: bytes) -> None:
    from common.files import write_atomic

    try:
        write_atomic(path, data)
    except OSError as error:
        raise click.ClickException(f"Cannot write {path}: {error.strerror}. Choose another file.") from None


def register(group: click.Group) -> None:
    """Add the commands to the `miner` group."""
    for command in (status, report, export):
        group.add_command(command)
