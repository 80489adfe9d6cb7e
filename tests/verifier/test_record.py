"""The runs of a check on disk: gone on with where the question is the same, begun anew where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.judging.cases import NOISE, failing, replay_run
from trainer.statistics.noise import NoiseRecord
from verifier.record import ReplayRecord

ABOUT = {"candidate": "c", "incumbent": "i"}
RUNS = [replay_run("incumbent", 2.5), replay_run("candidate", 2.4, 2.5), failing("candidate", "crash")]


def written(path: Path) -> ReplayRecord:
    record = ReplayRecord(path, ABOUT, NOISE)
    for run in RUNS:
        record.add(run)
    return record


def test_it_is_gone_on_with(tmp_path: Path) -> None:
    first = written(tmp_path / "runs.jsonl")
    again = ReplayRecord(tmp_path / "runs.jsonl", ABOUT, NoiseRecord())
    assert (again.seed, again.noise, again.runs) == (first.seed, NOISE, RUNS)
    again.add(RUNS[0])
    assert ReplayRecord(tmp_path / "runs.jsonl", ABOUT, NOISE).runs == [*RUNS, RUNS[0]]


@pytest.mark.parametrize("cut", [b'{"arm": "cand', b"x"])
def test_half_a_line_is_dropped(tmp_path: Path, cut: bytes) -> None:
    path = tmp_path / "runs.jsonl"
    written(path)
    path.write_bytes(path.read_bytes() + cut)
    again = ReplayRecord(path, ABOUT, NOISE)
    again.add(RUNS[1])
    assert ReplayRecord(path, ABOUT, NOISE).runs == [*RUNS, RUNS[1]]


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b"[1]\n", b"\xff\n", b'{"about": 3}\n'])
def test_what_does_not_parse_begins_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_bytes(content)
    record = ReplayRecord(path, ABOUT, NOISE)
    assert (record.runs, record.noise) == ([], NOISE)
    record.add(RUNS[0])
    assert ReplayRecord(path, ABOUT, NoiseRecord()).runs == RUNS[:1]


def test_another_question_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    first = written(path)
    other = ReplayRecord(path, {**ABOUT, "incumbent": "newer"}, NoiseRecord())
    assert (other.runs, other.noise) == ([], NoiseRecord())
    assert other.seed != first.seed
    assert ReplayRecord(path, {**ABOUT, "incumbent": "newer"}, NOISE).seed == other.seed


def test_what_was_not_the_candidates_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    record = written(path)
    for run in (failing("incumbent", "crash"), failing("candidate", "host"), failing("snapshot", "over_budget")):
        record.add(run)
    assert ReplayRecord(path, ABOUT, NOISE).runs == RUNS


def test_a_local_check_keeps_nothing() -> None:
    record = ReplayRecord(None, ABOUT, NOISE)
    record.add(RUNS[0])
    assert record.runs == RUNS[:1]


def test_a_test_begun_on_an_unfit_machine_begins_anew(tmp_path: Path) -> None:
    """It could reject nobody. What the machine says beside the candidate's own runs may be that one's doing."""
    busy, path = ("machine overloaded: load 9.1 on 2 cores",), tmp_path / "runs.jsonl"
    record = ReplayRecord(path, ABOUT, NOISE)
    record.add(replay_run("incumbent", 2.5))
    record.add(replay_run("candidate", 2.4, conditions=busy))
    assert ReplayRecord(path, ABOUT, NOISE).seed == record.seed
    record.add(replay_run("incumbent", 2.5, conditions=busy))
    assert ReplayRecord(path, ABOUT, NOISE).seed != record.seed
    other = tmp_path / "other.jsonl"
    first = ReplayRecord(other, ABOUT, NOISE)
    first.add(replay_run("incumbent", 2.5, conditions=busy))
    again = ReplayRecord(other, ABOUT, NOISE)
    assert again.seed != first.seed
    assert again.runs == []
