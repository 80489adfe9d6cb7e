"""`tune`: untried and allowed moves only, reproducible, the promising direction first, and better than the old way."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miner.proposers.base import Candidate, Tried
from miner.proposers.tune import EARLY, Tune
from tests.benchmarks import bench_proposers
from tests.miner.proposers.support import SOURCE, baseline, context, tried
from trainer.project import hyperparameters


def proposals(folder: Path, source: str, seed: int, count: int) -> list[Candidate]:
    """As a session takes them: each is in the history of the next, every third crashes, none is kept."""
    proposer, history, found = Tune(seed), [baseline(source)], list[Candidate]()
    for number in range(1, count + 1):
        candidate = proposer.propose(context(folder, history, source=source))
        if candidate is None:
            break
        found.append(candidate)
        history.append(tried(number, candidate, source, None if number % 3 == 0 else -0.01 / number))
    return found


def blanked(source: str) -> str:
    """The source with every constant's value taken out."""
    for constant in sorted(hyperparameters.find(source), key=lambda c: c.span, reverse=True):
        source = source[: constant.span[0]] + "?" + source[constant.span[1] :]
    return source


def changes(source: str, candidate: Candidate) -> dict[str, tuple[object, object]]:
    before = {c.name: c.value for c in hyperparameters.find(source)}
    after = {c.name: c.value for c in hyperparameters.find(candidate.source)}
    assert before.keys() == after.keys()
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}


def test_a_long_session_on_the_smoke_project(tmp_path: Path) -> None:
    found = proposals(tmp_path, SOURCE, 5, 24)
    assert len(found) == 24
    prints = [hyperparameters.fingerprint(candidate.source) for candidate in found]
    assert len({hyperparameters.fingerprint(SOURCE), *prints}) == 25
    for number, candidate in enumerate(found):
        moved = changes(SOURCE, candidate)
        assert moved
        assert not any(word in name for name in moved for word in ("SEED", "EVAL"))
        assert blanked(candidate.source) == blanked(SOURCE)
        assert candidate.hypothesis.count(" -> ") == len(moved)
        assert all(f"{name} " in candidate.hypothesis for name in moved)
        if number < EARLY:
            assert len(moved) == 1
    assert any(len(changes(SOURCE, candidate)) > 1 for candidate in found)
    rates = sum("LR" in candidate.hypothesis or "BATCH" in candidate.hypothesis for candidate in found[:6])
    assert rates >= 3


def test_the_same_seed_and_history_give_the_same_candidates(tmp_path: Path) -> None:
    first = proposals(tmp_path / "a", SOURCE, 11, 12)
    assert proposals(tmp_path / "b", SOURCE, 11, 12) == first
    assert proposals(tmp_path / "c", SOURCE, 12, 5) != first[:5]


def test_a_restarted_session_proposes_what_it_was_running(tmp_path: Path) -> None:
    found = proposals(tmp_path, SOURCE, 4, 22)
    history = [baseline()]
    history += [tried(n, c, SOURCE, None if n % 3 == 0 else -0.01 / n) for n, c in enumerate(found, 1)]
    for asked in (5, 12, 22):
        assert Tune(4).propose(context(tmp_path / "new", history[:asked])) == found[asked - 1]


def test_what_won_is_tried_further_first(tmp_path: Path) -> None:
    source = "EMBED_LR = 0.01\nMATRIX_LR = 0.02\nWEIGHT_DECAY = 0.1\n"
    won = source.replace("0.02", "0.04")
    history = [baseline(source), tried(1, Candidate(won, ""), source, 0.05, "keep")]
    further = Tune(1).propose(context(tmp_path, history, source=won))
    assert further is not None
    assert further.hypothesis == "MATRIX_LR 0.04 -> 0.08"
    history.append(tried(2, further, won, 0.03, "keep"))
    again = Tune(1).propose(context(tmp_path, history, source=further.source))
    assert again is not None
    assert again.hypothesis == "MATRIX_LR 0.08 -> 0.16"
    history.append(tried(3, again, further.source, -0.02))
    other = Tune(1).propose(context(tmp_path, history, source=further.source))
    assert other is not None
    assert not other.hypothesis.startswith("MATRIX_LR 0.08 -> 0.16")


def test_a_broken_divisibility_is_not_proposed_again(tmp_path: Path) -> None:
    source = "MODEL_DIM = 96\nHEAD_DIM = 32\nMATRIX_LR = 0.02\nEMBED_LR = 0.3\nDEPTH = 4\n"
    proposer, history, crashes = Tune(2), [baseline(source)], 0
    for number in range(1, 41):
        candidate = proposer.propose(context(tmp_path, history, source=source))
        assert candidate is not None
        at = {c.name: c.value for c in hyperparameters.find(candidate.source)}
        model, head = at["MODEL_DIM"], at["HEAD_DIM"]
        assert isinstance(model, int)
        assert isinstance(head, int)
        crashes += bool(model % head)
        history.append(tried(number, candidate, source, None if model % head else -0.001))
    assert crashes <= 1


def test_it_ends_where_nothing_is_left(tmp_path: Path) -> None:
    found = proposals(tmp_path, "TIED = True  # a comment\nSEED = 1\nEVAL_BATCH_SIZE = 64\n", 1, 50)
    assert [candidate.source.split("\n")[0] for candidate in found] == ["TIED = False  # a comment"]
    assert Tune(1).propose(context(tmp_path, [baseline("print('none')\n")], source="print('none')\n")) is None


def test_foreign_code_in_the_history_is_no_obstacle(tmp_path: Path) -> None:
    new = "NEW_LR = 0.5\n" + SOURCE
    history = [
        baseline(),
        tried(1, Candidate(new, "a new constant"), SOURCE, 0.1, "keep"),
        Tried(2, "f" * 64, "taken over", "discard", None, "def f(:\n", "e" * 64),
    ]
    candidate = Tune(1).propose(context(tmp_path, history, source=new))
    assert candidate is not None
    assert changes(new, candidate)


@settings(max_examples=20, deadline=None)
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
def test_any_script(tmp_path_factory: pytest.TempPathFactory, values: list[str], end: str, seed: int) -> None:
    lines = ["# -*- coding: utf-8 -*-  µ", *(f"RATE_{i}  =  {value}   # ünchanged" for i, value in enumerate(values))]
    lines += ["SEED = 42", "MODEL_SEED = 7", "EVAL_TOKENS = 3", "def f(x):", "    y = 3; return x", ""]
    source = end.join(lines)
    found = proposals(tmp_path_factory.mktemp("any"), source, seed, 8)
    prints = [hyperparameters.fingerprint(candidate.source) for candidate in found]
    assert len(set(prints)) == len(prints)
    assert hyperparameters.fingerprint(source) not in prints
    for candidate in found:
        moved = changes(source, candidate)
        assert all(name.startswith("RATE_") for name in moved)
        assert blanked(candidate.source) == blanked(source)
        for old, new in moved.values():
            assert type(old) is type(new)


def test_it_needs_fewer_trials_than_the_reference() -> None:
    tune, turn = bench_proposers.compare(3, 40, 100, steep=False)
    assert bench_proposers.ratio(tune, turn, 0.5) > 1.5
    assert sum(c.shares[-1] for c in tune) > 1.3 * sum(c.shares[-1] for c in turn)


def test_numpy_is_not_loaded_before_it_is_needed() -> None:
    import subprocess

    code = "import sys, miner.commands.main, miner.proposers.tune; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
