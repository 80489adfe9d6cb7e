"""`verifier report` on a real ledger and real records: what was judged, what waits, what is left over."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests import local
from tests.verifier.cases import approving, releasing
from tests.verifier.test_settle import settled
from verifier import report, report_page
from verifier.check import folder_of
from verifier.cli import main


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An approval, a release, one pending, and what interruptions leave."""
    home = local.home_with_project(tmp_path_factory.mktemp("home"))
    with local.connect(home) as connection:
        for _ in range(3):
            local.propose(connection)
        settled(connection, 0, approving)
        settled(connection, 1, releasing)
    interrupted = folder_of(home, "embedded", "2")
    interrupted.mkdir()
    (interrupted / "runs.jsonl").write_text("{}\n")
    sent = folder_of(home, "embedded", "7")
    sent.mkdir()
    lines = [{"event": "sent", "action": "approve", "signature": "x", "last_valid": 1}]
    (sent / "settlement.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"half')
    (sent / f"attestation-{'0' * 16}.json").write_text("{}")
    damaged = folder_of(home, "embedded", "8")
    damaged.mkdir()
    (damaged / "settlement.jsonl").write_bytes(b"\xff\x1b[31m\n")
    lapsing = folder_of(home, "embedded", "9")
    lapsing.mkdir()
    (lapsing / "settlement.jsonl").write_text('{"event": "left_to_lapse", "until": 1000000000}\n')
    folder_of(home, "devnet", "0").mkdir()  # of another network
    return home


def ask(home: Path, *arguments: object) -> tuple[dict[str, Any], str]:
    given = ["report", *map(str, arguments), "--home", str(home), "--network", "embedded"]
    done = CliRunner().invoke(main, [*given, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), CliRunner().invoke(main, given).stdout


def test_what_was_judged_and_what_waits(home: Path, tmp_path: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in (home / "verify").rglob("*"))
    found, text = ask(home, "--project", 0, "--html", tmp_path / "page.html")
    assert [(c["proposal"], c["kind"], c["settled"]) for c in found["checks"]] == [
        *((0, "approve", True), (1, "release", True))
    ]
    assert found["verdicts"] == {"approve": 1, "reject": 0, "release": 1}
    assert found["checks"][0]["runs"] > 0 < found["machine_hours"]
    assert found["checks"][0]["delta"] == pytest.approx(0.2, abs=0.05)
    assert [(w["proposal"], w["status"]) for w in found["queue"]] == [(1, "pending"), (2, "pending")]
    assert found["transactions"] >= 3
    assert found["fees_lamports"] >= 5000 * found["transactions"]
    assert [(day["approve"], day["release"]) for day in found["days"]] == [(1, 1)]
    for words in ("proposal 0     approve", "settled", "SOL in fees", "proposal 2      pending", "By day"):
        assert words in text
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert page.count("<rect") == 2
    assert before == sorted((path, path.stat().st_mtime_ns) for path in (home / "verify").rglob("*"))


def test_what_an_interruption_left_is_named(home: Path) -> None:
    found, text = ask(home, "--offline")
    assert (found["queue"], found["fees_lamports"]) == (None, None)
    left = "\n".join(found["leftovers"])
    for words in (
        "proposal 9: not released: its lock lapses at 2001-09-09 01:46 UTC",
        "proposal 2: a check was interrupted; run the same command again to resume",
        "proposal 7: approve was sent, and its outcome is not known",
        "embedded-7/attestation-0000000000000000.json is no attestation of ours",
        "proposal 8: ",
    ):
        assert words in left
    assert "devnet" not in left
    assert left.replace("\n", "\n  ") in text
    assert "\x1b" not in text


def test_a_page_of_nothing_and_of_hostile_words(tmp_path: Path) -> None:
    empty = report.gather(tmp_path, "embedded", None)
    assert report.as_json(empty)["checks"] == []
    assert "nothing yet" in report.text(empty)
    check = report.Checked("2026-01-02T03:04:05Z", 0, None, "<b>", "<script>", None, 0, 0.0, False, "x")
    hostile = replace(
        *(empty,), checks=[check], leftovers=["<img src=x>\x1b"], note="<i>", now=datetime(2026, 1, 2, tzinfo=UTC)
    )
    page = report_page.page(hostile).decode()
    for words in ("<b>", "<script", "<img", "<i>", "\x1b"):
        assert words not in page
    assert "local file" in report.text(hostile)


def test_a_chain_that_cannot_be_read_is_said(home: Path) -> None:
    given = ["report", "--home", str(home), "--network", "embedded", "--project", "77", "--json"]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["checks"] == []
