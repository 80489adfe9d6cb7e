"""A cluster's trials without a cluster: what a machine is sent and answers, and what becomes of what comes back."""

from __future__ import annotations

import importlib.util
import pickle
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from miner.executors import worker
from miner.executors.choice import Executing
from miner.executors.cluster import Cluster, Returned
from miner.executors.fleet import MAX_LOST, Fleet
from miner.executors.worker import Setup, TrialJob, TrialResult, Worker
from miner.journal.journal import TrialRecord, read
from miner.journal.run import RunRecord
from miner.journal.worktree import Workspace
from miner.session import briefing
from miner.trials import history
from miner.trials.decision import decided
from tests.miner.fakes import SOURCE, Fake, Tree
from tests.support import optional
from trainer.errors import EnvironmentNotReady, TrainerError
from trainer.judging import trial
from trainer.machine import hardware
from trainer.project import protocol
from trainer.statistics.comparison import Answer, Arm, Decision
from trainer.statistics.error_rates import LookEvidence
from trainer.statistics.mining import MiningPolicy

if TYPE_CHECKING:
    from tests.attacks.tiny import TinyHome

EVIDENCE = LookEvidence(0.1, 0.05, 0.15, 0.001, 0.01, 20.0, 3, 2, False, 1.0)


def run(arm: str, value: float | None, machine: str, failure: str = "") -> RunRecord:
    """A run as a machine answers it."""
    return RunRecord(Arm(arm), value, failure, failure, 1.0, None, machine=machine)


def answer(kind: Answer, machine: str) -> TrialResult:
    values = [("incumbent", 2.5), ("candidate", 2.4), ("candidate", 2.4)]
    runs = tuple(run(arm, value, machine) for arm, value in values)
    return TrialResult(runs, tuple(b"log" for _ in runs), Decision(kind, EVIDENCE))


class Scripted:
    """Machines that answer what a test says, in the order of `script`: one word for each trial that is sent out."""

    def __init__(self, script: list[str], machines: int = 2) -> None:
        self.script, self.names = script, [f"rack-{n}" for n in range(1, machines + 1)]
        self.sent: list[tuple[str, TrialJob]] = []
        self.flying: dict[str, TrialJob] = {}

    def idle(self, *, here: bool = True) -> list[str]:
        """The session itself runs on the first machine."""
        return [name for name in self.names if name not in self.flying and (here or name != self.names[0])]

    def opening(self) -> bool:
        return False

    def sigma(self, name: str) -> float | None:
        return None

    def send(self, name: str, job: TrialJob) -> None:
        self.flying[name] = job
        self.sent.append((name, job))

    def wait(self, seconds: float) -> list[Returned]:
        if not self.flying:
            return []
        name, job = self.flying.popitem()  # the last one sent comes back first
        word = self.script.pop(0)
        if word == "lost":
            return [Returned(name, job.number, None, "its power went")]
        return [Returned(name, job.number, answer(Answer(word), name))]


class Session:
    """A session's journal and tree, with candidates that differ by one constant."""

    def __init__(
        self, folder: Path, script: list[str], candidates: int, machines: int = 2, tree: Tree | None = None
    ) -> None:
        self.left = candidates
        fake = Fake(folder, {})
        self.journal, self.tree = fake.journal, tree or fake.tree
        fake.context._workspace = cast("Workspace", self.tree)
        if not self.journal.session.trials:
            self.append(self.tree.head())
            self.journal.append("decision", number=0, decision="keep", delta=0.0)
        self.cluster = Scripted(script, machines)
        self.fleet = Fleet(cast("Cluster", self.cluster), fake.context, begin=self.begin)

    def append(self, commit: str) -> None:
        number = len(self.journal.session.trials)
        base = self.tree.head()
        self.journal.append(
            "trial", number=number, hypothesis=f"h{number}", fingerprint=str(number), commit=commit, base=base
        )

    def begin(self) -> TrialRecord | None:
        trials = self.journal.session.trials
        if self.journal.session.carried is not None:
            self.append(self.journal.session.carried.commit)
            return trials[-1]
        if not self.left:
            return None
        self.left -= 1
        number = len(trials)
        self.append(self.tree.commit(number, SOURCE.replace("0.1", f"0.{number + 1}"), f"h{number}"))
        return trials[-1]

    def finish(self) -> None:
        for _ in range(40):
            if not self.fleet.advance():
                return
        raise AssertionError("it never ends")

    def outcomes(self) -> list[tuple[int, str, bool]]:
        return [(t.number, t.decision, t.carry) for t in self.journal.session.trials[1:]]


def test_what_comes_back_is_recorded_once_and_read_again(tmp_path: Path) -> None:
    session = Session(tmp_path, ["reject", "undecided", "reject"], 3)
    assert session.fleet.advance()  # two in flight, one came back
    journal = session.journal.session
    assert [(t.number, t.machine) for t in journal.unfinished] == [(1, "rack-1")]
    assert len({job.candidate for _, job in session.cluster.sent}) == 2
    session.finish()
    assert session.outcomes() == [(1, "discard", False), (2, "discard", False), (3, "discard", False)]
    assert sorted((tmp_path / "logs").iterdir())[0].read_bytes() == b"log"
    again = read(tmp_path / "session.jsonl")
    assert again == journal
    assert [run.machine for run in again.trials[2].runs] == ["rack-2"] * 3


def test_a_machine_is_told_only_what_it_measured_itself(tmp_path: Path) -> None:
    session = Session(tmp_path, ["reject"] * 4, 4)
    session.finish()
    third = next(job for name, job in session.cluster.sent if job.number == 3)
    assert third.history == (2.5,)
    assert {run.machine for run in third.incumbent_runs} == {"rack-2"}
    assert history.incumbent_values(session.journal.session, session.journal.session.trials[3]) == []


def test_while_this_machine_confirms_the_others_go_on(tmp_path: Path) -> None:
    session = Session(tmp_path, ["reject"] * 4, 4, machines=3)
    session.fleet.fill()
    session.fleet.tend()  # between two runs of a confirming test
    assert [t.decision for t in session.journal.session.trials[1:4]] == ["discard"] * 3
    assert sorted(session.cluster.flying) == ["rack-2"]  # one candidate was left, and the first machine is ours now
    session.fleet.tend()
    assert session.outcomes()[-1] == (4, "discard", False)
    assert not session.cluster.flying


def test_what_won_against_an_old_head_is_measured_against_the_new_one(tmp_path: Path) -> None:
    session = Session(tmp_path, ["approve", "approve", "reject"], 2)
    session.finish()
    # TrialRecord 2 came back first and is the head; trial 1 won as well, but against the head before.
    assert session.outcomes() == [(1, "discard", True), (2, "keep", False), (3, "discard", False)]
    first, second, third = session.journal.session.trials[1:]
    assert (third.commit, third.base) == (first.commit, second.commit)
    assert session.journal.session.head == session.tree.head() == second.commit
    assert not session.journal.session.carried


def test_a_trial_that_machines_are_lost_with_is_given_up(tmp_path: Path) -> None:
    session = Session(tmp_path, ["lost"] * (MAX_LOST + 1) + ["reject"], 2, machines=1)
    session.finish()
    first, second = session.journal.session.trials[1:]
    assert (first.decision, first.lost, second.decision) == ("discard", MAX_LOST + 1, "discard")
    assert first.reason.startswith("not judged: 3 machines were lost")
    assert [job.number for _, job in session.cluster.sent] == [1] * (MAX_LOST + 1) + [2]


def test_an_interrupted_session_sends_its_open_trials_out_again(tmp_path: Path) -> None:
    session = Session(tmp_path / "a", ["reject"] * 3, 3)
    session.fleet.fill()
    assert len(session.journal.session.unfinished) == 2
    session.journal.close()
    again = Session(tmp_path / "a", ["reject"] * 3, 1, tree=session.tree)
    again.finish()
    assert sorted(job.number for _, job in again.cluster.sent) == [1, 2, 3]
    assert all(t.decision == "discard" and len(t.runs) == 3 for t in again.journal.session.trials[1:])


def test_nothing_is_begun_when_the_session_is_to_end(tmp_path: Path) -> None:
    session = Session(tmp_path, ["reject"] * 2, 9)
    session.fleet.fill()
    assert session.fleet.advance(more=False)
    assert session.fleet.advance(more=False)
    assert not session.fleet.advance(more=False)
    assert len(session.cluster.sent) == 2


def test_proposers_know_what_is_being_measured(tmp_path: Path) -> None:
    session = Session(tmp_path, [], 2)
    session.fleet.fill()
    from tests import local

    parsed = protocol.parse(local.PROTOCOL)
    seen = briefing.gather(
        session.journal.session, cast("Workspace", session.tree), parsed, tmp_path, seconds_left=None
    )
    assert [(one.number, one.hypothesis) for one in seen.pending] == [(1, "h1"), (2, "h2")]
    assert {"1", "2"} <= seen.known()
    assert len(seen.history) == 1


@pytest.mark.parametrize(
    ("runs", "kind", "moved", "expected"),
    [
        ([("candidate", 2.4, "")], Answer.APPROVE, False, ("keep", False)),
        ([("candidate", 2.4, "")], Answer.APPROVE, True, ("discard", True)),
        ([("candidate", 2.4, "")], Answer.REJECT, True, ("discard", False)),
        ([("candidate", 2.4, "")], Answer.UNDECIDED, False, ("discard", False)),
        ([("candidate", None, "crash")] * 2, None, True, ("crash", False)),
        ([("candidate", None, "stopped")], None, False, ("discard", False)),
    ],
)
def test_decisions(
    runs: list[tuple[str, float | None, str]], kind: Answer | None, moved: bool, expected: tuple[str, bool]
) -> None:
    made = tuple(run(arm, value, "", failure).as_run() for arm, value, failure in runs)
    decision = Decision(kind, EVIDENCE) if kind else None
    found = decided(trial.Trial(made, decision), moved=moved)
    assert (found["decision"], found["carry"]) == expected
    assert found["reason"]


@pytest.mark.parametrize(
    ("hardware_class", "program", "problem"),
    [
        ("apple-m4-max-40c", "1", ""),
        ("apple-m2-10c", "1", "its hardware class is apple-m2-10c; apple-m4-max-40c is required"),
        ("apple-m4-max-40c", "2", "its version of this program is 2; 1 is required"),
    ],
)
def test_who_is_refused(hardware_class: str, program: str, problem: str) -> None:
    setup = Setup(b"", {}, (), "", "apple-m4-max-40c", "trusted", "1")
    assert worker.unfit(setup, hardware_class=hardware_class, program=program) == problem


def test_ray_that_is_missing_is_refused_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EnvironmentNotReady, match="uv sync --extra ray"):
        Executing("ray").check()
    Executing().check()


def test_an_address_without_a_cluster_is_refused_at_once() -> None:
    optional(importlib.util.find_spec("ray") is not None, "ray (uv sync --extra ray)")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(EnvironmentNotReady, match=f"no Ray cluster at {address}"):
            Cluster(address, Setup(b"", {}, (), "", "", "", ""), print, trial_seconds=1.0)
    with pytest.raises(TrainerError, match="HOST:PORT"):
        Executing("ray", "ray://127.0.0.1:1").check()


# --- a real bench ---


@pytest.fixture
def home(tiny_home: TinyHome, tmp_path: Path) -> Path:
    return tiny_home.copy(tmp_path / "home").path


def setup_of(tiny_home: TinyHome, home: Path) -> Setup:
    from tests.attacks import tiny

    return Setup(
        tiny_home.files["protocol.json"],
        dict(tiny_home.files),
        tiny.DATA,
        "",
        hardware.fingerprint().hardware_class,
        "trusted",
        worker.program(),
        str(home),
    )


def test_a_worker_measures_a_whole_trial(tiny_home: TinyHome, home: Path) -> None:
    machine = Worker(setup_of(tiny_home, home), "rack-1")
    ready = machine.open()
    assert not ready.problem
    name, identity = ready.name.split("/")
    assert (name, len(identity)) == ("rack-1", 6)
    job = TrialJob(4, tiny_home.baseline, tiny_home.better, 7, MiningPolicy())
    result = pickle.loads(pickle.dumps(machine.measure(pickle.loads(pickle.dumps(job)))))
    assert not result.problem
    assert result.decision.kind is Answer.APPROVE
    assert {run.machine for run in result.runs} == {ready.name}
    assert {run.arm for run in result.runs} == set(Arm)
    assert all(b"step" in log for log in result.logs)
    assert result.outcome().values(Arm.CANDIDATE)
    assert result.sigma is not None


def test_a_machine_with_other_data_or_of_another_class_is_refused(tiny_home: TinyHome, home: Path) -> None:
    setup = setup_of(tiny_home, home)
    other = Worker(replace(setup, data_snapshot="ab" * 32), "rack-2").open()
    assert "abababababababab" in other.problem
    assert "data snapshot" in other.problem
    slower = Worker(replace(setup, hardware_class="apple-m9-99c"), "rack-3").open()
    assert "apple-m9-99c is required" in slower.problem
    loose = Worker(replace(setup, method="self-reported"), "rack-4").open()
    assert "self-reported is required" in loose.problem


def test_two_workers_do_not_share_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_RELEASE", 0.0)
    mine = hardware.fingerprint().hardware_class
    setup = Setup(b"{}", {}, (), "", mine, "trusted", worker.program(), str(tmp_path / "home"))
    first = Worker(setup, "rack-1")
    assert "protocol" in first.open().problem.lower()  # after the home was taken
    assert "Another worker is measuring in" in Worker(setup, "rack-2").open().problem
