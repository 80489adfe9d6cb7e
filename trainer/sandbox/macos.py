"""The macOS sandbox: seatbelt through sandbox-exec, because containers cannot reach Metal.

Not yet run on hardware: the profile follows published measurements, its text is tested, and
`trainer.sandbox.probe` must pass on the machine itself before it is used, so that a wrong rule fails closed.

There are no pid namespaces: the profile denies fork instead, so one process is the whole tree. RLIMIT_AS and
RLIMIT_DATA are useless (Metal reserves hundreds of GiB): the footprint is polled, and taskpolicy sets the
kernel's own cap. The scratch is a private folder of the host whose size is polled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trainer.errors import EnvironmentNotReady
from trainer.sandbox.entry import prefixes, sources
from trainer.sandbox.host import start_in_folder
from trainer.sandbox.job import Job, JobLimits, LastWord, Mount

SANDBOX_EXEC = "/usr/bin/sandbox-exec"
TASKPOLICY = "/usr/sbin/taskpolicy"
_GPU_CLIENTS = ("AGXDeviceUserClient", "IOSurfaceRootUserClient")
_COMPILER = "com.apple.MTLCompilerService"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def profile(job: str, tools: Sequence[str], inputs: Sequence[str]) -> str:
    """The seatbelt profile of a job in folder `job`, given the real paths of its interpreter and inputs."""
    readable = sorted({job, *tools, *inputs})
    parents = sorted({str(parent) for path in readable for parent in PurePosixPath(path).parents})
    rules = [
        "(version 1)",
        "(deny default)",
        '(import "system.sb")',
        *(f"(allow process-exec (subpath {_quoted(path)}))" for path in sorted(set(tools))),
        "(allow sysctl-read)",
        '(allow file-read* (subpath "/dev/fd"))',  # inside.py lists it to close what it should not pass on
        *(f"(allow file-read-metadata (literal {_quoted(path)}))" for path in parents),
        *(f"(allow file-read* (subpath {_quoted(path)}))" for path in readable),
        f"(allow file-write* (subpath {_quoted(job + '/scratch')}))",
        *(f"(allow iokit-open (iokit-user-client-class {_quoted(client)}))" for client in _GPU_CLIENTS),
        f"(allow mach-lookup (global-name {_quoted(_COMPILER)}))",
        "(deny process-fork)",
        "(deny network*)",
    ]
    return "\n".join(rules) + "\n"


@dataclass(frozen=True, slots=True)
class Seatbelt:
    """The sandbox of `trainer.sandbox.Sandbox` on macOS."""

    name: str = "seatbelt"

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
    ) -> Job:
        """See `trainer.sandbox.Sandbox.start`."""
        if not os.access(SANDBOX_EXEC, os.X_OK):
            raise EnvironmentNotReady(f"Untrusted code runs under {SANDBOX_EXEC}, which does not exist.", "Use macOS.")
        named = [path for pair in prefixes(tools) for path in pair]
        inputs = [source for source, _ in sources(mounts)]
        megabytes = str(max(1, limits.memory_bytes >> 20))

        def wrapper(folder: Path) -> list[str]:
            rules = profile(str(folder), named, inputs)
            return [TASKPOLICY, "-m", megabytes, SANDBOX_EXEC, "-p", rules]

        return start_in_folder(wrapper, argv, limits, mounts, env, cwd, last_word)
