"""A node that lies, in one field of one answer at a time, to a miner that buys a stake and submits under a cap.

The lies are made from the answers of the real local server, for every method that the client asks; the default tries
a sample of each method's, ARMLX_HOSTILE_LIES=0 tries all of them, or another number per method.
Whatever is told: nothing is staked or bought twice, nothing leaves the wallet above the cap, nothing of another
project is touched, and against an honest node the next process finishes the work.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from solders.keypair import Keypair
from solders.signature import Signature
from solders.transaction import VersionedTransaction

import chain.network.rpc
from chain.connection.opening import AUTHORITY
from chain.errors import ChainError
from chain.irys.client import Role
from chain.localnet.server import serve
from chain.money.client import Client
from chain.money.spending import SpendingBudget, SpendingTerms
from chain.network.base import TransactionReceipt
from chain.network.embedded import EmbeddedNetwork
from chain.network.rpc import RpcNetwork
from chain.program.events import Bought, ProposalSubmitted, parse_events
from chain.program.instructions import Buy
from chain.wallet import wallet
from miner.journal.journal import Journal
from miner.staking import submit
from tests import local
from tests.chain.svm import project_args
from tests.faults.lies import Lie, lies, shape
from tests.faults.proxy import Proxy
from tests.faults.test_submissions import MACHINE
from tests.faults.world import Killed, number

PER_METHOD = number("ARMLX_HOSTILE_LIES", 6)
SEED = number("ARMLX_FAULT_SEED", 1)
STAKE, HELD, CAP = 3, 2, 25_000_000  # tokens to stake, tokens at hand of five times as many, lamports
_NEVER_PAYS = {"requestAirdrop", "getSlot", "getSignaturesForAddress", "getBlocks", "getBlock"}


@dataclass
class Told:
    """What the proxy does to answers: `lie`, at the `nth` answer that it fits (None: at each), and a record of all."""

    lie: Lie | None = None
    nth: int | None = None
    fitted: int = 0

    def __post_init__(self) -> None:
        self.heard: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)

    def __call__(self, request: bytes, answer: bytes) -> bytes:
        method, said = json.loads(request)["method"], json.loads(answer)
        if "result" not in said:
            return answer
        self.heard[method].setdefault(shape(said["result"]), said)
        if self.lie is None or self.lie.method != method:
            return answer
        told = self.lie.tell(said)
        if told == said:
            return answer
        self.fitted += 1
        return json.dumps(told).encode() if self.nth is None or self.fitted == self.nth else answer


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


class Desk:
    """As much of a connection as a submission needs; artifacts are where they should be."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def publish(self, key: Keypair, role: Role, data: bytes, *_: object) -> tuple[bytes, bytes]:
        return sha256(data).digest(), sha256(b"id" + data).digest()


@dataclass
class Scene:
    """A chain with two projects, its server, and a proxy before it."""

    embedded: EmbeddedNetwork
    proxy: Proxy
    told: Told
    folder: Path
    count: int = 0

    def life(self, key: Keypair, path: Path, *, tries: int, sends: int = -1) -> tuple[Client, list[ChainError]]:
        """A process that reconciles and submits, as often as it is started again; killed after `sends`."""
        network = Impatient(self.proxy.url, call_seconds=2, sleep=self._wait)
        client = Client(network, budget=SpendingBudget(SpendingTerms(cap=CAP)), priority_fee="auto")
        network.sends = sends
        refusals: list[ChainError] = []
        offer = submit.Offer(
            1, b"code of %b" % bytes(key.pubkey()), b"---\nval_bpb: 2.4\n", 2_600_000, STAKE, key.pubkey()
        )
        for _ in range(tries):
            journal = Journal(path)
            try:
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
            except Killed:
                continue
            except ChainError as error:
                refusals.append(error)
            else:
                break
            finally:
                journal.close()
        network.close()
        return client, refusals

    def _wait(self, seconds: float) -> None:
        self.embedded.warp(4)

    def miner(self) -> Keypair:
        """A new miner who holds some tokens: too few, so that a stake must be bought too."""
        key = Keypair()
        self.embedded.airdrop(key.pubkey(), 10**9)
        direct = Client(self.embedded)
        direct.call(Buy(0, submit.price(direct.project(0), direct.supply(direct.project(0)), HELD)), key)
        return key

    def events(self, key: Keypair) -> list[Bought | ProposalSubmitted]:
        """What this miner bought and staked, in any project."""
        found: list[Bought | ProposalSubmitted] = []
        for signature in reversed(self.embedded.signatures(key.pubkey())):
            receipt = self.embedded.transaction(signature)
            assert receipt is not None
            if receipt.error is None:
                events = parse_events(receipt.logs, self.embedded.program_id)
                found += [e for e in events if isinstance(e, Bought | ProposalSubmitted)]
        return found

    def play(self, lie: Lie | None, nth: int | None, *, sends: int = -1) -> tuple[Told, list[ChainError]]:
        """One miner against one lie, and then against the truth."""
        self.count += 1
        key, path = self.miner(), self.folder / f"{self.count}.jsonl"
        path.touch()
        told = self.told
        told.lie, told.nth, told.fitted = lie, nth, 0
        before = self.embedded.balance(key.pubkey())
        client, refusals = self.life(key, path, tries=3, sends=sends)
        lost = before - self.embedded.balance(key.pubkey())
        assert lost <= CAP, f"{lost} lamports left the wallet"
        assert lost <= client.budget.spent, f"{lost} lost, {client.budget.spent} counted"
        self.check(key)
        told.lie = None
        self.embedded.warp(200)
        _, later = self.life(key, path, tries=3)
        self.check(key)
        staked = [e for e in self.events(key) if isinstance(e, ProposalSubmitted)]
        assert len(staked) == 1, f"not staked in the end: {later or refusals}"
        journal = Journal(path)
        assert [s.proposal for s in journal.session.submissions if s.proposal is not None] == [staked[0].id]
        journal.close()
        return told, refusals

    def check(self, key: Keypair) -> None:
        events = self.events(key)
        staked = [e for e in events if isinstance(e, ProposalSubmitted)]
        assert len(staked) <= 1, f"staked {len(staked)} times"
        assert sum(e.tokens_out for e in events if isinstance(e, Bought)) <= STAKE, "bought more than once"
        assert {e.project_id for e in events} <= {0}, "another project"
        assert all(e.stake == STAKE for e in staked)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    patch, folder = pytest.MonkeyPatch(), tmp_path_factory.mktemp("hostile")
    patch.setattr(chain.network.rpc, "_REBROADCAST_SECONDS", 0.0)
    patch.setattr(chain.network.rpc, "_POLL_SECONDS", 0.01)
    embedded = EmbeddedNetwork(local.home_with_project(folder / "home"))
    Client(embedded).create_project(wallet.load(wallet.path_of(folder / "home", AUTHORITY)), project_args())
    told = Told()
    with serve(embedded, port=0).start() as server, Proxy(server.url, alter=told) as proxy:
        yield Scene(embedded, proxy, told, folder)
    embedded.close()
    patch.undo()


@pytest.fixture(scope="module")
def heard(scene: Scene) -> dict[str, list[dict[str, Any]]]:
    """Every method's answers, one of each shape, as an honest life hears them."""
    for sends in (-1, 1, 2):
        _, refusals = scene.play(None, None, sends=sends)
        assert refusals == []
    return {method: list(answers.values()) for method, answers in scene.told.heard.items()}


def test_every_method_of_the_client_is_lied_about(heard: dict[str, list[dict[str, Any]]]) -> None:
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


def test_no_lie_costs_anything(scene: Scene, heard: dict[str, list[dict[str, Any]]]) -> None:
    rng, tally, failed = random.Random(SEED), Counter[str](), list[str]()
    for method, answers in sorted(heard.items()):
        told = list({str(lie): lie for answer in answers for lie in lies(method, answer)}.values())
        chosen = told if not PER_METHOD else rng.sample(told, min(PER_METHOD, len(told)))
        for lie in chosen:
            for nth in (None, rng.randrange(1, 4)):
                try:
                    what, refusals = scene.play(lie, nth, sends=rng.choice((-1, -1, 1, 2)))
                except AssertionError as error:
                    failed.append(f"{lie}, {'always' if nth is None else f'answer {nth}'}: {error}")
                else:
                    tally["not told" if not what.fitted else "refused" if refusals else "harmless"] += 1
    print(f"{sum(tally.values())} lies about {len(heard)} methods: {dict(tally)}")
    assert not failed, "\n".join(failed)
    assert tally["refused"] > 0
