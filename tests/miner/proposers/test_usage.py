"""What asking costs: what replies and agents state, and what is on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from miner.proposers import usage
from miner.proposers.base import ProposerFailed
from miner.proposers.usage import Usage


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
