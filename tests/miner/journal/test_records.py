"""The files that other OpenResearch clients read, in their exact form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chain.money import score
from chain.program import PROGRAM_ID
from chain.program.accounts import Project
from miner.journal import records
from miner.journal.journal import TrialRecord
from miner.journal.run import RunRecord
from tests import local
from trainer.project import recipe
from trainer.project.protocol import parse
from trainer.statistics.comparison import Arm

REQUIRED = {
    "schemaVersion",
    "trial_id",
    "utc_timestamp",
    "protocol_bundle_id",
    "run_ok",
    "primary_metric_name",
    "primary_metric_value",
    "direction",
    "beats_local_best",
    "beats_network_best",
    "stdout_log_path",
    "git_head_before",
    "git_head_after",
    "harness_exit_code",
    "error",
}
OPTIONAL = {"hypothesis", "base_commit", "head_commit", "tree_hash"}
BASE, KEPT, WORSE, BROKEN = ("b" * 40, "1" * 40, "2" * 40, "3" * 40)


def run(arm: str, value: float | None, *, memory: float | None = None, failure: str = "", at: str = "t") -> RunRecord:
    return RunRecord(Arm(arm), value, failure, "", 6.0, memory, f"logs/{arm}-{at}.log", at)


TRIALS = [
    TrialRecord(
        0, "baseline", "f0", BASE, BASE, [run("incumbent", 2.5), run("incumbent", 2.6, memory=2048.0)], "keep", 0.0
    ),
    TrialRecord(
        1,
        "HEAD_LR 0.1 -> 0.2,\tMODEL\nDIM",
        "f1",
        KEPT,
        BASE,
        [run("candidate", 2.4, memory=1024.0), run("incumbent", 2.7, memory=9000.0), run("candidate", 2.3, at="u")],
        "keep",
        0.2,
    ),
    TrialRecord(
        2,
        "worse",
        "f2",
        WORSE,
        KEPT,
        [run("candidate", 2.8), run("candidate", None, failure="crash", at="v")],
        "discard",
        -0.4,
    ),
    TrialRecord(
        3,
        "broken",
        "f3",
        BROKEN,
        KEPT,
        [run("candidate", None, failure="crash"), run("candidate", None, failure="over_budget", at="w")],
        "crash",
        None,
    ),
    TrialRecord(4, "not finished", "f4", "4" * 40, KEPT, [run("candidate", 1.0)]),
]


def test_results_tsv() -> None:
    assert records.results_tsv(TRIALS) == (
        "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"
        "bbbbbbb\t2.550000\t2.0\tkeep\tbaseline\n"
        "1111111\t2.350000\t1.0\tkeep\tHEAD_LR 0.1 -> 0.2, MODEL DIM\n"
        "2222222\t2.800000\t0.0\tdiscard\tworse\n"
        "3333333\t0.000000\t0.0\tcrash\tbroken\n"
    )


def test_a_crash_after_one_good_run_is_still_a_crash() -> None:
    trial = TrialRecord(
        1, "shaky", "f", KEPT, BASE, [run("candidate", 2.4), *[run("candidate", None, failure="crash")] * 2], "crash"
    )
    assert records.results_tsv([trial]).splitlines()[1] == "1111111\t0.000000\t0.0\tcrash\tshaky"


def test_trials_jsonl() -> None:
    text = records.trials_jsonl(TRIALS, bundle_id="armlx-1", metric="val_bpb", direction="minimize")
    assert text.endswith("\n")
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["trial_id"] for row in rows] == ["0000", "0001", "0002", "0003"]
    for row in rows:
        assert row.keys() >= REQUIRED
        assert row.keys() <= REQUIRED | OPTIONAL
        assert (row["schemaVersion"], row["protocol_bundle_id"]) == ("1", "armlx-1")
        assert (row["primary_metric_name"], row["direction"]) == ("val_bpb", "minimize")
        assert not row["stdout_log_path"].startswith("/")
    baseline, kept, worse, broken = rows
    assert (baseline["git_head_before"], baseline["git_head_after"]) == (BASE, BASE)
    assert kept == {
        "schemaVersion": "1",
        "trial_id": "0001",
        "utc_timestamp": "u",
        "protocol_bundle_id": "armlx-1",
        "run_ok": True,
        "primary_metric_name": "val_bpb",
        "primary_metric_value": 2.3499999999999996,
        "direction": "minimize",
        "beats_local_best": True,
        "beats_network_best": True,
        "stdout_log_path": "logs/candidate-u.log",
        "git_head_before": BASE,
        "git_head_after": KEPT,
        "harness_exit_code": 0,
        "error": "",
        "hypothesis": "HEAD_LR 0.1 -> 0.2,\tMODEL\nDIM",
        "base_commit": BASE,
        "head_commit": KEPT,
    }
    assert (worse["run_ok"], worse["git_head_after"], worse["error"]) == (True, KEPT, "crash")
    assert (broken["run_ok"], broken["primary_metric_value"], broken["harness_exit_code"]) == (False, None, 1)
    assert (broken["error"], broken["beats_local_best"]) == ("over_budget", False)


def test_no_trials() -> None:
    assert records.results_tsv([]) == records.HEADER + "\n"
    assert records.trials_jsonl([], bundle_id="x", metric="y", direction="minimize") == ""


EXAMPLES = Path(__file__).parent / "examples"  # as other clients write them


def test_the_files_have_the_form_of_other_clients(project: Project) -> None:
    theirs = [json.loads(line) for line in (EXAMPLES / "trials.jsonl").read_text().splitlines()]
    ours = json.loads(records.trials_jsonl(TRIALS[1:2], bundle_id="a", metric="val_bpb", direction="minimize"))
    for other in theirs:
        assert ours.keys() - OPTIONAL == other.keys() - OPTIONAL
    state = json.loads((EXAMPLES / "network_state.json").read_text())
    assert state_of(project, score.Convention("reflected", 2_500_000)).keys() == state.keys()
    assert records.results_tsv([]).splitlines() == (EXAMPLES / "results.tsv").read_text().splitlines()[:1]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    with local.connect(local.home_with_project(tmp_path_factory.mktemp("home"))) as connection:
        return connection.client.project(0)


def state_of(project: Project, convention: score.Convention, network: str = "devnet") -> dict[str, Any]:
    text = records.network_state_json(
        project,
        convention,
        bundle_id="armlx",
        network=network,
        program_id=str(PROGRAM_ID),
        metric="val_bpb",
        updated_at="2026-11-25T12:00:00Z",
        min_improvement_bips=50,
    )
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


def test_records_grow_by_what_was_decided(tmp_path: Path) -> None:
    """Whole at the first time in a process, then a line each; what a kill cut short is gone with the next start."""
    protocol = parse(recipe.load("smoke").files["protocol.json"])
    kept = records.Records(tmp_path, protocol)
    kept.update(TRIALS[:1])
    first = (tmp_path / records.RESULTS).stat()
    kept.update(TRIALS[:3])
    assert (tmp_path / records.RESULTS).stat().st_ino == first.st_ino
    kept.update(TRIALS[:3])
    expected = records.results_tsv(TRIALS[:3])
    assert (tmp_path / records.RESULTS).read_text() == expected
    assert len((tmp_path / records.TRIALS).read_text().splitlines()) == 3
    with (tmp_path / records.RESULTS).open("a") as file:
        file.write("cut sh")
    records.Records(tmp_path, protocol).update(TRIALS[:4])
    assert (tmp_path / records.RESULTS).read_text() == records.results_tsv(TRIALS[:4])
