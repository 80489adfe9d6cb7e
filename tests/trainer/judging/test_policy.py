"""The policy: out and in again without a change, and nothing that it does not know."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import TrainerError
from trainer.judging.policy import HoldoutPolicy, JudgePolicy, TimeBudget
from verifier import policy

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def test_round_trip() -> None:
    changed = JudgePolicy(
        budget=TimeBudget(grace_seconds=5.0),
        holdout=HoldoutPolicy(tokens=1024, alpha=0.01, least_share=0.5),
        same_hardware=False,
    )
    for rules in (JudgePolicy(), changed):
        assert JudgePolicy.from_json(json.loads(json.dumps(rules.as_json()))) == rules


def test_every_number_is_recorded() -> None:
    recorded = JudgePolicy().as_json()
    assert set(recorded) == {field.name for field in dataclasses.fields(JudgePolicy)}
    assert recorded["comparison"]["alpha"] == 0.01
    assert recorded["source"]["raw"] == 131_072
    assert recorded["verdict"] == {"repeats": 2, "require_holdout": True, "require_trusted": True, "calm": True}


def write(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text)
    return path


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    found = policy.load(
        write(
            tmp_path,
            "same_hardware = false\n[comparison]\nalpha = 0.05\nmargin = 1\n"
            "[source]\nliteral = 9\n[holdout]\ntokens = 512\n",
        )
    )
    assert found.same_hardware is False
    assert (found.comparison.alpha, found.comparison.margin, found.comparison.beta) == (0.05, 1, 0.03)
    assert (found.source.literal, found.source.raw) == (9, 131_072)
    assert found.holdout == dataclasses.replace(HoldoutPolicy(), tokens=512)
    assert policy.load(None) == JudgePolicy()
    assert policy.load(write(tmp_path, "")) == JudgePolicy()


@pytest.mark.parametrize(
    "text",
    [
        "sandbox = false",
        "[sandbox]\nuse = false",
        "suggestive = 0.5",
        "suggestive = 1",
        "suggestive = true",
        "suggestive = nan",
        "same_hardware = 1",
        "same_hardware = 'no'",
        "comparison = 3",
        "[comparison]\nalpha = 0.9",
        "[comparison]\nalpha = '0.01'",
        "[comparison]\nalpha = true",
        "[comparison]\nlevel = 0.01",
        "[comparison]\nmax_candidate_runs = 2.5",
        "[comparison]\nmax_candidate_runs = 1000",
        "[verdict]\nrepeats = 1.5",
        "[verdict]\nrequire_holdout = 0",
        "[source]\nraw = [1]",
        "[holdout]\ntokens = 1.0",
        "not toml at all",
        "[comparison]\nalpha = 0.01\nalpha = 0.02",
    ],
)
def test_a_file_that_does_not_fit(tmp_path: Path, text: str) -> None:
    with pytest.raises(TrainerError) as refusal:
        policy.load(write(tmp_path, text))
    assert refusal.value.cure
    assert "\n" not in refusal.value.problem


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="Cannot read"):
        policy.load(tmp_path / "absent.toml")


@given(JSON | st.dictionaries(st.sampled_from([field.name for field in dataclasses.fields(JudgePolicy)]), JSON))
def test_any_other_json(document: Any) -> None:
    """Whatever stands in an attestation, it is a policy or refused."""
    try:
        found = JudgePolicy.from_json(document)
    except TrainerError:
        return
    assert JudgePolicy.from_json(found.as_json()) == found
