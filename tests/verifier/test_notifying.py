"""What a verifier tells its owner: of each settlement and release, and why it ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from chain.connection.opening import Connection
from chain.errors import NetworkUnreachable
from chain.program.accounts import ProposalStatus
from common.terminal import View
from verifier import cli
from verifier.check import CheckResult
from verifier.serve import outcome, words
from verifier.settle import Settled

JUDGED = cast(CheckResult, object())
PENDING, APPROVED, REJECTED = ProposalStatus.PENDING, ProposalStatus.APPROVED, ProposalStatus.REJECTED


@pytest.mark.parametrize(
    ("done", "kind", "said"),
    [
        (Settled(JUDGED, APPROVED, "sig", "approve"), "settlement", "Settled: proposal 3 is approved"),
        (Settled(JUDGED, REJECTED, "sig", "reject"), "settlement", "Settled: proposal 3 is rejected"),
        (Settled(JUDGED, PENDING, "sig", "released: too noisy"), "release", "Proposal 3: released: too noisy"),
        (Settled(JUDGED, ProposalStatus.IN_REVIEW, "", "not released, the lock will lapse: x"), "release",
         "Proposal 3: not released, the lock will lapse: x"),
        (Settled(None, PENDING, "sig", "released before the interruption"), "release",
         "Proposal 3: released before the interruption"),
        (Settled(None, APPROVED, "", "proposal 3 is approved"), "", ""),  # others did it
    ],
)  # fmt: skip
def test_what_is_told_of_a_proposal(done: Settled, kind: str, said: str) -> None:
    event = outcome(3, done)
    assert (event["event"] if event else "") == kind
    assert (words(event) if event else "") == said


def test_the_end_is_told_with_its_reason() -> None:
    assert words({"event": "stop", "reason": "interrupted"}) == "Verifying stopped: interrupted"


@pytest.mark.parametrize(
    ("ending", "leaves", "reason"),
    [
        (None, None, "nothing is pending"),
        (KeyboardInterrupt(), SystemExit, "interrupted"),
        (NetworkUnreachable("https://rpc.example/s3cr3t did not answer.", "Wait."), NetworkUnreachable,
         "https://rpc.example/... did not answer."),
        (RuntimeError("s3cr3t"), RuntimeError, "it failed"),
    ],
)  # fmt: skip
def test_the_owners_program_hears_of_settlements_and_of_the_end(
    tmp_path: Path, ending: BaseException | None, leaves: type[BaseException] | None, reason: str
) -> None:
    out, script = tmp_path / "out", tmp_path / "hook.py"
    script.write_text(f"import sys\nopen({str(out)!r}, 'a').write(sys.stdin.read())\n")
    settings = {"notify_command": f"{sys.executable} {script}", "notify_webhook": None, "notify_desktop": False}
    connection = cast(Connection, SimpleNamespace(settings=settings, network=SimpleNamespace(name="devnet")))

    def verify() -> None:
        with cli._notifying(connection, 7, View(quiet=True)) as tell:
            event: Mapping[str, Any] | None = outcome(3, Settled(JUDGED, APPROVED, "sig", "approve"))
            assert event is not None
            tell(event)
            if ending is not None:
                raise ending

    if leaves is None:
        verify()
    else:
        with pytest.raises(leaves):
            verify()
    first, last = map(json.loads, out.read_text().splitlines())
    assert (first["text"], first["project"], first["network"]) == ("Settled: proposal 3 is approved", 7, "devnet")
    assert (last["event"], last["reason"]) == ("stop", reason)
    assert "s3cr3t" not in out.read_text()
