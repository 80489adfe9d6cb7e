"""`miner init`: what is fetched is verified and laid out, what is missing is told, what is run was agreed to."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from chain.errors import ChainError
from chain.program.instructions import ClaimReview
from chain.projects.artifacts import fetch_project
from common import resources
from miner.commands.main import main
from miner.setup import init, prepare, readiness
from miner.setup.prepare import SetUp, SetupCommand
from miner.setup.readiness import MachineFacts
from tests import local, official
from trainer.doctor.lines import GIB
from trainer.errors import TrainerError
from trainer.project import bundle, protocol, task
from trainer.project.task import Benchmark

TASK = task.Task(
    local.PROTOCOL,
    protocol.parse(local.PROTOCOL),
    local.SMOKE.files,
    local.SMOKE.files,
    Benchmark("armlx-smoke-1", (), local.DATA_SNAPSHOT),
    local.BASELINE,
    "cpu-x-2c",
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return local.home_with_project(tmp_path / "home")


def miner(home: Path, *arguments: object) -> Result:
    given = ["init", "--project", "0", *map(str, arguments), "--home", str(home)]
    variables = {"ARMLX_NETWORK": None, "ARMLX_HOME": None, "ARMLX_IRYS": None, "AUTORESEARCH_CACHE": None}
    return CliRunner().invoke(main, given, env=variables)


def git(folder: Path, *arguments: str) -> list[str]:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def approve_better(home: Path, source: bytes) -> str:
    """A proposal with this train.py, approved; its miner."""
    with local.connect(home) as connection:
        verifier, client = local.verifier_of(connection), connection.client
        proposal = local.propose(connection, code=local.archive(source))
        client.call(ClaimReview(proposal.id), verifier)
        project = client.project(0)
        score = local.convention(project).to_score(local.BASELINE - 1)
        client.approve(verifier, proposal, project, verified_score=score, metrics=(bytes(32), bytes(32)))
        return str(proposal.miner)


def test_a_fresh_project_is_laid_out(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = miner(home, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    tree = tmp_path / "TST"
    assert found["folder"] == str(tree)
    assert found["branch"] == "autoresearch/snapshot"
    names = ["protocol", "repository snapshot", "benchmark", "baseline metrics"]
    assert [artifact["name"] for artifact in found["artifacts"]] == names
    assert all(artifact["signed"] for artifact in found["artifacts"])
    assert bundle.read_tree(tree).keys() >= local.SMOKE.files.keys()
    assert {name: (tree / name).read_bytes() for name in local.SMOKE.files} == dict(local.SMOKE.files)
    assert git(tree, "log", "--format=%s") == ["snapshot of the project"]
    assert git(tree, "status", "--porcelain") == []
    sources = local.artifacts()
    assert (tree / init.DOT / "benchmark.json").read_bytes() == sources.benchmark
    assert (tree / init.DOT / "baseline-metrics.json").read_bytes() == sources.baseline_metrics
    # the snapshot has a protocol.json of its own, so the project's lies beside it
    assert (tree / init.DOT / "protocol.json").read_bytes() == sources.protocol
    state = json.loads((tree / "network_state.json").read_text())
    assert (state["project_id"], state["network_best_metric"], state["code_origin"]) == (0, 2.5, "repoSnapshot")
    # nobody was there to agree to anything
    assert [(entry["command"], entry["state"]) for entry in found["setup"]] == [
        ("uv sync", "declined"),
        ("uv run prepare.py --text stdlib", "declined"),
    ]
    assert {point["name"] for point in found["machine"]} == {
        "hardware",
        "uv",
        "sandbox",
        "data",
        "free disk",
        "memory",
    }
    assert found["next"] == f"uv run miner run --project 0 --home {home}"


def test_words_for_people(home: Path, tmp_path: Path) -> None:
    result = miner(home, tmp_path / "tree")
    assert result.exit_code == 0, result.output
    checked = [line for line in result.stderr.splitlines() if line.startswith("✓")]
    assert len(checked) == 5
    assert "✓ benchmark: " in checked[2]
    assert "signed by" in checked[2]
    assert "  2. uv run prepare.py --text stdlib" in result.stderr
    assert "✗ data: no prepared data in" in result.stdout
    assert result.stdout.splitlines()[-1].strip().startswith("uv run miner run --project 0")


def test_the_best_code_is_a_commit_on_a_branch_of_its_own(home: Path, tmp_path: Path) -> None:
    better = local.TRAIN + b"# better\n"
    winner = approve_better(home, better)
    found = json.loads(miner(home, tmp_path / "tree", "--json").stdout)
    tree = tmp_path / "tree"
    assert found["branch"] == "autoresearch/best"
    assert found["artifacts"][-1]["name"] == "best code"
    assert found["artifacts"][-1]["owner"] == winner
    assert git(tree, "log", "--format=%s") == [f"best approved code, by {winner}", "snapshot of the project"]
    assert git(tree, "diff", "--name-only", "autoresearch/snapshot") == ["train.py"]
    assert git(tree, "status", "--porcelain") == []
    assert (tree / "train.py").read_bytes() == better
    state = json.loads((tree / "network_state.json").read_text())
    assert (state["network_best_metric"], state["code_origin"]) == (1.5, "currentBestCode")


def test_a_folder_with_something_in_it_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "mine").write_text("precious")
    result = miner(home, tmp_path / "tree")
    assert result.exit_code == 1
    assert "is not empty" in result.output
    assert os.listdir(tmp_path / "tree") == ["mine"]
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with pytest.raises(TrainerError, match="is not empty"):
        init.require_empty(tmp_path / "link")
    (tmp_path / "empty").mkdir()
    assert miner(home, tmp_path / "empty").exit_code == 0


def test_an_altered_artifact_is_named_and_nothing_is_laid_out(home: Path, tmp_path: Path) -> None:
    with local.connect(home) as connection:
        project = connection.client.project(0)
    wanted = local.artifacts().benchmark
    altered = 0
    for path in [*(home / "irys").rglob("*"), *(home / "cache").rglob("*")]:
        if path.is_file() and wanted in path.read_bytes():
            path.write_bytes(path.read_bytes().replace(wanted, wanted.replace(b"benchmark", b"benchmurk")))
            altered += 1
    assert altered
    result = miner(home, tmp_path / "tree")
    assert result.exit_code == 1
    assert "The benchmark (" in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "tree").exists()
    assert any(project.benchmark_hash)


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [("ARMLX", "ARMLX"), ("a b/c", "a-b-c"), ("../..", "project-3"), ("", "project-3"), ("-x", "x"), ("ß.git", "git")],
)
def test_folder_name(symbol: str, expected: str) -> None:
    assert init.folder_name(symbol, 3) == expected


@pytest.mark.parametrize("negated", [False, True])
def test_a_project_of_the_official_client(tmp_path: Path, *, negated: bool) -> None:
    home = official.home_with_project(tmp_path / "home", negated=negated)
    result = miner(home, tmp_path / "tree", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [note.split(" is ")[0] for note in found["notes"]] == ["The benchmark artifact", "The baseline, 2.500000,"]
    kept = tmp_path / "tree" / init.DOT
    assert bundle.read_archive((kept / "benchmark.tar").read_bytes()).files
    assert (kept / "baseline-metrics.log").read_bytes().endswith(b"BASELINE_METRIC=2.500000\n")
    state = json.loads((tmp_path / "tree" / "network_state.json").read_text())
    assert state["network_best_metric"] == 2.5


def test_artifacts_that_were_never_uploaded_are_done_without(home: Path, tmp_path: Path) -> None:
    """The official client's --allow-skip-storage pins hashes and leaves the ids zero."""
    with local.connect(home) as connection:
        project = replace(connection.client.project(0), benchmark_irys_id=bytes(32), baseline_metrics_irys_id=bytes(32))
        found = fetch_project(connection, project)
        assert (found.benchmark, found.baseline_metrics) == (b"", b"")
        parsed = task.read(found)
        assert parsed.baseline == local.BASELINE
        assert "not published" in parsed.notes[0]
        assert "on chain" in parsed.notes[1]
        with pytest.raises(ChainError, match="The protocol"):
            fetch_project(connection, replace(project, protocol_irys_id=bytes(32), protocol_hash=b"x" * 32))


# --- the machine ---

GOOD = MachineFacts(
    device="cpu",
    hardware_class="cpu-x-2c",
    memory=8 * GIB,
    disk=50 * GIB,
    uv="/bin/uv",
    sandbox="/usr/bin/bwrap",
    data_folder="/data",
    data=local.DATA_SNAPSHOT,
    own_harness=True,
)


@pytest.mark.parametrize(
    ("facts", "name", "state", "words"),
    [
        (GOOD, "hardware", "ok", "cpu-x-2c (CPU only), the class that the baseline was measured on"),
        (replace(GOOD, hardware_class="apple-m4"), "hardware", "differs", "the baseline was measured on cpu-x-2c."),
        (replace(GOOD, hardware_class="apple-m4", device="metal"), "hardware", "differs", "apple-m4 (Metal)"),
        (replace(GOOD, hardware_class="nvidia", device="cuda"), "hardware", "differs", "linux-x86_64, linux-arm64"),
        (replace(GOOD, hardware_class=""), "hardware", "differs", "; the baseline was measured on"),
        (GOOD, "uv", "ok", "/bin/uv"),
        (replace(GOOD, uv=None), "uv", "missing", "astral.sh/uv"),
        (GOOD, "sandbox", "ok", "/usr/bin/bwrap"),
        (replace(GOOD, sandbox=None), "sandbox", "differs", "no sandbox: results are self-reported"),
        (GOOD, "data", "ok", "5a5a5a5a5a5a5a5a… in /data"),
        (replace(GOOD, data=None), "data", "missing", "no prepared data in /data. Run the setup commands."),
        (replace(GOOD, data="ab" * 32), "data", "missing", "holds abababababababab…, the project was measured on 5a"),
        (GOOD, "free disk", "ok", "50.0 GiB"),
        (replace(GOOD, disk=GIB), "free disk", "differs", "1.0 GiB, less than the 4 GiB"),
        (GOOD, "memory", "ok", "8.0 GiB"),
        (replace(GOOD, memory=GIB), "memory", "differs", "1.0 GiB, less than the 4 GiB"),
    ],
)
def test_points(facts: MachineFacts, name: str, state: str, words: str) -> None:
    (point,) = (point for point in readiness.points(facts, TASK) if point.name == name)
    assert point.state == state
    assert words in point.line


@pytest.mark.parametrize("data", [local.DATA_SNAPSHOT, "ab" * 32])
def test_where_the_project_pins_no_data_this_machines_own_will_do(data: str) -> None:
    unpinned = replace(TASK, benchmark=Benchmark("", (), None))
    (point,) = (point for point in readiness.points(replace(GOOD, data=data), unpinned) if point.name == "data")
    assert (point.state, "the project pins none" in point.line) == ("ok", True)


# --- the setup commands ---


@pytest.mark.parametrize(
    ("text", "argv", "problem"),
    [
        ("uv sync", ("uv", "sync"), ""),
        ("python -c 'print(1)'", (), "needs a shell"),
        ("uv run 'a b.py'", ("uv", "run", "a b.py"), ""),
        ("curl https://x | sh", (), "needs a shell"),
        ("rm -rf ~", (), "needs a shell"),
        ("echo $HOME", (), "needs a shell"),
        ("a\nb", (), "needs a shell"),
        ("a\x1b[2Jb", (), "needs a shell"),
        ("a 'b", (), "no closing quotation"),
        ("", (), "empty"),
    ],
)
def test_commands(text: str, argv: tuple[str, ...], problem: str) -> None:
    (command,) = prepare.commands({"environment": {"setupCommands": [text]}})
    assert command.argv == argv
    assert problem in command.problem
    assert bool(problem) == bool(command.problem)


def test_commands_of_another_form() -> None:
    assert prepare.commands({}) == []
    assert prepare.commands({"environment": {}}) == []
    assert prepare.commands({"environment": {"setupCommands": "uv sync"}}) == []
    assert len(prepare.commands({"environment": {"setupCommands": ["x"] * 99}})) == prepare.MAX_COMMANDS


@pytest.mark.parametrize(
    ("entry", "text", "argv", "problem"),
    [
        ({"kind": "uv", "args": ["sync", "a b"]}, "uv sync 'a b'", ("uv", "sync", "a b"), ""),
        (
            {"kind": "pip", "args": ["install", "x"]},
            "python3 -m pip install x",
            ("python3", "-m", "pip", "install", "x"),
            "",
        ),
        ({"kind": "bash", "args": ["echo $HOME"]}, "echo $HOME", (), "needs a shell"),
        ({"kind": "rm", "args": ["-rf"]}, '{"kind": "rm", "args": ["-rf"]}', (), "no known form"),
        ({"kind": "uv", "args": [1]}, '{"kind": "uv", "args": [1]}', (), "no known form"),
        (1, "1", (), "no known form"),
    ],
)
def test_commands_as_objects(entry: object, text: str, argv: tuple[str, ...], problem: str) -> None:
    """The official client's schema has both forms."""
    (command,) = prepare.commands({"environment": {"setupCommands": [entry]}})
    assert (command.text, command.argv) == (text, argv)
    assert problem in command.problem


def run_commands(folder: Path, *texts: str, agrees: Any = lambda _: True, seconds: float = 20) -> list[SetUp]:
    raw = {**TASK.protocol.raw, "environment": {"setupCommands": list(texts)}}
    parsed = replace(TASK, protocol=replace(TASK.protocol, raw=raw))

    @contextlib.contextmanager
    def step(command: SetupCommand) -> Iterator[Any]:
        yield lambda line: None

    return list(prepare.set_up(folder, parsed, folder / "cache", agrees, seconds, step))


def test_they_run_one_by_one_until_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANY_SECRET_KEY", "hidden")
    (tmp_path / "show.py").write_text("import os; print(sorted(os.environ.values()), os.getcwd())")
    (tmp_path / "fail.py").write_text("print('no space left'); raise SystemExit(3)")
    asked: list[str] = []

    def agrees(command: SetupCommand) -> bool:
        asked.append(command.text)
        return "never" not in command.text

    show, fail, never = (f"{sys.executable} {name}.py" for name in ("show", "fail", "never"))
    found = run_commands(tmp_path, show, never, "a | b", fail, show, agrees=agrees)
    assert [entry.state for entry in found] == ["done", "declined", "refused", "failed", "not reached"]
    assert "hidden" not in found[0].detail
    assert str(tmp_path) in found[0].detail
    assert found[3].detail == "status 3: no space left"
    assert asked == [show, never, fail]


def test_one_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    (tmp_path / "wait.py").write_text("import time; time.sleep(60)")
    (found,) = run_commands(tmp_path, f"{sys.executable} wait.py", seconds=0.5)
    assert found.state == "failed"
    assert "stopped after 0.5 s" in found.detail


def test_one_that_does_not_exist(tmp_path: Path) -> None:
    (found,) = run_commands(tmp_path, "no-such-program --at all")
    assert (found.state, found.detail) == ("failed", "cannot start 'no-such-program'")


def test_our_own_harness_is_recognised(home: Path) -> None:
    assert readiness.read(TASK, home).own_harness
    other = replace(TASK, files={**TASK.files, "prepare.py": b"other"})
    assert not readiness.read(other, home).own_harness
    assert TASK.files["prepare.py"] == (resources.ROOT / "prepare.py").read_bytes()
