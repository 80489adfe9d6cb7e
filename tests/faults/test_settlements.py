"""Settlements while a fifth of all calls fail and processes are killed: nothing lost, nothing doubled.

One verifier at a time, and two at once in each of two homes, with one key and one record per home.

`ARMLX_FAULT_SETTLEMENTS` says how many proposals are settled, `ARMLX_FAULT_SEED` which faults they meet.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from solders.pubkey import Pubkey

from chain.connection.opening import Connection
from chain.errors import ChainError
from chain.money.client import Client
from chain.network.base import program_error_of
from chain.program.accounts import Proposal, ProposalStatus
from chain.program.addresses import associated_token_account
from chain.program.errors import LockActive, ScoreNotImproved, WrongStatus
from chain.program.events import (
    Bought,
    LedgerBurned,
    MinerRewardMinted,
    ProposalApproved,
    ProposalRejected,
    ReviewClaimed,
    ReviewReleased,
    StakeSlashed,
)
from tests import local
from tests.faults.world import Killed, World, number, tokens_of, world
from tests.verifier.cases import Answer, approving, rejecting, releasing
from trainer.judging.verdict import Reason, VerdictKind
from verifier import attestation, settle
from verifier.check import CheckResult, folder_of
from verifier.settle import SettlementRecord

COUNT = number("ARMLX_FAULT_SETTLEMENTS", 10)
SEED = number("ARMLX_FAULT_SEED", 1)
TRIES = 25  # of one proposal; a fifth of its calls fail and a third of its processes are killed
KILLED = 0.35
HOW: dict[VerdictKind, Answer] = {
    VerdictKind.APPROVE: approving,
    VerdictKind.REJECT: rejecting,
    VerdictKind.RELEASE: releasing,
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chain.network.rpc._REBROADCAST_SECONDS", 0.0)


class Settling:
    """Verifiers at work on the same proposals; `troubles` counts what stopped them."""

    def __init__(self, at: World, meant: dict[int, VerdictKind]) -> None:
        self.world, self.meant = at, meant
        self.troubles: Counter[str] = Counter()
        self.released: Counter[int] = Counter()  # settlements that ended with a release, by proposal
        self.done: set[int] = set()
        self._guard = threading.Lock()

    def one_by_one(self, machines: list[Connection], rng: random.Random) -> None:
        """Proposal after proposal by one process at a time: what is claimed is the settling machine's own."""
        for proposal in self.meant:
            machine = rng.choice(machines)
            for _ in range(TRIES):
                assert not self.troubles["NotOurs"], "there is nobody else to wait for"
                if proposal not in self.done:
                    self.attempt(machine, proposal, rng)
        assert self.done == set(self.meant), self.troubles

    def at_once(self, machines: list[Connection], rng: random.Random) -> None:
        """All machines at work on all that is open until nothing is, each in an order of its own."""

        def verifier(machine: Connection, rng: random.Random) -> None:
            for _ in range(TRIES * len(self.meant)):
                if not (left := sorted(self.meant.keys() - self.done)):
                    return
                if not self.attempt(machine, rng.choice(left[:4]), rng):
                    time.sleep(0.01)

        with ThreadPoolExecutor(len(machines)) as pool:
            ends = [pool.submit(verifier, machine, random.Random(rng.random())) for machine in machines]
        for end in ends:
            end.result()
        assert self.done == set(self.meant), self.troubles
        for machine in machines:  # what one began on a proposal that another had just released
            for proposal in self.meant:
                for _ in range(TRIES):
                    if not self._begun(machine, proposal):
                        break
                    self.attempt(machine, proposal, rng)

    def _begun(self, machine: Connection, proposal: int) -> bool:
        """Whether a killed verifier left something to finish: a transaction on record, or a claim."""
        path = folder_of(machine.home, machine.network.name, str(proposal)) / "settlement.jsonl"
        now = Client(self.world.embedded).proposal(proposal)
        held = (now.status, now.reviewer) == (ProposalStatus.IN_REVIEW, _key(machine.home))
        return held or (path.exists() and SettlementRecord(path).open is not None)

    def attempt(self, machine: Connection, proposal: int, rng: random.Random) -> bool:
        """One process of `verifier run`, killed or to its end; whether it came to a settlement."""
        self.world.start(machine, rng, KILLED)
        try:
            return self._try(machine, proposal, rng)
        except Killed:
            trouble = "killed"
        except ChainError as error:
            trouble = type(error).__name__
        with self._guard:
            self.troubles[trouble] += 1
        return False

    def _try(self, connection: Connection, proposal: int, rng: random.Random) -> bool:
        killed, meant = rng.random() < KILLED / 4, self.meant[proposal]

        def check(current: Proposal) -> CheckResult:
            found = HOW[meant](connection, current)
            if killed:
                raise Killed
            return found

        folder = folder_of(connection.home, connection.network.name, str(proposal))
        key = local.verifier_of(connection)
        done = settle.settle(connection, proposal, key, folder, lambda _: None, check, lambda _: None)
        settled = done.status in (ProposalStatus.APPROVED, ProposalStatus.REJECTED)
        assert settled or done.status is ProposalStatus.PENDING, done
        # what could not be fetched is released for the machine's own fault, and tried again
        unfetched = bool(done.checked and done.checked.verdict.reason is Reason.ARTIFACT_UNAVAILABLE)
        with self._guard:
            self.released[proposal] += not settled
            self.troubles["artifact unavailable"] += unfetched
            if settled or (meant is VerdictKind.RELEASE and not unfetched):
                self.done.add(proposal)
        return True


@pytest.mark.parametrize("verifiers", [1, 2], ids=["one", "two per home"])
def test_through_faults_each_is_settled_once_as_meant(tmp_path: Path, verifiers: int) -> None:
    rng, begin = random.Random(SEED), time.monotonic()
    with world(tmp_path / "world", SEED) as at:
        homes = [at.verifier(tmp_path / name) for name in ("first", "second")]
        with at.direct() as direct:
            proposals = [
                local.propose(direct, code=local.archive(b"LR = %d\n" % number), stake=rng.randrange(1, 8))
                for number in range(COUNT)
            ]
        meant = {
            p.id: rng.choice([VerdictKind.APPROVE, VerdictKind.REJECT, VerdictKind.REJECT, VerdictKind.RELEASE])
            for p in proposals
        }
        work, machines = Settling(at, meant), [at.machine(home) for home in homes * verifiers]
        (work.one_by_one if verifiers == 1 else work.at_once)(machines, rng)
        for proxy in at.proxies:
            proxy.settle()
        for machine in machines:
            machine.close()
        total = sum(proxy.done.total() for proxy in at.proxies)
        spoiled = sum(proxy.faults for proxy in at.proxies)
        seconds = time.monotonic() - begin
        print(f"{COUNT} proposals, {total} calls, {spoiled} spoiled, {seconds:.0f} s; {dict(work.troubles)}")
        assert 0.15 < spoiled / total < 0.25
        assert work.troubles["killed"] > COUNT / 8
        _as_meant(at, proposals, meant, work.released)
        _tokens_add_up(at, proposals, meant, homes)
        _on_record(at, homes)


def _as_meant(at: World, proposals: list[Proposal], meant: dict[int, VerdictKind], released: Counter[int]) -> None:
    """What the chain says of each proposal, and how often it was told."""
    events = at.events()
    count = Counter((type(event), event.id) for event in events if hasattr(event, "id"))
    with at.direct() as direct:
        for proposal in proposals:
            kind, now = meant[proposal.id], direct.client.proposal(proposal.id)
            claims, releases, approvals, rejections = (
                count[event, proposal.id]
                for event in (ReviewClaimed, ReviewReleased, ProposalApproved, ProposalRejected)
            )
            assert (approvals, rejections) == (kind is VerdictKind.APPROVE, kind is VerdictKind.REJECT)
            assert releases == released[proposal.id]
            assert claims == releases + approvals + rejections  # none was claimed twice, none is left claimed
            assert now.status.name == {"approve": "APPROVED", "reject": "REJECTED", "release": "PENDING"}[kind]
            if kind is VerdictKind.RELEASE:
                continue
            sealed = direct.fetch(now.metrics_irys_id, now.metrics_hash, now.reviewer, "attestation")
            signer, body = attestation.open_envelope(sealed)
            assert signer == now.reviewer
            assert (body["predicate"]["proposal"], body["predicate"]["verdict"]["kind"]) == (proposal.id, kind.value)
            if kind is VerdictKind.APPROVE:
                assert body["predicate"]["score"]["verified"] == now.verified_aggregate_score


def _tokens_add_up(at: World, proposals: list[Proposal], meant: dict[int, VerdictKind], homes: list[Path]) -> None:
    """Every token is where the verdicts put it: bought, minted, burned, claimable, in escrow."""
    events = at.events()
    of = {kind: [p for p in proposals if meant[p.id] is kind] for kind in VerdictKind}
    rejected = {event.id: event for event in events if isinstance(event, StakeSlashed)}
    assert {number: e.to_verifier_pool + e.burned for number, e in rejected.items()} == {
        p.id: p.stake for p in of[VerdictKind.REJECT]
    }
    minted = sum(e.amount for e in events if isinstance(e, MinerRewardMinted))
    burned = sum(e.amount for e in events if isinstance(e, LedgerBurned))
    bought = sum(e.tokens_out for e in events if isinstance(e, Bought))
    assert sum(isinstance(e, MinerRewardMinted) for e in events) == len(of[VerdictKind.APPROVE])
    assert burned == sum(e.burned for e in rejected.values())
    assert bought == sum(p.stake for p in proposals)
    with at.direct() as direct:
        client, project = direct.client, direct.client.project(0)
        assert project.miner_pool_minted == minted
        assert client.supply(project) == bought + minted - burned
        held = tokens_of(at.embedded, project.mint)
        assert sum(held.values()) == client.supply(project)
        pdas = client.pdas
        for proposal in proposals:
            escrow = held.pop(pdas.proposal_escrow(proposal.id), 0)
            assert escrow == (proposal.stake if meant[proposal.id] is VerdictKind.RELEASE else 0)
        claimable = [client.claimable(0, _key(home)) for home in homes]
        assert held.pop(pdas.project_pool(0)) == sum(claimable) == sum(e.to_verifier_pool for e in rejected.values())
        miner = associated_token_account(local.miner_of(direct).pubkey(), project.mint)
        assert held.pop(miner) == sum(p.stake for p in of[VerdictKind.APPROVE]) + minted
        assert not any(held.values())


def _on_record(at: World, homes: list[Path]) -> None:
    """Every transaction of a verifier was on record, once, before it was sent, and its end is too."""
    landed = {str(record.signature): record for record in at.landed()}
    succeeded = {signature for signature, record in landed.items() if record.error is None}
    recorded: Counter[str] = Counter()
    for home in homes:
        for path in (home / "verify").glob("*/settlement.jsonl"):
            assert SettlementRecord(path).open is None, path
            entries = [json.loads(line) for line in path.read_text().splitlines()]
            sent = [entry["signature"] for entry in entries if entry["event"] == "sent"]
            recorded.update(sent)
            ends = {entry["signature"]: entry["event"] for entry in entries if entry["event"] in ("landed", "dead")}
            assert {signature: "landed" if signature in succeeded else "dead" for signature in sent} == ends, path
    assert set(recorded.values()) <= {1}
    keys = {_key(home) for home in homes}
    theirs = {name for name, record in landed.items() if _payer(record) in keys}
    assert theirs == set(recorded) & set(landed)
    # what failed on chain lost a race between its simulation and its slot, for a review or for the best
    lost = {program_error_of(landed[signature].error) for signature in theirs - succeeded}
    assert lost <= {LockActive.code, WrongStatus.code, ScoreNotImproved.code}


def _payer(record: Any) -> Pubkey:
    from solders.transaction import VersionedTransaction

    return VersionedTransaction.from_bytes(record.wire).message.account_keys[0]


def _key(home: Path) -> Pubkey:
    from chain.wallet import wallet

    return wallet.load(wallet.path_of(home, "verifier")).pubkey()
