"""Several proposers by weight: which one is asked for a trial, and what happens if one fails.

`parse` reads a specification such as `edits,tune`, or `tune:3,llm:1`: names with the weights of a draw. What each has
found here so far bends them, a bandit: the gain of a trial of its own, from a prior that all share, against that of the
others, by a factor of four at most. One whose next candidate is worth more than what others are likely to have, one of
the few looks far away of `tune`, is asked before them. Who is asked first follows from the session's seed, the trial's
number and the history, so a restarted session asks the same one.

One that has nothing left passes the turn on. One that fails cools down: after a first failure for its next turn, then
for a time that doubles up to half an hour, or as long as it asked for itself (`ProposerFailed.retry_after`, from an
HTTP header); the others go on. Where all that were named cool down, those on standby are asked, the offline ones, so
that the machine does not idle; where there are none, the session waits for the first to come back: a session ends on
its own limits, not on somebody's outage. A candidate is passed on only if it parses and was never tried.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from common.text import printable
from miner.proposers.base import BoldProposer, Candidate, ClosingProposer, Context, Proposer, ProposerFailed, Tried
from trainer.errors import InvalidBundle, TrainerError
from trainer.project import hyperparameters

COOLING = 30.0  # seconds after a second failure in a row; they double
LONGEST = 1800.0
PRIOR_GAIN, PRIOR_TRIALS = 0.004, 4.0  # bpb, before any trial was seen, and how many trials that is worth
BEND = 4.0  # what was found bends a weight by this factor at most
ONLINE, OFFLINE = ("agent", "llm"), ("edits", "tune")
Say = Callable[[str], None]


@dataclass(slots=True, eq=False)
class _Part:
    proposer: Proposer
    weight: float
    failures: int = 0
    until: float = 0.0  # of the clock: it cools down until then
    warned: bool = False


class Mixture:
    """The parts with their weights; `say` hears of failures. `clock` is in seconds; `sleep` waits some of them."""

    name = "mix"

    def __init__(
        self,
        parts: Sequence[tuple[Proposer, float]],
        seed: int,
        say: Say,
        *,
        standby: Sequence[Proposer] = (),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._parts = [_Part(proposer, weight) for proposer, weight in parts]
        self._standby = [_Part(proposer, 1.0) for proposer in standby]
        self._seed, self._say, self._clock, self._sleep = seed, say, clock, sleep

    def propose(self, context: Context) -> Candidate | None:
        """The next candidate, its `proposer` set; None if all have nothing left, or the session is to stop."""
        rng = random.Random(f"{self._seed}/{context.number}/mix")
        end = math.inf if context.seconds_left is None else self._clock() + context.seconds_left
        waiting, standby = list(self._parts), list(self._standby)
        while waiting and not context.stop():
            now = self._clock()
            ready = [part for part in waiting if part.until <= now]
            if not ready and (ready := standby[:1]):
                standby = standby[1:]
            if not ready:
                first = min(part.until for part in waiting)
                if first >= end:
                    return None
                self._sleep(min(1.0, max(0.0, first - now)))
                continue
            if len(ready) > 1:
                ready = [part for part in ready if _is_bold(part.proposer, context)] or ready
            part = rng.choices(ready, [bent(p.proposer.name, p.weight, context.history) for p in ready])[0]
            try:
                candidate = part.proposer.propose(context)
                if candidate is not None:
                    candidate = _checked(candidate, part.proposer.name, context)
            except ProposerFailed as failure:
                self._cool(part, failure)
                continue
            part.failures, part.warned = 0, False
            if candidate is not None:
                return candidate
            if part in waiting:
                waiting.remove(part)
        return None

    def close(self) -> None:
        """End what the parts have under way."""
        for part in self._parts:
            if isinstance(part.proposer, ClosingProposer):
                part.proposer.close()

    def _cool(self, part: _Part, failure: ProposerFailed) -> None:
        """Let a part rest, longer each time."""
        part.failures += 1
        pause = min(LONGEST, COOLING * 2.0 ** (part.failures - 2)) if part.failures > 1 else 0.0
        pause = max(pause, min(failure.retry_after, 24 * 3600.0))
        # A first failure gives the others the turn, where there are any.
        part.until = self._clock() + max(pause, 0.01)
        self._say(f"  {part.proposer.name} has no candidate: {failure.message}")
        if pause > 60 and not part.warned:
            part.warned = True
            self._say(f"  {part.proposer.name} rests for {pause / 60:.0f} min; the others go on")


def bent(name: str, weight: float, history: Sequence[Tried]) -> float:
    """A proposer's weight, bent by what its trials gained each against what all trials did."""
    own = [trial for trial in history if trial.proposer == name]

    def worth(trials: Sequence[Tried]) -> float:
        gained = sum(max(0.0, trial.delta or 0.0) for trial in trials if trial.kept and trial.number)
        return (PRIOR_GAIN * PRIOR_TRIALS + gained) / (PRIOR_TRIALS + sum(trial.number > 0 for trial in trials))

    return weight * min(BEND, max(1 / BEND, worth(own) / worth([t for t in history if t.proposer])))


def _is_bold(proposer: Proposer, context: Context) -> bool:
    return isinstance(proposer, BoldProposer) and proposer.is_bold(context)


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
    named = {proposer.name for proposer, _ in parts}
    standby = [makers[name]() for name in OFFLINE if name in makers] if named & set(ONLINE) else []
    return Mixture(parts, seed, say, standby=[proposer for proposer in standby if proposer.name not in named])
