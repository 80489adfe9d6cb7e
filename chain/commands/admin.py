"""`chain admin`: what only the program's authority may do, besides its list of verifiers."""

from __future__ import annotations

from pathlib import Path

import click

from chain.commands import address_of, connected, keypair_option, typed
from chain.commands.options import answer, common

_CONFIRM = "What would have to be typed, for scripts."


@click.group()
def admin() -> None:
    """The program's global configuration and its authority; `chain verifier` changes the allowlist."""


@admin.command()
@common
@keypair_option("authority")
def initialize(home: Path, network: str, as_json: bool, keypair: str | None) -> None:
    """Create the program's configuration, once; the signer becomes its authority."""
    from chain.connection.opening import AUTHORITY
    from chain.program.instructions import Initialize

    with connected(network, home) as connection:
        key = connection.wallet(keypair, AUTHORITY)
        done = connection.client.call(Initialize(), key)
        answer(
            as_json,
            {"authority": str(key.pubkey()), "signature": str(done.receipt.signature)},
            f"initialized, the authority is {key.pubkey()}",
        )


@admin.command()
@common
@keypair_option("authority")
@click.option("--confirm", metavar="ADDRESS", help=_CONFIRM)
@click.argument("new_authority")
def transfer(
    home: Path, network: str, as_json: bool, keypair: str | None, confirm: str | None, new_authority: str
) -> None:
    """Hand the authority to NEW_AUTHORITY (an address, or a wallet's name); asks for its address to be typed.

    Only the new authority can give it back.
    """
    from chain.connection.opening import AUTHORITY
    from chain.program.events import OwnershipTransferred
    from chain.program.instructions import TransferAuthority

    with connected(network, home) as connection:
        new = address_of(home, new_authority)
        typed(str(new), confirm, f"The authority of the program on {network} goes to {new}; only that key can undo it.")
        done = connection.client.call(TransferAuthority(new), connection.wallet(keypair, AUTHORITY))
        event = done.event(OwnershipTransferred)
        answer(
            as_json,
            {
                "previous": str(event.previous_owner),
                "authority": str(event.new_owner),
                "signature": str(done.receipt.signature),
            },
            f"the authority is now {event.new_owner}",
        )


@admin.command()
@common
@keypair_option("authority")
@click.option("--confirm", metavar="WORD", help=_CONFIRM)
def renounce(home: Path, network: str, as_json: bool, keypair: str | None, confirm: str | None) -> None:
    """Give the authority up for good: nobody can ever change the list of verifiers again.

    Asks for the word "renounce" to be typed.
    """
    from chain.connection.opening import AUTHORITY
    from chain.program.events import OwnershipTransferred
    from chain.program.instructions import RenounceAuthority

    with connected(network, home) as connection:
        typed("renounce", confirm, f"Nobody will ever again add or remove a verifier on {network}.")
        done = connection.client.call(RenounceAuthority(), connection.wallet(keypair, AUTHORITY))
        event = done.event(OwnershipTransferred)
        answer(
            as_json,
            {"previous": str(event.previous_owner), "authority": None, "signature": str(done.receipt.signature)},
            "renounced: the program has no authority any more",
        )
