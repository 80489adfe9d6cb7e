"""What a candidate's source says, whatever it is dressed in."""

from __future__ import annotations

import pytest

from trainer.project.source import essence

SCRIPT = b"""
import math
LR = 0.04


def step(x, rate=LR):
    \"\"\"One step.\"\"\"
    y = x * rate
    return math.sqrt(y) if y > 0 else 0.5
"""


def of(script: bytes) -> str:
    return essence({"train.py": b"old", "a": b"a"}, {"train.py": script, "a": b"a"})


@pytest.mark.parametrize(
    "dressed",
    [
        SCRIPT.replace(b"LR = 0.04", b"LR = 0.04  # tuned"),
        SCRIPT.replace(b"    y = x * rate", b"    y = (x *\n        rate)"),
        SCRIPT.replace(b"One step.", b"Another word on it."),
        SCRIPT.replace(b"LR", b"LEARNING_RATE").replace(b"step(x", b"move(x"),
        SCRIPT.replace(b"y = ", b"scaled = ").replace(b"(y)", b"(scaled)").replace(b"if y", b"if scaled"),
        SCRIPT.replace(b"0.04", b"0.0400001"),
        SCRIPT.replace(b"0.04", b"4e-2"),
    ],
)
def test_what_changes_nothing_says_the_same(dressed: bytes) -> None:
    assert dressed != SCRIPT
    assert of(dressed) == of(SCRIPT)


@pytest.mark.parametrize(
    "other",
    [
        SCRIPT.replace(b"0.04", b"0.05"),
        SCRIPT.replace(b"x * rate", b"x + rate"),
        SCRIPT.replace(b"math.sqrt", b"math.log"),
        SCRIPT.replace(b"y > 0", b"y > 1"),
        SCRIPT.replace(b"rate=LR", b"rate=0.04"),
        b"not python (",
        b"",
    ],
)
def test_what_changes_something_does_not(other: bytes) -> None:
    assert of(other) != of(SCRIPT)


def test_every_changed_file_counts_and_no_other() -> None:
    snapshot = {"train.py": SCRIPT, "prepare.py": b"p"}
    assert essence(snapshot, {**snapshot, "train.py": b"x = 1"}) == essence(
        {**snapshot, "more": b"m"}, {**snapshot, "train.py": b"x = 1"}
    )
    assert essence(snapshot, {**snapshot, "note.txt": b"a"}) != essence(snapshot, {**snapshot, "note.txt": b"b"})
    assert essence(snapshot, snapshot) != essence(snapshot, {**snapshot, "train.py": b"x = 1"})
