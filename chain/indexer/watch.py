"""Watching a project: the node's log subscription while there is one, polling while there is none.

Rules:
- A subscription only makes things faster. What it reports is recorded at once; a step of the follower at its start,
  and every few seconds, finds what it missed, what vanished, and the times of what it reported.
- A subscription that is refused, silent to pings, or sends invalid messages is dropped, and retried after a
  growing, jittered pause. Until then the same steps are made by polling.
- A network that does not answer is reported once, not fatal, and retried.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from solders.pubkey import Pubkey
from solders.signature import Signature
from websockets.exceptions import InvalidURI, WebSocketException
from websockets.proxy import get_proxy
from websockets.sync.client import ClientConnection, connect
from websockets.uri import parse_uri

from chain.errors import ChainError, NetworkUnreachable
from chain.indexer.rules import Follower
from chain.indexer.store import IndexedEvent
from chain.network.base import Network, RpcError
from common.closing import Closing
from common.http import on_this_machine

OPEN_SECONDS: Final = 10.0
MAX_MESSAGE: Final = 4 << 20  # bytes
MAX_PAUSE: Final = 60.0  # seconds between tries to subscribe
BACKFILL: Final = 50  # transactions of old history read with each step
_FIRST_PAUSE, _WAKE_SECONDS, _MAX_LOGS = 1.0, 0.5, 100_000

Tell = Callable[[Sequence[IndexedEvent]], None]
Say = Callable[[str], None]


class Dropped(Exception):
    """There is no subscription, and why."""


@dataclass(frozen=True, slots=True)
class Notification:
    """A transaction as a subscription reports it."""

    signature: Signature
    slot: int
    failed: bool
    logs: tuple[str, ...]


def websocket_url(rpc_url: str) -> str:
    """Where a node with this RPC URL takes subscriptions: on the next port where one is named, as Solana's tools do."""
    parts = urlsplit(rpc_url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    user = parts.netloc.rpartition("@")[0]
    port = f":{parts.port + 1}" if parts.port else ""
    netloc = f"{user}@{host}{port}" if user else f"{host}{port}"
    return urlunsplit(("wss" if parts.scheme == "https" else "ws", netloc, parts.path, parts.query, ""))


def url_of(network: Network) -> str | None:
    """A network's websocket; None if there is none, as on the embedded one."""
    url = getattr(network, "url", None)
    return websocket_url(url) if isinstance(url, str) else None


class Subscription(Closing):
    """The logs of transactions that name a program, from the moment it is made. Raises Dropped."""

    def __init__(self, url: str, program: Pubkey, *, open_seconds: float = OPEN_SECONDS) -> None:
        try:
            self._socket: ClientConnection = connect(
                url,
                open_timeout=open_seconds,
                close_timeout=1,
                max_size=MAX_MESSAGE,
                compression=None,
                proxy=_proxy(url),
                legacy=True,  # a connection rather than a context manager
            )
        except (OSError, WebSocketException, InvalidURI, ValueError) as error:
            raise Dropped(f"{url} accepts no subscription: {_words(error)}") from None
        try:
            self._id = self._subscribe(program, open_seconds)
        except BaseException:
            self._socket.close()
            raise

    def _subscribe(self, program: Pubkey, seconds: float) -> int:
        params = [{"mentions": [str(program)]}, {"commitment": "confirmed"}]
        request = {"jsonrpc": "2.0", "id": 1, "method": "logsSubscribe", "params": params}
        deadline = time.monotonic() + seconds
        try:
            self._socket.send(json.dumps(request))
            while (left := deadline - time.monotonic()) > 0:
                match _json(self._socket.recv(timeout=left)):
                    case {"id": 1, "result": int(number)}:
                        return number
                    case {"id": 1, "error": {"message": str(message)}}:
                        raise Dropped(f"the node refuses: {message[:200]}")
        except (OSError, WebSocketException) as error:  # TimeoutError is an OSError
            raise Dropped(f"no answer to the subscription: {_words(error)}") from None
        raise Dropped("no answer to the subscription")

    def next(self, seconds: float) -> Notification | None:
        """The next notification; None if none came within `seconds`."""
        try:
            raw = self._socket.recv(timeout=max(0.0, seconds))
        except TimeoutError:
            return None
        except (OSError, WebSocketException) as error:
            raise Dropped(f"the connection broke: {_words(error)}") from None
        return parse_notification(raw, self._id)

    def close(self) -> None:
        """Hang up; closing twice is harmless."""
        self._socket.close()


def parse_notification(raw: str | bytes, subscription: int) -> Notification | None:
    """A message of a subscription; None for a message of another kind. Raises Dropped where it makes no sense."""
    match _json(raw):
        case {"method": "logsNotification", "params": {"subscription": number, "result": result}}:
            if number != subscription:
                return None
        case {"jsonrpc": "2.0"}:
            return None
        case _:
            raise Dropped("the node's message is not JSON-RPC")
    match result:
        case {"context": {"slot": int(slot)}, "value": {"signature": str(text), "logs": list(logs), **more}}:
            if (
                0 <= slot < 1 << 62
                and "err" in more
                and len(logs) <= _MAX_LOGS
                and all(isinstance(entry, str) for entry in logs)
            ):
                try:
                    return Notification(Signature.from_string(text), slot, more["err"] is not None, tuple(logs))
                except ValueError:
                    pass
    raise Dropped("the node's notification is malformed")


def watch(
    follower: Follower,
    tell: Tell,
    say: Say,
    *,
    url: str | None,
    every: float,
    stop: threading.Event,
    since: int | None = None,
) -> None:
    """Follow until `stop`; `tell` gets new events, `say` words about the connection.

    Polls every `every` seconds, and while a subscription to `url` stands makes a step that often. Old history is
    read along the way, back to `since`.
    """
    failures, again = 0, time.monotonic()
    step = _Step(follower, tell, say, since)
    while not stop.is_set():
        if url and time.monotonic() >= again:
            started = time.monotonic()
            try:
                with Subscription(url, follower.network.program_id) as subscription:
                    say(f"listening on {url}")
                    _listen(subscription, follower, tell, step, every, stop)
            except Dropped as error:
                failures = 1 if time.monotonic() - started > MAX_PAUSE else failures + 1
                pause = min(MAX_PAUSE, _FIRST_PAUSE * 2 ** min(failures - 1, 10)) * random.uniform(0.75, 1.25)
                again = time.monotonic() + pause
                say(f"{error}; polling every {every:g} s, next try in {pause:.0f} s")
        if not stop.is_set():
            step()
            stop.wait(every if not url else max(0.0, min(every, again - time.monotonic())))


def _listen(
    subscription: Subscription, follower: Follower, tell: Tell, step: _Step, every: float, stop: threading.Event
) -> None:
    due = time.monotonic()  # a step at once: for what came before the subscription stood
    while not stop.is_set():
        if time.monotonic() >= due:
            step()
            due = time.monotonic() + every
        heard = subscription.next(min(_WAKE_SECONDS, due - time.monotonic()))
        if heard is not None:
            tell(follower.heard(heard.signature, heard.slot, failed=heard.failed, logs=heard.logs))


class _Step:
    """One step of the follower; a network that does not answer is reported once."""

    def __init__(self, follower: Follower, tell: Tell, say: Say, since: int | None) -> None:
        self._follower, self._tell, self._say, self._since = follower, tell, say, since
        self._silent = False

    def __call__(self) -> None:
        try:
            self._tell(self._follower.sync())
            self._follower.backfill(BACKFILL, self._since)
        except (NetworkUnreachable, RpcError) as error:  # a node's refusal of a read is its trouble, not ours
            if not self._silent:
                self._say(f"{error.problem} Retrying.")
            self._silent = True
            return
        if self._silent:
            self._say("the network is back")
        self._silent = False


def catch_up(follower: Follower, say: Say, *, since: int | None = None) -> list[IndexedEvent]:
    """Read all history back to `since`, saying how far it is; gives the events that vanished.

    If interrupted, the next call continues from there.
    """
    vanished = [event for event in follower.sync() if event.removed]
    done = 0
    while True:
        before = follower.backlog(since)
        if before.done:
            return vanished
        left = follower.backfill(since=since)
        done += max(0, before.transactions - left.transactions)
        say(f"{done:,} transactions read, {left.transactions:,}{' or more' if left.unlisted else ''} left")
        if left == before:
            raise ChainError(
                f"{follower.network.name} lists {left.transactions:,} transactions that it does not return.",
                "Run the same command later, or ask another node; what was read is kept.",
            )


def _json(raw: str | bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise Dropped("the node's message is not JSON") from None


def _proxy(url: str) -> str | None:
    """The environment's proxy for a websocket, ALL_PROXY included, which the library overlooks."""
    host = urlsplit(url).hostname
    if on_this_machine(host) or proxy_bypass(host or ""):
        return None
    return get_proxy(parse_uri(url)) or getproxies().get("all")


def _words(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__
