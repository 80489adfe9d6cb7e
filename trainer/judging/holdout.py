"""Holdout text: text that nobody could know when the proposal was submitted, for a second score.

The validation shard is public, so its answers can be memorised. The slot hash of the submission, fixed
after the code was, draws other text:

- where the project's data is the public dataset, a training-range shard that is not among the local ones
  is downloaded;
- else, or where the download fails, row groups of the local training shards are held out: both arms then
  train on a view of the data without them, so the text is new to the models though not to the world.

The draw is a pure function of seed and names; everything here only reads the prepared data, and writes the
view into a folder of its own.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from trainer.errors import EnvironmentNotReady

Say = Callable[[str], None]
DATASET = "karpathy/climbmix-400b-shuffle"
TRAINING_SHARDS = 6542  # shard_00000 to shard_06541; the next one is for validation
_MAX_SHARD = 512 * 1024 * 1024
_SECONDS = 1800.0
_CONTENT_HOSTS = ("huggingface.co", ".huggingface.co", ".hf.co")  # where the hub keeps its files


@dataclass(frozen=True, slots=True)
class HoldoutText:
    """Drawn text. `source` says where it is from, `view` is the data folder to train on, `cut` the share of the
    training text that is missing there."""

    source: str
    texts: tuple[str, ...]
    view: Path
    sha256: str
    cut: float = 0.0


def seed_of(block_hash: bytes, proposal: int) -> bytes:
    """The seed of a proposal's draw: 32 bytes from the slot hash of its submission and its id."""
    return sha256(b"holdout text" + block_hash + proposal.to_bytes(8, "little")).digest()


def draw_shard(seed: bytes, local: Sequence[int]) -> int:
    """The number of a training-range shard that is not local."""
    known = set(local)
    others = [number for number in range(TRAINING_SHARDS) if number not in known]
    return random.Random(seed).choice(others)


def draw_groups(seed: bytes, groups: Sequence[tuple[str, int, int]], enough: int) -> list[tuple[str, int]]:
    """Row groups to hold out: (shard, index) drawn from (shard, index, bytes of text), `enough` bytes together.

    At most half of all groups and never all of a shard, so that there is something left to train on.
    """
    order = sorted(groups)
    left = Counter(shard for shard, _, _ in order)
    random.Random(seed).shuffle(order)
    drawn: list[tuple[str, int]] = []
    total = 0
    for shard, index, size in order:
        if total >= enough or len(drawn) == len(order) // 2:
            break
        if left[shard] > 1:
            left[shard] -= 1
            drawn.append((shard, index))
            total += size
    if total < enough:
        raise EnvironmentNotReady(
            f"The local training shards have too little text: {enough:,} bytes are needed, {total:,} found.",
            "Prepare more training shards.",
        )
    return sorted(drawn)


def holdout_text(
    cache: Path, folder: Path, seed: bytes, enough: int, *, val_filename: str, public: bool, say: Say
) -> HoldoutText:
    """Draw at least `enough` bytes of text; `public` where the data is the public dataset.

    EnvironmentNotReady if there is none. `folder` is empty, and this draw's own.
    """
    shards = sorted(path.stem for path in (cache / "data").glob("*.parquet") if path.name != val_filename)
    if not shards:
        raise EnvironmentNotReady(f"There are no training shards in {cache / 'data'}.", "Prepare the data first.")
    if public:
        try:
            return _downloaded(cache, folder, seed, enough, shards, say)
        except EnvironmentNotReady as error:
            say(f"cannot download a shard ({error.problem}); holding out local text")
    with _reading(f"The training shards in {cache / 'data'}", "Move the damaged ones away and prepare the data again."):
        return _held_out(cache, folder, seed, enough, shards)


@contextmanager
def _reading(what: str, cure: str) -> Iterator[None]:
    """A block that reads Parquet: on damaged and hostile bytes pyarrow raises exceptions of many kinds."""
    try:
        yield
    except EnvironmentNotReady:
        raise
    except Exception as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise EnvironmentNotReady(f"{what} cannot be read: {why}.", cure) from error


def _downloaded(cache: Path, folder: Path, seed: bytes, enough: int, shards: Sequence[str], say: Say) -> HoldoutText:
    import pyarrow.parquet as pq

    numbers = [int(name.rpartition("_")[2]) for name in shards if name.rpartition("_")[2].isdigit()]
    name = f"shard_{draw_shard(seed, numbers):05d}.parquet"
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    url = f"{endpoint}/datasets/{DATASET}/resolve/main/{name}"
    path = folder / name
    say(f"downloading {name}")
    _download(url, path)
    texts: list[str] = []
    size = 0
    try:
        with _reading(f"The shard {name} from {endpoint}", "Try again later."):
            shard = pq.ParquetFile(path)
            for group in range(shard.num_row_groups):
                if size >= enough:
                    break
                found = [str(text) for text in shard.read_row_group(group, columns=["text"]).column("text").to_pylist()]
                texts += found
                size += sum(len(text.encode()) for text in found)
    finally:
        path.unlink(missing_ok=True)  # its text is all that is wanted of it
    return HoldoutText(name, tuple(texts), cache, _digest(texts))


def _download(url: str, path: Path) -> None:
    from common.http import HttpClient

    with HttpClient(
        unreachable=EnvironmentNotReady,
        unusable=EnvironmentNotReady,
        timeout=30.0,
        limit=_SECONDS,
        redirects=_CONTENT_HOSTS,
    ) as client:
        try:
            client.save(url, path, max_bytes=_MAX_SHARD)
        except OSError as error:
            raise EnvironmentNotReady(f"{path} cannot be written: {error.strerror}.", "Free some space.") from error


def _held_out(cache: Path, folder: Path, seed: bytes, enough: int, shards: Sequence[str]) -> HoldoutText:
    """Row groups of the local training shards, and a view of the data without them."""
    import pyarrow.parquet as pq

    opened = {name: pq.ParquetFile(cache / "data" / f"{name}.parquet") for name in shards}
    groups = [
        (name, index, shard.metadata.row_group(index).column(0).total_uncompressed_size)
        for name, shard in opened.items()
        for index in range(shard.num_row_groups)
    ]
    drawn = draw_groups(seed, groups, enough)
    texts = [
        str(text)
        for name, index in drawn
        for text in opened[name].read_row_group(index, columns=["text"]).column("text").to_pylist()
    ]
    _write_view(cache, folder, {name: {i for n, i in drawn if n == name} for name in shards})
    source = "held out: " + ", ".join(f"{name} group {index}" for name, index in drawn[:8])
    sizes = {(name, index): size for name, index, size in groups}
    cut = sum(sizes[group] for group in drawn) / sum(sizes.values())
    return HoldoutText(source, tuple(texts), folder / "cache", _digest(texts), cut)


def _write_view(cache: Path, view: Path, out: dict[str, set[int]]) -> None:
    """A copy of the prepared data (by links where possible) in which the drawn row groups are missing.

    Tokenized shards are cut; a harness that has them does not read the parquet files in training, so those
    that would show the text are left out. A harness without them gets parquet files without the groups.
    """
    target = view / "cache"
    for path in sorted(cache.rglob("*")):
        name = path.relative_to(cache)
        if not path.is_file() or any(part.startswith(".") for part in name.parts):
            continue
        if out.get(path.stem):
            continue
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, copy)
        except OSError:
            shutil.copyfile(path, copy)
    for shard, groups in out.items():
        if not groups:
            continue
        if (cache / "tokens" / f"{shard}.tokens").exists():
            _cut_tokens(cache / "tokens" / shard, target / "tokens" / shard, groups)
        else:
            _cut_parquet(cache / "data" / f"{shard}.parquet", target / "data" / f"{shard}.parquet", groups)


def _cut_tokens(source: Path, target: Path, groups: set[int]) -> None:
    import numpy as np

    record = json.loads(source.with_suffix(".json").read_bytes())
    tokens = np.memmap(source.with_suffix(".tokens"), "<u2", "r")
    offsets = np.fromfile(source.with_suffix(".offsets"), "<u8")
    keep, lengths, sizes, start = [], [], [], 0
    for index, size in enumerate(record["row_groups"]):
        if index not in groups:
            keep.append(tokens[offsets[start] : offsets[start + size]])
            lengths.append(np.diff(offsets[start : start + size + 1]))
            sizes.append(size)
        start += size
    np.concatenate(keep).astype("<u2").tofile(target.with_suffix(".tokens"))
    ends = np.cumsum(np.concatenate(lengths), dtype=np.uint64)
    np.concatenate([np.zeros(1, np.uint64), ends]).astype("<u8").tofile(target.with_suffix(".offsets"))
    target.with_suffix(".json").write_text(json.dumps({**record, "row_groups": sizes}))


def _cut_parquet(source: Path, target: Path, groups: set[int]) -> None:
    import pyarrow.parquet as pq

    shard = pq.ParquetFile(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(target, shard.schema_arrow) as writer:
        for index in range(shard.num_row_groups):
            if index not in groups:
                writer.write_table(shard.read_row_group(index))


def _digest(texts: Sequence[str]) -> str:
    total = sha256()
    for text in texts:
        total.update(sha256(text.encode()).digest())
    return total.hexdigest()
