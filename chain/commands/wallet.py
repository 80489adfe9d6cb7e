"""`chain wallet`: make and look at wallets."""

from __future__ import annotations

from pathlib import Path

import click

from chain.commands import connected
from chain.options import answer, common, home_option, json_option


@click.group()
def wallet() -> None:
    """Make and look at wallets: standard Solana keypair files under the home."""


@wallet.command("new")
@home_option
@json_option
@click.argument("name")
def wallet_new(home: Path, as_json: bool, name: str) -> None:
    """Make a wallet file; an existing one is never overwritten."""
    from chain import wallet as wallets

    key = wallets.new(home, name).pubkey()
    path = wallets.path_of(home, name)
    answer(as_json, {"name": name, "address": str(key), "file": str(path)}, f"{key}\n{path}")


@wallet.command("show")
@common
@click.argument("name", required=False)
def wallet_show(home: Path, network: str, as_json: bool, name: str | None) -> None:
    """Addresses and balances, of one wallet or of all in the home."""
    from chain import wallet as wallets
    from chain.network import LAMPORTS_PER_SOL

    with connected(network, home) as connection:
        rows, lines = [], []
        for entry in [name] if name else wallets.names(home):
            key = wallets.resolve(home, entry).pubkey()
            lamports = connection.network.balance(key)
            rows.append({"name": entry, "address": str(key), "lamports": lamports})
            lines.append(f"{entry:<12} {key!s:<44} {lamports / LAMPORTS_PER_SOL:.9f} SOL")
        answer(as_json, rows, "\n".join(lines) or "no wallets yet; make one with `chain wallet new NAME`")


@wallet.command("airdrop")
@common
@click.argument("name")
@click.argument("sol", type=click.FloatRange(min=0, min_open=True, max=1000))
def wallet_airdrop(home: Path, network: str, as_json: bool, name: str, sol: float) -> None:
    """Ask the network's faucet for SOL (local networks and devnet)."""
    from chain import wallet as wallets
    from chain.network import LAMPORTS_PER_SOL

    with connected(network, home) as connection:
        key = wallets.resolve(home, name).pubkey()
        signature = connection.network.airdrop(key, round(sol * LAMPORTS_PER_SOL))
        lamports = connection.network.balance(key)
        answer(
            as_json,
            {"address": str(key), "lamports": lamports, "signature": str(signature)},
            f"{key} holds {lamports / LAMPORTS_PER_SOL:.9f} SOL",
        )
