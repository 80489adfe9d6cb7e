"""The files that OpenResearch clients share: results.tsv, trials.jsonl and network_state.json.

The first two are written anew from the session's journal, whole or not at all, so they never disagree with it. Each
holds exactly the fields of its format. Archives are `trainer.project.bundle`'s.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from chain.money import score
from chain.program.accounts import Project
from common.files import write_atomic
from miner.journal.journal import TrialRecord
from trainer.project.protocol import Protocol

RESULTS, TRIALS, STATE = "results.tsv", "trials.jsonl", "network_state.json"
HEADER: Final = "commit\tval_bpb\tmemory_gb\tstatus\tdescription"
CLUSTERS: Final = {"mainnet": "mainnet-beta", "embedded": "localnet"}
"""Networks that other clients call by another name."""


def results_tsv(trials: Sequence[TrialRecord]) -> str:
    """One line per finished trial: the mean val_bpb of its runs and the largest memory of any, in GiB.

    A crash is 0.000000 and 0.0.
    """
    rows = [HEADER]
    for trial in trials:
        if not trial.decision:
            continue
        values, value, memory = trial.own_values, Decimal(0), 0.0
        if values and trial.decision != "crash":
            value = Decimal(statistics.fmean(values))
            memory = max((run.memory_mb or 0.0 for run in trial.own_runs), default=0.0) / 1024
        words = " ".join(trial.hypothesis.split())
        rows.append(f"{trial.commit[:7]}\t{value:.6f}\t{Decimal(memory):.1f}\t{trial.decision}\t{words}")
    return "\n".join(rows) + "\n"


def trials_jsonl(trials: Sequence[TrialRecord], *, bundle_id: str, metric: str, direction: str) -> str:
    """One object per finished trial, with the fields existing clients expect."""
    lines = [_line(trial, bundle_id, metric, direction) for trial in trials if trial.decision]
    return "".join(json.dumps(line, sort_keys=True, allow_nan=False) + "\n" for line in lines)


def _line(trial: TrialRecord, bundle_id: str, metric: str, direction: str) -> dict[str, Any]:
    values, runs = trial.own_values, trial.own_runs
    return {
        "schemaVersion": "1",
        "trial_id": f"{trial.number:04d}",
        "utc_timestamp": runs[-1].at if runs else "",
        "protocol_bundle_id": bundle_id,
        "run_ok": bool(values),
        "primary_metric_name": metric,
        "primary_metric_value": statistics.fmean(values) if values else None,
        "direction": direction,
        "beats_local_best": trial.kept,
        "beats_network_best": trial.kept,
        "stdout_log_path": runs[-1].log if runs else "",
        "git_head_before": trial.base,
        "git_head_after": trial.commit if trial.kept else trial.base,
        "harness_exit_code": 0 if values else 1,
        "error": next((run.failure for run in reversed(runs) if run.failure), ""),
        "hypothesis": trial.hypothesis,
        "base_commit": trial.base,
        "head_commit": trial.commit,
    }


def write(folder: Path, trials: Sequence[TrialRecord], protocol: Protocol) -> None:
    """Bring results.tsv and trials.jsonl in a session's folder up to date."""
    primary = protocol.primary
    lines = trials_jsonl(trials, bundle_id=protocol.bundle_id, metric=primary.name, direction=primary.direction)
    write_atomic(folder / RESULTS, results_tsv(trials).encode())
    write_atomic(folder / TRIALS, lines.encode())


def network_state_json(
    project: Project,
    convention: score.Convention,
    *,
    bundle_id: str,
    network: str,
    program_id: str,
    metric: str,
    updated_at: str,
    min_improvement_bips: int | None = None,
) -> str:
    """network_state.json for a project's account: its best on chain, as a metric by the project's own convention.

    `network` is our name of it, `program_id` base58, `updated_at` ISO 8601 with a zone.
    """
    approved = any(project.current_best_code_hash)
    best = project.current_best_aggregate_score if approved else project.baseline_aggregate_score
    document = {
        "schemaVersion": "1",
        "source": "solana",
        "protocolBundleId": bundle_id,
        "project_id": project.id,
        "cluster": CLUSTERS.get(network, network),
        "program_id": program_id,
        "network_best_metric": float(convention.to_metric(best)),
        "aggregate_score_int256": str(best),
        "metric_scale": score.SCALE,
        "metric_name": metric,
        "direction": "minimize" if convention.minimize else "maximize",
        "updated_at": updated_at,
        "code_origin": "currentBestCode" if approved else "repoSnapshot",
    }
    if min_improvement_bips is not None:
        document["min_score_improvement_bips"] = min_improvement_bips
    return json.dumps(document, indent=2, allow_nan=False) + "\n"
