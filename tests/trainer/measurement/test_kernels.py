"""What is kept of a GPU's kernels, and what is remembered of a snapshot that comes to none."""

from __future__ import annotations

import os
import time
from pathlib import Path

from trainer.measurement import kernels


def test_a_snapshot_without_kernels_is_not_compiled_again_for_a_day(tmp_path: Path) -> None:
    assert not kernels.given_up(tmp_path, "ab")
    kernels.give_up(tmp_path, "ab")
    assert kernels.given_up(tmp_path, "ab")
    assert not kernels.given_up(tmp_path, "cd")
    assert kernels.find(tmp_path, "ab") is None
    (note,) = (tmp_path / "kernels").iterdir()
    for age in (kernels.RETRY_HOURS * 3600 + 1, -3600):  # the second: the clock was wrong
        os.utime(note, (time.time() - age,) * 2)
        assert not kernels.given_up(tmp_path, "ab")


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for number in range(6):
        if number % 2:
            kernels.give_up(tmp_path, str(number))
        else:
            assert kernels.keep(tmp_path, str(number), {"a/kernel": b"x"})
        for path in (tmp_path / "kernels").iterdir():
            os.utime(path, (path.stat().st_mtime - 1,) * 2)
    assert {path.stem for path in (tmp_path / "kernels").iterdir()} == {"2", "3", "4", "5"}
    assert kernels.keep(tmp_path, "6", {}) is None
