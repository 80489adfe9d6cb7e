"""A project's artifacts as values: exact round trips, and refusal of everything else."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import InvalidBundle, TrainerError
from trainer.project import bundle, recipe
from trainer.project.task import Benchmark, assemble, baseline_document, baseline_metric

SMOKE = recipe.load("smoke")
SNAPSHOT_ID = "0123456789abcdef" * 4
BENCHMARK = Benchmark("armlx-1", ("--text", "stdlib"), SNAPSHOT_ID)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def metrics(value: str) -> bytes:
    return b'{"metric_value": %s}' % value.encode()


@given(st.text(), st.lists(st.text()), st.text("0123456789abcdef", min_size=64, max_size=64))
def test_a_benchmark_comes_back(bundle_id: str, arguments: list[str], snapshot: str) -> None:
    benchmark = Benchmark(bundle_id, tuple(arguments), snapshot)
    assert Benchmark.parse(benchmark.dump()) == benchmark
    assert benchmark.dump() == Benchmark.parse(benchmark.dump()).dump()


@pytest.mark.parametrize(
    "changes",
    [
        {"schemaKind": "protocol"},
        {"schemaVersion": "2"},
        {"schemaVersion": 1},
        {"dataArguments": "--text"},
        {"dataArguments": [1]},
        {"dataArguments": {"--text": "x"}},
        {"dataArguments": None},
        {"protocolBundleId": None},
        {"dataSnapshotId": SNAPSHOT_ID.upper()},
        {"dataSnapshotId": SNAPSHOT_ID[1:]},
        {"dataSnapshotId": ["a"] * 64},
        {"dataSnapshotId": 7},
    ],
)
def test_a_benchmark_that_does_not_fit(changes: dict[str, Any]) -> None:
    document = json.loads(BENCHMARK.dump()) | changes
    with pytest.raises(InvalidBundle, match="benchmark artifact") as refusal:
        Benchmark.parse(json.dumps(document).encode())
    assert refusal.value.cure


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_other_bytes_are_no_benchmark(data: bytes) -> None:
    with pytest.raises(InvalidBundle):
        Benchmark.parse(data)


@given(JSON, st.sampled_from(list(json.loads(BENCHMARK.dump()))))
def test_a_field_of_any_other_kind(value: object, field: str) -> None:
    """Whatever stands in a field, it is parsed as what it is or refused, never an error of another kind."""
    document = json.dumps(json.loads(BENCHMARK.dump()) | {field: value}).encode()
    try:
        parsed = Benchmark.parse(document)
    except InvalidBundle:
        return
    assert json.loads(parsed.dump())[field] == value


def test_what_is_too_large_is_not_read() -> None:
    for parse in (Benchmark.parse, baseline_metric):
        with pytest.raises(InvalidBundle, match="bytes"):
            parse(b" " * (1024 * 1024 + 1) + BENCHMARK.dump())
        with pytest.raises(InvalidBundle):
            parse(b"[" * 60_000)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2.534", "2.534"),
        ("2.5340000000000000000001", "2.5340000000000000000001"),
        ("0.1", "0.1"),
        ("3", "3"),
        ("-1e-7", "-1e-7"),
    ],
)
def test_a_baseline_is_the_decimal_that_was_written(text: str, value: str) -> None:
    assert baseline_metric(metrics(text)) == Decimal(value)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", '"2.5"', "null", "true", "[2.5]", "{}", ""])
def test_what_is_no_baseline(text: str) -> None:
    with pytest.raises(InvalidBundle, match="baseline metrics artifact"):
        baseline_metric(metrics(text))


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_other_bytes_are_no_baseline(data: bytes) -> None:
    with pytest.raises(InvalidBundle):
        baseline_metric(data)


@given(st.lists(st.floats(0.01, 10.0), min_size=1, max_size=5))
def test_a_baseline_document_holds_the_mean_in_six_decimals(values: list[float]) -> None:
    data = baseline_document("val_bpb", values, [6.12345] * len(values), hardware={"chip": "x"}, data_snapshot="s")
    mean = baseline_metric(data)
    assert abs(mean - Decimal(sum(values)) / len(values)) <= Decimal("0.000001")
    assert -mean.as_tuple().exponent <= 6  # type: ignore[operator]
    document = json.loads(data)
    assert (document["samples"], document["durations"][0]) == (values, 6.123)


def test_a_project_is_put_together() -> None:
    baseline = baseline_document("val_bpb", [2.5], [6.0], hardware={}, data_snapshot=SNAPSHOT_ID)
    parts: dict[str, Any] = {
        "protocol_bytes": SMOKE.files["protocol.json"],
        "snapshot": bundle.pack(SMOKE.files),
        "benchmark": BENCHMARK.dump(),
        "baseline_metrics": baseline,
    }
    found = assemble(**parts, best_code=None)
    assert found.files == found.incumbent == SMOKE.files
    assert (found.benchmark, found.baseline, found.minimize) == (BENCHMARK, Decimal("2.5"), True)

    # of the best code only what may be changed counts
    best = {**SMOKE.files, "train.py": b"better = 1\n", "prepare.py": b"hacked = 1\n", "extra.py": b"x = 1\n"}
    found = assemble(**parts, best_code=bundle.pack(best))
    assert found.incumbent == {**SMOKE.files, "train.py": b"better = 1\n"}
    assert found.files == SMOKE.files

    for name, broken in (
        ("protocol_bytes", b"{}"),
        ("snapshot", b"not a tar"),
        ("benchmark", b"{}"),
        ("baseline_metrics", b"{}"),
        ("best_code", b"not a tar"),
    ):
        with pytest.raises(TrainerError):
            assemble(**{"best_code": None, **parts, name: broken})
