"""Record training-loss curves of the smoke project on this machine, for `bench_pruning`.

    python -m tests.benchmarks.record_curves HOME FILE [--rounds 3] [--candidates 40] [--seed 1]

Each round varies one code: the first the smoke baseline, each further one the best that the rounds before
found. A candidate changes one to three constants at random; after every fourth candidate the round's
incumbent runs once more. One run at a time, in sequence, as the protocol's own command runs it. FILE
is written anew after every run, so a recording that is stopped keeps what it has; one that exists is continued.

Two things differ from mining, so that other work on the same machine does not bend the curves and repeats
differ as on a GPU: the script's clock counts its own processor seconds, and each run has a seed of its own.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import os
import random
import re
from pathlib import Path
from typing import Any

from common.files import write_atomic
from trainer.measurement.bench import Bench, open_bench
from trainer.project import hyperparameters, recipe
from trainer.project.hyperparameters import Value

BUDGET_SECONDS, TIMEOUT_SECONDS = 4, 300
CLOCK = "time.process_time()"
_LINE = re.compile(rb"^step \d+ \(\s*([0-9.]+)%\) \| loss: ([0-9.]+) \| tok/sec: ([0-9,]+)", re.MULTILINE)

SCALES = {
    "MATRIX_LR": 6.0,
    "EMBED_LR": 6.0,
    "HEAD_LR": 8.0,
    "WEIGHT_DECAY": 10.0,
    "LOGIT_CAP": 2.0,
}
CHOICES: dict[str, tuple[Value, ...]] = {
    "BATCH_SIZE": (2, 4, 8, 16, 32, 64),
    "DEPTH": (1, 2, 3),
    "MODEL_DIM": (16, 32, 48, 64, 96),
    "MLP_RATIO": (1, 2, 4, 8),
    "WARMUP_FRACTION": (0.0, 0.05, 0.1, 0.25, 0.5),
    "WARMDOWN_FRACTION": (0.0, 0.1, 0.25, 0.5, 0.75, 1.0),
    "FINAL_LR_FRACTION": (0.0, 0.05, 0.2, 1.0),
    "MUON_MOMENTUM": (0.8, 0.9, 0.95, 0.98),
    "ADAM_BETA1": (0.0, 0.5, 0.8, 0.9),
    "ADAM_BETA2": (0.9, 0.95, 0.99),
}
LIKELY = ("MATRIX_LR", "EMBED_LR", "HEAD_LR", "BATCH_SIZE", "DEPTH", "MODEL_DIM", "WARMDOWN_FRACTION")


def vary(rng: random.Random, base: dict[str, Value]) -> dict[str, Value]:
    """A candidate: `base` with one to three constants changed, those in LIKELY twice as often."""
    changed = dict(base)
    names = [*SCALES, *CHOICES, *LIKELY]
    while changed == base:
        for name in {rng.choice(names) for _ in range(rng.choice((1, 1, 2, 3)))}:
            if name in SCALES:
                value = float(str(base[name])) * SCALES[name] ** rng.uniform(-1, 1)
                changed[name] = float(f"{value:.3g}")
            else:
                changed[name] = rng.choice(CHOICES[name])
    return changed


def measure(bench: Bench, files: dict[str, bytes], settings: dict[str, Value]) -> dict[str, Any]:
    """One run's value and curve. Seconds are the script's own share of the budget times the budget."""
    train = hyperparameters.replace(files["train.py"].decode(), settings).replace("time.perf_counter()", CLOCK)
    run = bench.plain_run({**files, "train.py": train.encode()})
    budget = bench.protocol.execution.training_seconds
    lines = _LINE.findall(run.log)
    return {
        "val_bpb": run.val_bpb,
        "failure": run.failure,
        "seconds": round(run.seconds, 2),
        "tokens_per_second": int(lines[-1][2].replace(b",", b"")) if lines else None,
        "curve": [[round(float(share) / 100 * budget, 3), float(loss)] for share, loss, _ in lines],
        "load": round(os.getloadavg()[0], 2),
    }


def found(part: dict[str, Any]) -> dict[str, Value]:
    """The best code of a round."""
    best = min((run for run in part["runs"] if run["changed"] and run["val_bpb"]), key=lambda run: run["val_bpb"])
    return {**part["incumbent"], **best["changed"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("file", type=Path, help="what to write, such as tests/benchmarks/data/smoke_curves.json.gz")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--candidates", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    smoke = recipe.load("smoke")
    files = dict(smoke.files)
    terms = json.loads(files["protocol.json"])
    terms["execution"]["hardTimeoutSeconds"] = TIMEOUT_SECONDS
    terms["execution"]["stopCondition"]["trainingSecondsBudget"] = BUDGET_SECONDS
    files["protocol.json"] = json.dumps(terms).encode()
    bench = open_bench(
        files["protocol.json"], files, home=options.home, say=print, data_arguments=smoke.data_arguments, isolated=False
    )
    rng = random.Random(options.seed)
    varied = {*SCALES, *CHOICES}
    base = {c.name: c.value for c in hyperparameters.find(files["train.py"].decode()) if c.name in varied}
    document: dict[str, Any] = {
        "recorded": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "project": bench.protocol.bundle_id,
        "hardware": bench.machine.as_json(),
        "clock": f"{CLOCK}: seconds are processor seconds of the run; other work shared the machine (load)",
        "budget_seconds": BUDGET_SECONDS,
        "rounds": [],
    }
    if options.file.exists():
        document = json.loads(gzip.decompress(options.file.read_bytes()))
        base = found(document["rounds"][-1])
    for _ in range(options.rounds):
        runs: list[dict[str, Any]] = []
        document["rounds"].append({"incumbent": base, "runs": runs})
        plan = [None] * 3 + [None if i % 5 == 4 else i for i in range(options.candidates * 5 // 4)]
        for step in plan:
            settings = base if step is None else vary(rng, base)
            changed = {name: value for name, value in settings.items() if value != base[name]}
            runs.append({"changed": changed, **measure(bench, files, settings | {"SEED": rng.randrange(1 << 31)})})
            write_atomic(options.file, gzip.compress(json.dumps(document).encode(), 9, mtime=0))
            print(len(runs), changed, runs[-1]["val_bpb"], runs[-1]["failure"], flush=True)
        base = found(document["rounds"][-1])


if __name__ == "__main__":
    main()
