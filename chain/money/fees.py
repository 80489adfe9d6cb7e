"""What a transaction offers for its compute units. Pure."""

from __future__ import annotations

from collections.abc import Sequence

MAX_AUTO_FEE = 1_000_000  # micro-lamports per unit: 0.0014 SOL for the largest transaction
MAX_UNITS = 1_400_000  # compute units of a transaction, a cluster's own limit


def auto_fee(recent: Sequence[int]) -> int:
    """The fee that three of four recent blocks asked no more than, up to MAX_AUTO_FEE."""
    ordered = sorted(recent)
    return min(MAX_AUTO_FEE, ordered[len(ordered) * 3 // 4]) if ordered else 0


def unit_limit(used: int) -> int:
    """Compute units to ask for where a simulation took `used`: a fifth more, for a state that has moved on."""
    return min(MAX_UNITS, used + used // 5 + 1_000)


def priority_fee(units: int, price: int) -> int:
    """Lamports for `units` compute units at `price` micro-lamports each, as a cluster rounds them."""
    return -(-units * price // 1_000_000)
