"""The same events on any Solana node, by JSON-RPC alone: what the differential test then asks both nodes about.

Keys are fixed, so two nodes differ in slots, times, hashes and signatures only.
"""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import httpx
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import (
    AdvanceNonceAccountParams,
    CreateAccountParams,
    CreateLookupTableParams,
    ExtendLookupTableParams,
    InitializeNonceAccountParams,
    TransferParams,
    advance_nonce_account,
    create_account,
    create_lookup_table,
    extend_lookup_table,
    initialize_nonce_account,
    transfer,
)
from solders.transaction import VersionedTransaction
from spl.token import instructions as token
from spl.token import models
from websockets.sync.client import connect

from chain.indexer.watch import websocket_url
from tests.chain.localnet import requests
from tests.chain.networks import MEMO, SOL

CONFIRM_SECONDS = 60.0
TOKEN = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")


NOTIFICATIONS = {f"{kind}Notification" for kind in ("slot", "root", "signature", "account", "program", "logs")}
SYSTEM = Pubkey.from_string("11111111111111111111111111111111")


def key(name: str) -> Keypair:
    """The same key pair for a name, always."""
    return Keypair.from_seed(name.encode().ljust(32, b"."))


class Chain:
    """A node's JSON-RPC."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(trust_env=False, timeout=30)

    def ask(self, method: str, params: object) -> dict[str, Any]:
        """The whole answer to one request."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer: dict[str, Any] = self._http.post(self.url, json=request).json()
        return answer

    def result(self, method: str, *params: object) -> Any:
        """The result; AssertionError where there is none."""
        answer = self.ask(method, list(params))
        assert "result" in answer, (method, params, answer)
        return answer["result"]

    def confirmed(self, signature: str, commitment: str = "confirmed") -> dict[str, Any]:
        """The status of a transaction once it is that safe."""
        deadline = time.monotonic() + CONFIRM_SECONDS
        while time.monotonic() < deadline:
            status: dict[str, Any] | None = self.result("getSignatureStatuses", [signature])["value"][0]
            if status is not None and status["confirmationStatus"] in (commitment, "finalized"):
                return status
            time.sleep(0.05)
        raise AssertionError(f"{signature} was not {commitment} within {CONFIRM_SECONDS} s")

    def reaches(self, slot: int) -> None:
        """Wait for a slot."""
        deadline = time.monotonic() + CONFIRM_SECONDS
        while self.result("getSlot", {"commitment": "confirmed"}) <= slot:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def blockhash(self) -> Hash:
        """One to sign with."""
        found = self.result("getLatestBlockhash", {"commitment": "confirmed"})
        return Hash.from_string(found["value"]["blockhash"])

    def send(
        self,
        steps: list[Instruction],
        payer: Keypair,
        *signers: Keypair,
        tables: list[AddressLookupTableAccount] | None = None,
        blockhash: Hash | None = None,
        preflight: bool = True,
    ) -> str:
        """A signed transaction, confirmed."""
        message = MessageV0.try_compile(payer.pubkey(), steps, tables or [], blockhash or self.blockhash())
        tx = VersionedTransaction(message, [payer, *signers])
        config = {"encoding": "base64", "skipPreflight": not preflight, "preflightCommitment": "confirmed"}
        signature: str = self.result("sendTransaction", base64.b64encode(bytes(tx)).decode(), config)
        self.confirmed(signature)
        return signature


def play(chain: Chain) -> dict[str, str | int]:
    """Make it all happen and finalize it; the names that requests use, with what they stand for.

    A transaction's name is its signature, `<name>_slot` where it landed.
    """
    alice, bob, mint, nonce = key("alice"), key("bob"), key("mint"), key("nonce")
    me, him, money = alice.pubkey(), bob.pubkey(), mint.pubkey()
    mine, his = (token.get_associated_token_address(owner, money) for owner in (me, him))
    pay = transfer(TransferParams(from_pubkey=me, to_pubkey=him, lamports=SOL))
    done = {}

    done["airdrop"] = chain.result("requestAirdrop", str(me), 100 * SOL)
    chain.confirmed(done["airdrop"])
    memo = Instruction(MEMO, "grüße".encode(), [AccountMeta(me, True, False)])
    done["paid"] = chain.send([pay, memo], alice)
    too_much = transfer(TransferParams(from_pubkey=me, to_pubkey=him, lamports=10_000 * SOL))
    done["failed"] = chain.send([too_much], alice, preflight=False)

    rent = chain.result("getMinimumBalanceForRentExemption", 82)
    done["issued"] = chain.send(
        [
            create_account(CreateAccountParams(from_pubkey=me, to_pubkey=money, lamports=rent, space=82, owner=TOKEN)),
            token.initialize_mint2(
                models.InitializeMint2Params(decimals=2, program_id=TOKEN, mint=money, mint_authority=me)
            ),
            token.create_associated_token_account(me, me, money),
            token.create_idempotent_associated_token_account(me, him, money),
            token.mint_to(
                models.MintToParams(program_id=TOKEN, mint=money, dest=mine, mint_authority=me, amount=12_345)
            ),
        ],
        alice,
        mint,
    )
    done["moved"] = chain.send(
        [
            token.transfer_checked(
                models.TransferCheckedParams(
                    program_id=TOKEN, source=mine, mint=money, dest=his, owner=me, amount=2_000, decimals=2
                )
            ),
            token.transfer(models.TransferParams(program_id=TOKEN, source=mine, dest=his, owner=me, amount=45)),
            token.approve(models.ApproveParams(program_id=TOKEN, source=mine, delegate=him, owner=me, amount=300)),
        ],
        alice,
    )

    slot = chain.result("getSlot", {"commitment": "finalized"})
    make, table = create_lookup_table(CreateLookupTableParams(authority_address=me, payer_address=me, recent_slot=slot))
    listed = [him, mine, his]
    fill = extend_lookup_table(
        ExtendLookupTableParams(
            payer_address=me, lookup_table_address=table, authority_address=me, new_addresses=listed
        )
    )
    done["tabled"] = chain.send([make, fill], alice)
    usable = chain.confirmed(done["tabled"])["slot"] + 1
    chain.reaches(usable)
    done["looked"] = chain.send([pay], alice, tables=[AddressLookupTableAccount(table, listed)])

    rent = chain.result("getMinimumBalanceForRentExemption", 80)
    done["begun"] = chain.send(
        [
            create_account(
                CreateAccountParams(from_pubkey=me, to_pubkey=nonce.pubkey(), lamports=rent, space=80, owner=SYSTEM)
            ),
            initialize_nonce_account(InitializeNonceAccountParams(nonce_pubkey=nonce.pubkey(), authority=me)),
        ],
        alice,
        nonce,
    )
    state = chain.result("getAccountInfo", str(nonce.pubkey()), {"encoding": "base64", "commitment": "confirmed"})
    durable = Hash.from_bytes(base64.b64decode(state["value"]["data"][0])[40:72])
    advance = advance_nonce_account(AdvanceNonceAccountParams(nonce_pubkey=nonce.pubkey(), authorized_pubkey=me))
    done["offline"] = chain.send([advance, pay], alice, blockhash=durable)
    chain.confirmed(done["offline"], "finalized")
    named = {"alice": me, "bob": him, "mint": money, "mine": mine, "his": his, "table": table, "nonce": nonce.pubkey()}
    slots = {f"{name}_slot": chain.confirmed(signature)["slot"] for name, signature in done.items()}
    return done | slots | {name: str(address) for name, address in named.items()}


def answers(chain: Chain) -> dict[str, Any]:
    """Everything that the differential test asks a node, with the answers' canonical forms."""
    names = play(chain) | ready(chain)
    told = {
        requests.name_of(method, params): requests.canonical(
            method, chain.ask(method, requests.filled(params, names)), names
        )
        for method, params in requests.REQUESTS
    }
    return told | listen(chain, names)


def listen(chain: Chain, names: requests.Names) -> dict[str, Any]:
    """The answers to subscriptions, and what they then tell of one transfer."""
    alice, bob = key("alice"), key("bob").pubkey()
    pay = transfer(TransferParams(from_pubkey=alice.pubkey(), to_pubkey=bob, lamports=SOL))
    tx = VersionedTransaction(MessageV0.try_compile(alice.pubkey(), [pay], [], chain.blockhash()), [alice])
    names = {**names, "next": str(tx.signatures[0])}
    told: dict[str, Any] = {}
    news: dict[str, Any] = {}

    def hear(message: dict[str, Any]) -> None:
        kind, result = message["method"].removesuffix("Notification"), message["params"]["result"]
        if kind != "program" or result["value"]["pubkey"] == str(bob):
            news.setdefault(f"{kind}Notification", requests.noticed(kind, result, names))

    with connect(websocket_url(chain.url), proxy=None) as client:
        for number, (method, params) in enumerate(requests.SUBSCRIPTIONS):
            asked = requests.filled(params, names)
            client.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": asked}))
            while (answer := json.loads(client.recv(timeout=CONFIRM_SECONDS))).get("id") != number:
                hear(answer)
            told[requests.name_of(method, params)] = requests.canonical(method, answer, names)
        config = {"encoding": "base64", "preflightCommitment": "confirmed"}
        chain.result("sendTransaction", base64.b64encode(bytes(tx)).decode(), config)
        deadline = time.monotonic() + CONFIRM_SECONDS
        while not set(news) >= NOTIFICATIONS:
            assert time.monotonic() < deadline, sorted(news)
            hear(json.loads(client.recv(timeout=CONFIRM_SECONDS)))
    return told | {kind: news[kind] for kind in NOTIFICATIONS}


def ready(chain: Chain) -> dict[str, str]:
    """Transactions to send or simulate, in base64, each by its name."""
    alice, bob = key("alice"), key("bob").pubkey()
    mint = key("mint").pubkey()
    mine, his = (token.get_associated_token_address(owner, mint) for owner in (alice.pubkey(), bob))
    fresh, stale = Hash.from_string(chain.result("getLatestBlockhash")["value"]["blockhash"]), Hash.default()

    def signed(step: Instruction, blockhash: Hash) -> VersionedTransaction:
        return VersionedTransaction(MessageV0.try_compile(alice.pubkey(), [step], [], blockhash), [alice])

    pay, much = (
        transfer(TransferParams(from_pubkey=alice.pubkey(), to_pubkey=his, lamports=lamports))
        for lamports in (7_000_000, 10_000 * SOL)
    )
    move = token.transfer(
        models.TransferParams(program_id=TOKEN, source=mine, dest=his, owner=alice.pubkey(), amount=5)
    )
    paid = signed(pay, fresh)
    made = {
        "fresh": paid,
        "stale": signed(pay, stale),
        "overdrawn": signed(much, fresh),
        "forged": VersionedTransaction.populate(paid.message, [Signature.new_unique()]),
        "tokens": signed(move, fresh),
    }
    wires = {name: bytes(tx) for name, tx in made.items()}
    wires |= {f"{name}_message": to_bytes_versioned(made[name].message) for name in ("fresh", "stale")}
    return {name: base64.b64encode(wire).decode() for name, wire in wires.items()}
