"""A session's records for other OpenResearch clients: results.tsv and trials.jsonl.

Both are written anew from the session journal, whole or not at all, so they never disagree with it. The formats are
`miner.journal.interop`'s.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from common.files import write_atomic
from miner.journal.interop import ResultLine, TrialLine, results_text, trials_text
from miner.journal.journal import TrialRecord
from trainer.project.protocol import Protocol

RESULTS, TRIALS = "results.tsv", "trials.jsonl"


def results_tsv(trials: Sequence[TrialRecord]) -> str:
    """One line per finished trial: the mean val_bpb of its runs and the largest memory of any."""
    rows = []
    for trial in trials:
        if not trial.decision:
            continue
        values = trial.own_values
        ok = trial.decision != "crash" and bool(values)
        memory = max((run.memory_mb or 0.0 for run in trial.own_runs), default=0.0) / 1024
        rows.append(
            ResultLine(
                trial.commit[:7],
                Decimal(statistics.fmean(values)) if ok else Decimal(0),
                Decimal(memory) if ok else Decimal(0),
                trial.decision,
                trial.hypothesis,
            )
        )
    return results_text(rows)


def trials_jsonl(trials: Sequence[TrialRecord], *, bundle_id: str, metric: str, direction: str) -> str:
    """One object per finished trial, with the fields existing clients expect."""
    return trials_text(_record(trial, bundle_id, metric, direction) for trial in trials if trial.decision)


def _record(trial: TrialRecord, bundle_id: str, metric: str, direction: str) -> TrialLine:
    values, runs = trial.own_values, trial.own_runs
    failed = next((run for run in reversed(runs) if run.failure), None)
    return TrialLine(
        trial_id=f"{trial.number:04d}",
        utc_timestamp=runs[-1].at if runs else "",
        protocol_bundle_id=bundle_id,
        run_ok=bool(values),
        primary_metric_name=metric,
        primary_metric_value=statistics.fmean(values) if values else None,
        direction=direction,
        beats_local_best=trial.kept,
        beats_network_best=trial.kept,
        stdout_log_path=runs[-1].log if runs else "",
        git_head_before=trial.base,
        git_head_after=trial.commit if trial.kept else trial.base,
        harness_exit_code=0 if values else 1,
        error=failed.failure if failed else "",
        hypothesis=trial.hypothesis,
        base_commit=trial.base,
        head_commit=trial.commit,
    )


def write(folder: Path, trials: Sequence[TrialRecord], protocol: Protocol) -> None:
    """Bring both files in a session's folder up to date."""
    primary = protocol.primary
    lines = trials_jsonl(trials, bundle_id=protocol.bundle_id, metric=primary.name, direction=primary.direction)
    write_atomic(folder / RESULTS, results_tsv(trials).encode())
    write_atomic(folder / TRIALS, lines.encode())
