"""A mining session killed again and again ends as an undisturbed one does: same trials, same proposals, once each.

The installed command on the tiny project, with SIGKILL for its whole process group or for the parent alone: after
random seconds, or as soon as so many more events are in its journal, each of which is followed by an act that the
kill may cut off. `ARMLX_FAULT_KILLS` says how often (from 10 on with an undisturbed session of nine candidates beside
it), `ARMLX_FAULT_SEED` when.
"""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
import tarfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from miner.journal.journal import Journal, read
from tests import local
from tests.e2e.test_path import BIN, events
from tests.faults.lives import LIFE, Kill, left_over, live
from tests.faults.world import number
from trainer.project import hyperparameters

if TYPE_CHECKING:
    from tests.attacks.tiny import TinyHome

KILLS = number("ARMLX_FAULT_KILLS", 3)
SEED = number("ARMLX_FAULT_SEED", 1)
LONG = KILLS >= 10
_RUN = re.compile(r"^(trial \d+, run|run) \d+ \((incumbent|candidate)\)|^one run by the protocol's own command", re.M)


def kills(count: int, rng: random.Random) -> list[Kill]:
    """A few at the moments with most at stake; many at random, by the clock and by the journal in turn."""
    if count < 10:
        return [Kill("decision"), Kill("confirming_run", group=False), Kill("sent")][:count]
    return [
        Kill(rng.uniform(0.2, LIFE) if place % 2 else rng.randrange(2, 8), rng.random() < 0.75)
        for place in range(count)
    ]


class Session:
    """One home's mining session, in as many processes as it takes; `words` is what they said."""

    def __init__(self, tiny_home: TinyHome, folder: Path, patches: Path) -> None:
        self.home = tiny_home.copy(folder / "home").path
        self.command = [BIN / "miner", "run", "--proposer", "patches", "--patches", patches, "--home", self.home]
        self.command += ["--submissions", "0", "--no-prune"]
        self.said = folder / "said.txt"
        self.lives = 0

    def live(self, kill: Kill | None = None) -> bool:
        """One process, killed or to its end; whether it came to its end."""
        self.lives += 1
        return live(self.command, self.said, kill, lambda: events(self.home))

    @property
    def words(self) -> str:
        return self.said.read_text()

    def runs_begun(self) -> int:
        """How often a script was set to run, as the command tells when it does so."""
        return len(_RUN.findall(self.words))

    def runs_recorded(self) -> int:
        found = sum(event["event"] in ("run", "confirming_run") for event in events(self.home))
        return found + len(list(self.journal.parent.glob("logs/*-benchmark-*.log")))

    @property
    def journal(self) -> Path:
        (path,) = (self.home / "work").glob("*/session.jsonl")
        return path


def history(session: Session) -> list[tuple[Any, ...]]:
    """Of every trial in order: its number, why, which code on which, and what became of it."""
    state = read(session.journal)
    code = {t.commit: t.fingerprint for t in state.trials}
    return [
        (
            t.number,
            t.hypothesis,
            t.fingerprint,
            code[t.base],
            t.decision,
            sum(not run.failure for run in t.runs),
        )
        for t in state.trials
    ]


def proposals(session: Session) -> list[tuple[str, int]]:
    """The code of what is on chain, and its stake."""
    with local.connect(session.home) as connection:
        found = []
        for proposal in connection.client.proposals(0):
            data = connection.fetch(proposal.code_irys_id, proposal.code_hash, proposal.miner, "code")
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                member = archive.extractfile("train.py")
                assert member is not None
                found.append((hyperparameters.fingerprint(member.read().decode()), proposal.stake))
        project = connection.client.project(0)
        assert connection.client.supply(project) == sum(stake for _, stake in found)  # nothing was bought twice
    return found


@pytest.fixture
def candidates(tiny_home: TinyHome, tmp_path: Path) -> dict[str, str]:
    """By file name, in order; each is worse or better by many times the noise, or does not run."""

    def worse(number: int) -> str:
        return hyperparameters.replace(
            tiny_home.better, dict.fromkeys(("EMBED_LR", "HEAD_LR", "MATRIX_LR"), 1e-05 * number)
        )

    def between(rate: float, head: float) -> str:
        """Better than the baseline, and worse than the last."""
        return hyperparameters.replace(tiny_home.better, {"EMBED_LR": rate, "MATRIX_LR": rate, "HEAD_LR": head})

    found = {}
    if LONG:
        found["1-crash.py"] = "raise RuntimeError('broken')\n"
        found["2-worse.py"] = worse(1)
        found["3-better.py"] = between(0.014, 0.006)
        found["4-worse.py"] = worse(2)
        found["5-worse.py"] = worse(3)
        found["6-better.py"] = between(0.019, 0.01)
        found["7-worse.py"] = worse(4)
        found["8-worse.py"] = worse(5)
    found["9-better.py"] = tiny_home.better
    (tmp_path / "patches").mkdir()
    for name, source in found.items():
        (tmp_path / "patches" / name).write_text(source)
    return found


def test_killed_at_any_moment_it_ends_as_if_undisturbed(
    tiny_home: TinyHome, tmp_path: Path, candidates: dict[str, str]
) -> None:
    kept = [name for name in candidates if "better" in name]
    session = Session(tiny_home, tmp_path / "killed", tmp_path / "patches")
    ended, cut = False, Counter[str]()  # by the last event before the kill
    begin = time.monotonic()
    for kill in kills(KILLS, random.Random(SEED)):
        recorded = events(session.home)
        ended = session.live(kill)
        now = events(session.home)
        assert now[: len(recorded)] == recorded
        assert left_over(session.home) == []
        cut[now[-1]["event"] if now else "nothing"] += not ended
    while not ended:
        ended = session.live()
    seconds = time.monotonic() - begin
    _once_each(session)
    assert 0 <= session.runs_begun() - session.runs_recorded() <= cut.total()
    print(f"{cut.total()} kills in {session.lives} lives and {seconds:.0f} s, after {dict(cut)}")
    print(f"{session.runs_begun()} runs begun, {session.runs_recorded()} recorded")

    found = history(session)
    assert [(entry[1], entry[4]) for entry in found] == [
        ("baseline", "keep"),
        *((f"patch {name}", _expected(name)) for name in candidates),
    ]
    assert proposals(session) == [(hyperparameters.fingerprint(candidates[name]), 1) for name in kept]
    _nothing_is_left(session)
    if not LONG:
        return
    begin = time.monotonic()
    undisturbed = Session(tiny_home, tmp_path / "undisturbed", tmp_path / "patches")
    assert undisturbed.live()
    print(f"undisturbed: {time.monotonic() - begin:.0f} s, {undisturbed.runs_begun()} runs")
    _once_each(undisturbed)
    assert history(undisturbed) == found
    assert proposals(undisturbed) == proposals(session)


def _nothing_is_left(session: Session) -> None:
    """A later command removes what killed ones left, and finds nothing more to do."""
    before = (history(session), proposals(session))
    folders = [
        folder for folder in (session.home / "scratch", session.home / "measurement" / "graphs") if folder.exists()
    ]
    assert folders
    for path in (path for folder in folders for path in folder.iterdir()):
        os.utime(path, (0, 0))
    assert session.live()
    assert [path for folder in folders for path in folder.iterdir()] == []
    assert (history(session), proposals(session)) == before


def _expected(name: str) -> str:
    return "crash" if "crash" in name else "keep" if "better" in name else "discard"


def _once_each(session: Session) -> None:
    """The journal parses; no trial, run or decision is there twice, and nothing is left open."""
    happened = events(session.home)
    assert len(happened) == session.journal.read_bytes().count(b"\n")
    journal = Journal(session.journal)
    journal.close()
    state = journal.session
    assert (state.unfinished, state.pending, state.purchase) == ([], None, None)
    assert [t.number for t in state.trials] == list(range(len(state.trials)))
    for kind in ("trial", "decision"):
        assert set(Counter(e["number"] for e in happened if e["event"] == kind).values()) == {1}
    logs = [event["log"] for event in happened if event["event"] == "run"]
    assert len(set(logs)) == len(logs)
    assert all((session.journal.parent / log).is_file() for log in logs)
    sent = [s.proposal for s in state.submissions if s.proposal is not None]
    assert len(set(sent)) == len(sent) == state.staked
    tree = session.journal.parent / "tree"
    head = subprocess.run(["git", "-C", tree, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
    assert head.strip() == state.head
