"""The task: what a project's artifacts say, once parsed. Bytes in, values out; no file and no network.

The benchmark artifact is one of three things. JSON in our own format pins how the data is made and which snapshot it
must be. A tar, as the official client publishes it, holds the harness: it is compared with the repository snapshot,
which is what is run. Anything else is pinned by its hash and needed for nothing. The last two pin no data, so every
machine compares on its own. The metrics are read by `common.baseline`.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from common import baseline
from common.text import printable
from trainer.errors import InvalidBundle
from trainer.project import bundle, protocol
from trainer.project.protocol import Protocol

_MAX_BENCHMARK = 64 * 1024
_KIND = "benchmark"
SCRIPT = "train.py"
_NEEDED = (SCRIPT, "prepare.py", "pyproject.toml", "uv.lock")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What the benchmark artifact pins: how the data is made and which snapshot it must be (None: any)."""

    bundle_id: str
    data_arguments: tuple[str, ...]
    data_snapshot: str | None

    def dump(self) -> bytes:
        """The artifact's bytes, the same for equal values."""
        document = {
            "schemaKind": _KIND,
            "schemaVersion": "1",
            "protocolBundleId": self.bundle_id,
            "dataArguments": list(self.data_arguments),
            "dataSnapshotId": self.data_snapshot,
        }
        return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> Benchmark:
        """InvalidBundle if the bytes are not such an artifact."""
        try:
            if len(data) > _MAX_BENCHMARK:
                raise ValueError(f"{len(data)} bytes")
            document = json.loads(data)
            if document["schemaKind"] != _KIND or document["schemaVersion"] != "1":
                raise ValueError("another kind or version")
            arguments, bundle_id = document["dataArguments"], document["protocolBundleId"]
            snapshot = document["dataSnapshotId"]
            texts = [bundle_id, snapshot, *arguments]
            if not isinstance(arguments, list) or not all(isinstance(text, str) for text in texts):
                raise ValueError("fields of another type")
            if len(snapshot) != 64 or set(snapshot) - set("0123456789abcdef"):
                raise ValueError("a data snapshot id is 64 hex digits")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidBundle(
                f"The benchmark artifact is invalid: {repr(error)[:200]}.", "Ask the project's owner."
            ) from error
        return cls(bundle_id, tuple(arguments), snapshot)


@dataclass(frozen=True, slots=True)
class Task:
    """A project's parsed artifacts.

    `files` is the pinned snapshot; `incumbent` the tree to beat: the snapshot with the best approved code
    in it, or the snapshot itself while nothing was approved. `baseline` is the metric in its own unit, measured on
    hardware of `baseline_class` ("" where nobody says). `notes` are sentences on what other clients leave out or write
    in another way, and what stands for it here.
    """

    protocol_bytes: bytes
    protocol: Protocol
    files: Mapping[str, bytes]
    incumbent: Mapping[str, bytes]
    benchmark: Benchmark
    baseline: Decimal
    baseline_class: str = ""
    notes: tuple[str, ...] = ()

    def tree(self, archive: bytes) -> dict[str, bytes]:
        """The snapshot with what a proposal's archive may change in it; InvalidBundle if it cannot be read."""
        return overlaid(self.files, archive, self.protocol)

    @property
    def minimize(self) -> bool:
        """Whether lower is better."""
        return self.protocol.primary.direction == "minimize"


class Artifacts(typing.Protocol):
    """A project's artifacts as bytes, whoever fetched them; `best_code` is None until something is approved.

    `baseline_score` is the baseline as on chain.
    """

    @property
    def protocol(self) -> bytes: ...

    @property
    def snapshot(self) -> bytes: ...

    @property
    def benchmark(self) -> bytes: ...

    @property
    def baseline_metrics(self) -> bytes: ...

    @property
    def best_code(self) -> bytes | None: ...

    @property
    def baseline_score(self) -> int: ...


def read(artifacts: Artifacts) -> Task:
    """The task that a project's artifacts describe; InvalidProtocol or InvalidBundle if one does not fit."""
    spec = protocol.parse(artifacts.protocol)
    files = bundle.read_archive(artifacts.snapshot).files
    incumbent = files if artifacts.best_code is None else overlaid(files, artifacts.best_code, spec)
    primary = spec.primary
    try:
        measured = baseline.of_project(
            artifacts.baseline_metrics,
            primary.name,
            primary.pattern,
            score=artifacts.baseline_score,
            minimize=primary.direction == "minimize",
        )
    except baseline.InvalidBaseline as error:
        raise InvalidBundle(error.problem, error.cure) from error
    pinned, notes = read_benchmark(artifacts.benchmark, files)
    notes = [*spec.notes, *notes]
    if measured.source:
        notes.append(f"The baseline, {measured.metric}, is from {measured.source}.")
    return Task(
        artifacts.protocol,
        spec,
        files,
        incumbent,
        pinned,
        measured.metric,
        printable(measured.hardware_class, 64),
        tuple(notes),
    )


def overlaid(files: Mapping[str, bytes], archive: bytes, spec: Protocol) -> dict[str, bytes]:
    """See `Task.tree`."""
    return bundle.overlay(files, bundle.unprefixed(bundle.read_archive(archive).files, files), spec.surface)


def publishable(artifacts: Artifacts) -> tuple[str, ...]:
    """The notes on a project about to be published. Raises as `read` does, and for what no run could do without."""
    found = read(artifacts)
    for name in _NEEDED:
        if name not in found.files:
            raise InvalidBundle(f"The snapshot has no {name}.", "Commit it, or add it to the tar.")
    if not bundle.is_mutable(SCRIPT, found.protocol.surface):
        raise InvalidBundle(f"The protocol does not let a miner change {SCRIPT}.", "Correct mutableSurface.")
    return found.notes


def read_benchmark(data: bytes, files: Mapping[str, bytes]) -> tuple[Benchmark, list[str]]:
    """What a benchmark artifact pins, and notes on one that is not ours; `files` is the repository snapshot.

    InvalidBundle only for one that says to be in our format and breaks it.
    """
    if _is_ours(data):
        return Benchmark.parse(data), []
    unpinned = "It pins no data: gains are measured on this machine's own."
    found, faults = bundle.survey(data)
    archived = bundle.unprefixed(found.files, files)
    if faults or not archived:
        what = f"{len(data):,} bytes in no known format" if data else "not published"
        return Benchmark("", (), None), [f"The benchmark artifact is {what}. {unpinned}"]
    other = sorted(path for path, content in archived.items() if files.get(path, content) != content)
    compared = f"differs from the snapshot in {', '.join(other)}" if other else "agrees with the snapshot"
    return Benchmark("", (), None), [
        f"The benchmark artifact is a tar that {printable(compared, 200)}; the snapshot's files are run. {unpinned}"
    ]


def _is_ours(data: bytes) -> bool:
    """Whether an artifact says to be a benchmark in our format."""
    try:
        return data[:1] == b"{" and len(data) <= _MAX_BENCHMARK and json.loads(data)["schemaKind"] == _KIND
    except (ValueError, KeyError, RecursionError):
        return False
