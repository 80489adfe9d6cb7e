"""How a command enters a sandbox: the order for `inside.py`, environment included, and the meeting on its socket.

The meeting is over before the first untrusted byte runs: the parent gets open descriptors of the writable
folders (they stay readable when the sandbox and its mounts are gone) and then alone decides when the clock
starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trainer.errors import EnvironmentNotReady
from trainer.sandbox.job import JobLimits, Mount

SETUP_SECONDS = 60.0
_SOURCE = Path(__file__).with_name("inside.py").read_text()


@dataclass(frozen=True, slots=True)
class Order:
    """What `inside.py` is told; paths as seen inside, `limits` by their names in the module resource."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    folders: tuple[str, ...]
    limits: dict[str, int]

    def encode(self) -> bytes:
        fields = {name: getattr(self, name) for name in ("argv", "env", "cwd", "folders", "limits")}
        return json.dumps(fields).encode() + b"\n"


def order(
    job: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    folders: Sequence[str],
    limits: Mapping[str, int],
) -> Order:
    """The order for a job in folder `job`: "{job}" is filled in, and there is no other environment."""
    scratch = f"{job}/scratch"
    base = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": scratch,
        "TMPDIR": scratch,
        "SCRATCH": scratch,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return Order(
        tuple(argument.replace("{job}", job) for argument in argv),
        base | {name: value.replace("{job}", job) for name, value in env.items()},
        f"{job}/{relative(cwd)}",
        tuple(folders),
        dict(limits),
    )


def relative(target: str) -> str:
    """`target` when it is a plain path below the job's folder; ValueError for anything else."""
    path = PurePosixPath(target)
    if path.is_absolute() or ".." in path.parts or "\0" in target:
        raise ValueError(f"{target!r} should be a path relative to the job's folder")
    return str(path)


def sources(mounts: Sequence[Mount]) -> list[tuple[str, str]]:
    """(real source, target) of each mount, parents first; EnvironmentNotReady if a source is missing."""
    pairs = []
    for mount in mounts:
        target = relative(mount.target)
        if target == "." or PurePosixPath(target).parts[0] == "scratch":
            raise ValueError(f"{mount.target!r} is not free for an input")
        if not mount.source.exists():
            raise EnvironmentNotReady(f"The sandbox's input {mount.source} does not exist.", "Prepare it first.")
        pairs.append((os.path.realpath(mount.source), target))
    return sorted(pairs, key=lambda pair: PurePosixPath(pair[1]).parts)


def prefixes(tools: Sequence[Path]) -> list[tuple[str, str]]:
    """(real folder, name) of each tool prefix under its given and its real name, parents first.

    EnvironmentNotReady for a prefix that would open the whole home or disk.
    """
    home = Path(os.path.realpath(Path.home()))
    pairs = set()
    for tool in tools:
        real = Path(os.path.realpath(tool))
        if not real.is_dir() or real == home or real in home.parents:
            raise EnvironmentNotReady(
                f"An interpreter's prefix must be a folder of its own; {tool} is not.",
                "Use a virtual environment or an installation in its own folder.",
            )
        pairs |= {(str(real), str(real)), (str(real), os.path.abspath(tool))}
    return sorted(pairs, key=lambda pair: PurePosixPath(pair[1]).parts)


def interpreter_prefixes(python: Path) -> tuple[Path, ...]:
    """The folders a Python needs: its own prefix, and a virtual environment's base by each name."""
    prefix = python.absolute().parent.parent
    found = [prefix, Path(os.path.realpath(python)).parent.parent]
    settings = prefix / "pyvenv.cfg"
    if settings.is_file():
        for line in settings.read_text().splitlines():
            name, _, value = line.partition("=")
            if name.strip() == "home":
                found.append(Path(value.strip()).parent)
    return tuple(dict.fromkeys(found))


def common_limits(limits: JobLimits) -> dict[str, int]:
    """The resource limits that mean the same everywhere."""
    caps = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": limits.file_bytes, "RLIMIT_NOFILE": 4096}
    return caps if limits.cpu_seconds is None else caps | {"RLIMIT_CPU": limits.cpu_seconds}


@dataclass(frozen=True, slots=True)
class Entered:
    """A sandbox that is set up and waits for the word to go; `folders` are descriptors of the order's."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    output: int
    channel: int
    folders: tuple[int, ...]

    def go(self) -> None:
        with self.control:
            self.control.sendall(b"go\n")

    def abandon(self) -> None:
        """End it before it went."""
        self.process.kill()
        self.process.wait()
        self.control.close()
        for handle in (self.output, self.channel, *self.folders):
            os.close(handle)


class SetupFailed(Exception):
    """The sandbox ended before it was ready; the text is what it wrote."""


def enter(wrapper: Sequence[str], handles: Sequence[int], what: Order, *, session: bool = False) -> Entered:
    """Start `wrapper` around `inside.py` with nothing inherited but `handles`, and meet it.

    `session` gives it a session of its own. SetupFailed, with the wrapper's words, if it does not come up.
    """
    ours, theirs = socket.socketpair()
    nothing, nothing_end = os.pipe()
    os.close(nothing_end)
    output, output_end = os.pipe()
    channel, channel_end = os.pipe()
    folders: list[int] = []
    process: subprocess.Popen[bytes] | None = None
    try:
        try:
            process = subprocess.Popen(
                [*wrapper, what.argv[0], "-I", "-S", "-c", _SOURCE, str(channel_end), str(theirs.fileno())],
                stdin=nothing,  # not the host's /dev/null: its mode could be changed through the descriptor
                stdout=output_end,
                stderr=output_end,
                env={},
                cwd="/",
                pass_fds=(*handles, channel_end, theirs.fileno()),
                start_new_session=session,
            )
        finally:
            theirs.close()
            for handle in (nothing, output_end, channel_end):
                os.close(handle)
        ours.settimeout(SETUP_SECONDS)
        try:
            ours.sendall(what.encode())
            answer, folders, _, _ = socket.recv_fds(ours, 16, len(what.folders))
        except OSError as error:
            answer, reason = b"", str(error)
        else:
            reason = "it ended before it was ready"
        for folder in folders:
            os.set_inheritable(folder, False)
        if answer != b"ready\n" or len(folders) != len(what.folders):
            process.kill()
            process.wait()
            os.set_blocking(output, False)
            with contextlib.suppress(BlockingIOError):
                reason = os.read(output, 4096).decode(errors="replace").strip() or reason
            raise SetupFailed(reason)
    except BaseException:
        if process is not None:
            process.kill()
            process.wait()
        ours.close()
        for handle in (output, channel, *folders):
            os.close(handle)
        raise
    return Entered(process, ours, output, channel, tuple(folders))
