"""Constants as dimensions: kinds as a table, coordinates as properties."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from miner.proposers import space
from tests.miner.proposers.support import SOURCE


def one(text: str) -> space.Dimension:
    [dimension] = space.dimensions(text + "\n")
    return dimension


@pytest.mark.parametrize(
    ("text", "scale", "steps"),
    [
        ("MATRIX_LR = 0.02", "log", [0.01, 0.02, 0.04]),
        ("EMBEDDING_LR = 0.6", "log", [0.3, 0.6, 1.2]),
        ("BATCH_SIZE = 8", "power", [4, 8, 16]),
        ("TOTAL_BATCH_SIZE = 2**16", "power", [2**15, 2**16, 2**17]),
        ("MODEL_DIM = 320", "multiple", [128, 320, 640]),
        ("MODEL_DIM = 32", "multiple", [16, 32, 64]),
        ("MODEL_DIM = 512", "multiple", [256, 512, 1024]),
        ("DEPTH = 5", "log", [2, 5, 10]),
        ("DEPTH = 8", "log", [4, 8, 16]),
        ("GRAD_ACCUM = 1", "log", [1, 1, 2]),
        ("ADAM_BETA2 = 0.95", "complement", [0.9, 0.95, 0.975]),
        ("WARMDOWN_FRACTION = 0.5", "log", [0.25, 0.5, 1.0]),
        ("WARMUP_FRACTION = 0.0", "share", [0.0, 0.0, 0.05]),
        ("FINAL_LR_FRACTION = 0.05", "share", [0.0, 0.05, 0.15]),
        ("DROPOUT = 0.0", "share", [0.0, 0.0, 0.05]),
        ("ROPE_BASE = 10000.0", "log", [5000.0, 10000.0, 20000.0]),
        ("TIED = True", "choice", [False, True, True]),
        ("WINDOW_PATTERN = 'SSSL'", "choice", ["SSSL", "SSSL", "L"]),
        ("LAYERS_SKIPPED = 0", "choice", [0, 0, 1]),
    ],
)
def test_kinds(text: str, scale: str, steps: list[object]) -> None:
    dimension = one(text)
    at = dimension.coordinate(dimension.value)
    assert dimension.scale == scale
    assert at is not None
    assert [dimension.at(at - 1), dimension.at(at), dimension.at(at + 1)] == steps
    assert all(type(step) is type(dimension.value) for step in steps)


@pytest.mark.parametrize(
    "name", ["SEED", "MODEL_SEED", "EVAL_BATCH_SIZE", "FINAL_EVAL_TOKENS", "TIME_BUDGET", "STARTUP_EXCLUDE_STEPS"]
)
def test_what_never_turns(name: str) -> None:
    assert space.dimensions(f"{name} = 4\n") == []


def test_text_and_negative_numbers_are_left_alone() -> None:
    assert space.dimensions("NAME = 'muon'\nPATTERN = 'XY'\nOFFSET = -1.5\n") == []


def test_the_field_moves_first() -> None:
    weights = {dimension.name: dimension.weight for dimension in space.dimensions(SOURCE)}
    first = sorted(weights, key=lambda name: -weights[name])
    assert {"MATRIX_LR", "EMBED_LR", "HEAD_LR"} < {*first[:5]}
    assert first[5] == "BATCH_SIZE"
    assert weights["ROPE_BASE"] < min(weights["DEPTH"], weights["MODEL_DIM"], weights["WARMDOWN_FRACTION"])
    assert not weights.keys() & {"SEED", "EVAL_BATCH_SIZE", "ROW_BYTES"}


@given(
    st.sampled_from(["LR", "BATCH", "DEPTH", "BETA", "WARMUP", "WARMDOWN", "X", "MODEL_DIM", "WEIGHT_DECAY"]),
    st.integers(0, 2**40).map(str) | st.floats(0, 1e9, allow_subnormal=False).map(repr) | st.booleans().map(str),
    st.floats(-80, 80),
)
def test_any_coordinate_gives_a_value_of_the_kind(name: str, text: str, coordinate: float) -> None:
    found = space.dimensions(f"{name} = {text}\n")
    assume(found)
    value = found[0].at(coordinate)
    assert type(value) is type(found[0].value)
    again = found[0].coordinate(value)
    assert again is not None
    if found[0].scale != "choice":
        assert isinstance(value, int | float)
        assert 0 <= value < 1e60
        third = found[0].at(again)
        assert isinstance(third, int | float)
        assert third == pytest.approx(value, rel=0.02, abs=0.003)
