"""Audit: is an attestation genuine, does it match the chain, and does its verdict follow?

Each question is one `AuditPoint` with an answer: yes, no, or not asked: because it
could not be (`askable` is false), or because nobody let it (no network, no file given).
The verdict is derived again from the attested runs, findings and policy by the same pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any

from solders.pubkey import Pubkey

from chain.errors import ChainError, InvalidData, NotFound
from chain.money import score
from chain.money.client import Client
from chain.program.accounts import Project, Proposal, ProposalStatus
from trainer.errors import TrainerError
from trainer.judging import holdout
from trainer.judging.ladder import INCUMBENT
from trainer.judging.policy import RULES_VERSION, JudgePolicy
from trainer.judging.runs import ReplayRun
from trainer.judging.verdict import CaseEvidence, CaseFinding, Fault, Reason, Verdict, decide
from trainer.project import bundle
from trainer.project.task import Task
from trainer.statistics.noise import NoiseRecord
from verifier import attestation, history
from verifier.history import copies, other_reviewers, submission_hash
from verifier.replay import Claim, Ground, Judged, judge

_TOLERANCE = 1e-9
_ROUNDED = 1e-6  # bpb, what the sum of a run's blocks may differ from its value
_DEFAULT = JudgePolicy()
_FOLLOWS, _AS_EXPECTED = "the verdict follows from the numbers", "the policy is the one expected"


@dataclass(frozen=True, slots=True)
class AuditPoint:
    """One question; `holds` is None if it was not asked, and `askable` says whether it could have been."""

    question: str
    holds: bool | None
    detail: str
    askable: bool = True


def audit(
    data: bytes,
    client: Client | None,
    files: Mapping[str, bytes],
    task: Callable[[Project], Task] | None = None,
    policy: JudgePolicy = _DEFAULT,
    code: Callable[[Proposal], bytes] | None = None,
) -> tuple[list[AuditPoint], dict[str, Any]]:
    """All points about an attestation, and its predicate. InvalidData if it is not an attestation, or departs from the
    schema. `task` reads a project's artifacts, `code` fetches a proposal's archive where `files` has none (both may
    raise ChainError); `policy` is the one that it should have been judged by.

    `files` are local copies of artifacts by name (code, log, protocol, snapshot, benchmark).
    """
    signer, body = attestation.open_envelope(data)
    predicate = body["predicate"]
    if faults := attestation.schema_faults(body):
        raise InvalidData(
            f"The attestation departs from its schema: {'; '.join(faults)}.",
            "If another version of this client made it, audit it with that one.",
        )
    points = [AuditPoint("the signature is good", True, f"signed by {signer}")]
    try:
        points.append(_same("the signer is the verifier it names", str(signer), predicate["verifier"]))
        points += _by_the_rules(predicate, policy)
        points += _subjects(body, predicate, lambda: files.get("code") or _archive(client, code, predicate))
        points += [_file(name, content, predicate) for name, content in sorted(files.items())]
        points += _on_chain(client, data, signer, predicate)
        points += _artifacts(client, task, predicate, policy)
        points.append(_its_word(predicate))
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
            over=ground.over_snapshot(runs) if ground else None,
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


def _by_the_rules(predicate: Mapping[str, Any], policy: JudgePolicy) -> list[AuditPoint]:
    """Whether policy, reference and verdict are as the rules have them. Those of another version are not known here."""
    if _known_rules(predicate):
        return [_verdict_follows(predicate), *_reference_follows(predicate), _policy(predicate, policy)]
    version = predicate["rulesVersion"]
    earlier = f"an earlier one has those, by its word {predicate['client']}"
    known = earlier if version < RULES_VERSION else "no later one is known here"
    detail = f"judged by rules of version {version}; this client has {RULES_VERSION}, and {known}"
    return [_blocks_fault(predicate) or AuditPoint(_FOLLOWS, None, detail), AuditPoint(_AS_EXPECTED, None, detail)]


def _known_rules(predicate: Mapping[str, Any]) -> bool:
    """Whether this client has the rules that it was judged by. TypeError if it does not say which."""
    version = predicate["rulesVersion"]
    if type(version) is not int:  # 2.0 is an integer by the schema
        raise TypeError(f"rulesVersion {version!r}")
    return version == RULES_VERSION


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


def _blocks_fault(predicate: Mapping[str, Any]) -> AuditPoint | None:
    """That a run's holdout blocks do not add up to its value, by whatever rules."""
    for run in predicate["runs"]:
        blocks = run["holdout_blocks"] or []
        if blocks and abs(math.fsum(blocks) - run["holdout_bpb"]) > _ROUNDED:
            return AuditPoint(_FOLLOWS, False, f"a run's holdout blocks add up to {math.fsum(blocks):.6f} bpb")
    return None


def _verdict_follows(predicate: Mapping[str, Any]) -> AuditPoint:
    if fault := _blocks_fault(predicate):
        return fault
    try:
        judged, verdict = rederive(predicate)
    except (ChainError, TrainerError, AssertionError) as error:
        return AuditPoint(_FOLLOWS, False, str(error))
    derived_fields = {"verdict": verdict.as_json(), "claim": _claim(predicate, judged), **judged.as_json()}
    for name, derived in derived_fields.items():
        if not _agree(predicate[name], derived):
            return AuditPoint(_FOLLOWS, False, f"its {name} is {predicate[name]}, but the numbers give {derived}")
    return AuditPoint(_FOLLOWS, True, f"{verdict.kind.value} ({verdict.reason.value})")


def _agree(said: object, derived: object) -> bool:
    """Whether two JSON values are equal, floats up to the last digits, in which machines may differ."""
    if isinstance(said, dict) and isinstance(derived, dict):
        return said.keys() == derived.keys() and all(_agree(said[key], derived[key]) for key in said)
    if isinstance(said, list) and isinstance(derived, list):
        return len(said) == len(derived) and all(map(_agree, said, derived))
    if isinstance(said, float) and isinstance(derived, float):
        return math.isclose(said, derived, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return type(said) is type(derived) and said == derived


def _archive(
    client: Client | None, fetch: Callable[[Proposal], bytes] | None, predicate: Mapping[str, Any]
) -> bytes | str:
    """The proposal's code archive, or why there is none here."""
    if client is None or fetch is None or predicate["proposal"] is None:
        return "give the archive with --code FILE"
    try:
        return fetch(client.proposal(predicate["proposal"]))
    except ChainError as error:
        return f"{error.problem} Give the archive with --code FILE."


def _subjects(
    body: Mapping[str, Any], predicate: Mapping[str, Any], archive: Callable[[], bytes | str]
) -> list[AuditPoint]:
    digests = {entry["name"]: entry["digest"]["sha256"] for entry in body["subject"]}
    expected: set[str] = set() if predicate["baseline"]["metric"] is None else {"code.tar"}
    if not expected <= digests.keys() or len(digests) != len(body["subject"]):
        return [AuditPoint("the subjects are what it judged", False, f"they are {sorted(digests)}")]
    points = []
    if "code.tar" in digests:
        code = predicate["artifacts"]["code"]
        points.append(_same("the subject is the code it judged", digests["code.tar"], code))
    if "train.py" in digests:
        question = "the subject train.py is in the code it judged"
        if isinstance(content := archive(), str):
            return [*points, AuditPoint(question, None, content)]
        script = _script(content)
        found = sha256(script).hexdigest() if script is not None else "none"
        points.append(_same(question, digests["train.py"], found))
    return points


def _script(archive: bytes) -> bytes | None:
    try:
        return bundle.read_archive(archive).files.get("train.py")
    except TrainerError:
        return None


def _file(name: str, content: bytes, predicate: Mapping[str, Any]) -> AuditPoint:
    return _same(f"the given {name} is the attested one", sha256(content).hexdigest(), predicate["artifacts"].get(name))


def _policy(predicate: Mapping[str, Any], expected: JudgePolicy) -> AuditPoint:
    """Whether the policy is the one expected, but for a larger margin, which is the project's."""
    if predicate["baseline"]["metric"] is not None:
        expected = expected.at_look(predicate["look"])
    default, said = expected.as_json(), predicate["policy"]
    differing = [
        f"{path} is {_at(said, path)}, expected {_at(default, path)}"
        for path in sorted(_paths(default) | _paths(said))
        if _at(said, path) != _at(default, path)
        and not (path == "comparison.margin" and _at(said, path) > _at(default, path))
    ]
    return AuditPoint(_AS_EXPECTED, not differing, "; ".join(differing)[:500] or "no difference")


def _paths(value: object, path: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {path}
    return set().union(*(_paths(inner, f"{path}.{key}".lstrip(".")) for key, inner in value.items()))


def _at(value: Any, path: str) -> Any:
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _on_chain(client: Client | None, data: bytes, signer: Pubkey, predicate: Mapping[str, Any]) -> list[AuditPoint]:
    if client is None:
        return [AuditPoint("it agrees with the chain", None, "offline")]
    points = [
        _same("the network is the attested one", client.network.name, predicate["network"]),
        _same("the program is the attested one", str(client.network.program_id), predicate["programId"]),
    ]
    try:
        project = client.project(predicate["project"])
        listed = client.proposals(project.id)
        points += _of_project(project, listed, predicate)
        if predicate["proposal"] is None:
            points.append(_same("it has a log only where it has a proposal", predicate["artifacts"]["log"] or "", ""))
            return [*points, AuditPoint("the signer is a registered verifier", client.is_verifier(signer), str(signer))]
        return points + _of_proposal(client, client.proposal(predicate["proposal"]), listed, data, signer, predicate)
    except NotFound as error:
        return [*points, AuditPoint("what it names is on chain", False, error.problem)]
    except ChainError as error:
        return [*points, AuditPoint("it agrees with the chain", None, error.problem)]


def _of_project(project: Project, listed: Sequence[Proposal], predicate: Mapping[str, Any]) -> list[AuditPoint]:
    artifacts, baseline = predicate["artifacts"], project.baseline_aggregate_score
    best = {
        (code.hex() if any(code) else None, reached)
        for code, reached in history.bests(project, listed, besides=predicate["proposal"])
    }
    attested = (artifacts["incumbentCode"], predicate["bestScore"])
    return [
        *(
            _same(f"the {name} on chain is the attested one", on_chain.hex(), artifacts[name])
            for name, on_chain in (
                ("protocol", project.protocol_hash),
                ("snapshot", project.repo_snapshot_hash),
                ("benchmark", project.benchmark_hash),
                ("baselineMetrics", project.baseline_metrics_hash),
            )
        ),
        _same("the baseline score on chain is the attested one", baseline, predicate["baseline"]["score"]),
        AuditPoint(
            "the incumbent was a best on chain", attested in best, f"{attested[0] or 'the baseline'} at {attested[1]}"
        ),
    ]


_OUTCOMES = {"approve": ProposalStatus.APPROVED, "reject": ProposalStatus.REJECTED}


def _of_proposal(
    client: Client,
    proposal: Proposal,
    listed: Sequence[Proposal],
    data: bytes,
    signer: Pubkey,
    predicate: Mapping[str, Any],
) -> list[AuditPoint]:
    artifacts, kind, used = predicate["artifacts"], predicate["verdict"]["kind"], proposal.metrics_hash
    points = [
        _same("the proposal's project is the attested one", proposal.project_id, predicate["project"]),
        _same("the proposal's code is the attested one", proposal.code_hash.hex(), artifacts["code"]),
    ]
    if artifacts["log"]:
        log = proposal.benchmark_log_hash.hex()
        points.append(_same("the proposal's log is the attested one", log, artifacts["log"]))
    elif predicate["baseline"]["metric"] is not None and not predicate["findings"]:
        points.append(AuditPoint("the proposal's log is the attested one", False, "none is, and no finding says why"))
    if (said := predicate["claim"]) is not None:
        claimed = _convention(predicate).to_score(Decimal(said["metric"]))
        points.append(_same("the proposal's claim is the attested one", proposal.claimed_aggregate_score, claimed))
    if (seed := predicate["data"]["holdout"]["seed"]) is not None:
        expected = holdout.seed_of(submission_hash(client, proposal), proposal.id).hex()
        points.append(_same("the holdout text was drawn by the proposal's own block", seed, expected))
    if predicate["baseline"]["metric"] is not None:
        points.append(_looks(client, proposal, copies(listed, proposal), signer, predicate["look"]))
    settled = proposal.status in _OUTCOMES.values()
    if not settled:
        points.append(AuditPoint("the signer is a registered verifier", client.is_verifier(signer), str(signer)))
        question = "the proposal was settled with this attestation"
        points.append(AuditPoint(question, None, f"it is {proposal.status.name.lower()}", askable=False))
        return points
    # That its signer reviewed the proposal stays true when it has left the allowlist.
    points += [
        _same("the signer is the proposal's reviewer", str(signer), str(proposal.reviewer)),
        _same("the proposal was settled with this attestation", used.hex(), sha256(data).hexdigest()),
        _same("the outcome on chain is the attested one", proposal.status, _OUTCOMES.get(kind)),
    ]
    if proposal.status is ProposalStatus.APPROVED:
        score_on_chain = proposal.verified_aggregate_score
        points.append(_same("the score on chain is the attested one", score_on_chain, predicate["score"]["verified"]))
    return points


def _looks(client: Client, proposal: Proposal, same: Sequence[Proposal], signer: Pubkey, look: int) -> AuditPoint:
    """Whether the look's number counts what the chain shows of earlier ones; a verifier knows of more.

    Only what cannot have come after the attestation: the earlier copies of the archive, and the other reviewers of a
    proposal that the signer settled.
    """
    settled = proposal.status in _OUTCOMES.values()
    earlier = len(same) + (len(other_reviewers(client, proposal, signer)) if settled else 0)
    detail = f"it is attested as look {look}; the chain shows {earlier} earlier"
    return AuditPoint("the looks that the chain shows are counted", look > earlier, detail)


def _artifacts(
    client: Client | None,
    task: Callable[[Project], Task] | None,
    predicate: Mapping[str, Any],
    policy: JudgePolicy,
) -> list[AuditPoint]:
    question = "it agrees with the project's artifacts"
    if client is None or task is None:
        return [AuditPoint(question, None, "they were not fetched")]
    try:
        return _in_artifacts(task(client.project(predicate["project"])), predicate, policy)
    except (ChainError, TrainerError) as error:
        return [AuditPoint(question, None, error.problem)]


def _in_artifacts(task: Task, predicate: Mapping[str, Any], policy: JudgePolicy) -> list[AuditPoint]:
    """What the project's own artifacts say, against what is attested of them."""
    if predicate["baseline"]["metric"] is None:
        return []
    harness = {
        path: sha256(task.files[path]).hexdigest()
        for path in (*task.protocol.surface.harness, "prepare.py")
        if path in task.files
    }
    best = _convention(predicate).to_metric(predicate["bestScore"])
    margin = max(policy.comparison.margin, task.protocol.margin(float(best)))
    attested = predicate["policy"]["comparison"]["margin"]
    return [
        *([_same("the margin is the project's", margin, attested)] if _known_rules(predicate) else []),
        _same("the harness is the snapshot's", harness, predicate["harness"]),
        _same("the budget is the protocol's", task.protocol.execution.training_seconds, predicate["budgetSeconds"]),
        _same("the direction is the protocol's", task.minimize, predicate["minimize"]),
        _same("the baseline metric is the project's", str(task.baseline), predicate["baseline"]["metric"]),
    ]


# What only the verifier's machine knew; nothing that can be asked for confirms it.
ITS_WORD = (
    "createdAt",
    "client",
    "data",
    "machine",
    "environment",
    "isolation",
    "method",
    "orderSeed",
    "ladder",
    "noise",
    "runs",
    "findings",
)
# What follows from those by the rules, where these are known.
_DERIVED = ("comparison", "holdoutComparison", "undeservedBound", "claim", "score", "policy", "verdict")


def _its_word(predicate: Mapping[str, Any]) -> AuditPoint:
    names = ITS_WORD if _known_rules(predicate) else (*ITS_WORD, *_DERIVED)
    said = ", ".join(name for name in names if predicate.get(name) not in (None, [], {}))
    return AuditPoint("not checkable here", None, f"the verifier's word alone: {said}", askable=False)


def _same(question: str, found: object, expected: object) -> AuditPoint:
    if found == expected and type(found) is type(expected):
        return AuditPoint(question, True, str(found))
    return AuditPoint(question, False, f"found {found}, expected {expected}")


def passed(points: Sequence[AuditPoint]) -> bool:
    """Whether nothing that was asked was answered with no."""
    return all(point.holds is not False for point in points)


def complete(points: Sequence[AuditPoint]) -> bool:
    """Whether nothing that could be asked was left unasked."""
    return not any(point.holds is None and point.askable for point in points)
