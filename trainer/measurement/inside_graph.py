"""Runs a frozen graph in the sandbox: our code, the candidate's graph. Imports mlx, numpy, standard library.

    python -I inside_graph.py claim  GRAPH INPUT N T V     INPUT int32 (N, T + 1): rows
                                                           out: float32 (N, T), cross-entropy in nats
    python -I inside_graph.py probes GRAPH INPUT N T V     INPUT int32 (N, T + 1): a cut, then the inputs
                                                           out: float32 (N, V), logits at the cut

Both call the graph with the same shape, int32 (1, T), so that what a position computes is bit for bit the same
as long as its inputs are. The cross-entropy is log(sum(exp(z - max z))) - (z[target] - max z): normalised
whatever the size of the logits, which logsumexp(z) - z[target] in float32 is not.

The result is `out.f32` in the scratch, raw and little-endian. A graph of the wrong form is one line of JSON on
the channel. Whoever reads these trusts neither: the graph may have taken over this process.
"""

import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import numpy as np

_CHANNEL = 3
_AHEAD = 8  # rows in flight on the device

Logits = Callable[[mx.array], mx.array]


class Refused(Exception):
    """The graph does not compute what it must."""


def load(path: str, length: int, vocabulary: int) -> Logits:
    """The graph as a function from int32 (1, T) to float32 (T, V)."""
    try:
        graph: Any = mx.import_function(path)
    except Exception as error:
        raise Refused(f"the graph cannot be read: {error}") from error

    def logits(x: mx.array) -> mx.array:
        try:
            results: Any = graph(x)
        except Exception as error:
            raise Refused(f"the graph does not take int32 (1, {length}): {error}") from error
        found = [(tuple(z.shape), z.dtype) for z in results]
        if found != [((1, length, vocabulary), mx.float32)]:
            raise Refused(f"the graph must return float32 (1, {length}, {vocabulary}) and returns {found[:3]}")
        first: mx.array = results[0]
        return first[0]

    return logits


def claim(logits: Logits, rows: Any) -> Iterator[mx.array]:
    """Yields float32 (T,) per row: the cross-entropy of each next token in nats."""
    for row in rows:
        z = logits(mx.array(row[None, :-1]))
        z = z - mx.max(z, axis=-1, keepdims=True)
        target = mx.take_along_axis(z, mx.array(row[1:, None]), axis=-1)[:, 0]
        yield mx.logsumexp(z, axis=-1) - target


def probes(logits: Logits, rows: Any) -> Iterator[mx.array]:
    """Yields float32 (V,) per row: the logits at its cut."""
    for row in rows:
        yield logits(mx.array(row[None, 1:]))[int(row[0])]


def main(task: str, graph: str, source: str, count: int, length: int, vocabulary: int) -> None:
    rows = np.fromfile(source, np.dtype("<i4")).reshape(count, length + 1)
    results = {"claim": claim, "probes": probes}[task](load(graph, length, vocabulary), rows)
    waiting: deque[mx.array] = deque()
    with open(os.path.join(os.environ["SCRATCH"], "out.f32"), "wb") as file:
        for result in results:
            mx.async_eval(result)  # type: ignore[no-untyped-call]
            waiting.append(result)
            if len(waiting) > _AHEAD:
                file.write(np.array(waiting.popleft()).astype("<f4").tobytes())
        for result in waiting:
            file.write(np.array(result).astype("<f4").tobytes())


if __name__ == "__main__":
    try:
        main(*sys.argv[1:4], *map(int, sys.argv[4:7]))  # type: ignore[arg-type]
    except Refused as error:
        os.write(_CHANNEL, json.dumps({"event": "bad_output", "detail": str(error)[:500]}).encode() + b"\n")
        sys.exit(1)
