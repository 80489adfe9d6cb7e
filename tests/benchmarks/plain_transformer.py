"""What any baseline should beat: the transformer of the textbooks, trained by AdamW, as a train.py for the harness."""

import time

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten

from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, evaluate_bpb, make_dataloader

DEPTH = 5
MODEL_DIM = 320
HEAD_DIM = 64
BATCH_SIZE = 16
LR = 0.01


class GPT(nn.Module):
    def __init__(self, vocab_size):
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, MODEL_DIM)
        self.places = nn.Embedding(MAX_SEQ_LEN, MODEL_DIM)
        self.layers = nn.TransformerEncoder(DEPTH, MODEL_DIM, MODEL_DIM // HEAD_DIM, activation=nn.gelu)
        self.head = nn.Linear(MODEL_DIM, vocab_size)

    def __call__(self, x, y=None, reduction="mean"):
        mask = nn.MultiHeadAttention.create_additive_causal_mask(x.shape[1], self.head.weight.dtype)
        h = self.tokens(x) + self.places(mx.arange(x.shape[1]))
        logits = self.head(self.layers(h, mask)).astype(mx.float32)
        return logits if y is None else nn.losses.cross_entropy(logits, y, reduction=reduction)


mx.random.seed(42)
tokenizer = Tokenizer.from_directory()
model = GPT(tokenizer.get_vocab_size())
if mx.default_device() == mx.gpu:
    model.set_dtype(mx.bfloat16)
optimizer = optim.AdamW(LR, betas=[0.9, 0.95], weight_decay=0.1, bias_correction=True)
loader = make_dataloader(tokenizer, BATCH_SIZE, MAX_SEQ_LEN, "train")
loss_and_gradient = nn.value_and_grad(model, lambda x, y: model(x, y))
steps, training_seconds = 0, 0.0
while training_seconds < TIME_BUDGET:
    x, y, _ = next(loader)
    loss, gradient = loss_and_gradient(x, y)
    optimizer.learning_rate = LR * min(1.0, 1.1 * (1 - training_seconds / TIME_BUDGET))
    optimizer.update(model, gradient)
    mx.eval(loss, model.parameters(), optimizer.state)
    steps += 1
    if steps == 1:
        clock = time.perf_counter()
    training_seconds = time.perf_counter() - clock

print(f"val_bpb:          {evaluate_bpb(model, tokenizer, 64):.6f}")
print(f"training_seconds: {training_seconds:.1f}")
print(f"peak_vram_mb:     {mx.get_peak_memory() / 2**20:.1f}")
print(f"total_tokens_M:   {steps * BATCH_SIZE * MAX_SEQ_LEN / 1e6:.1f}")
print(f"num_params_M:     {sum(weight.size for _, weight in tree_flatten(model.parameters())) / 1e6:.1f}")
