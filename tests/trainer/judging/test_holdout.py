"""Holdout text: drawn by the seed alone, and gone from everything that a candidate trains on."""

from __future__ import annotations

import http.server
import itertools
import random
import shutil
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.harness.support import Copy, protocol
from trainer.errors import EnvironmentNotReady
from trainer.judging import holdout
from trainer.judging.holdout import HoldoutText, draw_groups, draw_shard, holdout_text, seed_of

VAL = "shard_06542.parquet"
SEEDS = [seed_of(bytes([n]) * 32, n) for n in range(4)]
SIZES = {"sequenceLength": 32, "vocabSize": 320, "evalTokens": 32 * 20}
Groups = list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """A harness whose cache has three training shards of several row groups each, of documents unlike each other."""
    folder, rng = tmp_path_factory.mktemp("holdout"), random.Random(1)
    (folder / "text").mkdir()
    (folder / "text" / "words.txt").write_text("".join(f"{rng.randbytes(30).hex()}\n" for _ in range(7_000)))
    module = Copy.make(folder / "harness", folder / "cache", protocol(**SIZES)).load()
    module.TEXT_DOCUMENT_CHARS, module.TEXT_SHARD_CHARS = 64, 150_000  # type: ignore[attr-defined]
    module.prepare(text=str(folder / "text"))
    return module


@pytest.fixture(scope="module")
def cache(harness: ModuleType) -> Path:
    return Path(harness.CACHE_DIR)


def draw(cache: Path, folder: Path, seed: bytes = SEEDS[0], enough: int = 60_000, **changes: Any) -> HoldoutText:
    given = {"val_filename": VAL, "public": False, "say": lambda _: None, **changes}
    return holdout_text(cache, folder, seed, enough, **given)


# --- draws ---


def test_the_seed_is_of_the_submission_and_the_proposal() -> None:
    assert len(set(SEEDS)) == 4
    assert seed_of(b"\1" * 32, 7) == seed_of(b"\1" * 32, 7)
    assert seed_of(b"\1" * 32, 7) != seed_of(b"\1" * 32, 8) != seed_of(b"\2" * 32, 8)
    # pinned: every verifier, on any machine and in any later version, draws the same
    assert seed_of(bytes(32), 0).hex() == sha256(b"holdout text" + bytes(40)).hexdigest()
    assert [draw_shard(seed_of(bytes(32), n), range(10)) for n in range(3)] == [3448, 5523, 3376]


@given(st.binary(min_size=32, max_size=32), st.sets(st.integers(0, 6541), max_size=50))
def test_a_drawn_shard_is_never_a_local_one(seed: bytes, local: set[int]) -> None:
    drawn = draw_shard(seed, sorted(local))
    assert 0 <= drawn < 6542
    assert drawn not in local
    assert drawn == draw_shard(seed, sorted(local, reverse=True))


@given(
    st.binary(min_size=32, max_size=32),
    st.dictionaries(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), st.integers(1, 1000), max_size=30),
    st.integers(1, 4000),
)
def test_drawn_groups(seed: bytes, sizes: dict[tuple[str, int], int], enough: int) -> None:
    groups: Groups = [(shard, index, size) for (shard, index), size in sizes.items()]
    try:
        drawn = draw_groups(seed, groups, enough)
    except EnvironmentNotReady:
        return
    assert drawn == draw_groups(seed, groups[::-1], enough) == sorted(set(drawn))
    assert sum(sizes[group] for group in drawn) >= enough
    assert len(drawn) <= len(groups) / 2
    for shard in {shard for shard, _, _ in groups}:  # something of each is left
        assert sum(name == shard for name, _ in drawn) < sum(name == shard for name, _, _ in groups)


def test_too_little_text_is_refused() -> None:
    groups: Groups = [("a", n, 100) for n in range(10)]
    assert len(draw_groups(SEEDS[0], groups, 500)) == 5
    with pytest.raises(EnvironmentNotReady, match="too little text"):
        draw_groups(SEEDS[0], groups, 501)
    with pytest.raises(EnvironmentNotReady):
        draw_groups(SEEDS[0], [("a", 0, 10**6), ("b", 0, 10**6)], 10)
    with pytest.raises(EnvironmentNotReady):
        draw_groups(SEEDS[0], [], 1)


def test_another_seed_draws_other_text(cache: Path, tmp_path: Path) -> None:
    found = [draw(cache, tmp_path / str(n), seed) for n, seed in enumerate(SEEDS)]
    assert len({text.sha256 for text in found}) > 1
    assert draw(cache, tmp_path / "again", SEEDS[0]).texts == found[0].texts
    for text in found:
        assert sum(len(t.encode()) for t in text.texts) >= 60_000
        assert text.source.startswith("held out: shard_0")


# --- held out ---


def test_the_view_lacks_the_drawn_text(cache: Path, tmp_path: Path) -> None:
    """No file of the view holds a drawn document, in whatever form; all the rest is there."""
    before = {path.relative_to(cache): path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    drawn = draw(cache, tmp_path)
    files = [path for path in drawn.view.rglob("*") if path.is_file()]
    content = b"".join(path.read_bytes() for path in files)
    assert len(drawn.texts) > 500
    shards = [path for path in (cache / "data").glob("*.parquet") if path.name != VAL]
    training = sum(pq.ParquetFile(path).metadata.num_rows for path in shards)
    assert drawn.cut == pytest.approx(len(drawn.texts) / training, rel=0.2)
    assert not [text for text in drawn.texts if text.strip().encode() in content]
    names = {str(path.relative_to(drawn.view)) for path in files}
    assert {"manifest.json", "tokenizer/tokenizer.json", "tokenizer/token_bytes.npy", f"data/{VAL}"} <= names
    assert before == {path.relative_to(cache): path.read_bytes() for path in cache.rglob("*") if path.is_file()}


def documents(harness: ModuleType, shard: str) -> list[list[bytes]]:
    """The tokens of each document, by row group."""
    opened = harness.TokenShard.open(shard)
    bounds = np.cumsum([0, *opened.row_groups])
    return [
        [opened.tokens[opened.offsets[i] : opened.offsets[i + 1]].tobytes() for i in range(a, b)]
        for a, b in itertools.pairwise(bounds)
    ]


def test_the_cut_tokens_are_the_rest_for_the_harness(harness: ModuleType, cache: Path, tmp_path: Path) -> None:
    """prepare.py's own loader reads the view, and finds every document but the drawn ones, in order."""
    drawn = draw(cache, tmp_path)
    view = Copy(Path(harness.__file__ or "").parent, drawn.view).load()
    shards = harness.read_manifest().train
    assert len(shards) == 3
    held = tokenizer_encoded(harness, drawn.texts)
    cut = 0
    for shard in shards:
        whole, rest = documents(harness, shard), documents(view, shard)
        kept = [group for group in whole if not held >= set(group)]
        assert rest == kept
        cut += len(whole) - len(kept)
    assert cut == drawn.source.count("group") > 0
    assert not held & {document for shard in shards for group in documents(view, shard) for document in group}
    loader = view.make_dataloader(view.Tokenizer.from_directory(), 4, 32, "train")
    inputs, targets, epoch = next(loader)
    assert (inputs.shape, targets.shape, epoch) == ((4, 32), (4, 32), 1)
    loader.close()


def tokenizer_encoded(harness: ModuleType, texts: tuple[str, ...]) -> set[bytes]:
    tokenizer = harness.Tokenizer.from_directory()
    encoded = tokenizer.encode(list(texts), prepend=tokenizer.get_bos_token_id())
    return {np.array(tokens, "<u2").tobytes() for tokens in encoded}


def test_a_harness_without_token_shards_gets_parquet_without_the_groups(cache: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    (plain / "data").mkdir(parents=True)
    for path in (cache / "data").glob("*.parquet"):
        (plain / "data" / path.name).write_bytes(path.read_bytes())
    drawn = draw(plain, tmp_path / "folder")

    def texts(folder: Path) -> list[str]:
        found = [
            pq.ParquetFile(path).read().column("text").to_pylist()
            for path in sorted((folder / "data").glob("*.parquet"))
        ]
        return [str(text) for part in found for text in part]

    held = set(drawn.texts)
    assert texts(drawn.view) == [text for text in texts(plain) if text not in held]
    assert len(texts(drawn.view)) + len(drawn.texts) == len(texts(plain))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data/shard_00000.parquet", b""),
        ("data/shard_00000.parquet", b"<html>Not found</html>"),
        ("tokens/shard_00000.json", b"{"),
        ("tokens/shard_00000.json", b"{}"),
        ("tokens/shard_00000.offsets", b""),
    ],
)
def test_damaged_shards_are_named_and_nothing_is_thrown(name: str, content: bytes, cache: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(cache, damaged)
    assert (damaged / name).exists()
    (damaged / name).unlink()
    (damaged / name).write_bytes(content)

    def until_it_is_drawn() -> None:
        for seed in range(8):
            draw(damaged, tmp_path / str(seed), bytes([seed]) * 32)

    with pytest.raises(EnvironmentNotReady, match="cannot be read"):
        until_it_is_drawn()


def test_no_training_shards(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(EnvironmentNotReady, match="no training shards"):
        draw(tmp_path, tmp_path / "folder")


# --- downloaded ---


class Dataset:
    """A server that answers every shard with the same bytes, and counts."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status, self.body = 200, b""
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def dataset(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dataset]:
    made = Dataset()
    monkeypatch.setenv("HF_ENDPOINT", made.url + "/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield made
    made.close()


def parquet(texts: list[str]) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": texts}), out, row_group_size=10)
    return bytes(out.getvalue())


def test_a_shard_nobody_has_is_downloaded(dataset: Dataset, cache: Path, tmp_path: Path) -> None:
    texts = [f"document {n} " * 20 for n in range(100)]
    dataset.body = parquet(texts)
    found = draw(cache, tmp_path, enough=5_000, public=True)
    number = draw_shard(SEEDS[0], [0, 1, 2])
    assert dataset.asked == [f"/datasets/karpathy/climbmix-400b-shuffle/resolve/main/shard_{number:05d}.parquet"]
    assert found.source == f"shard_{number:05d}.parquet"
    assert (found.view, found.cut) == (cache, 0.0)  # training data needs no change
    assert list(found.texts) == texts[: len(found.texts)]
    assert 5_000 <= sum(len(text) for text in found.texts) < 10_000
    # no part of it is left in the prepared data
    assert not list(cache.rglob(found.source))


@pytest.mark.parametrize(
    ("status", "body", "limit"),
    [
        (404, b"", 1 << 20),
        (500, b"", 1 << 20),
        (200, b"not a parquet file", 1 << 20),
        (200, b"PAR1" + bytes(1000) + b"PAR1", 1 << 20),
        (200, bytes(5_000), 1_000),
    ],
)
def test_where_none_is_to_be_had_local_text_is_held_out(
    dataset: Dataset,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    body: bytes,
    limit: int,
) -> None:
    monkeypatch.setattr(holdout, "_MAX_SHARD", limit)
    dataset.status, dataset.body = status, body
    said: list[str] = []
    found = draw(cache, tmp_path, public=True, say=said.append)
    assert found.source.startswith("held out:")
    assert any("holding out local text" in line for line in said)
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".parquet", ".part")]
