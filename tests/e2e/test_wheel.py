"""The built wheel, installed into an environment of its own with an empty home and no checkout near.

Mining and settling with it take minutes; here it publishes the bundled project on the embedded network.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import require

ROOT = Path(__file__).parents[2]
PACKAGES = ("chain", "common", "miner", "trainer", "verifier")
COMMANDS = ("miner", "verifier", "chain")
PUBLISH = """
import sys
from pathlib import Path
from trainer.project import recipe

for name in recipe.names():
    for path, data in recipe.load(name).files.items():
        file = Path(sys.argv[1], name, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
"""


def run(*command: object, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """What a command prints; a failure shows all it said."""
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True, slots=True)
class Installed:
    """The wheel, and the environment it is installed in."""

    wheel: Path
    bin: Path
    cwd: Path
    env: Mapping[str, str]

    def __call__(self, *command: object) -> str:
        return run(self.bin / str(command[0]), *command[1:], env=self.env, cwd=self.cwd)

    def ask(self, *command: object) -> Any:
        return json.loads(self(*command, "--json"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Built and installed with the locked versions, as `uv tool install dist/*.whl` would."""
    require(shutil.which("uv") is not None, "uv (pip install uv)")
    folder = tmp_path_factory.mktemp("wheel")
    (home := folder / "home").mkdir()
    (cwd := folder / "nowhere").mkdir()
    run("uv", "build", "--quiet", "--out-dir", folder / "dist", cwd=ROOT)  # the wheel is made from the sdist
    (wheel,) = (folder / "dist").glob("*.whl")
    locked = run("uv", "export", "--locked", "--no-dev", "--no-emit-project", "--no-hashes", "--quiet", cwd=ROOT)
    (folder / "locked.txt").write_text(locked)
    run("uv", "venv", "--quiet", "--python", sys.executable, folder / "venv", cwd=cwd)
    python = folder / "venv" / "bin" / "python"
    run("uv", "pip", "install", "--quiet", "--python", python, "--constraint", folder / "locked.txt", wheel, cwd=cwd)
    env = {"HOME": str(home), "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin", "COLUMNS": "80"}
    return Installed(wheel, python.parent, cwd, env)


def test_every_file_of_the_product_is_in_it_and_nothing_else(installed: Installed) -> None:
    tracked = run("git", "ls-files", *PACKAGES, "configs", "prepare.py", cwd=ROOT).splitlines()
    configs = {f"common/data/{path}" for path in tracked if path.startswith(("configs/", "prepare.py"))}
    expected = {path for path in tracked if path.startswith(PACKAGES)} | configs
    expected = expected - {"trainer/train.py"} | {"common/data/trainer/train.py"}
    with zipfile.ZipFile(installed.wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        about = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = archive.read(about).decode()
    assert packed == expected
    assert {f"{package}/py.typed" for package in PACKAGES} <= packed
    assert "License-Expression: MIT" in metadata


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_say_who_they_are(installed: Installed, command: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    first, second = installed(command, "--version").splitlines()
    assert first == f"{command} {version}"
    assert second.startswith("OpenResearch program interface ")
    assert installed(command, "--help").startswith(f"Usage: {command} ")


def test_it_publishes_the_bundled_project_and_reads_it_back(installed: Installed, tmp_path: Path) -> None:
    run(installed.bin / "python", "-I", "-c", PUBLISH, tmp_path, env=installed.env, cwd=installed.cwd)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["armlx", "smoke"]
    smoke = tmp_path / "smoke"
    for command in ("init --quiet", "add --all", "-c user.name=a -c user.email=a@b commit --quiet --message=smoke"):
        run("git", *command.split(), cwd=smoke, env=installed.env)
    assert installed.ask("chain", "project", "list") == []
    made = installed.ask(
        "chain", "project", "create", "--repository", smoke, "--data-snapshot", "ab" * 32, "--baseline", "3.1",
        "--name", "Smoke", "--symbol", "SMK",
    )  # fmt: skip
    assert made["project"] == 0
    assert installed.ask("chain", "project", "show", "0")["baseline"] == "3.100000"
    assert "Smoke" in installed("chain", "project", "show", "0")
    installed("chain", "project", "show", "0", "--html", tmp_path / "page.html")
    assert "<style>" in (tmp_path / "page.html").read_text()


def test_its_verifier_finds_the_sandbox_tight(installed: Installed) -> None:
    require(sys.platform != "linux" or shutil.which("bwrap") is not None, "bubblewrap (apt-get install bubblewrap)")
    probe = "from trainer import sandbox; print(sandbox.probe(sandbox.choose()))"
    assert "MLX" in installed("python", "-I", "-c", probe)


def test_what_an_extra_brings_is_refused_with_its_name(installed: Installed) -> None:
    shutil.copytree(ROOT / "docs" / "example", installed.cwd / "example")
    report = ("report", "--offline", "--home", "example", "--output", "page.html")
    assert installed("miner", *report).strip() == "page.html"
    assert "<style>" in (installed.cwd / "page.html").read_text()
    refused = subprocess.run(
        [installed.bin / "miner", *report, "--png", "chart.png"],
        cwd=installed.cwd, env=installed.env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert refused.returncode == 1
    assert "--png needs the package matplotlib" in refused.stderr
    assert ".whl[png]" in refused.stderr
