"""What a session works with, as one value that its loop, its stakes and its machines share."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chain.connection.config import default_home
from chain.connection.opening import Connection
from chain.indexer.rules import Follower
from chain.money import score
from chain.program.accounts import Project
from common.resources import shown
from miner.context import foreign
from miner.context.goals import Goals
from miner.journal.journal import Journal, Session
from miner.journal.records import Records
from miner.journal.worktree import Workspace
from miner.proposers.base import SCRIPT
from miner.report.dashboard import Dashboard
from trainer.measurement.bench import Bench
from trainer.measurement.run import Run
from trainer.project import bundle
from trainer.project.task import Task


@dataclass(frozen=True, slots=True)
class Earlier:
    """A run that this very process made before there was a session; `began` and `ended` in Unix seconds."""

    run: Run
    began: float
    ended: float


@dataclass(slots=True)
class SessionContext:
    """Everything that a mining command works with; `folder` holds the session's journal, work tree, logs and records.

    `project` is as the chain had it at the last look, `published` the baseline runs that published it in this
    process. `prune`: runs may be stopped by their loss curves. `rejections` are those of our proposals that this
    process saw. `unconfined`: the user lets other people's code run without a sandbox.
    """

    connection: Connection
    project: Project
    task: Task
    bench: Bench
    convention: score.Convention
    wallet: Keypair
    reward_recipient: Pubkey
    folder: Path
    journal: Journal
    follower: Follower
    dashboard: Dashboard
    goals: Goals
    published: Sequence[Earlier] = ()
    trust_harness: bool = False
    unconfined: bool = False
    prune: bool = True
    rejections: int = 0
    _records: Records | None = field(default=None, repr=False)
    _workspace: Workspace | None = field(default=None, repr=False)

    @property
    def session(self) -> Session:
        """What the journal adds up to now."""
        return self.journal.session

    @property
    def workspace(self) -> Workspace:
        """The session's work tree, made at its first use."""
        if self._workspace is None:
            self._workspace = Workspace.open(self.folder / "tree", self.session.tag, self.task.incumbent)
        return self._workspace

    def write_records(self) -> None:
        """Bring the files that other clients read up to date."""
        if self._records is None:
            self._records = Records(self.folder, self.bench.protocol)
        self._records.update(self.session.sums.decided)

    @property
    def report_command(self) -> str:
        """The command that shows this session as a page."""
        home = self.folder.parent.parent
        where = "" if home == default_home() else f" --home {shlex.quote(str(home))}"
        return shown(f"miner report --session {self.folder.name}{where} --open")

    @property
    def budget_seconds(self) -> float:
        """The training time that the protocol gives a run."""
        return self.bench.protocol.execution.training_seconds

    @property
    def best_metric(self) -> Decimal:
        """The metric of the best on chain."""
        return self.convention.to_metric(self.project.current_best_aggregate_score)

    @property
    def practice(self) -> bool:
        """Whether the chain is in this process' own home, where nobody else proposes or verifies."""
        return self.connection.network.name == "embedded"

    def tree(self, commit: str) -> Mapping[str, bytes]:
        """The snapshot with a commit's train.py; nothing else of the work tree is trusted to be unchanged."""
        changed = {SCRIPT: self.workspace.read(commit, SCRIPT).encode()}
        return bundle.overlay(self.task.files, changed, self.task.protocol.surface)

    def require_confined(self) -> None:
        """EnvironmentNotReady if other people's code would run here without a sandbox and without leave."""
        if self.bench.measurer is not None or self.unconfined:
            return
        others = foreign.authors(
            self.task.files,
            practice=self.practice,
            wallet=str(self.wallet.pubkey()),
            best_miner=str(self.project.current_best_miner) if any(self.project.current_best_code_hash) else None,
            adopted=[f.miner for f in self.session.frontiers if f.foreign or (f.lead and f.miner)],
        )
        foreign.require_confined(others, self.bench.why_not)

    def usual_seconds(self) -> float:
        """What a run takes here: the median of this session's, else what the bench expects."""
        usual = self.session.sums.usual
        return usual[len(usual) // 2] if usual else self.bench.usual_seconds
