"""What other clients' validators are known to reject unrun, so that nobody stakes on it unawares.

The facts are those of the official client's validator, as published in May 2026. It unpacks a proposal's archive and
rejects it, which slashes the stake, where one of its files

- lies where code could run on its host or in a repository's own automation (`HARD_DENIED`);
- is one that the protocol forbids, the harness included, changed or not;
- is on none of the lists that allow it: the protocol's own, its harness, or `PERMITTED`;
- is text that one of `RED_FLAGS` matches, `mx.eval(` among them.

It looks for the protocol in the archive. A glob of its lists matches a whole path, in which `*` takes any character,
or a file's name. So the archive of a whole repository, its own miner's included, is rejected on the live project. The
smallest that a verifier needs, the files that may change and the protocol where it looks for it, passes unless a red
flag matches: `pack`. What that leaves out, the verifier has from the project's snapshot; the official one cannot then
run it, and releases.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Final

from miner.context.context import SessionContext
from trainer.project import bundle
from trainer.project.protocol import Protocol

PROTOCOL_PLACE: Final = f"{bundle.RECORDS}/publish/protocol.json"
HARD_DENIED: Final = (
    *(".git/**", ".github/workflows/**", ".gitlab-ci.yml", ".gitlab/**", ".husky/**", ".envrc", ".envrc.*"),
    *(".direnv/**", ".vscode/tasks.json", ".vscode/launch.json", ".idea/runConfigurations/**"),
)
PERMITTED: Final = (
    *("README*", "LICENSE*", "LICENSE.*", ".gitignore", "CONTRIBUTING*", ".autoresearch/**"),
    *(".github/ISSUE_TEMPLATE/**", ".github/PULL_REQUEST_TEMPLATE*", ".github/dependabot.yml"),
)
RED_FLAGS: Final = tuple(
    re.compile(text)
    for text in (
        r"BASELINE_METRIC=\s*[^\n]*fake",
        r"(?:curl|wget)\s+http",
        r"requests\.get\(",
        r"subprocess\.call\(\s*\[\s*[\"']curl",
        r"eval\s*\(",
        r"exec\s*\(",
        r"__import__\s*\(\s*['\"]os['\"]",
    )
)
_TEXT: Final = (
    *(".py", ".sh", ".md", ".txt", ".c", ".h", ".cpp", ".cc", ".rs", ".toml", ".yaml", ".yml", ".json"),
    "Dockerfile",
)


def pack(candidate: Mapping[str, bytes], protocol: Protocol, protocol_bytes: bytes) -> bytes:
    """A proposal's archive in the form that passes wherever one does: the tree's mutable files, and the protocol."""
    mutable = {path: data for path, data in candidate.items() if bundle.is_mutable(path, protocol.surface)}
    return bundle.pack({**mutable, PROTOCOL_PLACE: protocol_bytes})


def refusals(archive: bytes, protocol: Protocol) -> list[str]:
    """Why the official validator would reject an archive of ours, in its own order of files; empty if it would not."""
    surface = protocol.surface
    found = []
    for path, data in sorted(bundle.read_archive(archive).files.items()):
        if _any(path, HARD_DENIED) or _any(path, surface.forbidden):
            found.append(f"{path} is on its list of forbidden files")
        elif not _any(path, (*surface.allowed, *surface.harness, *PERMITTED)):
            found.append(f"{path} is on no list of allowed files")
        elif path.lower().endswith(_TEXT):
            text = data.decode(errors="replace")
            matches = (match for flag in RED_FLAGS if (match := flag.search(text)))
            found += [f"{path} contains {match[0][:40]!r}, a red flag" for match in matches]
    return found


def warn(archive: bytes, context: SessionContext) -> bool:
    """Whether the official validator would reject an archive unrun; if so the user is told why. Never in practice:
    none of its verifiers is that one."""
    found = [] if context.practice else refusals(archive, context.task.protocol)
    if found:
        context.dashboard.say(f"  the official validator would reject this unrun, because {'; '.join(found)}", "yellow")
    return bool(found)


def _any(path: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(path, glob) or fnmatchcase(path.rpartition("/")[2], glob) for glob in globs)
