"""Who mined and who verified, as a table of proposals; and links to an explorer by network."""

from __future__ import annotations

import pytest
from solders.pubkey import Pubkey

from chain.connection import config
from chain.pages import html, text
from chain.pages.leaders import MinerRank, VerifierRank, miners, verifiers
from chain.pages.overview import Meaning, Overview
from chain.program.accounts import Proposal, ProposalStatus
from tests.chain import live

A, B, V, W = (Pubkey([number] * 32) for number in (1, 2, 3, 4))
APPROVED, REJECTED, EXPIRED = ProposalStatus.APPROVED, ProposalStatus.REJECTED, ProposalStatus.EXPIRED
PROPOSALS = [
    live.approved(0, 3_000_000, miner=A, reviewer=V),
    live.proposal(1, REJECTED, miner=A, stake=3, reviewer=V),
    live.approved(2, 3_500_000, miner=B, reviewer=W, submitted_at=77),
    live.proposal(3, ProposalStatus.IN_REVIEW, miner=B, reviewer=W),
    live.proposal(4, miner=B),
    live.proposal(5, EXPIRED, miner=B, stake=2),
]


def test_miners_are_ranked_by_what_they_won() -> None:
    first, second = miners(PROPOSALS, [(0, 10), (2, 500)])
    assert first == MinerRank(B, 4, 1, 2, 500, 2, live.CREATED + live.DAY)
    assert second == MinerRank(A, 2, 1, 0, 10, 3, live.CREATED + live.DAY)
    assert miners([], []) == []


def test_verifiers_are_ranked_by_what_they_settled() -> None:
    assert verifiers(PROPOSALS) == [VerifierRank(V, 1, 1, 0), VerifierRank(W, 1, 0, 1)]
    assert verifiers([live.approved(0)]) == []  # an account that names nobody credits nobody


def overview(proposals: list[Proposal], explorer: str) -> Overview:
    project = live.project(A, [(bytes(32), bytes(32))] * 2)
    return Overview(project, Meaning("score", None, "none", None), 1, tuple(proposals), (), live.CREATED, explorer)


def test_the_page_and_the_text_list_them() -> None:
    found = overview(PROPOSALS, "")
    page = html.page(found).decode()
    assert "<h2>Miners<small>2</small></h2>" in page
    assert "<h2>Verifiers<small>2</small></h2>" in page
    assert "<a " not in page  # a local network has no explorer
    assert "verifiers (2)" in text.text(found)
    assert found.as_json()["miners"][0]["miner"] == str(B)
    assert "Miners" not in html.page(overview([], "")).decode()


def test_addresses_link_to_the_networks_explorer() -> None:
    page = html.page(overview(PROPOSALS, 'https://x.example/"{address}?cluster=devnet&a')).decode()
    assert f'<a href="https://x.example/&quot;{B}?cluster=devnet&amp;a" rel="noopener noreferrer"><code>{B}' in page


@pytest.mark.parametrize(
    ("network", "link"),
    [
        ("devnet", "https://explorer.solana.com/address/{address}?cluster=devnet"),
        ("mainnet", "https://explorer.solana.com/address/{address}"),
        ("embedded", ""),
        ("localnet", ""),
        ("https://rpc.example/s3cr3t", ""),
    ],
)
def test_each_network_has_its_own(network: str, link: str) -> None:
    assert config.resolve({"network": network}, {}, (), config.shipped(), dict)["explorer"] == link


@pytest.mark.parametrize("value", ["https://x.example/", "javascript:{address}", "http://x/{address}", 3])
def test_what_is_no_explorer_is_refused(value: object) -> None:
    with pytest.raises(config.Misconfigured, match="explorer"):
        config.parse_file(f"[networks.devnet]\nexplorer = {value!r}\n".encode(), "x")
