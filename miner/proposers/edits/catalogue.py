"""The library: each edit with its kind, what it looks for, and what such a change was worth elsewhere.

`wins` and `gain` are the prior: how often the change was kept in 159 kept changes of public sessions (113 on Macs), and
the median gain there in bpb; where those sessions have none, our own pairs that gained 0.01 or more, else one half win
and a guess of its kind's size. `gpu` is the factor on a machine with a discrete accelerator, where speed and memory
stand differently. Our own runs on H200s (docs/measurements.md) count there as one win or loss more each: `gpu` is the
mean gain with them over the median without, rounded down to a quarter, a tenth at least, for the sessions tell of what
was kept alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import libcst as cst

from miner.proposers.edits import blocks, loops, patterns
from miner.proposers.edits.blocks import PLAIN, SQUARE
from miner.proposers.edits.patterns import DoesNotFit
from trainer.errors import InvalidBundle

Apply = Callable[[cst.Module], cst.Module]


@dataclass(frozen=True, slots=True)
class Edit:
    """One change: its name, its kind, what it does and looks for in words, and its prior."""

    name: str
    kind: str
    words: str
    looks_for: str
    apply: Apply
    wins: float = 0.5
    gain: float = 0.005
    gpu: float = 1.0

    @property
    def worth(self) -> float:
        """The expected gain of a trial in bpb, up to a factor that all share: wins times gain."""
        return self.wins * self.gain

    def __call__(self, source: str) -> str:
        """The changed script; DoesNotFit if the script is not of the kind, or would not change."""
        try:
            tree = patterns.parsed(source)
        except (cst.ParserSyntaxError, RecursionError) as error:
            raise InvalidBundle("The script is not valid Python.", "Correct it.") from error
        changed = patterns.text_of(self.apply(tree))
        if changed == source:
            raise DoesNotFit("it is so already")
        compile(changed, "train.py", "exec")
        return changed


def _rules(*rules: tuple[str, str], scope: str = "") -> Apply:
    return lambda tree: patterns.rewrite(tree, rules, scope)


_ACTIVATIONS = (*SQUARE, *PLAIN)


def _activation(new: str, *old: str) -> Apply:
    return _rules(*((pattern, new) for pattern in old))


_SQUARED = "squared ReLU, however it is spelt"
_ANY = "one activation: squared ReLU, ReLU, SiLU or GELU"

CATALOGUE: tuple[Edit, ...] = (
    # --- activation
    Edit(
        "silu",
        "activation",
        "SiLU in place of squared ReLU",
        _SQUARED,
        _activation("nn.silu(_x)", *SQUARE),
        5,
        0.079,
        0.75,  # +0.049 in four pairs, +0.038 in one run: 0.80 of the median
    ),
    Edit("gelu", "activation", "GELU in place of squared ReLU", _SQUARED, _activation("nn.gelu(_x)", *SQUARE), 1, 0.03),
    Edit(
        "swiglu",
        "activation",
        "a gated feed-forward layer of the same size (SwiGLU)",
        "two Linear layers around " + _ANY,
        blocks.gated_mlp,
        2,
        0.079,
        0.25,  # on top of SiLU -0.046 in one run: (2 * 0.079 - 0.046) / 3 is 0.47 of the median
    ),
    Edit(
        "leaky-square",
        "activation",
        "squared leaky ReLU: a small gradient everywhere",
        _SQUARED,
        _activation("nn.leaky_relu(_x, 0.3) * mx.abs(_x)", *SQUARE),
        0.5,
        0.01,
    ),
    Edit(
        "plain-relu",
        "activation",
        "ReLU without the square",
        _SQUARED,
        _activation("nn.relu(_x)", *SQUARE),
        0.5,
        0.005,
    ),
    Edit(
        "squared-relu",
        "activation",
        "squared ReLU in place of another activation",
        "ReLU, SiLU or GELU without a square",
        blocks.squared_relu,
        0.5,
        0.02,
    ),
    # --- the ends of the network
    Edit(
        "no-logit-cap",
        "logits",
        "logits without a cap",
        "cap * tanh(logits / cap)",
        blocks.uncapped,
        3,
        0.05,
        0.25,  # -0.0127 in three pairs of ours, -0.008 in one run of upstream's: 0.30 of the median
    ),
    Edit(
        "logit-cap",
        "logits",
        "logits squashed into (-15, 15)",
        "float32 logits without a tanh",
        blocks.capped,
        0.5,
        0.01,
    ),
    Edit(
        "low-precision-logits",
        "logits",
        "logits in the dtype of the model",
        "logits cast to float32 in the model",
        blocks.plain_logits,
        0.5,
        0.01,
        0.5,  # +0.0057 in one run: 0.71 of the guess
    ),
    Edit(
        "tied-embeddings",
        "embeddings",
        "one matrix for input and output",
        "an nn.Embedding and a head in one class",
        blocks.tied,
        0.5,
        0.01,
    ),
    Edit(
        "raw-embedding",
        "embeddings",
        "no norm right after the embedding",
        "norm of the embedded tokens",
        blocks.raw_embedding,
        0.5,
        0.005,
    ),
    Edit(
        "pair-embeddings",
        "embeddings",
        "a table of embeddings for pairs of tokens beside that for tokens",
        "an nn.Embedding of the tokens that is looked up into x",
        blocks.pair_embeddings,
        3,
        0.019,  # in upstream's script +0.0163, +0.0090 and +0.0307, three pairs
    ),
    Edit(
        "smear",
        "embeddings",
        "a fifth of the embedding before is added to each token's",
        "the embedded tokens in x",
        blocks.smear,
        1,
        0.011,  # +0.0115 in one pair
    ),
    Edit(
        "values-everywhere",
        "value embeddings",
        "value embeddings in every layer",
        "has_ve, or every other layer",
        blocks.values_everywhere,
        2,
        0.02,
        0.25,  # -0.0102 and -0.007 in one run each: 0.28 of the median
    ),
    Edit(
        "value-embeddings",
        "value embeddings",
        "value embeddings added to the values of every layer",
        "nn.Embedding, blocks in a list, attention with one argument",
        blocks.value_embeddings,
        2,
        0.03,
    ),
    Edit(
        "plain-gates",
        "value embeddings",
        "value embeddings without gates",
        "a sigmoid gate times the embedding",
        _rules(
            ("_v + mx.expand_dims(_g, axis=-1) * _e", "_v + _e"), ("_v + 2 * mx.sigmoid(_g)[..., None] * _e", "_v + _e")
        ),
        0.5,
        0.002,
    ),
    # --- residual stream and norms
    Edit(
        "peri-norm",
        "norms",
        "a norm after each branch as well (Peri-LN)",
        "x + branch(norm(x))",
        blocks.peri_norm,
        2,
        0.024,
        0.5,  # 0.000 in one run: 2/3 of the median
    ),
    Edit(
        "parallel-block",
        "norms",
        "attention and feed-forward layer side by side",
        "two residual branches in turn",
        blocks.parallel,
        0.5,
        0.01,
    ),
    Edit(
        "fused-norm",
        "speed",
        "MLX's fused RMS norm",
        "x * rsqrt(mean(x * x) + eps)",
        _rules(("_x * mx.rsqrt(mx.mean(_x * _x, axis=-1, keepdims=True) + _e)", "mx.fast.rms_norm(_x, None, _e)")),
        1,
        0.02,
        0.5,  # +0.0031 in one run: 0.58 of the median
    ),
    Edit(
        "embedding-skip",
        "residual",
        "a tenth of the embedding added before each block",
        "for block in blocks: x = block(x)",
        blocks.embedding_skip,
        0.5,
        0.01,
    ),
    Edit(
        "u-net-skips",
        "residual",
        "early blocks feed late ones (U-Net)",
        "a loop over the blocks",
        blocks.unet,
        0.5,
        0.01,
        0.5,  # +0.0051 in one run: 0.67 of the guess
    ),
    Edit(
        "half-branches",
        "residual",
        "each branch at half its size",
        "x + branch(norm(x))",
        blocks.half_branches,
        0.5,
        0.002,
    ),
    # --- attention
    Edit(
        "qk-norm",
        "attention",
        "queries and keys normalised",
        "rope(q), rope(k) without a norm",
        blocks.qk_norm,
        0.5,
        0.02,
    ),
    Edit(
        "sharper-attention",
        "attention",
        "attention scores 1.2 times as large",
        "scaled_dot_product_attention",
        blocks.sharper,
        0.5,
        0.004,
    ),
    Edit(
        "shifted-keys",
        "attention",
        "keys also see the token before theirs",
        "a layer k, c_k or k_proj of x in an attention class",
        blocks.shifted_keys,
        0.5,
        0.01,
        0.1,  # -0.0041 in one run: 0.06 of the guess
    ),
    Edit(
        "half-rope",
        "attention",
        "positions in half of each head's width",
        "nn.RoPE or mx.fast.rope",
        blocks.half_rope,
        1,
        0.013,
    ),
    Edit(
        "long-rope",
        "attention",
        "long-range rotary base (200 K)",
        "a rotary base of 10 K written in place",
        _rules(
            ("nn.RoPE(_d, base=10000)", "nn.RoPE(_d, base=200000)"),
            ("nn.RoPE(_d, traditional=True, base=10000)", "nn.RoPE(_d, traditional=False, base=200000)"),
        ),
        1,
        0.003,
        2.0,
    ),
    Edit(
        "attention-gate",
        "attention",
        "each channel of attention gated by the input",
        "an attention class with an output layer",
        blocks.attention_gate,
        0.5,
        0.008,
        0.1,  # -0.0019 in one run: 0.18 of the guess
    ),
    Edit(
        "shared-keys",
        "attention",
        "half as many heads of keys and values",
        "n_kv_head = width // HEAD_DIM",
        blocks.grouped_queries,
        0.5,
        0.005,
    ),
    Edit(
        "full-windows",
        "attention",
        "full attention in every layer",
        "short windows computed from the sequence length",
        blocks.full_windows,
        2,
        0.009,
        0.5,  # -0.0039 in one run with the next: 0.52 of the median
    ),
    Edit(
        "causal-by-name",
        "speed",
        "the causal mask by name, for the fused kernel",
        "a causal mask made as an array",
        blocks.causal_by_name,
        1,
        0.02,
        0.25,  # -0.0039 in one run with the one before: 0.40 of the median
    ),
    # --- optimizer
    Edit(
        "muon",
        "optimizer",
        "Muon for the matrices inside the blocks",
        "a hand-written AdamW with _step(path, grad, param, config)",
        loops.muon_for_adamw,
        6,
        0.032,
        1.25,  # +0.106 in one run, +0.043 on top of SiLU in three pairs: 1.33 of the median
    ),
    Edit(
        "decoupled-decay",
        "optimizer",
        "weight decay of Muon beside the update, not inside the gradient",
        "optim.Muon with weight_decay and optimizer.update(model, ...)",
        loops.decoupled_decay,
        3,
        0.03,
    ),
    Edit(
        "cautious",
        "optimizer",
        "Adam moves only where step and gradient agree",
        "m / (sqrt(v) + eps) in a hand-written Adam",
        loops.cautious,
        0.5,
        0.008,
    ),
    Edit(
        "cautious-decay",
        "optimizer",
        "weights of the matrices decay only where their step shrinks them anyway",
        "step + WEIGHT_DECAY * weight",
        _rules(("step + WEIGHT_DECAY * _w", "step + WEIGHT_DECAY * _w * (step * _w > 0)")),
        0.5,
        0.008,
    ),
    Edit(
        "even-steps",
        "optimizer",
        "each row of an orthogonal step at the same length (as NorMuon)",
        "a function orthogonalise",
        loops.even_steps,
        0.5,
        0.01,
    ),
    Edit(
        "momentum-warm-up",
        "optimizer",
        "Muon's momentum rises over the first 300 steps",
        "update(..., count) with MUON_MOMENTUM",
        loops.momentum_warm_up,
        0.5,
        0.006,
    ),
    Edit(
        "clip-gradients",
        "optimizer",
        "gradients clipped to norm 1",
        "optimizer.update(model, gradients)",
        loops.clipped,
        0.5,
        0.005,
    ),
    Edit(
        "average-weights",
        "optimizer",
        "evaluated with an average of the last weights",
        "a training loop with `progress`, then evaluate_bpb(model, ...)",
        loops.averaged,
        1,
        0.01,
        0.25,  # -0.0033 in one run: 0.33 of the median
    ),
    # --- schedule
    Edit(
        "cosine-schedule",
        "schedule",
        "the warm-down as a cosine",
        "a function of progress that returns a multiplier",
        loops.shaped("(1.0 - math.cos(math.pi * value)) / 2.0"),
        2,
        0.004,
    ),
    Edit(
        "concave-schedule",
        "schedule",
        "the warm-down as a square root: late and steep",
        "a function of progress that returns a multiplier",
        loops.shaped("value**0.5"),
        1,
        0.004,
    ),
    Edit(
        "convex-schedule",
        "schedule",
        "the warm-down squared: early and flat",
        "a function of progress that returns a multiplier",
        loops.shaped("value**2"),
        1,
        0.004,
    ),
    # --- initialisation and dtype
    Edit(
        "float32-weights",
        "dtype",
        "weights in float32",
        "weights cast to bfloat16 when they are drawn",
        loops.float32_weights,
        1,
        0.02,
    ),
    Edit(
        "master-weights",
        "dtype",
        "the optimizer keeps the weights in float32; the model computes with their rounding",
        "weights drawn in or cast to bfloat16, one optimizer.update(model, gradients); before Muon or after it",
        loops.master_weights,
        0.5,
        0.002,  # +0.0007 and -0.009 in one run each; +0.0468 in our trainer was mostly its speed
    ),
    Edit(
        "normal-init",
        "initialisation",
        "matrices drawn from a normal distribution",
        "mx.random.uniform(-s, s, ...)",
        _rules(
            ("mx.random.uniform(-_s, _s, _shape)", "mx.random.normal(_shape) * (_s / 3**0.5)"),
            ("mx.random.uniform(-_s, _s, shape=_shape)", "mx.random.normal(_shape) * (_s / 3**0.5)"),
        ),
        0.5,
        0.003,
    ),
    Edit(
        "half-init",
        "initialisation",
        "matrices at half their size in the beginning",
        "mx.random.uniform(-s, s, ...)",
        _rules(
            ("mx.random.uniform(-_s, _s, _shape)", "mx.random.uniform(-_s / 2, _s / 2, _shape)"),
            ("mx.random.uniform(-_s, _s, shape=_shape)", "mx.random.uniform(-_s / 2, _s / 2, shape=_shape)"),
        ),
        1,
        0.006,
    ),
    Edit(
        "small-embedding-init",
        "initialisation",
        "the embedding at a tenth of its size in the beginning",
        "the embedding's weights drawn in a function",
        loops.small_embedding,
        0.5,
        0.005,
    ),
    # --- speed
    Edit(
        "compiled-gradient",
        "speed",
        "loss and gradient compiled",
        "nn.value_and_grad of a model, not compiled",
        loops.compiled,
        2,
        0.03,
        0.1,  # +0.0164 in one run is 0.85 of the median, but compiling takes 100 s: too late at a budget of 60, twice
    ),
    Edit(
        "fewer-waits",
        "speed",
        "gradients evaluated while the next batch is fetched",
        "mx.eval(loss, grads)",
        _rules(("mx.eval(loss, grads)", "mx.async_eval(loss, grads)")),
        1,
        0.01,
    ),
)
ALTERNATIVES = frozenset({"activation", "schedule", "dtype"})
"""Kinds of which a script has one: each of these edits takes the place of what another one did."""

BY_NAME = {edit.name: edit for edit in CATALOGUE}
