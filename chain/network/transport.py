"""One Solana RPC node over HTTP: solana-py's transport, solders' requests and typed answers.

Rules: every call ends within its time limit, retries and waits included; a busy or broken connection (429, 5xx,
dropped, silent) is tried again after a growing, jittered pause, anything else is not; an answer has a bounded size and
is accepted only if it parses as the type asked for. A node that refuses for being asked too often is asked more slowly
from then on, and again faster while it answers. A local node is reached directly, whatever proxy the environment names.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import TypeVar
from urllib.parse import urlsplit

import httpx2
from solana.exceptions import SolanaRpcException
from solana.rpc.async_http_provider import AsyncHTTPProvider
from solana.rpc.types import URI
from solders.errors import SerdeJSONError
from solders.rpc import requests, responses

from chain.errors import NetworkUnreachable
from chain.network.base import RpcError
from common.http import on_this_machine, tls, unusable_settings
from common.text import printable, without_key

CALL_SECONDS = 30.0
TRIES = 5
MAX_ANSWER = 64 << 20  # bytes
_PAUSE_SECONDS = 0.25
_FIRST_GAP, _WIDER, _NARROWER = 0.05, 1.3, 0.99  # seconds between calls, and how a refusal and an answer change them
_BUSY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_BUSY_CODES = frozenset({429, -32005, -32004, -32014, -32016})  # rate limit; node behind; block not there yet

T = TypeVar("T", bound=responses.RPCResult)


class _Provider(AsyncHTTPProvider):
    """solana-py's transport over a session of ours: its own would read the environment's proxies and certificates,
    which a local node does not need and which may be of no use.
    """

    def __init__(self, url: str, session: httpx2.AsyncClient) -> None:
        self.endpoint_uri, self.session = URI(url), session
        self.timeout = self.extra_headers = self._limiter = None
        self._max_transport_retries = 0


class NoAnswer(NetworkUnreachable):
    """No usable answer; `maybe_done` if the request may have reached the node anyway."""

    maybe_done = True


class Transport:
    """The node behind `url`. Threads may share one; their calls go out one at a time.

    `here` is whether `url` is on this machine, `shown` the URL without what may be a key. `call_seconds` bounds one
    call with its retries; `sleep` does the waits between tries. Raises NetworkUnreachable if the URL is of no use.
    """

    def __init__(self, url: str, *, call_seconds: float, sleep: Callable[[float], None]) -> None:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
            usable = usable and not re.search(r"[\s\0-\x1f]", url)
        except ValueError:  # a port or an IPv6 address that is none
            usable = False
        if not usable:
            raise NetworkUnreachable(f"{url} is not a usable URL.", "Use, for example, http://127.0.0.1:8899.")
        self.shown = without_key(url)
        self.here = on_this_machine(parts.hostname)
        self._call_seconds, self._sleep = call_seconds, sleep
        self._met = False  # whether the node has answered
        self._gap, self._asked = 0.0, 0.0  # seconds from one call to the next, and when the last one was made
        self._guard = threading.Lock()
        self._runner = asyncio.Runner()
        try:
            session = httpx2.AsyncClient(
                timeout=call_seconds,
                headers={"Accept-Encoding": "identity"},  # a compressed answer's size is not known before
                event_hooks={"response": [_bound]},
                trust_env=not self.here,
                # Without TLS no certificates are needed, and none are believed: no redirect is followed.
                verify=tls(not self.here) if parts.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            )
        except (ValueError, OSError, ImportError, httpx2.InvalidURL) as error:
            raise NetworkUnreachable(*unusable_settings(error)) from None
        self._provider = _Provider(url, session)

    def close(self) -> None:
        """Close the connection; closing twice is harmless."""
        with self._guard:
            if not self._provider.session.is_closed:
                self._runner.run(self._provider.close())
                self._runner.close()

    def call(self, request: requests.Body, parser: type[T], *, repeat: bool = True) -> T:
        """One request, retried within the time limit while the node is busy or silent; one that never answered and is
        on this machine was not started, and is asked once.

        Raises RpcError if the node refuses, NetworkUnreachable if no answer of this type comes.
        """
        deadline = time.monotonic() + self._call_seconds
        trouble = "no answer"
        doubt = False
        for attempt in range(TRIES):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                answer = self._ask(request, parser, self._paced(left))
                self._met = True
                self._gap *= _NARROWER if self._gap > _FIRST_GAP / 4 else 0
                return answer
            except RpcError as error:
                error.doubted = doubt
                raise
            except NetworkUnreachable as error:  # asking again cannot help, but an earlier try may have been taken
                raise NoAnswer(error.problem, error.cure) if doubt else error from None
            except _Busy as busy:
                trouble = str(busy)
                if busy.too_often:
                    self._gap = min(1.0, max(_FIRST_GAP, self._gap * _WIDER))
                doubt |= busy.maybe_done
                never_started = busy.refused and self.here and not self._met
                if (not repeat and busy.maybe_done) or never_started or attempt == TRIES - 1:
                    break
                pause = busy.after or _PAUSE_SECONDS * 2**attempt
                self._sleep(min(pause * random.uniform(0.75, 1.25), max(0.0, deadline - time.monotonic())))
        silence = NoAnswer(
            f"The RPC node {self.shown} does not answer: {trouble}.",
            "Start it with `chain localnet`, or use --network embedded."
            if self.here
            else "Check the connection, or use another node with --rpc-url URL.",
        )
        silence.maybe_done = doubt
        raise silence

    def _paced(self, left: float) -> float:
        """Wait for a call's turn, where the node has refused for too many; what is left of `left` seconds."""
        wait = min(left, max(0.0, self._asked + self._gap - time.monotonic())) if self._gap else 0.0
        if wait:
            self._sleep(wait)
        self._asked = time.monotonic()
        return left - wait

    def _ask(self, request: requests.Body, parser: type[T], seconds: float) -> T:
        """One try. Raises _Busy where another may help."""
        try:
            with self._guard:
                call = asyncio.wait_for(self._provider.make_request_unparsed(request), seconds)
                raw = self._runner.run(call)
        except TimeoutError:
            raise _Busy(f"nothing within {seconds:.0f} s") from None
        except SolanaRpcException as error:
            cause = error.__cause__
            if isinstance(cause, httpx2.HTTPStatusError):
                status, after = cause.response.status_code, cause.response.headers.get("retry-after", "")
                if status in _BUSY_STATUS:
                    wait = float(after) if after.isdecimal() and len(after) < 4 else 0.0
                    often = status == 429
                    raise _Busy(f"HTTP status {status}", wait, maybe_done=not often, too_often=often) from None
                reason = _reason(cause.response)
                said = f", saying: {reason}." if reason else ", not as a Solana RPC node."
                raise NetworkUnreachable(
                    f"{self.shown} answered with HTTP status {status}{said}",
                    "Check the URL and what your provider's key allows, or use another node with --rpc-url URL.",
                ) from None
            refused = isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout)
            words = "connection refused or impossible" if refused else type(cause).__name__
            if isinstance(cause, httpx2.UnsupportedProtocol | httpx2.InvalidURL | _TooLarge):
                raise NetworkUnreachable(
                    f"{self.shown} cannot be used: {cause}.", "Check the URL, or ask another node."
                ) from None
            raise _Busy(words, maybe_done=not refused, refused=refused) from None
        except (httpx2.InvalidURL, UnicodeError) as error:
            raise NetworkUnreachable(f"{self.shown} is not a usable URL: {error}.", "Correct it.") from None
        return self._parse(raw, parser)

    def _parse(self, raw: str, parser: type[T]) -> T:
        # solders drops code and message of errors it has no type for, so the envelope is read here.
        try:
            envelope = json.loads(raw)
        except (ValueError, RecursionError):
            envelope = None
        if not isinstance(envelope, dict):
            raise self.nonsense(f"{raw[:60]!r}")
        match envelope.get("error"):
            case {"code": int(code), "message": str(message), **more}:
                if code in _BUSY_CODES:
                    raise _Busy(message[:200].rstrip("."), maybe_done=False, too_often=code == 429)
                raise RpcError(self.shown, code, message, more.get("data"))
            case None:
                pass
            case _:
                raise self.nonsense("an error without code and message")
        try:
            parsed = parser.from_json(raw)  # type: ignore[attr-defined]
        except SerdeJSONError as error:
            raise self.nonsense(f"no {parser.__name__}: {str(error)[:100]}") from None
        if not isinstance(parsed, parser):
            raise self.nonsense(f"no {parser.__name__}")
        return parsed

    def nonsense(self, what: str) -> NoAnswer:
        return NoAnswer(
            f"{self.shown} is not a Solana RPC node: {what}.",
            "Check the URL, or use another node with --rpc-url URL.",
        )


class _Busy(Exception):
    """No answer this time. `after`: seconds the node asks for; `maybe_done`: it may have got the request; `too_often`:
    it wants fewer of them; `refused`: nobody took the connection.
    """

    def __init__(
        self,
        what: str,
        after: float = 0.0,
        *,
        maybe_done: bool = True,
        too_often: bool = False,
        refused: bool = False,
    ) -> None:
        super().__init__(what)
        self.after = after
        self.maybe_done, self.too_often, self.refused = maybe_done, too_often, refused


class _TooLarge(httpx2.ReadError):
    """An answer over MAX_ANSWER bytes, or one whose size in memory cannot be bounded."""


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._stream:
            size += len(piece)
            if size > MAX_ANSWER:
                raise _TooLarge(f"its answer has over {MAX_ANSWER >> 20} MiB")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


def _reason(response: httpx2.Response) -> str:
    """A provider's own words for a refusal, such as a call that a plan does not include; "" where there are none."""
    try:
        match response.json():
            case {"error": {"message": str(message)}} | {"error": str(message)} | {"message": str(message)}:
                return printable(message, 200).rstrip(".")
    except (ValueError, RecursionError, httpx2.ResponseNotRead):
        pass
    return ""


async def _bound(response: httpx2.Response) -> None:
    """Before its body is read: bound an answer's size."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise _TooLarge("its answer is compressed though that was not accepted")
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _Bounded(response.stream)
