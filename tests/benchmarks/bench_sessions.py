"""How long a session takes to its first, second and third submission, on one GPU and on several side by side.

Run by name: `uv run python -m tests.benchmarks.bench_sessions [--sessions 30] [--gpus 1 2 4]`. The real loop,
proposers, policy and confirming test, from the tests' script of upstream's family; chain and machine are fakes, and
what a run comes to is made up: the gains that changes of upstream's script showed on an H200 at 60 s of training
(docs/measurements.md), nothing for all others, and noise of 0.009 bpb. A round is one run, or as many as there are
GPUs at once; each takes the same time. Prints the median round of each submission, the share of sessions with a third
within 24 rounds, which is what half an hour has at 60 s, and the ratio of the third's median to that on the first
number of GPUs.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from miner.context.goals import Goals
from miner.proposers.base import Candidate, Context
from miner.proposers.choice import Proposing
from miner.proposers.space import orthogonalises
from miner.session import frontier
from miner.session.frontier import FetchedBest
from miner.session.loop import Miner
from miner.trials import measuring
from tests.miner.fakes import Fake
from tests.miner.proposers.test_edits import SOURCES
from trainer.judging import replay
from trainer.measurement.abreast import Say
from trainer.measurement.run import Run
from trainer.statistics.comparison import Arm
from trainer.statistics.noise import NoiseRecord

SOURCE = SOURCES["classic"]
BASE, NOISE, HALF_HOUR, MOST = 0.9, 0.009, 24, 80
WIDTHS = {0.75: 0.02, 1.0: 0.0, 1.5: -0.025, 2.0: -0.042}  # where Muon trains it, by the factor
BATCHES = {0.5: 0.012, 1.0: 0.0, 2.0: 0.004}
FAR = 0.03  # what lies beyond all that was measured loses


class _Over(Exception):
    """Three were submitted, or MOST rounds have passed."""


def truth(source: str) -> float:
    """What a script truly comes to, in bpb."""
    muon, value = orthogonalises(source), BASE
    value -= 0.045 * ("nn.silu(x)" in source) + 0.057 * muon + 0.018 * ("pair" in source and "pair" not in SOURCE)
    width, batch = (_number(source, name) / _number(SOURCE, name) for name in ("ASPECT_RATIO", "TOTAL_BATCH_SIZE"))
    return value + (WIDTHS.get(width, FAR) if muon else 2 * FAR * (width != 1)) + BATCHES.get(batch, FAR)


def _number(source: str, name: str) -> float:
    """A constant's value, which scripts write as a number or a power."""
    found = re.search(rf"^{name} = (\d+)(?:\*\*(\d+))?", source, re.MULTILINE)
    assert found is not None
    return float(int(found[1]) ** int(found[2] or 1))


class _Proposer:
    """The default ones, on a machine that is called an H200."""

    name = "default"

    def __init__(self, seed: int) -> None:
        self._mix = Proposing().build(seed=seed, files={}, say=lambda _: None)

    def propose(self, context: Context) -> Candidate | None:
        return self._mix.propose(replace(context, hardware="NVIDIA H200", rehearse=None))


def session(folder: Path, gpus: int, seed: int) -> list[int]:
    """The rounds after which each proposal was submitted."""
    rng, rounds, side_by_side = random.Random(seed), 0, False
    fake = Fake(folder, {}, goals=Goals(submissions=0), source=SOURCE)
    submitted, submit = list[int](), fake.chain.submit

    def value(source: str, _: Arm) -> float:
        nonlocal rounds
        rounds += not side_by_side
        if rounds > MOST or len(submitted) == 3:
            raise _Over
        return truth(source) + rng.gauss(0, NOISE)

    def at_once(runs: Sequence[Callable[[Say], Run]], show: Say) -> list[Run]:
        nonlocal rounds, side_by_side
        rounds, side_by_side = rounds + 1, True
        try:
            return [run(show) for run in runs]
        finally:
            side_by_side = False

    def noted(*given: object, **named: object) -> object:
        submitted.append(rounds)
        return submit(*given, **named)

    fake.machine.values, fake.machine.record, fake.machine.learns = value, NoiseRecord(), True
    fake.machine.gpus = tuple(map(str, range(gpus)))
    fake.chain.submit = noted  # type: ignore[method-assign]
    best = FetchedBest("00" * 32, SOURCE, f"{BASE:.6f}", "somebody")
    with (
        patch.object(measuring, "abreast", at_once),
        patch.object(replay, "abreast", at_once),
        patch.object(frontier, "fetch", lambda *_: best),
    ):
        try:
            Miner(fake.context, _Proposer(seed)).run()
        except _Over:
            return submitted
    return submitted


def sessions(count: int, gpus: int) -> list[list[int]]:
    """The submissions of so many sessions."""
    found = []
    for seed in range(count):
        with tempfile.TemporaryDirectory() as folder:
            found.append(session(Path(folder), gpus, seed))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=30)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2, 4])
    options = parser.parse_args()
    alone = 0.0
    for gpus in options.gpus:
        found = sessions(options.sessions, gpus)
        medians = [statistics.median(s[k] if len(s) > k else MOST for s in found) for k in range(3)]
        alone = alone or medians[2]
        within = sum(len(s) > 2 and s[2] <= HALF_HOUR for s in found)
        said = ", ".join(f"{median:g}" for median in medians)
        print(
            f"{gpus} GPU{'s' * (gpus > 1)}: submissions after {said} rounds; a third within {HALF_HOUR} in {within} of "
            f"{len(found)}; {medians[2] / alone:.2f} of the time on {options.gpus[0]}",
            flush=True,
        )


if __name__ == "__main__":
    main()
