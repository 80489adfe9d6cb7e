"""A node that lies to a miner that buys a stake and submits under a cap (`tests.faults.hostile`).

Whatever is told: nothing is staked or bought twice, nothing leaves the wallet above the cap, nothing of another
project is touched, and against an honest node the next process finishes the work.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from solders.keypair import Keypair

import chain.network.rpc
from chain.connection.opening import AUTHORITY
from chain.irys.client import Role
from chain.money.client import Client
from chain.program.events import Bought, ProposalSubmitted, parse_events
from chain.program.instructions import Buy
from chain.wallet import wallet
from common.errors import Refused
from miner.journal.journal import Journal
from miner.staking import submit
from tests import local
from tests.chain.svm import project_args
from tests.faults.hostile import Answers, Stage, cost_nothing, stage, until_done
from tests.faults.lies import Lie, lies
from tests.faults.test_submissions import MACHINE

STAKE, HELD, CAP = 3, 2, 25_000_000  # tokens to stake, tokens at hand of five times as many, lamports
_NEVER_PAYS = {"requestAirdrop", "getSlot", "getSignaturesForAddress", "getBlocks", "getBlock"}


class Desk:
    """As much of a connection as a submission needs; artifacts are where they should be."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def publish(self, key: Keypair, role: Role, data: bytes, *_: object) -> tuple[bytes, bytes]:
        return sha256(data).digest(), sha256(b"id" + data).digest()


@dataclass
class Scene:
    """A chain with two projects behind a lying node, and miners who submit."""

    at: Stage
    folder: Path
    count: int = 0

    def life(self, key: Keypair, path: Path, *, tries: int, sends: int = -1) -> tuple[Client, list[Refused]]:
        """A process that reconciles and submits, as often as it is started again; killed after `sends`."""
        client = self.at.client(CAP, sends)
        offer = submit.Offer(
            1, b"code of %b" % bytes(key.pubkey()), b"---\nval_bpb: 2.4\n", 2_600_000, STAKE, key.pubkey()
        )

        def process() -> Sequence[Refused]:
            with closing(Journal(path)) as journal:
                if not path.read_bytes():
                    journal.append("session", seed=1, tag="t")
                project = client.project(0)
                if submit.reconcile(client, key.pubkey(), project, journal) is None:
                    done = [s for s in journal.session.submissions if s.proposal is not None]
                    if not done:
                        submit.submit(
                            Desk(client),  # type: ignore[arg-type]
                            key,
                            project,
                            offer,
                            journal,
                            machine=MACHINE,
                            data_snapshot=local.DATA_SNAPSHOT,
                            say=lambda _: None,
                        )
            return ()

        refusals = until_done(process, tries)
        client.network.close()
        return client, refusals

    def miner(self) -> Keypair:
        """A new miner who holds some tokens: too few, so that a stake must be bought too."""
        key = Keypair()
        self.at.embedded.airdrop(key.pubkey(), 10**9)
        direct = Client(self.at.embedded)
        direct.call(Buy(0, submit.price(direct.project(0), direct.supply(direct.project(0)), HELD)), key)
        return key

    def events(self, key: Keypair) -> list[Bought | ProposalSubmitted]:
        """What this miner bought and staked, in any project."""
        found: list[Bought | ProposalSubmitted] = []
        for signature in reversed(self.at.embedded.signatures(key.pubkey())):
            receipt = self.at.embedded.transaction(signature)
            assert receipt is not None
            if receipt.error is None:
                events = parse_events(receipt.logs, self.at.embedded.program_id)
                found += [e for e in events if isinstance(e, Bought | ProposalSubmitted)]
        return found

    def play(self, lie: Lie | None, nth: int | None = None, sends: int = -1) -> list[Refused]:
        """One miner against one lie, and then against the truth."""
        self.count += 1
        key, path = self.miner(), self.folder / f"{self.count}.jsonl"
        path.touch()
        self.at.told.tell(lie, nth)
        before = self.at.embedded.balance(key.pubkey())
        client, refusals = self.life(key, path, tries=3, sends=sends)
        lost = before - self.at.embedded.balance(key.pubkey())
        assert lost <= CAP, f"{lost} lamports left the wallet"
        assert lost <= client.budget.spent, f"{lost} lost, {client.budget.spent} counted"
        self.check(key)
        self.at.told.hush()
        self.at.embedded.warp(200)
        _, later = self.life(key, path, tries=3)
        self.check(key)
        staked = [e for e in self.events(key) if isinstance(e, ProposalSubmitted)]
        assert len(staked) == 1, f"not staked in the end: {later or refusals}"
        with closing(Journal(path)) as journal:
            assert [s.proposal for s in journal.session.submissions if s.proposal is not None] == [staked[0].id]
        return refusals

    def check(self, key: Keypair) -> None:
        events = self.events(key)
        staked = [e for e in events if isinstance(e, ProposalSubmitted)]
        assert len(staked) <= 1, f"staked {len(staked)} times"
        assert sum(e.tokens_out for e in events if isinstance(e, Bought)) <= STAKE, "bought more than once"
        assert {e.project_id for e in events} <= {0}, "another project"
        assert all(e.stake == STAKE for e in staked)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("hostile")
    with stage(local.home_with_project(folder / "home")) as at:
        Client(at.embedded).create_project(wallet.load(wallet.path_of(folder / "home", AUTHORITY)), project_args())
        yield Scene(at, folder)


@pytest.fixture(scope="module")
def heard(scene: Scene) -> Answers:
    """Every method's answers, as an honest life hears them."""
    for sends in (-1, 1, 2):
        assert scene.play(None, sends=sends) == []
    return scene.at.told.answers


def test_every_method_of_the_client_is_lied_about(heard: Answers) -> None:
    """Those of the client's source, but for those that only look and never lead to a transaction."""
    source = Path(chain.network.rpc.__file__).read_text()
    named = set(re.findall(r"requests\.((?:Get|Send|Simulate|Request)\w+)", source))
    spoken = {
        {"SendRawTransaction": "sendTransaction", "SimulateVersionedTransaction": "simulateTransaction"}.get(
            name, name[0].lower() + name[1:]
        )
        for name in named
    }
    assert spoken - _NEVER_PAYS <= set(heard)
    assert all(len(list(lies(method, answer))) > 3 for method, answers in heard.items() for answer in answers)


def test_no_lie_costs_anything(scene: Scene, heard: Answers) -> None:
    cost_nothing(scene.at.told, heard, scene.play, sends=(-1, -1, 1, 2))
