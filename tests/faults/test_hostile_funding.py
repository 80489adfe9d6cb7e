"""A node, and an uploader, that lie to `chain irys fund` and to an upload (`tests.faults.hostile`).

Whatever is told: a deposit is paid once, nothing above it and its fee leaves the wallet, and against the truth the next
run has it credited, once. Where the uploader itself names another address, the amount that was agreed to is what is
lost at most. An upload that is reported as done is one that an honest gateway has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

import chain.irys.funding
from chain.connection.opening import MAX_ARTIFACT
from chain.irys.accounts import Tariff
from chain.irys.client import Irys
from chain.irys.dataitem import DataItem
from chain.irys.funding import Funding, State
from chain.irys.node import RunningNode
from chain.irys.node import serve as serve_irys
from chain.network.base import FEE_PER_SIGNATURE
from common.errors import Refused
from tests import local
from tests.faults.hostile import Stage, Told, cost_nothing, stage, until_done
from tests.faults.lies import Lie
from tests.faults.proxy import Proxy

AMOUNT = 250_000  # lamports
CAP = AMOUNT + 10 * FEE_PER_SIGNATURE
TARIFF = Tariff(lamports_per_byte=2, free_bytes=100_000)


class Uploader(Told):
    """Lies in the uploader's answers that are JSON, by what they look like."""

    def __call__(self, request: bytes, answer: bytes) -> bytes:
        try:
            said = json.loads(answer)
        except ValueError:
            return answer
        what = ",".join(sorted(said)) if isinstance(said, dict) else type(said).__name__
        told = self.spoken(what, {"result": said})
        return answer if told is None else json.dumps(told.get("result", told)).encode()


@dataclass
class Scene:
    """A chain and an uploader, each behind a proxy that may lie."""

    at: Stage
    node: RunningNode
    proxy: Proxy
    told: Uploader
    folder: Path
    count: int = 0

    def fund(self, key: Keypair, home: Path, irys: Irys, *, tries: int, sends: int = -1) -> list[Refused]:
        """`chain irys fund`, then again to finish what is open; killed after `sends` transactions."""
        client = self.at.client(CAP, sends)

        def fund() -> Sequence[Refused]:
            funding = Funding(client, irys, key, home, sleep=lambda _: None)
            # as a person does: "finish it" while something is on record that is not known to be dead
            known = any(deposit.state is not State.DEAD for deposit in funding.deposits.all())
            funding.fund(0 if known else AMOUNT, irys.deposit_address())
            return ()

        refusals = until_done(fund, tries)
        client.network.close()
        return refusals

    def play(self, lie: Lie | None, nth: int | None = None, sends: int = -1) -> list[Refused]:
        return self._play(self.at.told, lie, nth, sends)

    def play_uploader(self, lie: Lie | None, nth: int | None = None, sends: int = -1) -> list[Refused]:
        return self._play(self.told, lie, nth, sends)

    def _play(self, told: Told, lie: Lie | None, nth: int | None, sends: int) -> list[Refused]:
        self.count += 1
        key, home = Keypair(), self.folder / str(self.count)
        self.at.embedded.airdrop(key.pubkey(), 10**9)
        told.tell(lie, nth)
        with Irys.at(self.proxy.url, sleep=lambda _: None) as irys:
            refusals = self.fund(key, home, irys, tries=3, sends=sends)
        self.check(key)
        told.hush()
        self.at.embedded.warp(200)
        with Irys.at(self.proxy.url, sleep=lambda _: None) as irys:  # a deposit is on record under the uploader's URL
            later = self.fund(key, home, irys, tries=3)
            self.check(key)
            astray = self._paid(key) - self._paid(key, irys.deposit_address())
            credited = irys.balance(key.pubkey())
            assert (credited, astray) in ((AMOUNT, 0), (0, AMOUNT)), f"not credited in the end: {later or refusals}"
            assert not astray or (lie is not None and "addresses" in lie.path), f"{astray} lamports paid elsewhere"
        return refusals

    def check(self, key: Keypair) -> None:
        lost = 10**9 - self.at.embedded.balance(key.pubkey())
        assert lost <= AMOUNT + 2 * FEE_PER_SIGNATURE, f"{lost} lamports left the wallet"
        assert self._paid(key) in (0, AMOUNT), "paid twice"

    def _paid(self, key: Keypair, address: Pubkey | None = None) -> int:
        """Lamports that this wallet's transfers moved, to one address or in all."""
        total = 0
        for signature in self.at.embedded.signatures(address or key.pubkey()):
            receipt = self.at.embedded.transaction(signature)
            if receipt is not None and receipt.error is None and receipt.paid > 0 and _of(key, receipt.transaction):
                total += receipt.paid - receipt.fee
        return total

    def upload(self, lie: Lie | None, nth: int | None = None, sends: int = -1) -> list[Refused]:
        """An upload to an uploader that lies, and again to one that does not."""
        self.count += 1
        item = DataItem.sign(Keypair(), b"content %d" % self.count)
        self.told.tell(lie, nth)

        def upload() -> Sequence[Refused]:
            with Irys.at(self.proxy.url, sleep=lambda _: None, attempts=2) as irys:
                irys.upload(item)
            return ()

        refusals = until_done(upload, 1)
        self.told.hush()
        with Irys.at(self.node.url) as irys:
            if not refusals:
                assert irys.signed_item(bytes(item.id), max_bytes=MAX_ARTIFACT).data == item.data
            irys.upload(item)
            assert irys.signed_item(bytes(item.id), max_bytes=MAX_ARTIFACT).data == item.data
        return refusals


def _of(key: Keypair, wire: bytes) -> bool:
    from solders.transaction import VersionedTransaction

    return VersionedTransaction.from_bytes(wire).message.account_keys[0] == key.pubkey()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder, told = tmp_path_factory.mktemp("hostile"), Uploader()
    home = local.home_with_project(folder / "home")
    with (
        pytest.MonkeyPatch.context() as patch,
        stage(home) as at,
        serve_irys(home / "irys", tariff=TARIFF, network=at.embedded) as node,
        Proxy(node.url, alter=told) as proxy,
    ):
        patch.setattr(chain.irys.funding, "_POSTS", 2)
        yield Scene(at, node, proxy, told, folder)


def test_no_lie_of_a_node_costs_anything(scene: Scene) -> None:
    for sends in (-1, 1):
        assert scene.play(None, sends=sends) == []
    cost_nothing(scene.at.told, scene.at.told.answers, scene.play, sends=(-1, -1, 1))


def test_no_lie_of_an_uploader_costs_more_than_was_agreed_to(scene: Scene) -> None:
    scene.told.heard.clear()
    for sends in (-1, 1):
        assert scene.play_uploader(None, sends=sends) == []
    cost_nothing(scene.told, scene.told.answers, scene.play_uploader, sends=(-1, -1, 1))


def test_an_upload_that_is_reported_is_there(scene: Scene) -> None:
    scene.told.heard.clear()
    assert scene.upload(None) == []
    cost_nothing(scene.told, scene.told.answers, scene.upload)
