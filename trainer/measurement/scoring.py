"""The parent's arithmetic: bits per byte, which positions to probe, and what the probes prove. No input or output.

**Words.** Position (r, t) is the prediction of token t + 1 of row r from its tokens 0..t. c is the claimed
cross-entropy, b the incumbent's, p the one proven by a probe, all in nats; a position is scored when its target
stands for bytes. The claimed gain is g = max(0, b - c) at scored positions, 0 elsewhere; G is its sum.

**Drawing.** Every scored position gets the weight q = (1 - u) g / G + u / n (n scored positions, u the uniform
share; 1 / n without an incumbent or without any gain). K rows are drawn without replacement by pivotal sampling
with inclusion probabilities min(1, a W), W the row's sum of q and a such that they sum to K; then in each row one
cut with probability q / W. So a position is drawn with the known probability s = min(1, a W) q / W. One probe per
row, because a row with a late cut shows the targets of an earlier cut in the same row to the same process.

**What K agreeing probes bound.** Let S be the positions whose claim the graph does not reproduce without the
future, fixed before the draw. Pivotal samples are negatively associated (Branden and Jonasson 2012), so that all
probes miss S with probability at most prod(1 - s(S in r)) <= exp(-s(S)). Hence with confidence 1 - e

    the claimed gain in S   is below   ln(1 / e) / min(s / g over g > 0)      (`gain_bound`, nats)
    the share of S among n  is below   ln(1 / e) / (n min(s))                 (`share_bound`)

When no row is capped the first is ln(1 / e) G / (K (1 - u)). At K = 256, u = 0.25 and e = 0.05 that is 1.56 % of
G, so an undeserved 0.1 % of the incumbent's total is found where G is at most 6.4 % of it, as it is for two models
that are about as good; uniform sampling would need about 2,900 probes. The bound of each draw is computed, not
assumed.
The gain bound speaks of what is claimed beyond the incumbent, position by position: who cheats only where the
claim is no better than the incumbent hides a loss there and is held by the share bound.

Below the tolerance nothing is found by single probes: it is worth at most `tolerance` nats per position, and at
most `drift` on average over the probes, which is a fraction of run-to-run noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Losses = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]

BLOCK = 4096  # positions
FEWEST_BLOCKS, MOST_BLOCKS = 8, 64


@dataclass(frozen=True, slots=True)
class Draw:
    """`positions` int64 (K, 2): row and cut, one per row. The bounds are those of the module's docstring."""

    positions: npt.NDArray[np.int64]
    gain_bound: float | None
    share_bound: float


def bits_per_byte(losses: npt.ArrayLike, targets: npt.ArrayLike, token_bytes: npt.ArrayLike) -> float:
    """sum of losses / (ln 2 * sum of bytes) over targets that have bytes, in float64; nan where none has.

    `losses` in nats and `targets` have one shape; `token_bytes` (V,).
    """
    bytes_of = np.asarray(token_bytes)[np.asarray(targets)]
    total = int(bytes_of.sum(dtype=np.int64))
    nats = float(np.asarray(losses, np.float64)[bytes_of > 0].sum())
    return nats / (math.log(2) * total) if total else math.nan


def block_bits(losses: npt.ArrayLike, targets: npt.ArrayLike, token_bytes: npt.ArrayLike) -> tuple[float, ...]:
    """What each block of the text adds to its bits per byte: they sum to `bits_per_byte` of the same arguments.

    A block is a stretch of at least `BLOCK` positions, longer than most documents; short texts are cut finer, so that
    there are `FEWEST_BLOCKS` to `MOST_BLOCKS` of them, fewer only of fewer positions. Empty where no target has bytes.
    Rounded to 1e-10.
    """
    bytes_of = np.asarray(token_bytes)[np.asarray(targets)].ravel()
    total = int(bytes_of.sum(dtype=np.int64))
    if not total:
        return ()
    nats = np.where(bytes_of > 0, np.asarray(losses, np.float64).ravel(), 0.0)
    count = min(nats.size, MOST_BLOCKS, max(FEWEST_BLOCKS, nats.size // BLOCK))
    starts = np.arange(count) * nats.size // count
    return tuple(round(bits, 10) for bits in (np.add.reduceat(nats, starts) / (math.log(2) * total)).tolist())


def cross_entropy(logits: npt.ArrayLike, targets: npt.ArrayLike) -> Floats:
    """Nats (K,) of `targets` (K,) under softmax of `logits` (K, V), in float64."""
    z = np.asarray(logits, np.float64)
    z = z - z.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(z, np.asarray(targets, np.int64)[:, None], axis=-1)[:, 0]
    return np.asarray(np.log(np.exp(z).sum(axis=-1)) - chosen)


def inclusion(weights: Floats, count: int) -> Floats:
    """Probabilities min(1, a * weights) that sum to `count`, which at most so many weights above 0 allow."""
    chance = np.zeros_like(weights)
    capped = np.zeros(weights.shape, bool)
    count = min(count, int(np.count_nonzero(weights)))
    for _ in range(len(weights) + 1):  # each round caps at least one more, or is the last
        free = ~capped & (weights > 0)
        if not free.any():
            break
        chance[free] = weights[free] * ((count - capped.sum()) / weights[free].sum())
        over = free & (chance >= 1)
        if not over.any():
            break
        capped |= over
        chance[capped] = 1
    return chance


def pivotal(chance: Floats, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """A sample of sum(chance) indices in which i occurs with probability chance[i], in random order.

    Two undecided ones meet at a time and at least one of them is decided (Deville and Tille 1998).
    """
    order = random.permutation(np.flatnonzero(chance))
    left = chance.astype(np.float64)
    chosen = []
    held = -1
    for i in order.tolist():
        if held < 0:
            held = i
            continue
        a, b = left[held], left[i]
        total = a + b
        if total < 1:
            if random.random() * total < b:
                held, i = i, held
            left[held] = total
        else:
            if random.random() * (2 - total) >= 1 - b:
                held, i = i, held
            chosen.append(held)
            held = i
            left[held] = total - 1
    if held >= 0 and left[held] > 0.5:
        chosen.append(held)
    return np.array(chosen, np.int64)


def draw(
    claimed: Losses,
    incumbent: Losses | None,
    scored: npt.NDArray[np.bool_],
    count: int,
    random: np.random.Generator,
    *,
    uniform_share: float = 0.25,
    confidence: float = 0.95,
) -> Draw:
    """At most `count` positions to probe; `claimed`, `incumbent` and `scored` are (N, T), some are scored."""
    gain = np.zeros(claimed.shape)
    if incumbent is not None:
        np.subtract(incumbent, claimed, out=gain, dtype=np.float64)
        gain = np.where(scored, np.maximum(gain, 0.0), 0.0)
    weights = scored / scored.sum()
    total = gain.sum()
    if total > 0:
        weights = (1 - uniform_share) * gain / total + uniform_share * weights
    rows = weights.sum(axis=1)
    chance = inclusion(rows, count)
    chosen = pivotal(chance, random)
    cuts = []
    for row in chosen.tolist():
        cumulated = np.cumsum(weights[row])
        cuts.append(int(np.searchsorted(cumulated, random.random() * cumulated[-1], side="right")))
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = weights * np.where(rows > 0, chance / rows, 0.0)[:, None]
    nats = math.log(1 / (1 - confidence))
    better = gain > 0
    return Draw(
        np.stack([chosen, np.array(cuts, np.int64)], axis=1),
        nats / float((drawn[better] / gain[better]).min()) if better.any() else None,
        min(1.0, nats / (int(scored.sum()) * float(drawn[scored].min()))),
    )


def conceal(rows: Tokens, positions: npt.NDArray[np.int64], vocabulary: int, random: np.random.Generator) -> Tokens:
    """What a probe shows, int32 (K, T): the inputs of each row, those after its cut replaced by random tokens."""
    inputs = rows[positions[:, 0], :-1]
    noise = random.integers(0, vocabulary, inputs.shape, np.int32)
    after = np.arange(inputs.shape[1]) > positions[:, 1:]
    return np.where(after, noise, inputs)
