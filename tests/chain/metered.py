"""A node as a provider sells it: so many calls a second, with a clock that only calls and waits move."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from unittest import mock

import httpx2

from chain.localnet.server import serve
from chain.network import transport
from chain.network.embedded import EmbeddedNetwork
from chain.network.rpc import RpcNetwork


class Provider(httpx2.AsyncBaseTransport):
    """Passes calls on, of each second at most `rate`; more are refused with 429, and count as well if `strict`.

    `latency` is what a call takes, in seconds of `now`. `told` counts answers by status.
    """

    def __init__(self, node: httpx2.AsyncBaseTransport, rate: int, latency: float, *, strict: bool = False) -> None:
        self._node, self._rate, self._latency, self._strict = node, rate, latency, strict
        self._recent: deque[float] = deque()
        self.now = 0.0
        self.told: Counter[int] = Counter()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.now += self._latency
        while self._recent and self._recent[0] <= self.now - 1:
            self._recent.popleft()
        over = len(self._recent) >= self._rate
        if self._strict or not over:
            self._recent.append(self.now)
        answer = httpx2.Response(429, text="slow down") if over else await self._node.handle_async_request(request)
        self.told[answer.status_code] += 1
        return answer

    async def aclose(self) -> None:
        await self._node.aclose()


@contextmanager
def metered(
    embedded: EmbeddedNetwork, rate: int, latency: float, *, strict: bool = False
) -> Iterator[tuple[RpcNetwork, Provider]]:
    """A network's client behind a provider."""
    with serve(embedded, port=0).start() as node:
        network = RpcNetwork(node.url, sleep=lambda seconds: provider.sleep(seconds))
        with closing(network):
            session = network._transport._provider.session
            provider = Provider(session._transport, rate, latency, strict=strict)
            session._transport = provider
            clock = mock.Mock(wraps=time, monotonic=lambda: provider.now)
            with mock.patch.object(transport, "time", clock), mock.patch.object(transport, "random", random.Random(1)):
                yield network, provider
