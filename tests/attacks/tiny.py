"""A project small enough to be judged end to end in seconds, published on an embedded ledger of its own.

The path is the real one: the bundle's locked environment, prepare.py, the sandbox, a baseline measured here and
artifacts on a local Irys. Only sizes differ from the smoke project, and three things make checks quick:

- the baseline and `better` stop after the same few steps, long before the budget on a busy machine too, so that they
  take little time, hardly vary, and are charged for none; the baseline's learning rates are low, and `better` beats
  it by many times the noise;
- the hard timeout leaves a hanging script few seconds;
- the home begins with a noise record of `NOISE_DF` degrees, as a machine has that has judged before.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from chain.connection.opening import AUTHORITY
from chain.money import score
from chain.program.events import ProjectCreated
from chain.projects.artifacts import ProjectArtifacts, ProjectTerms, publish_project
from common import baseline as artifact
from tests import local
from trainer.machine.noise_file import save_noise
from trainer.measurement.bench import Bench, open_bench
from trainer.measurement.salts import salt_of
from trainer.project import bundle, hyperparameters, recipe
from trainer.project.task import Benchmark
from trainer.statistics.comparison import Arm
from trainer.statistics.noise import NoiseRecord

SMOKE = "smoke"
BUDGET, HARD_TIMEOUT, LENGTH, VOCABULARY, EVAL_TOKENS = 2, 9, 32, 320, 4096
DATA = ("--text", "stdlib", "--max-bytes", "1500000")
STEPS = 12
NOISE_DF = 20.0
LEAST_SIGMA = 0.02  # bpb; what the record says at least, since few baseline runs may agree by chance
_LOOP = "while training_seconds < TIME_BUDGET:"
_SHORT_LOOP = "while steps < STEPS and training_seconds < 4 * TIME_BUDGET:"
_ABOVE = "DEPTH = "
_MODEL: Mapping[str, int | float] = {
    "BATCH_SIZE": 8,
    "DEPTH": 1,
    "HEAD_DIM": 16,
    "MODEL_DIM": 32,
    "WARMDOWN_FRACTION": 0.0,
}
_WORSE: Mapping[str, int | float] = {"EMBED_LR": 0.01, "HEAD_LR": 0.004, "MATRIX_LR": 0.01}
_BETTER: Mapping[str, int | float] = {"EMBED_LR": 0.03, "HEAD_LR": 0.02, "MATRIX_LR": 0.03}


@dataclass(frozen=True, slots=True)
class TinyHome:
    """A home folder with the published project in it.

    `baseline` is the project's train.py, `better` one that clearly improves on it, both UTF-8 source; `files` the
    snapshot; `metric` the baseline's mean val_bpb and `sigma` the run-to-run noise that noise.json was given, in bpb.
    """

    path: Path
    project: int
    baseline: str
    better: str
    files: Mapping[str, bytes]
    metric: float
    sigma: float

    @property
    def claim(self) -> str:
        """A val_bpb below the baseline's, as `miner submit --claim` takes it; what it says decides nothing."""
        return f"{0.9 * self.metric:.6f}"

    def copy(self, path: Path) -> TinyHome:
        """A copy of it at a path that does not exist; of the environment, which nothing changes, by hard links."""
        shutil.copytree(self.path, path, symlinks=True, ignore=shutil.ignore_patterns("envs"))
        shutil.copytree(self.path / "envs", path / "envs", symlinks=True, copy_function=os.link)
        return replace(self, path=path)


def snapshot(patience: int = 1) -> dict[str, bytes]:
    """The project's files: the smoke recipe's, smaller, with learning rates that leave much to find.

    `patience` times as long a run may take, on a machine that has much else to do; the steps stay few.
    """
    files = dict(recipe.load(SMOKE).files)
    protocol = json.loads(files["protocol.json"])
    protocol["meta"]["protocolBundleId"] = "armlx-tiny-1"
    protocol["execution"]["stopCondition"]["trainingSecondsBudget"] = patience * BUDGET
    protocol["execution"]["hardTimeoutSeconds"] = patience * HARD_TIMEOUT
    protocol["archetypeExtensions"]["ml_train"] |= {
        "evalTokens": EVAL_TOKENS,
        "sequenceLength": LENGTH,
        "vocabSize": VOCABULARY,
    }
    files["protocol.json"] = json.dumps(protocol, indent=2).encode()
    source = files["train.py"].decode()
    assert _LOOP in source
    assert "\n" + _ABOVE in source
    source = source.replace(_LOOP, _SHORT_LOOP).replace("\n" + _ABOVE, f"\nSTEPS = {STEPS}  # steps at most\n{_ABOVE}")
    files["train.py"] = hyperparameters.replace(source, {**_MODEL, **_WORSE}).encode()
    return files


def publish(
    home: Path, *, baseline_runs: int = 3, network: str = "embedded", irys: str | None = None, patience: int = 1
) -> TinyHome:
    """Prepare, measure and publish the tiny project in `home`, as `miner run` does with the smoke project."""
    files, terms = snapshot(patience), recipe.load(SMOKE).terms
    bench = open_bench(
        files["protocol.json"], files, home=home, say=lambda _: None, data_arguments=DATA, require_sandbox=True
    )
    runs = [bench.measure(Arm.INCUMBENT, files, salt=salt_of(0, k)) for k in range(baseline_runs)]
    values = [run.val_bpb for run in runs if run.val_bpb is not None]
    assert len(values) == baseline_runs, [run.detail for run in runs]
    metrics = artifact.dump(
        bench.protocol.primary.name,
        values,
        [run.seconds for run in runs],
        hardware=bench.machine.as_json(),
        data_snapshot=bench.data_snapshot,
    )
    artifacts = ProjectArtifacts(
        files["protocol.json"],
        bundle.pack(files),
        Benchmark(bench.protocol.bundle_id, DATA, bench.data_snapshot).dump(),
        metrics,
        None,
        score.scale(artifact.read(metrics, bench.protocol.primary.name).metric),
    )
    with local.connect(home, network, irys) as connection:
        done = publish_project(
            connection,
            connection.wallet(None, AUTHORITY),
            artifacts,
            ProjectTerms(
                terms.token_name,
                terms.token_symbol,
                terms.base_price,
                terms.slope,
                terms.miner_pool_cap,
            ),
        )
    sigma = max(LEAST_SIGMA, statistics.stdev(values))
    _remember_noise(bench, sigma)
    baseline = files["train.py"].decode()
    return TinyHome(
        home,
        done.event(ProjectCreated).project_id,
        baseline,
        hyperparameters.replace(baseline, _BETTER),
        files,
        statistics.fmean(values),
        sigma,
    )


def _remember_noise(bench: Bench, sigma: float) -> None:
    save_noise(bench.home / "noise.json", {bench.noise_key: NoiseRecord(sigma**2 * NOISE_DF, NOISE_DF)})
