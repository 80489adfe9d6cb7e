"""The confirming test: what the miner's own verifier would say, before anything is staked.

A session keeps what wins, and winners are chosen for looking good, so the sum of kept gains promises too much. The
confirming test measures the code to submit against the chain's best with fresh runs of both, on validation and on
fresh text, by the verifier's own rules (`trainer.judging.replay`, `trainer.project.source`) and at least as
strictly. Its delta is
what is claimed. Every run is in the journal before the next; a session that is interrupted continues it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common.terminal import View
from miner.journal.journal import Confirmation, Journal
from trainer.judging import replay, trial
from trainer.judging.replay import Budget, Fresh, Outcome, ReplayRun
from trainer.measurement.bench import Bench
from trainer.measurement.run import Run
from trainer.project import source
from trainer.project.source import SourceCaps
from trainer.project.task import Task
from trainer.statistics.comparison import Arm
from trainer.statistics.noise import NoiseRecord
from trainer.statistics.policy import ComparisonPolicy, LookEvidence


@dataclass(frozen=True, slots=True)
class Rules:
    """A verifier's default policy as far as it concerns a miner; see verifier/policy.py for the words."""

    comparison: ComparisonPolicy
    source: SourceCaps = field(default_factory=SourceCaps)
    budget: Budget = field(default_factory=Budget)
    fresh: Fresh = field(default_factory=Fresh)
    suggestive: float = 0.1

    @classmethod
    def at(cls, min_confidence: float, margin: float) -> Rules:
        """The rules at the owner's confidence, never below a verifier's own, and the project's margin (bpb)."""
        usual = ComparisonPolicy()
        return cls(comparison=replace(usual, alpha=min(usual.alpha, 1 - min_confidence), margin=margin))


@dataclass(frozen=True, slots=True)
class Answer:
    """What the confirming test says: "" and the numbers, or why not to submit."""

    problem: str
    evidence: LookEvidence | None
    fresh_delta: float | None


def judge(
    runs: Sequence[ReplayRun], noise: NoiseRecord, rules: Rules, *, seed: int, budget_seconds: float, trusted: bool
) -> Answer:
    """The answer that the runs give; pure. The order is that of the verdict's rules."""
    failed = [run for run in runs if run.arm == "candidate" and run.failure]
    if failed:
        return Answer(f"it failed: {failed[-1].detail}", None, None)
    allowed = replay.allowed_seconds(runs, budget_seconds, rules.budget)
    late = [run.train_seconds for run in runs if run.arm == "candidate" and run.train_seconds is not None]
    if allowed is not None and late and max(late) > allowed:
        return Answer(f"it trained for {max(late):.1f} s and {allowed:.1f} s are allowed", None, None)
    outcome, evidence = replay.compared(runs, noise, rules.comparison, seed, rules.suggestive)
    if evidence is None:
        return Answer("its comparison with the best on chain came to no end", None, None)
    if outcome is not Outcome.BETTER:
        words = {Outcome.NOT_BETTER: "it was not shown to be better than the best on chain"}
        return Answer(words.get(outcome, "whether it is better could not be made clear"), evidence, None)
    if not trusted:
        return Answer("", evidence, None)
    again = replay.fresh_outcome(runs, evidence.delta, noise, rules.fresh)
    if again is None:
        return Answer("it could not be scored on fresh text", evidence, None)
    if again.outcome is not Outcome.BETTER:
        lost = again.outcome is Outcome.NOT_BETTER
        words_fresh = (
            "its gain does not hold on fresh text" if lost else "its gain on fresh text is not clear or much smaller"
        )
        return Answer(words_fresh, evidence, again.delta)
    return Answer("", evidence, again.delta)


def confirm(
    bench: Bench,
    task: Task,
    trees: Mapping[Arm, Mapping[str, bytes]],
    journal: Journal,
    *,
    number: int,
    commit: str,
    against: str,
    folder: Path,
    rules: Rules,
    view: View,
) -> Confirmation:
    """Run or continue the test of `commit` against `against`; the finished confirmation.

    TrainerError where this machine cannot carry it out, with nothing decided.
    """
    over = source.problems(task.files, trees[Arm.CANDIDATE], rules.source)
    current = _begin(journal, bench, number, commit, against)
    noise = NoiseRecord.from_json(current.noise)
    if over:
        return _end(journal, Answer(over[0], None, None))
    with view.step("drawing fresh text") as word:
        rows, on = replay.draw_fresh(
            bench,
            rules.fresh,
            folder / "fresh",
            bytes.fromhex(current.fresh_seed),
            public=not task.benchmark.data_arguments,
            say=word,
        )

    def record(entry: ReplayRun, _: Run) -> None:
        journal.append("confirming_run", run=entry.as_json())

    runs = replay.replay(
        on,
        trees,
        rows,
        policy=rules.comparison,
        fresh_policy=rules.fresh,
        noise=noise,
        seed=current.seed,
        view=view,
        done=[_restored(run) for run in current.runs],
        on_run=record,
    )
    if sum(bool(run.failure) for run in runs if run.arm == "incumbent") >= trial.MAX_FAILURES:
        last = next(run for run in reversed(runs) if run.arm == "incumbent" and run.failure)
        return _end(journal, Answer(f"the best on chain fails here itself: {last.detail}", None, None))
    bench.learn_noise([replay.values(runs, Arm.INCUMBENT)])
    answer = judge(
        runs,
        noise,
        rules,
        seed=current.seed,
        budget_seconds=task.protocol.execution.training_seconds,
        trusted=bench.measurer is not None,
    )
    return _end(journal, answer)


def evidence_of(done: Confirmation, rules: Rules) -> LookEvidence:
    """The comparison's last look of a confirmation that passed, from its record."""
    runs = [_restored(run) for run in done.runs]
    _, evidence = replay.compared(
        runs, NoiseRecord.from_json(done.noise), rules.comparison, done.seed, rules.suggestive
    )
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
            fresh_seed=secrets.token_hex(32),
            noise=bench.noise().to_json(),
        )
    return journal.session.confirmations[-1]


def _end(journal: Journal, answer: Answer) -> Confirmation:
    seen = answer.evidence
    journal.append(
        "confirmed",
        passed=not answer.problem,
        reason=answer.problem or "it is better than the best on chain",
        delta=seen.delta if seen else None,
        low=seen.low if seen else None,
        high=seen.high if seen else None,
        p=seen.p if seen else None,
        fresh_delta=answer.fresh_delta,
    )
    return journal.session.confirmations[-1]


def _restored(run: Mapping[str, Any]) -> ReplayRun:
    return ReplayRun(**{name: run[name] for name in ReplayRun.__slots__})
