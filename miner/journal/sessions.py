"""Finding the sessions of a home: one folder each under `work`, named by network, project and wallet."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import TrainerError

JOURNAL = "session.jsonl"
_NAME = re.compile(r"(?P<network>.+)-(?P<project>\d{1,20})-(?P<wallet>[1-9A-HJ-NP-Za-km-z]{8})(?:-until-(?P<tag>.+))?")

_CHOOSE, _START = "Choose one of these.", "Start one with `miner run`, or check --home."


@dataclass(frozen=True, slots=True)
class SessionFolder:
    """A session's folder; `network` as in its name, `until` is set where a newer session took its place."""

    folder: Path
    network: str
    project: int
    wallet: str
    until: str

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def journal(self) -> Path:
        return self.folder / JOURNAL


class NoSession(TrainerError):
    """No session, or several, where a command needs exactly one."""


def folder_name(network: str, project: int, wallet: str) -> str:
    """The name of a session's folder: no character of it needs quoting."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", f"{network}-{project}-{wallet[:8]}")


def find(home: Path, *, network: str | None = None, project: int | None = None) -> list[SessionFolder]:
    """The sessions of a home by name, those on one network and of one project where given."""
    found = []
    for path in sorted((home / "work").glob(f"*/{JOURNAL}")):
        match = _NAME.fullmatch(path.parent.name)
        if match is None:
            continue
        entry = SessionFolder(path.parent, match["network"], int(match["project"]), match["wallet"], match["tag"] or "")
        if project is not None and entry.project != project:
            continue
        if network is not None and entry.network != re.sub(r"[^A-Za-z0-9.-]+", "_", network):
            continue
        found.append(entry)
    return found


def choose(
    home: Path, *, network: str | None = None, project: int | None = None, session: str | None = None
) -> SessionFolder:
    """The session asked for, or the only one not replaced by a newer one; NoSession otherwise."""
    found = find(home, network=network, project=project)
    if session is not None:
        named = [entry for entry in found if entry.name == session]
        if named:
            return named[0]
        raise NoSession(f"There is no session {session!r}{_instead(found)}.", _CHOOSE if found else _START)
    if not found:
        raise none(home, network, project)
    current = [entry for entry in found if not entry.until] or found
    if len(current) > 1:
        raise NoSession(f"There are {len(current)} sessions: {_listed(current)}.", "Choose one with --session.")
    return current[0]


def none(home: Path, network: str | None, project: int | None) -> NoSession:
    """Why there is no session to choose from, and which others there are."""
    others, of = find(home), "" if project is None else f" of project {project}"
    on = "" if network is None else f" on the network {network}"
    return NoSession(
        f"There is no session{of}{on} in {home / 'work'}{_instead(others)}.",
        "Choose one with --session." if others else _START,
    )


def _listed(found: list[SessionFolder]) -> str:
    return ", ".join(entry.name for entry in found[:20])


def _instead(found: list[SessionFolder]) -> str:
    return f"; there {'is' if len(found) == 1 else 'are'} {_listed(found)}" if found else ""
