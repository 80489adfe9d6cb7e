"""The `chain` command: the local network, projects, proposals, wallets, tokens and verifiers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chain.commands.irys import irys as irys_group
from chain.options import answer, common, home_option, json_option

if TYPE_CHECKING:
    from chain.session import Connection

_KEYPAIR = "Wallet by name, or a keypair file."
irys_option = click.option(
    "--irys", metavar="URL", envvar="ARMLX_IRYS", help="Irys node, where it is not the network's own."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="openresearch-miner")
def main() -> None:
    """Look at and act on the OpenResearch program: projects, proposals, tokens, wallets.

    Without --network everything happens on the embedded local network under --home.
    """


@contextmanager
def _connected(network: str, home: Path, irys: str | None = None) -> Iterator[Connection]:
    from chain.session import Connection

    with Connection(network, home, irys=irys) as connection:
        yield connection


# --- the local network ---


@main.command()
@home_option
@click.option("--port", default=8899, show_default=True, type=click.IntRange(0, 65535), help="Port of the JSON-RPC.")
@click.option(
    "--irys-port", default=8908, show_default=True, type=click.IntRange(0, 65535), help="Port of the Irys node."
)
def localnet(home: Path, port: int, irys_port: int) -> None:
    """Serve the embedded ledger as JSON-RPC, and the local Irys node, on 127.0.0.1 until Ctrl-C.

    Other terminals then use it with --network localnet, and the solana command line with
    `--url http://127.0.0.1:8899`. It is the same ledger as --network embedded: both may be used at once.
    """
    from chain.client import Client
    from chain.irys.node import serve as serve_irys
    from chain.ledger import Ledger
    from chain.server import serve
    from chain.session import bootstrap

    ledger = Ledger(home)
    try:
        bootstrap(Client(ledger), home)
        with serve_irys(home / "irys", port=irys_port) as irys, serve(ledger, port=port) as server:
            click.echo(f"program  {ledger.program_id}")
            click.echo(f"rpc      {server.url}")
            click.echo(f"irys     {irys.url}")
            click.echo(f"ledger   {home / 'ledger.sqlite'}")
            click.echo("Ctrl-C stops; nothing is lost.", err=True)
            try:
                server.run()
            except KeyboardInterrupt:
                click.echo("stopped", err=True)
    finally:
        ledger.close()


# --- projects ---


@main.group()
def project() -> None:
    """Create, list and show projects."""


@project.command("create")
@common
@irys_option
@click.option(
    "--protocol", required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False), help="protocol.json"
)
@click.option(
    "--snapshot",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The repository as a tar (git archive --format=tar HEAD).",
)
@click.option(
    "--benchmark",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The benchmark artifact.",
)
@click.option(
    "--metrics",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The baseline metrics artifact.",
)
@click.option("--baseline", required=True, metavar="METRIC", help="The baseline metric, such as 2.534000.")
@click.option("--name", required=True, help="The token's name, at most 32 bytes.")
@click.option("--symbol", required=True, help="The token's symbol, at most 10 bytes.")
@click.option(
    "--base-price", default=100_000, show_default=True, type=click.IntRange(0), help="Lamports for the first token."
)
@click.option(
    "--slope", default=1_000, show_default=True, type=click.IntRange(0), help="Lamports added per token in existence."
)
@click.option(
    "--miner-pool-cap",
    default=21_000_000,
    show_default=True,
    type=click.IntRange(0),
    help="Most tokens minted as rewards.",
)
@click.option("--keypair", help=_KEYPAIR)
def project_create(
    home: Path,
    network: str,
    as_json: bool,
    irys: str | None,
    protocol: Path,
    snapshot: Path,
    benchmark: Path,
    metrics: Path,
    baseline: str,
    name: str,
    symbol: str,
    base_price: int,
    slope: int,
    miner_pool_cap: int,
    keypair: str | None,
) -> None:
    """Upload a project's artifacts and create it on chain, with the live project's score convention."""
    from chain import score
    from chain.artifacts import ProjectArtifacts, ProjectTerms, publish_project
    from chain.interface import ProjectCreated
    from chain.session import AUTHORITY

    try:
        metric = Decimal(baseline)
    except ArithmeticError:
        raise click.BadParameter(f"{baseline!r} is not a number", param_hint="--baseline") from None
    terms = ProjectTerms(score.scale(metric), name, symbol, base_price, slope, miner_pool_cap)
    artifacts = ProjectArtifacts(
        protocol.read_bytes(), snapshot.read_bytes(), benchmark.read_bytes(), metrics.read_bytes(), None
    )
    with _connected(network, home, irys) as connection:
        done = publish_project(connection, connection.wallet(keypair, AUTHORITY), artifacts, terms)
        event = done.event(ProjectCreated)
        answer(
            as_json,
            {"project": event.project_id, "mint": str(event.mint), "signature": str(done.receipt.signature)},
            f"project {event.project_id} created, mint {event.mint}",
        )


@project.command("list")
@common
def project_list(home: Path, network: str, as_json: bool) -> None:
    """All projects of the network."""
    from chain import show

    with _connected(network, home) as connection:
        projects = connection.client.projects()
        answer(as_json, [show.as_json(entry) for entry in projects], show.projects(projects))


@project.command("show")
@common
@irys_option
@click.argument("project_id", type=click.IntRange(0))
def project_show(home: Path, network: str, as_json: bool, irys: str | None, project_id: int) -> None:
    """Baseline, best, price, supply, rewards and proposals of a project."""
    from chain import show

    with _connected(network, home, irys) as connection:
        overview = show.overview(connection, project_id)
        answer(as_json, overview.as_json(), overview.text())


# --- proposals ---


@main.group()
def proposal() -> None:
    """List and show proposals."""


@proposal.command("list")
@common
@click.option("--project", "project_id", type=click.IntRange(0), default=0, show_default=True, help="Project id.")
def proposal_list(home: Path, network: str, as_json: bool, project_id: int) -> None:
    """All proposals of a project."""
    from chain import show

    with _connected(network, home) as connection:
        connection.client.project(project_id)
        proposals = connection.client.proposals(project_id)
        answer(as_json, [show.as_json(entry) for entry in proposals], show.proposals(proposals))


@proposal.command("show")
@common
@click.argument("proposal_id", type=click.IntRange(0))
def proposal_show(home: Path, network: str, as_json: bool, proposal_id: int) -> None:
    """Everything the chain holds of a proposal."""
    from chain import show

    with _connected(network, home) as connection:
        found = connection.client.proposal(proposal_id)
        answer(as_json, show.as_json(found), show.fields_text(found))


# --- wallets ---


@main.group()
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

    with _connected(network, home) as connection:
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

    with _connected(network, home) as connection:
        key = wallets.resolve(home, name).pubkey()
        signature = connection.network.airdrop(key, round(sol * LAMPORTS_PER_SOL))
        lamports = connection.network.balance(key)
        answer(
            as_json,
            {"address": str(key), "lamports": lamports, "signature": str(signature)},
            f"{key} holds {lamports / LAMPORTS_PER_SOL:.9f} SOL",
        )


# --- tokens ---


@main.group()
def token() -> None:
    """Buy, sell and count a project's tokens."""


def _trade(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option(
            "--project", "project_id", type=click.IntRange(0), default=0, show_default=True, help="Project id."
        ),
        click.option("--keypair", help=_KEYPAIR + " [default: miner]"),
    ]
    for option in reversed(options):
        command = option(command)
    return common(command)


@token.command("buy")
@_trade
@click.argument("lamports", type=click.IntRange(1))
def token_buy(home: Path, network: str, as_json: bool, project_id: int, keypair: str | None, lamports: int) -> None:
    """Spend up to LAMPORTS on tokens at the curve's price."""
    from chain.interface import Bought
    from chain.session import MINER

    with _connected(network, home) as connection:
        found = connection.client.project(project_id)
        event = connection.client.buy(connection.wallet(keypair, MINER), found, lamports).event(Bought)
        answer(
            as_json,
            {"tokens": event.tokens_out, "lamports": event.lamports_spent},
            f"bought {event.tokens_out} {found.token_symbol} for {event.lamports_spent:,} lamports",
        )


@token.command("sell")
@_trade
@click.argument("amount", type=click.IntRange(1))
def token_sell(home: Path, network: str, as_json: bool, project_id: int, keypair: str | None, amount: int) -> None:
    """Sell AMOUNT tokens back to the curve."""
    from chain.interface import Sold
    from chain.session import MINER

    with _connected(network, home) as connection:
        found = connection.client.project(project_id)
        event = connection.client.sell(connection.wallet(keypair, MINER), found, amount).event(Sold)
        answer(
            as_json,
            {"tokens": event.tokens_in, "lamports": event.lamports_out},
            f"sold {event.tokens_in} {found.token_symbol} for {event.lamports_out:,} lamports",
        )


@token.command("balance")
@_trade
def token_balance(home: Path, network: str, as_json: bool, project_id: int, keypair: str | None) -> None:
    """Tokens that a wallet holds, and what it may claim."""
    from chain.session import MINER

    with _connected(network, home) as connection:
        found = connection.client.project(project_id)
        key = connection.wallet(keypair, MINER).pubkey()
        held, claimable = connection.client.tokens(found, key), connection.client.claimable(project_id, key)
        answer(
            as_json,
            {"address": str(key), "tokens": held, "claimable": claimable},
            f"{key} holds {held} {found.token_symbol}, may claim {claimable}",
        )


# --- verifiers ---


@main.group()
def verifier() -> None:
    """The program's allowlist of verifiers; only its authority may change it."""


def _allowlist(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.argument("address")(command)
    return common(click.option("--keypair", help=_KEYPAIR + " [default: authority]")(command))


@verifier.command("add")
@_allowlist
def verifier_add(home: Path, network: str, as_json: bool, keypair: str | None, address: str) -> None:
    """Register ADDRESS (or a wallet's name) as a verifier."""
    _change_allowlist(home, network, as_json, keypair, address, add=True)


@verifier.command("remove")
@_allowlist
def verifier_remove(home: Path, network: str, as_json: bool, keypair: str | None, address: str) -> None:
    """Take ADDRESS (or a wallet's name) off the allowlist."""
    _change_allowlist(home, network, as_json, keypair, address, add=False)


def _change_allowlist(home: Path, network: str, as_json: bool, keypair: str | None, address: str, *, add: bool) -> None:
    from solders.pubkey import Pubkey

    from chain import wallet as wallets
    from chain.session import AUTHORITY

    with _connected(network, home) as connection:
        try:
            key = Pubkey.from_string(address)
        except ValueError:
            key = wallets.resolve(home, address).pubkey()
        authority = connection.wallet(keypair, AUTHORITY)
        change = connection.client.add_verifier if add else connection.client.remove_verifier
        done = change(authority, key)
        answer(
            as_json,
            {"verifier": str(key), "registered": add, "signature": str(done.receipt.signature)},
            f"{key} is {'now' if add else 'no longer'} a verifier",
        )


main.add_command(irys_group)


if __name__ == "__main__":
    main()
