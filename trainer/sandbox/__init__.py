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

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from trainer.errors import EnvironmentNotReady
from trainer.sandbox.job import (
    CHANNEL,
    Job,
    JobEnd,
    JobLimits,
    JobOutcome,
    LastWord,
    Message,
    Mount,
    UntrustedResult,
)

__all__ = [
    "CHANNEL",
    "Job",
    "JobEnd",
    "JobLimits",
    "JobOutcome",
    "LastWord",
    "Message",
    "Mount",
    "Sandbox",
    "UntrustedResult",
    "choose",
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
    ) -> Job:
        """Run `argv` in a fresh sandbox and return at once.

        argv[0] is a Python below one of `tools` (`interpreter_prefixes` of it), which also runs the entry
        step. Mount targets and `cwd` are relative to the job's folder; "{job}" in arguments and values of
        `env` becomes that folder. The environment is `env` over PATH, LANG, HOME, TMPDIR and SCRATCH; the
        last three name the scratch, "{job}/scratch". Descriptor CHANNEL (3) takes lines for `Job.messages`;
        the first that `last_word` accepts ends the job. stdin is empty. EnvironmentNotReady if the sandbox
        cannot be set up, ValueError for a bad target.
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


_PROBE = """
import json, os, socket, sys
import mlx.core as mx

step = mx.compile(lambda x: mx.tanh(x) * mx.exp(x) + mx.sin(x) * 2)
value = (step(mx.ones((64, 64))) @ mx.ones((64, 1))).mean().item()
leaks = []
for name in sys.argv[1:]:
    if os.path.exists(name):
        leaks.append("files of the host")
try:
    socket.create_connection(("192.0.2.1", 9), timeout=2).close()
    leaks.append("the network")
except TimeoutError:
    leaks.append("the network")
except OSError:
    pass
try:
    if os.fork() == 0:
        os._exit(0)
    if sys.platform == "darwin":
        leaks.append("new processes")
except OSError:
    pass
if sys.platform == "linux" and "Seccomp:\\t2" not in open("/proc/self/status").read():
    leaks.append("all system calls")
report = {"value": value, "device": str(mx.default_device()), "mlx": mx.__version__, "leaks": leaks}
with open(os.environ["SCRATCH"] + "/probe.json", "w") as file:
    json.dump(report, file)
"""


def probe(sandbox: Sandbox, python: Path | None = None, *, wall_seconds: float = 120.0) -> str:
    """Run MLX on its default device inside and try to get out; one line on what was found.

    EnvironmentNotReady, naming what is missing, unless everything holds.
    """
    python = Path(sys.executable) if python is None else python
    limits = JobLimits(wall_seconds=wall_seconds, memory_bytes=8 << 30)
    tools, ours = interpreter_prefixes(python), Path(__file__).resolve()
    # An installed wheel is part of its interpreter's own packages, which a job sees; a checkout is not.
    hidden = [] if any(ours.is_relative_to(tool.resolve()) for tool in tools) else [str(ours)]
    with tempfile.NamedTemporaryFile(prefix="secret-") as secret:
        job = sandbox.start([str(python), "-c", _PROBE, secret.name, *hidden], limits=limits, tools=tools)
        with job:
            outcome = job.wait()
            if outcome.kind != "exited" or outcome.exit_code != 0:
                words = outcome.output.decode(errors="replace").strip().splitlines()[-1:] or ["no output"]
                raise EnvironmentNotReady(
                    f"MLX does not run inside the sandbox ({sandbox.name}): the probe {outcome.kind} with "
                    f"status {outcome.exit_code}: {words[0]}.",
                    f"Check that `{python} -c 'import mlx.core'` works, with g++ (Linux) or Metal (macOS).",
                )
            report = json.loads(job.result("probe.json", 4096))
    if report["leaks"] and sandbox.name != "none":
        raise EnvironmentNotReady(
            f"Code inside the sandbox ({sandbox.name}) was not confined and reached {', '.join(report['leaks'])}.",
            "Do not judge anyone's code on this machine; report the operating system's version.",
        )
    if abs(report["value"] - 240.2034) > 0.5:
        raise EnvironmentNotReady(
            f"MLX inside the sandbox returned {report['value']} instead of 240.20.",
            "Check the MLX installation.",
        )
    return f"{sandbox.name}: MLX {report['mlx']} on {report['device']}, {outcome.seconds:.1f} s"
