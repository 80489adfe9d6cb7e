"""Two sessions, or two train.py, side by side: what each found, what both tried, and which hyperparameters mattered.

Nothing is run for it: all numbers are those of journals. Values are val_bpb, lower is better; gains are positive.

- A change that both sessions tried, each against its own incumbent, is a pair: the same library edit, the same
  constants to the same values, or the same lines.
- The weight of a constant is its part of the sum of squared gains and losses; a trial that changed several counts for
  each in equal parts, and one that went wild as a large one only. It says what moved the number, up or down.
- Two scripts are compared where a session measured both: by the trial of one against the other if there was one, else
  by the means of their runs there.
"""

from __future__ import annotations

import difflib
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from common.text import counted
from miner.journal.about import About
from miner.journal.journal import Session
from miner.proposers.base import EDIT, Tried, by_fingerprint
from miner.report import summary
from miner.report.summary import Totals
from trainer.errors import InvalidBundle
from trainer.project import hyperparameters, sites
from trainer.project.hyperparameters import Value

MOST = 40  # rows of a table, the weightiest
OTHER = "other code"
CLIP = 6.0  # a gain or loss counts as at most so many usual ones


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one trial of a change gave: `delta` with its interval in bpb, None after a crash."""

    trial: int
    decision: str
    delta: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Find:
    """A kept trial: what it changed, what it gave, what became of it."""

    hypothesis: str
    outcome: Outcome
    state: str


@dataclass(frozen=True, slots=True)
class Weight:
    """How much a constant or an edit moved the number: its part of all that was moved, its trials, its best gain."""

    name: str
    share: float
    trials: int
    best: float


@dataclass(frozen=True, slots=True)
class Side:
    """One session."""

    name: str
    about: About
    totals: Totals
    finds: tuple[Find, ...]
    weights: tuple[Weight, ...]
    changes: Mapping[str, Outcome]

    @property
    def per_trial(self) -> float | None:
        """Gain a finished trial, in bpb."""
        return self.totals.gain / self.totals.finished if self.totals.finished else None


@dataclass(frozen=True, slots=True)
class Pair:
    """A change that both tried."""

    change: str
    a: Outcome
    b: Outcome


@dataclass(frozen=True, slots=True)
class Sessions:
    """Two sessions. `apart` names what makes their numbers differ for other reasons, if anything."""

    a: Side
    b: Side
    pairs: tuple[Pair, ...]
    apart: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MeasuredPair:
    """Where a session measured both scripts: how much better the second is, with its interval, and how it is known."""

    session: str
    delta: float
    low: float | None
    high: float | None
    how: str


@dataclass(frozen=True, slots=True)
class Scripts:
    """Two scripts: constants that differ (name, first, second), lines beside them, and what was measured of both.

    `weights` are those of the constants that differ, over all sessions given.
    """

    a: str
    b: str
    constants: tuple[tuple[str, Value | None, Value | None], ...]
    removed: int
    added: int
    measured: tuple[MeasuredPair, ...]
    weights: tuple[Weight, ...]


def side(name: str, about: About, session: Session, history: Sequence[Tried]) -> Side:
    """One session's part."""
    states, told = summary.states(session), {trial.number: trial for trial in history}
    finds = [
        Find(trial.hypothesis, _outcome(trial), states.get(number, "kept"))
        for number, trial in told.items()
        if number and trial.kept
    ]
    changes: dict[str, Outcome] = {}
    for names, before, trial in _changed(history):
        changes.setdefault(" and ".join(names) if names else _lines(before, trial.source), _outcome(trial))
    totals = summary.totals(session, budget=about.budget)
    return Side(name, about, totals, tuple(finds), weights(history), changes)


def sessions(a: Side, b: Side) -> Sessions:
    """Two sessions side by side; pairs come in the order of the gain that either had."""
    both = [Pair(change, a.changes[change], b.changes[change]) for change in a.changes if change in b.changes]
    both.sort(key=lambda pair: -max(pair.a.delta or -math.inf, pair.b.delta or -math.inf))
    named = (
        ("hardware class", a.about.hardware_class, b.about.hardware_class),
        ("budget", a.about.budget, b.about.budget),
        ("data", a.about.data_snapshot, b.about.data_snapshot),
        ("way of measuring", a.about.method, b.about.method),
    )
    apart = tuple(name for name, first, second in named if first != second)
    return Sessions(a, b, tuple(both[:MOST]), apart)


def scripts(a: tuple[str, str], b: tuple[str, str], known: Sequence[tuple[str, Session, Sequence[Tried]]]) -> Scripts:
    """Two scripts, each a name and its source, beside the sessions that may have measured them.

    Raises InvalidBundle if one is not Python.
    """
    first, second = _values(*a), _values(*b)
    names = [*first, *(name for name in second if name not in first)]
    constants = tuple((n, first.get(n), second.get(n)) for n in names if first.get(n) != second.get(n))
    lines = list(difflib.ndiff(a[1].splitlines(), b[1].splitlines()))
    prints = hyperparameters.fingerprint(a[1]), hyperparameters.fingerprint(b[1])
    measured = [m for name, session, _ in known if (m := _both(name, session, *prints)) is not None]
    own = {name for name, _, _ in constants}
    moved = weights([trial for _, _, history in known for trial in history])
    return Scripts(
        a[0],
        b[0],
        constants,
        sum(line.startswith("- ") for line in lines),
        sum(line.startswith("+ ") for line in lines),
        tuple(measured),
        tuple(weight for weight in moved if weight.name in own),
    )


def _values(name: str, source: str) -> dict[str, Value]:
    try:
        return sites.values(source)
    except InvalidBundle as error:
        raise InvalidBundle(f"{name}: {error.problem}", error.cure) from None


def weights(history: Sequence[Tried]) -> tuple[Weight, ...]:
    """What moved the number, the weightiest first."""
    moved: dict[str, list[tuple[float, float]]] = defaultdict(list)
    told = [(names, t.delta) for names, _, t in _changed(history) if t.delta is not None and math.isfinite(t.delta)]
    most = CLIP * statistics.median([abs(delta) for _, delta in told]) if told else 0.0
    for names, delta in told:
        plain = [name.partition(" ")[0] if not name.startswith(EDIT) else name for name in names] or [OTHER]
        for name in plain:
            moved[name].append((min(abs(delta), most) ** 2 / len(plain), delta))
    total = math.fsum(square for entries in moved.values() for square, _ in entries)
    found = [
        Weight(
            name,
            math.fsum(square for square, _ in entries) / total if total else 0.0,
            len(entries),
            max(delta for _, delta in entries),
        )
        for name, entries in moved.items()
    ]
    return tuple(sorted(found, key=lambda weight: (-weight.share, weight.name))[:MOST])


def _changed(history: Sequence[Tried]) -> Iterator[tuple[list[str], str, Tried]]:
    """What each trial changed (`edit NAME`, or `CONSTANT -> value` for each; nothing for other code), the source before
    it, and the trial."""
    texts = by_fingerprint(history)
    for trial in history:
        before = texts.get(trial.base)
        if not trial.number or before is None:
            continue
        if trial.kind:
            yield [f"{EDIT}{trial.kind}"], before, trial
            continue
        try:
            changed = {name: new for name, (_, new) in sites.changed(before, trial.source).items()}
            turned = sites.replace(before, changed)
            only = hyperparameters.fingerprint(turned) == hyperparameters.fingerprint(trial.source)
        except InvalidBundle:
            continue
        yield [f"{name} -> {_shown(value)}" for name, value in changed.items()] if only else [], before, trial


def _lines(before: str, after: str) -> str:
    """A change of code as the lines that it changed."""
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return "; ".join(line[:2] + line[2:].strip() for line in lines if line[:2] in ("+ ", "- "))


def _both(name: str, session: Session, a: str, b: str) -> MeasuredPair | None:
    """How much better `b` is than `a` in a session that measured both; fingerprints."""
    commits = {print_: commit for commit, print_ in session.sums.fingerprints.items()}
    if a == b or a not in commits or b not in commits:
        return None
    for first, second, sign in ((commits[a], commits[b], 1.0), (commits[b], commits[a], -1.0)):
        for trial in session.sums.trials_of(first):
            if trial.commit == second and trial.number and trial.delta is not None:
                ends = [None if end is None else sign * end for end in (trial.low, trial.high)]
                low, high = ends if sign > 0 else ends[::-1]
                how = f"trial {trial.number}, {counted(len(trial.runs), 'run')} in turn"
                return MeasuredPair(name, sign * trial.delta, low, high, how)
    levels = [session.sums.levels.get(commits[print_]) for print_ in (a, b)]
    if levels[0] is None or levels[1] is None:
        return None
    delta, runs = levels[0].mean - levels[1].mean, [levels[0].runs, levels[1].runs]
    sigma, _ = summary.noise(session)
    error = None if sigma is None else 2 * sigma * math.sqrt(1 / runs[0] + 1 / runs[1])
    low, high = (None, None) if error is None else (delta - error, delta + error)
    return MeasuredPair(name, delta, low, high, f"means of {runs[0]} and {counted(runs[1], 'run')}")


def _outcome(trial: Tried) -> Outcome:
    return Outcome(trial.number, trial.decision, trial.delta, trial.facts.low, trial.facts.high)


def _shown(value: Value) -> str:
    return str(value) if isinstance(value, bool | str) else f"{value:g}"
