"""The proof that a sandbox works on this machine, line by line, before anything is trusted to it.

`examine` runs `inside_proof.py` in the sandbox. What must be refused is tried against things of our own (a listener
that is reached from outside, this very process), so that a machine without a network passes nothing by accident.
`judge` is pure: each line with what was found and its likely cause. `probe` is the gate: every line must hold.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from common.text import error_line, printable
from trainer.errors import EnvironmentNotReady
from trainer.machine import hardware
from trainer.sandbox.entry import interpreter_prefixes
from trainer.sandbox.files import UntrustedResult
from trainer.sandbox.job import JobLimits, JobOutcome, Mount

if TYPE_CHECKING:
    from trainer.sandbox import Sandbox

_SOURCE: Final = Path(__file__).with_name("inside_proof.py").read_text()
_VALUE: Final = 242.992  # of the graph in `inside_proof.compute`, by Python's own floats
_SECONDS: Final = 120

CONFINED: Final = {
    "files": "no file of the host",
    "home": "no home folder",
    "writing": "no writing outside the scratch",
    "network": "no network, not even this machine's own",
    "processes": "no arguments and environments of other processes",
    "signals": "no signals to other processes",
    "starting": "no second process (macOS), no unfiltered system calls (Linux)",
}
NEEDED: Final = {
    "own_signals": "a signal to itself",
    "scratch": "a scratch to write to",
    "device": "the device that MLX uses outside",
    "compute": "a graph computes, as on the CPU",
    "imports": "pyarrow and tokenizers import",
}
STARTS, PROGRAMS, HARNESS = "starts", "programs", "harness"
_NAMES: Final = {
    STARTS: "it starts",
    **CONFINED,
    PROGRAMS: "no other program",
    **NEEDED,
    HARNESS: "prepare.py imports",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that must hold in a sandbox; where it does not, what was found and what may be the cause."""

    key: str
    holds: bool
    found: str = ""
    cause: str = ""

    @property
    def name(self) -> str:
        """The line in words."""
        return _NAMES[self.key]


def examine(
    sandbox: Sandbox, python: Path | None = None, *, harness: bytes | None = None, wall_seconds: float = _SECONDS
) -> list[Line]:
    """Every line about a sandbox with the interpreter `python` (this one). `harness`: a prepare.py that must import."""
    python = Path(sys.executable) if python is None else python
    context = _context()
    with _things() as (listener, order):
        try:
            outcome, found = _run(sandbox, python, order, wall_seconds)
            done = _done(listener, order)
        except EnvironmentNotReady as error:
            return [Line(STARTS, False, error.problem, error.cure or cause(STARTS, error.problem, context))]
    lines = judge(outcome, found, order["lines"], done, context)
    if not lines[0].holds:
        return lines
    if platform.system() == "Darwin" and sandbox.name != "none":
        ended = _job(sandbox, python, "import os; os.execv('/usr/bin/true', ['true'])")
        leaked = (ended.kind, ended.exit_code) == ("exited", 0)
        lines.append(_broken(PROGRAMS, "/usr/bin/true ran", context) if leaked else Line(PROGRAMS, True))
    if harness is not None:
        lines.append(_harness(sandbox, python, harness, context))
    return lines


def probe(sandbox: Sandbox, python: Path | None = None) -> str:
    """One line on a sandbox in which everything holds; else EnvironmentNotReady with the first line that does not."""
    for line in examine(sandbox, python):
        if not line.holds:
            what = "start" if line.key == STARTS else f"hold: {line.name}"
            found = f": {line.found.rstrip('.')}" if line.found else ""
            raise EnvironmentNotReady(f"The sandbox ({sandbox.name}) does not {what}{found}.", line.cause)
    return f"{sandbox.name}: MLX {version('mlx')} computes, every line holds"


def judge(
    outcome: JobOutcome, found: Mapping[str, Any] | None, lines: Sequence[str], done: Mapping[str, str], context: str
) -> list[Line]:
    """The lines asked for, from how the job ended, what it wrote, and what was `done` to things outside, by line.

    `context` says what is odd about the machine.
    """
    if (outcome.kind, outcome.exit_code) != ("exited", 0) or found is None:
        said = error_line(outcome.output.decode(errors="replace")) or "no output"
        words = f"it {outcome.kind.replace('_', ' ')} with status {outcome.exit_code}: {printable(said, 300)}"
        return [_broken(STARTS, words, context)]
    result = [Line(STARTS, True)]
    for key in lines:
        said = done.get(key) or found.get(key, "it was not tried")  # what is missing does not hold
        result.append(_broken(key, printable(str(said), 300), context) if said != "" else Line(key, True))
    return result


def cause(key: str, words: str, context: str, *, system: str | None = None) -> str:
    """The likely cause of a line that does not hold, and what to do."""
    mac = (system or platform.system()) == "Darwin"
    if mac and "sandbox_apply" in words:
        return (
            "This terminal is in a sandbox itself, as those of coding agents are, and sandboxes do not nest: "
            "run the command in Terminal.app."
        )
    if "incompatible architecture" in words or "Bad CPU type" in words:
        return "Python is built for another processor: use one for arm64, as `uv python install 3.12` gets it."
    if "Library not loaded" in words or "image not found" in words:
        return "Python links libraries outside its own folder: use uv's own, `uv run --managed-python …`."
    if "No module named" in words:
        return "The environment lacks a package: prepare it again, with `uv sync` in a clone of the repository."
    if context and key in (STARTS, "device", "compute"):
        return f"The likely cause: {context}."
    if key in ("device", "compute") or (key == STARTS and mac):
        return "The sandbox lacks something that this system needs: report what `miner doctor` writes."
    if key in CONFINED or key == PROGRAMS:
        return "Judge nobody's code on this machine, and report what `miner doctor` writes."
    return "Report what `miner doctor` writes."


def _broken(key: str, words: str, context: str) -> Line:
    return Line(key, False, words, cause(key, words, context))


def _context() -> str:
    """What is odd about this machine; only macOS hides it."""
    if platform.system() != "Darwin":
        return ""
    chip = hardware.run_tool("sysctl", "-n", "machdep.cpu.brand_string").strip()
    if platform.machine() != "arm64":
        chip = f"VirtualApple {chip}"
    return hardware.doubt("metal", chip, chip, 1, 1, 1)


@contextlib.contextmanager
def _things() -> Iterator[tuple[socket.socket, dict[str, Any]]]:
    """A listener and an order about things of our own that must not be reached; they go with the context."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), 5).close()  # from outside it is reached
        listener.accept()[0].close()
        secret = stack.enter_context(tempfile.NamedTemporaryFile(prefix="secret-"))
        given = stack.enter_context(tempfile.NamedTemporaryFile(prefix="input-"))
        home = str(Path.home())
        with contextlib.suppress(OSError):
            home = stack.enter_context(tempfile.NamedTemporaryFile(prefix=".secret-", dir=home)).name
        ours = Path(__file__).resolve()
        outside = Path(secret.name).with_name(Path(secret.name).name + "-made")
        stack.callback(outside.unlink, missing_ok=True)
        yield (
            listener,
            {
                "hidden": [secret.name, str(ours)],
                "home": home,
                "outside": str(outside),
                "given": given.name,
                "input": "{job}/input",
                "port": port,
                "parent": os.getpid(),
                "mark": Path(sys.executable).name,
                "value": _VALUE,
                "seconds": _SECONDS,
                "lines": [*CONFINED, *NEEDED],
                "device": hardware.device(),
            },
        )


def _done(listener: socket.socket, order: Mapping[str, Any]) -> dict[str, str]:
    """What the job did outside the sandbox, by line."""
    found = {}
    listener.settimeout(0)
    with contextlib.suppress(OSError):
        listener.accept()[0].close()
        found["network"] = "a listener of this machine was reached"
    if os.path.exists(order["outside"]):
        found["writing"] = "a file was made outside the scratch"
    elif os.path.getsize(order["given"]):
        found["writing"] = "an input was written to"
    return found


def _run(
    sandbox: Sandbox, python: Path, order: dict[str, Any], wall_seconds: float
) -> tuple[JobOutcome, Mapping[str, Any] | None]:
    tools = interpreter_prefixes(python)
    # An installed wheel is part of its interpreter's own packages, which a job sees; a checkout is not.
    order["hidden"] = [
        name
        for name in order["hidden"]
        if not any(Path(name).resolve().is_relative_to(tool.resolve()) for tool in tools)
    ]
    if sandbox.name == "none":
        order["lines"] = list(NEEDED)
    told = {name: value for name, value in order.items() if name != "given"}
    job = sandbox.start(
        [str(python), "-c", _SOURCE, json.dumps(told)],
        limits=JobLimits(wall_seconds=wall_seconds, memory_bytes=8 << 30),
        tools=tools,
        mounts=[Mount(Path(order["given"]), "input")],
    )
    with job:
        outcome = job.wait()
        try:
            found = json.loads(job.result("proof.json", 1 << 16))
        except (UntrustedResult, ValueError):
            found = None
    return outcome, found if isinstance(found, dict) else None


def _job(sandbox: Sandbox, python: Path, code: str, mounts: Sequence[Mount] = ()) -> JobOutcome:
    limits = JobLimits(wall_seconds=_SECONDS, memory_bytes=8 << 30)
    tools = interpreter_prefixes(python)
    with sandbox.start([str(python), "-c", code], limits=limits, tools=tools, mounts=mounts) as job:
        return job.wait()


def _harness(sandbox: Sandbox, python: Path, harness: bytes, context: str) -> Line:
    """Whether a project's prepare.py imports; what it prints is its author's word, so it has a job of its own."""
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        Path(folder, "prepare.py").write_bytes(harness)
        code = "import os, sys; sys.path.insert(0, os.path.abspath('harness')); import prepare"
        ended = _job(sandbox, python, code, [Mount(Path(folder), "harness")])
    if (ended.kind, ended.exit_code) == ("exited", 0):
        return Line(HARNESS, True)
    said = error_line(ended.output.decode(errors="replace")) or "no output"
    return _broken(HARNESS, f"status {ended.exit_code}: {printable(said, 300)}", context)
