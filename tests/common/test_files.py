"""Whole files and bounded locks."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from common.errors import Refused
from common.files import lock, locked, unlock, write_atomic, write_beside


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomic(path, b"old", 0o600)
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_where_the_name_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "taken" / "inner").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_atomic(tmp_path / "taken", b"new")
    assert list(tmp_path.iterdir()) == [tmp_path / "taken"]


def test_a_secret_file_is_private_from_its_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    fchmod = os.fchmod

    def seen(descriptor: int, mode: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        assert os.fstat(descriptor).st_size == 0
        fchmod(descriptor, mode)

    monkeypatch.setattr(os, "fchmod", seen)
    before = os.umask(0)
    try:
        part = write_beside(tmp_path / "key", b"secret", 0o600)
    finally:
        os.umask(before)
    assert modes == [0o600]
    assert stat.S_IMODE(part.stat().st_mode) == 0o600
    assert part.read_bytes() == b"secret"


def test_a_lock_is_waited_for_and_announced_once(tmp_path: Path) -> None:
    said: list[str] = []
    with (tmp_path / "lock").open("ab") as holder, (tmp_path / "lock").open("ab") as other:
        assert lock(holder, busy=lambda: said.append("busy"))
        started = time.monotonic()
        assert not lock(other, wait=0.1, every=0.01, busy=lambda: said.append("busy"))
        assert time.monotonic() - started >= 0.1
        assert said == ["busy"]
        unlock(holder)
        assert lock(other)


def test_shared_locks_keep_only_exclusive_ones_out(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("ab") as one, (tmp_path / "lock").open("ab") as two:
        assert lock(one, shared=True)
        assert lock(two, shared=True)
        assert not lock(two)


def test_a_held_file_refuses_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path), pytest.raises(Refused, match=f"kept {path} locked"), locked(path, wait=0.05):
        raise AssertionError("two hold it")
    with locked(path, wait=0.0):
        pass
