"""A session with fakes at its edge: no git, no chain, no sandbox and no run, so that its rules are tested at once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from chain.errors import ChainError
from chain.money.score import Convention
from chain.network.base import FEE_PER_SIGNATURE, Blockhash
from chain.program.accounts import ProposalStatus
from miner.context.context import SessionContext
from miner.context.goals import Goals
from miner.journal.journal import Journal, TrialRecord
from miner.proposers.base import SCRIPT, Candidate, Context
from miner.report.dashboard import Dashboard
from trainer.machine.hardware import Fingerprint
from trainer.measurement.run import Run
from trainer.project import hyperparameters, protocol, recipe
from trainer.statistics.comparison import Arm
from trainer.statistics.noise import NoiseRecord

PROTOCOL = recipe.load("smoke").files["protocol.json"]
SOURCE = "LR = 0.1  # rate\nDEPTH = 2\n"
SIGMA = 0.004
LOG = b"step 00010 ( 50.0%) | loss: 3.0000 | tok/sec: 1,000\n"
FILES = {SCRIPT: SOURCE.encode(), "protocol.json": PROTOCOL}

MACHINE = Fingerprint("cpu", "Made up", 8, None, None, 1 << 34, "Linux x86_64", "0.32", "3.12.1")


class Tree:
    """A work tree in memory: `Workspace` without git."""

    path = Path("tree")

    def __init__(self, source: str) -> None:
        self.sources: dict[str, str] = {}
        self._head = self._put(source, "snapshot")

    def _put(self, source: str, words: str) -> str:
        commit = sha256(f"{len(self.sources)} {words} {source}".encode()).hexdigest()[:40]
        self.sources[commit] = source
        return commit

    def head(self) -> str:
        return self._head

    def read(self, commit: str, name: str) -> str:
        return self.sources[commit]

    def read_many(self, commits: Sequence[str], name: str) -> list[str]:
        return [self.read(commit, name) for commit in commits]

    def commit(self, number: int, source: str, hypothesis: str, *, name: str = SCRIPT) -> str:
        return self._put(source, hypothesis)

    def adopt(self, source: str, message: str) -> str:
        return self._put(source, message)

    def diff(self, base: str, commit: str) -> str:
        old, new = self.sources[base].splitlines(), self.sources[commit].splitlines()
        return "\n".join(difflib.unified_diff(old, new, lineterm=""))

    def pack(self) -> None:
        pass

    def keep(self, commit: str) -> None:
        self._head = commit


@dataclass(slots=True)
class Machine:
    """A bench whose runs are written down: `values` gives the next val_bpb of a source, a failure word, or raises.
    What it learns of the noise enters `record` where it `learns`."""

    values: Callable[[str, Arm], float | str]
    protocol: protocol.Protocol
    record: NoiseRecord = field(default_factory=lambda: NoiseRecord(20 * SIGMA**2, 20.0))
    ran: list[tuple[str, Arm]] = field(default_factory=list)
    learnt: list[list[list[float]]] = field(default_factory=list)
    log: bytes = LOG
    usual_seconds: float = 7.0
    measurer: object = None
    why_not: str = "bwrap was not found."
    method: str = "self-reported"
    isolation: str = "none"
    data_snapshot: str = "5a" * 32
    machine: Fingerprint = MACHINE
    home: Path = Path("nowhere")
    noise_key: str = "made up"
    environment: Any = field(default_factory=lambda: SimpleNamespace(packages_digest="dd" * 32))
    gpus: tuple[str, ...] = ()
    learns: bool = False

    def each_gpu(self) -> tuple[Machine, ...]:
        return tuple(replace(self, gpus=(gpu,)) for gpu in self.gpus) if len(self.gpus) > 1 else (self,)

    def noise(self) -> NoiseRecord:
        return self.record

    def learn_noise(self, groups: Sequence[Sequence[float]]) -> None:
        self.learnt.append([list(group) for group in groups])
        if self.learns:
            self.record = self.record.update(groups)

    def measure(self, arm: Arm, files: Mapping[str, bytes], say: Callable[[str], None], **_: Any) -> Run:
        source = files[SCRIPT].decode()
        self.ran.append((source, arm))
        say(self.log.decode().strip())
        found = self.values(source, arm)
        if isinstance(found, str):
            return Run(arm, None, found, f"it is {found}", 10.0, None, self.log)
        return Run(arm, found, "", "", 10.0, 512.0, self.log)

    def plain_problem(self, files: Mapping[str, bytes]) -> str:
        return ""

    def plain_run(self, files: Mapping[str, bytes], say: Callable[[str], None]) -> Run:
        return self.measure(Arm.CANDIDATE, files, say)


@dataclass(slots=True)
class Wallet:
    """The network as a wallet sees it: a submission takes `rent` and a fee from it."""

    rent: int = 0
    is_local: bool = False
    name: str = "fake"

    def latest_blockhash(self) -> Blockhash:
        return Blockhash(Hash.default(), 1)

    def balance(self, _: Pubkey) -> int:
        return 10**9

    def simulate(self, _: VersionedTransaction, *, watch: Sequence[Pubkey]) -> Any:
        after = SimpleNamespace(lamports=10**9 - self.rent - FEE_PER_SIGNATURE)
        return SimpleNamespace(accounts=dict.fromkeys(watch, after))


class Unreadable(dict[Pubkey, Any]):
    """Accounts that cannot be read: an attribute of the client, a method of the follower, and `Chain` is both."""

    followed: Sequence[Pubkey] = ()

    def __call__(self) -> list[Pubkey]:
        return list(self.followed)


class Chain:
    """A project, its proposals and a wallet's tokens: client and follower of the chain. `down` answers nobody."""

    def __init__(self) -> None:
        self.project: Any = SimpleNamespace(
            id=0,
            token_symbol="FAKE",
            baseline_aggregate_score=2_500_000,
            current_best_aggregate_score=2_500_000,
            current_best_code_hash=bytes(32),
            current_best_miner=Pubkey.default(),
            mint=Pubkey.default(),
            base_price=1000,
            slope=1,
            miner_pool_minted=0,
        )
        self.statuses: dict[int, ProposalStatus] = {}
        self.sent: list[dict[str, Any]] = []
        self.held, self.down = 10, False
        self.network = Wallet()
        self.before_look: Callable[[], None] = lambda: None
        self.unreadable = Unreadable()

    def refresh(self) -> None:
        self.before_look()
        if self.down:
            raise ChainError("nobody answers", "Try again later.")

    def proposals(self, status: ProposalStatus | None = None) -> list[Any]:
        found = [
            SimpleNamespace(id=i, status=s, verified_aggregate_score=1, claimed_aggregate_score=1)
            for i, s in self.statuses.items()
        ]
        return [proposal for proposal in found if status is None or proposal.status is status]

    def proposal(self, number: int) -> Any:
        return SimpleNamespace(id=number, stake=self.sent[number]["stake"])

    def proposals_of(self, *_: Any) -> list[Any]:
        return []  # what was cut off before it was sent never lands

    def paid(self, _: Any) -> int:
        return FEE_PER_SIGNATURE

    def supply(self, _: Any) -> int:
        return 10

    def tokens(self, *_: Any) -> int:
        return self.held

    def config(self) -> Any:
        return SimpleNamespace(next_proposal_id=len(self.sent))

    def instruction(self, args: object, signer: Pubkey, **_: Any) -> Instruction:
        return Instruction(Pubkey.default(), b"", [])

    def fee_bound(self, *_: Any) -> int:
        return FEE_PER_SIGNATURE

    def submit(self, *_: Any, **sent: Any) -> Any:
        number = len(self.sent)
        self.sent.append(sent)
        self.statuses[number] = ProposalStatus.PENDING
        event = SimpleNamespace(id=number)
        return SimpleNamespace(event=lambda _: event, receipt=SimpleNamespace(paid=5000))


class Scripted:
    """A proposer that gives these sources, one after the other."""

    name = "scripted"

    def __init__(self, *sources: str) -> None:
        self.left, self.seen = list(sources), list[Context]()

    def propose(self, context: Context) -> Candidate | None:
        self.seen.append(context)
        return Candidate(self.left.pop(0), f"idea {context.number}", self.name) if self.left else None


class Fake:
    """One session's context and the fakes in it. `values` maps a source to what it truly is, in val_bpb; where it
    gives None the run crashes. The session begins with `source`."""

    def __init__(
        self,
        folder: Path,
        values: Mapping[str, float | None],
        *,
        goals: Goals | None = None,
        bips: int = 0,
        source: str = SOURCE,
    ) -> None:
        self.values, self._calls = values, 0
        self.machine = Machine(self.next, replace(protocol.parse(PROTOCOL), min_improvement_bips=bips), home=folder)
        self.chain, self.tree, self.journal = Chain(), Tree(source), Journal(folder / "session.jsonl")
        self.said: list[str] = []
        if not self.journal.session.tag:
            self.journal.append("session", seed=1, tag="t")
        files = {**FILES, SCRIPT: source.encode()}
        task = SimpleNamespace(
            files=files,
            incumbent=files,
            protocol=self.machine.protocol,
            protocol_bytes=PROTOCOL,
            benchmark=SimpleNamespace(data_arguments=("--text", "x")),
            tree=lambda archive: {**FILES, SCRIPT: archive},
        )
        connection = SimpleNamespace(
            client=self.chain,
            network=self.chain.network,
            settings={"max_spend": None, "notify_command": None, "notify_webhook": None, "notify_desktop": False},
            publish=lambda *_: (bytes(32), bytes(32)),
        )
        self.context = SessionContext(
            cast("Any", connection),
            self.chain.project,
            cast("Any", task),
            cast("Any", self.machine),
            Convention("reflected", 2_500_000),
            Keypair(),
            Pubkey.default(),
            folder,
            self.journal,
            cast("Any", self.chain),
            self.dashboard(),
            goals or Goals(),
            unconfined=True,
            prune=False,
            _workspace=cast("Any", self.tree),
        )

    def dashboard(self) -> Dashboard:
        dashboard = Dashboard(quiet=True)
        dashboard.say = lambda text, style="": self.said.append(text)  # type: ignore[method-assign]
        return dashboard

    def next(self, source: str, _: Arm) -> float | str:
        """A run's value: the true one, above and below it in turn."""
        self._calls += 1
        true = self.values[source]
        return "crash" if true is None else true + SIGMA * (0.5 if self._calls % 2 else -0.5)

    # --- a journal with a past ---

    def trial(
        self, source: str, *, decision: str = "", delta: float | None = None, hypothesis: str = ""
    ) -> TrialRecord:
        """Put a trial on record, the first one as the baseline; its runs follow with `run`."""
        number = len(self.journal.session.trials)
        commit = self.tree.commit(number, source, f"idea {number}") if number else self.tree.head()
        words = hypothesis or f"idea {number}"
        fields = {"hypothesis": words, "fingerprint": hyperparameters.fingerprint(source)}
        noise = self.machine.record.to_json()
        self.journal.append("trial", number=number, commit=commit, base=self.tree.head(), noise=noise, **fields)
        if decision:
            self.decide(decision, delta)
        return self.journal.session.trials[-1]

    def run(self, arm: Arm, value: float | None, *, number: int = -1, failure: str = "", machine: str = "") -> None:
        number = self.journal.session.trials[number].number
        run = {"arm": arm.value, "val_bpb": value, "failure": failure, "detail": failure, "machine": machine}
        self.journal.append("run", number=number, seconds=10.0, memory_mb=None, log="", **run)

    def decide(self, decision: str, delta: float | None = None) -> None:
        trial = self.journal.session.trials[-1]
        self.journal.append("decision", number=trial.number, decision=decision, delta=delta)
        if decision == "keep":
            self.tree.keep(trial.commit)

    def frontier(self, commit: str = "", code_hash: str = "00" * 32, *, own: bool = False) -> None:
        """Put the chain's best on record: the head's code unless another commit is named."""
        self.journal.append(
            "frontier",
            trial=len(self.journal.session.trials) - 1,
            commit=commit or self.tree.head(),
            code_hash=code_hash,
            metric="2.500000",
            miner="m",
            own=own,
            adopted=False,
        )

    def events(self) -> list[str]:
        """The kinds of events in the journal, in order."""
        return [line.split('"event": "')[1].split('"')[0] for line in self.journal.path.read_text().splitlines()]
