"""A claim skips measuring, not sanity."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from miner.commands.main import main
from miner.session.own_file import faults, submit_file
from miner.staking import submit
from tests import local
from trainer.errors import TrainerError
from trainer.project import task
from trainer.project.task import Task

BEST = Decimal("2.500000")
SCRIPT = local.TRAIN + b"# changed\n"


@pytest.fixture
def parsed() -> Task:
    return task.read(local.artifacts())


@pytest.mark.parametrize(
    ("script", "claim", "words"),
    [
        (SCRIPT, "2.4", []),
        (b"# Read me\n\nThis is how it works.\n", "2.0", ["it is not Python"]),
        (b"x = '\0'\n", "2.0", ["it is not Python"]),
        (local.TRAIN, "2.4", ["it is the on-chain best itself"]),
        (SCRIPT + b"W = '%b'\n" % (b"0" * 10_000), "2.4", ["has a literal of 10,000 characters"]),
        (SCRIPT, "2.5", ["does not beat the on-chain best, 2.500000"]),
        (SCRIPT, "9.9", ["does not beat the on-chain best"]),
        (b"# Read me\n\nThis is how.\n", "9.9", ["it is not Python", "does not beat"]),
    ],
)
def test_what_no_verifier_could_approve(parsed: Task, script: bytes, claim: str, words: list[str]) -> None:
    found = faults(parsed, {**parsed.files, "train.py": script}, Decimal(claim), BEST)
    assert len(found) == len(words), found
    assert all(word in text for word, text in zip(words, found, strict=True))


def test_what_is_not_python_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Read me\n\nThis is how it works.\n")
    home = tmp_path / "home"
    done = CliRunner().invoke(main, ["submit", str(tmp_path / "README.md"), "--home", str(home)])
    assert done.exit_code == 1
    assert "README.md cannot be approved: it is not Python" in done.output
    assert list(home.iterdir()) == []


def test_where_more_is_better_less_is_none() -> None:
    upward: Any = SimpleNamespace(minimize=False, files={}, incumbent={})
    assert [len(faults(upward, {"train.py": SCRIPT}, Decimal(claim), BEST)) for claim in ("2.4", "2.6")] == [1, 0]


def test_it_is_refused_unless_forced(parsed: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "README.md"
    file.write_bytes(b"# Read me\n\nThis is how it works.\n")
    submitted: list[Any] = []

    def made(*given: Any, **_: Any) -> int:
        submitted.append(given)
        return 7

    monkeypatch.setattr(submit, "reconcile", lambda *_: None)
    monkeypatch.setattr(submit, "submit", made)
    anything: Any = SimpleNamespace(
        task=parsed,
        practice=False,
        bench=SimpleNamespace(machine=None, data_snapshot=""),
        project=None,
        best_metric=BEST,
        convention=SimpleNamespace(to_score=lambda metric: 1),
        connection=SimpleNamespace(client=None),
        wallet=SimpleNamespace(pubkey=lambda: None),
        journal=None,
        goals=SimpleNamespace(stake=1),
        reward_recipient=None,
        dashboard=SimpleNamespace(say=lambda *_, **__: None, step=None),
    )
    with pytest.raises(
        TrainerError, match=r"README\.md with a claim of 2\.0 cannot be approved: it is not Python"
    ) as no:
        submit_file(anything, file, "2.0")
    assert "--force" in no.value.cure
    with pytest.raises(TrainerError, match=r"README\.md cannot be approved: it is not Python"):
        submit_file(anything, file, None, force=True)  # without a claim it would be measured first
    assert submitted == []
    assert submit_file(anything, file, "2.0", force=True) == (7, Decimal("2.0"))
    assert len(submitted) == 1
