"""`miner doctor` and `verifier doctor`: what this machine can do, line by line, and a report to send."""

from __future__ import annotations

import getpass
import json
import platform
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chain.commands.options import Command, answer, current_settings, reading
from common.checks import Check

if TYPE_CHECKING:
    from common.terminal import View

Examine = Callable[[Path, "View"], Iterator[Check]]
INCOMPLETE = 3  # exit status if something is missing
_STYLES = {"ok": "", "differs": "yellow", "missing": "red"}


def doctor(program: str, role: str, examine: Examine) -> click.Command:
    """The command of `program`; `examine` asks the machine, `role` names the wallet."""

    @click.command(
        "doctor",
        cls=Command,
        examples=(f"{program} doctor", f"{program} doctor --network devnet --json"),
        help=f"""Check what this machine can do, line by line.

        It asks for class, memory, power, heat, sleep, Python, uv, git, disk, every line of the sandbox, speed, data,
        network, wallet and versions, in about a minute. Nothing is sent. A report without secrets, paths of your home
        or addresses is written, to be attached to an issue.

        Exit status: 0 if nothing that {program} needs is missing, {INCOMPLETE} otherwise.
        """,
    )
    @reading
    @click.option(
        "--report",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="File to write. [default: doctor.json in the home folder]",
    )
    def command(home: Path, network: str, as_json: bool, report: Path | None) -> None:
        from chain.connection import health
        from common.files import write_atomic
        from common.terminal import View

        view = View(quiet=as_json)
        found = [*_told(examine(home, view), view), *_told(health.examine(current_settings(), home, role), view)]
        path = report or home / "doctor.json"
        document = {
            "program": program,
            "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "complete": all(check.state != "missing" for check in found),
            "checks": [{name: scrub(getattr(check, name)) for name in check.__slots__} for check in found],
        }
        write_atomic(path, json.dumps(document, indent=2).encode() + b"\n")
        lacking = sum(check.state == "missing" for check in found)
        words = f"{lacking} missing" if lacking else "nothing is missing"
        answer(as_json, {**document, "report": str(path)}, f"{words}; report: {path}")
        raise SystemExit(INCOMPLETE if lacking else 0)

    return command


def _told(checks: Iterator[Check], view: View) -> Iterator[Check]:
    for check in checks:
        view.say(check.line, style=_STYLES[check.state])
        yield check


def scrub(text: str) -> str:
    """A text without the user's home folder, name and host name, and without what looks like a key."""
    found = text.replace(str(Path.home()), "~")
    for name, shown in ((_user(), "USER"), (platform.node(), "HOST")):
        if len(name) > 2:
            found = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", shown, found)
    return re.sub(r"[1-9A-HJ-NP-Za-km-z]{32,}|[A-Za-z0-9_+/-]{40,}", "…", found)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
