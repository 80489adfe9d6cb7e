"""Preparing a locked environment with the real uv, from a project without dependencies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import EnvironmentNotReady, InvalidProtocol
from trainer.machine import environment
from trainer.machine.environment import Environment, choose_extra, choose_python, resolve

PYPROJECT = f"""\
[project]
name = "tiny"
version = "0.1.0"
requires-python = ">=3.{sys.version_info.minor}"
dependencies = []

[project.optional-dependencies]
cuda12 = []
""".encode()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("project")
    (folder / "pyproject.toml").write_bytes(PYPROJECT)
    command = [str(environment.find_uv()), "lock", "--offline", "--project", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return {"pyproject.toml": PYPROJECT, "uv.lock": (folder / "uv.lock").read_bytes(), "train.py": b""}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")


def test_prepare(files: dict[str, bytes], tmp_path: Path) -> None:
    said: list[str] = []
    found = environment.prepare(files, tmp_path, progress=said.append)
    assert said
    assert found.key == environment.key(files["pyproject.toml"], files["uv.lock"], None)
    assert found.prefix == tmp_path / "envs" / found.key / "venv"
    asked = [str(found.python), "-c", "import sys; print(sys.prefix)"]
    assert subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip() == str(found.prefix)

    said.clear()
    assert environment.prepare(files, tmp_path, progress=said.append) == found
    assert not said

    (found.prefix.parent / environment.MARKER).unlink()
    assert environment.find(found.prefix.parent) is None
    assert environment.prepare(files, tmp_path, progress=said.append) == found
    assert said


def test_an_altered_environment_is_built_again(files: dict[str, bytes], tmp_path: Path) -> None:
    found = environment.prepare(files, tmp_path)
    extra = next(found.prefix.glob("lib/python*/site-packages")) / "evil-1.0.dist-info"
    extra.mkdir()
    (extra / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    assert environment.find(found.prefix.parent) is None
    assert environment.prepare(files, tmp_path) == found
    assert not extra.exists()


def test_no_setting_of_uv_puts_the_files_outside_the_sandbox(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """UV_LINK_MODE=symlink left an environment whose packages lay in uv's cache, and it counted as complete."""
    commands: list[list[str]] = []
    run = environment._run

    def seen(command: Sequence[str], *more: Any) -> None:
        commands.append(list(command))
        run(command, *more)

    monkeypatch.setattr(environment, "_run", seen)
    monkeypatch.setenv("UV_LINK_MODE", "symlink")
    found = environment.prepare(files, tmp_path)
    assert not any(f"--link-mode={mode}" in commands[0] for mode in ("symlink", "copy"))
    assert any(word.startswith("--link-mode=") for word in commands[0])
    marker = found.prefix.parent / environment.MARKER
    marker.write_text(json.dumps({"packages": found.packages_digest}))  # as an earlier version left it
    assert environment.find(found.prefix.parent) is None


def test_processes_take_turns(files: dict[str, bytes], tmp_path: Path) -> None:
    said: list[str] = []
    made: list[Environment] = []
    threads = [
        threading.Thread(target=lambda: made.append(environment.prepare(files, tmp_path, progress=said.append)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made[0] == made[1]
    assert sum("Installing" in line for line in said) == 1


@pytest.mark.parametrize("missing", ["pyproject.toml", "uv.lock"])
def test_a_bundle_without_its_lock_is_refused(files: dict[str, bytes], tmp_path: Path, missing: str) -> None:
    less = {name: data for name, data in files.items() if name != missing}
    with pytest.raises(EnvironmentNotReady, match=missing):
        environment.prepare(less, tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("uv.lock", b"not a lock"),
        ("pyproject.toml", b"[project"),
        ("pyproject.toml", PYPROJECT.replace(b">=3", b">=99")),
    ],
)
def test_what_uv_refuses_is_said(files: dict[str, bytes], tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(EnvironmentNotReady, match="uv could not install") as caught:
        environment.prepare({**files, name: content}, tmp_path)
    assert "\n" not in caught.value.message
    assert not list(tmp_path.glob(f"envs/*/{environment.MARKER}"))


@pytest.mark.parametrize(
    ("name", "value"), [("UV_PYTHON", "3.5"), ("UV_CACHE_DIR", "/dev/null/cache"), ("UV_CONFIG_FILE", "/none/uv.toml")]
)
def test_a_setting_of_uv_that_forbids_it_is_named(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """It said "check the network connection" of what no network cures."""
    for other in [other for other in os.environ if other.startswith("UV_")]:
        monkeypatch.delenv(other)
    monkeypatch.setenv(name, value)
    with pytest.raises(EnvironmentNotReady, match="uv could not install") as refusal:
        environment.prepare(files, tmp_path)
    assert refusal.value.cure.startswith(f"uv goes by {name} of your environment: correct or unset that setting.")


@pytest.mark.parametrize(
    ("pyproject", "cuda", "extra"),
    [
        (PYPROJECT, None, None),
        (PYPROJECT, 11, None),
        (PYPROJECT, 12, "cuda12"),
        (PYPROJECT, 13, "cuda12"),
        (PYPROJECT + b"cuda13 = []\n", 12, "cuda12"),
        (PYPROJECT + b"cuda13 = []\n", 13, "cuda13"),
        (PYPROJECT + b"cuda13 = []\n", 14, "cuda13"),
        (b"[project]\nname = 'x'\n", 12, None),
        (b"project = 1", 12, None),
        (b"\xff", 12, None),
    ],
)
def test_choose_extra(pyproject: bytes, cuda: int | None, extra: str | None) -> None:
    assert choose_extra(pyproject, cuda) == extra


def test_keys_differ_where_environments_would() -> None:
    keys = {environment.key(*parts) for parts in ((b"a", b"b", None), (b"b", b"a", None), (b"a", b"b", "cuda12"))}
    assert len(keys) == 3
    assert {len(key) for key in keys} == {16}


RUNNING = Environment.running()


@pytest.mark.parametrize(
    ("argv", "rest"),
    [
        ("uv run train.py", ["train.py"]),
        ("uv run --frozen --offline train.py --fast", ["train.py", "--fast"]),
        ("uv run python -u train.py", ["-u", "train.py"]),
        ("python3 train.py", ["train.py"]),
        ("uv run --with evil train.py", None),
        ("uv run evil", None),
        ("uv sync", None),
        ("uv run", None),
        ("python", None),
        ("bash run.sh", None),
    ],
)
def test_resolve(argv: str, rest: list[str] | None) -> None:
    if rest is None:
        with pytest.raises(InvalidProtocol, match=r"execution\.command"):
            resolve(argv.split(), RUNNING)
    else:
        assert resolve(argv.split(), RUNNING) == [sys.executable, *rest]


def test_the_running_environment_knows_its_packages() -> None:
    here = Environment.running()
    assert here.python.samefile(sys.executable)
    assert here.packages_digest != environment.packages_digest([])
    assert Environment.running() == here


def test_uv_is_found_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "uv"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    monkeypatch.setenv("UV", str(fake))
    assert environment.find_uv() == fake
    monkeypatch.setenv("UV", "uv")
    assert environment.find_uv() != fake
    assert os.access(environment.find_uv(), os.X_OK)


@pytest.mark.parametrize(("system", "managed"), [("Darwin", True), ("Linux", False)])
def test_on_a_mac_environments_stand_on_uvs_own_python(
    system: str, managed: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """pyenv's, mise's and Homebrew's link libraries outside their own folder, which no sandbox opens."""
    commands: list[list[str]] = []
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr(environment, "_run", lambda command, *_: commands.append(list(command)))
    with pytest.raises(EnvironmentNotReady, match="no usable interpreter"):
        environment.prepare({"pyproject.toml": PYPROJECT, "uv.lock": b"x"}, tmp_path)
    assert ("--managed-python" in commands[0]) is managed
    assert ("--python" in commands[0]) is managed


@pytest.mark.parametrize(
    ("allowed", "mine", "option"),
    [
        (">=3.10", "3.11.7", ["--python", "3.11"]),  # uv would take 3.15, which locked packages have no wheels for
        (">=3.11,<3.14", "3.14.2", ["--python", "3.12"]),  # the live project's
        ("==3.10.*", "3.12.1", ["--python", "3.10"]),
        (">=3.16", "3.12.1", []),
        ("nonsense", "3.12.1", []),
    ],
)
def test_which_python_a_bundle_gets_on_a_mac(allowed: str, mine: str, option: list[str]) -> None:
    assert choose_python(f"[project]\nrequires-python = '{allowed}'\n".encode(), mine) == option
    assert choose_python(b"\xff", mine) == []
