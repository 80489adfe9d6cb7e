"""A candidate measured against the right rung of the ladder (`trainer.judging.ladder`): runs and what is remembered.

A verifier measures a proposal so, and a miner what it is about to stake on, so that both judge against the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from common.terminal import View
from trainer.judging import remembered
from trainer.judging.judge import compared
from trainer.judging.ladder import INCUMBENT, SNAPSHOT, Known, Rung, failures, footing, lead
from trainer.judging.policy import JudgePolicy
from trainer.judging.replay import HoldoutRows, Meanwhile, one_run
from trainer.judging.replay import replay as run_both
from trainer.judging.runs import ReplayRun, against, values
from trainer.judging.trial import MAX_FAILURES
from trainer.judging.verdict import GainOutcome
from trainer.measurement.bench import Bench
from trainer.statistics.comparison import Arm, calm, is_noisier
from trainer.statistics.noise import NoiseRecord


@dataclass(frozen=True, slots=True)
class Step:
    """A rung with its code, and whose it is where that is on chain."""

    rung: Rung
    tree: Mapping[str, bytes]
    author: str = ""


@dataclass(frozen=True, slots=True)
class Climb:
    """All runs in order, and which rung is the `reference` that the candidate was judged against.

    The first `after` runs decided that, with what was `known` of the snapshot; `notes` say what was stepped over.
    `lead` (bpb) is what the chain's best is ahead of the reference; `vouched` says that the reference was found to
    hold, or is the snapshot itself.
    """

    runs: tuple[ReplayRun, ...] = ()
    reference: str = INCUMBENT
    notes: tuple[str, ...] = ()
    known: Known = field(default_factory=Known)
    after: int = 0
    lead: float = 0.0
    vouched: bool = False


def climb(
    bench: Bench,
    steps: Sequence[Step],
    candidate: Mapping[str, bytes],
    rows: HoldoutRows | None,
    *,
    policy: JudgePolicy,
    noise: NoiseRecord,
    seed: int,
    view: View,
    done: Sequence[ReplayRun] = (),
    on_run: Callable[[ReplayRun], None] = lambda _: None,
    smaller: str = "",
    side_by_side: bool = False,
    meanwhile: Meanwhile | None = None,
) -> Climb:
    """Measure a candidate against the incumbent, or where that is not what was approved any more, the rung that is.

    `steps` is the ladder from the incumbent down; where the incumbent is the snapshot itself, it is alone. The other
    arguments are those of `replay`.
    """
    runs = list(done)
    trees = {step.rung.arm: step.tree for step in steps}

    def compare(reference: str, rules: JudgePolicy) -> None:
        runs[:] = run_both(
            bench,
            {Arm.INCUMBENT: trees[reference], Arm.CANDIDATE: candidate},
            rows,
            policy=rules,
            noise=noise,
            seed=seed,
            view=view,
            done=tuple(runs),
            on_run=on_run,
            reference=reference,
            smaller=smaller,
            side_by_side=side_by_side,
            meanwhile=meanwhile,
        )

    compare(INCUMBENT, policy)
    if len(steps) == 1 or not asked(runs, noise, policy):
        return Climb(tuple(runs), after=len(runs), vouched=len(steps) == 1)
    found = stand(bench, steps, rows, runs, policy=policy, noise=noise, seed=seed, view=view, on_run=on_run)
    if found.reference == INCUMBENT:
        return found
    compare(found.reference, policy.beyond(found.lead))
    return replace(found, runs=tuple(runs))


def stand(
    bench: Bench,
    steps: Sequence[Step],
    rows: HoldoutRows | None,
    runs: list[ReplayRun],
    *,
    policy: JudgePolicy,
    noise: NoiseRecord,
    seed: int,
    view: View,
    on_run: Callable[[ReplayRun], None] = lambda _: None,
) -> Climb:
    """The highest of `steps` that holds, by `runs` and those that the ladder asks for, which are added to them."""
    known, before, rungs = remembered.known(bench, policy.ladder.hours), len(runs), [step.rung for step in steps]
    trees = {step.rung.arm: step.tree for step in steps}
    while (found := footing(rungs, runs, known, noise, policy.ladder)).reference is None:
        arm, number = found.ask, len(values(runs, found.ask))
        runs.append(one_run(bench, arm, trees[arm], rows, policy=policy, view=view, seed=seed, number=number))
        on_run(runs[-1])
    if fresh := values(runs[before:], SNAPSHOT):
        remembered.keep(bench, fresh)
    for note in found.notes:
        view.say(note, style="yellow")
    reference = found.reference
    return Climb(tuple(runs), reference.arm, found.notes, known, len(runs), lead(rungs, reference), vouched=True)


def asked(runs: Sequence[ReplayRun], noise: NoiseRecord, policy: JudgePolicy) -> bool:
    """Whether the ladder has a say: a gain over the incumbent is to be approved, none can be told from noise, which
    may be the incumbent's own, or it fails. Pure."""
    mine = against(runs, INCUMBENT)
    if failures(mine, INCUMBENT) >= MAX_FAILURES:
        return True
    return compared(mine, noise, policy, 0)[0] in (GainOutcome.BETTER, GainOutcome.UNDECIDED)


def of_this_machine(found: Climb, before: int, noise: NoiseRecord, policy: JudgePolicy) -> list[list[float]]:
    """The values of a climb, without its first `before` runs, that may teach this machine's record of noise.

    The snapshot's, and the incumbent's unless its author could have made them say anything: where somebody's code is
    louder than the record and the ladder did not say that it holds, it is left out, and so is a run that stands apart
    from the others: one that diverged would hide what the next hundred comparisons gain. Never a candidate's. Pure.
    """
    runs, stepped = found.runs, found.reference != INCUMBENT
    ours = values(runs, INCUMBENT)
    loud = stepped or (not found.vouched and (not noise.df or is_noisier(ours, noise, policy.comparison)))
    groups = [values(runs[before:], arm) for arm in ([SNAPSHOT] if loud else [INCUMBENT, SNAPSHOT])]
    return [[group[k] for k in calm(group, noise, policy.comparison)] for group in groups if group]
