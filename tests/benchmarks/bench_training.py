"""What our train.py reaches beside somebody else's: pairs of runs on the same data, device and chance.

    python -m tests.benchmarks.bench_training THEIRS --seconds 60              another train.py, such as upstream's
    python -m tests.benchmarks.bench_training THEIRS --seconds 60 --pairs 5 --cache DIR --text DIR
    python -m tests.benchmarks.bench_training --size smoke --batches 200       the plain transformer, on any CPU

Both scripts run under this repository's harness, ours and theirs by turns; the runs of a pair share a salt, which is
mixed into the seed and moves the start of the data. THEIRS is a path; without it, `plain_transformer.py` beside this
file. `--set NAME=VALUE` changes a constant of ours, `--theirs-set NAME=VALUE` one of theirs.

`--batches N` stops both after as many batches of the loader instead of seconds: the clock that the scripts see
advances with the data alone, so that the same runs come out however busy the machine is.

The table has val_bpb, tokens and tokens per second of each run; below it stand the mean difference, theirs less ours,
with its 95 % interval (Student's t over the pairs), and what each run took to its second batch, which is start-up and
compilation, and at most of memory.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import resources
from trainer.project import hyperparameters, recipe
from trainer.project.hyperparameters import Value
from trainer.statistics.distributions import approval_point

OURS = resources.ROOT / "trainer" / "train.py"
PLAIN = Path(__file__).with_name("plain_transformer.py")
RECIPES = {"smoke": "smoke", "full": "armlx"}
TIMEOUT_SECONDS = 1800.0

# Runs a script with a salt and a budget, and reports what only its own process knows.
LAUNCHER = """
import json, sys, time
begin = time.monotonic()
script, salt, seconds, batches = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
import mlx.core as mx
import prepare
report = {}
drawn, tokens, seed, loader_of, evaluate = 0, 0, mx.random.seed, prepare.make_dataloader, prepare.evaluate_bpb
prepare.TIME_BUDGET = float(batches) if batches else seconds
mx.random.seed = lambda value: seed(value + 1_000_003 * salt)
if batches:
    time.time = time.perf_counter = lambda: float(drawn)
def make_dataloader(tokenizer, batch_size, seq_len, split, *more, **named):
    global drawn, tokens
    loader = loader_of(tokenizer, batch_size, seq_len, split, *more, **named)
    if split != "train":
        yield from loader
    for _ in range(160 * salt // batch_size):
        next(loader)
    for batch in loader:
        drawn += 1
        tokens += batch_size * seq_len
        if drawn == 2:
            report["startup"] = time.monotonic() - begin
        yield batch
def evaluate_bpb(*given):
    report["peak"] = mx.get_peak_memory()
    report["val_bpb"] = evaluate(*given)
    return report["val_bpb"]
prepare.make_dataloader, prepare.evaluate_bpb = make_dataloader, evaluate_bpb
exec(compile(open(script).read(), script, "exec"), {"__name__": "__main__"})
print("\\n" + json.dumps(report | {"tokens": tokens, "device": str(mx.default_device())}))
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One run: bits per byte, tokens trained on and the seconds of it, seconds of start-up, bytes at the peak."""

    val_bpb: float
    tokens: int
    seconds: float
    startup: float
    peak: int
    device: str


@dataclass(frozen=True, slots=True)
class Bench:
    """A folder with the harness in it and its data. Runs stop after `batches`, or where that is 0 after `seconds`."""

    folder: Path
    cache: Path
    seconds: float = 60.0
    batches: int = 0

    def run(self, script: Path, constants: Mapping[str, Value], salt: int) -> Run:
        """Raises RuntimeError with the end of the log where the script fails."""
        source = hyperparameters.replace(script.read_text(), constants)
        (self.folder / "script.py").write_text(source)
        (self.folder / "launcher.py").write_text(LAUNCHER)
        done = subprocess.run(
            [sys.executable, "launcher.py", "script.py", str(salt), str(self.seconds), str(self.batches)],
            cwd=self.folder,
            env={**os.environ, "AUTORESEARCH_CACHE": str(self.cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        lines = done.stdout.replace("\r", "\n").splitlines()
        if done.returncode:
            raise RuntimeError(f"{script} failed:\n" + "\n".join(lines[-20:]))
        report: dict[str, Any] = json.loads(lines[-1])
        said = dict(line.split(":", 1) for line in lines if line.count(":") == 1)
        return Run(
            report["val_bpb"],
            report["tokens"],
            float(said["training_seconds"]),
            report.get("startup", math.nan),
            report["peak"],
            report["device"],
        )


def prepared(
    folder: Path, files: Mapping[str, bytes], cache: Path, text: Sequence[str], seconds: float = 60.0, batches: int = 0
) -> Bench:
    """A bench of a project's `files` in `folder`; what `cache` lacks is prepared with the arguments `text`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("prepare.py", "protocol.json"):
        (folder / name).write_bytes(files[name])
    if not (cache / "manifest.json").exists():
        environment = {**os.environ, "AUTORESEARCH_CACHE": str(cache)}
        subprocess.run([sys.executable, "prepare.py", *text], cwd=folder, env=environment, check=True)
    return Bench(folder, cache, seconds, batches)


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Mean of the differences and the half width of its 95 % interval; infinite for fewer than two."""
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return mean, math.inf
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return mean, error * approval_point(len(differences) - 1, 0.025)


def _constant(text: str) -> tuple[str, Value]:
    name, _, value = text.partition("=")
    found = {constant.name: constant.value for constant in hyperparameters.find(f"{name} = {value}")}
    if name not in found:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, found[name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("theirs", type=Path, nargs="?", default=PLAIN, help="a train.py; default: a plain transformer")
    parser.add_argument("--ours", type=Path, default=OURS)
    parser.add_argument("--pairs", type=int, default=3)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=60.0)
    length.add_argument("--batches", type=int, default=0)
    parser.add_argument("--size", choices=RECIPES, default="full")
    parser.add_argument("--cache", type=Path, help="prepared data to use or to make, kept; default: temporary")
    parser.add_argument("--text", default="stdlib", help="folder of text to prepare where there is no data yet")
    parser.add_argument("--set", type=_constant, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--theirs-set", type=_constant, action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    project = recipe.load(RECIPES[options.size])
    sizes = {c.name: c.value for c in hyperparameters.find(project.files["train.py"].decode())}
    ours = {name: sizes[name] for name in ("DEPTH", "MODEL_DIM", "HEAD_DIM", "BATCH_SIZE")}
    theirs = ours if options.theirs == PLAIN else {}
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        cache = (options.cache or Path(temporary, "cache")).resolve()
        bench = prepared(
            Path(temporary), project.files, cache, ("--text", options.text), options.seconds, options.batches
        )
        differences = []
        for pair in range(options.pairs):
            runs = {
                "ours": bench.run(options.ours, ours | dict(options.set), pair),
                "theirs": bench.run(options.theirs, theirs | dict(options.theirs_set), pair),
            }
            differences.append(runs["theirs"].val_bpb - runs["ours"].val_bpb)
            for name, run in runs.items():
                print(
                    f"pair {pair + 1}  {name:<7} val_bpb {run.val_bpb:.4f}  {run.tokens / 1e6:8.1f} M tokens  "
                    f"{run.tokens / run.seconds:12,.0f} a second  start-up {run.startup:5.1f} s  "
                    f"peak {run.peak / 2**20:8,.0f} MiB  {run.device}",
                    flush=True,
                )
    mean, half = interval(differences)
    print(f"theirs - ours: {mean:+.4f} ± {half:.4f} bpb")


if __name__ == "__main__":
    main()
