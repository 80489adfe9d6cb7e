"""Watching a project's events."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chain.commands import project_option
from chain.commands.options import Command, Number, open_connection, reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chain.indexer.store import IndexedEvent

_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def _when(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """Seconds since 1970: of "all", of a duration before now, or of a date and time (UTC)."""
    if value is None or value == "all":
        return None if value is None else 0
    if match := re.fullmatch(r"([0-9]{1,6})([mhdw])", value):
        return max(0, int(datetime.now(UTC).timestamp()) - int(match[1]) * _UNITS[match[2]])
    try:
        time = datetime.fromisoformat(value)
        return max(0, int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()))
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{value!r} is not a valid time. Use all, 90m, 12h, 7d, 2w or 2026-05-31T12:00."
        ) from None


@click.command(
    cls=Command, examples=("chain watch", "chain watch --since 7d", "chain watch --once --json --network devnet")
)
@reading
@project_option("project_id", what="Project to watch.")
@click.option("--once", is_flag=True, help="Print the new events, then exit.")
@click.option(
    "--since",
    metavar="WHEN",
    callback=_when,
    help="First print past events from then on: all, 90m, 12h, 7d, 2w, or a date such as 2026-05-31.",
)
@click.option(
    "--every",
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    type=Number(0.1, 3600),
    help="Time between polls.",
)
@click.option("--websocket", metavar="URL", help="Subscribe at this address. [default: the RPC node's own]")
@click.option("--poll", is_flag=True, help="Poll only; do not subscribe.")
def watch(
    home: Path,
    network: str,
    as_json: bool,
    once: bool,
    since: int | None,
    every: float,
    websocket: str | None,
    poll: bool,
    project_id: int,
) -> None:
    """Print a project's events as they happen, until Ctrl-C.

    Events are kept in an index under --home: the next run first prints what it missed. Without --since, history from
    before the first run is indexed in the background and not printed; --once reads all of it and prints what the
    index did not have. With --json, each event is one line.

    An event whose fork was dropped is printed again as VANISHED ("removed": true).
    """
    import json
    import threading

    from chain.indexer.rules import Follower, index_path
    from chain.indexer.watch import catch_up, url_of
    from chain.indexer.watch import watch as follow
    from chain.pages import events
    from chain.pages.overview import meaning

    with open_connection(network, home) as connection:
        opened = connection.network
        try:
            with Follower(opened, project_id, index_path(home, opened), _words) as follower:
                follower.refresh()  # refuses an unknown project before any waiting
                meant = None if as_json else meaning(connection, follower.project)
                symbol = follower.project.token_symbol

                def tell(found: Sequence[IndexedEvent]) -> None:
                    for event in found:
                        click.echo(json.dumps(events.as_json(event)) if as_json else events.line(event, symbol, meant))

                if once or since is not None:
                    known = follower.index.last()
                    tell(catch_up(follower, _words, since=since))
                    new = follower.index.events(project_id, after=known)
                    tell(new if since is None else follower.events(since))
                if once:
                    return
                _words(f"watching project {project_id}, index {follower.index.path}; Ctrl-C stops")
                url = None if poll else websocket or url_of(opened)
                follow(follower, tell, _words, url=url, every=every, stop=threading.Event(), since=since)
        except KeyboardInterrupt:
            _words("Stopped. Run the same command to resume.")
            raise SystemExit(130) from None


def _words(words: str) -> None:
    click.echo(words, err=True)
