"""What claims and forecasts are worth of gains that were chosen for looking good.

    python -m tests.benchmarks.bench_claims [--sessions N]

Sessions of 60 candidates whose truth is known: a tenth are better by exponential gains, a fifth are nothing, the rest
are worse. Each is measured by one run against three of the incumbent. What looks 2 sigma better is put through the
judge's own test, and what passes would be submitted. A row has the mean of what is claimed less the truth, as measured
and shrunk (`trainer.statistics.shrinkage`), each with its root mean square error; then how often the outlook foretells
a verifier's approval and rejection, from either, and how often its own test with its own runs ends so. All in sigma.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from dataclasses import dataclass

from miner.staking.outlook import Market, Outlook, outlook
from trainer.judging.judge import suggested
from trainer.judging.policy import JudgePolicy
from trainer.statistics.comparison import Answer, Arm, Decision, TrialSamples, decide
from trainer.statistics.error_rates import LookEvidence
from trainer.statistics.noise import NoiseRecord
from trainer.statistics.shrinkage import Pair, Posterior, fitted, together

CANDIDATES, KEEP, BETTER = 60, 2.0, 0.1
ERROR = math.sqrt(1 + 1 / 3)
POLICY = JudgePolicy().at_look(1)


@dataclass(frozen=True, slots=True)
class Submitted:
    """What would be submitted: the true gain, what was measured and what is claimed of it, both forecasts, and the
    verifier's answer."""

    truth: float
    measured: float
    claimed: float
    plain: Outlook
    shrunk: Outlook
    approved: bool
    rejected: bool


def drawn(rng: random.Random, gain: float) -> float:
    """A candidate's true gain."""
    kind = rng.random()
    if kind < BETTER:
        return rng.expovariate(1 / gain)
    return 0.0 if kind < BETTER + 0.2 else -rng.expovariate(1 / (3 * gain))


def judged(rng: random.Random, truth: float) -> Decision:
    """A trial by the judge's test, of runs that scatter by 1."""
    values: dict[Arm, list[float]] = {arm: [] for arm in Arm}
    noise, seed = NoiseRecord(20.0, 20.0), rng.getrandbits(32)
    while True:
        samples = TrialSamples(values[Arm.INCUMBENT], values[Arm.CANDIDATE])
        decision = decide(samples, noise, POLICY.comparison, seed=seed)
        if decision.next_arm is None:
            return decision
        level = 100.0 - (truth if decision.next_arm is Arm.CANDIDATE else 0.0)
        values[decision.next_arm].append(level + rng.gauss(0, 1.0))


def session(rng: random.Random, gain: float) -> list[Submitted]:
    """What one session submits."""
    pairs: list[Pair] = []
    kept: list[tuple[float, Pair]] = []
    for _ in range(CANDIDATES):
        truth = drawn(rng, gain)
        pairs.append((truth + rng.gauss(0, ERROR), ERROR))
        if pairs[-1][0] > KEEP:
            kept.append((truth, pairs[-1]))
    prior, found = fitted(pairs, 1.0), []
    for truth, pair in kept:
        ours = judged(rng, truth)
        seen = ours.evidence
        if ours.kind is not Answer.APPROVE or seen is None:
            continue
        plain = Posterior(seen.delta, seen.sigma * seen.scale)
        shrunk = together(prior, [pair], (seen.delta, plain.sd))
        theirs = judged(rng, truth)
        assert theirs.evidence is not None
        rejected = theirs.kind is Answer.REJECT and not suggested(theirs.evidence, POLICY.suggestive)
        before, after = _outlook(seen, plain), _outlook(seen, shrunk)
        found.append(Submitted(truth, seen.delta, shrunk.mean, before, after, theirs.kind is Answer.APPROVE, rejected))
    return found


def _outlook(seen: LookEvidence, gained: Posterior) -> Outlook:
    return outlook(seen, gained, POLICY, Market(1), stake=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sessions", type=int, default=400)
    sessions = parser.parse_args().sessions
    print("mean gain   submitted   bias (rms) measured, shrunk        approved: measured, shrunk, true   rejected")
    for gain in (1.0, 2.0, 5.0):
        rng = random.Random(1)
        found = [one for _ in range(sessions) for one in session(rng, gain)]
        errors = [[one.measured - one.truth for one in found], [one.claimed - one.truth for one in found]]
        bias = [f"{statistics.fmean(e):+.3f} ({math.sqrt(statistics.fmean(x * x for x in e)):.3f})" for e in errors]
        approved = [statistics.fmean(getattr(one, name).approved for one in found) for name in ("plain", "shrunk")]
        rejected = [statistics.fmean(getattr(one, name).rejected for one in found) for name in ("plain", "shrunk")]
        approved.append(statistics.fmean(one.approved for one in found))
        rejected.append(statistics.fmean(one.rejected for one in found))
        print(
            f"{gain:9.1f} {len(found):11d}   {bias[0]:>16} {bias[1]:>16}        "
            + " ".join(f"{value:6.1%}" for value in approved)
            + "        "
            + " ".join(f"{value:6.1%}" for value in rejected),
            flush=True,
        )


if __name__ == "__main__":
    main()
