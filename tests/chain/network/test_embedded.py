"""The embedded network: accounts, blocks, time and history, across restarts, processes and kills."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import CreateAccountParams, create_account
from solders.transaction import VersionedTransaction
from solders.transaction_status import (
    InstructionErrorCustom,
    TransactionErrorFieldless,
    TransactionErrorInstructionError,
)

from chain.errors import ChainError, InvalidData, TransactionFailed
from chain.network import ledger
from chain.network.base import (
    CLOCK_SYSVAR,
    FEE_PER_SIGNATURE,
    Clock,
    TransactionRejected,
    error_cure,
    error_text,
    program_error_of,
)
from chain.network.embedded import EmbeddedNetwork
from chain.network.ledger import SLOT_MS, LedgerBlock, block_after, block_at, make_hash
from chain.network.opening import connect
from chain.program import PROGRAM_ID
from tests.chain.networks import SOL, memo, memo_image, pay, sign

LOADER = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")
RENT = Pubkey.from_string("SysvarRent111111111111111111111111111111111")
SYSTEM = Pubkey.from_string("11111111111111111111111111111111")


class Time:
    """A wall clock that tests turn."""

    def __init__(self) -> None:
        self.seconds = 1_700_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def wall() -> Time:
    return Time()


@pytest.fixture
def embedded(tmp_path: Path, wall: Time) -> Iterator[EmbeddedNetwork]:
    embedded = EmbeddedNetwork(tmp_path, image=memo_image(), now=wall)
    yield embedded
    embedded.close()


def funded(embedded: EmbeddedNetwork, lamports: int = 5 * SOL) -> Keypair:
    keypair = Keypair()
    embedded.airdrop(keypair.pubkey(), lamports)
    return keypair


def test_a_transfer_lands_and_is_recorded(embedded: EmbeddedNetwork, wall: Time) -> None:
    alice, bob = funded(embedded), Keypair().pubkey()
    wall.seconds += 10
    blockhash = embedded.latest_blockhash()
    tx = pay(alice, bob, SOL, blockhash.hash)
    signature = embedded.send(tx)
    receipt = embedded.confirm(signature, blockhash.last_valid_block_height)
    assert receipt.fee == FEE_PER_SIGNATURE
    assert (receipt.error, receipt.program_error) == (None, None)
    assert receipt.transaction == bytes(tx)
    assert receipt.block_time == int(wall.seconds)
    assert embedded.balance(bob) == SOL
    assert embedded.balance(alice.pubkey()) == 4 * SOL - FEE_PER_SIGNATURE
    assert embedded.transaction(signature) == receipt
    assert embedded.clock() == Clock(receipt.slot, int(wall.seconds))
    record = embedded.record(signature)
    assert record is not None
    assert record.pre[:2] == (5 * SOL, 0)
    assert record.post[:2] == (4 * SOL - FEE_PER_SIGNATURE, SOL)


def test_history_is_newest_first_and_pages(embedded: EmbeddedNetwork) -> None:
    alice, bob = funded(embedded), Keypair().pubkey()
    sent = [embedded.send(pay(alice, bob, SOL // 10 + n, embedded.latest_blockhash().hash)) for n in range(5)]
    assert embedded.signatures(bob) == sent[::-1]
    assert embedded.signatures(bob, limit=2) == [sent[4], sent[3]]
    assert embedded.signatures(bob, limit=2, before=sent[3]) == [sent[2], sent[1]]
    assert embedded.signatures(bob, before=Signature.default()) == []
    assert [record.signature for record in embedded.history(bob, until=sent[2])] == [sent[4], sent[3]]
    assert len(embedded.signatures(alice.pubkey())) == 6
    assert embedded.transaction(Signature.default()) is None


def test_a_refused_transaction_costs_nothing_and_leaves_nothing(embedded: EmbeddedNetwork) -> None:
    alice = funded(embedded)
    with pytest.raises(TransactionRejected, match=r"instruction 0 returned the program error 1 \(0x1\)") as info:
        embedded.send(pay(alice, Keypair().pubkey(), 6 * SOL, embedded.latest_blockhash().hash))
    assert info.value.program_error == 1
    assert any("insufficient lamports" in line for line in info.value.logs)
    assert info.value.cure == "Fund the paying wallet first."
    assert embedded.balance(alice.pubkey()) == 5 * SOL
    assert len(embedded.signatures(alice.pubkey())) == 1


def test_without_preflight_a_failure_lands_and_pays(embedded: EmbeddedNetwork) -> None:
    alice = funded(embedded)
    tx = memo(alice, b"\xff", embedded.latest_blockhash().hash, PROGRAM_ID)
    signature = embedded.submit(tx, preflight=False)
    assert embedded.balance(alice.pubkey()) == 5 * SOL - FEE_PER_SIGNATURE
    with pytest.raises(TransactionRejected, match="failed on chain: instruction 0 failed, program failed to complete"):
        embedded.confirm(signature, 0)
    receipt = embedded.transaction(signature)
    assert receipt is not None
    assert receipt.error == "instruction 0 failed, program failed to complete"
    assert receipt.program_error is None
    poor = Keypair()
    with pytest.raises(TransactionRejected, match="account not found"):
        embedded.submit(memo(poor, b"x", embedded.latest_blockhash().hash), preflight=False)


def test_a_transaction_lands_once(embedded: EmbeddedNetwork) -> None:
    alice, bob = funded(embedded), Keypair().pubkey()
    blockhash = embedded.latest_blockhash().hash
    tx = pay(alice, bob, SOL, blockhash)
    embedded.send(tx)
    with pytest.raises(TransactionRejected, match="already processed") as info:
        embedded.send(tx)
    assert info.value.error == "AlreadyProcessed"
    embedded.send(pay(alice, bob, SOL + 1, blockhash))
    assert embedded.balance(bob) == 2 * SOL + 1


def test_a_blockhash_lives_for_150_blocks_of_time_whatever_the_load(embedded: EmbeddedNetwork, wall: Time) -> None:
    alice, bob = funded(embedded), Keypair().pubkey()
    blockhash = embedded.latest_blockhash()
    for n in range(200):
        embedded.airdrop(bob, SOL + n)
    assert embedded.blockhash_valid(blockhash.hash)
    wall.seconds += 59
    assert embedded.block_height() <= blockhash.last_valid_block_height
    embedded.send(pay(alice, bob, SOL, blockhash.hash))
    wall.seconds += 2
    assert embedded.block_height() > blockhash.last_valid_block_height
    with pytest.raises(TransactionRejected, match="blockhash not found"):
        embedded.send(pay(alice, bob, SOL + 1, blockhash.hash))
    with pytest.raises(TransactionRejected, match="blockhash not found"):
        embedded.send(pay(alice, bob, SOL, Hash.new_unique()))


def test_a_blockhash_of_an_empty_block_is_good_after_others_wrote(embedded: EmbeddedNetwork, wall: Time) -> None:
    alice = funded(embedded)
    wall.seconds += 7
    blockhash = embedded.latest_blockhash().hash  # of a block that is stored nowhere
    embedded.airdrop(Keypair().pubkey(), SOL)
    wall.seconds += 7
    embedded.airdrop(Keypair().pubkey(), SOL)
    embedded.send(pay(alice, Keypair().pubkey(), SOL, blockhash))


def test_a_bad_signature_is_refused(embedded: EmbeddedNetwork) -> None:
    alice = funded(embedded)
    tx = pay(alice, Keypair().pubkey(), SOL, embedded.latest_blockhash().hash)
    forged = VersionedTransaction.populate(tx.message, [Keypair().sign_message(b"other")])
    for preflight in (True, False):
        with pytest.raises(TransactionRejected, match="signature failure"):
            embedded.submit(forged, preflight=preflight)


def test_simulation_needs_no_signature_and_keeps_nothing(embedded: EmbeddedNetwork) -> None:
    alice, bob, nobody = funded(embedded), Keypair().pubkey(), Keypair().pubkey()
    tx = pay(alice, bob, SOL, Hash.default())
    unsigned = VersionedTransaction.populate(tx.message, [Signature.default()])
    simulation = embedded.simulate(unsigned, watch=[bob, nobody, alice.pubkey()])
    assert simulation.error is None
    assert simulation.units == 150
    after = simulation.accounts[bob]
    assert after is not None
    assert after.lamports == SOL
    assert simulation.accounts[nobody] is None
    assert embedded.balance(bob) == 0
    failed = embedded.simulate(pay(alice, bob, 9 * SOL, Hash.default()), watch=[bob])
    assert failed.program_error == 1
    assert failed.accounts == {}
    # Signatures are checked again afterwards.
    with pytest.raises(TransactionRejected):
        embedded.send(VersionedTransaction.populate(tx.message, [Signature.default()]))


def test_time_follows_the_wall_warps_and_never_goes_back(embedded: EmbeddedNetwork, wall: Time, tmp_path: Path) -> None:
    start = embedded.clock()
    wall.seconds += 40
    assert embedded.clock() == Clock(start.slot + 100, start.unix_timestamp + 40)
    embedded.warp(7 * 86_400)
    later = embedded.clock()
    assert later.unix_timestamp == start.unix_timestamp + 40 + 7 * 86_400
    wall.seconds -= 3600
    assert embedded.clock() == later
    signature = embedded.airdrop(Keypair().pubkey(), SOL)
    receipt = embedded.transaction(signature)
    assert receipt is not None
    assert receipt.slot == later.slot + 1
    again = EmbeddedNetwork(tmp_path, image=memo_image(), now=wall)
    assert again.clock() == Clock(later.slot + 1, later.unix_timestamp)
    with pytest.raises(ChainError, match="only moves forward"):
        embedded.warp(-1)


def test_programs_see_the_slot_and_time_of_their_block(embedded: EmbeddedNetwork, wall: Time) -> None:
    wall.seconds += 100
    account = embedded.account(CLOCK_SYSVAR)
    assert account is not None
    clock = embedded.clock()
    assert int.from_bytes(account.data[:8], "little") == clock.slot
    assert int.from_bytes(account.data[32:40], "little") == clock.unix_timestamp


def test_block_hashes_are_stable_and_unknown_before_their_time(
    embedded: EmbeddedNetwork, wall: Time, tmp_path: Path
) -> None:
    for _ in range(4):
        wall.seconds += 1.3
        embedded.airdrop(Keypair().pubkey(), SOL)
    wall.seconds += 2
    tip = embedded.clock().slot
    hashes = [embedded.block_hash(slot) for slot in range(tip + 1)]
    assert None not in hashes
    assert len(set(hashes)) == len(hashes)
    assert hashes[0] == embedded.genesis_hash
    assert hashes[tip] == embedded.latest_blockhash().hash
    assert embedded.block_hash(tip + 1) is None
    assert embedded.block_hash(1 << 62) is None
    embedded.airdrop(Keypair().pubkey(), SOL)
    assert embedded.block_hash(tip + 1) is not None
    again = EmbeddedNetwork(tmp_path, image=memo_image(), now=wall)
    assert [again.block_hash(slot) for slot in range(tip + 1)] == hashes


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 45), st.integers(0, 1 << 40), st.integers(0, SLOT_MS - 1))
def test_empty_blocks_come_every_400_ms(slot: int, ms: int, empty: int, rest: int) -> None:
    tip = LedgerBlock(slot, make_hash(slot, b"seed"), ms)
    block = block_at(tip, ms + empty * SLOT_MS + rest)
    assert (block.slot, block.ms) == (slot + empty, ms + empty * SLOT_MS)
    assert int.from_bytes(block.hash[24:], "big") == block.slot
    assert block == block_after(tip, block.slot)
    assert (block.hash == tip.hash) == (empty == 0)
    assert block_at(tip, ms - rest) == tip


def test_a_restart_keeps_balances_history_and_chain(embedded: EmbeddedNetwork, tmp_path: Path, wall: Time) -> None:
    alice, bob = funded(embedded), Keypair().pubkey()
    signature = embedded.send(pay(alice, bob, SOL, embedded.latest_blockhash().hash))
    before = embedded.transaction(signature), embedded.clock(), embedded.genesis_hash, embedded.latest_blockhash()
    embedded.close()
    again = connect_again(tmp_path, wall)
    assert (
        again.transaction(signature),
        again.clock(),
        again.genesis_hash,
        again.latest_blockhash(),
    ) == before
    assert again.balance(bob) == SOL
    assert again.signatures(bob) == [signature]
    again.close()
    again.close()


def connect_again(home: Path, wall: Time) -> EmbeddedNetwork:
    return EmbeddedNetwork(home, image=memo_image(), now=wall)


def test_another_opener_sees_every_write_and_every_closed_account(
    embedded: EmbeddedNetwork, tmp_path: Path, wall: Time
) -> None:
    other = connect_again(tmp_path, wall)
    alice, bob = funded(embedded), Keypair()
    assert other.balance(alice.pubkey()) == 5 * SOL
    embedded.send(pay(alice, bob.pubkey(), 2 * SOL, other.latest_blockhash().hash))
    assert other.balance(bob.pubkey()) == 2 * SOL
    other.send(pay(bob, alice.pubkey(), 2 * SOL - FEE_PER_SIGNATURE, embedded.latest_blockhash().hash))
    assert other.account(bob.pubkey()) is None
    assert embedded.account(bob.pubkey()) is None
    assert embedded.balance(alice.pubkey()) == other.balance(alice.pubkey()) == 5 * SOL - 2 * FEE_PER_SIGNATURE
    other.warp(100)
    assert embedded.clock() == other.clock()


def test_a_write_that_cannot_be_committed_leaves_file_and_vm_alike(embedded: EmbeddedNetwork) -> None:
    alice, bob = funded(embedded), Keypair().pubkey()
    other = sqlite3.connect(embedded.path)
    other.execute("CREATE TRIGGER full BEFORE UPDATE OF revision ON state BEGIN SELECT RAISE(ABORT, 'full'); END")
    other.commit()
    tx = pay(alice, bob, SOL, embedded.latest_blockhash().hash)
    with pytest.raises(ChainError, match="full"):
        embedded.send(tx)
    assert embedded.balance(bob) == 0
    assert embedded.balance(alice.pubkey()) == 5 * SOL
    assert embedded.transaction(tx.signatures[0]) is None
    other.execute("DROP TRIGGER full")
    other.commit()
    embedded.send(tx)
    assert embedded.balance(bob) == SOL


WRITER = """
import sys
from pathlib import Path
from solders.pubkey import Pubkey
from chain.network.embedded import EmbeddedNetwork
from tests.chain.networks import memo_image
network = EmbeddedNetwork(Path(sys.argv[1]), image=memo_image())
to, count = Pubkey.from_string(sys.argv[2]), int(sys.argv[3])
for done in range(count):
    network.airdrop(to, 1_000_000)
    print(done + 1, flush=True)
"""


def writer(home: Path, to: Pubkey, count: int) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[3]
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(home), str(to), str(count)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


def test_processes_write_at_once_without_losing_anything(tmp_path: Path) -> None:
    bob = Keypair().pubkey()
    processes = [writer(tmp_path, bob, 100) for _ in range(3)]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    embedded = EmbeddedNetwork(tmp_path, image=memo_image())
    assert embedded.balance(bob) == 300 * 1_000_000
    assert len(embedded.signatures(bob)) == 300
    slots = [record.slot for record in embedded.history(bob)]
    assert slots == sorted(set(slots), reverse=True)
    assert embedded.transaction_count() == 300


@pytest.mark.parametrize("after", [1, 37])
def test_kill_9_leaves_the_last_committed_state(tmp_path: Path, after: int) -> None:
    bob = Keypair().pubkey()
    process = writer(tmp_path, bob, 1_000_000)
    assert process.stdout is not None
    for _ in range(after):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    told = after + len(process.stdout.read().splitlines())
    process.wait(10)
    process.stdout.close()
    embedded = EmbeddedNetwork(tmp_path, image=memo_image())
    landed = len(embedded.signatures(bob, limit=10**6))
    assert landed >= told  # what was reported is there; one more may be
    assert landed <= told + 1
    assert embedded.balance(bob) == landed * 1_000_000
    assert embedded.transaction_count() == landed
    assert sqlite3.connect(embedded.path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    embedded.airdrop(bob, 1_000_000)  # the dead process holds no lock
    assert embedded.balance(bob) == (landed + 1) * 1_000_000


def test_threads_share_one_ledger(embedded: EmbeddedNetwork) -> None:
    bob = Keypair().pubkey()

    def work() -> None:
        for n in range(25):
            embedded.airdrop(bob, SOL)
            assert embedded.balance(bob) >= n * SOL

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert embedded.balance(bob) == 100 * SOL


def test_a_stuck_lock_is_one_clear_line(
    embedded: EmbeddedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr("chain.network.ledger.LOCK_SECONDS", 0.05)
    with open(tmp_path / "ledger.lock", "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert embedded.clock().slot == 0  # reading needs no lock
        with pytest.raises(ChainError, match="for 0 s"):
            embedded.airdrop(Keypair().pubkey(), SOL)


def test_program_accounts_are_filtered(embedded: EmbeddedNetwork) -> None:
    alice, keys = funded(embedded), [Keypair() for _ in range(3)]
    for size, key in zip((3, 5, 5), keys, strict=True):
        make = create_account(
            CreateAccountParams(
                from_pubkey=alice.pubkey(),
                to_pubkey=key.pubkey(),
                lamports=embedded.rent(size),
                space=size,
                owner=PROGRAM_ID,
            )
        )
        embedded.send(sign(alice, [make], embedded.latest_blockhash().hash, key))
    found = embedded.program_accounts(PROGRAM_ID)
    assert {key for key, _ in found} == {key.pubkey() for key in keys}
    assert len(embedded.program_accounts(PROGRAM_ID, size=5)) == 2
    assert len(embedded.program_accounts(PROGRAM_ID, size=5, memcmp=[(1, bytes(2))])) == 2
    assert embedded.program_accounts(PROGRAM_ID, memcmp=[(0, b"\1")]) == []
    assert embedded.program_accounts(PROGRAM_ID, memcmp=[(4, bytes(2))]) == []
    assert embedded.accounts([keys[0].pubkey(), Keypair().pubkey()])[1] is None


def deploy(embedded: EmbeddedNetwork, payer: Keypair, image: bytes) -> Pubkey:
    """Deploy through the upgradeable loader, as `solana program deploy` does."""
    buffer, program = Keypair(), Keypair()
    data, _ = Pubkey.find_program_address([bytes(program.pubkey())], LOADER)
    authority = AccountMeta(payer.pubkey(), True, False)

    def make(key: Keypair, size: int) -> Instruction:
        return create_account(
            CreateAccountParams(
                from_pubkey=payer.pubkey(),
                to_pubkey=key.pubkey(),
                lamports=embedded.rent(size),
                space=size,
                owner=LOADER,
            )
        )

    def write(offset: int) -> Instruction:
        piece = image[offset : offset + 800]
        header = (1).to_bytes(4, "little") + offset.to_bytes(4, "little") + len(piece).to_bytes(8, "little")
        return Instruction(LOADER, header + piece, [AccountMeta(buffer.pubkey(), False, True), authority])

    begin = Instruction(LOADER, bytes(4), [AccountMeta(buffer.pubkey(), False, True), authority])
    finish = Instruction(
        LOADER,
        (2).to_bytes(4, "little") + len(image).to_bytes(8, "little"),
        [
            AccountMeta(payer.pubkey(), True, True),
            AccountMeta(data, False, True),
            AccountMeta(program.pubkey(), False, True),
            AccountMeta(buffer.pubkey(), False, True),
            AccountMeta(RENT, False, False),
            AccountMeta(CLOCK_SYSVAR, False, False),
            AccountMeta(SYSTEM, False, False),
            authority,
        ],
    )
    embedded.send(sign(payer, [make(buffer, 37 + len(image)), begin], embedded.latest_blockhash().hash, buffer))
    for offset in range(0, len(image), 800):
        embedded.send(sign(payer, [write(offset)], embedded.latest_blockhash().hash))
    embedded.send(sign(payer, [make(program, 36), finish], embedded.latest_blockhash().hash, program))
    return program.pubkey()


def test_a_deployed_program_runs_for_every_opener(embedded: EmbeddedNetwork, tmp_path: Path, wall: Time) -> None:
    alice, other = funded(embedded), connect_again(tmp_path, wall)
    program = deploy(embedded, alice, memo_image())
    wall.seconds += 1
    for opened in (embedded, other, connect_again(tmp_path, wall)):
        signature = opened.send(memo(alice, b"hello", opened.latest_blockhash().hash, program))
        receipt = opened.confirm(signature, 0)
        assert any("hello" in line for line in receipt.logs)


def test_airdrops_are_bounded(embedded: EmbeddedNetwork) -> None:
    for lamports in (0, -1, 10**15 + 1):
        with pytest.raises(TransactionFailed, match="faucet pays"):
            embedded.airdrop(Keypair().pubkey(), lamports)
    with pytest.raises(TransactionRejected, match="rent"):
        embedded.airdrop(Keypair().pubkey(), 1)


def test_what_is_not_a_ledger_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database, but longer than a header of one" * 20)
    with pytest.raises(InvalidData, match="is not a ledger"):
        EmbeddedNetwork(tmp_path, image=memo_image())
    newer = tmp_path / "newer"
    EmbeddedNetwork(newer, image=memo_image()).close()
    with sqlite3.connect(newer / "ledger.sqlite") as db:
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(InvalidData, match="format 9"):
        EmbeddedNetwork(newer, image=memo_image())
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ChainError, match="cannot be used"):
        EmbeddedNetwork(tmp_path / "file", image=memo_image())


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (
            {"InstructionError": [2, {"Custom": 6012}]},
            6012,
            "instruction 2 returned the program error 6012 (0x177c)",
        ),
        (
            {"InstructionError": [0, "MissingRequiredSignature"]},
            None,
            "instruction 0 failed, missing required signature",
        ),
        ("BlockhashNotFound", None, "blockhash not found"),
        (
            {"InsufficientFundsForRent": {"account_index": 3}},
            None,
            "account 3 would not hold enough lamports to be exempt from rent",
        ),
        ({"Odd": "x" * 1000}, None, None),
        (None, None, None),
        (TransactionErrorInstructionError(1, InstructionErrorCustom(7)), 7, None),
        (TransactionErrorFieldless.AlreadyProcessed, None, None),
    ],
)
def test_errors_in_words(error: object, code: int | None, text: str | None) -> None:
    assert program_error_of(error) == code
    if isinstance(error, str | dict):
        assert len(error_text(error)) <= 200
        assert error_cure(error)
    if text is not None:
        assert error_text(error) == text


def test_connect_refuses_what_is_no_network(tmp_path: Path) -> None:
    for name in ("mars", "ftp://host", "http://"):
        with pytest.raises(ChainError, match="There is no network named"):
            connect(name, tmp_path)


def test_the_lock_and_ledger_stay_under_home(embedded: EmbeddedNetwork, tmp_path: Path) -> None:
    assert {path.name.split("-")[0] for path in tmp_path.iterdir()} == {"ledger.sqlite", "ledger.lock"}
    assert stat.S_ISREG(embedded.path.stat().st_mode)


def test_what_is_on_the_ledger_is_read_without_a_vm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, closed = Keypair(), Keypair()
    with closing(EmbeddedNetwork(tmp_path)) as first:
        first.airdrop(key.pubkey(), SOL)
        first.airdrop(closed.pubkey(), SOL)
        everything = SOL - FEE_PER_SIGNATURE
        first.send(pay(closed, key.pubkey(), everything, first.latest_blockhash().hash))
        held = first.account(key.pubkey())
        in_vm = first._state(key.pubkey())
    assert held == in_vm
    monkeypatch.setattr("chain.network.embedded.virtual_machine", lambda: pytest.fail("a VM was started"))
    with closing(EmbeddedNetwork(tmp_path)) as second:
        assert second.accounts([key.pubkey(), closed.pubkey()]) == [held, None]
        assert second.balance(key.pubkey()) == SOL + everything
        assert second.balance(closed.pubkey()) == 0
        assert second.program_accounts(PROGRAM_ID) == []
        assert second.blockhash_valid(second.latest_blockhash().hash)
        assert second.warp(60).slot > second.transaction_count() == 3


def test_old_transactions_are_pruned_and_their_space_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "KEPT", 10)
    monkeypatch.setattr(ledger, "_PRUNED", 5)
    key = Keypair().pubkey()
    with closing(EmbeddedNetwork(tmp_path)) as embedded:
        sent = []
        for number in range(60):
            sent.append(embedded.airdrop(key, SOL + number))
            if number == 3:
                early = embedded.clock().slot
                assert embedded.block_hash(early) is not None
        known = embedded.signatures(key)
        assert known == sent[::-1][: len(known)]
        assert 10 <= len(known) <= 20
        assert embedded.transaction(sent[0]) is None
        assert embedded.transaction_count() == 60
        assert embedded.balance(key) == sum(SOL + number for number in range(60))
        first = embedded.first_slot()
        assert first == embedded.history(key)[-1].slot > early
        assert embedded.block_hash(early) is embedded.block_hash(first - 1) is None
        hashes = [embedded.block_hash(slot) for slot in range(first, embedded.clock().slot)]
        assert None not in hashes
    with closing(EmbeddedNetwork(tmp_path)) as again:
        assert [again.block_hash(slot) for slot in range(first, first + len(hashes))] == hashes
        assert again.transaction_count() == 60
        with sqlite3.connect(again.path) as db:
            (rows,) = db.execute("SELECT count(DISTINCT slot) FROM touched").fetchone()
        db.close()
        assert rows == len(known)
