"""A session that publishes its project: the journal says when each run was made, and the hours add up."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from chain.connection.opening import MINER
from common.files import lock
from miner.context.goals import Goals
from miner.journal import journal, sessions
from miner.journal.journal import seconds_of
from miner.proposers.choice import Proposing
from miner.report import summary
from miner.session import publish, start
from miner.trials.measuring import Rig
from tests import local
from trainer.measurement.bench import open_bench
from trainer.project import recipe
from trainer.project.recipe import Recipe

if TYPE_CHECKING:
    from chain.program.accounts import Project
    from tests.attacks.tiny import TinyHome

SECONDS = 3.0  # that the interrupted run takes


def interrupted(*_: Any, **__: Any) -> None:
    time.sleep(SECONDS)
    raise KeyboardInterrupt


@pytest.fixture
def fresh(tiny_home: TinyHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with the tiny project's data and environment and no chain, where `smoke` is the tiny project."""
    from tests.attacks import tiny

    shutil.copytree(tiny_home.path / "data", tmp_path / "data", symlinks=True)
    shutil.copytree(tiny_home.path / "envs", tmp_path / "envs", symlinks=True, copy_function=os.link)
    made = Recipe("tiny", tiny_home.files, tiny.DATA, recipe.load("smoke").terms)
    monkeypatch.setattr(recipe, "load", lambda name: made)
    return tmp_path


def test_on_two_gpus_the_baseline_is_measured_two_runs_at_once(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (publish, start):
        monkeypatch.setattr(module, "open_bench", lambda *a, **more: replace(open_bench(*a, **more), gpus=("0", "1")))
    who: dict[str, Any] = {"keypair": None, "reward_recipient": None, "stake": 1, "yes": True}
    with (
        local.connect(fresh) as opened,
        start.started(opened, None, quiet=False, trust_harness=False, **who) as session,
    ):
        first, second, third, fourth = session.published  # as many as there is room for, beside the third
    assert first.began == second.began < first.ended <= third.began == fourth.began
    assert all(entry.run.val_bpb is not None for entry in session.published)
    said = capsys.readouterr().err
    assert "baseline, run 1 and 2 of 4" in said
    assert "baseline, run 3 and 4 of 4" in said
    assert "on 2 GPUs side by side" in said


def test_the_baseline_that_publishes_has_its_real_times(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = time.time()
    who: dict[str, Any] = {"keypair": None, "reward_recipient": None, "stake": 1, "yes": True}
    with local.connect(fresh) as opened, start.started(opened, None, quiet=True, trust_harness=False, **who) as session:
        runs = session.published
        miner = start.miner(session, Goals(), Proposing())
        monkeypatch.setattr(Rig, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            miner.run()
        after = time.time()
    found = journal.read(session.folder / "session.jsonl")
    assert len(found.trials[0].runs) == len(runs) == 3
    for run, real in zip(found.trials[0].runs, runs, strict=True):
        ended = seconds_of(run.at)
        assert ended is not None
        assert 0 <= real.ended - ended < 1
        assert 0 <= real.ended - real.began - run.seconds < max(1.0, run.seconds)  # beside it, on a busy machine
    (segment,) = found.segments
    assert found.started == segment.begin == found.trials[0].at
    assert before - 1 <= (seconds_of(found.started) or 0) <= runs[0].began
    assert (segment.reason, segment.within) == ("interrupted", True)
    events = [line.split('"event": "')[1].split('"')[0] for line in session.journal.path.read_text().splitlines()]
    assert events == ["session", "begin", "trial", "run", "run", "run", "frontier", "decision", "trial", "end"]

    spent = summary.time_split(found, 1.0)
    baseline = sum(run.seconds for run in found.trials[0].runs)
    assert SECONDS - 1 <= (spent.interrupted or 0) <= SECONDS + 2
    assert spent.running == pytest.approx(baseline + (spent.interrupted or 0))
    assert spent.running + (spent.idle or 0) == pytest.approx(segment.seconds)
    assert segment.seconds == pytest.approx(after - runs[0].began, abs=1)
    assert spent.away == 0


def test_a_session_that_another_process_holds_is_refused_before_anything_is_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    who: dict[str, Any] = {"keypair": None, "reward_recipient": None, "stake": 1, "yes": True}
    monkeypatch.setattr(start, "fetch_project", lambda *_: pytest.fail("it went on"))
    with local.connect(local.home_with_project(tmp_path)) as opened:
        wallet = opened.wallet(None, MINER).pubkey()
        path = opened.home / "work" / sessions.folder_name("embedded", 0, str(wallet)) / sessions.JOURNAL
        with (
            closing(journal.Journal(path)),
            pytest.raises(journal.SessionBusy, match="Another process"),
            start.started(opened, None, quiet=True, trust_harness=False, **who),
        ):
            pass


def test_a_second_session_in_a_fresh_home_waits_for_the_first_to_publish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One project is published, not two, and what is waited for is said."""
    there: list[Any] = []
    said: list[str] = []
    ours, theirs = (cast("Project", object()) for _ in range(2))
    network = SimpleNamespace(is_local=True, name="embedded")
    connection: Any = SimpleNamespace(home=tmp_path, network=network, client=SimpleNamespace(projects=lambda: there))
    first = (tmp_path / "publish.lock").open("ab")
    assert lock(first)

    def published(text: str) -> None:
        said.append(text)
        there.append(theirs)
        first.close()

    def publish(*_: Any) -> Any:
        raise AssertionError("it is there already")

    monkeypatch.setattr(start, "publish_bundled", publish)

    @contextmanager
    def step(text: str) -> Iterator[None]:
        if "waiting" in text:
            published(text)
        yield

    view: Any = SimpleNamespace(say=said.append, step=step)
    assert start._open_project(connection, None, view, "smoke", None) == (theirs, [])
    assert said == ["waiting for another process that publishes the bundled project here"]
    monkeypatch.setattr(start, "publish_bundled", lambda *_: (ours, []))
    there.clear()
    assert start._open_project(connection, None, view, "smoke", None) == (ours, [])
