"""What a check looks like to people and to scripts."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from chain.program.accounts import Proposal, ProposalStatus
from verifier.check import CheckResult
from verifier.settle import Settled


def settled(done: Settled) -> dict[str, Any]:
    """How a proposal was settled, for scripts."""
    return {"status": done.status.name.lower(), "signature": done.signature, "note": done.note}


_ENDED = (ProposalStatus.APPROVED, ProposalStatus.REJECTED, ProposalStatus.EXPIRED)


def already(proposal: Proposal) -> str:
    """How the proposal that a dry check is for was settled before it; "" where it is open."""
    if proposal.status not in _ENDED:
        return ""
    by = (
        f" by {proposal.reviewer}, attestation {proposal.metrics_hash.hex()[:16]}" if any(proposal.metrics_hash) else ""
    )
    before = "measures it against the best before it, and " if proposal.status is ProposalStatus.APPROVED else ""
    status = proposal.status.name.lower()
    return f"Proposal {proposal.id} is {status} already{by}. This check {before}changes nothing on chain."


def as_json(checked: CheckResult) -> dict[str, Any]:
    """Verdict, reason and numbers of a check."""
    judged = checked.judged
    compared, second = judged.comparison, judged.holdout
    return {
        "proposal": checked.proposal.id if checked.proposal else None,
        "project": checked.project.id,
        "verdict": checked.verdict.kind.value,
        "reason": checked.verdict.reason.value,
        "explanation": checked.verdict.explanation,
        "delta": compared.delta if compared else None,
        "interval": [_finite(compared.low), _finite(compared.high)] if compared else None,
        "sigma": compared.sigma if compared else None,
        "holdout_delta": second.delta if second else None,
        "score": judged.score,
        "reference": checked.replay.footing.reference.arm if checked.replay.footing else "incumbent",
        "metric": str(judged.metric) if judged.metric is not None else None,
        "claim": checked.claim.as_json() if checked.claim else None,
        "findings": [{"reason": f.reason.value, "detail": f.detail} for f in judged.evidence.findings],
        "runs": [run.as_json() for run in checked.replay.runs],
    }


def text(checked: CheckResult, path: Path, settlement: dict[str, Any] | None) -> str:
    """Every check and sample, then the verdict, for a terminal."""
    judged, measured = checked.judged, checked.replay
    compared, second = judged.comparison, judged.holdout
    lines = []
    what = f"proposal {checked.proposal.id}" if checked.proposal else "local candidate"
    lines.append(f"{what}, project {checked.project.id} ({checked.project.token_symbol})")
    bytes_wrong = [f for f in judged.evidence.findings if f.fault.value == "bytes"]
    lines += ["", "checks"]
    lines.append(_check("artifacts: signature, owner and SHA-256", checked.case is not None and not bytes_wrong))
    if measured.bench:
        bench = measured.bench
        lines.append(_check(f"sandbox {bench.isolation}, measurement {bench.method}", bench.method == "trusted"))
        lines.append(_check(f"machine {bench.machine.hardware_class}, data {bench.data_snapshot[:16]}", True))
    if measured.holdout_source:
        lines.append(_check(f"holdout text: {measured.holdout_source}", True))
    probed = [run for run in measured.runs if run.arm == "candidate" and run.probes]
    if probed:
        worst = max(abs(run.probes["worst"]) for run in probed if run.probes)
        count = sum(run.probes["count"] for run in probed if run.probes)
        lines.append(_check(f"causality: {count} probes, largest difference {worst:.1e} nats", worst <= 1e-3))
    told = Counter(f"{one.reason.value} ({one.fault.value}): {one.detail}" for one in judged.evidence.findings)
    lines += [f"  !  {words}" + (f" ({count} times)" if count > 1 else "") for words, count in told.items()]
    if measured.runs:
        lines += ["", f"runs   {'arm':<10} {'val_bpb':>10} {'holdout':>10} {'train s':>8} {'total s':>8}"]
        for number, run in enumerate(measured.runs, 1):
            shown = [_number(run.val_bpb), _number(run.holdout_bpb)]
            trained = f"{run.train_seconds:.1f}" if run.train_seconds is not None else "-"
            lines.append(
                f"  {number:>3}  {run.arm:<10} {shown[0]:>10} {shown[1]:>10} {trained:>8} {run.seconds:>8.1f}"
                + (f"  {run.failure}: {run.detail}" if run.failure else "")
            )
    if measured.footing and measured.footing.notes:
        lines += ["", *(f"  !  {note}" for note in measured.footing.notes)]
        lines.append(f"     judged against the {measured.footing.reference.arm} instead")
    if compared:
        lines += ["", "comparison (positive is better)"]
        lines.append(
            f"  delta        {compared.delta:+.6f} bpb, interval [{compared.low:+.6f}, {compared.high:+.6f}], "
            f"confidence {_sure(compared.confidence)}"
        )
        lines.append(f"  noise        sigma {compared.sigma:.6f} bpb, {compared.df:.0f} degrees of freedom")
        if second:
            lines.append(f"  on holdout   {second.delta:+.6f} bpb [{second.low:+.6f}, {second.high:+.6f}]")
        if judged.metric is not None:
            lines.append(
                f"  recorded     {judged.metric:.6f} (score {judged.score:,}): on-chain best minus the measured gain"
            )
    if checked.claim:
        lines.append(f"{'  !  ' if checked.claim.outside else '  '}{checked.claim.text()}")
    verdict = checked.verdict
    lines += ["", f"verdict  {verdict.kind.value.upper()} ({verdict.reason.value}): {verdict.explanation}"]
    if settlement:
        lines.append(f"settled  {settlement['note']}; the proposal is {settlement['status']}")
    lines.append(f"attestation  {path}")
    return "\n".join(lines)


def _check(what: str, good: bool) -> str:
    return f"  {'ok' if good else 'NO'} {what}"


def _sure(confidence: float) -> str:
    """A confidence in percent, which no number of runs makes 100."""
    return "over 99.99 %" if confidence > 0.9999 else f"{100 * confidence:.2f} %"


def _number(value: float | None) -> str:
    return f"{value:.6f}" if value is not None else "-"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
