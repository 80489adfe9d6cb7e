"""`chain wallet`: make and look at wallets."""

from __future__ import annotations

from pathlib import Path

import click

from chain.commands import connected, wallet_files
from chain.commands.options import answer, common


@click.group()
def wallet() -> None:
    """Make, guard and look at wallets: Solana keypair files under the home, plain or encrypted."""


for _command in wallet_files.COMMANDS:
    wallet.add_command(_command)


@wallet.command("show")
@common
@click.argument("name", required=False)
def wallet_show(home: Path, network: str, as_json: bool, name: str | None) -> None:
    """Addresses, kinds and balances, of one wallet or of all in the home."""
    from chain.network.base import LAMPORTS_PER_SOL
    from chain.wallet import wallet as wallets

    with connected(network, home) as connection:
        rows, lines = [], []
        for entry in [name] if name else wallets.names(home):
            found = wallets.look(wallets.locate(home, entry))
            kind = "encrypted" if found.encrypted else "plain"
            lamports = connection.network.balance(found.address)
            rows.append({"name": entry, "address": str(found.address), "kind": kind, "lamports": lamports})
            lines.append(f"{entry:<12} {found.address!s:<44} {kind:<9} {lamports / LAMPORTS_PER_SOL:.9f} SOL")
        answer(as_json, rows, "\n".join(lines) or "no wallets yet; make one with `chain wallet new NAME`")


@wallet.command("airdrop")
@common
@click.argument("name")
@click.argument("sol", type=click.FloatRange(min=0, min_open=True, max=1000))
def wallet_airdrop(home: Path, network: str, as_json: bool, name: str, sol: float) -> None:
    """Ask the network's faucet for SOL (local networks and devnet)."""
    from chain.network.base import LAMPORTS_PER_SOL
    from chain.wallet import wallet as wallets

    with connected(network, home) as connection:
        key = wallets.look(wallets.locate(home, name)).address
        signature = connection.network.airdrop(key, round(sol * LAMPORTS_PER_SOL))
        lamports = connection.network.balance(key)
        answer(
            as_json,
            {"address": str(key), "lamports": lamports, "signature": str(signature)},
            f"{key} holds {lamports / LAMPORTS_PER_SOL:.9f} SOL",
        )
