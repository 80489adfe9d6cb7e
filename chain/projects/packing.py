"""A new project's artifacts, from a repository and its protocol.json.

The snapshot is the tree of a commit, so uncommitted changes are refused. The benchmark and the
baseline metrics are documents of the form that `trainer.project.task` reads; they are made here from plain values if
no files are given.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from chain.errors import ChainError, InvalidData
from chain.money import score
from chain.projects.artifacts import ProjectArtifacts
from common import baseline as artifact
from common import git, pattern
from common.resources import shown

MAX_SNAPSHOT = 64 * 1024 * 1024  # bytes; what a reader of projects accepts
MAX_DOCUMENT = 1024 * 1024  # bytes of protocol, benchmark or metrics
READERS = "openresearch.project_readers"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a protocol says of its measurement: the bundle's id ("": none), the metric, whether less is better, and what
    finds it in a log."""

    bundle_id: str
    metric: str
    minimize: bool
    log_pattern: re.Pattern[str] | None


def read(path: Path, limit: int = MAX_DOCUMENT) -> bytes:
    """A file of 1 to `limit` bytes. Raises InvalidData."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise InvalidData(f"Cannot read {path}: {error.strerror}.", "Choose another file.") from None
    if not 0 < len(data) <= limit:
        raise InvalidData(f"{path} is empty or larger than {limit:,} bytes.", "Choose another file.")
    return data


def snapshot(repository: Path, revision: str = "HEAD") -> bytes:
    """The tree of a commit as a tar, byte for byte as the commit holds it: no line ending, attribute or variable of the
    shell changes it. Raises ChainError if the folder is not a clean git repository, or holds links or submodules.
    """
    if revision.startswith("-"):
        raise ChainError(f"{revision!r} is not a git revision.", "Give a commit, a branch or a tag.")
    environment = git.own()
    try:
        changed = git.run(repository, "status", "--porcelain", "--", ".", environment=environment)
        if changed:
            raise ChainError(
                f"{repository} has uncommitted changes, for example {changed.decode(errors='replace')[3:60]!r}.",
                "Commit or discard them; a snapshot is made from a commit.",
            )
        commit = git.run(repository, "rev-parse", "--verify", f"{revision}^{{commit}}", environment=environment)
        listed = git.run(repository, "ls-tree", "-r", "-z", "-l", commit.decode().strip(), environment=environment)
        entries = [_entry(line) for line in listed.decode(errors="surrogateescape").split("\0") if line]
        if sum(size for _, _, size in entries) > MAX_SNAPSHOT:
            raise _too_large(repository)
        contents = git.blobs(repository, [blob for _, blob, _ in entries], environment=environment)
    except git.GitFailed as error:
        raise ChainError(error.problem, error.cure or "Give a git repository with a commit.") from None
    data = _tar({path: content for (path, _, _), content in zip(entries, contents, strict=True)})
    if len(data) > MAX_SNAPSHOT:
        raise _too_large(repository)
    return data


def files(tar: bytes) -> list[tuple[str, int]]:
    """The names and sizes of what a snapshot makes public. Raises InvalidData."""
    try:
        with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
            return [(member.name, member.size) for member in archive if not member.isdir()]
    except tarfile.TarError as error:
        raise InvalidData(f"The snapshot is not a tar: {error}.", "Make it with `git archive`.") from None


def check(artifacts: ProjectArtifacts) -> list[str]:
    """What everybody who is going to read a project has to say of it before it is published, for ever.

    The readers are the entry points of the group READERS, each called with the artifacts: they raise what they would
    refuse the project for, and give notes on what they would do without.
    """
    return [note for reader in entry_points(group=READERS) for note in reader.load()(artifacts)]


def _entry(line: str) -> tuple[str, str, int]:
    """Path, blob and size of one file in a listed tree."""
    about, _, path = line.partition("\t")
    mode, kind, blob, size = about.split()
    if kind != "blob" or not mode.startswith("100"):
        what = "a symbolic link" if mode == "120000" else "a submodule"
        raise ChainError(f"The commit has {what}, {path!r}; a snapshot holds plain files only.", "Commit a copy.")
    return path, blob, int(size)


def _tar(tree: Mapping[str, bytes]) -> bytes:
    """Plain files of one fixed owner, mode and time: the same bytes for the same tree."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in sorted(tree.items()):
            member = tarfile.TarInfo(path)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def _too_large(repository: Path) -> ChainError:
    return ChainError(
        f"The snapshot of {repository} is larger than the limit of {MAX_SNAPSHOT:,} bytes.",
        "Remove large files from the commit.",
    )


def measured(protocol: bytes) -> Measured:
    """The fields of protocol.json needed here. Raises InvalidData if they are missing."""
    try:
        document = json.loads(protocol)
        primary, bundle_id = document["measurement"]["primaryMetric"], document["meta"].get("protocolBundleId", "")
        name, direction = primary["name"], primary["direction"]
        if not isinstance(bundle_id, str) or not isinstance(name, str) or not name:
            raise ValueError("a name is not text")
        if direction not in ("minimize", "maximize"):
            raise ValueError(f"the direction is {direction!r}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidData(
            f"The protocol does not define the measurement: {error!r}.",
            "It needs meta, and measurement.primaryMetric with name and direction.",
        ) from None
    return Measured(bundle_id, name, direction == "minimize", log_pattern(primary))


def log_pattern(primary: Any) -> re.Pattern[str] | None:
    """What finds a protocol's primary metric in a log; None where the protocol has no usable pattern."""
    try:
        return pattern.compile_safely(primary["extract"]["pattern"])
    except (KeyError, TypeError, ValueError):
        return None


def benchmark(what: Measured, data_snapshot: str, data_arguments: Sequence[str]) -> bytes:
    """The benchmark artifact: `data_snapshot` is the 64 hex digits that the harness gives its data."""
    if not re.fullmatch(r"[0-9a-f]{64}", data_snapshot):
        raise InvalidData(
            f"{data_snapshot[:80]!r} is not a data snapshot ID: 64 hex digits.",
            f"`{shown('python -m trainer.running.dataset FOLDER')}` prints the ID of prepared data.",
        )
    return _document(
        {
            "schemaKind": "benchmark",
            "schemaVersion": "1",
            "protocolBundleId": what.bundle_id,
            "dataArguments": list(data_arguments),
            "dataSnapshotId": data_snapshot,
        }
    )


def metrics(what: Measured, baseline: Decimal, data_snapshot: str) -> bytes:
    """The baseline metrics artifact with one sample, of six decimals at most. Raises InvalidData."""
    score.scale(baseline)
    value = float(baseline)
    if Decimal(repr(value)) != baseline or score.scale(baseline) != baseline * score.SCALE:
        raise InvalidData(f"{baseline} has more than six decimals.", "Round it to six decimals.")
    return artifact.dump(what.metric, [value], hardware={}, data_snapshot=data_snapshot)


def _document(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode() + b"\n"
