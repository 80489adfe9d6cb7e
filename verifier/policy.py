"""The verifier's policy: every number a verdict depends on, recorded in each attestation.

A policy file is TOML with tables [comparison], [verdict], [source], [budget] and [fresh], whose keys are
the fields below; what it leaves out keeps its default, and what it does not know is refused.
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError
from trainer.judging.replay import Budget, Fresh
from trainer.project.source import SourceCaps
from trainer.statistics.policy import ComparisonPolicy
from verifier.verdict import VerdictPolicy


@dataclass(frozen=True, slots=True)
class Policy:
    """What a verifier goes by.

    `same_hardware` asks for the miner's hardware class and data snapshot. `suggestive` is a one-sided level: a
    gain that is not shown, but would be at this level, is no ground to slash a stake.
    """

    comparison: ComparisonPolicy = field(default_factory=ComparisonPolicy)
    verdict: VerdictPolicy = field(default_factory=VerdictPolicy)
    source: SourceCaps = field(default_factory=SourceCaps)
    budget: Budget = field(default_factory=Budget)
    fresh: Fresh = field(default_factory=Fresh)
    same_hardware: bool = True
    suggestive: float = 0.1

    def as_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return dataclasses.asdict(self)


def from_json(document: object) -> Policy:
    """The inverse of `as_json`; also reads a policy file's tables. TrainerError where it does not fit."""
    if not isinstance(document, dict):
        raise TrainerError("A policy is a table of tables.", "See verifier/policy.py for its fields.")
    values: dict[str, Any] = {}
    kinds: dict[str, Any] = {
        "comparison": ComparisonPolicy,
        "verdict": VerdictPolicy,
        "source": SourceCaps,
        "budget": Budget,
        "fresh": Fresh,
    }
    for name, content in document.items():
        if name == "same_hardware" and isinstance(content, bool):
            values[name] = content
            continue
        if name == "suggestive" and isinstance(content, float) and 0 < content < 0.5:
            values[name] = content
            continue
        if name not in kinds or not isinstance(content, dict):
            raise TrainerError(f"A policy has no {name!r}.", f"Its tables are {', '.join(kinds)}.")
        known = {entry.name: entry for entry in dataclasses.fields(kinds[name])}
        for key, value in content.items():
            default = known[key].default if key in known else None
            fits = isinstance(value, bool) == isinstance(default, bool) and isinstance(value, int | float)
            if key not in known or not fits or (isinstance(default, int) and not isinstance(value, int)):
                raise TrainerError(f"The policy's {name}.{key} does not fit: {value!r}.", "Correct the policy.")
        values[name] = kinds[name](**content)
    return Policy(**values)


def load(path: Path | None) -> Policy:
    """The policy of a file, or the default one."""
    if path is None:
        return Policy()
    try:
        return from_json(tomllib.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise TrainerError(f"The policy file {path} cannot be read: {error}.", "Correct it.") from error
