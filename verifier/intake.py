"""Intake: from a proposal on chain to a case that can be measured, with the faults of its bytes.

Artifacts are fetched by the ids on chain and verified (signature, owner, SHA-256) before use; the code
archive is read, never extracted. What is wrong becomes findings:

- a fault of the proposal's bytes only where it is proven: the signed item of that very id holds other
  bytes than the chain's hash, or the archive with the right hash breaks a rule;
- anything that a gateway or this host could have caused is the host's, and releases.

The candidate is the project's snapshot with the protocol's mutable files taken from the archive.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from chain.connection.opening import MAX_ARTIFACT, Connection
from chain.errors import ChainError, InvalidData
from chain.program.accounts import Project, Proposal
from chain.projects.artifacts import fetch_project
from trainer.errors import InvalidBundle, TrainerError
from trainer.judging.policy import JudgePolicy
from trainer.judging.verdict import CaseFinding, Fault, Reason
from trainer.machine import hardware
from trainer.project import bundle, source, task
from trainer.project.protocol import MutableSurface
from trainer.project.source import SourceCaps
from trainer.project.task import Task
from verifier import history, ladder
from verifier.ladder import EarlierBest

DATA_TAG = "Data-Snapshot"


@dataclass(frozen=True, slots=True)
class Case:
    """A proposal, or a local candidate, ready to be measured unless `findings` say otherwise.

    `miner_class`, `miner_platform`, `miner_memory` (bytes for MLX) and `miner_data` are what the miner's signed log
    says of its machine and data, "" or 0 if nothing (`trainer.machine.hardware`).
    `below` are the rungs under the incumbent (`verifier.ladder`), `copies` earlier proposals with the same archive.
    """

    project: Project
    proposal: Proposal | None
    task: Task
    candidate: Mapping[str, bytes]
    code_hash: str
    log_hash: str
    miner_class: str
    miner_data: str
    findings: tuple[CaseFinding, ...]
    below: tuple[EarlierBest, ...] = ()
    miner_platform: str = ""
    miner_memory: int = 0
    copies: tuple[Proposal, ...] = ()


def local_case(
    project: Project, parsed: Task, script: bytes, caps: SourceCaps, below: tuple[EarlierBest, ...] = ()
) -> Case:
    """A case for a train.py that is not on chain."""
    changed = {"train.py": script}
    candidate = bundle.overlay(parsed.files, changed, parsed.protocol.surface)
    findings = check_source(parsed.files, candidate, caps)
    code_hash = sha256(bundle.pack(candidate)).hexdigest()
    return Case(project, None, parsed, candidate, code_hash, "", "", "", tuple(findings), below)


def open_case(connection: Connection, proposal: Proposal, policy: JudgePolicy) -> Case:
    """The case of a proposal, on the chain as it was before the proposal was approved. ChainError or TrainerError if
    the project itself cannot be fetched or read.
    """
    project = connection.client.project(proposal.project_id)
    listed = connection.client.proposals(project.id)  # once: they may be many
    history.require_best(project, listed)
    project = history.as_judged(project, listed, proposal)
    artifacts = fetch_project(connection, project)
    parsed = task.read(artifacts)
    findings: list[CaseFinding] = []
    code = _fetch(connection, proposal, proposal.code_irys_id, proposal.code_hash, "code archive", findings)
    log = _fetch(
        connection, proposal, proposal.benchmark_log_irys_id, proposal.benchmark_log_hash, "benchmark log", findings
    )
    candidate: Mapping[str, bytes] = parsed.files
    if code is not None:
        found, read = read_candidate(code.data, parsed.files, parsed.protocol.surface, policy.source)
        findings += found
        candidate = read or parsed.files
    tags = dict(log.tags) if log else {}
    return Case(
        project,
        proposal,
        parsed,
        candidate,
        proposal.code_hash.hex(),
        proposal.benchmark_log_hash.hex(),
        tags.get(hardware.CLASS_TAG, ""),
        tags.get(DATA_TAG, ""),
        tuple(findings),
        ladder.steps(connection, project, listed, parsed, policy.ladder.rungs),
        tags.get(hardware.PLATFORM_TAG, ""),
        _bytes(tags.get(hardware.MEMORY_TAG, "")),
        history.copies(listed, proposal),
    )


def _bytes(text: str) -> int:
    """A size that a miner wrote; 0 for anything else."""
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,17}", text, re.ASCII) else 0


@dataclass(frozen=True, slots=True)
class _Fetched:
    data: bytes
    tags: tuple[tuple[str, str], ...]


def _fetch(
    connection: Connection, proposal: Proposal, item_id: bytes, expected: bytes, what: str, findings: list[CaseFinding]
) -> _Fetched | None:
    """One of the miner's artifacts; where it is not what the chain says, a finding says whose fault that is."""
    try:
        artifact = connection.irys.fetch_verified(
            item_id, sha256=expected, owner=bytes(proposal.miner), max_bytes=MAX_ARTIFACT, require_signature=True
        )
        return _Fetched(artifact.data, artifact.tags)
    except InvalidData as error:
        proven = _proven_mismatch(connection, proposal, item_id, expected)
        if proven:
            findings.append(CaseFinding(Reason.HASH_MISMATCH, Fault.BYTES, f"The {what}: {proven}"))
        else:
            findings.append(CaseFinding(Reason.ARTIFACT_UNAVAILABLE, Fault.HOST, f"The {what}: {error.problem}"))
    except ChainError as error:
        findings.append(CaseFinding(Reason.ARTIFACT_UNAVAILABLE, Fault.HOST, f"The {what}: {error.problem}"))
    return None


def _proven_mismatch(connection: Connection, proposal: Proposal, item_id: bytes, expected: bytes) -> str:
    """Proof that the miner itself published other bytes under this id, as a sentence; "" where there is none."""
    try:
        item = connection.irys.signed_item(item_id, max_bytes=MAX_ARTIFACT)
    except ChainError:
        return ""
    if item.owner != bytes(proposal.miner) or item.sha256 == expected:
        return ""
    return f"the miner's signed item has SHA-256 {item.sha256.hex()}, but the proposal on chain says {expected.hex()}."


def read_candidate(
    archive: bytes, snapshot: Mapping[str, bytes], surface: MutableSurface, caps: SourceCaps
) -> tuple[list[CaseFinding], dict[str, bytes] | None]:
    """The candidate's tree from its archive, and what is wrong with it. No tree where it cannot be read."""
    read, faults = bundle.survey(archive)
    files = bundle.unprefixed(read.files, snapshot)
    if faults:
        return [_unreadable(faults, files, snapshot, surface)], None
    changed = bundle.changed_outside_surface(snapshot, files, surface)
    findings = []
    if changed:
        shown = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
        findings.append(
            CaseFinding(Reason.FORBIDDEN_CHANGE, Fault.BYTES, f"It changes what the protocol does not allow: {shown}.")
        )
    try:
        candidate = bundle.overlay(snapshot, files, surface)
    except InvalidBundle as error:
        return [*findings, CaseFinding(Reason.MALFORMED_ARCHIVE, Fault.BYTES, error.problem)], None
    return findings + check_source(snapshot, candidate, caps), candidate


def _unreadable(
    faults: Sequence[bundle.UnsafeArchive],
    files: Mapping[str, bytes],
    snapshot: Mapping[str, bytes],
    surface: MutableSurface,
) -> CaseFinding:
    """What an archive with faults comes to. An honest tool may have written it, and two readers may see two trees in
    it: no stake is slashed for that, but for a file of the snapshot that is another in whatever reading."""
    large = next((fault for fault in faults if fault.finding is bundle.ArchiveFault.FILE_TOO_LARGE), None)
    if large:
        return CaseFinding(Reason.SOURCE_TOO_LARGE, Fault.BYTES, f"The code archive: {large.problem}")
    twice = {fault.path for fault in faults if fault.finding is bundle.ArchiveFault.DUPLICATE}
    known = {path: content for path, content in files.items() if path in snapshot and path not in twice}
    changed = bundle.changed_outside_surface(snapshot, known, surface)
    if changed:
        return CaseFinding(
            Reason.FORBIDDEN_CHANGE, Fault.BYTES, f"It changes what the protocol does not allow: {changed[0]}."
        )
    return CaseFinding(Reason.MALFORMED_ARCHIVE, Fault.FORM, f"The code archive: {faults[0].problem}")


def check_source(snapshot: Mapping[str, bytes], candidate: Mapping[str, bytes], caps: SourceCaps) -> list[CaseFinding]:
    """What is over a cap, as faults of the proposal's bytes."""
    problems = source.problems(snapshot, candidate, caps)
    return [CaseFinding(Reason.SOURCE_TOO_LARGE, Fault.BYTES, text) for text in problems]


def not_ready(error: TrainerError | ChainError | OSError) -> CaseFinding:
    """A refusal of this machine's own, as a finding that releases."""
    problem = f"This machine failed: {error}." if isinstance(error, OSError) else error.problem
    return CaseFinding(Reason.NOT_READY, Fault.HOST, problem)
