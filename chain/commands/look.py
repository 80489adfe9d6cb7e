"""Listing and showing projects and proposals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chain.commands import connected, irys_option, project_option
from chain.commands.options import Command, Whole, answer, reading

if TYPE_CHECKING:
    from chain.pages.overview import Meaning
    from chain.program.accounts import Proposal


@click.command("list", cls=Command, examples=("chain project list", "chain project list --network devnet --json"))
@reading
def project_list(home: Path, network: str, as_json: bool) -> None:
    """List all projects.

    Accounts that cannot be decoded are listed too.
    """
    from chain.pages import show
    from chain.projects import listing

    with connected(network, home) as connection:
        found = listing.projects(connection.network)
        projects = [project for _, project in found.accounts]
        document = [show.as_json(entry) for entry in projects]
        document += [show.malformed_json(entry) for entry in found.malformed]
        answer(as_json, document, show.projects(projects, found.malformed))


@click.command("show", cls=Command, examples=("chain project show 0", "chain project show 0 --html project.html"))
@reading
@irys_option
@click.option(
    "--html",
    "html_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the page as one self-contained HTML file.",
    metavar="FILE",
)
@click.argument("project_id", metavar="ID", type=Whole(0))
def project_show(
    home: Path, network: str, as_json: bool, irys: str | None, html_file: Path | None, project_id: int
) -> None:
    """Show a project: figures, approvals, proposals, protocol.

    Scores are shown as the project's metric if its artifacts say what they mean; otherwise they are shown raw, with
    the reason. The page that --html writes has no scripts and loads nothing.
    """
    import shutil

    from chain.errors import ChainError
    from chain.pages import html, text
    from chain.pages.overview import overview
    from common.files import write_atomic

    with connected(network, home, irys) as connection:
        found = overview(connection, project_id)
    if html_file:
        try:
            write_atomic(html_file, html.page(found))
        except OSError as error:
            raise ChainError(f"Cannot write {html_file}: {error.strerror}.", "Choose another file.") from None
        click.echo(f"page  {html_file}", err=True)
    width = min(120, shutil.get_terminal_size((100, 24)).columns)
    answer(as_json, found.as_json(), text.text(found, width))


@click.command("list", cls=Command, examples=("chain proposal list", "chain proposal list --project 3 --json"))
@reading
@project_option("project_id")
def proposal_list(home: Path, network: str, as_json: bool, project_id: int) -> None:
    """List all proposals of a project.

    Accounts that cannot be decoded are listed too.
    """
    from chain.pages import show
    from chain.projects import listing

    with connected(network, home) as connection:
        connection.client.project(project_id)
        found = listing.proposals(connection.network, project_id)
        proposals = [proposal for _, proposal in found.accounts]
        document = [show.as_json(entry) for entry in proposals]
        document += [show.malformed_json(entry) for entry in found.malformed]
        answer(as_json, document, show.proposals(proposals, found.malformed))


@click.command("show", cls=Command, examples=("chain proposal show 0", "chain proposal show 0 --json"))
@reading
@irys_option
@click.argument("proposal_id", metavar="ID", type=Whole(0))
def proposal_show(home: Path, network: str, as_json: bool, irys: str | None, proposal_id: int) -> None:
    """Show a proposal as recorded on chain.

    Its scores are also shown as the project's metric.
    """
    from chain.errors import InvalidData, NotFound
    from chain.pages import show
    from chain.pages.overview import Meaning, meaning

    with connected(network, home, irys) as connection:
        found = connection.client.proposal(proposal_id)
        try:
            meant = meaning(connection, connection.client.project(found.project_id))
        except (NotFound, InvalidData) as error:
            meant = Meaning("score", None, error.problem, None)
        metrics = _metrics(found, meant)
        lines = [show.fields_text(found), "", *(f"{name.replace('_', ' '):<28} {v}" for name, v in metrics.items())]
        answer(as_json, {**show.as_json(found), **metrics}, "\n".join(lines))


def _metrics(proposal: Proposal, meaning: Meaning) -> dict[str, Any]:
    """A proposal's scores in the metric's unit, or the reason there are none; the verified one once approved."""
    from chain.program.accounts import ProposalStatus

    known = meaning.convention
    if known is None:
        return {"metric": None, "scores_are_raw_because": meaning.problem}
    shown = {
        "metric": meaning.metric,
        "baseline_metric": meaning.text(known.baseline),
        "claimed_metric": meaning.text(proposal.claimed_aggregate_score),
        "claimed_gain_percent": meaning.percent(proposal.claimed_aggregate_score),
    }
    if proposal.status is ProposalStatus.APPROVED:
        shown["verified_metric"] = meaning.text(proposal.verified_aggregate_score)
        shown["verified_gain_percent"] = meaning.percent(proposal.verified_aggregate_score)
    return shown
