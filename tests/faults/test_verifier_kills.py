"""The unattended verifier, killed at random moments while proposals are pending: each is settled once.

`ARMLX_FAULT_KILLS` says how often (from 10 on with proposals that take many runs), `ARMLX_FAULT_SEED` when.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chain.connection.opening import MINER, VERIFIER
from chain.irys.client import Role
from chain.money.client import Client
from chain.network.embedded import EmbeddedNetwork
from chain.program.accounts import ProposalStatus
from chain.program.events import ReviewClaimed, parse_events
from chain.program.instructions import Buy
from chain.projects.artifacts import fetch_project
from chain.wallet.wallet import load, path_of
from miner.staking import submit
from tests import local
from tests.e2e.test_path import BIN
from tests.faults.lives import Kill, left_over, live
from tests.faults.world import number, tokens_of
from trainer.machine.hardware import fingerprint
from trainer.project import bundle, hyperparameters, task
from verifier.settle import SettlementRecord

if TYPE_CHECKING:
    from tests.attacks.tiny import TinyHome

KILLS = number("ARMLX_FAULT_KILLS", 3)
SEED = number("ARMLX_FAULT_SEED", 1)
LONG = KILLS >= 10
STAKE = 3


def sources(tiny_home: TinyHome) -> list[tuple[str, ProposalStatus]]:
    """What is proposed, and how it is to end."""
    large = f"\nWEIGHTS = '{'0' * 10_000}'\n"
    found = [(tiny_home.better + large, ProposalStatus.REJECTED), (tiny_home.baseline + large, ProposalStatus.REJECTED)]
    if LONG:
        found.append(("raise RuntimeError('broken')\n", ProposalStatus.REJECTED))
        worse = {"EMBED_LR": 1e-05, "HEAD_LR": 1e-05, "MATRIX_LR": 1e-05}
        found.append((hyperparameters.replace(tiny_home.baseline, worse), ProposalStatus.REJECTED))
        found.append((tiny_home.better, ProposalStatus.APPROVED))
    return found


def propose(home: Path, tiny_home: TinyHome, scripts: list[str]) -> None:
    with local.connect(home) as connection:
        client, miner = connection.client, connection.wallet(None, MINER)
        snapshot = task.read(fetch_project(connection, client.project(0))).benchmark.data_snapshot or ""
        tags = [*fingerprint().tags, ("Data-Snapshot", snapshot)]
        for script in scripts:
            project = client.project(0)
            code = bundle.pack({**tiny_home.files, "train.py": script.encode()})
            client.call(Buy(project.id, submit.price(project, client.supply(project), STAKE)), miner)
            client.submit(
                miner,
                project,
                code=connection.publish(miner, Role.PROPOSAL_CODE, code, "application/x-tar"),
                log=connection.publish(miner, Role.BENCHMARK_LOG, b"---\nval_bpb: 1.0\n", "text/plain", tags),
                claimed_score=project.baseline_aggregate_score + 100_000,
                stake=STAKE,
                reward_recipient=miner.pubkey(),
            )


def records(home: Path) -> list[Path]:
    return sorted((home / "verify").glob("*/settlement.jsonl"))


def entries(home: Path) -> list[dict[str, Any]]:
    """The whole lines of all settlements' records."""
    found = []
    for path in records(home):
        content = path.read_bytes()
        found += [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]
    return found


def kills(count: int, rng: random.Random) -> list[Kill]:
    if count < 10:
        return [Kill(1), Kill(2, group=False), Kill("verdict")][:count]
    return [
        Kill(rng.uniform(0.2, 6.0) if place % 2 else rng.randrange(1, 6), rng.random() < 0.75) for place in range(count)
    ]


def test_killed_at_any_moment_each_is_settled_once(tiny_home: TinyHome, tmp_path: Path) -> None:
    home, said, cut = tiny_home.copy(tmp_path / "home").path, tmp_path / "said.txt", Counter[bool]()
    meant = sources(tiny_home)
    propose(home, tiny_home, [source for source, _ in meant])
    command = [BIN / "verifier", "run", "--once", "--yes", "--home", home]
    for kill in kills(KILLS, random.Random(SEED)):
        cut[live(command, said, kill, lambda: entries(home))] += 1
        assert left_over(home) == []
    assert live(command, said, None, lambda: entries(home))
    print(f"{cut[False]} kills; {Counter(entry['event'] for entry in entries(home))}")

    embedded, verifier = EmbeddedNetwork(home), load(path_of(home, VERIFIER)).pubkey()
    client = Client(embedded)
    landed = embedded.records_after(-1)
    happened = [event for record in landed for event in parse_events(record.logs, embedded.program_id)]
    assert [p.status for p in client.proposals(0)] == [status for _, status in meant]
    assert Counter(e.id for e in happened if isinstance(e, ReviewClaimed)) == dict.fromkeys(range(len(meant)), 1)
    assert [SettlementRecord(path).open for path in records(home)] == [None] * len(meant)
    signatures = [entry["signature"] for entry in entries(home) if entry["event"] == "sent"]
    theirs = {str(record.signature) for record in landed} & set(signatures)
    assert len(theirs) == 2 * len(meant)  # a claim and a settlement each, and all on record
    rejected = sum(status is ProposalStatus.REJECTED for _, status in meant)
    project = client.project(0)
    held = tokens_of(embedded, project.mint)
    assert client.claimable(0, verifier) == held[client.pdas.project_pool(0)] == rejected * (STAKE // 2)
    assert not any(held.get(client.pdas.proposal_escrow(number)) for number in range(len(meant)))
    assert sum(held.values()) == client.supply(project)
    embedded.close()
