"""What the parent needs to know of the pinned harness, found out in a sandbox and kept in a folder."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from common.text import error_line, printable
from trainer.errors import EnvironmentNotReady, InvalidBundle
from trainer.machine.environment import Environment
from trainer.measurement.scoring import Tokens
from trainer.measurement.values import MeasurementPolicy
from trainer.project import bundle
from trainer.sandbox import JobLimits, Mount, Sandbox, UntrustedResult, interpreter_prefixes

INSIDE = Path(__file__).with_name("inside_harness.py")
CACHE = "home/.cache/autoresearch"
MAX_FILES = 2000  # of the data cache: each is mounted on its own
MAX_BATCH = 8  # rows; more gains little, and a candidate's memory must hold their logits
_MOST_LOGITS = 1 << 27  # float32 values, 512 MiB, in one call
_MAX_TOKENS = 1 << 28
_SECONDS = 1800.0
_KEPT = 8  # sets of facts kept in a home, the newest: validation rows of up to 1 GiB each


@dataclass(frozen=True, slots=True)
class HarnessFacts:
    """A harness with its data. `problem` says why it cannot be stood in for; then all else is empty.

    `rows` int32 (N, T + 1), the validation rows; `token_bytes` int32 (V,), bytes per token, 0 for special tokens.
    """

    problem: str
    budget_seconds: float
    val_filename: str
    rows: Tokens
    token_bytes: Tokens

    @property
    def length(self) -> int:
        """T, the tokens a model sees at once."""
        return int(self.rows.shape[1]) - 1

    @property
    def vocabulary(self) -> int:
        return len(self.token_bytes)

    @property
    def batch(self) -> int:
        """B, the rows in one call of a frozen graph: as many as MAX_BATCH, fewer where their logits would not fit."""
        return max(1, min(MAX_BATCH, _MOST_LOGITS // (self.length * self.vocabulary)))

    @property
    def rows_sha256(self) -> str:
        return sha256(self.rows.astype("<i4").tobytes()).hexdigest()

    @property
    def token_bytes_sha256(self) -> str:
        return sha256(self.token_bytes.astype("<i4").tobytes()).hexdigest()


def supports(facts: HarnessFacts) -> bool:
    """Whether this package can measure in the harness's place; if not, only the run's own word is left."""
    return not facts.problem


def harness_path(argv: Sequence[str], cwd: str) -> str:
    """Where the harness of a resolved command (interpreter, script, ...) lies in the snapshot: beside the script."""
    return os.path.normpath(str(PurePosixPath(cwd, argv[1]).parent / "prepare.py"))


def training_view(cache_files: Iterable[str], val_filename: str) -> list[str]:
    """The files of a data cache that training may see: none that bears the validation shard's name, none hidden."""
    stem = PurePosixPath(val_filename).stem
    return sorted(
        name
        for name in cache_files
        if stem not in name and not any(part.startswith(".") for part in PurePosixPath(name).parts)
    )


def cache_files(cache: Path) -> list[str]:
    """The plain files below a data cache, relative; EnvironmentNotReady if there are none or too many."""
    found = sorted(
        path.relative_to(cache).as_posix()
        for path in cache.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )
    if not 0 < len(found) <= MAX_FILES:
        raise EnvironmentNotReady(
            f"Expected 1 to {MAX_FILES} prepared files in {cache}, found {len(found)}.",
            "Prepare the data with the bundle's prepare.py, with fewer shards if need be.",
        )
    return found


def cache_mounts(cache: Path, names: Iterable[str]) -> list[Mount]:
    return [Mount(cache / name, f"{CACHE}/{name}") for name in names]


def data_environment() -> dict[str, str]:
    """The environment in which a harness finds its data."""
    return {"HOME": "{job}/home", "AUTORESEARCH_CACHE": "{job}/" + CACHE, "PYTHONUNBUFFERED": "1"}


def harness_environment(path: str) -> dict[str, str]:
    """The same for the stand-in of the harness, which is at `path` in {job}/harness."""
    return {**data_environment(), "HARNESS": "{job}/harness/" + path}


def run_harness(
    sandbox: Sandbox,
    environment: Environment,
    snapshot: Mapping[str, bytes],
    path: str,
    cache: Path,
    policy: MeasurementPolicy,
    results: Mapping[str, int],
    texts: Path | None = None,
) -> dict[str, bytes]:
    """Run inside_harness.py over the snapshot's harness; the results by name, at most so many bytes each.

    A result that is not there is left out. EnvironmentNotReady if the harness fails.
    """
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        tree = Path(folder, "harness")
        bundle.write_tree(snapshot, tree)
        mounts = [
            Mount(tree, "harness"),
            Mount(INSIDE, INSIDE.name),
            *cache_mounts(cache, cache_files(cache)),
        ]
        arguments = [str(environment.python), "-I", "{job}/" + INSIDE.name]
        if texts is not None:
            mounts.append(Mount(texts, "texts.json"))
            arguments.append("{job}/texts.json")
        limits = JobLimits(_SECONDS, policy.memory_bytes, policy.processes, scratch_bytes=policy.scratch_bytes)
        with sandbox.start(
            arguments,
            limits=limits,
            tools=interpreter_prefixes(environment.python),
            mounts=mounts,
            env=harness_environment(path),
        ) as job:
            outcome = job.wait()
            if outcome.kind != "exited" or outcome.exit_code != 0:
                said = error_line(outcome.output.decode(errors="replace")) or outcome.kind
                raise EnvironmentNotReady(
                    f"The project's harness failed to produce its validation rows (status {outcome.exit_code}).",
                    f"It said: {printable(said, 300)}. Prepare the data with the bundle's prepare.py; "
                    "`prepare.py --verify` checks it.",
                )
            found = {}
            for name, most in results.items():
                try:
                    found[name] = job.result(name, most)
                except UntrustedResult:
                    continue
    return found


def harness_facts(
    sandbox: Sandbox,
    environment: Environment,
    snapshot: Mapping[str, bytes],
    path: str,
    cache: Path,
    work: Path,
    policy: MeasurementPolicy,
) -> HarnessFacts:
    """The facts of the harness at `path` in the snapshot, from `work` if they were found before.

    Kept by the snapshot's digest and the names, sizes and times of the data. EnvironmentNotReady without data.
    """
    if path not in snapshot:
        return _unsupported(f"the snapshot has no {path}")
    stats = [(name, (cache / name).stat()) for name in cache_files(cache)]
    listing = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    identity = json.dumps([bundle.digest(snapshot), path, INSIDE.read_text(), str(cache.resolve()), listing])
    kept = work / "facts" / sha256(identity.encode()).hexdigest()[:32]
    sizes = {"facts.json": 1 << 16, "rows.i32": _MAX_TOKENS, "bytes.i32": 1 << 22}
    if kept.is_dir():
        try:
            return _parse({name: (kept / name).read_bytes() for name in sizes if (kept / name).exists()})
        except ValueError:
            shutil.rmtree(kept)
    found = run_harness(sandbox, environment, snapshot, path, cache, policy, sizes)
    try:
        facts = _parse(found)
    except ValueError as error:
        raise EnvironmentNotReady(
            f"The project's harness returned invalid facts: {error}.",
            "Check its prepare.py and its data.",
        ) from error
    with contextlib.suppress(InvalidBundle, OSError):  # another process may have been first; else they are found again
        bundle.write_tree(found, kept)
        for old in sorted(kept.parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    return facts


def _unsupported(problem: str) -> HarnessFacts:
    return HarnessFacts(problem, 0.0, "", np.zeros((0, 1), np.int32), np.zeros(0, np.int32))


def _parse(found: Mapping[str, bytes]) -> HarnessFacts:
    """The facts in the files of inside_harness.py; ValueError for anything that cannot be."""
    try:
        document = json.loads(found["facts.json"])
        if document["problem"]:
            return _unsupported(str(document["problem"])[:500])
        count, length, vocabulary = (int(document[name]) for name in ("rows", "length", "vocabulary"))
        budget, val_filename = float(document["budget_seconds"]), str(document["val_filename"])
        rows, token_bytes = found["rows.i32"], found["bytes.i32"]
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__} {error}") from error
    if min(count, length, vocabulary, budget) <= 0 or not PurePosixPath(val_filename).stem:
        raise ValueError("sizes, a budget and a validation shard are expected")
    table = integers(token_bytes, 1, vocabulary)[0]
    if table.min() < 0 or table.max() > 1 << 16 or not table.any():
        raise ValueError("the byte counts of tokens")
    return HarnessFacts("", budget, val_filename, token_rows(rows, count, length, vocabulary), table)


def token_rows(data: bytes, count: int, length: int, vocabulary: int) -> Tokens:
    """int32 (count, length + 1) of ids below `vocabulary`; ValueError for anything else."""
    rows = integers(data, count, length + 1)
    if rows.size and (rows.min() < 0 or rows.max() >= vocabulary):
        raise ValueError("a token outside the vocabulary")
    return rows


def integers(data: bytes, rows: int, columns: int) -> Tokens:
    """Raw little-endian int32 of exactly this shape; ValueError for another size."""
    if len(data) != 4 * rows * columns:
        raise ValueError(f"{len(data)} bytes are not int32 ({rows}, {columns})")
    table: npt.NDArray[np.int32] = np.frombuffer(data, "<i4").reshape(rows, columns).astype(np.int32)
    return table
