"""Irys's own JavaScript clients against our node, and each side's data items through the other's parser."""

from __future__ import annotations

from pathlib import Path

from solders.keypair import Keypair

from chain.irys.accounts import Tariff
from chain.irys.client import Irys
from chain.irys.dataitem import ED25519, SOLANA, DataItem, ItemId
from chain.irys.node import serve
from chain.localnet.server import serve as serve_rpc
from chain.network.embedded import EmbeddedNetwork
from tests.peers.node import ask


def test_the_official_clients_upload_pay_and_search(tmp_path: Path) -> None:
    wallet = Keypair()
    ours = [
        DataItem.sign(wallet, b"hello irys"),
        DataItem.sign(wallet, b"hello irys", signature_type=ED25519),
        DataItem.sign(wallet, b"x" * 3000, [("a", "b" * 100), ("é", "日本" * 20)] * 3, anchor=bytes(range(32))),
        DataItem.sign(wallet, b"", [("tag", "value")] * 128, target=bytes(range(1, 33))),
    ]
    embedded = EmbeddedNetwork(tmp_path / "home")
    embedded.airdrop(wallet.pubkey(), 10**9)
    paid = serve(tmp_path / "store", tariff=Tariff(2, 1_000), network=embedded)
    solana = serve_rpc(embedded, port=0).start()
    with serve(tmp_path / "store") as node, paid, solana, Irys.at(node.url) as irys:
        out = ask(
            "irys.mjs",
            {
                "url": node.url,
                "paidUrl": paid.url,
                "rpc": solana.url,
                "secret": list(bytes(wallet)),
                "items": [item.encode().hex() for item in ours],
            },
        )
        for item, seen in zip(ours, out["ours"], strict=True):
            assert (seen["id"], seen["valid"]) == (str(item.id), True)
            assert tuple((tag["name"], tag["value"]) for tag in seen["tags"]) == item.tags
        assert out["price"] == "0"
        assert int(out["balance"]) > 10**9
        assert out["simple"]["verified"] is True
        assert out["chunked"]["verified"] is True
        assert out["transaction"]["id"] == out["transaction"]["signed"] == out["again"]["id"]
        assert out["receipt"] == {"id": out["transaction"]["id"], "verified": True}
        assert out["resumed"]["id"] == out["resumed"]["signed"]
        assert "400" in out["bad"]

        assert "402" in out["unpaid"]
        assert (out["funded"], out["deposit"]) == ("10000", "10000")
        assert out["paid"]["id"] == out["paid"]["signed"]
        assert int(out["left"]) == 10_000 - int(out["cost"]) > 0

        assert out["index"] == [200, "<p>index</p>", "text/html; charset=utf-8", None, None]
        assert out["file"] == [200, "0123456789", "text/plain; charset=utf-8", None, None]
        assert out["part"] == [206, "234", "text/plain; charset=utf-8", "bytes 2-4/10", "http://localhost:3000"]
        assert out["missing"] == 404
        assert out["found"] == [
            {
                "id": out["simple"]["id"],
                "address": str(wallet.pubkey()),
                "version": "1.0.0",
                "first": {"name": "Content-Type", "value": "text/plain"},
            }
        ]

        for name, size in (
            ("simple", 13),
            ("paid", 3000),
            ("transaction", 5000),
            ("chunked", 1_300_000),
            ("resumed", 1_300_000),
        ):
            theirs = node.node.item(ItemId.from_text(out[name]["id"]))
            assert (theirs.signature_type, theirs.owner) == (SOLANA, bytes(wallet.pubkey()))
            assert DataItem.parse(theirs.encode()) == theirs
            artifact = irys.fetch_verified(
                theirs.id,
                sha256=theirs.sha256,
                owner=theirs.owner,
                max_bytes=2_000_000,
                require_signature=True,
            )
            assert len(artifact.data) == size
    embedded.close()
