"""The task: what a project's artifacts say, once parsed. Bytes in, values out; no file and no network.

The benchmark artifact is JSON of our own making, and readers accept no other: it pins how the data is made and
which snapshot it must be. The metrics hold a baseline: ours as `metric_value`, or another client's samples.json.
"""

from __future__ import annotations

import json
import statistics
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from trainer.errors import InvalidBundle
from trainer.project import bundle, protocol, samples
from trainer.project.protocol import Protocol

_MAX_BENCHMARK = 64 * 1024
_MAX_METRICS = 1024 * 1024


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
        """InvalidBundle where the bytes are not such an artifact."""
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
                f"The benchmark artifact does not fit: {repr(error)[:200]}.", "Ask the project's owner."
            ) from error
        return cls(bundle_id, tuple(arguments), snapshot)


@dataclass(frozen=True, slots=True)
class Task:
    """A project's parsed artifacts.

    `files` is the pinned snapshot; `incumbent` the tree to beat: the snapshot with the best approved code
    in it, or the snapshot itself while nothing was approved. `baseline` is the metric in its own unit.
    """

    protocol_bytes: bytes
    protocol: Protocol
    files: Mapping[str, bytes]
    incumbent: Mapping[str, bytes]
    benchmark: Benchmark
    baseline: Decimal

    @property
    def minimize(self) -> bool:
        """Whether lower is better."""
        return self.protocol.primary.direction == "minimize"


class Artifacts(typing.Protocol):
    """A project's artifacts as bytes, whoever fetched them; `best_code` is None while nothing was approved."""

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
    """Parse a project's artifacts; InvalidProtocol or InvalidBundle where one does not fit."""
    spec = protocol.parse(protocol_bytes)
    files = bundle.read_archive(snapshot).files
    incumbent = files
    if best_code is not None:
        incumbent = bundle.overlay(files, bundle.unprefixed(bundle.read_archive(best_code).files, files), spec.surface)
    return Task(protocol_bytes, spec, files, incumbent, Benchmark.parse(benchmark), baseline_metric(baseline_metrics))


def baseline_metric(data: bytes) -> Decimal:
    """The baseline in a metrics artifact, an exact decimal: its `metric_value`, or the aggregate of another
    client's samples.json. InvalidBundle otherwise."""
    try:
        if len(data) > _MAX_METRICS:
            raise ValueError(f"{len(data)} bytes")
        document = json.loads(data, parse_float=Decimal, parse_int=Decimal)
        if isinstance(document, dict) and "metric_value" not in document and "aggregate" in document:
            return samples.parse(data).aggregate
        value = document["metric_value"]
        if not isinstance(value, Decimal) or not value.is_finite():
            raise ValueError("metric_value is not a finite number")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidBundle(
            f"The baseline metrics artifact does not fit: {repr(error)[:200]}.", "Ask the project's owner."
        ) from error
    return value


def baseline_document(
    metric: str,
    values: Sequence[float],
    seconds: Sequence[float],
    *,
    hardware: Mapping[str, Any],
    data_snapshot: str,
) -> bytes:
    """The baseline metrics artifact: the mean of `values`, the samples, the machine and the data."""
    document = {
        "schemaKind": "metrics",
        "schemaVersion": "1",
        "metric_name": metric,
        "metric_value": round(statistics.fmean(values), 6),
        "samples": list(values),
        "durations": [round(duration, 3) for duration in seconds],
        "hardware": dict(hardware),
        "dataSnapshotId": data_snapshot,
    }
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"
