"""The local node over HTTP: our client, solana-py's typed client for every method, and bad requests."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from solana.rpc.async_api import AsyncClient
from solana.rpc.core import RPCException
from solana.rpc.models import DataSliceOpts, MemcmpOpts, TokenAccountOpts, TxOpts
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.rpc.errors import (
    BlockNotAvailableMessage,
    InvalidRequestMessage,
    SendTransactionPreflightFailureMessage,
    UnsupportedTransactionVersionMessage,
)
from solders.rpc.requests import GetBlockHeight, IsBlockhashValid
from solders.rpc.responses import GetBlockHeightResp, IsBlockhashValidResp
from solders.signature import Signature
from solders.system_program import CreateAccountParams, create_account
from solders.token.associated import get_associated_token_address
from solders.token.state import Mint, TokenAccount
from solders.transaction import VersionedTransaction
from solders.transaction_status import TransactionErrorFieldless, TransactionErrorInstructionError

from chain.errors import ChainError, TransactionFailed
from chain.localnet.parameters import base58, from_base58
from chain.localnet.parsed import token_amount
from chain.localnet.server import MAX_BODY, Server, serve
from chain.network.base import CLOCK_SYSVAR, FEE_PER_SIGNATURE, Network, TransactionRejected
from chain.network.embedded import EmbeddedNetwork
from chain.network.opening import connect
from chain.network.rpc import RpcNetwork
from chain.program import PROGRAM_ID
from tests.chain.networks import SOL, memo_image, pay, sign

TOKEN = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
ASSOCIATED = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
SYSTEM = Pubkey.from_string("11111111111111111111111111111111")


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNetwork]:
    embedded = EmbeddedNetwork(tmp_path_factory.mktemp("home"), image=memo_image())
    yield embedded
    embedded.close()


@pytest.fixture(scope="module")
def node(embedded: EmbeddedNetwork) -> Iterator[Server]:
    with serve(embedded, port=0).start() as node:
        yield node


@pytest.fixture(params=["embedded", "rpc"])
def network(request: pytest.FixtureRequest, embedded: EmbeddedNetwork, node: Server) -> Iterator[Network]:
    if request.param == "embedded":
        yield embedded
    else:
        rpc = RpcNetwork(node.url)
        yield rpc
        rpc.close()
        rpc.close()


def ask(node: Server, method: str, *args: object, **kwargs: object) -> Any:
    """Call solana-py's typed client."""

    async def run() -> Any:
        async with AsyncClient(node.url) as client:
            return await getattr(client, method)(*args, **kwargs)

    return asyncio.run(run())


def post(node: Server, body: object) -> Any:
    return httpx.post(node.url, json=body, trust_env=False).json()


def call(node: Server, method: str, *params: object) -> Any:
    return post(node, {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)})


def funded(network: Network, lamports: int = 5 * SOL) -> Keypair:
    keypair = Keypair()
    network.confirm(network.airdrop(keypair.pubkey(), lamports), 1 << 62)
    return keypair


@pytest.fixture(scope="module")
def mint(embedded: EmbeddedNetwork) -> tuple[Keypair, Pubkey, Pubkey]:
    """A mint of two decimals with 12,345 units in its owner's associated account: (owner, mint, account)."""
    owner, mint = funded(embedded), Keypair()
    account = get_associated_token_address(owner.pubkey(), mint.pubkey())
    make = create_account(
        CreateAccountParams(
            from_pubkey=owner.pubkey(),
            to_pubkey=mint.pubkey(),
            lamports=embedded.rent(82),
            space=82,
            owner=TOKEN,
        )
    )
    begin = Instruction(TOKEN, bytes([20, 2, *bytes(owner.pubkey()), 0]), [AccountMeta(mint.pubkey(), False, True)])
    associate = Instruction(
        ASSOCIATED,
        b"\1",
        [
            AccountMeta(owner.pubkey(), True, True),
            AccountMeta(account, False, True),
            AccountMeta(owner.pubkey(), False, False),
            AccountMeta(mint.pubkey(), False, False),
            AccountMeta(SYSTEM, False, False),
            AccountMeta(TOKEN, False, False),
        ],
    )
    issue = Instruction(
        TOKEN,
        b"\7" + (12_345).to_bytes(8, "little"),
        [
            AccountMeta(mint.pubkey(), False, True),
            AccountMeta(account, False, True),
            AccountMeta(owner.pubkey(), True, False),
        ],
    )
    tx = sign(owner, [make, begin, associate, issue], embedded.latest_blockhash().hash, mint)
    embedded.send(tx)
    return owner, mint.pubkey(), account


# One interface, two networks.


def test_a_transaction_from_blockhash_to_history(network: Network) -> None:
    alice, bob = funded(network), Keypair().pubkey()
    blockhash = network.latest_blockhash()
    tx = pay(alice, bob, SOL, blockhash.hash)
    simulation = network.simulate(tx, watch=[bob, SYSTEM, Keypair().pubkey()])
    assert (simulation.error, simulation.program_error, simulation.units) == (None, None, 150)
    states = list(simulation.accounts.values())
    assert states[0] is not None
    assert states[0].lamports == SOL
    assert states[1] is not None
    assert states[1].executable
    assert states[2] is None
    signature = network.send(tx)
    receipt = network.confirm(signature, blockhash.last_valid_block_height)
    assert (receipt.signature, receipt.fee, receipt.error) == (signature, FEE_PER_SIGNATURE, None)
    assert receipt.transaction == bytes(tx)
    assert receipt.logs[-1] == f"Program {SYSTEM} success"
    assert network.transaction(signature) == receipt
    assert network.transaction(Signature.new_unique()) is None
    assert network.balance(bob) == SOL
    clock = network.clock()
    assert receipt.block_time is not None
    assert (clock.slot, clock.unix_timestamp) >= (receipt.slot, receipt.block_time)
    assert network.block_hash(receipt.slot) is not None
    assert network.block_hash(clock.slot + 1000) is None
    again = network.send(pay(alice, bob, SOL + 1, blockhash.hash))
    assert network.signatures(bob) == [again, signature]
    assert network.signatures(bob, limit=1) == [again]
    assert network.signatures(bob, before=again) == [signature]


def test_refusals_are_alike(network: Network) -> None:
    alice, bob = funded(network), Keypair().pubkey()
    tx = pay(alice, bob, 6 * SOL, network.latest_blockhash().hash)
    assert network.simulate(tx, watch=[bob]).program_error == 1
    with pytest.raises(TransactionRejected) as info:
        network.send(tx)
    assert info.value.error == {"InstructionError": [0, {"Custom": 1}]}
    assert info.value.program_error == 1
    assert any("insufficient lamports" in line for line in info.value.logs)
    assert "Fund the paying wallet" in info.value.message
    with pytest.raises(TransactionRejected, match="blockhash not found"):
        network.send(pay(alice, bob, SOL, Hash.new_unique()))
    with pytest.raises(TransactionFailed, match="faucet"):
        network.airdrop(bob, 0)


def test_a_failure_on_chain_is_an_error_with_its_logs(network: Network, embedded: EmbeddedNetwork) -> None:
    alice = funded(embedded)
    tx = pay(alice, Keypair().pubkey(), 6 * SOL, embedded.latest_blockhash().hash)
    embedded.submit(tx, preflight=False)
    with pytest.raises(TransactionRejected, match="on chain: instruction 0 returned the program error 1") as info:
        network.confirm(tx.signatures[0], 1 << 62)
    assert info.value.logs
    receipt = network.transaction(tx.signatures[0])
    assert receipt is not None
    assert receipt.program_error == 1


def test_a_transaction_that_can_no_longer_land_is_known_dead(network: Network) -> None:
    with pytest.raises(TransactionFailed, match="fresh blockhash"):
        network.confirm(Signature.new_unique(), -1)


def test_accounts_are_read_alike(
    network: Network, embedded: EmbeddedNetwork, mint: tuple[Keypair, Pubkey, Pubkey]
) -> None:
    owner, key, account = mint
    keys = [key, Keypair().pubkey(), account, owner.pubkey(), PROGRAM_ID]
    assert network.accounts(keys * 25) == embedded.accounts(keys) * 25
    assert network.account(key) == embedded.account(key)
    assert network.rent(82) == embedded.rent(82) == network.rent(82)
    found = network.program_accounts(TOKEN, size=165, memcmp=[(0, bytes(key)), (32, bytes(owner.pubkey()))])
    assert [address for address, _ in found] == [account]
    assert network.program_accounts(TOKEN, size=164) == []
    assert network.account(CLOCK_SYSVAR) is not None


def test_connect_reaches_a_node_by_url(node: Server, tmp_path: Path) -> None:
    network = connect(node.url, tmp_path)
    assert network.is_local
    assert network.clock().slot >= 0
    network.close()


# solana-py's client, method by method.


def test_the_state_of_the_node(node: Server, embedded: EmbeddedNetwork) -> None:
    assert ask(node, "is_connected")
    assert ask(node, "get_version").value.solana_core
    assert ask(node, "get_slot").value <= embedded.clock().slot
    assert ask(node, "get_block_height").value <= embedded.block_height()
    epoch = ask(node, "get_epoch_info").value
    assert epoch.slot_index == epoch.absolute_slot % epoch.slots_in_epoch
    assert ask(node, "get_genesis_hash").value == embedded.genesis_hash
    assert ask(node, "get_first_available_block").value == 0
    assert ask(node, "get_transaction_count").value == embedded.transaction_count()
    assert ask(node, "get_recent_prioritization_fees").value[0].prioritization_fee == 0
    rent = ask(node, "get_minimum_balance_for_rent_exemption", 165).value
    assert rent == embedded.rent(165)


def test_blockhashes_and_fees(node: Server, embedded: EmbeddedNetwork) -> None:
    latest = ask(node, "get_latest_blockhash").value
    assert latest.last_valid_block_height >= 150
    for blockhash, valid in ((latest.blockhash, True), (Hash.new_unique(), False)):
        answer = httpx.post(node.url, content=IsBlockhashValid(blockhash).to_json(), headers=JSON).text
        assert IsBlockhashValidResp.from_json(answer).value is valid  # type: ignore[union-attr]
    alice = funded(embedded)
    legacy = Message.new_with_blockhash([], alice.pubkey(), latest.blockhash)
    assert ask(node, "get_fee_for_message", legacy).value == FEE_PER_SIGNATURE
    v0 = MessageV0.try_compile(alice.pubkey(), [], [], latest.blockhash)
    assert ask(node, "get_fee_for_message", v0).value == FEE_PER_SIGNATURE
    stale = MessageV0.try_compile(alice.pubkey(), [], [], Hash.new_unique())
    assert ask(node, "get_fee_for_message", stale).value is None
    answer = httpx.post(node.url, content=GetBlockHeight().to_json(), headers=JSON).text
    assert isinstance(GetBlockHeightResp.from_json(answer), GetBlockHeightResp)


JSON = {"Content-Type": "application/json"}


def test_accounts(node: Server, embedded: EmbeddedNetwork, mint: tuple[Keypair, Pubkey, Pubkey]) -> None:
    owner, key, account = mint
    assert ask(node, "get_balance", owner.pubkey()).value == embedded.balance(owner.pubkey())
    mine = embedded.account(key)
    assert mine is not None
    for encoding in ("base64", "base58", "base64+zstd"):
        found = ask(node, "get_account_info", key, encoding=encoding).value
        assert found is not None
        assert (found.data, found.lamports, found.owner) == (mine.data, mine.lamports, TOKEN)
    piece = DataSliceOpts(offset=36, length=8)
    found = ask(node, "get_account_info", key, encoding="base64", data_slice=piece).value
    assert found is not None
    assert int.from_bytes(found.data, "little") == 12_345
    parsed = ask(node, "get_account_info_json_parsed", account).value
    assert parsed is not None
    assert parsed.data.parsed["info"]["tokenAmount"]["uiAmountString"] == "123.45"
    several = ask(node, "get_multiple_accounts", [key, Keypair().pubkey(), account]).value
    assert several[0] is not None
    assert several[1] is None
    assert ask(node, "get_account_info", Keypair().pubkey()).value is None
    legacy = call(node, "getAccountInfo", str(key))["result"]["value"]["data"]
    assert from_base58(legacy) == mine.data
    big = call(node, "getAccountInfo", str(account))["error"]
    assert big["code"] == -32600


def test_program_accounts(node: Server, mint: tuple[Keypair, Pubkey, Pubkey]) -> None:
    owner, key, account = mint
    filters = [165, MemcmpOpts(offset=0, bytes=str(key))]
    found = ask(node, "get_program_accounts", TOKEN, encoding="base64", filters=filters).value
    assert [keyed.pubkey for keyed in found] == [account]
    assert TokenAccount.from_bytes(found[0].account.data).amount == 12_345
    config: dict[str, object] = {
        "encoding": "base64",
        "dataSlice": {"offset": 32, "length": 32},
        "withContext": True,
        "filters": [
            {"dataSize": 165},
            {"memcmp": {"offset": 0, "bytes": base64.b64encode(bytes(key)).decode(), "encoding": "base64"}},
        ],
    }
    value = call(node, "getProgramAccounts", str(TOKEN), config)["result"]["value"]
    assert base64.b64decode(value[0]["account"]["data"][0]) == bytes(owner.pubkey())
    config["filters"] = [{"dataSize": 165}, {"dataSize": 82}]
    assert call(node, "getProgramAccounts", str(TOKEN), config)["result"]["value"] == []
    parsed = ask(node, "get_program_accounts_json_parsed", TOKEN, filters=[82])
    assert key in [keyed.pubkey for keyed in parsed.value]


def test_tokens(node: Server, mint: tuple[Keypair, Pubkey, Pubkey]) -> None:
    owner, key, account = mint
    amount = ask(node, "get_token_account_balance", account).value
    assert (amount.amount, amount.decimals, amount.ui_amount_string) == ("12345", 2, "123.45")
    assert ask(node, "get_token_supply", key).value.ui_amount == 123.45
    for options in (TokenAccountOpts(mint=key), TokenAccountOpts(program_id=TOKEN)):
        mine = ask(node, "get_token_accounts_by_owner", owner.pubkey(), options).value
        assert [keyed.pubkey for keyed in mine] == [account]
        parsed = ask(node, "get_token_accounts_by_owner_json_parsed", owner.pubkey(), options)
        assert parsed.value[0].account.data.parsed["info"]["mint"] == str(key)
    with pytest.raises(RPCException, match="not a Token account"):
        ask(node, "get_token_account_balance", key)
    with pytest.raises(RPCException, match="mint could not be unpacked"):
        ask(node, "get_token_supply", account)


def test_sending_and_looking_up(node: Server, embedded: EmbeddedNetwork) -> None:
    alice, bob = Keypair(), Keypair().pubkey()
    airdrop = ask(node, "request_airdrop", alice.pubkey(), 5 * SOL).value
    assert embedded.balance(alice.pubkey()) == 5 * SOL
    tx = pay(alice, bob, SOL, embedded.latest_blockhash().hash)
    signature = ask(node, "send_transaction", tx).value
    assert signature == tx.signatures[0]
    second = pay(alice, bob, SOL // 2, embedded.latest_blockhash().hash)
    encoded = base58(bytes(second))
    assert call(node, "sendTransaction", encoded)["result"] == str(second.signatures[0])
    options = TxOpts(skip_confirmation=False)
    third = pay(alice, bob, SOL // 4, embedded.latest_blockhash().hash)
    ask(node, "send_transaction", third, options)

    statuses = ask(node, "get_signature_statuses", [signature, Signature.new_unique()]).value
    assert statuses[0] is not None
    assert statuses[0].err is None
    assert statuses[1] is None
    history = ask(node, "get_signatures_for_address", bob, limit=2).value
    assert [entry.signature for entry in history] == [third.signatures[0], second.signatures[0]]
    older = ask(node, "get_signatures_for_address", bob, before=history[1].signature).value
    assert [entry.signature for entry in older] == [signature]
    newer = ask(node, "get_signatures_for_address", bob, until=signature).value
    assert len(newer) == 2

    for encoding in ("json", "base64", "base58"):
        found = ask(node, "get_transaction", signature, encoding, None, 0).value
        assert found is not None
        meta = found.transaction.meta
        assert meta is not None
        assert (meta.err, meta.fee, meta.compute_units_consumed) == (None, FEE_PER_SIGNATURE, 150)
        assert meta.pre_balances[:2] == [5 * SOL, 0]
        assert meta.post_balances[:2] == [4 * SOL - FEE_PER_SIGNATURE, SOL]
        assert meta.log_messages
        assert found.block_time
        if encoding != "json":
            assert found.transaction.transaction == tx
    assert ask(node, "get_transaction", Signature.new_unique()).value is None
    old = ask(node, "get_transaction", airdrop).value  # legacy, so for clients without versions too
    assert old is not None
    with pytest.raises(RPCException) as refused:
        ask(node, "get_transaction", signature)
    assert isinstance(refused.value.args[0], UnsupportedTransactionVersionMessage)


def test_a_failed_preflight_has_a_real_nodes_shape(node: Server, embedded: EmbeddedNetwork) -> None:
    alice = funded(embedded)
    tx = pay(alice, Keypair().pubkey(), 6 * SOL, embedded.latest_blockhash().hash)
    with pytest.raises(RPCException) as info:
        ask(node, "send_transaction", tx)
    refusal = info.value.args[0]
    assert isinstance(refusal, SendTransactionPreflightFailureMessage)
    expected = "Transaction simulation failed: Error processing Instruction 0: custom program error: 0x1"
    assert refusal.message == expected
    assert isinstance(refusal.data.err, TransactionErrorInstructionError)
    assert refusal.data.units_consumed == 150
    assert any("insufficient lamports" in line for line in refusal.data.logs or ())
    raw = call(node, "sendTransaction", base64.b64encode(bytes(tx)).decode(), {"encoding": "base64"})
    assert raw["error"]["code"] == -32002
    assert raw["error"]["data"]["err"] == {"InstructionError": [0, {"Custom": 1}]}
    skipped = ask(node, "send_transaction", tx, TxOpts(skip_preflight=True)).value
    status = ask(node, "get_signature_statuses", [skipped]).value[0]
    assert status is not None
    assert isinstance(status.err, TransactionErrorInstructionError)
    with pytest.raises(RPCException) as info:
        ask(node, "send_transaction", tx)
    assert info.value.args[0].data.err == TransactionErrorFieldless.AlreadyProcessed
    repeated = ask(node, "send_transaction", tx, TxOpts(skip_preflight=True)).value
    assert repeated == skipped
    forged = VersionedTransaction.populate(tx.message, [Signature.new_unique()])
    refused = call(node, "sendTransaction", base58(bytes(forged)))["error"]
    assert (refused["code"], refused["data"]["err"]) == (-32002, "SignatureFailure")


def test_simulation(node: Server, embedded: EmbeddedNetwork) -> None:
    alice, bob = funded(embedded), Keypair().pubkey()
    tx = pay(alice, bob, SOL, embedded.latest_blockhash().hash)
    found = ask(node, "simulate_transaction", tx, sig_verify=True, accounts_addresses=[bob, Keypair().pubkey()]).value
    assert (found.err, found.units_consumed) == (None, 150)
    assert found.accounts is not None
    assert found.accounts[0] is not None
    assert found.accounts[0].lamports == SOL
    assert found.accounts[1] is None
    stale = pay(alice, bob, SOL, Hash.new_unique())
    assert ask(node, "simulate_transaction", stale).value.err == TransactionErrorFieldless.BlockhashNotFound
    replaced = ask(node, "simulate_transaction", stale, replace_recent_blockhash=True).value
    assert replaced.err is None
    assert replaced.replacement_blockhash is not None
    forged = VersionedTransaction.populate(tx.message, [Signature.new_unique()])
    assert ask(node, "simulate_transaction", forged).value.err is None
    told = ask(node, "simulate_transaction", forged, sig_verify=True).value.err
    assert told == TransactionErrorFieldless.SignatureFailure
    both = {"sigVerify": True, "replaceRecentBlockhash": True}
    assert call(node, "simulateTransaction", base58(bytes(tx)), both)["error"]["code"] == -32602
    assert embedded.balance(bob) == 0


def test_blocks(node: Server, embedded: EmbeddedNetwork) -> None:
    record = embedded.record(embedded.airdrop(Keypair().pubkey(), SOL))
    assert record is not None
    slot = record.slot
    block = ask(node, "get_block", slot, "json", 0).value
    assert block is not None
    assert block.blockhash == embedded.block_hash(slot)
    assert block.previous_blockhash == embedded.block_hash(slot - 1)
    assert (block.parent_slot, block.block_time) == (slot - 1, record.block_time)
    assert block.transactions is not None
    assert len(block.transactions) == 1
    bare = call(node, "getBlock", slot, {"transactionDetails": "none", "rewards": False})["result"]
    assert "transactions" not in bare
    assert "rewards" not in bare
    named = call(node, "getBlock", slot, {"transactionDetails": "signatures"})["result"]
    assert named["signatures"] == [str(record.signature)]
    assert ask(node, "get_blocks", slot - 1, slot).value == [slot - 1, slot]
    assert ask(node, "get_block_time", slot).value == record.block_time
    with pytest.raises(RPCException) as info:
        ask(node, "get_block", slot + 10**6)
    assert isinstance(info.value.args[0], BlockNotAvailableMessage)


# Requests as they should not be.


def test_errors_of_the_protocol(node: Server) -> None:
    assert call(node, "getRecentBlockhash")["error"] == {"code": -32601, "message": "Method not found"}
    assert call(node, "getBalance", "nonsense")["error"]["code"] == -32602
    with pytest.raises(RPCException) as info:
        ask(node, "get_minimum_balance_for_rent_exemption", 1 << 40)
    assert isinstance(info.value.args[0], InvalidRequestMessage)
    assert httpx.post(node.url, content=b"{", headers=JSON).json()["error"]["code"] == -32700
    assert httpx.post(node.url, content=b"[" * 100_000, headers=JSON).json()["error"]["code"] == -32700
    cases: list[object] = [
        [],
        7,
        {"id": 1, "method": "getSlot"},
        {"jsonrpc": "2.0", "id": {}, "method": "getSlot"},
    ]
    for broken in cases:
        assert post(node, broken)["error"]["code"] == -32600
    assert post(node, [{"jsonrpc": "2.0", "id": n, "method": "getSlot"} for n in range(101)])["error"]
    assert call(node, "getSlot", {"minContextSlot": 1 << 50})["error"]["code"] == -32016


def test_batches_and_notifications(node: Server) -> None:
    answers = post(
        node,
        [
            {"jsonrpc": "2.0", "id": "a", "method": "getHealth"},
            {"jsonrpc": "2.0", "method": "getHealth"},
            {"jsonrpc": "2.0", "id": 2, "method": "nothing"},
        ],
    )
    assert [answer["id"] for answer in answers] == ["a", 2]
    assert answers[0]["result"] == "ok"
    silent = httpx.post(node.url, json={"jsonrpc": "2.0", "method": "getHealth"})
    assert (silent.status_code, silent.content) == (200, b"")


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("getAccountInfo", [str(SYSTEM), {"encoding": "hex"}]),
        ("getAccountInfo", [str(SYSTEM), 5]),
        ("getAccountInfo", [str(SYSTEM), {"encoding": "base64", "dataSlice": {"offset": -1, "length": 4}}]),
        ("getAccountInfo", [str(PROGRAM_ID), {"encoding": "base64", "dataSlice": [1, 2]}]),
        ("getMultipleAccounts", [[str(SYSTEM)] * 101]),
        ("getMultipleAccounts", ["x"]),
        ("getProgramAccounts", [str(SYSTEM), {"filters": [{"memcmp": {"offset": 0, "bytes": "0OIl"}}]}]),
        ("getProgramAccounts", [str(SYSTEM), {"filters": [{"memcmp": {"offset": "0", "bytes": "1"}}]}]),
        ("getProgramAccounts", [str(SYSTEM), {"filters": [{"dataSize": None}]}]),
        (
            "getProgramAccounts",
            [str(SYSTEM), {"filters": [{"memcmp": {"offset": 0, "bytes": [256], "encoding": "bytes"}}]}],
        ),
        ("getProgramAccounts", [str(SYSTEM), {"filters": [{"dataSize": 1}] * 5}]),
        ("getTokenAccountsByOwner", [str(SYSTEM), {"programId": str(SYSTEM)}]),
        ("getTokenAccountsByOwner", [str(SYSTEM), {}]),
        ("sendTransaction", ["1" * 2000]),
        ("sendTransaction", ["AAAA", {"encoding": "base64"}]),
        ("sendTransaction", ["!", {"encoding": "base64"}]),
        ("sendTransaction", [None]),
        ("simulateTransaction", ["1", {"sigVerify": "yes"}]),
        ("getSignatureStatuses", [["1"] * 257]),
        ("getSignatureStatuses", [["1"]]),
        ("getSignaturesForAddress", [str(SYSTEM), {"limit": 0}]),
        ("getSignaturesForAddress", [str(SYSTEM), {"limit": 1001}]),
        ("getSignaturesForAddress", [str(SYSTEM), {"before": "x"}]),
        ("getTransaction", ["1" * 64, {"encoding": "xml"}]),
        ("getBlock", [True]),
        ("isBlockhashValid", ["zzz"]),
        ("getFeeForMessage", ["AAAA"]),
        ("requestAirdrop", [str(SYSTEM), 1.5]),
        ("getBalance", {"pubkey": str(SYSTEM)}),
    ],
)
def test_bad_parameters_are_invalid_params(node: Server, method: str, params: object) -> None:
    answer = post(node, {"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    assert answer["error"]["code"] == -32602


def test_only_loopback_names_and_json_are_served(node: Server) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "getHealth"})
    for host in ("evil.example", "127.0.0.1.evil.example:8899", ""):
        assert httpx.post(node.url, content=body, headers=JSON | {"Host": host}).status_code == 403
    for host in (f"localhost:{node.port}", "127.0.0.1", "[::1]:8899", "LOCALHOST"):
        assert httpx.post(node.url, content=body, headers=JSON | {"Host": host}).status_code == 200
    assert httpx.post(node.url, content=body, headers={"Content-Type": "text/plain"}).status_code == 415
    assert httpx.post(f"{node.url}/other", content=body, headers=JSON).status_code == 404
    assert httpx.post(node.url, content=b" " * (MAX_BODY + 1), headers=JSON).status_code == 413
    assert httpx.post(node.url, content=iter([body.encode()]), headers=JSON).status_code == 411
    health = httpx.get(f"{node.url}/health")
    assert (health.status_code, health.text) == (200, "ok")
    assert httpx.get(f"{node.url}/elsewhere").status_code == 404


def test_a_client_that_hangs_up_does_no_harm(node: Server) -> None:
    for request in (
        b"",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{",
        b"\x16\x03\x01garbage\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", node.port), timeout=5) as connection:
            connection.sendall(request)
    assert ask(node, "is_connected")


def test_a_port_in_use_and_a_public_address_are_refused(node: Server, embedded: EmbeddedNetwork) -> None:
    with pytest.raises(ChainError, match=f"Port {node.port} on 127.0.0.1 is in use") as info:
        serve(embedded, port=node.port)
    assert "--port" in info.value.cure
    with pytest.raises(ChainError, match=r"only listen on this machine, not on 0\.0\.0\.0"):
        serve(embedded, host="0.0.0.0", port=0)


@given(st.binary(max_size=64))
def test_base58_round_trip(raw: bytes) -> None:
    assert from_base58(base58(raw)) == raw
    if len(raw) == 32:
        assert base58(raw) == str(Pubkey.from_bytes(raw))


@pytest.mark.parametrize(
    ("amount", "decimals", "text"),
    [(0, 0, "0"), (7, 0, "7"), (100, 0, "100"), (5, 2, "0.05"), (1200, 3, "1.2")],
)
def test_token_amounts(amount: int, decimals: int, text: str) -> None:
    assert token_amount(amount, decimals)["uiAmountString"] == text


def test_the_mint_fixture_is_what_spl_token_made(
    embedded: EmbeddedNetwork, mint: tuple[Keypair, Pubkey, Pubkey]
) -> None:
    account = embedded.account(mint[1])
    assert account is not None
    assert Mint.from_bytes(account.data).supply == 12_345
