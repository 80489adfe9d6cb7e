"""The last word of a job: the thread that stamps it kills at once, and what was not complete by then does not count."""

from __future__ import annotations

import math
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support import require
from trainer.sandbox import Job, JobLimits, Sandbox, UntrustedResult, choose, interpreter_prefixes
from trainer.sandbox.host import NoIsolation, exiting, leaves
from trainer.sandbox.job import KILL_SECONDS, StartedTree, TreeUsage
from trainer.sandbox.linux import condemned, silenced

PYTHON = Path(sys.executable)
LIMITS = JobLimits(wall_seconds=30, memory_bytes=1 << 30, processes=300, output_bytes=8 << 20)
LINUX = sys.platform == "linux"
HEAD = """
import os, sys, time
os.chdir(os.environ["SCRATCH"])
def write(text):
    with open("next", "w") as file:
        file.write(text)
    os.replace("next", "result")
"""
# Goes on after its last word, writing what time it is.
GOES_ON = """
write("as announced")
os.write(1, b"\\n" * 4_000_000)
time.sleep(0.3)
os.write(3, b"done\\n")
while True:
    time.sleep(0.1)
    write("later")
"""


@pytest.fixture(params=["sandbox", "none"])
def either(request: pytest.FixtureRequest) -> Sandbox:
    if request.param == "none":
        return NoIsolation()
    require(LINUX and shutil.which("bwrap") is not None, "Linux and bubblewrap (apt-get install bubblewrap)")
    return choose()


def start(sandbox: Sandbox, code: str) -> Job:
    return sandbox.start(
        [str(PYTHON), "-c", HEAD + code],
        limits=LIMITS,
        tools=interpreter_prefixes(PYTHON),
        last_word=lambda line: line == b"done",
    )


def test_the_last_word_kills_whatever_the_log_holds(either: Sandbox) -> None:
    with start(either, GOES_ON) as job:
        time.sleep(1.5)  # a parent that is busy elsewhere, as with millions of lines of a log
        outcome = job.wait(10)
        assert outcome.kind == "finished"
        assert outcome.last is not None
        assert outcome.last.line == b"done"
        assert 0.3 <= outcome.last.seconds <= outcome.seconds <= outcome.last.seconds + KILL_SECONDS
        assert outcome.lag <= KILL_SECONDS
        assert job.result("result", 100) == b"as announced"


def test_a_word_of_a_script_that_ends_by_itself_counts(either: Sandbox) -> None:
    with start(either, 'write("x")\nos.write(3, b"first\\ndone\\nmore\\n")\n') as job:
        outcome = job.wait(10)
        assert outcome.kind == "finished"
        assert [message.line for message in job.messages()] == [b"first", b"done"]
        assert job.result("result", 100) == b"x"


def test_without_a_last_word_a_job_ends_as_ever(either: Sandbox) -> None:
    with start(either, 'os.write(3, b"almost done\\n"); sys.exit(3)') as job:
        outcome = job.wait(10)
    assert (outcome.kind, outcome.exit_code, outcome.last) == ("exited", 3, None)


def test_many_processes_are_silenced_in_time(either: Sandbox) -> None:
    if either.name == "none":
        code = "write('x')\nos.write(3, b'done\\n')\ntime.sleep(60)"
    else:
        code = (
            "block = bytearray(200 << 20)\nblock[::4096] = b'x' * len(block[::4096])\n"
            "for _ in range(30):\n    if os.fork() == 0:\n        while True:\n            time.sleep(1)\n"
            "write('x')\nos.write(3, b'done\\n')\nwhile True:\n    pass"
        )
    with start(either, code) as job:
        outcome = job.wait(20)
    assert (outcome.kind, outcome.lag <= KILL_SECONDS) == ("finished", True), outcome.lag


class Reluctant:
    """A tree that takes its time to die, on pipes of ours."""

    def __init__(self, lag: float, scratch: Path = Path("."), dying: Callable[[], object] = int) -> None:
        self.lag, self.scratch, self.dying = lag, scratch, dying
        self.channel, self.words = os.pipe()
        self.output, self.log = os.pipe()

    def started(self) -> StartedTree:
        return StartedTree(self, self.output, self.channel, os.open(self.scratch, os.O_RDONLY))

    def go(self) -> None:
        os.write(self.words, b"done\n")

    def poll(self) -> int | None:
        return None

    def usage(self, _: JobLimits) -> TreeUsage:
        return TreeUsage(0, 1, 0, 0)

    def kill(self) -> float:
        self.dying()
        for handle in (self.words, self.log):
            os.close(handle)
        return self.lag

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("lag", "kind"), [(0.0, "finished"), (0.04, "finished"), (0.06, "killed_late"), (math.inf, "killed_late")]
)
def test_a_tree_that_outlives_the_stamp_is_a_failed_run(lag: float, kind: str) -> None:
    with Job(Reluctant(lag).started, LIMITS, lambda line: line == b"done") as job:
        outcome = job.wait(10)
    assert outcome.kind == kind
    assert outcome.lag >= lag


@pytest.mark.parametrize("how", ["write", "replace", "touch", "not"])
def test_a_result_changed_after_the_word_is_refused(how: str, tmp_path: Path) -> None:
    """Whoever still writes before the kill arrives wins nothing by it."""
    result, other = tmp_path / "result", tmp_path / "other"
    result.write_bytes(b"as announced")
    other.write_bytes(b"later")
    before = result.stat()

    def change() -> None:
        time.sleep(0.02)  # more than a tick of the clock that file systems use
        match how:
            case "write":
                result.write_bytes(b"later")
            case "replace":
                os.replace(other, result)
            case "touch":
                os.utime(result, ns=(before.st_atime_ns, before.st_mtime_ns))

    with Job(Reluctant(0, tmp_path, change).started, LIMITS, lambda line: line == b"done") as job:
        assert job.wait(10).kind == "finished"
        if how == "not":
            assert job.result("result", 100) == b"as announced"
        else:
            with pytest.raises(UntrustedResult, match="changed after"):
                job.result("result", 100)


@pytest.mark.parametrize(
    ("dies", "doomed", "lag"),
    [
        (0.0, math.inf, 0.0),
        (0.012, math.inf, 0.012),
        (math.inf, 0.0, 0.0),
        (math.inf, 0.01, 0.01),
        (math.inf, math.inf, math.inf),
        (2 * KILL_SECONDS, math.inf, math.inf),
    ],
)
def test_silenced(dies: float, doomed: float, lag: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("trainer.sandbox.linux.time", SimpleNamespace(monotonic=lambda: now[0]))

    def dead(seconds: float) -> bool:
        now[0] += max(1e-6, min(seconds, 100 + dies - now[0]))
        return now[0] >= 100 + dies

    assert silenced(dead, lambda: now[0] >= 100 + doomed - 1e-9) == pytest.approx(lag, abs=1e-5)


def test_condemned_is_who_cannot_run_any_more() -> None:
    require(LINUX, "Linux: the state of a task is read from /proc")
    with subprocess.Popen([sys.executable, "-c", "import time\nwhile True: time.sleep(1)"]) as process:
        assert not condemned(process.pid)
        process.kill()
        deadline = time.monotonic() + 5
        while not condemned(process.pid) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert condemned(process.pid)  # a zombie that nobody has waited for
        process.wait()
        assert condemned(process.pid)  # and what is gone


@pytest.mark.parametrize(
    ("flags", "status", "gone"), [(0x10, 2, False), (0x14, 2, True), (0x10, 5, True), (0, 1, False), (4, 5, True)]
)
def test_a_macos_process_on_its_way_out(flags: int, status: int, gone: bool) -> None:
    assert leaves(struct.pack("<II", flags, status) + bytes(128)) is gone


def test_where_macos_cannot_be_asked_only_death_counts() -> None:
    require(LINUX, "Linux: there is no libproc")
    assert not exiting(os.getpid())
