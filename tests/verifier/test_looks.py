"""How looks at the same thing are counted, as a table, and that the record of them survives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.judging.cases import NOISE, failing, replay_run, runs
from trainer.judging.judge import judge
from trainer.judging.policy import JudgePolicy
from trainer.judging.verdict import CaseFinding, Fault, Reason, decide
from verifier.looks import Inspection, add, number, own_behaviour, read

POLICY = JudgePolicy()
LOOK = Inspection("local", 0, 9, "best", "code", "source", "author")


def other(proposal: int, **changes: Any) -> Inspection:
    """Somebody else's look at something else, but for the changes."""
    return replace(Inspection("local", 0, proposal, "best", "c", "s", "a"), **changes)


@pytest.mark.parametrize(
    ("earlier", "others", "count"),
    [
        ([], {}, 1),
        ([other(1)], {}, 1),
        ([other(1, code="code")], {}, 2),
        ([other(1, source="source")], {}, 2),
        ([other(1, author="author")], {}, 1),  # an author whose code was judged, and did nothing odd
        ([other(1, author="author", own=True)], {}, 2),
        ([other(1, own=True)], {}, 1),
        ([other(n, source="source") for n in range(1, 4)], {}, 4),
        ([other(1, source="source")] * 3, {}, 2),  # one trial that was gone on with
        ([other(1, source="source"), other(1, source="source", against="older")], {}, 3),
        ([LOOK], {}, 1),  # its own trial is gone on with
        ([replace(LOOK, against="older")], {}, 2),  # and another best is another draw
        ([other(1, code="code", network="devnet")], {}, 1),
        ([other(1, code="code", project=1)], {}, 1),
        ([], {3: 0, 5: 0}, 3),  # copies that nobody is known to have judged
        ([other(3, code="code")], {3: 0, 5: 0}, 3),
        ([], {12: 1}, 1),  # not earlier
        ([], {9: 0}, 1),
        ([], {9: 2}, 3),  # two other verifiers reviewed it, and released it
        ([LOOK], {9: 2}, 3),
        ([], {3: 1}, 2),  # a copy that one other judged is one draw
        ([], {3: 2, 9: 1}, 4),
        ([other(3, code="code")], {3: 2}, 4),  # ours, and two others'
        ([other(1, source="")], {}, 1),
    ],
)
def test_looks_are_counted(earlier: list[Inspection], others: dict[int, int], count: int) -> None:
    assert number(earlier, LOOK, others) == count


def test_code_that_could_not_be_read_has_nothing_in_common() -> None:
    assert number([other(1, source="")], replace(LOOK, source=""), {}) == 1


@pytest.mark.parametrize("alpha", [0.01, 0.001])
def test_all_looks_together_stay_at_alpha(alpha: float) -> None:
    policy = replace(POLICY, comparison=replace(POLICY.comparison, alpha=alpha))
    levels = [policy.at_look(k).comparison.alpha for k in range(1, 7)]
    assert levels == sorted(levels, reverse=True)
    assert sum(levels) <= alpha * (1 + 1e-3)
    assert levels[0] == pytest.approx(0.8 * alpha)


LOUD = [replay_run(arm, v) for v in (2.2, 2.8, 2.1, 2.9, 2.5, 2.5, 2.2, 2.8) for arm in ("incumbent", "candidate")]
TWO = [replay_run(arm, v) for arm, v in (("incumbent", 2.5), ("candidate", 2.4)) for _ in range(2)]


@pytest.mark.parametrize(
    ("measured", "findings", "own"),
    [
        (runs(0.2), (), False),
        (runs(0.0), (), False),
        ((*runs(0.2), failing("candidate", "crash")), (), True),
        ((*runs(0.2), failing("candidate", "host")), (), True),  # what it did may be why this host failed
        (LOUD, (), False),  # the incumbent's runs are as loud: this machine
        (runs(0.2, 0.05), (), True),
        ([failing("incumbent", "crash")] * 2, (), False),
        ([], (CaseFinding(Reason.HARDWARE_DIFFERS, Fault.HOST, "x"),), False),
        ([], (CaseFinding(Reason.MALFORMED_ARCHIVE, Fault.FORM, "x"),), True),
    ],
)
def test_a_release_is_its_own_where_its_code_could_bring_it_about(measured: Any, findings: Any, own: bool) -> None:
    judged = judge(findings, measured, noise=NOISE, seed=1, budget_seconds=6.0, method="trusted", policy=POLICY)
    assert own_behaviour(judged, decide(judged.evidence, POLICY.verdict), measured) is own


def test_the_record_survives(tmp_path: Path) -> None:
    path = tmp_path / "verify" / "looks.jsonl"
    assert read(path) == []
    add(path, LOOK)
    with path.open("ab") as file:  # a kill in the middle of a line
        file.write(b'{"network": "lo')
    add(path, other(2))
    with path.open("ab") as file:
        file.write(b"[]\n\xff\nnull\n")
    assert read(path) == [LOOK, other(2)]
