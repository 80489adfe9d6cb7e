"""`samples.json`: the metrics file of other OpenResearch clients, repeated measurements reduced to one score.

One JSON object: `samples`, `count`, `aggregator` (median, mean, min or max), `aggregate`, `mean`, `stddev` (of a
sample; 0 for one value), `cv` (stddev ÷ |mean|; null where the mean is 0), `tooNoisy`, and as far as they were
known `maxRelativeStdDev`, `warmupTrials`, `measuredTrials`, `representativeTrial` (1 is the first measured one)
and `representativeLog`.

Rules of reading: at most 1 MiB, no other and no repeated key, finite numbers, and every derived number is the one
that the samples give, to nine digits. `BaselineSamples.aggregate` is the exact decimal that was written.
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
from trainer.errors import InvalidBundle

MAX_BYTES: Final = 1024 * 1024
MAX_SAMPLES: Final = 10_000
AGGREGATORS: Final[Mapping[str, Callable[[Sequence[float]], float]]] = {
    "median": statistics.median,
    "mean": statistics.fmean,
    "min": min,
    "max": max,
}
_DERIVED: Final = ("count", "aggregate", "mean", "stddev", "cv", "tooNoisy")
_REQUIRED: Final = frozenset({"samples", "aggregator", *_DERIVED})
_COUNTS: Final = ("warmupTrials", "measuredTrials", "representativeTrial")
_OPTIONAL: Final = frozenset({"maxRelativeStdDev", "representativeLog", *_COUNTS})


@dataclass(frozen=True, slots=True)
class BaselineSamples:
    """Measurements in the metric's unit; None where the file does not say."""

    values: tuple[float, ...]
    aggregator: str
    aggregate: Decimal
    max_relative_stddev: float | None = None
    warmup_trials: int | None = None
    measured_trials: int | None = None
    representative_trial: int | None = None
    representative_log: str | None = None

    def dump(self) -> bytes:
        """The file's bytes, the same for equal values."""
        known = {
            "maxRelativeStdDev": self.max_relative_stddev,
            "warmupTrials": self.warmup_trials,
            "measuredTrials": self.measured_trials,
            "representativeTrial": self.representative_trial,
            "representativeLog": self.representative_log,
        }
        document = {
            "samples": list(self.values),
            "aggregator": self.aggregator,
            **_derive(self.values, self.aggregator, self.max_relative_stddev),
            **{name: value for name, value in known.items() if value is not None},
        }
        return json.dumps(document, sort_keys=True, allow_nan=False).encode() + b"\n"


def measured(values: Sequence[float], aggregator: str = "median", **known: Any) -> BaselineSamples:
    """The file for these measurements; `known` are the optional fields of `BaselineSamples`.

    InvalidBundle where the values are none or not finite.
    """
    if not 0 < len(values) <= MAX_SAMPLES or not all(map(math.isfinite, values)) or aggregator not in AGGREGATORS:
        raise InvalidBundle(f"{len(values)} samples and the aggregator {aggregator!r} make no metrics.")
    aggregate = Decimal(repr(float(AGGREGATORS[aggregator](values))))
    return BaselineSamples(tuple(map(float, values)), aggregator, aggregate, **known)


def parse(data: bytes) -> BaselineSamples:
    """The metrics in a `samples.json`, or InvalidBundle naming what does not fit."""
    try:
        return _parse(_load(data))
    except (ValueError, TypeError, KeyError, OverflowError, ArithmeticError, RecursionError) as error:
        raise InvalidBundle(
            f"The metrics are no samples.json: {str(error)[:200]}.", "Ask whoever published them."
        ) from None


def _load(data: bytes) -> dict[str, Any]:
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
        raise ValueError("the document is not an object")
    if missing := _REQUIRED - document.keys():
        raise ValueError(f"{sorted(missing)} are missing")
    if unknown := document.keys() - _REQUIRED - _OPTIONAL:
        raise ValueError(f"{sorted(unknown)} are not known")
    return document


def _parse(document: Mapping[str, Any]) -> BaselineSamples:
    raw, aggregator = document["samples"], document["aggregator"]
    if not isinstance(raw, list) or not 0 < len(raw) <= MAX_SAMPLES:
        raise ValueError(f"samples is not a list of 1 to {MAX_SAMPLES} numbers")
    if not isinstance(aggregator, str) or aggregator not in AGGREGATORS:
        raise ValueError(f"aggregator is not one of {', '.join(AGGREGATORS)}")
    values = tuple(_number(value, "samples") for value in raw)
    limit = _number(document["maxRelativeStdDev"], "maxRelativeStdDev") if "maxRelativeStdDev" in document else None
    for name, expected in _derive(values, aggregator, limit).items():
        found = document[name]
        if isinstance(expected, bool) or expected is None:
            fits = found is expected
        else:
            fits = math.isclose(_number(found, name), expected, rel_tol=1e-9, abs_tol=1e-12)
        if not fits:
            raise ValueError(f"{name} is {found}, and the samples give {expected}")
    log = document.get("representativeLog")
    if log is not None and not (isinstance(log, str) and 0 < len(log) <= 255 and log.isprintable()):
        raise ValueError("representativeLog is not a file's name")
    warmup, trials, representative = (_count(document, name) for name in _COUNTS)
    return BaselineSamples(values, aggregator, document["aggregate"], limit, warmup, trials, representative, log)


def _derive(values: Sequence[float], aggregator: str, limit: float | None) -> dict[str, Any]:
    """The fields that follow from the samples."""
    mean = statistics.fmean(values)
    stddev = statistics.stdev(values) if len(values) > 1 else 0.0
    cv = stddev / abs(mean) if mean else None
    derived = (
        len(values),
        AGGREGATORS[aggregator](values),
        mean,
        stddev,
        cv,
        limit is not None and cv is not None and cv > limit,
    )
    return dict(zip(_DERIVED, derived, strict=True))


def _number(value: object, name: str) -> float:
    if not isinstance(value, Decimal) or not math.isfinite(float(value)):
        raise ValueError(f"{name} holds {value!r}, which is not a finite number")
    return float(value)


def _count(document: Mapping[str, Any], name: str) -> int | None:
    if name not in document:
        return None
    number = _number(document[name], name)
    if number != int(number) or not 0 <= number <= 1_000_000:
        raise ValueError(f"{name} is not a count")
    return int(number)
