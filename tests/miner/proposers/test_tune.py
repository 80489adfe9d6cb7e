"""`tune`: untried and allowed moves only, reproducible, the promising direction first, and better than the old way."""

from __future__ import annotations

import statistics
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.resources import ROOT
from miner.proposers import space
from miner.proposers.base import Candidate, Clue, Tried
from miner.proposers.tables import HEARD
from miner.proposers.tune import EARLY, Tune
from tests.benchmarks import bench_proposers
from tests.miner.proposers.support import SOURCE, baseline, context, tried
from trainer.project import hyperparameters, sites


def proposals(folder: Path, source: str, seed: int, count: int, hardware: str = "") -> list[Candidate]:
    """As a session takes them: each is in the history of the next, every third crashes, none is kept."""
    proposer, history, found = Tune(seed), [baseline(source)], list[Candidate]()
    for number in range(1, count + 1):
        candidate = proposer.propose(replace(context(folder, history, source=source), hardware=hardware))
        if candidate is None:
            break
        found.append(candidate)
        history.append(tried(number, candidate, source, None if number % 3 == 0 else -0.01 / number))
    return found


def blanked(source: str) -> str:
    """The source with every constant's value taken out."""
    for start, end in sorted((span for site in sites.find(source) for span in site.spans), reverse=True):
        source = source[:start] + "?" + source[end:]
    return source


def changes(source: str, candidate: Candidate) -> dict[str, tuple[object, object]]:
    before = {c.name: c.value for c in sites.find(source)}
    after = {c.name: c.value for c in sites.find(candidate.source)}
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
        if number < EARLY and len(moved) > 1:
            assert all("LR" in name for name in moved)  # a look at the rates together
    assert any(len(changes(SOURCE, candidate)) > 1 for candidate in found)
    rates = sum("LR" in candidate.hypothesis or "BATCH" in candidate.hypothesis for candidate in found[:6])
    assert rates >= 3


def script(name: str) -> str:
    scripts = Path(__file__).parent / "scripts"
    return (ROOT / "trainer" / "train.py" if name == "today" else scripts / f"{name}.py.txt").read_text()


@pytest.mark.parametrize("hardware", ["apple-m4", "nvidia-h200"])
@pytest.mark.parametrize("seed", range(6))
def test_from_nothing_zero_decay_is_among_the_first_on_the_script_that_decay_ruined(
    tmp_path: Path, seed: int, hardware: str
) -> None:
    source = script("decaying")
    found = proposals(tmp_path, source, seed, 5, hardware)
    assert {"WEIGHT_DECAY": (0.01, 0.0)} in [changes(source, candidate) for candidate in found]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "hardware", "there", "absent"),
    [
        ("classic", "nvidia-h200", {"TOTAL_BATCH_SIZE": (32768, 16384)}, {"ASPECT_RATIO": (64, 128)}),  # Adam
        ("classic", "nvidia-rtx-4090", {"TOTAL_BATCH_SIZE": (32768, 16384)}, {"TOTAL_BATCH_SIZE": (32768, 8192)}),
        ("classic", "apple-m4-max-40c", {"TOTAL_BATCH_SIZE": (32768, 16384)}, {"ASPECT_RATIO": (64, 128)}),
        ("classic", "", {"WEIGHT_DECAY": (0.2, 0.0)}, {"ASPECT_RATIO": (64, 128)}),
        ("decaying", "nvidia-a100", {"MODEL_DIM": (320, 640)}, {"BATCH_SIZE": (16, 4)}),
        ("today", "nvidia-h200", {"MODEL_DIM": (384, 768)}, {"TABLE_DECAY": (0.015, 0.0)}),
        ("today", "apple-m1", {"BATCH_SIZE": (16, 8)}, {"MODEL_DIM": (384, 768)}),
    ],
)
def test_an_accelerator_looks_at_more_width_first_and_others_at_less_work(
    tmp_path: Path, seed: int, name: str, hardware: str, there: object, absent: object
) -> None:
    source = script(name)
    found = [changes(source, candidate) for candidate in proposals(tmp_path, source, seed, 5, hardware)]
    assert there in found
    assert absent not in found


def test_a_look_that_lost_is_not_repeated_after_an_edit(tmp_path: Path) -> None:
    proposer, history = Tune(3), [baseline()]
    while proposer.is_bold(seen := context(tmp_path, history)):
        candidate = proposer.propose(seen)
        assert candidate is not None
        history.append(tried(len(history), candidate, SOURCE))
    assert len(history) > 2
    edited = Candidate(SOURCE + "TABLE_ROWS = 4096\n", "edit pair-embeddings: a table")
    history.append(tried(len(history), edited, SOURCE, 0.1, "keep"))
    assert not proposer.is_bold(context(tmp_path, history, source=edited.source))


def test_it_is_bold_while_a_look_worth_more_than_all_else_is_open(tmp_path: Path) -> None:
    proposer, history, bold = Tune(3), [baseline()], list[str]()
    for number in range(1, 30):
        seen = context(tmp_path, history)
        was, candidate = proposer.is_bold(seen), proposer.propose(seen)
        assert candidate is not None
        if was:
            bold.append(candidate.hypothesis)
        history.append(tried(number, candidate, SOURCE))
    assert bold
    assert all(any(word in hypothesis for word in ("BATCH", "DECAY")) for hypothesis in bold)
    assert len(bold) < 8


def test_what_nobody_checked_makes_no_look_come_before_what_others_propose(tmp_path: Path) -> None:
    """A table that says that every step won would have its looks made for hours before an agent is asked."""
    source, history, proposer = script("today"), list[Tried](), Tune(3)
    told = [
        Clue(d.name, d.value, d.at(centre + step), 1.0, HEARD)
        for d in space.dimensions(source)
        if d.scale != "choice" and (centre := d.coordinate(d.value)) is not None
        for step in (-4, -3, -2, -1, 1, 2, 3, 4)
    ]
    history.append(baseline(source))
    while proposer.is_bold(seen := replace(context(tmp_path, history, source=source), clues=told)):
        candidate = proposer.propose(seen)
        assert candidate is not None
        history.append(tried(len(history), candidate, source))
        assert len(history) < 8


@pytest.mark.parametrize("seed", range(3))
def test_no_two_trials_are_the_same_idea(tmp_path: Path, seed: int) -> None:
    source = (Path(__file__).parent / "scripts" / "decaying.py.txt").read_text()
    dims = space.dimensions(source)
    points = [space.point(dims, sites.values(c.source)) for c in proposals(tmp_path, source, seed, 30)]
    at = [point for point in [space.point(dims, sites.values(source)), *points] if point is not None]
    assert len(at) == 31
    for first, a in enumerate(at):
        for b in at[:first]:
            assert max(d.apart(x, y) for d, x, y in zip(dims, a, b, strict=True)) >= 1


def test_a_step_that_promises_less_than_the_noise_waits(tmp_path: Path) -> None:
    source = "A_LR = 0.02\n"
    looks = [(0.002, -0.5), (0.2, -0.5), (0.01, -0.0002), (0.04, -0.0002)]
    history = [baseline(source)]
    history += [tried(n, Candidate(f"A_LR = {v}\n", ""), source, d) for n, (v, d) in enumerate(looks, 1)]
    seen = context(tmp_path, history, source=source)
    assert Tune(1).propose(seen) is not None  # the last resort: nothing else is left
    more = "WEIGHT_DECAY = 0.1\n"
    wide = [
        replace(t, source=t.source + more, fingerprint=hyperparameters.fingerprint(t.source + more)) for t in history
    ]
    base = wide[0].fingerprint
    noisy = replace(seen, source=source + more, history=[replace(t, base=base) for t in wide], sigma=0.05)
    found = Tune(1).propose(noisy)
    assert found is not None
    assert "WEIGHT_DECAY" in changes(source + more, found)


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
        at = {c.name: c.value for c in sites.find(candidate.source)}
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


@pytest.mark.parametrize(("kind", "trials"), [("plateau", 15), ("coupled", 15)])
def test_it_finds_half_of_the_gain_where_a_search_by_small_steps_does_not(kind: str, trials: int) -> None:
    tune, turn = bench_proposers.compare(3, trials, 100, kind)
    assert statistics.fmean(c.shares[-1] for c in tune) > 0.5 > statistics.fmean(c.shares[-1] for c in turn)


@pytest.mark.parametrize("kind", ["smooth", "steep"])
def test_looks_far_away_do_not_lose_a_plain_bowl(kind: str) -> None:
    tune, turn = bench_proposers.compare(3, 40, 100, kind)
    assert statistics.fmean(c.shares[-1] for c in tune) > 0.7 > statistics.fmean(c.shares[-1] for c in turn)


def test_numpy_is_not_loaded_before_it_is_needed() -> None:
    import subprocess

    code = "import sys, miner.commands.main, miner.proposers.tune; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
