"""Salted runs: every source of chance in a script follows the judge's salt, and nothing does without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.measurement.salts import fresh_salt, salt_of

INSIDE = Path(__file__).resolve().parents[3] / "trainer" / "measurement" / "inside_prepare.py"

HARNESS = """
def make_dataloader(tokenizer, batch_size, seq_len, split):
    return iter(range(1000))
"""

SCRIPT = """
import random, numpy, mlx.core as mx
from random import Random as EarlyRandom
from numpy.random import default_rng as early_rng
from mlx.core.random import normal as early_normal
mx.random.seed(42); random.seed(42); numpy.random.seed(42)  # before the harness is imported, for what that is worth
import prepare
def drawn():
    return [
        float(mx.random.uniform()),
        float(mx.random.uniform(key=mx.random.key(3))),
        float(numpy.random.random()),
        float(numpy.random.default_rng(5).random()),
        float(numpy.random.RandomState(5).random()),
        random.random(),
        random.Random(6).random(),
        EarlyRandom(6).random(),
        float(early_rng(5).random()),
        float(numpy.random.Generator(numpy.random.PCG64(5)).random()),
        float(numpy.random.Generator(numpy.random.Philox(numpy.random.SeedSequence(5))).random()),
        float(mx.random.uniform(key=mx.array([0, 3], mx.uint32))),
        float(mx.random.normal([], mx.float32, 0.0, 1.0, mx.array([0, 3], mx.uint32))),
        float(early_normal(key=mx.random.split(mx.array([0, 3], mx.uint32))[0])),
        float(hash("text") % 1000003),
        float(next(prepare.make_dataloader(None, 1, 1, "train"))),
    ]
print(drawn())
mx.random.seed(42); random.seed(42); numpy.random.seed(42)
print(drawn())
assert isinstance(random.Random(1), random.Random) and isinstance(numpy.random.RandomState(1), numpy.random.RandomState)
assert random.Random().random() != random.Random().random()  # None still asks for chance
"""


def drawn(folder: Path, salt: str) -> list[str]:
    """The two lines of SCRIPT, run beside `inside_prepare` as `prepare`."""
    (folder / "code").mkdir(exist_ok=True)
    (folder / "code" / "prepare.py").write_bytes(INSIDE.read_bytes())
    (folder / "code" / "train.py").write_text(SCRIPT)
    (folder / "harness.py").write_text(HARNESS)
    salted = {"SALT": salt, "PYTHONHASHSEED": str(int(salt[:8], 16))} if salt else {"PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [sys.executable, "train.py"],
        cwd=folder / "code",
        env={**os.environ, "HARNESS": str(folder / "harness.py"), **salted},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.splitlines()


def test_every_source_of_chance_follows_the_salt(tmp_path: Path) -> None:
    one, again, other, plain = (drawn(tmp_path, salt) for salt in ("ab" * 16, "ab" * 16, "cd" * 16, ""))
    assert one == again
    assert plain == drawn(tmp_path, "")
    for line in (0, 1):
        lines = [eval(found[line]) for found in (one, other, plain)]
        for place, values in enumerate(zip(*lines, strict=True)):
            assert len(set(values)) == 3, (place, values)


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_salts_are_shared_by_pairs_and_differ_otherwise(seed: int) -> None:
    assert salt_of(seed, 0) == salt_of(seed, 0)
    assert len({salt_of(seed, 0), salt_of(seed, 1), salt_of(seed + 1, 0), fresh_salt(), fresh_salt()}) == 5
    assert len(bytes.fromhex(salt_of(seed, 0))) == len(bytes.fromhex(fresh_salt())) == 16
