"""Joint draws by Optuna: a multivariate TPE sampler fed with the session's trials, in a journal file.

The journal is a cache. It holds one study per search range; every trial of the history is in it under its
fingerprint before anything is asked, so a journal that is missing, behind or damaged is filled from the history.
Ranges start four times each way around the session's first value and widen where the incumbent nears an edge.
"""

from __future__ import annotations

import contextlib
import json
import random
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miner.proposers.base import Context, ProposerFailed
from miner.proposers.evidence import Move, Point, SearchHistory
from miner.proposers.space import Dimension
from trainer.project.hyperparameters import Value

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

REACH = 2.0  # doublings each way at first
EDGE = 0.5  # how near an edge the incumbent may be before the range widens
JOURNAL = "tune.journal"


def ask(
    context: Context, dims: list[Dimension], origin: Point, found: SearchHistory, *, few: int, seed: int
) -> list[Value]:
    """Values for all dimensions: `few` of them drawn jointly, by weight; the others are the incumbent's."""
    path = context.folder / JOURNAL
    path.parent.mkdir(parents=True, exist_ok=True)
    # One process holds the session, so a lock is what a killed one left.
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    try:
        return _ask(path, dims, origin, found, few, seed)
    except Exception:
        # A damaged journal raises all kinds of errors in Optuna; the history has all that is in it.
        path.unlink(missing_ok=True)
    try:
        return _ask(path, dims, origin, found, few, seed)
    except Exception as error:
        raise ProposerFailed(f"Optuna gave no suggestion: {error!r}.", f"Move {path} away.") from error


def _ask(path: Path, dims: list[Dimension], origin: Point, found: SearchHistory, few: int, seed: int) -> list[Value]:
    import warnings

    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    moves = [move for move in found.moves if move.level is not None or move.gain is None]
    first = found.moves[0].start if found.moves else origin
    ranges = {d.name: _range(d, start, at) for d, start, at in zip(dims, first, origin, strict=True)}
    name = sha256(json.dumps(ranges, sort_keys=True).encode()).hexdigest()[:16]
    free = _chosen(dims, few, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental parts of Optuna say so at every turn
        storage = JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
        sampler = optuna.samplers.PartialFixedSampler(
            {d.name: _inside(at, ranges[d.name]) for d, at in zip(dims, origin, strict=True) if d.name not in free},
            optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=0, constant_liar=False),
        )
        study = optuna.create_study(
            storage=storage, sampler=sampler, study_name=name, direction="maximize", load_if_exists=True
        )
        distributions = {d.name: _distribution(d, ranges[d.name]) for d in dims}
        _tell(study, moves, dims, ranges, distributions)
        asked = study.ask(distributions)
        drawn = {d.name: float(asked.params[d.name]) for d in dims}
        values = [
            dimension.at(drawn[dimension.name]) if dimension.name in free else dimension.value for dimension in dims
        ]
        # What becomes of it comes back through the history, with the values that were really run.
        with contextlib.suppress(ValueError):
            study.tell(asked, state=TrialState.FAIL)
    return values


def _tell(
    study: optuna.Study,
    moves: list[Move],
    dims: list[Dimension],
    ranges: dict[str, tuple[float, float]],
    distributions: dict[str, BaseDistribution],
) -> None:
    """Add the trials that the study does not know yet."""
    import optuna
    from optuna.trial import TrialState

    told = {trial.user_attrs.get("fingerprint") for trial in study.get_trials(deepcopy=False)}
    for move in moves:
        inside = all(ranges[d.name][0] <= at <= ranges[d.name][1] for d, at in zip(dims, move.end, strict=True))
        if move.fingerprint in told or not inside:
            continue
        params: dict[str, Any] = {d.name: at for d, at in zip(dims, move.end, strict=True)}
        crashed = move.gain is None
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.PRUNED if crashed else TrialState.COMPLETE,
                value=None if crashed else move.level,
                params=params,
                distributions=distributions,
                user_attrs={"fingerprint": move.fingerprint, "number": move.number},
            )
        )


def _chosen(dims: list[Dimension], few: int, seed: int) -> set[str]:
    rng = random.Random(seed)
    return set(sorted((d.name for d in dims), key=lambda n: _key(rng, dims, n))[:few])


def _key(rng: random.Random, dims: list[Dimension], name: str) -> float:
    """A weighted draw without replacement: exponential waiting times."""
    weight = next(d.weight for d in dims if d.name == name)
    return rng.expovariate(weight**0.5)


def _range(dimension: Dimension, first: float, at: float) -> tuple[float, float]:
    if dimension.scale == "choice":
        return 0.0, float(len(dimension.choices) - 1)
    low, high = first - REACH, first + REACH
    while at < low + EDGE:
        low -= REACH
    while at > high - EDGE:
        high += REACH
    return round(low, 6), round(high, 6)


def _inside(at: float, bounds: tuple[float, float]) -> float:
    return min(max(at, bounds[0]), bounds[1])


def _distribution(dimension: Dimension, bounds: tuple[float, float]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if dimension.scale == "choice":
        return CategoricalDistribution([float(index) for index in range(len(dimension.choices))])
    return FloatDistribution(*bounds)
