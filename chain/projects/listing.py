"""Projects and proposals as they are: every account that can be read, and those that cannot."""

from __future__ import annotations

from chain.network.base import Network
from chain.network.reading import Listing, read_all, read_proposals
from chain.program.accounts import Project, Proposal, offset_of


def projects(network: Network) -> Listing[Project]:
    """All projects, by id."""
    found = read_all(network, Project)
    return Listing(tuple(sorted(found.accounts, key=lambda pair: pair[1].id)), found.malformed)


def proposals(network: Network, project_id: int) -> Listing[Proposal]:
    """All proposals of a project, by id."""
    found = read_proposals(network, (offset_of(Proposal, "project_id"), project_id.to_bytes(8, "little")))
    return Listing(tuple(sorted(found.accounts, key=lambda pair: pair[1].id)), found.malformed)
