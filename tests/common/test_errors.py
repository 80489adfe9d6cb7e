"""What a refusal prints."""

from __future__ import annotations

import pytest

from common.errors import Refused


@pytest.mark.parametrize(
    ("problem", "cure", "words"),
    [
        ("It is full.", "Empty it.", "It is full. Empty it."),
        (
            "There is no cluster: Invalid address: x",
            "Start one.",
            "There is no cluster: Invalid address: x. Start one.",
        ),
        ("Is it there?", "Look.", "Is it there? Look."),
        ("It is full.", "", "It is full."),
        ("", "Empty it.", "Empty it."),
    ],
)
def test_problem_and_cure_are_two_sentences(problem: str, cure: str, words: str) -> None:
    refused = Refused(problem, cure)
    assert (refused.message, refused.problem, refused.cure) == (words, problem, cure)
