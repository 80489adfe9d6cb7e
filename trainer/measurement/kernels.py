"""What MLX compiles while it runs, kept in a folder of the home: its own cache, in the temporary folder (TMPDIR/mlx).

MLX 0.32 compiles for CUDA and the CPU while a program runs and keeps the results there; Metal keeps its own elsewhere.
A cache that cannot be written to ends a process that needs another kernel, so a run gets a copy.
A set is made when a bench is opened on CUDA (`Measurer.compile_kernels`), never by a candidate. That a snapshot comes
to none is remembered for RETRY_HOURS: to find it out again would cost each opening the whole compilation.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from common.files import write_atomic
from trainer.project import bundle

FOLDER: Final = "mlx"
TRAINING_SECONDS: Final = 2.0  # a few steps, all of the same kernels
MOST_FILES, MOST_BYTES = 4096, 512 << 20
RETRY_HOURS: Final = 24.0
_KEPT: Final = 4  # sets, the newest


def key(snapshot: Mapping[str, bytes], packages_digest: str, machine: str) -> str:
    """The name of a set of kernels: it belongs to the code, the packages and the kind of machine it is compiled for."""
    return sha256(json.dumps([bundle.digest(snapshot), packages_digest, machine]).encode()).hexdigest()[:32]


def find(work: Path, name: str) -> Path | None:
    """The folder of a set that is kept in `work`."""
    kept = work / "kernels" / name
    return kept if kept.is_dir() else None


def keep(work: Path, name: str, files: Mapping[str, bytes]) -> Path | None:
    """Keep a set in `work`, whole or not at all; its folder, None where it is empty or could not be written."""
    kept = work / "kernels" / name
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=kept.parent, ignore_cleanup_errors=True) as building:
        for path, content in files.items():
            target = Path(building, "set", path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        with contextlib.suppress(OSError):  # another process may have been first
            Path(building, "set").replace(kept)
    _prune(kept.parent)
    return find(work, name)


def give_up(work: Path, name: str) -> None:
    """Remember that there is no such set to be had."""
    (work / "kernels").mkdir(parents=True, exist_ok=True)
    write_atomic(_failed(work, name), b"")
    _prune(work / "kernels")


def given_up(work: Path, name: str) -> bool:
    """Whether that was found out within RETRY_HOURS."""
    try:
        age = time.time() - _failed(work, name).stat().st_mtime
    except OSError:
        return False
    return 0 <= age < RETRY_HOURS * 3600


def _failed(work: Path, name: str) -> Path:
    return work / "kernels" / f"{name}.failed"


def _prune(folder: Path) -> None:
    for old in sorted(folder.glob("[!.]*"), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink(missing_ok=True)
