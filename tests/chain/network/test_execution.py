"""Durable nonces and lookup tables on the embedded network, where they are refused and where they fail."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM
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

from chain.network.base import FEE_PER_SIGNATURE, TransactionRejected
from chain.network.embedded import EmbeddedNetwork
from chain.network.execution import nonce_value
from tests.chain.networks import SOL, pay, sign


@pytest.fixture
def network(tmp_path: Path) -> Iterator[EmbeddedNetwork]:
    network = EmbeddedNetwork(tmp_path, now=lambda: 1_700_000_000.0)  # blocks come with transactions alone
    yield network
    network.close()


@pytest.fixture
def alice(network: EmbeddedNetwork) -> Keypair:
    alice = Keypair()
    network.airdrop(alice.pubkey(), 100 * SOL)
    return alice


def begin_nonce(network: EmbeddedNetwork, alice: Keypair, authority: Pubkey) -> Pubkey:
    nonce = Keypair()
    steps = [
        create_account(
            CreateAccountParams(
                from_pubkey=alice.pubkey(),
                to_pubkey=nonce.pubkey(),
                lamports=network.rent(80),
                space=80,
                owner=SYSTEM,
            )
        ),
        initialize_nonce_account(InitializeNonceAccountParams(nonce_pubkey=nonce.pubkey(), authority=authority)),
    ]
    network.send(sign(alice, steps, network.latest_blockhash().hash, nonce))
    return nonce.pubkey()


def value(network: EmbeddedNetwork, nonce: Pubkey) -> Hash:
    found = nonce_value(network.account(nonce))
    assert found is not None
    return Hash.from_bytes(found)


def offline(network: EmbeddedNetwork, alice: Keypair, nonce: Pubkey, lamports: int) -> VersionedTransaction:
    advance = advance_nonce_account(AdvanceNonceAccountParams(nonce_pubkey=nonce, authorized_pubkey=alice.pubkey()))
    give = transfer(TransferParams(from_pubkey=alice.pubkey(), to_pubkey=Pubkey.new_unique(), lamports=lamports))
    return sign(alice, [advance, give], value(network, nonce))


def test_a_nonce_outlives_every_blockhash_and_is_good_for_one_transaction(
    network: EmbeddedNetwork, alice: Keypair
) -> None:
    nonce = begin_nonce(network, alice, alice.pubkey())
    one, other = (offline(network, alice, nonce, lamports) for lamports in (SOL, 2 * SOL))
    network.warp(3600)
    assert network.run(one, fresh=True).error is None
    network.send(one)
    for spent in (one, other):  # Agave looks at the nonce, which has moved on, before it looks at what landed
        assert network.run(spent, fresh=True).error == "BlockhashNotFound"
        with pytest.raises(TransactionRejected, match="blockhash not found"):
            network.send(spent)
    network.send(offline(network, alice, nonce, 3 * SOL))


def test_a_failed_transaction_advances_its_nonce(network: EmbeddedNetwork, alice: Keypair) -> None:
    nonce = begin_nonce(network, alice, alice.pubkey())
    before, balance = value(network, nonce), network.balance(alice.pubkey())
    failing = offline(network, alice, nonce, 10_000 * SOL)
    network.submit(failing, preflight=False)
    assert value(network, nonce) != before
    assert network.balance(alice.pubkey()) == balance - FEE_PER_SIGNATURE
    again = EmbeddedNetwork(network.home)  # what is on the ledger
    assert value(again, nonce) == value(network, nonce)
    again.close()


def test_somebody_elses_nonce_is_no_blockhash(network: EmbeddedNetwork, alice: Keypair) -> None:
    nonce = begin_nonce(network, alice, Keypair().pubkey())
    with pytest.raises(TransactionRejected, match="blockhash not found"):
        network.send(offline(network, alice, nonce, SOL))


def look_up(network: EmbeddedNetwork, alice: Keypair, table: AddressLookupTableAccount) -> VersionedTransaction:
    give = transfer(TransferParams(from_pubkey=alice.pubkey(), to_pubkey=table.addresses[-1], lamports=SOL))
    message = MessageV0.try_compile(alice.pubkey(), [give], [table], network.latest_blockhash().hash)
    return VersionedTransaction(message, [alice])


def test_a_lookup_table_names_accounts_once_it_holds_them(network: EmbeddedNetwork, alice: Keypair) -> None:
    me, bob = alice.pubkey(), Pubkey.new_unique()
    make, key = create_lookup_table(
        CreateLookupTableParams(authority_address=me, payer_address=me, recent_slot=network.clock().slot)
    )
    fill = extend_lookup_table(
        ExtendLookupTableParams(payer_address=me, lookup_table_address=key, authority_address=me, new_addresses=[bob])
    )
    table = AddressLookupTableAccount(key, [bob])
    with pytest.raises(TransactionRejected, match="not found"):
        network.send(look_up(network, alice, table))
    network.send(sign(alice, [make, fill], network.latest_blockhash().hash))
    early = look_up(network, alice, table)  # the newest block is still the one that filled it
    assert network.run(early).error == "InvalidAddressLookupTableIndex"
    with pytest.raises(TransactionRejected, match="invalid address lookup table index"):
        network.send(early)
    network.submit(look_up(network, alice, table), preflight=False)  # lands in the next one
    network.warp(1)
    signature = network.send(look_up(network, alice, table))
    assert network.balance(bob) == 2 * SOL
    assert signature in network.signatures(bob)
    longer = AddressLookupTableAccount(key, [bob, Pubkey.new_unique()])
    with pytest.raises(TransactionRejected, match="invalid address lookup table index"):
        network.send(look_up(network, alice, longer))
    no_table = AddressLookupTableAccount(me, [bob])
    with pytest.raises(TransactionRejected, match="owner"):
        network.send(look_up(network, alice, no_table))


def test_a_ledger_of_before_is_read(network: EmbeddedNetwork, alice: Keypair) -> None:
    """Records of earlier versions say nothing of tokens, lookup tables and cost."""
    signature = network.send(pay(alice, Pubkey.new_unique(), SOL, network.latest_blockhash().hash))
    with sqlite3.connect(network.path) as ledger:
        ledger.execute("UPDATE transactions SET meta = json_remove(meta, '$.loaded', '$.tokens', '$.cost')")
    record = network.record(signature)
    assert record is not None
    assert (record.loaded, record.tokens, record.cost) == (((), ()), (), 0)
