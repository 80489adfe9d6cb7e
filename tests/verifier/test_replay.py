"""What is judged from runs, as tables, and what stops a replay before there are any."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.connection.opening import Connection
from chain.money.score import Convention
from tests import local
from tests.trainer.judging.cases import NOISE, failing, replay_run, runs
from trainer.judging.policy import JudgePolicy
from trainer.judging.replay import forgiven
from trainer.judging.runs import ReplayRun
from trainer.judging.verdict import CaseFinding, Fault, GainOutcome, Reason, VerdictKind, decide
from trainer.machine.hardware import Fingerprint
from trainer.statistics.noise import NoiseRecord
from verifier.intake import open_case
from verifier.replay import Judged, judge, machine_findings, machine_notes, smaller

RULES = JudgePolicy()
REFLECTED = Convention("reflected", 2_500_000)


# --- the machine ---


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with local.connect(local.home_with_project(tmp_path)) as connection:
        yield connection


MACHINE = Fingerprint("cpu", "X", 2, None, None, 2**34, "Linux x86_64", "0.32.4", "3.12.1", "manylinux_2_35_x86_64")


def test_machine_findings(connection: Connection) -> None:
    case = open_case(connection, local.propose(connection), JudgePolicy())
    machine, mine = MACHINE, MACHINE.platform
    same = replace(case, miner_class="cpu-x-2c", miner_data="ab" * 32, miner_platform=mine)

    def reasons(changed: Any, policy: JudgePolicy = RULES) -> list[Reason]:
        found = machine_findings(changed, machine, "ab" * 32, policy)
        assert all(finding.fault is Fault.HOST for finding in found)
        return [finding.reason for finding in found]

    assert reasons(same) == []
    assert reasons(replace(same, miner_data="")) == []
    assert reasons(replace(same, miner_class="apple-m4-max-40c")) == [Reason.HARDWARE_DIFFERS]
    assert reasons(replace(same, miner_data="cd" * 32)) == [Reason.DATA_DIFFERS]
    both = replace(same, miner_class="apple", miner_data="x")
    assert reasons(both) == [Reason.HARDWARE_DIFFERS, Reason.DATA_DIFFERS]
    assert reasons(both, JudgePolicy(same_hardware=False)) == []
    assert reasons(replace(same, proposal=None, miner_class="")) == []
    assert reasons(replace(same, miner_platform="")) == []  # another client's: it says nothing
    for other in ("Linux, mlx 0.32.3 manylinux_2_35_x86_64", "macOS 15, mlx 0.32.4 macosx_15_0_arm64"):
        assert reasons(replace(same, miner_platform=other)) == [Reason.HARDWARE_DIFFERS]
    # what a miner writes there is shown, but not at any length
    for long in (replace(same, miner_class="x" * 10_000), replace(same, miner_platform="x" * 10_000)):
        (finding,) = machine_findings(long, machine, "ab" * 32, JudgePolicy())
        assert len(finding.detail) < 300
        assert "`same_hardware = false`" in finding.detail
        assert "--policy FILE" in finding.detail
    # a machine without a name judges nobody, not even who has none either
    machine = replace(machine, chip="")
    assert reasons(replace(same, miner_class="unknown")) == [Reason.HARDWARE_DIFFERS]


@pytest.mark.parametrize(
    ("theirs", "mine", "excused"),
    [
        (128 << 30, 48 << 30, True),
        (48 << 30, 128 << 30, False),
        (48 << 30, 48 << 30, False),
        (48 << 30, (48 << 30) * 99 // 100, False),  # another kernel keeps a little more for itself
        (0, 48 << 30, True),  # another client's miner, who said nothing
        (48 << 30, 0, True),
    ],
)
def test_memory_that_this_machine_lacks_is_no_fault_of_the_candidate(
    connection: Connection, theirs: int, mine: int, excused: bool
) -> None:
    case = replace(open_case(connection, local.propose(connection), JudgePolicy()), miner_memory=theirs)
    machine = Fingerprint("metal", "Apple M4 Max", 16, "Apple M4 Max", 40, 2**36, "macOS 15.6", "0.32.4", "3.12.1")
    words = smaller(case, replace(machine, device_memory_bytes=mine))
    assert bool(words) is excused
    assert smaller(replace(case, proposal=None), machine) == ""  # nobody else's machine is asked about
    killed = "killed memory after 9.0 s"
    runs = [ReplayRun("candidate", None, None, None, 9.0, "out_of_memory", killed, "", None, None, None)]
    runs = [*runs, *runs, *(replace(run, arm="incumbent", failure="", val_bpb=2.5) for run in runs)]
    found = [forgiven(run, words) if words and run.arm == "candidate" else run for run in runs]
    verdict = decide(judged(found).evidence, RULES.verdict)
    assert verdict.kind is (VerdictKind.RELEASE if excused else VerdictKind.REJECT)


def test_what_the_miner_does_not_state_does_not_differ(connection: Connection) -> None:
    """The official client's miners state no hardware class, and a tar as benchmark pins no data."""
    case = open_case(connection, local.propose(connection), JudgePolicy())
    unstated = replace(case, miner_class="", miner_data="")
    assert machine_findings(unstated, MACHINE, "ab" * 32, JudgePolicy()) == []
    assert machine_notes(unstated, "ab" * 32) == [
        "The proposal states no hardware class; its gain is measured on this machine."
    ]
    stated = replace(case, miner_class=MACHINE.hardware_class, miner_data="cd" * 32)
    assert machine_notes(stated, "ab" * 32) == []
    unpinned = replace(stated, task=replace(case.task, benchmark=replace(case.task.benchmark, data_snapshot=None)))
    assert machine_findings(unpinned, MACHINE, "ab" * 32, JudgePolicy()) == []
    assert "other data, 'cdcdcdcdcdcdcdcd'" in machine_notes(unpinned, "ab" * 32)[0]
    assert machine_notes(replace(unstated, proposal=None), "ab" * 32) == []


# --- judging ---


def judged(measured: Any, *findings: CaseFinding, **changes: Any) -> Judged:
    given: dict[str, Any] = {
        "noise": NOISE,
        "seed": 1,
        "budget_seconds": 6.0,
        "method": "trusted",
        "best_score": 2_500_000,
        "convention": REFLECTED,
        "policy": JudgePolicy(),
        **changes,
    }
    return judge(findings, measured, **given)


def verdict(found: Judged) -> tuple[VerdictKind, Reason]:
    said = decide(found.evidence, JudgePolicy().verdict)
    return said.kind, said.reason


@pytest.mark.parametrize(
    ("measured", "kind", "reason"),
    [
        (runs(0.2), VerdictKind.APPROVE, Reason.IMPROVED),
        (runs(0.0), VerdictKind.REJECT, Reason.NO_IMPROVEMENT),
        (runs(-0.2), VerdictKind.REJECT, Reason.NO_IMPROVEMENT),
        (runs(0.2, -0.02), VerdictKind.REJECT, Reason.NOT_ON_HOLDOUT),
        (runs(0.2, 0.05), VerdictKind.RELEASE, Reason.HOLDOUT_UNDECIDED),
        ([replace(run, holdout_bpb=None) for run in runs(0.2)], VerdictKind.RELEASE, Reason.HOLDOUT_UNAVAILABLE),
        ([*runs(0.2, count=3), failing("candidate", "crash")], VerdictKind.RELEASE, Reason.UNCONFIRMED),
        ([*runs(0.2, count=3), *[failing("candidate", "non_causal")] * 2], VerdictKind.REJECT, Reason.NON_CAUSAL),
        ([replay_run("incumbent", 2.5), *[failing("candidate", "crash")] * 2], VerdictKind.REJECT, Reason.CRASH),
        ([failing("incumbent", "crash")] * 2, VerdictKind.RELEASE, Reason.INCUMBENT_FAILS),
        (
            [replace(run, train_seconds=20.0) if run.arm == "candidate" else run for run in runs(0.2)],
            VerdictKind.REJECT,
            Reason.OVER_BUDGET,
        ),
        ([], VerdictKind.RELEASE, Reason.NOT_READY),
    ],
)
def test_from_runs_to_a_verdict(measured: Any, kind: VerdictKind, reason: Reason) -> None:
    assert verdict(judged(measured)) == (kind, reason)


def test_what_is_self_reported_proves_nothing() -> None:
    assert verdict(judged(runs(0.2), method="self-reported")) == (VerdictKind.RELEASE, Reason.SELF_REPORTED)
    assert verdict(judged(runs(0.0), method="self-reported")) == (VerdictKind.REJECT, Reason.NO_IMPROVEMENT)


@pytest.mark.parametrize(
    ("convention", "best", "sign"),
    [
        (REFLECTED, 2_500_000, 1),
        (REFLECTED, 3_000_000, 1),
        (Convention("negated", -2_500_000), -2_400_000, 1),
        (Convention("plain", 2_500_000), 2_500_000, 1),
    ],
)
def test_the_score_is_the_chains_best_moved_by_the_gain(convention: Convention, best: int, sign: int) -> None:
    found = judged(runs(0.2), convention=convention, best_score=best)
    assert found.comparison is not None
    assert found.score == best + round(found.comparison.delta * 1_000_000)
    assert found.metric == convention.to_metric(found.score)


@pytest.mark.parametrize(
    ("shown", "more"),
    [
        (0.5, 0),  # as the sum of gains says, 0.3 before and 0.2 now
        (0.4, -50_000),  # the chain is ahead of what its code shows: half of that goes
        (0.7, 100_000),
        (-0.5, None),  # still above the best, by the last decimal
    ],
)
def test_the_score_follows_what_is_shown_over_the_snapshot(shown: float, more: int | None) -> None:
    for convention, base in ((REFLECTED, 2_200_000), (Convention("plain", 2_200_000), 2_200_000)):
        found = judged(runs(0.2), convention=convention, best_score=2_500_000, over=(base, shown))
        assert found.comparison is not None
        summed = 2_500_000 + found.comparison.delta * 1e6
        off = (found.comparison.delta - 0.2) * 0.5e6
        expected = 2_500_001 if more is None else summed + more - off
        assert found.score == pytest.approx(expected, abs=2)
        assert verdict(found)[0] is VerdictKind.APPROVE


def test_a_gain_that_rounds_to_nothing_is_none() -> None:
    """The best on chain cannot be beaten by less than its last decimal."""
    tiny = [
        replay_run(run.arm, 2.5 - 4e-7 * (run.arm == "candidate"), 2.6 - 1e-3 * (run.arm == "candidate"))
        for run in runs(0)
    ]
    quiet = NoiseRecord(1e-18, 20.0)
    found = judged(
        tiny, noise=quiet, policy=replace(JudgePolicy(), comparison=replace(JudgePolicy().comparison, resolution=1e-9))
    )
    assert found.evidence.comparison is GainOutcome.BETTER
    assert found.score == 2_500_000
    assert not found.evidence.improves_chain
    assert verdict(found)[0] is not VerdictKind.APPROVE


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["incumbent", "candidate"]),
            st.none() | st.floats(0.5, 5.0),
            st.none() | st.floats(0.5, 5.0),
        ),
        max_size=24,
    ),
    st.integers(0, 2**32),
)
def test_any_runs_are_judged_and_judged_alike(
    measured: list[tuple[str, float | None, float | None]], seed: int
) -> None:
    """No run of values breaks the judge, and an approval always has a positive, significant gain behind it."""
    made = [replay_run(arm, a, b) if a is not None else failing(arm, "crash") for arm, a, b in measured]
    found = judged(made, seed=seed)
    assert found == judged(made, seed=seed + 1)  # the order of runs decides nothing
    if verdict(found)[0] is VerdictKind.APPROVE:
        assert found.comparison is not None
        assert found.comparison.low > 0
        assert found.holdout is not None
        assert found.holdout.low > 0
        assert found.score is not None
        assert found.score > 2_500_000
    assert found.score is None or found.metric == REFLECTED.to_metric(found.score)
    assert isinstance(found.metric, Decimal | None)
