"""`edits`: structural changes from the library, offline.

Which comes first: what such a change was worth elsewhere (`catalogue`), on this class of machine; what others found
(`miner.proposers.clues`); and how the edits of its kind did here, a bandit: each kept one of a kind makes the rest
likelier, each lost one less so. Where a script has one of a kind only, such as an activation, what was kept has taken
its part of the others' gain. An edit is proposed once. One that does not fit the script is passed over; one whose
rehearsal fails where the script's own succeeds is passed over with a word.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence

from miner.proposers import clues
from miner.proposers.base import EDIT, MAX_HYPOTHESIS, Candidate, Clue, Context, Tried, accelerated, edit_of
from miner.proposers.edits.catalogue import ALTERNATIVES, BY_NAME, CATALOGUE, Edit
from miner.proposers.edits.patterns import DoesNotFit
from trainer.errors import InvalidBundle
from trainer.project import hyperparameters

LEAST = 0.05  # of an edit's worth is left, whatever an alternative to it has gained


class Edits:
    """`seed` is the session's; `say` hears what a rehearsal refused."""

    name = "edits"

    def __init__(self, seed: int, say: Callable[[str], None] = lambda _: None) -> None:
        self._seed, self._say = seed, say
        self._refused: set[tuple[str, str]] = set()
        self._sound: dict[str, bool] = {}  # whether a script's own rehearsal succeeds, by its fingerprint

    def propose(self, context: Context) -> Candidate | None:
        """The edit worth most that fits and was not tried, or None."""
        known, incumbent = context.known(), hyperparameters.fingerprint(context.source)
        begun = {edit_of(trial.hypothesis) for trial in context.pending}
        for edit in ranked(context.history, context.clues, context.hardware, self._seed):
            if edit.name in begun or (edit.name, incumbent) in self._refused:
                continue
            try:
                source = edit(context.source)
                fingerprint = hyperparameters.fingerprint(source)
            except (DoesNotFit, InvalidBundle, SyntaxError):
                self._refused.add((edit.name, incumbent))
                continue
            if fingerprint in known:
                continue
            why = self._rehearse(context, incumbent, source)
            if context.stop():
                return None
            if not why:
                return Candidate(source, f"{EDIT}{edit.name}: {edit.words}"[:MAX_HYPOTHESIS])
            self._refused.add((edit.name, incumbent))
            self._say(f"  edit {edit.name} fails its rehearsal: {why}")
        return None

    def _rehearse(self, context: Context, incumbent: str, source: str) -> str:
        """What went wrong with a candidate, or "" if nothing did or a rehearsal tells nothing here."""
        if context.rehearse is None:
            return ""
        if incumbent not in self._sound:
            self._sound[incumbent] = not context.rehearse(context.source)
        return context.rehearse(source) if self._sound[incumbent] else ""


def ranked(history: Sequence[Tried], told: Sequence[Clue], hardware: str, seed: int) -> list[Edit]:
    """The edits that were not tried, the one worth most first; those worth about the same in an order of the seed."""
    tried = {trial.kind: trial for trial in history if trial.kind}
    lot = random.Random(f"{seed}/edits")
    gpu = accelerated(hardware)
    scored = []
    for edit in CATALOGUE:
        worth = edit.worth * (edit.gpu if gpu else 1.0) * math.exp(lot.gauss(0.0, 0.15))
        if edit.name not in tried:
            scored.append((worth * _of_kind(edit, tried.values()) * clues.of_edit(told, edit.name), edit))
    return [edit for _, edit in sorted(scored, key=lambda pair: -pair[0])]


def _of_kind(edit: Edit, tried: Iterable[Tried]) -> float:
    """How the edits of its kind did here."""
    alike = [t for t in tried if t.kind in BY_NAME and BY_NAME[t.kind].kind == edit.kind]
    kept = [trial for trial in alike if trial.kept]
    lost = 1.0 + 0.5 * (len(alike) - len(kept))
    if edit.kind in ALTERNATIVES and kept:
        return max(LEAST, 1.0 - sum(trial.delta or 0.0 for trial in kept) / edit.gain) / lost
    return (1.0 + len(kept)) / lost
