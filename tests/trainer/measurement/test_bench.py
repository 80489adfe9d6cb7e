"""The bench's decisions as tables, and how it comes by data: whose prepare.py may run here."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common import resources
from trainer.machine.environment import Environment
from trainer.machine.hardware import Fingerprint
from trainer.measurement.bench import Bench, loose_grace
from trainer.project import protocol, recipe
from trainer.running import dataset
from trainer.statistics.comparison import Arm
from trainer.statistics.noise import NoiseRecord

SMOKE = recipe.load("smoke")
MACHINE = Fingerprint("cpu", "AMD EPYC", 2, None, None, 1 << 30, "Linux", "0.32", "3.11.0")


def spec(budget: float = 6, hard: float = 60, bundle_id: str = "armlx-smoke-1") -> protocol.Protocol:
    document = json.loads(SMOKE.files["protocol.json"])
    document["execution"]["stopCondition"]["trainingSecondsBudget"] = budget
    document["execution"]["hardTimeoutSeconds"] = hard
    document["meta"]["protocolBundleId"] = bundle_id
    return protocol.parse(json.dumps(document).encode())


def environment() -> Environment:
    """This very interpreter as a bundle's environment."""
    fields: dict[str, Any] = dict.fromkeys(Environment.__slots__)
    return Environment(**fields | {"python": Path(sys.executable)})


def a_bench(home: Path, **changes: Any) -> Bench:
    made = Bench(spec(), SMOKE.files, environment(), home, "5a" * 32, MACHINE, home, "none", None, "no sandbox here")
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("budget", "hard", "grace"),
    [
        (6, 60, 20.0),  # a short budget: at least 20 s
        (20, 60, 20.0),
        (300, 900, 300.0),  # as long as the budget again
        (300, 400, 100.0),  # but within the hard timeout
        (1, 6, 5.0),
        (300, 301, 1.0),
    ],
)
def test_loose_grace(budget: float, hard: float, grace: float) -> None:
    assert loose_grace(spec(budget, hard)) == grace


def test_where_data_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTORESEARCH_CACHE", raising=False)
    own = dataset.folder_of(tmp_path, "bundle", ("--text", "stdlib"))
    assert own.parent == tmp_path / "data"
    assert own != dataset.folder_of(tmp_path, "../../other", ("--text", "stdlib"))
    assert dataset.folder_of(tmp_path, "../../other", ("--text", "stdlib")).parent == tmp_path / "data"
    assert dataset.folder_of(tmp_path, "bundle", ()) == Path.home() / ".cache" / "autoresearch"
    monkeypatch.setenv("AUTORESEARCH_CACHE", "relative/place")
    assert dataset.folder_of(tmp_path, "bundle", ()) == Path.cwd() / "relative" / "place"
    assert dataset.folder_of(tmp_path, "bundle", ("--text",)) == Path.cwd() / "relative" / "place"


def test_noise_belongs_to_machine_bundle_budget_and_method(tmp_path: Path) -> None:
    one = a_bench(tmp_path)
    others = [
        replace(one, protocol=spec(bundle_id="other-1")),
        replace(one, protocol=spec(budget=7)),
        replace(one, machine=replace(MACHINE, cpu_cores=4)),
        replace(one, measurer=object()),  # type: ignore[arg-type]
    ]
    assert len({one.noise_key, *(other.noise_key for other in others)}) == 5
    assert one.noise() == NoiseRecord()
    one.learn_noise([[2.50, 2.52], [2.4]])
    assert one.noise().df == 1
    assert one.noise().sigma == pytest.approx(0.01414, abs=1e-4)
    assert all(other.noise() == NoiseRecord() for other in others[:3])
    others[0].learn_noise([[1.0, 2.0]])
    assert one.noise().df == 1
    one.learn_noise([[2.0, 2.0, 2.0]])
    assert one.noise().df == 3


def test_without_a_measurer_it_is_self_reported(tmp_path: Path) -> None:
    made = a_bench(tmp_path)
    assert made.method == "self-reported"
    assert made.usual_seconds == pytest.approx(7.2)
    other = tmp_path / "view"
    assert made.on_view(other).cache == other


def test_self_reported_runs_become_values_or_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real processes: a good log, a crash, no result and a script that never ends."""
    monkeypatch.setenv("HOME", str(tmp_path))
    document = json.loads(SMOKE.files["protocol.json"])
    document["execution"]["hardTimeoutSeconds"] = 2
    document["execution"]["stopCondition"]["trainingSecondsBudget"] = 1
    short = protocol.parse(json.dumps(document).encode())
    made = a_bench(tmp_path, protocol=short)
    scripts = {
        "print('---')\nprint('val_bpb:          2.345678')\nprint('peak_vram_mb:     12.5')": ("", 2.345678),
        "raise SystemExit(3)": ("crash", None),
        "print('hello')": ("no_evaluation", None),
        "import time; print('up', flush=True); time.sleep(60)": ("over_budget", None),
    }
    for source, (failure, value) in scripts.items():
        run = made.measure(Arm.CANDIDATE, {**SMOKE.files, "train.py": source.encode()})
        assert (run.failure, run.val_bpb) == (failure, value), run
        assert bool(run.detail) == bool(failure)
        assert run.arm is Arm.CANDIDATE
        assert run.seconds > 0
        assert run.measurement is None
    good = made.measure(Arm.INCUMBENT, {**SMOKE.files, "train.py": next(iter(scripts)).encode()})
    assert good.memory_mb == 12.5
    assert b"val_bpb" in good.log


def test_this_repositorys_own_harness_needs_no_leave() -> None:
    assert SMOKE.files["prepare.py"] == (resources.ROOT / "prepare.py").read_bytes()
