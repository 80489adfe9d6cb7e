"""The baseline metrics artifact: what a project's own code measured. The one reader and the one writer of it.

Clients publish it in these shapes:

- A JSON document. Read is, first of these that there is: `metric_value` (as written here); `aggregate` of a
  samples.json, the file in which other clients keep repeated measurements; `metrics.NAME`; `primaryMetric.value`;
  `NAME`; `value`. NAME is the protocol's primary metric. No repeated key, finite numbers, the exact decimal that was
  written; of a samples.json no other key than its own, and every derived number as the samples give it.
- The log of the baseline run. Read is what the protocol's own pattern captures in its last lines, else the number
  after `BASELINE_METRIC=`, which the official harness prints below it.
- Anything else, or nothing. Then the baseline score on chain is read back as a metric (`of_project`): in every known
  convention it is the metric or its negative, times a million.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from common import pattern, strict
from common.errors import Refused

MAX_BYTES: Final = 1024 * 1024  # of a JSON document, and of a log's end that is read
MAX_SAMPLES: Final = 10_000
ARTIFACT: Final = ""  # the source that needs no word
_SCALE: Final = -6  # decimal exponent of a score on chain
_ROUNDING: Final = Decimal("0.0000005")
_HARNESS: Final = re.compile(r"^BASELINE_METRIC=(\S+)\s*$", re.ASCII)
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
    """The metric in its own unit, the hardware class that it was measured on, as the file says ("": not at all), and
    the `source` it was read from, in words ("": a JSON document)."""

    metric: Decimal
    hardware_class: str
    source: str = ARTIFACT


def read(data: bytes, name: str, log_pattern: re.Pattern[str] | None = None) -> Baseline:
    """The baseline in a metrics artifact, where the primary metric is called `name`. Raises InvalidBaseline."""
    found = _stated(data, name, log_pattern)
    if not found:
        raise InvalidBaseline(
            f"The baseline metrics artifact holds no {name}.", "Give a JSON document, or the log of the baseline run."
        )
    return found[0]


def of_project(data: bytes, name: str, log_pattern: re.Pattern[str] | None, *, score: int, minimize: bool) -> Baseline:
    """The baseline of a project with this score on chain. Of several values in a log the one that the score says
    counts. Raises InvalidBaseline for a JSON document that breaks its own rules."""
    on_chain = Decimal(score).scaleb(_SCALE)
    found = _stated(data, name, log_pattern)
    if not found:
        metric = abs(on_chain) if minimize else on_chain
        return Baseline(metric, "", "the baseline score on chain; the metrics artifact holds none")
    return next((entry for entry in found if abs(abs(entry.metric) - abs(on_chain)) <= _ROUNDING), found[0])


def _stated(data: bytes, name: str, log_pattern: re.Pattern[str] | None) -> list[Baseline]:
    """Every value that the artifact could mean, likeliest first. InvalidBaseline if it is JSON and breaks its rules."""
    if not data.lstrip().startswith(b"{"):
        return _logged(data, name, log_pattern)
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
        metric = _metric(document, name)
        return [] if metric is None else [Baseline(metric, _hardware_class(document))]
    except (ValueError, KeyError, TypeError, OverflowError, ArithmeticError, RecursionError) as error:
        raise InvalidBaseline(
            f"The baseline metrics artifact is invalid: {repr(error)[:200]}.", "Ask the project's owner."
        ) from error


def _logged(data: bytes, name: str, log_pattern: re.Pattern[str] | None) -> list[Baseline]:
    end = data[-MAX_BYTES:]
    texts = [(text, f"the log's {name}") for text in (pattern.values(end, log_pattern) if log_pattern else [])]
    texts += [(text, "the log's BASELINE_METRIC") for text in pattern.values(end, _HARNESS)]
    found = []
    for text, source in texts:
        try:
            metric = _decimal(Decimal(text), name)
        except (ValueError, ArithmeticError):
            continue
        found.append(Baseline(metric, "", source))
    return found


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


def _metric(document: Mapping[str, Any], name: str) -> Decimal | None:
    """The metric of a document, None where it has none of the known shapes."""
    if "metric_value" not in document and "aggregate" in document:
        return _aggregate(document)
    match document:
        case {"metric_value": value}:
            pass
        case {"metrics": dict(inner)} if name in inner:
            value = inner[name]
        case {"primaryMetric": {"value": value}}:
            pass
        case _ if name in document:
            value = document[name]
        case {"value": value}:
            pass
        case _:
            return None
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
