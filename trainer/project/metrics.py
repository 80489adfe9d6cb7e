"""The numbers in a run's log.

Rules:
- The summary block is what follows the last line that is exactly `---`; nothing before it counts.
- Lines end at a line feed only: a carriage return, which progress bars use, does not make a line, so a number
  "printed over" by one is not at the start of a line. A line longer than 200 characters is never a match.
- The primary metric's pattern must match exactly one line of the block, and its value must be finite.
- A secondary metric that breaks that rule is left out; it never decides anything.

The log is the script's own word. A number from here ranks a miner's own trials; it proves nothing to others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from common.pattern import MAX_LINE, MAX_LINES
from trainer.project.protocol import Metric, Protocol


class Missing(StrEnum):
    """Why a log holds no primary metric."""

    NO_SUMMARY = "no `---` line starts a summary block"
    SUMMARY_TOO_LONG = f"the summary block has more than {MAX_LINES} lines"
    NO_MATCH = "no line of the summary block has the metric"
    SEVERAL = "several lines of the summary block have the metric"
    NOT_FINITE = "the metric is not a finite number"


@dataclass(frozen=True, slots=True)
class Metrics:
    """The primary value and the secondary values by name, in the units that the script prints."""

    primary: float
    secondary: Mapping[str, float]


def extract(log: bytes, protocol: Protocol) -> Metrics | Missing:
    """The protocol's metrics in `log`, or why the primary one is missing."""
    block = summary(log)
    if isinstance(block, Missing):
        return block
    primary = value(block, protocol.primary)
    if isinstance(primary, Missing):
        return primary
    values = {metric.name: value(block, metric) for metric in protocol.secondary}
    return Metrics(primary, {name: value for name, value in values.items() if isinstance(value, float)})


def summary(log: bytes) -> list[str] | Missing:
    """The lines of the last summary block, undecodable bytes replaced."""
    start = log.rfind(b"\n---\n") + 1
    if not start and not log.startswith(b"---\n"):
        return Missing.NO_SUMMARY
    lines = log[start + 4 :].split(b"\n", MAX_LINES + 1)
    if len(lines) > MAX_LINES:
        return Missing.SUMMARY_TOO_LONG
    return [line.decode(errors="replace") for line in lines]


def value(block: Sequence[str], metric: Metric) -> float | Missing:
    """One metric in the lines of a summary block, or why it is missing."""
    found = [match for line in block if len(line) <= MAX_LINE and (match := metric.pattern.search(line))]
    if len(found) != 1:
        return Missing.SEVERAL if found else Missing.NO_MATCH
    try:
        number = float(found[0][1])
    except (TypeError, ValueError):
        return Missing.NOT_FINITE
    return number if math.isfinite(number) else Missing.NOT_FINITE
