"""`chain token`: buy, sell and count a project's tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from chain.commands import KEYPAIR, connected
from chain.options import answer, common


@click.group()
def token() -> None:
    """Buy, sell and count a project's tokens."""


def trade(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option(
            "--project", "project_id", type=click.IntRange(0), default=0, show_default=True, help="Project id."
        ),
        click.option("--keypair", help=KEYPAIR + " [default: miner]"),
    ]
    for option in reversed(options):
        command = option(command)
    return common(command)


@token.command("buy")
@trade
@click.argument("lamports", type=click.IntRange(1))
def token_buy(home: Path, network: str, as_json: bool, project_id: int, keypair: str | None, lamports: int) -> None:
    """Spend up to LAMPORTS on tokens at the curve's price."""
    from chain.interface import Bought
    from chain.session import MINER

    with connected(network, home) as connection:
        found = connection.client.project(project_id)
        event = connection.client.buy(connection.wallet(keypair, MINER), found, lamports).event(Bought)
        answer(
            as_json,
            {"tokens": event.tokens_out, "lamports": event.lamports_spent},
            f"bought {event.tokens_out} {found.token_symbol} for {event.lamports_spent:,} lamports",
        )


@token.command("sell")
@trade
@click.argument("amount", type=click.IntRange(1))
def token_sell(home: Path, network: str, as_json: bool, project_id: int, keypair: str | None, amount: int) -> None:
    """Sell AMOUNT tokens back to the curve."""
    from chain.interface import Sold
    from chain.session import MINER

    with connected(network, home) as connection:
        found = connection.client.project(project_id)
        event = connection.client.sell(connection.wallet(keypair, MINER), found, amount).event(Sold)
        answer(
            as_json,
            {"tokens": event.tokens_in, "lamports": event.lamports_out},
            f"sold {event.tokens_in} {found.token_symbol} for {event.lamports_out:,} lamports",
        )


@token.command("balance")
@trade
def token_balance(home: Path, network: str, as_json: bool, project_id: int, keypair: str | None) -> None:
    """Tokens that a wallet holds, and what it may claim."""
    from chain.session import MINER

    with connected(network, home) as connection:
        found = connection.client.project(project_id)
        key = connection.wallet(keypair, MINER).pubkey()
        held, claimable = connection.client.tokens(found, key), connection.client.claimable(project_id, key)
        answer(
            as_json,
            {"address": str(key), "tokens": held, "claimable": claimable},
            f"{key} holds {held} {found.token_symbol}, may claim {claimable}",
        )
