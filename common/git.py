"""One git command in a folder, with a time limit, and bytes as a commit holds them.

What a shell has in GIT_* variables never reaches git: GIT_DIR would make it work on another repository than the folder
that was named.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from common import processes
from common.errors import Refused

SECONDS: Final = 60.0
INSTALL: Final = "Run `sudo apt-get install git`, or `xcode-select --install` on a Mac."


class GitFailed(Refused):
    """git is missing, too slow, or refused; the problem is its last line."""


def own() -> dict[str, str]:
    """The environment of this process without GIT_*: the user's own configuration counts."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}


def isolated(home: Path) -> dict[str, str]:
    """An environment in which nobody's configuration, hooks or signing reach git, which commits as the miner."""
    who = {"NAME": "miner", "EMAIL": "miner@localhost"}
    return {
        **{f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()},
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }


def run(folder: Path, *arguments: str, environment: Mapping[str, str], given: bytes = b"") -> bytes:
    """What git prints. Raises GitFailed."""
    try:
        done = processes.run(
            ["git", "-C", str(folder), *arguments],
            seconds=SECONDS,
            given=given,
            environment={**environment, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise GitFailed("git is not installed.", INSTALL) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GitFailed(f"git {arguments[0]} failed in {folder}: {error}.", "Run the command again.") from None
    if done.returncode:
        raise _failed(folder, arguments[0], done.stderr.decode(errors="replace"))
    return done.stdout


def blobs(folder: Path, names: Sequence[str], *, environment: Mapping[str, str]) -> list[bytes]:
    """The contents of objects by name, byte for byte: no line ending, attribute or filter changes them."""
    out = run(folder, "cat-file", "--batch", environment=environment, given="".join(f"{n}\n" for n in names).encode())
    found, at = [], 0
    for name in names:
        line = out.index(b"\n", at)
        words = out[at:line].split()
        if len(words) != 3:
            raise GitFailed(f"{folder} has no {name}.")
        at = line + 1 + int(words[2])
        found.append(out[line + 1 : at])
        at += 1
    return found


def _failed(folder: Path, command: str, said: str) -> GitFailed:
    if "dubious ownership" in said:
        whose = str(folder.stat().st_uid)
        with suppress(KeyError):
            whose = pwd.getpwuid(folder.stat().st_uid).pw_name
        return GitFailed(
            f"{folder} belongs to {whose}, and git does not work in another user's folder.",
            f"Run the command as {whose}, or make the folder yours: sudo chown -R $USER {folder}.",
        )
    words = said.strip().splitlines() or ["no message"]
    return GitFailed(f"git {command} failed in {folder}: {words[-1].removeprefix('fatal: ')[:200].rstrip('.')}.")
