"""The harness: data snapshot, tokenizer, dataloader, time budget, metric. train.py imports it; nobody edits it.

    python prepare.py                  ten training shards of the public dataset climbmix-400b-shuffle
    python prepare.py --num-shards 2   fewer of them; -1 is all 6542
    python prepare.py --text DIR       local .txt, .py, .rst and .md files instead; needs no network
    python prepare.py --text stdlib    the same with this interpreter's own standard library
    python prepare.py --verify         check every prepared file against the manifest
    python prepare.py --snapshot-id    print the data snapshot id that miners and verifiers compare

Everything lies under ~/.cache/autoresearch (AUTORESEARCH_CACHE overrides; HF_ENDPOINT names a mirror):

    data/shard_00000.parquet ...       documents in one `text` column; shard_06542 is the validation shard
    tokenizer/tokenizer.json           byte-level BPE, trained on the training shards only
    tokenizer/token_bytes.npy          int32 (V,): bytes each token stands for, 0 for special tokens
    tokens/shard_00000.tokens          uint16, little-endian: all documents on end, each begins with BOS
    tokens/shard_00000.offsets         uint64, little-endian: where each document begins, and the total
    tokens/shard_00000.json            what they were made from, and the row groups they came in
    manifest.json                      SHA-256 of all of these; the snapshot id is that of its canonical JSON

Where a protocol.json lies beside this file, the constants come from it. Files appear whole or not at all, and
a run that was stopped is continued by running it again. Training needs no file of the validation shard.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import hashlib
import itertools
import json
import math
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import httpx
    import tokenizers


class HarnessError(Exception):
    """What was expected and found, and what to do about it, in one line."""


class DataMissing(HarnessError, FileNotFoundError):
    """Prepared data that is not there (yet), or was hidden."""


# ---------------------------------------------------------------------------
# Constants
# ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Constants:
    """What the protocol fixes. Defaults are those of Autoresearch MLX."""

    sequence_length: int = 2048
    time_budget: int | float = 300  # seconds of training
    eval_tokens: int = 768 * 2048
    vocab_size: int = 8192


def read_constants(protocol: Path) -> Constants:
    """The constants of a protocol.json, or the defaults where the file or a field is absent.

    Budget: execution.stopCondition.trainingSecondsBudget. The others: evalTokens, sequenceLength and
    vocabSize of archetypeExtensions.ml_train. Raises HarnessError, naming the field.
    """
    default = Constants()
    try:
        document = json.loads(protocol.read_bytes())
    except FileNotFoundError:
        return default
    except (OSError, ValueError, RecursionError) as error:
        raise HarnessError(f"{protocol} cannot be read as JSON: {error}. Restore it from the bundle.") from error

    def field(path: str, absent: Any, low: int, high: int, kinds: tuple[type, ...] = (int,)) -> Any:
        value = document
        for key in path.split("."):
            if not isinstance(value, dict):
                raise HarnessError(f"{protocol}: expected an object above {path}. Restore it from the bundle.")
            if key not in value:
                return absent
            value = value[key]
        if type(value) not in kinds or not low <= value <= high:
            raise HarnessError(
                f"{protocol}: expected {path} to be a number from {low} to {high}, found {value!r}. "
                "Restore it from the bundle."
            )
        return value

    extension = "archetypeExtensions.ml_train."
    length = field(extension + "sequenceLength", default.sequence_length, 1, 1 << 20)
    return Constants(
        sequence_length=length,
        time_budget=field("execution.stopCondition.trainingSecondsBudget", default.time_budget, 1, 10**6, (int, float)),
        eval_tokens=field(extension + "evalTokens", default.eval_tokens, length, 1 << 40),
        vocab_size=field(extension + "vocabSize", default.vocab_size, 256 + 4 + 1, 1 << 16),
    )


try:
    CONSTANTS = read_constants(Path(__file__).with_name("protocol.json"))
except HarnessError as error:
    if __name__ == "__main__":
        sys.exit(f"prepare.py: {error}")
    raise

MAX_SEQ_LEN = CONSTANTS.sequence_length
TIME_BUDGET = CONSTANTS.time_budget
EVAL_TOKENS = CONSTANTS.eval_tokens
VOCAB_SIZE = CONSTANTS.vocab_size

CACHE_DIR = os.path.abspath(
    os.environ.get("AUTORESEARCH_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "autoresearch")
)
DATA_DIR = os.path.join(CACHE_DIR, "data")
TOKENIZER_DIR = os.path.join(CACHE_DIR, "tokenizer")
TOKENS_DIR = os.path.join(CACHE_DIR, "tokens")

DATASET = "karpathy/climbmix-400b-shuffle"
HF_ENDPOINT = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
BASE_URL = f"{HF_ENDPOINT.rstrip('/')}/datasets/{DATASET}/resolve/main"
MAX_SHARD = 6542
VAL_SHARD = MAX_SHARD
VAL_FILENAME = f"shard_{VAL_SHARD:05d}.parquet"

SPECIAL_TOKENS = [f"<|reserved_{i}|>" for i in range(4)]
BOS_TOKEN = SPECIAL_TOKENS[0]
# The GPT-4 split with numbers cut after two digits, which suits a small vocabulary.
SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
# The tokenizer sees this much training text at most, and this much of one document. Four times as much made tokens
# 0.05 % longer on held text, and took 2.8 GB and nearly five times as long.
TOKENIZER_CHARS = 250_000_000
TOKENIZER_DOCUMENT_CHARS = 10_000

TEXT_SUFFIXES = (".md", ".py", ".rst", ".txt")
TEXT_DOCUMENT_CHARS = max(256, 2 * MAX_SEQ_LEN)  # about half a row, so that few documents are cropped
TEXT_VAL_EVERY = 10
TEXT_SHARD_CHARS = 32 << 20
TEXT_MAX_BYTES = 256 << 20

DOWNLOAD_ATTEMPTS = 6  # in a row without a single new byte
DOWNLOAD_SECONDS = 3600.0  # for one shard
DOWNLOAD_MAX_BYTES = 4 << 30  # of one shard
RETRY_SECONDS = 1.0  # the first wait; it doubles up to 30 s

LOGITS_BYTES = 2 << 30  # no logits tensor of evaluate_bpb is larger (float32)
PREFETCH_BATCHES = 4
DOCUMENT_BATCH = 128  # documents the packing buffer is refilled with at a time


# ---------------------------------------------------------------------------
# Tokenizer
# ---------------------------------------------------------------------------


class Tokenizer:
    """Byte-level BPE; 4 reserved special tokens end the vocabulary, and no text is ever encoded as one."""

    def __init__(self, enc: tokenizers.Tokenizer) -> None:
        bos = enc.token_to_id(BOS_TOKEN)
        if enc.get_vocab_size() != VOCAB_SIZE or bos is None:
            raise HarnessError(
                f"Expected a tokenizer of {VOCAB_SIZE} tokens with {BOS_TOKEN}, found {enc.get_vocab_size()} "
                "tokens. Run prepare.py again, or set AUTORESEARCH_CACHE to this project's data."
            )
        enc.encode_special_tokens = True  # the library's name for: encode their spelling as ordinary text
        self.enc = enc
        self.bos_token_id: int = bos

    @classmethod
    def from_directory(cls, tokenizer_dir: str | os.PathLike[str] = TOKENIZER_DIR) -> Tokenizer:
        """Load tokenizer.json. Raises DataMissing; HarnessError for a vocabulary not the protocol's."""
        import tokenizers

        path = Path(tokenizer_dir, "tokenizer.json")
        if not path.is_file():
            raise DataMissing(f"There is no tokenizer at {path}. Run prepare.py first.")
        try:
            enc = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise HarnessError(f"{path} is no tokenizer: {error}. Delete it and run prepare.py again.") from error
        return cls(enc)

    def get_vocab_size(self) -> int:
        return int(self.enc.get_vocab_size())

    def get_bos_token_id(self) -> int:
        return self.bos_token_id

    def encode(self, text: str | list[str], prepend: int | str | None = None, num_threads: int = 8) -> Any:
        """Token ids: list[int] of a str, list[list[int]] of a list; `prepend` (an id or a token) goes first.

        `num_threads` is accepted for compatibility: a list is encoded on RAYON_NUM_THREADS threads.
        """
        first: list[int] = []
        if prepend is not None:
            token = prepend if isinstance(prepend, int) else self.enc.token_to_id(prepend)
            if token is None:
                raise ValueError(f"{prepend!r} is not in the vocabulary")
            first = [token]
        if isinstance(text, str):
            return first + self.enc.encode(text, add_special_tokens=False).ids
        if isinstance(text, list):
            return [first + encoding.ids for encoding in self.enc.encode_batch_fast(text, add_special_tokens=False)]
        raise ValueError(f"encode takes a str or a list of str, not {type(text).__name__}")

    def decode(self, ids: Sequence[int]) -> str:
        """The text, special tokens spelled out; bytes that are not UTF-8 become U+FFFD."""
        return str(self.enc.decode(list(ids), skip_special_tokens=False))


def count_token_bytes(enc: tokenizers.Tokenizer) -> npt.NDArray[np.int32]:
    """int32 (V,): bytes each token stands for. Exact also for tokens that are only a piece of a character.

    In byte-level BPE a token is spelled in an alphabet of 256 characters, one per byte, so its length in
    characters is its length in bytes.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = set(ByteLevel.alphabet())
    counts = np.zeros(enc.get_vocab_size(), np.int32)
    for token, index in enc.get_vocab(with_added_tokens=True).items():
        if token not in SPECIAL_TOKENS:
            if not alphabet.issuperset(token):
                raise HarnessError(f"Token {index} is not spelled in bytes: {token!r}. Delete {TOKENIZER_DIR}.")
            counts[index] = len(token)
    return counts


def get_token_bytes() -> mx.array:
    """mx.int32 (V,): bytes each token stands for, 0 for special tokens. Raises DataMissing, HarnessError."""
    path = Path(TOKENIZER_DIR, "token_bytes.npy")
    if not path.is_file():
        raise DataMissing(f"There is no table of token bytes at {path}. Run prepare.py first.")
    if hash_file(path) != read_manifest().files["tokenizer/token_bytes.npy"].sha256:
        raise HarnessError(f"{path} is not the table in manifest.json. Run prepare.py again.")
    return mx.array(np.load(path, allow_pickle=False).astype(np.int32))


# ---------------------------------------------------------------------------
# Dataloader
# ---------------------------------------------------------------------------

Batch = tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint64], int]  # a shard's tokens, n + 1 offsets, epoch


@dataclass(frozen=True, slots=True)
class TokenShard:
    """A tokenized shard, memory-mapped: `tokens` (N,), `offsets` (D + 1,), documents per row group."""

    tokens: npt.NDArray[np.uint16]
    offsets: npt.NDArray[np.uint64]
    row_groups: tuple[int, ...]

    @classmethod
    def open(cls, name: str) -> TokenShard:
        path = Path(TOKENS_DIR, name)
        try:
            record = json.loads(path.with_suffix(".json").read_bytes())
            row_groups = tuple(int(n) for n in record["row_groups"])
            # asarray drops the memmap class, whose slices cost ten times as much.
            tokens = np.asarray(np.memmap(path.with_suffix(".tokens"), "<u2", "r"))
            offsets = np.asarray(np.memmap(path.with_suffix(".offsets"), "<u8", "r"))
        except FileNotFoundError as error:
            raise DataMissing(f"There is no tokenized shard {path}. Run prepare.py.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise HarnessError(f"The tokenized shard {path} is damaged: {error}. Run prepare.py again.") from error
        whole = len(offsets) == sum(row_groups) + 1 and offsets[0] == 0 and offsets[-1] == len(tokens)
        if not whole or min(row_groups, default=0) < 1 or not np.all(offsets[1:] > offsets[:-1]):
            raise HarnessError(f"The tokenized shard {path} is damaged. Run prepare.py again.")
        return cls(tokens, offsets, row_groups)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Documents in order, DOCUMENT_BATCH at a time; a batch ends where a row group ends."""
        start = 0
        for size in self.row_groups:
            for first in range(start, start + size, DOCUMENT_BATCH):
                last = min(first + DOCUMENT_BATCH, start + size)
                yield self.tokens, self.offsets[first : last + 1], epoch
            start += size


def pack(
    batches: Iterator[Batch], batch_size: int, row_tokens: int, buffer_size: int
) -> Iterator[tuple[npt.NDArray[np.uint16], int]]:
    """Best-fit packing: yields rows, uint16 (batch_size, row_tokens), without padding, and the epoch.

    Before each choice the buffer is refilled, a batch of documents at a time, to `buffer_size` or more. The
    longest document that fits what is left of the row goes there; if none fits, the shortest is cropped to
    fill it and its rest is dropped. Among equals the one that came first is taken. `batch_size` groups the rows
    and does not change them.
    """
    # The buffer is one sorted list of integers: length above, then a serial number that counts down, so that
    # the document to take is always the last of its length, and both choices are a bisection.
    bits, top = 40, (1 << 40) - 1
    buffer: list[int] = []
    documents: dict[int, tuple[npt.NDArray[np.uint16], int]] = {}
    serial, epoch = top, 1
    while True:
        rows = np.empty((batch_size, row_tokens), np.uint16)
        for row in rows:
            filled = 0
            while filled < row_tokens:
                while len(buffer) < buffer_size:
                    tokens, offsets, epoch = next(batches)
                    for start, length in zip(offsets[:-1].tolist(), np.diff(offsets).tolist(), strict=True):
                        buffer.append(length << bits | serial)
                        documents[serial] = tokens, start
                        serial -= 1
                    buffer.sort()
                left = row_tokens - filled
                index = bisect.bisect_left(buffer, (left + 1) << bits) - 1
                if index < 0:
                    index = bisect.bisect_left(buffer, ((buffer[0] >> bits) + 1) << bits) - 1
                key = buffer.pop(index)
                tokens, start = documents.pop(key & top)
                length = min(key >> bits, left)
                row[filled : filled + length] = tokens[start : start + length]
                filled += length
        yield rows, epoch


def make_dataloader(
    tokenizer: object, batch_size: int, seq_len: int, split: str, buffer_size: int = 1000
) -> Generator[tuple[mx.array, mx.array, int], None, None]:
    """Endless (inputs, targets, epoch): mx.int32 (B, T), the targets one position ahead; epochs count from 1.

    Every row starts with BOS (`pack` says how it goes on). Tokens come from the prepared shards, in the
    manifest's order, so `tokenizer` is not consulted. Batches are packed ahead on a thread that ends with the
    iterator. `split` is "train" or "val". Raises DataMissing or HarnessError at once.
    """
    if split not in ("train", "val"):
        raise ValueError(f'split is "train" or "val", not {split!r}')
    if min(batch_size, seq_len, buffer_size) < 1:
        raise ValueError("batch_size, seq_len and buffer_size are 1 or more")
    manifest = read_manifest()
    manifest.check_vocabulary()
    shards = [TokenShard.open(name) for name in (manifest.train if split == "train" else (manifest.val,))]
    batches = (batch for epoch in itertools.count(1) for shard in shards for batch in shard.batches(epoch))
    return _prefetch(pack(batches, batch_size, seq_len + 1, buffer_size))


def _prefetch(
    batches: Iterator[tuple[npt.NDArray[np.uint16], int]],
) -> Generator[tuple[mx.array, mx.array, int], None, None]:
    """Run `batches` on a thread, PREFETCH_BATCHES ahead, until this generator is closed or collected."""
    ready: queue.SimpleQueue[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], int] | BaseException]
    ready = queue.SimpleQueue()
    room = threading.Semaphore(PREFETCH_BATCHES)
    stop = threading.Event()

    def work() -> None:
        try:
            while room.acquire() and not stop.is_set():
                rows, epoch = next(batches)
                ready.put((rows[:, :-1].astype(np.int32), rows[:, 1:].astype(np.int32), epoch))
        except BaseException as error:
            ready.put(error)

    # A daemon, so that an iterator nobody closed does not keep the interpreter; it must not touch MLX, whose
    # streams belong to threads.
    threading.Thread(target=work, name="dataloader", daemon=True).start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            room.release()
            yield mx.array(item[0]), mx.array(item[1]), item[2]
    finally:
        stop.set()
        room.release()


# ---------------------------------------------------------------------------
# Metric
# ---------------------------------------------------------------------------


def evaluate_bpb(model: Callable[..., mx.array], tokenizer: object, batch_size: int) -> float:
    """Validation bits per byte: sum of cross-entropies / (ln 2 · sum of the targets' bytes). Lower is better.

    `model(x, y, reduction="none")` with x, y mx.int32 (b, MAX_SEQ_LEN), b <= batch_size, returns the
    b · MAX_SEQ_LEN cross-entropies in nats; b is such that no float32 logits tensor exceeds LOGITS_BYTES. The
    rows are always the first EVAL_TOKENS // MAX_SEQ_LEN of the validation shard, whatever the batch size;
    targets without bytes (special tokens) count in neither sum; sums are float64. Raises DataMissing and
    HarnessError.
    """
    token_bytes = np.array(get_token_bytes())
    rows = EVAL_TOKENS // MAX_SEQ_LEN
    size = max(1, min(batch_size, rows, LOGITS_BYTES // (4 * MAX_SEQ_LEN * VOCAB_SIZE)))
    nats, count = 0.0, 0
    with contextlib.closing(make_dataloader(tokenizer, size, MAX_SEQ_LEN, "val")) as loader:
        for done in range(0, rows, size):
            x, y, _ = next(loader)
            x, y = x[: rows - done], y[: rows - done]
            losses = np.array(model(x, y, reduction="none").astype(mx.float32)).reshape(-1)
            if losses.size != y.size:
                raise HarnessError(f'Expected {y.size} losses from model(x, y, reduction="none"), got {losses.size}.')
            bytes_of = token_bytes[np.array(y).reshape(-1)]
            nats += float(losses[bytes_of > 0].sum(dtype=np.float64))
            count += int(bytes_of.sum())
            mx.clear_cache()
    return nats / (math.log(2) * count) if count else math.inf


# ---------------------------------------------------------------------------
# Manifest
# ---------------------------------------------------------------------------

_SHARD = re.compile(r"shard_[0-9]{5}")
_FILE = re.compile(
    r"data/shard_[0-9]{5}\.parquet|tokens/shard_[0-9]{5}\.(tokens|offsets|json)|tokenizer/(tokenizer\.json|token_bytes\.npy)"
)


@dataclass(frozen=True, slots=True)
class FileHash:
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """manifest.json, checked: every name is one of ours, every file the loader needs is listed."""

    vocab_size: int
    train: tuple[str, ...]
    val: str
    files: Mapping[str, FileHash]
    snapshot_id: str

    def check_vocabulary(self) -> None:
        if self.vocab_size != VOCAB_SIZE:
            raise HarnessError(
                f"The data in {CACHE_DIR} was prepared for {self.vocab_size} tokens, the protocol asks for "
                f"{VOCAB_SIZE}. Run prepare.py again, or set AUTORESEARCH_CACHE to this project's data."
            )


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def shard_files(name: str) -> list[str]:
    return [f"data/{name}.parquet", *(f"tokens/{name}.{kind}" for kind in ("tokens", "offsets", "json"))]


def parse_manifest(data: bytes) -> Manifest:
    """Raises ValueError for anything that prepare.py does not write."""
    document = json.loads(data)
    try:
        if document["format"] != 1:
            raise ValueError(f"format {document['format']!r}")
        train, val = document["shards"]["train"], document["shards"]["val"]
        files = {name: FileHash(int(f["bytes"]), str(f["sha256"])) for name, f in document["files"].items()}
        vocab_size = int(document["tokenizer"]["vocab_size"])
        shards = [*train, val]
        if not train or not all(isinstance(name, str) and _SHARD.fullmatch(name) for name in shards):
            raise ValueError("shard names")
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__} {error}") from error
    needed = {"tokenizer/tokenizer.json", "tokenizer/token_bytes.npy"}.union(*map(shard_files, shards))
    if needed != set(files) or not all(_FILE.fullmatch(name) for name in files):
        raise ValueError("the files listed are not those of its shards")
    return Manifest(vocab_size, tuple(train), val, files, hashlib.sha256(canonical(document)).hexdigest())


def read_manifest() -> Manifest:
    """The manifest of CACHE_DIR. Raises DataMissing where nothing has been prepared."""
    path = Path(CACHE_DIR, "manifest.json")
    try:
        with path.open("rb") as file:
            data = file.read(64 << 20)
    except FileNotFoundError as error:
        raise DataMissing(f"There is no prepared data in {CACHE_DIR}. Run prepare.py first.") from error
    try:
        return parse_manifest(data)
    except ValueError as error:
        raise HarnessError(f"{path} is damaged: {error}. Delete it and run prepare.py again.") from error


def damaged_files(manifest: Manifest) -> list[str]:
    """Names of the manifest's files that are missing or have other bytes than it says."""
    damaged = []
    with Progress("Checking", sum(file.bytes for file in manifest.files.values()), "B") as progress:
        for name, file in sorted(manifest.files.items()):
            path = Path(CACHE_DIR, name)
            if not path.is_file() or path.stat().st_size != file.bytes or hash_file(path) != file.sha256:
                damaged.append(name)
            progress.add(file.bytes)
    return damaged


def verify() -> str:
    """Check every file against the manifest; the snapshot id. Raises DataMissing, HarnessError."""
    manifest = read_manifest()
    manifest.check_vocabulary()
    if damaged := damaged_files(manifest):
        listed = ", ".join(damaged[:5]) + (", ..." if len(damaged) > 5 else "")
        raise HarnessError(
            f"{len(damaged)} of {len(manifest.files)} files in {CACHE_DIR} are missing or differ from "
            f"manifest.json: {listed}. Run prepare.py again; it makes them anew."
        )
    return manifest.snapshot_id


# ---------------------------------------------------------------------------
# Files and progress
# ---------------------------------------------------------------------------


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A new file that replaces `path` once it is complete and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    with atomic(path) as file:
        file.write(json.dumps(value, indent=1, sort_keys=True).encode() + b"\n")


def read_record(path: Path) -> dict[str, Any]:
    """A JSON record of ours; empty where it is absent or damaged, so that what it describes is made again."""
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


class Progress:
    """One line on stderr: rewritten on a terminal, every few seconds elsewhere. Thread-safe."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit, self.done = label, total, unit, 0
        self.start = self.shown = time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.printed = False
        self.lock = threading.Lock()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.printed and self.terminal:
            self._show()
            print(file=sys.stderr)

    def add(self, amount: int) -> None:
        with self.lock:
            self.done += amount
            if time.monotonic() - self.shown >= (0.1 if self.terminal else 5):
                self._show()

    def _show(self) -> None:
        self.shown = time.monotonic()
        elapsed = self.shown - self.start
        share = min(1.0, self.done / self.total) if self.total else 0.0
        line = f"{self.label}: {self._amount(self.done)}"
        if share:
            line += f" of {self._amount(self.total)}, {share:.0%}, {elapsed / share - elapsed:.0f} s left"
        line += f", {elapsed:.0f} s elapsed"
        if self.terminal:
            print(f"\r{line:<78}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)
        self.printed = True

    def _amount(self, n: int) -> str:
        return f"{n / 1e6:,.1f} MB" if self.unit == "B" else f"{n:,} {self.unit}"


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """Only one preparation per cache. Raises HarnessError if another is at work."""
    import fcntl

    for directory in (DATA_DIR, TOKENIZER_DIR, TOKENS_DIR):
        os.makedirs(directory, exist_ok=True)
    with open(os.path.join(CACHE_DIR, ".lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HarnessError(f"Another prepare.py is at work in {CACHE_DIR}. Wait until it has ended.") from error
        for leftover in Path(CACHE_DIR).rglob(".*.tmp"):
            leftover.unlink()
        yield


# ---------------------------------------------------------------------------
# Source 1: the public dataset
# ---------------------------------------------------------------------------


class TransferFailed(Exception):
    """Worth another attempt."""


def download(names: Sequence[str], workers: int = 8) -> None:
    """Fetch the Parquet files that are missing in DATA_DIR, `workers` at a time. Raises HarnessError."""
    from concurrent.futures import ThreadPoolExecutor, as_completed

    import httpx

    missing = [name for name in names if not Path(DATA_DIR, f"{name}.parquet").exists()]
    if not missing:
        return
    if not BASE_URL.startswith(("http://", "https://")):
        raise HarnessError(
            f"Expected HF_ENDPOINT to be an http(s) address, found {HF_ENDPOINT!r}. Correct or unset it."
        )
    stop = threading.Event()
    sizes: dict[str, int] = {}
    try:
        client = httpx.Client(
            follow_redirects=True,
            timeout=httpx.Timeout(30, connect=15, pool=None),
            headers={"Accept-Encoding": "identity", "User-Agent": "autoresearch-prepare"},
        )
    except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:  # SOCKS needs a package that is not pinned
        raise HarnessError(
            f"The environment's proxies or certificates cannot be used: {error}. Correct or unset "
            "ALL_PROXY, HTTP_PROXY, HTTPS_PROXY and SSL_CERT_FILE; the proxy must be an http:// one."
        ) from error
    pool = ThreadPoolExecutor(max(1, min(workers, len(missing))))
    with Progress(f"Downloading {len(missing)} shards", 0, "B") as progress:

        def learn(name: str, size: int) -> None:
            sizes[name] = size
            progress.total = sum(list(sizes.values())) * len(missing) // len(sizes)

        futures = [pool.submit(fetch, client, name, learn, progress.add, stop) for name in missing]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            # Not waiting: a transfer may be reading from a server that is silent. It writes nothing more.
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    pool.shutdown()
    client.close()


def fetch(
    client: httpx.Client,
    name: str,
    learn: Callable[[str, int], None],
    add: Callable[[int], None],
    stop: threading.Event,
) -> None:
    """Fetch one shard, resuming what an earlier attempt left, and move it in place once it is whole.

    Temporary failures (no connection, 408, 425, 429, 5xx, a short or altered body) are tried again,
    DOWNLOAD_ATTEMPTS times in a row without progress, for DOWNLOAD_SECONDS at most. Raises HarnessError.
    """
    import httpx

    url = f"{BASE_URL}/{name}.parquet"
    target = Path(DATA_DIR, f"{name}.parquet")
    part = target.with_name(target.name + ".part")
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    failures = 0
    before = part.stat().st_size if part.exists() else 0
    add(before)
    while not stop.is_set():
        try:
            transfer(client, url, part, lambda size: learn(name, size), add, stop, deadline)
            if stop.is_set():
                return
            check_parquet(part, url)
            os.replace(part, target)
            return
        except (TransferFailed, httpx.TransportError) as error:
            size = part.stat().st_size if part.exists() else 0
            failures = 1 if size > before else failures + 1
            before = size
            if failures >= DOWNLOAD_ATTEMPTS or time.monotonic() > deadline:
                reason = str(error) or type(error).__name__
                raise HarnessError(
                    f"{url} could not be fetched: {reason}. Check the network and run prepare.py again; "
                    "what has arrived is kept."
                ) from error
            stop.wait(min(30.0, RETRY_SECONDS * 2 ** (failures - 1)))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise HarnessError(f"{url} could not be fetched: {error}. Check HF_ENDPOINT.") from error


def transfer(
    client: httpx.Client,
    url: str,
    part: Path,
    learn: Callable[[int], None],
    add: Callable[[int], None],
    stop: threading.Event,
    deadline: float,
) -> None:
    """One request: append to `part` what is missing and check length and, where the hub gives it, SHA-256."""
    have = part.stat().st_size if part.exists() else 0
    with client.stream("GET", url, headers={"Range": f"bytes={have}-"} if have else {}) as response:
        status = response.status_code
        total: int | None = None
        if status == 206:
            match = re.fullmatch(r"bytes ([0-9]+)-[0-9]+/([0-9]+)", response.headers.get("content-range", ""))
            if not match or int(match[1]) != have:
                discard(part, add)
                raise TransferFailed("the server answered with another range than asked for")
            total = int(match[2])
        elif status == 200:
            discard(part, add)
            have = 0
            length = response.headers.get("content-length", "")
            total = int(length) if re.fullmatch(r"[0-9]{1,15}", length) else None
        elif status == 416:
            discard(part, add)
            raise TransferFailed("the part kept from before does not fit the file")
        elif status in (408, 425, 429) or status >= 500:
            raise TransferFailed(f"the server answered {status} {response.reason_phrase}")
        else:
            raise HarnessError(
                f"{url} could not be fetched: the server answered {status} {response.reason_phrase}. "
                "Check HF_ENDPOINT, or use --text DIR."
            )
        limit = DOWNLOAD_MAX_BYTES if total is None else total
        if limit > DOWNLOAD_MAX_BYTES:
            raise HarnessError(f"{url} has {limit} bytes, more than a shard may have. Check HF_ENDPOINT.")
        learn(limit if total else 0)
        with part.open("ab", buffering=0) as file:
            for chunk in response.iter_raw():
                if stop.is_set():
                    return
                have += file.write(chunk)
                add(len(chunk))
                if time.monotonic() > deadline:
                    raise TransferFailed(f"it took longer than {DOWNLOAD_SECONDS:.0f} s")
                if have > limit:
                    break
            os.fsync(file.fileno())
        if have < (total or 0):
            raise TransferFailed(f"{have} of {total} bytes arrived")
        if have > limit:
            discard(part, add)
            raise TransferFailed(f"more than the expected {limit} bytes arrived")
        # The hub redirects to storage and names the file's SHA-256 on the way.
        hops = [*response.history, response]
        etags = [hop.headers.get("x-linked-etag", "").strip('"') for hop in hops]
        expected = next((etag for etag in etags if re.fullmatch(r"[0-9a-f]{64}", etag)), None)
        if expected and hash_file(part) != expected:
            discard(part, add)
            raise TransferFailed("the bytes that arrived do not have the SHA-256 the server gave")


def discard(part: Path, add: Callable[[int], None]) -> None:
    if part.exists():
        add(-part.stat().st_size)
        part.unlink()


def check_parquet(path: Path, origin: str, *, whole: bool = False) -> None:
    """Raises HarnessError, and removes the file, unless it is Parquet with strings in `text`; `whole` reads all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            kind = file.schema_arrow.field("text").type
            good = file.metadata.num_rows > 0 and (pa.types.is_string(kind) or pa.types.is_large_string(kind))
            for index in range(file.num_row_groups if good and whole else 0):
                file.read_row_group(index, columns=["text"])
    except (pa.ArrowException, KeyError, OSError):
        good = False
    if not good:
        path.unlink(missing_ok=True)
        raise HarnessError(f"{origin} is not a Parquet file with a `text` column. Check HF_ENDPOINT and run again.")


# ---------------------------------------------------------------------------
# Source 2: local text
# ---------------------------------------------------------------------------


def split_text(text: str, limit: int) -> list[str]:
    """Documents of at most `limit` characters, cut at a blank line of their second half or at a line end."""
    documents, current = [], ""
    for line in text.splitlines(keepends=True):
        for piece in (line[i : i + limit] for i in range(0, len(line), limit)):
            if len(current) + len(piece) > limit or (not piece.strip() and 2 * len(current) >= limit):
                documents.append(current)
                current = ""
            current += piece
    documents.append(current)
    return [document for document in documents if document.strip()]


def collect_text(where: str, max_bytes: int) -> dict[bytes, str]:
    """The different documents under a folder by SHA-256, in the order of the digests: a shuffle for good.

    Files are read in sorted order until `max_bytes` is reached; links, hidden folders and files that are not
    UTF-8 are passed over. "stdlib" is the interpreter's library without its tests, which some systems lack.
    """
    skipped = {"__pycache__", "site-packages", "dist-packages"}
    if where == "stdlib":
        import sysconfig

        root = Path(sysconfig.get_path("stdlib"))
        skipped |= {"test", "tests"}
    else:
        root = Path(where)
    if not root.is_dir():
        raise HarnessError(f"There is no folder {root}. Give --text a folder of text files, or the word stdlib.")
    found: dict[bytes, str] = {}
    left = max_bytes
    for path in _text_files(root, skipped):
        left -= path.stat().st_size
        if left < 0:
            break
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError:
            continue
        for document in split_text(text, TEXT_DOCUMENT_CHARS):
            found.setdefault(hashlib.sha256(document.encode()).digest(), document)
    return dict(sorted(found.items()))


def _text_files(root: Path, skipped: set[str]) -> Iterator[Path]:
    for directory, directories, names in os.walk(root):
        directories[:] = sorted(d for d in directories if d not in skipped and not d.startswith("."))
        for name in sorted(names):
            path = Path(directory, name)
            if name.endswith(TEXT_SUFFIXES) and path.is_file() and not path.is_symlink():
                yield path


def shard_text(documents: Mapping[bytes, str]) -> dict[str, list[str]]:
    """Documents by shard: one in TEXT_VAL_EVERY, by its digest, is held out; the rest are for training."""
    shards: dict[str, list[str]] = {Path(VAL_FILENAME).stem: []}
    size = TEXT_SHARD_CHARS
    number = -1
    for digest, document in documents.items():
        if int.from_bytes(digest[-8:], "big") % TEXT_VAL_EVERY == 0:
            shards[Path(VAL_FILENAME).stem].append(document)
            continue
        if size >= TEXT_SHARD_CHARS:
            number, size = number + 1, 0
        shards.setdefault(f"shard_{number:05d}", []).append(document)
        size += len(document)
    if len(shards) < 2 or not all(shards.values()):
        raise HarnessError(
            f"Expected enough text for training and validation, found {len(documents)} documents. "
            f"Give --text a folder with more {', '.join(TEXT_SUFFIXES)} files, or raise --max-bytes."
        )
    return shards


def write_parquet(path: Path, documents: list[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Uncompressed and without the Arrow schema: little of the writer's version shows in the bytes.
    table = pa.table({"text": pa.array(documents, pa.string())})
    with atomic(path) as file:
        pq.write_table(table, file, row_group_size=1024, compression="none", use_dictionary=False, store_schema=False)


# ---------------------------------------------------------------------------
# Preparation
# ---------------------------------------------------------------------------


def prepare(*, text: str | None = None, num_shards: int = 10, max_bytes: int = TEXT_MAX_BYTES, workers: int = 8) -> str:
    """Make or complete everything under CACHE_DIR; returns the snapshot id. Raises HarnessError, OSError.

    What is there and follows from its inputs is kept; what no longer matches the manifest is made again.
    """
    if os.path.exists(os.path.join(TOKENIZER_DIR, "tokenizer.pkl")):
        raise HarnessError(
            f"{TOKENIZER_DIR} holds the tokenizer of another harness. Delete that folder, "
            "or set AUTORESEARCH_CACHE to another one."
        )
    with exclusive():
        _remove_damaged()
        if text is None:
            train, source = _prepare_download(num_shards, workers)
        else:
            train, source = _prepare_text(text, max_bytes)
        shards = [*train, Path(VAL_FILENAME).stem]
        hashes = {name: hash_file(Path(DATA_DIR, f"{name}.parquet")) for name in shards}
        tokenizer = _prepare_tokenizer(train, hashes)
        for name in shards:
            _prepare_tokens(name, tokenizer, hashes[name])
        return _write_manifest(train, source)


def _remove_damaged() -> None:
    try:
        manifest = read_manifest()
    except HarnessError:
        return
    for name in damaged_files(manifest):
        if Path(CACHE_DIR, name).exists():
            note(f"{name} differs from the manifest and is made again")
            os.unlink(os.path.join(CACHE_DIR, name))


def _remove_unreadable(names: Sequence[str]) -> None:
    """Before the minutes that the tokenizer takes: shards that are no use, of a killed copy or another harness."""
    for name in names:
        path = Path(DATA_DIR, f"{name}.parquet")
        if path.exists():
            try:
                check_parquet(path, str(path), whole=path.name == VAL_FILENAME)
            except HarnessError:
                note(f"{path} is damaged, or has no `text` column of strings; it is made again")


def _claim_source(source: dict[str, object]) -> None:
    """Refuse to mix two sources in one cache; shards without a record are taken to be the dataset's."""
    path = Path(DATA_DIR, "source.json")
    shards = list(Path(DATA_DIR).glob("shard_*.parquet"))
    recorded = read_record(path) or ({"dataset": DATASET} if shards else source)
    if recorded != source:
        if "text" not in recorded or Path(CACHE_DIR, "manifest.json").exists():
            raise HarnessError(
                f"{CACHE_DIR} holds data from another source, or text that has changed since. "
                "Set AUTORESEARCH_CACHE to another folder, or delete this one."
            )
        for shard in shards:  # of a preparation that was stopped
            shard.unlink()
    write_json(path, source)


def _prepare_download(num_shards: int, workers: int) -> tuple[list[str], dict[str, object]]:
    source: dict[str, object] = {"dataset": DATASET}
    _claim_source(source)
    train = [f"shard_{index:05d}" for index in range(MAX_SHARD if num_shards == -1 else num_shards)]
    _remove_unreadable([*train, Path(VAL_FILENAME).stem])
    download([*train, Path(VAL_FILENAME).stem], workers)
    return train, source


def _prepare_text(where: str, max_bytes: int) -> tuple[list[str], dict[str, object]]:
    documents = collect_text(where, max_bytes)
    shards = shard_text(documents)
    source: dict[str, object] = {
        "text": hashlib.sha256(b"".join(documents)).hexdigest(),
        "document_chars": TEXT_DOCUMENT_CHARS,
        "validation_every": TEXT_VAL_EVERY,
        "shard_chars": TEXT_SHARD_CHARS,
    }
    _claim_source(source)
    _remove_unreadable(list(shards))
    for name, texts in shards.items():
        if not Path(DATA_DIR, f"{name}.parquet").exists():
            write_parquet(Path(DATA_DIR, f"{name}.parquet"), texts)
    note(f"Text: {len(documents):,} documents, {sum(map(len, documents.values())) / 1e6:.1f} M characters")
    return sorted(set(shards) - {Path(VAL_FILENAME).stem}), source


def document_count(name: str) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(Path(DATA_DIR, f"{name}.parquet")).num_rows)


def row_groups(name: str) -> Iterator[list[str]]:
    """The documents of a shard, one Parquet row group at a time. Raises HarnessError for a damaged file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(DATA_DIR, f"{name}.parquet")
    try:
        with pq.ParquetFile(path) as file:
            for index in range(file.num_row_groups):
                column = file.read_row_group(index, columns=["text"]).column("text")
                yield [text or "" for text in column.to_pylist()]
    except (pa.ArrowException, KeyError) as error:
        raise HarnessError(f"{path} cannot be read: {error}. Delete it and run prepare.py again.") from error


def _prepare_tokenizer(train: Sequence[str], hashes: Mapping[str, str]) -> Tokenizer:
    table, record = Path(TOKENIZER_DIR, "token_bytes.npy"), Path(TOKENIZER_DIR, "trained_on.json")
    inputs = {
        "vocab_size": VOCAB_SIZE,
        "pattern": SPLIT_PATTERN,
        "chars": [TOKENIZER_CHARS, TOKENIZER_DOCUMENT_CHARS],
        "shards": {name: hashes[name] for name in train},
    }
    file = Path(TOKENIZER_DIR, "tokenizer.json")
    if not (file.exists() and table.exists() and read_record(record) == inputs):
        record.unlink(missing_ok=True)
        _train_apart(train)
        with atomic(table) as out:
            np.save(out, count_token_bytes(Tokenizer.from_directory(TOKENIZER_DIR).enc), allow_pickle=False)
        write_json(record, inputs)
    return Tokenizer.from_directory(TOKENIZER_DIR)


def _train_apart(train: Sequence[str]) -> None:
    """Write tokenizer.json by a process of its own: the memory that training takes goes back with it."""
    command = [sys.executable, os.path.abspath(__file__), "--train-tokenizer", *train]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, env={**os.environ, "AUTORESEARCH_CACHE": CACHE_DIR}, check=False
    )
    if done.returncode:
        said = done.stdout.decode(errors="replace").strip()
        raise HarnessError(
            said
            or f"Training the tokenizer ended with status {done.returncode}. If memory ran out, free some; run again."
        )


def train_tokenizer(train: Sequence[str]) -> tokenizers.Tokenizer:
    """BPE over the training shards, up to TOKENIZER_CHARS. Raises HarnessError for too little text."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    def texts(progress: Progress) -> Iterator[list[str]]:
        for group in itertools.chain.from_iterable(row_groups(name) for name in train):
            cut = [text[:TOKENIZER_DOCUMENT_CHARS] for text in group]
            progress.add(sum(map(len, cut)))
            yield cut
            if progress.done >= TOKENIZER_CHARS:
                return

    start = time.monotonic()
    enc = tokenizers.Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(tokenizers.Regex(SPLIT_PATTERN), behavior="isolated")
    enc.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    enc.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with Progress("Training the tokenizer", 0, "characters") as progress:
        enc.train_from_iterator(texts(progress), trainer)
    enc.add_special_tokens(SPECIAL_TOKENS)
    if enc.get_vocab_size() != VOCAB_SIZE:
        raise HarnessError(
            f"Expected text enough for a vocabulary of {VOCAB_SIZE}, found {enc.get_vocab_size()} tokens. "
            "Prepare more of it."
        )
    seconds = time.monotonic() - start
    note(f"Tokenizer: {VOCAB_SIZE} tokens from {progress.done / 1e6:.1f} M characters in {seconds:.1f} s")
    return enc


def _prepare_tokens(name: str, tokenizer: Tokenizer, parquet_hash: str) -> None:
    path = Path(TOKENS_DIR, name)
    tokens_path, offsets_path, record_path = (path.with_suffix(s) for s in (".tokens", ".offsets", ".json"))
    inputs = {"parquet": parquet_hash, "tokenizer": hash_file(Path(TOKENIZER_DIR, "tokenizer.json"))}
    if tokens_path.exists() and offsets_path.exists() and read_record(record_path).get("inputs") == inputs:
        return
    record_path.unlink(missing_ok=True)
    bos = tokenizer.get_bos_token_id()
    lengths: list[int] = []
    sizes: list[int] = []
    count = document_count(name)
    with Progress(f"Tokenizing {name}", count, "documents") as progress, atomic(tokens_path) as out:
        for texts in row_groups(name):
            for i in range(0, len(texts), 1024):
                encoded = tokenizer.encode(texts[i : i + 1024], prepend=bos)
                lengths.extend(map(len, encoded))
                out.write(np.fromiter(itertools.chain.from_iterable(encoded), "<u2").tobytes())
                progress.add(len(encoded))
            if texts:
                sizes.append(len(texts))
    if not sizes:
        raise HarnessError(f"{name}.parquet has no documents. Delete it and run prepare.py again.")
    with atomic(offsets_path) as out:
        out.write(np.cumsum([0, *lengths], dtype="<u8").tobytes())
    write_json(record_path, {"inputs": inputs, "row_groups": sizes})
    total = sum(lengths)
    note(f"Tokens: {name}: {total:,} in {len(lengths):,} documents")
    if f"{name}.parquet" == VAL_FILENAME and total < EVAL_TOKENS:
        note(f"Note: an evaluation takes {EVAL_TOKENS:,} tokens, so it repeats validation documents")


def _write_manifest(train: Sequence[str], source: Mapping[str, object]) -> str:
    val = Path(VAL_FILENAME).stem
    names = ["tokenizer/tokenizer.json", "tokenizer/token_bytes.npy"]
    names += itertools.chain.from_iterable(map(shard_files, [*train, val]))
    files = {}
    for name in sorted(names):
        path = Path(CACHE_DIR, name)
        files[name] = {"bytes": path.stat().st_size, "sha256": hash_file(path)}
    document = {
        "format": 1,
        "source": dict(source),
        "tokenizer": {"vocab_size": VOCAB_SIZE, "pattern": SPLIT_PATTERN, "special_tokens": SPECIAL_TOKENS},
        "shards": {"train": list(train), "val": val},
        "files": files,
    }
    manifest = parse_manifest(canonical(document))
    write_json(Path(CACHE_DIR, "manifest.json"), document)
    return manifest.snapshot_id


def note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------


def _shards(value: str) -> int:
    number = int(value)
    if number != -1 and not 1 <= number <= MAX_SHARD:
        raise argparse.ArgumentTypeError(f"expected 1 to {MAX_SHARD}, or -1 for all, got {value}")
    return number


def _positive(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return number


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="prepare.py",
        description="Prepare the data snapshot and the tokenizer.",
        epilog=f"The data lies in {CACHE_DIR} (AUTORESEARCH_CACHE overrides).",
    )
    parser.add_argument("--num-shards", type=_shards, default=10, help="training shards to download (-1: all)")
    parser.add_argument("--download-workers", type=_positive, default=8, help="shards to download at a time")
    parser.add_argument("--text", metavar="DIR", help="use local text files, or `stdlib`, instead of the dataset")
    parser.add_argument("--max-bytes", type=_positive, default=TEXT_MAX_BYTES, help="how much local text to read")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--verify", action="store_true", help="check the prepared files against the manifest")
    action.add_argument("--snapshot-id", action="store_true", help="print the data snapshot id")
    action.add_argument("--train-tokenizer", metavar="SHARD", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.train_tokenizer:
        try:
            trained = train_tokenizer(args.train_tokenizer).to_str().encode()
            with atomic(Path(TOKENIZER_DIR, "tokenizer.json")) as out:
                out.write(trained)
        except (HarnessError, OSError) as error:
            print(error)  # for the process that asked for it
            return 1
        return 0
    try:
        if args.snapshot_id:
            print(read_manifest().snapshot_id)
        elif args.verify:
            print(f"data snapshot {verify()} in {CACHE_DIR} is intact")
        else:
            snapshot = prepare(
                text=args.text,
                num_shards=args.num_shards,
                max_bytes=args.max_bytes,
                workers=args.download_workers,
            )
            print(f"data snapshot: {snapshot}")
    except (HarnessError, OSError) as error:
        note(f"prepare.py: {error}")
        return 1
    except KeyboardInterrupt:
        note("\nprepare.py: stopped. What is done is kept; run it again to continue.")
        return 130
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # without waiting for a transfer that was given up
