"""What a candidate's source says, whatever it is dressed in."""

from __future__ import annotations

import pytest

from trainer.project.source import essence

SCRIPT = b"""
import math
LR = 0.04


class Model:
    def __init__(self):
        self.width = 64

    def size(self):
        return 2 * self.width


def step(x, rate=LR):
    \"\"\"One step.\"\"\"
    y = x * rate
    return math.sqrt(y) if y > 0 else 0.5


print(step(Model().size()))
loss = step(Model().size())
if loss > 1:
    loss = 1
assert loss
"""


def of(script: bytes) -> str:
    return essence({"train.py": b"old", "a": b"a"}, {"train.py": script, "a": b"a"})


@pytest.mark.parametrize(
    "dressed",
    [
        SCRIPT.replace(b"LR = 0.04", b"LR = 0.04  # tuned"),
        SCRIPT.replace(b"    y = x * rate", b"    y = (x *\n        rate)"),
        SCRIPT.replace(b"One step.", b"Another word on it."),
        SCRIPT.replace(b"LR", b"LEARNING_RATE").replace(b"step(", b"move("),
        SCRIPT.replace(b"y = ", b"scaled = ").replace(b"(y)", b"(scaled)").replace(b"if y", b"if scaled"),
        SCRIPT.replace(b"0.04", b"0.0400001"),
        SCRIPT.replace(b"0.04", b"4e-2"),
        # nothing that does anything
        SCRIPT.replace(b"LR = 0.04", b"LR: float = 0.04"),
        SCRIPT.replace(b"x, rate=LR):", b"x: float, rate: float = LR) -> float:"),
        SCRIPT.replace(b"LR = 0.04", b"UNUSED = 3\nALSO = UNUSED\nLR = 0.04"),
        SCRIPT.replace(b"import math", b"import math, os\nfrom time import sleep"),
        SCRIPT.replace(b"    y = x", b"    pass\n    'a word'\n    y = x"),
        SCRIPT.replace(b"    y = x", b"    if 0:\n        y = 3\n    if True:\n        pass\n    y = x"),
        SCRIPT.replace(b"print(step", b"print('loss', step"),
        SCRIPT.replace(b"0.5", b"1 / 2").replace(b"= 64", b"= 8 * 8.0"),
        SCRIPT.replace(b"width", b"breadth"),
        SCRIPT.replace(b"Model", b"Net"),
        SCRIPT.replace(
            b"""    def __init__(self):
        self.width = 64

    def size(self):
        return 2 * self.width
""",
            b"""    def size(self):
        return 2 * self.width

    def __init__(self):
        self.width = 64
""",
        ),
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
        SCRIPT.replace(b"= 64", b"= 65"),
        SCRIPT.replace(b"2 * self", b"3 * self"),
        SCRIPT.replace(b"loss = 1", b"loss = 2"),
        SCRIPT.replace(b"loss > 1", b"True"),
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


@pytest.mark.parametrize("odd", [b"x = " + b"-" * 800 + b"1\n", b"x = 0x" + b"f" * 9000 + b"\nassert x\n"])
def test_what_cannot_be_read_shares_one_budget(odd: bytes) -> None:
    assert of(odd) == of(odd + b"y = 2\nassert y\n")


def test_reading_a_script_writes_nothing(recwarn: pytest.WarningsRecorder) -> None:
    of(b'x = "\\\x1b"\n')
    assert not recwarn.list
