// @solana/kit: transactions sent and confirmed by its factories, over its own subscriptions.
import * as kit from "@solana/kit";
import { getTransferSolInstruction } from "@solana-program/system";
import { answer, question } from "./talk.mjs";

const rpc = kit.createSolanaRpc(question.url);
const rpcSubscriptions = kit.createSolanaRpcSubscriptions(question.events);
const sendAndConfirm = kit.sendAndConfirmTransactionFactory({ rpc, rpcSubscriptions });
const airdrop = kit.airdropFactory({ rpc, rpcSubscriptions });

const alice = await kit.generateKeyPairSigner();
const bob = (await kit.generateKeyPairSigner()).address;
await airdrop({ commitment: "confirmed", lamports: kit.lamports(5_000_000_000n), recipientAddress: alice.address });

const transfer = async (amount) => {
  const { value: blockhash } = await rpc.getLatestBlockhash().send();
  const message = kit.pipe(
    kit.createTransactionMessage({ version: 0 }),
    (tx) => kit.setTransactionMessageFeePayerSigner(alice, tx),
    (tx) => kit.setTransactionMessageLifetimeUsingBlockhash(blockhash, tx),
    (tx) => kit.appendTransactionMessageInstruction(
      getTransferSolInstruction({ source: alice, destination: bob, amount }), tx),
  );
  return kit.signTransactionMessageWithSigners(message);
};
const sent = await transfer(1_000_000_000n);
await sendAndConfirm(sent, { commitment: "confirmed" });
await sendAndConfirm(await transfer(5n), { commitment: "finalized" });
const out = { balance: Number((await rpc.getBalance(bob).send()).value) };
const landed = await rpc.getTransaction(kit.getSignatureFromTransaction(sent),
  { encoding: "jsonParsed", maxSupportedTransactionVersion: 0 }).send();
out.parsed = landed.transaction.message.instructions[0].parsed.type;
out.refused = await sendAndConfirm(await transfer(10_000_000_000n), { commitment: "confirmed" })
  .catch((error) => kit.isSolanaError(error));
answer(out);
