"""`agent`: candidates from any command-line coding agent, run in a work tree made for it.

The work tree is a fresh git repository that holds the files which the protocol names: those that may change and
those that are fixed, to read. The agent gets the prompt in place of `{prompt}` in its command, or else on stdin,
and edits train.py. Only that file is taken. Notes, settings and caches that it leaves are left out; it fails if it
changed or removed a file that was given, left a link, or if its train.py imports a module that it wrote beside it.
An edit that was finished when the time was over counts. What was wrong with one is told to the next.

It runs under `trainer.running.supervisor`, so that it and all it started are dead when its time is over, at Ctrl-C, and
when this process dies. It is the user's own program and inherits the user's environment, since it needs its own
keys and settings, without the variables of this project. This is not a sandbox: the agent can reach whatever its user
can.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from common import git
from common.files import write_atomic
from common.text import printable
from miner.proposers import prompt, usage
from miner.proposers.base import SCRIPT, Candidate, Context, ProposerFailed
from trainer.errors import EnvironmentNotReady, InvalidBundle, TrainerError
from trainer.project import bundle, hyperparameters
from trainer.project.protocol import MutableSurface
from trainer.running import experiment
from trainer.running.experiment import LaunchCommand

MAX_LOG = 1024 * 1024  # bytes of output that are kept, the last ones
_PLACE = "{prompt}"
_MAX_ARGUMENT = 100_000  # bytes; Linux takes 131,072 in one argument
_OURS = ("ARMLX_", "AUTORESEARCH_", "OPENRESEARCH_", "SOLANA_")
_WALLET_WORDS = ("keypair", "wallet", "keystore")
_ANSWER = (
    f"Edit {SCRIPT} in the current folder, nothing else: no other file may change or appear. Do not run it, the"
    " harness does. When the edit is done, stop."
)


class Agent:
    """`command` is a template such as `claude -p {prompt}`; `files` the project's snapshot; `minutes` a time limit."""

    name = "agent"

    def __init__(self, command: str, files: Mapping[str, bytes], minutes: float) -> None:
        self._argv = template(command)
        self._files, self._seconds = dict(files), 60 * minutes
        self._wrong = ""  # with the last edit, for the next prompt

    def propose(self, context: Context) -> Candidate | None:
        """The agent's edit; ProposerFailed if it made none, or touched anything else, or took too long."""
        folder = context.folder / "agent"
        tree = folder / f"{context.number:04d}"
        shutil.rmtree(tree, ignore_errors=True)
        given = {**visible(self._files, context.protocol.surface), SCRIPT: context.source.encode()}
        bundle.write_tree(given, tree)
        _git(tree, "init", "--quiet", "--initial-branch", "main")
        _git(tree, "add", "--all")
        _git(tree, "commit", "--quiet", "--message", "best so far")
        try:
            output, late = self._run(context, tree, folder)
            source = edited(tree, given)
            _compile(source)
        except ProposerFailed as failure:
            self._wrong = failure.problem
            raise
        finally:
            shutil.rmtree(tree, ignore_errors=True)
        self._wrong = ""
        return Candidate(
            source, prompt.hypothesis(_last_message(output)) if not late else "what an agent had done in time"
        )

    def _run(self, context: Context, tree: Path, folder: Path) -> tuple[str, bool]:
        """Run the agent to its end: its output, kept beside the tree, and whether it was stopped at its limit."""
        text = prompt.build(context, _ANSWER, with_source=False, wrong=self._wrong)
        text = text.encode()[:_MAX_ARGUMENT].decode(errors="ignore")
        if any(_PLACE in part for part in self._argv):
            argv = [part.replace(_PLACE, text) for part in self._argv]
            source = os.devnull
        else:
            argv = self._argv
            source = str(folder / f"{context.number:04d}.prompt")
            write_atomic(Path(source), text.encode())
        left = context.seconds_left
        limit = self._seconds if left is None else min(self._seconds, max(1.0, left))
        command = LaunchCommand(
            # The supervisor gives no stdin, so a shell opens it; "$@" is passed on as it is.
            argv=("/bin/sh", "-c", 'exec "$@" <"$0"', source, *argv),
            cwd=tree,
            env=inherited(os.environ),
            scratch=tree,
            readable=(),
            wall_seconds=limit,
        )
        spent = usage.read(context.folder, self.name)
        spent.calls += 1
        usage.write(context.folder, self.name, spent)
        code, output = _follow(command, limit, context)
        said = next(filter(None, map(usage.told, usage.stated(output.decode(errors="replace")))), None)
        if said is not None:
            spent.prompt_tokens += said.prompt_tokens
            spent.completion_tokens += said.completion_tokens
            spent.pays(said.dollars)
            usage.write(context.folder, self.name, spent)
        write_atomic(folder / f"{context.number:04d}.log", output)
        shown = printable(experiment.tail(output, 1))
        if code is None and (context.stop() or (tree / SCRIPT).read_bytes() == context.source.encode()):
            raise ProposerFailed(f"The agent was stopped after {limit:.0f} seconds.", "Raise --agent-minutes.")
        if code:
            raise ProposerFailed(
                f"The agent exited with status {code}: {shown}",
                "Run --agent-command by hand to see why.",
                retry_after=rest(output.decode(errors="replace")),
            )
        return output.decode(errors="replace"), code is None


def template(command: str) -> list[str]:
    """The command's arguments; TrainerError if it cannot be split, is not installed or names a wallet."""
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise TrainerError(f"--agent-command is not a valid command line: {error}.", "Check its quotes.") from None
    if not argv or sum(part.count(_PLACE) for part in argv) > 1 or _PLACE in argv[0]:
        raise TrainerError(
            f"--agent-command {command!r} is not a valid template.",
            "Use {prompt} once, for example 'claude -p {prompt}'.",
        )
    if any(_is_wallet(part) for part in argv):
        raise TrainerError("--agent-command names a wallet, which an agent must never have.", "Remove it.")
    if shutil.which(argv[0]) is None:
        raise TrainerError(f"--agent-command: {argv[0]!r} is not installed.", "Install it, or correct its name.")
    return argv


def _is_wallet(argument: str) -> bool:
    """Whether an argument names a wallet by its words, or a file that holds a key as solana-keygen writes it."""
    if any(word in argument.lower() for word in _WALLET_WORDS):
        return True
    try:
        path = Path(argument.rpartition("=")[2]).expanduser()
        content = json.loads(path.read_bytes()) if path.is_file() and path.stat().st_size <= 4096 else None
    except (OSError, ValueError, RuntimeError):
        return False
    return isinstance(content, list) and len(content) == 64


def visible(files: Mapping[str, bytes], surface: MutableSurface) -> dict[str, bytes]:
    """The files that the protocol names: what may change, and what is fixed and may be read."""
    named = MutableSurface((*surface.allowed, *surface.forbidden, *surface.harness), (), ())
    return {path: content for path, content in files.items() if bundle.is_mutable(path, named)}


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """The user's environment without this project's variables."""
    return {name: value for name, value in environment.items() if not name.upper().startswith(_OURS)}


def edited(tree: Path, given: Mapping[str, bytes]) -> str:
    """The new train.py, if everything else in the tree is unchanged; otherwise ProposerFailed."""
    try:
        found = bundle.read_tree(tree)
        source = found.get(SCRIPT, b"").decode()
    except (InvalidBundle, OSError) as error:
        raise ProposerFailed(f"The agent left an unusable tree: {error}") from None
    except UnicodeDecodeError:
        raise ProposerFailed(f"The agent left {SCRIPT} with invalid UTF-8.") from None
    paths = sorted(
        path for path in found.keys() | given.keys() if path != SCRIPT and found.get(path) != given.get(path)
    )
    touched = [path for path in paths if path in given]
    if touched:
        shown = printable(", ".join(touched[:5]))
        raise ProposerFailed(f"The agent changed more than {SCRIPT}: {shown}.", "Its edit was discarded.")
    modules = {path.split("/")[0].removesuffix(".py") for path in paths if path.endswith(".py")}
    for name in re.findall(r"^\s*(?:from|import)\s+(\w+)", source, re.MULTILINE):
        if name in modules:
            raise ProposerFailed(f"The agent's {SCRIPT} imports {name}, a new file; only {SCRIPT} may change.")
    if not source.strip() or found[SCRIPT] == given[SCRIPT]:
        raise ProposerFailed(f"The agent did not change {SCRIPT}.", "Its output is in the session's folder.")
    return source


def _compile(source: str) -> None:
    try:
        hyperparameters.fingerprint(source)
    except InvalidBundle as error:
        raise ProposerFailed(f"The agent's {SCRIPT} is not valid Python: {error.problem}") from None


def rest(output: str) -> float:
    """The seconds that an agent's last words ask for ("try again in 2 hours"); 900 for a limit without a time."""
    tail = output[-4000:].lower()
    asked = re.findall(r"(?:again in|retry[- ]after:?|resets? in|wait)\s+(\d{1,5})\s*(s|m|h)?", tail)
    if asked:
        number, unit = asked[-1]
        return float(number) * {"m": 60.0, "h": 3600.0}.get(unit, 1.0)
    limited = re.search(r"(usage|rate|quota|request)s? limit|limit reached|too many requests|\b429\b|overloaded", tail)
    return 900.0 if limited else 0.0


def _follow(command: LaunchCommand, limit: float, context: Context) -> tuple[int | None, bytes]:
    """Run until the end, the limit or the session's stop: the exit code (None: stopped) and the last output."""
    process = experiment.launch(command)
    output, end, code = bytearray(), time.monotonic() + limit, None
    os.set_blocking(process.output, False)

    def drain() -> bool:
        try:
            data = os.read(process.output, 65536)
        except BlockingIOError:
            return False
        output.extend(data)
        del output[:-MAX_LOG]
        return bool(data)

    late = False
    try:
        while not process.ended():
            late = time.monotonic() > end or context.stop()
            if late:
                break
            if not drain():
                time.sleep(0.02)
    finally:
        try:
            code = process.stop()
            while drain():
                continue
        finally:
            os.close(process.output)
    return None if late else code, bytes(output)


def _last_message(output: str) -> str:
    """What the agent said last: the `result` of its JSON where it prints that, else the text after the last empty line
    that is followed by any."""
    result = next((said["result"] for said in usage.stated(output) if isinstance(said.get("result"), str)), None)
    output = output if result is None else result
    paragraphs = [part for part in output.replace("\r", "\n").split("\n\n") if part.strip()]
    return output if "HYPOTHESIS:" in output.upper() else (paragraphs[-1] if paragraphs else "")


def _git(folder: Path, *arguments: str) -> None:
    try:
        git.run(folder, *arguments, environment=git.isolated(folder))
    except git.GitFailed as error:
        raise EnvironmentNotReady(error.problem, error.cure or "Check the disk.") from None
