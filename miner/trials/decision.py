"""What a trial's runs decide, in the words of the journal. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trainer.judging import trial
from trainer.statistics.comparison import Answer, Arm

_WORDS: Mapping[Answer, str] = {
    Answer.APPROVE: "the gain is significant",
    Answer.REJECT: "no gain of the size looked for",
    Answer.UNDECIDED: "too noisy to tell within the limit of runs",
}
SPARED = "any gain left is too small to be worth more runs"
MOVED = "the gain is significant, but the incumbent has changed; it will be measured against the new one"


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
