"""`miner status`, `miner report`, `miner export`: reading sessions. None of them changes one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chain.commands import irys_option, project_option
from chain.commands.options import (
    NETWORK,
    Command,
    Whole,
    answer,
    grouped,
    home_to_read_option,
    json_option,
    open_connection,
    stoppable,
)
from common.waking import waking

if TYPE_CHECKING:
    from chain.connection.opening import Connection
    from miner.journal.sessions import SessionFolder
    from miner.report.material import OnChain

PORT = 8910  # of `miner report --serve`
ASK_SECONDS = 60.0  # between two looks of a served page at the chain


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
        home_to_read_option,
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


@click.command(
    cls=Command,
    examples=("miner report --open", "miner report --serve --open", "miner report --output page.html --png page.png"),
)
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
@click.option("--serve", is_flag=True, help="Serve the page to this machine until Ctrl-C; it refreshes itself.")
@click.option("--port", metavar="N", type=Whole(0, 65535), help="Port for --serve; 0 for any. [default: 8910]")
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
    serve: bool,
    port: int | None,
) -> None:
    """Write an HTML report of a session, or serve it.

    It shows val_bpb over trials, improvements, time, and every trial with its diff and log. The page loads
    nothing; its one script sorts and pages the table. --json also prints its numbers.
    """
    if serve and (output or png):
        raise click.UsageError("--serve writes no file: leave out --output and --png.")
    if port is not None and not serve:
        raise click.UsageError("--port belongs to --serve.")
    with waking(quiet=as_json):
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
    if serve:
        _serve(
            found,
            as_json,
            PORT if port is None else port,
            show,
            lambda say: None if offline else _on_chain(found, home, network, irys, say),
        )
        return
    chain = None if offline else _on_chain(found, home, network, irys, view.say)
    with view.step("reading journal, commits and logs"):
        gathered = material.gather(found, chain)
        document = page.build(gathered)
    output = output or found.folder / "report.html"
    _write(output, document.encode(), "--output")
    if png is not None:
        with view.step("drawing the chart"):
            drawn = draw(gathered.summary, gathered.about.token_name or found.name)
        _write(png, drawn, "--png")
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


def _serve(
    found: SessionFolder, as_json: bool, port: int, show: bool, ask: Callable[[Callable[[str], None]], OnChain | None]
) -> None:
    """Serve the report until Ctrl-C. The session is read again where its journal changed, the chain once a minute."""
    import threading
    import time
    import webbrowser
    from functools import lru_cache

    from common.terminal import View
    from miner.journal import journal
    from miner.report import live, material, page

    stoppable()
    view, said = View(quiet=as_json), set[str]()

    def minute() -> int:
        return int(time.monotonic() // ASK_SECONDS)

    @lru_cache(maxsize=1)
    def chain(_: int) -> OnChain | None:
        return ask(once)

    def once(text: str) -> None:
        if text not in said:
            view.say(text, style="yellow")
        said.add(text)

    def stamp() -> tuple[object, ...]:
        with contextlib.suppress(OSError):
            state = found.journal.stat()
            return state.st_mtime_ns, state.st_size, journal.is_held(found.journal), minute()
        return ()

    def build() -> str:
        return page.build(material.gather(found, chain(minute())), live=True)

    served = live.Page(build, stamp)
    served.current()  # what cannot be read is said now
    with live.serving(served, port) as url:
        answer(as_json, {"session": found.name, "url": url}, f"{url}\nCtrl-C stops it.")
        if show and not webbrowser.open(url):
            view.say(f"Cannot open a browser here. The page is {url}.", style="yellow")
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


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


def _write(path: Path, data: bytes, option: str) -> None:
    from common.files import write_atomic

    try:
        write_atomic(path, data)
    except OSError as error:
        raise click.ClickException(
            f"Cannot write {path}: {error.strerror}. Choose another file with {option}."
        ) from None


def register(group: click.Group) -> None:
    """Add the commands to the `miner` group."""
    for command in (status, report, export):
        group.add_command(command)
