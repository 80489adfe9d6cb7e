"""The task: what a project's artifacts say, once parsed. Bytes in, values out; no file and no network.

The benchmark artifact is JSON in our own format, and readers accept no other: it pins how the data is made and
which snapshot it must be. The metrics are read by `common.baseline`.
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


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What the benchmark artifact pins: how the data is made and which snapshot it must be."""

    bundle_id: str
    data_arguments: tuple[str, ...]
    data_snapshot: str

    def dump(self) -> bytes:
        """The artifact's bytes, the same for equal values."""
        document = {
            "schemaKind": "benchmark",
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
            if document["schemaKind"] != "benchmark" or document["schemaVersion"] != "1":
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
    hardware of `baseline_class` ("" where nobody says).
    """

    protocol_bytes: bytes
    protocol: Protocol
    files: Mapping[str, bytes]
    incumbent: Mapping[str, bytes]
    benchmark: Benchmark
    baseline: Decimal
    baseline_class: str = ""

    @property
    def minimize(self) -> bool:
        """Whether lower is better."""
        return self.protocol.primary.direction == "minimize"


class Artifacts(typing.Protocol):
    """A project's artifacts as bytes, whoever fetched them; `best_code` is None until something is approved."""

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


def read(artifacts: Artifacts) -> Task:
    """The task that a project's artifacts describe; raises as `assemble` does."""
    return assemble(
        protocol_bytes=artifacts.protocol,
        snapshot=artifacts.snapshot,
        benchmark=artifacts.benchmark,
        baseline_metrics=artifacts.baseline_metrics,
        best_code=artifacts.best_code,
    )


def assemble(
    *,
    protocol_bytes: bytes,
    snapshot: bytes,
    benchmark: bytes,
    baseline_metrics: bytes,
    best_code: bytes | None,
) -> Task:
    """Parse a project's artifacts; InvalidProtocol or InvalidBundle if one does not fit."""
    spec = protocol.parse(protocol_bytes)
    files = bundle.read_archive(snapshot).files
    incumbent = files
    if best_code is not None:
        incumbent = bundle.overlay(files, bundle.unprefixed(bundle.read_archive(best_code).files, files), spec.surface)
    try:
        measured = baseline.read(baseline_metrics, spec.primary.name)
    except baseline.InvalidBaseline as error:
        raise InvalidBundle(error.problem, error.cure) from error
    parsed = Benchmark.parse(benchmark)
    return Task(protocol_bytes, spec, files, incumbent, parsed, measured.metric, printable(measured.hardware_class, 64))
