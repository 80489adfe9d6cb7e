"""A new project's artifacts, from a repository and its protocol.json.

The snapshot is what `git archive` packs of a commit, so uncommitted changes are refused. The benchmark and the
baseline metrics are documents of the form that `trainer.project.task` reads; they are made here from plain values if
no files are given.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from chain.errors import ChainError, InvalidData
from chain.money import score
from common import baseline as artifact
from common.resources import shown

MAX_SNAPSHOT = 64 * 1024 * 1024  # bytes; what a reader of projects accepts
MAX_DOCUMENT = 1024 * 1024  # bytes of protocol, benchmark or metrics
_GIT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Measured:
    """What a protocol says of its measurement: the bundle's id, the metric and whether less of it is better."""

    bundle_id: str
    metric: str
    minimize: bool


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
    """The tree of a commit as a tar. Raises ChainError if the folder is not a clean git repository."""
    changed = _git(repository, "status", "--porcelain", "--", ".").decode(errors="replace").splitlines()
    if changed:
        raise ChainError(
            f"{repository} has uncommitted changes, for example {changed[0][3:60]!r}.",
            "Commit or discard them; a snapshot is made from a commit.",
        )
    if revision.startswith("-"):
        raise ChainError(f"{revision!r} is not a git revision.", "Give a commit, a branch or a tag.")
    data = _git(repository, "archive", "--format=tar", revision)
    if len(data) > MAX_SNAPSHOT:
        raise ChainError(
            f"The snapshot of {repository} has {len(data):,} bytes; the limit is {MAX_SNAPSHOT:,}.",
            "Remove large files from the commit.",
        )
    return data


def _git(repository: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *arguments], capture_output=True, timeout=_GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ChainError(f"git cannot pack {repository}: {error}.", "Install git, or give --snapshot.") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise ChainError(
            f"git failed in {repository}: {words[-1][:200].rstrip('.')}.", "Give a git repository with a commit."
        )
    return done.stdout


def measured(protocol: bytes) -> Measured:
    """The fields of protocol.json needed here. Raises InvalidData if they are missing."""
    try:
        document = json.loads(protocol)
        primary, bundle_id = document["measurement"]["primaryMetric"], document["meta"]["protocolBundleId"]
        name, direction = primary["name"], primary["direction"]
        if not all(isinstance(text, str) and text for text in (name, bundle_id)):
            raise ValueError("a name is no text")
        if direction not in ("minimize", "maximize"):
            raise ValueError(f"the direction is {direction!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidData(
            f"The protocol does not define the measurement: {error!r}.",
            "It needs meta.protocolBundleId and measurement.primaryMetric with name and direction.",
        ) from None
    return Measured(bundle_id, name, direction == "minimize")


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
