"""Submissions while a fifth of all calls fail and the miner is killed: staked once, bought once, nothing lost.

One miner, and two wallets in one home with two processes each. `ARMLX_FAULT_SUBMISSIONS` says how many are submitted.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from solders.pubkey import Pubkey

from chain.connection.opening import Connection
from chain.errors import ChainError
from chain.program.accounts import ProposalStatus
from chain.program.addresses import associated_token_account
from chain.program.events import Bought, ProposalSubmitted
from chain.wallet import wallet
from miner.journal.journal import Journal, SessionBusy
from miner.staking import submit
from tests import local
from tests.faults.world import Killed, World, number, tokens_of, world
from trainer.machine.hardware import Fingerprint

COUNT = number("ARMLX_FAULT_SUBMISSIONS", 6)
SEED = number("ARMLX_FAULT_SEED", 1)
TRIES = 25
KILLED = 0.5
MACHINE = Fingerprint("cpu", "test", 2, None, None, 1 << 30, "Linux", "0.32", "3.11.0")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chain.network.rpc._REBROADCAST_SECONDS", 0.0)


class Mining:
    """A wallet's offers, and the processes that submit them in its one session; `troubles` counts what stopped them."""

    def __init__(self, at: World, home: Path, name: str, rng: random.Random, count: int) -> None:
        self.world, self.home, self.name, self.rng = at, home, name, rng
        self.path = home / "work" / name / "session.jsonl"
        self.troubles: Counter[str] = Counter()
        key = wallet.ensure(home, name).pubkey()
        at.embedded.airdrop(key, 100 * 10**9)
        self.key, self.before = key, at.embedded.balance(key)
        codes = [local.archive(b"# of %s\nLR = %d\n" % (name.encode(), number)) for number in range(count)]
        self.offers = [
            submit.Offer(number, code, b"---\nval_bpb: 2.4\n", 2_600_000, rng.randrange(1, 8), key)
            for number, code in enumerate(codes)
        ]

    def run(self, seed: float) -> None:
        """One `miner run` after another until everything is submitted."""
        rng, machine = random.Random(seed), self.world.machine(self.home)
        for _ in range(TRIES * len(self.offers)):
            self.world.start(machine, rng, KILLED)
            try:
                if self._life(machine):
                    return machine.close()
            except Killed:
                self.troubles["killed"] += 1
            except SessionBusy:
                self.troubles["waited"] += 1
                time.sleep(0.02)
            except ChainError as error:
                self.troubles[type(error).__name__] += 1
        raise AssertionError(f"not all submitted: {self.troubles}")

    def _life(self, machine: Connection) -> bool:
        """As a session does: what was interrupted is looked up first, and made again only where it never landed."""
        with closing(Journal(self.path)) as journal:
            key = wallet.load(wallet.path_of(self.home, self.name))
            project = machine.client.project(0)
            submit.reconcile(machine.client, key.pubkey(), project, journal)
            done = {made.trial for made in journal.session.submissions if made.proposal is not None}
            left = [offer for offer in self.offers if offer.trial not in done]
            if left:
                submit.submit(
                    machine,
                    key,
                    project,
                    left[0],
                    journal,
                    machine=MACHINE,
                    data_snapshot=local.DATA_SNAPSHOT,
                    say=lambda _: None,
                )
            return len(left) < 2

    def as_meant(self, direct: Connection, held: dict[Pubkey, int]) -> None:
        """Each offer is on chain once, with its artifacts, and everything spent is in the journal."""
        proposals = [p for p in direct.client.proposals(0) if p.miner == self.key]
        assert [p.code_hash for p in proposals] == [offer.code_hash for offer in self.offers]
        assert [p.stake for p in proposals] == [offer.stake for offer in self.offers]
        for proposal, offer in zip(proposals, self.offers, strict=True):
            assert proposal.status is ProposalStatus.PENDING
            assert direct.fetch(proposal.code_irys_id, proposal.code_hash, self.key, "code") == offer.code
            assert (
                direct.fetch(proposal.benchmark_log_irys_id, proposal.benchmark_log_hash, self.key, "log") == offer.log
            )
        assert held[associated_token_account(self.key, direct.client.project(0).mint)] == 0
        with closing(Journal(self.path)) as journal:
            session = journal.session
        assert (session.pending, session.purchase) == (None, None)
        assert [s.proposal for s in session.submissions if s.proposal is not None] == [p.id for p in proposals]
        assert session.staked == sum(offer.stake for offer in self.offers)
        assert session.spent == self.before - self.world.embedded.balance(self.key)


@pytest.mark.parametrize("wallets", [1, 2], ids=["one", "two wallets, two processes each"])
def test_through_faults_each_is_staked_once(tmp_path: Path, wallets: int) -> None:
    rng, begin = random.Random(SEED), time.monotonic()
    with world(tmp_path / "world", SEED) as at:
        miners = [
            Mining(at, tmp_path / "home", name, rng, max(1, COUNT // wallets)) for name in ("miner", "other")[:wallets]
        ]
        with ThreadPoolExecutor(4) as pool:
            ends = [pool.submit(miner.run, rng.random()) for miner in miners * wallets]
        for end in ends:
            end.result()
        for proxy in at.proxies:
            proxy.settle()
        total, spoiled = sum(proxy.done.total() for proxy in at.proxies), sum(proxy.faults for proxy in at.proxies)
        troubles = sum((miner.troubles for miner in miners), Counter[str]())
        seconds = time.monotonic() - begin
        print(f"{COUNT} submissions, {total} calls, {spoiled} spoiled, {seconds:.0f} s; {dict(troubles)}")
        assert troubles["killed"] > COUNT / 8
        events = at.events()
        stakes = sum(offer.stake for miner in miners for offer in miner.offers)
        with at.direct() as direct:
            held = tokens_of(at.embedded, direct.client.project(0).mint)
            # what was bought is what is staked: nothing was bought twice, and nothing is left over
            assert sum(e.tokens_out for e in events if isinstance(e, Bought)) == sum(held.values()) == stakes
            for miner in miners:
                miner.as_meant(direct, held)
        assert sum(isinstance(event, ProposalSubmitted) for event in events) == sum(len(m.offers) for m in miners)
