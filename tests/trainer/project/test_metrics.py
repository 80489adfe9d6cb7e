"""What counts as a metric in a log, as a table."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.pattern import MAX_LINES
from trainer.project import protocol
from trainer.project.metrics import Metrics, Missing, extract
from trainer.project.protocol import Metric

PROTOCOL = protocol.parse((Path(__file__).parents[3] / "configs" / "armlx" / "protocol.json").read_bytes())
EXAMPLE = PROTOCOL.raw["measurement"]["primaryMetric"]["extract"]["exampleStdout"].encode()


def test_the_protocols_own_example() -> None:
    expected = Metrics(2.534, {"peak_vram_mb": 27528.9, "training_seconds": 312.4})
    assert extract(EXAMPLE, PROTOCOL) == expected
    assert extract(b"step 1\rstep 2\r\n" + EXAMPLE + b"\nbye\n", PROTOCOL) == expected


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (b"", Missing.NO_SUMMARY),
        (b"val_bpb: 1.5\n", Missing.NO_SUMMARY),
        (b"----\nval_bpb: 1.5\n", Missing.NO_SUMMARY),
        (b"--- \nval_bpb: 1.5\n", Missing.NO_SUMMARY),
        (b"x ---\nval_bpb: 1.5\n", Missing.NO_SUMMARY),
        (b"val_bpb: 0.1\n---\n", Missing.NO_MATCH),
        (b"---\nval_bpb: 1.5", 1.5),
        (b"---\nval_bpb: 0.1\n---\nval_bpb: 1.5\n", 1.5),
        (b"---\n---\nval_bpb: 1.5\n", 1.5),
        (b"---\nval_bpb: 1.5\n---\n", Missing.NO_MATCH),
        (b"---\nval_bpb: 1.5\nval_bpb: 1.4\n", Missing.SEVERAL),
        (b"---\nval_bpb: 1.5\nval_bpb: 1.5\n", Missing.SEVERAL),
        (b"---\nstep\rval_bpb: 0.1\nval_bpb: 1.5\n", 1.5),
        (b"---\n\rval_bpb: 0.1\rstep\n", Missing.NO_MATCH),
        (b"---\nstep\x0bval_bpb: 0.1\x0c\x1c\xc2\x85\xe2\x80\xa8val_bpb: 0.1\nval_bpb: 1.5\n", 1.5),
        (b"---\nval_bpb: nan\n", Missing.NO_MATCH),
        (b"---\nval_bpb: -1\n", Missing.NO_MATCH),
        (b"---\nval_bpb: " + b"9" * 150 + b"\n", float("9" * 150)),
        (b"---\nval_bpb: " + b"9" * 400 + b"\n", Missing.NO_MATCH),
        ("---\nval_bpb: \N{ARABIC-INDIC DIGIT ONE}\n".encode(), Missing.NO_MATCH),
        (b"---\n\xff\xfe\nval_bpb: 1.5\n", 1.5),
        (b"---\n" + b"x\n" * (MAX_LINES + 1) + b"val_bpb: 1.5\n", Missing.SUMMARY_TOO_LONG),
    ],
)
def test_rules(log: bytes, expected: float | Missing) -> None:
    found = extract(log, PROTOCOL)
    assert (found.primary if isinstance(found, Metrics) else found) == expected


@pytest.mark.parametrize("word", [b"nan", b"inf", b"-inf", b"1e999", b"one", b"0x1"])
def test_a_value_must_be_a_finite_number(word: bytes) -> None:
    loose = replace(PROTOCOL, primary=Metric("val_bpb", "minimize", re.compile(r"^val_bpb: (\S+)$")))
    assert extract(b"---\nval_bpb: " + word + b"\n", loose) is Missing.NOT_FINITE


def test_a_group_that_took_no_part_is_no_number() -> None:
    loose = replace(PROTOCOL, primary=Metric("val_bpb", "minimize", re.compile(r"^val_bpb:(?: (\d))?$")))
    assert extract(b"---\nval_bpb:\n", loose) is Missing.NOT_FINITE


def test_a_secondary_metric_never_decides() -> None:
    log = b"---\nval_bpb: 1.5\npeak_vram_mb: 1\npeak_vram_mb: 2\ntraining_seconds: 3.5\n"
    assert extract(log, PROTOCOL) == Metrics(1.5, {"training_seconds": 3.5})


@given(st.binary(max_size=400) | st.text(alphabet="-val_bpb: 1.5\r\n").map(str.encode))
def test_any_log_gives_a_finite_number_or_a_reason(log: bytes) -> None:
    found = extract(log, PROTOCOL)
    assert isinstance(found, Missing) or math.isfinite(found.primary)
