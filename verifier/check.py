"""One check, from a proposal or a local train.py to a signed attestation.

The record of a check, `<home>/verify/<network>-<proposal>/`, holds what was decided before it is acted
on, so that a settlement can be resumed (see `settle`). Each check leaves an attestation of its own there;
`attestation.json` is the one that settles.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from solders.keypair import Keypair

from chain.connection.opening import Connection
from chain.errors import ChainError
from chain.money import score
from chain.program.accounts import Project, Proposal
from chain.projects.artifacts import fetch_project
from common.files import write_atomic
from common.terminal import View
from trainer import sandbox
from trainer.errors import TrainerError
from trainer.judging import holdout
from trainer.judging.ladder import INCUMBENT
from trainer.judging.policy import RULES_VERSION, JudgePolicy
from trainer.judging.runs import said_unfit
from trainer.judging.verdict import CaseEvidence, CaseFinding, Fault, Reason, Verdict, decide
from trainer.machine import hardware
from trainer.project import bundle, source, task
from trainer.statistics.comparison import Arm
from trainer.statistics.noise import NoiseRecord
from verifier import attestation, ladder, looks
from verifier.history import other_looks, submission_hash
from verifier.intake import Case, local_case, open_case
from verifier.looks import Inspection
from verifier.record import RUNS
from verifier.replay import Claim, Judged, Replay, judge, replay


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A finished check: the case, what was measured, the verdict and its signed attestation."""

    case: Case | None
    project: Project
    proposal: Proposal | None
    replay: Replay
    judged: Judged
    verdict: Verdict
    attestation: bytes
    claim: Claim | None = None

    @property
    def digest(self) -> bytes:
        """The attestation's SHA-256, which settles on chain."""
        return sha256(self.attestation).digest()


def ready() -> str:
    """One line on this machine's sandbox; EnvironmentNotReady unless untrusted code can be confined in it."""
    return sandbox.probe(sandbox.choose(cuda=hardware.cuda_major() is not None))


def prepare(connection: Connection, proposal: Proposal, policy: JudgePolicy) -> None:
    """Read and check everything that needs no review: this machine's sandbox, the project's and the proposal's
    artifacts, the block of its submission. Raises what keeps this machine from judging the proposal.
    """
    ready()
    open_case(connection, proposal, policy)
    submission_hash(connection.client, proposal)


def folder_of(home: Path, network: str, name: str) -> Path:
    """Where a check keeps its record."""
    return home / "verify" / f"{network}-{name}".replace("/", "_").replace(":", "_")


def check_proposal(
    connection: Connection,
    proposal: Proposal,
    key: Keypair,
    policy: JudgePolicy,
    view: View,
    *,
    isolated: bool = True,
    trust_harness: bool = False,
) -> CheckResult:
    """Check a proposal on chain. Nothing that the miner or a gateway does raises an error; it becomes a verdict."""
    project = connection.client.project(proposal.project_id)
    folder = folder_of(connection.home, connection.network.name, str(proposal.id))
    try:
        with view.step("fetching and verifying artifacts"):
            case = open_case(connection, proposal, policy)
            seed = holdout.seed_of(submission_hash(connection.client, proposal), proposal.id)
            others = other_looks(connection.client, (*case.copies, proposal), key.pubkey())
    except (ChainError, TrainerError) as error:
        finding = CaseFinding(Reason.ARTIFACT_UNAVAILABLE, Fault.HOST, error.problem)
        return _conclude(connection, project, proposal, None, _nothing((finding,)), key, policy, folder, None)
    return _check(
        connection, case, key, policy, view, folder, seed, others, isolated=isolated, trust_harness=trust_harness
    )


def check_candidate(
    connection: Connection,
    project: Project,
    script: bytes,
    key: Keypair,
    policy: JudgePolicy,
    view: View,
    *,
    isolated: bool = True,
    trust_harness: bool = False,
) -> CheckResult:
    """Check a local train.py as if it were proposed; its holdout text is drawn at random."""
    with view.step("fetching and verifying artifacts"):
        parsed = task.read(fetch_project(connection, project))
    listed = connection.client.proposals(project.id)
    below = ladder.steps(connection, project, listed, parsed, policy.ladder.rungs)
    case = local_case(project, parsed, script, policy.source, below)
    folder = folder_of(connection.home, connection.network.name, f"local-{case.code_hash[:16]}")
    return _check(
        connection,
        case,
        key,
        policy,
        view,
        folder,
        secrets.token_bytes(32),
        {},
        isolated=isolated,
        trust_harness=trust_harness,
    )


def _check(
    connection: Connection,
    case: Case,
    key: Keypair,
    policy: JudgePolicy,
    view: View,
    folder: Path,
    seed: bytes,
    others: Mapping[int, int],
    *,
    isolated: bool,
    trust_harness: bool,
) -> CheckResult:
    policy, look = for_project(policy, case), 1
    seen = inspection(connection, case)
    if seen is not None and case.proposal is not None:
        look = looks.number(looks.read(_book(connection)), seen, others)
        policy = policy.at_look(look)
        if look > 1:
            view.say(f"look {look} at this code or its author: it is tested at {policy.comparison.alpha:.4%}")
    else:
        policy = policy.at_look(1)
    if case.findings:  # each rejects or releases by itself: no run could change that, and none is owed
        measured = _nothing(())
    else:
        measured = replay(
            case,
            policy,
            home=connection.home,
            holdout_seed=seed,
            record=folder / RUNS if case.proposal is not None else None,
            view=view,
            isolated=isolated,
            trust_harness=trust_harness,
        )
    how = (seed, isolated)
    found = _conclude(connection, case.project, case.proposal, case, measured, key, policy, folder, how, look)
    if seen is not None and (measured.runs or case.findings):
        own = looks.own_behaviour(found.judged, found.verdict, measured.runs)
        # The next check draws anew what this machine is said to have spoilt, as one more look: all of it where the
        # machine called itself unfit, and a candidate's run that ended as only this machine should have it end.
        excused = any(run.arm == Arm.CANDIDATE.value and run.failed and run.excused for run in measured.runs)
        begun = f"{seen.against} again {look}" if excused or said_unfit(measured.runs) else seen.against
        looks.add(_book(connection), replace(seen, own=own, against=begun))
    return found


def inspection(connection: Connection, case: Case) -> Inspection | None:
    """What this check of a proposal has in common with others; None for a local candidate."""
    if case.proposal is None:
        return None
    return Inspection(
        connection.network.name,
        case.project.id,
        case.proposal.id,
        bundle.digest(case.task.incumbent),
        case.code_hash,
        source.essence(case.task.files, case.candidate) if not case.findings else "",
        str(case.proposal.miner),
    )


def _book(connection: Connection) -> Path:
    return connection.home / "verify" / "looks.jsonl"


def for_project(policy: JudgePolicy, case: Case) -> JudgePolicy:
    """The policy with the project's own margin, where that is larger; an attestation holds it as it was applied."""
    convention = score.infer(case.project.baseline_aggregate_score, case.task.baseline, minimize=case.task.minimize)
    best = convention.to_metric(case.project.current_best_aggregate_score)
    return policy.with_margin(case.task.protocol.margin(float(best)))


def _nothing(findings: tuple[CaseFinding, ...]) -> Replay:
    return Replay(None, (), NoiseRecord(), 0, "", "", findings)


def _conclude(
    connection: Connection,
    project: Project,
    proposal: Proposal | None,
    case: Case | None,
    measured: Replay,
    key: Keypair,
    policy: JudgePolicy,
    folder: Path,
    how: tuple[bytes, bool] | None,
    look: int = 1,
) -> CheckResult:
    findings = (*(case.findings if case else ()), *measured.findings)
    bench = measured.bench
    ground = measured.footing
    if ground is not None:
        policy = policy.beyond(ground.lead)
    if case is None:
        judged = Judged(CaseEvidence(findings))
    else:
        convention = score.infer(project.baseline_aggregate_score, case.task.baseline, minimize=case.task.minimize)
        judged = judge(
            findings,
            measured.runs,
            noise=measured.noise,
            seed=measured.seed,
            budget_seconds=case.task.protocol.execution.training_seconds,
            method=bench.method if bench else "",
            best_score=project.current_best_aggregate_score,
            convention=convention,
            policy=policy,
            reference=ground.reference.arm if ground else INCUMBENT,
            reference_score=ground.reference.score if ground else None,
            over=ground.over_snapshot(measured.runs) if ground else None,
        )
    claim = None
    if case is not None and proposal is not None:
        claim = Claim.of(proposal.claimed_aggregate_score, judged, convention)
    verdict = decide(judged.evidence, policy.verdict)
    predicate = _predicate(connection, project, proposal, case, measured, judged, verdict, policy, how)
    predicate |= {"verifier": str(key.pubkey()), "look": look, "claim": claim.as_json() if claim else None}
    subjects = {}
    if case is not None:
        subjects = {"code.tar": case.code_hash}
        if "train.py" in case.candidate:
            subjects["train.py"] = sha256(case.candidate["train.py"]).hexdigest()
    sealed = attestation.seal(attestation.statement(subjects, predicate), key)
    write_atomic(file_of(folder, sealed), sealed)
    return CheckResult(case, project, proposal, measured, judged, verdict, sealed, claim)


def file_of(folder: Path, sealed: bytes) -> Path:
    """Where a check keeps its attestation: a file of its own, named as the chain names what settled, by its hash."""
    return folder / f"attestation-{sha256(sealed).hexdigest()[:16]}.json"


def _predicate(
    connection: Connection,
    project: Project,
    proposal: Proposal | None,
    case: Case | None,
    measured: Replay,
    judged: Judged,
    verdict: Verdict,
    policy: JudgePolicy,
    how: tuple[bytes, bool] | None,
) -> dict[str, Any]:
    """Everything the verdict rests on. Hashes are hex; times seconds; bpb values absolute on this machine."""
    bench = measured.bench
    return {
        "schemaVersion": "1",
        "createdAt": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "client": version("openresearch-miner"),
        "network": connection.network.name,
        "programId": str(connection.network.program_id),
        "project": project.id,
        "proposal": proposal.id if proposal else None,
        "artifacts": {
            "protocol": project.protocol_hash.hex(),
            "snapshot": project.repo_snapshot_hash.hex(),
            "benchmark": project.benchmark_hash.hex(),
            "baselineMetrics": project.baseline_metrics_hash.hex(),
            "incumbentCode": project.current_best_code_hash.hex() if any(project.current_best_code_hash) else None,
            "code": case.code_hash if case else proposal.code_hash.hex() if proposal else None,
            "log": case.log_hash if case else None,
        },
        "harness": {
            path: sha256(case.task.files[path]).hexdigest()
            for path in sorted(case.task.files)
            if case and path in (*case.task.protocol.surface.harness, "prepare.py")
        }
        if case
        else {},
        "data": {
            "snapshotId": bench.data_snapshot if bench else None,
            "validationRows": bench.measurer.facts.rows_sha256 if bench and bench.measurer else None,
            "tokenBytes": bench.measurer.facts.token_bytes_sha256 if bench and bench.measurer else None,
            "holdout": {
                "seed": how[0].hex() if how else None,
                "source": measured.holdout_source,
                "sha256": measured.holdout_sha256,
            },
        },
        "machine": bench.machine.as_json() if bench else None,
        "environment": bench.environment.packages_digest if bench else None,
        "isolation": bench.isolation if bench else None,
        "method": bench.method if bench else None,
        "budgetSeconds": case.task.protocol.execution.training_seconds if case else None,
        "minimize": case.task.minimize if case else True,
        "baseline": {
            "score": project.baseline_aggregate_score,
            "metric": str(case.task.baseline) if case else None,
        },
        "bestScore": project.current_best_aggregate_score,
        "ladder": measured.footing.as_json() if measured.footing else None,
        "orderSeed": measured.seed,
        "noise": measured.noise.to_json(),
        "runs": [run.as_json() for run in measured.runs],
        **judged.as_json(),
        "findings": [
            {"reason": f.reason.value, "fault": f.fault.value, "detail": f.detail[:1000]}
            for f in (*(case.findings if case else ()), *measured.findings)
        ],
        "rulesVersion": RULES_VERSION,
        "policy": policy.as_json(),
        "verdict": verdict.as_json(),
    }
