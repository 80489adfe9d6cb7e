"""What a verifier's memory saves: the runs of a queue of ten proposals against the same incumbent.

Run by name: `uv run python -m tests.benchmarks.bench_queue [--queues N]`. The real climb of the ladder, replay, judge
and verdict, on made-up runs of a project whose best is attested to be 10 σ above its snapshot, and is. Of the ten
proposals six change nothing, three gain 3 σ and one 6 σ.

Between verdicts a verifier keeps its noise record, and the values of the snapshot's last runs, which count as new for
an hour (here: for the whole queue). It never keeps the incumbent's runs: each verdict makes its own, in turn with the
candidate's, under the same salts. "Forgetful" is the same verifier with an empty home for each proposal.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from common.terminal import View
from tests import local
from tests.trainer.judging.fakes import SIGMA, FakeMeasurer, bench_of
from trainer.judging import replay
from trainer.judging.climb import Step, climb
from trainer.judging.holdout import seed_of
from trainer.judging.judge import judge
from trainer.judging.ladder import INCUMBENT, SNAPSHOT, Rung
from trainer.judging.policy import JudgePolicy
from trainer.judging.runs import values
from trainer.judging.verdict import decide
from trainer.measurement.bench import TRUSTED
from trainer.project import task
from trainer.statistics.comparison import Arm

POLICY = JudgePolicy().at_look(1)
LEAD, BASE = 10 * SIGMA, 2.5
GAINS = (0, 3, 0, 0, 6, 0, 3, 0, 0, 3)  # σ over the incumbent
TASK = task.read(local.artifacts())


class Calm:
    """Stands for the watch over this machine, which has nothing to do with made-up runs."""

    def __init__(self, *_: object) -> None: ...

    def calm(self) -> None:
        """Nothing to wait for."""

    def after(self, _: float) -> tuple[str, ...]:
        """Nothing was amiss."""
        return ()


def _code(name: str) -> dict[str, bytes]:
    return {**TASK.files, "train.py": name.encode()}


def queue(folder: Path, number: int, *, forget: bool) -> Counter[str]:
    """The runs by arm, and the verdicts, of one queue."""
    gain = {b"snapshot": 0.0, b"incumbent": LEAD} | {
        f"{index}".encode(): LEAD + sigmas * SIGMA for index, sigmas in enumerate(GAINS)
    }
    measurer = FakeMeasurer(lambda source, _: BASE - gain[source], seed=number)
    steps = [Step(Rung(INCUMBENT, LEAD), _code("incumbent")), Step(Rung(SNAPSHOT, 0.0), _code("snapshot"))]
    counts: Counter[str] = Counter()
    for index, sigmas in enumerate(GAINS):
        home = folder / (str(index) if forget else "home")
        home.mkdir(exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(replay, "Watch", Calm)
            bench, seed = bench_of(TASK, home, measurer, patch), number * len(GAINS) + index
            noise, view = bench.noise(), View(quiet=True)
            drawn = replay.draw_holdout(bench, POLICY.holdout, seed_of(bytes(32), seed), public=False, say=view.say)
            with drawn as (rows, bench):
                found = climb(bench, steps, _code(str(index)), rows, policy=POLICY, noise=noise, seed=seed, view=view)
        bench.learn_noise([values(found.runs, arm) for arm in (INCUMBENT, SNAPSHOT)])
        counts += Counter(run.arm for run in found.runs)
        judged = judge(
            (), found.runs, noise=noise, seed=seed, budget_seconds=6.0, method=TRUSTED,
            policy=POLICY.beyond(found.lead), reference=found.reference,
        )  # fmt: skip
        kind = decide(judged.evidence, POLICY.verdict).kind
        counts[f"{'gain' if sigmas else 'no-op'} {kind}"] += 1
    return counts


def main() -> None:
    """Print runs a queue, for both verifiers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queues", type=int, default=40)
    chosen = parser.parse_args()
    for forget in (True, False):
        total: Counter[str] = Counter()
        for number in range(chosen.queues):
            with tempfile.TemporaryDirectory() as folder:
                total += queue(Path(folder), number, forget=forget)
        arms = (Arm.CANDIDATE.value, INCUMBENT, SNAPSHOT)
        shown = ", ".join(f"{total[arm] / chosen.queues:.1f} of the {arm}" for arm in arms)
        runs = sum(total[arm] for arm in arms) / chosen.queues
        said = ", ".join(f"{what} {count}" for what, count in sorted(total.items()) if what not in arms)
        print(f"{'forgetful' if forget else 'as it is'}: {runs:.1f} runs a queue ({shown}); {said}", flush=True)


if __name__ == "__main__":
    main()
