"""What is learnt from history: moves, and what crashes speak against."""

from __future__ import annotations

import pytest

from miner.proposers import evidence, space
from miner.proposers.base import Candidate, Tried
from miner.proposers.evidence import SearchHistory
from tests.miner.proposers.support import baseline, tried
from trainer.errors import InvalidBundle
from trainer.project import hyperparameters, sites
from trainer.project.hyperparameters import Value

SCRIPT = "LR = 0.02\nMODEL_DIM = 32\nHEAD_DIM = 16\nBATCH_SIZE = 8\n"


def changed(*pairs: tuple[str, str], source: str = SCRIPT) -> Candidate:
    for old, new in pairs:
        assert old in source
        source = source.replace(old, new)
    return Candidate(source, "")


def gathered(source: str, history: list[Tried]) -> SearchHistory:
    return evidence.gather(source, history, space.dimensions(source))


def test_moves_follow_what_was_tried() -> None:
    better = changed(("LR = 0.02", "LR = 0.04"))
    both = changed(("BATCH_SIZE = 8", "BATCH_SIZE = 16"), source=better.source)
    code = Candidate(better.source + "def f():\n    pass\n", "")
    history = [
        baseline(SCRIPT),
        tried(1, better, SCRIPT, 0.05, "keep"),
        tried(2, both, better.source, -0.01),
        tried(3, code, better.source, 0.02, "keep"),
        tried(4, changed(("LR = 0.04", "LR = 0.08"), source=code.source), code.source, None),
    ]
    found = gathered(code.source, history)
    assert [(move.gain, move.kept) for move in found.moves] == [(0.05, True), (-0.01, False), (None, False)]
    assert [b - a for a, b in zip(found.moves[1].start, found.moves[1].end, strict=True)] == [0, 0, 0, 1]
    assert len(found.crashed) == 1


def test_moves_outlive_an_edit_that_adds_a_dimension_but_no_other_kind_of_optimizer() -> None:
    slower = changed(("LR = 0.02", "LR = 0.01"))
    edited = Candidate(SCRIPT + "ROWS = 4096\n", "")
    muon = Candidate(SCRIPT + "MUON_MOMENTUM = 0.9\n", "")
    history = [baseline(SCRIPT), tried(1, slower, SCRIPT, -0.1), tried(2, edited, SCRIPT, 0.05, "keep")]
    found = gathered(edited.source, history)
    assert [move.gain for move in found.moves] == [-0.1]
    assert [b - a for a, b in zip(found.moves[0].start, found.moves[0].end, strict=True)] == [-1, 0, 0, 0, 0]
    assert gathered(muon.source, history).moves == ()


def test_a_base_from_elsewhere_is_one_more_start() -> None:
    theirs = "LR = 0.5\nMODEL_DIM = 64\nHEAD_DIM = 16\nBATCH_SIZE = 4\n"
    mine = changed(("LR = 0.5", "LR = 0.25"), source=theirs)
    found = gathered(theirs, [baseline(SCRIPT), tried(1, mine, theirs, -0.1)])
    assert [move.gain for move in found.moves] == [-0.1]
    assert found.moves[0].end[0] == found.moves[0].start[0] - 1


def test_a_long_history_on_one_base_parses_the_base_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    base = SCRIPT.replace("LR = 0.02", "LR = 0.0271828")  # no other test has read it
    tries = [tried(n, changed(("0.0271828", f"0.0{n}5"), source=base), base) for n in range(1, 200)]
    parsed: list[str] = []
    find = sites.find

    def counted(source: str) -> tuple[sites.Site, ...]:
        parsed.append(source)
        return find(source)

    monkeypatch.setattr(sites, "find", counted)
    found = evidence.gather(base, [baseline(base), *tries], [])
    assert len(found.ran) == 201
    assert parsed == [base]


def values(**given: Value) -> dict[str, Value]:
    return {"LR": 0.02, "MODEL_DIM": 32, "HEAD_DIM": 16, "BATCH_SIZE": 8, **given}


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        ({"HEAD_DIM": 64}, False),  # the same again
        ({"HEAD_DIM": 128}, False),  # does not divide either
        ({"MODEL_DIM": 48, "HEAD_DIM": 32}, False),
        ({"MODEL_DIM": 64, "HEAD_DIM": 64}, True),  # what broke is whole again
        ({"MODEL_DIM": 64, "HEAD_DIM": 32}, True),
        ({"LR": 0.1}, True),
        ({"BATCH_SIZE": 1024}, True),
    ],
)
def test_a_relation_that_a_crash_broke_is_kept(candidate: dict[str, Value], expected: bool) -> None:
    found = SearchHistory((), (values(), values(BATCH_SIZE=4)), ((values(), values(HEAD_DIM=64)),))
    assert evidence.allowed(values(**candidate), found) is expected


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        ({"BATCH_SIZE": 512}, False),
        ({"BATCH_SIZE": 1024, "LR": 0.5}, False),
        ({"BATCH_SIZE": 256}, True),
        ({"BATCH_SIZE": 4}, True),
    ],
)
def test_a_crash_without_a_relation_is_not_passed(candidate: dict[str, Value], expected: bool) -> None:
    found = SearchHistory((), (values(), values(BATCH_SIZE=9)), ((values(), values(BATCH_SIZE=512)),))
    assert evidence.allowed(values(**candidate), found) is expected


def test_a_crash_of_two_constants_forbids_both_together_only() -> None:
    found = SearchHistory((), (values(),), ((values(), values(BATCH_SIZE=64, LR=0.08)),))
    assert evidence.allowed(values(BATCH_SIZE=64), found)
    assert evidence.allowed(values(LR=0.16), found)
    assert not evidence.allowed(values(BATCH_SIZE=128, LR=0.08), found)


def test_a_relation_that_something_running_breaks_is_none() -> None:
    found = SearchHistory((), (values(), values(HEAD_DIM=24)), ((values(), values(HEAD_DIM=64)),))
    assert evidence.allowed(values(MODEL_DIM=40, HEAD_DIM=32), found)
    assert not evidence.allowed(values(HEAD_DIM=64), found)  # as far as what crashed


LITERALS = "LR = 0.02  # rate\nSTEPS = 2**4\nWIDTH: int = 32\nTIED = True\nX = 1\ndef f():\n    X = 2\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.02", "0.04"),
        ("0.02", "4e-2"),
        ("0.02", "-1.5"),
        ("0.02", "2e-2"),  # the same value
        ("0.02", "1"),  # another kind
        ("0.02", "1e999"),
        ("0.02", "(0.04)"),
        ("0.02", "0.04; Y = 3"),
        ("2**4", "16"),
        ("2**4", "32"),
        ("2**4", "2**5"),
        ("32", "64"),
        ("32", "010"),
        ("True", "False"),
        ("True", "Trues"),
        ("X = 2", "X = 3"),
        ("# rate", "# speed"),
        ("rate", "rate\nNEW = 5"),
        ("LR", "RL"),
    ],
)
def test_what_is_read_without_parsing_is_what_parsing_reads(old: str, new: str) -> None:
    """The short way through literals gives the values and the answer of the long way, or none."""
    source = LITERALS.replace(old, new, 1)
    try:
        values = {found.name: found.value for found in hyperparameters.find(source)}
    except InvalidBundle:
        values = {}
    found = evidence._found(LITERALS)
    short = evidence._literals(source, LITERALS, found)
    known = {entry.name: entry.value for entry in found}
    alone = bool(values) and known.keys() == values.keys()
    alone = alone and all(type(known[name]) is type(values[name]) for name in known)
    alone = alone and hyperparameters.fingerprint(hyperparameters.replace(LITERALS, values)) == (
        hyperparameters.fingerprint(source)
    )
    read = evidence._read(source, LITERALS)
    assert (read.values, read.turned) == (values, alone)
    if short is not None:
        assert dict(zip(known, short, strict=True)) == values
        assert alone
    plain = new in {"0.04", "4e-2", "-1.5", "32", "64", "False"}
    assert (short is not None) == plain
