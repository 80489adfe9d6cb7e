"""`chain wallet`: create wallets and show them."""

from __future__ import annotations

from pathlib import Path

import click

from chain.commands import Sol, connected, wallet_files
from chain.commands.options import Commands, answer, reading


@click.group(cls=Commands)
def wallet() -> None:
    """Create, encrypt and show wallets.

    A wallet is a Solana keypair file under the home folder, plain or encrypted.
    """


for _command in wallet_files.COMMANDS:
    wallet.add_command(_command)


@wallet.command("show", examples=("chain wallet show", "chain wallet show miner --network devnet"))
@reading
@click.argument("name", required=False)
def wallet_show(home: Path, network: str, as_json: bool, name: str | None) -> None:
    """Show address and balance of one wallet, or of all."""
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
        answer(as_json, rows, "\n".join(lines) or "No wallets yet. Create one with `chain wallet new NAME`.")


@wallet.command("airdrop", examples=("chain wallet airdrop miner 2", "chain wallet airdrop miner 1 --network devnet"))
@reading
@click.argument("name")
@click.argument("sol", type=Sol())
def wallet_airdrop(home: Path, network: str, as_json: bool, name: str, sol: int) -> None:
    """Request SOL from the faucet (local networks, devnet)."""
    from chain.network.base import LAMPORTS_PER_SOL
    from chain.wallet import wallet as wallets

    with connected(network, home) as connection:
        key = wallets.look(wallets.locate(home, name)).address
        signature = connection.network.airdrop(key, sol)
        lamports = connection.network.balance(key)
        answer(
            as_json,
            {"address": str(key), "lamports": lamports, "signature": str(signature)},
            f"{key} holds {lamports / LAMPORTS_PER_SOL:.9f} SOL",
        )
