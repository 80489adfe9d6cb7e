"""A protocol's setup commands: its author's code, run only with the user's consent.

Each is shown and asked for by itself. It runs without a shell, with the user's rights, in an environment of named
variables without keys (`trainer.running.dataset.variables`), and its process tree is killed at a time limit.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from common.text import printable
from trainer.errors import EnvironmentNotReady
from trainer.machine import environment
from trainer.machine.environment import Environment
from trainer.project.task import Task
from trainer.running import dataset, experiment

MAX_COMMANDS: Final = 32
_KINDS: Final = {  # the official client's, and what each starts
    **{kind: (kind,) for kind in ("uv", "npm", "pnpm", "yarn", "cargo", "make")},
    "pip": ("python3", "-m", "pip"),
}
_SHELL: Final = set("|&;<>()$`\\*?[#~\n")


@dataclass(frozen=True, slots=True)
class SetupCommand:
    """A setup command: its text as shown, its arguments, and the `problem` for which it is not run."""

    text: str
    argv: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class SetUp:
    """The outcome of a command: done, declined, refused, failed or not reached; `detail` is its last line."""

    command: str
    state: str
    detail: str = ""


def commands(raw: Mapping[str, Any]) -> list[SetupCommand]:
    """The protocol's setup commands, at most MAX_COMMANDS: texts, or objects of a `kind` and its `args`.

    What cannot be run here has its problem; it blocks nothing, since no measurement needs it.
    """
    match raw:
        case {"environment": {"setupCommands": [*given]}}:
            return [_command(entry) for entry in given[:MAX_COMMANDS]]
    return []


def _command(entry: object) -> SetupCommand:
    match entry:
        case {"kind": str(kind), "args": [*args]} if kind in _KINDS and all(isinstance(text, str) for text in args):
            argv = (*_KINDS[kind], *args)
            return SetupCommand(printable(shlex.join(argv), 500), argv)
        case {"kind": "bash" | "sh", "args": [str(script), *_]}:
            return SetupCommand(printable(script, 500), (), "it needs a shell; commands run without one")
        case str(text):
            pass
        case _:
            return SetupCommand(printable(json.dumps(entry), 500), (), "it is of no known form")
    shown = printable(text, 500)
    if shown != text or set(text) & _SHELL:
        return SetupCommand(shown, (), "it needs a shell; commands run without one")
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        return SetupCommand(shown, (), str(error).lower())
    return SetupCommand(shown, words, "" if words else "it is empty")


def set_up(
    folder: Path,
    parsed: Task,
    cache: Path,
    agrees: Callable[[SetupCommand], bool],
    seconds: float,
    step: Callable[[SetupCommand], Any],
) -> Iterator[SetUp]:
    """Run the protocol's setup commands in `folder`, each only if `agrees`; after one that fails none is reached.

    `step` gives a context for a running command that yields what its newest line is told to.
    """
    ended = False
    for command in commands(parsed.protocol.raw):
        if command.problem:
            yield SetUp(command.text, "refused", command.problem)
        elif ended:
            yield SetUp(command.text, "not reached")
        elif not agrees(command):
            yield SetUp(command.text, "declined")
        else:
            with step(command) as say:
                result = _run(command, folder, cache, say, seconds)
            ended = result.state == "failed"
            yield result


def _run(command: SetupCommand, folder: Path, cache: Path, say: dataset.Say, seconds: float) -> SetUp:
    try:
        code, log = dataset.run_command(_found(command.argv), folder, _interpreter(folder), cache, say, seconds)
    except EnvironmentNotReady as error:
        if command.argv[0] == "uv":
            return SetUp(command.text, "failed", f"{error.problem} {error.cure}")
        return SetUp(command.text, "failed", f"cannot start {command.argv[0]!r}")
    if code is None:
        return SetUp(command.text, "failed", f"stopped after {seconds:g} s")
    last = experiment.tail(log, 1).strip()
    return SetUp(command.text, "failed" if code else "done", f"status {code}: {last}" if code else last)


def _found(argv: Sequence[str]) -> list[str]:
    """The command, with uv where it was found."""
    return [str(environment.find_uv()), *argv[1:]] if argv[0] == "uv" else list(argv)


def _interpreter(folder: Path) -> Environment:
    """The work tree's own environment, which `uv sync` makes; it goes first on PATH."""
    prefix = folder / ".venv"
    return Environment(prefix / "bin" / "python", prefix, "work tree", "")
