"""What a verifier's own machine does to a check: sleep, a GPU driver that gives up, less memory, a battery."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from solders.keypair import Keypair

from common.terminal import View
from tests import local
from tests.trainer.judging.fakes import FakeMeasurer, Script, bench_of
from tests.verifier.test_check import BETTER, TASK, connected, gains, project
from trainer.judging.policy import JudgePolicy
from trainer.judging.verdict import Reason, VerdictKind
from trainer.machine import awake, fitness
from trainer.machine.awake import Moment
from trainer.machine.fitness import MachineState
from trainer.measurement.bench import Bench
from trainer.measurement.values import Failure, Phase, RunFinding
from verifier import attestation, audit, check, replay
from verifier.check import CheckResult
from verifier.intake import local_case

KEY, POLICY = Keypair(), JudgePolicy()
SECRET = "ANTHROPIC_API_KEY=sk-ant-123"
Check = Callable[..., CheckResult]


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """`checked(script)`: a check of BETTER; `memory` is the miner's, `change` alters the bench."""

    def run(
        script: Script, *, memory: int | None = None, change: Callable[[Bench], Bench] = lambda b: b
    ) -> CheckResult:
        bench = change(bench_of(TASK, tmp_path, FakeMeasurer(script), monkeypatch))
        monkeypatch.setattr(replay, "open_bench", lambda *_, **__: bench)
        monkeypatch.setattr(secrets, "randbits", lambda _: 7)
        case = local_case(project(), TASK, BETTER, POLICY.source)
        if memory is not None:
            monkeypatch.setattr(replay, "smaller", lambda case, machine: _asked(case, machine, memory))
        how: dict[str, Any] = {"isolated": True, "trust_harness": False}
        folder = tmp_path / "check"
        return check._check(connected(tmp_path), case, KEY, POLICY, View(quiet=True), folder, bytes(32), {}, **how)

    real = replay.smaller

    def _asked(case: Any, machine: Any, memory: int) -> str:
        claimed = replace(case, proposal=cast("Any", SimpleNamespace(id=1)), miner_memory=memory)
        return real(claimed, replace(machine, device_memory_bytes=48 << 30))

    return run


@pytest.fixture
def sleep(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """`sleep()`: the machine sleeps for eight hours, which only its wall clock notices."""
    now = [1.7e9, 0.0]

    def moment() -> Moment:
        now[:] = now[0] + 1, now[1] + 1
        return Moment(*now)

    def night() -> None:
        now[0] += 28_800

    monkeypatch.setattr(awake, "moment", moment)
    return night


def ruined(sleep: Callable[[], None], runs: int) -> Script:
    """An honest gain; the machine sleeps through the candidate's first `runs` runs, which are far worse for it."""

    def script(source: bytes, run: int) -> Any:
        if source != BETTER or run >= runs:
            return gains(0.1)(source, run)
        sleep()
        return 2.9

    return script


def test_a_run_that_the_machine_slept_through_is_made_again(checked: Check, sleep: Callable[[], None]) -> None:
    """The ruined value is no sample: with it, an honest gain was lost and its miner slashed."""
    found = checked(ruined(sleep, 2))
    assert (found.verdict.kind, found.verdict.reason) == (VerdictKind.APPROVE, Reason.IMPROVED)
    left_out = [run for run in found.replay.runs if run.failure == "unfit"]
    assert len(left_out) == 2
    assert all("slept" in run.detail and run.val_bpb is None for run in left_out)
    points, _ = audit.audit(found.attestation, None, {})
    assert audit.passed(points)
    assert checked(ruined(lambda: None, 2)).verdict.kind is not VerdictKind.APPROVE  # had nobody noticed


def test_a_machine_that_keeps_sleeping_judges_nobody(checked: Check, sleep: Callable[[], None]) -> None:
    found = checked(ruined(sleep, 99))
    assert (found.verdict.kind, found.verdict.reason) == (VerdictKind.RELEASE, Reason.NOT_READY)
    assert "slept" in found.verdict.explanation
    assert sum(run.failure == "unfit" for run in found.replay.runs) == 5
    points, _ = audit.audit(found.attestation, None, {})
    assert audit.passed(points)


def failing(failure: Failure, said: str = "") -> Script:
    finding = RunFinding(failure, Phase.TRAINING, "in words of ours", said)
    return lambda source, run: 2.5 if source == local.TRAIN else finding


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (Failure.CRASH, VerdictKind.REJECT),
        (Failure.HOST, VerdictKind.RELEASE),  # the GPU watchdog
        (Failure.REFUSED_MEMORY, VerdictKind.RELEASE),  # [metal::malloc]
        (Failure.OUT_OF_MEMORY, VerdictKind.REJECT),  # a local file: nobody had more
    ],
)
def test_whose_fault_a_failure_is(failure: Failure, kind: VerdictKind, checked: Check) -> None:
    assert checked(failing(failure)).verdict.kind is kind


@pytest.mark.parametrize(
    ("memory", "kind"),
    [(128 << 30, VerdictKind.RELEASE), (48 << 30, VerdictKind.REJECT), (0, VerdictKind.RELEASE)],
)
def test_out_of_memory_on_a_machine_smaller_than_the_miners(memory: int, kind: VerdictKind, checked: Check) -> None:
    found = checked(failing(Failure.OUT_OF_MEMORY), memory=memory)
    assert found.verdict.kind is kind
    points, _ = audit.audit(found.attestation, None, {})
    assert audit.passed(points)


def test_nothing_that_the_candidate_printed_is_attested(checked: Check) -> None:
    for failure in Failure:
        found = checked(failing(failure, SECRET))
        _, body = attestation.open_envelope(found.attestation)
        assert SECRET not in str(body), failure
        assert attestation.schema_faults(body) == []


@pytest.mark.parametrize(("budget", "kind"), [(300.0, VerdictKind.RELEASE), (6.0, VerdictKind.APPROVE)])
def test_nobody_is_judged_on_battery(
    budget: float, kind: VerdictKind, checked: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for practice, which is over before it matters."""
    monkeypatch.setattr(fitness, "read", lambda: MachineState(on_battery=True, low_power=True, load=0.1, cores=8))

    def longer(bench: Bench) -> Bench:
        execution = replace(bench.protocol.execution, training_seconds=budget)
        return replace(bench, protocol=replace(bench.protocol, execution=execution))

    found = checked(gains(0.1), change=longer)
    assert found.verdict.kind is kind
    if kind is VerdictKind.RELEASE:
        assert "on battery, low power mode" in found.verdict.explanation
        assert found.replay.runs == ()
    else:
        assert {words for run in found.replay.runs for words in run.conditions} == {
            "running on battery",
            "low power mode is on",
        }


def test_an_overloaded_machine_slashes_nobody(checked: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """It said so beside each run, and rejected all the same; so it did where that began in the middle."""
    loads = [9.1] * 4
    monkeypatch.setattr(fitness, "read", lambda: MachineState(load=loads.pop() if loads else 0.1, cores=2))
    found = checked(gains(-0.1))
    assert (found.verdict.kind, found.verdict.reason) == (VerdictKind.RELEASE, Reason.NOT_READY)
    assert "machine overloaded: " in found.verdict.explanation
    assert audit.passed(audit.audit(found.attestation, None, {})[0])
    assert checked(gains(-0.1)).verdict.kind is VerdictKind.REJECT
    calls = [0.1] * 6  # before and after each of the first runs

    def later() -> MachineState:
        return MachineState(load=calls.pop() if calls else 9.1, cores=2)

    monkeypatch.setattr(fitness, "read", later)
    found = checked(gains(-0.1))
    calm = [run.arm for run in found.replay.runs if not run.conditions]
    assert len(calm) < len(found.replay.runs)
    assert "candidate" in calm
    assert found.verdict.reason is Reason.NOT_READY
    assert audit.passed(audit.audit(found.attestation, None, {})[0])
