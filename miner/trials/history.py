"""What a journal's trials say about earlier runs, to judge the next one. Pure.

Values are compared only with values of the same machine, so whatever looks back takes the machine's name: "" is the
one that the session itself runs on, others are those of a cluster (`miner.executors`).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile

from miner.journal.journal import Session, TrialRecord, seconds_of
from miner.journal.run import RunRecord
from miner.trials.listener import pairs
from trainer.errors import UNFIT
from trainer.judging.runs import ReplayRun
from trainer.machine import fitness
from trainer.statistics import pruning
from trainer.statistics.comparison import Arm
from trainer.statistics.mining import EARNING_TRIALS, RECENT, STALE_TRIALS, MiningPolicy, usable_history, worth_of

MOST_CUT = 0.05
"""Share of the training text up to which a run that lacks it counts as one of the whole."""


def values(of: TrialRecord, arm: Arm, machine: str = "") -> list[float]:
    """val_bpb of one arm's runs on one machine that gave one."""
    return [run.val_bpb for run in of.runs if run.arm is arm and run.machine == machine and run.val_bpb is not None]


def runs_of(session: Session, commit: str, machine: str = "") -> list[RunRecord]:
    """All runs of one commit's code on one machine, in order, whichever arm it was."""
    trials = session.sums.involving(commit)
    return [run for t in trials for run in t.runs if run.machine == machine and t.commit_of(run) == commit]


def incumbent_values(session: Session, current: TrialRecord, machine: str = "") -> list[float]:
    """The incumbent's values from before this trial. Those that made it the incumbent were chosen for being
    low, so `usable_history` says which of them still count. What confirmed it was not chosen, and counts."""
    selected: list[float] = []
    fresh: list[float] = []
    for earlier in _involved(session, current):
        _tell(earlier, current.base, machine, selected, fresh)
    confirmed = [] if machine else confirming_runs(session, current)
    return usable_history(selected, [*(run.val_bpb for _, run in confirmed if run.val_bpb is not None), *fresh])


def _involved(session: Session, current: TrialRecord) -> Iterator[TrialRecord]:
    """The trials before one that may have run its incumbent, but for those beside it: what ends while it is open must
    not change its looks."""
    earlier = takewhile(lambda t: t.number < current.number, session.sums.involving(current.base))
    return (trial for trial in earlier if trial.number not in current.beside)


def confirming_runs(session: Session, current: TrialRecord) -> list[tuple[str, ReplayRun]]:
    """The runs with a value, and when they ended, of a trial's incumbent as the candidate of confirming tests before
    it, but where much of the text was held out from training. What it was tested against is in the machine's
    record of noise already."""
    tests = [t for t in session.confirmations[: current.tests] if t.commit == current.base and t.cut <= MOST_CUT]
    runs = [(entry.at, entry.run) for test in tests if test.passed is not None for entry in test.runs]
    return [(at, run) for at, run in runs if run.arm == Arm.CANDIDATE.value and run.val_bpb is not None]


def stale(session: Session, current: TrialRecord, machine: str = "") -> bool:
    """Whether a machine's last trials told nothing of the incumbent, so that a run of it comes first."""
    there = (t for t in _before(session, current) if any(run.machine == machine for run in t.runs))
    last = list(islice(there, STALE_TRIALS))
    return len(last) == STALE_TRIALS and not any(values(t, Arm.INCUMBENT, machine) for t in last)


def recent(session: Session, current: TrialRecord) -> bool:
    """Whether this machine ran the incumbent just before the candidate's first run; where that is still to be made,
    before the trial began."""
    against = [trial for trial in _involved(session, current) if trial.base == current.base]
    runs = [run for trial in against for run in trial.runs if run.arm is Arm.INCUMBENT and not run.machine]
    ended = [(run.at, run.seconds) for run in runs if run.val_bpb is not None]
    ended += [(at, run.seconds) for at, run in confirming_runs(session, current)]
    last, seconds = max(ended, default=("", 0.0))
    first = next((run for run in current.own_runs if run.val_bpb is not None), None)
    then, now = seconds_of(last), seconds_of(first.at if first else current.at)
    if then is None or now is None:
        return False
    between = now - (first.seconds if first else 0.0) - then
    return abs(between) <= RECENT * seconds  # a run of long after is a clock that was set back


def policy(session: Session, current: TrialRecord, machine: str = "") -> MiningPolicy:
    """What a trial is judged by, as the session before it says."""
    finished = list(islice((t for t in _before(session, current) if t.number and t.decision), EARNING_TRIALS))
    earned = worth_of((len(t.runs), t.delta if t.kept and t.delta else 0.0) for t in reversed(finished))
    is_stale, is_recent = stale(session, current, machine), not machine and recent(session, current)
    return MiningPolicy.now(stale=is_stale, recent=is_recent, worth=earned)


def _before(session: Session, current: TrialRecord) -> Iterator[TrialRecord]:
    """The trials that had ended before one began, the latest first."""
    latest = islice(reversed(session.trials), len(session.trials) - min(current.number, len(session.trials)), None)
    return (trial for trial in latest if trial.number not in current.beside)


def rates(runs: Sequence[RunRecord]) -> list[float]:
    """Tokens per second of the runs that ended well."""
    return [rate for run in runs if not run.failure and (rate := run.tokens_per_second)]


def rates_in_force(runs: Sequence[RunRecord]) -> list[float]:
    """The tokens per second that a further run of the same code on the same machine is held against."""
    ended = [run for run in runs if run.failure in ("", UNFIT)]
    return list(fitness.in_force((rate, run.failure == UNFIT) for run in ended if (rate := run.tokens_per_second)))


def band(runs: Sequence[RunRecord]) -> pruning.Band | None:
    """What the curves of candidates are held against, by the incumbent's runs."""
    return pruning.Band.of([run.curve for run in runs if not run.failure])


def rules(
    session: Session, current: TrialRecord, sigma: float | None, *, budget_seconds: float, machine: str = ""
) -> pruning.PruningRules:
    """The rules of pruning as this session's finished runs on a machine calibrate them; `sigma` is its noise (bpb)."""
    against = band(runs_of(session, current.base, machine))
    finished = []
    selected: list[float] = []
    fresh: list[float] = []
    for t in session.sums.involving(current.base):
        if t.base == current.base and t.decision:
            runs = [
                (run.curve, run.val_bpb)
                for run in t.runs
                if run.arm is Arm.CANDIDATE and run.machine == machine and run.val_bpb is not None
            ]
            seen = [*values(t, Arm.INCUMBENT, machine), *usable_history(selected, fresh)]
            if seen:
                finished.append((statistics.fmean(seen), runs))
        _tell(t, current.base, machine, selected, fresh)
    usual = pruning.PruningRules()
    return usual.calibrated(pairs(finished, against, sigma, budget_seconds=budget_seconds, rules=usual))


def _tell(trial: TrialRecord, base: str, machine: str, selected: list[float], fresh: list[float]) -> None:
    """Add what a trial's runs say of the commit `base`: those that made it the incumbent, and those since."""
    if trial.commit == base and trial.number:
        selected += values(trial, Arm.CANDIDATE, machine)
    elif trial.base == base:
        fresh += values(trial, Arm.INCUMBENT, machine)
