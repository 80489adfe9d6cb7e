"""Salts: what the judge mixes into a run's sources of chance, so that nobody can submit a lucky seed.

train.py fixes its seed, so a run repeated as it is shows the noise of the machine's pace only, and the best of twenty
seeds looks like an improvement. Under a secret salt (`inside_prepare`) the same script starts from other weights on
other data, which is the noise that a gain has to beat. The k-th run of the incumbent and the k-th of the candidate
share a salt: what chance does to both then largely cancels in their difference.
"""

from __future__ import annotations

import secrets
from hashlib import sha256


def salt_of(seed: int, run: int) -> str:
    """The salt, 32 hex digits, of an arm's run number `run` (from 0) in the trial with the secret `seed`."""
    return sha256(f"armlx salt {seed} {run}".encode()).hexdigest()[:32]


def fresh_salt() -> str:
    """A salt of its own for a run that is paired with no other."""
    return secrets.token_hex(16)
