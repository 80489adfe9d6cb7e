"""Every number a verdict depends on: one policy for the verifier, who attests to it, and for the miner's confirming
test, so that nothing is staked that its own verifier would not approve.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from typing import Any, Final

from trainer.errors import TrainerError
from trainer.project.source import SourceCaps
from trainer.statistics.error_rates import ComparisonPolicy

RULES_VERSION: Final = 1
"""The rules' version, which an attestation names: raised with every change by which the same runs may get another
verdict, another number or other words, a policy's default included. tests/verifier/test_rules.py notices most."""


@dataclass(frozen=True, slots=True)
class TimeBudget:
    """When a run is over its time budget: later than budget + the incumbent's own overhead here + a grace.

    The grace is the larger of `grace_seconds` and `grace_share` of the budget.
    """

    grace_seconds: float = 2.0
    grace_share: float = 0.03


@dataclass(frozen=True, slots=True)
class HoldoutPolicy:
    """The second score: at most `tokens` of holdout text, `probes` of it.

    The gain passes when it is shown, at the level `alpha`, to be more than `least_share` of that on validation, and is
    refused when it is shown to be less at the level `beta`.
    """

    tokens: int = 1_048_576
    probes: int = 128
    alpha: float = 0.05
    beta: float = 0.0025
    least_share: float = 0.5


@dataclass(frozen=True, slots=True)
class VerdictPolicy:
    """repeats: how often a fault of a run must be seen. require_holdout: the gain must hold on holdout text.
    require_trusted: a value that is the candidate's own word approves nothing. calm: a machine that called itself
    unfit beside a run that was not the candidate's rejects nobody for want of a gain or of time.
    """

    repeats: int = 2
    require_holdout: bool = True
    require_trusted: bool = True
    calm: bool = True


@dataclass(frozen=True, slots=True)
class LadderPolicy:
    """When the incumbent is stepped over (`trainer.judging.ladder`).

    level: of the tests that it falls short of what was attested, or scatters. scatter: how many times as far apart as
    the snapshot's its runs stand then. runs: of the snapshot, and of each earlier best that
    is asked. rungs: most earlier bests that are asked. hours: age up to which the snapshot's runs count as new.
    anchor: the share by which an approved score follows the candidate's own gain over the snapshot
    (`trainer.judging.ladder.anchored`) rather than the sum of all gains before.
    """

    level: float = 0.01
    scatter: float = 4.0
    runs: int = 3
    rungs: int = 2
    hours: float = 1.0
    anchor: float = 0.5


@dataclass(frozen=True, slots=True)
class JudgePolicy:
    """What a judge goes by.

    `same_hardware` asks for the miner's hardware class and data snapshot, where the miner states them. `suggestive` is
    a one-sided level: a gain that is not shown, but would be at this level, is no ground to slash a stake. `first_look`
    is the share of alpha that the first look at a thing gets; each further one gets this share of what is left.
    """

    comparison: ComparisonPolicy = field(default_factory=ComparisonPolicy)
    verdict: VerdictPolicy = field(default_factory=VerdictPolicy)
    source: SourceCaps = field(default_factory=SourceCaps)
    budget: TimeBudget = field(default_factory=TimeBudget)
    holdout: HoldoutPolicy = field(default_factory=HoldoutPolicy)
    ladder: LadderPolicy = field(default_factory=LadderPolicy)
    same_hardware: bool = True
    suggestive: float = 0.1
    first_look: float = 0.8

    def with_margin(self, margin: float) -> JudgePolicy:
        """The policy with a project's own margin (bpb), where that is larger."""
        return replace(self, comparison=replace(self.comparison, margin=max(self.comparison.margin, margin)))

    def at_look(self, number: int) -> JudgePolicy:
        """The policy of the k-th look at the same thing, from 1: all looks together stay at alpha."""
        share = self.first_look * (1 - self.first_look) ** (number - 1)
        return replace(self, comparison=replace(self.comparison, alpha=max(1e-6, self.comparison.alpha * share)))

    def beyond(self, lead: float) -> JudgePolicy:
        """The policy where a gain must also make up for `lead` (bpb), what the best on chain is ahead."""
        return replace(self, comparison=replace(self.comparison, margin=self.comparison.margin + lead))

    def as_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: object) -> JudgePolicy:
        """The inverse of `as_json`; what is left out keeps its default. TrainerError if it does not fit."""
        if not isinstance(document, dict):
            raise TrainerError("A policy must be a table of tables.", "See trainer/judging/policy.py for its fields.")
        tables: dict[str, Any] = {
            "comparison": ComparisonPolicy,
            "verdict": VerdictPolicy,
            "source": SourceCaps,
            "budget": TimeBudget,
            "holdout": HoldoutPolicy,
            "ladder": LadderPolicy,
        }
        values: dict[str, Any] = {}
        for name, content in document.items():
            if (name == "same_hardware" and isinstance(content, bool)) or (
                isinstance(content, float) and 0 < content < {"suggestive": 0.5, "first_look": 1.0}.get(name, 0.0)
            ):
                values[name] = content
            elif name in tables and isinstance(content, dict):
                values[name] = tables[name](**_fitting(name, content, tables[name]))
            else:
                raise TrainerError(f"Unknown policy table {name!r}.", f"Known tables: {', '.join(tables)}.")
        return cls(**values)


def _fitting(table: str, content: dict[str, Any], kind: Any) -> dict[str, Any]:
    """A table's values, each of the type of its field's default."""
    known = {entry.name: entry for entry in dataclasses.fields(kind)}
    for key, value in content.items():
        default = known[key].default if key in known else None
        fits = isinstance(value, bool) == isinstance(default, bool) and isinstance(value, int | float)
        if key not in known or not fits or (isinstance(default, int) and not isinstance(value, int)):
            raise TrainerError(f"The policy's {table}.{key} has an invalid value: {value!r}.", "Correct the policy.")
    return content
