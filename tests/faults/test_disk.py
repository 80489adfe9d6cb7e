"""Disks that are full or not writable, output that nobody takes, pipes for key files: one line, and nothing is lost.

The full disk is a real one: a small tmpfs, mounted in a user namespace of its own.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from chain.connection import config
from chain.errors import InvalidData
from chain.wallet import wallet
from tests import local
from tests.faults import small_disk
from tests.miner import sessions
from tests.support import require

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
MOUNT = 'mount -t tmpfs -o "$1" none "$2" && shift 2 && exec "$@"'
SEAL = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'


@cache
def can_mount() -> bool:
    return bool(shutil.which("unshare")) and on_tmpfs("size=64k", Path("/mnt"), "true").returncode == 0


def on_tmpfs(options: str, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command that sees a tmpfs at `folder`, as nobody else does."""
    return _mounted(MOUNT, options, str(folder), *command)


def _mounted(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    argv = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", *words]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=250)


@pytest.mark.parametrize("kind", ["settle", "submit"])
def test_a_full_disk_loses_nothing_and_does_nothing_twice(kind: str, tmp_path: Path) -> None:
    require(can_mount(), "a user namespace that may mount a tmpfs (Linux)")
    done = on_tmpfs("size=48m", tmp_path, sys.executable, "-m", "tests.faults.small_disk", str(tmp_path), kind)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    print(f"{kind}: {len(found['failures'])} tries failed: {sorted(set(found['failures']))}")
    assert found["failures"]
    assert all("\n" not in words for words in found["failures"])
    assert found["proposals"] == ["APPROVED" if kind == "settle" else "PENDING"]
    assert found["minted"] == (1 if kind == "settle" else 0)
    assert found["supply"] == local.STAKE + found["minted"]
    assert found["left"] == []


@pytest.mark.parametrize("kind", ["settle", "submit"])
def test_a_disk_that_is_full_for_one_record_loses_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line of the record in turn finds no room, half of it written: before a transaction is sent, and after."""
    write = os.write
    for line in range(1, 20):
        home, left, failed = local.home_with_project(tmp_path / str(line)), [line], False
        with local.connect(home) as connection:
            local.miner_of(connection), local.verifier_of(connection)
            if kind == "settle":
                local.propose(connection)
            attempt = small_disk.settling if kind == "settle" else small_disk.submitting

            def cramped(descriptor: int, data: Any, left: list[int] = left) -> int:
                left[0] -= 1
                if left[0] == 0:
                    write(descriptor, data[: len(data) // 2])
                    raise OSError(errno.ENOSPC, "No space left on device")
                return write(descriptor, data)

            with monkeypatch.context() as patch:
                patch.setattr("common.files.os.write", cramped)
                try:
                    attempt(connection)
                except OSError as error:
                    failed = error.errno == errno.ENOSPC
            if not failed:
                assert line > 4
                return
            attempt(connection)
            project = connection.client.project(0)
            proposals = connection.client.proposals(0)
            assert [p.status.name for p in proposals] == ["APPROVED" if kind == "settle" else "PENDING"], line
            assert connection.client.supply(project) == local.STAKE + (kind == "settle"), line
    raise AssertionError("it never succeeded at once")


def ends_in_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("Error: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("program", [("miner", "status"), ("chain", "project", "list"), ("miner", "status", "--json")])
@pytest.mark.parametrize(
    ("redirection", "words"), [("> /dev/full", "No space left on device"), (">&-", "standard output is closed")]
)
def test_output_that_nobody_takes(tmp_path: Path, program: tuple[str, ...], redirection: str, words: str) -> None:
    require(Path("/dev/full").exists(), "/dev/full (Linux)")
    command = f'"$0" "$@" {redirection}'
    argv = ["sh", "-c", command, str(BIN / program[0]), *program[1:], "--home", str(tmp_path)]
    ends_in_one_line(subprocess.run(argv, stderr=subprocess.PIPE, text=True, timeout=120), words)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_that_nobody_takes(option: str) -> None:
    require(Path("/dev/full").exists(), "/dev/full (Linux)")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([str(BIN / "miner"), option], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    ends_in_one_line(done, "No space left on device")


def test_a_reader_that_has_read_enough_is_no_error(tmp_path: Path) -> None:
    argv = ["sh", "-c", '"$0" status --home "$1" | true', str(BIN / "miner"), str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "command", [("chain", "wallet", "new", "miner"), ("miner", "run"), ("chain", "project", "list")]
)
def test_a_home_that_cannot_be_written(tmp_path: Path, command: tuple[str, ...]) -> None:
    require(can_mount(), "a user namespace that may mount a tmpfs (Linux)")
    argv = [str(BIN / command[0]), *command[1:], "--home"]
    ends_in_one_line(on_tmpfs("ro,size=64k", tmp_path, *argv, str(tmp_path)), str(tmp_path))
    ends_in_one_line(on_tmpfs("ro,size=64k", tmp_path, *argv, str(tmp_path / "deep" / "home")), str(tmp_path))


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a small session and no chain."""
    require(shutil.which("git") is not None, "git (apt-get install git)")
    home = tmp_path_factory.mktemp("records")
    sessions.make(home, trials=2)
    return home


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        ("miner status", 0, "records"),
        ("miner report --output {out}/page.html", 0, "page.html"),
        ("miner report", 1, "report.html: Read-only file system. Choose another file with --output."),
        ("miner export {out} --offline", 0, "results.tsv"),
        ("miner compare {session} {session}", 0, "trials"),
        ("verifier report", 0, "nothing yet"),
        ("verifier audit pyproject.toml --offline", 1, "DSSE"),
    ],
)
def test_records_are_read_where_nobody_may_write(
    records: Path, tmp_path: Path, command: str, status: int, words: str
) -> None:
    require(can_mount(), "a user namespace that may mount a tmpfs (Linux)")
    program, *arguments = command.format(out=tmp_path, session=sessions.NAME).split()
    done = _mounted(SEAL, str(records), str(BIN / program), *arguments, "--home", str(records))
    assert done.returncode == status, done.stderr
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_wallet_on_a_full_disk_is_not_half_made(tmp_path: Path) -> None:
    require(can_mount(), "a user namespace that may mount a tmpfs (Linux)")
    full = 'head -c 200000 /dev/zero > "$1/filler" 2> /dev/null; "$0" wallet new miner --home "$1"; s=$?; '
    full += 'ls -A "$1/wallets"; exit $s'
    done = on_tmpfs("size=64k", tmp_path, "sh", "-c", full, str(BIN / "chain"), str(tmp_path))
    ends_in_one_line(done, "No space left on device")
    assert [name for name in done.stdout.split() if name.endswith((".json", ".tmp"))] == []


@pytest.mark.timeout(60)
def test_a_pipe_is_no_key_file_and_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    os.mkfifo(path, 0o600)
    with pytest.raises(InvalidData, match="wallet file"):
        wallet.load(path)
    assert config._read(path) == b""
