"""What became of a proposal and its stake, as the chain tells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chain.program.accounts import Proposal, ProposalStatus
from chain.program.instructions import ClaimReview, Reject
from miner.commands.main import main
from miner.journal import sessions
from miner.journal.journal import Journal
from miner.report import onchain, page
from miner.report.material import gather
from tests import local
from tests.chain.svm import digest

IN_ESCROW = "pending: stake of 4 TST in escrow"


@pytest.fixture(scope="module")
def proposal(tmp_path_factory: pytest.TempPathFactory) -> Proposal:
    with local.connect(local.home_with_project(tmp_path_factory.mktemp("chain"))) as connection:
        return local.propose(connection)


@pytest.mark.parametrize(
    ("status", "reward", "words"),
    [
        (ProposalStatus.PENDING, None, IN_ESCROW),
        (ProposalStatus.IN_REVIEW, None, "in review: stake of 4 TST in escrow"),
        (ProposalStatus.APPROVED, 1_000, "approved: +1,000 TST, stake of 4 TST returned"),
        (ProposalStatus.APPROVED, None, "approved: stake of 4 TST returned"),
        (ProposalStatus.REJECTED, None, "rejected: stake of 4 TST lost"),
        (ProposalStatus.EXPIRED, None, "expired: stake of 4 TST lost"),
    ],
)
def test_the_words(proposal: Proposal, status: ProposalStatus, reward: int | None, words: str) -> None:
    assert onchain.fate(replace(proposal, status=status), "TST", reward) == words


def test_status_and_report_ask_the_chain_also_for_proposal_0(tmp_path: Path) -> None:
    home = local.home_with_project(tmp_path)
    with local.connect(home) as connection:
        client, verifier = connection.client, local.verifier_of(connection)
        miner = local.miner_of(connection).pubkey()
        made = [local.propose(connection, code=local.archive(b"LR = %d\n" % n)) for n in range(3)]
        for proposal in made[:2]:
            client.call(ClaimReview(proposal.id), verifier)
        what = (digest("a"), digest("b"))
        client.approve(verifier, made[0], client.project(0), verified_score=2_600_000, metrics=what)
        client.call(Reject(1, *what), verifier, project_id=0)
        reward = client.project(0).miner_pool_minted
        expected = [
            f"approved: +{reward:,} TST, stake of 4 TST returned",
            "rejected: stake of 4 TST lost",
            IN_ESCROW,
        ]
        assert list(onchain.fates(client, client.proposals(0), client.project(0)).values()) == expected
    folder = home / "work" / sessions.folder_name("embedded", 0, str(miner))
    journal = Journal(folder / "session.jsonl")
    journal.append("session", seed=1, tag="t")
    journal.append("trial", number=7, hypothesis="LR -> 0", fingerprint="", commit="c", base="b", at="")
    journal.append("decision", number=7, decision="keep", delta=0.2)
    for number, proposal in zip((7, -1, -1), made, strict=True):
        journal.append("intent", number=number, code_hash=proposal.code_hash.hex(), log_hash="")
        journal.append("submitted", proposal=proposal.id, stake=4, lamports=1)
    journal.close()

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(main, [*arguments, "--home", str(home)])
        assert done.exit_code == 0, done.output
        return done.stdout

    shown: Any = run("status")
    trials = ("proposal 0, trial 7", "proposal 1, trial -1", "proposal 2, trial -1")
    assert all(f"{trial}: {words}" in shown for trial, words in zip(trials, expected, strict=True))
    assert "trial 7, LR → 0: (−0.2000), approved" in shown
    offline = run("status", "--offline")
    assert "approved" not in offline
    assert "trial 7, LR → 0: (−0.2000), submitted" in offline
    found = sessions.choose(home)
    with local.connect(home) as connection:
        written = page.build(gather(found, onchain.read(connection, 0, str(miner)[:8])))
    assert all(words in written for words in expected)
