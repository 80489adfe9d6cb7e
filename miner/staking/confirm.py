"""The confirming test: what the miner's own verifier would say, before anything is staked.

A session keeps what wins, and winners are chosen for looking good, so the sum of kept gains promises too much. The
confirming test measures the code to submit against the chain's best with new runs of both, on validation and on
holdout text, and asks the verifier's own judge (`trainer.judging`), at least as strictly. What is claimed of its
delta says `outlook`. Every run is in the journal before the next; a session that is interrupted continues it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from common.terminal import View
from miner.journal.journal import Confirmation, Journal
from trainer.judging import replay
from trainer.judging.climb import Climb, Step, climb, of_this_machine
from trainer.judging.judge import Judgement, compared, judge
from trainer.judging.ladder import INCUMBENT
from trainer.judging.policy import JudgePolicy
from trainer.judging.runs import ReplayRun, against
from trainer.judging.verdict import CaseFinding, Fault, Reason, Verdict, VerdictKind, decide
from trainer.measurement.bench import TRUSTED, Bench
from trainer.project import source
from trainer.project.task import Task
from trainer.statistics.error_rates import LookEvidence
from trainer.statistics.noise import NoiseRecord


def policy_at(min_confidence: float, margin: float) -> JudgePolicy:
    """A verifier's default policy at the owner's confidence, never below its own, and the project's margin (bpb)."""
    usual = JudgePolicy()
    comparison = replace(usual.comparison, alpha=min(usual.comparison.alpha, 1 - min_confidence))
    return replace(usual, comparison=comparison).with_margin(margin).at_look(1)


def answer(
    findings: Sequence[CaseFinding],
    runs: Sequence[ReplayRun],
    noise: NoiseRecord,
    policy: JudgePolicy,
    *,
    seed: int,
    budget_seconds: float,
    method: str,
    reference: str = INCUMBENT,
) -> tuple[Judgement, Verdict]:
    """What a verifier would say of these runs; pure. Without a sandbox the values are self-reported, on
    validation alone.
    """
    if method != TRUSTED:
        policy = replace(policy, verdict=replace(policy.verdict, require_trusted=False, require_holdout=False))
    found = judge(
        findings,
        runs,
        noise=noise,
        seed=seed,
        budget_seconds=budget_seconds,
        method=method,
        policy=policy,
        reference=reference,
    )
    return found, decide(found.evidence, policy.verdict)


def confirm(
    bench: Bench,
    task: Task,
    steps: Sequence[Step],
    candidate: Mapping[str, bytes],
    journal: Journal,
    *,
    number: int,
    commit: str,
    against: str,
    policy: JudgePolicy,
    view: View,
    between: Callable[[], None] = lambda: None,
    meanwhile: replay.Meanwhile | None = None,
) -> Confirmation:
    """Run or continue the test of `commit` against `against`, or the rung of the ladder `steps` below it that holds.

    The finished confirmation. `between` is called after each run, `meanwhile` makes one of its own beside the first,
    where another GPU is idle. TrainerError if this machine cannot run it; nothing is decided then.
    """
    over = source.problems(task.files, candidate, policy.source)
    current = _begin(journal, bench, number, commit, against)
    noise, climbed, cut = NoiseRecord.from_json(current.noise), Climb(), 0.0
    if not over:

        def record(entry: ReplayRun) -> None:
            journal.append("confirming_run", run=entry.as_json())
            between()

        with ExitStack() as stack:
            with view.step("drawing holdout text") as word:
                public, seed = not task.benchmark.data_arguments, bytes.fromhex(current.holdout_seed)
                drawn = replay.draw_holdout(bench, policy.holdout, seed, public=public, say=word)
                rows, on = stack.enter_context(drawn)
            cut = rows.cut if rows else 0.0
            climbed = climb(
                on,
                steps,
                candidate,
                rows,
                policy=policy,
                noise=noise,
                seed=current.seed,
                view=view,
                done=[entry.run for entry in current.runs],
                on_run=record,
                side_by_side=True,
                meanwhile=meanwhile,
            )
        bench.learn_noise(of_this_machine(climbed, 0, noise, policy))
    found, verdict = answer(
        [CaseFinding(Reason.SOURCE_TOO_LARGE, Fault.BYTES, text) for text in over],
        climbed.runs,
        noise,
        policy.beyond(climbed.lead),
        seed=current.seed,
        budget_seconds=task.protocol.execution.training_seconds,
        method=bench.method,
        reference=climbed.reference,
    )
    return _end(journal, found, verdict, climbed, cut)


def evidence_of(done: Confirmation, policy: JudgePolicy) -> LookEvidence:
    """The comparison's last look of a confirmation that passed, from its record."""
    runs = [entry.run for entry in done.runs]
    mine = against(runs, done.reference or INCUMBENT)
    _, evidence = compared(mine, NoiseRecord.from_json(done.noise), policy.beyond(done.lead), done.seed)
    assert evidence is not None
    return evidence


def _begin(journal: Journal, bench: Bench, number: int, commit: str, against: str) -> Confirmation:
    """The open confirmation of these two commits, or a new one."""
    last = journal.session.confirmations[-1:]
    if not last or last[0].passed is not None or (last[0].commit, last[0].against) != (commit, against):
        journal.append(
            "confirming",
            trial=number,
            commit=commit,
            against=against,
            seed=secrets.randbits(32),
            holdout_seed=secrets.token_hex(32),
            noise=bench.noise().to_json(),
        )
    return journal.session.confirmations[-1]


def _end(journal: Journal, found: Judgement, verdict: Verdict, climbed: Climb, cut: float) -> Confirmation:
    faults = {Reason.UNCONFIRMED, *(finding.reason for finding in found.evidence.findings)}
    seen = None if verdict.reason in faults else found.comparison  # what failed says nothing of the gain
    journal.append(
        "confirmed",
        passed=verdict.kind is VerdictKind.APPROVE,
        reason=" ".join([*climbed.notes, verdict.explanation]).rstrip("."),
        delta=seen.delta if seen else None,
        low=seen.low if seen else None,
        high=seen.high if seen else None,
        p=seen.p if seen else None,
        holdout_delta=found.holdout.delta if found.holdout else None,
        reference=climbed.reference if climbed.reference != INCUMBENT else "",
        lead=climbed.lead,
        cut=cut,
    )
    return journal.session.confirmations[-1]
