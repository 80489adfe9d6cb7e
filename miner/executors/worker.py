"""One machine of a rack: it measures whole trials, each candidate beside the incumbent, and gives back plain values.

What it is sent are the project's files, two scripts and what this very machine measured before; never a key, a wallet
or a connection. It keeps its own home: environment, data, sandbox and its noise record. This module knows nothing of
how it is reached.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import IO

from common.files import lock, write_atomic
from miner.journal.run import RunRecord
from miner.proposers.base import SCRIPT
from miner.trials import history
from miner.trials.measuring import PlannedRun, Rig
from trainer.errors import TrainerError
from trainer.judging import trial
from trainer.machine import hardware
from trainer.measurement.bench import Bench, open_bench
from trainer.measurement.run import Run
from trainer.project import bundle
from trainer.statistics import pruning
from trainer.statistics.comparison import Answer, Arm, Decision
from trainer.statistics.error_rates import ComparisonPolicy
from trainer.statistics.mining import lessons

MAX_LOG = 1024 * 1024  # bytes of a run's log that are sent back, the last ones
_RELEASE = 20.0  # seconds that a worker before us may take to end
MAX_PAST = 50  # earlier runs of one script that are sent along


def program() -> str:
    """The version of this program; two that differ may measure differently."""
    return version("openresearch-miner")


@dataclass(frozen=True, slots=True)
class Setup:
    """What every machine needs for one project, and what it must be.

    `home` is a folder on that machine ("": its user's own), `trust_harness` as for `open_bench`, `method` the way
    of measuring (`Bench.method`).
    """

    protocol: bytes
    files: Mapping[str, bytes]
    data_arguments: tuple[str, ...]
    data_snapshot: str
    hardware_class: str
    method: str
    program: str
    home: str = ""
    trust_harness: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """A machine that fits, by the name that its runs are recorded under, or in `problem` why it does not.

    `sigma` is its run-to-run noise in bpb, None before it is known.
    """

    name: str
    problem: str = ""
    sigma: float | None = None


@dataclass(frozen=True, slots=True)
class TrialJob:
    """A trial to measure: two train.py sources and what the machine it is for measured before.

    `history` are the incumbent's values (val_bpb), `incumbent_runs` and `candidate_runs` earlier runs of the two
    sources as the journal has them. `rules` are those of pruning, None if runs are not stopped by their curves.
    """

    number: int
    incumbent: str
    candidate: str
    seed: int
    policy: ComparisonPolicy
    history: tuple[float, ...] = ()
    incumbent_runs: tuple[RunRecord, ...] = ()
    candidate_runs: tuple[RunRecord, ...] = ()
    rules: pruning.PruningRules | None = None


@dataclass(frozen=True, slots=True)
class TrialResult:
    """A trial's runs as the journal has them but for their logs' names, their logs, and the comparison's last word.

    `problem` says what is wrong with the machine itself; then nothing was judged. `sigma` is the machine's noise
    after it, in bpb.
    """

    runs: tuple[RunRecord, ...] = ()
    logs: tuple[bytes, ...] = ()
    decision: Decision | None = None
    problem: str = ""
    sigma: float | None = None

    def outcome(self) -> trial.Trial:
        """The trial as `trainer.judging.trial` has it."""
        return trial.Trial(tuple(run.as_run() for run in self.runs), self.decision)


def unfit(setup: Setup, *, hardware_class: str, program: str) -> str:
    """Why a machine cannot take part; "" if there is no known reason. Pure."""
    for what, found, needed in (
        ("hardware class", hardware_class, setup.hardware_class),
        ("version of this program", program, setup.program),
    ):
        if found != needed:
            return f"its {what} is {found}; {needed} is required"
    return ""


class Worker:
    """The bench of one machine, called `node` by its cluster; opened by `open`, once."""

    def __init__(self, setup: Setup, node: str) -> None:
        self._setup, self._node, self._name = setup, node, node
        self._bench: Bench | None = None
        self._rig: Rig | None = None
        self._lock: IO[bytes] | None = None

    def open(self) -> Ready:
        """Prepare this machine, which takes long the first time."""
        setup = self._setup
        try:
            problem = unfit(setup, hardware_class=hardware.fingerprint().hardware_class, program=program())
            if problem:
                return Ready(self._node, problem)
            home = _home(setup.home)
            self._hold(home)
            bench = open_bench(
                setup.protocol,
                setup.files,
                home=home,
                say=lambda _: None,
                data_arguments=setup.data_arguments,
                expected_snapshot=setup.data_snapshot,
                trust_harness=setup.trust_harness,
            )
        except (TrainerError, OSError) as error:
            return Ready(self._node, error.message if isinstance(error, TrainerError) else str(error))
        if bench.method != setup.method:
            words = f"its measurement is {bench.method} ({bench.why_not}); {setup.method} is required"
            return Ready(self._node, words)
        self._name = f"{self._node}/{_identity(home)}"
        self._bench, self._rig = bench, Rig(bench, lambda _: None)
        return Ready(self._name, sigma=bench.noise().sigma)

    def measure(self, job: TrialJob) -> TrialResult:
        """Measure a trial from its first run to its decision."""
        bench, rig = self._bench, self._rig
        assert bench is not None
        assert rig is not None
        runs: list[RunRecord] = []
        logs: list[bytes] = []

        def plan(arm: Arm) -> PlannedRun:
            mine = [*_past(job, arm), *(run for run in runs if run.arm is arm)]
            rules = job.rules if arm is Arm.CANDIDATE else None
            incumbents = [*job.incumbent_runs, *(run for run in runs if run.arm is Arm.INCUMBENT)]
            return PlannedRun(
                arm,
                self._tree(job, arm),
                history.rates_in_force(mine),
                history.band(incumbents) if rules else None,
                rules or pruning.PruningRules(),
            )

        def execute(ahead: Sequence[Arm]) -> list[Run]:
            rig.calm()
            made, conditions = rig.run([plan(arm) for arm in ahead[: rig.room]], lambda _: None)
            budget = bench.protocol.execution.training_seconds
            runs.extend(RunRecord.of(run, conditions, budget_seconds=budget, machine=self._name) for run in made)
            logs.extend(run.log[-MAX_LOG:] for run in made)
            return [replace(run, log=b"", measurement=None) for run in made]

        try:
            outcome = trial.compare(execute, history=job.history, noise=bench.noise(), policy=job.policy, seed=job.seed)
        except TrainerError as error:
            return TrialResult(problem=error.message)
        if (failed := outcome.incumbent_failure) is not None:
            return TrialResult(problem=f"The incumbent does not run on that machine: {failed.told}")
        replaced = outcome.decision is not None and outcome.decision.kind is Answer.APPROVE  # here, or by another's
        theirs = [*job.history, *outcome.values(Arm.INCUMBENT)]
        bench.learn_noise(lessons(outcome.values(Arm.CANDIDATE), theirs, replaced, bench.noise(), job.policy))
        return TrialResult(tuple(runs), tuple(logs), outcome.decision, sigma=bench.noise().sigma)

    def _tree(self, job: TrialJob, arm: Arm) -> Mapping[str, bytes]:
        source = job.candidate if arm is Arm.CANDIDATE else job.incumbent
        assert self._bench is not None
        return bundle.overlay(self._setup.files, {SCRIPT: source.encode()}, self._bench.protocol.surface)

    def _hold(self, home: Path) -> None:
        """Take the home, since two that measure in it at once would share a machine. It is free when its holder ends,
        in whatever way; one that was just killed gets a moment for that."""
        home.mkdir(parents=True, exist_ok=True)
        self._lock = (home / "worker.lock").open("ab")
        if not lock(self._lock, wait=_RELEASE):
            raise TrainerError(
                f"Another worker is measuring in {home}.", "Wait for it, or give each worker its own ARMLX_HOME."
            )


def _past(job: TrialJob, arm: Arm) -> tuple[RunRecord, ...]:
    return job.candidate_runs if arm is Arm.CANDIDATE else job.incumbent_runs


def _home(given: str) -> Path:
    """The folder that was asked for, else what a command on this machine would use."""
    from chain.connection import config

    chosen = given or os.environ.get("ARMLX_HOME")
    return (Path(chosen) if chosen else config.home()).expanduser().absolute()


def _identity(home: Path) -> str:
    """Six digits that stay with a home: a cluster may call another machine by the same name tomorrow."""
    path = home / "machine-id"
    if not path.is_file():
        write_atomic(path, secrets.token_hex(3).encode())
    return path.read_text()[:6]
