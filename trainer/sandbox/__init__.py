"""Where untrusted code runs: one interface, bubblewrap on Linux, seatbelt on macOS.

A job sees /usr (or the system), its interpreter and the inputs it was given, all read-only, and a sized
scratch; no network, no home, no other data, no inherited environment, descriptor or privilege. Its whole tree
is dead before a result is read. Use:

    sandbox = choose()
    probe(sandbox)  # once, before anything is trusted to it
    tools = interpreter_prefixes(python)
    done = lambda line: line == b"done"  # the line from the channel that ends the job, stamped by this process' clock
    with sandbox.start([python, "{job}/in/run.py"], limits=..., tools=tools, mounts=[...], last_word=done) as job:
        outcome = job.wait()
        graph = job.result("graph.mlxfn", 1 << 30)

Whatever comes out is the candidate's word.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from trainer.errors import EnvironmentNotReady
from trainer.sandbox.entry import interpreter_prefixes
from trainer.sandbox.files import UntrustedResult
from trainer.sandbox.job import (
    CHANNEL,
    Job,
    JobEnd,
    JobLimits,
    JobOutcome,
    LastWord,
    Message,
    Mount,
)
from trainer.sandbox.proof import STARTS, Line, examine, probe

__all__ = [
    "CHANNEL",
    "STARTS",
    "Job",
    "JobEnd",
    "JobLimits",
    "JobOutcome",
    "LastWord",
    "Line",
    "Message",
    "Mount",
    "Sandbox",
    "UntrustedResult",
    "choose",
    "examine",
    "interpreter_prefixes",
    "probe",
]


class Sandbox(Protocol):
    """Starts jobs."""

    @property
    def name(self) -> str:
        """As attestations give it: "bubblewrap", "seatbelt" or "none"."""

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
        """Run `argv` in a fresh sandbox and return at once.

        argv[0] is a Python below one of `tools` (`interpreter_prefixes` of it), which also runs the entry
        step. Mount targets and `cwd` are relative to the job's folder; "{job}" in arguments and values of
        `env` becomes that folder. The environment is `env` over PATH, LANG, HOME, TMPDIR and SCRATCH; the
        last three name the scratch, "{job}/scratch", which begins with a copy of the folder `scratch`. Descriptor
        CHANNEL (3) takes lines for `Job.messages`; the first that `last_word` accepts ends the job. stdin is empty.
        EnvironmentNotReady if the sandbox cannot be set up, ValueError for a bad target.
        """


def choose(*, cuda: bool = False) -> Sandbox:
    """The sandbox of this platform, `cuda` with NVIDIA's devices (Linux); else EnvironmentNotReady."""
    if sys.platform == "linux":
        from trainer.sandbox.linux import Bubblewrap

        return Bubblewrap(cuda=cuda)
    if sys.platform == "darwin":
        from trainer.sandbox.macos import Seatbelt

        return Seatbelt()
    raise EnvironmentNotReady(
        f"Untrusted code runs in a sandbox, and none exists for {sys.platform}.", "Use Linux or macOS."
    )
