"""Paying an uploader on a real ledger: nothing is paid twice, whatever breaks between the steps."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature

from chain.commands.main import main
from chain.connection.opening import MINER
from chain.errors import ChainError, InsufficientFunds, InvalidData, NetworkUnreachable
from chain.irys.accounts import Accounts, Tariff, deposit_of
from chain.irys.client import Irys
from chain.irys.dataitem import DataItem
from chain.irys.funding import Deposit, Funding, State
from chain.irys.node import RunningNode, serve
from chain.irys.store import ContentCache
from chain.localnet import server
from chain.money.client import Client
from chain.network.embedded import EmbeddedNetwork
from chain.network.rpc import RpcNetwork
from chain.wallet import wallet
from tests import local
from tests.chain.networks import pay

TARIFF = Tariff(lamports_per_byte=2, free_bytes=1_000)
DATA = b"x" * 2_000


@dataclass
class World:
    """A ledger, a node that charges, and the miner's wallet."""

    home: Path
    embedded: EmbeddedNetwork
    node: RunningNode
    irys: Irys
    key: Keypair

    @property
    def address(self) -> Pubkey:
        return self.node.node.deposit_address

    def funding(self, network: Any = None, irys: Irys | None = None) -> Funding:
        return Funding(Client(network or self.embedded), irys or self.irys, self.key, self.home, sleep=lambda _: None)

    def transfers(self) -> int:
        """Transactions that name the deposit address, without the airdrop that opened it."""
        return len(self.embedded.signatures(self.address)) - 1

    def balance(self) -> int:
        return self.irys.balance(self.key.pubkey())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    home = local.home_with_project(tmp_path / "home")
    embedded = EmbeddedNetwork(home)
    with serve(home / "irys", tariff=TARIFF, network=embedded) as node, Irys.at(node.url, sleep=lambda _: None) as irys:
        yield World(home, embedded, node, irys, wallet.load(wallet.path_of(home, MINER)))
    embedded.close()


class Kill(Exception):
    """The process ends here."""


def kill() -> None:
    raise Kill


# -- paying -------------------------------------------------------------------------------------------


def test_402_names_the_command_that_pays_and_what_it_paid_is_used_once(world: World) -> None:
    item = DataItem.sign(world.key, DATA)
    cost = TARIFF.price(item.size)
    assert world.irys.price(item.size) == cost == 2 * item.size
    with pytest.raises(InsufficientFunds, match=f"Run `chain irys fund --lamports {cost}`"):
        world.irys.upload(item)
    assert not world.node.node.path(item.id).exists()

    done = world.funding().fund(cost + 7, world.address)
    assert (done.resumed, done.paid and done.paid.state) == ((), State.CREDITED)
    assert world.balance() == cost + 7
    assert world.irys.upload(item) is not None
    assert world.balance() == 7
    world.node.node.path(item.id).unlink()  # as after a crash between charge and store
    assert world.irys.upload(item) is not None
    assert world.irys.upload(item) is not None
    assert world.balance() == 7
    with pytest.raises(InsufficientFunds, match=rf"has 0\.000000007 SOL deposited.*fund --lamports {cost - 7}`"):
        world.irys.upload(DataItem.sign(world.key, DATA[::-1][:-1] + b"y"))
    assert world.irys.upload(DataItem.sign(world.key, b"free")) is not None


def test_a_large_item_that_is_not_paid_for_is_not_sent_at_all(world: World) -> None:
    with Irys.at(world.node.url, chunk_threshold=1_500, chunk_bytes=800_000) as irys:
        item = DataItem.sign(world.key, DATA)
        with pytest.raises(InsufficientFunds, match="known before sending"):
            irys.upload(item)
        assert not (world.node.node.store / "chunks").exists()
        world.funding().fund(TARIFF.price(item.size), world.address)
        assert irys.upload(item) is not None
    assert world.balance() == 0


@pytest.mark.parametrize("step", ["simulate", "send"])
def test_a_kill_before_sending_pays_nothing_and_the_next_run_pays_once(world: World, step: str) -> None:
    broken = local.Watched(world.embedded, **{step: kill})
    with pytest.raises(Kill):
        world.funding(broken).fund(5_000, world.address)
    assert world.transfers() == 0
    assert len(world.funding().open()) == (step == "send")
    done = world.funding().fund(5_000, world.address)
    assert [deposit.state for deposit in done.resumed] == [State.DEAD] * (step == "send")
    assert (done.paid and done.paid.state, world.transfers(), world.balance()) == (State.CREDITED, 1, 5_000)


def test_a_kill_after_sending_is_finished_by_the_next_run_without_paying_again(world: World) -> None:
    with pytest.raises(Kill):
        world.funding(local.Watched(world.embedded, confirm=kill)).fund(5_000, world.address)
    assert (world.transfers(), world.balance()) == (1, 0)
    done = world.funding().fund(9_000, world.address)
    assert [(deposit.lamports, deposit.state) for deposit in done.resumed] == [(5_000, State.CREDITED)]
    assert (done.paid, world.transfers(), world.balance()) == (None, 1, 5_000)
    assert world.funding().open() == []
    world.funding().fund(9_000, world.address)
    assert (world.transfers(), world.balance()) == (2, 14_000)


def test_an_uploader_that_does_not_credit_is_asked_again_later(world: World) -> None:
    waits: list[float] = []
    with Irys.at("http://127.0.0.1:1", attempts=1) as absent:
        absent.endpoints = dataclasses.replace(absent.endpoints, uploader=world.node.url)
        absent.post_deposit = kill_with(NetworkUnreachable("It is away."))  # type: ignore[method-assign]
        funding = Funding(Client(world.embedded), absent, world.key, world.home, sleep=waits.append)
        with pytest.raises(NetworkUnreachable, match="The transfer is recorded") as caught:
            funding.fund(5_000, world.address)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert "chain irys fund" in caught.value.cure
    done = world.funding().fund(0, world.address)
    assert ([deposit.state for deposit in done.resumed], done.paid) == ([State.CREDITED], None)
    assert (world.transfers(), world.balance()) == (1, 5_000)


def kill_with(error: ChainError) -> Any:
    def post(_: str) -> None:
        raise error

    return post


def test_a_deposit_open_on_another_network_is_finished_there_first(world: World) -> None:
    with pytest.raises(Kill):
        world.funding(local.Watched(world.embedded, confirm=kill)).fund(5_000, world.address)
    with server.serve(world.embedded, port=0).start() as node:
        rpc = RpcNetwork(node.url)
        with pytest.raises(ChainError, match="Finish it first with `chain irys fund --network embedded`"):
            world.funding(rpc).fund(5_000, world.address)
        rpc.close()
    assert world.transfers() == 1


def test_a_damaged_record_is_refused_not_skipped(world: World) -> None:
    world.funding().fund(5_000, world.address)
    (path,) = (world.home / "deposits").glob("*.json")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InvalidData, match=r"is damaged.*before you pay again"):
        world.funding().fund(5_000, world.address)
    assert world.transfers() == 1


@given(
    st.dictionaries(
        st.sampled_from([*Deposit.__dataclass_fields__, "more"]), st.none() | st.text("abc01") | st.integers()
    )
)
def test_records_are_read_strictly(change: dict[str, object]) -> None:
    good = Deposit(str(Signature.default()), 1, 2, "p", "a", "u", "n")
    assert Deposit.parse(good.dump()) == good
    try:
        changed = Deposit.parse(json.dumps({**json.loads(good.dump()), **change}).encode())
    except InvalidData:
        return
    assert changed == dataclasses.replace(good, **change)  # type: ignore[arg-type]


# -- the node -----------------------------------------------------------------------------------------


def test_only_transfers_to_the_node_are_credited(world: World) -> None:
    stranger = Keypair()
    world.embedded.airdrop(stranger.pubkey(), 10**9)
    blockhash = world.embedded.latest_blockhash().hash
    other = world.embedded.send(pay(stranger, Keypair().pubkey(), 10**6, blockhash))
    with pytest.raises(InvalidData, match="transfers nothing to"):
        world.irys.post_deposit(str(other))
    unknown = stranger.sign_message(b"no transaction")
    assert httpx.post(f"{world.node.url}/account/balance/solana", json={"tx_id": str(unknown)}).status_code == 404
    good = world.embedded.send(pay(stranger, world.address, 10**6, blockhash))
    for _ in range(3):
        world.irys.post_deposit(str(good))
    assert world.irys.balance(stranger.pubkey()) == 10**6
    assert world.balance() == 0
    receipt = world.embedded.transaction(good)
    assert receipt is not None
    assert deposit_of(receipt, good, world.address) == (stranger.pubkey(), 10**6)
    with pytest.raises(InvalidData):
        deposit_of(dataclasses.replace(receipt, error="it failed"), good, world.address)


def test_a_tariff() -> None:
    assert [Tariff(3, 10).price(size) for size in (0, 10, 11)] == [0, 0, 33]


def test_accounts_are_charged_once_and_never_below_zero(tmp_path: Path) -> None:
    accounts, owner = Accounts(tmp_path), Keypair().pubkey()
    item = DataItem.sign(Keypair(), b"x").id
    with pytest.raises(InsufficientFunds, match="has 0 SOL deposited"):
        accounts.charge(owner, item, 1)
    accounts.credit(owner, Keypair().sign_message(b""), 10)
    for _ in range(2):
        accounts.charge(owner, item, 10)
    assert accounts.balance(owner) == 0


# -- the commands, through JSON-RPC -------------------------------------------------------------------


def chain(*arguments: object, stdin: str = "") -> Result:
    given = [str(argument) for argument in arguments]
    return CliRunner().invoke(main, given, input=stdin, env={"ARMLX_NETWORK": None, "ARMLX_IRYS": None})


def test_the_commands_through_json_rpc(world: World, tmp_path: Path) -> None:
    with server.serve(world.embedded, port=0).start() as node:
        where = ("--home", world.home, "--network", node.url, "--irys", world.node.url)

        def ask(*arguments: object) -> Any:
            result = chain("irys", *arguments, *where, "--json")
            assert result.exit_code == 0, result.output
            return json.loads(result.stdout)

        file = tmp_path / "trace.jsonl"
        file.write_bytes(DATA)
        assert ask("price", 5_000)["lamports"] == 10_000
        assert ask("balance")["lamports"] == 0
        refused = chain("irys", "upload", file, "--role", "minerTrace", *where)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "chain irys fund" in refused.stderr

        said_no = chain("irys", "fund", "--lamports", 10_000, *where, stdin="n\n")
        assert (said_no.exit_code, world.transfers()) == (1, 0)
        assert str(world.address) in said_no.stderr
        assert ask("fund", "--lamports", 10_000, "--yes")["paid"]["state"] == "credited"
        assert ask("fund") == {"resumed": [], "paid": None, "balance": 10_000, "uploader": world.node.url}
        poor = chain("irys", "fund", "--lamports", 10**15, "--yes", *where)
        assert (poor.exit_code, "Send it at least" in poor.stderr) == (1, True)

        stored = ask("upload", file, "--role", "minerTrace")
        assert stored["receipt"]["id"] == stored["id"]
        assert ask("upload", file, "--role", "minerTrace")["receipt"]["timestamp"] == stored["receipt"]["timestamp"]
        assert ask("balance")["lamports"] == 10_000 - 2 * stored["bytes"]

        for number, more in enumerate(((), ("--sha256", stored["sha256"]), ("--owner", world.key.pubkey()))):
            output = tmp_path / f"fetched-{number}"
            found = ask("get", stored["id"], "-o", output, *more)
            assert output.read_bytes() == DATA
            assert found["owner"] == str(world.key.pubkey())
            assert {"name": "Artifact-Role", "value": "minerTrace"} in found["tags"]
        for bad, words in (
            (("get", stored["id"], "-o", file), "exists"),
            (("get", stored["id"], "-o", tmp_path / "no", "--sha256", "ab" * 32), "ab" * 32),
            (("get", stored["id"], "-o", tmp_path / "no", "--owner", Keypair().pubkey()), "someone else"),
            (("get", stored["id"], "-o", tmp_path / "no", "--max-bytes", 10), "more than 10 bytes"),
            (("upload", file, "--role", "nonsense"), "not an artifact role"),
        ):
            result = chain("irys", *bad, *where)
            assert (result.exit_code, words in result.stderr, result.stdout) == (1, True, ""), result.output
        assert not (tmp_path / "no").exists()


def test_the_cache_command(world: World) -> None:
    cache = world.home / "cache"

    def ask(*arguments: object) -> Any:
        return json.loads(chain("irys", "cache", "--home", world.home, "--json", *arguments).stdout)

    before = ask()["files"]
    with Irys.at(world.node.url, cache=cache) as irys:
        for data in (b"one", b"two"):
            irys.upload(DataItem.sign(world.key, data))
    digest = DataItem.sign(world.key, b"one").sha256
    kept = ContentCache(cache)
    assert kept.get(digest, 3) == b"one"
    kept.path(digest).write_bytes(b"0ne")
    assert ask()["files"] == before + 2
    assert ask("--verify")["damaged"] == [digest.hex()]
    assert ask("--prune", 0)["files"] == 0
