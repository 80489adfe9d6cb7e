"""What asking costs: what replies and agents state, and what is on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from miner.proposers import usage
from miner.proposers.base import Candidate, Context, ProposerFailed
from miner.proposers.usage import Usage
from tests.miner.proposers.support import context


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"usage": {"prompt_tokens": 10, "completion_tokens": 5}}, Usage(1, 10, 5)),
        ({"usage": {"prompt_tokens": 10, "completion_tokens": 5, "cost": 0.002}}, Usage(1, 10, 5, 0.002)),
        (  # claude -p --output-format json
            {
                "type": "result",
                "result": "HYPOTHESIS: x",
                "total_cost_usd": 0.31,
                "usage": {"input_tokens": 4, "cache_read_input_tokens": 9000, "output_tokens": 700},
            },
            Usage(1, 9004, 700, 0.31),
        ),
        ({"type": "turn.completed", "usage": {"input_tokens": 12, "output_tokens": 3}}, Usage(1, 12, 3)),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": "many", "cost": float("nan")}}, None),
        ({"usage": [], "total_cost_usd": True}, None),
        ({}, None),
    ],
)
def test_what_is_stated(document: dict[str, object], expected: Usage | None) -> None:
    assert usage.told(document) == expected


def test_the_newest_object_of_an_output_comes_first() -> None:
    output = 'thinking {"a": 1}\n{"a": 2}\n{torn\n[1]\n{"a": 3}\n'
    assert list(usage.stated(output)) == [{"a": 3}, {"a": 2}]
    assert list(usage.stated("{" * 100_000)) == []


def test_what_was_spent_survives_and_adds_up(tmp_path: Path) -> None:
    spent = Usage(12, 45_000, 210)
    spent.pays(None)
    assert spent.words() == "12 calls, 45,210 tokens"
    spent.pays(0.3)
    spent.pays(0.0125)
    assert spent.words() == "12 calls, 45,210 tokens, $0.31"
    assert Usage(1).words() == "1 call"
    usage.write(tmp_path, "llm", spent)
    assert usage.read(tmp_path, "llm") == spent
    (tmp_path / "agent-usage.json").write_text(json.dumps({"calls": -3}))
    assert usage.spent(tmp_path) == {"llm": spent}
    with pytest.raises(ProposerFailed, match="what was spent"):
        usage.read(tmp_path, "agent")


class Paid:
    """Each candidate costs so many dollars, or what nobody says."""

    name = "llm"

    def __init__(self, each: float | None) -> None:
        self.each, self.asked = each, 0

    def propose(self, context: Context) -> Candidate | None:
        self.asked += 1
        spent = usage.read(context.folder, self.name)
        spent.calls += 1
        spent.pays(self.each)
        usage.write(context.folder, self.name, spent)
        return Candidate(context.source, "idea")


@pytest.mark.parametrize(
    ("each", "others", "asked", "words"),
    [
        (0.3, 0.0, 4, "have cost $1.20; --max-dollars is 1"),  # the last one goes beyond
        (0.3, 0.9, 1, "have cost $1.20"),  # an agent's share counts
        (0.0, 0.0, 9, ""),  # a model that costs nothing
        (None, 0.0, 1, "cannot hold"),
    ],
)
def test_a_cap_in_dollars(tmp_path: Path, each: float | None, others: float, asked: int, words: str) -> None:
    usage.write(tmp_path, "agent", Usage(1, dollars=others))
    paid, said = Paid(each), list[str]()
    for _ in range(9):  # a restart lifts no cap
        usage.Capped(paid, 1.0, said.append).propose(context(tmp_path))
    assert paid.asked == asked
    assert words in "".join(said)
    assert bool(said) == bool(words)
