"""Which data is there, and how it is made: whose prepare.py may run here, and what it sees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.files import lock
from trainer.errors import EnvironmentNotReady
from trainer.machine.environment import Environment
from trainer.running import dataset

ENVIRONMENT = Environment(Path(sys.executable), Path(sys.prefix), "running", "0" * 64)
HARNESS = """
import json, os, pathlib, sys
home = pathlib.Path.home()
cache = home / ".cache" / "autoresearch"
if "--fail" in sys.argv:
    print("no text to be found"); raise SystemExit(1)
if "--nothing" in sys.argv:
    raise SystemExit(0)
print("working")
(cache / "data").mkdir(parents=True, exist_ok=True)
(cache / "data" / "shard.parquet").write_text("text")
(cache / "seen.json").write_text(json.dumps([dict(os.environ), os.listdir(home)]))
"""
FILES = {"prepare.py": HARNESS.encode(), "protocol.json": b"{}", "train.py": b""}


def prepare(
    folder: Path,
    *arguments: str,
    allowed: bool,
    expected: str | None = None,
) -> tuple[str, list[str]]:
    said: list[str] = []
    found = dataset.prepare(
        FILES,
        ENVIRONMENT,
        folder / "harness",
        folder / "cache",
        arguments,
        said.append,
        allowed=allowed,
        expected=expected,
    )
    return found, said


def test_data_is_made_once_and_only_where_that_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentNotReady, match="differs from the one in this repository") as refusal:
        prepare(tmp_path, allowed=False)
    assert "--trust-harness" in refusal.value.cure
    assert not (tmp_path / "cache").exists()
    with pytest.raises(EnvironmentNotReady, match=r"prepare\.py failed: no text to be found"):
        prepare(tmp_path, "--fail", allowed=True)
    with pytest.raises(EnvironmentNotReady, match="put no data into"):
        prepare(tmp_path, "--nothing", allowed=True)
    made, said = prepare(tmp_path, allowed=True)
    assert said == ["working"]
    # found again without running anything, by anybody
    assert prepare(tmp_path, allowed=False) == (made, [])
    assert prepare(tmp_path, allowed=False, expected=made) == (made, [])
    # other data than expected may be unfinished: the harness has to look
    with pytest.raises(EnvironmentNotReady, match="not prepared"):
        prepare(tmp_path, allowed=False, expected="ab" * 32)


# --- two of the same ---

SLOW = """
import os, pathlib, time
cache = pathlib.Path.home() / ".cache" / "autoresearch"
with (cache / "runs.txt").open("a") as file:
    file.write("run\\n")
while not (cache / ".go").exists():
    time.sleep(0.02)
(cache / "shard.parquet").write_text("all of it")
"""
SLOW_FILES = {"prepare.py": SLOW.encode(), "protocol.json": b"{}"}
FIRST = """
import sys
from pathlib import Path
from tests.trainer.running.test_dataset import ENVIRONMENT, SLOW_FILES
from trainer.running import dataset
folder = Path(sys.argv[1])
dataset.prepare(SLOW_FILES, ENVIRONMENT, folder / "harness", folder / "cache", (), lambda _: None, allowed=True)
"""


def first(folder: Path) -> subprocess.Popen[bytes]:
    """Another process that prepares this data, at a moment when half of it is there."""
    process = subprocess.Popen([sys.executable, "-c", FIRST, str(folder)], cwd=Path(__file__).parents[3])
    until(lambda: (folder / "cache" / "runs.txt").exists())
    return process


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def second(folder: Path, say: Callable[[str], None], **more: Any) -> str:
    return dataset.prepare(
        SLOW_FILES, ENVIRONMENT, folder / "harness", folder / "cache", (), say, **{"allowed": True, **more}
    )


def test_a_second_process_waits_for_data_that_is_half_made(tmp_path: Path) -> None:
    process, said = first(tmp_path), list[str]()
    cache = tmp_path / "cache"

    def say(text: str) -> None:
        said.append(text)
        (cache / ".go").touch()

    found = second(tmp_path, say, allowed=False)  # it needs no leave: nothing of the harness runs
    assert process.wait(60) == 0
    assert found == dataset.snapshot_id(cache)
    assert (cache / "shard.parquet").read_text() == "all of it"
    assert (cache / "runs.txt").read_text() == "run\n"
    assert said == [f"waiting for another process that prepares the data in {cache}"]


def test_data_whose_preparation_was_killed_is_made_again(tmp_path: Path) -> None:
    process, cache = first(tmp_path), tmp_path / "cache"
    process.kill()
    process.wait()
    (cache / ".go").touch()
    with pytest.raises(EnvironmentNotReady, match="not prepared"):
        second(tmp_path, lambda _: None, allowed=False)
    found = second(tmp_path, lambda _: None)
    assert (cache / "shard.parquet").read_text() == "all of it"
    assert second(tmp_path, lambda _: None, allowed=False) == found


def test_a_prepare_py_run_by_hand_is_waited_for(tmp_path: Path) -> None:
    """This repository's own one holds its lock and writes its manifest last: without that nothing is complete."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "half.parquet").write_text("half")
    file = (cache / ".lock").open("w")
    assert lock(file.fileno())
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        (cache / "manifest.json").write_text("{}")
        file.close()

    found = second(tmp_path, say, allowed=False, manifest=True)
    assert found == dataset.manifest_id(cache)
    assert len(said) == 1
    (cache / "manifest.json").unlink()
    with pytest.raises(EnvironmentNotReady, match="not prepared"):
        second(tmp_path, say, allowed=False, manifest=True)


def test_a_preparation_sees_its_data_and_no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANY_SECRET_KEY", "hidden")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://me:hidden@127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hidden")
    prepare(tmp_path, allowed=True)
    variables, listed = json.loads((tmp_path / "cache" / "seen.json").read_text())
    assert "hidden" not in "".join(variables.values())
    assert variables["HTTPS_PROXY"] == "http://127.0.0.1:9"
    assert "HF_HUB_OFFLINE" not in variables
    assert variables["AUTORESEARCH_CACHE"] == str(tmp_path / "cache")
    assert variables["HOME"] != os.environ["HOME"]
    assert listed == [".cache"]


def test_content_id_is_of_names_and_bytes(tmp_path: Path) -> None:
    assert dataset.snapshot_id(tmp_path / "none") is None
    assert dataset.snapshot_id(tmp_path) is None
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_bytes(b"1")
    one = dataset.snapshot_id(tmp_path)
    assert one is not None
    assert len(one) == 64
    for ignored in (".lock", "data/b.tmp", "data/c.part"):
        (tmp_path / ignored).write_bytes(b"2")
    (tmp_path / "data" / "link").symlink_to("a")
    assert dataset.snapshot_id(tmp_path) == one
    (tmp_path / "data" / "a").write_bytes(b"2")
    assert dataset.snapshot_id(tmp_path) != one
    (tmp_path / "data" / "a").rename(tmp_path / "data" / "b")
    ids = {one, dataset.snapshot_id(tmp_path)}
    (tmp_path / "data" / "a").write_bytes(b"1")
    assert len({*ids, dataset.snapshot_id(tmp_path)}) == 3


def test_a_manifest_goes_before_contents(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{ "b": 1,\n "a": [1, 2]}')
    found = dataset.snapshot_id(tmp_path)
    (tmp_path / "other").write_text("more")
    (tmp_path / "manifest.json").write_text('{"a":[1,2],"b":1}')
    assert dataset.snapshot_id(tmp_path) == found == dataset.ready(tmp_path, "ab" * 32)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(EnvironmentNotReady, match="damaged"):
        dataset.snapshot_id(tmp_path)


def test_a_bundle_without_a_harness_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentNotReady, match=r"has no prepare\.py"):
        dataset.copy_harness({"train.py": b""}, tmp_path / "harness")


def test_the_id_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dataset.main([str(tmp_path)]) == 1
    assert capsys.readouterr() == ("", f"no data in {tmp_path}\n")
    (tmp_path / "a").write_bytes(b"1")
    assert dataset.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == dataset.content_id(tmp_path)
