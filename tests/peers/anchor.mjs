// Anchor's client: `.rpc()` on the OpenResearch program, by an IDL of two of its instructions.
import anchor from "@coral-xyz/anchor";
import { answer, question } from "./talk.mjs";

const { url, program, config, discriminators, entry } = question;
const { Connection, Keypair, PublicKey, LAMPORTS_PER_SOL } = anchor.web3;
const connection = new Connection(url, "confirmed");
const wallet = new anchor.Wallet(Keypair.generate());
const provider = new anchor.AnchorProvider(connection, wallet, { commitment: "confirmed" });
const signature = await connection.requestAirdrop(wallet.publicKey, 10 * LAMPORTS_PER_SOL);
await connection.confirmTransaction({ signature, ...(await connection.getLatestBlockhash()) });

const system = { name: "system_program", address: "11111111111111111111111111111111" };
const authority = { name: "authority", writable: true, signer: true };
const idl = {
  address: program,
  metadata: { name: "openresearch", version: "0.1.0", spec: "0.1.0" },
  instructions: [
    { name: "initialize", discriminator: discriminators.initialize, args: [],
      accounts: [authority, { name: "config", writable: true }, system] },
    { name: "add_verifier", discriminator: discriminators.add_verifier, args: [{ name: "verifier", type: "pubkey" }],
      accounts: [authority, { name: "config", writable: true }, { name: "verifier_entry", writable: true }, system] },
  ],
};
const { methods } = new anchor.Program(idl, provider);
const accounts = { authority: wallet.publicKey, config: new PublicKey(config) };
const out = { first: await methods.initialize().accounts(accounts).rpc() };
const verifier = new PublicKey(question.verifier);
const added = methods.addVerifier(verifier).accounts({ ...accounts, verifierEntry: new PublicKey(entry) });
out.second = await added.rpc();
out.third = await methods.initialize().accounts(accounts).rpc().catch((error) => error.constructor.name);
out.simulated = (await added.simulate().catch((error) => error.simulationResponse)).err !== null;
answer(out);
