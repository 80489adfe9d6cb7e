"""`master-weights` at work: steps that bfloat16 rounds away add up in the copies, and others may write weights."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.resources import ROOT
from miner.proposers.edits import rehearsal
from miner.proposers.edits.catalogue import BY_NAME
from miner.proposers.edits.patterns import DoesNotFit
from tests.miner.proposers.test_edits import SOURCES, TODAY
from trainer.project import sites

EDIT = BY_NAME["master-weights"]
_GPU = "mx.default_device() == mx.gpu"
# In bfloat16 on a CPU too, as they are on a GPU.
LOW = {
    "classic": SOURCES["classic"],
    "decaying": SOURCES["decaying"].replace(f"mx.bfloat16 if {_GPU} else mx.float32", "mx.bfloat16"),
    "plain": (ROOT / "tests" / "benchmarks" / "plain_transformer.py").read_text().replace(f"if {_GPU}:", "if True:"),
}
STEPS = 60
TINY = 5e-5  # a rate: under half the distance of two bfloat16 numbers from 1/16 on, and over it after all the steps

# One batch again and again, a clock that only looks move, and at the end how many of the weights from 1/16 on are not
# where steps of rate 0 leave them, inside the blocks and elsewhere. `once` is for scripts that write weights.
_STAGE = """
import itertools, json, sys, time, types
import mlx.core as mx
from mlx.utils import tree_flatten, tree_map
mx.set_default_device(mx.cpu)
mx.disable_compile()
mx.random.seed(7)
tokens = mx.random.randint(0, 64, (2, 33))
ended = []
stage = types.ModuleType("prepare")
stage.MAX_SEQ_LEN, stage.TIME_BUDGET = 32, {steps}
class Tokenizer:
    @classmethod
    def from_directory(cls):
        return cls()
    def get_vocab_size(self):
        return 64
def make_dataloader(tokenizer, batch, length, split):
    while True:
        yield tokens[:, :-1], tokens[:, 1:], 1
def evaluate_bpb(model, *args):
    ended.append([(path, weight) for path, weight in tree_flatten(model.parameters())])
    return 1.0
stage.Tokenizer, stage.make_dataloader, stage.evaluate_bpb = Tokenizer, make_dataloader, evaluate_bpb
sys.modules["prepare"] = stage
def once(model):
    if not written:
        written.append(model.update(tree_map(lambda w: 0 * w + 0.5, model.parameters())))
for source in {sources!r}:
    looks, written = itertools.count(), []
    time.time = time.perf_counter = lambda: float(next(looks))
    exec(compile(source, "train.py", "exec"), {{"__name__": "__main__", "once": once}})
moved = {{True: 0, False: 0}}
for (path, start), (_, end) in zip(*ended, strict=True):
    assert start.dtype == end.dtype, path
    assert not written or bool(mx.all(start == 0.5).item()), path + " is not what was written"
    large = mx.abs(start.astype(mx.float32)) >= 1 / 16
    if start.dtype == mx.bfloat16:
        moved["blocks" in path or "layers" in path] += int(mx.sum(large & (start != end)).item())
print(json.dumps([moved[True], moved[False]]))
"""


def moved(folder: Path, source: str) -> tuple[int, int]:
    """How many large weights the tiny rate moves, inside the blocks and elsewhere."""
    small = rehearsal.shrunk(source)
    rates = [site.name for site in sites.find(small) if site.name.endswith("LR")]
    assert rates
    pair = [sites.replace(small, dict.fromkeys(rates, rate)) for rate in (0.0, TINY)]
    (folder / "run.py").write_text(_STAGE.format(steps=STEPS, sources=pair))
    done = subprocess.run(
        [sys.executable, "run.py"], cwd=folder, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr
    inside, elsewhere = json.loads(done.stdout.splitlines()[-1])
    return inside, elsewhere


@pytest.mark.parametrize("name", LOW)
def test_steps_that_are_rounded_away_add_up(tmp_path: Path, name: str) -> None:
    assert moved(tmp_path, LOW[name]) == (0, 0)
    inside, elsewhere = moved(tmp_path, EDIT(LOW[name]))
    assert inside > 100
    assert elsewhere > 100


@pytest.mark.parametrize("first", ["muon", "master-weights"])
def test_matrices_that_muon_moves_have_copies_too(tmp_path: Path, first: str) -> None:
    muon = BY_NAME["muon"]
    assert moved(tmp_path, muon(LOW["classic"]))[0] == 0
    both = EDIT(muon(LOW["classic"])) if first == "muon" else muon(EDIT(LOW["classic"]))
    assert moved(tmp_path, both)[0] > 100


@pytest.mark.parametrize("name", ["classic", "decaying"])
def test_what_others_write_into_a_weight_counts(tmp_path: Path, name: str) -> None:
    """A copy that outlived that would bring the weights back to where they were."""
    line = re.search(r"\n( *)optimizer\.update\(model, .*\n", EDIT(LOW[name]))
    assert line is not None
    source = LOW[name].replace(line[0], f"{line[0]}{line[1]}once(model)\n")
    moved(tmp_path, source)
    moved(tmp_path, EDIT(source))


@pytest.mark.parametrize("first", ["decoupled-decay", "master-weights"])
def test_weight_decay_beside_the_update_reaches_the_copies(first: str) -> None:
    decay = BY_NAME["decoupled-decay"]
    source = EDIT(decay(LOW["decaying"])) if first == "decoupled-decay" else decay(EDIT(LOW["decaying"]))
    in_turn = ("mx.where(master", "optimizer.update(model", "w * (1.0 - MATRIX_LR", 'masters["weights"] = model')
    places = [source.index(words) for words in in_turn]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (TODAY, "16 bits"),
        (BY_NAME["float32-weights"](LOW["classic"]), "16 bits"),
        (BY_NAME["float32-weights"](SOURCES["decaying"]), "16 bits"),
        (EDIT(LOW["classic"]), "already"),
        (LOW["classic"].replace("param_f32.astype(param.dtype)", "param_f32.astype(mx.bfloat16)"), "rounds by itself"),
        (LOW["classic"].replace("optimizer.update(model, accum_grads)", "optimizer.apply(accum_grads)"), "no single"),
        (LOW["plain"].replace("update(model, gradient)", "update(model, both(model, x, y)[1])"), "within the update"),
        (LOW["plain"].replace("model, gradient)", "model, loss_and_gradient(x, y)[1])"), "within the update"),
        (LOW["decaying"].replace("[model.state, optimizer.state]", "[model.state, *more]"), "nothing like"),
    ],
)
def test_what_it_refuses(source: str, words: str) -> None:
    with pytest.raises(DoesNotFit, match=words):
        EDIT(source)
