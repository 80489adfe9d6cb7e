"""What asking models and agents has cost a session: calls, tokens, and dollars where somebody says them.

One file for each proposer in its folder, written before and after each call, so that a restart lifts no cap. Dollars
are what the server or the agent states, or the price that the user gave; without either they are unknown, not zero.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.files import write_atomic
from miner.proposers.base import Candidate, Context, Proposer, ProposerFailed

_MAX_BYTES = 4096
_ENDS = "-usage.json"


@dataclass(slots=True)
class Usage:
    """What was spent. A call counts once it is about to be sent, its tokens when they are known."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float | None = None

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def pays(self, dollars: float | None) -> None:
        """Add what a call cost, where it is known."""
        if dollars is not None:
            self.dollars = (self.dollars or 0.0) + dollars

    def words(self) -> str:
        """In one line: 12 calls, 45,210 tokens, $0.31."""
        parts = [f"{self.calls:,} call" + "s" * (self.calls != 1)]
        parts += [f"{self.tokens:,} tokens"] if self.tokens else []
        parts += [f"${self.dollars:,.2f}"] if self.dollars is not None else []
        return ", ".join(parts)


class Capped:
    """A model or an agent that is asked until all of the session's have cost `dollars` together.

    What a candidate cost is known after it, so the last may go beyond. Where nobody says what calls cost, no cap can
    hold: then it is asked once.
    """

    def __init__(self, proposer: Proposer, dollars: float, say: Callable[[str], None]) -> None:
        self.name, self._proposer, self._dollars, self._say = proposer.name, proposer, dollars, say

    def propose(self, context: Context) -> Candidate | None:
        """Its candidate, or None once the cap is reached or cannot hold."""
        own = read(context.folder, self.name)
        total = sum(used.dollars or 0.0 for used in spent(context.folder).values())
        if total >= self._dollars:
            self._say(f"  {self.name}: models and agents have cost ${total:.2f}; --max-dollars is {self._dollars:g}")
        elif own.calls and own.dollars is None:
            self._say(f"  {self.name}: nobody says what a call costs, so --max-dollars cannot hold; see --llm-price")
        else:
            return self._proposer.propose(context)
        return None


def read(folder: Path, name: str) -> Usage:
    """What a proposer has spent in a session; ProposerFailed if its file is damaged: anew would lift the caps."""
    path = folder / f"{name}{_ENDS}"
    try:
        with path.open("rb") as file:
            usage = Usage(**json.loads(file.read(_MAX_BYTES)))
        counts = (usage.calls, usage.prompt_tokens, usage.completion_tokens)
        if not all(type(value) is int and value >= 0 for value in counts) or cost(usage.dollars) != usage.dollars:
            raise ValueError("not counts")
    except FileNotFoundError:
        return Usage()
    except (OSError, ValueError, TypeError) as error:
        raise ProposerFailed(f"Cannot read what was spent from {path}: {error}.", "Restore or delete it.") from None
    return usage


def write(folder: Path, name: str, usage: Usage) -> None:
    """Put it on disk, whole or not at all."""
    write_atomic(folder / f"{name}{_ENDS}", json.dumps(asdict(usage), sort_keys=True).encode() + b"\n")


def spent(folder: Path) -> dict[str, Usage]:
    """What each proposer of a session has spent, by its name; what cannot be read is left out."""
    found: dict[str, Usage] = {}
    for path in sorted(folder.glob(f"*{_ENDS}"))[:20]:
        name = path.name.removesuffix(_ENDS)
        try:
            found[name] = read(folder, name)
        except ProposerFailed:
            continue
    return found


def as_json(asked: Mapping[str, Usage]) -> dict[str, dict[str, Any]]:
    """What `spent` found, as commands print it."""
    return {name: {**asdict(used), "tokens": used.tokens} for name, used in asked.items()}


def stated(output: str) -> Iterator[Mapping[str, Any]]:
    """The JSON objects among the last lines of an agent's output, newest first: what it says of itself."""
    for line in reversed(output[-200_000:].splitlines()[-400:]):
        if line.lstrip().startswith("{"):
            try:
                document = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(document, dict):
                yield document


def told(document: Mapping[str, Any]) -> Usage | None:
    """The tokens and dollars that a reply or a line of an agent's states, or None: as OpenAI's API, OpenRouter,
    `claude -p --output-format json` and `codex exec --json` have them."""
    said = document.get("usage")
    said = said if isinstance(said, dict) else {}
    dollars = cost(document.get("total_cost_usd"))
    dollars = cost(said.get("cost")) if dollars is None else dollars
    names = (
        ("prompt_tokens", "input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
        ("completion_tokens", "output_tokens"),
    )
    counts = [sum(count(said.get(name)) or 0 for name in group) for group in names]
    return Usage(1, counts[0], counts[1], dollars) if any(counts) or dollars is not None else None


def count(value: object) -> int | None:
    """A number of tokens that somebody states, if it can be one."""
    return value if type(value) is int and 0 <= value <= 10**8 else None


def cost(value: object) -> float | None:
    """A number of dollars that somebody states, if it can be one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and 0 <= value <= 10**6 else None
