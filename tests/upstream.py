"""A project of the upstream repository's kind, published on an embedded ledger: `tests/fixtures/upstream`.

Its harness has a pickled tiktoken tokenizer, tokenizes in the loop, and knows neither AUTORESEARCH_CACHE nor
--snapshot-id; its repository does not hold its protocol. Sizes are small, and the text is the interpreter's library.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.test_path import answer
from trainer.machine.noise_file import save_noise
from trainer.measurement import bench
from trainer.project import hyperparameters
from trainer.running import dataset
from trainer.statistics.comparison import Arm
from trainer.statistics.noise import NoiseRecord

UPSTREAM = Path(__file__).parent / "fixtures" / "upstream"
ARMLX = Path(__file__).parents[1] / "configs" / "armlx" / "protocol.json"
FILES = {path.name: path.read_bytes() for path in UPSTREAM.iterdir() if path.is_file()}
SHARDS = ("--num-shards", "2")
NOISE = NoiseRecord(0.02**2 * 20, 20.0)  # as a machine has that has judged before


@dataclass(frozen=True, slots=True)
class Published:
    """The project, 0, in `home`; `baseline` its val_bpb here, `cache` its data, `better` a train.py that improves."""

    home: Path
    spec: bytes
    cache: Path
    baseline: float
    better: str


def protocol() -> bytes:
    """The live project's, with a budget that the few steps of `train.py` do not use up on a busy machine either."""
    document = json.loads(ARMLX.read_bytes())
    document["meta"]["protocolBundleId"] = "upstream-kind-1"
    document["environment"]["setupCommands"] = ["uv sync", f"uv run prepare.py {' '.join(SHARDS)}"]
    document["execution"]["stopCondition"]["trainingSecondsBudget"] = 4
    document["execution"]["hardTimeoutSeconds"] = 20
    document["archetypeExtensions"]["ml_train"]["evalTokens"] = 16384
    return json.dumps(document, indent=2).encode()


def repository(folder: Path) -> Path:
    """The fixture as a git repository with one commit."""
    shutil.copytree(UPSTREAM, folder, ignore=shutil.ignore_patterns("__pycache__", ".venv"))
    git = ["git", "-C", str(folder), "-c", "user.name=owner", "-c", "user.email=owner@localhost"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "upstream's kind"]):
        subprocess.run([*git, *command], check=True)
    return folder


def publish(folder: Path) -> Published:
    """Prepare its data, measure a baseline and create it on chain, as its owner does."""
    home, source, spec = folder / "home", repository(folder / "upstream"), folder / "protocol.json"
    home.mkdir()
    spec.write_bytes(protocol())
    made = bench.open_bench(
        spec.read_bytes(), FILES, home=home, say=lambda _: None, data_arguments=SHARDS, trust_harness=True
    )
    assert made.method == bench.TRUSTED, made.why_not
    assert made.data_snapshot == dataset.content_id(made.cache)
    baseline = made.measure(Arm.INCUMBENT, FILES).val_bpb
    assert baseline is not None
    # by the protocol's own command it finds its data as well, and says the same
    plain = made.plain_run(FILES)
    assert plain.val_bpb == pytest.approx(baseline, abs=1e-3), plain.detail
    save_noise(home / "noise.json", {made.noise_key: NOISE})
    created = answer(
        *(home, "chain", "project", "create", "--repository", source, "--protocol", spec),
        *("--data-snapshot", made.data_snapshot, "--baseline", f"{baseline:.6f}"),
        *(f"--data-argument={argument}" for argument in SHARDS),
        *("--name", "Upstream", "--symbol", "UPST"),
    )
    assert created["project"] == 0
    # at a rate of 0.01 it gains less and scatters twice as much, so that two of four checks released it
    better = hyperparameters.replace(FILES["train.py"].decode(), {"MAX_STEPS": 60, "LEARNING_RATE": 0.004})
    return Published(home, spec.read_bytes(), made.cache, baseline, better)
