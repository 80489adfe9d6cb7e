// @solana/web3.js v1 against a local node: confirming, lookup tables, durable nonces, subscriptions.
import * as web3 from "@solana/web3.js";
import { answer, question } from "./talk.mjs";

const { url } = question;
const connection = new web3.Connection(url, "confirmed");
const alice = web3.Keypair.generate();
const bob = web3.Keypair.generate().publicKey;
const pay = (lamports) => web3.SystemProgram.transfer({ fromPubkey: alice.publicKey, toPubkey: bob, lamports });
const send = (steps, signers = []) =>
  web3.sendAndConfirmTransaction(connection, new web3.Transaction().add(...steps), [alice, ...signers]);
const versioned = async (steps, tables = []) => {
  const { blockhash } = await connection.getLatestBlockhash();
  const message = new web3.TransactionMessage({ payerKey: alice.publicKey, recentBlockhash: blockhash, instructions: steps });
  const tx = new web3.VersionedTransaction(message.compileToV0Message(tables));
  tx.sign([alice]);
  return tx;
};
const until = async (condition) => {
  for (let tries = 0; !condition(); tries += 1) {
    if (tries > 200) throw new Error(`waited in vain: ${condition}`);
    await new Promise((next) => setTimeout(next, 50));
  }
};

const out = {};
const airdrop = await connection.requestAirdrop(alice.publicKey, 10 * web3.LAMPORTS_PER_SOL);
const latest = await connection.getLatestBlockhash();
out.airdrop = (await connection.confirmTransaction({ signature: airdrop, ...latest }, "finalized")).value.err;

const heard = { account: [], program: [], logs: [], slots: 0, roots: 0, signature: [] };
const listening = [
  connection.onAccountChange(bob, (account) => heard.account.push(account.lamports)),
  connection.onProgramAccountChange(web3.SystemProgram.programId, ({ accountId, accountInfo }) => {
    if (accountId.equals(bob)) heard.program.push(accountInfo.lamports);
  }),
  connection.onLogs(bob, ({ err, logs }) => heard.logs.push([err, logs.length])),
];
const slots = connection.onSlotChange(() => (heard.slots += 1));
const roots = connection.onRootChange(() => (heard.roots += 1));
await until(() => heard.slots > 0 && heard.roots > 0);
await send([pay(1_000_000_000)]);
await until(() => heard.account.length && heard.program.length && heard.logs.length);
await Promise.all([
  connection.removeAccountChangeListener(listening[0]),
  connection.removeProgramAccountChangeListener(listening[1]),
  connection.removeOnLogsListener(listening[2]),
  connection.removeSlotChangeListener(slots),
  connection.removeRootChangeListener(roots),
]);
await send([pay(1)]); // nobody listens any more
out.heard = { account: heard.account, program: heard.program, logs: heard.logs };

const failing = await versioned([pay(10_000 * web3.LAMPORTS_PER_SOL)]);
const failed = await connection.sendTransaction(failing, { skipPreflight: true });
out.failed = (await connection.confirmTransaction({ signature: failed, ...latest })).value.err;
out.refused = await connection.sendTransaction(failing).catch((error) => error.constructor.name);

const slot = await connection.getSlot("finalized");
const [make, table] = web3.AddressLookupTableProgram.createLookupTable({
  authority: alice.publicKey, payer: alice.publicKey, recentSlot: slot,
});
const fill = web3.AddressLookupTableProgram.extendLookupTable({
  lookupTable: table, authority: alice.publicKey, payer: alice.publicKey, addresses: [bob],
});
await send([make, fill]);
const { value: found } = await connection.getAddressLookupTable(table);
out.table = found.state.addresses.map(String);
for (let n = 0; n < 100 && (await connection.getSlot()) <= found.state.lastExtendedSlot; n++) {
  await new Promise((resolve) => setTimeout(resolve, 200)); // a table's new addresses are of use from the next slot on
}
const looked = await versioned([pay(2)], [found]);
const { signature } = { signature: await connection.sendTransaction(looked) };
out.looked = (await connection.confirmTransaction({ signature, ...latest })).value.err;
const parsed = await connection.getParsedTransaction(signature, { maxSupportedTransactionVersion: 0 });
out.source = parsed.transaction.message.accountKeys.find(({ pubkey }) => pubkey.equals(bob)).source;
out.parsed = parsed.transaction.message.instructions[0].parsed.info.lamports;

const nonce = web3.Keypair.generate();
const rent = await connection.getMinimumBalanceForRentExemption(web3.NONCE_ACCOUNT_LENGTH);
const begin = web3.SystemProgram.createNonceAccount({
  fromPubkey: alice.publicKey, noncePubkey: nonce.publicKey, authorizedPubkey: alice.publicKey, lamports: rent,
});
await send([begin], [nonce]);
const held = async () => web3.NonceAccount.fromAccountData((await connection.getAccountInfo(nonce.publicKey)).data).nonce;
const value = await held();
const offline = new web3.Transaction({
  feePayer: alice.publicKey,
  nonceInfo: {
    nonce: value,
    nonceInstruction: web3.SystemProgram.nonceAdvance({ noncePubkey: nonce.publicKey, authorizedPubkey: alice.publicKey }),
  },
}).add(pay(3));
await web3.sendAndConfirmTransaction(connection, offline, [alice]);
out.advanced = (await held()) !== value;
out.again = await connection.sendRawTransaction(offline.serialize()).catch((error) => error.transactionMessage);

out.balance = await connection.getBalance(bob);
out.bob = String(bob);
answer(out);
