"""Plays against a node that lies, in one field of one answer at a time.

The lies are made from the answers of the real local server, one of each shape, for every method that is asked. By
default each method is lied about once; ARMLX_HOSTILE_LIES=0 tells every lie, another number so many per method, and
ARMLX_HOSTILE_PART=2/8 the second eighth of them. Each is told always or in one answer, as ARMLX_FAULT_SEED has it.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from solders.signature import Signature
from solders.transaction import VersionedTransaction

import chain.network.rpc
from chain.localnet.server import serve
from chain.money.client import Client
from chain.money.spending import SpendingBudget, SpendingTerms
from chain.network.base import TransactionReceipt
from chain.network.embedded import EmbeddedNetwork
from chain.network.rpc import RpcNetwork
from common.errors import Refused
from tests.faults.lies import Lie, lies, shape
from tests.faults.proxy import Proxy
from tests.faults.world import Killed, number

PER_METHOD = number("ARMLX_HOSTILE_LIES", 1)
PART, PARTS = map(int, os.environ.get("ARMLX_HOSTILE_PART", "1/1").split("/"))
SEED = number("ARMLX_FAULT_SEED", 1)

Answers = Mapping[str, Sequence[dict[str, Any]]]
Play = Callable[["Lie | None", "int | None", int], "Sequence[Refused]"]
"""One life against a lie, told always (None) or in the nth answer it fits, killed after so many sends (-1: never), and
then one against the truth; what it refused. AssertionError where the lie cost anything."""


@dataclass
class Told:
    """What the proxy does to answers: `lie`, at the `nth` answer that it fits (None: at each), and a record of all."""

    lie: Lie | None = None
    nth: int | None = None
    fitted: int = 0

    def __post_init__(self) -> None:
        self.heard: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)

    def tell(self, lie: Lie | None, nth: int | None) -> None:
        """Tell this lie from now on."""
        self.lie, self.nth, self.fitted = lie, nth, 0

    def hush(self) -> None:
        """From now on the truth."""
        self.lie = None

    def __call__(self, request: bytes, answer: bytes) -> bytes:
        said = json.loads(answer)
        told = self.spoken(json.loads(request)["method"], said) if "result" in said else None
        return answer if told is None else json.dumps(told).encode()

    def spoken(self, method: str, said: dict[str, Any]) -> dict[str, Any] | None:
        """The lie in the place of an answer; None for the truth."""
        self.heard[method].setdefault(shape(said["result"]), said)
        if self.lie is None or self.lie.method != method:
            return None
        told = self.lie.tell(said)
        if told == said:
            return None
        self.fitted += 1
        return told if self.nth in (None, self.fitted) else None

    @property
    def answers(self) -> Answers:
        """Every method's answers so far, one of each shape."""
        return {method: list(answers.values()) for method, answers in self.heard.items()}


class Impatient(RpcNetwork):
    """Waits in the chain's own time, and gives up soon; its process is killed after `sends` transactions."""

    sends = -1

    def send(self, tx: VersionedTransaction) -> Signature:
        signature = super().send(tx)
        self.sends -= 1
        if self.sends == 0:
            raise Killed
        return signature

    def confirm(self, signature: Signature, last_valid_block_height: int, **how: Any) -> TransactionReceipt:
        return super().confirm(signature, last_valid_block_height, **{**how, "timeout": 0.5})


@dataclass
class Stage:
    """A chain, its server, and a proxy before it that lies as `told` says."""

    embedded: EmbeddedNetwork
    proxy: Proxy
    told: Told

    def client(self, cap: int, sends: int = -1) -> Client:
        """A client that knows the chain through the proxy alone and may spend `cap` lamports."""
        network = Impatient(self.proxy.url, name="hostile", call_seconds=2, sleep=self.wait)
        network.sends = sends
        return Client(network, budget=SpendingBudget(SpendingTerms(cap=cap)), priority_fee="auto")

    def wait(self, seconds: float) -> None:
        self.embedded.warp(4)


@contextmanager
def stage(home: Path) -> Iterator[Stage]:
    """The chain in `home` behind a proxy."""
    embedded, told = EmbeddedNetwork(home), Told()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain.network.rpc, "_REBROADCAST_SECONDS", 0.0)
        patch.setattr(chain.network.rpc, "_POLL_SECONDS", 0.01)
        with serve(embedded, port=0).start() as server, Proxy(server.url, alter=told) as proxy:
            yield Stage(embedded, proxy, told)
    embedded.close()


def until_done(attempt: Callable[[], Sequence[Refused]], tries: int) -> list[Refused]:
    """A command, started again after a kill or a refusal until it refuses nothing, `tries` times at most; what it
    refused."""
    refusals: list[Refused] = []
    for _ in range(tries):
        try:
            refused = list(attempt())
        except Killed:
            continue
        except Refused as error:
            refused = [error]
        refusals += refused
        if not refused:
            break
    return refusals


def chosen(answers: Answers, rng: random.Random) -> Iterator[tuple[Lie, int | None]]:
    """The lies to tell, and whether always or once."""
    for method, some in sorted(answers.items()):
        found = list({str(lie): lie for answer in some for lie in lies(method, answer)}.values())
        told = found if not PER_METHOD else rng.sample(found, min(PER_METHOD, len(found)))
        for place, lie in enumerate(told):
            nth = rng.choice((None, rng.randrange(1, 4)))
            if place % PARTS == PART - 1:
                yield lie, nth


def cost_nothing(told: Told, answers: Answers, play: Play, sends: Sequence[int] = (-1,)) -> None:
    """Tell them all; AssertionError with every one that cost something."""
    rng, tally, failed = random.Random(SEED), Counter[str](), list[str]()
    for lie, nth in chosen(answers, rng):
        try:
            refusals = play(lie, nth, rng.choice(sends))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic of solders is no Exception
            failed.append(f"{lie}, {'always' if nth is None else f'answer {nth}'}: {type(error).__name__} {error}")
        else:
            tally["not told" if not told.fitted else "refused" if refusals else "harmless"] += 1
    print(f"{sum(tally.values()) + len(failed)} lies about {len(answers)} methods: {dict(tally)}, {len(failed)} failed")
    assert not failed, "\n".join(failed)
    assert tally["refused"] > 0
