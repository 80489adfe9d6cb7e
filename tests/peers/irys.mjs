// The official Irys clients against our node: uploads whole and in pieces, receipts, paying, folders, searches.
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as bundles from "@irys/bundles";
import * as query from "@irys/query";
import * as upload from "@irys/upload";
import * as solana from "@irys/upload-solana";
import bs58 from "bs58";
import { answer, question } from "./talk.mjs";

const { url, paidUrl, rpc, secret, items } = question;
const client = (node) =>
  upload.Uploader(solana.Solana).withWallet(bs58.encode(Buffer.from(secret))).bundlerUrl(node).withRpc(rpc).build();
const irys = await client(url);
const out = { ours: [] };
for (const hex of items) {
  const item = new bundles.DataItem(Buffer.from(hex, "hex"));
  out.ours.push({ id: item.id, valid: await bundles.DataItem.verify(item.getRaw()), tags: item.tags });
}
out.price = (await irys.getPrice(1000)).toString();
out.balance = (await irys.getLoadedBalance()).toString();
const tags = [{ name: "Content-Type", value: "text/plain" }, { name: "naïve", value: "日本" }];
const simple = await irys.upload("hello from js", { tags });
out.simple = { id: simple.id, verified: await simple.verify() };

const tx = irys.createTransaction(Buffer.alloc(5000, 7));
await tx.sign();
out.transaction = { id: (await tx.upload()).id, signed: tx.id };
out.again = { id: (await tx.upload()).id }; // the same once more
const receipt = await irys.utils.getReceipt(tx.id);
out.receipt = { id: receipt.id, verified: await receipt.verify() };
const bad = irys.createTransaction("x");
await bad.sign();
bad.getRaw()[bad.getRaw().length - 1] ^= 1;
out.bad = await bad.upload().catch((error) => error.message);

const data = Buffer.alloc(1300000, 9);
const uploader = () => irys.uploader.chunkedUploader.setChunkSize(500000);
const chunked = (await uploader().uploadData(data)).data;
out.chunked = { id: chunked.id, verified: await irys.verifyReceipt(chunked) };
const large = irys.createTransaction(data);
await large.sign();
const { id } = (await irys.api.get("/chunks/solana/-1/-1")).data;
await irys.api.post(`/chunks/solana/${id}/0`, large.getRaw().subarray(0, 500000));
const resumed = await uploader().setResumeData(id).uploadTransaction(large);
out.resumed = { id: resumed.data.id, signed: large.id };

const paying = await client(paidUrl);
const costly = paying.createTransaction(Buffer.alloc(3000, 8));
await costly.sign();
out.cost = (await paying.getPrice(costly.getRaw().length)).toString();
out.unpaid = await costly.upload().catch((error) => error.message);
out.funded = (await paying.fund(10_000)).quantity;
out.deposit = (await paying.getLoadedBalance()).toString();
out.paid = { id: (await costly.upload()).id, signed: costly.id };
out.left = (await paying.getLoadedBalance()).toString();

const folder = join(mkdtempSync(join(tmpdir(), "irys-")), "site");
mkdirSync(join(folder, "sub"), { recursive: true });
writeFileSync(join(folder, "index.html"), "<p>index</p>");
writeFileSync(join(folder, "sub", "a file.txt"), "0123456789");
const manifest = await irys.uploadFolder(folder, { indexFile: "index.html", batchSize: 2 });
const get = async (path, headers = {}) => {
  const response = await fetch(`${url}/${path}`, { headers });
  const shown = ["content-type", "content-range", "access-control-allow-origin"].map((name) => response.headers.get(name));
  return [response.status, await response.text(), ...shown];
};
out.index = await get(manifest.id);
out.file = await get(`${manifest.id}/sub/a%20file.txt`);
out.part = await get(`${manifest.id}/sub/a%20file.txt`, { Range: "bytes=2-4", Origin: "http://localhost:3000" });
out.missing = (await get(`${manifest.id}/sub/none`))[0];

const search = new query.Query({ url: new URL("/graphql", url) }).search("irys:transactions");
const found = await search.tags([{ name: "naïve", values: ["日本"] }]).limit(5);
out.found = found.map(({ id, address, receipt, tags: [first] }) => ({ id, address, version: receipt.version, first }));
answer(out);
