"""One HTTP call to an uploader or gateway: bounded in size, time, attempts and redirects.

429, 5xx and broken connections are tried again with jitter; everything else is the caller's to judge.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from chain.errors import ChainError, InvalidData, NetworkUnreachable
from common.text import printable

USER_AGENT = "openresearch-miner/0.1"
MAX_REPLY = 1 << 20
"""Bytes of a reply that is not content: receipts, metadata, prices."""
_PIECE = 1 << 16
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 522, 524})
_HOPELESS = (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects)


def readable(body: bytes, limit: int = 200) -> str:
    """The beginning of `body` as one printable line of at most `limit` characters."""
    return printable(body[: 4 * limit].decode(errors="replace"), limit)


@dataclass(frozen=True, slots=True)
class Reply:
    """Status and whole body; `retry_after` in seconds, 0 where the server names none."""

    status: int
    body: bytes
    retry_after: float

    @property
    def text(self) -> str:
        """The body as one printable line of at most 200 characters."""
        return readable(self.body)

    def json(self, what: str) -> Any:
        """The body decoded; InvalidData, naming `what` answered, where it is not JSON."""
        return parse_json(self.body, what)


def parse_json(body: bytes, what: str) -> Any:
    """Decoded JSON; InvalidData, naming `what` answered, where it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidData(f"{what} answered something that is not JSON ({readable(body)!r}).") from error


class Http:
    """Calls with retries. `timeout` bounds one connect, read or write and `limit` one whole attempt, in
    seconds; `attempts` is per call; `backoff` seconds is the first wait, doubled each time, that `sleep` does.
    Thread-safe.
    """

    def __init__(
        self, *, timeout: float, limit: float, attempts: int, backoff: float, sleep: Callable[[float], None]
    ) -> None:
        self._limit, self._attempts, self._backoff, self._sleep = limit, attempts, backoff, sleep
        self._http = httpx.Client(
            timeout=timeout,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            max_redirects=5,
        )

    def close(self) -> None:
        self._http.close()

    def call(
        self,
        method: str,
        url: str,
        content: bytes | None = None,
        *,
        headers: dict[str, str] | None = None,
        max_bytes: int = MAX_REPLY,
    ) -> Reply:
        """One request with its retries; any status comes back, and only the last one's where retried."""
        for attempt in itertools.count(1):
            final = attempt >= self._attempts
            wait = min(self._backoff * 2 ** (attempt - 1), 10.0) * random.uniform(0.5, 1.5)
            try:
                reply = self._attempt(method, url, content, headers or {}, max_bytes)
                if final or reply.status not in _RETRIED:
                    break
                wait = max(wait, min(reply.retry_after, 30.0))
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                if final or isinstance(error, _HOPELESS):
                    raise NetworkUnreachable(
                        f"{url} did not answer ({_reason(error)}; attempt {attempt}).",
                        "Check the address and the network connection, and try again.",
                    ) from error
            self._sleep(wait)
        return reply

    def refused(self, server: str, what: str, reply: Reply) -> ChainError:
        """The error for an answer that was not what was asked for: busy to the end, or a plain refusal."""
        if reply.status in _RETRIED:
            return NetworkUnreachable(
                f"{server} still answered {reply.status} to {what} after {self._attempts} attempts ({reply.text!r}).",
                "Try again later.",
            )
        return InvalidData(f"{server} refused {what}: {reply.status} {reply.text!r}.", "Check what was asked.")

    def _attempt(self, method: str, url: str, content: bytes | None, headers: dict[str, str], max_bytes: int) -> Reply:
        deadline = time.monotonic() + self._limit
        if content is not None:
            kind = {"Content-Type": "application/octet-stream", "Content-Length": str(len(content))}
            headers = {**kind, **headers}
        request = self._http.build_request(
            method, url, content=None if content is None else _pieces(content, deadline), headers=headers
        )
        response = self._http.send(request, stream=True, follow_redirects=method == "GET")
        with contextlib.closing(response):
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise InvalidData(f"{url} sent compressed content, and none was accepted.")
            body = bytearray()
            for piece in response.iter_raw(_PIECE):
                body += piece
                if len(body) > max_bytes:
                    raise InvalidData(
                        f"{url} sent more than {max_bytes} bytes.", "Raise the limit if that is expected."
                    )
                _within(deadline)
            retry_after = response.headers.get("Retry-After", "")
            return Reply(
                response.status_code,
                bytes(body),
                float(retry_after) if retry_after.isdecimal() and len(retry_after) < 6 else 0.0,
            )


def _pieces(content: bytes, deadline: float) -> Iterator[bytes]:
    for start in range(0, len(content), _PIECE):
        _within(deadline)
        yield content[start : start + _PIECE]


def _within(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise httpx.ReadTimeout("the whole transfer took too long")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:160]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
