"""`chain admin`: actions of the program's authority, apart from the allowlist of verifiers."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from chain.commands import address_of, connected, keypair_option, typed
from chain.commands.options import Commands, answer, common

_CONFIRM = "Confirm in advance, for scripts."


@click.group(cls=Commands)
def admin() -> None:
    """Set up the program and hand over its authority.

    `chain verifier` changes the allowlist of verifiers.
    """


@admin.command(examples=("chain admin initialize --network localnet",))
@common
@keypair_option("authority")
def initialize(home: Path, network: str, as_json: bool, keypair: str | None) -> None:
    """Create the program's configuration, once.

    The signer becomes the program's authority.
    """
    from chain.connection.opening import AUTHORITY
    from chain.errors import ChainError, NotFound
    from chain.program.instructions import Initialize

    with connected(network, home) as connection:
        with contextlib.suppress(NotFound):
            authority = connection.client.config().authority
            raise ChainError(f"The program is initialized already; its authority is {authority}.", "Nothing was sent.")
        key = connection.wallet(keypair, AUTHORITY)
        done = connection.client.call(Initialize(), key)
        answer(
            as_json,
            {"authority": str(key.pubkey()), "signature": str(done.receipt.signature)},
            f"initialized; the authority is {key.pubkey()}",
        )


@admin.command(
    examples=("chain admin transfer next", "chain admin transfer next --network localnet --keypair old.json")
)
@common
@keypair_option("authority")
@click.option("--confirm", metavar="ADDRESS", help=_CONFIRM)
@click.argument("new_authority")
def transfer(
    home: Path, network: str, as_json: bool, keypair: str | None, confirm: str | None, new_authority: str
) -> None:
    """Transfer the authority to another key.

    NEW_AUTHORITY is an address, or the name of a wallet. Only the new authority can transfer it back, so you are
    asked to type its address.
    """
    from chain.connection.opening import AUTHORITY
    from chain.program.events import OwnershipTransferred
    from chain.program.instructions import TransferAuthority

    with connected(network, home) as connection:
        new = address_of(home, new_authority)
        typed(
            str(new),
            confirm,
            f"This transfers the authority of the program on {network} to {new}. Only that key can undo it.",
        )
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


@admin.command(examples=("chain admin renounce --network localnet",))
@common
@keypair_option("authority")
@click.option("--confirm", metavar="WORD", help=_CONFIRM)
def renounce(home: Path, network: str, as_json: bool, keypair: str | None, confirm: str | None) -> None:
    """Give up the authority for good. This cannot be undone.

    Afterwards nobody can ever change the list of verifiers. You are asked to type the word "renounce".
    """
    from chain.connection.opening import AUTHORITY
    from chain.program.events import OwnershipTransferred
    from chain.program.instructions import RenounceAuthority

    with connected(network, home) as connection:
        typed("renounce", confirm, f"After this, nobody can ever add or remove a verifier on {network}.")
        done = connection.client.call(RenounceAuthority(), connection.wallet(keypair, AUTHORITY))
        event = done.event(OwnershipTransferred)
        answer(
            as_json,
            {"previous": str(event.previous_owner), "authority": None, "signature": str(done.receipt.signature)},
            "renounced: the program no longer has an authority",
        )
