"""The baseline metrics artifact: one reader for all that clients write, which refuses everything else."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import baseline, pattern
from common.baseline import Baseline, InvalidBaseline

SAMPLES = (Path(__file__).parent / "examples" / "samples.json").read_bytes()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "metric"),
    [
        ('{"metric_value": 2.534}', "2.534"),
        ('{"metric_value": 2.5340000000000000000001}', "2.5340000000000000000001"),
        ('{"metric_value": 3}', "3"),
        ('{"metric_value": -1e-7}', "-1e-7"),
        (SAMPLES.decode(), "2.5"),
        ('{"metrics": {"val_bpb": 2.667}}', "2.667"),
        ('{"primaryMetric": {"value": 2.667}}', "2.667"),
        ('{"val_bpb": 2.667}', "2.667"),
        ('{"value": 2.667}', "2.667"),
        # where there are several, one of them counts, for everybody the same
        (
            '{"value": 1, "val_bpb": 2, "primaryMetric": {"value": 3}, "metrics": {"val_bpb": 4}, "metric_value": 5}',
            "5",
        ),
        ('{"value": 1, "val_bpb": 2, "primaryMetric": {"value": 3}, "metrics": {"val_bpb": 4}}', "4"),
        ('{"value": 1, "val_bpb": 2, "primaryMetric": {"value": 3}, "metrics": {"loss": 4}}', "3"),
        ('{"value": 1, "val_bpb": 2, "primaryMetric": "val_bpb"}', "2"),
        ('{"metric_value": 5, "aggregate": 2}', "5"),
    ],
)
def test_the_metric_is_the_decimal_that_was_written(text: str, metric: str) -> None:
    assert baseline.read(text.encode(), "val_bpb") == Baseline(Decimal(metric), "")


LINE = pattern.compile_safely(r"^val_bpb:\s+([0-9]+(?:\.[0-9]+)?)$")


@pytest.mark.parametrize(
    ("text", "log_pattern", "metric", "source"),
    [
        ("step 46\n---\nval_bpb:  2.667000\nBASELINE_METRIC=2.667000\n", LINE, "2.667000", "the log's val_bpb"),
        ("step 46\r\nval_bpb:  2.667\r\n", LINE, "2.667", "the log's val_bpb"),
        ("val_bpb:  2.667\nBASELINE_METRIC=2.667\n", None, "2.667", "the log's BASELINE_METRIC"),
        ("nothing else\nBASELINE_METRIC=-2.6e0", LINE, "-2.6", "the log's BASELINE_METRIC"),
        # several values: the last is the run's result
        ("val_bpb:  3.1\nval_bpb:  2.667\n", LINE, "2.667", "the log's val_bpb"),
        ("BASELINE_METRIC=fake\nval_bpb:  2.667\n", LINE, "2.667", "the log's val_bpb"),
    ],
)
def test_the_log_of_a_run(text: str, log_pattern: re.Pattern[str] | None, metric: str, source: str) -> None:
    assert baseline.read(text.encode(), "val_bpb", log_pattern) == Baseline(Decimal(metric), "", source)


@pytest.mark.parametrize(
    ("data", "score", "minimize", "metric"),
    [
        (b"", 2_667_000, True, "2.667000"),
        (b"", -2_667_000, True, "2.667000"),
        (b"", 910_000, False, "0.910000"),
        (b"", -910_000, False, "-0.910000"),
        (b"[1, 2]", 2_667_000, True, "2.667000"),
        (b'{"loss": 1}', 2_667_000, True, "2.667000"),
        (b"\x00\xff" * 999, 2_667_000, True, "2.667000"),
        (b"BASELINE_METRIC=nan", 2_667_000, True, "2.667000"),
        (b"BASELINE_METRIC=1e999", 2_667_000, True, "2.667000"),
    ],
)
def test_where_no_number_is_stated_the_chain_says_it(data: bytes, score: int, minimize: bool, metric: str) -> None:
    found = baseline.of_project(data, "val_bpb", LINE, score=score, minimize=minimize)
    assert found.metric == Decimal(metric)
    assert "on chain" in found.source


def test_of_several_values_in_a_log_the_one_that_the_chain_says_counts() -> None:
    log = b"val_bpb:  3.1\nval_bpb:  2.6670001\nval_bpb:  2.4\nBASELINE_METRIC=9\n"

    def of(score: int) -> Decimal:
        return baseline.of_project(log, "val_bpb", LINE, score=score, minimize=True).metric

    assert of(2_667_000) == Decimal("2.6670001")
    assert of(-3_100_000) == Decimal("3.1")
    assert of(9_000_000) == 9
    assert of(5) == Decimal("2.4")  # none fits: no convention will


def test_only_the_end_of_a_log_is_read() -> None:
    late = b"val_bpb:  2.5\n" + b"x\n" * 300
    with pytest.raises(InvalidBaseline, match="holds no val_bpb"):
        baseline.read(late, "val_bpb", LINE)
    assert baseline.read(b"x" * (3 << 20) + b"\nval_bpb:  2.5\n", "val_bpb", LINE).metric == Decimal("2.5")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", '"2.5"', "null", "true", "[2.5]", "{}", "", "1e400"])
def test_a_metric_is_a_finite_number(value: str) -> None:
    for text in ('{"metric_value": %s}', '{"metrics": {"val_bpb": %s}}', '{"val_bpb": %s, "value": 2}'):
        with pytest.raises(InvalidBaseline, match="baseline metrics artifact"):
            baseline.read((text % value).encode(), "val_bpb")


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b"\xff", b'{"value":1,"value":1}', b"[" * 100_000, b'{"value": 1}' + b" " * 1_048_576],
)
def test_what_is_no_such_file(data: bytes) -> None:
    with pytest.raises(InvalidBaseline) as refusal:
        baseline.read(data, "val_bpb")
    assert refusal.value.cure


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidBaseline):
        baseline.read(data, "val_bpb")


@pytest.mark.parametrize(
    "change",
    [
        {"samples": []},
        {"samples": "2.5"},
        {"samples": [2.51, 2.48, 2.5, 2.49, "2.52"]},
        {"samples": [2.51, 2.48, 2.5, 2.49]},
        {"count": 4},
        {"aggregator": "best"},
        {"aggregator": ["median"]},
        {"aggregate": 2.4},
        {"aggregate": "2.5"},
        {"aggregate": None},
        {"mean": 2.51},
        {"stddev": 0},
        {"cv": None},
        {"tooNoisy": True},
        {"tooNoisy": 0},
        {"maxRelativeStdDev": None},
        {"maxRelativeStdDev": 1e-9},
        {"warmupTrials": 1.5},
        {"measuredTrials": -1},
        {"representativeLog": ""},
        {"representativeLog": 5},
        {"more": 1},
    ],
)
def test_a_samples_file_agrees_with_its_samples(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidBaseline):
        baseline.read(json.dumps({**json.loads(SAMPLES), **change}).encode(), "val_bpb")


def test_numbers_that_are_too_large_for_a_float() -> None:
    text = json.dumps({**json.loads(SAMPLES), "samples": [0, 0, 0, 0, 0]}).replace("[0, 0", "[1e999, 1e308")
    for data in (text, '{"aggregate": 1e999}'):
        with pytest.raises(InvalidBaseline):
            baseline.read(data.encode(), "val_bpb")


@pytest.mark.parametrize(
    ("hardware", "expected"),
    [({"class": "apple-m4"}, "apple-m4"), ({"class": 4}, ""), ({}, ""), ([], ""), (None, "")],
)
def test_the_hardware_class(hardware: object, expected: str) -> None:
    document = {"metric_value": 2.5, "hardware": hardware}
    assert baseline.read(json.dumps(document).encode(), "val_bpb").hardware_class == expected


@given(st.lists(st.floats(0.01, 10.0), min_size=1, max_size=5))
def test_what_is_written_holds_the_mean_in_six_decimals(values: list[float]) -> None:
    data = baseline.dump("val_bpb", values, [6.12345] * len(values), hardware={"class": "x"}, data_snapshot="s")
    found = baseline.read(data, "val_bpb")
    assert abs(found.metric - Decimal(sum(values)) / len(values)) <= Decimal("0.000001")
    assert -found.metric.as_tuple().exponent <= 6  # type: ignore[operator]
    assert found.hardware_class == "x"
    document = json.loads(data)
    assert (document["samples"], document["durations"][0]) == (values, 6.123)
