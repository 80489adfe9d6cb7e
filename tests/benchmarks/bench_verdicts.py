"""How often a verifier is right about honest proposals: no-ops and real improvements through the whole path.

    python -m tests.benchmarks.bench_verdicts --home DIR [--each 20] [--workers 1] [--here] [--seeds]

Publishes the smoke project on the embedded network under DIR if there is none, submits `--each` no-ops (only the
seed differs) and `--each` real improvements (half the batch), checks every proposal without settling, and
prints the verdicts of both kinds with the mean number of runs. Nothing is approved on chain, so all meet the same
incumbent. `--workers` checks at once, which makes the machine louder; `--here` measures with this interpreter's own
packages where uv cannot build the bundle's environment;
`--seeds` submits the no-ops only: nobody may buy an approval with a seed.

Last comes how much of the checks' time was training, what else their runs took, and what was spent between runs.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests import local

NO_OP = "SEED"
IMPROVEMENT = {"BATCH_SIZE": 4}


def one(home: Path, proposal: int) -> dict[str, Any]:
    """Check one proposal in a process of its own; what `verifier check --json` prints."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_verdicts", "--home", str(home), "--only", str(proposal)]
    command += ["--here"] if HERE else []
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode != 0:
        return {"verdict": "failed", "reason": done.stderr.strip()[-300:], "runs": []}
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"wall": time.monotonic() - began}


HERE = False


def use_this_environment() -> None:
    """Measure with the packages of this interpreter instead of the bundle's locked ones."""
    from trainer.machine import environment

    environment.prepare = lambda *_, **__: environment.Environment.running()


def submit_all(home: Path, each: int, wanted: tuple[str, ...] = ("no-op", "improvement")) -> dict[int, str]:
    """The proposals, by id: what kind each is."""
    from miner.session import start
    from miner.session.own_file import submit_file
    from trainer.project import hyperparameters

    kinds: dict[int, str] = {}
    options: dict[str, Any] = dict.fromkeys(("keypair", "reward_recipient"))
    options |= {"stake": 1, "yes": True, "trust_harness": False, "quiet": True}
    with local.connect(home) as connection, start.started(connection, None, **options) as session:
        source = session.task.incumbent["train.py"].decode()
        claim = str(session.task.baseline - Decimal("0.05"))
        for number in range(each):
            for kind in wanted:
                changes = {NO_OP: 1000 + number} | (IMPROVEMENT if kind == "improvement" else {})
                file = home / "candidate.py"
                file.write_text(hyperparameters.replace(source, changes))
                proposal, _ = submit_file(session, file, claim, force=True)
                kinds[proposal] = kind
    return kinds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--here", action="store_true")
    parser.add_argument("--seeds", action="store_true", help="only changes of the seed")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    global HERE
    HERE = options.here
    if HERE:
        use_this_environment()
    home = options.home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    if options.only is not None:
        from verifier.cli import main as verifier

        try:
            verifier(["check", str(options.only), "--home", str(home), "--json"])
        except SystemExit as left:
            sys.exit(0 if left.code in (0, 3, 4) else 1)
    started = time.monotonic()
    kinds = submit_all(home, options.each, ("no-op",) if options.seeds else ("no-op", "improvement"))
    found: dict[int, dict[str, Any]] = {}
    with ThreadPoolExecutor(options.workers) as pool:
        waiting = {pool.submit(one, home, proposal): proposal for proposal in kinds}
        for done in as_completed(waiting):
            proposal, result = waiting[done], done.result()
            found[proposal] = result
            delta = result.get("delta")
            print(
                f"{time.monotonic() - started:6.0f} s  {kinds[proposal]:<12} {result['verdict']} ({result['reason']})"
                + (f"  delta {delta:+.4f}, {len(result['runs'])} runs" if delta is not None else ""),
                flush=True,
            )
    for kind in dict.fromkeys(kinds.values()):
        mine = [found[proposal] for proposal in kinds if kinds[proposal] == kind]
        verdicts = collections.Counter(f"{result['verdict']} ({result['reason']})" for result in mine)
        arms = [[run["arm"] for run in result["runs"]] for result in mine if result["runs"]]
        deltas = [result["delta"] for result in mine if result.get("delta") is not None]
        print(f"{kind:<12} {len(mine)} proposals: " + ", ".join(f"{n} {v}" for v, n in verdicts.most_common()))
        if arms and deltas:
            print(
                f"{'':<12} mean runs: candidate {statistics.fmean(a.count('candidate') for a in arms):.1f}, "
                f"incumbent {statistics.fmean(a.count('incumbent') for a in arms):.1f}; "
                f"delta mean {statistics.fmean(deltas):+.4f}, standard deviation {statistics.pstdev(deltas):.4f} bpb"
            )
    sigmas = [result["sigma"] for result in found.values() if result.get("sigma")]
    if sigmas:
        print(f"sigma of one run as estimated: median {statistics.median(sigmas):.4f} bpb")
    print(shares(list(found.values())))
    print(f"{time.monotonic() - started:.0f} s with {options.workers} workers")


def shares(results: Sequence[Mapping[str, Any]]) -> str:
    """Where the wall time of checks that ran anything went, in percent of it."""
    ran = [result for result in results if result.get("wall") and result["runs"]]
    wall = math.fsum(result["wall"] for result in ran)
    runs = [run for result in ran for run in result["runs"]]
    if not runs:
        return "nothing ran"
    whole, training = (math.fsum(run[key] or 0.0 for run in runs) for key in ("seconds", "train_seconds"))
    return (
        f"of {wall:.0f} s of checks: training {training / wall:.1%}, the rest of their {len(runs)} runs "
        f"{(whole - training) / wall:.1%}, between runs {(wall - whole) / wall:.1%}; "
        f"of a run: {training / whole:.1%} training"
    )


if __name__ == "__main__":
    main()
