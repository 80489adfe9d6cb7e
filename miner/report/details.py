"""All trials as data in the page: a row each, and the details of as many as fit, deflated and in base64.

Rows come first; then the details of what was kept, then of the newest. The page's script unpacks one trial at a time
and writes it as text, never as markup.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

from common.text import printable
from miner.journal.journal import TrialRecord
from miner.journal.run import LossCurve, RunRecord
from miner.report import summary
from miner.report.material import Exhibit, Material
from miner.report.summary import WORDS

MAX_POINTS = 40  # of one loss curve
MAX_RUNS = 30  # of one trial
MAX_HYPOTHESIS = 160


def row(trial: TrialRecord, states: Mapping[int, str]) -> dict[str, Any]:
    """A trial in the table: numbers, `kind` for its colour, and the word for what became of it."""
    point = summary.point(trial)
    own = trial.decision if trial.decision in ("keep", "discard", "crash") else "open"
    return {
        "n": trial.number,
        "idea": printable(trial.hypothesis, MAX_HYPOTHESIS),
        "count": len(trial.runs),
        "value": _rounded(point.value),
        "delta": _rounded(trial.delta) if trial.number else None,
        "low": _rounded(trial.low) if trial.number else None,
        "high": _rounded(trial.high) if trial.number else None,
        "kind": own if trial.number else "baseline",
        "word": states.get(trial.number) or WORDS.get(trial.decision, "") if trial.number else "baseline",
    }


def packed(material: Material, most: int) -> str:
    """The page's data as JSON of two base64 texts, at most about `most` bytes: `rows`, and `details` by trial."""
    trials, states = material.session.trials, material.states
    rows = [row(trial, states) for trial in trials]
    names = list(rows[0]) if rows else []
    columns = {name: [entry[name] for entry in rows] for name in names}
    table, found = _deflated(columns), {}
    left = most - len(table)
    for trial in sorted(trials, key=lambda trial: (trial.kept, trial.number), reverse=True):
        if trial.number not in material.exhibits:
            continue
        text = _deflated(_details(trial, material))
        left -= len(text) + 12
        if left < 0:
            break
        found[str(trial.number)] = text
    return json.dumps({"rows": table, "details": found})


def _deflated(document: Any) -> str:
    plain = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    return base64.b64encode(zlib.compress(plain, 9)).decode()


def _details(trial: TrialRecord, material: Material) -> dict[str, Any]:
    exhibit = material.exhibits.get(trial.number, Exhibit())
    said = [f"{WORDS.get(trial.decision, '') or 'open'}: {trial.reason}" if trial.reason else ""]
    said += [
        f"p = {trial.p:.2g}" if trial.p is not None else "",
        f"proposed by {trial.proposer}" if trial.proposer else "",
        f"begun {trial.at}" if trial.at else "",
        f"decided {trial.decided}" if trial.decided else "",
        f"commit {trial.commit[:12]} on {trial.base[:12]}",
    ]
    base = summary.curves(material.session, trial.base, last=2) if trial.number else []
    return {
        "said": printable("; ".join(part for part in said if part), 600),
        "runs": [_run(run) for run in trial.runs[:MAX_RUNS]],
        "curves": [_thin(run.curve) for run in trial.own_runs[:4] if len(run.curve) > 1],
        "base": [_thin(curve) for curve in base if len(curve) > 1],
        "diff": list(exhibit.diff),
        "missing": exhibit.missing,
        "log": list(exhibit.log),
        "logName": exhibit.log_name,
    }


def _run(run: RunRecord) -> list[Any]:
    words = [run.failure, run.detail if run.failure else "", *run.conditions]
    rate = None if run.tokens_per_second is None else round(run.tokens_per_second)
    remark = printable("; ".join(word for word in words if word), 160)
    return [run.arm.value, _rounded(run.val_bpb), rate, round(run.seconds), remark]


def _thin(curve: LossCurve) -> list[list[float]]:
    """At most MAX_POINTS finite points, in order of time."""
    points = sorted((t, loss) for t, loss in curve if math.isfinite(t) and math.isfinite(loss))
    every = max(1, math.ceil(len(points) / MAX_POINTS))
    return [[round(t, 1), round(loss, 4)] for t, loss in [*points[:-1:every], *points[-1:]]]


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 6)
