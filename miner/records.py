"""The records other OpenResearch clients read: results.tsv and trials.jsonl.

Both are written anew from the session ledger, whole or not at all, so they never disagree with it.
Formats: results.tsv has the columns commit, val_bpb, memory_gb, status (keep, discard, crash) and
description, a crash being 0.000000 and 0.0; trials.jsonl is one object a line, schemaVersion "1".
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any

from miner.ledger import Trial

HEADER = "commit\tval_bpb\tmemory_gb\tstatus\tdescription"


def results_tsv(trials: Sequence[Trial]) -> str:
    """One line per finished trial: the mean val_bpb of its runs and the largest memory of any."""
    lines = [HEADER]
    for trial in trials:
        if not trial.decision:
            continue
        values = own_values(trial)
        memory = max((run.get("memory_mb") or 0.0 for run in _own_runs(trial)), default=0.0) / 1024
        ok = trial.decision != "crash" and bool(values)
        lines.append(
            "\t".join(
                [
                    trial.commit[:7],
                    f"{statistics.fmean(values):.6f}" if ok else "0.000000",
                    f"{memory:.1f}" if ok else "0.0",
                    trial.decision,
                    " ".join(trial.hypothesis.split()),
                ]
            )
        )
    return "\n".join(lines) + "\n"


def trials_jsonl(trials: Sequence[Trial], *, bundle_id: str, metric: str, direction: str) -> str:
    """One object per finished trial, with the fields existing clients expect."""
    lines = []
    for trial in trials:
        if not trial.decision:
            continue
        values = own_values(trial)
        runs = _own_runs(trial)
        failed = next((run for run in reversed(runs) if run.get("failure")), None)
        record: dict[str, Any] = {
            "schemaVersion": "1",
            "trial_id": f"{trial.number:04d}",
            "utc_timestamp": runs[-1]["at"] if runs else "",
            "protocol_bundle_id": bundle_id,
            "run_ok": bool(values),
            "primary_metric_name": metric,
            "primary_metric_value": statistics.fmean(values) if values else None,
            "direction": direction,
            "beats_local_best": trial.kept,
            "beats_network_best": trial.kept,
            "stdout_log_path": runs[-1].get("log", "") if runs else "",
            "git_head_before": trial.base,
            "git_head_after": trial.commit if trial.kept else trial.base,
            "harness_exit_code": 0 if values else 1,
            "error": failed["failure"] if failed else None,
            "hypothesis": trial.hypothesis,
            "base_commit": trial.base,
            "head_commit": trial.commit,
        }
        lines.append(json.dumps(record, sort_keys=True))
    return "".join(line + "\n" for line in lines)


def own_values(trial: Trial) -> list[float]:
    """val_bpb of the trial's own runs that gave one."""
    return [run["val_bpb"] for run in _own_runs(trial) if run.get("val_bpb") is not None]


def _own_runs(trial: Trial) -> list[dict[str, Any]]:
    """The runs of the code that the trial is about: the candidate's, and the incumbent's for the baseline."""
    arm = "candidate" if trial.number else "incumbent"
    return [run for run in trial.runs if run["arm"] == arm]
