"""Several proposers by weight: which one is asked for a trial, and what happens if one keeps failing.

`parse` reads a specification such as `tune`, or `tune:3,llm:1`: names with the weights of a draw. Who is asked
first follows from the session's seed and the trial's number alone, so a restarted session asks the same one.
One that has nothing left, or fails, passes the turn on. One that fails five times in a row is skipped for the
rest of this run, with a message. A candidate is passed on only if it parses and was never tried.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from common.text import printable
from miner.proposers.base import Candidate, Context, Proposer, ProposerFailed
from trainer.errors import InvalidBundle, TrainerError
from trainer.project import hyperparameters

PATIENCE = 5  # failures running until a proposer is set aside
Say = Callable[[str], None]


@dataclass(slots=True)
class _Part:
    proposer: Proposer
    weight: float
    failures: int = 0
    last: ProposerFailed | None = None

    @property
    def aside(self) -> bool:
        return self.failures >= PATIENCE


class Mixture:
    """The parts with their weights; `say` hears of failures."""

    name = "mix"

    def __init__(self, parts: Sequence[tuple[Proposer, float]], seed: int, say: Say) -> None:
        self._parts = [_Part(proposer, weight) for proposer, weight in parts]
        self._seed, self._say = seed, say

    def propose(self, context: Context) -> Candidate | None:
        """The next candidate, its `proposer` set; None if all have nothing left.

        ProposerFailed if none is left and at least one was set aside for its failures.
        """
        rng = random.Random(f"{self._seed}/{context.number}/mix")
        pending, failed = [part for part in self._parts if not part.aside], list[_Part]()
        while (pending or failed) and not context.stop():
            if not pending:  # nobody else has anything, so those that failed try again
                pending, failed = failed, []
            part = rng.choices(pending, [part.weight for part in pending])[0]
            pending.remove(part)
            try:
                candidate = part.proposer.propose(context)
                if candidate is not None:
                    candidate = _checked(candidate, part.proposer.name, context)
            except ProposerFailed as failure:
                self._count(part, failure)
                if not part.aside:
                    failed.append(part)
                continue
            part.failures = 0
            if candidate is not None:
                return candidate
        last = next((part.last for part in self._parts if part.aside), None)
        if last is not None and not context.stop():
            names = ", ".join(part.proposer.name for part in self._parts if part.aside)
            raise ProposerFailed(
                f"No proposer is left; skipped after repeated failures: {names}. {last.problem}", last.cure
            )
        return None

    def _count(self, part: _Part, failure: ProposerFailed) -> None:
        part.failures, part.last = part.failures + 1, failure
        self._say(f"  {part.proposer.name} has no candidate: {failure.message}")
        if part.aside:
            self._say(f"  {part.proposer.name} failed {PATIENCE} times in a row; skipped for the rest of this run")


def _checked(candidate: Candidate, name: str, context: Context) -> Candidate:
    """The candidate with its hypothesis as one line; ProposerFailed unless it is a new, valid script."""
    try:
        known = hyperparameters.fingerprint(candidate.source) in context.known()
        lottery = hyperparameters.changes_seeds_only(context.source, candidate.source)
    except InvalidBundle as error:
        raise ProposerFailed(f"The candidate is not valid Python: {error.problem}") from error
    if known:
        raise ProposerFailed(f"The candidate was already tried: {printable(candidate.hypothesis)}.")
    if lottery:
        raise ProposerFailed(
            f"The candidate changes nothing but a seed: {printable(candidate.hypothesis)}.",
            "Runs are measured under secret salts, so no seed is better than another.",
        )
    return Candidate(candidate.source, printable(candidate.hypothesis) or "no hypothesis given", name)


def parse(spec: str, makers: Mapping[str, Callable[[], Proposer]], *, seed: int, say: Say) -> Mixture:
    """The mixture that `spec` names; `makers` are all there are. TrainerError if it does not fit."""
    parts: list[tuple[Proposer, float]] = []
    for entry in spec.split(","):
        name, colon, weight_text = entry.strip().partition(":")
        if name not in makers:
            raise TrainerError(
                f"There is no proposer {name!r}.", f"Use {', '.join(makers)}, or several, for example tune:3,llm:1."
            )
        try:
            weight = float(weight_text) if colon else 1.0
        except ValueError:
            weight = math.nan
        if not 0 < weight <= 1e6:
            raise TrainerError(
                f"The weight of {name} is {weight_text!r}, not a positive number.", "Use, for example, tune:3,llm:1."
            )
        if any(name == known.name for known, _ in parts):
            raise TrainerError(f"{name} appears twice in {spec!r}.", "List each proposer once, with its weight.")
        parts.append((makers[name](), weight))
    return Mixture(parts, seed, say)
