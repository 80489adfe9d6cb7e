"""The local node and the client over real HTTP: what is stored and refused, and servers that lie or fail."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.server
import json
import multiprocessing
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chain.errors import ChainError, InsufficientFunds, InvalidData, NetworkUnreachable, NotFound
from chain.irys.client import CHUNK_BYTES, Endpoints, Irys
from chain.irys.dataitem import ED25519, DataItem, base64url
from chain.irys.items import LocalNode
from chain.irys.metadata import ItemMetadata
from chain.irys.node import RunningNode, serve
from chain.irys.receipt import Receipt, public_modulus, sign_receipt
from chain.irys.store import ContentCache
from tests.chain.irys.conftest import LIMIT

KEY = Keypair.from_seed(bytes(range(32)))
TAGS = (("Content-Type", "text/plain"), ("App-Name", "test"))
ITEM = DataItem.sign(KEY, b"hello irys", TAGS)


# -- a server that does what it is told ---------------------------------------------------------------

Answer = tuple[int, bytes] | tuple[int, bytes, dict[str, str]]


@contextlib.contextmanager
def scripted(answer: Callable[[str, str, int], Answer]) -> Iterator[str]:
    """A server that answers `answer(method, path, number of the call)`; a header Content-Length is kept."""
    calls = [0]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            calls[0] += 1
            status, body, *rest = answer(self.command, self.path, calls[0])
            headers = {"Content-Length": str(len(body)), **(rest[0] if rest else {})}
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def client(uploader: str, *gateways: str, cache: Path | None = None) -> Irys:
    return Irys(Endpoints(uploader, gateways or (uploader,)), backoff=0.001, timeout=5, cache=cache)


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


# -- uploads ------------------------------------------------------------------------------------------


def test_upload_and_fetch(node: RunningNode, irys: Irys) -> None:
    receipt = irys.upload(ITEM)
    assert receipt is not None
    assert receipt.id == str(ITEM.id)
    assert receipt.public == public_modulus(node.node.key())
    assert irys.get(ITEM.id, sha256=ITEM.sha256, max_bytes=100) == b"hello irys"
    assert irys.get(base64url(ITEM.id), sha256=ITEM.sha256, max_bytes=10) == b"hello irys"
    artifact = irys.fetch_verified(str(ITEM.id), sha256=ITEM.sha256, owner=ITEM.owner, max_bytes=100)
    assert (artifact.data, artifact.owner, artifact.tags) == (b"hello irys", ITEM.owner, TAGS)
    assert artifact.signature_checked


@pytest.mark.parametrize(
    "item",
    [
        DataItem.sign(KEY, b"", signature_type=ED25519),
        DataItem.sign(KEY, b"x" * 100_000, target=bytes(range(32))),
        DataItem.sign(KEY, b"x", [("naïve", "日本")], anchor=b"0123456789abcdef0123456789abcdef"),
    ],
    ids=["type 2, empty", "target", "anchor"],
)
def test_every_form_of_item_comes_back_verified(irys: Irys, item: DataItem) -> None:
    irys.upload(item)
    artifact = irys.fetch_verified(item.id, sha256=item.sha256, max_bytes=LIMIT, require_signature=True)
    assert (artifact.data, artifact.owner, artifact.tags) == (item.data, item.owner, item.tags)


def test_an_item_is_received_once_and_survives_a_restart(node: RunningNode, irys: Irys) -> None:
    first, repeated = irys.upload(ITEM), irys.upload(ITEM)
    assert first is not None
    assert repeated is not None
    assert first.timestamp == repeated.timestamp
    with serve(node.node.store) as again, Irys.at(again.url) as second:
        later = second.upload(ITEM)
        assert later is not None
        assert later.timestamp == first.timestamp
        assert second.get(ITEM.id, sha256=ITEM.sha256, max_bytes=100) == ITEM.data
        assert public_modulus(again.node.key()) == public_modulus(node.node.key())


def test_a_damaged_file_is_not_served_and_is_mended_by_another_upload(node: RunningNode, irys: Irys) -> None:
    irys.upload(ITEM)
    path = node.node.path(ITEM.id)
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    with pytest.raises(NetworkUnreachable, match="is damaged"):
        irys.get(ITEM.id, sha256=ITEM.sha256, max_bytes=100)
    assert irys.upload(ITEM) is not None
    assert irys.get(ITEM.id, sha256=ITEM.sha256, max_bytes=100) == ITEM.data


@pytest.mark.parametrize("at", [1, 5, 70, 100, -1])
def test_a_tampered_item_is_refused(node: RunningNode, at: int) -> None:
    raw = bytearray(ITEM.encode())
    raw[at] ^= 1
    answer = httpx.post(f"{node.url}/tx/solana", content=bytes(raw))
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/plain")
    assert not (node.node.store / "items").exists()
    with pytest.raises(InvalidData):
        Irys.at(node.url).upload(dataclasses.replace(ITEM, data=b"other"))


def _receive(store: Path, barrier: Any, answers: Any) -> None:
    node = LocalNode(store)
    items = [DataItem.sign(KEY, bytes([n]) * 10_000).encode() for n in range(20)]
    barrier.wait()
    key = public_modulus(node.key())
    barrier.wait()
    answers.put((key, [node.receive(item).timestamp for item in items]))


def test_several_processes_share_one_store_and_one_key(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(3), context.SimpleQueue()
    workers = [context.Process(target=_receive, args=(tmp_path, barrier, answers)) for _ in range(3)]
    for worker in workers:
        worker.start()
    keys, received = zip(*(answers.get() for _ in workers), strict=True)
    for worker in workers:
        worker.join()
    assert len(set(keys)) == 1
    assert [len(set(item)) for item in zip(*received, strict=True)] == [1] * 20  # each came once
    assert len([path for path in (tmp_path / "items").rglob("*") if path.is_file()]) == 20


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ("Content-Length: 5000000000\r\n", b"", 413),
        ("Content-Length: -1\r\n", b"", 400),
        ("Content-Length: x\r\n", b"", 400),
        ("", b"", 400),
        ("Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n", 400),
        ("Content-Length: 3\r\n", b"abc", 400),
    ],
)
def test_bodies_are_bounded_and_whole(node: RunningNode, headers: str, body: bytes, status: int) -> None:
    with socket.create_connection((node.host, node.port), timeout=10) as connection:
        connection.sendall(f"POST /tx/solana HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode() + body)
        assert connection.recv(200).startswith(f"HTTP/1.1 {status} ".encode())


def test_a_body_that_breaks_off_stores_nothing(node: RunningNode, irys: Irys) -> None:
    raw = ITEM.encode()
    with socket.create_connection((node.host, node.port), timeout=10) as connection:
        head = f"POST /tx/solana HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw)}\r\n\r\n".encode()
        connection.sendall(head + raw[:-1])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
    assert not (node.node.store / "items").exists()
    assert irys.upload(ITEM) is not None


def test_an_item_over_the_limit_is_refused_in_one_line(irys: Irys) -> None:
    with pytest.raises(InvalidData, match="the limit is 4194304"):
        irys.upload(DataItem.sign(KEY, bytes(LIMIT)))


def test_chunked_upload(node: RunningNode, tmp_path: Path) -> None:
    item = DataItem.sign(KEY, bytes(range(256)) * 6000, TAGS)
    options = {"chunk_threshold": 1_000_000, "chunk_bytes": 600_000}
    with Irys.at(node.url, **options) as irys:
        receipt = irys.upload(item)
        assert receipt is not None
        assert irys.get(item.id, sha256=item.sha256, max_bytes=LIMIT) == item.data
        again = irys.upload(item)
        assert again is not None
        assert again.timestamp == receipt.timestamp
        assert list((node.node.store / "chunks").iterdir()) == []
        with pytest.raises(InvalidData, match=r"limit"):
            irys.upload(DataItem.sign(KEY, bytes(LIMIT)))
    assert CHUNK_BYTES == 25_000_000


def test_chunks_may_come_in_any_order_and_gaps_are_named(node: RunningNode) -> None:
    raw = ITEM.encode()
    with httpx.Client(base_url=f"{node.url}/chunks/solana") as http_client:
        upload = http_client.get("/-1/-1").json()["id"]
        assert http_client.get(f"/{upload}/-1").json()["chunks"] == []
        http_client.post(f"/{upload}/100", content=raw[100:])
        gap = http_client.post(f"/{upload}/-1")
        assert (gap.status_code, "lacks the bytes from 0 to 100" in gap.text) == (400, True)
        http_client.post(f"/{upload}/0", content=raw[:100])
        http_client.post(f"/{upload}/{len(raw)}", content=b"")
        listed = http_client.get(f"/{upload}/-1").json()
        assert listed["chunks"] == [[len(raw), 0], [100, len(raw) - 100], [0, 100]]
        done = http_client.post(f"/{upload}/-1", content=b"")
        Receipt.parse(done.json()).verify(ITEM.id)
        assert http_client.get(f"/{upload}/-1").status_code == 404
        assert http_client.post(f"/{upload}/0", content=b"x").status_code == 404


# -- the HTTP contract --------------------------------------------------------------------------------


def test_account_calls(node: RunningNode, irys: Irys) -> None:
    assert irys.price(10**6) == 0
    assert irys.balance(KEY.pubkey()) >= 10**9
    assert irys.deposit_address() == node.node.deposit_address
    irys.post_deposit(str(KEY.sign_message(b"a transaction")))
    with pytest.raises(InvalidData, match="tx_id"):
        irys.post_deposit("nonsense")
    for path in ("/account/balance/solana?address=x", "/account/balance/solana", "/-" + "A" * 42 + "9"):
        assert httpx.get(node.url + path).status_code == 400
    for path in (
        "/",
        "/nothing",
        "/price/dogecoin/1",
        "/../store/key.pem",
        "/tx/solana",
        "/chunks/solana/..//0",
    ):
        assert httpx.get(node.url + path).status_code == 404
    assert httpx.get(f"{node.url}/public").text == public_modulus(node.node.key())


def test_gateway_and_metadata(node: RunningNode, irys: Irys) -> None:
    irys.upload(ITEM)
    hostile = DataItem.sign(KEY, b"<b>", [("Content-Type", "text/html\r\nSet-Cookie: a=b")])
    irys.upload(hostile)
    page = httpx.get(f"{node.url}/{ITEM.id}")
    assert (page.content, page.headers["content-type"]) == (b"hello irys", "text/plain")
    head = httpx.head(f"{node.url}/{ITEM.id}")
    assert (head.content, head.headers["content-length"]) == (b"", "10")
    assert httpx.get(f"{node.url}/tx/{ITEM.id}/data").content == b"hello irys"
    assert httpx.get(f"{node.url}/tx/{ITEM.id}/status").json()["status"] == "FINALIZED"
    assert "set-cookie" not in httpx.get(f"{node.url}/{hostile.id}").headers
    metadata = httpx.get(f"{node.url}/tx/{ITEM.id}").json()
    assert metadata["address"] == str(KEY.pubkey())
    assert metadata["tags"] == [{"name": name, "value": value} for name, value in TAGS]
    assert (metadata["data_size"], metadata["raw_size"]) == ("10", str(ITEM.size))
    assert httpx.get(f"{node.url}/{Pubkey.default()}").status_code == 404


def test_a_store_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ChainError, match="Cannot create the store"):
        serve(tmp_path / "file")


def test_a_port_in_use_is_one_line(node: RunningNode, tmp_path: Path) -> None:
    with pytest.raises(ChainError, match=rf"Port {node.port} of 127\.0\.0\.1 is in use.*with --irys-port\."):
        serve(tmp_path, port=node.port, option="--irys-port")


# -- receipts -----------------------------------------------------------------------------------------


def test_receipts(node: RunningNode) -> None:
    key = node.node.key()
    receipt = sign_receipt(key, ITEM.id, timestamp=1_700_000_000_000, deadline_height=1_000)
    assert Receipt.parse(json.loads(json.dumps(receipt.json()))) == receipt
    receipt.verify(ITEM.id)
    receipt.verify(ITEM.id, public=public_modulus(key))
    sixty_four = dataclasses.replace(receipt, id=base64url(ITEM.id))
    with pytest.raises(InvalidData, match="does not match"):
        sixty_four.verify(ITEM.id)  # the signature is over the id's text
    with pytest.raises(InvalidData, match="another key"):
        receipt.verify(ITEM.id, public="other")
    with pytest.raises(InvalidData, match="was uploaded"):
        receipt.verify(bytes(32))
    for forged in (
        dataclasses.replace(receipt, timestamp=receipt.timestamp + 1),
        dataclasses.replace(receipt, deadline_height=1_001),
        dataclasses.replace(receipt, version="1.0.1"),
        dataclasses.replace(receipt, public=base64url(b"\xff" * 512)),
        dataclasses.replace(receipt, public=base64url(b"\xff" * 256)),
        dataclasses.replace(receipt, signature="AAAA"),
        dataclasses.replace(receipt, signature="!"),
    ):
        with pytest.raises(InvalidData):
            forged.verify(ITEM.id)


@pytest.mark.parametrize(
    "change",
    [
        {"id": 5},
        {"id": "x" * 65},
        {"timestamp": "1"},
        {"timestamp": True},
        {"deadlineHeight": -1},
        {"version": ""},
    ],
)
def test_malformed_receipts(change: dict[str, object]) -> None:
    good: dict[str, object] = {
        "id": "a", "public": "b", "signature": "c", "deadlineHeight": 1, "timestamp": 1, "version": "1.0.0"
    }  # fmt: skip
    Receipt.parse(good)
    for bad in ({**good, **change}, {k: v for k, v in good.items() if k not in change}, [good], None):
        with pytest.raises(InvalidData):
            Receipt.parse(bad)


def test_an_uploader_that_forges_receipts_is_caught(node: RunningNode) -> None:
    key = node.node.key()
    good = sign_receipt(key, ITEM.id, timestamp=1, deadline_height=1).json()
    other = sign_receipt(key, bytes(32), timestamp=1, deadline_height=1).json()
    for body in (json.dumps({**good, "timestamp": 2}), json.dumps(other), "[]", "not JSON", "[" * 100_000):
        with scripted(lambda *_, body=body: (200, body.encode())) as url, pytest.raises(InvalidData):
            client(url).upload(ITEM)
    with scripted(lambda *_: (200, json.dumps(good).encode())) as url:
        assert Irys.at(url, receipt_key=public_modulus(key)).upload(ITEM) is not None
        with pytest.raises(InvalidData, match="another key"):
            Irys.at(url, receipt_key="pinned").upload(ITEM)


# -- the client against servers that fail -------------------------------------------------------------


def test_429_and_500_are_tried_again() -> None:
    answers: list[Answer] = [(429, b"slow down", {"Retry-After": "0"}), (500, b"oops"), (200, ITEM.data)]
    with scripted(lambda method, path, call: answers[call - 1]) as url, client(url) as irys:
        assert irys.get(ITEM.id, sha256=ITEM.sha256, max_bytes=100) == ITEM.data


def test_uploads_are_tried_again_and_an_item_received_meanwhile_is_fine() -> None:
    answers: list[Answer] = [(503, b"busy"), (201, b"Already received")]
    with scripted(lambda method, path, call: answers[call - 1]) as url, client(url) as irys:
        assert irys.upload(ITEM) is None


def test_attempts_are_bounded() -> None:
    calls: list[int] = []

    def answer(method: str, path: str, call: int) -> Answer:
        calls.append(call)
        return 500, b"oops"

    with scripted(answer) as url, client(url) as irys:
        with pytest.raises(NetworkUnreachable, match="500"):
            irys.price(1)
        assert len(calls) == 4
        with pytest.raises(NetworkUnreachable, match="after 4 attempts"):
            irys.upload(ITEM)


def test_a_lying_gateway_is_named_with_both_hashes(node: RunningNode, irys: Irys) -> None:
    irys.upload(ITEM)
    lie = b"other bytes"
    with scripted(lambda *_: (200, lie)) as liar:
        assert client(node.url, liar, node.url).get(ITEM.id, sha256=ITEM.sha256, max_bytes=100) == ITEM.data
        with pytest.raises(InvalidData) as caught:
            client(liar).get(ITEM.id, sha256=ITEM.sha256, max_bytes=100)
    for part in (liar, hashlib.sha256(lie).hexdigest(), ITEM.sha256.hex(), str(ITEM.id)):
        assert part in caught.value.message


def test_truncated_oversize_and_compressed_answers(node: RunningNode, irys: Irys) -> None:
    irys.upload(ITEM)
    bad: list[tuple[Answer, type[ChainError], str]] = [
        ((200, ITEM.data[:4], {"Content-Length": "10"}), NetworkUnreachable, "did not answer"),
        ((200, b"x" * 200_000), InvalidData, "more than 100 bytes"),
        ((200, ITEM.data, {"Content-Encoding": "gzip"}), InvalidData, "compressed"),
        ((302, b"", {"Location": "/again"}), NetworkUnreachable, "TooManyRedirects"),
        ((404, b"no"), NotFound, "has no /"),
        ((403, b"no\x1b[31m"), NetworkUnreachable, "403"),
    ]
    for answer, kind, complaint in bad:
        with scripted(lambda *_, answer=answer: answer) as url:
            with pytest.raises(kind, match=complaint) as caught:
                client(url).get(ITEM.id, sha256=ITEM.sha256, max_bytes=100)
            assert caught.value.message.isprintable()
            assert client(node.url, url).get(ITEM.id, sha256=ITEM.sha256, max_bytes=100) == ITEM.data


def test_a_server_that_is_not_there() -> None:
    with client(closed_port()) as irys:
        with pytest.raises(NetworkUnreachable, match="did not answer"):
            irys.get(ITEM.id, sha256=ITEM.sha256, max_bytes=100)
        with pytest.raises(NetworkUnreachable):
            irys.upload(ITEM)
    with client("ftp://nowhere") as irys, pytest.raises(NetworkUnreachable):
        irys.price(1)


def test_a_transfer_that_never_ends_is_cut_off() -> None:
    body = b"x" * 500_000
    with scripted(lambda *_: (200, body)) as url, pytest.raises(NetworkUnreachable, match="took too long"):
        Irys.at(url, attempts=1, limit=0.0).get(ITEM.id, sha256=ITEM.sha256, max_bytes=LIMIT)
    with scripted(lambda *_: (201, b"")) as url, pytest.raises(NetworkUnreachable, match="took too long"):
        Irys.at(url, attempts=1, limit=-1.0).upload(ITEM)


def test_payment_required_says_what_to_fund() -> None:
    address = Keypair().pubkey()

    def answer(method: str, path: str, call: int) -> Answer:
        if method == "POST":
            return 402, b"Not enough balance"
        if path.startswith("/price"):
            return 200, b"5000"
        return 200, json.dumps({"balance": "1200", "addresses": {"solana": str(address)}}).encode()

    with scripted(answer) as url, pytest.raises(InsufficientFunds) as caught:
        client(url).upload(ITEM)
    for part in (
        "costs 0.000005 SOL",
        "has 0.0000012 SOL deposited",
        "transfers 0.0000038 SOL",
        str(address),
        str(KEY.pubkey()),
    ):
        assert part in caught.value.message
    with (
        scripted(lambda *_: (402, b"Pay")) as url,
        pytest.raises(InsufficientFunds, match="Deposit SOL"),
    ):
        client(url).upload(ITEM)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "NaN", "1" * 40, "\uff11", "{}"])
def test_prices_are_whole_numbers(text: str) -> None:
    with scripted(lambda *_: (200, text.encode())) as url, pytest.raises(InvalidData, match="whole number"):
        client(url).price(1)


# -- metadata -----------------------------------------------------------------------------------------


def gateway_with(metadata: object) -> contextlib.AbstractContextManager[str]:
    body = json.dumps(metadata).encode()
    return scripted(lambda method, path, call: (200, body) if path == f"/tx/{ITEM.id}" else (200, ITEM.data))


def metadata_of(item: DataItem) -> dict[str, object]:
    return {
        "signature": base64url(item.signature),
        "owner": base64url(item.owner),
        "anchor": base64url(item.anchor),
        "tags": [{"name": name, "value": value} for name, value in item.tags],
    }


def test_forged_metadata_is_reported_and_missing_metadata_is_not_a_lie(node: RunningNode, irys: Irys) -> None:
    irys.upload(ITEM)
    good = metadata_of(ITEM)
    forgeries: list[dict[str, object]] = [
        {"owner": base64url(bytes(Keypair().pubkey()))},
        {"tags": []},
        {"anchor": "0123456789abcdef0123456789abcdef"},
        {"signature": base64url(bytes(64))},
        metadata_of(DataItem.sign(Keypair(), ITEM.data, TAGS)),  # valid, and another item
        {"signature": "?"},
        {"tags": [{"name": "a", "value": 5}]},
        {"tags": "abc"},
        {"owner": [1]},
    ]
    for forgery in forgeries:
        with gateway_with({**good, **forgery}) as url:
            with pytest.raises(InvalidData):
                client(url).fetch_verified(ITEM.id, sha256=ITEM.sha256, max_bytes=100)
            fallback = client(node.url, url)
            assert fallback.fetch_verified(ITEM.id, sha256=ITEM.sha256, max_bytes=100).signature_checked
    with gateway_with({"tags": []}) as url:
        artifact = client(url).fetch_verified(ITEM.id, sha256=ITEM.sha256, owner=ITEM.owner, max_bytes=100)
        assert (artifact.data, artifact.owner, artifact.signature_checked) == (ITEM.data, None, False)
        with pytest.raises(NotFound, match="no signature"):
            client(url).fetch_verified(ITEM.id, sha256=ITEM.sha256, max_bytes=100, require_signature=True)


def test_the_owner_must_be_the_expected_one(irys: Irys) -> None:
    irys.upload(ITEM)
    with pytest.raises(InvalidData, match="someone else published it"):
        irys.fetch_verified(ITEM.id, sha256=ITEM.sha256, owner=bytes(32), max_bytes=100)


def test_metadata_in_base58_is_read_too() -> None:
    item = DataItem.sign(KEY, b"x", TAGS, anchor=b"0123456789abcdef0123456789abcdef")
    texts = {
        "signature": str(KEY.sign_message(item.signed_message())),
        "owner": str(KEY.pubkey()),
        "anchor": "0123456789abcdef0123456789abcdef",
    }
    metadata = ItemMetadata.parse(item.id, {**metadata_of(item), **texts, "target": None})
    assert metadata.rebuild(b"x") == item
    assert metadata.rebuild(b"y") is None


def test_a_small_order_owner_is_never_the_verified_one() -> None:
    forged = DataItem(4, b"\1" + bytes(63), b"\1" + bytes(31), b"", b"", (), b"evil")
    metadata = ItemMetadata.parse(forged.id, metadata_of(forged))
    assert metadata.rebuild(b"evil") is None


# -- the cache ----------------------------------------------------------------------------------------


def test_the_cache_serves_without_a_network_and_is_verified(node: RunningNode, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with client(node.url, cache=folder) as online:
        online.upload(ITEM)
    with client(closed_port(), cache=folder) as offline:
        assert offline.get(ITEM.id, sha256=ITEM.sha256, max_bytes=10) == ITEM.data
        artifact = offline.fetch_verified(ITEM.id, sha256=ITEM.sha256, max_bytes=10)
        assert not artifact.signature_checked
        ContentCache(folder).path(ITEM.sha256).write_bytes(b"tampered")
        with pytest.raises(NetworkUnreachable):
            offline.get(ITEM.id, sha256=ITEM.sha256, max_bytes=10)
    with client(node.url, cache=folder) as online:
        assert online.get(ITEM.id, sha256=ITEM.sha256, max_bytes=10) == ITEM.data
    assert ContentCache(folder).get(ITEM.sha256, 10) == ITEM.data
    assert ContentCache(folder).get(ITEM.sha256, 9) is None
    assert [path.name for path in folder.rglob("*") if path.is_file()] == [ITEM.sha256.hex()]
