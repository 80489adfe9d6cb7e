"""samples.json: what another client measured, read only where its numbers agree with each other."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import InvalidBundle
from trainer.project import samples, task

EXAMPLE = (Path(__file__).parent / "examples" / "samples.json").read_bytes()

values = st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=9)


def test_the_file_of_another_client() -> None:
    found = samples.parse(EXAMPLE)
    assert (found.values, found.aggregate, found.measured_trials) == ((2.51, 2.48, 2.5, 2.49, 2.52), Decimal("2.5"), 5)
    assert (found.representative_trial, found.representative_log) == (3, "measured-3.log")
    assert json.loads(found.dump()) == json.loads(EXAMPLE)
    assert task.baseline_metric(EXAMPLE) == Decimal("2.5")


@given(
    values,
    st.sampled_from(list(samples.AGGREGATORS)),
    st.none() | st.floats(0, 1),
    st.none() | st.integers(0, 100),
    st.none() | st.just("measured-1.log"),
)
def test_metrics_come_back(
    given_values: list[float], aggregator: str, limit: float | None, trials: int | None, log: str | None
) -> None:
    made = samples.measured(
        given_values, aggregator, max_relative_stddev=limit, measured_trials=trials, representative_log=log
    )
    found = samples.parse(made.dump())
    assert found == made
    assert task.baseline_metric(made.dump()) == made.aggregate


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
def test_what_does_not_fit(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidBundle, match=r"no samples\.json"):
        samples.parse(json.dumps({**json.loads(EXAMPLE), **change}).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b'{"a":1,"a":1}', b"[" * 100_000, b" " * 2_000_000])
def test_what_is_no_such_file(data: bytes) -> None:
    with pytest.raises(InvalidBundle):
        samples.parse(data)


def test_numbers_that_are_too_large_for_a_float() -> None:
    document = json.loads(EXAMPLE)
    text = json.dumps({**document, "samples": [0, 0, 0, 0, 0]}).replace("[0, 0", "[1e999, 1e308")
    with pytest.raises(InvalidBundle):
        samples.parse(text.encode())
    with pytest.raises(InvalidBundle):
        task.baseline_metric(b'{"aggregate": 1e999}')


@pytest.mark.parametrize("bad", [[], [float("nan")], [float("inf")]])
def test_no_metrics_from_no_numbers(bad: list[float]) -> None:
    with pytest.raises(InvalidBundle):
        samples.measured(bad)
