"""The first proposer: reproducible, never the same twice, and only ever one or two constants."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from miner.proposer import Candidate, Tried, Turn
from trainer import constants, recipe

SOURCE = recipe.load("smoke").files["train.py"].decode()


def tried(candidate: Candidate, delta: float | None = -0.01) -> Tried:
    return Tried(constants.fingerprint(candidate.source), candidate.hypothesis, False, delta)


def proposals(source: str, seed: int, count: int) -> list[Candidate]:
    """As a session takes them: each is in the history of the next."""
    proposer, history, found = Turn(seed), [Tried(constants.fingerprint(source), "baseline", True, 0.0)], []
    for _ in range(count):
        candidate = proposer.propose(source, history)
        if candidate is None:
            break
        found.append(candidate)
        history.append(tried(candidate, None if len(found) % 3 == 0 else -0.01))
    return found


def blanked(source: str) -> str:
    """The source with every constant's value taken out."""
    for constant in sorted(constants.find(source), key=lambda c: c.span, reverse=True):
        source = source[: constant.span[0]] + "?" + source[constant.span[1] :]
    return source


def changes(source: str, candidate: Candidate) -> dict[str, tuple[object, object]]:
    before = {c.name: c.value for c in constants.find(source)}
    after = {c.name: c.value for c in constants.find(candidate.source)}
    assert before.keys() == after.keys()
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}


def test_a_long_session_on_the_smoke_project() -> None:
    found = proposals(SOURCE, 5, 30)
    assert len(found) == 30
    prints = [constants.fingerprint(candidate.source) for candidate in found]
    assert len({constants.fingerprint(SOURCE), *prints}) == 31
    for candidate in found:
        moved = changes(SOURCE, candidate)
        assert 1 <= len(moved) <= 2
        assert not any(word in name for name in moved for word in ("SEED", "EVAL"))
        assert blanked(candidate.source) == blanked(SOURCE)
        assert candidate.hypothesis == ", ".join(
            f"{name} {moved[name][0]:g} -> {moved[name][1]:g}" for name in _named(candidate)
        )
    assert {len(changes(SOURCE, candidate)) for candidate in found} == {1, 2}
    # what matters most comes up most
    rates = sum("LR" in candidate.hypothesis for candidate in found)
    assert rates > 10


def _named(candidate: Candidate) -> list[str]:
    return re.findall(r"[A-Z][A-Z0-9_]*", candidate.hypothesis)


def test_the_same_seed_and_history_give_the_same_candidate() -> None:
    assert proposals(SOURCE, 11, 6) == proposals(SOURCE, 11, 6)
    assert proposals(SOURCE, 11, 6) != proposals(SOURCE, 12, 6)


def test_a_restarted_session_proposes_what_it_was_running() -> None:
    first = proposals(SOURCE, 3, 5)
    history = [Tried(constants.fingerprint(SOURCE), "baseline", True, 0.0), *map(tried, first[:4])]
    assert Turn(3).propose(SOURCE, history) == first[4]


def test_it_ends_where_nothing_is_left() -> None:
    found = proposals("HEAD_LR = 0.0  # a comment\nSEED = 1\nEVAL_BATCH_SIZE = 64\nUSE = True\n", 1, 50)
    values = sorted(candidate.source.split("\n")[0] for candidate in found)
    assert values == ["HEAD_LR = 0.05  # a comment", "HEAD_LR = 0.1  # a comment"]
    assert Turn(1).propose("print('no constants')\n", []) is None


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.integers(1, 4096).map(str)
        | st.floats(1e-6, 0.999).map(repr)
        | st.floats(1.0, 1e6).map(repr)
        | st.sampled_from(["0.0", "0", "2**12", "3 * 64", "True", "'text'"]),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(0, 2**32),
)
def test_any_script(values: list[str], end: str, seed: int) -> None:
    lines = ["# -*- coding: utf-8 -*-  µ", *(f"RATE_{i}  =  {value}   # ünchanged" for i, value in enumerate(values))]
    lines += ["SEED = 42", "MODEL_SEED = 7", "EVAL_TOKENS = 3", "def f(x):", "    y = 3; return x", ""]
    source = end.join(lines)
    found = proposals(source, seed, 8)
    prints = [constants.fingerprint(candidate.source) for candidate in found]
    assert len(set(prints)) == len(prints)
    assert constants.fingerprint(source) not in prints
    for candidate in found:
        moved = changes(source, candidate)
        assert 1 <= len(moved) <= 2
        assert all(name.startswith("RATE_") for name in moved)
        assert blanked(candidate.source) == blanked(source)
        for old, new in moved.values():
            assert type(old) is type(new)
            assert isinstance(old, int | float)
            assert isinstance(new, int | float)
            assert new > 0
            if 0 < old < 1:
                assert new < 1
