"""What killed processes left is removed; what a living one holds, or has just made, is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from trainer.machine import scratch

_HOLDER = """
import sys, time
from pathlib import Path
from trainer.machine import scratch
for name in sys.argv[1:]:
    scratch.hold(Path(name))
print("held", flush=True)
time.sleep(60)
"""


def _aged(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (time.time() - 3600,) * 2, follow_symlinks=False)


def test_only_what_nobody_holds_is_swept(tmp_path: Path) -> None:
    folder, file, young = tmp_path / "run-a", tmp_path / "a.bin", tmp_path / "run-young"
    (folder / "tree" / "deep").mkdir(parents=True)
    (folder / "tree").chmod(0)
    file.write_bytes(b"x")
    young.mkdir()
    _aged(folder, file)
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(folder), str(file)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    scratch.sweep(tmp_path)
    assert folder.is_dir()
    assert file.is_file()
    process.kill()
    process.communicate()
    scratch.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [young]


def test_links_are_not_followed_and_no_folder_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_bytes(b"x")
    (tmp_path / "swept").mkdir()
    (tmp_path / "swept" / "link").symlink_to(tmp_path / "kept")
    _aged(tmp_path / "swept" / "link", tmp_path / "kept")
    scratch.sweep(tmp_path / "swept")
    scratch.sweep(tmp_path / "none")
    assert (tmp_path / "kept" / "file").exists()


def test_what_is_held_is_removed_by_its_maker(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    scratch.remove(scratch.hold(tmp_path / "made"))
    scratch.remove(tmp_path / "made")
    assert list(tmp_path.iterdir()) == []
