"""What the rule for holdout text says of honest gains and of memorised ones, by simulation.

    python -m tests.benchmarks.bench_holdout [--trials 2000]

Text is made of documents (log-normal lengths, half of them under 500 tokens, 820 in the mean) that are cut into blocks
as a run's are. On each document the candidate gains by another amount (sd `document` bpb about the mean gain), and each
run of either arm adds its own (half of that sd). What moves a whole run (sd `SIGMA`) moves it on both texts. The
validation text is as short as the holdout text, which is the worst case. The comparison is the real one, run to its end
with a noise record of 20 degrees of freedom; what it does not approve never comes to the holdout text and is not
counted.

`share` is how much of the validation gain is true: 1 for an honest candidate, less where text was memorised. Beside the
rule, the rule that knew run noise only.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.judging import trial
from trainer.judging.holdout_gain import holdout_outcome
from trainer.judging.judge import compared
from trainer.judging.policy import JudgePolicy
from trainer.judging.runs import ReplayRun
from trainer.judging.verdict import GainOutcome
from trainer.measurement.run import Run
from trainer.measurement.scoring import BLOCK, FEWEST_BLOCKS, MOST_BLOCKS
from trainer.statistics.comparison import Arm
from trainer.statistics.distributions import approval_point
from trainer.statistics.noise import NoiseRecord

SIGMA = 0.001  # bpb, of a run
_MEDIAN, _SPREAD = 500.0, 1.0  # of a document's length in tokens, and of its logarithm
_HARD = 0.3  # bpb, by which documents differ for both arms alike
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Setting:
    """`tokens` of holdout text; `gain` on validation in run sigmas; `share` of it true; `document` in bpb."""

    tokens: int
    gain: float
    share: float
    document: float


@dataclass(frozen=True, slots=True)
class Shares:
    """Of the gains that the comparison approved (`trials` of them): those that pass, are rejected, are released."""

    trials: int
    passed: float
    rejected: float

    def __str__(self) -> str:
        released = 1 - self.passed - self.rejected
        return f"pass {self.passed:6.1%}  reject {self.rejected:6.2%}  release {released:6.1%}"


class Text:
    """Documents in a row, cut into blocks."""

    def __init__(self, tokens: int, rng: np.random.Generator) -> None:
        lengths = rng.lognormal(math.log(_MEDIAN), _SPREAD, 8 + 3 * tokens // int(_MEDIAN))
        ends = np.minimum(np.cumsum(lengths), tokens)
        count = int(np.searchsorted(ends, tokens)) + 1
        self.ends, self.tokens = np.concatenate([[0.0], ends[:count]]), tokens
        blocks = min(MOST_BLOCKS, max(FEWEST_BLOCKS, tokens // BLOCK))
        self._edges = np.linspace(0, tokens, blocks + 1)

    @property
    def documents(self) -> int:
        return len(self.ends) - 1

    def blocks(self, by_document: Floats) -> Floats:
        """What each block adds to a mean over the text of a quantity given by document."""
        total = np.concatenate([[0.0], np.cumsum(by_document * np.diff(self.ends))]) / self.tokens
        return np.diff(np.interp(self._edges, self.ends, total))


def simulate(setting: Setting, trials: int, policy: JudgePolicy, seed: int = 1) -> tuple[Shares, Shares]:
    """The shares by the rule and by the one that knew run noise only; every candidate's gain is approved."""
    chance, rng = random.Random(seed), np.random.default_rng(seed)
    ours, theirs = Counter[GainOutcome](), Counter[GainOutcome]()
    while ours.total() < trials:
        runs, noise, order = _trial(setting, policy, chance, rng)
        outcome, seen = compared(runs, noise, policy, order)
        if outcome is not GainOutcome.BETTER or seen is None:
            continue
        found = holdout_outcome(runs, seen, policy.holdout)
        assert found is not None
        ours[found.outcome] += 1
        theirs[_run_noise_only(runs, seen.delta, noise, policy.holdout.least_share)] += 1
    return _shares(ours), _shares(theirs)


def _trial(
    setting: Setting, policy: JudgePolicy, chance: random.Random, rng: np.random.Generator
) -> tuple[list[ReplayRun], NoiseRecord, int]:
    """One proposal's runs until the comparison ends."""
    holdout, validation = Text(setting.tokens, rng), Text(setting.tokens, rng)
    gain, order = setting.gain * SIGMA, chance.randrange(1 << 32)
    squares = sum((SIGMA * chance.gauss()) ** 2 for _ in range(20))
    noise = NoiseRecord(squares, 20.0)
    hard = rng.normal(0, _HARD, holdout.documents)
    gains = rng.normal(setting.share * gain, setting.document, holdout.documents)
    known = gain + float(validation.blocks(rng.normal(0, setting.document, validation.documents)).sum())
    runs: list[ReplayRun] = []

    def execute(ahead: Sequence[Arm]) -> list[Run]:
        arm = ahead[0]
        better, moved = arm is Arm.CANDIDATE, SIGMA * chance.gauss()
        own = rng.normal(0, setting.document / 2, holdout.documents)
        blocks = holdout.blocks(2.6 + hard + own + moved - (gains if better else 0.0))
        elsewhere = float(validation.blocks(rng.normal(0, setting.document / 2, validation.documents)).sum())
        value = 2.5 + moved + elsewhere - (known if better else 0.0)
        cut = tuple(blocks.tolist())
        runs.append(ReplayRun(arm.value, value, sum(cut), 6.0, 9.0, "", "", "", None, None, None, None, cut))
        return [runs[-1].as_run()]

    trial.compare(execute, history=[], noise=noise, policy=policy.comparison, seed=order)
    return runs, noise, order


def _run_noise_only(runs: Sequence[ReplayRun], gain: float, noise: NoiseRecord, least_share: float) -> GainOutcome:
    """The rule until November 2026: limits at 5 % each from the runs' own scatter and the machine's record."""
    arms = [[run.holdout_bpb for run in runs if run.arm == arm.value and run.holdout_bpb is not None] for arm in Arm]
    old, new = arms
    freedom = len(old) + len(new) - 2 + noise.df
    squares = sum(sum((v - statistics.fmean(group)) ** 2 for v in group) for group in arms)
    reach = approval_point(freedom, 0.05) * math.sqrt((squares + noise.sum_squares) / freedom)
    reach *= math.sqrt(1 / len(old) + 1 / len(new))
    delta = statistics.fmean(old) - statistics.fmean(new)
    shown, whole = delta - reach > 0, delta + reach >= least_share * gain
    if shown and whole:
        return GainOutcome.BETTER
    return GainOutcome.UNDECIDED if shown or whole else GainOutcome.NOT_BETTER


def _shares(found: Counter[GainOutcome]) -> Shares:
    total = found.total()
    return Shares(total, found[GainOutcome.BETTER] / total, found[GainOutcome.NOT_BETTER] / total)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--tokens", type=int, nargs="+", default=[16_384, 262_144, 1_048_576])
    trials, sizes = (arguments := parser.parse_args()).trials, arguments.tokens
    policy = JudgePolicy()
    print(f"{policy.holdout}; {trials} approved gains a row")
    for document in (0.001, 0.01, 0.03):
        for tokens in sizes:
            print(f"\n{tokens:,} tokens, gain differs by {document} bpb from document to document")
            for gain, share in ((3.0, 1.0), (6.0, 1.0), (3.0, 0.4), (3.0, 0.3), (10.0, 0.4), (10.0, 0.3), (10.0, 0.0)):
                ours, theirs = simulate(Setting(tokens, gain, share, document), trials, policy)
                print(f"  gain {gain:4.1f} sigma, {share:4.0%} true   {ours}   | run noise only: {theirs}", flush=True)


if __name__ == "__main__":
    main()
