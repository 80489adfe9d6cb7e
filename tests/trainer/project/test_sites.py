"""Literal sites: what is lifted and what never is, as a table; replacing them keeps everything else."""

from __future__ import annotations

import ast

import pytest

from trainer.errors import TrainerError
from trainer.project import sites
from trainer.project.hyperparameters import Value

SCRIPT = '''"""A script of the family."""
import os
from dataclasses import dataclass

ADAM_BETAS = (0.8, 0.95)
DEPTH = int(os.environ.get("DEPTH", "4"))
WIDTH = 64
WIDTH = int(os.environ.get("WIDTH", WIDTH))
WARMUP_RATIO = 0


@dataclass
class Config:
    n_layer: int = 12
    window: int = 2
    vocab_size: int = 8192


def norm(x):
    return x * rsqrt(mean(x * x, axis=-1) + 1e-5)


class Mlp(Module):
    def __init__(self, config):
        self.gate_channels = 32
        self.up = Linear(config.n_embd, 4 * config.n_embd, bias=False)
        self.down = Linear(4 * config.n_embd, config.n_embd)
        self.rope = RoPE(8, traditional=True, base=10000)
        qkv = Linear(config.n_embd, 3 * config.n_embd)

    def init_weights(self):
        self.x0 = full((2,), 0.1)
        self.head.weight = normal(self.head.weight.shape) * 0.001

    def estimate_flops(self):
        return 6 * self.params

    def __call__(self, x):
        logits = 15.0 * tanh(x.reshape(-1, 16) / 15.0)
        return logits[..., :7]


def make_optimizer(lr, eps=1e-8):
    return {"lr": lr * 0.01, "eps": 1e-10, "betas": (0.9, 0.99), "weight_decay": 0.0}


config = Config(n_layer=DEPTH, vocab_size=100)
print(f"{100 * DEPTH:.2f}", end="")
'''


def test_what_is_lifted_and_what_is_not() -> None:
    assert sites.values(SCRIPT) == {
        "DEPTH": 4,
        "WIDTH": 64,
        "WARMUP_RATIO": 0.0,
        "ADAM_BETAS[0]": 0.8,
        "ADAM_BETAS[1]": 0.95,
        "Config.window": 2,
        "norm.eps": 1e-5,
        "Mlp.gate_channels": 32,
        "Mlp.n_embd*": 4,
        "Mlp.RoPE.traditional": True,
        "Mlp.RoPE.base": 10000,
        "Mlp.x0": 0.1,
        "Mlp.head*": 0.001,
        "Mlp.tanh*": 15.0,
        "make_optimizer.eps": 1e-8,
        "make_optimizer.lr*": 0.01,
        "make_optimizer.eps#2": 1e-10,
        "make_optimizer.betas[0]": 0.9,
        "make_optimizer.betas[1]": 0.99,
        "make_optimizer.weight_decay": 0.0,
    }


@pytest.mark.parametrize(
    ("changes", "old", "new"),
    [
        ({"Mlp.n_embd*": 3}, "4 * config.n_embd", "3 * config.n_embd"),
        ({"Mlp.tanh*": 30.0}, "15.0", "30.0"),
        ({"ADAM_BETAS[1]": 0.99}, "(0.8, 0.95)", "(0.8, 0.99)"),
        ({"DEPTH": 6}, 'get("DEPTH", "4")', 'get("DEPTH", 6)'),
        ({"WIDTH": 128}, "WIDTH = 64", "WIDTH = 128"),
        ({"WARMUP_RATIO": 0.05}, "WARMUP_RATIO = 0", "WARMUP_RATIO = 0.05"),
        ({"Mlp.RoPE.traditional": False}, "traditional=True", "traditional=False"),
    ],
)
def test_all_places_turn_and_nothing_else(changes: dict[str, Value], old: str, new: str) -> None:
    changed = sites.replace(SCRIPT, changes)
    assert changed == SCRIPT.replace(old, new)
    assert {name: sites.values(changed)[name] for name in changes} == changes
    ast.parse(changed)


def test_the_present_values_change_nothing_and_bad_ones_are_refused() -> None:
    assert sites.replace(SCRIPT, sites.values(SCRIPT)) == SCRIPT
    for changes in ({"Mlp.none": 1}, {"DEPTH": "deep"}, {"Mlp.tanh*": float("inf")}):
        with pytest.raises(TrainerError):
            sites.replace(SCRIPT, changes)


def test_what_the_script_itself_rebinds_is_no_site() -> None:
    source = "A = 1\nA = A + 1\nB = 2\nB = int(os.environ.get('B', 3))\nC = os.environ['C']\n"
    assert sites.values(source) == {}


def test_the_multipliers_of_a_hash_are_no_sites() -> None:
    source = "class GPT:\n    def __call__(self, x, one):\n        return one * 36313 ^ x * 27191, 4 * x.width\n"
    assert sites.values(source) == {"GPT.width*": 4}
