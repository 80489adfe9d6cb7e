"""Buying and selling within bounds, which the program itself does not have.

Rules, where a bound is given:

- The trade alone is simulated first, and its event says what it would give now. Where that is worse than asked,
  it is refused and nothing is sent.
- The transaction then carries a guard, a last step that fails unless the wallet holds at least what it held before
  and what was asked: a transfer to itself of that many tokens (buying) or lamports (selling). So where the price
  moves between simulation and landing the transaction fails as a whole, and only its fee is lost.
- A buy offers exactly what the simulated one spent, so what it spends per token stays within the bound as well.
- What is left: the guard counts what the wallet holds, not where it came from. Tokens or lamports that arrive from
  elsewhere between reading the balance and landing count as if the trade had given them. `Trade.short` says so
  afterwards, from the event of what landed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import TypeVar

from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.system_program import TransferParams, transfer

from chain.errors import InsufficientFunds, TransactionFailed
from chain.money.client import Client, Landed
from chain.network.base import sol
from chain.program.accounts import Project
from chain.program.errors import ProgramError
from chain.program.events import Bought, Sold
from chain.program.instructions import Buy, Sell
from chain.program.tokens import transfer_to_self

_Event = TypeVar("_Event", Bought, Sold)


class PriceMoved(TransactionFailed):
    """A trade that would give, or would have given, less than was asked."""


@dataclass(frozen=True, slots=True)
class Trade:
    """The result of a trade. `short`: it landed worse than asked, which only a balance that changed meanwhile does."""

    tokens: int
    lamports: int
    short: bool
    done: Landed


@dataclass(frozen=True, slots=True)
class Bounds:
    """The worst that is accepted, all of them together; None for no bound.

    `least` is tokens for a buy and lamports for a sale; `price` is lamports per token on average, at most for a buy
    and at least for a sale; `slippage` is how far, in percent, that average may be from the price of the next token.
    """

    least: int | None = None
    price: Decimal | None = None
    slippage: Decimal | None = None

    @property
    def any(self) -> bool:
        """Whether there is a bound at all."""
        return (self.least, self.price, self.slippage) != (None, None, None)

    def min_tokens(self, spent: int, next_price: int) -> int:
        """The fewest tokens that `spent` lamports must buy."""
        prices = [] if self.price is None else [self.price]
        if self.slippage is not None:
            prices.append(next_price * (1 + self.slippage / 100))
        needed = [_up(spent / price) if price > 0 else spent + 1 for price in prices]
        return max([1, self.least or 0, *needed])

    def min_lamports(self, sold: int, next_price: int) -> int:
        """The fewest lamports that `sold` tokens must bring."""
        prices = [] if self.price is None else [self.price]
        if self.slippage is not None:
            prices.append(next_price * (1 - self.slippage / 100))
        return max([0, self.least or 0, *(_up(sold * price) for price in prices)])


def _up(value: Decimal) -> int:
    return int(value.to_integral_value(ROUND_CEILING))


def buy(client: Client, buyer: Keypair, project: Project, lamports: int, bounds: Bounds) -> Trade:
    """Spend up to `lamports` on tokens within the bounds. Raises PriceMoved, and what `Client.execute` raises."""
    key = buyer.pubkey()

    def step(spend: int) -> Instruction:
        return client.instruction(Buy(project.id, spend), key)

    if not bounds.any:
        done = client.execute([step(lamports)], buyer)
        event = done.event(Bought)
        return Trade(event.tokens_out, event.lamports_spent, False, done)
    next_price = project.base_price + project.slope * client.supply(project)
    quote = _quoted(client, step(lamports), buyer, Bought)
    least = bounds.min_tokens(quote.lamports_spent, next_price)
    if quote.tokens_out < least:
        raise PriceMoved(
            f"{sol(quote.lamports_spent)} buys {quote.tokens_out:,} {project.token_symbol} now; your limit is "
            f"at least {least:,}.",
            "Nothing was sent. Spend less at a time, or accept a worse price.",
        )
    held = client.tokens(project, key)
    guard = transfer_to_self(key, project.mint, held + least)
    done = _guarded(lambda: client.execute([step(quote.lamports_spent), guard], buyer))
    event = done.event(Bought)
    return Trade(event.tokens_out, event.lamports_spent, event.tokens_out < least, done)


def sell(client: Client, seller: Keypair, project: Project, amount: int, bounds: Bounds) -> Trade:
    """Sell tokens back to the curve within the bounds. Raises PriceMoved, and what `Client.execute` raises."""
    key = seller.pubkey()
    tokens = client.tokens(project, key)
    if tokens < amount:
        lack = "there is nothing to sell" if tokens == 0 else f"you cannot sell {amount:,}"
        raise InsufficientFunds(f"You hold {tokens:,} {project.token_symbol}, so {lack}.")
    step = client.instruction(Sell(project.id, amount), key)
    if not bounds.any:
        done = client.execute([step], seller)
        event = done.event(Sold)
        return Trade(event.tokens_in, event.lamports_out, False, done)
    next_price = project.base_price + project.slope * max(0, client.supply(project) - 1)
    held = client.network.balance(key)
    quote = _quoted(client, step, seller, Sold)
    least = bounds.min_lamports(amount, next_price)
    if quote.lamports_out < least:
        raise PriceMoved(
            f"{amount:,} {project.token_symbol} bring {sol(quote.lamports_out)} now; your limit is at least "
            f"{sol(least)}.",
            "Nothing was sent. Sell fewer at a time, or accept a worse price.",
        )
    floor = max(0, held - client.fee_bound([step], key) + least)
    guard = transfer(TransferParams(from_pubkey=key, to_pubkey=key, lamports=floor))
    done = _guarded(lambda: client.execute([step, guard], seller))
    event = done.event(Sold)
    return Trade(event.tokens_in, event.lamports_out, event.lamports_out < least, done)


def _quoted(client: Client, step: Instruction, payer: Keypair, kind: type[_Event]) -> _Event:
    """The event that a trade would give now."""
    for event in client.preview([step], payer.pubkey()):
        if isinstance(event, kind):
            return event
    raise TransactionFailed(
        f"The simulation returned no event {kind.__name__}.", "This is not the program that this client supports."
    )


def _guarded(send: Callable[[], Landed]) -> Landed:
    """`send`, whose guard is the only step that can lack funds: the trade itself was simulated without it."""
    moved = PriceMoved(
        "The price moved before the transaction landed; you would have received less than you asked for.",
        "Nothing was traded. Check the price and try again.",
    )
    try:
        return send()
    except InsufficientFunds as error:
        raise moved from error
    except ProgramError as error:
        if error.code != 1:  # what both the token and the system program call a balance too small
            raise
        raise moved from error
