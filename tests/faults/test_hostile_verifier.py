"""A node that lies to `verifier run` (`tests.faults.hostile`).

Index, intake, claim and settlement are real; the runs are made up from the code that was fetched.

Whatever is told: a good proposal is never rejected and a bad one never approved, each is settled once, with a score and
an attestation that an honest node confirms, nothing leaves the wallet above the cap, and against an honest node the
next process finishes the work.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from solders.keypair import Keypair

from chain.connection.opening import MINER, VERIFIER, Connection
from chain.irys.node import RunningNode
from chain.irys.node import serve as serve_irys
from chain.money.client import Client
from chain.program.accounts import Proposal, ProposalStatus
from chain.program.events import Event, ProposalApproved, ProposalRejected, ReviewClaimed, ReviewReleased, parse_events
from chain.wallet import wallet
from common.errors import Refused
from common.terminal import View
from tests import local
from tests.faults.hostile import Answers, Stage, cost_nothing, stage, until_done
from tests.faults.lies import Lie
from tests.trainer.judging.cases import NOISE, runs
from tests.verifier.cases import RULES
from trainer.judging import holdout
from trainer.judging.judge import compared
from verifier import check, history, serve
from verifier.audit import audit
from verifier.check import CheckResult
from verifier.intake import open_case
from verifier.replay import Replay

CAP = 20_000_000  # lamports for a settlement: the accounts that one creates, and fees
GOOD, BAD = b"GOOD", b"POOR"
_DRAWS = {"getBlocks", "getBlock"}
SEED = 7  # of the order of runs
SEEN = compared(runs(0.2), NOISE, RULES.at_look(1), SEED)[1]
GAIN = round(SEEN.delta * 1e6) if SEEN else 0  # what the made-up runs of a good one come to, as a score


def measured(connection: Connection, proposal: Proposal, key: Keypair, *_: Any, **how: Any) -> CheckResult:
    """A check whose runs came out as the fetched code says."""
    policy = RULES.at_look(1)
    case = open_case(connection, proposal, policy)
    seed = holdout.seed_of(history.submission_hash(connection.client, proposal), proposal.id)
    gain = 0.2 if GOOD in case.candidate["train.py"] else -0.05
    replay = Replay(None, tuple(runs(gain)), NOISE, SEED, "held out: x", "cc" * 32, ())
    folder = check.folder_of(connection.home, connection.network.name, str(proposal.id))
    return check._conclude(connection, case.project, proposal, case, replay, key, policy, folder, (seed, True))


@dataclass
class Scene:
    """A project behind a lying node; each play is one proposal and a verifier with a new home."""

    at: Stage
    direct: Connection
    node: RunningNode
    folder: Path
    count: int = 0

    def life(self, home: Path, *, tries: int, sends: int = -1) -> tuple[Client, list[Refused]]:
        """`verifier run --once`, as often as it is started again; killed after `sends` transactions."""
        connection = local.connect(home, self.at.proxy.url, irys=self.node.url)
        connection.network.close()
        client = connection.client = self.at.client(CAP, sends)
        connection.network = client.network
        key = wallet.load(wallet.path_of(home, VERIFIER))

        def process() -> Sequence[Refused]:
            now = [0.0]

            def sleep(seconds: float) -> None:
                now[0] += seconds

            results = serve.serve(
                connection,
                0,
                key,
                RULES,
                View(quiet=True),
                once=True,
                every=1.0,
                retries=1,
                trust_harness=False,
                ready=lambda proposal: check.prepare(connection, proposal, RULES),
                sleep=sleep,
                now=lambda: now[0],
            )
            return [Refused(str(r["note"])) for r in results if r["status"] not in ("approved", "rejected")]

        refusals = until_done(process, tries)
        connection.close()
        return client, refusals

    def play(self, lie: Lie | None, nth: int | None = None, sends: int = -1) -> list[Refused]:
        """One verifier against one lie, and then against the truth."""
        self.count += 1
        word = GOOD if self.count % 2 else BAD
        before = self.direct.client.project(0)
        proposal = local.propose(self.direct, code=local.archive(b"# %s\nLR = %d\n" % (word, self.count)))
        home = self.folder / str(self.count)
        shutil.copytree(self.folder / "verifier", home)
        key = wallet.load(wallet.path_of(home, VERIFIER)).pubkey()
        self.at.embedded.airdrop(key, 10**8)
        self.at.told.tell(lie, nth)
        held = self.at.embedded.balance(key)
        client, refusals = self.life(home, tries=2, sends=sends)
        self.at.told.hush()
        lost = held - self.at.embedded.balance(key)
        assert lost <= CAP, f"{lost} lamports left the wallet"
        assert lost <= client.budget.spent, f"{lost} lost, {client.budget.spent} counted"
        believed = lie is not None and lie.method in _DRAWS
        self.check(proposal, word, before.current_best_aggregate_score, believed=believed)
        self.at.embedded.warp(200)
        _, later = self.life(home, tries=3)
        now = self.direct.client.proposal(proposal.id)
        assert now.status in (ProposalStatus.APPROVED, ProposalStatus.REJECTED), f"not settled: {later or refusals}"
        self.check(proposal, word, before.current_best_aggregate_score, believed=believed)
        return refusals

    def check(self, proposal: Proposal, word: bytes, best: int, *, believed: bool) -> None:
        """What became of it, as an honest node tells. Where the node's word was `believed` on which block drew the
        holdout text, the audit by another node says that it lied.
        """
        events = [e for e in self.events(proposal) if getattr(e, "id", None) == proposal.id]
        kinds = [type(event) for event in events]
        settled = kinds.count(ProposalApproved) + kinds.count(ProposalRejected)
        assert settled <= 1, "settled twice"
        assert kinds.count(ReviewClaimed) <= 1 + kinds.count(ReviewReleased) <= 2, "claimed again and again"
        now = self.direct.client.proposal(proposal.id)
        if not settled:
            return
        assert now.status.name == ("APPROVED" if word == GOOD else "REJECTED"), "settled otherwise than measured"
        if word == GOOD:
            assert now.verified_aggregate_score == best + GAIN, f"approved at {now.verified_aggregate_score}"
        sealed = self.direct.fetch(now.metrics_irys_id, now.metrics_hash, now.reviewer, "attestation")
        points, _ = audit(sealed, self.direct.client, {}, policy=RULES)
        allowed = [
            "the network is the attested one",
            *(["the holdout text was drawn by the proposal's own block"] * believed),
        ]
        wrong = [f"{p.question}: {p.detail}" for p in points if p.holds is False and p.question not in allowed]
        assert not wrong, "; ".join(wrong)

    def events(self, proposal: Proposal) -> list[Event]:
        found: list[Event] = []
        for signature in reversed(self.at.embedded.signatures(self.direct.client.pdas.proposal(proposal.id))):
            receipt = self.at.embedded.transaction(signature)
            if receipt is not None and receipt.error is None:
                found += parse_events(receipt.logs, self.at.embedded.program_id)
        return found


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("hostile")
    home = local.home_with_project(folder / "home")
    with (
        pytest.MonkeyPatch.context() as patch,
        stage(home) as at,
        serve_irys(home / "irys", network=at.embedded) as node,
    ):
        patch.setattr(check, "check_proposal", measured)
        patch.setattr(check, "ready", lambda: "")
        with local.connect(home, "embedded", irys=node.url) as direct:
            direct.network.close()
            direct.network, direct.client = at.embedded, Client(at.embedded)
            for role in (VERIFIER, MINER):
                direct.wallet(None, role)
            (folder / "verifier" / "wallets").mkdir(parents=True)
            source = wallet.path_of(home, VERIFIER)
            shutil.copy(source, wallet.path_of(folder / "verifier", VERIFIER))
            yield Scene(at, direct, node, folder)


@pytest.fixture(scope="module")
def heard(scene: Scene) -> Answers:
    """Every method's answers, as honest lives hear them."""
    for sends in (-1, -1, 1, 2):
        assert scene.play(None, sends=sends) == []
    return scene.at.told.answers


def test_no_lie_costs_anything(scene: Scene, heard: Answers) -> None:
    assert {"getSignaturesForAddress", "getBlocks", "getBlock", "getSlot"} <= set(heard)
    cost_nothing(scene.at.told, heard, scene.play, sends=(-1, -1, 1, 2))
