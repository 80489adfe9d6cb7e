"""Audit: is an attestation genuine, does it match the chain, and does its verdict follow?

Each question is one `AuditPoint` with an answer: yes, no, or unchecked (no network, no file given).
The verdict is derived again from the attested runs, findings and policy by the same pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any

from solders.pubkey import Pubkey

from chain.errors import ChainError, InvalidData
from chain.money import score
from chain.money.client import Client
from trainer.errors import TrainerError
from trainer.judging.ladder import INCUMBENT
from trainer.judging.policy import JudgePolicy
from trainer.judging.runs import ReplayRun
from trainer.judging.verdict import CaseEvidence, CaseFinding, Fault, Reason, Verdict, decide
from trainer.statistics.noise import NoiseRecord
from verifier import attestation
from verifier.replay import Claim, Ground, Judged, judge

_TOLERANCE = 1e-9
_ROUNDED = 1e-6  # bpb, what the sum of a run's blocks may differ from its value


@dataclass(frozen=True, slots=True)
class AuditPoint:
    """One question; `holds` is None if it could not be asked."""

    question: str
    holds: bool | None
    detail: str


def audit(data: bytes, client: Client | None, files: Mapping[str, bytes]) -> tuple[list[AuditPoint], dict[str, Any]]:
    """All points about an attestation, and its predicate. InvalidData if it is not an attestation.

    `files` are local copies of artifacts by name (code, log, protocol, snapshot, benchmark).
    """
    signer, body = attestation.open_envelope(data)
    predicate = body["predicate"]
    points = [AuditPoint("the signature is good", True, f"signed by {signer}")]
    try:
        points.append(_same("the signer is the verifier it names", str(signer), predicate["verifier"]))
        points.append(_verdict_follows(predicate))
        points += _reference_follows(predicate)
        points += _subjects(body, predicate)
        points += [_file(name, content, predicate) for name, content in sorted(files.items())]
        points += _on_chain(client, data, signer, predicate)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        raise InvalidData(f"The attestation does not match its schema: {repr(error)[:200]}.") from None
    return points, predicate


def rederive(predicate: Mapping[str, Any]) -> tuple[Judged, Verdict]:
    """Evidence and verdict from an attestation's own numbers."""
    rules = JudgePolicy.from_json(predicate["policy"])
    findings = tuple(
        CaseFinding(Reason(entry["reason"]), Fault(entry["fault"]), str(entry["detail"]))
        for entry in predicate["findings"]
    )
    runs = [ReplayRun.from_json(run) for run in predicate["runs"]]
    baseline, ground = predicate["baseline"], _ground(predicate)
    if baseline["metric"] is None:
        judged = Judged(CaseEvidence(findings))
    else:
        convention = _convention(predicate)
        judged = judge(
            findings,
            runs,
            noise=NoiseRecord.from_json(predicate["noise"]),
            seed=predicate["orderSeed"],
            budget_seconds=predicate["budgetSeconds"],
            method=predicate["method"] or "",
            best_score=predicate["bestScore"],
            convention=convention,
            policy=rules,
            reference=ground.reference.arm if ground else INCUMBENT,
            reference_score=ground.reference.score if ground else None,
        )
    return judged, decide(judged.evidence, rules.verdict)


def _convention(predicate: Mapping[str, Any]) -> score.Convention:
    baseline = predicate["baseline"]
    return score.infer(baseline["score"], Decimal(baseline["metric"]), minimize=predicate["minimize"])


def _claim(predicate: Mapping[str, Any], judged: Judged) -> dict[str, Any] | None:
    """What the attested claim is by the numbers; None if there is none."""
    if (said := predicate["claim"]) is None:
        return None
    convention = _convention(predicate)
    return Claim.of(convention.to_score(Decimal(said["metric"])), judged, convention).as_json()


def _ground(predicate: Mapping[str, Any]) -> Ground | None:
    return Ground.from_json(predicate["ladder"]) if predicate["ladder"] else None


def _reference_follows(predicate: Mapping[str, Any]) -> list[AuditPoint]:
    """Whether the candidate was judged against the right rung of the ladder."""
    ground = _ground(predicate)
    if ground is None:
        return []
    runs = [ReplayRun.from_json(run) for run in predicate["runs"]]
    try:
        policy = JudgePolicy.from_json(predicate["policy"]).beyond(-ground.lead)
        holds = ground.follows(runs, NoiseRecord.from_json(predicate["noise"]), policy)
    except TrainerError:
        holds = False
    return [AuditPoint("the reference follows from the runs", holds, ground.reference.arm)]


def _verdict_follows(predicate: Mapping[str, Any]) -> AuditPoint:
    question = "the verdict follows from the numbers"
    for run in predicate["runs"]:
        blocks = run["holdout_blocks"] or []
        if blocks and abs(math.fsum(blocks) - run["holdout_bpb"]) > _ROUNDED:
            return AuditPoint(question, False, f"a run's holdout blocks add up to {math.fsum(blocks):.6f} bpb")
    try:
        judged, verdict = rederive(predicate)
    except (ChainError, TrainerError, AssertionError) as error:
        return AuditPoint(question, False, str(error))
    derived_fields = {"verdict": verdict.as_json(), "claim": _claim(predicate, judged), **judged.as_json()}
    for name, derived in derived_fields.items():
        if not _agree(predicate[name], derived):
            return AuditPoint(question, False, f"its {name} is {predicate[name]}, but the numbers give {derived}")
    return AuditPoint(question, True, f"{verdict.kind.value} ({verdict.reason.value})")


def _agree(said: object, derived: object) -> bool:
    """Whether two JSON values are equal, floats up to the last digits, in which machines may differ."""
    if isinstance(said, dict) and isinstance(derived, dict):
        return said.keys() == derived.keys() and all(_agree(said[key], derived[key]) for key in said)
    if isinstance(said, list) and isinstance(derived, list):
        return len(said) == len(derived) and all(map(_agree, said, derived))
    if isinstance(said, float) and isinstance(derived, float):
        return math.isclose(said, derived, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return type(said) is type(derived) and said == derived


def _subjects(body: Mapping[str, Any], predicate: Mapping[str, Any]) -> list[AuditPoint]:
    digests = {entry["name"]: entry["digest"]["sha256"] for entry in body["subject"]}
    if "code.tar" not in digests:
        return []
    return [_same("the subject is the code it judged", digests["code.tar"], predicate["artifacts"]["code"])]


def _file(name: str, content: bytes, predicate: Mapping[str, Any]) -> AuditPoint:
    return _same(f"the given {name} is the attested one", sha256(content).hexdigest(), predicate["artifacts"].get(name))


def _on_chain(client: Client | None, data: bytes, signer: Pubkey, predicate: Mapping[str, Any]) -> list[AuditPoint]:
    if client is None:
        return [AuditPoint("it agrees with the chain", None, "offline")]
    try:
        project = client.project(int(predicate["project"]))
        points = [
            _same(f"the {name} on chain is the attested one", on_chain.hex(), predicate["artifacts"][name])
            for name, on_chain in (
                ("protocol", project.protocol_hash),
                ("snapshot", project.repo_snapshot_hash),
                ("benchmark", project.benchmark_hash),
            )
        ]
        registered = client.is_verifier(signer)
        points.append(AuditPoint("the signer is a registered verifier", registered, str(signer)))
        if predicate["proposal"] is None:
            return points
        proposal = client.proposal(int(predicate["proposal"]))
        points.append(
            _same("the proposal's code is the attested one", proposal.code_hash.hex(), predicate["artifacts"]["code"])
        )
        if (said := predicate["claim"]) is not None:
            claimed = _convention(predicate).to_score(Decimal(said["metric"]))
            points.append(_same("the proposal's claim is the attested one", proposal.claimed_aggregate_score, claimed))
        if any(proposal.metrics_hash):
            points.append(
                _same("the proposal was settled with this attestation", proposal.metrics_hash.hex(), _hash(data))
            )
        else:
            points.append(AuditPoint("the proposal was settled with this attestation", None, "it is not settled"))
    except ChainError as error:
        return [AuditPoint("it agrees with the chain", None, error.problem)]
    return points


def _same(question: str, found: object, expected: object) -> AuditPoint:
    if found == expected:
        return AuditPoint(question, True, str(found))
    return AuditPoint(question, False, f"found {found}, expected {expected}")


def _hash(data: bytes) -> str:
    return sha256(data).hexdigest()


def passed(points: Sequence[AuditPoint]) -> bool:
    """Whether nothing that could be asked was answered with no."""
    return all(point.holds is not False for point in points)
