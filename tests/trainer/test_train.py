"""The baseline learns: in a fixed number of batches, more of a text than a textbook, and what only a block can."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.benchmarks.bench_training import OURS, PLAIN, Bench, prepared
from trainer.project import recipe
from trainer.project.hyperparameters import Value

SIZES: Mapping[str, Value] = {"DEPTH": 2, "MODEL_DIM": 32, "HEAD_DIM": 16, "BATCH_SIZE": 8}
OURS_SIZES: Mapping[str, Value] = {**SIZES, "NGRAM_ROWS": 1024}

# A harness whose rows repeat three random tokens: neither the last token nor the last two say what comes next, and
# attention to the third from the end says it all. The metric is in bits per token, 5 without attention.
PERIODIC = """
import math
import mlx.core as mx
MAX_SEQ_LEN, TIME_BUDGET = 24, 1
class Tokenizer:
    from_directory = classmethod(lambda cls: cls())
    get_vocab_size = lambda self: 32
def make_dataloader(tokenizer, batch_size, seq_len, split):
    key = mx.random.key(0 if split == "train" else 1)
    while True:
        key, now = mx.random.split(key)
        rows = mx.tile(mx.random.randint(0, 32, (batch_size, 3), key=now), (1, 9))[:, : seq_len + 1]
        yield rows[:, :-1], rows[:, 1:], 1
def evaluate_bpb(model, tokenizer, batch_size):
    x, y, _ = next(make_dataloader(tokenizer, 64, MAX_SEQ_LEN, "val"))
    return model(x, y, reduction="none")[:, 3:].mean().item() / math.log(2)
"""


@pytest.fixture
def periodic(tmp_path: Path) -> Bench:
    (tmp_path / "prepare.py").write_text(PERIODIC)
    return Bench(tmp_path, tmp_path, batches=120)


def test_its_blocks_learn(periodic: Bench) -> None:
    assert periodic.run(OURS, OURS_SIZES, 0).val_bpb < 1.0
    assert periodic.run(OURS, {**OURS_SIZES, "MATRIX_LR": 0.0}, 0).val_bpb > 4.5  # nothing else could have learnt it


def test_it_beats_the_textbook(tmp_path: Path) -> None:
    files = dict(recipe.load("smoke").files)
    terms = json.loads(files["protocol.json"])
    terms["archetypeExtensions"]["ml_train"] |= {"evalTokens": 8192, "sequenceLength": 32, "vocabSize": 320}
    files["protocol.json"] = json.dumps(terms).encode()
    bench = prepared(tmp_path, files, tmp_path / "cache", ("--text", "stdlib", "--max-bytes", "1500000"), batches=150)
    assert bench.run(OURS, OURS_SIZES, 0).val_bpb < bench.run(PLAIN, SIZES, 0).val_bpb - 0.15
