"""Constants as dimensions: kinds as a table, coordinates as properties."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from common.resources import ROOT
from miner.proposers import space
from miner.proposers.tune import BOLD
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
        ("WARMDOWN_FRACTION = 0.5", "share", [0.225, 0.5, 1.0]),
        ("WARMUP_FRACTION = 0.0", "share", [0.0, 0.0, 0.05]),
        ("FINAL_LR_FRACTION = 0.05", "share", [0.0, 0.05, 0.15]),
        ("DROPOUT = 0.0", "share", [0.0, 0.0, 0.05]),
        ("ROPE_BASE = 10000.0", "log", [2500.0, 10000.0, 40000.0]),
        ("ADAM_EPS = 1e-10", "log", [1.56e-12, 1e-10, 6.4e-09]),
        ("WEIGHT_DECAY = 0.01", "share", [0.0045, 0.01, 0.021]),
        ("WEIGHT_DECAY = 0.0", "share", [0.0, 0.0, 0.001]),
        ("WARMUP_RATIO = 0", "share", [0.0, 0.0, 0.05]),
        ("X0_LAMBDA = -0.02", "signed", [-0.06, -0.02, 0.0]),
        ("ASPECT_RATIO = 64", "multiple", [32, 64, 128]),
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
    "name",
    [
        *("SEED", "MODEL_SEED", "EVAL_BATCH_SIZE", "FINAL_EVAL_TOKENS", "TIME_BUDGET", "STARTUP_EXCLUDE_STEPS"),
        *("MAX_STEPS", "MAX_ITERS", "PEAK_FLOPS", "H100_BF16_PEAK_FLOPS", "LOG_INTERVAL", "NUM_WORKERS", "NS_COEFFS"),
    ],
)
def test_what_never_turns(name: str) -> None:
    assert space.dimensions(f"{name} = 4\n") == []


def test_the_baseline_of_today_turns_in_steps_that_fit_each_number() -> None:
    source = (ROOT / "trainer" / "train.py").read_text()
    known = {d.name: d for d in space.dimensions(source)}
    assert [value for value, _ in known["NGRAM_ROWS"].far()] == [131072, 262144, 32768]
    assert [value for value, _ in known["LOCAL_LENGTH"].far()] == [256, 1024, 2048]
    assert [value for value, _ in known["Attention.rope.scale"].far()] == [2.0, 0.5]
    assert [value for value, _ in known["GATE_DIM"].far()] == [64, 16]


def test_text_that_nothing_tells_the_choices_of_is_left_alone() -> None:
    assert space.dimensions("OPTIMIZER = 'muon'\nPATTERN = 'XY'\n") == []


@pytest.mark.parametrize(
    ("use", "choices"),
    [
        ("if ACT == 'relu': pass\nif ACT == 'silu': pass", ("gelu", "relu", "silu")),
        ("assert ACT in ('relu', 'gelu')", ("gelu", "relu")),
        ("f = {'gelu': 1, 'swish': 2}[ACT]", ("gelu", "swish")),
    ],
)
def test_a_text_may_be_what_the_script_compares_it_with(use: str, choices: tuple[str, ...]) -> None:
    assert one(f"ACT = 'gelu'\n{use}").choices == choices


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("WEIGHT_DECAY = 0.01", [0.0, 0.1, 0.001]),
        ("WEIGHT_DECAY = 0.0", [0.031, 0.001]),
        ("MATRIX_LR = 0.02", [0.002, 0.2]),
        ("BATCH_SIZE = 16", [8, 4, 32]),
        ("TOTAL_BATCH_SIZE = 2**16", [2**15, 2**14, 2**17]),
        ("MUON_MOMENTUM = 0.95", [0.987, 0.8]),
        ("LOGIT_CAP = 15.0", [150.0, 30.0, 7.5]),
        ("ASPECT_RATIO = 64", [48, 96, 32]),
        ("TIED = False", [True]),
        ("WINDOW_PATTERN = 'SSSL'", ["L", "SL", "SSL", "SSSSL"]),
        ("OFFSET = -1.5", [-15.0, -0.15, 0.0]),
        ("DROPOUT = 0.1", [0.05, 0.0]),
    ],
)
def test_the_first_looks_are_far_away(text: str, values: list[object]) -> None:
    assert [value for value, _ in one(text).far()] == values


@pytest.mark.parametrize(
    ("text", "first", "values"),
    [
        ("ASPECT_RATIO = 64", 128, {128, 96, 48, 32}),
        ("MODEL_DIM = 384", 768, {768, 576, 256, 192}),
        ("N_EMBD = 384", 768, {768, 576, 256, 192}),
        ("D_MODEL_WIDTH = 8", 16, {16, 12, 6, 4}),
        ("BATCH_SIZE = 16", 8, {8, 32, 4}),
        ("HEAD_DIM = 128", 256, {256, 64}),
        ("DEPTH = 4", 6, {6, 2, 8}),
        ("WEIGHT_DECAY = 0.2", 2.0, {2.0, 0.02, 0.0}),
        ("WEIGHT_DECAY = 0.2\nx = optim.Muon(0.02, weight_decay=WEIGHT_DECAY)", 0.0, {0.0, 2.0, 0.02}),
        ("WEIGHT_DECAY = 0.2\nx = optim.Muon(0.02, weight_decay=0.0)", 2.0, {2.0, 0.02, 0.0}),
        ("MATRIX_LR = 0.02", 0.002, {0.002, 0.2}),
    ],
)
def test_an_accelerator_looks_the_other_way_where_it_was_measured(
    text: str, first: object, values: set[object]
) -> None:
    looks = space.dimensions(text + "\n")[0].far(accelerated=True, orthogonal=True)
    assert {value for value, _ in looks} == values
    assert max(looks, key=lambda look: look[1])[0] == first


@pytest.mark.parametrize(
    ("accelerated", "orthogonal", "first"), [(True, True, 128), (True, False, 48), (False, True, 48)]
)
def test_a_model_is_widened_first_where_its_steps_suit_any_width(
    accelerated: bool, orthogonal: bool, first: int
) -> None:
    looks = space.dimensions("ASPECT_RATIO = 64\n")[0].far(accelerated=accelerated, orthogonal=orthogonal)
    assert max(looks, key=lambda look: look[1])[0] == first


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ((ROOT / "trainer" / "train.py").read_text(), True),
        ("optimizer = optim.Muon(0.02)", True),
        ("update = zeropower_via_newtonschulz5(g)", True),
        ("def _orthogonal_step(self, path, grad):", True),
        ("optimizer = AdamW(0.001)  # a port of Muon is future work", False),
        ('def step(self):\n    """Adam: Muon\n    is future work."""\n', False),
        ("nn.init.orthogonal_(weight)", False),
    ],
)
def test_whether_a_script_orthogonalises_its_steps(source: str, expected: bool) -> None:
    assert space.orthogonalises(source) is expected


@pytest.mark.parametrize("accelerated", [False, True])
def test_a_batch_is_quartered_early_on_small_machines_only(accelerated: bool) -> None:
    dims = space.dimensions("TOTAL_BATCH = 1024\nDEVICE_BATCH = 16\n")
    alone = dict(dims[0].far(accelerated=accelerated))
    pairs = {changes["TOTAL_BATCH"]: worth for changes, worth in space.together(dims, accelerated=accelerated)}
    assert [alone[256] < BOLD, pairs[256] < BOLD] == [accelerated, accelerated]
    assert alone[512] > BOLD


def test_what_lies_within_a_step_is_the_same_idea_but_off_is_one_of_its_own() -> None:
    decay = one("WEIGHT_DECAY = 0.15")

    def apart(a: float, b: float) -> float:
        return decay.apart(decay.coordinate(a) or 0.0, decay.coordinate(b) or 0.0)

    assert apart(0.15, 0.149) < 1
    assert apart(0.15, 0.148) < 1
    assert apart(0.15, 0.1) > 1
    assert apart(0.15, 0.0) > 1


def test_rates_move_together_and_a_batch_with_its_part() -> None:
    dims = space.dimensions("A_LR = 0.1\nB_LR = 0.02\nFINAL_LR_FRAC = 0.1\nTOTAL_BATCH = 1024\nDEVICE_BATCH = 16\n")
    moved = [changes for changes, _ in space.together(dims)]
    assert {"A_LR": 0.4, "B_LR": 0.08} in moved
    assert {"TOTAL_BATCH": 256, "DEVICE_BATCH": 4} in moved


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
