"""Mutations of valid inputs: what a hostile or broken peer sends looks almost right.

`ARMLX_FUZZ_EXAMPLES=10000 uv run pytest tests/fuzz` tries that many inputs for each parser; the suite tries 60.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from common.errors import Refused

EXAMPLES = int(os.environ.get("ARMLX_FUZZ_EXAMPLES", "60"))
TIME_LIMIT = 300 + EXAMPLES // 4  # seconds for one test; only to end what hangs
fuzzed = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

_T = TypeVar("_T")
_WIDTHS = (1, 2, 4, 8)
_INTERESTING = (0, 1, 2, 31, 32, 33, 127, 128, 255, 256, 511, 512, 4095, 4096, 2**15, 2**16, 2**31, 2**32, 2**63)
_HOSTILE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**63) - 1,
    10**400,
    1.5,
    -0.0,
    1e308,
    float("inf"),
    float("nan"),
    "",
    "0",
    "x" * 5_000,
    "\ud800",
    "\0\x1b[31m",
    "../../etc",
    [],
    [[]],
    {},
    {"a": 1},
)


def outcome(error: type[Refused], call: Callable[[], _T]) -> _T | None:
    """What a parser gives for hostile input: a value, or None for a refusal of its own kind in bounded words.

    Any other exception passes through and fails the test.
    """
    try:
        return call()
    except error as refusal:
        words = refusal.message
    assert 0 < len(words) < 6_000
    return None


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes], most: int = 4) -> bytes:
    """One of the seeds after one to `most` changes of its bytes."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, most))):
        _change(draw, data, seeds)
    return bytes(data)


def _change(draw: st.DrawFn, data: bytearray, seeds: Sequence[bytes]) -> None:
    at = draw(st.integers(0, max(len(data) - 1, 0)))
    match draw(st.integers(0, 8)):
        case 0 if data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        case 1 if data:
            data[at] = draw(st.sampled_from((0, 1, 2, 0x20, 0x7F, 0x80, 0xFE, 0xFF)))
        case 2:
            del data[at:]
        case 3:
            del data[at : at + draw(st.integers(1, 600))]
        case 4:
            data[at:at] = data[at : at + draw(st.integers(1, 600))]
        case 5:  # a length, or whatever number is there
            width, order = draw(st.sampled_from(_WIDTHS)), draw(st.sampled_from(("little", "big")))
            value = draw(st.sampled_from(_INTERESTING)) + draw(st.integers(-1, 1))
            data[at : at + width] = (value % 256**width).to_bytes(width, order)
        case 6:  # the beginning of one, the end of another
            other = draw(st.sampled_from(seeds))
            data[at:] = other[draw(st.integers(0, len(other))) :]
        case 7:
            data[at:at] = draw(st.binary(min_size=1, max_size=40))
        case _:
            data += draw(st.binary(max_size=600))


@st.composite
def mutated_json(draw: st.DrawFn, seeds: Sequence[Any], most: int = 4) -> Any:
    """One of the documents after one to `most` changes of its structure."""
    document = [copy.deepcopy(draw(st.sampled_from(seeds)))]
    for _ in range(draw(st.integers(1, most))):
        _restructure(draw, document)
    return document[0]


def _restructure(draw: st.DrawFn, document: list[Any]) -> None:
    holder: Any = document
    key: Any = 0
    while isinstance(holder[key], dict | list) and holder[key] and draw(st.integers(0, 3)):
        holder = holder[key]
        key = (
            draw(st.sampled_from(sorted(holder))) if isinstance(holder, dict) else draw(st.integers(0, len(holder) - 1))
        )
    value = holder[key]
    match draw(st.integers(0, 6)):
        case 0 if holder is not document:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[draw(st.sampled_from((f"{key}x", key.upper(), "", "\ud800", "constructor")))] = value
        case 2 if isinstance(holder, list) and holder is not document:
            holder.insert(key, copy.deepcopy(value))
        case 3 if type(value) in (int, float) and abs(value) < 2**64:
            holder[key] = draw(st.sampled_from((-value, value + 1, value - 1, value / 2, float(value), str(value))))
        case 3 | 4 if isinstance(value, str):
            cut = draw(st.integers(0, len(value)))
            holder[key] = (
                value[:cut]
                + draw(st.sampled_from(("", " ", "\n", "é", "0", "/", "A", "=", "(a+)+$")))
                + value[cut + 1 :]
            )
        case 5:
            holder[key] = copy.deepcopy(draw(st.sampled_from((value, [value], {"value": value}, document[0]))))
        case _:
            holder[key] = copy.deepcopy(draw(st.sampled_from(_HOSTILE)))


@st.composite
def mutated_json_text(draw: st.DrawFn, seeds: Sequence[Any]) -> bytes:
    """A changed document as JSON bytes, which are sometimes changed too."""
    text = json.dumps(draw(mutated_json(seeds))).encode()
    return draw(mutated([text], most=2)) if draw(st.integers(0, 3)) == 0 else text
