"""HTTP to servers that nobody vouches for: bounded in time, bytes, attempts and redirects.

Rules:
 1. `limit` seconds bound one attempt as a whole: looking up the host, connecting, each byte both ways.
 2. An answer has at most `max_bytes`, and no compression: what a packed one becomes is not known before.
 3. Busy servers and broken connections are asked again after a growing, jittered pause, `attempts` times in all; any
    other status is the caller's to judge.
 4. A redirect is an answer like any other unless the caller lists hosts. Only a GET follows one, five at most, and
    never from TLS to none or from elsewhere onto this machine.
 5. Proxies that the environment names are used, except for a server on this machine.

Refusals are of the two classes that the caller names.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import os
import random
import re
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from common.closing import Closing
from common.errors import Refused
from common.files import replacing
from common.text import printable

if TYPE_CHECKING:  # loading it takes longer than many a command, and most of them ask nobody
    import httpx

USER_AGENT: Final = "openresearch-miner/0.1"
MAX_REPLY: Final = 1 << 20
"""Bytes of an answer that is not content: receipts, metadata, prices."""
ANY_HOST: Final = ("*",)
BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 522, 524})
"""Statuses after which the same request may succeed."""
_REDIRECTS = 5
_PIECE = 1 << 16
_CONNECT_SECONDS = 15.0  # at most; a host that is not there should not take as long as an answer may
_SECONDS = re.compile(r"\d{1,6}(\.\d{1,6})?", re.ASCII)
_LONGEST_PAUSE = 10.0  # seconds; 30 where the server asks for it
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def readable(body: bytes, limit: int = 200) -> str:
    """The beginning of `body` as one printable line of at most `limit` characters."""
    return printable(body[: 4 * limit].decode(errors="replace"), limit)


def on_this_machine(host: str | None) -> bool:
    """Whether a URL's host is this machine's loopback, by name or address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request; a `file` takes what a GET brings."""

    method: str
    url: str
    content: bytes | None
    headers: Mapping[str, str]
    max_bytes: int
    file: IO[bytes] | None = None


@dataclass(frozen=True, slots=True)
class HttpReply:
    """Status and whole body; `retry_after` in seconds, 0 where the server names none."""

    status: int
    body: bytes
    retry_after: float = 0.0

    @property
    def text(self) -> str:
        """The body as one printable line of at most 200 characters."""
        return readable(self.body)


class HttpClient(Closing):
    """Calls to any servers, one at a time; threads may share one. A context manager that closes its connections.

    `unreachable` is raised where no answer came, `unusable` where one is beyond the bounds. `timeout` bounds one
    connect (15 at most), read or write and `limit` one whole attempt, in seconds; `backoff` seconds is the first wait,
    doubled each time, that `sleep` does. `redirects` are the hosts that a GET may be sent on to: names,
    ".example.org" for all under it, or ANY_HOST.
    """

    def __init__(
        self,
        *,
        unreachable: type[Refused],
        unusable: type[Refused],
        limit: float,
        timeout: float | None = None,
        attempts: int = 1,
        backoff: float = 0.5,
        sleep: Callable[[float], None] = time.sleep,
        redirects: Collection[str] = (),
    ) -> None:
        self.attempts = attempts
        self._unreachable, self._unusable, self._redirects = unreachable, unusable, redirects
        self._limit, self._timeout = limit, max(0.001, limit if timeout is None else timeout)
        self._backoff, self._sleep = backoff, sleep
        self._guard = threading.Lock()
        self._runner: asyncio.Runner | None = None
        self._clients: dict[bool, httpx.AsyncClient] = {}

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        with self._guard:
            if self._runner is not None:
                for client in self._clients.values():
                    self._runner.run(client.aclose())
                self._runner.close()
            self._runner = None
            self._clients.clear()

    def call(
        self,
        method: str,
        url: str,
        content: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = MAX_REPLY,
    ) -> HttpReply:
        """One request with its retries; any status comes back, and only the last one's where retried."""
        return self._tried(_Asked(method, url, content, headers or {}, max_bytes))

    def save(self, url: str, path: Path, *, max_bytes: int) -> None:
        """GET `url` into `path`, whole or not at all; a status other than 200 is `unusable`."""
        with replacing(path) as file:
            reply = self._tried(_Asked("GET", url, None, {}, max_bytes, file))
            if reply.status != 200:
                raise self._unusable(f"{url} answered {reply.status}: {reply.text!r}.", "Check the address.")

    def _tried(self, asked: _Asked) -> HttpReply:
        import httpx

        hopeless = httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects, UnicodeError
        for attempt in itertools.count(1):
            final = attempt >= self.attempts
            wait = min(self._backoff * 2 ** (attempt - 1), _LONGEST_PAUSE) * random.uniform(0.5, 1.5)
            try:
                with self._guard:
                    self._runner = self._runner or asyncio.Runner()
                    reply = self._runner.run(self._bounded(asked))
                if final or reply.status not in BUSY:
                    break
                wait = max(wait, min(reply.retry_after, 3 * _LONGEST_PAUSE))
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
                if final or isinstance(error, hopeless):
                    again = f"; attempt {attempt}" if attempt > 1 else ""
                    raise self._unreachable(
                        f"{asked.url} did not answer ({_reason(error)}{again}).",
                        "Check the address and the network connection, then try again.",
                    ) from error
            self._sleep(wait)
        return reply

    async def _bounded(self, asked: _Asked) -> HttpReply:
        import httpx

        try:
            async with asyncio.timeout(self._limit):
                return await self._attempt(asked)
        except TimeoutError:
            raise httpx.ReadTimeout("the whole transfer took too long") from None
        except ExceptionGroup as group:  # what connecting raises for an address that no socket takes
            raise httpx.UnsupportedProtocol(str(group.exceptions[0])) from group

    async def _attempt(self, asked: _Asked) -> HttpReply:
        import httpx

        content, headers = asked.content, asked.headers
        if content is not None:
            kind = {"Content-Type": "application/octet-stream", "Content-Length": str(len(content))}
            headers = {**kind, **headers}
        target = httpx.URL(asked.url)
        request = self._client(target).build_request(
            asked.method, target, content=None if content is None else _pieces(content), headers=headers
        )
        for _ in range(_REDIRECTS + 1):
            response = await self._client(request.url).send(request, stream=True)
            try:
                onward = response.next_request if asked.method == "GET" and self._redirects else None
                if onward is None:
                    return await self._read(asked, response)
            finally:
                await response.aclose()
            if problem := self._misled(request.url, onward.url):
                raise self._unusable(
                    f"{asked.url} redirects to {printable(str(onward.url))}: {problem}.", "Use another URL."
                )
            request = onward
        raise httpx.TooManyRedirects(f"more than {_REDIRECTS} redirects")

    async def _read(self, asked: _Asked, response: httpx.Response) -> HttpReply:
        url, file = asked.url, asked.file
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise self._unusable(f"{url} sent compressed content, which was not requested.")
        keep = file is not None and response.status_code == 200
        if file is not None:  # what an earlier attempt left
            file.seek(0)
            file.truncate()
        body, size = bytearray(), 0
        async for piece in response.aiter_raw(_PIECE):
            size += len(piece)
            if size > asked.max_bytes:
                raise self._unusable(
                    f"{url} sent more than {asked.max_bytes} bytes.", "If that is expected, raise the limit."
                )
            if keep and file is not None:
                file.write(piece)
            else:
                body += piece
        after = response.headers.get("Retry-After", "")
        seconds = float(after) if _SECONDS.fullmatch(after.strip()) else 0.0
        return HttpReply(response.status_code, bytes(body), seconds)

    def _misled(self, source: httpx.URL, target: httpx.URL) -> str:
        """Why a redirect is not followed, or ""."""
        if source.scheme == "https" and target.scheme != "https":
            return "that is not encrypted"
        if on_this_machine(target.host) and not on_this_machine(source.host):
            return "that is this machine"
        allowed = any(name in ("*", target.host) or _under(target.host, name) for name in self._redirects)
        return "" if allowed or target.host == source.host else "that host is not allowed"

    def _client(self, url: httpx.URL) -> httpx.AsyncClient:
        """The client that uses the environment's proxies, or the one for this machine, which does not."""
        import httpx

        if (url.port or 1) > 0xFFFF:  # what connects would not notice before it is too late
            raise httpx.InvalidURL(f"there is no port {url.port}")
        proxies = not on_this_machine(url.host)
        if proxies not in self._clients:
            try:
                self._clients[proxies] = httpx.AsyncClient(
                    timeout=httpx.Timeout(self._timeout, connect=min(_CONNECT_SECONDS, self._timeout)),
                    headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
                    trust_env=proxies,
                    verify=tls(proxies),
                    follow_redirects=False,
                )
            except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
                raise self._unreachable(*unusable_settings(error)) from error
        return self._clients[proxies]


def unusable_settings(error: Exception) -> tuple[str, str]:
    """Problem and cure where no client can be made with the proxies or certificates that the environment names."""
    if isinstance(error, OSError):
        named = next((f"{name}={os.environ[name]}" for name in _CERTIFICATES if os.environ.get(name)), "the system's")
        why = error.strerror or _reason(error)
        return f"The certificates ({printable(named, 200)}) cannot be read: {why}.", "Correct that path, or unset it."
    return (
        f"The proxies in the environment cannot be used: {printable(str(error), 200)}.",
        "In ALL_PROXY, HTTP_PROXY and HTTPS_PROXY use http://HOST:PORT or socks5://HOST:PORT, or unset them.",
    )


def tls(trust_env: bool) -> ssl.SSLContext:
    """The TLS settings of every client: reading the certificates takes longer than many a call, and is done once.

    With `trust_env` they are those that the environment names. OSError if they cannot be read.
    """
    return _tls(trust_env, *(os.environ.get(name) for name in _CERTIFICATES if trust_env))


@cache
def _tls(trust_env: bool, *named: str | None) -> ssl.SSLContext:
    import httpx

    return httpx.create_ssl_context(trust_env=trust_env)


def _under(host: str, name: str) -> bool:
    return name.startswith(".") and host.endswith(name)


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), _PIECE):
        yield content[start : start + _PIECE]


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:160]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
