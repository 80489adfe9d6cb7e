"""What a trial's runs decide, in the words of the journal. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.judging import trial
from trainer.statistics.comparison import Answer, Arm
from trainer.statistics.error_rates import LookEvidence

_WORDS: Mapping[Answer, str] = {
    Answer.APPROVE: "the gain is significant",
    Answer.REJECT: "no gain of the size looked for",
    Answer.UNDECIDED: "too noisy to tell within the limit of runs",
}
SPARED = "any gain left is too small to be worth more runs"
MOVED = "the gain is significant, but the incumbent has changed; it will be tried on the new one"
LEFT = "not decided: the incumbent was replaced; it will be tried on the new one"
DROPPED = "not decided: the incumbent was replaced, and it failed or looked no better than that one"
SAME = "not decided: this very code has replaced the incumbent"


def decided(outcome: trial.Trial, *, moved: bool = False) -> dict[str, Any]:
    """What a trial's runs decide, as the journal has it.

    `moved` says that the incumbent it was measured against is no longer the head: then a gain is carried over.
    """
    evidence = outcome.decision.evidence if outcome.decision else None
    carry = False
    if outcome.given_up and outcome.decision is None:
        decision, reason = "discard", outcome.given_up
    elif outcome.decision is None:
        decision, reason = "crash", outcome.failures(Arm.CANDIDATE)[-1].told
    else:
        won = outcome.decision.kind is Answer.APPROVE
        carry = won and moved
        decision = "keep" if won and not moved else "discard"
        reason = MOVED if carry else SPARED if outcome.decision.spared else _WORDS[outcome.decision.kind]
    return _as_recorded(decision, reason, evidence, carry=carry)


def left_open(outcome: trial.Trial, earlier: Sequence[float]) -> dict[str, Any]:
    """What is recorded of an open trial whose incumbent was replaced: more runs against that one would be lost.

    Its change is carried over unless it failed, or its runs look no better than the incumbent's, of which `earlier` are
    from before.
    """
    evidence = outcome.decision.evidence if outcome.decision else None
    ours, theirs = outcome.values(Arm.CANDIDATE), [*earlier, *outcome.values(Arm.INCUMBENT)]
    better = statistics.fmean(theirs) > statistics.fmean(ours) if ours and theirs else True
    carry = better and not outcome.failures(Arm.CANDIDATE)
    return _as_recorded("discard", LEFT if carry else DROPPED, evidence, carry=carry)


def nothing_left(said: Mapping[str, Any]) -> dict[str, Any]:
    """What is recorded where the code itself is the new incumbent: nothing of its change is left to be tried."""
    return {**said, "reason": SAME, "carry": False}


def _as_recorded(decision: str, reason: str, evidence: LookEvidence | None, *, carry: bool) -> dict[str, Any]:
    return {
        "decision": decision,
        "reason": reason,
        "delta": evidence.delta if evidence else None,
        "low": _finite(evidence.low) if evidence else None,
        "high": _finite(evidence.high) if evidence else None,
        "p": evidence.p if evidence else None,
        "carry": carry,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
