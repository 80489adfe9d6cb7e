"""Trains a small model for SECONDS and prints tokens per second: python inside_speed.py SECONDS"""

import sys
import time
from typing import Any

import mlx.core as mx
import mlx.nn
import mlx.optimizers as optim

nn: Any = mlx.nn  # which has no usable types
LENGTH, WIDTH, LAYERS, VOCABULARY = 256, 128, 2, 1024


class Model(nn.Module):  # type: ignore[misc]
    """A small causal transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.body = nn.TransformerEncoder(LAYERS, WIDTH, 4)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def __call__(self, x: mx.array) -> mx.array:
        mask = nn.MultiHeadAttention.create_additive_causal_mask(LENGTH)
        logits: mx.array = self.head(self.body(self.embed(x), mask))
        return logits


def main(seconds: float) -> None:
    """One second to warm up, then as many steps as there is time for."""
    model, optimizer = Model(), optim.AdamW(1e-3)
    rows = 4 if mx.default_device() == mx.cpu else 64
    tokens = mx.random.randint(0, VOCABULARY, (rows, LENGTH + 1))

    def loss(model: Any) -> Any:
        return nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:], reduction="mean")

    gradient = nn.value_and_grad(model, loss)
    begin, steps = time.monotonic(), 0
    warm = begin + 1
    while (now := time.monotonic()) < begin + 1 + seconds or steps == 0:
        _, found = gradient(model)
        optimizer.update(model, found)
        mx.eval(model.parameters(), optimizer.state)
        if now < warm:
            continue
        if steps == 0:
            warm = now
        steps += 1
    print(f"{steps * rows * LENGTH / (time.monotonic() - warm):.1f}")


if __name__ == "__main__":
    main(float(sys.argv[1]))
