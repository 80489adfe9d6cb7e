"""A session made up for looking at: every value in it is drawn here, by a seeded generator, and was measured nowhere.

It has what a night of mining has: kept and discarded trials, crashes, runs stopped by their curve and runs on an unfit
machine, a kill, somebody else's proposal, submissions in every state, and text that tries to break out of the page.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from miner.journal import about
from miner.journal.about import About
from miner.journal.journal import Journal
from miner.journal.worktree import Workspace
from trainer.project import hyperparameters, recipe

NAME = "embedded-0-MadeUpTe"
TAG = "20261124-211503"
BUDGET = 300.0
SIGMA = 0.006
START = 1_795_554_903.0  # 2026-11-24T21:15:03Z
HOSTILE = "try <script>document.title='owned'</script> \x1b[31mred\x1b[0m \u202eevil & \"quoted\""
TRACEBACK = (
    'Traceback (most recent call last):\n  File "train.py", line 212, in <module>\n    main()\n'
    "AssertionError: MODEL_DIM must be divisible by HEAD_DIM \x1b]0;owned\x07<img src=x onerror=alert(1)>\n"
)

# hypothesis, changes to constants, true gain in bpb (None: it crashes)
IDEAS: list[tuple[str, Mapping[str, int | float], float | None]] = [
    ("EMBED_LR 0.01 -> 0.015: embeddings see few updates in a short run", {"EMBED_LR": 0.015}, 0.004),
    ("MATRIX_LR 0.01 -> 0.02", {"MATRIX_LR": 0.02}, 0.031),
    ("DEPTH 1 -> 2: more layers within the same budget", {"DEPTH": 2}, -0.046),
    ("WARMDOWN_FRACTION 0.5 -> 0.7: a longer decay", {"WARMDOWN_FRACTION": 0.7}, 0.024),
    ("BATCH_SIZE 8 -> 16", {"BATCH_SIZE": 16}, -0.118),
    ("BATCH_SIZE 8 -> 4: twice the steps", {"BATCH_SIZE": 4}, 0.052),
    ("HEAD_LR 0.001 -> 0.002, EMBED_LR 0.01 -> 0.012", {"HEAD_LR": 0.002, "EMBED_LR": 0.012}, 0.001),
    ("WEIGHT_DECAY 0.1 -> 0.2", {"WEIGHT_DECAY": 0.2}, -0.003),
    ("MODEL_DIM 32 -> 40", {"MODEL_DIM": 40}, None),
    ("ADAM_BETA2 0.95 -> 0.96", {"ADAM_BETA2": 0.96}, -0.008),
]


@dataclass(slots=True)
class Night:
    """The state of the drawing: a clock that only we move, the journal, the tree and the true values."""

    folder: Path
    journal: Journal
    tree: Workspace
    rng: random.Random
    clock: float = START
    runs: int = 0
    true: dict[str, float] = field(default_factory=dict)

    def at(self) -> str:
        return datetime.fromtimestamp(self.clock, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def write(self, kind: str, **fields: Any) -> None:
        self.journal.append(kind, **{"at": self.at(), **fields})

    def run(self, number: int, commit: str, arm: str, *, failure: str = "", log: str | None = None) -> float | None:
        """One run in the journal and its log; the value."""
        end = self.true[commit] + self.rng.gauss(0, SIGMA)
        seconds = 366 + self.rng.gauss(0, 3)
        last = {"stopped": 0.35, "unfit": 1.0}.get(failure, 0.0 if failure else 1.0)
        rate = (398_000 if failure != "unfit" else 291_000) + self.rng.gauss(0, 2500)
        points = [round(BUDGET * k / 60, 1) for k in range(1, int(60 * last) + 1)]
        curve = [
            [t, round(end * 1.35 + 5.6 * math.exp(-t / 21) + 1.1 * math.exp(-t / 120) + self.rng.gauss(0, 0.012), 4)]
            for t in points
        ]
        seconds = seconds if last == 1 else 40 + BUDGET * last
        self.clock += seconds + 2
        self.runs += 1
        trial = self.journal.session.trials[-1]
        name = f"{number:04d}-{len(trial.runs) + 1:02d}-{arm}.log"
        value = None if failure else round(end, 6)
        if log is None:
            lines = [
                f"step {20 * k:05d} | loss: {loss:.4f} | tok/sec: {rate:,.0f}" for k, (_, loss) in enumerate(curve)
            ]
            if value is not None:
                lines += ["---", f"val_bpb:          {value:.6f}", f"training_seconds: {BUDGET:.1f}", "num_steps: 1214"]
            log = "\n".join(lines) + "\n"
        (self.folder / "logs").mkdir(exist_ok=True)
        (self.folder / "logs" / name).write_text(log)
        details = {"stopped": "its loss at 105 s is above the incumbent's band", "unfit": "throughput 27 % off"}
        self.write(
            "run",
            number=number,
            arm=arm,
            val_bpb=value,
            failure=failure,
            detail=details.get(failure, "it ended with status 1: " + TRACEBACK[-60:] if failure else ""),
            seconds=round(seconds, 3),
            memory_mb=9120.5,
            log=f"logs/{name}",
            tokens_per_second=round(rate, 1) if curve else None,
            curve=curve,
            conditions=["load 3.4"] if failure == "unfit" else [],
        )
        return value


def make(home: Path, *, trials: int = 44, seed: int = 5, name: str = NAME) -> Path:
    """Write the session under `home`; its folder. Ends inside a trial, as a running one does."""
    smoke = recipe.load("smoke")
    folder = home / "work" / name
    journal = Journal(folder / "session.jsonl")
    journal.append("session", seed=seed, tag=TAG, at=datetime.fromtimestamp(START, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    night = Night(folder, journal, Workspace.open(folder / "tree", TAG, smoke.files), random.Random(seed))
    night.write("begin")
    base = night.tree.head()
    night.true[base] = 2.534
    _trial(night, 0, "baseline", base, base, "")
    baseline = [night.run(0, base, "incumbent") for _ in range(3)]
    night.write("decision", number=0, decision="keep", delta=0.0)
    chain = 2.534
    for number in range(1, trials + 1):
        if number == 19:  # killed in the middle of a run, started again after a while
            night.clock += 2_460
            night.write("begin")
        if number == 27:  # somebody else's proposal was approved
            base = night.tree.commit(0, _edited(night.tree.read(base, "train.py"), {"SEED": 4711}), "theirs")
            night.true[base] = night.true[night.tree.head()] - 0.017
            chain = round(chain - 0.0912, 6)
            night.write(
                "frontier",
                trial=number - 1,
                commit=base,
                code_hash="ab" * 32,
                metric=f"{chain:.6f}",
                miner="TheirWa11etTheirWa11etTheirWa11et",
                own=False,
            )
        base = _judge(night, number, base, last=number == trials)
        if number == 14:
            _submit(night, 0, "approved")
            chain = round(chain - 0.0871, 6)
            night.write(
                "frontier",
                trial=number,
                commit=base,
                code_hash="cd" * 32,
                metric=f"{chain:.6f}",
                miner="MadeUpTestWa11et",
                own=True,
            )
        if number == 20:
            _submit(night, None, "")
        if number == 38:
            _submit(night, 7, "pending")
    journal.close()
    about.save(folder, facts(statistics.fmean(value for value in baseline if value is not None), chain))
    return folder


def facts(baseline: float, best: float) -> About:
    return About(
        at="2026-11-24T21:15:03Z",
        network="embedded",
        project=0,
        token_name="Made-up project of the tests",
        token_symbol="MADEUP",
        bundle_id="made-up-by-the-tests-1",
        baseline=f"{baseline:.6f}",
        best=f"{best:.6f}",
        budget=BUDGET,
        hardware_class="made-up-machine-16c",
        data_snapshot="5a" * 32,
        method="self-reported",
        isolation="none",
        machine={"chip": "no machine: drawn by tests", "memory_bytes": "68719476736", "os": "none"},
        versions={"mlx": "0.32.0", "numpy": "2.1.0", "openresearch-miner": "0.1.0", "python": "3.11.7"},
    )


def _trial(night: Night, number: int, hypothesis: str, commit: str, base: str, proposer: str) -> None:
    night.write(
        "trial",
        number=number,
        hypothesis=hypothesis,
        fingerprint=f"{number:064x}",
        commit=commit,
        base=base,
        proposer=proposer,
    )


def _edited(source: str, changes: Mapping[str, int | float]) -> str:
    known = {constant.name for constant in hyperparameters.find(source)}
    return hyperparameters.replace(source, {name: value for name, value in changes.items() if name in known})


def _judge(night: Night, number: int, base: str, *, last: bool) -> str:
    """One trial, with the runs and the decision that its drawn gain leads to; the incumbent after it."""
    rng = night.rng
    hypothesis, changes, gain = IDEAS[(number - 1) % len(IDEAS)]
    if number > len(IDEAS):
        changes = {
            name: value + number if isinstance(value, int) else round(value * (1 + number / 1000), 6)
            for name, value in changes.items()
        }
        gain = None if gain is None else rng.choice([gain / 3, gain / 6, -abs(gain), -0.011, -0.034])
        hypothesis = f"{hypothesis.split(':')[0]}, {'half' if number % 2 else 'a third'} as far"
    if number == 13:
        hypothesis = HOSTILE
    if number == 22:
        gain = -3.1
    source = _edited(night.tree.read(base, "train.py"), changes) + f"# {hypothesis!r}\n"
    commit = night.tree.commit(number, source, hypothesis)
    night.true[commit] = night.true[base] - (gain or 0.0)
    _trial(night, number, hypothesis, commit, base, rng.choice(["tune", "tune", "agent"]))
    if gain is None:
        for _ in range(2):
            night.run(number, commit, "candidate", failure="crash", log=TRACEBACK)
        night.write("decision", number=number, decision="crash", delta=None, reason="two runs failed")
        return base
    if number % 9 == 5:
        night.run(number, commit, "candidate", failure="unfit")
    if gain < -0.04 and number % 2:
        night.run(number, commit, "candidate", failure="stopped")
        night.write("decision", number=number, decision="discard", delta=None, reason="stopped by its loss curve")
        return base
    theirs = [night.run(number, base, "incumbent")]
    own = [night.run(number, commit, "candidate")]
    if last:
        return base
    if gain > -0.02:
        theirs.append(night.run(number, base, "incumbent"))
        own += [night.run(number, commit, "candidate") for _ in range(2)]
    delta = statistics.fmean(v for v in theirs if v is not None) - statistics.fmean(v for v in own if v is not None)
    half = SIGMA * 2.9 * math.sqrt(1 / len(own) + 1 / len(theirs))
    kept = delta - half > 0
    night.write(
        "decision",
        number=number,
        decision="keep" if kept else "discard",
        delta=delta,
        low=delta - half,
        high=delta + half,
        p=0.002 if kept else 0.4,
        reason="the interval lies above zero" if kept else "a gain of that size would hardly look this poor",
    )
    if kept:
        night.tree.keep(commit)
    return commit if kept else base


def _submit(night: Night, proposal: int | None, status: str) -> None:
    kept = [trial.number for trial in night.journal.session.trials if trial.kept]
    night.write("intent", number=kept[-1], code_hash="c0" * 32, log_hash="10" * 32)
    night.write("sent", signature="MadeUpSignature" * 5, last_valid=1)
    if proposal is None:
        night.write("abandoned")
        return
    night.write("submitted", proposal=proposal)
    night.write("spent", lamports=2_145_600 + 7_000 * proposal, stake=4)
    if status:
        night.write("status", proposal=proposal, status=status)
