"""`chain project`: create, list and show projects."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chain.commands import connected, irys_option, keypair_option, look
from chain.commands.options import answer, common

if TYPE_CHECKING:
    from chain.projects.artifacts import ProjectArtifacts


@click.group()
def project() -> None:
    """Create, list and show projects."""


def _file(name: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(name, type=click.Path(path_type=Path, exists=True, dir_okay=False), help=text)


@project.command("create")
@common
@irys_option
@click.option(
    "--repository",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A git repository; the snapshot is made from its commit.",
)
@click.option("--revision", default="HEAD", show_default=True, help="The commit of --repository to pack.")
@_file("--snapshot", "The snapshot as a tar, instead of --repository.")
@_file("--protocol", "The protocol. [default: the repository's protocol.json]")
@_file("--benchmark", "The benchmark artifact, instead of --data-snapshot.")
@click.option("--data-snapshot", metavar="HEX", help="Id of the prepared data, to make the benchmark artifact with.")
@click.option("--data-argument", multiple=True, help="With --data-snapshot: an argument of prepare.py; repeatable.")
@_file("--metrics", "The baseline metrics artifact. [default: made from --baseline]")
@click.option(
    "--baseline", metavar="METRIC", help="The baseline metric, such as 2.534000. [default: that of --metrics]"
)
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
@keypair_option("authority")
def project_create(
    home: Path,
    network: str,
    as_json: bool,
    irys: str | None,
    baseline: str | None,
    name: str,
    symbol: str,
    base_price: int,
    slope: int,
    miner_pool_cap: int,
    keypair: str | None,
    **sources: Any,
) -> None:
    """Upload a project's artifacts and create it on chain, with the live project's score convention.

    From a repository: `--repository DIR --data-snapshot HEX --baseline METRIC`; benchmark and metrics are made. From
    ready artifacts: `--snapshot --protocol --benchmark --metrics`. Every artifact is pinned on chain by its SHA-256.
    """
    from chain.connection.opening import AUTHORITY
    from chain.program.events import ProjectCreated
    from chain.projects.artifacts import ProjectTerms, publish_project

    artifacts, score = _artifacts(baseline, **sources)
    terms = ProjectTerms(score, name, symbol, base_price, slope, miner_pool_cap)
    with connected(network, home, irys) as connection:
        click.echo("uploading four artifacts", err=True)
        done = publish_project(connection, connection.wallet(keypair, AUTHORITY), artifacts, terms)
        event = done.event(ProjectCreated)
        hashes = {
            part: sha256(getattr(artifacts, part)).hexdigest()
            for part in ("protocol", "snapshot", "benchmark", "baseline_metrics")
        }
        document = {"project": event.project_id, "mint": str(event.mint), "signature": str(done.receipt.signature)}
        lines = [f"project {event.project_id} created, mint {event.mint}"]
        lines += [f"  {part.replace('_', ' '):<17} {digest}" for part, digest in hashes.items()]
        answer(as_json, document | {"sha256": hashes}, "\n".join(lines))


def _artifacts(
    baseline: str | None,
    *,
    repository: Path | None,
    revision: str,
    snapshot: Path | None,
    protocol: Path | None,
    benchmark: Path | None,
    data_snapshot: str | None,
    data_argument: tuple[str, ...],
    metrics: Path | None,
) -> tuple[ProjectArtifacts, int]:
    """A new project's artifacts, and its baseline as a score."""
    from chain.errors import InvalidData
    from chain.money import score
    from chain.projects import packing
    from chain.projects.artifacts import ProjectArtifacts

    if (repository is None) == (snapshot is None):
        raise click.UsageError("Give either --repository or --snapshot.")
    if (benchmark is None) == (data_snapshot is None):
        raise click.UsageError("Give either --benchmark or --data-snapshot.")
    if metrics is None and (baseline is None or data_snapshot is None):
        raise click.UsageError("Give --metrics, or --baseline with --data-snapshot.")
    if protocol is None and repository is None:
        raise click.UsageError("Give --protocol.")
    try:
        metric = None if baseline is None else Decimal(baseline)
    except ArithmeticError:
        raise click.BadParameter(f"{baseline!r} is not a number", param_hint="--baseline") from None
    if metric is not None:
        score.scale(metric)
    spec = packing.read(protocol or _inside(repository))
    what = packing.measured(spec)
    data = packing.benchmark(what, data_snapshot, data_argument) if data_snapshot else packing.read(_given(benchmark))
    if metrics:
        measured = packing.read(metrics)
    else:
        assert metric is not None
        measured = packing.metrics(what, metric, str(data_snapshot))
    found = packing.baseline_of(measured)
    if metric is not None and metric != found:
        raise InvalidData(f"--baseline is {metric}, and the metrics artifact has {found}.", "Correct one of them.")
    convention = score.infer(score.scale(found), found, minimize=what.minimize)  # or nobody could read the scores
    tar = packing.snapshot(repository, revision) if repository else packing.read(_given(snapshot), packing.MAX_SNAPSHOT)
    return ProjectArtifacts(spec, tar, data, measured, None), convention.baseline


def _inside(repository: Path | None) -> Path:
    return _given(repository) / "protocol.json"


def _given(path: Path | None) -> Path:
    assert path is not None
    return path


for _command in (look.project_list, look.project_show):
    project.add_command(_command)
