"""Tokens per second of the harness's loader against two plain ones, on one snapshot of the standard library.

Run by name: `uv run python -m tests.benchmarks.bench_packing [--seconds N] [--batch-size N]`. The plain loaders are the
documented algorithm: one encodes documents inside the loop, as the usual harness does, the other has them
encoded beforehand, so that only the packing differs. All make MLX arrays of the protocol's length (2048, vocabulary
8192). Prints tokens per second of this machine and the ratios; the first batches are not timed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx

from tests.harness import reference
from tests.harness.support import Copy


def arrays(packed: Iterable[tuple[list[list[int]], int]]) -> Iterator[tuple[mx.array, mx.array, int]]:
    for rows, epoch in packed:
        both = mx.array(rows, dtype=mx.int32)
        yield both[:, :-1], both[:, 1:], epoch


def speed(loader: Iterator[tuple[mx.array, mx.array, int]], seconds: float) -> float:
    for _ in range(5):
        mx.eval(next(loader)[:2])
    tokens, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        x, y, _ = next(loader)
        mx.eval(x, y)
        tokens += x.size
    return tokens / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each loader is timed")
    parser.add_argument("--batch-size", type=int, default=16, help="rows of a batch")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        harness: Any = Copy.make(Path(folder, "code"), Path(folder, "cache"), {}).load()
        harness.prepare(text="stdlib")
        tokenizer = harness.Tokenizer.from_directory()
        bos = tokenizer.get_bos_token_id()
        paths = [Path(harness.DATA_DIR, f"{name}.parquet") for name in harness.read_manifest().train]

        def encode(texts: list[str]) -> list[list[int]]:
            encoded: list[list[int]] = tokenizer.encode(texts, prepend=bos)
            return encoded

        one_epoch = itertools.takewhile(lambda item: item[1] == 1, reference.documents(paths, encode))
        encoded = [tokens for tokens, _ in one_epoch]
        beforehand = ((tokens, 1) for tokens in itertools.cycle(encoded))
        shape = args.batch_size, harness.MAX_SEQ_LEN + 1, 1000
        found = {
            "this harness": speed(
                harness.make_dataloader(tokenizer, args.batch_size, harness.MAX_SEQ_LEN, "train"), args.seconds
            ),
            "plain, encoding in the loop": speed(
                arrays(reference.packed(reference.documents(paths, encode), *shape)), args.seconds
            ),
            "plain, encoded beforehand": speed(arrays(reference.packed(beforehand, *shape)), args.seconds),
        }
        documents = [len(tokens) for batch in encoded for tokens in batch]
        print(f"{len(documents):,} documents of {sum(documents) / len(documents):.0f} tokens, {os.cpu_count()} cores")
    best = found["this harness"]
    for name, tokens in found.items():
        print(f"{name:<28} {tokens / 1e6:8.2f} M tokens/s    {best / tokens:6.1f} times slower than the first")


if __name__ == "__main__":
    main()
