"""A rack: `miner run --executor ray` on the nodes of a real Ray cluster, each with its own home, on the tiny project.

One night in which everything happens: a machine with other data, two trials at once, a worker that is killed in the
middle of one, the miner killed while trials are in flight, and the same command again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from miner.journal import journal
from tests.e2e.test_path import SECONDS, environment, events, start, until
from tests.support import optional
from trainer.measurement.bench import open_bench
from trainer.project import hyperparameters

if TYPE_CHECKING:
    from tests.attacks.tiny import TinyHome

TRIALS = 3


def other_data(tiny_home: TinyHome, path: Path) -> str:
    """Prepare other data than the project's in a home; its snapshot id."""
    from tests.attacks import tiny

    shutil.rmtree(path / "data")
    files = tiny_home.files
    arguments = (*tiny.DATA[:-1], "1400000")
    return open_bench(
        files["protocol.json"], files, home=path, say=lambda _: None, data_arguments=arguments
    ).data_snapshot


@pytest.fixture
def outer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What Ray is told by its environment: a folder with a short name for its sockets, this machine only, a token."""
    folder = tempfile.mkdtemp(prefix="rack")
    monkeypatch.setenv("RAY_TMPDIR", folder)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # then it listens on 127.0.0.1
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    yield
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def rack(homes: list[Path]) -> Iterator[str]:
    """The address of a cluster with one node for each home."""
    command = [sys.executable, "-m", "tests.e2e.rack", *map(str, homes)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("127.0.0.1:"), address
        yield address
    finally:
        process.stdin.close()
        try:
            process.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def mining(path: Path, address: str, patches: Path) -> Iterator[subprocess.Popen[str]]:
    """A miner at work, dead at the end of the block."""
    how = ("--executor", "ray", "--ray-address", address, "--submissions", 1, "--max-trials", TRIALS)
    proposing = ("--proposer", "patches", "--patches", patches)
    process = start(path, "miner", "run", *how, *proposing, errors=subprocess.STDOUT)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def candidates(tiny_home: TinyHome, folder: Path) -> Path:
    """Candidates that are worse, and the one that is better."""
    folder.mkdir()
    for number in range(1, TRIALS):
        source = hyperparameters.replace(tiny_home.baseline, {"MATRIX_LR": 0.001 * number, "EMBED_LR": 0.001})
        (folder / f"{number}.py").write_text(source)
    (folder / f"{TRIALS}.py").write_text(tiny_home.better)
    return folder


def flying(path: Path, *, since_begin: bool = False) -> dict[int, str]:
    """The trials that are being measured, by number, and where; of those that the last start sent out if asked for."""
    found: dict[int, str] = {}
    for event in events(path):
        if event["event"] == "begin" and since_begin:
            found.clear()
        elif event["event"] == "dispatched":
            found[event["number"]] = event["machine"].partition("/")[0]
        elif event["event"] in ("judged", "lost"):
            found.pop(event["number"], None)
    return found


def count(path: Path, kind: str) -> int:
    return sum(event["event"] == kind for event in events(path))


def workers(home: Path) -> list[int]:
    """The processes of Ray that measure in a home; not their forks, which look like them until they start a program."""
    found: dict[int, int] = {}  # and its parent
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            ours = entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(b"ray::Worker")
            if ours and f"ARMLX_HOME={home}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return [process for process, parent in found.items() if parent not in found]


def test_a_night_on_a_rack(tiny_home: TinyHome, tmp_path: Path, outer: None) -> None:
    optional(importlib.util.find_spec("ray") is not None, "ray (uv sync --extra ray)")
    optional(sys.platform == "linux", "Linux, to find a worker's process")
    own, first, second, third = (tiny_home.copy(tmp_path / name).path for name in ("own", "1", "2", "3"))
    foreign, patches = other_data(tiny_home, third), candidates(tiny_home, tmp_path / "patches")
    with rack([first, second, third]) as address:
        with mining(own, address, patches) as process:
            until(process, lambda: set(flying(own).values()) == {"rack-1", "rack-2"})  # two at once
            (worker,) = workers(second)
            os.kill(worker, signal.SIGKILL)
            until(process, lambda: count(own, "lost") == 1)
            until(process, lambda: count(own, "judged") > 0 and flying(own) != {})
            os.killpg(process.pid, signal.SIGKILL)
            said, _ = process.communicate(timeout=30)
        before = journal.read(next((own / "work").glob("*/session.jsonl")))
        with mining(own, address, patches) as process:
            said_again, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said_again
    assert "Traceback" not in said + said_again
    assert "rack-3 is refused: The project was measured on data snapshot" in said
    assert foreign[:16] in said
    assert "rack-3 is ready" not in said + said_again
    check(own, before, said_again)


def check(own: Path, before: journal.Session, said: str) -> None:
    """Nothing was run twice, nothing is lost, and what was better is on chain."""
    session = journal.read(next((own / "work").glob("*/session.jsonl")))
    assert session.segments[-1].reason == "submitted"
    for trial in session.unfinished:  # the other machine may be in the middle of one when the winner is submitted
        assert (len(session.unfinished), trial.number != TRIALS, trial.runs) == (1, True, [])
        assert {trial.number: trial.machine.partition("/")[0]} == flying(own, since_begin=True)
    finished = [trial for trial in session.trials[1:] if trial.decision]
    assert [trial.number for trial in session.trials] == list(range(TRIALS + 1))
    assert len({trial.fingerprint for trial in session.trials}) == TRIALS + 1
    judged = [event for event in events(own) if event["event"] == "judged"]
    assert set(Counter(event["number"] for event in judged).values()) == {1}
    for trial in before.trials:  # what had come back before the kill stands
        if trial.decision:
            assert session.trials[trial.number] == trial
    for trial in finished:
        assert {run.machine for run in trial.runs} == {trial.machine}
        assert all((own / "work").glob(f"*/{run.log}") for run in trial.runs)
    machines = {trial.machine.partition("/")[0] for trial in session.trials[1:]}
    assert machines <= {"rack-1", "rack-2"}
    assert [trial.number for trial in session.trials if trial.kept] == [0, TRIALS]
    assert [entry.trial for entry in session.submissions if entry.proposal is not None] == [TRIALS]
    assert f"trial {TRIALS} on rack-" in said
