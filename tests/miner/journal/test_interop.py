"""Files that other OpenResearch clients write and read: ours come back, theirs are read, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.money import score
from chain.program import PROGRAM_ID
from chain.program.accounts import Project
from miner.journal import interop, records
from miner.journal.interop import InvalidRecord, NetworkState, ResultLine, TrialLine
from miner.journal.journal import TrialRecord
from miner.journal.run import RunRecord
from tests import local
from trainer.statistics.comparison import Arm

EXAMPLES = Path(__file__).parent / "examples"
TRIALS, STATE, RESULTS = (EXAMPLES / name for name in ("trials.jsonl", "network_state.json", "results.tsv"))

texts = st.text('abcdé日 \t"\\{}0123\n', max_size=12)
commits = st.text("0123456789abcdef", min_size=40, max_size=40)
times = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1)).map(
    lambda moment: moment.replace(tzinfo=UTC).isoformat()
)
finite = st.floats(-1e9, 1e9, allow_nan=False)
directions = st.sampled_from(interop.DIRECTIONS)
trial_records = st.builds(
    TrialLine,
    trial_id=texts,
    utc_timestamp=times,
    protocol_bundle_id=texts,
    run_ok=st.booleans(),
    primary_metric_name=texts,
    primary_metric_value=st.none() | finite,
    direction=directions,
    beats_local_best=st.booleans(),
    beats_network_best=st.booleans(),
    stdout_log_path=texts,
    git_head_before=st.none() | commits,
    git_head_after=st.none() | commits,
    harness_exit_code=st.integers(-255, 255),
    error=texts,
    hypothesis=st.none() | texts,
    base_commit=st.none() | commits,
    head_commit=st.none() | commits,
    tree_hash=st.none() | st.just("ab" * 32),
)
states = st.builds(
    NetworkState,
    protocol_bundle_id=texts,
    project_id=st.integers(0, 2**62),
    cluster=texts,
    program_id=texts,
    network_best_metric=st.none() | finite,
    aggregate_score=st.integers(-(2**255), 2**255),
    metric_scale=st.integers(1, 10**9),
    metric_name=texts,
    direction=directions,
    updated_at=times,
    code_origin=st.sampled_from([None, "currentBestCode", "repoSnapshot"]),
    min_score_improvement_bips=st.none() | st.integers(0, 10_000),
)
results = st.builds(
    lambda commit, value, memory, status, words: ResultLine(
        commit[:7],
        Decimal(0 if status == "crash" else value).scaleb(-6),
        Decimal(0 if status == "crash" else memory).scaleb(-1),
        status,
        " ".join(words),
    ),
    commits,
    st.integers(0, 10**9),
    st.integers(0, 10**5),
    st.sampled_from(["keep", "discard", "crash"]),
    st.lists(st.text("abcdé日", min_size=1, max_size=6), max_size=4),
)


# -- round trips --------------------------------------------------------------------------------------


@given(st.lists(trial_records, max_size=4))
def test_trials_come_back(given_records: list[TrialLine]) -> None:
    assert interop.read_trials(interop.trials_text(given_records).encode()) == given_records


@given(states)
def test_a_state_comes_back(state: NetworkState) -> None:
    assert interop.read_network_state(interop.state_text(state).encode()) == state


@given(st.lists(results, max_size=4))
def test_results_come_back(rows: list[ResultLine]) -> None:
    assert interop.read_results(interop.results_text(rows).encode()) == rows


# -- files as other clients write them ----------------------------------------------------------------


def test_trials_of_another_client() -> None:
    first, second, third = interop.read_trials(TRIALS.read_bytes())
    assert (first.primary_metric_value, first.run_ok, first.tree_hash) == (2.412907, True, "ab" * 32)
    assert (second.primary_metric_value, second.harness_exit_code, second.head_commit) == (None, 137, None)
    assert (third.primary_metric_value, third.hypothesis) == (3.0, None)
    assert interop.read_trials(TRIALS.read_bytes().rstrip() + b"\n\n") == [first, second, third]


def test_a_state_of_another_client() -> None:
    state = interop.read_network_state(STATE.read_bytes())
    assert (state.network_best_metric, state.aggregate_score, state.code_origin) == (
        1.991456,
        3_342_544,
        "currentBestCode",
    )
    assert json.loads(interop.state_text(state)) == json.loads(STATE.read_text())


def test_results_of_another_client() -> None:
    rows = interop.read_results(RESULTS.read_bytes())
    assert [row.status for row in rows] == ["keep", "keep", "discard", "crash"]
    assert rows[1].val_bpb == Decimal("2.412907")
    assert interop.results_text(rows) == RESULTS.read_text()


# -- what this client writes --------------------------------------------------------------------------


def test_a_sessions_records_are_read_by_the_strict_readers() -> None:
    def run(value: float | None, failure: str = "") -> RunRecord:
        return RunRecord(Arm.CANDIDATE, value, failure, "", 6.0, 99.0, "a.log", datetime.now(UTC).isoformat())

    trials = [
        TrialRecord(1, "first\tidea", "f", "a" * 40, "b" * 40, [run(2.4)], "keep", 0.1),
        TrialRecord(2, "second", "f", "c" * 40, "a" * 40, [run(None, "crash")], "crash"),
    ]
    text = records.trials_jsonl(trials, bundle_id="armlx", metric="val_bpb", direction="minimize")
    first, second = interop.read_trials(text.encode())
    assert (first.error, second.error, second.primary_metric_value) == ("", "crash", None)
    rows = interop.read_results(records.results_tsv(trials).encode())
    assert [(row.val_bpb, row.status) for row in rows] == [(Decimal("2.400000"), "keep"), (0, "crash")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    with local.connect(local.home_with_project(tmp_path_factory.mktemp("home"))) as connection:
        return connection.client.project(0)


def state_of(project: Project, convention: score.Convention, network: str = "devnet") -> dict[str, Any]:
    text = interop.network_state_json(
        project,
        convention,
        bundle_id="armlx",
        network=network,
        program_id=str(PROGRAM_ID),
        metric="val_bpb",
        updated_at="2026-11-25T12:00:00Z",
        min_improvement_bips=50,
    )
    interop.read_network_state(text.encode())
    document = json.loads(text)
    assert isinstance(document, dict)
    return document


def test_the_state_of_a_project(project: Project) -> None:
    live = replace(
        project,
        baseline_aggregate_score=2_667_000,
        current_best_aggregate_score=3_342_544,
        current_best_code_hash=b"\1" * 32,
    )
    reflected = score.Convention("reflected", 2_667_000)
    assert state_of(live, reflected) == {
        "schemaVersion": "1",
        "source": "solana",
        "protocolBundleId": "armlx",
        "project_id": 0,
        "cluster": "devnet",
        "program_id": str(PROGRAM_ID),
        "network_best_metric": 1.991456,
        "aggregate_score_int256": "3342544",
        "metric_scale": 1_000_000,
        "metric_name": "val_bpb",
        "direction": "minimize",
        "code_origin": "currentBestCode",
        "min_score_improvement_bips": 50,
        "updated_at": "2026-11-25T12:00:00Z",
    }
    fresh = state_of(replace(live, current_best_code_hash=bytes(32)), reflected, "embedded")
    assert (fresh["network_best_metric"], fresh["code_origin"], fresh["cluster"]) == (
        2.667,
        "repoSnapshot",
        "localnet",
    )
    negated = replace(live, baseline_aggregate_score=-2_667_000, current_best_aggregate_score=-1_991_456)
    document = state_of(negated, score.Convention("negated", -2_667_000), "mainnet")
    assert (document["network_best_metric"], document["aggregate_score_int256"], document["cluster"]) == (
        1.991456,
        "-1991456",
        "mainnet-beta",
    )


# -- nothing else -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"schemaVersion": 1},
        {"trial_id": 1},
        {"utc_timestamp": "yesterday"},
        {"utc_timestamp": "2026-10-03T12:00:00"},
        {"run_ok": 1},
        {"primary_metric_value": "2.4"},
        {"primary_metric_value": True},
        {"primary_metric_value": 10**400},
        {"direction": "down"},
        {"harness_exit_code": 0.0},
        {"harness_exit_code": 2**70},
        {"error": None},
        {"base_commit": "A" * 40},
        {"head_commit": "abc"},
        {"trial_id": "\ud800"},
        {"more": 1},
    ],
)
def test_a_trial_of_another_form(change: dict[str, Any]) -> None:
    row = json.loads(TRIALS.read_text().splitlines()[0])
    with pytest.raises(InvalidRecord, match=r"Line 2 of trials\.jsonl"):
        interop.read_trials(b"\n" + json.dumps({**row, **change}).encode())
    for name in set(change) & set(interop._TRIAL):
        with pytest.raises(InvalidRecord, match="missing"):
            interop.read_trials(json.dumps({key: value for key, value in row.items() if key != name}).encode())


@pytest.mark.parametrize("text", ["[]", "{", "NaN", '{"a":NaN}', '{"a":1,"a":1}', "[" * 100_000, "\xff"])
def test_lines_that_are_no_object(text: str) -> None:
    for read in (interop.read_trials, interop.read_network_state):
        with pytest.raises(InvalidRecord):
            read(text.encode("latin-1"))


@pytest.mark.parametrize(
    "change",
    [
        {"source": "manual"},
        {"project_id": -1},
        {"project_id": True},
        {"aggregate_score_int256": 5},
        {"aggregate_score_int256": "05"},
        {"aggregate_score_int256": "9" * 100},
        {"metric_scale": 0},
        {"code_origin": "elsewhere"},
        {"min_score_improvement_bips": 1.5},
        {"chain_id": 1},
    ],
)
def test_a_state_of_another_form(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecord, match=r"network_state\.json"):
        interop.read_network_state(json.dumps({**json.loads(STATE.read_text()), **change}).encode())


@pytest.mark.parametrize(
    "row",
    [
        "abc1234\t1.0\t1.0\tkeep",
        "abc1234\t1.0\t1.0\tkeep\tx\ty",
        "abc\t1.0\t1.0\tkeep\tx",
        "abc123Z\t1.0\t1.0\tkeep\tx",
        "abc1234\tnan\t1.0\tkeep\tx",
        "abc1234\t1e5\t1.0\tkeep\tx",
        "abc1234\t-1.0\t1.0\tkeep\tx",
        "abc1234\t1.0\t1.0\twon\tx",
        "abc1234\t1.0\t0.0\tcrash\tx",
    ],
)
def test_a_result_of_another_form(row: str) -> None:
    with pytest.raises(InvalidRecord, match=r"Line 2 of results\.tsv"):
        interop.read_results(f"{interop.HEADER}\n{row}\n".encode())


def test_files_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (b"", b"commit\tval_bpb\n", b"\xff"):
        with pytest.raises(InvalidRecord, match="should begin with the columns"):
            interop.read_results(data)
    with pytest.raises(InvalidRecord, match="at most"):
        interop.read_network_state(bytes(interop.MAX_LINE + 1))
    with pytest.raises(InvalidRecord, match="one of over"):
        interop.read_trials(bytes(interop.MAX_LINE + 1))
    monkeypatch.setattr(interop, "MAX_FILE", 10)
    with pytest.raises(InvalidRecord, match="at most 10"):
        interop.read_trials(bytes(11))


def test_zones_other_than_utc_are_read() -> None:
    assert interop._is_time((datetime.now(UTC) + timedelta(hours=2)).isoformat())
