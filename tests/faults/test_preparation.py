"""Ctrl-C while a project's data is being prepared: one line says how to go on, and the same command does."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING

from tests.e2e.test_path import BIN, environment
from trainer.running.dataset import MANIFEST

if TYPE_CHECKING:
    from tests.attacks.tiny import TinyHome


def test_an_interrupted_preparation_goes_on(tiny_home: TinyHome, tmp_path: Path) -> None:
    home = tiny_home.copy(tmp_path / "home").path
    shutil.rmtree(home / "data")
    command = [str(BIN / "miner"), "run", "--home", str(home), "--max-trials", "1", "--dry-run"]
    with subprocess.Popen(command, stdout=PIPE, stderr=PIPE, stdin=DEVNULL, text=True, env=environment()) as process:
        deadline = time.monotonic() + 120
        while not any(path.stat().st_size for path in home.glob("data/*/.preparing")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert said.rstrip().endswith("Stopped. Run the same command to resume.")
    assert "Aborted" not in said
    assert not list(home.glob(f"data/*/{MANIFEST}"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    assert "1 trials" in done.stdout
    assert len(list(home.glob(f"data/*/{MANIFEST}"))) == 1


def test_what_a_run_imports_is_compiled_once(tiny_home: TinyHome) -> None:
    """Nothing can be kept in a sandbox: modules that were not compiled there would be by each process of each run."""
    (packages,) = tiny_home.path.glob("envs/*/venv/lib/python*/site-packages")
    assert list(packages.glob("numpy/__pycache__/*.pyc"))
    assert list(packages.glob("mlx/nn/__pycache__/*.pyc"))
