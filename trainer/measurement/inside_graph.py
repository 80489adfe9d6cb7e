"""Runs a frozen graph in the sandbox: our code, the candidate's graph. It imports mlx, numpy and the standard library.

    python -I inside_graph.py claim  GRAPH INPUT N T V     INPUT int32 (N, T + 1): rows
                                                           out: float32 (N, T), cross-entropy in nats
    python -I inside_graph.py probes GRAPH INPUT N T V     INPUT int32 (N, T + 1): a cut, then the inputs
                                                           out: float32 (N, V), logits at the cut

Both call the graph with the same shape, int32 (1, T), so that what a position computes is bit for bit the same
wherever its inputs are. The cross-entropy is log(sum(exp(z - max z))) - (z[target] - max z): normalised whatever
the size of the logits, which logsumexp(z) - z[target] is not in float32.

The result is `out.f32` in the scratch, raw and little-endian. A graph of the wrong form is one line of JSON on the
channel. Whoever reads these trusts neither: the graph may have taken over this process.
"""

import json
import os
import sys
from collections import deque

import mlx.core as mx
import numpy as np

_CHANNEL = 3
_AHEAD = 8  # rows in flight on the device


class Refused(Exception):
    """The graph does not compute what it must."""


def load(path, length, vocabulary):
    """The graph as a function from int32 (1, T) to float32 (T, V)."""
    try:
        graph = mx.import_function(path)
    except Exception as error:
        raise Refused(f"the graph cannot be read: {error}") from error

    def logits(x):
        try:
            results = graph(x)
        except Exception as error:
            raise Refused(f"the graph does not take int32 (1, {length}): {error}") from error
        found = [(tuple(z.shape), str(z.dtype)) for z in results]
        if found != [((1, length, vocabulary), "mlx.core.float32")]:
            raise Refused(f"the graph must return float32 (1, {length}, {vocabulary}), it returns {found[:3]}")
        return results[0][0]

    return logits


def claim(logits, rows):
    """Yields float32 (T,) per row: the cross-entropy of each next token in nats."""
    for row in rows:
        z = logits(mx.array(row[None, :-1]))
        z = z - mx.max(z, axis=-1, keepdims=True)
        target = mx.take_along_axis(z, mx.array(row[1:, None]), axis=-1)[:, 0]
        yield mx.logsumexp(z, axis=-1) - target


def probes(logits, rows):
    """Yields float32 (V,) per row: the logits at its cut."""
    for row in rows:
        yield logits(mx.array(row[None, 1:]))[int(row[0])]


def main(task, graph, source, count, length, vocabulary):
    rows = np.fromfile(source, "<i4").reshape(count, length + 1)
    results = {"claim": claim, "probes": probes}[task](load(graph, length, vocabulary), rows)
    waiting = deque()
    with open(os.path.join(os.environ["SCRATCH"], "out.f32"), "wb") as file:
        for result in results:
            mx.async_eval(result)
            waiting.append(result)
            if len(waiting) > _AHEAD:
                file.write(np.array(waiting.popleft()).astype("<f4").tobytes())
        for result in waiting:
            file.write(np.array(result).astype("<f4").tobytes())


if __name__ == "__main__":
    try:
        main(*sys.argv[1:4], *map(int, sys.argv[4:7]))
    except Refused as error:
        os.write(_CHANNEL, json.dumps({"event": "bad_output", "detail": str(error)[:500]}).encode() + b"\n")
        sys.exit(1)
