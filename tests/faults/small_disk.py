"""A settlement or a submission on a disk that is full, a few pages more of it free at each try, until it succeeds.

`python -m tests.faults.small_disk FOLDER settle|submit`, FOLDER being the root of a small file system; see `test_disk`.
It prints a JSON document: how often it failed and with what words, and what is on chain in the end.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from chain.connection.opening import Connection
from chain.program.accounts import ProposalStatus
from common import http
from common.errors import Refused
from miner.journal.journal import Journal
from miner.staking import submit
from miner.staking.submit import Offer
from tests import local
from tests.verifier.cases import approving
from trainer.machine.hardware import Fingerprint
from verifier.check import folder_of
from verifier.settle import settle

PAGE = 4096
STEP = 3  # pages that a try has more than the last
MOST = 1200  # pages
MACHINE = Fingerprint("cpu", "test", 2, None, None, 1 << 30, "Linux", "0.32", "3.11.0")
_JOURNAL = Path("work", "session.jsonl")


def leave(filler: Path, pages: int) -> None:
    """Fill the file system up to so many free pages."""
    filler.unlink(missing_ok=True)
    found = os.statvfs(filler.parent)
    size = found.f_bavail * found.f_frsize - pages * PAGE
    if size > 0:
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)


def until_it_succeeds(home: Path, attempt: Callable[[Connection], Any]) -> list[str]:
    """The words of each failure; every try is a connection and a record of its own, as after a restart."""
    failures: list[str] = []
    for pages in range(0, MOST, STEP):
        leave(home / "filler", pages)
        try:
            with local.connect(home) as connection:
                attempt(connection)
            return failures
        except Refused as refusal:
            failures.append(refusal.problem)
        except OSError as error:
            failures.append(f"OSError: {error.strerror}")
    raise AssertionError("it never succeeded")


def settling(connection: Connection) -> None:
    found = settle(
        connection,
        0,
        local.verifier_of(connection),
        folder_of(connection.home, "embedded", "0"),
        lambda _: None,
        lambda current: approving(connection, current),
        lambda _: None,
    )
    assert found.status is ProposalStatus.APPROVED


def submitting(connection: Connection) -> None:
    """What a session does at its start and at the end of a won trial."""
    client, miner = connection.client, local.miner_of(connection)
    with closing(Journal(connection.home / _JOURNAL)) as journal:
        if not journal.session.tag:
            journal.append("session", seed=1, tag="t")
        submit.reconcile(client, miner.pubkey(), client.project(0), journal)
        if any(made.proposal is not None for made in journal.session.submissions):
            return
        offer = Offer(1, local.archive(), b"---\nval_bpb: 2.4\n", 2_600_000, local.STAKE, miner.pubkey())
        submit.submit(
            connection,
            miner,
            client.project(0),
            offer,
            journal,
            machine=MACHINE,
            data_snapshot=local.DATA_SNAPSHOT,
            say=lambda _: None,
        )


def main(home: Path, kind: str) -> dict[str, Any]:
    http._LONGEST_PAUSE = 0.01  # the local Irys node is asked again while its disk is full
    local.home_with_project(home)
    with local.connect(home) as connection:
        local.miner_of(connection), local.verifier_of(connection)
        if kind == "settle":
            local.propose(connection)
    failures = until_it_succeeds(home, settling if kind == "settle" else submitting)
    (home / "filler").unlink(missing_ok=True)
    with local.connect(home) as connection:
        client = connection.client
        project = client.project(0)
        return {
            "failures": failures,
            "proposals": [proposal.status.name for proposal in client.proposals(0)],
            "minted": project.miner_pool_minted,
            "supply": client.supply(project),
            "left": sorted(str(path.relative_to(home)) for path in home.rglob("*.tmp")),
        }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
