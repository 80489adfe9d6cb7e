"""The documented packing, written plainly: what the harness's loader must equal row for row.

It reads the Parquet shards, encodes each batch of documents when the buffer needs it, and looks through the whole
buffer for every choice, as the usual harness does on the training thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq

Documents = Iterator[tuple[list[list[int]], int]]


def documents(paths: Sequence[Path], encode: Callable[[list[str]], list[list[int]]], batch: int = 128) -> Documents:
    """Endless (token lists, epoch), `batch` documents at a time, never across the end of a row group."""
    epoch = 1
    while True:
        for path in paths:
            file = pq.ParquetFile(path)
            for group in range(file.num_row_groups):
                texts = file.read_row_group(group).column("text").to_pylist()
                for start in range(0, len(texts), batch):
                    yield encode(texts[start : start + batch]), epoch
        epoch += 1


def packed(
    source: Documents, batch_size: int, row_tokens: int, buffer_size: int
) -> Iterator[tuple[list[list[int]], int]]:
    """Endless (rows, epoch): the longest document that fits, else the shortest cropped; the first among equals."""
    buffer: list[list[int]] = []
    epoch = 1
    while True:
        rows = []
        for _ in range(batch_size):
            row: list[int] = []
            while len(row) < row_tokens:
                while len(buffer) < buffer_size:
                    more, epoch = next(source)
                    buffer.extend(more)
                left = row_tokens - len(row)
                best = -1
                for index, document in enumerate(buffer):
                    if len(document) <= left and (best < 0 or len(document) > len(buffer[best])):
                        best = index
                if best < 0:
                    best = min(range(len(buffer)), key=lambda index: len(buffer[index]))
                row.extend(buffer.pop(best)[:left])
            rows.append(row)
        yield rows, epoch
