"""`miner status`, `report` and `export`: on made-up sessions, beside a running miner, and on a real local chain."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from chain.irys.client import Role
from chain.program.accounts import ProposalStatus
from chain.program.instructions import ClaimReview
from miner.commands.main import main
from miner.journal import about, journal
from miner.journal.about import About, locked_versions
from miner.journal.journal import Journal, JournalDamaged
from miner.journal.sessions import choose, find, folder_name
from miner.proposers import usage
from miner.proposers.usage import Usage
from tests import local
from tests.miner import sessions
from trainer.errors import TrainerError
from trainer.project import recipe


def miner(home: Path, *arguments: object) -> Result:
    given = [*map(str, arguments), "--home", str(home)]
    variables = {"ARMLX_NETWORK": None, "ARMLX_HOME": None, "ARMLX_IRYS": None}
    return CliRunner().invoke(main, given, env=variables)


def ask(home: Path, *arguments: object) -> Any:
    result = miner(home, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a chain that holds project 0, and one small session on it."""
    local.home_with_project(tmp_path / "home")
    sessions.make(tmp_path / "home", trials=2)
    return tmp_path / "home"


def test_status(night: Path) -> None:
    (found,) = ask(night, "status")
    assert (found["session"], found["network"], found["project"], found["running"]) == (
        sessions.NAME,
        "embedded",
        0,
        False,
    )
    assert found["summary"]["finished"] == 43
    assert found["unfinished"] == [{"number": 44, "machine": ""}]
    assert [entry["state"] for entry in found["submissions"]] == ["approved", "given up", "pending"]
    assert found["about"]["hardware_class"] == "made-up-machine-16c"
    text = miner(night, "status").stdout
    for words in ("not mining", "43 finished", "trial 44: ", "proposal 7", "until it was killed", "records"):
        assert words in text
    assert "\x1b" not in text


def test_what_models_and_agents_cost_is_in_status_and_report(tmp_path: Path) -> None:
    folder = sessions.make(tmp_path, trials=1)
    assert ask(tmp_path, "status")[0]["asked"] == {}
    usage.write(folder / "proposers", "llm", Usage(12, 45_000, 210, 0.3125))
    spent = {"calls": 12, "prompt_tokens": 45_000, "completion_tokens": 210, "dollars": 0.3125, "tokens": 45_210}
    assert ask(tmp_path, "status")[0]["asked"] == {"llm": spent}
    assert "llm: 12 calls, 45,210 tokens, $0.31" in miner(tmp_path, "status").stdout
    report = ask(tmp_path, "report", "--offline")
    assert report["asked"] == {"llm": spent}
    assert "12 calls, 45,210 tokens, $0.31" in Path(report["page"]).read_text()


def test_status_beside_a_running_miner(tmp_path: Path) -> None:
    folder = sessions.make(tmp_path, trials=1)
    mining = Journal(folder / "session.jsonl")
    mining.append("begin")
    before = (folder / "session.jsonl").read_bytes()
    try:
        mining._lines.file.write(b'{"event": "half a li')
        (found,) = ask(tmp_path, "status")
        assert found["running"]
        assert found["segments"][-1]["busy"] == 0
        assert "mining now" in miner(tmp_path, "status").stdout
        assert ask(tmp_path, "report", "--offline")["running"]
    finally:
        mining.close()
    assert (folder / "session.jsonl").read_bytes().startswith(before)


def test_status_of_nothing_and_of_a_damaged_one(tmp_path: Path) -> None:
    assert ask(tmp_path, "status") == []
    assert "Start one with `miner run`" in miner(tmp_path, "status").stdout
    folder = tmp_path / "work" / sessions.NAME
    folder.mkdir(parents=True)
    (folder / "session.jsonl").write_text('{"event": "celebration"}\n')
    (found,) = ask(tmp_path, "status")
    assert "invalid event" in found["problem"]
    assert "invalid event" in miner(tmp_path, "status").stdout
    refused = miner(tmp_path, "report")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "Move its folder away" in refused.stderr


def test_report_writes_a_page_and_a_picture(night: Path, tmp_path: Path) -> None:
    page, picture = tmp_path / "a" / "page.html", tmp_path / "chart.png"
    numbers = ask(night, "report", "--offline", "--output", page, "--png", picture)
    assert numbers["page"] == str(page)
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert numbers["summary"]["kept"] == sum(
        point["decision"] == "keep" and point["number"] > 0 for point in numbers["summary"]["points"]
    )
    assert numbers["chain"]["baseline"] == pytest.approx(2.534, abs=0.01)
    assert [entry["own"] for entry in numbers["chain"]["bests"]] == [True, False]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_report_reads_the_chain(home: Path) -> None:
    with local.connect(home) as connection:
        local.propose(connection)
        client, verifier = connection.client, local.verifier_of(connection)
        client.call(ClaimReview(0), verifier)
        metrics = connection.publish(verifier, Role.VERIFIER_METRICS, b"{}", "application/json")
        project = client.project(0)
        client.approve(
            verifier,
            client.proposal(0),
            project,
            verified_score=local.convention(project).to_score(Decimal("2.437500")),
            metrics=metrics,
        )
        assert client.proposal(0).status is ProposalStatus.APPROVED
    numbers = ask(home, "report")
    chain = numbers["chain"]
    assert (chain["baseline"], chain["best"]) == (2.5, 2.4375)
    assert [(entry["metric"], entry["own"]) for entry in chain["bests"]] == [(2.4375, False)]
    assert chain["statuses"] == {"0": "approved"}
    document = (home / "work" / sessions.NAME / "report.html").read_text(encoding="utf-8")
    assert "0.062500 below the baseline (2.50 %)" in document


def test_the_installed_command_opens_the_page_in_the_browser(night: Path, tmp_path: Path) -> None:
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    page = tmp_path / "page.html"
    command = ["report", "--offline", "--open", "--output", str(page), "--home", str(night)]
    done = subprocess.run(
        [str(Path(sys.executable).parent / "miner"), *command],
        env=os.environ | {"BROWSER": f"{browser} %s"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == f"{page}\n"
    assert opened.read_text().strip() == page.as_uri()


def test_report_without_a_chain_says_so(tmp_path: Path) -> None:
    sessions.make(tmp_path, trials=1)
    result = miner(tmp_path, "report")
    assert result.exit_code == 0
    assert "Cannot read the chain" in result.stderr
    assert not (tmp_path / "journal.sqlite").exists()


def test_export(home: Path, tmp_path: Path) -> None:
    files = ask(home, "export", tmp_path / "out")["files"]
    assert [Path(file).name for file in files] == ["results.tsv", "trials.jsonl", "network_state.json"]
    results, trials, state = (Path(file).read_text() for file in files)
    assert results.splitlines()[0] == "commit\tval_bpb\tmemory_gb\tstatus\tdescription"
    assert [json.loads(line)["protocol_bundle_id"] for line in trials.splitlines()] == ["made-up-by-the-tests-1"] * 2
    document = json.loads(state)
    assert (document["schemaVersion"], document["project_id"], document["cluster"]) == ("1", 0, "localnet")
    assert (document["network_best_metric"], document["aggregate_score_int256"]) == (2.5, "2500000")
    assert (document["metric_name"], document["direction"]) == ("val_bpb", "minimize")
    assert (document["metric_scale"], document["code_origin"]) == (1_000_000, "repoSnapshot")
    assert document["protocolBundleId"] == json.loads(local.PROTOCOL)["meta"]["protocolBundleId"]


def test_export_offline_and_without_a_chain(tmp_path: Path) -> None:
    folder = sessions.make(tmp_path, trials=1)
    refused = miner(tmp_path, "export", tmp_path / "out")
    assert refused.exit_code == 1
    assert "--offline" in refused.stderr
    assert not (tmp_path / "out").exists()
    assert len(ask(tmp_path, "export", tmp_path / "out", "--offline")["files"]) == 2
    (folder / "about.json").unlink()
    old = miner(tmp_path, "export", tmp_path / "out", "--offline")
    assert old.exit_code == 1
    assert "older version" in old.stderr


def test_which_session(tmp_path: Path) -> None:
    names = [
        folder_name("http://127.0.0.1:8899", 3, "MadeUpTestWa11et"),
        folder_name("devnet", 0, "MadeUpTestWa11et"),
        folder_name("devnet", 7, "MadeUpTestWa11et"),
        folder_name("devnet", 7, "MadeUpTestWa11et") + "-until-20260101-000000",
    ]
    assert names[0] == "http_127.0.0.1_8899-3-MadeUpTe"
    for name in [*names, "somebody elses"]:
        (tmp_path / "work" / name).mkdir(parents=True)
        (tmp_path / "work" / name / "session.jsonl").write_bytes(b"")
    assert [entry.name for entry in find(tmp_path)] == sorted(names)
    assert choose(tmp_path, network="http://127.0.0.1:8899").project == 3
    found = choose(tmp_path, network="devnet", project=7)
    assert (found.network, found.project, found.wallet, found.until) == ("devnet", 7, "MadeUpTe", "")
    assert choose(tmp_path, session=names[3]).until == "20260101-000000"
    with pytest.raises(TrainerError, match=r"There are 3 sessions: .*devnet-7-MadeUpTe.* Choose one with --session"):
        choose(tmp_path)
    with pytest.raises(TrainerError, match="There is no session 'other'"):
        choose(tmp_path, session="other")
    with pytest.raises(
        TrainerError, match=r"There is no session of project 99 in .*; there are devnet-0-.*\. Choose one"
    ):
        choose(tmp_path, project=99)
    with pytest.raises(TrainerError, match=r"There is no session of project 0 on the network mainnet in"):
        choose(tmp_path, project=0, network="mainnet")
    with pytest.raises(TrainerError, match=r"There is no session in .*/none/work\. Start one with `miner run`"):
        choose(tmp_path / "none")
    assert len(ask(tmp_path, "status")) == 3


def test_facts_are_kept_and_what_does_not_fit_is_unknown(tmp_path: Path) -> None:
    facts = sessions.facts(2.5, 2.4)
    about.save(tmp_path, facts)
    assert about.load(tmp_path) == facts
    document = asdict(facts) | {"budget": "long", "project": True, "network": "x" * 999, "machine": [], "other": 1}
    (tmp_path / about.NAME).write_text(json.dumps(document))
    read = about.load(tmp_path)
    assert (read.budget, read.project, read.network, read.machine) == (None, None, "", {})
    assert read.hardware_class == facts.hardware_class
    for content in (b"", b"[]", b"\xff", b"[" * 100_000):
        (tmp_path / about.NAME).write_bytes(content)
        assert about.load(tmp_path) == About()
    shutil.rmtree(tmp_path)
    assert about.load(tmp_path) == About()


def test_locked_versions() -> None:
    found = locked_versions(recipe.load("smoke").files)
    assert "mlx" in found
    assert locked_versions({}) == {}
    assert locked_versions({"uv.lock": b"package = 3"}) == {}


def test_reading_a_journal_takes_no_lock_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    writer = Journal(path)
    writer.append("session", seed=1, tag="t")
    writer._lines.file.write(b'{"event": "tri')
    content = path.read_bytes()
    assert journal.read(path).tag == "t"
    assert path.read_bytes() == content
    assert journal.is_held(path)
    writer.close()
    assert not journal.is_held(path)
    assert not journal.is_held(tmp_path / "absent")
    with pytest.raises(JournalDamaged, match="Cannot read"):
        journal.read(tmp_path / "absent")
