"""The baseline experiment: train a small GPT for a fixed time, print its validation bits per byte.

    uv run train.py                 (after `uv run prepare.py` has prepared the data, once)

One file, MLX only, the same on Apple GPUs (Metal), NVIDIA GPUs (CUDA) and CPUs. The harness,
prepare.py, is fixed: it gives the data, the time budget and the metric. Everything here may be
changed to lower `val_bpb`. The constants below are what an automatic search turns first.

The clock starts after the first step, because that one compiles; what it learns is kept.
"""

import gc
import math
import time
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_map

from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, evaluate_bpb, make_dataloader

# --- what a search can turn -------------------------------------------------------------------

DEPTH = 5  # transformer blocks
MODEL_DIM = 320  # width of the residual stream
HEAD_DIM = 64  # width of one attention head; divides MODEL_DIM
MLP_RATIO = 4  # hidden width of the feed-forward layer, in multiples of MODEL_DIM
ROPE_BASE = 10000.0  # wavelength base of the rotary position embedding
LOGIT_CAP = 15.0  # logits are squashed smoothly into (-cap, cap)
TIE_EMBEDDINGS = False  # one matrix for input and output

BATCH_SIZE = 16  # rows of MAX_SEQ_LEN tokens in one forward pass
GRAD_ACCUM = 1  # forward passes in one optimizer step
MATRIX_LR = 0.02  # Muon: the weight matrices inside the blocks
EMBED_LR = 0.02  # Adam: input embedding
HEAD_LR = 0.004  # Adam: output projection
ADAM_BETA1 = 0.8
ADAM_BETA2 = 0.95
MUON_MOMENTUM = 0.95
WEIGHT_DECAY = 0.01  # of the matrices inside the blocks
WARMUP_FRACTION = 0.0  # share of the budget in which the learning rate rises
WARMDOWN_FRACTION = 0.5  # share of the budget in which it falls
FINAL_LR_FRACTION = 0.05  # what it falls to, as a share of its peak

EVAL_BATCH_SIZE = 64  # rows offered to the harness at once; it splits them as memory needs
SEED = 42

# --- the model --------------------------------------------------------------------------------


def norm(x):
    """Root-mean-square norm over the last axis, without a learned gain."""
    return mx.fast.rms_norm(x, None, 1e-6)


class Attention(nn.Module):
    """Causal self-attention with rotary positions and normalised queries and keys."""

    def __init__(self):
        super().__init__()
        self.heads = MODEL_DIM // HEAD_DIM
        self.qkv = nn.Linear(MODEL_DIM, 3 * MODEL_DIM, bias=False)
        self.out = nn.Linear(MODEL_DIM, MODEL_DIM, bias=False)
        self.rope = nn.RoPE(HEAD_DIM, base=ROPE_BASE)

    def __call__(self, x):
        B, T, C = x.shape
        q, k, v = (
            part.reshape(B, T, self.heads, HEAD_DIM).transpose(0, 2, 1, 3) for part in mx.split(self.qkv(x), 3, axis=-1)
        )
        q, k = norm(self.rope(q)), norm(self.rope(k))
        y = mx.fast.scaled_dot_product_attention(q, k, v, scale=HEAD_DIM**-0.5, mask="causal")
        return self.out(y.transpose(0, 2, 1, 3).reshape(B, T, C))


class Block(nn.Module):
    """Attention, then a feed-forward layer with squared ReLU, each added to the residual stream."""

    def __init__(self):
        super().__init__()
        self.attention = Attention()
        self.up = nn.Linear(MODEL_DIM, MLP_RATIO * MODEL_DIM, bias=False)
        self.down = nn.Linear(MLP_RATIO * MODEL_DIM, MODEL_DIM, bias=False)

    def __call__(self, x):
        x = x + self.attention(norm(x))
        return x + self.down(nn.relu(self.up(norm(x))).square())


class GPT(nn.Module):
    """`model(tokens)` gives float32 logits (B, T, V); with targets (B, T) it gives the cross-entropy in nats."""

    def __init__(self, vocab_size):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, MODEL_DIM)
        self.blocks = [Block() for _ in range(DEPTH)]
        if not TIE_EMBEDDINGS:
            self.head = nn.Linear(MODEL_DIM, vocab_size, bias=False)

    def __call__(self, tokens, targets=None, reduction="mean"):
        x = norm(self.embedding(tokens))
        for block in self.blocks:
            x = block(x)
        x = norm(x)
        logits = self.embedding.as_linear(x) if TIE_EMBEDDINGS else self.head(x)
        logits = LOGIT_CAP * mx.tanh(logits.astype(mx.float32) / LOGIT_CAP)
        if targets is None:
            return logits
        return nn.losses.cross_entropy(logits, targets, reduction=reduction)


def initialise(model, dtype):
    """Residual branches start at zero, everything else uniform with standard deviation 1/sqrt(fan-in)."""

    def draw(path, weight):
        if path.endswith(("out.weight", "down.weight", "head.weight")):
            return mx.zeros(weight.shape, dtype)
        bound = math.sqrt(3.0 / (1.0 if path.startswith("embedding") else weight.shape[1]))
        return mx.random.uniform(-bound, bound, weight.shape).astype(dtype)

    model.load_weights([(path, draw(path, weight)) for path, weight in tree_flatten(model.parameters())])


def make_optimizer():
    """Muon for the matrices inside the blocks, Adam for both ends of the network."""
    adam = partial(optim.Adam, betas=[ADAM_BETA1, ADAM_BETA2], eps=1e-10, bias_correction=True)
    muon = optim.Muon(MATRIX_LR, momentum=MUON_MOMENTUM, weight_decay=WEIGHT_DECAY)
    return optim.MultiOptimizer(
        [muon, adam(EMBED_LR), adam(HEAD_LR)],
        [lambda path, _: path.startswith("blocks"), lambda path, _: path.startswith("embedding")],
    )


def lr_multiplier(progress):
    """Trapezoid over the share of the budget that has passed: up, flat, down."""
    if progress < WARMUP_FRACTION:
        return progress / WARMUP_FRACTION
    remaining = (1.0 - progress) / WARMDOWN_FRACTION if WARMDOWN_FRACTION > 0 else 1.0
    return FINAL_LR_FRACTION + (1.0 - FINAL_LR_FRACTION) * min(1.0, max(0.0, remaining))


def use_compile():
    """Whether to fuse the step with mx.compile: on a GPU yes (1.4 times the speed on an H200). On a CPU
    the generated kernels need a C++ compiler and tens of seconds, so there everything runs without."""
    if mx.default_device() == mx.gpu:
        return True
    mx.disable_compile()
    return False


# --- the run ----------------------------------------------------------------------------------


def main():
    started = time.perf_counter()
    mx.random.seed(SEED)
    tokenizer = Tokenizer.from_directory()
    model = GPT(tokenizer.get_vocab_size())
    initialise(model, mx.bfloat16 if mx.default_device() == mx.gpu else mx.float32)
    optimizer = make_optimizer()
    optimizer.init(model.trainable_parameters())
    peak_lrs = [part.learning_rate.item() for part in optimizer.optimizers]
    loader = make_dataloader(tokenizer, BATCH_SIZE, MAX_SEQ_LEN, "train")
    num_params = sum(weight.size for _, weight in tree_flatten(model.parameters()))
    print(
        f"device {mx.default_device()}, {num_params / 1e6:.2f}M parameters, budget {TIME_BUDGET} s",
        flush=True,
    )

    loss_and_gradient = nn.value_and_grad(model, lambda x, y: model(x, y))
    state = [model.state, optimizer.state]

    def step(batches):
        """One optimizer step over GRAD_ACCUM batches; the mean loss in nats per token."""
        loss, gradient = loss_and_gradient(*batches[0])
        for x, y in batches[1:]:
            more_loss, more_gradient = loss_and_gradient(x, y)
            loss, gradient = loss + more_loss, tree_map(mx.add, gradient, more_gradient)
        optimizer.update(model, tree_map(lambda g: g / len(batches), gradient))
        return loss / len(batches)

    if use_compile():
        step = partial(mx.compile(step, inputs=state, outputs=state))

    gc.disable()  # a collection in the middle of a step costs more than this short run can leak
    steps, training_seconds, shown = 0, 0.0, -math.inf
    smooth_loss = 0.0
    clock = time.perf_counter()
    while training_seconds < TIME_BUDGET:
        progress = training_seconds / TIME_BUDGET
        for part, peak in zip(optimizer.optimizers, peak_lrs, strict=True):
            part.learning_rate = peak * lr_multiplier(progress)
        loss = step([next(loader)[:2] for _ in range(GRAD_ACCUM)])
        mx.eval(loss, state)
        steps += 1
        now = time.perf_counter()
        if steps > 1:
            training_seconds += now - clock
        clock = now
        value = loss.item()
        if not math.isfinite(value):
            raise SystemExit(f"the loss is {value} after {steps} steps")
        smooth_loss = value if steps == 1 else 0.9 * smooth_loss + 0.1 * value
        if training_seconds - shown >= TIME_BUDGET / 100:
            shown = training_seconds
            rate = (steps - 1) * BATCH_SIZE * GRAD_ACCUM * MAX_SEQ_LEN / max(training_seconds, 1e-9)
            print(
                f"step {steps:05d} ({100 * min(progress, 1):5.1f}%) | loss: {smooth_loss:.4f} | "
                f"tok/sec: {rate:,.0f} | remaining: {max(0.0, TIME_BUDGET - training_seconds):.0f}s",
                flush=True,
            )

    val_bpb = evaluate_bpb(model, tokenizer, EVAL_BATCH_SIZE)
    print("---")
    print(f"val_bpb:          {val_bpb:.6f}")
    print(f"training_seconds: {training_seconds:.1f}")
    print(f"total_seconds:    {time.perf_counter() - started:.1f}")
    print(f"peak_vram_mb:     {mx.get_peak_memory() / 2**20:.1f}")
    print("mfu_percent:      0.00")
    print(f"total_tokens_M:   {steps * BATCH_SIZE * GRAD_ACCUM * MAX_SEQ_LEN / 1e6:.1f}")
    print(f"num_steps:        {steps}")
    print(f"num_params_M:     {num_params / 1e6:.1f}")
    print(f"depth:            {DEPTH}")


if __name__ == "__main__":
    main()
