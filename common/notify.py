"""Messages to the owner of a long-running command: to a program, to a web address, on the desktop.

Off unless a channel is configured. A message is a sentence and the event behind it, nothing else. Delivery is in a
thread of its own, in order, bounded in time and number: what does not arrive is said once a channel and never stops
the work. Neither a channel's address nor a program's arguments appear in what is said, and of any URL in a message only
its host.
"""

from __future__ import annotations

import json
import os
import queue
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from common import processes
from common.closing import Closing
from common.errors import Refused
from common.text import hosts_only, printable

Event = Mapping[str, Any]
Channel = Callable[[str, Event], None]
Say = Callable[[str], None]

SECONDS: Final = 10.0  # that one delivery may take
CLOSING: Final = 15.0  # seconds that the end of the command waits for the rest
WAITING: Final = 100  # messages at most; what comes on top is dropped
TITLE: Final = "OpenResearch"
_APPLESCRIPT: Final = "on run argv\ndisplay notification (item 1 of argv) with title (item 2 of argv)\nend run"


class Undelivered(Refused):
    """A message that did not arrive."""


class Notifier(Closing):
    """Sends messages to `channels`, by name; `say` hears once of each what fails. Closing waits for what is queued."""

    def __init__(self, channels: Mapping[str, Channel], say: Say) -> None:
        self._channels, self._say, self._failed = channels, say, set[str]()
        self._queue: queue.Queue[tuple[str, Event] | None] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None

    def tell(self, text: str, event: Event) -> None:
        """Queue a message; returns at once."""
        if not self._channels:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._deliver, name="notifications", daemon=True)
            self._thread.start()
        with suppress(queue.Full):
            self._queue.put_nowait((plain(text), keyless(event)))

    def close(self) -> None:
        """Wait for the queued messages, CLOSING seconds at most."""
        if self._thread is not None:
            with suppress(queue.Full):
                self._queue.put(None, timeout=CLOSING)
            self._thread.join(CLOSING)
            self._thread = None

    def _deliver(self) -> None:
        while (message := self._queue.get()) is not None:
            for name, channel in self._channels.items():
                try:
                    channel(*message)
                except Exception as error:  # whatever it is, it is not worth the work that goes on
                    if name not in self._failed:
                        self._failed.add(name)
                        why = error.problem if isinstance(error, Undelivered) else type(error).__name__
                        self._say(f"{name} failed ({why}); going on without it")


def channels(
    command: str | None, webhook: str | None, *, desktop: bool, platform: str = sys.platform
) -> dict[str, Channel]:
    """The channels that are configured, by the name of their setting."""
    found: dict[str, Channel] = {}
    if command:
        found["notify_command"] = _program(command)
    if webhook:
        found["notify_webhook"] = _webhook(webhook)
    if desktop:
        found["notify_desktop"] = lambda text, _: _run(shown(text, platform))
    return found


def plain(text: str) -> str:
    """A sentence of one line in which nothing calls people, opens a tag or holds a key, wherever it is shown."""
    return printable(hosts_only(text), 300).replace("<", "‹").replace(">", "›")


def keyless(event: Event) -> dict[str, Any]:
    """An event whose texts hold no more of a URL than its host."""
    return {name: hosts_only(value) if isinstance(value, str) else value for name, value in event.items()}


def body(text: str, event: Event) -> bytes:
    """What a webhook gets: the sentence under the names that Slack (`text`), Discord (`content`) and a template of ntfy
    look for, and the event."""
    quiet = {"parse": list[str]()}  # Discord: mentions in the text call nobody
    document = {"text": text, "content": text, "title": TITLE, "allowed_mentions": quiet, "event": dict(event)}
    return json.dumps(document).encode()


def shown(text: str, platform: str) -> list[str]:
    """The command line that shows a sentence on the desktop; the text is an argument, never code."""
    if platform == "darwin":
        return ["osascript", "-e", _APPLESCRIPT, text, TITLE]
    return ["notify-send", "--app-name", TITLE, "--", TITLE, text]


def _program(command: str) -> Channel:
    """A program that gets the event as a line of JSON on its standard input, and the sentence in ARMLX_TEXT."""

    def send(text: str, event: Event) -> None:
        line = json.dumps({**event, "text": text}) + "\n"
        _run(shlex.split(command), given=line, environment={**os.environ, "ARMLX_TEXT": text})

    return send


def _run(command: list[str], *, given: str = "", environment: Mapping[str, str] | None = None) -> None:
    name = os.path.basename(command[0]) if command else "nothing"
    if not command or shutil.which(command[0]) is None:
        raise Undelivered(f"{printable(name, 60)} was not found")
    try:
        done = processes.run(command, seconds=SECONDS, given=given.encode(), environment=environment, quiet=True)
    except subprocess.TimeoutExpired:
        raise Undelivered(f"{printable(name, 60)} took more than {SECONDS:.0f} s") from None
    if done.returncode:
        raise Undelivered(f"{printable(name, 60)} ended with status {done.returncode}")


def _webhook(url: str) -> Channel:
    """A POST of `body`; any answer below 300 will do."""

    def send(text: str, event: Event) -> None:
        from common.http import HttpClient

        headers = {"Content-Type": "application/json"}
        with HttpClient(unreachable=Undelivered, unusable=Undelivered, limit=SECONDS / 2, attempts=2) as client:
            try:
                reply = client.call("POST", url, body(text, event), headers=headers)
            except Undelivered:  # its words hold the address, which is a secret
                raise Undelivered("the address did not answer") from None
        if reply.status >= 300:
            raise Undelivered(f"the address answered {reply.status}")

    return send
