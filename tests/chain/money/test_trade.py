"""Trades within bounds: refused when worse than asked, failing as a whole when the price moves before landing."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.keypair import Keypair

from chain.connection.opening import Connection
from chain.localnet.server import serve
from chain.money.client import Client
from chain.money.trade import Bounds, PriceMoved, buy, sell
from chain.network.embedded import EmbeddedNetwork
from chain.program.instructions import Buy, Sell
from tests import local
from tests.chain.commands.test_cli import ask, chain, refused


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with local.connect(local.home_with_project(tmp_path)) as connection:
        yield connection


@pytest.mark.parametrize(
    ("bounds", "tokens", "lamports"),
    [
        (Bounds(), 1, 0),
        (Bounds(least=7), 7, 7),
        (Bounds(price=Decimal(100)), 10, 500),
        (Bounds(price=Decimal("99.9")), 11, 500),  # 999.0 lamports buy ten at most; 5 x 99.9 rounds up
        (Bounds(price=Decimal(0)), 1_001, 0),
        (Bounds(slippage=Decimal(0)), 10, 500),
        (Bounds(slippage=Decimal(25)), 8, 375),
        (Bounds(slippage=Decimal(150)), 4, 0),
        (Bounds(least=9, slippage=Decimal(25)), 9, 375),
        (Bounds(least=400, price=Decimal(10), slippage=Decimal(0)), 400, 500),
    ],
)
def test_bounds(bounds: Bounds, tokens: int, lamports: int) -> None:
    """1,000 lamports spent, or 5 tokens sold, at 100 lamports for the next token."""
    assert bounds.min_tokens(1_000, 100) == tokens
    assert bounds.min_lamports(5, 100) == lamports


@given(spent=st.integers(1, 10**12), price=st.decimals("0.001", "1e9", places=3), tokens=st.integers(1, 10**9))
def test_as_many_tokens_keep_the_price(spent: int, price: Decimal, tokens: int) -> None:
    least = Bounds(price=price).min_tokens(spent, 1)
    assert (tokens >= least) == (spent <= price * tokens)
    assert Bounds(price=price).min_lamports(tokens, 1) >= price * tokens


@pytest.mark.parametrize(
    "bounds", [Bounds(), Bounds(least=3), Bounds(price=Decimal(1_010)), Bounds(slippage=Decimal(1))]
)
def test_a_trade_within_its_bounds(connection: Connection, bounds: Bounds) -> None:
    client, miner, project = connection.client, local.miner_of(connection), connection.client.project(0)
    done = buy(client, miner, project, local.cost(0, 3) + 400, bounds)
    assert (done.tokens, done.lamports, done.short) == (3, local.cost(0, 3), False)
    sold = sell(client, miner, project, 3, Bounds(least=local.cost(0, 3)))
    assert (sold.tokens, sold.lamports, sold.short) == (3, local.cost(0, 3), False)
    assert client.tokens(project, miner.pubkey()) == 0


@pytest.mark.parametrize(
    "bounds",
    [Bounds(least=4), Bounds(price=Decimal("1009.9")), Bounds(slippage=Decimal("0.9")), Bounds(price=Decimal(0))],
)
def test_a_buy_worse_than_asked_is_not_sent(connection: Connection, bounds: Bounds) -> None:
    client, network = local.watched(connection)
    with pytest.raises(PriceMoved, match=r"0\.00000303 SOL buys 3 TST now") as refusal:
        buy(client, local.miner_of(connection), client.project(0), local.cost(0, 3), bounds)
    assert "Nothing was sent" in refusal.value.cure
    assert "send" not in network.calls


def test_a_sale_worse_than_asked_is_not_sent(connection: Connection) -> None:
    client, network = local.watched(connection)
    miner, project = local.miner_of(connection), client.project(0)
    client.call(Buy(project.id, local.cost(0, 3)), miner)
    network.calls.clear()
    for bounds in (Bounds(least=local.cost(0, 3) + 1), Bounds(slippage=Decimal("0.9")), Bounds(price=Decimal(1_011))):
        with pytest.raises(PriceMoved, match=r"3 TST bring 0\.00000303 SOL now"):
            sell(client, miner, project, 3, bounds)
    assert "send" not in network.calls


def rival(connection: Connection) -> tuple[Client, Keypair]:
    return Client(local.embedded_of(connection)), local.stranger(connection)


@pytest.mark.parametrize(("moment", "fee"), [("send", 0), ("simulate", 0), ("send", 1_000_000), ("simulate", "auto")])
def test_a_price_that_moves_before_landing_trades_nothing(connection: Connection, moment: str, fee: int) -> None:
    """Somebody buys, or sells, between our quote and our landing: the guard makes the whole transaction fail."""
    miner, (other, whale) = local.miner_of(connection), rival(connection)
    project = other.project(0)
    embedded = local.embedded_of(connection)

    def client(rush: object) -> Client:
        # the first simulation is the quote, the one before sending comes later
        calls = {"send": rush} if moment == "send" else {}
        network = local.Watched(embedded, **calls)
        if moment == "simulate":
            network._before["simulate"] = lambda: network._before.update(simulate=rush)
        return Client(network, priority_fee=fee)

    with pytest.raises(PriceMoved, match="price moved") as refusal:
        buy(
            client(lambda: other.call(Buy(project.id, local.cost(0, 50)), whale)),
            miner,
            project,
            local.cost(0, 9),
            Bounds(least=9),
        )
    assert "Nothing was traded" in refusal.value.cure
    assert other.tokens(project, miner.pubkey()) == 0
    other.call(Buy(project.id, local.cost(50, 9)), miner)
    least = local.cost(50, 9)
    with pytest.raises(PriceMoved, match="price moved"):
        sell(client(lambda: other.call(Sell(project.id, 50), whale)), miner, project, 9, Bounds(least=least))
    assert other.tokens(project, miner.pubkey()) == 9


def test_a_better_price_is_taken(connection: Connection) -> None:
    miner, (other, whale) = local.miner_of(connection), rival(connection)
    project = other.project(0)
    other.call(Buy(project.id, local.cost(0, 50)), whale)
    client, _ = local.watched(connection, send=lambda: other.call(Sell(project.id, 50), whale))
    done = buy(client, miner, project, local.cost(50, 9), Bounds(least=9))
    assert done.tokens > 9
    assert done.lamports <= local.cost(50, 9)


def test_what_the_guard_does_not_see_is_said(connection: Connection) -> None:
    """Tokens that arrive from elsewhere meanwhile stand in for those that the trade no longer gives."""
    miner, (other, whale) = local.miner_of(connection), rival(connection)
    project = other.project(0)

    def rush() -> None:
        other.call(Buy(project.id, local.cost(0, 50)), whale)
        other.call(Buy(project.id, local.cost(50, 9)), miner)

    client, _ = local.watched(connection, send=rush)
    done = buy(client, miner, project, local.cost(0, 9), Bounds(least=9))
    assert done.short
    assert 0 < done.tokens < 9


# --- on the command line, also over HTTP ---


@pytest.mark.parametrize("over_http", [False, True])
def test_the_options(tmp_path: Path, over_http: bool) -> None:
    home = local.home_with_project(tmp_path)
    embedded = EmbeddedNetwork(home)
    with serve(embedded, port=0).start() as server:
        over = ["--network", server.url] if over_http else []
        paid = local.cost(0, 3)
        refused(
            chain(home, "token", "buy", "--lamports", paid, "--min-tokens", 4, *over),
            "your limit is at least 4",
            "Nothing was sent",
        )
        refused(
            chain(home, "token", "buy", "--lamports", paid, "--max-price", "0.0000010095", *over),
            "your limit is at least 4",
        )
        refused(chain(home, "token", "buy", "--lamports", paid, "--slippage", "0.5", *over), "Nothing was sent")
        refused(chain(home, "token", "buy", "--lamports", paid, "--slippage", "nan", *over), "--slippage", code=2)
        bounds = ["--min-tokens", 3, "--max-price", "0.00000101", "--slippage", 1]
        assert ask(home, "token", "buy", "--lamports", paid, *bounds, *over) == {"tokens": 3, "lamports": paid}
        refused(chain(home, "token", "sell", 3, "--min-sol", "0.000003031", *over), "bring 0.00000303 SOL now")
        sold = ask(home, "token", "sell", 3, "--min-sol", "0.00000303", "--slippage", "1.5", *over)
        assert sold == {"tokens": 3, "lamports": paid}
    embedded.close()
