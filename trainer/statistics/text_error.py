"""How far a gain on holdout text may be off because it is this text and no other. Pure.

Both arms read the same text, so what a block of it costs one arm is paired with what it costs the other: that a block
is hard cancels, and only how the *gain* differs from block to block is left. Blocks are stretches of the text in its
order (`trainer.measurement.scoring.block_bits`). A document that lies in several of them makes these alike: the
covariance of blocks up to `_REACH` apart is added where it is positive, and half of the degrees of freedom are taken
for what that leaves unknown. `bench_holdout` simulates
what follows for verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Blocks = Sequence[float]
"""What each block adds to a run's bits per byte on the whole text; they sum to that value."""

_REACH = 3


def text_error(incumbent: Sequence[Blocks], candidate: Sequence[Blocks]) -> tuple[float, float] | None:
    """The standard error (bpb) of the gain on the text as a sample of its kind, and its degrees of freedom.

    The arguments are the runs of each arm. What varies from run to run at a block is in it; what moves a whole run is
    not. None without runs of both, with fewer than two blocks, or where the runs were not cut alike.
    """
    if not incumbent or not candidate or len({len(run) for run in (*incumbent, *candidate)}) != 1:
        return None
    count = len(incumbent[0])
    if count < 2:
        return None
    gains = [
        _mean(old) - _mean(new)
        for old, new in zip(zip(*incumbent, strict=True), zip(*candidate, strict=True), strict=True)
    ]
    middle = _mean(gains)
    off = [gain - middle for gain in gains]
    square, covered, most = math.fsum(x * x for x in off), 0.0, 0.0
    for apart in range(1, _REACH + 1):
        covered += 2 * math.fsum(x * y for x, y in zip(off, off[apart:], strict=False))
        most = max(most, covered)
    return math.sqrt((square + most) * count / (count - 1)), (count - 1) / 2


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
