"""Runs of real child processes: honest ones, failing ones, and those that will not go away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import require
from trainer.errors import EnvironmentNotReady, TrainerError
from trainer.machine.environment import Environment
from trainer.project import protocol
from trainer.project.metrics import Missing
from trainer.running import experiment
from trainer.running.experiment import Crash, NoMetric, Ok, RunLimits, RunResult, Timeout, run_experiment

ROOT = Path(__file__).parents[3]
PROTOCOL = protocol.parse((ROOT / "configs" / "armlx" / "protocol.json").read_bytes())
PRINTED = "---\nval_bpb:          1.500000\npeak_vram_mb:     12.5\n"
SUMMARY = f"print({PRINTED!r}, end='')\n"
LINUX = sys.platform == "linux"


def run(tmp_path: Path, script: str, seconds: float = 20, **more: Any) -> RunResult:
    """One run of a script in this interpreter's environment; its private folder is gone afterwards."""
    limits = more.pop("limits", RunLimits(wall_seconds=seconds))
    cache = tmp_path / "cache"
    cache.mkdir(exist_ok=True)
    files = {"train.py": script.encode(), "prepare.py": b"TIME_BUDGET = 300\n"}
    found = run_experiment(
        files,
        more.pop("project", PROTOCOL),
        Environment.running(),
        cache=cache,
        scratch=tmp_path / "scratch",
        limits=limits,
        **more,
    )
    assert not list((tmp_path / "scratch").iterdir())
    return found


def alive(pid: int) -> bool:
    """Whether a process still runs (a zombie does not)."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def test_ok(tmp_path: Path) -> None:
    found = run(tmp_path, "import prepare\nprint('budget', prepare.TIME_BUDGET)\n" + SUMMARY)
    assert isinstance(found, Ok)
    assert found.metrics.primary == 1.5
    assert found.metrics.secondary == {"peak_vram_mb": 12.5}
    assert found.log.data.startswith(b"budget 300\n---\n")
    assert found.log.dropped == 0
    assert 0 < found.seconds < 20


def test_the_run_sees_a_private_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://secret")
    monkeypatch.setenv("PYTHONPATH", "/secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "manifest.json").write_text("{}")
    script = """
import json, os, sys, tempfile
from pathlib import Path
world = {
    "env": dict(os.environ), "files": sorted(os.listdir()), "home": os.listdir(Path.home()),
    "cache": os.listdir(os.environ["AUTORESEARCH_CACHE"]), "tmp": tempfile.gettempdir(),
    "stdin": sys.stdin.read(), "fds": len(os.listdir("/dev/fd")),
}
(Path.home() / "x").write_text("x")
Path("prepare.py").unlink()
Path("locked").mkdir()
Path("locked/file").write_text("x")
Path("locked").chmod(0)
print(json.dumps(world))
raise SystemExit(7)
"""
    found = run(tmp_path, script)
    assert isinstance(found, Crash)
    assert found.exit_code == 7
    world = json.loads(found.log.data)
    assert "secret" not in json.dumps(world)
    assert set(world["env"]) - {"LC_CTYPE", "__CF_USER_TEXT_ENCODING"} <= {
        *experiment._PASSED,
        "HOME",
        "TMPDIR",
        "AUTORESEARCH_CACHE",
        "HF_HUB_OFFLINE",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONNOUSERSITE",
        "PYTHONUNBUFFERED",
        "PYTHONUTF8",
    }
    assert world["env"]["CUDA_VISIBLE_DEVICES"] == "0"
    assert world["files"] == ["prepare.py", "train.py"]
    assert world["home"] == [".cache"]
    assert world["cache"] == ["manifest.json"]
    assert world["tmp"].startswith(str(tmp_path / "scratch"))
    assert world["stdin"] == ""
    assert world["fds"] <= 4  # the three standard ones and the listing's own


def test_crash_keeps_the_end_of_the_trace(tmp_path: Path) -> None:
    found = run(tmp_path, SUMMARY + "print('\\x1b[31mred\\rblue')\nraise RuntimeError('out of memory')\n")
    assert isinstance(found, Crash)
    assert found.exit_code == 1
    assert found.trace.splitlines()[-1] == "RuntimeError: out of memory"
    assert "blue" in found.trace.splitlines()
    assert "\x1b" not in found.trace


def test_a_command_that_ends_at_once_keeps_its_exit_code(tmp_path: Path) -> None:
    for _ in range(25):
        command = experiment.LaunchCommand(("/bin/sh", "-c", "exit 7"), tmp_path, {}, tmp_path, (), 20)
        process = experiment.launch(command)
        while not process.ended():
            time.sleep(0.002)
        code = process.stop()
        os.close(process.output)
        assert code == 7


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_signal_is_a_crash(tmp_path: Path, number: signal.Signals) -> None:
    found = run(tmp_path, f"import os\nos.kill(os.getpid(), {int(number)})\n")
    assert isinstance(found, Crash)
    assert found.exit_code == -number


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("print('hello')", Missing.NO_SUMMARY),
        ("print('---\\nloss: 1')", Missing.NO_MATCH),
        ("", Missing.NO_SUMMARY),
    ],
)
def test_no_metric(tmp_path: Path, script: str, reason: Missing) -> None:
    found = run(tmp_path, script)
    assert isinstance(found, NoMetric)
    assert found.reason is reason


HANG = """
import os, signal, time
for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)
print(os.getpid())
while True: time.sleep(9)
"""
FORK = """
import os, sys, time
def leave(pids):
    print(*pids, flush=True)
def daemon():
    ends = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(ends[1], str(os.getpid()).encode())
            if QUIET: [os.close(n) for n in (0, 1, 2)]
            while True: time.sleep(9)
        os._exit(0)
    os.wait()
    return int(os.read(ends[0], 20))
QUIET = False
a = daemon()
QUIET = True
b = daemon()
leave([a, b])
"""


def test_timeout_kills_what_ignores_signals(tmp_path: Path) -> None:
    found = run(tmp_path, HANG, seconds=0.7)
    assert isinstance(found, Timeout)
    assert found.limit == 0.7
    assert found.seconds < 5
    assert not alive(int(found.log.data))


@pytest.mark.parametrize("end", [SUMMARY, "while True: time.sleep(9)\n"], ids=["ok", "timeout"])
def test_daemons_die_with_the_run(tmp_path: Path, end: str) -> None:
    require(LINUX, "Linux: only there a daemon stays its starter's descendant")
    found = run(tmp_path, FORK + end, seconds=1 if "while" in end else 20)
    assert isinstance(found, Timeout if "while" in end else Ok)
    pids = [int(word) for word in found.log.data.splitlines()[0].split()]
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)


def test_threads_that_outlive_their_process_die(tmp_path: Path) -> None:
    require(LINUX, "Linux: the case is its /proc's")
    script = """
import ctypes, os, threading, time
if os.fork() == 0:
    threading.Thread(target=lambda: time.sleep(60)).start()
    print(os.getpid(), flush=True)
    ctypes.CDLL(None).pthread_exit(None)
time.sleep(0.3)
"""
    found = run(tmp_path, script + SUMMARY)
    pid = int(found.log.data.split()[0])
    assert isinstance(found, Ok)
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("pause", [0, 0.001])
def test_a_chain_of_forks_is_caught(tmp_path: Path, pause: float) -> None:
    require(LINUX, "Linux: only there a daemon stays its starter's descendant")
    beat = tmp_path / "beat"
    script = f"""
import os, time
for step in range(5000):
    if os.fork(): os._exit(0)
    os.setsid()
    open({str(beat)!r}, "w").write(str(step))
    time.sleep({pause})
"""
    found = run(tmp_path, "import os, time\nif os.fork(): time.sleep(0.3); os._exit(0)\n" + script)
    assert isinstance(found, NoMetric)
    last = beat.read_text()
    time.sleep(0.1)
    assert beat.read_text() == last != "4999"


def test_a_flood_is_cut_and_said(tmp_path: Path) -> None:
    flood = "import sys\nprint('first')\nfor n in range(300): sys.stdout.write('x' * 9999 + '\\n')\n"
    found = run(tmp_path, flood + SUMMARY, limits=RunLimits(20, 40_000))
    assert isinstance(found, Ok)
    assert len(found.log.data) < 41_000
    assert found.log.data.startswith(b"first\nxxx")
    assert f"\n[{found.log.dropped} bytes of the log omitted]\n".encode() in found.log.data
    assert found.log.dropped > 2_900_000
    kept = len(found.log.data) - len(f"\n[{found.log.dropped} bytes of the log omitted]\n")
    assert kept + found.log.dropped == len("first\n") + 300 * 10_000 + len(PRINTED)


def test_an_endless_flood_ends_at_the_limit(tmp_path: Path) -> None:
    found = run(tmp_path, "import os\nwhile True: os.write(1, b'x' * 65536)\n", limits=RunLimits(0.5, 10_000))
    assert isinstance(found, Timeout)
    assert found.seconds < 5
    assert len(found.log.data) <= 10_100


def test_half_a_line_is_not_kept(tmp_path: Path) -> None:
    line = "y" * 40 + "val_bpb: 0.1"
    found = run(tmp_path, f"print('---')\nfor n in range(500): print({line!r})\n", limits=RunLimits(20, 1024))
    lines = found.log.data.split(b"\n")
    marker = next(at for at, text in enumerate(lines) if text.startswith(b"["))
    assert set(lines[marker + 1 :]) == {line.encode(), b""}


def test_progress_is_told_cleaned_and_at_a_bounded_rate(tmp_path: Path) -> None:
    said: list[str] = []
    script = """
import sys, time
for step in range(100):
    sys.stdout.write(f"\\rstep {step} \\x1b[2J"); sys.stdout.flush(); time.sleep(0.01)
print()
"""
    found = run(tmp_path, script + SUMMARY, on_line=said.append)
    assert isinstance(found, Ok)
    assert 2 <= len(said) <= found.seconds / 0.2 + 1
    assert all(line.isprintable() for line in said)
    assert said[0].startswith("step ")


def test_an_interruption_kills_the_tree(tmp_path: Path) -> None:
    pids: list[int] = []

    def interrupt(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, HANG, on_line=interrupt)
    assert pids
    assert not any(alive(pid) for pid in pids)
    assert not list((tmp_path / "scratch").iterdir())


def test_a_killed_parent_takes_the_tree_with_it(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from tests.trainer.running.test_experiment import HANG, run
run(Path({str(tmp_path)!r}), HANG, on_line=lambda line: print(line, flush=True))
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)


def test_a_run_that_kills_its_supervisor_is_found_out(tmp_path: Path) -> None:
    require(LINUX, "Linux: /proc tells the test who is left")
    note = tmp_path / "pid"
    script = f"import os, signal, time\nopen({str(note)!r}, 'w').write(str(os.getpid()))\n" + (
        "os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(60)\n"
    )
    with pytest.raises(TrainerError, match="killed its own supervisor"):
        run(tmp_path, script)
    assert not alive(int(note.read_text()))


def test_runs_side_by_side_do_not_touch_each_other(tmp_path: Path) -> None:
    found: list[RunResult] = []
    slow = threading.Thread(
        target=lambda: found.append(run(tmp_path / "slow", "import time\ntime.sleep(1)\n" + SUMMARY))
    )
    (tmp_path / "slow").mkdir()
    slow.start()
    assert isinstance(run(tmp_path, HANG, seconds=0.4), Timeout)
    slow.join()
    assert isinstance(found[0], Ok)


def test_what_cannot_start_is_this_hosts_fault(tmp_path: Path) -> None:
    gone = replace(Environment.running(), python=tmp_path / "python")
    arguments: dict[str, Any] = {"cache": tmp_path, "scratch": tmp_path / "scratch"}
    with pytest.raises(EnvironmentNotReady, match="interpreter"):
        run_experiment({"train.py": b""}, PROTOCOL, gone, **arguments)
    elsewhere = replace(PROTOCOL, execution=replace(PROTOCOL.execution, cwd="sub"))
    with pytest.raises(EnvironmentNotReady, match="'sub'"):
        run_experiment({"train.py": b""}, elsewhere, Environment.running(), **arguments)
    assert not list((tmp_path / "scratch").iterdir())
    inside = run_experiment({"sub/train.py": SUMMARY.encode()}, elsewhere, Environment.running(), **arguments)
    assert isinstance(inside, Ok)


def test_a_launcher_can_take_the_place_of_the_plain_one(tmp_path: Path) -> None:
    seen: list[experiment.LaunchCommand] = []

    def confined(command: experiment.LaunchCommand) -> experiment.Process:
        seen.append(command)
        assert command.cwd.is_relative_to(command.scratch)
        assert os.path.isabs(command.argv[0])
        return experiment.launch(command)

    assert isinstance(run(tmp_path, SUMMARY, launcher=confined), Ok)
    assert seen[0].argv[1:] == ("train.py",)
    assert seen[0].wall_seconds == 20
    assert seen[0].readable[0] == tmp_path / "cache"
