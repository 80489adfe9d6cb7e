"""What pages and the official clients ask of our node's gateway: folders, searches, byte ranges, other origins."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from solders.keypair import Keypair

from chain.irys.client import Irys
from chain.irys.dataitem import DataItem, base64url
from chain.irys.manifest import resolve
from chain.irys.node import RunningNode
from chain.irys.ranges import Unsatisfiable, byte_range

KEY = Keypair.from_seed(bytes(range(32)))
TAGS = (("Content-Type", "text/plain"), ("App-Name", "test"))
ITEM = DataItem.sign(KEY, b"hello irys", TAGS)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", None),
        ("bytes=0-3", range(4)),
        ("bytes=4-", range(4, 10)),
        ("bytes=-3", range(7, 10)),
        ("bytes=-30", range(10)),
        ("bytes=8-100", range(8, 10)),
        ("bytes=5-4", None),
        ("bytes=0-1,4-5", None),
        ("bytes=-", None),
        ("lines=0-1", None),
    ],
)
def test_byte_ranges(header: str, expected: range | None) -> None:
    assert byte_range(header, 10) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-12", "bytes=-0"])
def test_ranges_behind_the_end(header: str) -> None:
    with pytest.raises(Unsatisfiable):
        byte_range(header, 10)


def test_a_range_over_http(node: RunningNode, irys: Irys) -> None:
    irys.upload(ITEM)
    part = httpx.get(f"{node.url}/{ITEM.id}", headers={"Range": "bytes=6-"})
    assert (part.status_code, part.text, part.headers["content-range"]) == (206, "irys", "bytes 6-9/10")
    beyond = httpx.get(f"{node.url}/{ITEM.id}", headers={"Range": "bytes=10-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */10")


MANIFEST = "application/x.irys-manifest+json"


@pytest.mark.parametrize(
    ("kind", "data", "path", "expected"),
    [
        (MANIFEST, {"manifest": "irys/paths", "paths": {"a/b": {"id": "x"}}}, "a/b", "x"),
        (MANIFEST, {"manifest": "irys/paths", "paths": {"a/b": {"id": "x"}}}, "a", None),
        (MANIFEST, {"manifest": "irys/paths", "paths": {"a": {"id": "x"}}, "index": {"path": "a"}}, "", "x"),
        (MANIFEST, {"manifest": "irys/paths", "paths": {"a": {"id": "x"}}}, "", None),
        (MANIFEST, {"manifest": "irys/paths", "paths": {"a": {"id": 5}}, "index": "a"}, "a", None),
        (MANIFEST, {"manifest": "irys/paths", "paths": ["a"]}, "a", None),
        (MANIFEST, {"manifest": "other", "paths": {"a": {"id": "x"}}}, "a", None),
        (MANIFEST, "[" * 100_000, "a", None),
        ("text/plain", {"manifest": "irys/paths", "paths": {"a": {"id": "x"}}}, "a", None),
    ],
)
def test_folders(kind: str, data: object, path: str, expected: str | None) -> None:
    raw = data if isinstance(data, str) else json.dumps(data)
    assert resolve(DataItem.sign(KEY, raw.encode(), [("Content-Type", kind)]), path) == expected


def ask_graphql(node: RunningNode, query: str, **variables: object) -> Any:
    return httpx.post(f"{node.url}/graphql", json={"query": query, "variables": variables}).json()


def test_items_are_found_by_tag_owner_and_id_page_by_page(node: RunningNode, irys: Irys) -> None:
    items = [DataItem.sign(KEY, bytes([n]), [("n", str(n)), ("kind", "number")]) for n in range(5)]
    for item in items:
        irys.upload(item)
    irys.upload(ITEM)
    search = """query ($tags: [TagFilter!], $after: String, $order: Order = ASC) {
      transactions(tags: $tags, first: 3, after: $after, order: $order) {
        edges { node { id tags { name value } receipt { version } } cursor } pageInfo { hasNextPage endCursor } } }"""
    numbers = [{"name": "kind", "values": ["number", "letter"]}]
    first = ask_graphql(node, search, tags=numbers)["data"]["transactions"]
    rest = ask_graphql(node, search, tags=numbers, after=first["pageInfo"]["endCursor"])["data"]["transactions"]
    assert (first["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"]) == (True, False)
    found = [edge["node"]["id"] for edge in first["edges"] + rest["edges"]]
    assert sorted(found) == sorted(str(item.id) for item in items)
    assert first["edges"][0]["node"]["receipt"] == {"version": "1.0.0"}
    back = ask_graphql(node, search, tags=numbers, order="DESC")["data"]["transactions"]["edges"]
    assert [edge["cursor"] for edge in back] == found[:1:-1]

    def one(arguments: str) -> list[str]:
        answer = ask_graphql(node, f"{{ transactions({arguments}) {{ edges {{ node {{ id }} }} }} }}")
        return [edge["node"]["id"] for edge in answer["data"]["transactions"]["edges"]]

    assert one(f'ids: ["{ITEM.id}"]') == one(f'ids: ["{base64url(ITEM.id)}"]') == [str(ITEM.id)]
    assert len(one(f'owners: ["{KEY.pubkey()}"], token: "solana"')) == 6
    assert one('owners: ["somebody"]') == one('token: "ethereum"') == one("timestamp: {to: 1}") == []
    assert one('tags: [{name: "kind", values: ["number"]}, {name: "n", values: ["3"]}]') == [str(items[3].id)]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"query": 5}', b'{"query": "{", "variables": [1]}', b"[" * 60_000]
)
def test_what_is_no_query_is_refused(node: RunningNode, body: bytes) -> None:
    assert httpx.post(f"{node.url}/graphql", content=body).status_code == 400


def test_a_query_of_something_else_is_an_error(node: RunningNode) -> None:
    assert "Cannot query field" in ask_graphql(node, "{ blocks { id } }")["errors"][0]["message"]


def test_pages_of_this_machine_may_read_and_upload(node: RunningNode) -> None:
    for origin, allowed in (("http://localhost:5173", True), ("http://[::1]", True), ("https://evil.example", False)):
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        preflight = httpx.options(f"{node.url}/tx/solana", headers=asked)
        assert preflight.status_code == 200
        answer = httpx.get(f"{node.url}/info", headers={"Origin": origin})
        for reply in (preflight, answer):
            assert reply.headers.get("access-control-allow-origin") == (origin if allowed else None)
