"""`chain token`: buy and sell a project's tokens, show balances, claim rewards."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chain.commands import Sol, amount, connected, keypair_option, project_option
from chain.commands.options import Commands, Whole, answer, common, reading

if TYPE_CHECKING:
    from chain.money.trade import Trade

_SLIPPAGE = "Allow the average price to differ by this much from the next token's, for example 2.5."
_LANDED_SHORT = (
    "warning: the trade landed at a worse price than you allowed. The wallet's balance changed at the same time, so "
    "the guard in the transaction did not notice."
)


def _price(context: click.Context, parameter: click.Parameter, value: str | None) -> Decimal | None:
    """A price in SOL, as lamports; it may have fractions of them."""
    number = _number(context, parameter, value)
    return None if number is None else number * 10**9


def _number(context: click.Context, parameter: click.Parameter, value: str | None) -> Decimal | None:
    """A decimal number from 0 to 10^12."""
    if value is None:
        return None
    try:
        number = Decimal(value)
        fits = number == 0 or Decimal("1e-18") <= number <= 10**12
    except ArithmeticError:
        fits = False
    if not fits:
        raise click.BadParameter(f"{value!r} is not a number from 0 to 10^12.", context, parameter)
    return number


@click.group(cls=Commands)
def token() -> None:
    """Buy and sell a project's tokens, claim rewards.

    The program itself does not limit a trade's price. With --slippage or another limit, a trade is simulated first,
    refused if it is worse than you allow, and sent with a guard that makes it fail if the price moves before it lands.
    One gap remains: tokens or SOL that reach the wallet from elsewhere in those seconds count as part of the trade. The
    result is checked again afterwards.
    """


def _trade(command: Callable[..., Any]) -> Callable[..., Any]:
    return common(project_option("project_id")(keypair_option("miner")(command)))


@token.command(
    "buy",
    examples=(
        "chain token buy 0.05",
        "chain token buy 0.05 --slippage 2 --network devnet",
        "chain token buy --lamports 303000 --min-tokens 3",
    ),
)
@_trade
@click.option("--min-tokens", metavar="TOKENS", type=Whole(1), help="Refuse to receive fewer tokens.")
@click.option("--max-price", callback=_price, metavar="SOL", help="Refuse a higher average price per token.")
@click.option("--slippage", callback=_number, metavar="PERCENT", help=_SLIPPAGE)
@amount
def token_buy(
    home: Path,
    network: str,
    as_json: bool,
    project_id: int,
    keypair: str | None,
    min_tokens: int | None,
    max_price: Decimal | None,
    slippage: Decimal | None,
    lamports: int | None,
) -> None:
    """Buy tokens for up to SOL, at the curve's price."""
    if lamports is None:
        raise click.UsageError("Give an amount in SOL, for example 0.05.")
    from chain.connection.opening import MINER
    from chain.money import trade
    from chain.network.base import sol

    with connected(network, home) as connection:
        found = connection.client.project(project_id)
        bounds = trade.Bounds(min_tokens, max_price, slippage)
        done = trade.buy(connection.client, connection.wallet(keypair, MINER), found, lamports, bounds)
        _say(as_json, done, f"bought {done.tokens} {found.token_symbol} for {sol(done.lamports)}")


@token.command(
    "sell", examples=("chain token sell 3", "chain token sell 3 --slippage 2", "chain token sell 3 --min-sol 0.0003")
)
@_trade
@click.option("--min-sol", type=Sol(), help="Refuse to receive less for all of them.")
@click.option("--slippage", callback=_number, metavar="PERCENT", help=_SLIPPAGE)
@click.argument("amount", type=Whole(1))
def token_sell(
    home: Path,
    network: str,
    as_json: bool,
    project_id: int,
    keypair: str | None,
    min_sol: int | None,
    slippage: Decimal | None,
    amount: int,
) -> None:
    """Sell AMOUNT tokens back to the curve."""
    from chain.connection.opening import MINER
    from chain.money import trade
    from chain.network.base import sol

    with connected(network, home) as connection:
        found = connection.client.project(project_id)
        bounds = trade.Bounds(min_sol, None, slippage)
        done = trade.sell(connection.client, connection.wallet(keypair, MINER), found, amount, bounds)
        _say(as_json, done, f"sold {done.tokens} {found.token_symbol} for {sol(done.lamports)}")


def _say(as_json: bool, done: Trade, text: str) -> None:
    if done.short:
        click.echo(_LANDED_SHORT, err=True)
    answer(as_json, {"tokens": done.tokens, "lamports": done.lamports}, text)


@token.command("balance", examples=("chain token balance", "chain token balance --keypair verifier --json"))
@reading
@project_option("project_id")
@keypair_option("miner")
def token_balance(home: Path, network: str, as_json: bool, project_id: int, keypair: str | None) -> None:
    """Show the tokens that a wallet holds and can claim."""
    from chain.connection.opening import MINER

    with connected(network, home) as connection:
        found = connection.client.project(project_id)
        key = connection.address(keypair, MINER)
        held, claimable = connection.client.tokens(found, key), connection.client.claimable(project_id, key)
        answer(
            as_json,
            {"address": str(key), "tokens": held, "claimable": claimable},
            f"{key} holds {held} {found.token_symbol}, can claim {claimable}",
        )


@token.command("claim-reward", examples=("chain token claim-reward", "chain token claim-reward --keypair verifier"))
@_trade
def token_claim_reward(home: Path, network: str, as_json: bool, project_id: int, keypair: str | None) -> None:
    """Claim your share of slashed stakes.

    `chain token balance` shows how much can be claimed.
    """
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
