"""Runs a frozen graph in the sandbox: our code, the candidate's graph. Imports mlx and the standard library alone:
numpy would take three times as long to start as the rest.

    python -I inside_graph.py claim  GRAPH INPUT N B T V   INPUT int32 (N, T + 1): rows
                                                           out: float32 (N, T), cross-entropy in nats
    python -I inside_graph.py probes GRAPH INPUT N B T V   INPUT int32 (N, T + 1): a cut, then the inputs
                                                           out: float32 (N, V), logits at the cut

Both call the graph with the same shape, int32 (B, T), so that what a position computes is the same as long as its
inputs are; the last call is filled up with zeros. The cross-entropy is log(sum(exp(z - max z))) - (z[target] - max z):
normalised whatever the size of the logits, which logsumexp(z) - z[target] in float32 is not.

The result is `out.f32` in the scratch, raw and little-endian. A graph of the wrong form is one line of JSON on
the channel. Whoever reads these trusts neither: the graph may have taken over this process.
"""

import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx

_CHANNEL = 3
_AHEAD = 2  # calls in flight on the device

Logits = Callable[[mx.array], mx.array]
Rows = Sequence[memoryview]  # of int32, all equally long


class BadGraph(Exception):
    """The graph does not compute what it must."""


def load(path: str, batch: int, length: int, vocabulary: int) -> Logits:
    """The graph as a function from int32 (B, T) to float32 (B, T, V)."""
    try:
        graph: Any = mx.import_function(path)
    except Exception as error:
        raise BadGraph(f"the graph cannot be read: {error}") from error

    def logits(x: mx.array) -> mx.array:
        try:
            results: Any = graph(x)
        except Exception as error:
            raise BadGraph(f"the graph does not take int32 ({batch}, {length}): {error}") from error
        found = [(tuple(z.shape), z.dtype) for z in results]
        if found != [((batch, length, vocabulary), mx.float32)]:
            raise BadGraph(f"the graph must return float32 ({batch}, {length}, {vocabulary}) and returns {found[:3]}")
        first: mx.array = results[0]
        return first

    return logits


def tokens(rows: Rows, cut: slice) -> mx.array:
    """The part `cut` of each row: int32 (B, T)."""
    parts = [row[cut] for row in rows]
    joined: Any = memoryview(b"".join(parts)).cast("i", (len(parts), len(parts[0])))
    return mx.array(joined)


def claim(logits: Logits, rows: Rows) -> mx.array:
    """Of int32 (B, T + 1), rows: float32 (B, T), the cross-entropy of each next token in nats."""
    z = logits(tokens(rows, slice(None, -1)))
    z = z - mx.max(z, axis=-1, keepdims=True)
    target = mx.take_along_axis(z, tokens(rows, slice(1, None))[..., None], axis=-1)[..., 0]
    return mx.logsumexp(z, axis=-1) - target


def probes(logits: Logits, rows: Rows) -> mx.array:
    """Of int32 (B, T + 1), a cut and then the inputs: float32 (B, V), the logits at the cut."""
    return logits(tokens(rows, slice(1, None)))[mx.arange(len(rows)), mx.array([row[0] for row in rows])]


TASKS: dict[str, Callable[[Logits, Rows], mx.array]] = {"claim": claim, "probes": probes}


def calls(task: str, logits: Logits, rows: Rows, batch: int) -> Iterator[bytes]:
    """Yields the bytes of float32 (b, ...) for `rows` in order, b up to `batch`, with a few calls in flight."""
    waiting: deque[tuple[mx.array, int]] = deque()

    def first() -> bytes:
        result, count = waiting.popleft()
        content = bytes(memoryview(result))  # type: ignore[arg-type]
        return content[: len(content) // batch * count]

    for start in range(0, len(rows), batch):
        part = list(rows[start : start + batch])
        zeros = memoryview(bytes(part[0].nbytes)).cast("i")
        result = TASKS[task](logits, [*part, *[zeros] * (batch - len(part))])
        mx.async_eval(result)  # type: ignore[no-untyped-call]
        waiting.append((result, len(part)))
        if len(waiting) > _AHEAD:
            yield first()
    while waiting:
        yield first()


def main(task: str, graph: str, source: str, count: int, batch: int, length: int, vocabulary: int) -> None:
    with open(source, "rb") as file:
        content = memoryview(file.read()).cast("i")
    width = length + 1
    if len(content) != count * width:
        raise ValueError(f"{len(content)} tokens are not {count} rows of {width}")
    rows = [content[start : start + width] for start in range(0, count * width, width)]
    with open(os.path.join(os.environ["SCRATCH"], "out.f32"), "wb") as file:
        for result in calls(task, load(graph, batch, length, vocabulary), rows, batch):
            file.write(result)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:4], *map(int, sys.argv[4:8]))  # type: ignore[arg-type]
    except BadGraph as error:
        os.write(_CHANNEL, json.dumps({"event": "bad_output", "detail": str(error)[:500]}).encode() + b"\n")
        sys.exit(1)
