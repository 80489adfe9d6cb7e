"""Candidates from a folder: whole train.py files and diffs of it (`diffs`), in the order of their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from miner.proposers import diffs
from miner.proposers.base import Candidate, Context, ProposerFailed
from trainer.errors import InvalidBundle, TrainerError
from trainer.project import hyperparameters

SUFFIXES = (".py", ".diff", ".patch")
MAX_FILES = 10_000
MAX_BYTES = 1024 * 1024


class Patches:
    """Each `*.py`, `*.diff` and `*.patch` of `folder` once: what was tried is known by its fingerprint.

    A diff applies to the incumbent of its turn; one that no longer does is reported once and skipped. The folder is
    read at every turn, so files may be added while the session runs.
    """

    name = "patches"

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        if not folder.is_dir():
            raise TrainerError(f"{folder} is not a folder.", "Give --patches a folder of train.py files or diffs.")
        self._folder, self._say = folder, say
        self._done: dict[str, bytes] = {}  # by name: what it held when it was found to be of no use

    def propose(self, context: Context) -> Candidate | None:
        """The first file that gives an untried candidate, or None."""
        known = context.known()
        hypotheses = {trial.hypothesis for trial in context.history} | {trial.hypothesis for trial in context.pending}
        for path in self._files():
            try:
                content = path.read_bytes() if path.stat().st_size <= MAX_BYTES else None
            except OSError as error:
                self._skip(path, b"", f"cannot read it: {error.strerror}")
                continue
            if content is None:
                self._skip(path, b"", f"it is larger than {MAX_BYTES} bytes")
                continue
            if self._done.get(path.name) == content:
                continue
            try:
                text = content.decode()
                # A kept diff would not apply to its own result; it had its turn anyway.
                if path.suffix != ".py" and f"patch {path.name}" in hypotheses:
                    continue
                source = text if path.suffix == ".py" else diffs.apply(context.source, text)
                fingerprint = hyperparameters.fingerprint(source)
            except UnicodeDecodeError:
                self._skip(path, content, "it is not UTF-8 text")
            except (ProposerFailed, InvalidBundle) as error:
                self._skip(path, content, error.problem)
            else:
                if fingerprint not in known:
                    return Candidate(source, f"patch {path.name}")
        return None

    def _files(self) -> list[Path]:
        try:
            found = sorted(path for path in self._folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
        except OSError as error:
            raise ProposerFailed(f"Cannot read {self._folder}: {error.strerror}.") from error
        return found[:MAX_FILES]

    def _skip(self, path: Path, content: bytes, why: str) -> None:
        if self._done.get(path.name) != content:
            self._say(f"  skipping {path.name}: {why}")
        self._done[path.name] = content
