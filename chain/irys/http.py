"""Calls to Irys uploaders and gateways: the bounded client with this package's errors.

A gateway may send a GET on to any host: content counts by its hash alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from chain.errors import ChainError, InvalidData, NetworkUnreachable
from common.http import ANY_HOST, BUSY, HttpClient, HttpReply, readable


def parse_json(body: bytes, what: str) -> Any:
    """Decoded JSON; InvalidData, naming `what` answered, unless it is one."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidData(f"{what} did not answer with JSON ({readable(body)!r}).") from error


class IrysHttp(HttpClient):
    """NetworkUnreachable if no answer came, InvalidData if one is beyond the bounds."""

    def __init__(
        self,
        *,
        timeout: float,
        limit: float,
        attempts: int,
        backoff: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(
            unreachable=NetworkUnreachable,
            unusable=InvalidData,
            timeout=timeout,
            limit=limit,
            attempts=attempts,
            backoff=backoff,
            sleep=sleep,
            redirects=ANY_HOST,
        )

    def refused(self, server: str, what: str, reply: HttpReply) -> ChainError:
        """The error for an answer that was not what was asked for: busy to the end, or a plain refusal."""
        if reply.status in BUSY:
            return NetworkUnreachable(
                f"{server} still answered {reply.status} to {what} after {self.attempts} attempts ({reply.text!r}).",
                "Try again later.",
            )
        return InvalidData(f"{server} refused {what}: {reply.status} {reply.text!r}.", "Check the request.")
