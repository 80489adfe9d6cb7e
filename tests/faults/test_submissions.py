"""Submissions while a fifth of all calls fail and the miner is killed: staked once, bought once, nothing lost."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from chain.connection.opening import MINER, Connection
from chain.errors import ChainError
from chain.program.addresses import associated_token_account
from chain.program.events import Bought, ProposalSubmitted
from chain.wallet import wallet
from miner.journal.journal import Journal
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


def submitted(at: World, machine: Connection, path: Path, offer: submit.Offer, rng: random.Random) -> Counter[str]:
    """As a session does: what was interrupted is looked up first, and made again only where it never landed."""
    troubles: Counter[str] = Counter()
    for _ in range(TRIES):
        at.start(machine, rng, KILLED)
        journal = Journal(path)
        try:
            project, miner = machine.client.project(0), wallet.load(wallet.path_of(machine.home, MINER))
            if submit.reconcile(machine.client, miner.pubkey(), project, journal) is None:
                submit.submit(
                    machine,
                    miner,
                    project,
                    offer,
                    journal,
                    machine=MACHINE,
                    data_snapshot=local.DATA_SNAPSHOT,
                    say=lambda _: None,
                )
            return troubles
        except Killed:
            troubles["killed"] += 1
        except ChainError as error:
            troubles[type(error).__name__] += 1
        finally:
            journal.close()
    raise AssertionError(f"not submitted after {TRIES} tries: {troubles}")


def test_through_faults_each_is_staked_once(tmp_path: Path) -> None:
    rng, troubles = random.Random(SEED), Counter[str]()
    path = tmp_path / "work" / "session.jsonl"
    with world(tmp_path / "world", SEED) as at:
        machine = at.machine(at.miner(tmp_path / "home"))
        miner = wallet.load(wallet.path_of(machine.home, MINER)).pubkey()
        before = at.embedded.balance(miner)
        codes, stakes = (
            [local.archive(b"LR = %d\n" % n) for n in range(COUNT)],
            [rng.randrange(1, 8) for _ in range(COUNT)],
        )
        offers = [
            submit.Offer(n, code, b"---\nval_bpb: 2.4\n", 2_600_000, stake, miner)
            for n, (code, stake) in enumerate(zip(codes, stakes, strict=True))
        ]
        for offer in offers:
            troubles += submitted(at, machine, path, offer, rng)
        machine.close()
        for proxy in at.proxies:
            proxy.settle()
        spoiled = sum(proxy.faults for proxy in at.proxies)
        print(f"{COUNT} submissions, {spoiled} calls spoiled; {dict(troubles)}")
        assert troubles["killed"] > COUNT / 8
        events = at.events()
        with at.direct() as direct:
            proposals = direct.client.proposals(0)
            assert [p.code_hash for p in proposals] == [offer.code_hash for offer in offers]
            assert [p.stake for p in proposals] == stakes
            for proposal, offer in zip(proposals, offers, strict=True):
                assert direct.fetch(proposal.code_irys_id, proposal.code_hash, miner, "code") == offer.code
                assert (
                    direct.fetch(proposal.benchmark_log_irys_id, proposal.benchmark_log_hash, miner, "log") == offer.log
                )
            project = direct.client.project(0)
            held = tokens_of(at.embedded, project.mint)
            # what was bought is what is staked: nothing was bought twice, and nothing is left over
            assert sum(e.tokens_out for e in events if isinstance(e, Bought)) == sum(held.values()) == sum(stakes)
            assert held[associated_token_account(miner, project.mint)] == 0
        assert sum(isinstance(event, ProposalSubmitted) for event in events) == COUNT
        journal = Journal(path)
        session = journal.session
        journal.close()
        assert session.pending is None
        assert session.purchase is None
        assert [s.proposal for s in session.submissions if s.proposal is not None] == list(range(COUNT))
        assert session.staked == sum(stakes)
        assert session.spent == before - at.embedded.balance(miner)
