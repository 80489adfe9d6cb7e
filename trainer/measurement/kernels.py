"""What MLX compiles while it runs, kept in a folder of the home: its own cache, in the temporary folder (TMPDIR/mlx).

MLX 0.32 compiles for CUDA and the CPU while a program runs and keeps the results there; Metal keeps its own elsewhere.
A cache that cannot be written to ends a process that needs another kernel, so a run gets a copy.
A set is made when a bench is opened on CUDA (`Measurer.compile_kernels`), never by a candidate.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from trainer.project import bundle

FOLDER: Final = "mlx"
TRAINING_SECONDS: Final = 2.0  # a few steps, all of the same kernels
MOST_FILES, MOST_BYTES = 4096, 512 << 20
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
    for old in sorted(kept.parent.glob("[!.]*"), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return find(work, name)
