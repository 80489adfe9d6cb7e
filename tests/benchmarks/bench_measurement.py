"""What believing nothing costs: claim and 256 probes against the harness's own evaluation of the same model.

    python -m tests.benchmarks.bench_measurement                 smoke size: 256 rows of 64, vocabulary 512
    python -m tests.benchmarks.bench_measurement --size full     768 rows of 2048, vocabulary 8192, 11.5M parameters

The model is trainer/train.py's (untrained, its output matrix random), the text this interpreter's standard library.
All runs use MLX's default device and the sandbox of the platform; `--no-sandbox` measures the same without, where
bubblewrap cannot be installed. The target is a ratio of at most 0.6 at full size on an accelerator.

Two ratios are printed: of the workers' whole wall time, interpreter and device start included, and net of a
worker's start, which is timed by a claim and by probes of a single row. The harness's evaluation is timed in a
process that has evaluated once before.
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

from trainer import protocol, recipe
from trainer.environment import Environment
from trainer.measurement import Measurement, Measurer, Phase
from trainer.sandbox import Sandbox, choose
from trainer.sandbox.host import NoIsolation

RECIPES = {"smoke": "smoke", "full": "armlx"}

# Replaces the end of train.py, from its main guard on.
BUILD = """
mx.random.seed(SEED)
tokenizer = Tokenizer.from_directory()
model = GPT(tokenizer.get_vocab_size())
initialise(model, mx.bfloat16 if mx.default_device() == mx.gpu else mx.float32)
model.head.weight = (mx.random.normal(model.head.weight.shape) * 0.1).astype(model.head.weight.dtype)
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


def net(measurer: Measurer, result: Measurement) -> dict[Phase, float]:
    """Seconds by phase without what a worker needs for a single row."""
    assert result.graph is not None
    one = measurer.score(result.graph, measurer.facts.rows[:1], probes=1)
    assert result.score is not None
    return {phase: result.score.seconds[phase] - one.seconds[phase] for phase in (Phase.CLAIM, Phase.PROBES)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=RECIPES, default="smoke")
    parser.add_argument("--probes", type=int, default=256)
    parser.add_argument("--cache", type=Path, help="prepared data to use or to make, kept; default: temporary")
    parser.add_argument("--no-sandbox", action="store_true")
    options = parser.parse_args()
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
        seconds, without_start = result.score.seconds, net(measurer, result)
        rows, graph_bytes = measurer.facts.rows, result.graph.stat().st_size
    print(f"device           {mx.default_device()}, MLX {version('mlx')}, sandbox {sandbox.name}")
    print(
        f"size             {len(rows)} rows of {rows.shape[1] - 1}, vocabulary {measurer.facts.vocabulary}, "
        f"{own['parameters'] / 1e6:.2f}M parameters, graph {graph_bytes / 1e6:.1f} MB"
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
