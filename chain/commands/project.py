"""`chain project`: create, list and show projects."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import click

from chain.commands import KEYPAIR, connected, irys_option
from chain.options import answer, common


@click.group()
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
@click.option("--keypair", help=KEYPAIR)
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
    with connected(network, home, irys) as connection:
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

    with connected(network, home) as connection:
        projects = connection.client.projects()
        answer(as_json, [show.as_json(entry) for entry in projects], show.projects(projects))


@project.command("show")
@common
@irys_option
@click.argument("project_id", type=click.IntRange(0))
def project_show(home: Path, network: str, as_json: bool, irys: str | None, project_id: int) -> None:
    """Baseline, best, price, supply, rewards and proposals of a project."""
    from chain import show

    with connected(network, home, irys) as connection:
        overview = show.overview(connection, project_id)
        answer(as_json, overview.as_json(), overview.text())
