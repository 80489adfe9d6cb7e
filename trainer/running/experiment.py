"""One run of a bundle's train.py, from a private copy of its tree to a typed result.

Rules:
- The command and its folder come from the protocol, the interpreter from the bundle's prepared environment.
- The run sees a fresh copy of the tree, an empty temporary folder and a home that holds nothing but a link to the
  prepared data where harnesses look for it, ~/.cache/autoresearch; all deleted afterwards,
  and an environment of named variables only: no keys, no tokens, no proxies, nothing of the user's shell.
- Output and errors are one log. Of a long log the head and the tail are kept, and a line between them says
  what was left out.
- The clock is the parent's. At the protocol's hard timeout, at Ctrl-C, and when this process dies, however that
  happens, the whole process tree is killed, as is what a script leaves running when it ends.
- A run that fails is a value (`Crash`, `Timeout`, `NoMetric`), never an exception. Exceptions are for this
  host: the command cannot be started, or processes could not be killed.

How a process tree is started and stopped is the `Launcher`'s business, so a sandbox can take its place.
`launch`, the plain one, keeps order among honest scripts and bounds the time of the others; it does not
confine them.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from common.text import printable
from trainer.errors import EnvironmentNotReady, StopRun, TrainerError
from trainer.machine import environment, faults
from trainer.machine import scratch as leftovers
from trainer.machine.environment import Environment
from trainer.project import bundle, metrics
from trainer.project.metrics import Metrics, Missing
from trainer.project.protocol import Protocol as ProjectProtocol
from trainer.running import supervisor

OnLine = Callable[[str], None]

_PASSED: Final = (
    "PATH",  # MLX's CPU and CUDA back ends look for a compiler
    "LANG",
    "TZ",
    "CUDA_HOME",
    "CUDA_PATH",
    "CUDA_VISIBLE_DEVICES",
    "LD_LIBRARY_PATH",
    "NVIDIA_VISIBLE_DEVICES",
    "SDKROOT",
    "DEVELOPER_DIR",
)
_CHUNK: Final = 64 * 1024
_TRACE_LINES: Final = 30
_LINE_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Of one run: wall seconds from its start (None: the protocol's hard timeout) and bytes of log kept."""

    wall_seconds: float | None = None
    log_bytes: int = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Log:
    """Standard output and errors in the order written; `dropped` bytes between head and tail are left out."""

    data: bytes
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Ok:
    """The script ended well and its summary holds the primary metric."""

    metrics: Metrics
    seconds: float
    log: Log


@dataclass(frozen=True, slots=True)
class Crash:
    """The script failed: its exit code (negative: the signal that ended it) and the last lines it wrote."""

    exit_code: int
    trace: str
    seconds: float
    log: Log


@dataclass(frozen=True, slots=True)
class Timeout:
    """The script was killed after `limit` seconds."""

    limit: float
    seconds: float
    log: Log


@dataclass(frozen=True, slots=True)
class NoMetric:
    """The script ended well, but its log does not hold the metric."""

    reason: Missing
    seconds: float
    log: Log


@dataclass(frozen=True, slots=True)
class Stopped:
    """Whoever watched the script's lines ended it (StopRun)."""

    reason: str
    seconds: float
    log: Log


RunResult = Ok | Crash | Timeout | NoMetric | Stopped


@dataclass(frozen=True, slots=True)
class LaunchCommand:
    """What a launcher starts. Only `scratch` (the tree's copy, home and temporary folder) is for writing."""

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    scratch: Path
    readable: tuple[Path, ...]
    wall_seconds: float


class Process(Protocol):
    """A started process tree."""

    @property
    def output(self) -> int:
        """A descriptor to read the tree's output and errors from."""

    def ended(self) -> bool:
        """Whether the command has ended, of itself or by force."""

    def stop(self) -> int:
        """Kill what lives of the tree and return the command's exit code when nothing is left; idempotent.

        TrainerError if something could not be killed.
        """


class Launcher(Protocol):
    """Starts a command; EnvironmentNotReady if that fails."""

    def __call__(self, command: LaunchCommand, /) -> Process:
        """The started process."""


def run_experiment(
    files: Mapping[str, bytes],
    protocol: ProjectProtocol,
    env: Environment,
    *,
    cache: Path,
    scratch: Path,
    limits: RunLimits = RunLimits(),
    on_line: OnLine | None = None,
    launcher: Launcher | None = None,
) -> RunResult:
    """Run the tree `files` once, as `protocol` says, in the environment `env`.

    `cache` is the prepared data (AUTORESEARCH_CACHE), `scratch` an existing or new folder that the run's
    private folder is made in. `on_line` gets the newest line of the log, cleaned, at most every 0.2
    seconds; it may raise StopRun to end the run. Raises TrainerError (bad tree, command that cannot start,
    processes that could not be killed); KeyboardInterrupt passes through once the tree is dead.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    private = leftovers.hold(Path(tempfile.mkdtemp(prefix="run-", dir=scratch.resolve())))
    try:
        tree, home, temporary = private / "tree", private / "home", private / "tmp"
        bundle.write_tree(files, tree)
        link_cache(home, cache.resolve())
        temporary.mkdir()
        cwd = tree / protocol.execution.cwd
        if not cwd.is_dir():
            raise EnvironmentNotReady(
                f"The bundle has no folder {protocol.execution.cwd!r}, which the protocol names.",
                "Check the bundle's files against its protocol.",
            )
        limit = limits.wall_seconds or protocol.execution.hard_timeout_seconds
        command = LaunchCommand(
            argv=tuple(environment.resolve(protocol.execution.argv, env)),
            cwd=cwd,
            env=scrubbed(os.environ, env, cache=cache.resolve(), home=home, temporary=temporary),
            scratch=private,
            readable=(cache.resolve(), env.prefix),
            wall_seconds=limit,
        )
        capture = _Capture(limits.log_bytes, on_line)
        stopped = ""
        started = time.monotonic()
        try:
            code, seconds = _follow((launcher or launch)(command), limit, capture)
        except StopRun as reason:
            code, seconds, stopped = None, time.monotonic() - started, str(reason)
    finally:
        leftovers.remove(private)
    log = capture.log()
    if stopped:
        return Stopped(stopped, seconds, log)
    if code is None:
        return Timeout(limit, seconds, log)
    if code:
        return Crash(code, tail(log.data), seconds, log)
    return read_result(seconds, log, protocol)


def read_result(seconds: float, log: Log, protocol: ProjectProtocol) -> Ok | NoMetric:
    """What the log of a script that ended well comes to."""
    found = metrics.extract(log.data, protocol)
    return NoMetric(found, seconds, log) if isinstance(found, Missing) else Ok(found, seconds, log)


def run_command(
    command: LaunchCommand, *, log_bytes: int = 1024 * 1024, on_line: OnLine | None = None
) -> tuple[int | None, Log]:
    """Run a command unconfined under the rules of a run: its exit status (None: killed at its limit) and log."""
    capture = _Capture(log_bytes, on_line)
    code, _ = _follow(launch(command), command.wall_seconds, capture)
    return code, capture.log()


def link_cache(home: Path, cache: Path) -> None:
    """Make `home`, with `cache` at ~/.cache/autoresearch for a harness that knows no AUTORESEARCH_CACHE."""
    (home / ".cache").mkdir(parents=True)
    (home / ".cache" / "autoresearch").symlink_to(cache, target_is_directory=True)


def scrubbed(outer: Mapping[str, str], env: Environment, *, cache: Path, home: Path, temporary: Path) -> dict[str, str]:
    """The run's whole environment: a few variables of `outer`, the rest set here."""
    passed = {name: outer[name] for name in _PASSED if name in outer}
    if platform.system() == "Darwin":
        passed |= faults.GPU_PATIENCE
    return passed | {
        "PATH": f"{env.python.parent}:{passed.get('PATH', '/usr/bin:/bin')}",
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "AUTORESEARCH_CACHE": str(cache),
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
    }


def tail(log: bytes, lines: int = _TRACE_LINES) -> str:
    """The last non-empty lines of a log, printable, each of at most 500 characters."""
    cleaned = (clean(line) for line in log[-_CHUNK:].split(b"\n"))
    return "\n".join([line for line in cleaned if line.strip()][-lines:])


def clean(line: bytes) -> str:
    """What a terminal would show of a line after its last carriage return, without its control characters."""
    shown = line.rstrip(b"\r").rpartition(b"\r")[2][:2000].decode(errors="replace")
    return printable(shown, 500, spaces=True)


def _follow(process: Process, limit: float, capture: _Capture) -> tuple[int | None, float]:
    """Drain the output until the command ends: its exit code (None: killed at the limit) and seconds."""
    start = time.monotonic()
    late = False
    os.set_blocking(process.output, False)
    try:
        while not process.ended():
            if late := time.monotonic() - start > limit:
                break
            if not _drain(process.output, capture):
                time.sleep(0.02)
        seconds = time.monotonic() - start
    finally:
        try:
            code = process.stop()
            # Nothing writes any more, so this ends at the pipe's own capacity.
            while _drain(process.output, capture):
                continue
        finally:
            os.close(process.output)
    return None if late else code, seconds


def _drain(output: int, capture: _Capture) -> bool:
    """Take one chunk if there is one."""
    try:
        data = os.read(output, _CHUNK)
    except BlockingIOError:
        return False
    capture.feed(data)
    return bool(data)


class _Capture:
    """The head and the tail of a stream, and its newest line told at a bounded rate."""

    def __init__(self, most: int, on_line: OnLine | None) -> None:
        self._head_bytes, self._tail_bytes = most // 4, most - most // 4
        self._head, self._tail, self._line = bytearray(), bytearray(), bytearray()
        self._dropped = 0
        self._on_line, self._next = on_line, 0.0

    def feed(self, data: bytes) -> None:
        room = self._head_bytes - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 2 * self._tail_bytes:
            self._cut()
        if self._on_line is not None:
            self._tell(data, self._on_line)

    def log(self) -> Log:
        if len(self._tail) > self._tail_bytes:
            self._cut()
        if not self._dropped:
            return Log(bytes(self._head + self._tail))
        # The tail starts with a whole line: half a line could read like another one.
        partial = self._tail.find(b"\n") + 1 or len(self._tail)
        dropped = self._dropped + partial
        marker = f"\n[{dropped} bytes of the log omitted]\n".encode()
        return Log(bytes(self._head + marker + self._tail[partial:]), dropped)

    def _cut(self) -> None:
        surplus = len(self._tail) - self._tail_bytes
        del self._tail[:surplus]
        self._dropped += surplus

    def _tell(self, data: bytes, on_line: OnLine) -> None:
        self._line = (self._line + data)[-4096:]
        end = max(self._line.rfind(b"\n"), self._line.rfind(b"\r"))
        now = time.monotonic()
        if end < 0 or now < self._next:
            return
        complete = bytes(self._line[:end]).replace(b"\r", b"\n").split(b"\n")
        del self._line[: end + 1]
        told = next((text for line in reversed(complete) if (text := clean(line)).strip()), None)
        if told is not None:
            self._next = now + _LINE_SECONDS
            on_line(told)


def launch(command: LaunchCommand) -> Process:
    """Start a command under `supervisor`, unconfined: for the user's own scripts."""
    return _Supervised(command)


class _Supervised:
    """A tree under a supervisor process, which ends it when we say so or when we are gone."""

    def __init__(self, command: LaunchCommand) -> None:
        self.output, output = os.pipe()
        control, self._control = os.pipe()
        self._status, status = os.pipe()
        self._code: int | None = None
        argv = [sys.executable, "-I", "-S", supervisor.__file__, str(control), str(status), *command.argv]
        try:
            self._process = subprocess.Popen(
                argv,
                cwd=command.cwd,
                env=dict(command.env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(control, status),
                start_new_session=True,
            )
        except OSError as error:
            for descriptor in (self.output, self._control, self._status):
                os.close(descriptor)
            raise EnvironmentNotReady(f"The run's supervisor did not start: {error}.") from error
        finally:
            for descriptor in (output, control, status):
                os.close(descriptor)

    def ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> int:
        if self._code is None:
            os.close(self._control)
            try:
                self._process.wait(2 * supervisor.PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            with open(self._status, "rb") as status:
                self._code = _exit_code(status.read(64).split())
        return self._code


def _exit_code(status: Sequence[bytes]) -> int:
    """The command's, from the supervisor's words."""
    match status:
        case [_, code, b"0"]:
            return int(code)
        case [_, _, left]:
            raise TrainerError(
                f"{int(left)} processes of the run could not be killed.", "Stop them before the next measurement."
            )
        case [pid]:
            supervisor.kill_session(int(pid))
            raise TrainerError(
                "The run killed its own supervisor, so it may have left processes behind.",
                "Look for its processes, and run this script in a sandbox only.",
            )
    raise EnvironmentNotReady("The environment's interpreter could not be started.", "Prepare the environment again.")
