"""The harness on a tiny snapshot of the standard library: constants, tokenizer, packing, metric, manifest, errors."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import math
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness import reference
from tests.harness.support import TEXT, TINY, Copy, protocol, refused


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A prepared cache that tests only read."""
    folder = tmp_path_factory.mktemp("harness")
    made = Copy.make(folder / "code", folder / "cache")
    result = made.run(*TEXT)
    assert result.returncode == 0, result.stderr
    return made


@pytest.fixture(scope="module")
def harness(copy: Copy) -> ModuleType:
    return copy.load()


@pytest.fixture(scope="module")
def tokenizer(harness: ModuleType) -> Any:
    return harness.Tokenizer.from_directory()


@pytest.fixture
def own(copy: Copy, tmp_path: Path) -> Copy:
    """A prepared cache that the test may damage."""
    shutil.copytree(copy.cache, tmp_path / "cache")
    return Copy(copy.folder, tmp_path / "cache")


# Constants


def test_defaults_without_a_protocol(tmp_path: Path) -> None:
    made = Copy.make(tmp_path / "code", tmp_path / "cache")
    (made.folder / "protocol.json").unlink()
    harness = made.load()
    assert (harness.MAX_SEQ_LEN, harness.TIME_BUDGET, harness.EVAL_TOKENS, harness.VOCAB_SIZE) == (
        2048,
        300,
        1_572_864,
        8192,
    )
    assert str(tmp_path / "cache") == harness.CACHE_DIR
    assert harness.VAL_FILENAME == "shard_06542.parquet"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (protocol(**TINY), (64, 8, 64 * 37 + 5, 512)),
        (protocol(evalTokens=4096), (2048, 8, 4096, 8192)),
        ({"execution": {"stopCondition": {"trainingSecondsBudget": 2.5}}}, (2048, 2.5, 1_572_864, 8192)),
        ({}, (2048, 300, 1_572_864, 8192)),
    ],
)
def test_constants_come_from_the_protocol(tmp_path: Path, document: Any, expected: tuple[Any, ...]) -> None:
    harness = Copy.make(tmp_path / "code", tmp_path / "cache", document).load()
    found = (harness.MAX_SEQ_LEN, harness.TIME_BUDGET, harness.EVAL_TOKENS, harness.VOCAB_SIZE)
    assert found == expected


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "expected an object"),
        (protocol(sequenceLength="64"), "archetypeExtensions.ml_train.sequenceLength"),
        (protocol(sequenceLength=True), "archetypeExtensions.ml_train.sequenceLength"),
        (protocol(sequenceLength=0), "archetypeExtensions.ml_train.sequenceLength"),
        (protocol(vocabSize=65_537), "archetypeExtensions.ml_train.vocabSize"),
        (protocol(vocabSize=260), "archetypeExtensions.ml_train.vocabSize"),
        (protocol(sequenceLength=64, evalTokens=63), "archetypeExtensions.ml_train.evalTokens"),
        ('{"execution": {"stopCondition": {"trainingSecondsBudget": NaN}}}', "trainingSecondsBudget"),
        ({"archetypeExtensions": {"ml_train": 1}}, "expected an object above"),
    ],
)
def test_a_bad_protocol_is_named(tmp_path: Path, document: Any, words: str) -> None:
    made = Copy.make(tmp_path / "code", tmp_path / "cache", document)
    refused(made.run("--snapshot-id"), words, "protocol.json")


def test_heavy_packages_are_imported_late(copy: Copy) -> None:
    code = "import sys, prepare; print({'pyarrow', 'tokenizers', 'httpx', 'rich'} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=copy.folder, env=copy.environment(), capture_output=True, text=True
    )
    assert found.stdout == "set()\n", found.stderr


# Tokenizer


def test_tokenizer_api(harness: ModuleType, tokenizer: Any) -> None:
    bos = tokenizer.get_bos_token_id()
    assert tokenizer.get_vocab_size() == harness.VOCAB_SIZE == 512
    ids = tokenizer.encode("import os")
    assert tokenizer.encode("import os", prepend=bos) == [bos, *ids]
    assert tokenizer.encode("import os", prepend=harness.BOS_TOKEN) == [bos, *ids]
    assert tokenizer.encode(["import os", ""], prepend=bos, num_threads=2) == [[bos, *ids], [bos]]
    assert tokenizer.decode([bos, *ids]) == "<|reserved_0|>import os"
    assert [tokenizer.decode([i]) for i in range(508, 512)] == harness.SPECIAL_TOKENS
    with pytest.raises(ValueError, match="vocabulary"):
        tokenizer.encode("x", prepend="<|nothing|>")
    with pytest.raises(ValueError, match="bytes"):
        tokenizer.encode(b"x")


def test_the_spelling_of_a_special_token_is_text(tokenizer: Any) -> None:
    ids = tokenizer.encode("a<|reserved_0|>b")
    assert max(ids) < 508
    assert tokenizer.decode(ids) == "a<|reserved_0|>b"


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_round_trip_and_true_byte_counts(harness: ModuleType, tokenizer: Any, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    counts = np.array(harness.get_token_bytes())
    assert counts[ids].sum() == len(text.encode())


def test_a_piece_of_a_character_counts_its_own_bytes(harness: ModuleType, tokenizer: Any) -> None:
    counts = harness.get_token_bytes()
    assert counts.dtype == mx.int32
    assert counts.shape == (512,)
    ids = tokenizer.encode("🜚")  # not in the text the tokenizer was trained on, so four single bytes
    assert [tokenizer.decode([i]) for i in ids] == ["\ufffd"] * 4
    assert np.array(counts)[ids].tolist() == [1, 1, 1, 1]
    assert np.array(counts)[508:].tolist() == [0, 0, 0, 0]


def test_a_changed_byte_table_is_refused(own: Copy) -> None:
    table = own.cache / "tokenizer" / "token_bytes.npy"
    np.save(table, np.load(table) * 3)
    harness = own.load()
    with pytest.raises(harness.HarnessError, match=r"manifest\.json"):
        harness.get_token_bytes()


# Packing


def plain(harness: ModuleType, tokenizer: Any, split: str) -> reference.Documents:
    manifest = harness.read_manifest()
    names = manifest.train if split == "train" else [manifest.val]
    bos = tokenizer.get_bos_token_id()
    paths = [Path(harness.DATA_DIR, f"{name}.parquet") for name in names]
    return reference.documents(paths, lambda texts: [[bos, *tokenizer.encode(text)] for text in texts])


@pytest.mark.parametrize(
    ("split", "batch_size", "seq_len", "buffer_size", "batches"),
    [
        ("train", 8, 64, 1000, 40),
        ("train", 3, 257, 1000, 20),
        ("train", 16, 31, 200, 300),  # into the next epoch
        ("train", 1, 2048, 500, 6),
        ("val", 5, 64, 1000, 20),  # a buffer larger than the shard
        ("val", 2, 7, 1, 50),
    ],
)
def test_rows_equal_the_plain_reference(
    harness: ModuleType, tokenizer: Any, split: str, batch_size: int, seq_len: int, buffer_size: int, batches: int
) -> None:
    expected = reference.packed(plain(harness, tokenizer, split), batch_size, seq_len + 1, buffer_size)
    with contextlib.closing(
        harness.make_dataloader(tokenizer, batch_size, seq_len, split, buffer_size=buffer_size)
    ) as loader:
        for (rows, epoch), (inputs, targets, found) in itertools.islice(zip(expected, loader, strict=False), batches):
            assert inputs.dtype == targets.dtype == mx.int32
            assert inputs.tolist() == [row[:-1] for row in rows]
            assert targets.tolist() == [row[1:] for row in rows]
            assert found == epoch
            assert set(inputs[:, 0].tolist()) == {tokenizer.get_bos_token_id()}


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=40),
    groups=st.integers(1, 9),
    batch_size=st.integers(1, 3),
    row_tokens=st.integers(1, 20),
    buffer_size=st.integers(1, 30),
)
def test_packing_any_lengths(
    harness: ModuleType, lengths: list[int], groups: int, batch_size: int, row_tokens: int, buffer_size: int
) -> None:
    numbers = iter(range(sum(lengths)))
    documents = [[next(numbers) for _ in range(length)] for length in lengths]
    chunks = [documents[i : i + groups] for i in range(0, len(documents), groups)]

    def arrays() -> Iterator[tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint64], int]]:
        tokens = np.arange(sum(lengths), dtype=np.uint16)
        offsets = np.cumsum([0, *lengths], dtype=np.uint64)
        for epoch in itertools.count(1):
            for i in range(0, len(lengths), groups):
                yield tokens, offsets[i : min(i + groups, len(lengths)) + 1], epoch

    lists = ((chunk, epoch) for epoch in itertools.count(1) for chunk in chunks)
    found = harness.pack(arrays(), batch_size, row_tokens, buffer_size)
    expected = reference.packed(lists, batch_size, row_tokens, buffer_size)
    for (rows, epoch), (wanted, wanted_epoch) in itertools.islice(zip(found, expected, strict=False), 20):
        assert (rows.tolist(), epoch) == (wanted, wanted_epoch)


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dataloader"]


@pytest.mark.parametrize("end", [lambda loader: loader.close(), lambda loader: None])
def test_the_thread_ends_with_the_iterator(harness: ModuleType, tokenizer: Any, end: Callable[[Any], object]) -> None:
    loader = harness.make_dataloader(tokenizer, 2, 64, "train")
    next(loader)
    (thread,) = loader_threads()
    end(loader)
    del loader
    gc.collect()
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_a_loader_nobody_closed_does_not_keep_the_interpreter(copy: Copy) -> None:
    code = (
        "from prepare import *\n"
        "keep = make_dataloader(Tokenizer.from_directory(), 4, 64, 'train')\n"
        "print(*next(keep)[0].shape)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=copy.folder,
        env=copy.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "4 64\n", "")


def test_training_needs_no_file_of_the_validation_shard(own: Copy) -> None:
    for path in own.cache.rglob("shard_06542*"):
        path.unlink()
    harness = own.load()
    tokenizer = harness.Tokenizer.from_directory()
    with contextlib.closing(harness.make_dataloader(tokenizer, 2, 64, "train")) as loader:
        assert next(loader)[0].shape == (2, 64)
    with pytest.raises(FileNotFoundError, match="shard_06542"):
        harness.make_dataloader(tokenizer, 2, 64, "val")
    with pytest.raises(FileNotFoundError, match="shard_06542"):
        harness.evaluate_bpb(lambda x, y, reduction: mx.zeros(y.shape), tokenizer, 2)


@pytest.mark.parametrize("arguments", [(0, 64, "train"), (2, 0, "train"), (2, 64, "train", 0), (2, 64, "test")])
def test_loader_arguments(harness: ModuleType, tokenizer: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"split|1 or more"):
        harness.make_dataloader(tokenizer, *arguments)


@pytest.mark.parametrize("name", ["tokens", "offsets", "json"])
def test_a_truncated_token_shard_is_refused(own: Copy, name: str) -> None:
    path = own.cache / "tokens" / f"shard_00000.{name}"
    path.write_bytes(path.read_bytes()[:-8])
    harness = own.load()
    with pytest.raises(harness.HarnessError, match="damaged"):
        harness.make_dataloader(None, 2, 64, "train")


# Metric


class Bigram:
    """A fixed random table of logits (V, V); remembers the shapes it was called with."""

    def __init__(self, vocabulary: int) -> None:
        logits = np.random.default_rng(0).normal(size=(vocabulary, vocabulary))
        self.table = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, x: mx.array, y: mx.array, reduction: str) -> mx.array:
        assert reduction == "none"
        self.shapes.append(x.shape)
        return -mx.array(self.table)[x, y].reshape(-1)


def test_bits_per_byte_against_numpy(harness: ModuleType, tokenizer: Any) -> None:
    model = Bigram(512)
    rows_of = reference.packed(plain(harness, tokenizer, "val"), 1, 65, 1000)
    rows = np.array([next(rows_of)[0][0] for _ in range(harness.EVAL_TOKENS // 64)])
    text_bytes = [len(tokenizer.enc.id_to_token(i)) if i < 508 else 0 for i in range(512)]
    counts = np.array(text_bytes)[rows[:, 1:]]
    losses = -model.table.astype(np.float64)[rows[:, :-1], rows[:, 1:]]
    expected = losses[counts > 0].sum() / (math.log(2) * counts.sum())
    found = [harness.evaluate_bpb(model, tokenizer, size) for size in (1, 2, 5, 36, 37, 38, 1000)]
    assert found == pytest.approx([expected] * 7, rel=1e-9)


def test_a_model_that_knows_nothing_scores_the_log_of_the_vocabulary(harness: ModuleType, tokenizer: Any) -> None:
    """Every target costs log2(512) = 9 bits, so the score is 9 bits by tokens per byte."""
    with contextlib.closing(harness.make_dataloader(tokenizer, 37, 64, "val")) as loader:
        counts = np.array(harness.get_token_bytes())[np.array(next(loader)[1])]
    uniform = lambda x, y, reduction: mx.full(y.shape, math.log(512))  # noqa: E731
    expected = 9 * (counts > 0).sum() / counts.sum()
    assert harness.evaluate_bpb(uniform, tokenizer, 8) == pytest.approx(expected, rel=1e-6)


def test_logits_are_bounded_and_no_row_is_left_out(
    harness: ModuleType, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Bigram(512)
    monkeypatch.setattr(harness, "LOGITS_BYTES", 5 * 64 * 512 * 4)
    harness.evaluate_bpb(model, tokenizer, 64)
    assert model.shapes == [(5, 64)] * 7 + [(2, 64)]


def test_one_loss_for_all_tokens_is_refused(harness: ModuleType, tokenizer: Any) -> None:
    with pytest.raises(harness.HarnessError, match="losses"):
        harness.evaluate_bpb(lambda x, y, reduction: mx.array(1.0), tokenizer, 8)
    assert math.isnan(harness.evaluate_bpb(lambda x, y, reduction: mx.full(y.shape, math.nan), tokenizer, 8))


# Manifest


def test_snapshot_id_depends_on_the_data_alone(copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another folder, another time, another core count: the same id. Other data: another one."""
    text = tmp_path / "text"
    for number in range(40):
        (text / f"d{number}").mkdir(parents=True)
        (text / f"d{number}" / "a.md").write_text(f"# {number}\n\n" + f"word{number} and more, é\n" * 60)
    small = protocol(sequenceLength=64, vocabSize=300, evalTokens=64)
    ids = []
    for name in ("one", "two"):
        made = Copy.make(tmp_path / name / "code", tmp_path / name / "cache", small)
        moved = tmp_path / name / "elsewhere"
        shutil.copytree(text, moved)
        result = made.run("--text", str(moved))
        assert result.returncode == 0, result.stderr
        ids.append(made.run("--snapshot-id").stdout.strip())
        assert result.stdout == f"data snapshot: {ids[-1]}\n"
        monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    assert ids[0] == ids[1]
    assert len(ids[0]) == 64
    assert ids[0] != copy.run("--snapshot-id").stdout.strip()
    (moved / "d0" / "a.md").write_text("changed")
    refused(made.run("--text", str(moved)), "text that has changed")
    assert made.run("--verify").returncode == 0


KINDS = [
    "data/shard_00000.parquet",
    "data/shard_06542.parquet",
    "tokenizer/tokenizer.json",
    "tokenizer/token_bytes.npy",
    "tokens/shard_00000.tokens",
    "tokens/shard_00000.offsets",
    "tokens/shard_00000.json",
    "tokens/shard_06542.tokens",
]


def test_verify_finds_a_flipped_bit_and_prepare_mends_it(own: Copy) -> None:
    before = own.run("--snapshot-id").stdout
    assert own.run("--verify").returncode == 0
    harness = own.load()
    for name in KINDS:
        path = own.cache / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        assert name in harness.damaged_files(harness.read_manifest())
    refused(own.run("--verify"), f"{len(KINDS)} of 10 files", "Run prepare.py again")
    mended = own.run(*TEXT)
    assert mended.returncode == 0, mended.stderr
    assert mended.stdout == f"data snapshot: {before}"
    assert own.run("--verify").returncode == 0


def test_a_stopped_preparation_is_continued(own: Copy) -> None:
    """Killed while the second shard was being tokenized: what was done stays as it is."""
    before = own.run("--snapshot-id").stdout
    (own.cache / "manifest.json").unlink()
    (own.cache / "tokens" / "shard_06542.json").unlink()
    (own.cache / "tokens" / ".shard_06542.tokens.1.tmp").write_bytes(b"half")
    kept = [own.cache / name for name in ("tokenizer/tokenizer.json", "tokens/shard_00000.tokens")]
    inodes = [path.stat().st_ino for path in kept]
    assert own.run(*TEXT).stdout == f"data snapshot: {before}"
    assert [path.stat().st_ino for path in kept] == inodes
    assert not list(own.cache.rglob(".*.tmp"))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(format=2),
        lambda m: m["shards"].update(val="../../etc/passwd"),
        lambda m: m["shards"].update(train=[]),
        lambda m: m["shards"].update(train=[7]),
        lambda m: m["files"].update({"../x": {"bytes": 1, "sha256": ""}}),
        lambda m: m["files"].pop("tokenizer/tokenizer.json"),
        lambda m: m.pop("files"),
        lambda m: m.update(tokenizer=None),
    ],
)
def test_a_malformed_manifest_is_refused(own: Copy, change: Callable[[Any], object]) -> None:
    path = own.cache / "manifest.json"
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))
    harness = own.load()
    with pytest.raises(harness.HarnessError, match="damaged"):
        harness.read_manifest()


@settings(max_examples=100, deadline=None)
@given(st.recursive(st.none() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
def test_any_json_is_no_manifest(harness: ModuleType, value: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        harness.parse_manifest(json.dumps(value).encode())


# Local text


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab \n"), max_size=200), st.integers(1, 30))
def test_split_text_loses_nothing_but_blanks(harness: ModuleType, text: str, limit: int) -> None:
    documents = harness.split_text(text, limit)
    assert all(len(document) <= limit and document.strip() for document in documents)
    assert "".join("".join(documents).split()) == "".join(text.split())


def test_no_document_is_in_both_splits(harness: ModuleType) -> None:
    groups = [[text for group in harness.row_groups(name) for text in group] for name in ("shard_00000", "shard_06542")]
    train, val = map(set, groups)
    assert train.isdisjoint(val)
    assert len(train) + len(val) == sum(map(len, groups))
    assert 0.05 < len(val) / len(train) < 0.2


def test_what_is_read_of_a_folder(harness: ModuleType, tmp_path: Path) -> None:
    for name, data in {
        "b.py": b"b = 1\n",
        "a/c.md": b"# c\n",
        "a/same.txt": b"# c\n",
        "a/d.rst": "é\n".encode(),
        "a/bad.txt": b"\xff",
        "a/e.bin": b"e",
        ".git/f.txt": b"f",
        "__pycache__/g.py": b"g",
        "site-packages/h.py": b"h",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "link.txt").symlink_to("/etc/hostname")
    assert set(harness.collect_text(str(tmp_path), 1000).values()) == {"b = 1\n", "# c\n", "é\n"}
    assert set(harness.collect_text(str(tmp_path), 7).values()) == {"b = 1\n"}  # a folder's own files come first


# Bad input


@pytest.mark.parametrize("arguments", [("--verify",), ("--snapshot-id",)])
def test_nothing_prepared(copy: Copy, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    refused(Copy(copy.folder, tmp_path / "none").run(*arguments), str(tmp_path / "none"), "Run prepare.py first")
    assert not (tmp_path / "none").exists()


def test_missing_data_is_a_file_not_found(copy: Copy, tmp_path: Path) -> None:
    harness = Copy(copy.folder, tmp_path / "none").load()
    for call in (
        harness.Tokenizer.from_directory,
        harness.get_token_bytes,
        lambda: harness.make_dataloader(None, 1, 64, "train"),
    ):
        with pytest.raises(FileNotFoundError, match=r"Run prepare\.py first"):
            call()


def test_another_vocabulary_than_the_protocols(own: Copy, tmp_path: Path) -> None:
    other = Copy.make(tmp_path / "other", own.cache, protocol(**{**TINY, "vocabSize": 600}))
    harness = other.load()
    refused(other.run("--verify"), "512 tokens", "asks for 600", "AUTORESEARCH_CACHE")
    with pytest.raises(harness.HarnessError, match="600 tokens"):
        harness.Tokenizer.from_directory()
    with pytest.raises(harness.HarnessError, match="asks for 600"):
        harness.make_dataloader(None, 1, 64, "train")
    assert other.run(*TEXT).returncode == 0
    assert harness.Tokenizer.from_directory().get_vocab_size() == 600


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--text", "/nowhere/at/all"), ("There is no folder", "--text")),
        (("--text", "stdlib", "--max-bytes", "10"), ("enough text", "--max-bytes")),
        (("--text", "stdlib", "--max-bytes", "50000"), ("vocabulary of 5000", "found")),
    ],
)
def test_text_that_will_not_do(tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    made = Copy.make(tmp_path / "code", tmp_path / "cache", protocol(**{**TINY, "vocabSize": 5000}))
    refused(made.run(*arguments), *words)
    assert not (tmp_path / "cache" / "manifest.json").exists()


@pytest.mark.parametrize(
    "arguments",
    [("--num-shards", "0"), ("--max-bytes", "x"), ("--verify", "--snapshot-id"), ("--download-workers", "0")],
)
def test_usage(copy: Copy, arguments: tuple[str, ...]) -> None:
    assert copy.run(*arguments).returncode == 2


def test_two_preparations_of_one_cache(own: Copy) -> None:
    with own.load().exclusive():
        refused(own.run(*TEXT), "Another prepare.py is at work")


def test_the_cache_of_another_source_or_harness(own: Copy) -> None:
    refused(own.run("--num-shards", "1"), "another source", "AUTORESEARCH_CACHE")
    (own.cache / "tokenizer" / "tokenizer.pkl").write_bytes(b"")
    refused(own.run(*TEXT), "tokenizer of another harness")
    (own.cache / "tokenizer" / "tokenizer.pkl").unlink()
    (own.cache / "tokenizer" / "tokenizer.json").write_text("{}")
    with pytest.raises(Exception, match="is no tokenizer"):
        own.load().Tokenizer.from_directory()


def test_a_folder_that_cannot_be_made(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(Copy(copy.folder, tmp_path / "file" / "cache").run(*TEXT), "Not a directory")
