"""The files that OpenResearch clients share: trials.jsonl, network_state.json and results.tsv.

What is written here other clients read, and what is read here they wrote: exactly the fields of their formats, of
their types, and nothing else. Pure functions over text and bytes; a refusal is an `InvalidRecord` that names the
line or field. `samples.json` is read and written by `trainer.project.samples`, archives by `trainer.project.bundle`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from chain.money import score
from chain.program.accounts import Project
from common import strict
from trainer.errors import TrainerError

MAX_FILE: Final = 64 * 1024 * 1024
MAX_LINE: Final = 256 * 1024
MAX_ROWS: Final = 1_000_000
HEADER: Final = "commit\tval_bpb\tmemory_gb\tstatus\tdescription"
DIRECTIONS: Final = ("minimize", "maximize")
CLUSTERS: Final = {"mainnet": "mainnet-beta", "embedded": "localnet"}
"""Networks that other clients call by another name."""
_HEX: Final = re.compile("[0-9a-f]+")
_INTEGER: Final = re.compile("-?(0|[1-9][0-9]{0,77})")
_DECIMAL: Final = re.compile(r"[0-9]{1,12}\.[0-9]{1,12}")


class InvalidRecord(TrainerError):
    """A file of another client, or of ours, that is not in the format it should have."""


@dataclass(frozen=True, slots=True)
class TrialLine:
    """One line of trials.jsonl: a trial and what came of it.

    `error` is empty where there was none; `primary_metric_value` None where no run gave one. The last four are
    optional in the file: None is left out. Commits have 40 hex digits, a tree hash 64.
    """

    trial_id: str
    utc_timestamp: str
    protocol_bundle_id: str
    run_ok: bool
    primary_metric_name: str
    primary_metric_value: float | None
    direction: str
    beats_local_best: bool
    beats_network_best: bool
    stdout_log_path: str
    git_head_before: str | None
    git_head_after: str | None
    harness_exit_code: int
    error: str
    hypothesis: str | None = None
    base_commit: str | None = None
    head_commit: str | None = None
    tree_hash: str | None = None


@dataclass(frozen=True, slots=True)
class NetworkState:
    """network_state.json of a Solana project: the frontier as the chain holds it.

    `aggregate_score` is the score on chain at `metric_scale`; `network_best_metric` the metric it stands for.
    """

    protocol_bundle_id: str
    project_id: int
    cluster: str
    program_id: str
    network_best_metric: float | None
    aggregate_score: int
    metric_scale: int
    metric_name: str
    direction: str
    updated_at: str
    code_origin: str | None = None
    min_score_improvement_bips: int | None = None


@dataclass(frozen=True, slots=True)
class ResultLine:
    """A line of results.tsv; a crash is 0.000000 and 0.0. Memory in GiB."""

    commit: str
    val_bpb: Decimal
    memory_gb: Decimal
    status: str
    description: str


# --- trials.jsonl ---

_TRIAL: Final[Mapping[str, Any]] = {
    "trial_id": str,
    "utc_timestamp": "time",
    "protocol_bundle_id": str,
    "run_ok": bool,
    "primary_metric_name": str,
    "primary_metric_value": "number or null",
    "direction": "direction",
    "beats_local_best": bool,
    "beats_network_best": bool,
    "stdout_log_path": str,
    "git_head_before": "text or null",
    "git_head_after": "text or null",
    "harness_exit_code": int,
    "error": str,
}
_TRIAL_OPTIONAL: Final[Mapping[str, Any]] = {
    "hypothesis": str,
    "base_commit": 40,
    "head_commit": 40,
    "tree_hash": 64,
}


def trials_text(records: Iterable[TrialLine]) -> str:
    """The file for these records, one object a line."""
    lines = []
    for record in records:
        given = {
            name: value for name, value in asdict(record).items() if name not in _TRIAL_OPTIONAL or value is not None
        }
        lines.append(json.dumps({"schemaVersion": "1", **given}, sort_keys=True, allow_nan=False) + "\n")
    return "".join(lines)


def read_trials(data: bytes) -> list[TrialLine]:
    """The records of a trials.jsonl; InvalidRecord naming the line. Empty lines are none."""
    records = []
    for number, line in enumerate(_lines(data, "trials.jsonl"), start=1):
        if line.strip():
            what = f"Line {number} of trials.jsonl"
            values = _fields(_object(line, what), what, _TRIAL, _TRIAL_OPTIONAL)
            records.append(TrialLine(**values))
    return records


# --- network_state.json ---

_STATE: Final[Mapping[str, Any]] = {
    "source": "solana",
    "protocolBundleId": str,
    "project_id": "count",
    "cluster": str,
    "program_id": str,
    "network_best_metric": "number or null",
    "aggregate_score_int256": "integer text",
    "metric_scale": "count",
    "metric_name": str,
    "direction": "direction",
    "updated_at": "time",
}
_STATE_OPTIONAL: Final[Mapping[str, Any]] = {"code_origin": "origin", "min_score_improvement_bips": "count"}
_RENAMED: Final = {"protocolBundleId": "protocol_bundle_id", "aggregate_score_int256": "aggregate_score"}


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
    return state_text(
        NetworkState(
            protocol_bundle_id=bundle_id,
            project_id=project.id,
            cluster=CLUSTERS.get(network, network),
            program_id=program_id,
            network_best_metric=float(convention.to_metric(best)),
            aggregate_score=best,
            metric_scale=score.SCALE,
            metric_name=metric,
            direction="minimize" if convention.minimize else "maximize",
            updated_at=updated_at,
            code_origin="currentBestCode" if approved else "repoSnapshot",
            min_score_improvement_bips=min_improvement_bips,
        )
    )


def state_text(state: NetworkState) -> str:
    """The file for a state: indented, with a final newline."""
    names = {name: other for other, name in _RENAMED.items()}
    given = {names.get(name, name): value for name, value in asdict(state).items() if value is not None}
    document = {
        "schemaVersion": "1",
        "source": "solana",
        "network_best_metric": None,
        **given,
        "aggregate_score_int256": str(state.aggregate_score),
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def read_network_state(data: bytes) -> NetworkState:
    """The state in a network_state.json of a Solana project; InvalidRecord naming the field."""
    what = "network_state.json"
    if len(data) > MAX_LINE:
        raise InvalidRecord(f"{what} has {len(data)} bytes, at most {MAX_LINE} are read.")
    values = _fields(_object(data, what), what, _STATE, _STATE_OPTIONAL)
    del values["source"]
    state = NetworkState(**{_RENAMED.get(name, name): value for name, value in values.items()})
    if state.metric_scale < 1:
        raise InvalidRecord(f"{what}: metric_scale is {state.metric_scale}, expected 1 or more.")
    return state


# --- results.tsv ---


def results_text(results: Iterable[ResultLine]) -> str:
    """The file for these lines, with its header."""
    rows = [
        f"{row.commit}\t{row.val_bpb:.6f}\t{row.memory_gb:.1f}\t{row.status}\t{' '.join(row.description.split())}"
        for row in results
    ]
    return "\n".join([HEADER, *rows]) + "\n"


def read_results(data: bytes) -> list[ResultLine]:
    """The lines of a results.tsv; InvalidRecord naming the line."""
    header, *rows = _lines(data, "results.tsv") or [b""]
    if header.decode(errors="replace") != HEADER:
        raise InvalidRecord(f"results.tsv should begin with the columns {HEADER.split()}, not {header[:100]!r}.")
    return [_result(row, number) for number, row in enumerate(rows, start=2) if row]


def _result(row: bytes, number: int) -> ResultLine:
    what = f"Line {number} of results.tsv"
    try:
        commit, value, memory, status, description = row.decode().split("\t")
    except ValueError:
        raise InvalidRecord(f"{what} is not five columns of UTF-8: {row[:100]!r}.") from None
    if not (7 <= len(commit) <= 64 and _HEX.fullmatch(commit)):
        raise InvalidRecord(f"{what}: {commit[:80]!r} is not a commit.")
    if not (_DECIMAL.fullmatch(value) and _DECIMAL.fullmatch(memory)):
        raise InvalidRecord(f"{what}: {value[:40]!r} and {memory[:40]!r} should be decimal numbers.")
    if status not in ("keep", "discard", "crash"):
        raise InvalidRecord(f"{what}: the status is keep, discard or crash, not {status[:40]!r}.")
    result = ResultLine(commit, Decimal(value), Decimal(memory), status, description)
    if status == "crash" and (result.val_bpb or result.memory_gb):
        raise InvalidRecord(f"{what}: a crash is 0.000000 and 0.0, not {value} and {memory}.")
    return result


# --- strict JSON ---


def _lines(data: bytes, what: str) -> list[bytes]:
    """Without the line feeds; a last line that lacks one counts."""
    if len(data) > MAX_FILE:
        raise InvalidRecord(f"{what} has {len(data)} bytes, at most {MAX_FILE} are read.")
    lines = data.split(b"\n", MAX_ROWS)
    if len(lines) > MAX_ROWS or any(len(line) > MAX_LINE for line in lines):
        raise InvalidRecord(f"{what} has over {MAX_ROWS} lines, or one of over {MAX_LINE} bytes.")
    return lines[:-1] if not lines[-1] else lines


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(data.decode(), parse_constant=strict.no_number, object_pairs_hook=strict.unique_keys)
    except (ValueError, RecursionError) as error:
        raise InvalidRecord(f"{what} is not valid JSON: {str(error)[:200]}.") from None
    if not isinstance(value, dict):
        raise InvalidRecord(f"{what} is not a JSON object.")
    return value


def _fields(
    document: dict[str, Any], what: str, required: Mapping[str, Any], optional: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of a document that has all required fields and no unknown one, each of its kind."""
    if document.pop("schemaVersion", None) != "1":
        raise InvalidRecord(f'{what}: schemaVersion should be "1".', "A newer client wrote it; update this one.")
    missing, unknown = required.keys() - document.keys(), document.keys() - required.keys() - optional.keys()
    if missing or unknown:
        names = sorted(name[:80] for name in missing or unknown)
        raise InvalidRecord(f"{what}: {', '.join(names)} {'missing' if missing else 'not known'}.")
    kinds = {**required, **optional}
    return {name: _value(value, kinds[name], f"{what}: {name}") for name, value in document.items()}


def _value(value: Any, kind: Any, where: str) -> Any:
    """`value`, where it is of a kind; a reading of it for the kinds that have one."""
    text = value if isinstance(value, str) and len(value) <= MAX_LINE and _is_unicode(value) else None
    match kind:
        case type():
            whole = value if type(value) is int else 0
            fits = type(value) is kind and (kind is not str or text is not None) and -(2**63) <= whole < 2**63
        case int():
            fits = value is None or (text is not None and len(text) == kind and bool(_HEX.fullmatch(text)))
        case "text or null":
            fits = value is None or text is not None
        case "number or null":
            fits = value is None or (type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value))
            value = float(value) if fits and value is not None else value
        case "count":
            fits = type(value) is int and 0 <= value < 2**63
        case "integer text":
            fits = text is not None and bool(_INTEGER.fullmatch(text))
            value = int(value) if fits else value
        case "direction":
            fits = value in DIRECTIONS
        case "origin":
            fits = value in ("currentBestCode", "repoSnapshot")
        case "time":
            fits = text is not None and _is_time(text)
        case _:
            fits = value == kind
    if not fits:
        raise InvalidRecord(f"{where} holds {repr(value)[:100]}, which does not fit.")
    return value


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold it: a lone surrogate from a JSON escape could not be written back."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_time(text: str) -> bool:
    try:
        return len(text) <= 40 and datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
