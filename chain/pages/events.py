"""What indexed events look like: one JSON object, or one line for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from solders.pubkey import Pubkey

from chain.indexer.store import IndexedEvent
from chain.network.base import sol
from chain.pages import show
from common.text import printable

if TYPE_CHECKING:
    from chain.pages.overview import Meaning

_HIDDEN = ("id", "project_id")  # shown before the other fields
_SCORES = ("claimed_aggregate_score", "verified_aggregate_score", "new_aggregate_score")


def as_json(indexed: IndexedEvent) -> dict[str, Any]:
    """For scripts: kind, place on the chain, fate and fields."""
    return {
        "event": type(indexed.event).__name__ if indexed.event else "malformed",
        "slot": indexed.slot,
        "time": indexed.time,
        "signature": str(indexed.signature),
        "position": indexed.position,
        "final": indexed.final,
        "removed": indexed.removed,
        "fields": show.as_json(indexed.event) if indexed.event else {"problem": indexed.problem},
    }


def line(indexed: IndexedEvent, symbol: str, meaning: Meaning | None = None) -> str:
    """For people: when, what, and its fields; hashes and ids of artifacts are left out, addresses cut.

    `symbol` is the project token's. What an event counts is tokens, unless its name says lamports.
    """
    if indexed.time is None:
        stamp = f"slot {indexed.slot}"
    else:
        stamp = datetime.fromtimestamp(indexed.time, UTC).strftime("%Y-%m-%d %H:%M:%S")
    head = f"{stamp:<19}  {'VANISHED ' if indexed.removed else ''}"
    event = indexed.event
    if event is None:
        return f"{head}malformed event in {indexed.signature}: {printable(indexed.problem, 200)}"
    parts = [f"{type(event).__name__:<18}"]
    if hasattr(event, "id"):
        parts.append(f"proposal {event.id}")
    for name, value in show.as_json(event).items():
        raw = getattr(event, name)
        if name in _HIDDEN or isinstance(raw, bytes):
            continue
        words = name.removesuffix("_aggregate_score").replace("_", " ")
        if name in _SCORES and meaning and meaning.convention:
            parts.append(f"{words} {meaning.metric} {meaning.text(raw)}")
        elif name.endswith("_until"):
            parts.append(f"{words} {show.when(raw)}")
        elif isinstance(raw, Pubkey):
            parts.append(f"{words} {_short(raw)}")
        elif name in _SCORES:
            parts.append(f"{words} {value:,}")
        elif name.startswith("lamports_"):
            parts.append(f"{name.removeprefix('lamports_')} {sol(raw)}")
        else:
            parts.append(f"{words} {value:,} {printable(symbol, 10)}")
    return head + "  ".join(parts)


def _short(key: Pubkey) -> str:
    text = str(key)
    return f"{text[:4]}…{text[-4:]}"
