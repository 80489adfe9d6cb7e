"""Downloads against a real HTTP server on this machine: parallel, resumed, retried, checked, bounded."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.harness.support import TEXT, TINY, Copy, protocol, refused

PREFIX = "/datasets/karpathy/climbmix-400b-shuffle/resolve/main/"


class Hub(ThreadingHTTPServer):
    """Serves `files`; `plans[name]` are handlers for the first requests of a file, the default for the others."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.plans: dict[str, list[Callable[[Handler, bytes], None]]] = defaultdict(list)
        self.requests: list[tuple[str, str | None]] = []
        self.lock = threading.Lock()
        self.together: threading.Barrier | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def ranges(self, name: str) -> list[str | None]:
        return [asked for found, asked in self.requests if found == name]


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.removeprefix(PREFIX).removesuffix(".parquet")
        with self.server.lock:
            self.server.requests.append((name, self.headers.get("Range")))
            plan = self.server.plans[name].pop(0) if self.server.plans[name] else None
        if self.server.together:
            self.server.together.wait(timeout=20)
        if plan:
            plan(self, self.server.files.get(name, b""))
        elif not self.path.startswith(PREFIX) or name not in self.server.files:
            self.answer(404)
        else:
            self.whole(self.server.files[name])

    def whole(self, data: bytes) -> None:
        """200, or 206 for a range, or 416 for one beyond the end."""
        asked = re.fullmatch(r"bytes=([0-9]+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        if asked and start >= len(data):
            self.answer(416)
        elif asked:
            self.answer(206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})
        else:
            self.answer(200, data)

    def answer(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client may leave in the middle of a body
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().finish()

    def log_message(self, *_: object) -> None:
        pass


def status(code: int) -> Callable[[Handler, bytes], None]:
    return lambda handler, data: handler.answer(code)


def truncated(handler: Handler, data: bytes) -> None:
    """Half the body, then the connection breaks."""
    handler.answer(200, data[: len(data) // 2], {"Content-Length": str(len(data))})
    handler.close_connection = True


def redirected(digest: str) -> Callable[[Handler, bytes], None]:
    """As the hub does: to storage, with the file's SHA-256 on the way."""

    def plan(handler: Handler, data: bytes) -> None:
        handler.answer(302, b"", {"Location": handler.path, "X-Linked-ETag": f'"{digest}"'})

    return plan


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Four training shards and the validation shard."""
    folder = tmp_path_factory.mktemp("shards")
    harness = Copy.make(folder / "code", folder / "cache", protocol(**TINY)).load()
    documents = list(harness.collect_text(TEXT[1], int(TEXT[3])).values())
    files = {}
    for index, name in enumerate(["shard_00000", "shard_00001", "shard_00002", "shard_00003", "shard_06542"]):
        harness.write_parquet(folder / "shard.parquet", documents[index::5])
        files[name] = (folder / "shard.parquet").read_bytes()
    return files


@pytest.fixture
def hub(shards: dict[str, bytes]) -> Iterator[Hub]:
    server = Hub()
    server.files = dict(shards)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def copy(hub: Hub, tmp_path: Path) -> Copy:
    return Copy.make(tmp_path / "code", tmp_path / "cache", endpoint=hub.url + "/")


@pytest.fixture
def harness(copy: Copy) -> Any:
    module: Any = copy.load()
    module.RETRY_SECONDS = 0.01
    Path(module.DATA_DIR).mkdir(parents=True)
    return module


def arrived(harness: Any) -> dict[str, bytes]:
    return {path.name.removesuffix(".parquet"): path.read_bytes() for path in Path(harness.DATA_DIR).iterdir()}


def test_prepare_from_the_dataset(hub: Hub, copy: Copy, shards: dict[str, bytes]) -> None:
    """The whole command; a second run asks for nothing, fewer shards are another snapshot."""
    first = copy.run("--num-shards", "4")
    assert first.returncode == 0, first.stderr
    assert Counter(name for name, _ in hub.requests) == Counter(shards.keys())
    assert copy.run("--verify").returncode == 0
    assert copy.run("--num-shards", "4").stdout == first.stdout
    fewer = copy.run("--num-shards", "2").stdout
    assert fewer != first.stdout
    assert len(hub.requests) == 5
    (copy.cache / "data" / "shard_00001.parquet").write_bytes(b"damaged")
    assert copy.run("--num-shards", "2").stdout == fewer
    assert len(hub.requests) == 6
    refused(copy.run(*TEXT), "another source")


def numbers(_: bytes) -> bytes:
    """A shard whose text is none."""
    out = io.BytesIO()
    pq.write_table(pa.table({"text": pa.array([1, 2, 3])}), out)
    return out.getvalue()


@pytest.mark.parametrize(
    "spoiled",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"<!doctype html><title>Sign in</title>",
        numbers,
        lambda data: data[:20] + bytes(len(data) // 2) + data[20 + len(data) // 2 :],  # its middle
    ],
    ids=["cut", "empty", "HTML", "no strings", "damaged inside"],
)
def test_a_useless_validation_shard_is_found_before_the_tokenizer_is_trained(
    hub: Hub, copy: Copy, shards: dict[str, bytes], spoiled: Callable[[bytes], bytes]
) -> None:
    """One that was there already; today's hub lacks it, and another day's has it."""
    place = copy.cache / "data" / "shard_06542.parquet"
    place.parent.mkdir(parents=True)
    place.write_bytes(spoiled(shards["shard_06542"]))
    del hub.files["shard_06542"]
    failed = copy.run("--num-shards", "1")
    assert failed.returncode == 1
    assert f"{place} is damaged" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (copy.cache / "tokenizer" / "tokenizer.json").exists()
    hub.files["shard_06542"] = shards["shard_06542"]
    assert copy.run("--num-shards", "1").returncode == 0
    assert place.read_bytes() == shards["shard_06542"]


def test_shards_are_fetched_at_the_same_time(hub: Hub, harness: Any, shards: dict[str, bytes]) -> None:
    hub.together = threading.Barrier(5)  # no answer before five requests are here
    harness.download(list(shards), workers=5)
    assert arrived(harness) == shards


def test_a_broken_transfer_is_resumed(hub: Hub, harness: Any, shards: dict[str, bytes]) -> None:
    hub.plans["shard_00000"] = [truncated, status(500), status(503)]
    harness.download(["shard_00000"])
    half = f"bytes={len(shards['shard_00000']) // 2}-"
    assert hub.ranges("shard_00000") == [None, half, half, half]
    assert arrived(harness) == {"shard_00000": shards["shard_00000"]}


def test_what_an_earlier_run_left_is_continued(hub: Hub, harness: Any, shards: dict[str, bytes]) -> None:
    data = shards["shard_00000"]
    Path(harness.DATA_DIR, "shard_00000.parquet.part").write_bytes(data[:1000])
    harness.download(["shard_00000"])
    assert hub.ranges("shard_00000") == ["bytes=1000-"]
    assert arrived(harness) == {"shard_00000": data}


@pytest.mark.parametrize(
    "plan",
    [
        lambda handler, data: handler.answer(200, data),  # ranges are not supported: all of it again
        lambda handler, data: handler.answer(206, data, {"Content-Range": f"bytes 0-9/{len(data)}"}),
        lambda handler, data: handler.answer(206, data[1000:], {}),
        lambda handler, data: handler.answer(206, data[999:], {"Content-Range": f"bytes 1000-/{len(data)}"}),
        status(416),
    ],
)
def test_a_server_that_does_not_honour_the_range(
    hub: Hub, harness: Any, shards: dict[str, bytes], plan: Callable[[Handler, bytes], None]
) -> None:
    Path(harness.DATA_DIR, "shard_00000.parquet.part").write_bytes(b"x" * 1000)
    hub.plans["shard_00000"] = [plan]
    harness.download(["shard_00000"])
    assert arrived(harness) == {"shard_00000": shards["shard_00000"]}


def test_more_bytes_than_the_whole(hub: Hub, harness: Any, shards: dict[str, bytes]) -> None:
    """A part longer than the file, which a server answers with 416, and a range that runs over its own total."""
    data = shards["shard_00000"]
    Path(harness.DATA_DIR, "shard_00000.parquet.part").write_bytes(data + b"x")
    Path(harness.DATA_DIR, "shard_00001.parquet.part").write_bytes(b"x" * 10)
    hub.plans["shard_00001"] = [lambda handler, data: handler.answer(206, data, {"Content-Range": "bytes 10-19/20"})]
    harness.download(["shard_00000", "shard_00001"])
    assert arrived(harness) == {name: shards[name] for name in ("shard_00000", "shard_00001")}


def test_the_hash_of_the_hub_is_checked(hub: Hub, harness: Any, shards: dict[str, bytes]) -> None:
    """A part of other bytes gives a file of the right length; the hash tells, and it is fetched from the start."""
    data = shards["shard_00000"]
    Path(harness.DATA_DIR, "shard_00000.parquet.part").write_bytes(b"x" * 1000)
    direct = Handler.whole
    redirect = redirected(hashlib.sha256(data).hexdigest())
    hub.plans["shard_00000"] = [redirect, direct, redirect, direct]
    harness.download(["shard_00000"])
    assert hub.ranges("shard_00000") == ["bytes=1000-", "bytes=1000-", None, None]
    assert arrived(harness) == {"shard_00000": data}


def test_retries_are_bounded(hub: Hub, harness: Any) -> None:
    hub.plans["shard_00000"] = [status(500)] * 100
    with pytest.raises(harness.HarnessError, match="answered 500"):
        harness.download(["shard_00000"])
    assert len(hub.requests) == harness.DOWNLOAD_ATTEMPTS
    assert arrived(harness) == {}


def test_a_slow_server_is_left(hub: Hub, harness: Any) -> None:
    """One byte at a time never runs into a read's time limit, but into the shard's."""

    def drip(handler: Handler, data: bytes) -> None:
        handler.answer(200, b"", {"Content-Length": "100000"})
        for _ in range(200):
            handler.wfile.write(b"x")
            time.sleep(0.02)

    harness.DOWNLOAD_SECONDS = 0.2
    hub.plans["shard_00000"] = [drip] * 10
    with pytest.raises(harness.HarnessError, match="longer than"):
        harness.download(["shard_00000"])
    assert len(hub.requests) == 1


def test_a_file_beyond_the_limit_is_not_stored(hub: Hub, harness: Any) -> None:
    harness.DOWNLOAD_MAX_BYTES = 1000
    with pytest.raises(harness.HarnessError, match="more than a shard may have"):
        harness.download(["shard_00000"])
    assert arrived(harness) == {}


def test_an_interrupt_ends_it_at_once_and_keeps_what_arrived(hub: Hub, copy: Copy, shards: dict[str, bytes]) -> None:
    """Even while the server is silent in the middle of a body."""
    half = len(shards["shard_00000"]) // 2
    silent = threading.Event()

    def stall(handler: Handler, data: bytes) -> None:
        handler.answer(200, data[:half], {"Content-Length": str(len(data))})
        silent.wait(60)

    hub.plans["shard_00000"] = [stall]
    part = copy.cache / "data" / "shard_00000.parquet.part"
    with copy.start("--num-shards", "1") as process:
        while process.poll() is None and not (part.exists() and part.stat().st_size == half):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=10)
    silent.set()
    assert process.returncode == 130
    assert error.splitlines()[-1] == "prepare.py: stopped. What is done is kept; run it again to continue."
    assert copy.run("--num-shards", "1").returncode == 0
    assert hub.ranges("shard_00000") == [None, f"bytes={half}-"]


def test_a_missing_file_stops_everything_at_once(hub: Hub, copy: Copy) -> None:
    del hub.files["shard_00001"]
    refused(copy.run("--num-shards", "2"), "shard_00001.parquet", "404", "HF_ENDPOINT")
    assert len(hub.ranges("shard_00001")) == 1
    assert not (copy.cache / "manifest.json").exists()


def test_a_page_instead_of_parquet(hub: Hub, copy: Copy) -> None:
    hub.files["shard_00000"] = b"<html>Please sign in</html>"
    refused(copy.run("--num-shards", "1"), "not a Parquet file", "text")
    assert not list((copy.cache / "data").glob("shard_00000*"))


@pytest.mark.parametrize("endpoint", ["ftp://example.org", "huggingface.co", "http://[::1"])
def test_an_endpoint_that_is_no_address(tmp_path: Path, endpoint: str) -> None:
    refused(Copy.make(tmp_path / "code", tmp_path / "cache", endpoint=endpoint).run("--num-shards", "1"), "HF_ENDPOINT")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9", "socksio"),
        ("ALL_PROXY", "socks://127.0.0.1:9", "scheme"),
        ("SSL_CERT_FILE", "/nonexistent.pem", "No such file"),
    ],
)
def test_settings_that_no_client_can_be_made_with(
    harness: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)  # a project's environment has none
    monkeypatch.setenv(name, value)
    with pytest.raises(harness.HarnessError, match=rf"proxies or certificates .*{words}.* unset .*{name}"):
        harness.download(["shard_00000"])


def test_nobody_listens(harness: Any) -> None:
    harness.BASE_URL = "http://127.0.0.1:9/x"
    with pytest.raises(harness.HarnessError, match="Check the network"):
        harness.download(["shard_00000"])
