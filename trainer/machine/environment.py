"""A bundle's own locked Python environment, prepared once with uv and used without it.

- `prepare` installs what uv.lock says (`uv sync --frozen`) into `<home>/envs/<key>`, where the key is the
  first 16 digits of the SHA-256 over uv.lock, pyproject.toml and the extra. Only wheels are installed, so
  nothing of the bundle runs while it is prepared; the bundle itself is not installed.
- The marker `complete.json` is written last. A folder without it is built again from the start; one process
  builds at a time, others wait for its lock.
- `resolve` turns the protocol's `uv run X.py` into `<env>/bin/python X.py`: the same environment, without uv
  and so without network, index or cache at run time.
- Where the bundle has an extra for the machine's NVIDIA driver (`cuda13`, `cuda12`), `choose_extra` picks it.

Every failure is EnvironmentNotReady with the last lines of uv's output.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

from packaging.specifiers import SpecifierSet

from common.files import lock, write_atomic
from trainer.errors import EnvironmentNotReady, InvalidProtocol

MARKER: Final = "complete.json"
MINUTES: Final = 30
_PYTHONS: Final = ("3.12.99", "3.13.99", "3.11.99", "3.14.99", "3.10.99")
_CURE: Final = "Check the network connection and the bundle's uv.lock, then run the command again."
_FOREIGN: Final = (
    *("VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH"),
    *("UV_PROJECT", "UV_FROZEN", "UV_LOCKED", "UV_WORKING_DIR"),
)
INSTALL_UV: Final = "Install it with `curl -LsSf https://astral.sh/uv/install.sh | sh`."

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Environment:
    """A ready environment; `packages_digest` is the SHA-256 of its packages' `name==version` lines."""

    python: Path
    prefix: Path
    key: str
    packages_digest: str

    @property
    def packages(self) -> tuple[Path, ...]:
        """The folders that its packages are in."""
        if self.key == "running":
            return tuple(Path(path) for path in sys.path if path)
        return tuple(self.prefix.glob("lib/python*/site-packages"))

    @classmethod
    def running(cls) -> Environment:
        """The environment of this very process, for bundles that bring no lock of their own."""
        prefix = Path(sys.prefix)
        return cls(Path(sys.executable), prefix, "running", packages_digest([Path(p) for p in sys.path if p]))


def key(pyproject: bytes, lock: bytes, extra: str | None) -> str:
    """The environment's folder name."""
    return sha256(b"".join(sha256(part).digest() for part in (lock, pyproject, (extra or "").encode()))).hexdigest()[
        :16
    ]


def choose_extra(pyproject: bytes, cuda_major: int | None) -> str | None:
    """The bundle's extra for a driver of this CUDA major version: `cuda<n>`, the newest that is not newer."""
    if cuda_major is None:
        return None
    try:
        extras = tomllib.loads(pyproject.decode())["project"]["optional-dependencies"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    fitting = [major for major in (13, 12) if major <= cuda_major and f"cuda{major}" in extras]
    return f"cuda{fitting[0]}" if fitting else None


def choose_python(pyproject: bytes, mine: str) -> list[str]:
    """uv's option for a Python that a bundle allows and that wheels are made for: this process's own version `mine`, if
    it does, else the first of a few. None where the bundle says nothing that can be read.
    """
    try:
        allowed = SpecifierSet(tomllib.loads(pyproject.decode())["project"]["requires-python"])
        known = [mine, *_PYTHONS]
        return next((["--python", version.rpartition(".")[0]] for version in known if version in allowed), [])
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def resolve(argv: Sequence[str], environment: Environment) -> list[str]:
    """The protocol's command, run by the environment's interpreter; InvalidProtocol for another form."""
    rest = list(argv)
    if rest[:2] == ["uv", "run"]:
        rest = rest[2:]
        while rest and rest[0] in ("--frozen", "--locked", "--no-sync", "--offline", "--"):
            rest = rest[1:]
        if rest and rest[0].endswith(".py"):
            return [str(environment.python), *rest]
    if len(rest) > 1 and rest[0] in ("python", "python3"):
        return [str(environment.python), *rest[1:]]
    raise InvalidProtocol(
        f"The protocol's execution.command must be `uv run SCRIPT.py` or `python SCRIPT.py`, found `{' '.join(argv)}`.",
        "Ask the project's owner for a command of this form.",
    )


def prepare(
    files: Mapping[str, bytes],
    home: Path,
    *,
    cuda_major: int | None = None,
    progress: Progress = lambda line: None,
) -> Environment:
    """The environment for the bundle `files` (pyproject.toml and uv.lock at its root), built if need be.

    `cuda_major` is the NVIDIA driver's CUDA version (`hardware.cuda_major()`), None for none. `progress` gets
    one line at a time. Needs the package index only if something is not in uv's cache.
    """
    for name in ("pyproject.toml", "uv.lock"):
        if name not in files:
            raise EnvironmentNotReady(f"The bundle has no {name}.", "Add it with `uv lock` in the project's folder.")
    extra = choose_extra(files["pyproject.toml"], cuda_major)
    folder = home / "envs" / key(files["pyproject.toml"], files["uv.lock"], extra)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock"), progress):
        return find(folder) or _build(folder, files, extra, progress)


def find(folder: Path) -> Environment | None:
    """The complete environment in `folder`; None if there is none or it was altered since."""
    try:
        marker = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return None
    python, prefix = folder / "venv" / "bin" / "python", folder / "venv"
    now = packages_digest(prefix.glob("lib/python*/site-packages"))
    if marker != _marker(now) or not os.access(python, os.X_OK):
        return None
    return Environment(python, prefix, folder.name, now)


def _marker(digest: str) -> dict[str, str]:
    """What a complete environment says of itself: one whose files lie elsewhere says otherwise, and is built again."""
    return {"packages": digest, "link_mode": _link_mode(), "bytecode": "compiled"}


def _link_mode() -> str:
    """How uv puts files in place, whatever its settings say: by links, the files would lie outside the sandbox."""
    return "clone" if platform.system() == "Darwin" else "hardlink"


def packages_digest(paths: Iterator[Path] | Sequence[Path]) -> str:
    """SHA-256 (hex) over the sorted `name==version` lines of the packages installed in these folders."""
    names = {
        f"{package.metadata['Name'].lower().replace('_', '-')}=={package.version}\n"
        for package in distributions(path=[str(path) for path in paths])
    }
    return sha256("".join(sorted(names)).encode()).hexdigest()


def find_uv() -> Path:
    """uv itself: the environment variable UV, the uv package of this environment, or PATH, in this order."""
    candidates = [os.environ.get("UV")]
    with contextlib.suppress(ImportError, FileNotFoundError):
        from uv import find_uv_bin

        candidates.append(find_uv_bin())
    candidates.append(shutil.which("uv"))
    for candidate in candidates:
        if candidate and os.path.isabs(candidate) and os.access(candidate, os.X_OK):
            return Path(candidate)
    raise EnvironmentNotReady("uv is not installed.", INSTALL_UV)


def _build(folder: Path, files: Mapping[str, bytes], extra: str | None, progress: Progress) -> Environment:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("pyproject.toml", "uv.lock"):
        (folder / name).write_bytes(files[name])
    command = [
        str(find_uv()),
        "sync",
        "--frozen",
        "--no-dev",
        "--no-build",
        "--no-install-project",
        "--compile-bytecode",  # once, here: in a sandbox nothing can be kept, and each process would compile again
        "--color=never",
        f"--link-mode={_link_mode()}",
    ]
    if platform.system() == "Darwin":
        # Homebrew's, pyenv's and mise's link libraries outside their own folder; uv alone would take the newest
        command += ["--managed-python", *choose_python(files["pyproject.toml"], platform.python_version())]
    command += ["--no-progress", "--project", str(folder), *(["--extra", extra] if extra else [])]
    progress(f"Installing the bundle's locked packages into {folder}")
    _run(command, folder, progress)
    digest = packages_digest((folder / "venv").glob("lib/python*/site-packages"))
    write_atomic(folder / MARKER, json.dumps(_marker(digest)).encode())
    ready = find(folder)
    if ready is None:
        raise EnvironmentNotReady(f"uv left no usable interpreter in {folder}.", _cure())
    return ready


def _run(command: Sequence[str], folder: Path, progress: Progress) -> None:
    """uv with its own settings from the environment, but no other project's; its words go to `progress`."""
    environment = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    environment["UV_PROJECT_ENVIRONMENT"] = str(folder / "venv")
    said: deque[str] = deque(maxlen=6)
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    limit = threading.Timer(MINUTES * 60, kill)
    limit.start()
    try:
        assert process.stdout is not None
        while line := process.stdout.readline(4096):
            if line.strip():
                said.append(line.strip())
                progress(line.rstrip())
        code = process.wait()
    finally:
        limit.cancel()
        if process.poll() is None:
            kill()
            process.wait()
    if code:
        why = " / ".join(said) or "no output"
        raise EnvironmentNotReady(f"uv could not install the bundle's packages (status {code}): {why}.", _cure())


def _cure() -> str:
    """What to do where uv failed: its settings in the environment come first, for what they forbid no network helps."""
    ours = {"UV_PROJECT_ENVIRONMENT", "UV_RUN_RECURSION_DEPTH"}  # of this run, and of a `uv run` that we stand in
    names = sorted(name for name in os.environ if name.startswith("UV_") and name not in {*_FOREIGN, *ours})
    if not names:
        return _CURE
    those = "that setting" if len(names) == 1 else "what is wrong among these settings"
    return f"uv goes by {', '.join(names)} of your environment: correct or unset {those}. {_CURE}"


@contextlib.contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock file; wait for another process to finish, MINUTES at most."""
    with path.open("ab") as file:
        waiting = "Waiting for another process that is preparing the same environment"
        if not lock(file, wait=MINUTES * 60, busy=lambda: progress(waiting)):
            raise EnvironmentNotReady(
                f"Another process has held {path} for {MINUTES} minutes.", "Stop it, then try again."
            )
        yield
