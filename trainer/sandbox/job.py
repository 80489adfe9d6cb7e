"""One sandboxed run under supervision: the values it takes and gives, and the `Job` that enforces its limits.

A `Job` is the same on every platform. A thread of its own starts the process tree (so that "die with the
parent" means the verifier and not a passing thread), drains the two pipes, checks time and use against the
limits, and kills. Rules:
  - everything that comes out (output, channel messages, exit code, result files) is the candidate's word;
  - time is the parent's: seconds are counted from the word to go, channel messages are stamped on arrival;
  - the thread that stamps the last word kills: the channel is read before the output, and when a line is the last
    one (`LastWord`), nothing is done between its stamp and the kill. How long something of the tree could still run
    after the stamp is measured; more than `KILL_SECONDS` is an end of its own kind, `killed_late`;
  - no result is readable before the whole tree is dead, and none that was changed after the last word;
  - the scratch is held by an open descriptor, and no path in it is followed.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from common.closing import Closing
from trainer.sandbox import files

CHANNEL = 3  # the descriptor inside on which trusted code sends the parent one-line messages
MESSAGE_BYTES = 4096  # the longest message
CHANNEL_BYTES = 64 * 1024  # all messages of one job together
KILL_SECONDS = 0.05  # from the stamp of the last word until nothing of the tree can run any more
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
    "finished",  # the last word came, and the tree was killed at once
    "killed_late",  # the last word came, but something could run for longer than KILL_SECONDS
]

LastWord = Callable[[bytes], bool]
"""Whether a line of the channel is the last one that counts, which ends the job. It must not raise."""


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
    """How a job ended. `exit_code` is 128 + n for a signal n and meaningful for "exited" only.

    `last` is the last word, where it came; `lag` the seconds from its stamp until nothing of the tree could run.
    """

    kind: JobEnd
    exit_code: int
    seconds: float
    output: bytes
    truncated: bool
    last: Message | None = None
    lag: float = 0.0


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

    def kill(self) -> float:
        """SIGKILL everything and return when nothing is left; TrainerError if that fails.

        The seconds until nothing of it could run, `inf` where that was not seen within KILL_SECONDS: what only gives
        back its memory runs no more, and may take longer.
        """

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


class Job(Closing):
    """A run in progress or over; as a context manager its tree and its scratch do not outlive the block."""

    def __init__(
        self,
        start: Callable[[], StartedTree],
        limits: JobLimits,
        last_word: LastWord | None = None,
        scratch: Path | None = None,
    ) -> None:
        self._limits = limits
        self._given = scratch
        self._is_last = last_word
        self._last: tuple[Message, float] | None = None  # with the moment of its stamp, time.monotonic()
        self._said_at = 0  # the same moment as time.time_ns()
        self._output = bytearray()
        self._line = bytearray()
        self._messages: list[Message] = []
        self._channel_bytes = 0
        self._overflow = False
        self._ended: tuple[JobEnd, int, float, float] | None = None
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

    @property
    def output(self) -> bytes:
        """stdout and stderr so far, in the order written, at most `output_bytes`."""
        return bytes(self._output)

    def output_since(self, start: int, most: int) -> tuple[bytes, int]:
        """At most `most` bytes of the output, the newest from `start` on, and how many there are in all."""
        end = len(self._output)
        return bytes(self._output[max(start, end - most) : end]), end

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
        kind, code, seconds, lag = self._ended
        last = self._last[0] if self._last else None
        return JobOutcome(kind, code, seconds, self.output, self._overflow, last, lag)

    def over(self, timeout: float) -> bool:
        """Whether the whole tree is dead, after at most `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._over, timeout)

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

        UntrustedResult for anything else than a regular file of at most `max_bytes`, and for one that was changed
        after the last word: links are not followed, a FIFO is not waited for. RuntimeError while the job runs.
        """
        if self.poll() is None or self._closed:
            raise RuntimeError("results are readable between a job's death and its close")
        if not name or name in (".", "..") or "/" in name or "\0" in name:
            raise ValueError(f"{name!r} is not a plain file name")
        return files.read(name, self._started.scratch, max_bytes, self._before)

    def results(self, name: str, max_files: int, max_bytes: int) -> dict[str, bytes]:
        """The same for all plain files below the folder `name` of the scratch, by their paths; none without it."""
        if self.poll() is None or self._closed:
            raise RuntimeError("results are readable between a job's death and its close")
        return files.read_all(name, self._started.scratch, max_files, max_bytes, self._before)

    @property
    def _before(self) -> int | None:
        return self._said_at if self._last else None

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

    def _supervise(self, started: StartedTree) -> tuple[JobEnd, int, float, float]:
        """Run the job to its end; nothing of it is alive when this returns."""
        os.set_blocking(started.output, False)
        os.set_blocking(started.channel, False)
        tree = started.tree
        kind: JobEnd | None = None
        code: int | None = None
        if self._given is not None:
            files.put(self._given, started.scratch)
        tree.go()
        begin = check = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            selector.register(started.output, selectors.EVENT_READ, self._take_output)
            selector.register(started.channel, selectors.EVENT_READ, self._take_channel)
            while kind is None:
                # a closed pipe most likely means the end, and no event will report it
                pause = _SOON_SECONDS if len(selector.get_map()) < 3 else max(0.0, check - time.monotonic())
                ready = {key.fd: key for key, _ in selector.select(pause)}
                for handle in (started.channel, self._wake, started.output):
                    if (key := ready.get(handle)) is None or self._last:
                        continue
                    if handle == self._wake:
                        kind = "killed_by_parent"
                    elif not (data := os.read(handle, _READ_BYTES)):
                        selector.unregister(key.fileobj)
                    else:
                        key.data(data, begin)
                if self._last:
                    break
                if (code := tree.poll()) is not None:
                    kind = "exited"
                elif self._overflow:
                    kind = "killed_output"
                elif kind is None and time.monotonic() >= check:
                    kind = exceeded(self._limits, time.monotonic() - begin, tree.usage(self._limits))
                    check = time.monotonic() + _CHECK_SECONDS
        killing = time.monotonic()
        lag = tree.kill()
        seconds = killing - begin
        for handle, take in ((started.output, self._take_output), (started.channel, self._take_channel)):
            while not self._overflow:
                try:
                    data = os.read(handle, _READ_BYTES)
                except BlockingIOError:
                    break
                if not data:
                    break
                take(data, begin)
        if kind in (None, "exited") and self._last:
            lag += max(0.0, killing - self._last[1])
            kind = "finished" if lag <= KILL_SECONDS else "killed_late"
        elif kind == "exited" and self._overflow:
            kind = "killed_output"
        assert kind is not None
        return kind, -1 if code is None else code, seconds, lag

    def _take_output(self, data: bytes, _begin: float) -> None:
        room = self._limits.output_bytes - len(self._output)
        self._output += data[:room]
        self._overflow |= len(data) > room

    def _take_channel(self, data: bytes, begin: float) -> None:
        stamp, now = time.monotonic(), time.time_ns()
        if self._last:
            return
        self._channel_bytes += len(data)
        *lines, rest = (self._line + data).split(b"\n")
        self._line = bytearray(rest)
        if self._channel_bytes > CHANNEL_BYTES or any(len(line) > MESSAGE_BYTES for line in (*lines, rest)):
            self._overflow = True
            return
        found = []
        for line in lines:
            found.append(Message(stamp - begin, bytes(line)))
            if self._is_last and self._is_last(bytes(line)):
                self._last, self._said_at = (found[-1], stamp), now
                break
        self._messages += found
        if found and not self._last:  # with the last word, the kill comes first and reports both
            with self._changed:
                self._changed.notify_all()
