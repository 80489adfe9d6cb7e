"""What believing nothing costs: claim and 256 probes against the harness's own evaluation of the same model.

    python -m tests.benchmarks.bench_measurement                 smoke size: 256 rows of 64, vocabulary 512
    python -m tests.benchmarks.bench_measurement --size full     768 rows of 2048, vocabulary 8192, 11.5M parameters

The model is trainer/train.py's (untrained, its output matrix random), the text this interpreter's standard library.
All runs use MLX's default device and the sandbox of the platform; `--no-sandbox` measures the same without, where
bubblewrap cannot be installed.

Two ratios are printed: of the workers' whole wall time, with the interpreter, the device and the compilation of its
kernels started anew in each, and of their computation alone. Like the harness's evaluation, that is timed in a
process that has done it once before.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import numpy as np

from trainer.machine.environment import Environment
from trainer.measurement import Measurement, Measurer, Phase, facts, inside_graph
from trainer.project import protocol, recipe
from trainer.sandbox import Sandbox, choose
from trainer.sandbox.host import NoIsolation

RECIPES = {"smoke": "smoke", "full": "armlx"}

# Replaces the end of train.py, from its main guard on.
BUILD = """
mx.random.seed(SEED)
tokenizer = Tokenizer.from_directory()
model = GPT(tokenizer.get_vocab_size())
model.head.weight = mx.random.normal(model.head.weight.shape) * 0.1
mx.eval(model.parameters())
"""
FREEZE = BUILD + "evaluate_bpb(model, tokenizer, EVAL_BATCH_SIZE)\n"
EVALUATE = (
    BUILD
    + """
import json
seconds = []
for _ in range(3):
    start = time.perf_counter()
    val_bpb = evaluate_bpb(model, tokenizer, EVAL_BATCH_SIZE)
    seconds.append(time.perf_counter() - start)
parameters = sum(weight.size for _, weight in tree_flatten(model.parameters()))
print(json.dumps({"seconds": min(seconds[1:]), "val_bpb": val_bpb, "parameters": parameters}))
"""
)


def script(train: bytes, end: str) -> bytes:
    head, guard, _ = train.decode().partition('\nif __name__ == "__main__":')
    assert guard, "train.py has a main guard"
    return (head + end).encode()


def run(folder: Path, cache: Path, arguments: list[str]) -> str:
    environment = {**os.environ, "AUTORESEARCH_CACHE": str(cache)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


# What the workers compute, in a process that has done it once before.
COMPUTE = """
import json, sys, time
import numpy as np
sys.path.insert(0, sys.argv[1])
import inside_graph
graph, rows, cuts, batch = sys.argv[2], np.load(sys.argv[3]), np.load(sys.argv[4]), int(sys.argv[5])
logits = inside_graph.load(graph, batch, rows.shape[1] - 1, int(sys.argv[6]))
rows, cuts = ([memoryview(np.ascontiguousarray(row, "<i4")) for row in some] for some in (rows, cuts))
seconds = {}
for task, given in (("claim", rows), ("probes", cuts)):
    times = []
    for _ in range(3):
        start = time.perf_counter()
        for result in inside_graph.calls(task, logits, given, batch):
            pass
        times.append(time.perf_counter() - start)
    seconds[task] = min(times[1:])
print(json.dumps(seconds))
"""


def net(measurer: Measurer, result: Measurement, folder: Path, probes: int) -> dict[Phase, float]:
    """Seconds by phase of the workers' computation alone; only for this benchmark's own graph, unconfined."""
    assert result.graph is not None
    rows = measurer.facts.rows
    random = np.random.default_rng(0)
    cuts = rows[:probes].copy()
    cuts[:, 0] = random.integers(0, rows.shape[1] - 1, len(cuts))
    np.save(folder / "rows.npy", rows)
    np.save(folder / "cuts.npy", cuts)
    where = Path(inside_graph.__file__).parent
    script = [sys.executable, "-c", COMPUTE, str(where), str(result.graph), "rows.npy", "cuts.npy"]
    sizes = [str(measurer.facts.batch), str(measurer.facts.vocabulary)]
    done = subprocess.run([*script, *sizes], cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    return {Phase.CLAIM: found["claim"], Phase.PROBES: found["probes"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=RECIPES, default="smoke")
    parser.add_argument("--probes", type=int, default=256)
    parser.add_argument("--cache", type=Path, help="prepared data to use or to make, kept; default: temporary")
    parser.add_argument("--no-sandbox", action="store_true")
    parser.add_argument("--batch", type=int, default=facts.MAX_BATCH, help="rows in one call of the frozen graph")
    options = parser.parse_args()
    facts.MAX_BATCH = options.batch
    cuda = sys.platform == "linux" and mx.default_device() == mx.gpu
    sandbox: Sandbox = NoIsolation() if options.no_sandbox else choose(cuda=cuda)
    snapshot = dict(recipe.load(RECIPES[options.size]).files)
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        work, code = Path(temporary, "work"), Path(temporary, "code")
        cache = (options.cache or Path(temporary, "cache")).resolve()
        code.mkdir()
        for name, content in snapshot.items():
            (code / name).write_bytes(content)
        (code / "evaluate.py").write_bytes(script(snapshot["train.py"], EVALUATE))
        if not (cache / "manifest.json").exists():
            run(code, cache, ["prepare.py", "--text", "stdlib"])
        own = json.loads(run(code, cache, ["evaluate.py"]).splitlines()[-1])
        rules = protocol.parse(snapshot["protocol.json"])
        measurer = Measurer(sandbox, Environment.running(), snapshot, cache, rules, work)
        candidate = snapshot | {"train.py": script(snapshot["train.py"], FREEZE)}
        result = measurer.measure(candidate, grace=600, probes=options.probes)
        assert result.score is not None, result.findings
        assert result.graph is not None
        assert result.probes is not None
        seconds, without_start = result.score.seconds, net(measurer, result, Path(temporary), options.probes)
        rows, graph_bytes = measurer.facts.rows, result.graph.stat().st_size
    print(f"device           {mx.default_device()}, MLX {version('mlx')}, sandbox {sandbox.name}")
    print(
        f"size             {len(rows)} rows of {rows.shape[1] - 1}, vocabulary {measurer.facts.vocabulary}, "
        f"batch {measurer.facts.batch}, {own['parameters'] / 1e6:.2f}M parameters, graph {graph_bytes / 1e6:.1f} MB"
    )
    print(f"val_bpb          {result.score.claimed_bpb:.6f}, the harness's own {own['val_bpb']:.6f}")
    print(f"probes           {len(result.probes.probes)}, largest difference {result.probes.worst:.2e} nats")
    print(f"evaluate_bpb     {own['seconds']:.3f} s")
    for name, spent in (("with start", seconds), ("net of start", without_start)):
        claim, proof = spent[Phase.CLAIM], spent[Phase.PROBES]
        ratio = (claim + proof) / own["seconds"]
        print(f"{name:<16} claim {claim:.3f} s, probes {proof:.3f} s, ratio {ratio:.2f}")
    assert result.findings == (), result.findings
    assert math.isclose(result.score.claimed_bpb or math.nan, own["val_bpb"], abs_tol=1e-4 if not cuda else 1e-3)


if __name__ == "__main__":
    main()
