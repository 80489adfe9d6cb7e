"""A project's artifacts as values: exact round trips, and refusal of everything else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import baseline
from trainer.errors import InvalidBundle, TrainerError
from trainer.project import bundle, recipe
from trainer.project.task import Benchmark, read, read_benchmark

SMOKE = recipe.load("smoke")
SNAPSHOT_ID = "0123456789abcdef" * 4
BENCHMARK = Benchmark("armlx-1", ("--text", "stdlib"), SNAPSHOT_ID)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


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
    with pytest.raises(InvalidBundle, match="bytes"):
        Benchmark.parse(b" " * (1024 * 1024 + 1) + BENCHMARK.dump())
    with pytest.raises(InvalidBundle):
        Benchmark.parse(b"[" * 60_000)


@dataclass
class Given:
    """Artifacts of a project that measured 2.5, as its own client publishes them."""

    protocol: bytes = SMOKE.files["protocol.json"]
    snapshot: bytes = bundle.pack(SMOKE.files)
    benchmark: bytes = BENCHMARK.dump()
    baseline_metrics: bytes = baseline.dump(
        "val_bpb", [2.5], [6.0], hardware={"class": "a\x1b[2Jb"}, data_snapshot=SNAPSHOT_ID
    )
    best_code: bytes | None = None
    baseline_score: int = 2_500_000


def test_a_project_is_put_together() -> None:
    found = read(Given())
    assert found.baseline_class == "a[2Jb"  # its author's word, cleaned for a terminal
    assert found.files == found.incumbent == SMOKE.files
    assert (found.benchmark, found.baseline, found.minimize) == (BENCHMARK, Decimal("2.5"), True)
    assert found.notes == ()

    # of the best code only what may be changed counts
    best = {**SMOKE.files, "train.py": b"better = 1\n", "prepare.py": b"hacked = 1\n", "extra.py": b"x = 1\n"}
    found = read(Given(best_code=bundle.pack(best)))
    assert found.incumbent == {**SMOKE.files, "train.py": b"better = 1\n"}
    assert found.files == SMOKE.files

    for broken in (
        Given(protocol=b"{}"),
        Given(snapshot=b"not a tar"),
        Given(benchmark=b'{"schemaKind": "benchmark"}'),
        Given(baseline_metrics=b'{"metric_value": "2.5"}'),
        Given(best_code=b"not a tar"),
    ):
        with pytest.raises(TrainerError):
            read(broken)


def test_a_project_as_the_official_client_publishes_it() -> None:
    """A tar as the benchmark and the log of the baseline run as the metrics: its documented arguments."""
    harness = bundle.pack({"prepare.py": SMOKE.files["prepare.py"], "README.md": b"how it is measured\n"})
    log = b"Time budget: 6s\n---\nval_bpb:          2.500000\npeak_vram_mb:     1.0\nBASELINE_METRIC=2.500000\n"
    found = read(Given(benchmark=harness, baseline_metrics=log))
    assert (found.baseline, found.baseline_class) == (Decimal("2.500000"), "")
    assert found.benchmark == Benchmark("", (), None)
    unpinned = "It pins no data: gains are measured on this machine's own."
    assert found.notes == (
        f"The benchmark artifact is a tar that agrees with the snapshot; the snapshot's files are run. {unpinned}",
        "The baseline, 2.500000, is from the log's val_bpb.",
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bundle.pack({"prepare.py": b"# as archived\n"}), "differs from the snapshot in prepare.py"),
        (bundle.pack({"bench/prepare.py": SMOKE.files["prepare.py"]}), "agrees with the snapshot"),
        (b"\x1f\x8b compressed", "13 bytes in no known format"),
        (b"uv run train.py\n", "16 bytes in no known format"),
        (b'{"command": "uv run train.py"}', "30 bytes in no known format"),
        (b"[" * 60_000, "60,000 bytes in no known format"),
        (b"", "is not published"),
    ],
)
def test_any_other_benchmark_is_kept_and_not_needed(data: bytes, words: str) -> None:
    found, (note,) = read_benchmark(data, SMOKE.files)
    assert found.data_snapshot is None
    assert words in note


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_of_a_benchmark_stop_a_project(data: bytes) -> None:
    assert read_benchmark(data, SMOKE.files)[0].data_snapshot is None
