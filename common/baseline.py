"""The baseline metrics artifact: what a project's own code measured. The one reader and the one writer of it.

Read is, first of these that there is: `metric_value` (as written here); `aggregate` of a samples.json, the file in
which other clients keep repeated measurements; `metrics.NAME`; `primaryMetric.value`; `NAME`; `value`. NAME is the
protocol's primary metric.

Rules: at most 1 MiB, no repeated key, finite numbers, and the exact decimal that was written. Of a samples.json no
other key than its own, and every derived number is the one that the samples give, to nine digits.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from common import strict
from common.errors import Refused

MAX_BYTES: Final = 1024 * 1024
MAX_SAMPLES: Final = 10_000
_AGGREGATORS: Final[Mapping[str, Callable[[Sequence[float]], float]]] = {
    "median": statistics.median,
    "mean": statistics.fmean,
    "min": min,
    "max": max,
}
_DERIVED: Final = ("count", "aggregate", "mean", "stddev", "cv", "tooNoisy")
_REQUIRED: Final = frozenset({"samples", "aggregator", *_DERIVED})
_COUNTS: Final = ("warmupTrials", "measuredTrials", "representativeTrial")
_OPTIONAL: Final = frozenset({"maxRelativeStdDev", "representativeLog", *_COUNTS})


class InvalidBaseline(Refused):
    """Bytes that hold no baseline metric."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """The metric in its own unit, and the hardware class that it was measured on, as the file says ("": not at all)."""

    metric: Decimal
    hardware_class: str


def read(data: bytes, name: str) -> Baseline:
    """The baseline in a metrics artifact, where the primary metric is called `name`. Raises InvalidBaseline."""
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"{len(data)} bytes")
        document = json.loads(
            data,
            parse_float=Decimal,
            parse_int=Decimal,
            parse_constant=strict.no_number,
            object_pairs_hook=strict.unique_keys,
        )
        if not isinstance(document, dict):
            raise ValueError("it is no object")
        return Baseline(_metric(document, name), _hardware_class(document))
    except (ValueError, KeyError, TypeError, OverflowError, ArithmeticError, RecursionError) as error:
        raise InvalidBaseline(
            f"The baseline metrics artifact is invalid: {repr(error)[:200]}.", "Ask the project's owner."
        ) from error


def dump(
    name: str,
    values: Sequence[float],
    seconds: Sequence[float] = (),
    *,
    hardware: Mapping[str, Any],
    data_snapshot: str,
) -> bytes:
    """The artifact: the mean of `values` in six decimals, the values, each run's seconds, the machine and the data."""
    document = {
        "schemaKind": "metrics",
        "schemaVersion": "1",
        "metric_name": name,
        "metric_value": round(statistics.fmean(values), 6),
        "samples": list(values),
        "durations": [round(duration, 3) for duration in seconds],
        "hardware": dict(hardware),
        "dataSnapshotId": data_snapshot,
    }
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def _metric(document: Mapping[str, Any], name: str) -> Decimal:
    if "metric_value" not in document and "aggregate" in document:
        return _aggregate(document)
    match document:
        case {"metric_value": value}:
            pass
        case {"metrics": dict(inner)} if name in inner:
            value = inner[name]
        case {"primaryMetric": {"value": value}}:
            pass
        case _:
            value = document[name] if name in document else document.get("value")
    return _decimal(value, "the metric")


def _hardware_class(document: Mapping[str, Any]) -> str:
    match document:
        case {"hardware": {"class": str(found)}}:
            return found
    return ""


def _aggregate(document: Mapping[str, Any]) -> Decimal:
    """The aggregate of a samples.json, once all of it agrees with its samples."""
    if missing := _REQUIRED - document.keys():
        raise ValueError(f"{sorted(missing)} are missing")
    if unknown := document.keys() - _REQUIRED - _OPTIONAL:
        raise ValueError(f"{sorted(unknown)} are not known")
    raw, aggregator = document["samples"], document["aggregator"]
    if not isinstance(raw, list) or not 0 < len(raw) <= MAX_SAMPLES:
        raise ValueError(f"samples is not a list of 1 to {MAX_SAMPLES} numbers")
    if not isinstance(aggregator, str) or aggregator not in _AGGREGATORS:
        raise ValueError(f"aggregator is not one of {', '.join(_AGGREGATORS)}")
    values = tuple(_number(value, "samples") for value in raw)
    limit = _number(document["maxRelativeStdDev"], "maxRelativeStdDev") if "maxRelativeStdDev" in document else None
    for name, expected in _derive(values, aggregator, limit).items():
        found = document[name]
        if isinstance(expected, bool) or expected is None:
            fits = found is expected
        else:
            fits = math.isclose(_number(found, name), expected, rel_tol=1e-9, abs_tol=1e-12)
        if not fits:
            raise ValueError(f"{name} is {found}, but the samples give {expected}")
    log = document.get("representativeLog")
    if log is not None and not (isinstance(log, str) and 0 < len(log) <= 255 and log.isprintable()):
        raise ValueError("representativeLog is not a file's name")
    for name in _COUNTS:
        count = _number(document.get(name, Decimal(0)), name)
        if count != int(count) or not 0 <= count <= 1_000_000:
            raise ValueError(f"{name} is not a count")
    return _decimal(document["aggregate"], "aggregate")


def _derive(values: Sequence[float], aggregator: str, limit: float | None) -> dict[str, Any]:
    """The fields that follow from the samples."""
    mean = statistics.fmean(values)
    stddev = statistics.stdev(values) if len(values) > 1 else 0.0
    cv = stddev / abs(mean) if mean else None
    noisy = limit is not None and cv is not None and cv > limit
    return dict(zip(_DERIVED, (len(values), _AGGREGATORS[aggregator](values), mean, stddev, cv, noisy), strict=True))


def _number(value: object, name: str) -> float:
    return float(_decimal(value, name))


def _decimal(value: object, name: str) -> Decimal:
    if not isinstance(value, Decimal) or not math.isfinite(float(value)):
        raise ValueError(f"{name} is {value!r}, which is not a finite number")
    return value
