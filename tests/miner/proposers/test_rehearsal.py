"""Rehearsals, for real: a script and its edits run two tiny steps in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from miner.proposers.edits import rehearsal
from miner.proposers.edits.catalogue import BY_NAME
from tests.miner.proposers.test_edits import SOURCES, TODAY
from trainer.project import sites


def rehearse(folder: Path, source: str, before: str = "") -> str:
    (folder / "train.py").write_text(rehearsal.script(source, before or source))
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=folder, capture_output=True, text=True, timeout=150, check=False
    )
    return "" if done.returncode == 0 and "val_bpb" in done.stdout else done.stderr


@pytest.mark.parametrize(
    ("script", "edit"),
    [
        *(("classic", name) for name in ("", "swiglu", "muon", "peri-norm", "u-net-skips", "average-weights")),
        *(("classic", name) for name in ("compiled-gradient", "master-weights", "pair-embeddings")),
        *(("decaying", name) for name in ("", "value-embeddings", "decoupled-decay", "master-weights")),
        *(("today", name) for name in ("", "attention-gate", "even-steps", "momentum-warm-up")),
    ],
)
def test_it_runs(tmp_path: Path, script: str, edit: str) -> None:
    source = TODAY if script == "today" else SOURCES[script]
    assert rehearse(tmp_path, BY_NAME[edit](source) if edit else source, source) == ""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("x = norm(x)\n        logits", "x = mx.flip(norm(x), axis=1)\n        logits", "sees the tokens after it"),
        ("return x * mx.rsqrt(", "return 0 * x / mx.zeros_like(x) + x * mx.rsqrt(", "not finite"),
        ("self.c_fc(x)", "self.c_fc(x)[..., :3]", "shape"),
        ("reduction=reduction)", 'reduction="mean")', "wrong shape"),
    ],
)
def test_what_is_broken_fails_it(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in SOURCES["classic"]
    assert words in rehearse(tmp_path, SOURCES["classic"].replace(old, new))


def test_what_is_compiled_is_rehearsed_so(tmp_path: Path) -> None:
    """A function that leaves what it traced in the model runs as it is, and breaks only once it is compiled."""
    source = SOURCES["classic"]
    changed = BY_NAME["compiled-gradient"](source).replace(", outputs=kept", "")
    assert changed != BY_NAME["compiled-gradient"](source)
    assert "without a primitive" in rehearse(tmp_path, changed, source)
    assert rehearse(tmp_path, changed) == ""  # compiled as the script before it: that is not looked at again


def test_sizes_are_made_tiny() -> None:
    small = sites.values(rehearsal.shrunk(SOURCES["classic"]))
    assert {name: small[name] for name in ("DEPTH", "ASPECT_RATIO", "TOTAL_BATCH_SIZE", "DEVICE_BATCH_SIZE")} == {
        "DEPTH": 2,
        "ASPECT_RATIO": 16,
        "TOTAL_BATCH_SIZE": 64,
        "DEVICE_BATCH_SIZE": 2,
    }
