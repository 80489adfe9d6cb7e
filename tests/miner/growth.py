"""A session of any size on disk within seconds, for what must not grow faster than the work: all of it is drawn here.

Nothing was measured. The journal is written in one go, and the commits by `git fast-import`.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from miner.journal import about
from miner.journal.journal import written
from miner.journal.worktree import Workspace
from tests.miner import sessions
from trainer.project import recipe

SECONDS = 360.0  # of a run
KEPT = 20  # one trial in so many
CRASHED = 15


def make(home: Path, trials: int, *, seed: int = 1) -> Path:
    """Write a session of `trials` trials with their commits and logs under `home`; its folder."""
    folder = home / "work" / sessions.NAME
    workspace = Workspace.open(folder / "tree", sessions.TAG, recipe.load("smoke").files)
    source, base = workspace.read(workspace.head(), "train.py"), workspace.head()
    commits = _commits(workspace, source, base, trials)
    lines = [json.dumps(event) for event in _events(trials, base, commits, random.Random(seed))]
    (folder / "session.jsonl").write_text("\n".join(lines) + "\n")
    about.save(folder, sessions.facts(2.53, 2.4))
    (folder / "logs").mkdir()
    for number in range(max(0, trials - 500), trials + 1):
        (folder / "logs" / f"{number}.log").write_text("step 1 | loss: 3.1\n" * 30)
    return folder


def changed(source: str, number: int) -> tuple[str, str]:
    """The candidate of a trial, and its hypothesis."""
    value = round(0.001 * (1 + number / 997), 9)
    text = re.sub(r"^HEAD_LR = [^ ]+", f"HEAD_LR = {value!r}", source, count=1, flags=re.MULTILINE)
    return text, f"HEAD_LR 0.001 -> {value:g}"


def crashed(number: int) -> bool:
    """Whether a trial crashed."""
    return number % CRASHED == 3


def kept(number: int) -> bool:
    """Whether a trial was kept."""
    return number % KEPT == 7 and not crashed(number)


def _commits(workspace: Workspace, source: str, base: str, trials: int) -> list[str]:
    """One commit for each trial on top of `base`."""
    parts, head = [], base
    for number in range(1, trials + 1):
        text, hypothesis = changed(source, number)
        who = f"miner <miner@localhost> {1_700_000_000 + number} +0000"
        message, data = hypothesis.encode(), text.encode()
        ref = f"refs/experiments/{number:04d}"
        begin = f"commit {ref}\nmark :{number}\ncommitter {who}\ndata {len(message)}\n".encode()
        parts.append(begin + message + f"\nfrom {head}\nM 100644 inline train.py\ndata {len(data)}\n".encode() + data)
        if kept(number):
            head = f":{number}"
    marks = workspace.path / ".git" / "marks"
    command = ["git", "-C", str(workspace.path), "fast-import", "--quiet", f"--export-marks={marks}"]
    subprocess.run(command, input=b"\n".join(parts) + b"\n", check=True, timeout=600)
    numbered = dict(line.split() for line in marks.read_text().splitlines())
    return [numbered[f":{number}"] for number in range(1, trials + 1)]


def _events(trials: int, base: str, commits: list[str], rng: random.Random) -> Iterator[dict[str, Any]]:
    clock, level, head, begun = sessions.START, 2.53, base, sessions.START
    curve = [[5.0 * k, round(9.0 / (1 + 0.06 * k), 4)] for k in range(1, 61)]

    def run(number: int, arm: str, value: float | None) -> dict[str, Any]:
        nonlocal clock
        clock += SECONDS + 2
        return {
            "event": "run",
            "at": written(clock),
            "number": number,
            "arm": arm,
            "val_bpb": value,
            "failure": "" if value else "crash",
            "detail": "" if value else "it ended with status 1",
            "seconds": SECONDS,
            "memory_mb": 900.0,
            "log": f"logs/{number}.log",
            "tokens_per_second": 4e5 + rng.gauss(0, 500),
            "curve": curve if value else [],
            "conditions": [],
        }

    def trial(number: int, commit: str, hypothesis: str) -> dict[str, Any]:
        about = {"number": number, "commit": commit, "base": head, "hypothesis": hypothesis}
        return {"event": "trial", "at": written(clock), "fingerprint": f"{number:064x}", "proposer": "tune", **about}

    yield {"event": "session", "seed": 1, "tag": sessions.TAG, "at": written(clock)}
    yield {"event": "begin", "at": written(clock)}
    yield trial(0, base, "baseline")
    for _ in range(3):
        yield run(0, "incumbent", round(level + rng.gauss(0, 0.004), 6))
    yield {"event": "decision", "at": written(clock), "number": 0, "decision": "keep", "delta": 0.0}
    for number, commit in enumerate(commits, 1):
        value = round(0.001 * (1 + number / 997), 9)
        yield trial(number, commit, f"HEAD_LR 0.001 -> {value:g}")
        outcome = {"event": "decision", "number": number, "reason": "the interval", "p": 0.4}
        if crashed(number):
            yield run(number, "candidate", None)
            yield run(number, "candidate", None)
            yield {**outcome, "at": written(clock), "decision": "crash", "delta": None}
            continue
        gain = 0.002 if kept(number) else -abs(rng.gauss(0, 0.03))
        yield run(number, "candidate", round(level - gain + rng.gauss(0, 0.004), 6))
        yield run(number, "incumbent", round(level + rng.gauss(0, 0.004), 6))
        word = "keep" if kept(number) else "discard"
        ends = {"low": gain - 0.001, "high": gain + 0.001}
        yield {**outcome, "at": written(clock), "decision": word, "delta": gain, **ends}
        if kept(number):
            head, level = commit, level - gain
        if number % 200 == 0:
            yield {"event": "end", "at": written(clock), "reason": "interrupted", "seconds": clock - begun}
            clock += 900
            begun = clock
            yield {"event": "begin", "at": written(clock)}
