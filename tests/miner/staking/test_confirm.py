"""The confirming test gives the verifier's own answer: what it lets through, `verifier check` approves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.money.score import Convention
from common.terminal import View
from miner.journal.journal import Confirmation, Journal
from miner.staking import confirm
from miner.staking.confirm import policy_at
from tests import local
from tests.trainer.judging.cases import NOISE, failing, runs
from tests.trainer.judging.fakes import CRASH, FakeMeasurer, Script, bench_of
from trainer.judging.climb import Step
from trainer.judging.ladder import Rung
from trainer.judging.policy import JudgePolicy
from trainer.judging.runs import ReplayRun
from trainer.judging.verdict import VerdictKind, decide
from trainer.machine.noise_file import load_noise
from trainer.measurement.values import RunFinding
from trainer.project import task
from verifier import replay as verifying

BUDGET = 6.0
POLICY = policy_at(0.99, 0.0)


def answer(measured: tuple[ReplayRun, ...], *, method: str = "trusted", policy: JudgePolicy = POLICY) -> str:
    """Why it is not submitted; "" where it is."""
    _, said = confirm.answer((), measured, NOISE, policy, seed=7, budget_seconds=BUDGET, method=method)
    return "" if said.kind is VerdictKind.APPROVE else said.explanation


def verdict(measured: tuple[ReplayRun, ...]) -> VerdictKind:
    judged = verifying.judge(
        (),
        measured,
        noise=NOISE,
        seed=7,
        budget_seconds=BUDGET,
        method="trusted",
        best_score=2_500_000,
        convention=Convention("reflected", 2_500_000),
        policy=JudgePolicy().at_look(1),
    )
    return decide(judged.evidence, JudgePolicy().verdict).kind


def late(measured: tuple[ReplayRun, ...], seconds: float) -> tuple[ReplayRun, ...]:
    return tuple(replace(run, train_seconds=seconds) if run.arm == "candidate" else run for run in measured)


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (runs(0.2), ""),
        (runs(-0.05), "No improvement over the incumbent"),
        (runs(0.0), "No improvement over the incumbent"),
        (runs(0.2, -0.02), "does not hold on holdout text"),
        (runs(0.2, 0.05), "is not clear, or far smaller"),
        (late(runs(0.2), 30.0), "the limit is 8.5 s"),
        ((*runs(0.2), failing("candidate", "crash", "It broke.")), "It broke"),
        ((), "did not run"),
        (tuple(replace(run, holdout_bpb=None) for run in runs(0.2)), "No holdout text could be scored"),
    ],
)
def test_what_is_not_submitted(measured: tuple[ReplayRun, ...], words: str) -> None:
    found = answer(measured)
    assert words in found
    assert bool(words) == bool(found)
    if found == "":
        assert verdict(measured) is VerdictKind.APPROVE


@settings(max_examples=300, deadline=None)
@given(
    st.floats(-0.1, 0.2),
    st.none() | st.floats(-0.1, 0.2),
    st.integers(0, 999),
    st.integers(0, 9),
    st.sampled_from([6.5, 8.4, 8.6, 20.0]),
    st.booleans(),
)
def test_what_passes_the_verifier_approves(
    gain: float, fresh: float | None, seed: int, count: int, seconds: float, crash: bool
) -> None:
    measured = late(runs(gain, fresh, seed=seed, count=count), seconds)
    if crash:
        measured = (*measured, failing("candidate", "crash"))
    if answer(measured) == "":
        assert verdict(measured) is VerdictKind.APPROVE
    elif not crash:
        assert verdict(measured) is not VerdictKind.APPROVE


def test_self_reported_numbers_are_not_scored_on_holdout_text() -> None:
    measured = tuple(replace(run, holdout_bpb=None) for run in runs(0.2))
    assert answer(measured, method="self-reported") == ""


@pytest.mark.parametrize(("confidence", "alpha"), [(0.9, 0.008), (0.99, 0.008), (0.999, 0.0008)])
def test_the_owner_may_be_stricter_than_a_verifier_but_not_laxer(confidence: float, alpha: float) -> None:
    assert policy_at(confidence, 0.0).comparison.alpha == pytest.approx(alpha)


@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_the_projects_margin_must_be_cleared(margin: float) -> None:
    found: Any = answer(runs(0.04), policy=policy_at(0.99, margin))
    assert bool(found) is (margin > 0.04)


# --- the test as it is run, with a made-up measurer ---

TASK = task.read(local.artifacts())
BETTER = local.TRAIN + b"# better\n"


def confirmed(
    home: Path,
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
    *,
    candidate: bytes = BETTER,
    steps: Sequence[Step] = (),
) -> tuple[Confirmation, FakeMeasurer]:
    """The confirmation of BETTER in the journal under `home`, begun or continued."""
    measurer = FakeMeasurer(script)
    journal = Journal(home / "journal.jsonl")
    try:
        ladder = steps or [Step(Rung("incumbent", 0.0), TASK.files)]
        bench = bench_of(TASK, home, measurer, monkeypatch)
        found = confirm.confirm(
            bench,
            TASK,
            ladder,
            {**TASK.files, "train.py": candidate},
            journal,
            number=3,
            commit="cc" * 20,
            against="bb" * 20,
            policy=POLICY,
            view=View(quiet=True),
        )
    finally:
        journal.close()
    return found, measurer


def worth(gain: float) -> Script:
    return lambda source, _: 2.5 if source == local.TRAIN else 2.5 - gain


def test_a_gain_passes_with_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, measurer = confirmed(tmp_path, worth(0.1), monkeypatch)
    assert found.passed
    assert found.delta == pytest.approx(0.1, abs=0.01)
    assert found.holdout_delta == pytest.approx(0.1, abs=0.01)
    assert len(found.runs) == len(measurer.runs) > 4
    assert confirm.evidence_of(found, POLICY).delta == found.delta


def test_noise_is_learnt_from_the_incumbent_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate was chosen for looking good, and may scatter as it likes."""
    found, _ = confirmed(tmp_path, lambda s, run: 2.5 if s == local.TRAIN else 1.0 + run, monkeypatch)
    (record,) = load_noise(tmp_path / "noise.json").values()
    assert record.df == sum(entry.run.arm == "incumbent" for entry in found.runs) - 1
    assert record.sigma is not None
    assert record.sigma < 0.02


def test_a_run_that_diverged_teaches_no_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With it in the machine's record nothing was kept for the rest of the night."""

    made: list[bytes] = []

    def value(source: bytes, _: int) -> float:
        made.append(source)
        return 2.47 if source != local.TRAIN else 3.1 if made.count(local.TRAIN) == 3 else 2.5

    found, _ = confirmed(tmp_path, value, monkeypatch)
    theirs = [entry.run.val_bpb or 0.0 for entry in found.runs if entry.run.arm == "incumbent"]
    assert found.passed
    assert max(theirs) > 3
    (record,) = load_noise(tmp_path / "noise.json").values()
    assert record.df == len(theirs) - 2
    assert record.sigma is not None
    assert record.sigma < 0.01


def test_an_interrupted_test_goes_on_with_its_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bytes] = []

    def script(source: bytes, _: int) -> float:
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(source)
        return worth(0.1)(source, 0)  # type: ignore[return-value]

    with pytest.raises(KeyboardInterrupt):
        confirmed(tmp_path, script, monkeypatch)
    found, measurer = confirmed(tmp_path, worth(0.1), monkeypatch)
    assert found.passed
    assert len(found.runs) == 4 + len(measurer.runs)
    first = next(at for at in POLICY.comparison.looks(0, 0.0) if at.alpha)  # where so clear a gain is decided
    assert len(found.runs) == first.incumbent + first.candidate


def crashing_once(source: bytes, run: int) -> float | RunFinding:
    """No better for sure, no worse for sure, and one crash."""
    return 2.5 if source == local.TRAIN else CRASH if run == 0 else 2.495


@pytest.mark.parametrize(
    ("script", "candidate", "words"),
    [
        (lambda source, _: CRASH if source == local.TRAIN else 2.4, BETTER, "The incumbent fails on this machine too"),
        (lambda source, _: CRASH if source == BETTER else 2.5, BETTER, "it broke"),
        (crashing_once, BETTER, "it broke"),
        (worth(-0.1), local.TRAIN + b'X = "' + bytes([65]) * 9_000 + b'"\n', "literal of 9,000"),
    ],
)
def test_a_fault_disproves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Script, candidate: bytes, words: str
) -> None:
    """What failed says nothing of the gain: the search does not fall back for it."""
    found, _ = confirmed(tmp_path, script, monkeypatch, candidate=candidate)
    assert found.passed is False
    assert words in found.reason
    assert not found.disproved


def test_what_is_no_better_is_disproved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = confirmed(tmp_path, worth(-0.1), monkeypatch)
    assert found.passed is False
    assert found.disproved


# --- the ladder ---

ASLEEP, EARLIER = (local.TRAIN + b"# %s\n" % word for word in (b"sleeps", b"an earlier best"))
LADDER = [
    Step(Rung(arm, gain), {**TASK.files, "train.py": source})
    for arm, gain, source in (("incumbent", 0.2, ASLEEP), ("proposal 3", 0.1, EARLIER), ("snapshot", 0.0, local.TRAIN))
]
NAN = float("nan")


@pytest.mark.parametrize(
    ("incumbent", "better", "earlier", "reference", "words"),
    [
        (2.3, 2.2, 2.4, "", ""),
        (2.3, 2.4, 2.4, "", "No improvement over the incumbent"),
        # better than the best as it trains today, not than what was approved: a verifier would release it
        (2.5, 2.35, 2.4, "proposal 3", "The incumbent was stepped over: +0.200000 bpb over the snapshot"),
        (2.5, 2.35, 2.5, "snapshot", "The proposal 3 was stepped over"),
        (NAN, 2.35, 2.4, "proposal 3", "The incumbent fails here and was stepped over"),
        # better than what was approved as well
        (2.5, 2.2, 2.4, "proposal 3", ""),
        (NAN, 2.2, 2.4, "proposal 3", ""),
    ],
)
def test_it_is_judged_against_the_rung_that_a_verifier_would_take(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    incumbent: float,
    better: float,
    earlier: float,
    reference: str,
    words: str,
) -> None:
    """Of those in the middle, which passed before, every one expired."""
    values = {local.TRAIN: 2.5, ASLEEP: incumbent, EARLIER: earlier, BETTER: better}

    def script(source: bytes, _: int) -> float | RunFinding:
        return CRASH if values[source] != values[source] else values[source]

    found, _ = confirmed(tmp_path, script, monkeypatch, steps=LADDER)
    assert found.passed is (words == "")
    assert words in found.reason
    assert found.reference == reference
    lead = {"": 0.0, "proposal 3": 0.1, "snapshot": 0.2}[reference]
    assert found.lead == pytest.approx(lead)
    if found.passed and reference:
        seen = confirm.evidence_of(found, POLICY)
        assert seen.delta == found.delta == pytest.approx(earlier - better, abs=0.01)
        assert seen.low > lead


def test_a_test_that_was_cut_off_on_the_ladder_goes_on_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {local.TRAIN: 2.5, ASLEEP: 2.5, EARLIER: 2.4, BETTER: 2.2}
    made: list[bytes] = []

    def script(source: bytes, _: int) -> float:
        if source == EARLIER and EARLIER in made:
            raise KeyboardInterrupt
        made.append(source)
        return values[source]

    with pytest.raises(KeyboardInterrupt):
        confirmed(tmp_path, script, monkeypatch, steps=LADDER)
    found, measurer = confirmed(tmp_path, lambda source, _: values[source], monkeypatch, steps=LADDER)
    assert found.passed
    assert found.reference == "proposal 3"
    assert set(measurer.runs) <= {EARLIER, BETTER}  # what was measured before the cut counts
    assert len(found.runs) == len(made) + len(measurer.runs)
