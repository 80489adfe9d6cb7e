"""A check from its case to its attestation and the loop over proposals, with a made-up measurer: no MLX, no sandbox."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chain.connection.opening import Connection
from chain.errors import ChainError
from chain.program.accounts import ProposalStatus
from common.terminal import View
from tests import local
from tests.trainer.judging.fakes import CRASH, FakeMeasurer, Script, bench_of
from trainer.errors import EnvironmentNotReady, TrainerError
from trainer.judging.policy import JudgePolicy
from trainer.judging.verdict import CaseFinding, Fault, GainOutcome, Reason, VerdictKind
from trainer.machine import fitness
from trainer.machine.fitness import MachineState
from trainer.machine.noise_file import load_noise
from trainer.measurement.values import Failure, Phase, RunFinding
from trainer.project import task
from trainer.statistics.noise import NoiseRecord
from verifier import attestation, audit, check, replay, serve, settle, show
from verifier.check import CheckResult
from verifier.intake import Case, local_case
from verifier.ladder import EarlierBest
from verifier.settle import Settled

TASK = task.read(local.artifacts())
POLICY = JudgePolicy()
KEY = Keypair()
QUIET = View(quiet=True)
BETTER = local.TRAIN + b"# better\n"


def gains(gain: float) -> Script:
    """The incumbent is worth 2.5, anything else is better by `gain`."""
    return lambda source, _: 2.5 if source == local.TRAIN else 2.5 - gain


def project(**changes: Any) -> Any:
    about: dict[str, Any] = {
        name: bytes(32) for name in ("protocol_hash", "repo_snapshot_hash", "benchmark_hash", "baseline_metrics_hash")
    }
    about |= {"id": 0, "current_best_code_hash": bytes(32), "token_symbol": "TST"}
    about |= {"baseline_aggregate_score": 2_500_000, "current_best_aggregate_score": 2_500_000}
    return SimpleNamespace(**(about | changes))


def connected(home: Path) -> Connection:
    network = SimpleNamespace(name="fake", program_id=Pubkey.default(), genesis_hash=bytes(32))
    return cast("Connection", SimpleNamespace(home=home, network=network))


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CheckResult]:
    """`checked(script)`: the check of BETTER on a bench whose measurer follows the script."""

    def run(script: Script, *, policy: JudgePolicy = POLICY, case: Case | None = None) -> CheckResult:
        bench = bench_of(TASK, tmp_path, FakeMeasurer(script), monkeypatch)
        monkeypatch.setattr(replay, "open_bench", lambda *_, **__: bench)
        monkeypatch.setattr(secrets, "randbits", lambda _: 7)
        case = case or local_case(project(), TASK, BETTER, policy.source)
        folder = tmp_path / "check"
        return check._check(
            connected(tmp_path), case, KEY, policy, QUIET, folder, bytes(32), {}, isolated=True, trust_harness=False
        )

    return run


def absurd(source: bytes, run: int) -> float | RunFinding:
    """A model far worse than any, which is no way to be released."""
    return 2.5 if source == local.TRAIN else RunFinding(Failure.OUT_OF_RANGE, Phase.CLAIM, "4e5 bits per byte")


def crashing(arm: bytes, *, times: int = 99) -> Script:
    def script(source: bytes, run: int) -> Any:
        return CRASH if source == arm and run < times else gains(0.1)(source, run)

    return script


@pytest.mark.parametrize(
    ("script", "kind", "reason"),
    [
        (gains(0.1), VerdictKind.APPROVE, Reason.IMPROVED),
        (gains(-0.01), VerdictKind.REJECT, Reason.NO_IMPROVEMENT),
        (gains(-0.1), VerdictKind.REJECT, Reason.NO_IMPROVEMENT),
        (crashing(BETTER), VerdictKind.REJECT, Reason.CRASH),
        (crashing(BETTER, times=1), VerdictKind.RELEASE, Reason.UNCONFIRMED),
        (absurd, VerdictKind.REJECT, Reason.NO_IMPROVEMENT),
        (crashing(local.TRAIN), VerdictKind.RELEASE, Reason.INCUMBENT_FAILS),
    ],
)
def test_from_a_script_to_a_sealed_verdict(
    checked: Callable[..., CheckResult], script: Script, kind: VerdictKind, reason: Reason
) -> None:
    found = checked(script)
    assert (found.verdict.kind, found.verdict.reason) == (kind, reason)
    signer, body = attestation.open_envelope(found.attestation)
    assert signer == KEY.pubkey()
    assert body["predicate"]["verdict"]["kind"] == kind.value
    points, _ = audit.audit(found.attestation, None, {})
    assert audit.passed(points)


def test_noise_is_learnt_from_the_incumbent_alone(checked: Callable[..., CheckResult], tmp_path: Path) -> None:
    """The candidate's author could make its runs say anything: these are 1 bpb apart."""
    found = checked(lambda source, run: 2.5 if source == local.TRAIN else 1.0 + run)
    assert sum(run.arm == "candidate" for run in found.replay.runs) > 1
    (record,) = load_noise(tmp_path / "noise.json").values()
    assert record.df == sum(run.arm == "incumbent" for run in found.replay.runs) - 1
    assert record.sigma is not None
    assert record.sigma < 0.02


def test_the_case_is_judged_by_the_record_as_it_stood(
    checked: Callable[..., CheckResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checked(gains(0.1)).replay.noise == NoiseRecord()
    assert checked(gains(0.1)).replay.noise.df > 0


def test_what_is_found_twice_is_said_once(checked: Callable[..., CheckResult]) -> None:
    finding = CaseFinding(Reason.FORBIDDEN_CHANGE, Fault.BYTES, "It changes prepare.py.")
    case = replace(local_case(project(), TASK, BETTER, POLICY.source), findings=(finding, finding))
    text = show.text(checked(lambda *_: 2.5, case=case), Path("a"), None)
    assert text.count("!  forbidden") == text.count("It changes prepare.py. (2 times)") == 1


def test_a_case_with_findings_is_not_run(checked: Callable[..., CheckResult]) -> None:
    finding = CaseFinding(Reason.FORBIDDEN_CHANGE, Fault.BYTES, "It changes prepare.py.")
    case = replace(local_case(project(), TASK, BETTER, POLICY.source), findings=(finding,))

    def never(source: bytes, run: int) -> float:
        raise AssertionError("nothing is to be run")

    found = checked(never, case=case)
    assert (found.verdict.kind, found.verdict.reason) == (VerdictKind.REJECT, Reason.FORBIDDEN_CHANGE)
    assert found.replay.bench is None


def test_a_host_that_is_not_ready_releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise EnvironmentNotReady("There is no sandbox here.", "Install one.")

    monkeypatch.setattr(replay, "open_bench", refuse)
    case = local_case(project(), TASK, BETTER, POLICY.source)
    found = check._check(
        connected(tmp_path), case, KEY, POLICY, QUIET, tmp_path, bytes(32), {}, isolated=True, trust_harness=False
    )
    assert (found.verdict.kind, found.verdict.reason) == (VerdictKind.RELEASE, Reason.NOT_READY)


def test_a_host_that_fails_on_the_way_releases(checked: Callable[..., CheckResult]) -> None:
    def script(source: bytes, run: int) -> float:
        raise EnvironmentNotReady("The disk is full.", "Free some.")

    assert checked(script).verdict.kind is VerdictKind.RELEASE


@pytest.mark.parametrize("error", [EnvironmentNotReady("The disk is full.", "Free some."), OSError("No space left")])
def test_a_late_failure_of_the_host_keeps_what_was_measured(
    checked: Callable[..., CheckResult], error: Exception
) -> None:
    def script(source: bytes, run: int) -> float:
        if run == 1:
            raise error
        return 2.5

    found = checked(script)
    assert (found.verdict.kind, found.verdict.reason) == (VerdictKind.RELEASE, Reason.NOT_READY)
    assert found.replay.runs
    _, body = attestation.open_envelope(found.attestation)
    assert len(body["predicate"]["runs"]) == len(found.replay.runs)
    assert audit.passed(audit.audit(found.attestation, None, {})[0])


@pytest.mark.parametrize(("bips", "margin", "applied"), [(None, 0.01, 0.01), (80, 0.01, 0.02), (20, 0.01, 0.01)])
def test_the_larger_margin_applies(bips: int | None, margin: float, applied: float) -> None:
    """The project's, of the best metric on chain (2.5), or the policy's own."""
    case = local_case(project(), TASK, BETTER, POLICY.source)
    spec = replace(TASK.protocol, min_improvement_bips=bips)
    case = replace(case, task=replace(TASK, protocol=spec))
    policy = replace(POLICY, comparison=replace(POLICY.comparison, margin=margin))
    assert check.for_project(policy, case).comparison.margin == pytest.approx(applied)


def test_a_gain_within_the_projects_margin_is_no_gain(checked: Callable[..., CheckResult]) -> None:
    spec = replace(TASK.protocol, min_improvement_bips=800)  # 0.2 of 2.5
    case = local_case(project(), TASK, BETTER, POLICY.source)
    found = checked(gains(0.1), case=replace(case, task=replace(TASK, protocol=spec)))
    assert found.verdict.reason is Reason.NO_IMPROVEMENT


# --- the ladder ---

ASLEEP = local.TRAIN + b"# sleeps from some date on\n"
EARLIER = local.TRAIN + b"# an earlier best\n"
BEST = 2_700_000  # on chain: 0.2 better than the baseline of 2.5


@pytest.fixture
def laddered(checked: Callable[..., CheckResult]) -> Callable[..., CheckResult]:
    """`laddered(script)`: the check of BETTER where ASLEEP is the best on chain and EARLIER was before it."""

    def run(script: Script, **how: Any) -> CheckResult:
        case = local_case(project(current_best_aggregate_score=BEST), TASK, BETTER, POLICY.source)
        tree = {**TASK.files, "train.py": EARLIER}
        below = (EarlierBest("proposal 3", 2_600_000, tree), EarlierBest("snapshot", 2_500_000, TASK.files))
        incumbent = {**TASK.files, "train.py": ASLEEP}
        return checked(script, case=replace(case, task=replace(TASK, incumbent=incumbent), below=below), **how)

    return run


def worth(incumbent: float, better: float, earlier: float = 2.4) -> Script:
    values = {local.TRAIN: 2.5, ASLEEP: incumbent, EARLIER: earlier, BETTER: better}
    return lambda source, _: CRASH if values[source] != values[source] else values[source]


NAN = float("nan")


@pytest.mark.parametrize(
    ("incumbent", "better", "earlier", "kind", "reason", "reference", "metric"),
    [
        (2.3, 2.2, 2.4, VerdictKind.APPROVE, Reason.IMPROVED, "incumbent", 2.2),
        (2.3, 2.32, 2.4, VerdictKind.REJECT, Reason.NO_IMPROVEMENT, "incumbent", None),
        # the incumbent sleeps: what it lost is nobody's gain, and a true one is judged by what still holds
        (2.5, 2.32, 2.4, VerdictKind.RELEASE, Reason.BELOW_CHAIN, "proposal 3", None),
        (2.5, 2.2, 2.4, VerdictKind.APPROVE, Reason.IMPROVED, "proposal 3", 2.2),
        (2.5, 2.32, 2.5, VerdictKind.RELEASE, Reason.BELOW_CHAIN, "snapshot", None),
        (2.5, 2.2, 2.5, VerdictKind.APPROVE, Reason.IMPROVED, "snapshot", 2.2),
        # it crashes: that stops nobody
        (NAN, 2.2, 2.4, VerdictKind.APPROVE, Reason.IMPROVED, "proposal 3", 2.2),
        (NAN, 2.2, NAN, VerdictKind.APPROVE, Reason.IMPROVED, "snapshot", 2.2),
        (NAN, 2.32, 2.4, VerdictKind.RELEASE, Reason.BELOW_CHAIN, "proposal 3", None),
        (NAN, NAN, 2.4, VerdictKind.REJECT, Reason.CRASH, "proposal 3", None),
    ],
)
def test_an_incumbent_must_still_be_what_was_approved(
    laddered: Callable[..., CheckResult],
    incumbent: float,
    better: float,
    earlier: float,
    kind: VerdictKind,
    reason: Reason,
    reference: str,
    metric: float | None,
) -> None:
    """Without the ladder every one of the sleeping ones was approved, and every one of the crashing ones released."""
    found = laddered(worth(incumbent, better, earlier))
    ground = found.replay.footing
    assert ground is not None
    assert (found.verdict.kind, found.verdict.reason) == (kind, reason)
    assert ground.reference.arm == reference
    if metric is not None:
        assert float(found.judged.metric or 0) == pytest.approx(metric, abs=0.01)
    points, predicate = audit.audit(found.attestation, None, {})
    assert audit.passed(points)
    assert predicate["ladder"]["reference"] == reference
    assert bool(predicate["ladder"]["notes"]) is (reference != "incumbent")


def scattering(*good: int) -> Script:
    """A best that trains badly on purpose in all of five runs but these."""
    return lambda source, run: worth(2.3 if run % 5 in good else 2.9, 2.2)(source, run)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("good", [(0, 2, 4), (1, 3), (2,)])
def test_a_best_that_is_good_or_bad_by_chance_buries_no_gain(
    laddered: Callable[..., CheckResult], tmp_path: Path, good: tuple[int, ...], *, known: bool
) -> None:
    """Every gain over it was too noisy to tell, and what it taught the machine hid those of later proposals too."""
    if known:
        laddered(worth(2.3, 2.2))
    for _ in range(2):
        found = laddered(scattering(*good))
        assert (found.verdict.kind, found.verdict.reason) == (VerdictKind.APPROVE, Reason.IMPROVED)
        ground = found.replay.footing
        assert ground is not None
        assert ground.reference.arm == "proposal 3" if ground.notes else "incumbent"
        assert audit.passed(audit.audit(found.attestation, None, {})[0])
        for record in load_noise(tmp_path / "noise.json").values():
            assert (record.sigma or 0) < 0.02
    assert found.replay.footing is not None
    # Where most are good, its bad runs are left out, and the gain is over the good ones.
    assert ["apart" in note for note in found.replay.footing.notes[:1]] == ([True] if len(good) < 3 else [])


def looks_ahead(source: bytes, run: int) -> float | RunFinding:
    """A best that peeks now and then, so that its proof fails once in a verdict."""
    if source == ASLEEP and run == 1:
        return RunFinding(Failure.NON_CAUSAL, Phase.PROBES, "3 of 256 claims change")
    return cast("float", worth(2.3, 2.2)(source, run))


def test_a_best_that_fails_its_own_proof_once_releases_nobody(laddered: Callable[..., CheckResult]) -> None:
    found = laddered(looks_ahead)
    assert found.replay.footing is not None
    assert found.replay.footing.reference.arm == "proposal 3"
    assert (found.verdict.kind, found.verdict.reason) == (VerdictKind.APPROVE, Reason.IMPROVED)


def test_a_lead_that_is_only_just_made_up_for_is_run_to_an_answer(laddered: Callable[..., CheckResult]) -> None:
    """The test against a lower rung asks for the lead as well, not for any gain over that rung."""
    found = laddered(worth(2.5, 2.298))  # a sigma better than the chain's best, far better than what still holds
    assert found.judged.evidence.comparison is not GainOutcome.MISSING
    assert sum(run.arm == "candidate" for run in found.replay.runs) > POLICY.comparison.first_approval


def test_the_ladder_costs_runs_only_where_something_is_at_stake(laddered: Callable[..., CheckResult]) -> None:
    def others(script: Script) -> list[str]:
        return [run.arm for run in laddered(script).replay.runs if run.arm not in ("incumbent", "candidate")]

    assert others(worth(2.3, 2.4)) == []  # no gain: nothing is to be approved
    assert others(worth(2.3, 2.2)) == ["snapshot"] * 3  # the first gain on this machine
    assert others(worth(2.3, 2.2)) == []  # known, and as predicted
    assert set(others(worth(2.5, 2.2))) == {"proposal 3"}  # the snapshot's runs are of this hour


def test_the_attested_reference_is_audited(laddered: Callable[..., CheckResult]) -> None:
    """An attestation that leaves out the ladder's word does not pass."""
    found = laddered(worth(2.5, 2.2))
    _, body = attestation.open_envelope(found.attestation)
    changes: list[dict[str, Any]] = [
        {"reference": "incumbent"},
        {"reference": "snapshot"},
        {"notes": []},
        {"after": 0},
    ]
    for change in changes:
        predicate = {**body["predicate"], "ladder": {**body["predicate"]["ladder"], **change}}
        forged = attestation.seal({**body, "predicate": predicate}, KEY)
        assert not audit.passed(audit.audit(forged, None, {})[0])


# --- many looks at the same thing ---


@pytest.fixture
def proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[CheckResult, FakeMeasurer]]:
    """`proposed(script, number)`: the check of BETTER as a proposal, in one verifier's home."""

    def run(
        script: Script,
        number: int = 7,
        *,
        source: bytes = BETTER,
        miner: int = 1,
        seed: int = 1,
        chain: Mapping[int, int] = MappingProxyType({}),
        claim: int = 2_600_000,
    ) -> tuple[CheckResult, FakeMeasurer]:
        measurer = FakeMeasurer(script, seed=seed)
        bench = bench_of(TASK, tmp_path, measurer, monkeypatch)
        monkeypatch.setattr(replay, "open_bench", lambda *_, **__: bench)
        monkeypatch.setattr(secrets, "randbits", lambda _: 7)
        code = bytes([len(source) % 251]) * 32
        about = SimpleNamespace(
            id=number, project_id=0, miner=Pubkey(bytes([miner]) * 32), code_hash=code, claimed_aggregate_score=claim
        )
        case = local_case(project(), TASK, source, POLICY.source)
        case = replace(case, proposal=cast("Any", about), miner_class="cpu-fake-2c", code_hash=code.hex())
        connection = cast("Any", connected(tmp_path))
        folder = check.folder_of(tmp_path, "fake", str(number))
        done = check._check(
            connection, case, KEY, POLICY, QUIET, folder, bytes(32), chain, isolated=True, trust_harness=False
        )
        return done, measurer

    return run


def level_of(found: CheckResult) -> float:
    """The alpha that was applied, as the attestation has it."""
    return float(attestation.open_envelope(found.attestation)[1]["predicate"]["policy"]["comparison"]["alpha"])


def test_a_released_proposal_gets_no_new_draw(proposed: Callable[..., tuple[CheckResult, FakeMeasurer]]) -> None:
    """One crash and a doubtful gain; then it would run well, and is not run again."""
    unlucky, _ = proposed(crashing(BETTER, times=1))
    assert unlucky.verdict.reason is Reason.UNCONFIRMED
    again, measurer = proposed(gains(0.5), seed=2)
    assert measurer.runs == []
    assert again.replay.runs == unlucky.replay.runs
    assert again.verdict == unlucky.verdict
    assert level_of(again) == level_of(unlucky)


def test_a_check_that_was_killed_goes_on_with_its_runs(
    proposed: Callable[..., tuple[CheckResult, FakeMeasurer]],
) -> None:
    made: list[bytes] = []

    def killed(source: bytes, run: int) -> Any:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(source)
        return gains(0.1)(source, run)

    with pytest.raises(KeyboardInterrupt):
        proposed(killed)
    found, measurer = proposed(gains(0.1))
    assert found.verdict.kind is VerdictKind.APPROVE
    assert len(found.replay.runs) == 3 + len(measurer.runs)


@pytest.mark.parametrize(
    ("change", "look"),
    [
        ({"source": BETTER}, 2),  # the very same
        ({"source": BETTER + b"# again\n"}, 2),  # in another dress
        ({"source": BETTER, "miner": 2}, 2),  # by somebody else
        ({"source": local.TRAIN + b"X = 3.0\nassert X\n", "miner": 2}, 1),  # something else
        ({"source": local.TRAIN + b"X = 3.0\nassert X\n"}, 2),  # by one who was released for what the code did
        ({"source": local.TRAIN + b"X = 3.0\nassert X\n", "miner": 2, "chain": {3: 0, 5: 0}}, 3),  # copies on chain
        (
            {"source": local.TRAIN + b"X = 3.0\nassert X\n", "miner": 2, "chain": {8: 1}},
            2,
        ),  # reviewed by another verifier
    ],
)
def test_looks_at_the_same_share_one_budget(
    proposed: Callable[..., tuple[CheckResult, FakeMeasurer]], change: dict[str, Any], look: int
) -> None:
    proposed(crashing(BETTER, times=1))
    found, _ = proposed(gains(0.1), 8, **change)
    assert level_of(found) == pytest.approx(POLICY.at_look(look).comparison.alpha)
    assert attestation.open_envelope(found.attestation)[1]["predicate"]["look"] == look
    assert found.verdict.kind is VerdictKind.APPROVE  # what is clear stays clear
    assert audit.passed(audit.audit(found.attestation, None, {})[0])


def test_each_check_on_an_unfit_machine_is_one_more_look(
    proposed: Callable[..., tuple[CheckResult, FakeMeasurer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each begins anew, with a new draw: they were once counted as one, however many they were."""
    monkeypatch.setattr(fitness, "read", lambda: MachineState(load=9.1, cores=2))
    for look in (1, 2, 3):
        found, measurer = proposed(gains(-0.1), seed=look)
        assert found.verdict.reason is Reason.NOT_READY
        assert measurer.runs
        assert level_of(found) == pytest.approx(POLICY.at_look(look).comparison.alpha)


@pytest.mark.parametrize("failure", [Failure.HOST, Failure.REFUSED_MEMORY])
def test_a_run_that_its_script_had_excused_is_one_more_look(
    proposed: Callable[..., tuple[CheckResult, FakeMeasurer]], failure: Failure
) -> None:
    """On a Mac a crash that prints a driver's words is this machine's, and that run is drawn anew: not for ever."""
    excused = RunFinding(failure, Phase.TRAINING, "this machine's GPU driver ended it")
    for look in (1, 2, 3):
        found, _ = proposed(lambda source, _: 2.5 if source == local.TRAIN else excused, seed=look)
        assert found.verdict.reason is Reason.NOT_READY
        assert level_of(found) == pytest.approx(POLICY.at_look(look).comparison.alpha)


@pytest.mark.slow
def test_a_no_op_that_is_resubmitted_until_it_wins_does_not(
    proposed: Callable[..., tuple[CheckResult, FakeMeasurer]],
) -> None:
    """Forty proposals of nothing: at one level for each, the chance of an approval would be a third."""
    kinds = [proposed(gains(0.0), number, seed=number)[0].verdict.kind for number in range(1, 41)]
    assert VerdictKind.APPROVE not in kinds


# --- the claim ---


@pytest.mark.parametrize(
    ("claimed", "outside"),
    [
        (2_600_000, False),  # 2.4 as measured
        (2_601_000, False),
        (2_700_000, True),  # twice the gain that is there
        (2_300_000, False),  # too modest flatters nobody
    ],
)
def test_the_claim_is_looked_at(
    proposed: Callable[..., tuple[CheckResult, FakeMeasurer]], claimed: int, outside: bool
) -> None:
    found, _ = proposed(gains(0.1), claim=claimed)
    assert found.verdict.kind is VerdictKind.APPROVE  # the measured gain counts, not the claim
    claim = attestation.open_envelope(found.attestation)[1]["predicate"]["claim"]
    assert (claim["outside"], claim["metric"]) == (outside, f"{5 - claimed / 1e6:.6f}")
    assert ("far better" in show.text(found, Path("a"), None)) is outside


def test_a_claim_beside_nothing_measured_is_shown_as_such(
    proposed: Callable[..., tuple[CheckResult, FakeMeasurer]],
) -> None:
    found, _ = proposed(crashing(BETTER))
    assert found.claim is not None
    assert (found.claim.measured, found.claim.outside) == (None, False)
    assert "nothing was measured" in show.text(found, Path("a"), None)


@pytest.mark.parametrize(
    ("confidence", "words"), [(0.99, "99.00 %"), (0.99985, "99.98 %"), (0.99991, "over 99.99 %"), (1.0, "over 99.99 %")]
)
def test_nothing_is_certain(confidence: float, words: str) -> None:
    assert show._sure(confidence) == words


# --- the loop ---


class FakeFollower:
    """Proposals that have outcomes left; `down`: the network answers once."""

    left: ClassVar[dict[int, list[Any]]] = {}
    down = False
    project = SimpleNamespace(current_best_code_hash=bytes(32), current_best_aggregate_score=0)

    def __init__(self, *_: Any) -> None:
        self.asked = 0

    def __enter__(self) -> FakeFollower:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def unreadable(self) -> list[Any]:
        return []

    def refresh(self) -> None:
        self.asked += 1
        if self.down and self.asked > 1:
            raise ChainError("The network does not answer.", "Try again.")

    def proposals(self, *_: Any) -> list[Any]:
        return [SimpleNamespace(id=number) for number in sorted(self.left) if self.left[number]]


def served(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outcomes: dict[int, list[Any]], *, down: bool = False
) -> tuple[list[dict[str, Any]], list[int]]:
    """What `serve` says, and the proposals in the order in which they were tried."""
    tried: list[int] = []
    left = {number: list(found) for number, found in outcomes.items()}

    def settled(_: Any, number: int, *__: Any, **___: Any) -> Settled:
        tried.append(number)
        found = left[number].pop(0)
        if isinstance(found, Exception):
            raise found
        return Settled(None, found, "", found.name.lower())

    monkeypatch.setattr(FakeFollower, "left", left)
    monkeypatch.setattr(FakeFollower, "down", down)
    monkeypatch.setattr(serve, "Follower", FakeFollower)
    monkeypatch.setattr(settle, "settle", settled)
    results = serve.serve(
        connected(tmp_path),
        0,
        KEY,
        POLICY,
        QUIET,
        once=True,
        every=0.0,
        retries=3,
        trust_harness=False,
        ready=lambda _: None,
        sleep=lambda _: None,
    )
    return results, tried


def test_all_that_is_pending_is_settled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    results, tried = served(monkeypatch, tmp_path, {4: [ProposalStatus.APPROVED], 2: [ProposalStatus.REJECTED]})
    assert tried == [2, 4]
    assert [found["status"] for found in results] == ["rejected", "approved"]


def test_what_raises_is_tried_again_and_stops_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken: list[Any] = [ChainError("It failed.", "Try again.")] * 9
    results, tried = served(monkeypatch, tmp_path, {1: broken, 2: [ProposalStatus.APPROVED]})
    assert tried == [1, 2, 1, 1]
    assert [found["status"] for found in results].count("failed") == 3


def test_what_was_released_is_left_alone_with_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, tried = served(monkeypatch, tmp_path, {1: [ProposalStatus.PENDING] * 5})
    assert tried == [1]


def test_a_network_that_does_not_answer_is_no_nothing_pending(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ChainError, match="does not answer"):  # with --once: it does not say that nothing is pending
        served(monkeypatch, tmp_path, {1: [ProposalStatus.APPROVED]}, down=True)


class _Enough(Exception):
    """The test has seen enough of a loop that does not end."""


def test_the_loop_never_gives_a_proposal_up_and_its_pause_grows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at, tried = [0.0], list[tuple[int, float]]()

    def sleep(seconds: float) -> None:
        at[0] += max(seconds, 1e-3)
        if at[0] > 20_000:
            raise _Enough

    def settled(_: Any, number: int, *__: Any, **___: Any) -> Settled:
        tried.append((number, at[0]))
        if number == 2:
            raise settle.NotOurs("Another verifier reviews it.", "Wait.")
        if number == 3:
            return Settled(None, ProposalStatus.PENDING, "", "released")
        raise TrainerError("It failed.", "Try again.")

    monkeypatch.setattr(FakeFollower, "left", {1: [0], 2: [0], 3: [0]})
    monkeypatch.setattr(FakeFollower, "down", False)
    monkeypatch.setattr(serve, "Follower", FakeFollower)
    monkeypatch.setattr(settle, "settle", settled)
    with pytest.raises(_Enough):
        serve.serve(
            connected(tmp_path),
            0,
            KEY,
            POLICY,
            QUIET,
            once=False,
            every=10.0,
            retries=3,
            trust_harness=False,
            ready=lambda _: None,
            sleep=sleep,
            now=lambda: at[0],
        )
    for number in (1, 3):
        times = [when for found, when in tried if found == number]
        gaps = [after - before for before, after in pairwise(times)]
        assert gaps[:5] == [10, 20, 40, 80, 160]
        assert gaps == sorted(gaps)
        assert gaps[-1] == serve.LONGEST_PAUSE
    others = [when for found, when in tried if found == 2]
    gaps = [after - before for before, after in pairwise(others)]  # another's review: no try, but waited for likewise
    assert gaps == sorted(gaps)
    assert gaps[-1] == serve.LONGEST_PAUSE
