"""Solana's own clients against the local node: they send, confirm, listen and read, as on any cluster."""

from __future__ import annotations

from contextlib import closing

from solders.keypair import Keypair

from chain.indexer.watch import websocket_url
from chain.localnet.server import Server
from chain.network.rpc import RpcNetwork
from chain.program import PROGRAM_ID
from chain.program.addresses import Pdas
from chain.program.instructions import INSTRUCTIONS, AddVerifier, Initialize
from tests.peers.node import ask


def test_web3_confirms_listens_and_uses_lookup_tables_and_nonces(node: Server) -> None:
    out = ask("web3.mjs", {"url": node.url})
    insufficient = {"InstructionError": [0, {"Custom": 1}]}
    assert out == {
        "airdrop": None,
        "heard": {"account": [10**9], "program": [10**9], "logs": [[None, 2]]},
        "failed": insufficient,
        "refused": "SendTransactionError",
        "table": [out["bob"]],
        "looked": None,
        "source": "lookupTable",
        "parsed": 2,
        "advanced": True,
        "again": "Transaction simulation failed: Blockhash not found",
        "balance": 10**9 + 1 + 2 + 3,
        "bob": out["bob"],
    }


def test_spl_token_issues_moves_and_wraps(node: Server) -> None:
    out = ask("tokens.mjs", {"url": node.url})
    assert (out.pop("wrapped"), out.pop("closed")) == (10**9, True)
    assert len(out) == 2  # programs
    for told in out.values():
        assert told == {
            "amount": 10_345,
            "delegated": "3",
            "supply": "118.45",
            "largest": ["10345", "1500"],
            "balances": ["10345", "2000"],
        }


def test_anchor_calls_the_program(node: Server) -> None:
    verifier, pdas = Keypair().pubkey(), Pdas(PROGRAM_ID)
    named = {INSTRUCTIONS[kind].name: list(INSTRUCTIONS[kind].discriminator) for kind in (Initialize, AddVerifier)}
    out = ask(
        "anchor.mjs",
        {
            "url": node.url,
            "program": str(PROGRAM_ID),
            "config": str(pdas.config()),
            "verifier": str(verifier),
            "entry": str(pdas.verifier_entry(verifier)),
            "discriminators": named,
        },
    )
    with closing(RpcNetwork(node.url, name="node")) as network:
        assert network.account(pdas.verifier_entry(verifier)) is not None
    assert out["third"] == "SendTransactionError"
    assert out["simulated"] is True


def test_kit_confirms_by_its_factories(node: Server) -> None:
    out = ask("kit.mjs", {"url": node.url, "events": websocket_url(node.url)})
    assert out == {"balance": 10**9 + 5, "parsed": "transfer", "refused": True}
