"""Tells what a session does as it does it: to scripts, and to whoever wants to be notified. It hears the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from common.notify import Notifier, channels, keyless
from miner.context.context import SessionContext
from miner.journal.journal import Event, Session
from miner.report import events


@contextmanager
def told(context: SessionContext, tell: Callable[[Mapping[str, Any]], None] | None = None) -> Iterator[None]:
    """Until the block ends, `tell` gets each event of `miner.report.events`, and the owner's channels those that
    notify; the end waits a little for these."""
    settings, dashboard = context.connection.settings, context.dashboard
    found = channels(settings["notify_command"], settings["notify_webhook"], desktop=settings["notify_desktop"])
    where = {"project": context.project.id, "network": context.connection.network.name}
    folder = {"folder": str(context.folder)}
    with Notifier(found, lambda text: dashboard.say(text, "yellow")) as notifier:

        def hear(event: Event, session: Session) -> None:
            for one in events.told(event, session):
                whole = keyless({"event": one["event"], "at": one["at"], **where, **one})
                if tell is not None:
                    tell({**whole, **folder} if one["event"] in ("start", "stop") else whole)
                if one["event"] in events.NOTIFIED:
                    notifier.tell(events.words(whole), whole)

        context.journal.listeners.append(hear)
        try:
            yield
        finally:
            context.journal.listeners.remove(hear)
