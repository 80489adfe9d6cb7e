"""The files that OpenResearch clients share: results.tsv, trials.jsonl and network_state.json.

The first two follow from the session's journal, in the order of the decisions. Each holds exactly the fields of its
format. Archives are `trainer.project.bundle`'s.
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
from common.files import append, write_atomic
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
    return HEADER + "\n" + "".join(_row(trial) for trial in trials if trial.decision)


def _row(trial: TrialRecord) -> str:
    values, value, memory = trial.own_values, Decimal(0), 0.0
    if values and trial.decision != "crash":
        value = Decimal(statistics.fmean(values))
        memory = max((run.memory_mb or 0.0 for run in trial.own_runs), default=0.0) / 1024
    words = " ".join(trial.hypothesis.split())
    return f"{trial.commit[:7]}\t{value:.6f}\t{Decimal(memory):.1f}\t{trial.decision}\t{words}\n"


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


class Records:
    """results.tsv and trials.jsonl in a session's folder, kept up to date with its journal.

    They are written anew once, whole or not at all, and grow by what was decided since; a line that a kill cut short
    is gone with the next start.
    """

    def __init__(self, folder: Path, protocol: Protocol) -> None:
        self._folder, self._protocol = folder, protocol
        self._written: int | None = None  # of the finished trials

    def update(self, decided: Sequence[TrialRecord]) -> None:
        """Write what is missing; `decided` are the finished trials in the order of their decisions."""
        new = decided[self._written or 0 :]
        primary = self._protocol.primary
        lines = trials_jsonl(new, bundle_id=self._protocol.bundle_id, metric=primary.name, direction=primary.direction)
        rows = results_tsv(new)
        for name, text in ((RESULTS, rows), (TRIALS, lines)):
            if self._written is None:
                write_atomic(self._folder / name, text.encode())
            else:
                with (self._folder / name).open("ab", buffering=0) as file:
                    append(file, text.removeprefix(HEADER + "\n").encode())
        self._written = len(decided)


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
