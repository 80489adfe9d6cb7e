"""Irys's own JavaScript client against our node, and each side's data items through the other's parser.

Runs where Node is present and the packages are: in the folder IRYS_JS_MODULES (a node_modules), or installed
by npm into pytest's cache, as `js/package-lock.json` pins them. Skipped by name otherwise.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from solders.keypair import Keypair

from chain.irys.accounts import Tariff
from chain.irys.client import Irys
from chain.irys.dataitem import ED25519, SOLANA, DataItem, ItemId
from chain.irys.node import serve
from chain.network.embedded import EmbeddedNetwork
from tests.chain.networks import pay
from tests.support import optional

LOCKED = Path(__file__).parent / "js"  # package.json and package-lock.json

SCRIPT = """
const { Uploader } = require('@irys/upload');
const { Solana } = require('@irys/upload-solana');
const { DataItem } = require('@irys/bundles');
const bs58 = require('bs58');
const { url, paidUrl, secret, items, transaction, deposit } = JSON.parse(require('fs').readFileSync(0));

async function main() {
  const irys = await Uploader(Solana).withWallet(bs58.encode(Buffer.from(secret)))
    .bundlerUrl(url).withRpc('http://127.0.0.1:1').build();
  const out = { ours: [] };
  for (const hex of items) {
    const item = new DataItem(Buffer.from(hex, 'hex'));
    out.ours.push({ id: item.id, valid: await DataItem.verify(item.getRaw()), tags: item.tags });
  }
  out.price = (await irys.getPrice(1000)).toString();
  out.balance = (await irys.getLoadedBalance()).toString();
  out.funded = (await irys.funder.submitTransaction(transaction)).status;
  const tags = [{ name: 'Content-Type', value: 'text/plain' }, { name: 'naïve', value: '日本' }];
  const simple = await irys.upload('hello from js', { tags });
  out.simple = { id: simple.id, verified: await simple.verify() };

  const tx = irys.createTransaction(Buffer.alloc(5000, 7));
  await tx.sign();
  out.transaction = { id: (await tx.upload()).id, signed: tx.id };
  out.again = await tx.upload().catch((error) => error.message);
  const bad = irys.createTransaction('x');
  await bad.sign();
  bad.getRaw()[bad.getRaw().length - 1] ^= 1;
  out.bad = await bad.upload().catch((error) => error.message);

  const data = Buffer.alloc(1300000, 9);
  const uploader = () => irys.uploader.chunkedUploader.setChunkSize(500000);
  const chunked = (await uploader().uploadData(data)).data;
  out.chunked = { id: chunked.id, verified: await irys.verifyReceipt(chunked) };
  const large = irys.createTransaction(data);
  await large.sign();
  const { id } = (await irys.api.get('/chunks/solana/-1/-1')).data;
  await irys.api.post(`/chunks/solana/${id}/0`, large.getRaw().subarray(0, 500000));
  const resumed = await uploader().setResumeData(id).uploadTransaction(large);
  out.resumed = { id: resumed.data.id, signed: large.id };

  const paying = await Uploader(Solana).withWallet(bs58.encode(Buffer.from(secret)))
    .bundlerUrl(paidUrl).withRpc('http://127.0.0.1:1').build();
  const costly = paying.createTransaction(Buffer.alloc(3000, 8));
  await costly.sign();
  out.cost = (await paying.getPrice(costly.getRaw().length)).toString();
  out.unpaid = await costly.upload().catch((error) => error.message);
  out.deposited = (await paying.funder.submitTransaction(deposit)).status;
  out.deposit = (await paying.getLoadedBalance()).toString();
  out.paid = { id: (await costly.upload()).id, signed: costly.id };
  out.left = (await paying.getLoadedBalance()).toString();
  console.log(JSON.stringify(out));
}
main().catch((error) => { console.error(error); process.exit(1); });
"""


@pytest.fixture(scope="module")
def modules(request: pytest.FixtureRequest) -> Path:
    optional(shutil.which("node") is not None, "Node.js (nodejs.org)")
    given = os.environ.get("IRYS_JS_MODULES")
    if given:
        return Path(given)
    cache: Any = getattr(request.config, "cache", None)
    named = f"npm, or IRYS_JS_MODULES naming a node_modules of {LOCKED / 'package-lock.json'}"
    optional(shutil.which("npm") is not None and cache is not None, named)
    locked = (LOCKED / "package-lock.json").read_bytes()
    folder = Path(cache.mkdir("irys-js-" + sha256(locked).hexdigest()[:12]))
    if not (folder / "complete").exists():
        shutil.copytree(LOCKED, folder, dirs_exist_ok=True)
        install = ("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-timeout=10000")
        try:
            subprocess.run([*install, "--fetch-retries=0"], cwd=folder, capture_output=True, timeout=120, check=True)
        except (subprocess.SubprocessError, OSError) as error:
            optional(False, f"an npm that installs the packages of {LOCKED} ({error})")
        (folder / "complete").touch()
    return folder / "node_modules"


def test_the_official_client_uploads_to_our_node(modules: Path, tmp_path: Path) -> None:
    wallet = Keypair()
    ours = [
        DataItem.sign(wallet, b"hello irys"),
        DataItem.sign(wallet, b"hello irys", signature_type=ED25519),
        DataItem.sign(wallet, b"x" * 3000, [("a", "b" * 100), ("é", "日本" * 20)] * 3, anchor=bytes(range(32))),
        DataItem.sign(wallet, b"", [("tag", "value")] * 128, target=bytes(range(1, 33))),
    ]
    script = tmp_path / "client.cjs"
    script.write_text(SCRIPT)
    embedded = EmbeddedNetwork(tmp_path / "home")
    embedded.airdrop(wallet.pubkey(), 10**9)
    paid = serve(tmp_path / "store", tariff=Tariff(2, 1_000), network=embedded)
    transfer = pay(wallet, paid.node.deposit_address, 10_000, embedded.latest_blockhash().hash)
    with serve(tmp_path / "store") as node, paid, Irys.at(node.url) as irys:
        question = {
            "url": node.url,
            "paidUrl": paid.url,
            "deposit": str(embedded.send(transfer)),
            "secret": list(bytes(wallet)),
            "items": [item.encode().hex() for item in ours],
            "transaction": str(wallet.sign_message(b"a deposit")),
        }
        run = subprocess.run(
            ["node", str(script)],
            input=json.dumps(question), capture_output=True, text=True, timeout=120,
            env={**os.environ, "NODE_PATH": str(modules)},
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        out = json.loads(run.stdout)

        for item, seen in zip(ours, out["ours"], strict=True):
            assert (seen["id"], seen["valid"]) == (str(item.id), True)
            assert tuple((tag["name"], tag["value"]) for tag in seen["tags"]) == item.tags
        assert (out["price"], out["funded"]) == ("0", 200)
        assert int(out["balance"]) > 10**9
        assert out["simple"]["verified"] is True
        assert out["chunked"]["verified"] is True
        assert out["transaction"]["id"] == out["transaction"]["signed"]
        assert out["resumed"]["id"] == out["resumed"]["signed"]
        assert out["again"] == "Already received"
        assert "400" in out["bad"]

        assert "402" in out["unpaid"]
        assert (out["deposited"], out["deposit"]) == (200, "10000")
        assert out["paid"]["id"] == out["paid"]["signed"]
        assert int(out["left"]) == 10_000 - int(out["cost"]) > 0

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
