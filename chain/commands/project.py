"""`chain project`: create, list and show projects."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chain.commands import connected, irys_option, keypair_option, look
from chain.commands.options import Commands, Whole, agrees, answer, common
from chain.errors import ChainError
from common.text import printable

if TYPE_CHECKING:
    from chain.projects.artifacts import ProjectArtifacts


@click.group(cls=Commands)
def project() -> None:
    """Create, list and show projects."""


def _file(name: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(name, metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False), help=text)


@project.command(
    "create",
    examples=(
        "chain project create --repository . --data-snapshot HEX --baseline 2.534 \\",
        "  --name Mine --symbol ME",
        "chain project create --snapshot s.tar --protocol p.json --benchmark b.json \\",
        "  --metrics m.json --name Mine --symbol ME",
    ),
)
@common
@irys_option
@click.option(
    "--repository",
    metavar="DIR",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Git repository to pack the snapshot from.",
)
@click.option("--revision", default="HEAD", show_default=True, metavar="REV", help="Commit of --repository to pack.")
@_file("--snapshot", "Snapshot as a tar, instead of --repository.")
@_file("--protocol", "Protocol. [default: the repository's protocol.json]")
@_file("--benchmark", "Benchmark artifact, instead of --data-snapshot.")
@click.option("--data-snapshot", metavar="HEX", help="ID of the prepared data; the benchmark artifact is made from it.")
@click.option(
    "--data-argument", metavar="ARG", multiple=True, help="With --data-snapshot: an argument of prepare.py. Repeatable."
)
@_file("--metrics", "Baseline metrics artifact. [default: made from --baseline]")
@click.option("--baseline", metavar="METRIC", help="Baseline metric, for example 2.534. [default: that of --metrics]")
@click.option("--name", required=True, metavar="TEXT", help="Name of the token, at most 32 bytes.")
@click.option("--symbol", required=True, metavar="TEXT", help="Symbol of the token, at most 10 bytes.")
@click.option(
    "--base-price",
    metavar="LAMPORTS",
    default=100_000,
    show_default=True,
    type=Whole(0),
    help="Price of the first token.",
)
@click.option(
    "--slope",
    metavar="LAMPORTS",
    default=1_000,
    show_default=True,
    type=Whole(0),
    help="Price increase per existing token.",
)
@click.option(
    "--miner-pool-cap",
    metavar="TOKENS",
    default=21_000_000,
    show_default=True,
    type=Whole(0),
    help="Most tokens to mint as rewards.",
)
@keypair_option("authority")
@click.option("--yes", is_flag=True, help="Make the listed files public without asking.")
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
    yes: bool,
    **sources: Any,
) -> None:
    """Upload a project's artifacts and create it on chain.

    Give either a repository, from which the artifacts are made, or the four artifacts themselves. Each artifact is
    pinned on chain by its SHA-256. Scores follow the live project's convention.

    What miners and verifiers could not read is refused before anything is uploaded. What becomes public is listed and,
    unless the network is local, asked for: nobody can delete it.
    """
    from chain.connection.opening import AUTHORITY
    from chain.program.events import ProjectCreated
    from chain.projects import packing
    from chain.projects.artifacts import ProjectTerms, publish_project
    from common.terminal import View

    artifacts = _artifacts(baseline, **sources)
    for note in packing.check(artifacts):
        click.echo(note, err=True)
    terms = ProjectTerms(name, symbol, base_price, slope, miner_pool_cap)
    with connected(network, home, irys) as connection:
        files = packing.files(artifacts.snapshot)
        click.echo(f"public for ever, beside protocol, benchmark and metrics ({len(files)} files):", err=True)
        for path, size in files:
            click.echo(f"  {size:>12,}  {printable(path)}", err=True)
        if not (connection.network.is_local or yes or agrees("Upload them?")):
            raise ChainError("Cancelled. Nothing was uploaded.", "Agree when asked, or add --yes.")
        creator = connection.wallet(keypair, AUTHORITY)
        with View(quiet=as_json).step("uploading 4 artifacts and creating the project"):
            done = publish_project(connection, creator, artifacts, terms)
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
) -> ProjectArtifacts:
    """A new project's artifacts."""
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
    from common import baseline as baseline_artifact

    spec = packing.read(protocol or _inside(repository))
    what = packing.measured(spec)
    data = packing.benchmark(what, data_snapshot, data_argument) if data_snapshot else packing.read(_given(benchmark))
    if metrics:
        measured = packing.read(metrics)
    else:
        assert metric is not None
        measured = packing.metrics(what, metric, str(data_snapshot))
    found = baseline_artifact.read(measured, what.metric, what.log_pattern).metric
    if metric is not None and metric != found:
        raise InvalidData(f"--baseline is {metric}, but the metrics artifact has {found}.", "Correct one of them.")
    convention = score.infer(
        score.scale(found), found, minimize=what.minimize
    )  # otherwise nobody could read the scores
    tar = packing.snapshot(repository, revision) if repository else packing.read(_given(snapshot), packing.MAX_SNAPSHOT)
    return ProjectArtifacts(spec, tar, data, measured, None, convention.baseline)


def _inside(repository: Path | None) -> Path:
    return _given(repository) / "protocol.json"


def _given(path: Path | None) -> Path:
    assert path is not None
    return path


for _command in (look.project_list, look.project_show):
    project.add_command(_command)
