"""One sandboxed run under supervision: the values it takes and gives, and the `Job` that enforces its limits.

A `Job` is the same on every platform. A thread of its own starts the process tree (so that "die with the
parent" means the verifier and not a passing thread), drains the two pipes, checks time and use against the
limits, and kills. Rules:
  - everything that comes out (output, channel messages, exit code, result files) is the candidate's word;
  - time is the parent's: seconds are counted from the word to go, channel messages are stamped on arrival;
  - no result is readable before the whole tree is dead;
  - the scratch is held by an open descriptor, and no path in it is followed.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from trainer.errors import TrainerError

CHANNEL = 3  # the descriptor inside on which trusted code sends the parent one-line messages
MESSAGE_BYTES = 4096  # the longest message
CHANNEL_BYTES = 64 * 1024  # all messages of one job together
SCRATCH_FILES = 65_536  # files and folders a job may have at once: they cost memory that no size counts

_CHECK_SECONDS = 0.1
_SOON_SECONDS = 0.005
_READ_BYTES = 64 * 1024

JobEnd = Literal[
    "exited",
    "killed_wall",
    "killed_memory",
    "killed_processes",
    "killed_scratch",
    "killed_output",
    "killed_by_parent",
]


class UntrustedResult(TrainerError):
    """A result file that is missing, not a plain file, or larger than it may be."""


@dataclass(frozen=True, slots=True)
class JobLimits:
    """What one job may use. `memory_bytes` and `processes` (threads too) are for the whole tree."""

    wall_seconds: float
    memory_bytes: int
    processes: int = 512
    file_bytes: int = 1 << 30
    scratch_bytes: int = 2 << 30
    output_bytes: int = 1 << 20
    cpu_seconds: int | None = None  # of each process; over it, the process is killed and that is its exit


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of the host, readable inside as `target`, a path relative to the job's folder."""

    source: Path
    target: str


@dataclass(frozen=True, slots=True)
class Message:
    """One line from the channel and when it arrived, in seconds since the start by the parent's clock."""

    seconds: float
    line: bytes


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """How a job ended. `exit_code` is 128 + n for a signal n and meaningful for "exited" only."""

    kind: JobEnd
    exit_code: int
    seconds: float
    output: bytes
    truncated: bool


@dataclass(frozen=True, slots=True)
class TreeUsage:
    """What a tree holds now, in bytes and counts."""

    memory_bytes: int
    processes: int
    scratch_bytes: int
    scratch_files: int


class Tree(Protocol):
    """A started process tree, as an implementation hands it to the supervisor."""

    def go(self) -> None:
        """Let the command run."""

    def poll(self) -> int | None:
        """The command's exit code once it has ended."""

    def usage(self, limits: JobLimits) -> TreeUsage:
        """What it holds, exact only as far as it takes to tell whether it is within `limits`."""

    def kill(self) -> None:
        """SIGKILL everything and return when nothing is left; TrainerError where that fails."""

    def close(self) -> None:
        """Release what is left of the job on the host."""


@dataclass(frozen=True, slots=True)
class StartedTree:
    """A tree with the parent's ends of its pipes and an open descriptor of its scratch."""

    tree: Tree
    output: int
    channel: int
    scratch: int


def exceeded(limits: JobLimits, seconds: float, usage: TreeUsage) -> JobEnd | None:
    """Which limit a job is over, if any."""
    if seconds > limits.wall_seconds:
        return "killed_wall"
    if usage.memory_bytes > limits.memory_bytes:
        return "killed_memory"
    if usage.processes > limits.processes:
        return "killed_processes"
    if usage.scratch_bytes > limits.scratch_bytes or usage.scratch_files > SCRATCH_FILES:
        return "killed_scratch"
    return None


class Job:
    """A run in progress or over; as a context manager its tree and its scratch do not outlive the block."""

    def __init__(self, start: Callable[[], StartedTree], limits: JobLimits) -> None:
        self._limits = limits
        self._output = bytearray()
        self._line = bytearray()
        self._messages: list[Message] = []
        self._channel_bytes = 0
        self._overflow = False
        self._ended: tuple[JobEnd, int, float] | None = None
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._wake, self._stop = os.pipe()
        launched: Future[StartedTree] = Future()
        threading.Thread(target=self._run, args=(start, launched), name="sandbox", daemon=True).start()
        try:
            self._started = launched.result()
        except BaseException:
            os.close(self._wake)
            os.close(self._stop)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def output(self) -> bytes:
        """stdout and stderr so far, in the order written, at most `output_bytes`."""
        return bytes(self._output)

    def messages(self, count: int = 0, timeout: float | None = None) -> tuple[Message, ...]:
        """The channel's lines so far, once there are `count`, the job is over or `timeout` seconds passed."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._messages) >= count or self._over, timeout)
            return tuple(self._messages)

    def poll(self) -> JobOutcome | None:
        """The outcome once the whole tree is dead, None before."""
        if self._failure is not None:
            raise self._failure
        if self._ended is None:
            return None
        kind, code, seconds = self._ended
        return JobOutcome(kind, code, seconds, self.output, self._overflow)

    def wait(self, timeout: float | None = None) -> JobOutcome:
        """The outcome; TimeoutError when the job is still running after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._over, timeout)
        outcome = self.poll()
        if outcome is None:
            raise TimeoutError(f"the job is still running after {timeout} s")
        return outcome

    def kill(self) -> JobOutcome:
        """End it now; returns when the whole tree is dead. An ended job keeps its outcome."""
        if not self._over:
            os.write(self._stop, b"x")
        return self.wait()

    def result(self, name: str, max_bytes: int) -> bytes:
        """The bytes of the plain file `name` directly in the scratch of a dead job.

        UntrustedResult for anything else than a regular file of at most `max_bytes`: links are not followed,
        a FIFO is not waited for. RuntimeError while the job runs.
        """
        if self.poll() is None or self._closed:
            raise RuntimeError("results are readable between a job's death and its close")
        if not name or name in (".", "..") or "/" in name or "\0" in name:
            raise ValueError(f"{name!r} is not a plain file name")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            handle = os.open(name, flags, dir_fd=self._started.scratch)
        except OSError as error:
            raise UntrustedResult(f"The result {name!r} should be a readable plain file: {error.strerror}.") from error
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise UntrustedResult(f"The result {name!r} should be a plain file and is not.")
            if status.st_size > max_bytes:
                raise UntrustedResult(
                    f"The result {name!r} should have at most {max_bytes} bytes and has {status.st_size}."
                )
            with open(handle, "rb", closefd=False) as file:
                data = file.read(status.st_size)
        finally:
            os.close(handle)
        if len(data) != status.st_size:
            raise UntrustedResult(f"The result {name!r} should have {status.st_size} bytes and gave {len(data)}.")
        return data

    def close(self) -> None:
        """Kill what runs, drop the scratch. Safe to call twice."""
        if self._closed:
            return
        try:
            self.kill()
        finally:
            self._closed = True
            for handle in (self._wake, self._stop, self._started.scratch):
                os.close(handle)
            self._started.tree.close()

    @property
    def _over(self) -> bool:
        return self._ended is not None or self._failure is not None

    def _run(self, start: Callable[[], StartedTree], launched: Future[StartedTree]) -> None:
        try:
            started = start()
        except BaseException as error:
            launched.set_exception(error)
            return
        launched.set_result(started)
        try:
            ended = self._supervise(started)
        except BaseException as error:
            with contextlib.suppress(BaseException):
                started.tree.kill()
            self._failure = error
        else:
            self._ended = ended
        finally:
            os.close(started.output)
            os.close(started.channel)
            with self._changed:
                self._changed.notify_all()

    def _supervise(self, started: StartedTree) -> tuple[JobEnd, int, float]:
        """Run the job to its end; nothing of it is alive when this returns."""
        os.set_blocking(started.output, False)
        os.set_blocking(started.channel, False)
        tree = started.tree
        kind: JobEnd | None = None
        code: int | None = None
        tree.go()
        begin = check = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            selector.register(started.output, selectors.EVENT_READ, self._take_output)
            selector.register(started.channel, selectors.EVENT_READ, self._take_channel)
            while kind is None:
                # a closed pipe most likely means the end, and no event will tell of it
                pause = _SOON_SECONDS if len(selector.get_map()) < 3 else max(0.0, check - time.monotonic())
                ready = selector.select(pause)
                seconds = time.monotonic() - begin
                for key, _ in ready:
                    if key.fileobj == self._wake:
                        kind = "killed_by_parent"
                    elif not (data := os.read(key.fd, _READ_BYTES)):
                        selector.unregister(key.fileobj)
                    else:
                        key.data(data, seconds)
                if (code := tree.poll()) is not None:
                    kind = "exited"
                elif self._overflow:
                    kind = "killed_output"
                elif kind is None and time.monotonic() >= check:
                    kind = exceeded(self._limits, seconds, tree.usage(self._limits))
                    check = time.monotonic() + _CHECK_SECONDS
            seconds = time.monotonic() - begin
        tree.kill()
        for handle, take in ((started.output, self._take_output), (started.channel, self._take_channel)):
            while not self._overflow:
                try:
                    data = os.read(handle, _READ_BYTES)
                except BlockingIOError:
                    break
                if not data:
                    break
                take(data, seconds)
        if kind == "exited" and self._overflow:
            kind = "killed_output"
        return kind, -1 if code is None else code, seconds

    def _take_output(self, data: bytes, _seconds: float) -> None:
        room = self._limits.output_bytes - len(self._output)
        self._output += data[:room]
        self._overflow |= len(data) > room

    def _take_channel(self, data: bytes, seconds: float) -> None:
        self._channel_bytes += len(data)
        *lines, rest = (self._line + data).split(b"\n")
        self._line = bytearray(rest)
        if self._channel_bytes > CHANNEL_BYTES or any(len(line) > MESSAGE_BYTES for line in (*lines, rest)):
            self._overflow = True
            return
        if lines:
            with self._changed:
                self._messages += (Message(seconds, bytes(line)) for line in lines)
                self._changed.notify_all()
