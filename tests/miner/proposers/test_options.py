"""The options on the command line, and a proposer's view of a real session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from miner.commands.main import main
from miner.journal.journal import Journal
from miner.journal.worktree import Workspace
from miner.proposers.ahead import Ahead
from miner.proposers.choice import Proposing
from miner.session.briefing import gather
from tests.miner.proposers.support import FILES, PROTOCOL, SOURCE
from trainer.project import hyperparameters


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--proposer", "magic"], "There is no proposer 'magic'"),
        (["--proposer", "tune:0"], "positive number"),
        (["--proposer", "llm"], "--llm-url"),
        (["--proposer", "llm", "--llm-url", "http://127.0.0.1:1/v1"], "--llm-model"),
        (["--proposer", "tune,agent"], "--agent-command"),
        (["--proposer", "agent", "--agent-command", "no-such-program {prompt}"], "no-such-program"),
        (["--proposer", "patches"], "--patches"),
        (["--text", "/nonexistent"], "'/nonexistent' does not exist"),
        (["--patches", "no-such-folder"], "no-such-folder"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(tmp_path: Path, arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(main, ["run", "--home", str(tmp_path), *arguments])
    assert result.exit_code in (1, 2)
    assert words in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("chosen", "ahead"),
    [
        ({"proposer": "llm", "llm_url": "https://models.example/v1", "llm_model": "x"}, True),
        ({"proposer": "llm", "llm_url": "http://127.0.0.1:8080/v1", "llm_model": "x"}, False),
        ({"proposer": "llm", "llm_url": "https://models.example/v1", "llm_model": "x", "think_ahead": False}, False),
        ({"proposer": "agent", "agent_command": "true {prompt}"}, True),
        ({"proposer": "agent", "agent_command": "true {prompt}", "max_dollars": 2.0}, True),
        ({"proposer": "tune"}, False),
    ],
)
def test_who_thinks_ahead(chosen: dict[str, Any], ahead: bool) -> None:
    mixture = Proposing(**chosen).build(seed=0, files={}, say=lambda _: None)
    (part,) = mixture._parts
    assert isinstance(part.proposer, Ahead) is ahead
    assert part.proposer.name == chosen["proposer"]
    mixture.close()


def test_help_teaches_the_proposers() -> None:
    text = CliRunner().invoke(main, ["run", "--help"]).output
    for word in (
        "--proposer",
        "tune:3,llm:1",
        "--agent-command",
        "{prompt}",
        "--llm-url",
        "OPENAI_API_KEY",
        "--patches",
    ):
        assert word in text


def test_a_session_as_a_proposer_sees_it(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "tree", "x", FILES)
    journal = Journal(tmp_path / "session.jsonl")
    journal.append("session", seed=1, tag="x")

    def trial(number: int, source: str, decision: str, delta: float | None, detail: str = "") -> str:
        commit = workspace.commit(number, source, f"idea {number}") if number else workspace.head()
        mark, arm = hyperparameters.fingerprint(source), "candidate" if number else "incumbent"
        fields = {"hypothesis": f"idea {number}", "fingerprint": mark, "commit": commit, "base": workspace.head()}
        journal.append("trial", number=number, proposer="tune" if number else "", **fields)
        log = f"logs/{number}.log"
        (tmp_path / "logs").mkdir(exist_ok=True)
        (tmp_path / log).write_text(f"log of {number}\n")
        run = {"arm": arm, "val_bpb": None if detail else 2.0, "failure": "crash" if detail else "", "detail": detail}
        journal.append("run", number=number, seconds=1.0, memory_mb=None, log=log, **run)
        journal.append("decision", number=number, decision=decision, delta=delta)
        return commit

    better = SOURCE.replace("DEPTH = 1 ", "DEPTH = 2 ")
    worse = better.replace("DEPTH = 2 ", "DEPTH = 3 ")
    trial(0, SOURCE, "keep", 0.0)
    workspace.keep(trial(1, better, "keep", 0.1))
    trial(2, worse, "crash", None, "out of memory")
    seen = gather(journal.session, workspace, PROTOCOL, tmp_path, seconds_left=60.0)
    journal.close()
    assert seen.source == better
    assert seen.number == 3
    assert seen.log == "log of 1\n"
    assert seen.folder == tmp_path / "proposers"
    assert [(t.number, t.decision, t.delta, t.detail, t.proposer) for t in seen.history] == [
        (0, "keep", 0.0, "", ""),
        (1, "keep", 0.1, "", "tune"),
        (2, "crash", None, "out of memory", "tune"),
    ]
    assert [t.source for t in seen.history] == [SOURCE, better, worse]
    assert [t.base for t in seen.history] == [hyperparameters.fingerprint(s) for s in (SOURCE, SOURCE, better)]
