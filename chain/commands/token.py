"""`chain token`: buy, sell and count a project's tokens, and claim rewards."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chain.commands import connected, keypair_option
from chain.commands.options import answer, common

if TYPE_CHECKING:
    from chain.money.trade import Trade

_SLIPPAGE = "How far the average price may be from that of the next token, for instance 2.5."
_LANDED_SHORT = (
    "warning: it landed worse than asked. The wallet's balance changed from elsewhere meanwhile, so the transaction's "
    "guard did not see it."
)


def _number(context: click.Context, parameter: click.Parameter, value: str | None) -> Decimal | None:
    """A decimal number from 0 to 10^12."""
    if value is None:
        return None
    try:
        number = Decimal(value)
        fits = number == 0 or Decimal("1e-9") <= number <= 10**12
    except ArithmeticError:
        fits = False
    if not fits:
        raise click.BadParameter(f"{value!r} is not a number from 0 to 10^12.", context, parameter)
    return number


@click.group()
def token() -> None:
    """Buy, sell and count a project's tokens, and claim rewards.

    The program has no bounds of its own on a trade's price. With one of the options for it a trade is simulated first,
    refused where it is worse than asked, and sent with a guard that makes it fail as a whole should the price move
    before it lands. What is left: tokens or SOL that reach the wallet from elsewhere in these seconds count as if the
    trade had given them; the result is checked again afterwards.
    """


def _trade(command: Callable[..., Any]) -> Callable[..., Any]:
    project = click.option(
        "--project", "project_id", type=click.IntRange(0), default=0, show_default=True, help="Project id."
    )
    return common(project(keypair_option("miner")(command)))


@token.command("buy")
@_trade
@click.option("--min-tokens", type=click.IntRange(1), help="Refuse to get fewer than this.")
@click.option("--max-price", callback=_number, metavar="LAMPORTS", help="Refuse to pay more per token on average.")
@click.option("--slippage", callback=_number, metavar="PERCENT", help=_SLIPPAGE)
@click.argument("lamports", type=click.IntRange(1))
def token_buy(
    home: Path,
    network: str,
    as_json: bool,
    project_id: int,
    keypair: str | None,
    min_tokens: int | None,
    max_price: Decimal | None,
    slippage: Decimal | None,
    lamports: int,
) -> None:
    """Spend up to LAMPORTS on tokens at the curve's price."""
    from chain.connection.opening import MINER
    from chain.money import trade

    with connected(network, home) as connection:
        found = connection.client.project(project_id)
        bounds = trade.Bounds(min_tokens, max_price, slippage)
        done = trade.buy(connection.client, connection.wallet(keypair, MINER), found, lamports, bounds)
        _say(as_json, done, f"bought {done.tokens} {found.token_symbol} for {done.lamports:,} lamports")


@token.command("sell")
@_trade
@click.option("--min-lamports", type=click.IntRange(1), help="Refuse to get fewer than this for all of them.")
@click.option("--slippage", callback=_number, metavar="PERCENT", help=_SLIPPAGE)
@click.argument("amount", type=click.IntRange(1))
def token_sell(
    home: Path,
    network: str,
    as_json: bool,
    project_id: int,
    keypair: str | None,
    min_lamports: int | None,
    slippage: Decimal | None,
    amount: int,
) -> None:
    """Sell AMOUNT tokens back to the curve."""
    from chain.connection.opening import MINER
    from chain.money import trade

    with connected(network, home) as connection:
        found = connection.client.project(project_id)
        bounds = trade.Bounds(min_lamports, None, slippage)
        done = trade.sell(connection.client, connection.wallet(keypair, MINER), found, amount, bounds)
        _say(as_json, done, f"sold {done.tokens} {found.token_symbol} for {done.lamports:,} lamports")


def _say(as_json: bool, done: Trade, text: str) -> None:
    if done.short:
        click.echo(_LANDED_SHORT, err=True)
    answer(as_json, {"tokens": done.tokens, "lamports": done.lamports}, text)


@token.command("balance")
@_trade
def token_balance(home: Path, network: str, as_json: bool, project_id: int, keypair: str | None) -> None:
    """Tokens that a wallet holds, and what it may claim."""
    from chain.connection.opening import MINER

    with connected(network, home) as connection:
        found = connection.client.project(project_id)
        key = connection.wallet(keypair, MINER).pubkey()
        held, claimable = connection.client.tokens(found, key), connection.client.claimable(project_id, key)
        answer(
            as_json,
            {"address": str(key), "tokens": held, "claimable": claimable},
            f"{key} holds {held} {found.token_symbol}, may claim {claimable}",
        )


@token.command("claim-reward")
@_trade
def token_claim_reward(home: Path, network: str, as_json: bool, project_id: int, keypair: str | None) -> None:
    """Take out what slashed stakes have made claimable, as `chain token balance` shows it."""
    from chain.connection.opening import MINER
    from chain.program.events import RewardClaimed

    with connected(network, home) as connection:
        found = connection.client.project(project_id)
        done = connection.client.claim_reward(connection.wallet(keypair, MINER), found)
        event = done.event(RewardClaimed)
        answer(
            as_json,
            {"address": str(event.account), "tokens": event.amount, "signature": str(done.receipt.signature)},
            f"claimed {event.amount} {found.token_symbol}",
        )
