"""JSON from outside, read strictly: hooks for `json.loads` that refuse what two readers could take differently."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn


def unique_keys(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """For `object_pairs_hook`; ValueError if a key occurs twice."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} occurs twice")
        found[key] = value
    return found


def no_number(text: str) -> NoReturn:
    """For `parse_constant`: NaN and the infinities are not JSON numbers; ValueError."""
    raise ValueError(f"{text} is not a finite JSON number")
