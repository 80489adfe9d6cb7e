"""What the trials of a journal say of earlier runs, and how a trial's outcome is written into it. Pure.

Values are compared only with values of the same machine, so whatever looks back takes the machine's name: "" is the
one that the session itself runs on, others are those of a cluster (`miner.executors`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from miner.journal.journal import Session, TrialRecord
from miner.trials.pruner import pairs, seconds_of
from trainer.judging import trial
from trainer.machine import fitness as machines
from trainer.measurement.run import UNFIT, Run
from trainer.statistics import curve, pruning
from trainer.statistics.comparison import Answer, Arm
from trainer.statistics.mining import STALE_TRIALS, MiningPolicy, usable_history, worth_of

Entry = Mapping[str, Any]  # a run as the journal has it: see `miner.journal.journal.Trial`

_WORDS: Mapping[Answer, str] = {
    Answer.APPROVE: "the gain is significant",
    Answer.REJECT: "no gain of the size looked for",
    Answer.UNDECIDED: "too noisy to tell within the limit of runs",
}
SPARED = "what gain it may have is small beside what as many other runs have found"
MOVED = "the gain is significant, but the incumbent changed meanwhile: it is measured against the new one"


def values(of: TrialRecord, arm: Arm, machine: str = "") -> list[float]:
    """val_bpb of one arm's runs on one machine that gave one."""
    return [
        run["val_bpb"]
        for run in of.runs
        if run["arm"] == arm.value and run["machine"] == machine and run["val_bpb"] is not None
    ]


def runs_of(session: Session, commit: str, machine: str = "") -> list[dict[str, Any]]:
    """All runs of one commit's code on one machine, in order, whichever arm it was."""
    return [
        run
        for t in session.trials
        for run in t.runs
        if run["machine"] == machine and (t.commit if run["arm"] == Arm.CANDIDATE.value else t.base) == commit
    ]


def history(session: Session, current: TrialRecord, machine: str = "") -> list[float]:
    """The incumbent's values from before this trial. Those that made it the incumbent were chosen for being
    low, so `usable_history` says which of them still count."""
    selected: list[float] = []
    fresh: list[float] = []
    for earlier in session.trials[: current.number]:
        if earlier.commit == current.base and earlier.number:
            selected += values(earlier, Arm.CANDIDATE, machine)
        elif earlier.base == current.base:
            fresh += values(earlier, Arm.INCUMBENT, machine)
    return usable_history(selected, fresh)


def stale(session: Session, current: TrialRecord, machine: str = "") -> bool:
    """Whether a machine's last trials told nothing of the incumbent, so that a run of it comes first."""
    there = [t for t in session.trials[: current.number] if any(run["machine"] == machine for run in t.runs)]
    last = there[-STALE_TRIALS:]
    return len(last) == STALE_TRIALS and not any(values(t, Arm.INCUMBENT, machine) for t in last)


def policy(session: Session, current: TrialRecord, machine: str = "") -> MiningPolicy:
    """What a trial is judged by, as the session before it says."""
    finished = [t for t in session.trials[: current.number] if t.number and t.decision]
    earned = worth_of((len(t.runs), t.delta if t.kept and t.delta else 0.0) for t in finished)
    return MiningPolicy(early_refresh=int(stale(session, current, machine)), worth=earned)


def rates(runs: Sequence[Entry]) -> list[float]:
    """Tokens per second of the runs that ended well."""
    return [rate for run in runs if not run["failure"] and (rate := run["tokens_per_second"])]


def rates_in_force(runs: Sequence[Entry]) -> list[float]:
    """The tokens per second that a further run of the same code on the same machine is held against."""
    ended = [run for run in runs if run["failure"] in ("", UNFIT)]
    return list(
        machines.in_force((rate, run["failure"] == UNFIT) for run in ended if (rate := run["tokens_per_second"]))
    )


def band(runs: Sequence[Entry]) -> pruning.Band | None:
    """What candidates are raced against, by the incumbent's runs."""
    return pruning.Band.of([curve_of(run) for run in runs if not run["failure"]])


def rules(
    session: Session, current: TrialRecord, sigma: float | None, *, budget_seconds: float, machine: str = ""
) -> pruning.PruningRules:
    """The rules of racing as this session's finished runs on a machine calibrate them; `sigma` is its noise (bpb)."""
    against = band(runs_of(session, current.base, machine))
    finished = []
    for t in session.trials:
        if t.base != current.base or not t.decision:
            continue
        runs = [
            (curve_of(run), run["val_bpb"])
            for run in t.runs
            if run["arm"] == Arm.CANDIDATE.value and run["machine"] == machine and run["val_bpb"] is not None
        ]
        seen = [*values(t, Arm.INCUMBENT, machine), *history(session, t, machine)]
        if seen:
            finished.append((statistics.fmean(seen), runs))
    usual = pruning.PruningRules()
    return usual.calibrated(pairs(finished, against, sigma, budget_seconds=budget_seconds, rules=usual))


def curve_of(run: Entry) -> list[tuple[float, float]]:
    """A run's loss curve as (seconds, nats)."""
    return [(float(seconds), float(loss)) for seconds, loss in run["curve"]]


def entry(run: Run, conditions: Sequence[str], *, budget_seconds: float, machine: str = "") -> dict[str, Any]:
    """A run as the journal has it, but for its log's name."""
    seen = curve.of_log(run.log)
    return {
        "arm": run.arm.value,
        "val_bpb": run.val_bpb,
        "failure": run.failure,
        "detail": run.detail,
        "seconds": run.seconds,
        "memory_mb": run.memory_mb,
        "tokens_per_second": seen.tokens_per_second,
        "curve": seconds_of(seen, budget_seconds),
        "conditions": list(conditions),
        "machine": machine,
    }


def restored(run: Entry) -> Run:
    """A run from its entry, without its log."""
    value, memory = run["val_bpb"], run["memory_mb"]
    return Run(
        Arm(run["arm"]),
        float(value) if isinstance(value, int | float) else None,
        str(run["failure"]),
        str(run["detail"]),
        float(str(run["seconds"])),
        float(memory) if isinstance(memory, int | float) else None,
        b"",
    )


def decided(outcome: trial.Trial, *, moved: bool = False) -> dict[str, Any]:
    """What a trial's runs decide, as the journal has it.

    `moved` says that the incumbent it was measured against is no longer the head: then a gain is carried over.
    """
    evidence = outcome.decision.evidence if outcome.decision else None
    carry = False
    if outcome.given_up:
        decision, reason = "discard", outcome.given_up
    elif outcome.decision is None:
        decision, reason = "crash", outcome.failures(Arm.CANDIDATE)[-1].detail
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
