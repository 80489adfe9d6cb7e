"""Files that other OpenResearch clients read, beyond the records of `miner.records`."""

from __future__ import annotations

import json


def network_state_json(
    *,
    source: str,
    bundle_id: str,
    project_id: int,
    cluster: str,
    program_id: str,
    network_best_metric: str,
    aggregate_score: int,
    metric_scale: int,
    metric_name: str,
    direction: str,
    updated_at: str,
    code_origin: str,
) -> str:
    """The text of a network_state.json: the best on chain as existing clients write it."""
    document = {
        "schemaVersion": "1",
        "source": source,
        "protocolBundleId": bundle_id,
        "project_id": project_id,
        "cluster": cluster,
        "program_id": program_id,
        "network_best_metric": network_best_metric,
        "aggregate_score_int256": str(aggregate_score),
        "metric_scale": metric_scale,
        "metric_name": metric_name,
        "direction": direction,
        "updated_at": updated_at,
        "code_origin": code_origin,
    }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"
