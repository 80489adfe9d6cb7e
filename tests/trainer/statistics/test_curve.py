"""The loss curve in a run's log: upstream's and our lines, hostile text, bounds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.statistics import curve
from trainer.statistics.curve import MAX_POINTS, Curve, CurvePoint, of_log, parse, read

UPSTREAM = (
    "step 00010 (3.3%) | loss: 5.123456 | lrm: 1.00 | dt: 100ms | tok/sec: 12,345 | mfu: 1.0% | epoch: 1 | "
    "remaining: 290s    "
)
OURS = "step 00010 (  3.3%) | loss: 5.1235 | tok/sec: 1,012,345 | remaining: 290s"
POINTS = st.lists(
    st.tuples(
        st.integers(0, 1000),
        st.integers(0, 200_000),
        st.none() | st.integers(1, 10**9),
    ),
    max_size=500,
)


def line(permille: int, loss: int, rate: int | None) -> str:
    speed = "" if rate is None else f" | tok/sec: {rate:,}"
    return f"step {permille:05d} ({permille / 10:5.1f}%) | loss: {loss / 10_000:.4f}{speed} | remaining: 1s"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (UPSTREAM, CurvePoint(0.033, 5.123456, 12_345)),
        (OURS, CurvePoint(0.033, 5.1235, 1_012_345)),
        ("step 5 (100%) | loss: 2", CurvePoint(1.0, 2.0, None)),
        ("step 00001 (  0.0%) | loss: 9.1 | tok/sec: 0 | remaining: 5s", CurvePoint(0.0, 9.1, None)),
        ("step 1 (1.0%) | loss: 1.5e-05 | tok/sec: 12345.678", CurvePoint(0.01, 1.5e-05, 12345.678)),
        ("step 1 (1.0%) | loss: 2.0 | loss: 1.0", CurvePoint(0.01, 2.0, None)),  # the first of a name
        ("step 1 (1.0%) | loss: 2.0 | tok/sec: nan", CurvePoint(0.01, 2.0, None)),
        ("step 1 (1.0%) | loss: 2.0 | tok/sec: 1,2,3", CurvePoint(0.01, 2.0, None)),
        ("step 1 (1.0%) | loss: nan | tok/sec: 12", None),
        ("step 1 (1.0%) | loss: inf", None),
        ("step 1 (1.0%) | loss: -1.0", None),
        ("step 1 (1.0%) | loss: 1e+99", CurvePoint(0.01, 1e99, None)),
        ("step 1 (1.0%) | loss: 1e+999", None),
        ("step 1 (1.0%) | loss: ١", None),
        ("step 1 (101%) | loss: 1.0", None),
        ("step 1 (-1%) | loss: 1.0", None),
        ("step 1 (1.0%) | lrm: 1.0", None),
        ("step 1 (1.0%)", None),
        ("x step 1 (1.0%) | loss: 1.0", None),
        ("step 1 (1.0%) | loss: 1.0 | " + "x" * 400, None),
        ("step " + "9" * 300 + " (1.0%) | loss: 1.0", None),
        ("val_bpb: 1.5", None),
        ("", None),
    ],
)
def test_a_line(text: str, found: CurvePoint | None) -> None:
    assert read(text) == (pytest.approx(found) if found else None)


def test_a_run_with_carriage_returns() -> None:
    log = "device gpu\n" + "".join(f"\r{line(10 * i, 50_000 - 100 * i, 1_000 + i)}" for i in range(101))
    log += "\n---\nval_bpb:          1.500000\n"
    found = of_log(log.encode())
    assert [point.progress for point in found.points] == pytest.approx([i / 100 for i in range(101)])
    assert found.points[-1].loss == pytest.approx(4.0)
    assert found.tokens_per_second == 1_075  # of the second half
    assert found.at(0.505) == pytest.approx(4.495)
    assert found.at(1.0) == pytest.approx(4.0)
    assert Curve().at(0.5) is None
    assert of_log(b"\xff\xfe\n\r\r\n") == Curve()


def test_progress_never_falls_and_the_later_of_two_counts() -> None:
    found = parse([line(100, 40_000, 5), line(100, 39_000, 6), line(50, 1, 7), line(200, 38_000, 8)])
    assert found.points == (CurvePoint(0.1, 3.9, 6), CurvePoint(0.2, 3.8, 8))


def test_a_long_log_is_thinned_evenly() -> None:
    lines = [f"step {i} ({i / 1000:.3f}%) | loss: {5 - i / 50_000:.6f} | tok/sec: 500" for i in range(100_001)]
    found = parse(lines)
    assert len(found.points) == MAX_POINTS
    assert found.points[0].progress == 0
    assert found.points[-1] == CurvePoint(1.0, 3.0, 500)
    steps = [b.progress - a.progress for a, b in zip(found.points, found.points[1:], strict=False)]
    assert max(steps) < 4 / MAX_POINTS
    assert found.tokens_per_second == 500


def test_a_hostile_log_is_left_at_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve, "MAX_LINES", 10)
    assert len(parse(line(i, 1, 1) for i in range(10**6)).points) == 10
    assert parse(["\r" * 1_000_000, "x" * 1_000_000]) == Curve()


def test_the_bundled_script_prints_such_lines() -> None:
    source = (Path(__file__).parents[3] / "trainer" / "train.py").read_text()
    found = re.findall(r'print\((f"(?:step|tok)[^"]*")', source)
    assert len(found) == 2
    values = {
        "steps": 12,
        "progress": 0.25,
        "smooth_loss": 3.5,
        "rate": 81_234.4,
        "TIME_BUDGET": 300,
        "training_seconds": 75.0,
    }
    text = " | ".join(eval(part, {**values, "min": min, "max": max}) for part in found)
    assert read(text) == CurvePoint(0.25, 3.5, 81_234)


@given(POINTS)
def test_points_come_back(values: list[tuple[int, int, int | None]]) -> None:
    rising = sorted({value[0]: value for value in values}.values())
    found = parse(line(*value) for value in rising)
    assert len(found.points) == min(len(rising), MAX_POINTS) or len(rising) > 2 * MAX_POINTS
    if len(rising) <= MAX_POINTS:
        assert found.points == tuple(
            CurvePoint(float(f"{p / 10:.1f}") / 100, loss / 10_000, rate) for p, loss, rate in rising
        )
    if rising:
        assert found.points[-1].progress == float(f"{rising[-1][0] / 10:.1f}") / 100


@given(st.lists(st.text(max_size=120) | st.builds(line, st.integers(0, 2000), st.integers(0, 10**6), st.none())))
def test_any_text_gives_a_bounded_rising_curve(lines: list[str]) -> None:
    found = parse(lines)
    assert len(found.points) <= MAX_POINTS
    progress = [point.progress for point in found.points]
    assert progress == sorted(set(progress))
    assert all(0 <= p <= 1 for p in progress)


@given(st.binary(max_size=500))
def test_any_bytes_are_a_log(log: bytes) -> None:
    of_log(log)
