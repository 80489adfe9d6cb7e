// @solana/spl-token: a mint, accounts, transfers, an approval, a burn and wrapped SOL.
import * as web3 from "@solana/web3.js";
import * as spl from "@solana/spl-token";
import { answer, question } from "./talk.mjs";

const connection = new web3.Connection(question.url, "confirmed");
const alice = web3.Keypair.generate();
const bob = web3.Keypair.generate();
for (const { publicKey } of [alice, bob]) {
  const signature = await connection.requestAirdrop(publicKey, 10 * web3.LAMPORTS_PER_SOL);
  await connection.confirmTransaction({ signature, ...(await connection.getLatestBlockhash()) });
}
const out = {};
for (const program of [spl.TOKEN_PROGRAM_ID, spl.TOKEN_2022_PROGRAM_ID]) {
  const mint = await spl.createMint(connection, alice, alice.publicKey, null, 2, undefined, undefined, program);
  const of = async (owner) =>
    (await spl.getOrCreateAssociatedTokenAccount(connection, alice, mint, owner, false, undefined, undefined, program)).address;
  const a = await of(alice.publicKey);
  const b = await of(bob.publicKey);
  await spl.mintTo(connection, alice, mint, a, alice, 12345, [], undefined, program);
  const moved = await spl.transferChecked(connection, alice, a, mint, b, alice, 2000, 2, [], undefined, program);
  await spl.approve(connection, alice, a, bob.publicKey, alice, 300, [], undefined, program);
  await spl.burn(connection, bob, b, mint, bob, 500, [], undefined, program);
  const account = await spl.getAccount(connection, a, undefined, program);
  const largest = await connection.getTokenLargestAccounts(mint);
  const delegated = await connection.getParsedTokenAccountsByOwner(alice.publicKey, { mint });
  const { meta } = await connection.getParsedTransaction(moved, { maxSupportedTransactionVersion: 0 });
  out[String(program)] = {
    amount: Number(account.amount),
    delegated: delegated.value[0].account.data.parsed.info.delegatedAmount.uiAmountString,
    supply: (await connection.getTokenSupply(mint)).value.uiAmountString,
    largest: largest.value.map(({ amount }) => amount),
    balances: meta.postTokenBalances.map(({ uiTokenAmount }) => uiTokenAmount.amount).sort(),
  };
}
const wrapped = await spl.createWrappedNativeAccount(connection, alice, alice.publicKey, 1_000_000_000);
out.wrapped = Number((await spl.getAccount(connection, wrapped)).amount);
await spl.closeAccount(connection, alice, wrapped, alice.publicKey, alice);
out.closed = (await connection.getAccountInfo(wrapped)) === null;
answer(out);
