"""Jobs in a private folder of the host: what macOS and `NoIsolation` share, and `NoIsolation` itself.

`NoIsolation` is a plain process with the sandbox's interface and as many of its limits as a plain process can
have. It protects from nothing: it is for checking your own code, requested explicitly with --no-sandbox,
and attestations made with it say "none".
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import EnvironmentNotReady
from trainer.sandbox.entry import Entered, SetupFailed, common_limits, enter, order, sources
from trainer.sandbox.job import SCRATCH_FILES, Job, JobLimits, LastWord, Mount, StartedTree, TreeUsage
from trainer.sandbox.linux import condemned, silenced, tree_usage

_PROC_PIDTBSDINFO, _PROC_FLAG_INEXIT, _SZOMB = 3, 4, 5  # sys/proc_info.h, sys/proc.h
_DEATH_SECONDS = 60

# waits for its stdin to end, which it does however the parent dies, then kills the job's process group
_WATCHDOG = "import os, signal, sys; sys.stdin.read(); os.killpg(int(sys.argv[1]), signal.SIGKILL)"


def folder_usage(handle: int) -> tuple[int, int]:
    """(bytes on disk, files) below an open folder; no link is followed, a tree too deep to be walked is excess."""
    size = files = 0
    try:
        for _, folders, names, folder in os.fwalk(".", dir_fd=handle):
            files += len(folders) + len(names)
            if files > SCRATCH_FILES:
                break
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    size += os.stat(name, dir_fd=folder, follow_symlinks=False).st_blocks * 512
    except (OSError, RecursionError):
        files = SCRATCH_FILES + 1
    return size, files


def footprint(pid: int) -> int:
    """A macOS process' memory in bytes, shared GPU memory included: ri_phys_footprint of rusage_info_v0."""
    buffer = ctypes.create_string_buffer(96)
    library = ctypes.CDLL("/usr/lib/libproc.dylib", use_errno=True)
    if library.proc_pid_rusage(pid, 0, buffer) != 0:
        return 0
    return int(struct.unpack_from("<Q", buffer.raw, 16 + 7 * 8)[0])


def exiting(pid: int) -> bool:
    """Whether a macOS process is dead or on its way out; False if that cannot be asked."""
    buffer = ctypes.create_string_buffer(256)
    try:
        library = ctypes.CDLL("/usr/lib/libproc.dylib", use_errno=True)
    except OSError:
        return False
    size = library.proc_pidinfo(pid, _PROC_PIDTBSDINFO, ctypes.c_uint64(0), buffer, len(buffer))
    return size <= 0 or leaves(buffer.raw)


def leaves(record: bytes) -> bool:
    """Whether a struct proc_bsdinfo, which begins with pbi_flags and pbi_status, is of a process that runs no more."""
    flags, status = struct.unpack_from("<II", record)
    return bool(flags & _PROC_FLAG_INEXIT) or status == _SZOMB


@dataclass(slots=True)
class _Group:
    """A process group of the host, its private folder, and the watchdog that ends it with the parent."""

    entered: Entered
    folder: Path
    watchdog: subprocess.Popen[bytes]

    def go(self) -> None:
        self.entered.go()

    def poll(self) -> int | None:
        code = self.entered.process.poll()
        return code if code is None or code >= 0 else 128 - code

    def usage(self, limits: JobLimits) -> TreeUsage:
        pid = self.entered.process.pid
        memory, tasks = (footprint(pid), 1) if sys.platform == "darwin" else tree_usage(pid, limits)
        return TreeUsage(memory, tasks, *folder_usage(self.entered.folders[0]))

    def kill(self) -> float:
        process = self.entered.process
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)

        def dead(seconds: float) -> bool:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            return process.returncode is not None

        ends = exiting if sys.platform == "darwin" else condemned
        lag = silenced(dead, lambda: ends(process.pid))
        if not dead(_DEATH_SECONDS):
            raise EnvironmentNotReady(
                f"The run's process {process.pid} survived SIGKILL for {_DEATH_SECONDS} s.",
                "Check it with ps (a driver or disk may hang), and restart the machine if needed.",
            )
        self.watchdog.kill()
        self.watchdog.communicate()
        return lag

    def close(self) -> None:
        with contextlib.suppress(RecursionError):
            shutil.rmtree(self.folder, ignore_errors=True)


def start_in_folder(
    wrapper: Callable[[Path], Sequence[str]],
    argv: Sequence[str],
    limits: JobLimits,
    mounts: Sequence[Mount],
    env: Mapping[str, str] | None,
    cwd: str,
    last_word: LastWord | None,
    scratch: Path | None,
    *,
    cure: Callable[[str], str] = lambda words: "Check that this Python works.",
) -> Job:
    """A job whose folder is a fresh private one with links to the inputs; `wrapper(folder)` confines it."""

    def start() -> StartedTree:
        folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="sandbox-")))
        try:
            (folder / "scratch").mkdir(mode=0o700)
            for source, target in sources(mounts):
                (folder / target).parent.mkdir(parents=True, exist_ok=True)
                (folder / target).symlink_to(source)
            what = order(str(folder), argv, env or {}, cwd, (f"{folder}/scratch",), common_limits(limits))
            try:
                entered = enter(wrapper(folder), (), what, session=True)
            except SetupFailed as failure:
                words = f"The sandbox could not be set up: {failure}."
                raise EnvironmentNotReady(words, cure(words)) from None
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCHDOG, str(entered.process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        return StartedTree(_Group(entered, folder, watchdog), entered.output, entered.channel, entered.folders[0])

    return Job(start, limits, last_word, scratch)


@dataclass(frozen=True, slots=True)
class NoIsolation:
    """The interface of `trainer.sandbox.Sandbox` without any protection; never for anyone else's code."""

    name: str = "none"

    def start(
        self,
        argv: Sequence[str],
        *,
        limits: JobLimits,
        tools: Sequence[Path],
        mounts: Sequence[Mount] = (),
        env: Mapping[str, str] | None = None,
        cwd: str = ".",
        last_word: LastWord | None = None,
        scratch: Path | None = None,
    ) -> Job:
        """See `trainer.sandbox.Sandbox.start`; `tools` need no binding here."""
        return start_in_folder(lambda _: (), argv, limits, mounts, env, cwd, last_word, scratch)
