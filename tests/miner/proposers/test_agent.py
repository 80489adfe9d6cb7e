"""`agent`: real processes that edit well, cheat, hang and crash."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from pathlib import Path

import pytest

from miner.proposers import usage
from miner.proposers.agent import Agent, inherited, rest, template, visible
from miner.proposers.base import Context, ProposerFailed
from tests.miner.proposers.support import FILES, PROTOCOL, SOURCE, context
from trainer.errors import TrainerError

EDIT = "p = pathlib.Path('train.py'); p.write_text(p.read_text().replace('EMBED_LR = 0.01', 'EMBED_LR = 0.03'))"


def agent(tmp_path: Path, code: str, *arguments: str, minutes: float = 1.0) -> Agent:
    """An agent that is a Python script."""
    script = tmp_path / "agent.py"
    script.write_text(f"import json, os, pathlib, subprocess, sys, time\n{code}\n")
    return Agent(shlex.join([sys.executable, str(script), *arguments]), FILES, minutes)


def test_an_edit_is_taken(tmp_path: Path) -> None:
    code = f"{EDIT}\nprint('done\\nHYPOTHESIS: a higher rate')"
    candidate = agent(tmp_path, code, "-p", "{prompt}").propose(context(tmp_path / "work"))
    assert candidate is not None
    assert candidate.source == SOURCE.replace("EMBED_LR = 0.01", "EMBED_LR = 0.03")
    assert candidate.hypothesis == "a higher rate"
    assert "HYPOTHESIS" in (tmp_path / "work" / "agent" / "0001.log").read_text()
    assert not (tmp_path / "work" / "agent" / "0001").exists()


def test_what_an_agent_says_it_cost_is_written_down_and_its_words_are_read(tmp_path: Path) -> None:
    """As `claude -p --output-format json` prints: one object with the last message, tokens and dollars."""
    said = {"result": "Done.\nHYPOTHESIS: a higher rate", "total_cost_usd": 0.25, "usage": {"output_tokens": 70}}
    made = agent(tmp_path, f"{EDIT}\nprint({json.dumps(said)!r})")
    candidate = made.propose(context(tmp_path / "work"))
    assert candidate is not None
    assert candidate.hypothesis == "a higher rate"
    assert usage.spent(tmp_path / "work") == {"agent": usage.Usage(1, 0, 70, 0.25)}


@pytest.mark.parametrize("place", ["argument", "stdin"])
def test_the_prompt_and_what_it_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("ARMLX_LLM_KEY", "ours")
    monkeypatch.setenv("AN_AGENTS_KEY", "theirs")
    given = "sys.argv[1]" if place == "argument" else "sys.stdin.read()"
    code = (
        f"seen = dict(prompt={given}, files=sorted(os.listdir('.')), env=dict(os.environ), "
        "log=subprocess.run(['git', 'log', '--oneline'], capture_output=True, text=True).stdout)\n"
        f"pathlib.Path({str(tmp_path / 'seen.json')!r}).write_text(json.dumps(seen))\n{EDIT}"
    )
    arguments = ["{prompt}"] if place == "argument" else []
    assert agent(tmp_path, code, *arguments).propose(context(tmp_path / "work", log='it\'s "$(id)" `id`\n'))
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert 'it\'s "$(id)" `id`' in seen["prompt"]
    assert set(seen["files"]) == {".git", *visible(FILES, PROTOCOL.surface)}
    assert {"train.py", "prepare.py"} <= set(seen["files"])
    assert seen["env"]["AN_AGENTS_KEY"] == "theirs"
    assert not any(name.startswith("ARMLX_") for name in seen["env"])
    assert "best so far" in seen["log"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("pass", "did not change"),
        ("os.remove('train.py')", "more than|did not change"),
        (f"{EDIT}\npathlib.Path('prepare.py').write_text('TIME_BUDGET = 1e9')", "prepare.py"),
        (f"{EDIT}\nos.remove('prepare.py')", "prepare.py"),
        (f"{EDIT}\nos.mkdir('mlx'); pathlib.Path('mlx/core.py').write_text('')", "imports mlx, a new file"),
        (f"{EDIT}\nsys.exit('usage limit reached')", "status 1"),
        ("os.remove('train.py'); os.symlink('/etc/hostname', 'train.py')", "unusable tree"),
        (f"{EDIT}\nos.symlink('/etc', 'etc')", "unusable tree"),
        ("os.remove('train.py'); os.mkfifo('train.py')", "unusable tree"),
        ("pathlib.Path('train.py').write_bytes(b'\\xff')", "UTF-8"),
        (f"{EDIT}\nsys.exit(3)", "status 3"),
    ],
)
def test_what_is_not_taken(tmp_path: Path, code: str, words: str) -> None:
    with pytest.raises(ProposerFailed, match=words):
        agent(tmp_path, code).propose(context(tmp_path / "work"))
    assert not (tmp_path / "work" / "agent" / "0001").exists()


def test_stray_notes_and_settings_are_left_out(tmp_path: Path) -> None:
    code = (
        f"{EDIT}\npathlib.Path('notes.md').write_text('x'); os.mkdir('.tool'); pathlib.Path('.tool/a').write_text('')"
    )
    assert agent(tmp_path, code).propose(context(tmp_path / "work")) is not None


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Usage limit reached. Try again in 2 hours.", 7200.0),
        ("error: retry-after: 30", 30.0),
        ("Rate limit reached; resets in 5 minutes", 300.0),
        ("You've hit your usage limit.", 900.0),
        ("HTTP 429 Too Many Requests", 900.0),
        ("SyntaxError: invalid syntax on line 42", 0.0),
    ],
)
def test_an_agents_last_words_say_how_long_it_rests(words: str, seconds: float) -> None:
    assert rest("thinking\n" + words) == seconds


def test_what_was_wrong_is_told_in_the_next_prompt(tmp_path: Path) -> None:
    bad = "pathlib.Path('train.py').write_text('def f(:')"
    code = f"first = not os.path.exists({str(tmp_path / 'seen')!r})\n"
    code += f"pathlib.Path({str(tmp_path / 'seen')!r}).open('a').write(sys.stdin.read())\n"
    code += f"exec({bad!r} if first else {EDIT!r})"
    made = agent(tmp_path, code)
    with pytest.raises(ProposerFailed, match="not valid Python"):
        made.propose(context(tmp_path / "work"))
    assert made.propose(context(tmp_path / "work")) is not None
    assert "what was wrong with your last answer" in (tmp_path / "seen").read_text()


def test_an_agent_stopped_at_its_limit_keeps_a_finished_edit(tmp_path: Path) -> None:
    candidate = agent(tmp_path, f"{EDIT}\ntime.sleep(600)", minutes=0.03).propose(context(tmp_path / "work"))
    assert candidate is not None
    assert "EMBED_LR = 0.03" in candidate.source
    assert candidate.hypothesis == "what an agent had done in time"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("how", ["limit", "stop", "interrupt"])
def test_it_ends_with_all_that_it_started(tmp_path: Path, how: str) -> None:
    pids = tmp_path / "pids"
    code = (
        "child = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        f"pathlib.Path({str(tmp_path / 'new')!r}).write_text(f'{{os.getpid()}} {{child.pid}}')\n"
        f"os.rename({str(tmp_path / 'new')!r}, {str(pids)!r})\ntime.sleep(60)"
    )
    seen = context(tmp_path / "work")

    def stop() -> bool:
        if pids.exists() and how == "interrupt":
            raise KeyboardInterrupt
        return pids.exists() and how == "stop"

    minutes = 3 / 60 if how == "limit" else 1.0
    made = agent(tmp_path, code, minutes=minutes)
    with pytest.raises(KeyboardInterrupt if how == "interrupt" else ProposerFailed):
        made.propose(Context(seen.source, seen.protocol, seen.history, "", 1, seen.folder, None, stop))
    found = [int(pid) for pid in pids.read_text().split()]
    assert len(found) == 2
    end = time.monotonic() + 10
    while any(map(_alive, found)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(map(_alive, found))


def test_much_output_is_bounded(tmp_path: Path) -> None:
    code = f"{EDIT}\nfor _ in range(300): print('x' * 10_000)\nprint('HYPOTHESIS: loud')"
    candidate = agent(tmp_path, code).propose(context(tmp_path / "work"))
    assert candidate is not None
    assert candidate.hypothesis == "loud"
    assert (tmp_path / "work" / "agent" / "0001.log").stat().st_size <= 1024 * 1024


def test_a_wallet_never_goes_to_an_agent(tmp_path: Path) -> None:
    key = tmp_path / "mine.json"
    key.write_text(json.dumps(list(range(64))))
    for command in (f"cat {key}", f"cat --file={key}", "cat ~/.config/keypair", "cat wallet.json"):
        with pytest.raises(TrainerError, match="wallet"):
            template(command)


@pytest.mark.parametrize("command", ["", "'", "{prompt}", "no-such-program-here -p {prompt}", "cat {prompt} {prompt}"])
def test_templates_that_are_none(command: str) -> None:
    with pytest.raises(TrainerError):
        template(command)


def test_only_this_projects_variables_are_kept_back() -> None:
    outer = {"PATH": "/bin", "ANTHROPIC_API_KEY": "a", "ARMLX_HOME": "h", "AUTORESEARCH_CACHE": "c"}
    assert inherited(outer) == {"PATH": "/bin", "ANTHROPIC_API_KEY": "a"}
