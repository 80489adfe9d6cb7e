"""A project over time: 200 proposals by honest miners and by three kinds of attackers, judged by the real verdict code.

    python -m tests.benchmarks.bench_seasons [--seasons N] [--first N] [--proposals N] [--risk P]

Only runs are made up: their value is what the code is worth at that time, with the luck of the pair's salt and the
machine's pace as measured on the smoke project (`bench_levels`). Which look it is, the comparison, the holdout text,
the ladder, verdict and score are the verifier's own functions. Who proposes:

- honest miners: of their candidates a fifth are better, by 2 sigma in the mean, and they submit what passes the same
  test on their own machine, ladder and all, and is rejected with a chance of at most `risk` by the miner's own outlook.
  Where the best is stepped over, or crashes, they go on from the rung that holds, and what they gain there adds up;
- resubmitters of the best code in another dress, three authors by turns;
- sleepers: a code with a true gain of 6 sigma that, once it is the best, trains like the snapshot or crashes, and then
  the same model with a later date, again and again;
- gamblers: code that changes nothing but scatters four times as much, every time another.

What is released is reviewed again after every fifth proposal, three times, and then expires. "overtaken" is what was no
better any more when it was judged last, because something else had been approved meanwhile. Over all seasons: how far
the best on chain was above what the best code is worth (in sigma, at its worst), what became of each kind, and what it
earned, in stakes (a reward of one stake, as at the live project, where both are a token) and in SOL with the rent and
fees of a submission there.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial

from chain.money import score
from miner.staking.outlook import MOST_RISK, Market, outlook
from tests.benchmarks.bench_levels import PACE_SHARE, SEED_SHARE
from tests.trainer.judging.cases import failing, replay_run
from trainer.judging import trial
from trainer.judging.climb import asked
from trainer.judging.ladder import INCUMBENT, SNAPSHOT, Known, Rung, footing, lead, over_snapshot
from trainer.judging.policy import JudgePolicy
from trainer.judging.runs import ReplayRun, against, values
from trainer.judging.verdict import Verdict, VerdictKind, decide
from trainer.machine.hardware import usable_cores
from trainer.measurement.run import Run
from trainer.statistics.comparison import Arm
from trainer.statistics.error_rates import LookEvidence, incumbent_lead
from trainer.statistics.noise import NoiseRecord
from trainer.statistics.shrinkage import posterior, usual
from verifier.looks import Inspection, number, own_behaviour
from verifier.replay import Judged, judge

SIGMA, START, GAIN = 0.01, 50.0, 2.0
PRICE, RENT, FEES = 224_000, 5_400_960, 5_000  # lamports, at the live project in November 2026
REVIEWS, AGAIN = 3, 5
POLICY = JudgePolicy()
CONVENTION = score.infer(50_000_000, Decimal("50.0"), minimize=True)


@dataclass(slots=True)
class Code:
    """A train.py: what it is worth (bpb) until it falls asleep, and then; None where it crashes. `scatter` in sigma."""

    name: str
    kind: str
    author: str
    worth: float
    scatter: float = 1.0
    asleep: bool = False
    then: float | None = None
    source: str = ""

    @property
    def now(self) -> float | None:
        return self.then if self.asleep else self.worth


SNAPSHOT_CODE = Code("snapshot", "", "", START)


@dataclass(slots=True)
class Machine:
    """Makes up runs and remembers its noise."""

    rng: random.Random
    noise: NoiseRecord = field(default_factory=NoiseRecord)

    def run(self, code: Code, arm: str, salt: float) -> ReplayRun:
        """A run under a salt that is worth `salt` of luck."""
        if code.now is None:
            return failing(arm, "crash")
        shared = SEED_SHARE * salt + PACE_SHARE * self.rng.gauss(0, 1)
        own = (code.scatter**2 - 1) ** 0.5 * self.rng.gauss(0, 1) if code.scatter > 1 else 0.0
        value = code.now + SIGMA * (shared + own)
        return replay_run(arm, value, value + 0.1)

    def compare(
        self, incumbent: Code, candidate: Code, policy: JudgePolicy, seed: int, runs: list[ReplayRun], reference: str
    ) -> None:
        """What `trainer.judging.replay` does: run both arms until the comparison has an answer; into `runs`."""
        ahead = incumbent_lead(self.noise.df)

        def execute(coming: Sequence[Arm]) -> list[Run]:
            arm = coming[0]
            name = reference if arm is Arm.INCUMBENT else arm.value
            count = sum(run.arm == name and run.val_bpb is not None for run in runs)
            salt = random.Random(f"{seed} {count + (ahead if arm is Arm.CANDIDATE else 0)}").gauss(0, 1)
            runs.append(self.run(candidate if arm is Arm.CANDIDATE else incumbent, name, salt))
            return [replace(runs[-1], arm=arm.value).as_run()]

        trial.compare(
            execute,
            history=[],
            noise=self.noise,
            policy=policy.comparison,
            seed=seed,
            done=[run.as_run() for run in against(runs, reference)],
        )


@dataclass(frozen=True, slots=True)
class Stand:
    """What a candidate is judged against: the arm's code, the policy, what the chain's best is ahead (bpb), and the
    code's score on chain where that is not the best's."""

    arm: str
    code: Code
    policy: JudgePolicy
    lead: float = 0.0
    score: int | None = None


@dataclass(slots=True)
class Kept:
    """An open proposal: the `first` best it was judged against, its runs against the present one, its reviews."""

    number: int
    code: Code
    first: str
    against: str = ""
    runs: list[ReplayRun] = field(default_factory=list)
    noise: NoiseRecord = field(default_factory=NoiseRecord)
    seed: int = 0
    reviews: int = 0


@dataclass(slots=True)
class Tally:
    """Of a season: outcomes by kind, the largest excess of the chain's best (sigma), and what approvals were worth."""

    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    excess: float = 0.0
    runs: int = 0
    gained: float = 0.0


class Season:
    """The chain, one verifier and all who propose."""

    def __init__(self, seed: int, risk: float) -> None:
        self.risk = risk
        self.rng = random.Random(seed)
        self.verifier, self.miner = Machine(random.Random(f"v {seed}")), Machine(random.Random(f"m {seed}"))
        self.best, self.ladder = SNAPSHOT_CODE, [(SNAPSHOT_CODE, 50_000_000, 0)]
        self.looks: list[Inspection] = []
        self.open: list[Kept] = []
        self.tally = Tally()
        self.count = 0
        self.sleeper: Code | None = None

    def play(self, proposals: int) -> Tally:
        kinds = ["honest"] * 10 + ["resubmitter"] * 5 + ["sleeper"] * 2 + ["gambler"] * 3
        for turn in range(proposals):
            code = self.proposal(self.rng.choice(kinds))
            if code is None:
                continue
            self.count += 1
            self.review(Kept(self.count, code, self.best.name))
            if turn % AGAIN == AGAIN - 1:
                waiting, self.open = self.open, []
                for kept in waiting:
                    self.review(kept)
        for kept in self.open:
            self.tally.ends[kept.code.kind, self.end(kept, VerdictKind.RELEASE)] += 1
        self.tally.gained = (START - self.true_best()) / SIGMA
        return self.tally

    # --- who proposes ---

    def proposal(self, kind: str) -> Code | None:
        number = self.count + 1
        match kind:
            case "honest":
                return self.honest(f"code {number}")
            case "resubmitter":
                best = self.best
                worth = best.worth if best.now is None else best.now
                return Code(best.name, kind, f"resubmitter {number % 3}", worth, source=best.source or best.name)
            case "sleeper":
                return self.sleep(f"code {number}")
            case _:
                level = self.best.now if self.best.now is not None else START
                return Code(f"code {number}", kind, "gambler", level, scatter=4.0, source=f"code {number}")

    def honest(self, name: str) -> Code | None:
        """What passes its author's own confirming test, of 40 candidates; None if none does."""
        base = Stand(INCUMBENT, self.best, POLICY.at_look(1))
        head, gained = replace(self.best, worth=START if self.best.now is None else self.best.now, asleep=False), 0.0
        for _ in range(40):
            gain = self.rng.expovariate(1 / GAIN) * SIGMA if self.rng.random() < 0.2 else 0.0
            code = Code(name, "honest", name, head.worth - gain, source=name)
            if base.lead:  # beside an earlier best, what is better adds up, and is confirmed once it exceeds the lead
                seen, verdict, _ = self.confirm(code, Stand(INCUMBENT, head, POLICY.at_look(1)))
                if verdict.kind is not VerdictKind.APPROVE or seen is None:
                    continue
                head, gained = code, gained + seen.delta
                if gained <= base.lead:
                    continue
            seen, verdict, stand = self.confirm(code, base)
            if verdict.kind is VerdictKind.APPROVE and seen is not None:
                expected = posterior(usual(seen.sigma), seen.delta, seen.sigma * seen.scale)
                if outlook(seen, expected, stand.policy, Market(PRICE), stake=1).risk <= self.risk:
                    return code
            elif stand.lead and not base.lead:
                base, head = stand, stand.code
        return None

    def confirm(self, code: Code, base: Stand) -> tuple[LookEvidence | None, Verdict, Stand]:
        """An honest miner's confirming test, against the best on chain with the ladder, or against another code."""
        runs: list[ReplayRun] = []
        seed, noise = self.rng.getrandbits(32), self.miner.noise
        if base.code is self.best:
            base = self.climb(self.miner, code, base.policy, seed, runs)
        else:
            self.miner.compare(base.code, code, base.policy, seed, runs, base.arm)
        found, verdict = self.judged(runs, noise, seed, base)
        self.miner.noise = noise.update([values(runs, INCUMBENT)])
        return found.comparison, verdict, base

    def sleep(self, name: str) -> Code:
        """The next of the sleeper's codes, all worth the same; the last falls asleep once it is the best."""
        if self.sleeper is not None and self.best is self.sleeper:
            self.best.asleep, self.best.then = True, self.rng.choice((START, None))
        worth = self.sleeper.worth if self.sleeper else self.best.worth - 6 * SIGMA
        self.sleeper = Code(name, "sleeper", "sleeper", worth, source=name)
        return self.sleeper

    # --- the verifier ---

    def review(self, kept: Kept) -> None:
        """One check of a proposal, and what follows on chain."""
        best = self.best.name
        if kept.against != best:  # other questions begin anew
            kept.against, kept.runs, kept.seed = best, [], self.rng.getrandbits(32)
            kept.noise = self.verifier.noise
        code, before = kept.code, len(kept.runs)
        look = Inspection("sim", 0, kept.number, best, code.name, code.source, code.author)
        policy = POLICY.at_look(number(self.looks, look, {}))
        judged, verdict = self.check(kept, policy)
        self.looks.append(replace(look, own=own_behaviour(judged, verdict, kept.runs)))
        self.tally.runs += len(kept.runs) - before
        kept.reviews += 1
        if verdict.kind is VerdictKind.APPROVE:
            assert judged.score is not None
            self.ladder.append((code, judged.score, kept.number))
            self.best = code
            self.excess()
        elif verdict.kind is VerdictKind.RELEASE and kept.reviews <= REVIEWS:
            self.open.append(kept)
            return
        self.tally.ends[code.kind, self.end(kept, verdict.kind)] += 1

    def end(self, kept: Kept, kind: VerdictKind) -> str:
        """What became of a proposal, in a word."""
        if kind is VerdictKind.APPROVE:
            return "approve"
        if kept.first != self.best.name and kept.code.worth >= self.best.worth:
            return "overtaken"
        return "expired" if kind is VerdictKind.RELEASE else "reject"

    def check(self, kept: Kept, policy: JudgePolicy) -> tuple[Judged, Verdict]:
        """What `verifier.replay` does, with these runs."""
        machine = replace(self.verifier, noise=kept.noise)
        stand = self.climb(machine, kept.code, policy, kept.seed, kept.runs)
        shown = over_snapshot(kept.runs, Known()) if len(self.ladder) > 1 else None
        answer = self.judged(
            kept.runs, kept.noise, kept.seed, stand, None if shown is None else (self.ladder[0][1], shown)
        )
        self.verifier.noise = self.verifier.noise.update([values(kept.runs, arm) for arm in (INCUMBENT, SNAPSHOT)])
        return answer

    def climb(self, machine: Machine, code: Code, policy: JudgePolicy, seed: int, runs: list[ReplayRun]) -> Stand:
        """What `trainer.judging.climb` does, with these runs."""
        machine.compare(self.best, code, policy, seed, runs, INCUMBENT)
        if len(self.ladder) == 1 or not asked(runs, machine.noise, policy):
            return Stand(INCUMBENT, self.best, policy)
        steps = {INCUMBENT: self.ladder[-1]}
        steps |= {f"proposal {step[2]}": step for step in self.ladder[-2:0:-1][: policy.ladder.rungs]}
        steps[SNAPSHOT] = self.ladder[0]
        rungs = [Rung(arm, (step[1] - self.ladder[0][1]) / 1e6) for arm, step in steps.items()]
        while (found := footing(rungs, runs, Known(), machine.noise, policy.ladder)).reference is None:
            runs.append(machine.run(steps[found.ask][0], found.ask, self.rng.gauss(0, 1)))
        arm, ahead = found.reference.arm, lead(rungs, found.reference)
        stand = Stand(arm, steps[arm][0], policy.beyond(ahead), ahead, steps[arm][1])
        if arm != INCUMBENT:
            machine.compare(stand.code, code, stand.policy, seed, runs, arm)
        return stand

    def judged(
        self, runs: list[ReplayRun], noise: NoiseRecord, seed: int, stand: Stand, over: tuple[int, float] | None = None
    ) -> tuple[Judged, Verdict]:
        found = judge(
            (),
            runs,
            noise=noise,
            seed=seed,
            budget_seconds=6.0,
            method="trusted",
            best_score=self.ladder[-1][1],
            convention=CONVENTION,
            policy=stand.policy,
            reference=stand.arm,
            reference_score=stand.score,
            over=over,
        )
        return found, decide(found.evidence, stand.policy.verdict)

    def true_best(self) -> float:
        """What the best of the approved codes is worth, awake."""
        return min(code.worth for code, _, _ in self.ladder)

    def excess(self) -> None:
        on_chain = float(CONVENTION.to_metric(self.ladder[-1][1]))
        self.tally.excess = max(self.tally.excess, (self.true_best() - on_chain) / SIGMA)


def season(seed: int, proposals: int, risk: float = MOST_RISK) -> Tally:
    """A season of so many turns."""
    return Season(seed, risk).play(proposals)


def profit(ends: Counter[tuple[str, str]], kind: str) -> tuple[int, float]:
    """What a kind earned: in stakes, and in SOL with the rent and fees of each submission."""
    mine = {end: count for (whose, end), count in ends.items() if whose == kind}
    stakes = mine.get("approve", 0) - sum(count for end, count in mine.items() if end != "approve")
    return stakes, (stakes * PRICE - sum(mine.values()) * (RENT + FEES)) / 1e9


def lines(tallies: list[Tally]) -> Iterator[str]:
    """The figures of all seasons."""
    ends: Counter[tuple[str, str]] = sum((tally.ends for tally in tallies), Counter())
    for kind in ("honest", "resubmitter", "sleeper", "gambler"):
        mine = {end: ends[kind, end] for end in ("approve", "reject", "expired", "overtaken")}
        stakes, sol = profit(ends, kind)
        yield f"{kind:<12} {sum(mine.values()):6d} proposals: {mine}; {stakes:+d} stakes, {sol:+.2f} SOL"
    excess = sorted(tally.excess for tally in tallies)
    yield f"chain above truth, largest of a season: median {excess[len(excess) // 2]:.2f}, worst {excess[-1]:.2f} sigma"
    yield f"over 2 sigma in {sum(each > 2 for each in excess)} of {len(excess)} seasons"
    yield f"true gain of a season: {sum(tally.gained for tally in tallies) / len(tallies):.1f} sigma in the mean"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seasons", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the number (the seed) of the first season")
    parser.add_argument("--proposals", type=int, default=200)
    parser.add_argument("--risk", type=float, default=MOST_RISK, help="the largest foretold chance of a rejection")
    given = parser.parse_args()
    seeds, tallies = range(given.first, given.first + given.seasons), []
    with ProcessPoolExecutor(usable_cores()) as pool:
        played = pool.map(partial(season, proposals=given.proposals, risk=given.risk), seeds)
        for seed, tally in zip(seeds, played, strict=True):
            gamblers = tally.ends["gambler", "approve"]
            print(f"season {seed}: {tally.excess:.2f} sigma above truth, {gamblers} gamblers approved", flush=True)
            tallies.append(tally)
    print("\n".join(lines(tallies)))


if __name__ == "__main__":
    main()
