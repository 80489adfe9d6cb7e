"""A context without a session around it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from miner.proposers.base import Candidate, Context, Decision, Tried
from trainer.project import hyperparameters, protocol, recipe

FILES = recipe.load("smoke").files
SOURCE = FILES["train.py"].decode()
PROTOCOL = protocol.parse(FILES["protocol.json"])


def baseline(source: str = SOURCE) -> Tried:
    mark = hyperparameters.fingerprint(source)
    return Tried(0, mark, "baseline", "keep", 0.0, source, mark)


def context(
    folder: Path, history: Sequence[Tried] | None = None, *, source: str = SOURCE, log: str = "step 1 | loss: 3\n"
) -> Context:
    history = [baseline(source)] if history is None else history
    number = history[-1].number + 1 if history else 1
    return Context(source, PROTOCOL, history, log, number, folder)


def tried(
    number: int, candidate: Candidate, base: str, delta: float | None = -0.01, decision: Decision | None = None
) -> Tried:
    """A candidate's trial: discarded, unless the decision says otherwise; a crash where there is no delta."""
    return Tried(
        number,
        hyperparameters.fingerprint(candidate.source),
        candidate.hypothesis,
        decision or ("crash" if delta is None else "discard"),
        delta,
        candidate.source,
        hyperparameters.fingerprint(base),
        "",
        candidate.proposer,
    )
