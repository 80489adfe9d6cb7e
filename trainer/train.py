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
from mlx.utils import tree_flatten, tree_map

from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, evaluate_bpb, make_dataloader

# --- what a search can turn -------------------------------------------------------------------

DEPTH = 4  # transformer blocks
MODEL_DIM = 384  # width of the residual stream
HEAD_DIM = 128  # width of one attention head; divides MODEL_DIM
MLP_RATIO = 4  # hidden width of the feed-forward layer, in multiples of MODEL_DIM
NGRAM_ROWS = 65536  # rows of the table in which pairs and triples of tokens have their embeddings
GATE_DIM = 32  # channels that decide how much of a token's value embedding a head takes
LOCAL_LENGTH = 512  # every other layer attends within pieces of so many tokens
ROPE_BASE = 10000.0  # wavelength base of the rotary position embedding
LOGIT_CAP = 15.0  # logits are squashed smoothly into (-cap, cap)

BATCH_SIZE = 16  # rows of MAX_SEQ_LEN tokens in one optimizer step
MATRIX_LR = 0.02  # Muon: the weight matrices inside the blocks
EMBED_LR = 0.3  # Adam: what tokens add to the residual stream, and to values
NGRAM_LR = 0.1  # Adam: what pairs and triples add
HEAD_LR = 0.004  # Adam: output projection
SCALAR_LR = 0.02  # Adam: scales of the residual stream
ADAM_BETA1 = 0.8
ADAM_BETA2 = 0.95
MUON_MOMENTUM = 0.95
WEIGHT_DECAY = 0.1  # of the matrices inside the blocks
TABLE_DECAY = 0.015  # of the tables of n-grams and values, at the n-grams' rate: they forget what is rare
WARMUP_FRACTION = 0.0  # share of the budget in which the learning rate rises
WARMDOWN_FRACTION = 0.5  # share of the budget in which it falls
FINAL_LR_FRACTION = 0.0  # what it falls to, as a share of its peak

ROW_BYTES = int(1e9)  # memory that a row in flight takes, at the sizes above
EVAL_BATCH_SIZE = 64  # rows offered to the harness at once; it splits them as memory needs
SEED = 42

RATES = {"blocks": MATRIX_LR, "embedding": EMBED_LR, "table": EMBED_LR, "ngrams": NGRAM_LR, "head": HEAD_LR}
RATES["scales"] = SCALAR_LR
GPU = mx.default_device() == mx.gpu
DTYPE = mx.bfloat16 if GPU else mx.float32  # of the computation

# --- the model --------------------------------------------------------------------------------


def norm(x):
    """Root-mean-square norm over the last axis, without a learned gain."""
    return mx.fast.rms_norm(x, None, 1e-6)


class Matrix(nn.Module):
    """x -> x W^T. W is used in DTYPE but kept in float32: in bfloat16, most later steps would round to nothing."""

    def __init__(self, rows, columns=MODEL_DIM, deviation=MODEL_DIM**-0.5):
        super().__init__()
        self.weight = deviation * 3**0.5 * mx.random.uniform(-1.0, 1.0, (rows, columns))

    def __call__(self, x):
        return x @ self.weight.astype(DTYPE).T

    def rows(self, index):
        return self.weight[index].astype(DTYPE)


class Attention(nn.Module):
    """Causal self-attention with rotary positions and normalised queries and keys. The layers alternate:

    the last, and every second before it, see the whole row, and add to their values what a table says of each token.
    The others see only the piece of the row they are in, at a fraction of the work."""

    def __init__(self, layer, vocab_size):
        super().__init__()
        self.whole = (DEPTH - 1 - layer) % 2 == 0
        self.q, self.k, self.v = (Matrix(MODEL_DIM) for _ in range(3))
        self.out = Matrix(MODEL_DIM, deviation=0.0)  # so is whatever is added to something at first
        if self.whole:
            self.table = Matrix(vocab_size)
            self.gate = Matrix(MODEL_DIM // HEAD_DIM, min(GATE_DIM, MODEL_DIM), deviation=0.0)

    def __call__(self, x, tokens):
        length = LOCAL_LENGTH if not self.whole and x.shape[1] % LOCAL_LENGTH == 0 else x.shape[1]
        shape = (-1, length, MODEL_DIM // HEAD_DIM, HEAD_DIM)
        q, k, v = norm(self.q(x).reshape(shape)), norm(self.k(x).reshape(shape)), self.v(x).reshape(shape)
        if self.whole:
            v = v + 2 * mx.sigmoid(self.gate(x[..., :GATE_DIM]))[..., None] * self.table.rows(tokens).reshape(shape)
        q, k, v = (part.transpose(0, 2, 1, 3) for part in (q, k, v))
        q, k = (mx.fast.rope(p, HEAD_DIM, traditional=False, base=ROPE_BASE, scale=1.0, offset=0) for p in (q, k))
        y = mx.fast.scaled_dot_product_attention(q, k, v, scale=HEAD_DIM**-0.5, mask="causal")
        return self.out(y.transpose(0, 2, 1, 3).reshape(x.shape))


class Block(nn.Module):
    """Attention, then a feed-forward layer with squared ReLU, each added to the residual stream."""

    def __init__(self, layer, vocab_size):
        super().__init__()
        self.attention = Attention(layer, vocab_size)
        self.up = Matrix(MODEL_DIM, MLP_RATIO * MODEL_DIM)
        self.down = Matrix(MODEL_DIM, MLP_RATIO * MODEL_DIM, deviation=0.0)

    def __call__(self, x, tokens):
        x = x + self.attention(norm(x), tokens)
        return x + self.down(nn.relu(norm(x) @ self.up.weight.astype(DTYPE)).square())


class GPT(nn.Module):
    """`model(tokens)` gives float32 logits (B, T, V); with targets (B, T) it gives the cross-entropy in nats."""

    def __init__(self, vocab_size):
        super().__init__()
        self.embedding = Matrix(vocab_size, deviation=1.0)
        self.ngrams, self.head = (Matrix(rows, deviation=0.0) for rows in (NGRAM_ROWS, vocab_size))
        self.blocks = [Block(layer, vocab_size) for layer in range(DEPTH)]
        self.scales = mx.array([[1.0, 0.1]] * DEPTH)  # at each block: of the stream, and of what it began with

    def __call__(self, tokens, targets=None, reduction="mean"):
        one, two = (mx.pad(tokens[:, :-n], ((0, 0), (n, 0))) for n in (1, 2))  # the tokens before
        pair = one * 36313 ^ tokens * 27191
        ngrams = self.ngrams.rows(pair % NGRAM_ROWS) + self.ngrams.rows((two * 52561 ^ pair) % NGRAM_ROWS)
        x = start = norm(self.embedding.rows(tokens) + ngrams)
        for block, scale in zip(self.blocks, self.scales.astype(x.dtype), strict=True):
            x = block(scale[0] * x + scale[1] * start, tokens)
        logits = self.head(norm(x))
        if targets is None:
            return cap(logits)
        losses = cross_entropy(logits, targets)
        return losses.mean() if reduction == "mean" else losses


def cap(logits):
    return LOGIT_CAP * mx.tanh(logits.astype(mx.float32) / LOGIT_CAP)


@mx.custom_function
def cross_entropy(logits, targets):
    """Nats (B, T) of targets under logits (B, T, V) before their cap. They are by far the largest array, of which
    automatic differentiation keeps copies in float32; this gradient needs the one, in DTYPE, and a single pass."""
    return mx.logsumexp(cap(logits), axis=-1) - cap(mx.take_along_axis(logits, targets[..., None], -1))[..., 0]


@cross_entropy.vjp
def cross_entropy_vjp(primals, cotangent, losses):
    logits, targets = primals
    capped, at_target = cap(logits), cap(mx.take_along_axis(logits, targets[..., None], -1))
    gradient = mx.exp(capped - (losses[..., None] + at_target)) - (mx.arange(logits.shape[-1]) == targets[..., None])
    gradient = gradient * (1 - (capped / LOGIT_CAP).square()) * cotangent[..., None]
    return gradient.astype(logits.dtype), mx.zeros_like(targets)


# --- the optimizer ----------------------------------------------------------------------------


def orthogonalise(x):
    """x (N, rows, columns), rows <= columns, with singular values brought close to 1 (Newton-Schulz, as in Muon)."""
    x = (x / (mx.sqrt(x.square().sum((-2, -1), keepdims=True)) + 1e-7)).astype(DTYPE)
    for a, b, c in [(3.4445, -4.775, 2.0315)] * 5:  # x <- (a + b x x^T + c (x x^T)^2) x
        square = x @ x.swapaxes(-1, -2)
        x = mx.addmm(x, mx.addmm(square, square, square, alpha=c, beta=b), x, beta=a)
    return x.astype(mx.float32)


class Optimizer:
    """Muon for the matrices inside the blocks, of which no column is longer than a row; Adam for all else."""

    def __init__(self, parameters):
        self.adam, self.muon, self.state = {}, {}, {}  # names of rates by path, paths by shape
        for path, weight in tree_flatten(parameters):
            if path.startswith("blocks") and "table" not in path:
                self.muon.setdefault(weight.shape, []).append(path)
            else:
                self.adam[path] = path.removesuffix(".weight").rpartition(".")[2]
                self.state[path] = [mx.zeros(weight.shape), mx.zeros(weight.shape)]
        self.state |= {str(shape): mx.zeros((len(paths), *shape)) for shape, paths in self.muon.items()}

    def update(self, model, gradients, rates, count):
        """Step number `count`, from 1, at `rates` by name: arrays, so that one kernel serves every step and rate."""
        weights, gradients = dict(tree_flatten(model.parameters())), dict(tree_flatten(gradients))
        for path, rate in self.adam.items():
            mean, square = self.state[path]
            mean = ADAM_BETA1 * mean + (1 - ADAM_BETA1) * gradients[path]
            square = ADAM_BETA2 * square + (1 - ADAM_BETA2) * gradients[path].square()
            self.state[path] = [mean, square]
            size = mx.sqrt(square / (1 - ADAM_BETA2**count)) + 1e-10
            kept = 1 - TABLE_DECAY * rates["ngrams"] if rate in ("ngrams", "table") else 1.0
            weights[path] = kept * weights[path] - rates[rate] * (mean / (1 - ADAM_BETA1**count)) / size
        for shape, paths in self.muon.items():
            gradient = mx.stack([gradients[path] for path in paths])
            momentum = MUON_MOMENTUM * self.state[str(shape)] + (1 - MUON_MOMENTUM) * gradient
            self.state[str(shape)] = momentum
            steps = orthogonalise(MUON_MOMENTUM * momentum + (1 - MUON_MOMENTUM) * gradient)
            for path, step in zip(paths, steps, strict=True):
                step = MLP_RATIO**0.5 * step if "up" in path else step  # it makes outputs longer than its inputs
                # Decay belongs here. In the gradient, where mlx.optimizers.Muon puts it, it outweighs the gradient of
                # a mean loss a hundred times, and orthogonalisation makes full steps of what it leaves.
                weights[path] -= rates["blocks"] * (step + WEIGHT_DECAY * weights[path])
        model.load_weights(list(weights.items()))


def lr_multiplier(progress):
    """Trapezoid over the share of the budget that has passed: up, flat, down."""
    if progress < WARMUP_FRACTION:
        return progress / WARMUP_FRACTION
    down = (1.0 - progress) / WARMDOWN_FRACTION if WARMDOWN_FRACTION > 0 else 1.0
    return FINAL_LR_FRACTION + (1.0 - FINAL_LR_FRACTION) * min(1.0, max(0.0, down))


# --- the run ----------------------------------------------------------------------------------


def main():
    started = time.perf_counter()
    mx.random.seed(SEED)
    tokenizer = Tokenizer.from_directory()
    model = GPT(tokenizer.get_vocab_size())
    optimizer = Optimizer(model.trainable_parameters())
    info = mx.device_info()  # a CPU's names no memory
    memory = info.get("max_recommended_working_set_size") or info.get("total_memory") or math.inf
    # In one forward pass; BATCH_SIZE rows make a step, whatever this machine's memory.
    rows = max((n for n in range(1, BATCH_SIZE + 1) if BATCH_SIZE % n == 0 and n * ROW_BYTES <= memory / 2), default=1)
    loader = make_dataloader(tokenizer, rows, MAX_SEQ_LEN, "train")
    millions = sum(weight.size for _, weight in tree_flatten(model.parameters())) / 1e6
    print(f"device {mx.default_device()}, {millions:.2f}M parameters, {rows} rows, budget {TIME_BUDGET} s", flush=True)
    loss_and_gradient = nn.value_and_grad(model, lambda x, y: model(x, y))
    state = [model.state, optimizer.state]

    def step(batches, rates, count):
        loss, gradient = loss_and_gradient(*batches[0])
        for x, y in batches[1:]:
            loss, gradient = tree_map(mx.add, (loss, gradient), loss_and_gradient(x, y))
        if len(batches) > 1:
            loss, gradient = tree_map(lambda total: total / len(batches), (loss, gradient))
        optimizer.update(model, gradient, rates, count)
        return loss

    if GPU:  # on a CPU the generated kernels need a C++ compiler and minutes
        step = partial(mx.compile(step, inputs=state, outputs=state))
    else:
        mx.disable_compile()

    gc.disable()  # a collection in the middle of a step costs more than this short run can leak
    steps, training_seconds, shown, smooth_loss, before = 0, 0.0, 0.0, 0.0, None
    while training_seconds < TIME_BUDGET:
        progress = training_seconds / TIME_BUDGET
        batches = [next(loader)[:2] for _ in range(BATCH_SIZE // rows)]
        rates = {name: mx.array(rate * lr_multiplier(progress)) for name, rate in RATES.items()}
        loss = step(batches, rates, mx.array(steps + 1.0))
        mx.async_eval(loss, state)
        steps += 1
        if before is None:
            mx.eval(loss, state)
            clock = time.perf_counter()
        else:  # wait for the step before: the device works on this one while the next is made
            if not math.isfinite(value := before.item()):
                raise SystemExit(f"the loss is {value} after {steps - 1} steps")
            smooth_loss = value if steps == 2 else 0.9 * smooth_loss + 0.1 * value
            # One more step is under way, and counted at the pace of those before it.
            training_seconds = (time.perf_counter() - clock) * (steps - 1) / max(1, steps - 2)
        before = loss
        if training_seconds - shown >= TIME_BUDGET / 100:
            shown = training_seconds
            rate = (steps - 1) * BATCH_SIZE * MAX_SEQ_LEN / training_seconds
            print(f"step {steps:05d} ({100 * progress:5.1f}%) | loss: {smooth_loss:.4f}", end=" | ")
            print(f"tok/sec: {rate:,.0f} | remaining: {max(0.0, TIME_BUDGET - training_seconds):.0f}s", flush=True)
    mx.eval(state)
    training_seconds = time.perf_counter() - clock

    val_bpb = evaluate_bpb(model, tokenizer, EVAL_BATCH_SIZE)
    print(f"---\nval_bpb:          {val_bpb:.6f}")
    print(f"training_seconds: {training_seconds:.1f}")
    print(f"total_seconds:    {time.perf_counter() - started:.1f}")
    print(f"peak_vram_mb:     {mx.get_peak_memory() / 2**20:.1f}")
    print("mfu_percent:      0.00")
    print(f"total_tokens_M:   {steps * BATCH_SIZE * MAX_SEQ_LEN / 1e6:.1f}")
    print(f"num_steps:        {steps}")
    print(f"num_params_M:     {millions:.1f}")
    print(f"depth:            {DEPTH}")


if __name__ == "__main__":
    main()
